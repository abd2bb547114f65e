//! What all sinks have in common whose targets answer: a route, a batch that is being filled, a queue, a thread that sends.

use std::{
    io,
    path::PathBuf,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use super::Encoder;
use crate::{
    delivery::{
        Batch, DeadLetters, Limits, Overflow, Queue, Runner, SinkStats, Target,
        spool::{self, Loses},
    },
    record::Record,
    rights::{self, Part},
    route::Route,
    shutdown::Shutdown,
};

/// Records of one batch at most.
pub const DEFAULT_BATCH_RECORDS: u64 = 500;
/// More are more than any batch of [`MAX_BATCH_BYTES`] holds.
pub const MAX_BATCH_RECORDS: u64 = 100_000;
/// Bytes queued at most.
pub const DEFAULT_QUEUE_BYTES: usize = 8 * 1024 * 1024;
/// An attempt that takes longer has failed.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(30);
/// Batches under way at once, at most: a connection each.
pub const DEFAULT_CONCURRENCY: usize = 8;
/// More would be more sockets of one node than targets count with.
pub const MAX_CONCURRENCY: usize = 64;
/// A record waits this long for others to be sent with.
pub const DEFAULT_LINGER: Duration = Duration::from_millis(500);
/// A batch is handed on at this size whatever the number of its records.
pub const MAX_BATCH_BYTES: usize = 1024 * 1024;
/// Bytes of a thread's name (TASK_COMM_LEN of include/linux/sched.h, less the end).
const MAX_THREAD_NAME: usize = 15;

/// What every such sink is told.
#[derive(Clone, Debug)]
pub struct Common {
    /// Its name in metrics and messages.
    pub name: Arc<str>,
    /// Which records it is given.
    pub route: Route,
    /// Records of one batch at most.
    pub batch_records: u64,
    /// A record waits this long for others.
    pub linger: Duration,
    /// Bytes queued at most.
    pub queue_bytes: usize,
    /// What may be asked of the target.
    pub limits: Limits,
    /// What is kept across the program's end, where there is a directory for it.
    pub spool: Spool,
}

/// Bytes of a spool at most, if nobody says other: an hour of a busy node.
pub const DEFAULT_SPOOL_BYTES: u64 = 256 * 1024 * 1024;
/// Fewer bytes hold less than a queue does.
pub const MIN_SPOOL_BYTES: u64 = 8 * 1024 * 1024;
/// What is older than this is of no use to most.
pub const DEFAULT_SPOOL_AGE: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// What of a sink's records is kept across the program's end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spool {
    /// Bytes at most; none is kept if there are none.
    pub most_bytes: u64,
    /// What is older is lost.
    pub most_age: Duration,
    /// What is lost when there are too many bytes.
    pub loses: Loses,
}

impl Default for Spool {
    fn default() -> Self {
        Self { most_bytes: DEFAULT_SPOOL_BYTES, most_age: DEFAULT_SPOOL_AGE, loses: Loses::Oldest }
    }
}

impl Common {
    /// The same for a target that takes one batch at a time.
    pub(super) const fn in_order(mut self) -> Self {
        self.limits.concurrency = 1;
        self
    }
}

/// What a sink is started with.
pub(super) struct Start {
    /// How records become its items.
    pub(super) encoder: Encoder,
    /// What becomes of what does not fit.
    pub(super) overflow: Overflow,
    /// Where what the target refuses is kept.
    pub(super) dead: Option<DeadLetters>,
    /// Where it may have a spool.
    pub(super) spool_folder: Option<PathBuf>,
    /// How long it waits for that if somebody else has it.
    pub(super) patience: Duration,
    /// When the program should end nothing waits.
    pub(super) shutdown: Shutdown,
}

/// One worker's end of a sink.
#[derive(Debug)]
pub struct Remote {
    name: Arc<str>,
    route: Arc<Route>,
    encoder: Encoder,
    batch: Batch,
    /// When the first record of the batch came.
    since: Option<Instant>,
    linger: Duration,
    batch_records: u64,
    queue: Arc<Queue>,
    /// As many as there are of it.
    users: Arc<()>,
    shutdown: Shutdown,
}

impl Remote {
    /// Starts the sink's thread.
    ///
    /// # Errors
    /// The thread or its runtime cannot be started.
    pub(super) fn start<T: Target + Send>(common: Common, target: T, start: Start) -> io::Result<Self> {
        let Common { name, route, batch_records, linger, queue_bytes, limits, spool } = common;
        let Start { encoder, overflow, dead, spool_folder, patience, shutdown } = start;
        let queue = Arc::new(Queue::new(queue_bytes, overflow));
        if let Some(folder) = spool_folder.filter(|_| spool.most_bytes > 0) {
            let Spool { most_bytes, most_age, loses } = spool;
            let begin = || drop(rights::keep(Part::Spools, |_| true));
            let config = spool::Config { folder, most_bytes, most_age, loses };
            spool::start(&name, config, &queue, patience, begin)?;
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (shared, called) = (Arc::clone(&queue), Arc::clone(&name));
        thread::Builder::new().name(thread_name(&name)).spawn(move || {
            let _ = rights::keep(Part::Sinks, |_| true);
            let _done = Done(&shared);
            let runner = Runner::new(called, target, Arc::clone(&shared), limits);
            runtime.block_on(runner.with_dead_letters(dead).run());
        })?;
        let (route, batch) = (Arc::new(route), Batch::default());
        let users = Arc::default();
        Ok(Self { name, route, encoder, batch, since: None, linger, batch_records, queue, users, shutdown })
    }

    /// The same target for another worker: with batches of its own, on the same queue.
    pub fn for_worker(&self) -> Self {
        let Self { name, route, encoder, queue, shutdown, .. } = self;
        let (name, route, queue) = (Arc::clone(name), Arc::clone(route), Arc::clone(queue));
        let (encoder, shutdown, users) = (encoder.clone(), shutdown.clone(), Arc::clone(&self.users));
        Self { name, route, encoder, batch: Batch::default(), since: None, queue, users, shutdown, ..*self }
    }

    /// Its name in metrics and messages.
    pub const fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// Whether both write to the same target, as they were started once.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.queue, &other.queue)
    }

