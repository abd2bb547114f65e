//! `pod2pod tail`, and `/tail` of a replay that is fed bit by bit.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    process::{Command, Stdio},
    time::Duration,
};

use pod2pod_user::{sinks::tail::MAX_READERS, tail::MAX_BEGIN};
use support::{
    conversation::Conversation,
    process::{Finished, PATIENCE, Running, command, run},
};

use crate::write;

/// A replay that shows its records at a port of loopback.
struct Agent {
    running: Running,
    port: u16,
    is_fed: bool,
}

/// Of a pcap file.
const FILE_HEADER_BYTES: usize = 24;

impl Agent {
    fn start() -> Self {
        Self::start_with(&[])
    }

    fn start_with(settings: &[&str]) -> Self {
        let mut replay = command(["replay", "-", "--log-level", "info", "--set", "admin.listen=127.0.0.1:0"]);
        replay.args(settings.iter().flat_map(|setting| ["--set", setting]));
        replay.stdin(Stdio::piped()).env("NO_COLOR", "1");
        let running = Running::start(replay);
        let said = running.wait_stderr(|text| text.contains("serving /config and /tail address="));
        let address = said.split("address=").nth(1).unwrap().split_whitespace().next().unwrap();
        let port = address.rsplit(':').next().unwrap().parse().unwrap();
        Self { running, port, is_fed: false }
    }

    /// Exchanges of these statuses, each with its place as path.
    fn feed(&mut self, statuses: &[u16]) {
        let mut conversation = Conversation::new();
        for (place, status) in statuses.iter().enumerate() {
            conversation = conversation
                .client(format!("GET /{place} HTTP/1.1\r\nHost: shop\r\n\r\n"))
                .server(format!("HTTP/1.1 {status} X\r\nContent-Length: 0\r\n\r\n"));
        }
        self.feed_packets(&conversation.close());
    }

    fn feed_packets(&mut self, conversation: &Conversation) {
        let file = write(conversation);
        // One file in pieces.
        let begin = if self.is_fed { FILE_HEADER_BYTES } else { 0 };
        self.is_fed = true;
        self.running.write(&file[begin..]);
    }

    /// An exchange of each of these users, with a body of ten bytes.
    fn feed_users(&mut self, users: &[&str]) {
        // On a connection of their own, later.
        let port = if self.is_fed { 40_001 } else { 40_000 };
        let addresses = [SocketAddr::from(([10, 0, 0, 1], port)), SocketAddr::from(([10, 0, 0, 2], 80))];
        let mut conversation = Conversation::new().addresses(addresses[0], addresses[1]);
        if self.is_fed {
            conversation = conversation.pause(Duration::from_secs(10));
        }
        for user in users {
            conversation = conversation
                .client(format!(
                    "POST / HTTP/1.1\r\nHost: shop\r\nX-User: {user}\r\nX-Own: 1\r\nCookie: a=b\r\nContent-Length: 10\r\n\r\n0123456789"
                ))
                .server("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
        }
        self.feed_packets(&conversation);
    }

    fn tail(&self, arguments: &[&str]) -> Running {
        let running = Running::start(self.command(arguments));
        // It looks on, so that nothing that comes is missed.
        self.wait_readers(1);
        running
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let url = format!("127.0.0.1:{}", self.port);
        let mut tail = command(["tail", "--url", &url]);
        tail.args(arguments).env("NO_COLOR", "1");
        tail
    }

    /// Waits until so many look on.
    fn wait_readers(&self, count: usize) {
        let expected = format!("readers={count}");
        self.running.wait_stderr(|text| {
            let last = text.lines().rev().find(|line| line.contains("somebody looks on"));
            last.is_some_and(|line| line.split_whitespace().any(|word| word == expected))
        });
    }

    /// A stream that has begun, or the status that it was refused with.
    fn look_on(&self, query: &str) -> Result<TcpStream, u16> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        write!(stream, "GET /tail?{query} HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
        let mut answer = Vec::new();
        let mut byte = [0];
        while !answer.ends_with(b": here it begins\n\n") {
            let text = String::from_utf8_lossy(&answer).into_owned();
            if let Some(status) = text.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3))
                && status != "200"
            {
                return Err(status.parse().unwrap());
            }
            assert_eq!(stream.read(&mut byte).unwrap(), 1, "{text}");
            answer.push(byte[0]);
        }
        Ok(stream)
    }
}

#[test]
fn records_come_as_they_are_and_only_those_that_fit() {
    let mut agent = Agent::start();
    let tail = agent.tail(&["status>=500", "or", "path=/1", "--json"]);
    agent.feed(&[200, 201, 503, 200, 500]);
    let shown = tail.wait_stdout(|text| text.lines().count() == 3);
    let paths: Vec<_> = shown
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["url.path"].clone())
        .collect();
    assert_eq!(paths, ["/1", "/2", "/4"]);
    tail.signal(nix::sys::signal::Signal::SIGINT);
    let Finished { code, stderr, .. } = tail.finish();
    assert_eq!((code, stderr.as_str()), (Some(0), ""));
}

