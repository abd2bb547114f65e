//! Exact mode around the watch: follows the kernel's decisions where it can, says once why it cannot, and tries again when the
//! module comes or was loaded anew. What a decision means is not known here.

use std::{
    os::{fd::AsFd as _, unix::fs::MetadataExt as _},
    path::Path,
    time::{Duration, Instant},
};

use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    time::{ClockId, clock_gettime},
};
use pod2pod_common::decision::{DecisionCounter, DecisionCounterValues};

use crate::{
    capture::kernel::{Decisions, DecisionsConfig, Unavailable},
    ipvs::{
        Reuse,
        exact::{
            Decision,
            settle::{Settle, Settled},
        },
    },
    shutdown::Shutdown,
};

/// Decisions that are read at once, before others have their turn: more than the ring holds, so that all that were there are
/// among them.
const MAX_DRAINED: usize = 4096;

/// The namespace of the table's file is beside it.
const NAMESPACE: &str = "ns/net";

/// How exact mode is to be used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// Where it can be, with polling beside it; polling elsewhere.
    #[default]
    Auto,
    /// Exact mode alone.
    Exact,
    /// Polling alone.
    Polling,
}

/// What keeping exact mode up came to.
#[derive(Debug)]
pub enum Kept {
    /// As before.
    Same,
    /// It is on from now on.
    Began,
    /// It is not, for this reason, which was not said before.
    Refused(Unavailable),
    /// The module it followed is gone.
    Ended,
}

/// Exact mode, on or off.
pub struct Exact {
    /// Inode of the network namespace that is watched.
    namespace: u32,
    on: Option<Decisions>,
    /// With which loading of the module it was tried last, and what was said then.
    tried: Option<Option<u64>>,
    said: Option<String>,
    settle: Settle,
    /// Decisions that were lost when it was last looked.
    lost: u64,
    /// Counts of those that ended with their module.
    before: Counts,
}

/// Counts of decisions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counts {
    /// Those of the kernel side.
    pub kernel: DecisionCounterValues,
    /// Probes that the kernel passed over.
    pub missed: u64,
}

impl Default for Counts {
    fn default() -> Self {
        Self { kernel: DecisionCounterValues::ZERO, missed: 0 }
    }
}

impl Counts {
    fn add(&mut self, decisions: &Decisions) {
        for (sum, one) in self.kernel.0.iter_mut().zip(decisions.counters().0) {
            *sum = sum.wrapping_add(one);
        }
        self.missed += decisions.missed();
    }

    /// Decisions that were not seen or not told, or may not have been.
    pub fn lost(&self) -> u64 {
        let counters = [DecisionCounter::Lost, DecisionCounter::RingFull, DecisionCounter::Unreadable];
        self.missed + counters.map(|counter| self.kernel.of(counter)).iter().sum::<u64>()
    }
}

impl Exact {
    /// For the table at `path`, with `settle` to settle what polling finds; absent if that is no file of the kernel's, so that there
    /// is nothing to follow.
    pub fn of(path: &Path, settle: Settle) -> Option<Self> {
        // /proc/net is that of the process itself, /proc/PID/net another's.
        let folder = path.parent()?;
        let of_process = folder.parent()?;
        let own = Path::new("/proc/self");
        let of_process = if folder == Path::new("/proc/net") { own } else { of_process };
        if folder.file_name()? != "net" || !of_process.starts_with("/proc") {
            return None;
        }
        let inode = of_process.join(NAMESPACE).metadata().ok()?.ino();
        Some(Self {
            namespace: u32::try_from(inode).ok()?,
            on: None,
            tried: None,
            said: None,
            settle,
            lost: 0,
            before: Counts::default(),
        })
    }

    /// Turns it on if it can be, and off if what it followed is gone; `now` gives the time when that is done.
    pub fn keep(&mut self, now: impl Fn() -> Duration) -> Kept {
        if let Some(decisions) = &self.on {
            if decisions.is_attached() {
                return Kept::Same;
            }
            self.before.add(decisions);
            self.on = None;
            self.settle.follow(None);
            // That it is not loaded now need not be said besides.
            (self.tried, self.said) = (Some(None), Some(Unavailable::NotLoaded.to_string()));
            return Kept::Ended;
        }
        let module = Decisions::module();
        if self.tried == Some(module) {
            return Kept::Same;
        }
        self.tried = Some(module);
        let config = DecisionsConfig { namespace: Some(self.namespace), ..DecisionsConfig::default() };
        match Decisions::open(&config) {
            Ok(decisions) => {
                self.on = Some(decisions);
                self.said = None;
                self.lost = self.counts().lost();
                self.settle.follow(Some(now()));
                Kept::Began
            }
            Err(reason) => {
                let text = reason.to_string();
                let is_new = self.said.as_ref() != Some(&text);
                self.said = Some(text);
                if is_new { Kept::Refused(reason) } else { Kept::Same }
            }
        }
    }

