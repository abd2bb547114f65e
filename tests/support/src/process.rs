//! The real binary as a child process: what it was given, what it said, how it ended. Waits have deadlines, never sleeps
//! that hope.

#![expect(clippy::unwrap_used, clippy::panic, reason = "test support: a failure here is the test's failure")]

use std::{
    ffi::OsStr,
    io::{BufRead, BufReader, Read, Write},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, ExitStatus, Stdio},
    sync::{Arc, Condvar, Mutex, OnceLock},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

/// Longest wait for anything: what takes longer hangs.
pub const PATIENCE: Duration = Duration::from_secs(30);
/// A test may name a binary that is built already.
pub const BINARY_VARIABLE: &str = "POD2POD_TEST_BINARY";

/// Path of `pod2pod`, built if the test's own build left it out (cargo builds binaries for tests of their own crate only).
pub fn binary() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| match std::env::var_os(BINARY_VARIABLE) {
        Some(path) => path.into(),
        None => build(),
    })
}

fn build() -> PathBuf {
    let own = std::env::current_exe().expect("a process has an executable");
    // target/<profile>/deps/<test>
    let folder = own.parent().and_then(Path::parent).expect("test binaries are two folders deep").to_owned();
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    // What cargo tells a test of its crate is not true of others, and makes scripts of dependencies run anew that look at it.
    for (name, _) in std::env::vars_os() {
        if ["CARGO_MANIFEST_", "CARGO_PKG_"].iter().any(|own| name.to_string_lossy().starts_with(own)) {
            command.env_remove(name);
        }
    }
    // A relative one in the environment would be another directory from here.
    command.env("CARGO_TARGET_DIR", folder.parent().expect("a profile's folder is in the target's"));
    command.args(["build", "--quiet", "--package", "pod2pod-user", "--bin", "pod2pod"]);
    if folder.ends_with("release") {
        command.arg("--release");
    }
    let status = command.current_dir(env!("CARGO_MANIFEST_DIR")).status().expect("cargo can be run");
    assert!(status.success(), "building pod2pod failed: {command:?}");
    folder.join("pod2pod")
}

/// `pod2pod` with arguments; the environment has none of its variables.
pub fn command<S: AsRef<OsStr>>(arguments: impl IntoIterator<Item = S>) -> Command {
    let mut command = Command::new(binary());
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("POD2POD_") {
            command.env_remove(name);
        }
    }
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finished {
    /// Exit code; absent if a signal ended it.
    pub code: Option<i32>,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

/// Runs `command` to its end with `input` on standard input.
pub fn run(mut command: Command, input: &[u8]) -> Finished {
    command.stdin(Stdio::piped());
    let mut running = Running::start(command);
    running.write(input);
    running.close_stdin();
    running.finish()
}

#[derive(Debug, Default)]
struct Said {
    text: Mutex<(Vec<u8>, bool)>,
    changed: Condvar,
}

impl Said {
    fn listen(self: Arc<Self>, source: impl Read + Send + 'static) -> JoinHandle<()> {
        std::thread::spawn(move || {
            let mut source = BufReader::new(source);
            loop {
                let mut line = Vec::new();
                let ended = !matches!(source.read_until(b'\n', &mut line), Ok(length) if length > 0);
                let mut text = self.text.lock().unwrap();
                text.0.extend_from_slice(&line);
                text.1 = ended;
                self.changed.notify_all();
                if ended {
                    return;
                }
            }
        })
    }

    fn now(&self) -> String {
        String::from_utf8_lossy(&self.text.lock().unwrap().0).into_owned()
    }

    fn wait_for(&self, wanted: impl Fn(&str) -> bool) -> Option<String> {
        let deadline = Instant::now() + PATIENCE;
        let mut text = self.text.lock().unwrap();
        loop {
            let said = String::from_utf8_lossy(&text.0).into_owned();
            if wanted(&said) {
                return Some(said);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || text.1 {
                return None;
            }
            text = self.changed.wait_timeout(text, left).unwrap().0;
        }
    }
}

/// A running program. Killed when dropped.
#[derive(Debug)]
pub struct Running {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: Arc<Said>,
    stderr: Arc<Said>,
    listeners: Vec<JoinHandle<()>>,
}

impl Running {
    /// Starts `command`.
    pub fn start(mut command: Command) -> Self {
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let (stdout, stderr) = (Arc::<Said>::default(), Arc::<Said>::default());
        let mut listeners = Vec::new();
        listeners.extend(child.stdout.take().map(|source| Arc::clone(&stdout).listen(source)));
        listeners.extend(child.stderr.take().map(|source| Arc::clone(&stderr).listen(source)));
        Self { stdin: child.stdin.take(), child, stdout, stderr, listeners }
    }

    /// Process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Writes to standard input; a program that ended already does not read it, which is no fault here.
    pub fn write(&mut self, bytes: &[u8]) {
        if let Some(stdin) = &mut self.stdin {
            let _ = stdin.write_all(bytes).and_then(|()| stdin.flush());
        }
    }

    /// Ends standard input.
    pub fn close_stdin(&mut self) {
        self.stdin = None;
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(i32::try_from(self.child.id()).unwrap()), signal).unwrap();
    }

    /// Standard output so far.
    pub fn stdout(&self) -> String {
        self.stdout.now()
    }

    /// Standard error so far.
    pub fn stderr(&self) -> String {
        self.stderr.now()
    }

    /// Waits until `wanted` of all standard output so far.
    pub fn wait_stdout(&self, wanted: impl Fn(&str) -> bool) -> String {
        self.stdout
            .wait_for(wanted)
            .unwrap_or_else(|| panic!("not said; stdout: {}\nstderr: {}", self.stdout(), self.stderr()))
    }

    /// Waits until `wanted` of all standard error so far.
    pub fn wait_stderr(&self, wanted: impl Fn(&str) -> bool) -> String {
        self.stderr
            .wait_for(wanted)
            .unwrap_or_else(|| panic!("not said; stdout: {}\nstderr: {}", self.stdout(), self.stderr()))
    }

    /// Waits for the end.
    pub fn finish(mut self) -> Finished {
        let status = self.wait();
        for listener in self.listeners.drain(..) {
            listener.join().unwrap();
        }
        Finished { code: status.code(), stdout: self.stdout(), stderr: self.stderr() }
    }

    fn wait(&mut self) -> ExitStatus {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < deadline, "still running; stderr: {}", self.stderr());
            // Polling: a child's end cannot be waited for with a time limit otherwise.
            std::thread::park_timeout(Duration::from_millis(2));
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
