//! /metrics, /live and /ready, asked over a socket; promtool's opinion of the metrics.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    process::{Command, Stdio},
};

use pod2pod_user::admin::{MAX_CONNECTIONS, MAX_LOCAL_CONNECTIONS};
use support::process::{PATIENCE, Running, command};

use crate::capture;

/// A replay that waits for its input.
pub(crate) struct Server {
    running: Running,
    address: String,
    /// Of the packet file.
    _folder: tempfile::TempDir,
}

impl Server {
    pub(crate) fn start() -> Self {
        let mut replay = command(["replay", "-", "--listen", "127.0.0.1:0", "--log-level", "info"]);
        let folder = tempfile::tempdir().unwrap();
        replay.arg("--write-pcap").arg(folder.path().join("packets"));
        replay.stdin(Stdio::piped()).env("NO_COLOR", "1");
        let running = Running::start(replay);
        let said = running.wait_stderr(|text| text.contains("address="));
        let address = said.split("address=").nth(1).unwrap().split_whitespace().next().unwrap().to_owned();
        Self { running, address, _folder: folder }
    }

    /// A page with what is counted of three exchanges.
    pub(crate) fn page_of_three(&mut self) -> String {
        self.running.write(&capture(3));
        self.running.wait_stdout(|text| text.lines().count() == 3);
        self.ask("GET /metrics").1
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    fn ask(&self, request: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
            .write_all(format!("{request} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").as_bytes())
            .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
        (status, answer.split_once("\r\n\r\n").unwrap().1.to_owned())
    }
}

#[test]
fn endpoints_answer() {
    let server = Server::start();
    let check = |request, status| assert_eq!(server.ask(request).0, status, "{request}");
    check("GET /live", 200);
    check("GET /ready", 200);
    check("GET /metrics", 200);
    check("HEAD /metrics", 200);
    check("GET /", 404);
    check("GET /metrics/x", 404);
    check("POST /metrics", 405);
    check("DELETE /live", 405);
}

#[test]
fn http_metrics_have_opentelemetry_names() {
    let mut server = Server::start();
    let text = server.page_of_three();
    let labels = "error_type=\"\",http_request_method=\"GET\",http_response_status_code=\"200\",network_protocol_version=\"1.1\"";
    for wanted in [
        format!("http_server_request_duration_seconds_count{{{labels}}} 3"),
        format!("http_server_response_body_size_bytes_sum{{{labels}}} 15"),
        "pod2pod_pcap_packets_dropped_total{reason=\"failed\"} 0".to_owned(),
        format!("http_server_request_duration_seconds_bucket{{{labels},le=\"0.005\"}} 3"),
    ] {
        assert!(text.contains(&wanted), "{wanted} is not in\n{text}");
    }
    assert!(!text.contains("/item"), "{text}");
    assert!(!text.contains("127.0.0.1"), "{text}");
}

#[test]
fn promtool_has_nothing_to_say() {
    let mut server = Server::start();
    let text = server.page_of_three();
    let mut promtool = Command::new("promtool");
    promtool.args(["check", "metrics"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = match promtool.spawn() {
        Ok(child) => child,
        // `cargo xtask setup` installs it; plain `cargo test` works without.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return,
        Err(error) => panic!("{error}"),
    };
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let said =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.is_empty(), "{said}\n{text}");
}

#[test]
fn an_address_that_is_taken_is_said() {
    let server = Server::start();
    let second = support::process::run(command(["replay", "-", "--listen", &server.address]), b"");
    assert_eq!(second.code, Some(1), "{second:?}");
    assert!(second.stderr.contains("metrics.listen: cannot listen on 127.0.0.1:"), "{second:?}");
}

/// Opens a connection that says the beginning of a head, and no more.
fn unfinished(server: &Server) -> TcpStream {
    let mut stream = TcpStream::connect(&server.address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(b"GET /live HTTP/1.1\r\n").unwrap();
    stream
}

/// The status of what it gets when it says the rest; absent if it was closed.
fn finish(mut stream: TcpStream) -> Option<String> {
    stream.write_all(b"Host: x\r\nConnection: close\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    answer.split(' ').nth(1).map(str::to_owned)
}

#[test]
fn this_machine_has_places_of_its_own_and_past_the_limit_connections_are_closed() {
    let server = Server::start();
    let held: Vec<_> = (0..MAX_CONNECTIONS).map(|_| unfinished(&server)).collect();
    assert_eq!(server.ask("GET /live").0, 200, "whoever holds all the others");
    drop((held, server));
    let server = Server::start();
    let mut held: Vec<_> =
        (0..MAX_CONNECTIONS + MAX_LOCAL_CONNECTIONS).map(|_| unfinished(&server)).collect();
    let past = unfinished(&server);
    assert_eq!(finish(past), None, "served past the limit");
    let last = held.pop().unwrap();
    assert_eq!(finish(last).as_deref(), Some("200"), "served at the limit");
}
