//! A PostgreSQL server: all rows there, each once, through an outage, a kill and answers that are lost; who we are, and what it refuses.

use std::fs;

use serde_json::Value;
use support::{
    postgres::{Database, USER, WITH_PASSWORD, WITHOUT_PASSWORD},
    server::{tls_file, until},
};

use crate::{RECORDS, Replay, outage};

const PASSWORD: &str = "right";

fn play(database: &Database, records: usize, more: &[&str]) -> Replay {
    let url = format!("sinks.db.url=postgres://{USER}@127.0.0.1:{}/postgres", database.port);
    Replay::start(records, &[&[&*url], more].concat())
}

const IN_THE_CLEAR: &str = "sinks.db.tls.mode=disable";
const CREATE: &str = "sinks.db.create_table=on";

fn delivered(records: usize) -> String {
    format!("db: delivered {records}, lost 0")
}

#[test]
fn all_rows_are_there_once_through_an_outage_and_a_kill() {
    let mut database = Database::start(WITHOUT_PASSWORD);
    let replay = play(&database, RECORDS, &[IN_THE_CLEAR, CREATE, "sinks.db.timeout=10s"]);
    until("rows come", || {
        let output = database.psql("SELECT count(*) > 0 FROM pod2pod_records").output().unwrap();
        output.stdout.starts_with(b"t")
    });
    database.server.kill();
    outage();
    database.server.start_again();
    let summary = replay.finish();
    assert!(summary.contains(&delivered(RECORDS)), "{summary}");
    assert_eq!(database.counts(), format!("{RECORDS}|{RECORDS}"));
    let columns = "SELECT count(*) FROM pod2pod_records WHERE kind = 'http' AND outcome = 'complete' AND method = 'GET' \
                   AND status = 200 AND duration >= 0 AND path = record->>'url.path' AND family(server_address) = 4 \
                   AND (record->>'http.response.status_code')::int = 200 AND client_namespace IS NULL \
                   AND date_trunc('milliseconds', time) = date_trunc('milliseconds', (record->>'time')::timestamptz)";
    assert_eq!(database.ask(columns), RECORDS.to_string());
}

#[test]
fn what_was_stored_though_its_answer_was_lost_is_stored_once() {
    const RECORDS: usize = 2000;
    let database = Database::start(WITHOUT_PASSWORD);
    play(&database, 1, &[IN_THE_CLEAR, CREATE]).finish();
    database.ask("TRUNCATE pod2pod_records");
    // Whoever waits for the table has sent its rows already, and gives up before they are stored.
    let mut locked =
        database.psql("BEGIN; LOCK TABLE pod2pod_records; SELECT pg_sleep(8); COMMIT").spawn().unwrap();
    until("the table is locked", || {
        database.ask("SELECT count(*) FROM pg_locks WHERE mode = 'AccessExclusiveLock' AND granted AND relation IS NOT NULL")
            != "0"
    });
    let replay = play(&database, RECORDS, &[IN_THE_CLEAR, "sinks.db.timeout=1s"]);
    until("an answer is waited for in vain", || replay.said().contains("timeout"));
    assert!(locked.wait().unwrap().success());
    let summary = replay.finish();
    assert!(summary.contains(&delivered(RECORDS)), "{summary}");
    assert_eq!(database.counts(), format!("{RECORDS}|{RECORDS}"));
}

