//! The processes of a program that stages something (the demo, the benchmarks): each dies with it, also when it is
//! killed; SIGINT and SIGTERM end them and let it clean up.

use std::{
    convert::Infallible,
    os::unix::process::CommandExt as _,
    process::{Child, Command, ExitStatus},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use nix::{
    sys::{
        prctl,
        signal::{SigSet, Signal, kill},
    },
    unistd::Pid,
};

/// Processes to end when a signal comes.
static RUNNING: Mutex<Vec<Pid>> = Mutex::new(Vec::new());
static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// How often a wait looks again.
pub const PAUSE: Duration = Duration::from_millis(5);

/// From here on SIGINT and SIGTERM end the processes; what waits for them then fails, and cleans up.
///
/// # Errors
/// The signals cannot be blocked.
pub fn watch_signals() -> Result<()> {
    let signals = signals();
    signals.thread_block().context("cannot block signals")?;
    thread::spawn(move || {
        while signals.wait().is_ok() {
            INTERRUPTED.store(true, Ordering::SeqCst);
            for pid in RUNNING.lock().unwrap_or_else(PoisonError::into_inner).iter() {
                // It may have ended by itself.
                let _ = kill(*pid, Signal::SIGKILL);
            }
        }
    });
    Ok(())
}

fn signals() -> SigSet {
    SigSet::from_iter([Signal::SIGINT, Signal::SIGTERM])
}

/// Whether a signal asked the program to end.
pub fn interrupted() -> bool {
    INTERRUPTED.load(Ordering::SeqCst)
}

/// Makes this process die with its parent, which must be the program's main thread.
///
/// # Errors
/// The kernel refuses.
pub fn die_with_parent() -> Result<()> {
    // The parent's mask came along; here signals do what they do by default.
    signals().thread_unblock().context("cannot unblock signals")?;
    prctl::set_pdeathsig(Signal::SIGKILL).context("cannot ask for a signal at the parent's death")
}

/// Becomes `program`, and still dies with its parent.
///
/// # Errors
/// It cannot be started.
pub fn become_program(program: &str, arguments: &[String]) -> Result<Infallible> {
    die_with_parent()?;
    let error = Command::new(program).args(arguments).exec();
    Err(error).with_context(|| format!("cannot start {program}"))
}

/// A process that is killed when this is dropped.
#[derive(Debug)]
pub struct Process {
    name: &'static str,
    /// The process, for its pipes.
    pub child: Child,
}

impl Process {
    /// Starts it; `name` is for errors.
    ///
    /// # Errors
    /// It cannot be started, or a signal asked the program to end.
    pub fn start(name: &'static str, command: &mut Command) -> Result<Self> {
        if interrupted() {
            bail!("interrupted");
        }
        let child = command.spawn().with_context(|| format!("cannot start {command:?}"))?;
        let process = Self { name, child };
        RUNNING.lock().unwrap_or_else(PoisonError::into_inner).push(process.pid());
        Ok(process)
    }

    /// Its process id.
    pub fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id().cast_signed())
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// There is no such process.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        kill(self.pid(), signal).with_context(|| format!("cannot send {signal} to the {}", self.name))
    }

    /// Whether it has ended.
    ///
    /// # Errors
    /// It cannot be waited for.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        self.child.try_wait().with_context(|| format!("cannot wait for the {}", self.name))
    }

    /// Waits for its successful end.
    ///
    /// # Errors
    /// It fails, does not end in time, or a signal asked the program to end.
    pub fn finish(mut self, within: Duration) -> Result<()> {
        let status = self.wait(within)?;
        if status.success() { Ok(()) } else { bail!("the {} failed: {status}", self.name) }
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// It does not end in time, or a signal asked the program to end.
    pub fn wait(&mut self, within: Duration) -> Result<ExitStatus> {
        let deadline = Instant::now() + within;
        loop {
            if interrupted() {
                bail!("interrupted");
            }
            match self.ended()? {
                Some(status) => return Ok(status),
                None if Instant::now() > deadline => {
                    bail!("the {} did not end within {} s", self.name, within.as_secs())
                }
                None => thread::sleep(PAUSE),
            }
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let pid = self.pid();
        RUNNING.lock().unwrap_or_else(PoisonError::into_inner).retain(|running| *running != pid);
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
