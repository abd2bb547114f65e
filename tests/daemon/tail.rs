//! `pod2pod tail`, and `/tail` of a replay that is fed bit by bit.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    process::{Command, Stdio},
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
}

impl Agent {
    fn start() -> Self {
        let mut replay = command(["replay", "-", "--log-level", "info", "--set", "admin.listen=127.0.0.1:0"]);
        replay.stdin(Stdio::piped()).env("NO_COLOR", "1");
        let running = Running::start(replay);
        let said = running.wait_stderr(|text| text.contains("serving /config and /tail address="));
        let address = said.split("address=").nth(1).unwrap().split_whitespace().next().unwrap();
        let port = address.rsplit(':').next().unwrap().parse().unwrap();
        Self { running, port }
    }

    /// Exchanges of these statuses, each with its place as path.
    fn feed(&mut self, statuses: &[u16]) {
        let mut conversation = Conversation::new();
        for (place, status) in statuses.iter().enumerate() {
            conversation = conversation
                .client(format!("GET /{place} HTTP/1.1\r\nHost: shop\r\n\r\n"))
                .server(format!("HTTP/1.1 {status} X\r\nContent-Length: 0\r\n\r\n"));
        }
        self.running.write(&write(&conversation.close()));
    }

    fn tail(&self, arguments: &[&str]) -> Running {
        let mut tail = self.command(arguments);
        tail.stdout(Stdio::piped());
        let running = Running::start(tail);
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
