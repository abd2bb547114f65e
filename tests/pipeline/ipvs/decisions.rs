//! Records of decisions: what each says, for every outcome and cause.

use std::time::Duration;

use pod2pod_common::decision::{
    DECISION_RING_BYTES, DecisionRecord, ENTRY_TRACKED, MAX_LAST_SYNS, MAX_PENDING, SEEN_CONTROLLED,
    SEEN_EXPIRED, SEEN_LAST_KNOWN, SEEN_LOOKED, SEEN_MADE, SEEN_MADE_SERVER, SEEN_MET, SEEN_MET_SERVER,
    SEEN_NO_SERVER, SEEN_REPEATED, SERVER_AVAILABLE,
};
use pod2pod_user::ipvs::{
    exact::{Cause, Decision, Malformed, Outcome},
    services::Standing,
    state::State,
};

const ACCEPT: u32 = 1;
const DROP: u32 = 0;
/// At 250 ticks a second.
const TICK: Duration = Duration::from_millis(4);

fn mapped(address: [u8; 4]) -> [u8; 16] {
    std::net::Ipv4Addr::from(address).to_ipv6_mapped().octets()
}

/// A SYN of 10.244.1.2:40000 that met the entry of a connection whose last packet came a minute ago.
fn record(seen: u16, verdict: u32) -> DecisionRecord {
    DecisionRecord {
        time_ns: 5_000_000_000,
        timeout: 120 * 250,
        left: 60 * 250,
        left_after: 60 * 250,
        client: mapped([10, 244, 1, 2]),
        service: mapped([10, 96, 0, 10]),
        met_server: mapped([10, 244, 2, 2]),
        made_server: mapped([10, 244, 3, 2]),
        isn: 7,
        verdict,
        entry_flags: ENTRY_TRACKED,
        met_weight: 0,
        met_flags: SERVER_AVAILABLE,
        made_weight: 3,
        client_port: 40_000,
        service_port: 80,
        met_port: 8080,
        made_port: 8081,
        state: 5,
        state_after: 3,
        seen: seen | SEEN_LOOKED,
        ..DecisionRecord::default()
    }
}

fn decision(record: &DecisionRecord) -> Decision {
    Decision::of(record, TICK).unwrap()
}

#[test]
fn outcomes_and_causes() {
    let met = SEEN_MET | SEEN_MET_SERVER;
    let gone = DecisionRecord { met_flags: 0, ..record(met, DROP) };
    let again = record(met | SEEN_REPEATED | SEEN_LAST_KNOWN, ACCEPT);
    // IP_VS_TCP_S_SYN_RECV: the SYN's first copy was taken by this very entry.
    let own = DecisionRecord { state: 3, ..again };
    for (record, expected, server) in [
        (record(SEEN_MADE, ACCEPT), Outcome::New, Some([10, 244, 3, 2])),
        (record(met, ACCEPT), Outcome::Reused, Some([10, 244, 2, 2])),
        (own, Outcome::Repeated, Some([10, 244, 2, 2])),
        // Its first copy was dropped.
        (again, Outcome::Reused, Some([10, 244, 2, 2])),
        (record(met | SEEN_EXPIRED | SEEN_MADE, ACCEPT), Outcome::Rescheduled, Some([10, 244, 3, 2])),
        (record(met | SEEN_EXPIRED, ACCEPT), Outcome::PassedOn, None),
        (record(met | SEEN_EXPIRED, DROP), Outcome::Dropped(Cause::Tracked), None),
        (record(met | SEEN_EXPIRED | SEEN_NO_SERVER, DROP), Outcome::Dropped(Cause::NoServer), None),
        (record(SEEN_NO_SERVER, DROP), Outcome::Dropped(Cause::NoServer), None),
        (gone, Outcome::Dropped(Cause::RemovedServer), None),
        // Its server is there, and nothing else was seen.
        (record(met, DROP), Outcome::Dropped(Cause::Unknown), None),
        (record(SEEN_MADE, DROP), Outcome::Dropped(Cause::Unknown), None),
        (record(0, DROP), Outcome::Dropped(Cause::Unknown), None),
    ] {
        let told = decision(&record);
        assert_eq!(told.outcome, expected, "{:#x}", record.seen);
        assert_eq!(told.server().map(|(address, _)| address), server.map(Into::into), "{expected:?}");
        assert_eq!(told.met.is_some(), record.seen & SEEN_MET != 0);
        assert_eq!(told.tuple.client, ([10, 244, 1, 2].into(), 40_000));
        assert_eq!(told.tuple.service, ([10, 96, 0, 10].into(), 80));
    }
    assert_eq!(Decision::of(&record(0, ACCEPT), TICK), Err(Malformed), "none of IPVS's");
}

#[test]
fn what_an_entry_was_like() {
    let told = decision(&record(SEEN_MET | SEEN_MET_SERVER | SEEN_CONTROLLED, ACCEPT));
    let met = told.met.unwrap();
    assert_eq!((met.server, met.state), (([10, 244, 2, 2].into(), 8080), State::TimeWait));
    assert_eq!((met.left, met.idle), (Duration::from_secs(60), Duration::from_secs(60)));
    assert_eq!(met.standing, Standing::Weight(0));
    assert!(met.is_controlled && met.is_tracked());
    assert_eq!(told.after, Some((State::SynRecv, Duration::from_secs(60))));
    assert_eq!((told.at, told.isn, told.is_repeated), (Duration::from_secs(5), 7, None));

    let made = decision(&record(SEEN_MADE | SEEN_MADE_SERVER | SEEN_LAST_KNOWN, ACCEPT));
    assert_eq!(made.made, Some((([10, 244, 3, 2].into(), 8081), Standing::Weight(3))));
    assert_eq!(made.is_repeated, Some(false));
    let unknown = decision(&record(SEEN_MET, ACCEPT)).met.unwrap();
    assert_eq!(unknown.standing, Standing::Unknown);
    assert!(!unknown.is_controlled);
}

#[test]
fn times_and_numbers_that_cannot_be() {
    let seen = SEEN_MET | SEEN_MET_SERVER;
    let over = DecisionRecord { left: (-3_i64).cast_unsigned(), ..record(seen, ACCEPT) };
    let met = decision(&over).met.unwrap();
    assert_eq!((met.left, met.idle), (Duration::ZERO, Duration::from_secs(120)), "its time was up");
    let huge = DecisionRecord { left: 1 << 62, timeout: u64::MAX, met_weight: -1, state: 99, ..over };
    let met = decision(&huge).met.unwrap();
    let day = Duration::from_secs(86_400);
    assert_eq!((met.left, met.idle, met.standing), (day, day, Standing::Weight(0)));
    assert_eq!(met.state, State::Other);
    for number in 0..=10 {
        let record = DecisionRecord { state: number, ..record(seen, ACCEPT) };
        assert_ne!(decision(&record).met.unwrap().state, State::Other, "{number}");
    }
}

#[test]
fn limits_hold_what_they_are_said_to() {
    // A record and the ring's own header.
    let fit = DECISION_RING_BYTES / (size_of::<DecisionRecord>() as u32 + 8);
    assert_eq!(fit, 1724);
    assert_eq!((MAX_PENDING, MAX_LAST_SYNS * 8), (4096, 512 * 1024));
}
