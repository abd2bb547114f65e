//! Records a conversation of real programs on the loopback interface of a network namespace of its own. Does not
//! know what the conversation is about.

use std::{
    fs::{self, OpenOptions},
    net::UdpSocket,
    path::{Path, PathBuf},
    thread,
};

use anyhow::{Context, Result, anyhow, bail};
use nix::{
    sched::{CloneFlags, unshare},
    sys::signal::Signal,
};

use crate::programs::{Program, run};

/// tcpdump's kernel buffer in KiB: bigger than the biggest scenario, so that nothing is dropped.
const BUFFER_KIB: &str = "32768";

/// Last packet of every recording: proof that tcpdump has written all packets before it. Removed afterwards.
const SENTINEL: &[u8] = b"pod2pod: end of the recording";

/// Bytes before the sentinel in its pcap record: record header, Ethernet, IPv4 and UDP headers.
const SENTINEL_HEADERS: u64 = 16 + 14 + 20 + 8;

/// Runs `work` on a thread in a new network namespace with only a loopback interface; what it starts is in there too.
pub(crate) fn in_namespace<T: Send>(directory: &Path, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    thread::scope(|scope| {
        scope
            .spawn(|| {
                unshare(CloneFlags::CLONE_NEWNET)
                    .context("cannot make a network namespace: the opinion tier needs root")?;
                run("ip", &["link", "set", "lo", "up"], directory, &[0])?;
                work()
            })
            .join()
            .map_err(|_| anyhow!("the scenario's thread panicked"))?
    })
}

/// Waits until a TCP socket listens on `port` without connecting to it: a probe would be in the recording.
pub(crate) fn wait_for_listener(program: &mut Program, port: u16) -> Result<()> {
    program.wait_until(&format!("listen on port {port}"), |_| listens(port))
}

/// Whether a socket of this namespace listens on `port` (state 0A of proc_pid_net(5)).
pub(crate) fn listens(port: u16) -> bool {
    ["/proc/thread-self/net/tcp", "/proc/thread-self/net/tcp6"].iter().any(|file| {
        fs::read_to_string(file).unwrap_or_default().lines().any(|line| {
            let mut columns = line.split_whitespace().skip(1);
            let (local, state) = (columns.next().unwrap_or(""), columns.nth(1).unwrap_or(""));
            local.ends_with(&format!(":{port:04X}")) && state == "0A"
        })
    })
}

/// A running tcpdump.
pub(crate) struct Recording {
    tcpdump: Program,
    file: PathBuf,
    port: u16,
}

impl Recording {
    /// Starts tcpdump for `port` and returns when it captures.
    pub(crate) fn start(file: &Path, port: u16, directory: &Path) -> Result<Self> {
        let name = file.to_str().context("file name")?;
        let filter = format!("port {port}");
        // -Z root: a dropped privilege could not write into the directory.
        let arguments =
            ["-i", "lo", "-U", "-n", "-s", "0", "-B", BUFFER_KIB, "-Z", "root", "-w", name, filter.as_str()];
        let mut tcpdump = Program::start("tcpdump", &arguments, directory)?;
        tcpdump.wait_until("listening on lo", |program| program.stderr().contains("listening on"))?;
        Ok(Self { tcpdump, file: file.to_owned(), port })
    }

    /// Waits until everything that was sent is in the file, stops tcpdump and checks that it dropped nothing.
    pub(crate) fn finish(mut self) -> Result<()> {
        let socket = UdpSocket::bind("127.0.0.1:0")?;
        socket.send_to(SENTINEL, ("127.0.0.1", self.port))?;
        let file = self.file.clone();
        self.tcpdump.wait_until("write the last packet", |_| {
            fs::read(&file).is_ok_and(|bytes| bytes.ends_with(SENTINEL))
        })?;
        self.tcpdump.stop(Signal::SIGINT)?;
        let report = self.tcpdump.stderr();
        if !report.contains("\n0 packets dropped by kernel") {
            bail!("tcpdump lost packets, the recording is worthless: {report}");
        }
        let recorded = OpenOptions::new().write(true).open(&self.file)?;
        let length = recorded.metadata()?.len() - SENTINEL_HEADERS - SENTINEL.len() as u64;
        recorded.set_len(length).context("cannot remove the last packet")
    }
}