    /// Inode of the network namespace that is watched.
    pub const fn namespace(&self) -> u32 {
        self.namespace
    }

    /// Whether it is on.
    pub const fn is_on(&self) -> bool {
        self.on.is_some()
    }

    /// Hands on what was decided so far; `at` is now.
    pub fn drain(&mut self, at: Duration, each: &mut impl FnMut(&Decision)) {
        let Self { on: Some(decisions), settle, .. } = self else { return };
        decisions.drain(MAX_DRAINED, &mut |decision| {
            settle.decision(decision, at);
            each(decision);
        });
    }

    /// A poll begins.
    pub fn poll(&mut self, at: Duration) {
        self.settle.poll(at);
    }

    /// A poll is over at `at`, and what was decided by then was drained: from now on it is known whether any of that was lost.
    pub fn polled(&mut self, at: Duration) {
        let lost = self.counts().lost();
        if self.on.is_some() && lost != self.lost {
            self.settle.follow(Some(at));
            self.lost = lost;
        }
    }

    /// What becomes of a reuse that polling found, once the poll is over.
    pub fn settle(&mut self, reuse: &Reuse) -> Settled {
        self.settle.settle(reuse)
    }

    /// What settling counted.
    pub const fn settled(&self) -> &Settle {
        &self.settle
    }

    /// What the kernel side counted.
    pub fn counts(&self) -> Counts {
        let mut counts = self.before;
        if let Some(decisions) = &self.on {
            counts.add(decisions);
        }
        counts
    }

    /// Waits until decisions wait, for `longest` at most, or until the end is asked for; whether there are decisions.
    pub fn wait(&self, shutdown: &Shutdown, longest: Duration) -> bool {
        let Some(decisions) = &self.on else {
            shutdown.wait(longest);
            return false;
        };
        let until = Instant::now() + longest;
        while !shutdown.is_requested() {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            let timeout = left.as_millis().saturating_add(1);
            let timeout = PollTimeout::try_from(timeout).unwrap_or(PollTimeout::MAX);
            let mut fds = [shutdown.as_fd(), decisions.as_fd()].map(|fd| PollFd::new(fd, PollFlags::POLLIN));
            // Whatever else it says, the conditions above are asked again.
            let _ = poll(&mut fds, timeout);
            if fds.get(1).is_some_and(|fd| fd.any() == Some(true)) {
                return true;
            }
        }
        false
    }
}

/// The wall clock, nanoseconds since 1970, at a moment of the kernel's monotonic clock; `wall` is the wall clock's now.
pub fn wall_time(at: Duration, wall: u64) -> u64 {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(at, Duration::from);
    let ago = u64::try_from(now.saturating_sub(at).as_nanos()).unwrap_or(0);
    wall.saturating_sub(ago)
}

#[cfg(test)]
mod tests {
    use pod2pod_common::decision::{DECISION_RING_BYTES, DecisionRecord};

    use super::*;

    #[test]
    fn only_a_table_of_the_kernel_can_be_followed() {
        for (path, expected) in [
            ("/proc/net/ip_vs_conn", true),
            ("/proc/self/net/ip_vs_conn", true),
            ("/proc/0/net/ip_vs_conn", false),
            ("/tmp/ip_vs_conn", false),
            ("/tmp/net/ip_vs_conn", false),
            ("ip_vs_conn", false),
        ] {
            let exact = Exact::of(Path::new(path), Settle::default());
            assert_eq!(exact.is_some(), expected, "{path}");
        }
    }

    #[test]
    fn all_that_the_ring_holds_is_read_at_once() {
        let held = DECISION_RING_BYTES as usize / size_of::<DecisionRecord>();
        assert!(MAX_DRAINED >= held, "{held}");
    }

    #[test]
    fn a_decision_has_the_wall_time_of_its_moment() {
        let now = Duration::from(clock_gettime(ClockId::CLOCK_MONOTONIC).unwrap());
        let wall = 1_800_000_000_000_000_000;
        let told = wall_time(now - Duration::from_secs(5), wall);
        let ago = Duration::from_nanos(wall - told);
        assert!(ago >= Duration::from_secs(5) && ago < Duration::from_secs(60), "{ago:?}");
    }
}
