//! A broker of Kafka: all records there, each once, a key's in order; who is refused, and what is.

use std::{fs, path::Path};

use rdkafka::consumer::Consumer as _;
use serde_json::Value;
use support::{
    broker::{Broker, Message},
    server::{PATIENCE, tls_file, until},
};

use crate::{RECORDS, Replay, outage};

fn play(broker: &Broker, records: usize, more: &[&str]) -> Replay {
    let url = format!("sinks.k.url=kafka://127.0.0.1:{}", broker.plain);
    Replay::start(records, &[&[&*url], more].concat())
}

/// The numbers of the exchanges, as their paths say.
fn numbers(messages: &[Message]) -> Vec<usize> {
    let number = |message: &Message| {
        let path = message.value["url.path"].as_str().unwrap();
        path.strip_prefix("/item/").unwrap().parse().unwrap()
    };
    messages.iter().map(number).collect()
}

/// Details of what is kept of what was refused.
fn letters(data_dir: &Path) -> Vec<Value> {
    let letters = fs::read_to_string(data_dir.join("dead-letters/k.jsonl")).unwrap_or_default();
    letters.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Messages that may be under way at once: the default of `concurrency`, each with Kafka's default of `batch_records`.
const MAX_UNDER_WAY: usize = 8 * 5000;

#[test]
fn all_records_are_there_and_in_order_through_an_outage() {
    let mut broker = Broker::start();
    broker.make(&[("_unrouted", 4)], &[]);
    let settings = ["sinks.k.compression=zstd", "sinks.k.message_headers=source: pod2pod"];
    let replay = play(&broker, RECORDS, &settings);
    let first = broker.consumer();
    until("records come", || {
        (0..4).any(|partition| {
            first.fetch_watermarks("_unrouted", partition, PATIENCE).is_ok_and(|(_, high)| high > 0)
        })
    });
    broker.server.stop();
    outage();
    broker.server.start_again();
    let summary = replay.finish();
    assert!(summary.contains(&format!("k: delivered {RECORDS}, lost 0")), "{summary}");
    let messages = broker.messages("_unrouted");
    // One connection is one key, and so one partition, in which its records keep their order.
    assert!(messages.iter().all(|message| message.partition == messages[0].partition));
    // What a broker kept whose answer went with it comes a second time: an attempt that has run out of time is made anew. The first time
    // each comes is in order all the same.
    let (numbers, mut first_times) = (numbers(&messages), Vec::new());
    numbers.iter().for_each(|number| {
        if *number >= first_times.len() {
            first_times.push(*number);
        }
    });
    assert_eq!(first_times, (0..RECORDS).collect::<Vec<_>>());
    let again = numbers.len() - RECORDS;
    eprintln!("{again} of {RECORDS} messages are there again");
    assert!(again <= MAX_UNDER_WAY, "{again}");
    let first = &messages[0];
    assert_eq!(first.key.as_deref(), first.value["connection.id"].as_str().map(str::as_bytes));
    assert_eq!(first.headers, [("source".to_owned(), "pod2pod".to_owned())]);
    assert!(first.value["time"].is_string() && first.time > 0);
}

#[test]
fn who_we_are_is_told_over_tls_and_who_we_are_not_is_refused() {
    const RECORDS: usize = 1000;
    let broker = Broker::start();
    broker.make(&[("a", 1)], &[]);
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, content: &str| {
        fs::write(folder.path().join(name), content).unwrap();
        format!("sinks.k.password_file={}", folder.path().join(name).display())
    };
    let (right, wrong) = (file("right", "p@ss\n"), file("wrong", "pass\n"));
    let ca = format!("sinks.k.tls.ca={}", tls_file("certificate.pem"));
    let certificate = format!("sinks.k.tls.certificate={}", tls_file("certificate.pem"));
    let key = format!("sinks.k.tls.key={}", tls_file("key.pem"));
    let url = |port| format!("sinks.k.url=kafka+tls://localhost:{port}");
    let (secret, certified) = (url(broker.secret), url(broker.certified));
    let scram = |mechanism| vec![&*secret, &ca, "sinks.k.user=u", &right, mechanism];
    let let_in = [
        scram("sinks.k.mechanism=scram_sha_512"),
        scram("sinks.k.mechanism=scram_sha_256"),
        vec![&certified, &ca, &certificate, &key],
    ];
    for (before, settings) in let_in.iter().enumerate() {
        let replay = Replay::start(RECORDS, &[&["sinks.k.topic=a"], &settings[..]].concat());
        // At the end of a replay there is little time.
        broker.wait_for("a", (before + 1) * RECORDS);
        let summary = replay.finish();
        assert!(summary.contains(&format!("k: delivered {RECORDS}, lost 0")), "{settings:?}: {summary}");
    }
    assert_eq!(broker.messages("a").len(), 3 * RECORDS);
    for (settings, reason) in [
        (&[&*secret, &ca, "sinks.k.user=u", &wrong][..], "reason=\"unauthorized\""),
        (&[&secret, "sinks.k.user=u", &right], "reason=\"tls\""),
        (&[&certified, &ca], "reason="),
    ] {
        let replay = Replay::start(RECORDS, &[&["sinks.k.topic=a", "sinks.k.attempts=1"], settings].concat());
        until("it is refused", || replay.said().contains(reason));
        let summary = replay.finish();
        assert!(summary.contains("k: delivered 0, lost 1000"), "{summary}");
        assert!(!summary.contains("p@ss"));
    }
    assert_eq!(broker.messages("a").len(), 3 * RECORDS);
}

#[test]
fn what_has_no_topic_goes_where_it_is_told() {
    const RECORDS: usize = 2000;
    let broker = Broker::start();
    broker.make(&[("item-200", 1), ("home", 1)], &[]);
    let folder = tempfile::tempdir().unwrap();
    let data_dir = format!("data_dir={}", folder.path().display());
    let base = ["sinks.k.default_topic=home", &data_dir];
    // Refused, and kept; the next time it is asked for, by a sink that sends it to the default one.
    let settings = ["sinks.k.topic=none-{http.response.status_code}", "sinks.k.unknown_topic=dead_letter"];
    let replay = play(&broker, RECORDS, &[&base[..], &settings].concat());
    until("all are refused", || letters(folder.path()).len() == RECORDS);
    let summary = replay.finish();
    assert!(summary.contains(&format!("k: delivered 0, lost {RECORDS}")), "{summary}");
    let refused = letters(folder.path());
    assert_eq!(refused[0]["detail"], "none-200: the cluster has no such topic");
    let settings = ["sinks.k.topic=none-{http.response.status_code}", "sinks.k.unknown_topic=default"];
    let replay = play(&broker, RECORDS, &[&base[..], &settings].concat());
    broker.wait_for("home", RECORDS);
    let summary = replay.finish();
    assert!(summary.contains(&format!("k: delivered {RECORDS}, lost 0")), "{summary}");
    assert_eq!(broker.messages("home").len(), RECORDS);
    // Not an allowed one.
    let settings = ["sinks.k.topic=item-{http.response.status_code}", "sinks.k.topics=team-*"];
    let replay = play(&broker, RECORDS, &[&base[..], &settings].concat());
    until("all are refused", || letters(folder.path()).len() == 2 * RECORDS);
    let summary = replay.finish();
    assert!(summary.contains(&format!("k: delivered 0, lost {RECORDS}")), "{summary}");
    // It waits until somebody makes it.
    let settings = ["sinks.k.topic=late-{http.response.status_code}", "sinks.k.unknown_topic=wait"];
    let replay = play(&broker, RECORDS, &[&base[..], &settings].concat());
    until("records wait", || replay.said().contains("unavailable"));
    broker.make(&[("late-200", 1)], &[]);
    broker.wait_for("late-200", RECORDS);
    let summary = replay.finish();
    assert!(summary.contains(&format!("k: delivered {RECORDS}, lost 0")), "{summary}");
    let mut there = numbers(&broker.messages("late-200"));
    there.sort_unstable();
    assert_eq!(there, (0..RECORDS).collect::<Vec<_>>());
}

#[test]
fn what_is_too_large_is_kept_and_the_rest_goes_on() {
    const RECORDS: usize = 1000;
    let broker = Broker::start();
    // Of what is sent at once: many records of usual size are too much, and one of them is not.
    broker.make(&[("small", 1)], &[("max.message.bytes", "20000")]);
    let folder = tempfile::tempdir().unwrap();
    let data_dir = format!("data_dir={}", folder.path().display());
    let replay = play(&broker, RECORDS, &["sinks.k.topic=small", &data_dir]);
    broker.wait_for("small", RECORDS);
    let summary = replay.finish();
    assert!(summary.contains(&format!("k: delivered {RECORDS}, lost 0")), "{summary}");
    let mut there = numbers(&broker.messages("small"));
    there.sort_unstable();
    assert_eq!(there, (0..RECORDS).collect::<Vec<_>>());
    broker.make(&[("tiny", 1)], &[("max.message.bytes", "300")]);
    let summary = play(&broker, 10, &["sinks.k.topic=tiny", &data_dir]).finish();
    assert!(summary.contains("k: delivered 0, lost 10"), "{summary}");
    assert!(letters(folder.path()).iter().all(|letter| letter["reason"] == "too_large"));
}
