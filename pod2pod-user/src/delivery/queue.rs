//! A queue of encoded batches, bounded in bytes, between the worker and a sink's thread.
//!
//! received = delivered + dropped + in flight, in records, at all times. What a thread holds to send it again counts as queued.

use std::{
    any::Any,
    collections::VecDeque,
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use rustix::process::Pid;
use tokio::sync::Notify;

use super::{
    Parcel, SinkStats, SpoolStats,
    patience::Patience,
    spool::{Loss, Shelf, Ticket},
};
use crate::{
    record::{Kind, Record},
    urgency::Urgency,
};

/// What happens to a batch that does not fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Overflow {
    /// The producer waits: files can wait.
    Wait,
    /// The batch is dropped and counted: the kernel cannot wait. If all that is missing may be a turn of the sink's thread the
    /// producer gives it that before, for a moment.
    DropNewest,
}

/// Whoever gave a batch puts this in it, and hears that all of its records were delivered, put aside or lost, or are safe in a spool: it is
/// dropped then.
pub type Token = Box<dyn Any + Send>;

/// Encoded records.
#[derive(Debug, Default)]
pub struct Batch {
    /// Whole lines, or items.
    pub bytes: Vec<u8>,
    /// Where items end, if somebody has to tell them apart.
    pub ends: Vec<u32>,
    /// How many records they are.
    pub records: u64,
    /// How many of these are of reuses.
    pub reuses: u64,
    /// Records beside these that the target is not given.
    pub unwanted: u64,
    /// How many of those are of reuses.
    pub unwanted_reuses: u64,
    /// Dropped when it is dealt with.
    pub token: Option<Token>,
    /// When it was queued: [`Queue::push`] says.
    pub since: Option<Instant>,
}

impl Batch {
    /// Counts `record`, whose line was added.
    pub fn count(&mut self, record: &Record) {
        self.records += 1;
        self.reuses += u64::from(record.kind == Kind::IpvsReuse);
    }

    /// Counts `record`, which the target is not given.
    pub fn count_unwanted(&mut self, record: &Record) {
        self.unwanted += 1;
        self.unwanted_reuses += u64::from(record.kind == Kind::IpvsReuse);
    }

    /// Adds what is in it to what was counted before it is queued.
    pub const fn add_to(&self, stats: &mut SinkStats) {
        stats.received += self.records;
        stats.in_flight += self.records;
        stats.unwanted += self.unwanted;
        stats.reuses += self.reuses + self.unwanted_reuses;
    }

    /// Bytes that it takes.
    pub(super) fn size(&self) -> usize {
        self.bytes.capacity() + self.ends.capacity() * size_of::<u32>()
    }

    /// What was added since the last item is one.
    pub fn end_item(&mut self) {
        self.ends.push(u32::try_from(self.bytes.len()).unwrap_or(u32::MAX));
    }
}

/// A batch that is to be sent.
#[derive(Debug)]
pub(super) struct Taken {
    /// Its items.
    pub(super) parcel: Parcel,
    /// Bytes that count as queued until [`Queue::give_back`].
    pub(super) weight: usize,
    /// Who is to be told when it is dealt with.
    pub(super) ticket: Option<Ticket>,
    /// When it was queued, unless it was on disk.
    pub(super) since: Option<Instant>,
}

#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) batches: VecDeque<Batch>,
    pub(super) bytes: usize,
    /// Of these, bytes that the sink's thread holds.
    pub(super) held: usize,
    spare: Vec<Vec<u8>>,
    /// Records of the batch that the target is given.
    pub(super) taken: u64,
    /// When the oldest of these were queued.
    taken_since: Option<Instant>,
    pub(super) stats: SinkStats,
    /// No more batches come.
    ended: bool,
    /// Nobody takes batches any more.
    pub(super) abandoned: bool,
    /// All was counted.
    pub(super) closed: bool,
    /// The sink's thread is done.
    pub(super) done: bool,
    /// The sink's thread, as long as it runs, if it is to go first when the queue fills; and how it is made to.
    sink: Option<(Pid, Urgency)>,
    /// Of producers for it.
    patience: Patience,
    /// It waits for a batch.
    pub(super) sink_waits: bool,
    /// Producers that wait for room, or for the end.
    producers_waiting: usize,
    /// The spool's side, if there is one.
    pub(super) shelf: Option<Shelf>,
}

