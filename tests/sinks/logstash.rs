//! What Logstash's inputs `tcp` (codec `json_lines`) and `udp` (codec `json`) are sent, taken by a server of lines and datagrams: all events
//! in order, through a kill and an outage. Logstash itself is not to be had here.

use std::collections::BTreeMap;

use serde_json::Value;
use support::{rsyslog::Rsyslog, server::until};

use crate::{RECORDS, Replay, outage};

fn play(url: &str, records: usize, more: &[&str]) -> Replay {
    let url = format!("sinks.stash.url={url}");
    Replay::start(records, &[&[&*url], more].concat())
}

fn delivered(records: usize) -> String {
    format!("stash: delivered {records}, lost 0")
}

/// Which exchange an event tells; it is one of Logstash.
fn item(event: &str) -> usize {
    let event: Value = serde_json::from_str(event).unwrap();
    assert_eq!((&event["@version"], &event["@timestamp"]), (&Value::from("1"), &event["time"]), "{event}");
    event["url.path"].as_str().unwrap().strip_prefix("/item/").unwrap().parse().unwrap()
}

#[test]
fn all_events_are_there_in_order() {
    let server = Rsyslog::start();
    let summary = play(&format!("logstash://127.0.0.1:{}", server.raw_tcp), RECORDS, &[]).finish();
    assert!(summary.contains(&delivered(RECORDS)), "{summary}");
    until("all events are read", || server.raw().len() >= RECORDS);
    assert!(server.raw().iter().map(|event| item(event)).eq(0..RECORDS));
}

#[test]
fn datagrams_are_events_too() {
    // As many as the usual socket has room for, whoever reads late.
    const RECORDS: usize = 50;
    let server = Rsyslog::start();
    let summary = play(&format!("logstash+udp://127.0.0.1:{}", server.raw_udp), RECORDS, &[]).finish();
    assert!(summary.contains(&delivered(RECORDS)), "{summary}");
    until("all events are read", || server.raw().len() >= RECORDS);
    let mut items: Vec<_> = server.raw().iter().map(|event| item(event)).collect();
    items.sort_unstable();
    assert!(items.into_iter().eq(0..RECORDS));
}

/// What the server's kernel had taken, and it had not read, goes with it; what is in doubt is sent again.
#[test]
fn after_a_kill_and_an_outage_it_goes_on_where_it_was() {
    let mut server = Rsyslog::start();
    let replay = play(&format!("logstash+tcp://127.0.0.1:{}", server.raw_tcp), RECORDS, &[]);
    until("events come", || !server.raw().is_empty());
    server.server.kill();
    let before = server.raw().len();
    assert!(before < RECORDS, "all were there before the kill");
    outage();
    server.server.start_again();
    let summary = replay.finish();
    assert!(summary.contains(&delivered(RECORDS)), "{summary}");
    until("the last event is read", || server.raw().last().is_some_and(|event| item(event) == RECORDS - 1));
    let items: Vec<_> = server.raw().iter().map(|event| item(event)).collect();
    let mut times = BTreeMap::<usize, usize>::new();
    items.iter().for_each(|item| *times.entry(*item).or_default() += 1);
    let (lost, again) = (RECORDS - times.len(), items.len() - times.len());
    eprintln!(
        "killed after {before}: of {RECORDS} events {lost} were lost with the server, {again} are there again"
    );
    // One gap at most, or one step back: but for that the order holds.
    let breaks = items.windows(2).filter(|pair| pair[1] != pair[0] + 1).count();
    assert!(breaks <= 1, "{breaks}");
}
