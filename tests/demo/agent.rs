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
    log: PathBuf,
}

impl Agent {
    /// Starts `binary` on `cgroup`; its records go to `records` and its log to `log`. Returns when it is ready.
    pub(crate) fn start(binary: &str, cgroup: &Path, records: &Path, log: &Path) -> Result<Self> {
        let admin = free_port()?;
        let name = cgroup.file_name().and_then(|name| name.to_str()).context("the cgroup has a name")?;
        let config = records.with_extension("yaml");
        let capture =
            format!("capture:\n  cgroup: {name}\n  ring_bytes: {RING_BYTES}\nlimits:\n  memory: {MEMORY}\n");
        std::fs::write(&config, format!("{capture}metrics:\n  listen: {admin}\n"))?;
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["become", binary, "agent", "--config"]).arg(&config);
        command.stdin(Stdio::null()).stdout(File::create(records)?).stderr(File::create(log)?);
        let process = Process::start("agent", &mut command)?;
        let mut agent = Self { process, log: log.to_owned() };
        agent.wait_until_ready(admin).with_context(|| agent.last_words())?;
        Ok(agent)
    }

    fn wait_until_ready(&mut self, admin: SocketAddr) -> Result<()> {
        let deadline = Instant::now() + MAX_START;
        while !is_ready(admin) {
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
        let Self { process, log } = self;
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
    let ask = || -> std::io::Result<Vec<u8>> {
        let mut stream = TcpStream::connect(admin)?;
        stream.set_read_timeout(Some(MAX_START))?;
        stream.write_all(b"GET /ready HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        Ok(answer)
    };
    ask().is_ok_and(|answer| answer.starts_with(b"HTTP/1.1 200"))
}
