//! A server of the forward protocol: all events there, through a kill, an outage, a halt and the end of one of two; who we are to it, and
//! what is wrong with it, told in words.

use std::{collections::BTreeMap, fs, time::Duration};

use nix::sys::signal::Signal;
use support::{
    fluentd::{Entry, Forward},
    server::{tls_file, until},
};
use tempfile::NamedTempFile;

use crate::{MAX_UNDER_WAY, RECORDS, Replay, conversation, outage, pass};

/// What both know.
const KEY: &str = "canary-of-the-shared-key";
/// How long a server is held: less than a batch may take.
const HALT: Duration = Duration::from_secs(5);
const SECOND: u64 = 1_000_000_000;

fn play(server: &Forward, records: usize, more: &[&str]) -> Replay {
    let url = format!("sinks.f.url=fluentd://127.0.0.1:{}", server.port);
    Replay::start(records, &[&[&*url], more].concat())
}

/// A client's key and the certificate it trusts; the key's file goes with it.
struct Known {
    key: NamedTempFile,
    settings: [String; 2],
}

impl Known {
    fn new(key: &str, certificate: &str) -> Self {
        let file = NamedTempFile::new().unwrap();
        fs::write(file.path(), format!("{key}\n")).unwrap();
        let settings = [
            format!("sinks.f.shared_key_file={}", file.path().display()),
            format!("sinks.f.tls.ca={}", tls_file(certificate)),
        ];
        Self { key: file, settings }
    }

    fn play(&self, server: &Forward, records: usize, more: &[&str]) -> Replay {
        let url = format!("sinks.f.url=fluentd+tls://127.0.0.1:{}", server.port);
        let settings = self.settings.each_ref().map(String::as_str);
        Replay::start(records, &[&[&*url], &settings[..], more].concat())
    }
}

fn delivered(records: usize) -> String {
    format!("f: delivered {records}, lost 0")
}

/// All `records` are among `entries`, with their tags, times and fields; how many are there again.
fn again(entries: &[Entry], records: usize) -> usize {
    let requests = conversation(records).to_packets();
    let requests = requests.iter().filter(|(_, packet)| packet.windows(4).any(|bytes| bytes == b"GET "));
    let expected: BTreeMap<_, _> = requests
        .enumerate()
        .map(|(item, (time, _))| {
            (format!("/item/{item}"), (time.as_nanos() / SECOND, time.as_nanos() % SECOND))
        })
        .collect();
    assert_eq!(expected.len(), records);
    let mut times = BTreeMap::<&str, usize>::new();
    for Entry { tag, time, record } in entries {
        let path = record["url.path"].as_str().unwrap();
        assert_eq!((&**tag, Some(time)), ("pod2pod.http", expected.get(path)), "{record}");
        assert_eq!(record["http.response.status_code"], 200, "{record}");
        *times.entry(path).or_default() += 1;
    }
    assert_eq!(times.len(), records);
    let again = entries.len() - records;
    eprintln!("{again} of {records} events are there again");
    again
}

#[test]
fn all_events_are_there_through_a_kill_and_an_outage() {
    let mut server = Forward::start_with_tls(KEY);
    let known = Known::new(KEY, "certificate.pem");
    let replay = known.play(&server, RECORDS, &["sinks.f.timeout=10s"]);
    until("events come", || server.has_entries());
    server.server.kill();
    outage();
    server.server.start_again();
    let summary = replay.finish();
    assert!(summary.contains(&delivered(RECORDS)), "{summary}");
    // What was under way when it ended may be there twice: events have no ids to tell.
    let again = again(&server.entries(), RECORDS);
    assert!(again <= MAX_UNDER_WAY, "{again}");
}

#[test]
fn all_compressed_events_are_there_once_though_the_server_was_held() {
    let server = Forward::start_with_tls(KEY);
    let known = Known::new(KEY, "certificate.pem");
    let replay = known.play(&server, RECORDS, &["sinks.f.compression=gzip"]);
    until("events come", || server.has_entries());
    server.server.signal(Signal::SIGSTOP);
    pass(HALT);
    server.server.signal(Signal::SIGCONT);
    let summary = replay.finish();
    assert!(summary.contains(&delivered(RECORDS)), "{summary}");
    assert_eq!(again(&server.entries(), RECORDS), 0);
}

#[test]
fn the_second_server_takes_what_the_first_cannot() {
    let (mut first, second) = (Forward::start(&[]), Forward::start(&[]));
    let failover = format!("sinks.f.failover=127.0.0.1:{}", second.port);
    let replay = play(&first, RECORDS, &[&failover, "sinks.f.compression=gzip"]);
    until("events come", || first.has_entries());
    first.server.kill();
    let summary = replay.finish();
    assert!(summary.contains(&delivered(RECORDS)), "{summary}");
    let mut entries = first.entries();
    let by_first = entries.len();
    assert!(second.has_entries(), "{by_first}");
    entries.extend(second.entries());
    let again = again(&entries, RECORDS);
    assert!(again <= MAX_UNDER_WAY, "{again}");
}

#[test]
fn a_key_that_is_put_right_is_read_again() {
    const RECORDS: usize = 100;
    let server = Forward::start_with_tls(KEY);
    let known = Known::new("wrong", "certificate.pem");
    let replay = known.play(&server, RECORDS, &[]);
    until("the key is refused", || replay.said().contains("shared key mismatch"));
    fs::write(known.key.path(), KEY).unwrap();
    let summary = replay.finish();
    assert!(summary.contains(&delivered(RECORDS)), "{summary}");
    assert_eq!(again(&server.entries(), RECORDS), 0);
}

/// Why nothing gets to `server` is told as `reason` and `words`, and no key is; the program ends when it is asked to, though it would try
/// for ever.
#[track_caller]
fn is_told(server: &Forward, replay: Replay, records: usize, reason: &str, words: &str) {
    let reason = format!("reason=\"{reason}\"");
    until(words, || replay.said().lines().any(|line| line.contains(&reason) && line.contains(words)));
    assert!(!replay.said().contains("canary"), "{}", replay.said());
    let summary = replay.end();
    assert!(summary.contains(&format!("f: delivered 0, lost {records} ")), "{summary}");
    assert!(!server.has_entries());
}

#[test]
fn a_wrong_key_is_told() {
    let server = Forward::start_with_tls(KEY);
    let known = Known::new("canary-of-a-wrong-key", "certificate.pem");
    let replay = known.play(&server, 10, &[]);
    is_told(&server, replay, 10, "unauthorized", "the server refuses us: shared key mismatch");
}

#[test]
fn a_missing_key_is_told() {
    let server = Forward::start(&[KEY]);
    is_told(&server, play(&server, 10, &[]), 10, "unauthorized", "the server asks for a shared key");
}

#[test]
fn a_certificate_that_nobody_vouches_for_is_told() {
    let server = Forward::start_with_tls(KEY);
    let known = Known::new(KEY, "other.pem");
    let replay = known.play(&server, 10, &[]);
    is_told(&server, replay, 10, "tls", "invalid peer certificate: ");
}

#[test]
fn a_batch_that_nobody_takes_is_lost_after_its_attempts() {
    let server = Forward::start_with_tls(KEY);
    let known = Known::new("wrong", "certificate.pem");
    let summary = known.play(&server, 10, &["sinks.f.attempts=2"]).finish();
    assert!(summary.contains("f: delivered 0, lost 10 "), "{summary}");
    assert!(!server.has_entries());
}