    /// From now on it is given what `route` says.
    pub(super) fn set_route(&mut self, route: Arc<Route>) {
        self.route = route;
    }

    pub(super) const fn route(&self) -> &Arc<Route> {
        &self.route
    }

    /// Records that were written before it was there are none of its own.
    pub(super) const fn count_before(&mut self, records: u64, reuses: u64) {
        self.batch.unwanted += records;
        self.batch.unwanted_reuses += reuses;
    }

    /// Whether somebody else may write to the target too.
    pub(super) fn has_workers(&self) -> bool {
        Arc::strong_count(&self.users) > 1
    }

    /// Whether the sink's thread has ended.
    pub(super) fn is_done(&self) -> bool {
        self.queue.is_done()
    }

    /// Adds `record` to the batch, if the target is to be given it.
    pub fn write(&mut self, record: &Record) {
        let mut changed = None;
        let before = self.batch.bytes.len();
        if let Some(record) = self.route.take(record, &mut changed) {
            self.encoder.push(&mut self.batch.bytes, record);
        }
        // A format may have nothing to say of a record.
        if self.batch.bytes.len() == before {
            return self.batch.count_unwanted(record);
        }
        self.batch.end_item();
        self.batch.count(record);
        if self.batch.records >= self.batch_records || self.batch.bytes.len() >= MAX_BATCH_BYTES {
            self.flush();
        }
    }

    /// Hands the batch on if it has waited long enough.
    pub fn flush_due(&mut self) {
        if self.batch.records + self.batch.unwanted == 0 {
            return;
        }
        let now = Instant::now();
        if now.duration_since(*self.since.get_or_insert(now)) >= self.linger {
            self.flush();
        }
    }

    /// Hands the batch on.
    pub fn flush(&mut self) {
        self.since = None;
        if self.batch.records + self.batch.unwanted > 0 {
            // Its buffer goes on its way.
            self.queue.push(std::mem::take(&mut self.batch), || self.shutdown.is_requested());
        }
    }

    /// What was counted so far.
    pub fn stats(&self) -> SinkStats {
        let mut stats = self.queue.stats();
        self.add_filling(&mut stats);
        stats
    }

    /// Adds what is in the batch that is being filled.
    pub const fn add_filling(&self, stats: &mut SinkStats) {
        self.batch.add_to(stats);
    }

    /// Nothing comes any more.
    pub fn end(&mut self) {
        self.since = None;
        // There is nothing to wait for.
        self.queue.push(std::mem::take(&mut self.batch), || true);
        self.queue.end();
    }

    /// Waits until what is left is sent, at most until `deadline`.
    pub fn finish(mut self, deadline: Instant) -> SinkStats {
        self.end();
        self.queue.wait_done(deadline)
    }
}

/// As much of it as the kernel shows.
fn thread_name(sink: &str) -> String {
    format!("sink-{sink}").chars().take(MAX_THREAD_NAME).collect()
}

/// However the thread ends, nobody waits for it.
struct Done<'a>(&'a Queue);

impl Drop for Done<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.abandon();
        }
        self.0.set_done();
    }
}

/// Sends items that were records once, on this thread; what became of them.
///
/// # Errors
/// The runtime cannot be started.
pub(super) fn send_again<T: Target>(
    common: Common,
    target: T,
    dead: DeadLetters,
    items: &[Vec<u8>],
) -> io::Result<SinkStats> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let queue = Arc::new(Queue::new(common.queue_bytes, Overflow::Wait));
    let mut batch = Batch::default();
    for item in items {
        batch.bytes.extend_from_slice(item);
        batch.end_item();
        batch.records += 1;
    }
    queue.push(batch, || false);
    queue.end();
    let runner = Runner::new(common.name, target, Arc::clone(&queue), common.limits);
    runtime.block_on(runner.with_dead_letters(Some(dead)).run());
    Ok(queue.stats())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_are_called_by_as_much_of_a_name_as_the_kernel_shows() {
        let fits = "a".repeat(MAX_THREAD_NAME - "sink-".len());
        assert_eq!(thread_name(&fits), format!("sink-{fits}"));
        assert_eq!(thread_name(&format!("{fits}b")), format!("sink-{fits}"));
    }
}
