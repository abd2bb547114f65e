//! syslog-ng, a second opinion of the same messages: all of them in order, each with its fields, over TCP, TLS and UDP, and through an
//! outage.

use std::collections::BTreeMap;

use support::{
    server::{tls_file, until},
    syslog_ng::SyslogNg,
};

use crate::{
    RECORDS, outage,
    rsyslog::{delivered, item, play},
};

fn all_in_order(server: &SyslogNg, url: &str, more: &[&str]) {
    let summary = play(url, RECORDS, more).finish();
    assert!(summary.contains(&delivered(RECORDS)), "{summary}");
    until("all messages are read", || server.lines() >= RECORDS);
    let items: Vec<_> = server.messages().iter().map(item).collect();
    assert!(items.into_iter().eq(0..RECORDS));
}

#[test]
fn all_messages_are_there_in_order() {
    let server = SyslogNg::start();
    all_in_order(&server, &format!("syslog+tcp://127.0.0.1:{}", server.tcp), &[]);
}

#[test]
fn all_messages_are_there_in_order_over_tls() {
    let server = SyslogNg::start();
    let ca = format!("sinks.log.tls.ca={}", tls_file("certificate.pem"));
    all_in_order(&server, &format!("syslog+tls://127.0.0.1:{}", server.tls), &[&ca]);
}

#[test]
fn datagrams_are_messages_too() {
    const RECORDS: usize = 50;
    let server = SyslogNg::start();
    let summary = play(&format!("syslog://127.0.0.1:{}", server.udp), RECORDS, &[]).finish();
    assert!(summary.contains(&delivered(RECORDS)), "{summary}");
    until("all messages are read", || server.lines() >= RECORDS);
    let mut items: Vec<_> = server.messages().iter().map(item).collect();
    items.sort_unstable();
    assert!(items.into_iter().eq(0..RECORDS));
}

/// It ends as it should: what its kernel had taken by then, and it had not read, nobody has.
#[test]
fn an_outage_is_waited_for() {
    let mut server = SyslogNg::start();
    let replay = play(&format!("syslog+tcp://127.0.0.1:{}", server.tcp), RECORDS, &[]);
    until("messages come", || server.lines() > 0);
    server.server.stop();
    let before = server.lines();
    assert!(before < RECORDS, "all were there before the end");
    outage();
    server.server.start_again();
    let summary = replay.finish();
    assert!(summary.contains(&delivered(RECORDS)), "{summary}");
    let mut times = BTreeMap::<usize, usize>::new();
    until("the last message is read", || {
        server.messages().last().is_some_and(|last| item(last) == RECORDS - 1)
    });
    let messages = server.messages();
    messages.iter().for_each(|message| *times.entry(item(message)).or_default() += 1);
    let (lost, again) = (RECORDS - times.len(), messages.len() - times.len());
    eprintln!(
        "ended after {before}: of {RECORDS} messages {lost} were lost with the server, {again} are there again"
    );
    // What it did not read is of one connection, and what was behind the first of those was sent after its end.
    let missing = (0..RECORDS).filter(|number| !times.contains_key(number));
    let (first, last) = (missing.clone().min(), missing.max());
    assert!(first.zip(last).is_none_or(|(first, last)| last - first < lost), "{first:?} to {last:?}");
}
