//! The same lines into a file by three programs: rsyslog and syslog-ng read them from syslog over TCP (RFC 5424 in the frames of RFC 6587,
//! 3.4.1), as they come from Debian; the agent writes records of its own, for it reads no syslog. What is in the file is the same, byte
//! for byte.

use std::{
    collections::HashMap,
    fs::{self, File},
    io::{BufRead as _, BufReader, Write as _},
    net::{Ipv4Addr, TcpStream},
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use nix::{
    time::{clock_getcpuclockid, clock_gettime},
    unistd::Pid,
};
use support::{
    processes::PAUSE,
    rsyslog,
    server::{Server, free_port},
    syslog_ng,
};

use super::load::{self, MAX_TIME, RECORD_BYTES, Took, Work};
use crate::{
    Plan,
    observers::Observer,
    report::{Report, Row},
    say,
    spread::Spread,
};

const FILE: &str = "sinks: records of 600 bytes into a file, per core";
/// What a message has in front of its line.
const HEADER: &str = "<14>1 2026-11-01T12:00:00.000000Z node pod2pod - - - ";
/// Where the servers write.
const WRITTEN: &str = "written";

/// Who writes.
#[derive(Clone, Copy)]
enum Writer {
    Agent,
    Rsyslog,
    SyslogNg,
}

const WRITERS: [Writer; 3] = [Writer::Agent, Writer::Rsyslog, Writer::SyslogNg];

impl Writer {
    const fn name(self) -> &'static str {
        match self {
            Self::Agent => Observer::Pod2pod.name(),
            Self::Rsyslog => "rsyslog",
            Self::SyslogNg => "syslog-ng",
        }
    }

    const fn input(self) -> &'static str {
        match self {
            Self::Agent => "records made within, which it puts into words; it has no input of syslog",
            Self::Rsyslog | Self::SyslogNg => "from syslog over TCP, one stream",
        }
    }

    fn write(self, count: u64) -> Result<Took> {
        let port = free_port();
        match self {
            Self::Agent => load::run(Work::File, count, &[]),
            Self::Rsyslog => {
                feed(&rsyslog::server(|folder| of_rsyslog(folder, port), vec![port]), port, count)
            }
            Self::SyslogNg => {
                feed(&syslog_ng::server(|folder| of_syslog_ng(folder, port), vec![port]), port, count)
            }
        }
    }
}

/// What it says of itself is in none of its rulesets.
fn of_rsyslog(folder: &Path, port: u16) -> String {
    format!(
        "module(load=\"imptcp\")\ntemplate(name=\"line\" type=\"string\" string=\"%msg%\\n\")\n\
         ruleset(name=\"lines\") {{ action(type=\"omfile\" file=\"{}\" template=\"line\") }}\n\
         input(type=\"imptcp\" address=\"127.0.0.1\" port=\"{port}\" ruleset=\"lines\")\n",
        written(folder).display()
    )
}

/// It reads as fast as it writes: without that it would drop what is too much.
fn of_syslog_ng(folder: &Path, port: u16) -> String {
    format!(
        "source s {{ syslog(ip(127.0.0.1) port({port}) transport(tcp)); }};\n\
         destination d {{ file(\"{}\" template(\"${{MSG}}\\n\")); }};\n\
         log {{ source(s); destination(d); flags(flow-control); }};\n",
        written(folder).display()
    )
}

fn written(folder: &Path) -> PathBuf {
    folder.join(WRITTEN)
}

