//! A PostgreSQL server: all rows there, each once, through an outage, a kill and answers that are lost; who we are, and what it refuses.

use std::{
    fs,
    os::unix::fs::{PermissionsExt as _, chown},
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;
use support::{
    keeper,
    server::{Server, free_port},
};

use crate::{RECORDS, Replay, outage, tls_file, until};

/// Owner of the databases; the password is asked for over TCP only with [`WITH_PASSWORD`].
const USER: &str = "postgres";
const PASSWORD: &str = "right";
const WITH_PASSWORD: &str = "local all all trust\nhostssl all all all scram-sha-256\n";
const WITHOUT_PASSWORD: &str = "local all all trust\nhost all all all trust\n";

struct Database {
    server: Server,
    port: u16,
}

/// The folder of its programs: Debian puts none of them on `PATH`.
fn programs() -> PathBuf {
    let versions = fs::read_dir("/usr/lib/postgresql").expect("cargo xtask setup services");
    let folders = versions.map(|entry| entry.unwrap().path().join("bin"));
    folders.filter(|folder| folder.join("postgres").exists()).max().unwrap()
}

/// A program of PostgreSQL, which refuses to be root.
fn of_postgres(program: &str) -> Command {
    if !rustix::process::geteuid().is_root() {
        return keeper::command(&programs().join(program));
    }
    let mut command = Command::new("setpriv");
    command.args(["--reuid", USER, "--regid", USER, "--clear-groups", "--pdeathsig", "KILL", "--"]);
    command.arg(programs().join(program));
    command
}

/// Gives it to PostgreSQL's user, if we are not that.
fn give(path: &Path) {
    let passwd = fs::read_to_string("/etc/passwd").unwrap();
    let of_user = passwd.lines().find_map(|line| line.strip_prefix(&format!("{USER}:"))).unwrap();
    let mut ids = of_user.split(':').skip(1).map(|id| id.parse().unwrap());
    if rustix::process::geteuid().is_root() {
        chown(path, ids.next(), ids.next()).unwrap();
    }
}

impl Database {
    fn start(access: &'static str) -> Self {
        let port = free_port();
        let prepare = move |folder: &Path| {
            give(folder);
            let mut initdb = of_postgres("initdb");
            initdb.args(["-D", "data", "-A", "trust", "-U", USER, "-E", "UTF8", "--locale=C", "--no-sync"]);
            let output = initdb.current_dir(folder).output().unwrap();
            assert!(output.status.success(), "{output:?}");
            let data = folder.join("data");
            for name in ["certificate.pem", "key.pem"] {
                fs::copy(tls_file(name), data.join(name)).unwrap();
                fs::set_permissions(data.join(name), fs::Permissions::from_mode(0o600)).unwrap();
                give(&data.join(name));
            }
            fs::write(data.join("pg_hba.conf"), access).unwrap();
            let settings = format!(
                "port = {port}\nlisten_addresses = '127.0.0.1'\nunix_socket_directories = '..'\nssl = on\n\
                 ssl_cert_file = 'certificate.pem'\nssl_key_file = 'key.pem'\nlogging_collector = off\n"
            );
            fs::write(data.join("postgresql.conf"), settings).unwrap();
        };
        let start = |_: &Path| {
            let mut command = of_postgres("postgres");
            command.args(["-D", "data"]);
            command
        };
        let server = Server::start("postgres", prepare, start, move || {
            let mut is_ready = Command::new(programs().join("pg_isready"));
            is_ready.args(["-q", "-h", "127.0.0.1", "-p", &port.to_string()]);
            is_ready.status().unwrap().success()
        });
        Self { server, port }
    }

    fn psql(&self, statement: &str) -> Command {
        let mut psql = Command::new(programs().join("psql"));
        psql.arg("-h").arg(self.server.folder()).args(["-p", &self.port.to_string(), "-U", USER, "-qAtX"]);
        psql.args(["-v", "ON_ERROR_STOP=1", "-c", statement]);
        psql
    }

    fn ask(&self, statement: &str) -> String {
        let output = self.psql(statement).output().unwrap();
        assert!(output.status.success(), "{statement}: {output:?}");
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    /// Records in the table, and how many paths they have.
    fn counts(&self) -> String {
        self.ask("SELECT count(*), count(DISTINCT record->>'url.path') FROM pod2pod_records")
    }

    fn replay(&self, records: usize, more: &[&str]) -> Replay {
        let url = format!("sinks.db.url=postgres://{USER}@127.0.0.1:{}/postgres", self.port);
        Replay::start(records, &[&[&*url], more].concat())
    }
}

const IN_THE_CLEAR: &str = "sinks.db.tls.mode=disable";
const CREATE: &str = "sinks.db.create_table=on";

fn delivered(records: usize) -> String {
    format!("db: delivered {records}, lost 0")
}

#[test]
fn all_rows_are_there_once_through_an_outage_and_a_kill() {
    let mut database = Database::start(WITHOUT_PASSWORD);
    let replay = database.replay(RECORDS, &[IN_THE_CLEAR, CREATE, "sinks.db.timeout=10s"]);
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
    database.replay(1, &[IN_THE_CLEAR, CREATE]).finish();
    database.ask("TRUNCATE pod2pod_records");
    // Whoever waits for the table has sent its rows already, and gives up before they are stored.
    let mut locked =
        database.psql("BEGIN; LOCK TABLE pod2pod_records; SELECT pg_sleep(8); COMMIT").spawn().unwrap();
    until("the table is locked", || {
        database.ask("SELECT count(*) FROM pg_locks WHERE mode = 'AccessExclusiveLock' AND granted AND relation IS NOT NULL")
            != "0"
    });
    let replay = database.replay(RECORDS, &[IN_THE_CLEAR, "sinks.db.timeout=1s"]);
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
    let replay = database.replay(RECORDS, &[CREATE, &password, &ca]);
    until("the password is refused", || replay.said().contains("reason=\"unauthorized\""));
    assert!(replay.said().contains("28P01") && !replay.said().contains("wrong"), "{}", replay.said());
    fs::write(file.path(), format!("{PASSWORD}\n")).unwrap();
    let summary = replay.finish();
    assert!(summary.contains(&delivered(RECORDS)), "{summary}");
    assert_eq!(database.counts(), format!("{RECORDS}|{RECORDS}"));
}

#[test]
fn rows_that_are_refused_are_kept_and_the_rest_is_stored() {
    const RECORDS: usize = 2000;
    let database = Database::start(WITHOUT_PASSWORD);
    let replay = database.replay(1, &[IN_THE_CLEAR, "sinks.db.queue_bytes=256KiB"]);
    // There is no table.
    until("the table is missed", || replay.said().contains("42P01"));
    database.replay(1, &[IN_THE_CLEAR, CREATE]).finish();
    let summary = replay.finish();
    assert!(summary.contains(&delivered(1)), "{summary}");
    database.ask("TRUNCATE pod2pod_records; ALTER TABLE pod2pod_records ADD CONSTRAINT choosy CHECK (path NOT LIKE '%13')");
    let folder = tempfile::tempdir().unwrap();
    let data_dir = format!("data_dir={}", folder.path().display());
    let summary = database.replay(RECORDS, &[IN_THE_CLEAR, &data_dir]).finish();
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
