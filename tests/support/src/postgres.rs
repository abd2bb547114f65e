//! A PostgreSQL server on loopback, with TLS.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "test support: a failure here is the test's failure"
)]

use std::{
    fs,
    os::unix::fs::{PermissionsExt as _, chown},
    path::{Path, PathBuf},
    process::Command,
};

use crate::{
    keeper,
    server::{Server, free_port, tls_file},
};

/// Owner of the databases.
pub const USER: &str = "postgres";
/// Over TCP its password is asked for, and TLS.
pub const WITH_PASSWORD: &str = "local all all trust\nhostssl all all all scram-sha-256\n";
/// Nobody is asked for anything.
pub const WITHOUT_PASSWORD: &str = "local all all trust\nhost all all all trust\n";

/// A server with an empty database.
#[derive(Debug)]
pub struct Database {
    /// Its process.
    pub server: Server,
    /// Of loopback.
    pub port: u16,
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
    /// Starts one whose clients are asked what `access` says (pg_hba.conf), and waits until it answers.
    pub fn start(access: &'static str) -> Self {
        Self::start_with(access, "ssl = on\nssl_cert_file = 'certificate.pem'\nssl_key_file = 'key.pem'\n")
    }

    /// Starts one that knows no TLS, and asks nobody for anything.
    pub fn start_without_tls() -> Self {
        Self::start_with(WITHOUT_PASSWORD, "ssl = off\n")
    }

    fn start_with(access: &'static str, tls: &'static str) -> Self {
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
                "port = {port}\nlisten_addresses = '127.0.0.1'\nunix_socket_directories = '..'\n\
                 logging_collector = off\n{tls}"
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

    /// A client that runs `statement`.
    pub fn psql(&self, statement: &str) -> Command {
        let mut psql = Command::new(programs().join("psql"));
        psql.arg("-h").arg(self.server.folder()).args(["-p", &self.port.to_string(), "-U", USER, "-qAtX"]);
        psql.args(["-v", "ON_ERROR_STOP=1", "-c", statement]);
        psql
    }

    /// Runs `statement`, which has to go well; what it says.
    pub fn ask(&self, statement: &str) -> String {
        let output = self.psql(statement).output().unwrap();
        assert!(output.status.success(), "{statement}: {output:?}");
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    /// Records in the table, and how many paths they have.
    pub fn counts(&self) -> String {
        self.ask("SELECT count(*), count(DISTINCT record->>'url.path') FROM pod2pod_records")
    }
}
