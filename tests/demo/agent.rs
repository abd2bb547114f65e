//! Starts the agent on the demo's cgroup, knows when it watches, and ends it. It reads none of its records.

use std::{
    fs::File,
    io::{Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use nix::sys::signal::Signal;
use support::processes::{self, Process};

/// How long loading and attaching may take on a busy machine.
const MAX_START: Duration = Duration::from_secs(20);
/// How long the agent may take to end: it promises 5 s for its records.
const MAX_END: Duration = Duration::from_secs(10);

/// 10 MiB bodies pass both ends within milliseconds. That is more than the default ring when a busy machine does not
/// let the agent read meanwhile, and the demo is about exactness, not about loss.
const RING_BYTES: &str = "64MiB";
/// What that takes.
const MEMORY: &str = "256MiB";

/// The agent while it watches.
pub(crate) struct Agent {
    process: Process,
    admin: SocketAddr,
    log: PathBuf,
}

impl Agent {
    /// Starts `binary` on the cgroup of that name, with `more` settings; its records go to `records` and its log to `log`. Returns
    /// when it is ready.
    pub(crate) fn start(binary: &str, cgroup: &str, more: &str, [records, log]: [&Path; 2]) -> Result<Self> {
        let admin = free_port()?;
        let config = records.with_extension("yaml");
        let capture = format!(
            "capture:\n  cgroup: {cgroup}\n  ring_bytes: {RING_BYTES}\nlimits:\n  memory: {MEMORY}\n"
        );
        std::fs::write(&config, format!("{capture}metrics:\n  listen: {admin}\n{more}"))?;
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["become", binary, "agent", "--config"]).arg(&config);
        command.stdin(Stdio::null()).stdout(File::create(records)?).stderr(File::create(log)?);
        let process = Process::start("agent", &mut command)?;
        let mut agent = Self { process, admin, log: log.to_owned() };
        agent.wait_until(|| is_ready(admin)).with_context(|| agent.last_words())?;
        Ok(agent)
    }

    /// Where its metrics are.
    pub(crate) fn address(&self) -> SocketAddr {
        self.admin
    }

    /// Its metrics.
    pub(crate) fn page(&self) -> Result<String> {
        Ok(ask(self.admin, "/metrics")?)
    }

    /// Returns when it knows the cluster.
    pub(crate) fn wait_until_known(&mut self) -> Result<()> {
        let admin = self.admin;
        let is_known =
            || ask(admin, "/metrics").is_ok_and(|page| page.contains("\npod2pod_kubernetes_ready 1\n"));
        self.wait_until(is_known).with_context(|| self.last_words())
    }

    fn wait_until(&mut self, is_so: impl Fn() -> bool) -> Result<()> {
        let deadline = Instant::now() + MAX_START;
        while !is_so() {
            if let Some(status) = self.process.ended()? {
                bail!("the agent ended before it was ready: {status}");
            }
            if processes::interrupted() || Instant::now() > deadline {
                bail!("the agent is not ready");
            }
            thread::sleep(processes::PAUSE);
        }
        Ok(())
    }

    /// Ends the agent as a service manager would, and waits until all its records are out.
    pub(crate) fn end(self) -> Result<String> {
        self.process.signal(Signal::SIGTERM)?;
        let Self { process, log, .. } = self;
        let words = || last_words(&log);
        process.finish(MAX_END).with_context(words)?;
        Ok(words())
    }

    fn last_words(&self) -> String {
        last_words(&self.log)
    }
}

fn last_words(log: &Path) -> String {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    format!("the agent said:\n{}", lines[lines.len().saturating_sub(10)..].join("\n"))
}

/// A loopback address that was free a moment ago.
fn free_port() -> Result<SocketAddr> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?)
}

fn is_ready(admin: SocketAddr) -> bool {
    ask(admin, "/ready").is_ok_and(|answer| answer.starts_with("HTTP/1.1 200"))
}

fn ask(admin: SocketAddr, target: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(admin)?;
    stream.set_read_timeout(Some(MAX_START))?;
    stream.write_all(
        format!("GET {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").as_bytes(),
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}