#[test]
fn a_password_that_is_put_right_is_read_again() {
    const RECORDS: usize = 100;
    let database = Database::start(WITH_PASSWORD);
    database.ask(&format!("ALTER ROLE {USER} PASSWORD '{PASSWORD}'"));
    let file = tempfile::NamedTempFile::new().unwrap();
    let password = format!("sinks.db.password_file={}", file.path().display());
    let ca = format!("sinks.db.tls.ca={}", tls_file("certificate.pem"));
    fs::write(file.path(), "wrong\n").unwrap();
    let replay = play(&database, RECORDS, &[CREATE, &password, &ca]);
    until("the password is refused", || replay.said().contains("reason=\"unauthorized\""));
    assert!(replay.said().contains("28P01") && !replay.said().contains("wrong"), "{}", replay.said());
    fs::write(file.path(), format!("{PASSWORD}\n")).unwrap();
    let summary = replay.finish();
    assert!(summary.contains(&delivered(RECORDS)), "{summary}");
    assert_eq!(database.counts(), format!("{RECORDS}|{RECORDS}"));
}

/// Why nothing gets into `database` is told as `reason` and `words`; the program ends when it is asked to, though it would try for ever.
#[track_caller]
fn is_told(database: &Database, settings: &[&str], reason: &str, words: &str) {
    const RECORDS: usize = 10;
    let replay = play(database, RECORDS, &[&[CREATE], settings].concat());
    let reason = format!("reason=\"{reason}\"");
    until(words, || replay.said().lines().any(|line| line.contains(&reason) && line.contains(words)));
    let summary = replay.end();
    assert!(summary.contains(&format!("db: delivered 0, lost {RECORDS} ")), "{summary}");
    assert_eq!(database.ask("SELECT to_regclass('pod2pod_records') IS NULL"), "t");
}

#[test]
fn a_wrong_password_is_told() {
    let database = Database::start(WITH_PASSWORD);
    database.ask(&format!("ALTER ROLE {USER} PASSWORD '{PASSWORD}'"));
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), "wrong\n").unwrap();
    let password = format!("sinks.db.password_file={}", file.path().display());
    let ca = format!("sinks.db.tls.ca={}", tls_file("certificate.pem"));
    is_told(&database, &[&password, &ca], "unauthorized", "28P01: password authentication failed");
}

#[test]
fn a_certificate_that_nobody_vouches_for_is_told() {
    let ca = format!("sinks.db.tls.ca={}", tls_file("other.pem"));
    is_told(&Database::start(WITHOUT_PASSWORD), &[&ca], "tls", "invalid peer certificate: ");
}

#[test]
fn a_server_that_knows_no_tls_is_told() {
    is_told(&Database::start_without_tls(), &[], "tls", "server does not support TLS");
}

#[test]
fn rows_that_are_refused_are_kept_and_the_rest_is_stored() {
    const RECORDS: usize = 2000;
    let database = Database::start(WITHOUT_PASSWORD);
    let replay = play(&database, 1, &[IN_THE_CLEAR, "sinks.db.queue_bytes=256KiB"]);
    // There is no table.
    until("the table is missed", || replay.said().contains("42P01"));
    play(&database, 1, &[IN_THE_CLEAR, CREATE]).finish();
    let summary = replay.finish();
    assert!(summary.contains(&delivered(1)), "{summary}");
    database.ask("TRUNCATE pod2pod_records; ALTER TABLE pod2pod_records ADD CONSTRAINT choosy CHECK (path NOT LIKE '%13')");
    let folder = tempfile::tempdir().unwrap();
    let data_dir = format!("data_dir={}", folder.path().display());
    let summary = play(&database, RECORDS, &[IN_THE_CLEAR, &data_dir]).finish();
    let refused = RECORDS / 100;
    let told =
        format!("db: delivered {}, lost {refused} records (the target refused them)", RECORDS - refused);
    assert!(summary.contains(&told), "{summary}");
    assert_eq!(database.counts(), format!("{0}|{0}", RECORDS - refused));
    let letters = fs::read_to_string(folder.path().join("dead-letters/db.jsonl")).unwrap();
    assert_eq!(letters.lines().count(), refused);
    for letter in letters.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()) {
        assert!(letter["detail"].as_str().unwrap().starts_with("23514: "), "{letter}");
        assert!(letter["item"].as_str().unwrap().contains("13\t"), "{letter}");
    }
}
