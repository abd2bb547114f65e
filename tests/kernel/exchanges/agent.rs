//! The real agent on a test's cgroup: started, asked for its metrics, ended as a service manager would.

use std::{
    collections::BTreeSet,
    io::{self, Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::OnceLock,
    time::{Duration, Instant, SystemTime},
};

use nix::sys::signal::Signal;
use support::{
    metrics::Metrics,
    netns::Namespace,
    process::{BINARY_VARIABLE, PATIENCE, Running, binary},
    scale,
};

use super::{
    interfaces::ADMIN,
    seen::Seen,
    stage::{Stage, party, prepare},
};
use crate::machine;

/// A ring that holds all that a test sends while the agent is not scheduled: these tests are about exactness, and on a
/// machine busy with other tests that may be longer than the default size is made for.
pub(crate) const AMPLE_RING: &str = "capture.ring_bytes=64MiB";
/// The same for the records on their way to the file.
const AMPLE_QUEUE: &str = "output.queue_bytes=256MiB";

/// What that takes.
const AMPLE_MEMORY: &str = "limits.memory=1GiB";

/// Time between two looks at a condition.
const PAUSE: Duration = Duration::from_millis(20);

/// Waits until `condition`; `what` is for people.
pub(crate) fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "still not: {what}");
        std::thread::park_timeout(scale::pause(PAUSE));
    }
}

/// A running agent.
pub(crate) struct Agent {
    running: Running,
    admin: SocketAddr,
    /// Where that is, if not where the test is.
    namespace: Option<Namespace>,
    records: PathBuf,
    _directory: tempfile::TempDir,
}

/// What it came to.
pub(crate) struct Told {
    /// All records as they were written.
    pub(crate) text: String,
    /// The last line on standard error.
    pub(crate) summary: String,
}

impl Agent {
    /// Watches the cgroup of `stage`.
    pub(crate) fn watch(stage: &Stage) -> Self {
        Self::start(Some(stage.world.cgroup.path()), &[AMPLE_RING])
    }

    /// Watches `cgroup` or the root, with `settings`. Returns when it is ready.
    pub(crate) fn start(cgroup: Option<&Path>, settings: &[&str]) -> Self {
        let agent = Self::launch(party(Path::new("-"), Path::new("-")), cgroup, free_address(), settings);
        wait_until("ready", || agent.is_ready());
        agent
    }

    /// The same, started by `program` with arguments.
    pub(crate) fn start_by(program: &[String], cgroup: Option<&Path>, settings: &[&str]) -> Self {
        let mut party = party(Path::new("-"), Path::new("-"));
        party.args(program);
        let agent = Self::launch(party, cgroup, free_address(), settings);
        wait_until("ready", || agent.is_ready());
        agent
    }

    /// The same, with a file of configuration.
    pub(crate) fn start_configured(file: &Path, cgroup: Option<&Path>, settings: &[&str]) -> Self {
        let mut party = party(Path::new("-"), Path::new("-"));
        party.env("POD2POD_CONFIG", file);
        let agent = Self::launch(party, cgroup, free_address(), settings);
        wait_until("ready", || agent.is_ready());
        agent
    }

    /// Watches the root from `namespace`, where its metrics are too, with `settings`. Returns when it is ready.
    pub(crate) fn start_in(namespace: &Namespace, settings: &[&str]) -> Self {
        let mut agent = Self::launch(party(&namespace.path(), Path::new("-")), None, ADMIN, settings);
        agent.namespace = Some(namespace.clone());
        wait_until("ready", || agent.is_ready());
        agent
    }

    /// As people have it who set nothing, but watching `cgroup`.
    pub(crate) fn as_it_comes(cgroup: &Path) -> Self {
        let agent = Self::run(party(Path::new("-"), Path::new("-")), Some(cgroup), free_address(), &[]);
        wait_until("ready", || agent.is_ready());
        agent
    }

    /// Starts it by `party`, its metrics at `admin`; it may not be ready yet.
    pub(crate) fn launch(
        party: Command,
        cgroup: Option<&Path>,
        admin: SocketAddr,
        settings: &[&str],
    ) -> Self {
        Self::run(party, cgroup, admin, &[&[AMPLE_QUEUE, AMPLE_MEMORY], settings].concat())
    }

    fn run(mut party: Command, cgroup: Option<&Path>, admin: SocketAddr, settings: &[&str]) -> Self {
        machine::share();
        let directory = tempfile::tempdir().unwrap();
        let records = directory.path().join("records");
        party.arg(fresh_binary()).arg("agent");
        let mut set = |setting: String| {
            party.args(["--set", &setting]);
        };
        set(format!("metrics.listen={admin}"));
        // Agents of several tests run side by side.
        set("admin.listen=off".to_owned());
        set(format!("output.file={}", records.display()));
        settings.iter().for_each(|setting| set((*setting).to_owned()));
        if let Some(cgroup) = cgroup {
            set(format!("capture.cgroup={}", cgroup.display()));
        }
        party.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        Self { running: Running::start(party), admin, namespace: None, records, _directory: directory }
    }

    fn is_ready(&self) -> bool {
        assert!(!self.running.stderr().contains("pod2pod: "), "it ended: {}", self.running.stderr());
        self.ask("/ready").is_ok_and(|answer| answer.starts_with("HTTP/1.1 200"))
    }

