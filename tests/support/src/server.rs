//! A server as a child process on loopback: started, stopped, killed, held, started again. What it is, is not known here.

#![expect(clippy::unwrap_used, clippy::panic, reason = "test support: a failure here is the test's failure")]

use std::{
    fmt,
    fs::{self, File},
    io::{self, Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    process::{Child, Command},
    thread,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use rustix::net::{AddressFamily, SocketType};

use crate::keeper;
pub use crate::kubernetes::server::free_port;

/// How long a server may take to start on a busy machine.
const MAX_START: Duration = Duration::from_secs(120);
/// How long one may take to end.
const MAX_END: Duration = Duration::from_secs(30);
/// How long anything else may take to become so.
pub const PATIENCE: Duration = Duration::from_secs(120);
/// Between two looks at whether it has.
const LOOK: Duration = Duration::from_millis(100);
/// Between two looks at whether it is ready, or has ended.
const PAUSE: Duration = Duration::from_millis(20);
/// Lines of its log that a failure shows.
const LAST_LINES: usize = 20;

/// Makes the command that starts it, in its folder.
type Start = Box<dyn Fn(&Path) -> Command + Send>;
/// Whether it answers.
type IsReady = Box<dyn Fn() -> bool + Send>;

/// A server, and its folder, which goes with it.
pub struct Server {
    name: &'static str,
    folder: tempfile::TempDir,
    start: Start,
    is_ready: IsReady,
    child: Option<Child>,
}

/// Where what was set up for tests is.
pub fn installed(name: &str) -> PathBuf {
    let place = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/servers").join(name);
    place.canonicalize().unwrap_or_else(|error| panic!("{name}: {error}: cargo xtask setup services"))
}

/// A certificate for loopback that vouches for itself, or its key.
pub fn tls_file(name: &str) -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("data/tls").join(name).display().to_string()
}

/// Waits until it is so, as long as [`PATIENCE`].
pub fn until(what: &str, is_so: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "{what}: it did not become so");
        thread::sleep(LOOK);
    }
}

/// A port of loopback that refuses connections as long as this lives: nobody else can listen there either.
#[derive(Debug)]
pub struct Nobody {
    pub address: SocketAddr,
    _socket: OwnedFd,
}

impl Nobody {
    /// At a free port.
    pub fn new() -> Self {
        let socket = rustix::net::socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
        rustix::net::bind(&socket, &SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).unwrap();
        let address = rustix::net::getsockname(&socket).unwrap().try_into().unwrap();
        Self { address, _socket: socket }
    }
}

impl Default for Nobody {
    fn default() -> Self {
        Self::new()
    }
}

/// Whether something takes connections at `port` of loopback.
pub fn listens(port: u16) -> bool {
    TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok()
}

/// Asks the HTTP server at `port` of loopback: status and body of its answer.
///
/// # Errors
/// It gives none.
pub fn ask(port: u16, method: &str, path: &str, body: &[u8]) -> io::Result<(u16, String)> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    stream.set_read_timeout(Some(MAX_END))?;
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nConnection: close\r\n\
         Content-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(&[head.as_bytes(), body].concat())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let parsed = answer
        .split_once("\r\n\r\n")
        .and_then(|(head, body)| Some((head.split(' ').nth(1)?.parse().ok()?, body.to_owned())));
    parsed.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, answer))
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").field("name", &self.name).field("child", &self.child).finish_non_exhaustive()
    }
}

impl Server {
    /// Starts what `start` says, in a folder that `prepare` fills, and waits until it `is_ready`. The command is one of
    /// [`keeper::command`].
    pub fn start(
        name: &'static str,
        prepare: impl FnOnce(&Path),
        start: impl Fn(&Path) -> Command + Send + 'static,
        is_ready: impl Fn() -> bool + Send + 'static,
    ) -> Self {
        let folder = tempfile::Builder::new().prefix(&format!("pod2pod-{name}-")).tempdir().unwrap();
        prepare(folder.path());
        let mut server =
            Self { name, folder, start: Box::new(start), is_ready: Box::new(is_ready), child: None };
        server.start_again();
        server
    }

    /// Its folder.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Starts it again after it was stopped or killed, and waits until it is ready.
    pub fn start_again(&mut self) {
        assert!(self.child.is_none(), "{} runs", self.name);
        let log = File::options().create(true).append(true).open(self.log()).unwrap();
        let mut command = (self.start)(self.folder.path());
        command.current_dir(self.folder.path()).stdout(log.try_clone().unwrap()).stderr(log);
        self.child = Some(keeper::start(command).unwrap());
        let deadline = Instant::now() + MAX_START;
        while !(self.is_ready)() {
            let ended = self.child.as_mut().unwrap().try_wait().unwrap();
            assert!(ended.is_none(), "{} ended: {ended:?}\n{}", self.name, self.last_lines());
            assert!(Instant::now() < deadline, "{} is not ready\n{}", self.name, self.last_lines());
            thread::sleep(PAUSE);
        }
    }

    /// Asks it to end, and waits until it has.
    pub fn stop(&mut self) {
        self.signal(Signal::SIGTERM);
        self.wait();
    }

    /// Ends it.
    pub fn kill(&mut self) {
        self.signal(Signal::SIGKILL);
        self.wait();
    }

    /// Holds it (SIGSTOP), lets it go on (SIGCONT), or something else.
    pub fn signal(&self, signal: Signal) {
        kill(self.pid(), signal).unwrap();
    }

    /// Of its process, which runs.
    pub fn pid(&self) -> Pid {
        Pid::from_raw(self.child.as_ref().unwrap().id().cast_signed())
    }

    fn wait(&mut self) {
        let mut child = self.child.take().unwrap();
        let deadline = Instant::now() + MAX_END;
        while child.try_wait().unwrap().is_none() {
            assert!(Instant::now() < deadline, "{} does not end\n{}", self.name, self.last_lines());
            thread::sleep(PAUSE);
        }
    }

    fn log(&self) -> PathBuf {
        self.folder.path().join("log")
    }

    /// The end of what it said.
    pub fn last_lines(&self) -> String {
        let log = fs::read(self.log()).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let lines: Vec<_> = log.lines().collect();
        lines[lines.len().saturating_sub(LAST_LINES)..].join("\n")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            // It may have ended by itself.
            let _ = child.kill();
            let _ = child.wait();
        }
        if thread::panicking() {
            eprintln!("{}:\n{}", self.name, self.last_lines());
        }
    }
}
