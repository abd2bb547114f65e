//! A small world of its own: two pods and the node between them, as network namespaces, a service address that the node
//! translates, and a cgroup for the pods' processes.
//!
//! The namespaces have no names: they vanish with the last process that holds them, however it ends. Only the cgroup
//! has to be removed.

use std::{
    fs::{self, File},
    io::Write as _,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    os::fd::AsRawFd as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::atomic::{AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use nix::sched::{CloneFlags, setns, unshare};

/// Where the client believes the server to be.
pub const SERVICE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 96, 0, 10)), 80);
/// Where the service's pod listens.
pub const POD_PORT: u16 = 8080;

/// The client's pod.
pub const CLIENT_POD: Pod = Pod::new("client", 1);
/// The server's pod.
pub const SERVER_POD: Pod = Pod::new("server", 2);

/// How long the kernel may take to empty a cgroup of processes that have been waited for.
const MAX_CGROUP_WAIT: Duration = Duration::from_secs(5);

/// A pod's name and addresses, and those of the node beside it.
#[derive(Clone, Copy, Debug)]
pub struct Pod {
    name: &'static str,
    /// Its IPv4 address.
    pub v4: Ipv4Addr,
    /// Its IPv6 address.
    pub v6: Ipv6Addr,
    node_v4: Ipv4Addr,
    node_v6: Ipv6Addr,
}

impl Pod {
    const fn new(name: &'static str, number: u8) -> Self {
        Self {
            name,
            v4: Ipv4Addr::new(10, 244, number, 2),
            v6: Ipv6Addr::new(0xfd00, 0x244, 0, number as u16, 0, 0, 0, 2),
            node_v4: Ipv4Addr::new(10, 244, number, 1),
            node_v6: Ipv6Addr::new(0xfd00, 0x244, 0, number as u16, 0, 0, 0, 1),
        }
    }
}

/// A network namespace, as long as this lives.
#[derive(Debug)]
pub struct Namespace(File);

impl Namespace {
    /// Makes one; nothing in it is up.
    ///
    /// # Errors
    /// No privilege.
    pub fn new() -> Result<Self> {
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
    pub fn path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/{}/fd/{}", std::process::id(), self.0.as_raw_fd()))
    }

    /// Runs a line of words in the namespace, with `input` on its standard input.
    pub fn run(&self, line: &str, input: &str) -> Result<()> {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", self.path().display())).args(line.split(' '));
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .with_context(|| format!("cannot start {command:?}"))?;
        if let Some(mut stdin) = child.stdin.take() {
            stdin.write_all(input.as_bytes())?;
        }
        let status = child.wait()?;
        if status.success() { Ok(()) } else { bail!("{command:?} failed: {status}") }
    }

    /// Runs several lines of `ip` commands.
    ///
    /// # Errors
    /// One of them fails.
    pub fn ip(&self, lines: &str) -> Result<()> {
        self.run("ip -batch -", lines)
    }
}

/// Moves this thread into the namespace at `path`.
///
/// # Errors
/// There is none, or no privilege.
pub fn enter(path: &Path) -> Result<()> {
    let file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
    setns(file, CloneFlags::CLONE_NEWNET).with_context(|| format!("cannot enter {}", path.display()))
}

/// Moves this process into the cgroup at `path`.
///
/// # Errors
/// There is none, or no privilege.
pub fn join(path: &Path) -> Result<()> {
    let members = path.join("cgroup.procs");
    fs::write(&members, "0").with_context(|| format!("cannot enter {}", members.display()))
}

/// Two pods, the node, and the pods' cgroup.
#[derive(Debug)]
pub struct World {
    /// The client's pod.
    pub client: Namespace,
    /// The server's pod.
    pub server: Namespace,
    /// What is between them, and translates.
    pub node: Namespace,
    /// Has a part for each pod.
    pub cgroup: Cgroup,
}