#[test]
fn headers_and_bodies_are_for_who_asks_and_as_long_as_it_does() {
    let settings = [
        "tail.headers=x-user, x-trace",
        "tail.body_bytes=4KiB",
        "tail.time=1h",
        "http.request_headers=x-own",
        "http.body_bytes=2",
    ];
    let mut agent = Agent::start_with(&settings);
    let plain = agent.tail(&["--json"]);
    let closer = Running::start(agent.command(&[
        "http.request.header.x-user=ann",
        "--headers",
        "--bodies",
        "4",
        "--for",
        "1h",
    ]));
    agent.running.wait_stderr(|text| text.contains("somebody looks closer"));
    agent.feed_users(&["ann", "bob", "ann"]);
    let parse = |text: &str| -> Vec<serde_json::Value> {
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    let seen = parse(&closer.wait_stdout(|text| text.lines().count() == 2));
    for record in &seen {
        assert_eq!(record["http.request.header.x-user"], serde_json::json!(["ann"]), "{record}");
        assert_eq!(record["http.request.header.x-own"], serde_json::json!(["1"]), "{record}");
        assert_eq!(record["http.request.body.content"], "0123", "{record}");
        assert!(record.get("http.request.header.cookie").is_none(), "{record}");
    }
    let of_others = [
        plain.wait_stdout(|text| text.lines().count() == 3),
        agent.running.wait_stdout(|text| text.lines().count() == 3),
    ];
    for text in of_others {
        assert!(!text.contains("x-user") && text.matches("x-own").count() == 3, "{text}");
        assert_eq!(text.matches(r#""http.request.body.content":"01""#).count(), 3, "{text}");
    }
    drop(closer);
    agent.wait_readers(1);
    // It is as if nobody had asked.
    agent.feed_users(&["eve"]);
    let text = plain.wait_stdout(|text| text.lines().count() == 4);
    assert!(!text.contains("eve"), "{text}");
    for (asked, allowed) in [
        (&["--headers=x-other", "--for", "1s"][..], "x-other"),
        (&["--bodies", "4097", "--for", "1s"], "4096 bytes"),
        (&["--bodies", "1", "--for", "2h"], "tail.time"),
    ] {
        let Finished { code, stderr, .. } = run(agent.command(asked), &[]);
        assert!(code == Some(1) && stderr.contains("403") && stderr.contains(allowed), "{stderr}");
    }
    let Finished { code, stderr, .. } = run(agent.command(&["--headers"]), &[]);
    assert!(code == Some(64) && stderr.contains("--for"), "{stderr}");
}

#[test]
fn columns_have_one_header() {
    let mut agent = Agent::start();
    let tail = agent.tail(&[]);
    agent.feed(&[200, 404]);
    let stdout = tail.wait_stdout(|text| text.lines().count() == 3);
    let lines: Vec<_> = stdout.lines().collect();
    assert!(
        lines[0].starts_with("TIME (UTC)") && lines[1].contains("/0") && lines[2].contains("404"),
        "{stdout}"
    );
}

#[test]
fn it_ends_with_its_time() {
    let agent = Agent::start();
    let Finished { code, stdout, stderr } = run(agent.command(&["--for", "500ms"]), &[]);
    assert_eq!((code, stdout.as_str(), stderr.as_str()), (Some(0), "", ""));
}

#[test]
fn an_agent_that_ends_is_said_and_one_that_never_was_too() {
    let mut agent = Agent::start();
    let tail = agent.tail(&["--json"]);
    agent.feed(&[200]);
    tail.wait_stdout(|text| text.ends_with('\n'));
    let port = agent.port;
    drop(agent);
    tail.wait_stderr(|text| text.contains("it is asked again"));
    drop(tail);
    let url = format!("http://127.0.0.1:{port}");
    let Finished { code, stderr, .. } = run(command(["tail", "--url", &url]), &[]);
    assert!(code == Some(1) && stderr.contains("no agent answers"), "{stderr}");
}

#[test]
fn so_many_may_look_on_and_what_is_asked_has_to_be_understood() {
    let agent = Agent::start();
    let looking: Vec<_> = (0..MAX_READERS).map(|_| agent.look_on("").unwrap()).collect();
    assert_eq!(agent.look_on("").unwrap_err(), 503);
    assert_eq!(agent.look_on("filter=statuz=5").unwrap_err(), 400);
    let Finished { code, stderr, .. } = run(agent.command(&["kind=http"]), &[]);
    assert!(code == Some(1) && stderr.contains("16 look on, and no more can"), "{stderr}");
    drop(looking);
    agent.wait_readers(0);
    let Finished { code, stderr, .. } = run(agent.command(&["statuz=5"]), &[]);
    assert!(code == Some(64) && stderr.contains("did you mean status?"), "{stderr}");
}

#[test]
fn who_never_answers_is_not_waited_for() {
    let mute = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", mute.local_addr().unwrap());
    let begin = std::time::Instant::now();
    let Finished { code, stderr, .. } = run(command(["tail", "--url", &url]), &[]);
    assert!(code == Some(1) && stderr.contains("no answer within 5 s"), "{stderr}");
    assert!(begin.elapsed() >= MAX_BEGIN);
}
