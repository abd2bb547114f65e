//! The spool of a sink: what it holds, on disk, so that it survives the program's end, whatever ends it.
//!
//! A log of checksummed entries, one a batch, in files of a bounded size; and a cursor to the lowest one that is not dealt with. A thread
//! of its own writes every batch before the target is given it, reads back what memory has no room for, and syncs: a disk that
//! takes seconds stops neither a worker nor the sink. An entry is safe from the program's end, SIGKILL too, when it is written; a
//! power failure or a kernel that falls may take what was written since the last sync, see [`SYNC_PERIOD`].
//!
//! While the target keeps up nothing is read back: a batch goes on from memory as soon as it is written. When memory has no room it
//! stays on disk alone, and so does what comes after it, until all of that was read: the order is kept.
//!
//! Where the disk takes nothing batches go on from memory, within the queue's bytes, and it is tried again later.

mod cursor;
mod entry;
mod log;
mod segment;
mod shelf;
mod spooler;

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

pub(super) use self::shelf::{Shelf, Ticket};
use self::{cursor::Cursor, log::Log, segment::Name, spooler::Spooler};
use super::Queue;

/// Only who runs the agent reads what is kept: it is what records hold.
const FOLDER_MODE: u32 = 0o700;
const FILE_MODE: u32 = 0o600;
/// What was written is synced this often: so much of the newest a power failure may take.
pub const SYNC_PERIOD: Duration = Duration::from_secs(1);
/// Between two looks whether a folder is free: who leaves it needs some milliseconds, or the seconds of its target.
const FREE_PERIOD: Duration = Duration::from_millis(20);

/// Which records are lost when there is no room for all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Loses {
    /// Those that waited longest, a file at a time.
    #[default]
    Oldest,
    /// Those that come, once memory has no room either.
    Newest,
}

/// Where what a sink holds is kept, and how much.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Its own folder, of this sink alone; made if it is not there.
    pub folder: PathBuf,
    /// Bytes on disk at most.
    pub most_bytes: u64,
    /// What is older is lost. By the clock of the wall: it is kept across restarts.
    pub most_age: Duration,
    /// What is lost when there are too many bytes.
    pub loses: Loses,
}

/// Why a record is lost that a spool was to keep; a label of metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// There was no room.
    Full,
    /// It waited too long.
    Expired,
    /// What was written is not what is read.
    Broken,
}

impl Loss {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 3] = [Self::Full, Self::Expired, Self::Broken];

    /// Its name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Full => "spool_full",
            Self::Expired => "spool_expired",
            Self::Broken => "spool_broken",
        }
    }
}

/// How a spool stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SpoolStats {
    /// Records on disk that are not dealt with: what a SIGKILL leaves for the next start.
    pub records: u64,
    /// Bytes on disk, with those that are dealt with in files that hold others.
    pub bytes: u64,
    /// Files.
    pub segments: u64,
    /// How long the oldest record on disk has been there, seconds.
    pub oldest_seconds: u64,
    /// Records that were there at the start. They count as received again.
    pub recovered: u64,
    /// Bytes that were no entries.
    pub broken_bytes: u64,
    /// How often it was synced.
    pub synced: u64,
    /// Writes, syncs and readings that failed.
    pub failed: u64,
    /// Records that went on from memory because the disk took nothing: a SIGKILL would have taken them.
    pub unwritten: u64,
}

/// Milliseconds since 1970.
pub(super) type Clock = Arc<dyn Fn() -> u64 + Send + Sync>;

/// Keeps what comes to `queue` in a spool, until the queue is done or nobody waits for it any more. Its thread calls `begin` first. To be
/// called before anything is pushed. What was kept comes first.
///
/// A folder that somebody else uses is waited for as long as `patience` says, by the thread: what comes waits in the queue, and goes on from
/// memory if the folder does not become free.
///
/// # Errors
/// The folder cannot be made, read or locked: another agent uses it. The thread cannot be started.
pub fn start(
    sink: &str,
    config: Config,
    queue: &Arc<Queue>,
    patience: Duration,
    begin: impl FnOnce() + Send + 'static,
) -> io::Result<()> {
    let clock = || {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    };
    start_by(sink, config, queue, patience, Arc::new(clock), begin)
}