/// Buffers kept for reuse: one being filled, one being written, one waiting.
const MAX_SPARE: usize = 3;
/// Who gave the sink's thread time waits until no more than this part of the queue is full.
const RELIEVED_SHARE: usize = 2;
/// A waiting producer looks this often whether it should still wait.
const WAIT_STEP: Duration = Duration::from_millis(50);

/// The queue. Shared by one producer and one sink thread.
#[derive(Debug)]
pub struct Queue {
    state: Mutex<State>,
    /// The sink's thread waits here, and is told only if it does: telling is a system call.
    pub(super) filled: Condvar,
    /// A sink that does something else meanwhile waits here.
    pub(super) changed: Notify,
    /// Producers wait here, likewise.
    emptied: Condvar,
    pub(super) limit: usize,
    overflow: Overflow,
}

impl Queue {
    /// A queue of at most `limit` bytes, by what its buffers take; a single batch may be larger when the queue is empty.
    pub fn new(limit: usize, overflow: Overflow) -> Self {
        let (filled, emptied) = (Condvar::new(), Condvar::new());
        let changed = Notify::new();
        Self { state: Mutex::new(State::default()), filled, changed, emptied, limit, overflow }
    }

    /// Queues `batch`; gives back an empty buffer. `impatient` ends the waiting: then the batch goes in over the limit.
    pub fn push(&self, mut batch: Batch, impatient: impl Fn() -> bool) -> Vec<u8> {
        let mut state = self.lock();
        state.stats.received += batch.records;
        state.stats.reuses += batch.reuses + batch.unwanted_reuses;
        state.stats.unwanted += batch.unwanted;
        if batch.records == 0 && batch.bytes.is_empty() {
            return batch.bytes;
        }
        while self.overflow == Overflow::Wait
            && self.is_full(&state, &batch)
            && !state.abandoned
            && !impatient()
        {
            state = self.wait_for_sink(state, WAIT_STEP);
        }
        if self.overflow == Overflow::DropNewest && state.sink.is_some() && self.is_full(&state, &batch) {
            state = self.be_patient(state, &impatient);
        }
        if state.abandoned || state.ended {
            state.stats.dropped_failed += batch.records;
        } else if self.overflow == Overflow::DropNewest && self.is_full(&state, &batch) {
            if state.shelf.as_ref().is_some_and(Shelf::is_full) {
                state.stats.lose_spooled(Loss::Full, batch.records);
            } else {
                state.stats.dropped_queue_full += batch.records;
            }
        } else {
            state.bytes += batch.size();
            batch.since = Some(Instant::now());
            state.batches.push_back(batch);
            self.wake_sink(&state);
        }
        let queued = state.bytes;
        if let Some((thread, urgency)) = &mut state.sink {
            urgency.follow(queued, Some(*thread));
            state.stats.went_first = Some(urgency.times());
        }
        state.spare.pop().unwrap_or_default()
    }

    /// The calling thread is the sink's, and goes first when the queue fills.
    pub fn introduce_sink(&self) {
        let mut state = self.lock();
        state.sink = Some((rustix::thread::gettid(), Urgency::new(self.limit)));
        state.stats.went_first = Some(0);
    }

    /// The next batch; waits for one. Absent when no more come.
    pub fn pop(&self) -> Option<Batch> {
        let mut state = self.lock();
        loop {
            if let Some(batch) = state.batches.pop_front() {
                state.bytes -= batch.size();
                state.taken += batch.records;
                state.taken_since = batch.since;
                self.wake_producers(&state);
                return Some(batch);
            }
            if state.ended || state.abandoned {
                return None;
            }
            state.sink_waits = true;
            state = self.filled.wait(state).unwrap_or_else(PoisonError::into_inner);
            state.sink_waits = false;
        }
    }

