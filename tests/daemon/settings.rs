//! The listener of settings: on loopback for who asks for this machine, elsewhere with TLS and a token; its limits.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Instant,
};

use pod2pod_user::admin::{HEAD_TIMEOUT, MAX_CONNECTIONS, MAX_HEAD_BYTES, MAX_LOCAL_CONNECTIONS};
use support::process::{Finished, PATIENCE, Running, command, run};

const TOKEN: &str = "a-token-for-tests-only";

fn certificate(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("data/tls").join(name)
}

/// Replay that waits for its input and serves settings at `listen`.
struct Server {
    _running: Running,
    port: u16,
    folder: tempfile::TempDir,
}

impl Server {
    fn start(listen: &str, is_guarded: bool) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let token = folder.path().join("token");
        fs::write(&token, format!("{TOKEN}\n")).unwrap();
        let mut replay =
            command(["replay", "-", "--log-level", "info", "--set", &format!("admin.listen={listen}")]);
        if is_guarded {
            let files = [
                ("tls_certificate", certificate("certificate.pem")),
                ("tls_key", certificate("key.pem")),
                ("token_file", token),
            ];
            for (key, path) in files {
                replay.args(["--set", &format!("admin.{key}={}", path.display())]);
            }
        }
        replay.args(["--set", "sinks.http.url=http://127.0.0.1:9/in?token=hunter2"]);
        replay.stdin(Stdio::piped()).env("NO_COLOR", "1");
        let running = Running::start(replay);
        let said = running.wait_stderr(|text| text.contains("serving /config and /tail address="));
        let address = said.split("address=").nth(1).unwrap().split_whitespace().next().unwrap();
        let port = address.rsplit(':').next().unwrap().parse().unwrap();
        Self { _running: running, port, folder }
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    fn ask(&self, head: &str) -> (u16, String) {
        let mut stream = self.connect();
        // A server that has enough may not read it all.
        let _ = stream.write_all(head.as_bytes());
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        let answer = String::from_utf8_lossy(&answer).into_owned();
        let status =
            answer.split(' ').nth(1).unwrap_or_else(|| panic!("no answer to {head}")).parse().unwrap();
        (status, answer.split_once("\r\n\r\n").unwrap().1.to_owned())
    }

