//! One worker: a ring, a pipeline, and the loop that takes what the first holds through the second.
//!
//! One turn: what the ring holds, what is due, verdicts back to the kernel, records on. The ring is drained on a timer that
//! adapts to what came, since a wake-up per record costs more than the record.
//!
//! A worker is locked for a turn, by its own thread, and between turns by whoever wants to see it standing still: once a
//! second for the metrics, and at the end. Workers never wait for each other.

use std::{
    io,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use super::{clock::monotonic, waiting::Waiting};
use crate::{
    capture::{
        KernelInstant,
        kernel::{Reader, Wake, Woken},
    },
    pipeline::{Pipeline, SharedSinks},
    shutdown::Shutdown,
    sinks::OwnConnections,
    urgency::Urgency,
};

/// Records taken from the ring in one turn: some tens of microseconds of work. After it the thread lets others of its processor
/// go on, since one side of a conversation waits there for as long as a turn lasts, and the other side for it. CPU time an
/// exchange does not rise by it (3.80 before, 3.69 µs); the throughput kept at full load rose from 0.66 to 0.69, side by side.
const TURN_RECORDS: usize = 64;
/// Nobody is let go first any more when this part of the ring waits to be read, or the kernel side calls: who does so always is far
/// behind at full load, and a connection whose credit is used up while others go first loses what follows its body.
const COURTEOUS_SHARE: usize = 16;
/// Records of one turn then: a few milliseconds of work, so that time limits and signals are looked at.
pub(super) const LONG_TURN_RECORDS: usize = 8192;

/// Records wait for others that long at most before the output gets them: at full load each turn would wake its thread.
const MAX_HOLD: Duration = Duration::from_millis(20);

/// A ring, the stages behind it, and where their records go.
pub(super) struct Worker {
    pub(super) reader: Reader,
    pub(super) pipeline: Pipeline,
    pub(super) sinks: SharedSinks,
    own: Arc<OwnConnections>,
    own_version: u64,
    last_segment: KernelInstant,
}

impl Worker {
    /// A worker that has read nothing yet.
    pub(super) fn new(
        reader: Reader,
        pipeline: Pipeline,
        sinks: SharedSinks,
        own: Arc<OwnConnections>,
    ) -> Self {
        Self { reader, pipeline, sinks, own, own_version: 0, last_segment: KernelInstant::default() }
    }

    /// Takes what the ring holds, up to `max_records`, through all stages.
    pub(super) fn turn(&mut self, max_records: usize) -> Turn {
        let Self { reader, pipeline, last_segment, own, own_version, .. } = self;
        let before = monotonic();
        pipeline.read_ipvs();
        let drained = reader.drain(max_records, &mut |segment| {
            // Before each, not once a turn: a connection is registered before its first answer, which may be in this very turn.
            learn_own_tuples(own, own_version, pipeline);
            *last_segment = (*last_segment).max(segment.time);
            if pipeline.is_due(segment.time) {
                pipeline.expire(segment.time);
            }
            pipeline.push(segment);
        });
        // With a backlog, what looks overdue may be waiting in the ring.
        let now = if drained.more { *last_segment } else { before };
        pipeline.look(now, &mut |connection| reader.activity(connection));
        if pipeline.is_due(now) {
            pipeline.expire(now);
        }
        pipeline.steer(&mut |steering| reader.steer(steering));
        Turn { bytes: drained.bytes, more: drained.more }
    }
}

/// Tells the enricher of the agent's own connections if there are others than `known`.
fn learn_own_tuples(own: &OwnConnections, known: &mut u64, pipeline: &mut Pipeline) {
    let version = own.version();
    if version != *known {
        *known = version;
        pipeline.enricher().set_own_tuples(own.tuples());
    }
}

/// Whether records that have been held for `held` would wait longer than they may, if they waited for another `wait`.
fn held_too_long(held: Duration, wait: Duration) -> bool {
    held + wait > MAX_HOLD
}

/// Whether there is so much room in a ring that others may go first, with `unread` of its bytes waiting.
const fn is_courteous(unread: usize, ring_bytes: u32) -> bool {
    unread < ring_bytes as usize / COURTEOUS_SHARE
}

/// What one turn did.
#[derive(Clone, Copy, Debug)]
pub(super) struct Turn {
    /// Bytes taken from the ring.
    bytes: usize,
    /// The ring may hold more.
    pub(super) more: bool,
}

/// Where a worker works: what its thread and the others need of it.
pub(super) struct Seat {
    worker: Mutex<Worker>,
    wake: Wake,
    ring_bytes: u32,
    shutdown: Shutdown,
    started: Instant,
    /// When its thread last began a turn: nanoseconds after `started`.
    last_turn: AtomicU64,
    /// How often its thread was made to go first.
    went_first: AtomicU64,
}

impl Seat {
    /// A seat for `worker`, whose ring is of `ring_bytes`; it counts as having made a turn just now.
    ///
    /// # Errors
    /// The kernel has no descriptor for what it waits with.
    pub(super) fn new(worker: Worker, ring_bytes: u32, shutdown: Shutdown) -> io::Result<Self> {
        let wake = Wake::new(&worker.reader, &shutdown)?;
        let (worker, last_turn, went_first) = (Mutex::new(worker), AtomicU64::new(0), AtomicU64::new(0));
        Ok(Self { worker, wake, ring_bytes, shutdown, started: Instant::now(), last_turn, went_first })
    }

    /// Reads on this thread until the program should end. `duties` are done before every turn.
    pub(super) fn run(&self, duties: &mut impl FnMut(Instant)) {
        // However this ends, the others need not go on without.
        let _ending = Ending(&self.shutdown);
        let mut waiting = Waiting::new(self.ring_bytes, Instant::now());
        let mut urgency = Urgency::new(self.ring_bytes as usize);
        let (mut taken, mut flushed) = (0, Instant::now());
        let mut is_called = false;
        // A reader of the records that goes away asks for the end too.
        while !self.shutdown.is_requested() {
            let now = Instant::now();
            let since = now.saturating_duration_since(self.started).as_nanos();
            self.last_turn.store(u64::try_from(since).unwrap_or(u64::MAX), Ordering::Relaxed);
            duties(now);
            let mut worker = self.worker();
            let unread = worker.reader.unread();
            let is_courteous = !is_called && is_courteous(unread, self.ring_bytes);
            urgency.follow(unread, None);
            self.went_first.store(urgency.times(), Ordering::Relaxed);
            let turn = worker.turn(if is_courteous { TURN_RECORDS } else { LONG_TURN_RECORDS });
            taken += turn.bytes;
            let now = Instant::now();
            let wait = if turn.more { Duration::ZERO } else { waiting.after(taken, now) };
            if held_too_long(now.saturating_duration_since(flushed), wait) {
                worker.sinks.get().flush_due();
                flushed = now;
            }
            drop(worker);
            if turn.more {
                if is_courteous {
                    rustix::thread::sched_yield();
                    is_called = self.wake.wait(Duration::ZERO) == Woken::ByRing;
                }
            } else {
                is_called = self.wake.wait(wait) == Woken::ByRing;
                taken = 0;
            }
        }
    }

    /// The worker, between two turns.
    pub(super) fn worker(&self) -> MutexGuard<'_, Worker> {
        self.worker.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The worker, for good.
    pub(super) fn into_worker(self) -> Worker {
        self.worker.into_inner().unwrap_or_else(PoisonError::into_inner)
    }

    /// How often its thread was made to go first.
    pub(super) fn went_first(&self) -> u64 {
        self.went_first.load(Ordering::Relaxed)
    }

    /// How long ago its thread began a turn.
    pub(super) fn silence(&self, now: Instant) -> Duration {
        let last = Duration::from_nanos(self.last_turn.load(Ordering::Relaxed));
        now.saturating_duration_since(self.started).saturating_sub(last)
    }
}

/// Asks for the program's end when it goes out of scope.
struct Ending<'a>(&'a Shutdown);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.0.request();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn others_go_first_while_a_sixteenth_of_the_ring_is_not_full() {
        let ring = 1 << 20;
        let share = ring as usize / COURTEOUS_SHARE;
        assert!(is_courteous(0, ring) && is_courteous(share - 1, ring));
        assert!(!is_courteous(share, ring) && !is_courteous(ring as usize, ring));
    }

    #[test]
    fn records_are_held_as_long_as_they_may_and_no_longer() {
        let wait = Duration::from_millis(1);
        assert!(!held_too_long(MAX_HOLD - wait, wait));
        assert!(held_too_long(MAX_HOLD - wait, wait + Duration::from_nanos(1)));
        assert!(held_too_long(Duration::ZERO, super::super::waiting::MAX_WAIT), "a quiet time follows");
    }
}
