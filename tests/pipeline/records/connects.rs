//! Connection attempts as records: what each says, which are written, what is counted, and the columns of a terminal.

use std::time::Duration;

use pod2pod_user::{
    capture::Unreachable,
    enrich::{Config, Connects, Enricher, Failures, MAX_FAILED_AT_ONCE, Rate, WallOffset},
    reassembly::{Attempt, Connection, Fate, Side},
    record::{Record, schema::schema},
    sinks::text::Columns,
};
use serde_json::Value;

use super::{address, at, connection, line, parsed, schema::check as check_schema, with};

const MS: u64 = 1_000_000;

fn attempt(fate: Fate) -> Attempt {
    let connection = Connection {
        local: Some(Side::Originator),
        responder_isn: None,
        syn_time: Some(at(0)),
        established_time: None,
        ..connection()
    };
    Attempt { connection, fate, end: at(1003 * MS), late: false }
}

fn all() -> Vec<Attempt> {
    let unreachable = Unreachable { kind: 3, code: 1, by_this_kernel: true };
    [Fate::Answered, Fate::Refused, Fate::Unreachable(unreachable), Fate::Timeout, Fate::Unknown]
        .map(attempt)
        .to_vec()
}

fn told(attempt: &Attempt, config: Config) -> (Record, pod2pod_user::enrich::Fate) {
    let mut enricher = Enricher::new(config);
    let (record, fate) = enricher.enrich_attempt(attempt, WallOffset(0));
    (record.clone(), fate)
}

fn json(attempt: &Attempt) -> Value {
    serde_json::from_str(&line(&told(attempt, Config::default()).0)).unwrap()
}

#[test]
fn a_record_says_what_is_known_and_nothing_else() {
    let mut refused = attempt(Fate::Refused);
    refused.connection.syn_retransmits = 1;
    let (record, _) = told(&refused, Config::default());
    let expected = concat!(
        r#"{"time":"2026-11-21T08:15:30.123456789Z","kind":"connect","outcome":"refused","observed_at":"client","#,
        r#""error.type":"refused","duration":1.003,"client.address":"10.1.4.9","client.port":51514,"#,
        r#""server.address":"10.1.2.3","server.port":8080,"network.type":"ipv4","#,
        r#""connection.id":"f6bd9bd8e06ad2a5","tcp.connect.retransmits":1}"#,
        "\n"
    );
    let id = record.connection_id;
    assert_eq!(line(&record), expected.replace("f6bd9bd8e06ad2a5", &format!("{id:016x}")));
    let record = json(&all()[2]);
    assert_eq!(
        (&record["outcome"], &record["icmp.type"], &record["icmp.code"]),
        (&"unreachable".into(), &3.into(), &1.into())
    );
    for attempt in all() {
        check_schema(&json(&attempt), &schema());
        let late = Attempt { late: true, ..attempt };
        assert_eq!(json(&late)["late"], true);
    }
}

#[test]
fn both_ends_of_a_failed_attempt_have_one_id_through_nat() {
    let client = attempt(Fate::Timeout);
    let mut server = client;
    server.connection.local = Some(Side::Responder);
    server.connection.originator = address("10.9.9.9:1");
    server.connection.responder = address("10.8.8.8:2");
    assert_eq!(json(&client)["connection.id"], json(&server)["connection.id"]);
    server.connection.originator_isn = Some(1001);
    assert_ne!(json(&client)["connection.id"], json(&server)["connection.id"]);
    // Of one that was answered it is the connection's own.
    let mut answered = attempt(Fate::Answered);
    answered.connection.responder_isn = Some(7_000_000);
    assert_eq!(json(&answered)["connection.id"], parsed(with(|_| ()))["connection.id"]);
}

#[test]
fn exchanges_say_that_the_syn_was_sent_again() {
    assert_eq!(parsed(with(|_| ())).get("tcp.connect.retransmits"), None);
    assert_eq!(parsed(with(|e| e.connection.syn_retransmits = 2))["tcp.connect.retransmits"], 2);
}

#[test]
fn what_is_asked_for_is_written_and_all_is_counted() {
    use pod2pod_user::enrich::Fate::{Ignored, Keep};
    for (connects, answered, failed) in [
        (Connects::Off, Ignored, Ignored),
        (Connects::Failed, Ignored, Keep),
        (Connects::Slow, Keep, Keep),
        (Connects::All, Keep, Keep),
    ] {
        let mut enricher = Enricher::new(Config { connects, ..Config::default() });
        for attempt in all() {
            let expected = if attempt.fate == Fate::Answered { answered } else { failed };
            assert_eq!(
                enricher.enrich_attempt(&attempt, WallOffset(0)).1,
                expected,
                "{connects:?} {attempt:?}"
            );
        }
        let counts = enricher.stats().connects;
        assert_eq!(counts.total(), 5);
        assert!(counts.all().all(|(_, place, count)| count == u64::from(place.as_str() == "client")));
        // One that is told a second time is the same one.
        enricher.enrich_attempt(&Attempt { late: true, ..attempt(Fate::Answered) }, WallOffset(0));
        assert_eq!((enricher.stats().connects, enricher.stats().exchanges), (counts, 6));
    }
}