    fn curl(&self, arguments: &[&str]) -> (Option<i32>, String) {
        let mut curl = Command::new("curl");
        curl.args(["--silent", "--max-time", "20", "--noproxy", "*", "--write-out", "\n%{http_code}"])
            .args(arguments);
        let output = curl.arg(format!("https://127.0.0.1:{}/config", self.port)).output();
        let output = output.expect("curl is there: cargo xtask setup daemon");
        (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

fn get(path: &str, host: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n")
}

#[test]
fn settings_are_shown_on_loopback_without_secrets() {
    let server = Server::start("127.0.0.1:0", false);
    let (status, page) = server.ask(&get("/config", "localhost"));
    let told: serde_json::Value = serde_json::from_str(&page).unwrap();
    assert_eq!((status, &told["http.timeout"]["value"]), (200, &"10s".into()), "{page}");
    assert_eq!(told["sinks.http.url"]["value"], "http://127.0.0.1:9/in?token=*******");
    assert!(!page.contains("hunter2"));
    for (path, host, expected) in
        [("/config", "evil.example", 403), ("/metrics", "localhost", 404), ("/", "localhost", 404)]
    {
        assert_eq!(server.ask(&get(path, host)).0, expected, "{path} {host}");
    }
    let post = "POST /config HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    assert_eq!(server.ask(post).0, 405);
    let content = "GET /config HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\nhello";
    assert_eq!(server.ask(content).0, 413);
}

#[test]
fn a_head_at_its_limit_is_read_and_one_past_is_not() {
    let server = Server::start("127.0.0.1:0", false);
    let head = |length: usize| {
        let without = get("/config", "localhost").replace("\r\n\r\n", "\r\nX: \r\n\r\n");
        without.replace("X: ", &format!("X: {}", "x".repeat(length - without.len())))
    };
    assert_eq!(head(MAX_HEAD_BYTES).len(), MAX_HEAD_BYTES);
    assert_eq!(server.ask(&head(MAX_HEAD_BYTES)).0, 200);
    assert_eq!(server.ask(&head(MAX_HEAD_BYTES + 1)).0, 431);
}

#[test]
fn who_sends_no_head_in_time_is_let_go() {
    let server = Server::start("127.0.0.1:0", false);
    let begin = Instant::now();
    let mut slow = server.connect();
    slow.write_all(b"GET /config HTTP/1.1\r\n").unwrap();
    let mut rest = Vec::new();
    // Its end is what is waited for, in whatever way it comes.
    let _ = slow.read_to_end(&mut rest);
    assert!(begin.elapsed() >= HEAD_TIMEOUT && begin.elapsed() < PATIENCE, "{:?}", begin.elapsed());
    assert!(!rest.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&rest));
}

#[test]
fn connections_past_the_limit_are_closed() {
    let server = Server::start("127.0.0.1:0", false);
    let ask = |mut stream: TcpStream| {
        let said = stream.write_all(b"GET /config HTTP/1.1\r\nHost: localhost\r\n\r\n");
        (said.is_ok() && stream.read(&mut [0; 64]).is_ok_and(|length| length > 0)).then_some(stream)
    };
    let most = MAX_CONNECTIONS + MAX_LOCAL_CONNECTIONS;
    let open: Vec<_> = (0..most).filter_map(|_| ask(server.connect())).collect();
    assert_eq!(open.len(), most);
    assert!(ask(server.connect()).is_none(), "served past the limit");
}

#[test]
fn elsewhere_tls_and_the_token_are_needed() {
    let server = Server::start("0.0.0.0:0", true);
    let ca = certificate("certificate.pem").display().to_string();
    let bearer = |token: &str| format!("Authorization: Bearer {token}");
    let (code, told) = server.curl(&["--cacert", &ca, "--header", &bearer(TOKEN)]);
    assert_eq!((code, told.ends_with("\n200")), (Some(0), true), "{told}");
    for arguments in [&[][..], &["--header", &bearer("a-token-for-tests-onlx")]] {
        let (code, told) = server.curl(&[&["--cacert", &ca], arguments].concat());
        assert_eq!((code, told.ends_with("\n401")), (Some(0), true), "{told}");
        assert!(!told.contains("http.timeout"), "{told}");
    }
    let (code, _) = server.curl(&["--header", &bearer(TOKEN)]);
    assert_ne!(code, Some(0), "nobody vouches for the certificate");
    // Without TLS there is no answer.
    let mut plain = server.connect();
    plain.write_all(get("/config", "127.0.0.1").as_bytes()).unwrap();
    let mut answer = Vec::new();
    let _ = plain.read_to_end(&mut answer);
    assert!(!answer.starts_with(b"HTTP"), "{}", String::from_utf8_lossy(&answer));
    // A token that is renewed is asked for at once.
    let renewed = "another-token-for-tests";
    let file = server.folder.path().join("token");
    fs::write(&file, renewed).unwrap();
    let later = std::time::SystemTime::now() + std::time::Duration::from_secs(5);
    fs::File::options().append(true).open(&file).unwrap().set_modified(later).unwrap();
    let (_, told) = server.curl(&["--cacert", &ca, "--header", &bearer(renewed)]);
    assert!(told.ends_with("\n200"), "{told}");
}

fn refused(settings: &[&str]) -> Finished {
    let mut replay = command(["replay", "-"]);
    settings.iter().for_each(|setting| {
        replay.args(["--set", setting]);
    });
    run(replay, b"")
}

#[test]
fn what_would_show_settings_to_everybody_is_a_mistake() {
    for settings in
        [&["admin.listen=0.0.0.0:9465"][..], &["admin.listen=[::]:0", "admin.token_file=/dev/null"]]
    {
        let finished = refused(settings);
        assert_eq!((finished.code, finished.stdout.as_str()), (Some(64), ""), "{finished:?}");
        assert!(finished.stderr.contains("admin.listen is no loopback address"), "{finished:?}");
    }
    let finished = refused(&["admin.token_file=/nowhere/token", "admin.tls_key=/nowhere/key"]);
    assert_eq!(finished.code, Some(64), "{finished:?}");
    for part in ["/nowhere/token: No such file", "admin.tls_certificate and admin.tls_key"] {
        assert!(finished.stderr.contains(part), "{part}: {finished:?}");
    }
    let key = format!("admin.tls_key={}", certificate("certificate.pem").display());
    let both = format!("admin.tls_certificate={}", certificate("certificate.pem").display());
    let finished = refused(&[&key, &both]);
    assert!(finished.stderr.contains("certificate.pem: no private key in PEM"), "{finished:?}");
}