fn start_by(
    sink: &str,
    config: Config,
    queue: &Arc<Queue>,
    patience: Duration,
    clock: Clock,
    begin: impl FnOnce() + Send + 'static,
) -> io::Result<()> {
    let (folder, most_age, until) = (config.folder.clone(), config.most_age, Instant::now() + patience);
    let log = match Log::open(config.clone()) {
        Err(error) if is_used(&error) && !patience.is_zero() => None,
        log => Some(log?),
    };
    let cursor = Arc::new(Mutex::new(Cursor::open(&folder)?));
    queue.set_shelf(Shelf::new(Arc::clone(&cursor), Arc::clone(&clock), most_age));
    let (name, shared) = (sink.to_owned(), Arc::clone(queue));
    let spawned = thread::Builder::new().name(format!("spool-{sink}")).spawn(move || {
        begin();
        let opened = log.map_or_else(|| succeed(config, &cursor, &shared, until), Ok);
        match opened {
            Ok(log) => Spooler::new(&name, log, cursor, shared, clock).run(),
            Err(error) => {
                tracing::warn!(sink = name, %error, "there is no spool: records go on from memory");
                shared.close_shelf();
            }
        }
    });
    if spawned.is_err() {
        queue.close_shelf();
    }
    spawned.map(|_| ())
}

/// Bytes of the log in `folder`, whoever may use it; what of it is dealt with among them.
///
/// # Errors
/// The folder cannot be read.
pub fn bytes(folder: &Path) -> io::Result<u64> {
    let mut bytes = 0;
    for file in fs::read_dir(folder)? {
        let file = file?;
        if file.file_name().to_str().and_then(Name::parse).is_some() {
            bytes += file.metadata()?.len();
        }
    }
    Ok(bytes)
}

fn is_used(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::ResourceBusy
}

/// Waits until the folder is free, and opens it; where its user had got to is known only then.
fn succeed(config: Config, cursor: &Mutex<Cursor>, queue: &Queue, until: Instant) -> io::Result<Log> {
    let folder = config.folder.clone();
    let log = loop {
        match Log::open(config.clone()) {
            Err(error) if is_used(&error) && Instant::now() < until && !queue.is_abandoned() => {
                thread::park_timeout(FREE_PERIOD);
            }
            log => break log?,
        }
    };
    *cursor.lock().unwrap_or_else(PoisonError::into_inner) = Cursor::open(&folder)?;
    Ok(log)
}

#[cfg(test)]
mod tests {
    use std::{
        cell::RefCell,
        fs,
        path::Path,
        rc::Rc,
        sync::atomic::{AtomicU64, Ordering::Relaxed},
        time::Instant,
    };

    use super::*;
    use crate::delivery::{
        Answer, Batch, Limits, Overflow, Parcel, Refusal, RefusalKind, Runner, SinkStats, Target, Trouble,
        TroubleKind, Verdict, backoff::Dice,
    };

    const LIMITS: Limits = Limits { concurrency: 1, timeout: Duration::from_secs(30), attempts: None };
    /// A queue that has no room for what tests push.
    const LITTLE: usize = 4096;
    const ITEMS: u64 = 10;
    /// Longer than any machine takes for what tests wait for.
    const LONG: Duration = Duration::from_secs(60);

    fn config(folder: &Path) -> Config {
        let most_age = Duration::from_secs(86_400);
        Config { folder: folder.join("spool"), most_bytes: 1 << 30, most_age, loses: Loses::Oldest }
    }

    fn spooled(config: Config, limit: usize, overflow: Overflow) -> Arc<Queue> {
        let queue = Arc::new(Queue::new(limit, overflow));
        start("test", config, &queue, Duration::ZERO, || ()).unwrap();
        queue
    }

    fn push(queue: &Queue, numbers: std::ops::Range<u64>) {
        for first in numbers.step_by(ITEMS as usize) {
            let mut batch = Batch { records: ITEMS, ..Default::default() };
            for number in first..first + ITEMS {
                batch.bytes.extend_from_slice(number.to_string().as_bytes());
                batch.end_item();
            }
            queue.push(batch, || false);
        }
    }

    /// Waits until it is so.
    fn wait(what: impl Fn() -> bool) {
        let begin = Instant::now();
        while !what() {
            assert!(begin.elapsed() < LONG, "not after {LONG:?}");
            thread::yield_now();
        }
    }

    type Numbers = Rc<RefCell<Vec<u64>>>;

    /// Answers as it is told, and remembers.
    struct Script<F> {
        answer: RefCell<F>,
        seen: Numbers,
    }