#[test]
fn failures_and_slow_connects_are_never_sampled_away() {
    use pod2pod_user::enrich::Fate::{Keep, SampledAway};
    let none = || Config {
        rate: Rate::from_millionths(0).unwrap(),
        slow: Duration::from_secs(2),
        ..Config::default()
    };
    for attempt in all() {
        let expected = if attempt.fate == Fate::Answered { SampledAway } else { Keep };
        assert_eq!(told(&attempt, none()).1, expected, "{attempt:?}");
    }
    let mut again = attempt(Fate::Answered);
    again.connection.syn_retransmits = 1;
    assert_eq!(told(&again, none()).1, Keep);
    assert_eq!(told(&attempt(Fate::Answered), Config { slow: Duration::from_secs(1), ..none() }).1, Keep);
}

#[test]
fn a_flood_of_failures_is_counted_and_told_in_part() {
    use pod2pod_user::enrich::Fate::{Keep, OverRate};
    let flood = u64::from(MAX_FAILED_AT_ONCE) + 1;
    for (failures, fate, own, last) in [
        (Failures::Bounded, Fate::Refused, false, OverRate),
        (Failures::Bounded, Fate::Timeout, false, OverRate),
        (Failures::All, Fate::Refused, false, Keep),
        // Slow ones became connections, and the agent's own are none of anybody's.
        (Failures::Bounded, Fate::Answered, false, Keep),
        (Failures::Bounded, Fate::Refused, true, Keep),
    ] {
        let mut enricher = Enricher::new(Config { failures, ..Config::default() });
        if own {
            enricher.set_own_tuples([(address("10.1.4.9:51514"), address("10.1.2.3:8080"))]);
        }
        let scan = |enricher: &mut Enricher, port| {
            let mut attempt = attempt(fate);
            attempt.connection.responder.set_port(port);
            enricher.enrich_attempt(&attempt, WallOffset(0)).1
        };
        for number in 1..flood {
            let told = scan(&mut enricher, if own { 8080 } else { number as u16 });
            assert!(own || told == Keep, "{failures:?} {fate:?} {number}");
        }
        assert_eq!(scan(&mut enricher, 9000), last, "one past it: {failures:?} {fate:?}");
        let stats = *enricher.stats();
        assert_eq!(stats.exchanges, stats.kept + stats.over_rate + stats.own, "{stats:?}");
        assert_eq!((stats.exchanges, stats.over_rate), (flood, u64::from(last == OverRate)));
        assert_eq!(stats.connects.total(), if own { 1 } else { flood }, "metrics count every one");
        // Another client has its own.
        let mut other = attempt(fate);
        other.connection.originator = address("10.1.4.10:51514");
        assert_eq!(enricher.enrich_attempt(&other, WallOffset(0)).1, Keep);
    }
}

#[test]
fn what_the_agent_tried_itself_is_dropped() {
    let mut enricher = Enricher::new(Config::default());
    // Of an attempt that failed its port is known, and not its address.
    enricher.set_own_tuples([(address("0.0.0.0:51514"), address("10.1.2.3:8080"))]);
    for (fate, mut attempt) in [
        (pod2pod_user::enrich::Fate::Own, attempt(Fate::Refused)),
        (pod2pod_user::enrich::Fate::Keep, attempt(Fate::Refused)),
    ] {
        if fate == pod2pod_user::enrich::Fate::Keep {
            attempt.connection.originator = address("10.1.4.9:51515");
        }
        assert_eq!(enricher.enrich_attempt(&attempt, WallOffset(0)).1, fate);
    }
    assert_eq!(enricher.stats().connects.total(), 1);
}

#[test]
fn a_terminal_shows_why() {
    let check = |attempt: &Attempt, expected: &str| {
        let mut out = Vec::new();
        Columns::new(160, false).push_line(&mut out, &told(attempt, Config::default()).0);
        let text = String::from_utf8(out).unwrap();
        let line = text.lines().last().unwrap();
        assert!(line.contains("(SYN)") && line.ends_with(expected), "{line}");
    };
    let ends = ["complete", "refused", "unreachable, ICMP 3/1", "timeout", "gap"];
    for (mut attempt, end) in all().into_iter().zip(ends) {
        check(&attempt, end);
        attempt.connection.syn_retransmits = 1;
        check(&attempt, &format!("{end}, SYN sent twice"));
        attempt.connection.syn_retransmits = 3;
        check(&attempt, &format!("{end}, SYN sent 4 times"));
    }
}
