//! SIGINT and SIGTERM, and SIGHUP where nothing is read again: the first asks for an orderly end, the second ends at once.
//!
//! The signals are blocked in every thread and taken by one that waits for them: nothing runs in a signal handler.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::signal::{SigSet, Signal},
};
use rustix::event::{EventfdFlags, eventfd};

use crate::rights::{self, Part};

/// From the signal to the exit: everything complete is out by then, or is counted as lost.
pub const DEFAULT_DRAIN: Duration = Duration::from_secs(5);

/// Exit code after a second signal: 128 and SIGINT's number, as shells have it.
const EXIT_AT_ONCE: i32 = 130;

/// Whether the program should end. Cheap to ask, and a file descriptor to wait for.
#[derive(Clone, Debug)]
pub struct Shutdown {
    requested: Arc<AtomicBool>,
    /// What SIGHUP is for: the end, unless somebody takes it for reading the configuration again.
    reload: Arc<Reload>,
    event: Arc<OwnedFd>,
}

#[derive(Debug, Default)]
struct Reload {
    is_taken: AtomicBool,
    is_requested: AtomicBool,
}

impl Shutdown {
    /// Only [`Self::request`] asks for the end.
    ///
    /// # Errors
    /// The kernel refuses an event descriptor.
    pub fn without_signals() -> io::Result<Self> {
        let event = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Self { requested: Arc::default(), reload: Arc::default(), event: Arc::new(event) })
    }

    /// Takes the signals over. To be called before any other thread starts, since threads inherit what is blocked.
    ///
    /// # Errors
    /// The kernel refuses an event descriptor, a mask or a thread.
    pub fn install() -> io::Result<Self> {
        let mut signals = SigSet::empty();
        signals.add(Signal::SIGINT);
        signals.add(Signal::SIGTERM);
        signals.add(Signal::SIGHUP);
        signals.thread_block()?;
        let shutdown = Self::without_signals()?;
        let told = shutdown.clone();
        thread::Builder::new().name("signals".to_owned()).spawn(move || {
            // Waiting needs no right; what is refused stays.
            let _ = rights::keep(Part::Signals, |_| false);
            while let Ok(signal) = signals.wait() {
                if signal == Signal::SIGHUP && told.reload.is_taken.load(Ordering::Relaxed) {
                    told.reload.is_requested.store(true, Ordering::Relaxed);
                    continue;
                }
                if told.is_requested() {
                    std::process::exit(EXIT_AT_ONCE);
                }
                told.request();
            }
        })?;
        Ok(shutdown)
    }

    /// From now on SIGHUP asks for the configuration to be read again.
    pub fn take_reloads(&self) {
        self.reload.is_taken.store(true, Ordering::Relaxed);
    }

    /// Whether that was asked for since the last time.
    pub fn is_reload_requested(&self) -> bool {
        self.reload.is_requested.swap(false, Ordering::Relaxed)
    }

    /// Asks for the end.
    pub fn request(&self) {
        self.requested.store(true, Ordering::Relaxed);
        // It is only ever written here; should it be full, it is readable all the same.
        let _ = rustix::io::write(&*self.event, &1u64.to_ne_bytes());
    }

    /// Whether the end was asked for.
    pub fn is_requested(&self) -> bool {
        self.requested.load(Ordering::Relaxed)
    }

    /// Waits for so long, or until the end is asked for.
    pub fn wait(&self, time: Duration) {
        let until = Instant::now() + time;
        while !self.is_requested() {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            let timeout =
                PollTimeout::try_from(left.as_millis().saturating_add(1)).unwrap_or(PollTimeout::MAX);
            // Whatever it says, the conditions above are asked again.
            let _ = poll(&mut [PollFd::new(self.as_fd(), PollFlags::POLLIN)], timeout);
        }
    }
}

impl AsFd for Shutdown {
    /// Readable once the end was asked for.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.event.as_fd()
    }
}