    /// The next batch, if there is one. If the spool `keeps` what it has for a later start, only what it has not.
    pub(super) fn take(&self, keeps: bool) -> Option<Taken> {
        if let Some((parcel, weight, ticket)) = self.take_ready(keeps) {
            // How long it was on disk is what the spool tells.
            return Some(Taken { parcel, weight, ticket: Some(ticket), since: None });
        }
        let mut state = self.lock();
        if state.shelf.as_ref().is_some_and(Shelf::is_open) {
            return None;
        }
        let batch = state.batches.pop_front()?;
        let (weight, since) = (batch.size(), batch.since);
        state.held += weight;
        state.taken += batch.records;
        let ticket = batch.token.map(Ticket::loose);
        Some(Taken { parcel: Parcel::new(batch.bytes, batch.ends), weight, ticket, since })
    }

    /// The oldest of what was taken, and is not dealt with, was queued then.
    pub(super) fn set_taken_since(&self, since: Option<Instant>) {
        self.lock().taken_since = since;
    }

    /// Waits until something came, or nothing comes any more. Anything may have happened when it returns.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Whether nothing comes any more.
    pub fn is_ended(&self) -> bool {
        self.lock().ended
    }

    /// Whether [`Self::take`] would give something.
    pub(super) fn has_next(&self, keeps: bool) -> bool {
        let state = self.lock();
        let (has_ready, is_open) =
            state.shelf.as_ref().map_or((false, false), |shelf| (shelf.has_next(keeps), shelf.is_open()));
        has_ready || (!is_open && !state.batches.is_empty())
    }

    /// Whether nothing comes any more, and nothing waits but what the spool `keeps`.
    pub(super) fn is_over(&self, keeps: bool) -> bool {
        let state = self.lock();
        let is_over = state.shelf.as_ref().is_none_or(|shelf| shelf.is_over(keeps));
        state.ended && state.batches.is_empty() && is_over
    }

    /// Nothing of so many bytes that were taken is held any more.
    pub fn give_back(&self, bytes: usize) {
        let mut state = self.lock();
        state.held -= bytes;
        state.bytes -= bytes;
        self.wake_producers(&state);
        if state.shelf.is_some() && state.sink_waits {
            self.filled.notify_all();
        }
    }

    /// Counts, and `settled` records that were taken as dealt with; unless the end came first, and they are lost already. They are
    /// on disk, if they have such a ticket.
    pub(super) fn count(&self, settled: u64, ticket: Option<&Ticket>, count: impl FnOnce(&mut SinkStats)) {
        let mut state = self.lock();
        if !state.closed {
            state.taken -= settled;
            if let Some(shelf) = state.shelf.as_mut().filter(|_| ticket.is_some_and(Ticket::is_stored)) {
                shelf.settle(settled);
            }
            count(&mut state.stats);
        }
    }

    /// Takes back the buffer of a batch that was dealt with.
    pub fn recycle(&self, mut buffer: Vec<u8>) {
        let mut state = self.lock();
        if state.spare.len() < MAX_SPARE {
            buffer.clear();
            state.spare.push(buffer);
        }
    }

    /// Counts records that the target took, and that it did not.
    pub fn judge(&self, delivered: u64, failed: u64) {
        let mut state = self.lock();
        if state.closed {
            return;
        }
        state.taken = state.taken.saturating_sub(delivered + failed);
        state.stats.delivered += delivered;
        state.stats.dropped_failed += failed;
    }

    /// Nobody takes batches any more: what is queued, and what comes, is lost.
    pub fn abandon(&self) {
        let mut state = self.lock();
        if state.closed {
            return;
        }
        state.abandoned = true;
        state.stats.reader_gone = true;
        state.stats.dropped_failed += state.batches.iter().map(|batch| batch.records).sum::<u64>();
        state.batches.clear();
        let lost = state.shelf.as_mut().map_or(0, |shelf| shelf.clear().0);
        state.stats.dropped_failed += lost;
        state.bytes = state.held;
        self.changed.notify_one();
        self.wake_producers(&state);
    }

