//! The watch over IPVS inside the agent: a thread of its own that polls the table, follows the kernel's decisions where it can,
//! writes what both prove, and says how it went.
//!
//! Nobody waits for it: its records go into the queues beside those of the workers, and its figures lie ready, a swap away. What a
//! change of the table or a decision proves is decided in `ipvs`.

mod following;
mod share;
mod telling;
mod thread;

use std::{
    io,
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{self, Receiver, RecvTimeoutError},
    },
    thread::Builder,
    time::Instant,
};

pub(super) use self::share::{board, join_config};
use self::thread::Watch;
use crate::{
    behind,
    metrics::{Counted, ipvs as rows},
    shutdown::Shutdown,
    sinks::Sinks,
    watch::{board::Board, config::Config},
};

/// The watch.
pub(super) struct Ipvs {
    shown: Arc<Mutex<Shown>>,
    /// Nothing comes: it is closed when all was told.
    told: Receiver<()>,
}

/// What the thread shows. It is made whole elsewhere: the lock is held for a swap, since whoever looks goes before the thread.
#[derive(Clone, Default)]
pub(super) struct Shown {
    rows: Arc<Vec<Counted>>,
    polled: Option<Instant>,
    is_present: bool,
    /// How often exact mode was turned on or off, and whether it is on.
    pub(super) exact: (u64, bool),
}

impl Ipvs {
    /// Starts the thread. Records go to `sinks`, polls and decisions to the `board`; who looks behind Services asks polls.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub(super) fn start(
        config: &Config,
        (board, behind): (Arc<Board>, Option<Arc<behind::Shared>>),
        sinks: Sinks,
        shutdown: &Shutdown,
    ) -> io::Result<Self> {
        let shown = Arc::new(Mutex::default());
        let mut watch = Watch::new(config.clone(), board, sinks, Arc::clone(&shown), shutdown.clone());
        watch.behind = behind;
        watch.publish();
        let (telling, told) = mpsc::sync_channel(1);
        Builder::new().name("ipvs".to_owned()).spawn(move || watch.run(telling))?;
        Ok(Self { shown, told })
    }

    /// What it showed last.
    pub(super) fn shown(&self) -> Shown {
        self.shown.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits until it told all, since its end was asked for; until `deadline` at most. The kernel may keep whoever asks it about IPVS
    /// waiting for as long as somebody changes that, and no signal wakes it.
    pub(super) fn finish(self, deadline: Instant) {
        let left = deadline.saturating_duration_since(Instant::now());
        if self.told.recv_timeout(left) == Err(RecvTimeoutError::Timeout) {
            tracing::warn!("IPVS is still being read: what was found last is not told");
        }
    }
}

impl Shown {
    /// The metrics.
    pub(super) fn rows(&self, now: Instant) -> impl Iterator<Item = Counted> + '_ {
        let age = self.polled.map(|polled| rows::age(now.saturating_duration_since(polled)));
        self.rows.iter().cloned().chain([rows::present(self.is_present)]).chain(age)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_end_waits_for_what_is_told_and_not_for_the_kernel() {
        let ipvs = || {
            let (telling, told) = mpsc::sync_channel(1);
            (telling, Ipvs { shown: Arc::default(), told })
        };
        let (telling, done) = ipvs();
        drop(telling);
        let far = Instant::now() + Duration::from_secs(600);
        done.finish(far);
        assert!(Instant::now() < far);
        let (_telling, stuck) = ipvs();
        let near = Instant::now() + Duration::from_millis(20);
        stuck.finish(near);
        assert!(Instant::now() >= near);
    }
}