/// Measures all three, turn by turn.
pub(super) fn run(plan: &Plan, report: &mut Report) -> Result<()> {
    if !plan.wants(FILE) {
        return Ok(());
    }
    let count = if plan.quick { super::QUICK_RECORDS } else { super::RECORDS };
    let mut seen = WRITERS.map(|_| Vec::new());
    for round in 1..=plan.rounds {
        say(&format!("{FILE}, round {round} of {}", plan.rounds));
        for (writer, seen) in WRITERS.iter().zip(&mut seen) {
            seen.push(writer.write(count).with_context(|| format!("{} into a file", writer.name()))?);
        }
    }
    for (writer, seen) in WRITERS.iter().zip(&seen) {
        let spread = |of: fn(&Took) -> f64| {
            Spread::of(&seen.iter().map(|took| count as f64 / of(took)).collect::<Vec<_>>())
        };
        let by_the_clock = spread(|took| took.seconds).map_or(0.0, |spread| spread.median);
        let row = Row::measured(FILE, writer.name(), "1/s", spread(|took| took.cpu));
        report.push(row.note(format!("{}; {by_the_clock:.0} records/s by the clock", writer.input())));
    }
    Ok(())
}

/// Sends it `count` lines, and waits until they are in its file.
fn feed(server: &Server, port: u16, count: u64) -> Result<Took> {
    let lines = load::lines();
    let messages: Vec<_> = lines.iter().map(|line| message(line)).collect();
    let file = written(server.folder());
    let bytes = count * RECORD_BYTES as u64;
    let (begin, before) = (Instant::now(), process_time(server.pid())?);
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    stream.set_write_timeout(Some(MAX_TIME))?;
    let mut left = count as usize;
    while left > 0 {
        let part = &messages[..left.min(messages.len())];
        stream.write_all(&part.concat())?;
        left -= part.len();
    }
    let length = || fs::metadata(&file).map_or(0, |file| file.len());
    while length() < bytes {
        ensure!(begin.elapsed() < MAX_TIME, "{bytes} bytes were sent, and {} are in the file", length());
        thread::sleep(PAUSE);
    }
    let seconds = begin.elapsed().as_secs_f64();
    let cpu = (process_time(server.pid())? - before).as_secs_f64();
    has_all(&file, &lines, count)?;
    Ok(Took { seconds, cpu, drained: None, bytes })
}

/// Each line as often as it was sent.
fn has_all(file: &Path, lines: &[Vec<u8>], count: u64) -> Result<()> {
    let mut left: HashMap<&[u8], u64> = HashMap::new();
    for line in lines.iter().cycle().take(count as usize) {
        *left.entry(line).or_default() += 1;
    }
    let (mut reader, mut line) = (BufReader::new(File::open(file)?), Vec::new());
    while reader.read_until(b'\n', &mut line)? > 0 {
        let times = left.get_mut(&line[..]).filter(|times| **times > 0);
        *times.with_context(|| format!("{:?} was not sent", String::from_utf8_lossy(&line)))? -= 1;
        line.clear();
    }
    ensure!(left.values().all(|times| *times == 0), "not all that was sent is there");
    Ok(())
}

/// In its frame; a line's end is none of the message's.
fn message(line: &[u8]) -> Vec<u8> {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    let length = HEADER.len() + line.len();
    [format!("{length} {HEADER}").as_bytes(), line].concat()
}

fn process_time(pid: Pid) -> Result<Duration> {
    let clock = clock_getcpuclockid(pid).context("cannot find the server's clock")?;
    Ok(clock_gettime(clock).context("cannot read the server's clock")?.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_counted_without_its_lines_end() {
        let message = String::from_utf8(message(b"{\"a\":1}\n")).expect("text");
        let (length, message) = message.split_once(' ').expect("a frame");
        assert_eq!(length, message.len().to_string());
        assert!(message.starts_with("<14>1 ") && message.ends_with(" - {\"a\":1}"), "{message}");
    }

    #[test]
    fn a_file_has_all_lines_as_often_as_they_were_sent_or_it_is_said() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        let lines = [b"a\n".to_vec(), b"b\n".to_vec()];
        for (text, is_all) in [
            ("a\nb\na\n", true),
            ("b\na\na\n", true),
            ("a\nb\n", false),
            ("a\na\na\n", false),
            ("a\nb\na\nc\n", false),
        ] {
            fs::write(file.path(), text).expect("written");
            assert_eq!(has_all(file.path(), &lines, 3).is_ok(), is_all, "{text:?}");
        }
    }
}