impl World {
    /// Builds it; `prefix` begins the cgroup's name.
    ///
    /// # Errors
    /// No privilege, no cgroup v2, or a program (ip, nft, nsenter) is missing.
    pub fn build(prefix: &str) -> Result<Self> {
        let cgroup = Cgroup::new(prefix)?;
        let (client, server, node) = (Namespace::new()?, Namespace::new()?, Namespace::new()?);
        for (pod, Pod { name, v4, v6, node_v4, node_v6 }) in [(&client, CLIENT_POD), (&server, SERVER_POD)] {
            let path = pod.path();
            node.run(
                &format!("ip link add name {name} type veth peer name eth0 netns {}", path.display()),
                "",
            )?;
            node.ip(&format!(
                "address add {node_v4}/24 dev {name}\naddress add {node_v6}/64 dev {name} nodad\n\
                 link set {name} up\n"
            ))?;
            pod.ip(&format!(
                "link set lo up\naddress add {v4}/24 dev eth0\naddress add {v6}/64 dev eth0 nodad\n\
                 link set eth0 up\nroute add default via {node_v4}\nroute add ::/0 via {node_v6}\n"
            ))?;
            cgroup.part(name)?;
        }
        node.run("tee /proc/sys/net/ipv4/ip_forward /proc/sys/net/ipv6/conf/all/forwarding", "1")?;
        node.run("nft -f -", &service_rule())?;
        Ok(Self { client, server, node, cgroup })
    }
}

/// What a node's service proxy does for one service with one pod behind it.
fn service_rule() -> String {
    format!(
        "table ip nat {{\n chain services {{\n  type nat hook prerouting priority -100;\n  \
         ip daddr {} tcp dport {} dnat to {}:{POD_PORT};\n }}\n}}\n",
        SERVICE.ip(),
        SERVICE.port(),
        SERVER_POD.v4
    )
}

/// A cgroup with parts below it, removed with this.
#[derive(Debug)]
pub struct Cgroup(PathBuf);

impl Cgroup {
    /// Makes one, named by `prefix`, this process and a number.
    ///
    /// # Errors
    /// No cgroup v2, or no privilege.
    pub fn new(prefix: &str) -> Result<Self> {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let root = cgroup_root()?;
        remove_leftovers(&root, prefix);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = root.join(format!("{prefix}-{}-{number}", std::process::id()));
        make(&path)?;
        Ok(Self(path))
    }

    /// Its directory.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Its name below the root, as the agent's configuration takes it.
    pub fn name(&self) -> &str {
        self.0.file_name().and_then(|name| name.to_str()).unwrap_or_default()
    }

    /// The directory of the part called `name`, made if there is none; a path of names is parts of parts.
    ///
    /// # Errors
    /// No privilege.
    pub fn part(&self, name: &str) -> Result<PathBuf> {
        let path = self.0.join(name);
        fs::create_dir_all(&path).with_context(|| format!("cannot make the cgroup {}", path.display()))?;
        Ok(path)
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // The kernel may still be at the end of a process that was waited for.
        let deadline = Instant::now() + MAX_CGROUP_WAIT;
        while !remove(&self.0) && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(10));
        }
    }
}

fn make(path: &Path) -> Result<()> {
    fs::create_dir(path).with_context(|| format!("cannot make the cgroup {}", path.display()))
}

/// Removes a cgroup with its parts; whether it is gone, by us or by another.
fn remove(cgroup: &Path) -> bool {
    for part in fs::read_dir(cgroup).into_iter().flatten().flatten() {
        // If it cannot be removed, neither can its parent. The cgroup's files go with it.
        if part.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove(&part.path());
        }
    }
    fs::remove_dir(cgroup).is_ok() || !cgroup.exists()
}

/// Removes the cgroups of processes that were killed: they could not do it themselves.
fn remove_leftovers(root: &Path, prefix: &str) {
    for entry in fs::read_dir(root).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let rest = name.to_str().and_then(|name| name.strip_prefix(prefix)?.strip_prefix('-'));
        let owner = rest.and_then(|rest| rest.split('-').next());
        if owner.is_some_and(|pid| !Path::new("/proc").join(pid).exists()) {
            remove(&entry.path());
        }
    }
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
