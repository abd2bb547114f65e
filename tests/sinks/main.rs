//! Sinks against the real servers, on loopback: all records there, each once, through outages.

mod fluentd;
#[cfg(feature = "kafka")]
mod kafka;
mod logstash;
mod nginx;
mod opensearch;
mod otlp;
mod postgres;
mod rsyslog;
mod slow;
mod syslog_ng;

use std::{
    fs,
    io::Write as _,
    process::{Child, ChildStdin, Stdio},
    thread,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use support::{
    capture_file::{ETHERNET, Order, Pcap, Unit},
    conversation::Conversation,
    process::command,
    server::PATIENCE,
};
use tempfile::NamedTempFile;

/// Records of a run.
const RECORDS: usize = 100_000;
/// How long a server is gone: longer than the longest wait between two attempts.
const OUTAGE: Duration = Duration::from_secs(40);
/// Records that may be under way at once: the default of `concurrency`, each with the default of `batch_records`.
const MAX_UNDER_WAY: usize = 8 * 500;

/// Lets an outage last.
fn outage() {
    pass(OUTAGE);
}

/// Lets `time` pass.
fn pass(time: Duration) {
    let end = Instant::now() + time;
    while let Some(left) = end.checked_duration_since(Instant::now()) {
        thread::park_timeout(left);
    }
}

/// A replay of exchanges with the paths `/item/0` and so on, as fast as the sink takes their records.
struct Replay {
    child: Child,
    feed: Option<thread::JoinHandle<ChildStdin>>,
    stderr: NamedTempFile,
}

impl Replay {
    /// Begins to replay `exchanges` with `settings`; nothing of it goes anywhere else.
    fn start(exchanges: usize, settings: &[&str]) -> Self {
        let stderr = NamedTempFile::new().unwrap();
        let mut replay = command(["replay", "-", "--set", "output.file=/dev/null"]);
        for setting in settings {
            replay.args(["--set", setting]);
        }
        replay.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(stderr.reopen().unwrap());
        let mut child = replay.spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let feed = thread::spawn(move || {
            // One that ended already reads nothing, which its end tells.
            let _ = stdin.write_all(&capture(exchanges));
            stdin
        });
        Self { child, feed: Some(feed), stderr }
    }

    /// What it said so far.
    fn said(&self) -> String {
        fs::read_to_string(self.stderr.path()).unwrap()
    }

    /// Waits until it has read everything, ends its input, and waits for its end: its last line.
    fn finish(mut self) -> String {
        drop(self.feed.take().map(|feed| feed.join().unwrap()));
        self.wait()
    }

    /// Asks it to end, whose input goes on, and waits for its end: its last line.
    fn end(mut self) -> String {
        kill(Pid::from_raw(self.child.id().cast_signed()), Signal::SIGTERM).unwrap();
        self.wait()
    }

    fn wait(&mut self) -> String {
        let deadline = Instant::now() + PATIENCE;
        while self.child.try_wait().unwrap().is_none() {
            if Instant::now() > deadline {
                self.child.kill().unwrap();
                panic!("it does not end: {}", fs::read_to_string(self.stderr.path()).unwrap());
            }
            thread::park_timeout(Duration::from_millis(20));
        }
        let said = fs::read_to_string(self.stderr.path()).unwrap();
        said.lines().last().unwrap_or_default().to_owned()
    }
}

impl Drop for Replay {
    fn drop(&mut self) {
        // A test that fails leaves nobody behind; one that ended is gone.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Trace and parent of a request: of every other one.
fn trace(index: usize) -> Option<(String, String)> {
    let number = index + 1;
    index.is_multiple_of(2).then(|| (format!("{number:032x}"), format!("{number:016x}")))
}

/// `exchanges` on one connection.
fn conversation(exchanges: usize) -> Conversation {
    let mut conversation = Conversation::new();
    for index in 0..exchanges {
        let trace = trace(index).map(|(trace, parent)| format!("traceparent: 00-{trace}-{parent}-01\r\n"));
        let trace = trace.unwrap_or_default();
        conversation = conversation
            .client(format!("GET /item/{index} HTTP/1.1\r\nHost: shop\r\n{trace}\r\n"))
            .server("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello");
    }
    conversation.close()
}

/// The same as a pcap file.
fn capture(exchanges: usize) -> Vec<u8> {
    let mut file = Pcap::new(Order::Little, Unit::Nano, ETHERNET);
    for (time, packet) in conversation(exchanges).to_packets() {
        file.packet(time.as_nanos(), &packet);
    }
    file.bytes
}
