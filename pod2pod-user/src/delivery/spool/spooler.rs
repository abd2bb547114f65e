//! The thread of a spool: writes what comes, reads what memory has room for, removes what is dealt with, and has it synced.

use std::{
    fs::File,
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use super::{
    Clock, SYNC_PERIOD, SpoolStats,
    cursor::Cursor,
    log::{Log, Room},
    shelf::{Asked, Ready, Ticket, Work},
};
use crate::delivery::{Batch, Parcel, Queue};

/// After this time it is tried again to write to a disk that took nothing.
const RETRY_PERIOD: Duration = Duration::from_secs(1);
/// Warnings about a disk come this often at most.
const WARNING_PERIOD: Duration = Duration::from_secs(60);
/// So many files wait for a sync at most: each is open, and a disk that syncs more slowly than is written holds writing up.
const MAX_UNSYNCED: usize = 32;

/// The thread's own.
pub(super) struct Spooler {
    sink: String,
    log: Log,
    cursor: Arc<Mutex<Cursor>>,
    queue: Arc<Queue>,
    clock: Clock,
    stats: SpoolStats,
    /// Until then nothing is written: it was tried just before.
    blocked: Option<Instant>,
    /// A thread that ends with it: a sync may take seconds.
    syncing: Option<JoinHandle<io::Result<()>>>,
    /// When it is time to look at everything.
    next_look: Instant,
    warned: Option<Instant>,
}

impl Spooler {
    pub(super) fn new(
        sink: &str,
        log: Log,
        cursor: Arc<Mutex<Cursor>>,
        queue: Arc<Queue>,
        clock: Clock,
    ) -> Self {
        let (stats, next_look) = (SpoolStats::default(), Instant::now() + SYNC_PERIOD);
        let (blocked, syncing, warned) = (None, None, None);
        Self { sink: sink.to_owned(), log, cursor, queue, clock, stats, blocked, syncing, next_look, warned }
    }

    /// Works until the queue is done.
    pub(super) fn run(self) {
        // However it ends nobody waits for it, and the folder is free before.
        let _closing = Closing(Arc::clone(&self.queue));
        self.work();
    }

    fn work(mut self) {
        let lowest = self.cursor().lowest();
        self.stats.recovered = self.log.recover(lowest);
        self.queue.recover(self.stats.recovered);
        self.hear();
        if self.stats.broken_bytes > 0 {
            let (sink, bytes) = (&self.sink, self.stats.broken_bytes);
            tracing::warn!(sink, bytes, "the spool is broken in places; what is whole is sent");
        }
        let mut has_written = false;
        loop {
            let until = self.blocked.map_or(self.next_look, |blocked| blocked.min(self.next_look));
            let (has_unread, is_blocked) = (self.log.has_unread(), self.blocked.is_some());
            let asked = Asked { has_unread, is_blocked, has_written, until, stats: self.tell() };
            let work = self.queue.work(asked);
            has_written = matches!(work, Work::Write { .. });
            match work {
                Work::Write { batch, stays } => self.write(batch, stays),
                Work::HandOn(batch) => self.hand_on(batch, None),
                Work::Read => self.read(),
                Work::Look => {}
                Work::End => break,
            }
            self.look();
        }
        let lowest = self.cursor().lowest();
        self.log.close(lowest);
        self.sync();
        self.wait_for_sync();
        let stats = self.tell();
        self.queue.tell_spool(stats);
    }

    /// Removes what is dealt with; once a period also what is too old, and syncs.
    fn look(&mut self) {
        let (now, lowest) = (Instant::now(), self.cursor().lowest());
        let is_freed = self.log.trim(lowest);
        if is_freed || self.blocked.is_some_and(|until| until <= now) {
            self.blocked = None;
        }
        if self.log.dirty() > MAX_UNSYNCED {
            self.wait_for_sync();
            self.sync();
        }
        if now >= self.next_look {
            self.next_look = now + SYNC_PERIOD;
            self.log.expire((self.clock)());
            if self.syncing.as_ref().is_none_or(JoinHandle::is_finished) {
                self.wait_for_sync();
                self.sync();
            }
        }
        self.hear();
    }

    fn write(&mut self, batch: Batch, stays: bool) {
        let room = self.log.make_room(&batch.ends, &batch.bytes);
        self.hear();
        if room != Room::Enough {
            if room == Room::Later {
                self.queue.set_full(true);
            }
            return self.refuse(batch, stays, room);
        }
        let written = (self.clock)();
        match self.log.append((&batch.ends, &batch.bytes), written, stays) {
            Ok(sequence) => {
                self.queue.set_full(false);
                self.hear();
                if stays {
                    self.hand_on(batch, Some(sequence));
                } else {
                    self.queue.store(batch.records, batch.size());
                }
            }
            Err(error) => {
                self.stats.failed += 1;
                self.warn(&error, "the spool takes nothing: records go on from memory");
                self.refuse(batch, stays, Room::Later);
            }
        }
    }

    /// A batch is not written: it goes on from memory, or waits for its turn there.
    fn refuse(&mut self, batch: Batch, stays: bool, room: Room) {
        match (stays, room) {
            (true, _) => self.hand_on(batch, None),
            // It would wait for ever, and all others behind it.
            (false, Room::Never) => return self.queue.lose(batch.records, batch.size()),
            (false, Room::Later | Room::Enough) => self.queue.put_back(batch),
        }
        if room == Room::Later {
            self.blocked = Some(Instant::now() + RETRY_PERIOD);
        }
    }

    fn hand_on(&mut self, batch: Batch, sequence: Option<u64>) {
        let weight = batch.size();
        let Batch { bytes, ends, token, records, .. } = batch;
        let _token = token.filter(|_| sequence.is_none());
        self.stats.unwritten += if sequence.is_none() { records } else { 0 };
        let (parcel, written) = (Parcel::new(bytes, ends), (self.clock)());
        self.queue.hand_on(Ready { parcel, weight, written, ticket: Ticket { sequence, _token } });
    }

    fn read(&mut self) {
        let entry = self.log.read((self.clock)());
        self.hear();
        let Some(entry) = entry else { return };
        let weight = entry.parcel.bytes().len() + entry.parcel.len() * size_of::<u32>();
        let ticket = Ticket { sequence: Some(entry.sequence), _token: None };
        self.queue.bring(Ready { parcel: entry.parcel, weight, written: entry.written, ticket });
    }

    /// Counts what happened to the log, and passes over what nobody will be given.
    fn hear(&mut self) {
        let news = self.log.take_news();
        self.stats.broken_bytes += news.broken_bytes;
        if news.lost.iter().sum::<u64>() > 0 {
            self.queue.count_news(&news);
        }
        news.passed.into_iter().for_each(|entries| self.cursor().pass(entries));
    }

    /// How it stands.
    fn tell(&self) -> SpoolStats {
        let oldest = self.log.oldest().map_or(0, |oldest| (self.clock)().saturating_sub(oldest) / 1000);
        let (bytes, segments) = (self.log.bytes(), self.log.segments() as u64);
        let failed = self.stats.failed + self.cursor().failed();
        SpoolStats { bytes, segments, oldest_seconds: oldest, failed, ..self.stats }
    }

    /// Begins a sync of what was written, if anything was.
    fn sync(&mut self) {
        let mut files = self.log.take_dirty();
        files.extend(self.cursor().take_dirty());
        if files.is_empty() {
            return;
        }
        let given = files.clone();
        let spawned = thread::Builder::new().name("spool-sync".to_owned()).spawn(move || sync_all(&given));
        match spawned {
            Ok(thread) => self.syncing = Some(thread),
            Err(_) => self.count_sync(sync_all(&files)),
        }
    }

    fn wait_for_sync(&mut self) {
        if let Some(thread) = self.syncing.take() {
            let result = thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            self.count_sync(result);
        }
    }

    fn count_sync(&mut self, result: io::Result<()>) {
        match result {
            Ok(()) => self.stats.synced += 1,
            Err(error) => {
                self.stats.failed += 1;
                self.warn(&error, "the spool cannot be synced: a power failure would lose records");
            }
        }
    }

    fn warn(&mut self, error: &io::Error, what: &str) {
        let now = Instant::now();
        if self.warned.is_none_or(|warned| now.saturating_duration_since(warned) >= WARNING_PERIOD) {
            self.warned = Some(now);
            tracing::warn!(sink = self.sink, %error, failed = self.stats.failed, what);
        }
    }

    fn cursor(&self) -> MutexGuard<'_, Cursor> {
        self.cursor.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn sync_all(files: &[Arc<File>]) -> io::Result<()> {
    files.iter().try_for_each(|file| file.sync_data())
}

/// Tells the queue that its spool's thread is done.
struct Closing(Arc<Queue>);

impl Drop for Closing {
    fn drop(&mut self) {
        self.0.close_shelf();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::delivery::{
        Overflow,
        spool::{Config, Loses},
    };

    #[test]
    fn so_many_files_wait_for_a_sync_and_one_past_they_are_synced() {
        let folder = tempfile::tempdir().unwrap();
        let (most_bytes, most_age) = (64, Duration::MAX);
        let config = Config { folder: folder.path().to_owned(), most_bytes, most_age, loses: Loses::Newest };
        let mut log = Log::open(config).unwrap();
        log.recover(0);
        let cursor = Arc::new(Mutex::new(Cursor::open(folder.path()).unwrap()));
        let queue = Arc::new(Queue::new(1 << 20, Overflow::Wait));
        let mut spooler = Spooler::new("test", log, cursor, queue, Arc::new(|| 0));
        spooler.next_look = Instant::now() + Duration::from_secs(3600);
        // A file for each, whose name is the folder's to sync.
        while spooler.log.dirty() < MAX_UNSYNCED {
            spooler.log.append((&[1], b"x"), 0, false).unwrap();
        }
        spooler.look();
        assert_eq!((spooler.log.dirty(), spooler.syncing.is_some()), (MAX_UNSYNCED, false));
        spooler.log.append((&[1], b"x"), 0, false).unwrap();
        spooler.look();
        assert_eq!((spooler.log.dirty(), spooler.syncing.is_some()), (0, true));
        spooler.wait_for_sync();
        assert_eq!((spooler.stats.synced, spooler.stats.failed), (1, 0));
        spooler.sync();
        assert!(spooler.syncing.is_none(), "nothing was written");
    }
}
