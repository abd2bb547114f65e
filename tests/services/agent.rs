//! The whole agent beside an API server.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    path::Path,
    time::Instant,
};

use nix::sys::signal::Signal;
use serde_json::Value;
use support::{
    kubernetes::fleet,
    netns::Cgroup,
    process::{Running, command},
};

/// An agent of node 1 that follows a server, and sees what is in a cgroup.
pub(crate) struct Agent {
    running: Running,
    admin: SocketAddr,
    /// When it was started.
    pub(crate) begin: Instant,
}

impl Agent {
    pub(crate) fn start(kubeconfig: &Path, cgroup: &Cgroup) -> Self {
        Self::with(kubeconfig, cgroup, &[])
    }

    /// With further settings.
    pub(crate) fn with(kubeconfig: &Path, cgroup: &Cgroup, more: &[&str]) -> Self {
        let admin = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|listener| listener.local_addr());
        let admin = admin.expect("a free port");
        let name = cgroup.path().file_name().and_then(|name| name.to_str()).expect("a name");
        let settings = [
            format!("capture.cgroup={name}"),
            format!("metrics.listen={admin}"),
            format!("kubernetes.kubeconfig={}", kubeconfig.display()),
            format!("kubernetes.node={}", fleet::node(1).0),
        ];
        let settings = settings.iter().map(String::as_str).chain(more.iter().copied());
        let settings = settings.flat_map(|setting| ["--set", setting]);
        let command = command(["agent"].into_iter().chain(settings));
        let begin = Instant::now();
        Self { running: Running::start(command), admin, begin }
    }

    fn ask(&self, target: &str) -> Option<String> {
        let mut stream = TcpStream::connect(self.admin).ok()?;
        stream.set_read_timeout(Some(crate::PATIENCE)).ok()?;
        write!(stream, "GET {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        Some(answer)
    }

    /// Its records so far.
    pub(crate) fn records(&self) -> Vec<Value> {
        let told = self.running.stdout();
        // The last line may be half written.
        let lines = told.split_inclusive('\n').filter(|line| line.ends_with('\n'));
        lines.map(|line| serde_json::from_str(line).expect("a record")).collect()
    }

    /// The value of a row of `/metrics`, by its name and labels.
    pub(crate) fn metric(&self, row: &str) -> Option<f64> {
        let page = self.ask("/metrics")?;
        page.lines().find_map(|line| line.strip_prefix(row)?.trim().parse().ok())
    }

    /// Status and sentence of `/ready`, if it answers.
    pub(crate) fn ready(&self) -> Option<(u16, String)> {
        let answer = self.ask("/ready")?;
        let (head, says) = answer.split_once("\r\n\r\n")?;
        Some((head.split(' ').nth(1)?.parse().ok()?, says.trim().to_owned()))
    }

    /// Memory of the process at its most, as the kernel counts it: each page of a ring twice.
    pub(crate) fn resident(&self) -> f64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.running.id())).expect("it runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("a peak");
        let kilobytes: f64 =
            line.trim().trim_end_matches(" kB").trim().parse().expect("a number of kilobytes");
        kilobytes * 1024.0
    }

    pub(crate) fn end(self) {
        self.running.signal(Signal::SIGTERM);
        let finished = self.running.finish();
        assert_eq!(finished.code, Some(0), "{}", finished.stderr);
    }
}
