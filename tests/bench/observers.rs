//! Who watches: nobody, the agent, or another tool. Each is started the way its manual says, is ready before anything is
//! measured, and is asked at its end how much it saw.

use std::{
    fs::{self, File},
    io::Read as _,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use nix::{sys::signal::Signal, unistd::Pid};
use support::processes::{self, Process};

use crate::{
    agent::{self, Records},
    output::Output,
    stage::{self, SERVER, Stage},
};

/// How long an observer may take to begin, and to end.
const MAX_START: Duration = Duration::from_secs(20);
const MAX_END: Duration = Duration::from_secs(60);
/// Exit code of the agent for a configuration that it does not know (sysexits.h, EX_USAGE).
const EXIT_CONFIGURATION: i32 = 64;

/// Who watches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Observer {
    None,
    /// As it comes: both ends, the whole machine.
    Pod2pod,
    /// Each exchange once, at its server.
    Pod2podServer,
    /// At the server's interface.
    Pod2podTc,
    Tcpdump,
    Httpry,
    Tshark,
}

impl Observer {
    /// What it is called in tables.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Pod2pod => "pod2pod",
            Self::Pod2podServer => "pod2pod, `roles: [server]`",
            Self::Pod2podTc => "pod2pod, `capture.source: tc`",
            Self::Tcpdump => "tcpdump -w /dev/null",
            Self::Httpry => "httpry",
            Self::Tshark => "tshark",
        }
    }

    /// Sightings of one exchange: both its ends are on the stage.
    pub(crate) const fn sightings(self) -> u64 {
        match self {
            Self::Pod2pod => 2,
            _ => 1,
        }
    }

    const fn program(self) -> &'static str {
        match self {
            Self::None => "",
            Self::Pod2pod | Self::Pod2podServer | Self::Pod2podTc => "pod2pod",
            Self::Tcpdump => "tcpdump",
            Self::Httpry => "httpry",
            Self::Tshark => "tshark",
        }
    }

    /// Whether it is the agent.
    pub(crate) fn is_agent(self) -> bool {
        self.program() == "pod2pod"
    }

    fn arguments(self, stage: &Stage) -> Vec<String> {
        let filter = format!("tcp port {}", SERVER.port());
        let line = match self {
            Self::None => "",
            Self::Pod2pod => "agent",
            Self::Pod2podServer => "agent --set roles=server",
            Self::Pod2podTc => "agent --set capture.source=tc --set capture.interfaces=eth0",
            Self::Tcpdump => "-Z root -i eth0 -w /dev/null",
            Self::Httpry => "-i eth0 -o",
            Self::Tshark => {
                "-i eth0 -Y http -T fields -e frame.time_epoch -e ip.src -e tcp.srcport -e ip.dst \
                 -e tcp.dstport -e http.request.method -e http.request.uri -e http.host -e http.user_agent \
                 -e http.response.code -e http.time -f"
            }
        };
        let mut words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        if self == Self::Httpry {
            words.push(stage.file(OWN_OUTPUT).display().to_string());
        }
        if !self.is_agent() {
            words.push(filter);
        }
        words
    }

    /// What it says on standard error when it has begun.
    const fn begun(self) -> &'static str {
        match self {
            Self::Tcpdump => "listening on",
            Self::Httpry => "Writing output to file",
            Self::Tshark => "Capture started",
            Self::None | Self::Pod2pod | Self::Pod2podServer | Self::Pod2podTc => "",
        }
    }
}

/// The file that an observer writes what it saw to, the one that httpry does, and the one they write what they say to.
const OUTPUT: &str = "output";
const OWN_OUTPUT: &str = "httpry";
const LOG: &str = "log";

/// What became of starting an observer.
pub(crate) enum Started {
    Watching(Watching),
    /// This agent does not know its configuration; in its words.
    Unknown(String),
}

/// An observer that watches.
pub(crate) struct Watching {
    observer: Observer,
    process: Option<Process>,
    output: Option<Output>,
    own_output: PathBuf,
    log: PathBuf,
    admin: SocketAddr,
    namespace: Option<PathBuf>,
}

/// What an observer said at its end.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seen {
    /// The agent's records.
    pub(crate) records: Records,
    /// What the agent says it lost, wherever: the ledger of its metrics under load, and its last words.
    pub(crate) lost: u64,
    /// Another tool's lines or packets.
    pub(crate) lines: u64,
    /// Packets that another tool says it missed.
    pub(crate) missed: u64,
}