    /// Whether [`Queue::abandon`] was called.
    pub fn is_abandoned(&self) -> bool {
        self.lock().abandoned
    }

    /// No more batches come.
    pub fn end(&self) {
        let mut state = self.lock();
        state.ended = true;
        self.wake_sink(&state);
    }

    /// The sink's thread is done.
    pub fn set_done(&self) {
        let mut state = self.lock();
        state.done = true;
        // Its number may soon be another thread's, of another program.
        state.sink = None;
        self.wake_all(&state);
    }

    /// Waits for the sink's thread, at most until `deadline`; counts what is left as lost.
    pub fn wait_done(&self, deadline: Instant) -> SinkStats {
        let mut state = self.lock();
        // The spool's thread is done after the sink's.
        while !state.done || state.shelf.as_ref().is_some_and(Shelf::is_open) {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            state = self.wait_for_sink(state, left);
        }
        let stats = state.stats;
        let left = stats.received.saturating_sub(stats.delivered + stats.lost() + stats.kept);
        let kept = state.shelf.as_ref().map_or(0, Shelf::kept).min(left);
        state.stats.kept += kept;
        state.stats.dropped_shutdown += left - kept;
        // All is counted: what comes of it later counts no more.
        state.batches.clear();
        if let Some(shelf) = &mut state.shelf {
            shelf.forget();
        }
        (state.bytes, state.taken, state.closed, state.abandoned) = (state.held, 0, true, true);
        self.wake_all(&state);
        state.stats
    }

    /// Whether the sink's thread is done.
    pub fn is_done(&self) -> bool {
        self.lock().done
    }

    /// What was counted so far.
    pub fn stats(&self) -> SinkStats {
        self.stats_at(Instant::now())
    }

    fn stats_at(&self, now: Instant) -> SinkStats {
        let state = self.lock();
        let queued: u64 = state.batches.iter().map(|batch| batch.records).sum();
        let queued = queued + state.shelf.as_ref().map_or(0, Shelf::records);
        let records = state.shelf.as_ref().map_or(0, Shelf::kept);
        let spool = state.stats.spool.map(|spool| SpoolStats { records, ..spool });
        let taken = state.taken_since.filter(|_| state.taken > 0);
        let oldest = taken.into_iter().chain(state.batches.front().and_then(|batch| batch.since)).min();
        let age = oldest.map_or(0, |since| now.saturating_duration_since(since).as_secs());
        let on_disk = spool.map_or(0, |spool| spool.oldest_seconds);
        SinkStats {
            queued_bytes: state.bytes as u64,
            in_flight: queued + state.taken,
            oldest_seconds: age.max(on_disk),
            spool,
            ..state.stats
        }
    }

