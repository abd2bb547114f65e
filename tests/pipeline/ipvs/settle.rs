//! Both modes side by side: which of polling's reuses are told, beside the decisions that the kernel was seen to make.

use std::{net::Ipv4Addr, time::Duration};

use pod2pod_user::ipvs::{
    Confidence, Reuse, Sight, Tuple, Verdict,
    exact::{
        Cause, Decision, Met, Outcome,
        settle::{MAX_TOLD, Settle, Settled, Stats},
    },
    kernel::Kernel,
    parse::Protocol,
    services::Standing,
    situation::{Severity, Situation},
    state::State,
};

fn tuple(number: u32) -> Tuple {
    let client = Ipv4Addr::from(0x0a00_0000 + number);
    Tuple { protocol: Protocol::TCP, client: (client.into(), 40_001), service: ([10, 96, 0, 10].into(), 80) }
}

pub(super) fn at(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

pub(super) fn reuse(number: u32, confidence: Confidence, may_have_expired: bool) -> Reuse {
    let sight = Sight { server: ([10, 244, 2, 2].into(), 8080), state: State::TimeWait, expires: 60 };
    Reuse {
        tuple: tuple(number),
        before: sight,
        now: sight,
        verdict: Verdict::Reused,
        confidence,
        may_have_expired,
        idle: None,
        standing: Standing::Weight(1),
        severity: Severity::Info,
        situation: Situation::SameServerAlive,
    }
}

fn decision(number: u32, outcome: Outcome, has_met: bool) -> Decision {
    let met = Met {
        server: ([10, 244, 2, 2].into(), 8080),
        standing: Standing::Weight(0),
        state: State::TimeWait,
        flags: 0,
        left: at(60),
        idle: at(60),
        is_controlled: false,
    };
    Decision {
        at: at(0),
        tuple: tuple(number),
        outcome,
        is_repeated: None,
        met: has_met.then_some(met),
        made: None,
        after: None,
        isn: 1,
    }
}

/// Polls every five seconds up to `last`.
fn polled(settle: &mut Settle, last: u64) {
    (0..=last).step_by(5).for_each(|second| settle.poll(at(second)));
}

pub(super) const CERTAIN: Confidence = Confidence::Certain;
const PROBABLE: Confidence = Confidence::Probable;

#[test]
fn what_was_decided_is_not_told_again() {
    for (outcome, has_met, expected) in [
        (Outcome::Reused, true, Settled::Told),
        (Outcome::Rescheduled, true, Settled::Told),
        (Outcome::Dropped(Cause::Tracked), true, Settled::Told),
        // One that was scheduled after its SYN had been dropped.
        (Outcome::New, false, Settled::Told),
        (Outcome::Repeated, true, Settled::Open),
        (Outcome::Dropped(Cause::NoServer), false, Settled::Open),
    ] {
        let mut settle = Settle::default();
        settle.follow(Some(at(0)));
        polled(&mut settle, 20);
        settle.decision(&decision(1, outcome, has_met), at(21));
        settle.poll(at(25));
        assert_eq!(settle.settle(&reuse(1, CERTAIN, false)), expected, "{outcome:?}");
        assert_eq!(settle.settle(&reuse(2, CERTAIN, false)), Settled::Open, "another client");
        // A poll may have missed the entry; the one after it sees the change.
        settle.poll(at(30));
        assert_eq!(settle.settle(&reuse(1, CERTAIN, false)), expected, "{outcome:?}");
        settle.poll(at(35));
        assert_eq!(settle.settle(&reuse(1, CERTAIN, false)), Settled::Open, "a later one");
    }
}

#[test]
fn what_no_decision_explains_is_disproved_if_all_were_followed() {
    for (followed_since, reuse, expected) in [
        (Some(0), reuse(1, PROBABLE, false), Settled::Disproved),
        (Some(0), reuse(1, CERTAIN, true), Settled::Disproved),
        (Some(0), reuse(1, CERTAIN, false), Settled::Open),
        // The change may have come before.
        (Some(11), reuse(1, PROBABLE, false), Settled::Open),
        (Some(10), reuse(1, PROBABLE, false), Settled::Disproved),
        (None, reuse(1, PROBABLE, false), Settled::Open),
        (None, reuse(1, CERTAIN, true), Settled::Open),
    ] {
        let mut settle = Settle::default();
        settle.follow(followed_since.map(at));
        polled(&mut settle, 20);
        assert_eq!(settle.settle(&reuse), expected, "{followed_since:?} {reuse:?}");
    }
    let mut settle = Settle::default();
    settle.follow(Some(at(0)));
    polled(&mut settle, 20);
    let udp = Tuple { protocol: Protocol::UDP, ..tuple(1) };
    let datagrams = Reuse { tuple: udp, ..reuse(1, PROBABLE, false) };
    assert_eq!(settle.settle(&datagrams), Settled::Open, "datagrams are not followed");
    settle.settle(&reuse(1, PROBABLE, false));
    settle.settle(&reuse(1, CERTAIN, false));
    settle.decision(&decision(1, Outcome::Reused, true), at(20));
    settle.settle(&reuse(1, CERTAIN, false));
    assert_eq!(*settle.stats(), Stats { told: 1, disproved: 1, unexplained: 1, forgotten: 0 });
}

#[test]
fn so_many_decisions_are_remembered() {
    let mut settle = Settle::default();
    polled(&mut settle, 20);
    for number in 0..=MAX_TOLD as u32 {
        settle.decision(&decision(number, Outcome::Reused, true), at(21));
    }
    assert_eq!(settle.stats().forgotten, 1);
    let last = MAX_TOLD as u32;
    assert_eq!(settle.settle(&reuse(last - 1, CERTAIN, false)), Settled::Told);
    assert_eq!(settle.settle(&reuse(last, CERTAIN, false)), Settled::Open, "one past them");
    // One that is known takes no more room, and is as young as its last decision.
    settle.decision(&decision(0, Outcome::Reused, true), at(36));
    assert_eq!(settle.stats().forgotten, 1);
    // They make room again.
    [25, 30, 35].into_iter().for_each(|second| settle.poll(at(second)));
    settle.decision(&decision(last, Outcome::Reused, true), at(36));
    assert_eq!(settle.settle(&reuse(last, CERTAIN, false)), Settled::Told);
    assert_eq!(settle.settle(&reuse(0, CERTAIN, false)), Settled::Told);
    assert_eq!(settle.settle(&reuse(1, CERTAIN, false)), Settled::Open);
}

#[test]
fn decisions_have_a_situation_if_they_met_an_entry() {
    let kernel = Kernel {
        release: Some("6.1.0".to_owned()),
        conn_reuse_mode: Some(0),
        expire_nodest_conn: Some(0),
        conntrack: Some(1),
        ..Kernel::default()
    };
    for (outcome, verdict, situation) in [
        (Outcome::Reused, Verdict::Reused, (Situation::DrainingServerModeOff, Severity::Critical)),
        (Outcome::Rescheduled, Verdict::Rescheduled, (Situation::Rescheduled, Severity::Info)),
        (
            Outcome::Dropped(Cause::RemovedServer),
            Verdict::Dropped,
            (Situation::RemovedServerDropped, Severity::Critical),
        ),
        (
            Outcome::Dropped(Cause::Tracked),
            Verdict::Dropped,
            (Situation::RescheduledAfterDrop, Severity::Warning),
        ),
        (Outcome::Dropped(Cause::NoServer), Verdict::Dropped, (Situation::NoServer, Severity::Critical)),
        (Outcome::Dropped(Cause::Unknown), Verdict::Dropped, (Situation::Dropped, Severity::Critical)),
    ] {
        let told = decision(1, outcome, true);
        assert_eq!((told.verdict(), told.situation(&kernel)), (Some(verdict), Some(situation)));
        let alone = decision(1, outcome, false);
        assert_eq!(alone.situation(&kernel), None, "{outcome:?}");
    }
    for outcome in [Outcome::New, Outcome::PassedOn, Outcome::Repeated] {
        let told = decision(1, outcome, true);
        assert_eq!((told.verdict(), told.situation(&kernel)), (None, None), "{outcome:?}");
    }
}