    fn ask(&self, target: &str) -> io::Result<String> {
        let connect = || TcpStream::connect(self.admin);
        let stream = self.namespace.as_ref().map_or_else(connect, |namespace| namespace.within(connect));
        Ok(get(stream?, target))
    }

    /// What it answers to whoever asks whether it is ready.
    pub(crate) fn ready(&self) -> String {
        self.ask("/ready").unwrap()
    }

    /// Where its metrics are.
    pub(crate) fn address(&self) -> SocketAddr {
        self.admin
    }

    pub(crate) fn id(&self) -> u32 {
        self.running.id()
    }

    /// What it said on standard error so far.
    pub(crate) fn log(&self) -> String {
        self.running.stderr()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        self.running.signal(signal);
    }

    /// Ids of the programs that it holds in the kernel (`prog_id` of proc_pid_fdinfo(5)).
    pub(crate) fn programs(&self) -> BTreeSet<u32> {
        let files = std::fs::read_dir(format!("/proc/{}/fdinfo", self.running.id())).unwrap();
        // A file may be closed in the meantime.
        let told = files.flatten().filter_map(|file| std::fs::read_to_string(file.path()).ok());
        told.filter_map(|text| {
            let id = text.lines().find_map(|line| line.strip_prefix("prog_id:"))?;
            id.trim().parse().ok()
        })
        .collect()
    }

    /// All metrics, by name and labels as they are rendered, without `pod2pod_`.
    pub(crate) fn metrics(&self) -> Metrics {
        Metrics::parse(&self.ask("/metrics").unwrap())
    }

    /// Waits until the metrics are as wanted; gives those. They are published once a second.
    pub(crate) fn wait_metrics(&self, what: &str, wanted: impl Fn(&Metrics) -> bool) -> Metrics {
        self.wait_metrics_for(PATIENCE, what, wanted)
    }

    /// The same for what may take so long.
    pub(crate) fn wait_metrics_for(
        &self,
        most: Duration,
        what: &str,
        wanted: impl Fn(&Metrics) -> bool,
    ) -> Metrics {
        let mut metrics = self.metrics();
        let start = Instant::now();
        while !wanted(&metrics) {
            let balance = metrics.balance();
            assert!(start.elapsed() < most, "still not: {what}; {balance:?}\n{}", metrics.text());
            std::thread::park_timeout(scale::pause(PAUSE));
            metrics = self.metrics();
        }
        metrics
    }

    /// Whole records so far.
    pub(crate) fn records(&self) -> Vec<Seen> {
        Seen::parse(&self.lines())
    }

    /// The same as they were written.
    pub(crate) fn lines(&self) -> String {
        let text = std::fs::read(&self.records).unwrap_or_default();
        let whole = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        String::from_utf8_lossy(&text[..whole]).into_owned()
    }

    /// Waits until `wanted` of the records so far.
    pub(crate) fn wait_records(&self, what: &str, wanted: impl Fn(&[Seen]) -> bool) {
        wait_until(what, || wanted(&self.records()));
    }

    /// Ends it by SIGTERM; everything is out then.
    pub(crate) fn end(self) -> Told {
        self.running.signal(Signal::SIGTERM);
        let finished = self.running.finish();
        assert_eq!(finished.code, Some(0), "{finished:?}");
        let text = std::fs::read_to_string(&self.records).unwrap();
        Told { text, summary: finished.stderr.lines().last().unwrap_or_default().to_owned() }
    }
}

/// Free a moment ago.
fn free_address() -> SocketAddr {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap()
}

impl Told {
    pub(crate) fn records(&self) -> Vec<Seen> {
        Seen::parse(&self.text)
    }
}

/// A whole answer to a GET over a new connection.
pub(crate) fn get(mut stream: TcpStream, target: &str) -> String {
    prepare(&stream);
    let request = format!("GET {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    let mut answer = Vec::new();
    // A connection that breaks has no whole answer, which the caller sees.
    let _ = stream.write_all(request.as_bytes()).and_then(|()| stream.read_to_end(&mut answer));
    String::from_utf8_lossy(&answer).into_owned()
}

/// The release build if it is newer than all it was made from: as people run it, and the fast one. Otherwise the build
/// of the tests.
pub(crate) fn fresh_binary() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| {
        let own = std::env::current_exe().unwrap();
        // target/<profile>/deps/<test>
        let release = own.ancestors().nth(3).map(|target| target.join("release/pod2pod"));
        let named = std::env::var_os(BINARY_VARIABLE).is_some();
        release.filter(|path| !named && is_fresh(path)).unwrap_or_else(|| binary().to_owned())
    })
}

/// cargo leaves a list of the sources beside a binary.
fn is_fresh(binary: &Path) -> bool {
    let time = |path: &Path| std::fs::metadata(path).and_then(|metadata| metadata.modified());
    let Ok(built) = time(binary) else { return false };
    let sources = std::fs::read_to_string(binary.with_extension("d")).unwrap_or_default();
    let sources = sources.split_once(": ").map_or("", |(_, sources)| sources);
    let newer = |path: &str| time(Path::new(path)).unwrap_or_else(|_| SystemTime::now()) > built;
    !sources.is_empty() && !sources.split_whitespace().any(newer)
}
