//! The demo's processes: each dies with the demo, also when the demo is killed; SIGINT and SIGTERM end them and let
//! the demo clean up.

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
pub(crate) const PAUSE: Duration = Duration::from_millis(5);

/// From here on SIGINT and SIGTERM end the demo's processes; what waits for them then fails, and cleans up.
pub(crate) fn watch_signals() -> Result<()> {
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

/// Whether a signal asked the demo to end.
pub(crate) fn interrupted() -> bool {
    INTERRUPTED.load(Ordering::SeqCst)
}

/// Makes this process die with its parent, which must be the demo's main thread.
pub(crate) fn die_with_parent() -> Result<()> {
    // The demo's mask came along; here signals do what they do by default.
    signals().thread_unblock().context("cannot unblock signals")?;
    prctl::set_pdeathsig(Signal::SIGKILL).context("cannot ask for a signal at the parent's death")
}

/// Becomes `program`, and still dies with its parent.
pub(crate) fn become_program(program: &str, arguments: &[String]) -> Result<Infallible> {
    die_with_parent()?;
    let error = Command::new(program).args(arguments).exec();
    Err(error).with_context(|| format!("cannot start {program}"))
}

/// A process that is killed when this is dropped.
pub(crate) struct Process {
    name: &'static str,
    pub(crate) child: Child,
}

impl Process {
    pub(crate) fn start(name: &'static str, command: &mut Command) -> Result<Self> {
        if interrupted() {
            bail!("interrupted");
        }
        let child = command.spawn().with_context(|| format!("cannot start {command:?}"))?;
        let process = Self { name, child };
        RUNNING.lock().unwrap_or_else(PoisonError::into_inner).push(process.pid());
        Ok(process)
    }

    fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id().cast_signed())
    }

    /// Sends a signal.
    pub(crate) fn signal(&self, signal: Signal) -> Result<()> {
        kill(self.pid(), signal).with_context(|| format!("cannot send {signal} to the {}", self.name))
    }

    /// Whether it has ended.
    pub(crate) fn ended(&mut self) -> Result<Option<ExitStatus>> {
        self.child.try_wait().with_context(|| format!("cannot wait for the {}", self.name))
    }

    /// Waits for its successful end.
    pub(crate) fn finish(mut self, within: Duration) -> Result<()> {
        let deadline = Instant::now() + within;
        loop {
            if interrupted() {
                bail!("interrupted");
            }
            match self.ended()? {
                Some(status) if status.success() => return Ok(()),
                Some(status) => bail!("the {} failed: {status}", self.name),
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
