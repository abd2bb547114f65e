//! The agent as the benchmark sees it: its records, its endpoints, its CPU time and the kernel's time in its programs.

use std::{
    collections::BTreeMap,
    fs,
    io::{Read, Write as _},
    net::{SocketAddr, TcpStream},
    os::fd::OwnedFd,
    path::Path,
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use aya::sys::{Stats, enable_stats};
use memchr::memmem::Finder;
use nix::{
    time::{clock_getcpuclockid, clock_gettime},
    unistd::Pid,
};
use support::world;

use crate::stage::SERVER;

/// How long the agent may take to answer.
const MAX_ANSWER: Duration = Duration::from_secs(10);
/// Bytes of the records' file that are looked at in one piece.
const PIECE_BYTES: usize = 1 << 20;

/// GET from the agent's own endpoints, which are in `namespace` if it was started there.
pub(crate) fn get(address: SocketAddr, namespace: Option<&Path>, path: &str) -> Result<String> {
    let (namespace, path) = (namespace.map(Path::to_owned), path.to_owned());
    // A namespace is a thread's.
    let asked = thread::spawn(move || -> Result<String> {
        if let Some(namespace) = namespace {
            world::enter(&namespace)?;
        }
        let mut stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(MAX_ANSWER))?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        match answer.split_once("\r\n\r\n") {
            Some((head, body)) if head.starts_with("HTTP/1.1 200") => Ok(body.to_owned()),
            _ => bail!("{path}: {}", answer.lines().next().unwrap_or("nothing")),
        }
    });
    asked.join().unwrap_or_else(|_| bail!("the asking thread panicked"))
}