    /// Gives the sink's thread time to make room, for more than one batch: else the next would have to wait again.
    fn be_patient<'a>(
        &self,
        mut state: MutexGuard<'a, State>,
        impatient: impl Fn() -> bool,
    ) -> MutexGuard<'a, State> {
        let begin = Instant::now();
        let until = begin + state.patience.left(begin);
        let mut now = begin;
        while now < until && !self.is_relieved(&state) && !state.abandoned && !state.ended && !impatient() {
            state = self.wait_for_sink(state, until - now);
            now = Instant::now();
        }
        state.patience.spend(begin, now);
        state.stats.waits += u64::from(now > begin);
        state
    }

    /// Waits until the sink's thread has got on, or for `most`.
    fn wait_for_sink<'a>(&self, mut state: MutexGuard<'a, State>, most: Duration) -> MutexGuard<'a, State> {
        state.producers_waiting += 1;
        state = self.emptied.wait_timeout(state, most).unwrap_or_else(PoisonError::into_inner).0;
        state.producers_waiting -= 1;
        state
    }

    fn wake_sink(&self, state: &State) {
        if state.sink_waits {
            self.filled.notify_all();
        }
        // With a spool its thread is the one that waits for batches.
        if state.ended || state.shelf.is_none() {
            self.changed.notify_one();
        }
    }

    /// Whoever waits has something to see.
    pub(super) fn wake_all(&self, state: &State) {
        self.wake_sink(state);
        self.changed.notify_one();
        self.wake_producers(state);
    }

    pub(super) fn wake_producers(&self, state: &State) {
        let is_over = state.abandoned || state.done || self.overflow == Overflow::Wait;
        if state.producers_waiting > 0 && (is_over || self.is_relieved(state)) {
            self.emptied.notify_all();
        }
    }

    /// Whether there is room for more than one batch.
    fn is_relieved(&self, state: &State) -> bool {
        state.bytes <= self.limit / RELIEVED_SHARE
    }

    fn is_full(&self, state: &State, batch: &Batch) -> bool {
        state.bytes > 0 && state.bytes + batch.size() > self.limit
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::delivery::patience::MAX_PATIENCE;

    fn batch(bytes: usize) -> Batch {
        Batch { bytes: vec![b'x'; bytes], records: 1, ..Default::default() }
    }

    #[test]
    fn newest_is_dropped_one_past_the_limit() {
        let queue = Queue::new(10, Overflow::DropNewest);
        queue.push(batch(5), || false);
        queue.push(batch(5), || false);
        assert_eq!(queue.stats().dropped_queue_full, 0);
        queue.push(batch(1), || false);
        let stats = queue.stats();
        assert_eq!((stats.received, stats.dropped_queue_full, stats.queued_bytes), (3, 1, 10));
    }

    #[test]
    fn the_oldest_is_told_until_it_is_dealt_with() {
        let queue = Queue::new(100, Overflow::DropNewest);
        let begin = Instant::now();
        let oldest = |seconds| queue.stats_at(begin + Duration::from_secs(seconds)).oldest_seconds;
        assert_eq!(oldest(1000), 0);
        let item = || Batch { ends: vec![1], ..batch(1) };
        queue.push(item(), || false);
        queue.push(item(), || false);
        let later = Duration::from_secs(500);
        queue.lock().batches.back_mut().unwrap().since = Some(begin + later);
        queue.lock().batches.front_mut().unwrap().since = Some(begin);
        assert_eq!((oldest(0), oldest(999)), (0, 999));
        queue.pop();
        assert_eq!(oldest(999), 999, "it is with the target");
        queue.judge(1, 0);
        assert_eq!(oldest(999), 499);
        let taken = queue.take(false).unwrap();
        assert_eq!(taken.since, Some(begin + later));
        queue.set_taken_since(taken.since);
        assert_eq!(oldest(999), 499);
        queue.count(1, None, |stats| stats.delivered += 1);
        assert_eq!(oldest(999), 0);
    }

    #[test]
    fn reuses_are_counted_with_the_batch_that_they_are_in() {
        let queue = Queue::new(100, Overflow::DropNewest);
        let mut batch = Batch::default();
        batch.count(&Record::blank());
        let reuse = Record { kind: Kind::IpvsReuse, ..Record::blank() };
        batch.count(&reuse);
        batch.count_unwanted(&Record::blank());
        batch.count_unwanted(&reuse);
        // Before it is queued and after.
        let mut filling = queue.stats();
        batch.add_to(&mut filling);
        queue.push(batch, || false);
        for stats in [filling, queue.stats()] {
            let SinkStats { received, in_flight, unwanted, reuses, .. } = stats;
            assert_eq!((received, in_flight, unwanted, reuses), (2, 2, 2, 2));
        }
    }

    #[test]
    fn only_so_many_buffers_are_kept() {
        let queue = Queue::new(10, Overflow::DropNewest);
        for _ in 0..=MAX_SPARE {
            queue.recycle(Vec::with_capacity(64));
        }
        let reused = (0..=MAX_SPARE).filter(|_| queue.push(batch(0), || false).capacity() > 0).count();
        assert_eq!(reused, MAX_SPARE);
    }

    #[test]
    fn a_single_large_batch_passes() {
        let queue = Queue::new(10, Overflow::DropNewest);
        queue.push(batch(100), || false);
        assert_eq!(queue.pop().unwrap().bytes.len(), 100);
    }

    #[test]
    fn waiting_loses_nothing() {
        let queue = Queue::new(10, Overflow::Wait);
        std::thread::scope(|scope| {
            let consumer = scope.spawn(|| {
                let mut records = 0;
                while let Some(batch) = queue.pop() {
                    records += batch.records;
                    queue.judge(batch.records, 0);
                    queue.recycle(batch.bytes);
                }
                queue.set_done();
                records
            });
            for _ in 0..1000 {
                queue.push(batch(7), || false);
            }
            queue.end();
            assert_eq!(consumer.join().unwrap(), 1000);
        });
        let stats = queue.wait_done(Instant::now());
        assert_eq!((stats.received, stats.delivered, stats.lost()), (1000, 1000, 0));
    }

    #[test]
    fn a_thread_that_ended_is_nobody() {
        let queue = Queue::new(10, Overflow::DropNewest);
        let sink = |queue: &Queue| queue.lock().sink.as_ref().map(|(thread, _)| *thread);
        assert_eq!((sink(&queue), queue.stats().went_first), (None, None));
        queue.introduce_sink();
        assert_eq!((sink(&queue), queue.stats().went_first), (Some(rustix::thread::gettid()), Some(0)));
        queue.set_done();
        assert_eq!(sink(&queue), None);
    }

    #[test]
    fn the_sink_goes_first_while_its_queue_is_full() {
        let queue = Queue::new(100, Overflow::DropNewest);
        let nice = || rustix::process::getpriority_process(None).unwrap();
        let started = nice();
        queue.introduce_sink();
        queue.push(batch(24), || false);
        assert_eq!((nice(), queue.stats().went_first), (started, Some(0)));
        queue.push(batch(1), || false);
        // Without CAP_SYS_NICE nobody goes first, and none is counted.
        let times = queue.stats().went_first.unwrap();
        assert_eq!((nice() < started, times <= 1), (times == 1, true));
        while queue.stats().queued_bytes > 0 {
            queue.pop();
        }
        queue.push(batch(1), || false);
        assert_eq!((nice(), queue.stats().went_first), (started, Some(times)));
    }

    #[test]
    fn a_sink_that_only_needs_a_turn_is_given_it() {
        // However long that takes here.
        const LONG: Duration = Duration::from_secs(60);
        let queue = Queue::new(10, Overflow::DropNewest);
        queue.introduce_sink();
        queue.lock().patience = Patience::of(LONG);
        queue.push(batch(5), || false);
        queue.push(batch(5), || false);
        assert_eq!(queue.stats().waits, 0);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let end = Instant::now() + LONG;
                while queue.lock().producers_waiting == 0 && Instant::now() < end {
                    std::thread::yield_now();
                }
                queue.pop();
            });
            queue.push(batch(5), || false);
        });
        let stats = queue.stats();
        assert_eq!((stats.waits, stats.dropped_queue_full, stats.queued_bytes), (1, 0, 10));
    }

    #[test]
    fn a_sink_that_takes_nothing_is_not_waited_for_again_and_again() {
        let queue = Queue::new(10, Overflow::DropNewest);
        queue.introduce_sink();
        queue.push(batch(10), || false);
        let begin = Instant::now();
        queue.push(batch(1), || false);
        assert!(begin.elapsed() >= MAX_PATIENCE);
        let begin = Instant::now();
        (0..100).for_each(|_| drop(queue.push(batch(1), || false)));
        let waited = begin.elapsed();
        assert!(waited < 50 * MAX_PATIENCE, "{waited:?}");
        assert_eq!(queue.stats().dropped_queue_full, 101);
        // Who is to end does not wait at all.
        queue.lock().patience = Patience::default();
        queue.push(batch(1), || true);
        assert_eq!(queue.lock().patience.left(Instant::now()), MAX_PATIENCE);
    }

    #[test]
    fn what_is_left_at_the_deadline_is_lost_and_counted() {
        let queue = Queue::new(10, Overflow::DropNewest);
        queue.push(batch(1), || false);
        queue.end();
        let stats = queue.wait_done(Instant::now());
        assert_eq!((stats.received, stats.delivered, stats.dropped_shutdown), (1, 0, 1));
    }
}
