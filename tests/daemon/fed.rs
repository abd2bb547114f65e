//! A replay that is fed by the test, and asked for its metrics meanwhile.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    process::Stdio,
    time::{Duration, Instant},
};

use support::{
    capture_file::{ETHERNET, Order, Pcap, Unit},
    metrics::Metrics,
    process::{Finished, PATIENCE, Running, command},
};

/// Time between two looks at a condition.
const PAUSE: Duration = Duration::from_millis(20);
/// Bytes before the first packet of a pcap file.
const FILE_HEADER: usize = 24;

/// A replay of what it is given, to its end.
pub(crate) struct Fed {
    pub(crate) running: Running,
    listening: String,
}

impl Fed {
    /// With these settings; `packets` is the beginning of a pcap file.
    pub(crate) fn start(settings: &[&str], packets: &[u8]) -> Self {
        let mut replay = command(["replay", "-", "--listen", "127.0.0.1:0", "--set", "log.level=info"]);
        settings.iter().for_each(|setting| {
            replay.args(["--set", setting]);
        });
        replay.stdin(Stdio::piped()).env("NO_COLOR", "1");
        let mut running = Running::start(replay);
        let listening = address(&running, "serving /metrics");
        running.write(packets);
        Self { running, listening }
    }

    /// Where it serves what begins with this.
    pub(crate) fn address(&self, serving: &str) -> String {
        address(&self.running, serving)
    }

    /// Its metrics. It publishes them when it is given something, so it is given a frame that says nothing.
    pub(crate) fn metrics(&mut self) -> Metrics {
        let mut nothing = Pcap::new(Order::Little, Unit::Nano, ETHERNET);
        nothing.packet(0, &[0; 60]);
        self.running.write(&nothing.bytes[FILE_HEADER..]);
        Metrics::parse(&get(&self.listening, "/metrics"))
    }

    /// Waits until the metrics are as wanted; gives those.
    pub(crate) fn wait_metrics(&mut self, what: &str, wanted: impl Fn(&Metrics) -> bool) -> Metrics {
        let begin = Instant::now();
        loop {
            let metrics = self.metrics();
            if wanted(&metrics) {
                return metrics;
            }
            assert!(
                begin.elapsed() < PATIENCE,
                "still not: {what}; {}\n{}",
                metrics.text(),
                self.running.stderr()
            );
            std::thread::park_timeout(PAUSE);
        }
    }

    /// Nothing comes any more.
    pub(crate) fn end(mut self) -> Finished {
        self.running.close_stdin();
        self.running.finish()
    }
}

fn address(running: &Running, serving: &str) -> String {
    let of = |text: &str| {
        let line = text.lines().find(|line| line.contains(serving))?;
        Some(line.split("address=").nth(1)?.split_whitespace().next()?.to_owned())
    };
    let said = running.wait_stderr(|text| of(text).is_some());
    of(&said).unwrap()
}

/// The body of an answer.
pub(crate) fn get(address: &str, target: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    write!(stream, "GET {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer.split_once("\r\n\r\n").unwrap().1.to_owned()
}