/// Payload bytes and exchanges that the loss ledger of a metrics page calls lost: shed ones are among them.
pub(crate) fn lost(page: &str) -> Result<u64> {
    let ours = |line: &&str| line.starts_with("pod2pod_ledger_") && line.contains("_total{");
    let mut rows = page.lines().filter(ours).peekable();
    rows.peek().context("the metrics page has no ledger")?;
    rows.filter(|line| line.contains(r#"fate="lost""#) && !line.contains("_packets_"))
        .map(|line| {
            let value = line.rsplit_once(' ').and_then(|(_, value)| value.parse::<f64>().ok());
            value.map(|value| value as u64).with_context(|| format!("not a count: {line}"))
        })
        .sum()
}

/// The value of a row of a metrics page, by its name and labels.
pub(crate) fn value(page: &str, row: &str) -> Option<f64> {
    page.lines().find_map(|line| line.strip_prefix(row)?.strip_prefix(' ')?.parse().ok())
}

/// What the records' file holds about the server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Records {
    /// Records by end and outcome, as `client complete`.
    pub(crate) by_kind: BTreeMap<String, u64>,
}

impl Records {
    /// Counts the records of exchanges with the server's `target`, whatever else the machine spoke meanwhile.
    pub(crate) fn count(mut lines: impl Read, target: &str) -> Result<Self> {
        let server = format!(r#""server.address":"{}","server.port":{},"#, SERVER.ip(), SERVER.port());
        let path = format!(r#""url.path":"{target}""#);
        let (server, path) = (Finder::new(&server), Finder::new(&path));
        let mut records = Self::default();
        let mut piece = Vec::with_capacity(2 * PIECE_BYTES);
        loop {
            let read = lines.by_ref().take(PIECE_BYTES as u64).read_to_end(&mut piece)?;
            let whole = memchr::memrchr(b'\n', &piece).map_or(0, |end| end + 1);
            for line in piece[..whole].split(|byte| *byte == b'\n') {
                if server.find(line).is_some() && path.find(line).is_some() {
                    records.add(line)?;
                }
            }
            piece.drain(..whole);
            if read == 0 {
                break;
            }
        }
        if !piece.is_empty() {
            bail!("the last record is not whole");
        }
        Ok(records)
    }

    fn add(&mut self, line: &[u8]) -> Result<()> {
        let value = |key: &str| {
            let key = format!(r#""{key}":""#);
            let from = memchr::memmem::find(line, key.as_bytes())? + key.len();
            let length = memchr::memchr(b'"', &line[from..])?;
            std::str::from_utf8(&line[from..from + length]).ok()
        };
        let (end, outcome) = (value("observed_at"), value("outcome"));
        let (end, outcome) = end.zip(outcome).context("a record without end or outcome")?;
        *self.by_kind.entry(format!("{end} {outcome}")).or_default() += 1;
        Ok(())
    }

    /// Records seen at an end, of any outcome.
    pub(crate) fn at(&self, end: &str) -> u64 {
        self.by_kind.iter().filter(|(kind, _)| kind.starts_with(end)).map(|(_, count)| count).sum()
    }

    /// Records in all.
    pub(crate) fn total(&self) -> u64 {
        self.by_kind.values().sum()
    }
}

/// The agent's thread that writes records.
const OUTPUT_THREAD: &str = "output";

/// What an agent uses while this lives; the kernel measures its programs so long, and only so long.
pub(crate) struct Meter {
    pid: Pid,
    before: Used,
    _measuring: OwnedFd,
}

/// CPU time used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Used {
    /// By the agent's threads, user and kernel.
    pub(crate) agent: Duration,
    /// Of it, by the one that writes the records to where they go.
    pub(crate) output: Duration,
    /// By its programs in the kernel.
    pub(crate) programs: Duration,
    /// How often those ran.
    pub(crate) runs: u64,
}

impl Meter {
    /// Begins to measure.
    pub(crate) fn start(pid: Pid) -> Result<Self> {
        let measuring = enable_stats(Stats::RunTime).context("the kernel does not measure its programs")?;
        Ok(Self { pid, before: used(pid)?, _measuring: measuring })
    }

    /// What was used since.
    pub(crate) fn stop(self) -> Result<Used> {
        let Used { agent, output, programs, runs } = used(self.pid)?;
        Ok(Used {
            agent: agent - self.before.agent,
            output: output - self.before.output,
            programs: programs - self.before.programs,
            runs: runs - self.before.runs,
        })
    }
}

fn used(pid: Pid) -> Result<Used> {
    let clock = clock_getcpuclockid(pid).context("cannot find the process's clock")?;
    let agent = clock_gettime(clock).context("cannot read the process's clock")?.into();
    let mut programs = BTreeMap::new();
    for entry in fs::read_dir(format!("/proc/{pid}/fdinfo")).context("cannot read fdinfo")? {
        // The process opens and closes files meanwhile.
        let Ok(text) = fs::read_to_string(entry?.path()) else { continue };
        programs.extend(program(&text));
    }
    let time = programs.values().map(|(time, _)| time).sum();
    Ok(Used {
        agent,
        output: thread_time(pid, OUTPUT_THREAD)?,
        programs: Duration::from_nanos(time),
        runs: programs.values().map(|(_, runs)| runs).sum(),
    })
}

/// CPU time of a process's thread of this name.
fn thread_time(pid: Pid, name: &str) -> Result<Duration> {
    for entry in fs::read_dir(format!("/proc/{pid}/task")).context("cannot read the threads")? {
        let thread = entry?.path();
        let file = |name: &str| fs::read_to_string(thread.join(name));
        if file("comm")?.trim_end() == name {
            // Nanoseconds on a CPU come first (Documentation/scheduler/sched-stats.rst).
            let text = file("schedstat")?;
            let time = text.split(' ').next().and_then(|time| time.parse().ok());
            return Ok(Duration::from_nanos(time.with_context(|| format!("no time in: {text}"))?));
        }
    }
    bail!("there is no thread `{name}`")
}

/// Id, run time and run count of the program that a file is, from its fdinfo (kernel/bpf/syscall.c,
/// `bpf_prog_show_fdinfo`).
fn program(fdinfo: &str) -> Option<(u64, (u64, u64))> {
    let field = |name: &str| {
        let line = fdinfo.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.and_then(|value| value.trim().parse::<u64>().ok())
    };
    Some((field("prog_id")?, (field("run_time_ns")?, field("run_cnt")?)))
}

#[cfg(test)]
mod tests {
    use std::{
        hint, iter,
        sync::{
            Barrier,
            atomic::{AtomicBool, Ordering::Relaxed},
        },
        time::Instant,
    };

    use super::*;

    #[test]
    fn the_ledger_says_what_is_lost() {
        let page = "pod2pod_ledger_packets_total{fate=\"lost\",where=\"kernel\",reason=\"heartbeat_stale\"} 9\n\
            pod2pod_ledger_bytes_total{fate=\"lost\",where=\"kernel\",reason=\"ring_full\"} 2\n\
            pod2pod_ledger_bytes_total{fate=\"ignored\",where=\"kernel\",reason=\"skipped\"} 5\n\
            pod2pod_ledger_exchanges_total{fate=\"lost\",where=\"sink\",reason=\"failed\"} 1\n";
        assert_eq!(lost(page).expect("counts"), 3);
        assert!(lost("pod2pod_x_total 1\n").is_err(), "a page without a ledger proves nothing");
    }

    #[test]
    fn a_thread_has_a_time_of_its_own() {
        let name = "bench-thread";
        let (begin, end) = (Barrier::new(2), AtomicBool::new(false));
        let found = thread::scope(|scope| {
            let own = thread::Builder::new().name(name.to_owned());
            let busy = || {
                begin.wait();
                while !end.load(Relaxed) {
                    hint::spin_loop();
                }
            };
            own.spawn_scoped(scope, busy).expect("a thread");
            begin.wait();
            // Its time is counted from tick to tick.
            let deadline = Instant::now() + Duration::from_secs(10);
            let read = || thread_time(Pid::this(), name).ok().filter(|time| !time.is_zero());
            let found = iter::repeat_with(read).find(|time| time.is_some() || Instant::now() > deadline);
            end.store(true, Relaxed);
            found.flatten()
        });
        assert!(found.is_some_and(|time| time < Duration::from_secs(60)), "{found:?}");
        assert!(thread_time(Pid::this(), "nobody").is_err());
    }

    #[test]
    fn programs_are_known_by_their_files() {
        let text = "pos:\t0\nprog_type:\t8\nprog_id:\t31\nrun_time_ns:\t700\nrun_cnt:\t2\n";
        assert_eq!(program(text), Some((31, (700, 2))));
        assert_eq!(program("pos:\t0\nlink_type:\tcgroup\nprog_id:\t31\n"), None, "a link is no program");
    }

    #[test]
    fn records_of_the_server_are_counted_by_end_and_outcome() {
        let line = |end: &str, outcome: &str, port: u16, path: &str| {
            format!(
                r#"{{"outcome":"{outcome}","observed_at":"{end}","url.path":"{path}","server.address":"10.78.0.2","server.port":{port},"x":1}}"#
            ) + "\n"
        };
        let text = [
            line("client", "complete", 8080, "/small"),
            line("server", "complete", 8080, "/small"),
            line("client", "complete", 8080, "/small"),
            line("client", "closed", 8080, "/small"),
            line("client", "complete", 8081, "/small"),
            line("client", "complete", 8080, "/other"),
        ]
        .concat();
        let records = Records::count(text.as_bytes(), "/small").expect("whole lines");
        assert_eq!((records.at("client"), records.at("server"), records.total()), (3, 1, 4));
        assert_eq!(records.by_kind.get("client complete"), Some(&2));
        let torn = text.trim_end().as_bytes();
        assert!(Records::count(torn, "/small").is_err(), "a torn last line is not overlooked");
    }
}
