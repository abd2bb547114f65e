//! A namespace and a cgroup of a test, and sockets that belong there though this process holds them.

use std::{
    io::{self, BufRead as _, BufReader, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    os::fd::{AsFd as _, OwnedFd},
    path::Path,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};
use support::wire::MAX_WAIT;

/// The process that makes sockets in namespaces.
const PARTY: &str = env!("CARGO_BIN_EXE_pod2pod-party");

/// `pod2pod-party` in `namespace` and `cgroup`.
pub(crate) fn party(namespace: &Path, cgroup: &Path) -> Command {
    let mut command = Command::new(PARTY);
    command.arg(namespace).arg(cgroup);
    command
}

/// A namespace and a cgroup in which sockets can be made.
pub(crate) struct Place {
    party: Child,
    asked: ChildStdin,
    told: BufReader<ChildStdout>,
}

impl Place {
    /// In `namespace` and `cgroup`; `-` for ours.
    pub(crate) fn new(namespace: &Path, cgroup: &Path) -> Self {
        let mut command = party(namespace, cgroup);
        let mut party = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let asked = party.stdin.take().unwrap();
        let told = BufReader::new(party.stdout.take().unwrap());
        Self { party, asked, told }
    }

    /// A TCP socket of this place.
    fn socket(&mut self, like: SocketAddr) -> OwnedFd {
        let there = self.ask(if like.is_ipv6() { "6" } else { "4" });
        let pid = Pid::from_raw(self.party.id().cast_signed()).unwrap();
        let process = pidfd_open(pid, PidfdFlags::empty()).unwrap();
        let socket = pidfd_getfd(process.as_fd(), there, PidfdGetfdFlags::empty()).unwrap();
        self.ask("taken");
        socket
    }

    fn ask(&mut self, what: &str) -> i32 {
        writeln!(self.asked, "{what}").unwrap();
        let mut line = String::new();
        self.told.read_line(&mut line).unwrap();
        line.trim().parse().expect("the party answers with a number")
    }

    /// Listens; port 0 takes a free one.
    pub(crate) fn listen(&mut self, address: impl Into<SocketAddr>) -> TcpListener {
        let address = address.into();
        let socket = self.socket(address);
        rustix::net::sockopt::set_socket_reuseaddr(&socket, true).unwrap();
        rustix::net::bind(&socket, &address).unwrap();
        rustix::net::listen(&socket, 1024).unwrap();
        socket.into()
    }

    pub(crate) fn connect(&mut self, to: SocketAddr) -> TcpStream {
        self.try_connect(None, to).unwrap_or_else(|error| panic!("cannot connect to {to}: {error}"))
    }

    /// Connects, from a certain address if it matters.
    pub(crate) fn try_connect(&mut self, from: Option<SocketAddr>, to: SocketAddr) -> io::Result<TcpStream> {
        let socket = self.socket(to);
        if let Some(from) = from {
            rustix::net::bind(&socket, &from)?;
        }
        rustix::net::connect(&socket, &to)?;
        let stream = TcpStream::from(socket);
        prepare(&stream);
        Ok(stream)
    }
}

/// Whoever waits for the other side, waits with a limit.
pub(crate) fn prepare(stream: &TcpStream) {
    stream.set_nodelay(true).unwrap();
    stream.set_read_timeout(Some(MAX_WAIT)).unwrap();
    stream.set_write_timeout(Some(MAX_WAIT)).unwrap();
}

impl Drop for Place {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.party.kill();
        let _ = self.party.wait();
    }
}
