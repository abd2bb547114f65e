//! Whether the agent works: what /live and /ready tell.

use std::{
    fmt::{self, Write as _},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
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
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Readiness {
    /// It does what it can. A target that takes nothing changes nothing of that: another agent would not be better off.
    pub is_ready: bool,
    /// In a sentence, and a line for each target that takes nothing.
    pub says: String,
}

/// A sink whose target does not take what it is sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Troubled {
    /// Its name.
    pub sink: Arc<str>,
    /// In a word, as in metrics.
    pub kind: &'static str,
    /// Since when.
    pub since: Instant,
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
    troubled: Mutex<Vec<Troubled>>,
}

impl fmt::Debug for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { start, is_ready, beat, lists, troubled } = self;
        let mut f = f.debug_struct("Health");
        f.field("start", start).field("is_ready", is_ready).field("beat", beat).field("troubled", troubled);
        f.field("lists", &lists.as_ref().map(|lists| lists())).finish()
    }
}

impl Health {
    /// Not ready, and nothing is expected yet. In a cluster `lists` says how the first lists stand.
    pub fn new(now: Instant, lists: Option<AskLists>) -> Self {
        let (is_ready, beat, troubled) = (AtomicBool::new(false), AtomicU64::new(0), Mutex::default());
        Self { start: now, lists, is_ready, beat, troubled }
    }

    /// These are the sinks whose targets take nothing.
    pub fn set_troubled(&self, troubled: Vec<Troubled>) {
        *self.troubled.lock().unwrap_or_else(PoisonError::into_inner) = troubled;
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
        let (is_ready, sentence) = self.works(now);
        let mut says = sentence.to_owned();
        for Troubled { sink, kind, since } in &*self.troubled.lock().unwrap_or_else(PoisonError::into_inner) {
            let seconds = now.saturating_duration_since(*since).as_secs();
            // A String takes every write.
            let _ = write!(says, "\nsinks.{sink}: its target takes nothing, for {seconds} s: {kind}");
        }
        Readiness { is_ready, says }
    }

    fn works(&self, now: Instant) -> (bool, &'static str) {
        if !self.is_ready.load(Relaxed) {
            return (false, "capture is not attached");
        }
        match self.lists.as_ref().map(|lists| lists()) {
            None | Some(Lists::Complete) => (true, "ok"),
            Some(Lists::Failed) => {
                (true, "ok, but not all the API server has is known: see pod2pod_kubernetes_failures_total")
            }
            Some(Lists::Awaited) if now.saturating_duration_since(self.start) < MAX_LISTS_WAIT => {
                (false, "the API server's first lists are awaited")
            }
            Some(Lists::Awaited) => (true, "ok, but the API server's first lists are not complete"),
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
            assert_eq!((told.is_ready, &*told.says), (false, "capture is not attached"));
            health.set_ready();
            let told = health.readiness(start + after);
            assert_eq!(told.is_ready, expected, "{lists:?}");
            assert!(told.says.starts_with(says), "{lists:?}: {told:?}");
        }
    }

    #[test]
    fn targets_that_take_nothing_are_told_and_change_nothing() {
        let start = Instant::now();
        let health = Health::new(start, None);
        health.set_ready();
        let of = |sink: &str, kind| Troubled { sink: sink.into(), kind, since: start };
        health.set_troubled(vec![of("search", "connect"), of("web", "unauthorized")]);
        let told = health.readiness(start + Duration::from_millis(75_900));
        let says = "ok\nsinks.search: its target takes nothing, for 75 s: connect\nsinks.web: its target takes nothing, for 75 s: unauthorized";
        assert_eq!(told, Readiness { is_ready: true, says: says.to_owned() });
        health.set_troubled(Vec::new());
        assert_eq!(health.readiness(start).says, "ok");
    }
}
