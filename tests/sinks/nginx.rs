//! nginx as a collector of HTTP: all records there, through a kill, an outage, a halt, limits of size and of rate; who we are to it.

use std::{collections::BTreeMap, fs, time::Duration};

use nix::sys::signal::Signal;
use support::{
    nginx::Nginx,
    server::{tls_file, until},
};
use tempfile::NamedTempFile;

use crate::{MAX_UNDER_WAY, RECORDS, Replay, outage, pass};

/// How long a server is held: less than a batch may take.
const HALT: Duration = Duration::from_secs(5);

fn play(server: &Nginx, scheme: &str, records: usize, more: &[&str]) -> Replay {
    let url = format!("sinks.web.url={scheme}://127.0.0.1:{}/in", server.port);
    Replay::start(records, &[&[&*url], more].concat())
}

fn delivered(records: usize) -> String {
    format!("web: delivered {records}, lost 0")
}

/// All `records` are among what was taken; how many are there again.
fn again(server: &Nginx, records: usize) -> usize {
    let mut times = BTreeMap::<String, usize>::new();
    server.paths().into_iter().for_each(|path| *times.entry(path).or_default() += 1);
    assert!((0..records).all(|item| times.contains_key(&format!("/item/{item}"))));
    assert_eq!(times.len(), records);
    let again = times.values().sum::<usize>() - records;
    eprintln!("{again} of {records} records are there again");
    again
}

#[test]
fn all_records_are_there_through_a_kill_and_an_outage() {
    let mut server = Nginx::start_with_tls("");
    let ca = format!("sinks.web.tls.ca={}", tls_file("certificate.pem"));
    let more = [&*ca, "sinks.web.compression=zstd", "sinks.web.timeout=10s"];
    let replay = play(&server, "https", RECORDS, &more);
    until("records come", || server.has_bodies());
    server.server.kill();
    let before = server.paths().len();
    assert!(before < RECORDS, "all were there before the kill");
    eprintln!("killed after {before} records");
    outage();
    server.server.start_again();
    let summary = replay.finish();
    assert!(summary.contains(&delivered(RECORDS)), "{summary}");
    // What was under way when it ended may be there twice: nothing in HTTP tells a record.
    let again = again(&server, RECORDS);
    assert!(again <= MAX_UNDER_WAY, "{again}");
}

#[test]
fn all_records_are_there_once_though_the_server_was_held() {
    let server = Nginx::start("", "");
    let replay = play(&server, "http", RECORDS, &["sinks.web.compression=gzip"]);
    until("records come", || server.has_bodies());
    server.server.signal(Signal::SIGSTOP);
    pass(HALT);
    server.server.signal(Signal::SIGCONT);
    let summary = replay.finish();
    assert!(summary.contains(&delivered(RECORDS)), "{summary}");
    assert_eq!(again(&server, RECORDS), 0);
}

/// A batch has some 300 KiB.
#[test]
fn batches_that_are_too_large_come_in_parts() {
    const RECORDS: usize = 5000;
    const MOST: usize = 64 * 1024;
    let server = Nginx::start(&format!("client_max_body_size {MOST};"), "");
    let summary = play(&server, "http", RECORDS, &["sinks.web.body=array"]).finish();
    assert!(summary.contains(&delivered(RECORDS)), "{summary}");
    assert_eq!(again(&server, RECORDS), 0);
    let bodies = server.bodies();
    assert!(bodies.iter().all(|body| body.len() <= MOST && body.starts_with('[')));
    // Halves, and not single ones.
    assert!(bodies.len() < RECORDS / 20, "{}", bodies.len());
}

#[test]
fn requests_that_are_too_many_wait() {
    const RECORDS: usize = 10_000;
    const RATE: usize = 10;
    let limit =
        format!("limit_req_zone $binary_remote_addr zone=all:1m rate={RATE}r/s; limit_req_status 429;");
    let server = Nginx::start("limit_req zone=all;", &limit);
    let replay = play(&server, "http", RECORDS, &[]);
    until("it is asked to be slower", || replay.said().contains("reason=\"throttled\""));
    let summary = replay.finish();
    assert!(summary.contains(&delivered(RECORDS)), "{summary}");
    assert_eq!(again(&server, RECORDS), 0);
}

#[test]
fn a_password_that_is_put_right_is_read_again() {
    const RECORDS: usize = 100;
    let users = NamedTempFile::new().unwrap();
    fs::write(users.path(), "agent:{PLAIN}canary-right\n").unwrap();
    let server =
        Nginx::start_with_tls(&format!("auth_basic shop;\nauth_basic_user_file {};", users.path().display()));
    let password = NamedTempFile::new().unwrap();
    fs::write(password.path(), "canary-wrong\n").unwrap();
    let settings = [
        format!("sinks.web.tls.ca={}", tls_file("certificate.pem")),
        "sinks.web.user=agent".to_owned(),
        format!("sinks.web.password_file={}", password.path().display()),
    ];
    let replay = play(&server, "https", RECORDS, &settings.each_ref().map(String::as_str));
    until("the password is refused", || replay.said().contains("401 Unauthorized"));
    assert!(replay.said().contains("reason=\"unauthorized\""), "{}", replay.said());
    assert!(!replay.said().contains("canary"), "{}", replay.said());
    assert!(!server.has_bodies());
    fs::write(password.path(), "canary-right\n").unwrap();
    let summary = replay.finish();
    assert!(summary.contains(&delivered(RECORDS)), "{summary}");
    assert_eq!(again(&server, RECORDS), 0);
}

#[test]
fn a_certificate_that_nobody_vouches_for_is_told() {
    let server = Nginx::start_with_tls("");
    let ca = format!("sinks.web.tls.ca={}", tls_file("other.pem"));
    let replay = play(&server, "https", 10, &[&ca]);
    until("its certificate is refused", || replay.said().contains("reason=\"tls\""));
    let summary = replay.end();
    assert!(summary.contains("web: delivered 0, lost 10 "), "{summary}");
    assert!(!server.has_bodies());
}