    impl<F: FnMut(&[u64]) -> Answer + 'static> Target for Script<F> {
        async fn send(&self, parcel: &Parcel) -> Answer {
            let number = |item| str::from_utf8(item).unwrap().parse().unwrap();
            let numbers: Vec<u64> = parcel.items().map(number).collect();
            self.seen.borrow_mut().extend(&numbers);
            (self.answer.borrow_mut())(&numbers)
        }
    }

    /// Runs a sink until `is_enough`, in time that does not run by itself, and then to its end.
    fn run(
        queue: &Arc<Queue>,
        answer: impl FnMut(&[u64]) -> Answer + 'static,
        is_enough: impl Fn(&SinkStats, Duration) -> bool,
    ) -> (SinkStats, Vec<u64>) {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        let seen = Numbers::default();
        let script = Script { answer: RefCell::new(answer), seen: Rc::clone(&seen) };
        runtime.block_on(async {
            let (begin, real) = (tokio::time::Instant::now(), Instant::now());
            let end = async {
                let mut step = tokio::time::interval(Duration::from_millis(100));
                while !is_enough(&queue.stats(), begin.elapsed()) && real.elapsed() < LONG {
                    step.tick().await;
                }
                queue.end();
            };
            tokio::join!(Runner::new("test".into(), script, Arc::clone(queue), LIMITS).run(), end);
        });
        queue.set_done();
        (queue.wait_done(Instant::now() + LONG), seen.take())
    }

    fn down() -> Answer {
        Answer::Later(Trouble::new(TroubleKind::Connect, "refused"))
    }

    fn balance(stats: &SinkStats) {
        assert_eq!(
            stats.received,
            stats.delivered + stats.lost() + stats.kept + stats.in_flight,
            "{stats:?}"
        );
    }

    /// As where a sink takes another's place.
    #[test]
    fn who_comes_next_waits_for_the_folder_and_goes_on_where_the_first_was() {
        let folder = tempfile::tempdir().unwrap();
        let first = spooled(config(folder.path()), 1 << 20, Overflow::Wait);
        push(&first, 0..200);
        wait(|| first.stats().spool.is_some_and(|spool| spool.records == 200));
        let second = Arc::new(Queue::new(1 << 20, Overflow::Wait));
        let used = start("test", config(folder.path()), &second, Duration::ZERO, || ()).unwrap_err();
        assert!(is_used(&used), "{used}");
        let second = Arc::new(Queue::new(1 << 20, Overflow::Wait));
        start("test", config(folder.path()), &second, LONG, || ()).unwrap();
        push(&second, 200..300);
        assert_eq!(second.stats().received, 100);
        let half = |numbers: &[u64]| {
            if numbers[0] < 100 {
                Answer::Delivered
            } else {
                Answer::Later(Trouble::new(TroubleKind::Connect, "down"))
            }
        };
        let (stats, seen) = run(&first, half, |stats, _| stats.delivered == 100);
        assert_eq!((stats.delivered, stats.kept, stats.lost()), (100, 100, 0));
        assert!(seen.starts_with(&(0..100).collect::<Vec<_>>()));
        let (stats, seen) = run(&second, |_| Answer::Delivered, |stats, _| stats.delivered == 200);
        assert_eq!((stats.received, stats.delivered, stats.lost()), (200, 200, 0));
        assert_eq!((stats.spool.unwrap().recovered, seen), (100, (100..300).collect()));
    }

    #[test]
    fn who_waits_in_vain_goes_on_from_memory() {
        let folder = tempfile::tempdir().unwrap();
        let first = spooled(config(folder.path()), 1 << 20, Overflow::Wait);
        let second = Arc::new(Queue::new(1 << 20, Overflow::Wait));
        start("test", config(folder.path()), &second, Duration::from_millis(1), || ()).unwrap();
        push(&second, 0..100);
        let (stats, seen) = run(&second, |_| Answer::Delivered, |stats, _| stats.delivered == 100);
        assert_eq!((stats.delivered, stats.lost(), seen), (100, 0, (0..100).collect()));
        drop(first);
    }

    #[test]
    fn a_target_that_was_down_for_hours_gets_everything_in_order_after_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let queue = spooled(config(folder.path()), LITTLE, Overflow::Wait);
        push(&queue, 0..2000);
        let hours = Duration::from_secs(5 * 3600);
        let (stats, _) = run(&queue, |_| down(), |_, passed| passed > hours);
        assert_eq!((stats.received, stats.kept, stats.delivered, stats.lost()), (2000, 2000, 0, 0));
        assert_eq!(stats.in_flight, 0);
        let queue = spooled(config(folder.path()), LITTLE, Overflow::Wait);
        push(&queue, 2000..2100);
        let (stats, seen) = run(&queue, |_| Answer::Delivered, |stats, _| stats.delivered == 2100);
        assert_eq!(seen, (0..2100).collect::<Vec<_>>());
        let spool = stats.spool.unwrap();
        assert_eq!((stats.received, stats.delivered, spool.recovered, stats.kept), (2100, 2100, 2000, 0));
        assert_eq!((spool.bytes, spool.segments, spool.failed, spool.unwritten), (0, 0, 0, 0));
    }

    #[test]
    fn what_a_sigkill_leaves_is_everything_but_what_was_delivered() {
        let folder = tempfile::tempdir().unwrap();
        let killed = tempfile::tempdir().unwrap();
        let queue = spooled(config(folder.path()), LITTLE, Overflow::Wait);
        push(&queue, 0..500);
        let (from, to) = (config(folder.path()).folder, config(killed.path()).folder);
        wait(|| {
            queue.lock().batches.is_empty() && queue.stats().spool.is_some_and(|spool| spool.bytes >= 50 * 96)
        });
        fs::create_dir(&to).unwrap();
        let answer = move |numbers: &[u64]| {
            if numbers[0] == 240 {
                for file in fs::read_dir(&from).unwrap().map(Result::unwrap) {
                    fs::copy(file.path(), to.join(file.file_name())).unwrap();
                }
            }
            Answer::Delivered
        };
        let (stats, _) = run(&queue, answer, |stats, _| stats.delivered == 500);
        assert_eq!(stats.delivered, 500);
        let queue = spooled(config(killed.path()), LITTLE, Overflow::Wait);
        let (stats, seen) = run(&queue, |_| Answer::Delivered, |stats, _| stats.delivered == 260);
        assert_eq!((stats.delivered, seen), (260, (240..500).collect()));
    }

    #[test]
    fn a_token_is_given_up_when_its_batch_is_on_disk_or_dealt_with() {
        let folder = tempfile::tempdir().unwrap();
        let token = Arc::new(());
        let batch = || {
            let token: Option<super::super::Token> = Some(Box::new(Arc::clone(&token)));
            Batch { bytes: b"1".to_vec(), ends: vec![1], records: 1, token, ..Default::default() }
        };
        let queue = spooled(config(folder.path()), LITTLE, Overflow::Wait);
        queue.push(batch(), || false);
        wait(|| Arc::strong_count(&token) == 1);
        wait(|| queue.stats().spool.is_some_and(|spool| spool.records == 1));
        assert_eq!(queue.stats().in_flight, 1);
        queue.set_done();
        queue.wait_done(Instant::now() + LONG);
        // Without a spool.
        let queue = Arc::new(Queue::new(2, Overflow::DropNewest));
        queue.push(batch(), || false);
        assert_eq!(Arc::strong_count(&token), 2);
        queue.push(batch(), || false);
        assert_eq!((Arc::strong_count(&token), queue.stats().dropped_queue_full), (2, 1));
        let held = Arc::clone(&token);
        let answer = move |_: &[u64]| {
            assert_eq!(Arc::strong_count(&held), 3);
            Answer::Delivered
        };
        run(&queue, answer, |stats, _| stats.delivered == 1);
        assert_eq!(Arc::strong_count(&token), 1);
    }

    #[test]
    fn where_the_disk_takes_nothing_records_go_on_from_memory_and_later_to_it() {
        let folder = tempfile::tempdir().unwrap();
        let config = config(folder.path());
        let queue = spooled(config.clone(), 1 << 20, Overflow::DropNewest);
        wait(|| queue.stats().spool.is_some());
        fs::remove_dir_all(&config.folder).unwrap();
        push(&queue, 0..1000);
        wait(|| queue.stats().spool.is_some_and(|spool| spool.unwritten == 1000));
        fs::create_dir(&config.folder).unwrap();
        let mut written = 1000;
        let begin = Instant::now();
        while queue.stats().spool.is_some_and(|spool| spool.bytes == 0) && begin.elapsed() < LONG {
            push(&queue, written..written + ITEMS);
            written += ITEMS;
            wait(|| queue.lock().batches.is_empty());
        }
        let (stats, seen) = run(&queue, |_| Answer::Delivered, move |stats, _| stats.delivered == written);
        assert_eq!((stats.delivered, stats.lost(), seen), (written, 0, (0..written).collect()));
        let spool = stats.spool.unwrap();
        assert!(spool.failed > 0 && spool.unwritten < written, "{spool:?}");
    }

    #[test]
    fn where_the_disk_takes_nothing_memory_stays_bounded() {
        let folder = tempfile::tempdir().unwrap();
        let config = config(folder.path());
        let queue = spooled(config.clone(), LITTLE, Overflow::DropNewest);
        wait(|| queue.stats().spool.is_some());
        fs::remove_dir_all(&config.folder).unwrap();
        push(&queue, 0..10_000);
        let stats = queue.stats();
        assert!(stats.dropped_queue_full > 0 && stats.queued_bytes <= LITTLE as u64, "{stats:?}");
        balance(&stats);
        let (stats, _) = run(&queue, |_| Answer::Delivered, |stats, _| stats.in_flight == 0);
        assert!(stats.delivered > 0 && stats.kept == 0, "{stats:?}");
        balance(&stats);
    }

    #[test]
    fn what_does_not_fit_is_lost_and_counted_whichever_loses() {
        for loses in [Loses::Newest, Loses::Oldest] {
            let folder = tempfile::tempdir().unwrap();
            let config = Config { most_bytes: 10_000, loses, ..config(folder.path()) };
            let queue = spooled(config, LITTLE, Overflow::DropNewest);
            for first in (0..5000).step_by(10) {
                push(&queue, first..first + 10);
                wait(|| {
                    let state = queue.lock();
                    state.batches.is_empty() || state.shelf.as_ref().is_some_and(Shelf::is_full)
                });
            }
            assert!(queue.stats().dropped_spool[Loss::Full as usize] > 0, "{:?}", queue.stats());
            let (stats, seen) = run(&queue, |_| Answer::Delivered, |stats, _| stats.in_flight == 0);
            balance(&stats);
            assert!(seen.is_sorted() && stats.delivered == seen.len() as u64, "{loses:?}");
            match loses {
                Loses::Newest => assert_eq!(seen[..100], (0..100).collect::<Vec<_>>()),
                Loses::Oldest => assert_eq!(seen.last(), Some(&4999)),
            }
            assert_eq!(stats.kept, 0);
        }
    }

    #[test]
    fn what_waited_too_long_is_lost_in_memory_and_on_disk() {
        let folder = tempfile::tempdir().unwrap();
        let time = Arc::new(AtomicU64::new(1_795_391_164_000));
        let (shown, config) = (Arc::clone(&time), config(folder.path()));
        let day = config.most_age.as_millis() as u64;
        let queue = Arc::new(Queue::new(LITTLE, Overflow::Wait));
        let clock = Arc::new(move || shown.load(Relaxed));
        start_by("test", config, &queue, Duration::ZERO, clock, || ()).unwrap();
        push(&queue, 0..500);
        wait(|| queue.lock().batches.is_empty());
        wait(|| queue.stats().spool.is_some_and(|spool| spool.bytes >= 50 * 96));
        time.fetch_add(day + 1, Relaxed);
        push(&queue, 500..510);
        let (stats, seen) = run(&queue, |_| Answer::Delivered, |stats, _| stats.in_flight == 0);
        assert_eq!((seen, stats.dropped_spool), ((500..510).collect(), [0, 500, 0]));
        balance(&stats);
    }

    #[test]
    fn the_books_balance_whatever_is_answered_and_whenever_it_ends() {
        for seed in 0..20 {
            let folder = tempfile::tempdir().unwrap();
            let mut delivered = std::collections::HashSet::new();
            let mut kept = 0;
            for round in 0..4 {
                let queue = spooled(config(folder.path()), LITTLE, Overflow::Wait);
                push(&queue, round * 300..round * 300 + 300);
                let mut dice = Dice::seeded(seed * 10 + round);
                let last = round == 3;
                let answer = move |numbers: &[u64]| match dice.roll() % 8 {
                    0 => down(),
                    1 => Answer::TooLarge,
                    2 => {
                        let verdicts = numbers.iter().map(|_| match dice.roll() % 3 {
                            0 => Verdict::Delivered,
                            1 => Verdict::Later(TroubleKind::Throttled),
                            _ => Verdict::Never(Refusal::new(RefusalKind::Rejected, "no")),
                        });
                        Answer::Judged(verdicts.collect())
                    }
                    _ => Answer::Delivered,
                };
                let enough = if last { u64::MAX } else { seed * 10 };
                let (stats, seen) =
                    run(&queue, answer, |stats, _| stats.delivered >= enough || stats.in_flight == 0);
                delivered.extend(seen);
                balance(&stats);
                assert_eq!(stats.spool.unwrap().recovered, kept, "{seed} {round}");
                kept = 0;
                if stats.kept > 0 {
                    let mut log = Log::open(config(folder.path())).unwrap();
                    let lowest = Cursor::open(&config(folder.path()).folder).unwrap().lowest();
                    kept = log.recover(lowest);
                    // A batch of which a part was dealt with is kept as a whole.
                    assert!((stats.kept..stats.kept + ITEMS).contains(&kept), "{seed} {round}");
                }
            }
            assert_eq!((kept, delivered.len()), (0, 1200), "{seed}");
        }
    }
}
