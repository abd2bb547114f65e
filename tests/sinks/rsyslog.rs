//! rsyslog: all messages in order, each with its fields, over TCP, TLS and UDP; what an outage costs where nobody answers.

use std::collections::BTreeMap;

use serde_json::Value;
use support::{
    rsyslog::{Message, Rsyslog},
    server::{tls_file, until},
};

use crate::{RECORDS, Replay, outage};

pub(crate) fn play(url: &str, records: usize, more: &[&str]) -> Replay {
    let url = format!("sinks.log.url={url}");
    Replay::start(records, &[&[&*url, "sinks.log.hostname=node-7"], more].concat())
}

/// Which exchange a message tells; its fields are as they were meant.
pub(crate) fn item(message: &Message) -> usize {
    let Message { pri, time, hostname, app_name, procid, msgid, data, text } = message;
    assert_eq!((&**pri, &**hostname, &**app_name), ("local0.info", "node-7", "pod2pod"), "{message:?}");
    assert_eq!((&**procid, &**msgid, &**data), ("-", "http", "-"), "{message:?}");
    let record: Value = serde_json::from_str(text).unwrap();
    // To six digits (RFC 5424, section 6), of which some show no more than there are.
    let told = record["time"].as_str().unwrap()[..26].trim_end_matches('0');
    assert_eq!(time.trim_end_matches('Z').trim_end_matches('0'), told, "{message:?}");
    record["url.path"].as_str().unwrap().strip_prefix("/item/").unwrap().parse().unwrap()
}

pub(crate) fn delivered(records: usize) -> String {
    format!("log: delivered {records}, lost 0")
}

fn all_in_order(server: &Rsyslog, url: &str, more: &[&str]) {
    let summary = play(url, RECORDS, more).finish();
    assert!(summary.contains(&delivered(RECORDS)), "{summary}");
    // Its kernel has them all: it reads them when it comes to it.
    until("all messages are read", || server.lines() >= RECORDS);
    let items: Vec<_> = server.messages().iter().map(item).collect();
    assert!(items.into_iter().eq(0..RECORDS));
}

#[test]
fn all_messages_are_there_in_order() {
    let server = Rsyslog::start();
    all_in_order(&server, &format!("syslog+tcp://127.0.0.1:{}", server.tcp), &[]);
}

#[test]
fn all_messages_are_there_in_order_over_tls() {
    let server = Rsyslog::start();
    let ca = format!("sinks.log.tls.ca={}", tls_file("certificate.pem"));
    all_in_order(&server, &format!("syslog+tls://127.0.0.1:{}", server.tls), &[&ca]);
}

/// Datagrams that find no room are lost, and nobody says so: here there are fewer than the usual socket has room for.
#[test]
fn datagrams_are_messages_too() {
    const RECORDS: usize = 50;
    let server = Rsyslog::start();
    let summary = play(&format!("syslog://127.0.0.1:{}", server.udp), RECORDS, &[]).finish();
    assert!(summary.contains(&delivered(RECORDS)), "{summary}");
    until("all messages are read", || server.lines() >= RECORDS);
    let mut items: Vec<_> = server.messages().iter().map(item).collect();
    items.sort_unstable();
    assert!(items.into_iter().eq(0..RECORDS));
}

/// What the server's kernel had taken, and it had not read, goes with it: no more than fits in the buffers of one connection. What is in
/// doubt is sent again.
#[test]
fn of_a_kill_and_an_outage_is_lost_what_nobody_could_know() {
    let mut server = Rsyslog::start();
    let replay = play(&format!("syslog+tcp://127.0.0.1:{}", server.tcp), RECORDS, &[]);
    until("messages come", || server.has_messages());
    server.server.kill();
    let before = server.lines();
    assert!(before < RECORDS, "all were there before the kill");
    outage();
    server.server.start_again();
    let summary = replay.finish();
    assert!(summary.contains(&delivered(RECORDS)), "{summary}");
    let last = format!("item\\/{}\\\"", RECORDS - 1);
    until("the last message is read", || server.has_read(&last));
    let mut times = BTreeMap::<usize, usize>::new();
    let messages = server.messages();
    messages.iter().for_each(|message| *times.entry(item(message)).or_default() += 1);
    let (lost, again) = (RECORDS - times.len(), messages.len() - times.len());
    eprintln!(
        "killed after {before}: of {RECORDS} messages {lost} were lost with the server, {again} are there again"
    );
    let shortest = messages.iter().map(|message| message.text.len()).min().unwrap();
    let most: usize = ["tcp_rmem", "tcp_wmem"].map(most_buffered).iter().sum();
    assert!(lost <= most / shortest, "{lost} of {shortest} bytes and more");
}

/// Bytes that the kernel keeps of a connection at most.
fn most_buffered(buffer: &str) -> usize {
    let sizes = std::fs::read_to_string(format!("/proc/sys/net/ipv4/{buffer}")).unwrap();
    sizes.split_whitespace().last().unwrap().parse().unwrap()
}

#[test]
fn a_certificate_that_nobody_vouches_for_is_told() {
    let server = Rsyslog::start();
    let ca = format!("sinks.log.tls.ca={}", tls_file("other.pem"));
    let replay = play(&format!("syslog+tls://127.0.0.1:{}", server.tls), 10, &[&ca]);
    until("its certificate is refused", || replay.said().contains("reason=\"tls\""));
    let summary = replay.end();
    assert!(summary.contains("log: delivered 0, lost 10 "), "{summary}");
    assert!(server.messages().is_empty());
}
