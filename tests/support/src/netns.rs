//! A small world for tests of the kernel side: network namespaces, the wires between them, and a cgroup of its own, so
//! that nothing else on the machine is counted.
//!
//! A thread enters a namespace and the cgroup; what it opens belongs there. Nothing has a global name but the cgroup,
//! which is removed on drop; namespaces vanish with the last file that holds them.

#![expect(clippy::unwrap_used, clippy::panic, reason = "test support: a failure here is the test's failure")]

use std::{
    fs::{self, File},
    io::Write as _,
    os::fd::AsRawFd as _,
    path::{Path, PathBuf},
    process::{Command, ExitStatus, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use nix::sched::{CloneFlags, setns, unshare};

/// Test cgroups are called this, the process id and a number.
const CGROUP_PREFIX: &str = "pod2pod-test-";
/// How long the kernel may take to empty a cgroup of threads that have been joined.
const MAX_CGROUP_WAIT: Duration = Duration::from_secs(10);
/// Between two looks.
const CGROUP_PAUSE: Duration = Duration::from_millis(1);

/// A network namespace with its loopback up, as long as a clone of this lives.
#[derive(Clone)]
pub struct Namespace(Arc<File>);

impl Namespace {
    /// Makes one.
    pub fn new() -> Self {
        // A thread of its own moves into the new namespace and ends; the open file keeps the namespace.
        let made = thread::spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET).expect("cannot make a network namespace; this needs root");
            File::open("/proc/thread-self/ns/net").unwrap()
        });
        let namespace = Self(Arc::new(made.join().unwrap()));
        namespace.run("ip link set lo up");
        namespace
    }

    /// A path by which any process can open it.
    pub fn path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/{}/fd/{}", std::process::id(), self.0.as_raw_fd()))
    }

    /// Moves the calling thread into it.
    pub fn enter(&self) {
        setns(&*self.0, CloneFlags::CLONE_NEWNET).unwrap();
    }

    /// Does `work` on a thread inside, and waits for it. A socket belongs to the namespace in which it was made, whoever uses it.
    pub fn within<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let done = thread::scope(|scope| {
            let inside = scope.spawn(|| {
                self.enter();
                work()
            });
            inside.join()
        });
        done.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    /// Runs a command line, split at spaces, in it.
    pub fn run(&self, line: &str) {
        self.run_with(line, "");
    }

    /// The same with `input` on standard input.
    pub fn run_with(&self, line: &str, input: &str) {
        let status = self.status(line, input);
        assert!(status.success(), "{line}: {status}");
    }

    /// Runs it, and says whether it could do what it was asked to.
    pub fn try_run(&self, line: &str) -> bool {
        self.status(line, "").success()
    }

    fn status(&self, line: &str, input: &str) -> ExitStatus {
        self.within(|| {
            let mut words = line.split(' ');
            let mut child = Command::new(words.next().unwrap())
                .args(words)
                .stdin(Stdio::piped())
                .stdout(Stdio::null())
                .spawn()
                .unwrap_or_else(|error| panic!("cannot run {line}: {error}"));
            child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
            child.wait().unwrap()
        })
    }

    /// A wire from interface `here` of this namespace to interface `there` of `other`, each with its addresses.
    pub fn wire(&self, here: &str, addresses: &[&str], other: &Self, there: &str, others: &[&str]) {
        let path = other.path();
        let mut lines =
            format!("link add name {here} type veth peer name {there} netns {}\n", path.display());
        for (namespace, name, addresses) in [(self, here, addresses), (other, there, others)] {
            for address in addresses {
                // Without it an IPv6 address cannot be bound to until nobody else claimed it.
                let nodad = if address.contains(':') { " nodad" } else { "" };
                lines.push_str(&format!("address add {address} dev {name}{nodad}\n"));
            }
            lines.push_str(&format!("link set {name} up\n"));
            namespace.ip(&std::mem::take(&mut lines));
        }
    }

    /// Runs lines of `ip` in it, by one process: where all is slow, starting them is what takes time.
    pub fn ip(&self, lines: &str) {
        self.run_with("ip -batch -", lines);
    }
}

impl Default for Namespace {
    fn default() -> Self {
        Self::new()
    }
}

/// A cgroup that single threads can enter, below the root of cgroup v2 or below another.
pub struct Cgroup(PathBuf);

impl Cgroup {
    /// Makes one below the root.
    pub fn new() -> Self {
        // Not as `world` calls its own: both are of one process.
        Self::make(&root(), &format!("{CGROUP_PREFIX}{}-threads-", std::process::id()))
    }

    /// Makes one below this one.
    pub fn below(&self) -> Self {
        Self::make(&self.0, "part-")
    }

    fn make(parent: &Path, prefix: &str) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = parent.join(format!("{prefix}{number}"));
        fs::create_dir(&path).unwrap_or_else(|error| panic!("cannot make {}: {error}", path.display()));
        // Threads, not processes, are members: the test's own process stays where it is.
        fs::write(path.join("cgroup.type"), "threaded").unwrap();
        Self(path)
    }

    /// Whether nothing is left of those below it: a cgroup that was removed lives on with the sockets that were made in it
    /// (`nr_dying_descendants`, Documentation/admin-guide/cgroup-v2.rst).
    pub fn is_alone(&self) -> bool {
        let stat = fs::read_to_string(self.0.join("cgroup.stat")).unwrap();
        let counts = stat.lines().filter(|line| line.starts_with("nr_d") && line.contains("descendants "));
        let counts: Vec<&str> =
            counts.filter_map(|line| line.split_once(' ')).map(|(_, count)| count).collect();
        assert_eq!(counts.len(), 2, "{stat}");
        counts == ["0", "0"]
    }

    /// Its directory.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Runs `work` on a thread inside the cgroup and the namespace.
    pub fn spawn<T: Send + 'static>(
        &self,
        namespace: &Namespace,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> JoinHandle<T> {
        let (threads, namespace) = (self.0.join("cgroup.threads"), namespace.clone());
        thread::spawn(move || {
            fs::write(threads, "0").unwrap();
            namespace.enter();
            work()
        })
    }
}

impl Default for Cgroup {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // A thread that was joined may still be at its very end in the kernel.
        let deadline = Instant::now() + MAX_CGROUP_WAIT;
        while fs::remove_dir(&self.0).is_err() && Instant::now() < deadline {
            thread::park_timeout(CGROUP_PAUSE);
        }
    }
}

/// Where cgroup v2 is mounted.
fn root() -> PathBuf {
    let mounts = procfs::process::Process::myself().unwrap().mountinfo().unwrap();
    let mount = mounts.0.into_iter().find(|mount| mount.fs_type == "cgroup2");
    mount.expect("cgroup v2 is not mounted: mount -t cgroup2 none /sys/fs/cgroup/unified").mount_point
}
