//! The world of the demo: two pods and the node between them, as network namespaces, a service address that the node
//! translates, and a cgroup for the pods' processes.
//!
//! The namespaces have no names: they vanish with the last process that holds them, however it ends. Only the cgroup
//! has to be removed.

use std::{
    fs::{self, File},
    io::Write as _,
    net::{Ipv4Addr, SocketAddr},
    os::fd::AsRawFd as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use nix::sched::{CloneFlags, setns, unshare};

/// Where the client believes the server to be.
pub(crate) const SERVICE: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::new(10, 96, 0, 10)), 80);
/// Where the server's pod listens.
pub(crate) const POD_PORT: u16 = 8080;

/// Each pod's name, its address and that of the node beside it.
const CLIENT_POD: [&str; 3] = ["client", "10.244.1.2", "10.244.1.1"];
const SERVER_POD: [&str; 3] = ["server", "10.244.2.2", "10.244.2.1"];

/// The demo's cgroup is called this and its process id.
const CGROUP_PREFIX: &str = "pod2pod-demo-";

/// How long the kernel may take to empty a cgroup of processes that have been waited for.
const MAX_CGROUP_WAIT: Duration = Duration::from_secs(5);

/// A network namespace, as long as this lives.
pub(crate) struct Namespace(File);

impl Namespace {
    fn new() -> Result<Self> {
        // A thread of its own moves into the new namespace and ends; the open file keeps the namespace.
        let made = thread::spawn(|| -> Result<File> {
            unshare(CloneFlags::CLONE_NEWNET).context("cannot make a network namespace; this needs root")?;
            Ok(File::open("/proc/thread-self/ns/net")?)
        });
        match made.join() {
            Ok(file) => Ok(Self(file?)),
            Err(_) => bail!("the thread that makes a namespace panicked"),
        }
    }

    /// A path by which any process can open it.
    pub(crate) fn path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/{}/fd/{}", std::process::id(), self.0.as_raw_fd()))
    }

    /// Runs a line of words in the namespace, with `input` on its standard input.
    fn run(&self, line: &str, input: &str) -> Result<()> {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", self.path().display())).args(line.split(' '));
        let mut child =
            command.stdin(Stdio::piped()).spawn().with_context(|| format!("cannot start {command:?}"))?;
        if let Some(mut stdin) = child.stdin.take() {
            stdin.write_all(input.as_bytes())?;
        }
        let status = child.wait()?;
        if status.success() { Ok(()) } else { bail!("{command:?} failed: {status}") }
    }
}

/// Moves this process into the namespace at `path`.
pub(crate) fn enter(path: &Path) -> Result<()> {
    let file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
    setns(file, CloneFlags::CLONE_NEWNET).with_context(|| format!("cannot enter {}", path.display()))
}

/// Two pods, the node, and the pods' cgroup.
pub(crate) struct World {
    pub(crate) client: Namespace,
    pub(crate) server: Namespace,
    _node: Namespace,
    /// The pods' cgroups are below it, each called as its pod.
    pub(crate) cgroup: PathBuf,
}

impl World {
    pub(crate) fn build() -> Result<Self> {
        let (client, server, node) = (Namespace::new()?, Namespace::new()?, Namespace::new()?);
        for (pod, [name, address, gateway]) in [(&client, CLIENT_POD), (&server, SERVER_POD)] {
            let path = pod.path();
            node.run(
                &format!("ip link add name {name} type veth peer name eth0 netns {}", path.display()),
                "",
            )?;
            node.run(&format!("ip address add {gateway}/24 dev {name}"), "")?;
            node.run(&format!("ip link set {name} up"), "")?;
            pod.run("ip link set lo up", "")?;
            pod.run(&format!("ip address add {address}/24 dev eth0"), "")?;
            pod.run("ip link set eth0 up", "")?;
            pod.run(&format!("ip route add default via {gateway}"), "")?;
        }
        node.run("tee /proc/sys/net/ipv4/ip_forward", "1")?;
        node.run("nft -f -", &service_rule())?;
        let root = cgroup_root()?;
        remove_leftovers(&root);
        let cgroup = root.join(format!("{CGROUP_PREFIX}{}", std::process::id()));
        let world = Self { client, server, _node: node, cgroup };
        for pod in [Path::new(""), Path::new(CLIENT_POD[0]), Path::new(SERVER_POD[0])] {
            let cgroup = world.cgroup.join(pod);
            fs::create_dir(&cgroup)
                .with_context(|| format!("cannot make the cgroup {}", cgroup.display()))?;
        }
        Ok(world)
    }
}

impl Drop for World {
    fn drop(&mut self) {
        // The kernel may still be at the end of a process that was waited for.
        let deadline = Instant::now() + MAX_CGROUP_WAIT;
        while !remove_cgroups(&self.cgroup) && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(10));
        }
    }
}

/// Removes a demo's cgroup with its pods'; whether it is gone, by us or by another demo.
fn remove_cgroups(cgroup: &Path) -> bool {
    for pod in [CLIENT_POD[0], SERVER_POD[0]] {
        // If it cannot be removed, neither can its parent.
        let _ = fs::remove_dir(cgroup.join(pod));
    }
    fs::remove_dir(cgroup).is_ok() || !cgroup.exists()
}

/// Removes the cgroups of demos that were killed: they could not do it themselves.
fn remove_leftovers(root: &Path) {
    let Ok(entries) = fs::read_dir(root) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let owner = name.to_str().and_then(|name| name.strip_prefix(CGROUP_PREFIX));
        if owner.is_some_and(|pid| !Path::new("/proc").join(pid).exists()) {
            remove_cgroups(&entry.path());
        }
    }
}

/// What a node's service proxy does for one service with one pod behind it.
fn service_rule() -> String {
    format!(
        "table ip nat {{\n chain services {{\n  type nat hook prerouting priority -100;\n  \
         ip daddr {} tcp dport {} dnat to {}:{POD_PORT};\n }}\n}}\n",
        SERVICE.ip(),
        SERVICE.port(),
        SERVER_POD[1]
    )
}

/// Where cgroup v2 is mounted, alone or beside v1.
fn cgroup_root() -> Result<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").context("cannot read /proc/self/mountinfo")?;
    cgroup_mount(&mounts).context("no cgroup v2 is mounted; try: mount -t cgroup2 none /sys/fs/cgroup")
}

/// The first cgroup v2 mount of its whole tree in a mountinfo text (proc_pid_mountinfo(5)).
fn cgroup_mount(mounts: &str) -> Option<PathBuf> {
    mounts.lines().find_map(|line| {
        let (before, after) = line.split_once(" - ")?;
        let mut fields = before.split(' ').skip(3);
        let (root, point) = (fields.next()?, fields.next()?);
        (after.starts_with("cgroup2 ") && root == "/").then(|| PathBuf::from(point))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cgroup_v2_is_found_alone_and_beside_v1() {
        let v1 = "30 25 0:26 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n";
        let v2 = "31 25 0:27 / /sys/fs/cgroup/unified rw,relatime shared:9 - cgroup2 cgroup2 rw\n";
        let part = "32 25 0:27 /some/part /mnt rw - cgroup2 none rw\n";
        let unified = Some(PathBuf::from("/sys/fs/cgroup/unified"));
        assert_eq!(cgroup_mount(&format!("{v1}{part}{v2}")), unified);
        assert_eq!(cgroup_mount(v2), unified);
        assert_eq!(cgroup_mount(&format!("{v1}{part}")), None);
    }
}
