//! Whether the agent works: what /live and /ready tell.

use std::{
    fmt,
    sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    time::{Duration, Instant},
};

/// An agent that has given the kernel side no heartbeat for so long hangs. The kernel side stops after 2 s already; a busy machine
/// has time to come back.
pub const MAX_SILENCE: Duration = Duration::from_secs(30);

/// So long after the start an agent is ready without the first lists of the API server: it captures, and says what it can. The
/// slowest of their failures takes half of it.
pub const MAX_LISTS_WAIT: Duration = Duration::from_secs(30);

/// How the first lists of the API server stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lists {
    /// Some are on their way.
    Awaited,
    /// All are here.
    Complete,
    /// Some failed.
    Failed,
}

/// Whether it is ready, and what of it is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Readiness {
    /// It does what it can.
    pub is_ready: bool,
    /// In a sentence.
    pub says: &'static str,
}

/// Who is asked how the first lists stand.
type AskLists = Box<dyn Fn() -> Lists + Send + Sync>;

/// What is known of it.
pub struct Health {
    start: Instant,
    /// In a cluster.
    lists: Option<AskLists>,
    is_ready: AtomicBool,
    /// The last heartbeat, in milliseconds after the start, and one; 0 if there is none to be waited for.
    beat: AtomicU64,
}

impl fmt::Debug for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { start, is_ready, beat, lists } = self;
        let mut f = f.debug_struct("Health");
        f.field("start", start).field("is_ready", is_ready).field("beat", beat);
        f.field("lists", &lists.as_ref().map(|lists| lists())).finish()
    }
}

impl Health {
    /// Not ready, and nothing is expected yet. In a cluster `lists` says how the first lists stand.
    pub fn new(now: Instant, lists: Option<AskLists>) -> Self {
        Self { start: now, lists, is_ready: AtomicBool::new(false), beat: AtomicU64::new(0) }
    }

    /// The programs are attached and work; for replay, it reads.
    pub fn set_ready(&self) {
        self.is_ready.store(true, Relaxed);
    }

    /// The kernel side was told that the agent lives; it is to be told again.
    pub fn beat(&self, now: Instant) {
        self.beat.store(self.since_start(now) + 1, Relaxed);
    }

    /// Whether it is ready: it captures, and the first lists are here, or are not to be had.
    pub fn readiness(&self, now: Instant) -> Readiness {
        let told = |is_ready, says| Readiness { is_ready, says };
        if !self.is_ready.load(Relaxed) {
            return told(false, "capture is not attached");
        }
        match self.lists.as_ref().map(|lists| lists()) {
            None | Some(Lists::Complete) => told(true, "ok"),
            Some(Lists::Failed) => told(
                true,
                "ok, but not all the API server has is known: see pod2pod_kubernetes_failures_total",
            ),
            Some(Lists::Awaited) if now.saturating_duration_since(self.start) < MAX_LISTS_WAIT => {
                told(false, "the API server's first lists are awaited")
            }
            Some(Lists::Awaited) => told(true, "ok, but the API server's first lists are not complete"),
        }
    }

    /// Whether it lives.
    pub fn is_live(&self, now: Instant) -> bool {
        let beat = self.beat.load(Relaxed);
        let silence = (self.since_start(now) + 1).saturating_sub(beat);
        beat == 0 || Duration::from_millis(silence) <= MAX_SILENCE
    }

    fn since_start(&self, now: Instant) -> u64 {
        u64::try_from(now.saturating_duration_since(self.start).as_millis()).unwrap_or(u64::MAX - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agent_lives_as_long_as_it_beats() {
        let start = Instant::now();
        let health = Health::new(start, None);
        assert!(health.is_live(start + 9 * MAX_SILENCE), "nothing is expected yet");
        let beat = start + Duration::from_millis(700);
        health.beat(beat);
        assert!(health.is_live(beat + MAX_SILENCE));
        assert!(!health.is_live(beat + MAX_SILENCE + Duration::from_millis(1)));
        health.beat(beat + 2 * MAX_SILENCE);
        assert!(health.is_live(beat + 2 * MAX_SILENCE));
    }

    #[test]
    fn an_agent_is_ready_when_it_captures_and_the_first_lists_are_here_or_not_to_be_had() {
        let (start, last) = (Instant::now(), MAX_LISTS_WAIT - Duration::from_nanos(1));
        for (lists, after, expected, says) in [
            (None, Duration::ZERO, true, "ok"),
            (Some(Lists::Complete), Duration::ZERO, true, "ok"),
            (Some(Lists::Failed), Duration::ZERO, true, "ok, but not all"),
            (Some(Lists::Awaited), last, false, "the API server's first lists are awaited"),
            (Some(Lists::Awaited), MAX_LISTS_WAIT, true, "ok, but the API server's"),
        ] {
            let ask = lists.map(|lists| Box::new(move || lists) as AskLists);
            let health = Health::new(start, ask);
            let told = health.readiness(start + 9 * MAX_LISTS_WAIT);
            assert_eq!((told.is_ready, told.says), (false, "capture is not attached"));
            health.set_ready();
            let told = health.readiness(start + after);
            assert_eq!(told.is_ready, expected, "{lists:?}");
            assert!(told.says.starts_with(says), "{lists:?}: {told:?}");
        }
    }
}