/// Starts `observer` and waits until it watches; `more` are further settings of the agent.
pub(crate) fn start(observer: Observer, agent: &Path, stage: &Stage, more: &[&str]) -> Result<Started> {
    let log = stage.file(LOG);
    let admin = free_port()?;
    // The agent is outside, as on a node; for tc it must be where the interface is, as everybody else.
    let inside = !matches!(observer, Observer::None | Observer::Pod2pod | Observer::Pod2podServer);
    let namespace = inside.then_some(&stage.server);
    let mut watching = Watching {
        observer,
        process: None,
        output: None,
        own_output: stage.file(OWN_OUTPUT),
        log: log.clone(),
        admin,
        namespace: namespace.map(support::world::Namespace::path),
    };
    if observer == Observer::None {
        return Ok(Started::Watching(watching));
    }
    let program = if observer.is_agent() { agent } else { Path::new(observer.program()) };
    let mut command = stage::command(namespace, program)?;
    command.args(observer.arguments(stage)).env("TMPDIR", stage.file(""));
    if observer.is_agent() {
        command.args(["--set", &format!("metrics.listen={admin}")]).args(more);
    }
    let output = Output::at(stage.file(OUTPUT))?;
    command.stdout(output.begin()?);
    watching.output = Some(output);
    // httpry makes its own.
    let _ = fs::remove_file(stage.file(OWN_OUTPUT));
    command.stderr(File::create(&log)?);
    watching.process = Some(Process::start(observer.program(), &mut command)?);
    if let Err(error) = watching.wait() {
        let said = watching.said();
        let code = watching.process.as_mut().map(Process::ended).transpose()?.flatten();
        if code.and_then(|status| status.code()) == Some(EXIT_CONFIGURATION) {
            return Ok(Started::Unknown(said.lines().next().unwrap_or_default().to_owned()));
        }
        return Err(error).with_context(|| format!("{} said: {said}", observer.name()));
    }
    Ok(Started::Watching(watching))
}

impl Watching {
    fn wait(&mut self) -> Result<()> {
        let Self { observer, process: Some(process), log, admin, namespace, .. } = self else {
            return Ok(());
        };
        wait_for(process, MAX_START, || {
            if observer.is_agent() {
                agent::get(*admin, namespace.as_deref(), "/ready").is_ok()
            } else {
                fs::read_to_string(&*log).is_ok_and(|said| said.contains(observer.begun()))
            }
        })
    }

    fn said(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// The observer's process, if there is one.
    pub(crate) fn pid(&self) -> Option<Pid> {
        self.process.as_ref().map(Process::pid)
    }

    /// The agent's metrics.
    pub(crate) fn page(&self) -> Result<String> {
        agent::get(self.admin, self.namespace.as_deref(), "/metrics")
    }

    /// Ends it; what it saw of `target`.
    pub(crate) fn end(mut self, target: &str) -> Result<Seen> {
        let (Some(mut process), Some(output)) = (self.process.take(), self.output.take()) else {
            return Ok(Seen::default());
        };
        let mut seen = Seen::default();
        if self.observer.is_agent() {
            seen.lost = agent::lost(&self.page()?)?;
        }
        // As a terminal ends it, and as a service manager ends the agent.
        let signal = if self.observer.is_agent() { Signal::SIGTERM } else { Signal::SIGINT };
        process.signal(signal)?;
        let status = process.wait(MAX_END).with_context(|| self.said())?;
        let said = self.said();
        if self.observer.is_agent() {
            if !status.success() {
                bail!("the agent failed: {status}: {said}");
            }
            seen.records = Records::count(output.written()?, target)?;
            // The same loss may be in both: whether there is any is what counts.
            seen.lost = seen.lost.max(lost(&said)?);
        } else if self.observer == Observer::Tcpdump {
            seen.lines = told(&said, "packets captured");
            seen.missed = told(&said, "packets dropped by kernel");
        } else {
            let mut text = Vec::new();
            if self.observer == Observer::Httpry {
                text = fs::read(&self.own_output)?;
            } else {
                output.written()?.read_to_end(&mut text)?;
            }
            let lines = text.split(|byte| *byte == b'\n');
            seen.lines = lines.filter(|line| !line.is_empty() && !line.starts_with(b"#")).count() as u64;
            seen.missed = told(&said, "packets dropped");
        }
        Ok(seen)
    }
}

/// A loopback address that was free a moment ago.
pub(crate) fn free_port() -> Result<SocketAddr> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?)
}

/// What the agent's last line says it lost.
fn lost(said: &str) -> Result<u64> {
    let line = said.lines().find(|line| line.contains("delivered")).context("the agent has no last words")?;
    let (_, rest) = line.split_once("lost ").with_context(|| format!("no loss in: {line}"))?;
    let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().with_context(|| format!("no loss in: {line}"))
}

/// The number before `what` in a tool's last words; tshark says nothing if nothing was dropped.
fn told(said: &str, what: &str) -> u64 {
    let line = said.lines().find(|line| line.contains(what));
    let words = line.and_then(|line| line.split_whitespace().next());
    words.and_then(|word| word.parse().ok()).unwrap_or_default()
}

/// Waits until `done`, which must come before the end of `process`, of the patience, and of the user's.
pub(crate) fn wait_for(process: &mut Process, patience: Duration, done: impl Fn() -> bool) -> Result<()> {
    let deadline = Instant::now() + patience;
    while !done() {
        if let Some(status) = process.ended()? {
            bail!("it ended before it was ready: {status}");
        }
        if processes::interrupted() {
            bail!("interrupted");
        }
        if Instant::now() > deadline {
            bail!("it is not ready");
        }
        thread::sleep(processes::PAUSE);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn last_words_are_read() {
        assert_eq!(lost("seen 10, delivered 10, lost 0").expect("a number"), 0);
        assert_eq!(lost("a warning\nseen 9, delivered 8, lost 1 records (queue full)").expect("a number"), 1);
        assert!(lost("nothing").is_err());
        let said = "12 packets captured\n13 packets received by filter\n1 packets dropped by kernel\n";
        assert_eq!((told(said, "packets captured"), told(said, "packets dropped by kernel")), (12, 1));
        assert_eq!(told("5 packets captured\n", "packets dropped"), 0);
    }
}
