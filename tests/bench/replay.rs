//! The replay figures: one generated file of small exchanges, read by the agent's binary, tshark and httpry in turn.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};
use support::capture_file::{ACK, ETHERNET, FIN, Order, Pcap, SYN, Tcp, Unit};

use crate::{
    Plan,
    measured::{self, Measured},
    report::{Report, Row},
    say,
    spread::Spread,
    stage,
};

/// Exchanges in the file.
const EXCHANGES: u64 = 200_000;
/// Exchanges of one connection.
const EXCHANGES_PER_CONNECTION: u64 = 100;
/// One round of this for so many of the live figures: tshark takes its time.
const ROUNDS_SHARE: usize = 2;

/// Who reads the file: its name, its arguments around the file's name, and how many lines it makes of an exchange.
struct Reader {
    name: &'static str,
    before: &'static [&'static str],
    after: &'static [&'static str],
    lines: u64,
}

const READERS: [Reader; 3] = [
    Reader { name: "pod2pod", before: &["replay"], after: &[], lines: 1 },
    Reader { name: "httpry", before: &["-r"], after: &["-o"], lines: 2 },
    Reader {
        name: "tshark",
        before: &["-r"],
        after: &[
            "-Y",
            "http",
            "-T",
            "fields",
            "-e",
            "frame.time_epoch",
            "-e",
            "ip.src",
            "-e",
            "tcp.srcport",
            "-e",
            "ip.dst",
            "-e",
            "tcp.dstport",
            "-e",
            "http.request.method",
            "-e",
            "http.request.uri",
            "-e",
            "http.host",
            "-e",
            "http.response.code",
            "-e",
            "http.time",
        ],
        lines: 2,
    },
];

/// Measures the replay figures.
pub(crate) fn run(plan: &Plan, report: &mut Report) -> Result<()> {
    let directory = tempfile::Builder::new().prefix("pod2pod-bench-").tempdir_in(stage::memory())?;
    let capture = directory.path().join("exchanges.pcap");
    write_capture(&capture)?;
    let mut runs = READERS.map(|_| Vec::new());
    let rounds = plan.rounds.div_ceil(ROUNDS_SHARE);
    for cycle in 1..=rounds {
        let mut line = format!("replay, cycle {cycle} of {rounds}:");
        for (reader, runs) in READERS.iter().zip(&mut runs) {
            let measured = one(reader, plan, &capture, directory.path()).context(reader.name)?;
            line.push_str(&format!(" {} {:.2} s", reader.name, measured.seconds));
            runs.push(measured);
        }
        say(&line);
    }
    let part = |runs: &[Measured], part: fn(&Measured) -> f64| runs.iter().map(part).collect::<Vec<f64>>();
    let times = runs.each_ref().map(|runs| part(runs, |run| run.seconds));
    let figure = format!("replay of {EXCHANGES} small exchanges");
    for (reader, times) in READERS.iter().zip(&times) {
        report.push(Row::measured(&figure, reader.name, "s", Spread::of(times)));
    }
    let [own, others @ ..] = &times;
    for ((reader, times), bound) in READERS[1..].iter().zip(others).zip([2.0, 20.0]) {
        let faster: Vec<f64> = times.iter().zip(own).map(|(other, own)| other / own).collect();
        let name = format!("pod2pod against {}", reader.name);
        report.push(Row::measured(&figure, &name, "×", Spread::of(&faster)).at_least(bound));
    }
    for (reader, runs) in READERS.iter().zip(&runs) {
        let peaks = part(runs, |run| run.peak);
        report.push(Row::measured("peak memory of that replay", reader.name, "MiB", Spread::of(&peaks)));
    }
    Ok(())
}

/// Lets a reader read.
fn one(reader: &Reader, plan: &Plan, capture: &Path, directory: &Path) -> Result<Measured> {
    let file = |name: &str| directory.join(name);
    let output = file("output");
    let program = if reader.name == "pod2pod" { plan.agent.clone() } else { PathBuf::from(reader.name) };
    let mut words: Vec<String> = reader.before.iter().map(|&word| word.to_owned()).collect();
    words.push(capture.display().to_string());
    words.extend(reader.after.iter().map(|&word| word.to_owned()));
    let mut said = output.clone();
    if reader.name == "httpry" {
        words.extend([output.display().to_string(), "tcp".to_owned()]);
        said = file("said");
    }
    let measured = measured::run(&program, &words, &said, &file("log"), &file("report"))?;
    let text = fs::read(&output).context("cannot read the output")?;
    let lines = text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty() && !line.starts_with(b"#"));
    let lines = lines.count() as u64;
    if lines != EXCHANGES * reader.lines {
        bail!("{lines} lines of {EXCHANGES} exchanges");
    }
    fs::remove_file(output)?;
    Ok(measured)
}

/// Small exchanges over keep-alive connections, each exchange a packet each way.
fn write_capture(file: &Path) -> Result<()> {
    let server = SocketAddr::from((Ipv4Addr::new(10, 0, 0, 2), 8080));
    let mut capture = Capture { pcap: Pcap::new(Order::Little, Unit::Nano, ETHERNET), time: FIRST_TIME };
    for connection in 0..EXCHANGES / EXCHANGES_PER_CONNECTION {
        let client = SocketAddr::from((Ipv4Addr::new(10, 0, 1, 1), 20_000 + connection as u16));
        let (mut sent, mut answered) = (1000, 5000);
        capture.segment(client, server, sent, 0, SYN, &[]);
        capture.segment(server, client, answered, sent + 1, SYN | ACK, &[]);
        (sent, answered) = (sent + 1, answered + 1);
        capture.segment(client, server, sent, answered, ACK, &[]);
        for number in 0..EXCHANGES_PER_CONNECTION {
            let number = connection * EXCHANGES_PER_CONNECTION + number;
            let request = format!(
                "GET /item/{number}?page=2 HTTP/1.1\r\nHost: shop.example:8080\r\nUser-Agent: bench/1\r\n\
                 Accept: */*\r\n\r\n"
            );
            capture.segment(client, server, sent, answered, ACK, request.as_bytes());
            sent += request.len() as u32;
            let response = "HTTP/1.1 200 OK\r\nServer: bench\r\nContent-Type: text/plain\r\n\
                            Content-Length: 15\r\nConnection: keep-alive\r\n\r\na small answer\n";
            capture.segment(server, client, answered, sent, ACK, response.as_bytes());
            answered += response.len() as u32;
        }
        capture.segment(client, server, sent, answered, FIN | ACK, &[]);
        capture.segment(server, client, answered, sent + 1, FIN | ACK, &[]);
        capture.segment(client, server, sent + 1, answered + 1, ACK, &[]);
    }
    fs::write(file, &capture.pcap.bytes).with_context(|| format!("cannot write {}", file.display()))
}

/// The first packet's time: 2026-01-01, in nanoseconds since 1970.
const FIRST_TIME: u64 = 1_767_225_600_000_000_000;
/// From one packet to the next.
const STEP: u64 = 10_000;

struct Capture {
    pcap: Pcap,
    time: u64,
}

impl Capture {
    fn segment(
        &mut self,
        source: SocketAddr,
        destination: SocketAddr,
        sequence: u32,
        acknowledgement: u32,
        flags: u8,
        payload: &[u8],
    ) {
        self.time += STEP;
        let tcp = Tcp { source, destination, sequence, acknowledgement, flags, options: &[], payload };
        self.pcap.packet(self.time, &tcp.ethernet());
    }
}
