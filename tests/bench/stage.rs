//! Where it plays: a namespace for the server and one for the client, a wire between them, nginx at the one end. What is
//! started dies with the benchmark.

use std::{
    convert::Infallible,
    fs::{self, File},
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use support::{
    processes::{self, Process},
    world::{self, Namespace},
};
use tempfile::TempDir;

use crate::observers::wait_for;

/// First word of the command line by which the benchmark starts itself in front of a program.
pub(crate) const BECOME: &str = "become";
/// The namespace that programs outside of the stage are started in.
pub(crate) const OUTSIDE: &str = "-";

/// Where the server listens.
pub(crate) const SERVER: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 78, 0, 2)), 8080);
/// Where its clients are.
pub(crate) const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 78, 0, 1));
/// The wire's name at both ends.
const INTERFACE: &str = "eth0";
/// The small exchange.
pub(crate) const SMALL: &str = "/small";
/// The large one, and the bytes of its response.
pub(crate) const LARGE: &str = "/large";
const LARGE_BYTES: usize = 1_000_000;

/// How long nginx may take to listen.
const MAX_START: Duration = Duration::from_secs(10);

/// The stage, as long as this lives.
#[derive(Debug)]
pub(crate) struct Stage {
    pub(crate) client: Namespace,
    pub(crate) server: Namespace,
    nginx: Process,
    directory: TempDir,
}

impl Stage {
    /// Builds it.
    pub(crate) fn build() -> Result<Self> {
        // In memory: the disk is nobody's rival here.
        let directory = tempfile::Builder::new()
            .prefix("pod2pod-bench-")
            .tempdir_in(memory())
            .context("cannot make a temporary directory")?;
        let (client, server) = (Namespace::new()?, Namespace::new()?);
        // Rounds of thousands of connections follow each other faster than the ports of the last are free again.
        client.run("tee /proc/sys/net/ipv4/ip_local_port_range", "1024 65535")?;
        client.ip(&format!(
            "link set lo up\nlink add name {INTERFACE} type veth peer name {INTERFACE} netns {}\n\
             address add {CLIENT}/24 dev {INTERFACE}\nlink set {INTERFACE} up\n",
            server.path().display()
        ))?;
        server.ip(&format!(
            "link set lo up\naddress add {}/24 dev {INTERFACE}\nlink set {INTERFACE} up\n",
            SERVER.ip()
        ))?;
        let nginx = nginx(&server, directory.path())?;
        Ok(Self { client, server, nginx, directory })
    }

    /// A file in the stage's directory, which is in memory.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// The stage still stands.
    pub(crate) fn check(&mut self) -> Result<()> {
        match self.nginx.ended()? {
            Some(status) => bail!("nginx ended: {status}"),
            None => Ok(()),
        }
    }
}

/// A directory in memory if there is one.
pub(crate) fn memory() -> PathBuf {
    let shared = PathBuf::from("/dev/shm");
    if shared.is_dir() { shared } else { std::env::temp_dir() }
}

/// A command that runs `program` in `namespace` (outside of the stage if there is none) and ends with the benchmark.
pub(crate) fn command(namespace: Option<&Namespace>, program: impl AsRef<Path>) -> Result<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    let place = namespace.map_or_else(|| PathBuf::from(OUTSIDE), Namespace::path);
    command.arg(BECOME).arg(place).arg(program.as_ref()).stdin(Stdio::null());
    Ok(command)
}

/// This process becomes `program`.
pub(crate) fn become_program(namespace: &Path, program: &str, arguments: &[String]) -> Result<Infallible> {
    if namespace != Path::new(OUTSIDE) {
        world::enter(namespace)?;
        // Only what opens thousands of connections is in a namespace; the agent outside keeps its user's limits.
        let (_, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
        setrlimit(Resource::RLIMIT_NOFILE, most, most).context("cannot raise the file limit")?;
    }
    processes::die_with_parent()?;
    processes::become_program(program, arguments)
}

fn nginx(namespace: &Namespace, directory: &Path) -> Result<Process> {
    fs::create_dir(directory.join("www"))?;
    fs::write(directory.join(format!("www{LARGE}")), vec![b'a'; LARGE_BYTES])?;
    let place = directory.display().to_string();
    let settings =
        include_str!("nginx.conf").replace("DIRECTORY", &place).replace("SERVER", &SERVER.to_string());
    let file = directory.join("nginx.conf");
    fs::write(&file, settings)?;
    let log = directory.join("nginx.log");
    let mut command = command(Some(namespace), "nginx")?;
    command.args(["-e", "stderr", "-p", &place, "-c"]).arg(&file);
    command.stdout(Stdio::null()).stderr(File::create(&log)?);
    let mut nginx = Process::start("server", &mut command)?;
    let said = || fs::read_to_string(&log).unwrap_or_default();
    // Written when the sockets are open.
    wait_for(&mut nginx, MAX_START, || directory.join("nginx.pid").exists()).with_context(said)?;
    Ok(nginx)
}
