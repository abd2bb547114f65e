//! The log of one sink: batches one after the other in files of a bounded size, read in the order in which they were written.
//!
//! Blocking, and of one thread. Knows no queue: what is lost and what is passed over is told as [`News`].

use std::{
    collections::VecDeque,
    fs::{self, DirBuilder, File, OpenOptions, TryLockError},
    io,
    ops::Range,
    os::unix::fs::{DirBuilderExt as _, FileExt as _, OpenOptionsExt as _},
    sync::Arc,
    time::Duration,
};

use super::{
    Config, FILE_MODE, FOLDER_MODE, Loses, Loss,
    entry::{self, Header},
    segment::{Name, Reader, Step},
};
use crate::delivery::{Parcel, backoff::Dice};

/// A segment is closed at this size: what is dealt with frees its room soon, and a node's day is some thousand files at most.
const SEGMENT_BYTES: u64 = 8 * 1024 * 1024;
/// A segment is no larger than this part of all: what gives way for one batch is not most of what there is.
const SEGMENT_SHARE: u64 = 8;
/// Two agents never share a folder: the second one does not get this file.
const LOCK_FILE: &str = "lock";

/// One file.
#[derive(Debug)]
struct Segment {
    name: Name,
    /// Bytes on the disk.
    size: u64,
    /// One past its last whole entry.
    end: u64,
    /// What is before was read, or need not be.
    read: u64,
    /// The number after its last entry's.
    after: u64,
    /// Items of entries that are not read.
    unread: u64,
    /// When its oldest and its newest entry were written.
    written: Option<(u64, u64)>,
}

impl Segment {
    const fn new(name: Name, size: u64) -> Self {
        Self { name, size, end: 0, read: 0, after: name.first, unread: 0, written: None }
    }

    fn add(&mut self, header: (u64, u64), end: u64) {
        let (sequence, written) = header;
        let (oldest, newest) = self.written.unwrap_or((written, written));
        self.written = Some((oldest.min(written), newest.max(written)));
        (self.after, self.end) = (sequence.saturating_add(1), end);
    }
}

/// What happened since somebody asked.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct News {
    /// Items that are lost, by [`Loss::ALL`].
    pub(super) lost: [u64; Loss::ALL.len()],
    /// Bytes that are no entries.
    pub(super) broken_bytes: u64,
    /// Entries that nobody will be given: gone, or never there.
    pub(super) passed: Vec<Range<u64>>,
}

impl News {
    fn lose(&mut self, loss: Loss, items: u64) {
        if let Some(count) = self.lost.get_mut(loss as usize) {
            *count += items;
        }
    }
}

/// An entry that was read.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) sequence: u64,
    pub(super) written: u64,
    pub(super) parcel: Parcel,
}

/// Whether a batch may be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Room {
    /// It may.
    Enough,
    /// Not before something else was dealt with.
    Later,
    /// It is too large.
    Never,
}

/// The log.
#[derive(Debug)]
pub(super) struct Log {
    config: Config,
    /// Oldest first; the last is being written if there is a writer.
    segments: VecDeque<Segment>,
    writer: Option<Arc<File>>,
    reader: Option<(Name, Reader)>,
    /// The number of the next entry that is written.
    next: u64,
    /// The number that is read next, unless entries are missing.
    expected: u64,
    scratch: Vec<u8>,
    dice: Dice,
    news: News,
    /// To be synced.
    dirty: Vec<Arc<File>>,
    folder: Arc<File>,
    /// Held as long as the log is.
    _lock: File,
}

impl Log {
    /// Opens the folder, and lists what is in it.
    ///
    /// # Errors
    /// It cannot be made, read or locked: another agent uses it.
    pub(super) fn open(config: Config) -> io::Result<Self> {
        DirBuilder::new().recursive(true).mode(FOLDER_MODE).create(&config.folder)?;
        let mut options = OpenOptions::new();
        let options = options.write(true).create(true).truncate(false).mode(FILE_MODE);
        let lock = options.open(config.folder.join(LOCK_FILE))?;
        lock.try_lock().map_err(|error| match error {
            TryLockError::WouldBlock => {
                io::Error::new(io::ErrorKind::ResourceBusy, "another agent uses this spool")
            }
            TryLockError::Error(error) => error,
        })?;
        let mut segments = Vec::new();
        for file in fs::read_dir(&config.folder)? {
            let file = file?;
            if let Some(name) = file.file_name().to_str().and_then(Name::parse) {
                segments.push(Segment::new(name, file.metadata()?.len()));
            }
        }
        segments.sort_unstable_by_key(|segment| segment.name);
        let folder = Arc::new(File::open(&config.folder)?);
        Ok(Self {
            config,
            segments: segments.into(),
            writer: None,
            reader: None,
            next: 0,
            expected: 0,
            scratch: Vec::new(),
            dice: Dice::default(),
            news: News::default(),
            dirty: Vec::new(),
            folder,
            _lock: lock,
        })
    }

    /// Reads everything once, to know what is whole; how many items are to be dealt with, of entries from `lowest` on. Among them are
    /// those that are lost because their entry is broken.
    pub(super) fn recover(&mut self, lowest: u64) -> u64 {
        let mut items = 0;
        let found = std::mem::take(&mut self.segments);
        for mut segment in found {
            items += self.scan(&mut segment, lowest);
            if segment.unread > 0 {
                self.segments.push_back(segment);
            } else {
                self.remove(segment.name);
            }
        }
        (self.next, self.expected) = (self.next.max(lowest), lowest);
        items
    }

    fn scan(&mut self, segment: &mut Segment, lowest: u64) -> u64 {
        let mut items = 0;
        let Ok(mut reader) = Reader::open(&self.config.folder, segment.name, 0) else {
            self.news.broken_bytes += segment.size;
            return 0;
        };
        loop {
            let begin = reader.offset;
            match reader.next(segment.size) {
                // Numbers only rise: what comes a second time was a copy of the file.
                Ok(Some(Step::Entry(header, _))) if header.sequence < self.next => {
                    self.news.broken_bytes += reader.offset - begin;
                }
                Ok(Some(Step::Entry(header, _))) => {
                    self.next = header.sequence.saturating_add(1);
                    segment.add((header.sequence, header.written), reader.offset);
                    if header.sequence >= lowest {
                        segment.read = if segment.unread == 0 { begin } else { segment.read };
                        segment.unread += u64::from(header.items);
                        items += u64::from(header.items);
                    }
                }
                Ok(Some(Step::Broken(bytes, header))) => {
                    self.news.broken_bytes += bytes;
                    items += header.map_or(0, |header| self.miss(&header, lowest));
                }
                Ok(None) => return items,
                Err(_) => {
                    self.news.broken_bytes += segment.size.saturating_sub(begin);
                    return items;
                }
            }
        }
    }

    /// Of an entry the header is left: how many items are lost.
    fn miss(&mut self, header: &Header, lowest: u64) -> u64 {
        if header.sequence < self.next.max(lowest) {
            return 0;
        }
        self.next = header.sequence.saturating_add(1);
        self.news.lose(Loss::Broken, header.items.into());
        header.items.into()
    }

    /// Bytes on the disk.
    pub(super) fn bytes(&self) -> u64 {
        self.segments.iter().map(|segment| segment.size).sum()
    }

    /// Number of files.
    pub(super) fn segments(&self) -> usize {
        self.segments.len()
    }

    /// When the oldest entry that is there was written.
    pub(super) fn oldest(&self) -> Option<u64> {
        self.segments.iter().filter_map(|segment| segment.written).map(|(oldest, _)| oldest).min()
    }

    /// Whether something waits to be read.
    pub(super) fn has_unread(&self) -> bool {
        self.segments.iter().any(|segment| segment.read < segment.end)
    }

    /// What happened since the last time.
    pub(super) fn take_news(&mut self) -> News {
        std::mem::take(&mut self.news)
    }

    /// Whether a batch may be written; the oldest may have to give way to it.
    pub(super) fn make_room(&mut self, ends: &[u32], bytes: &[u8]) -> Room {
        let Some(size) = entry::size(ends, bytes).map(|size| size as u64) else { return Room::Never };
        if size > self.config.most_bytes {
            return Room::Never;
        }
        while self.bytes() + size > self.config.most_bytes {
            match self.config.loses {
                Loses::Newest => return Room::Later,
                Loses::Oldest => self.lose_first(Loss::Full),
            }
        }
        Room::Enough
    }

    /// Writes a batch at the end, and says its number. If it `stays` in memory it is not read again.
    ///
    /// # Errors
    /// It could not be written: the log is as before.
    pub(super) fn append(
        &mut self,
        (ends, bytes): (&[u32], &[u8]),
        written: u64,
        stays: bool,
    ) -> io::Result<u64> {
        let file = self.writer()?;
        let sequence = self.next;
        let Some(segment) = self.segments.back_mut() else { return Err(io::ErrorKind::NotFound.into()) };
        entry::encode(&mut self.scratch, segment.name.salt, (sequence, written), ends, bytes);
        if let Err(error) = file.write_all_at(&self.scratch, segment.end) {
            self.undo(&file);
            return Err(error);
        }
        segment.add((sequence, written), segment.end + self.scratch.len() as u64);
        segment.size = segment.end;
        self.next += 1;
        if stays {
            self.news.passed.extend(gap(self.expected, sequence));
            (segment.read, self.expected) = (segment.end, self.next);
        } else {
            segment.unread += ends.len() as u64;
        }
        if !self.dirty.last().is_some_and(|last| Arc::ptr_eq(last, &file)) {
            self.dirty.push(file);
        }
        Ok(sequence)
    }

    /// The file that is written, a new one if the last is large enough.
    fn writer(&mut self) -> io::Result<Arc<File>> {
        let most = SEGMENT_BYTES.min(self.config.most_bytes / SEGMENT_SHARE);
        if self.segments.back().is_some_and(|segment| segment.size >= most) {
            self.writer = None;
        }
        if let Some(file) = &self.writer {
            return Ok(Arc::clone(file));
        }
        let salt = u32::try_from(self.dice.roll() >> 32).unwrap_or_default();
        let name = Name { first: self.next, salt };
        let mut options = OpenOptions::new();
        let options = options.write(true).create_new(true).mode(FILE_MODE);
        let file = Arc::new(options.open(name.path(&self.config.folder))?);
        self.segments.push_back(Segment::new(name, 0));
        self.writer = Some(Arc::clone(&file));
        self.dirty.push(Arc::clone(&self.folder));
        Ok(file)
    }

    /// Half an entry was written: none is there.
    fn undo(&mut self, file: &File) {
        let Some(segment) = self.segments.back() else { return };
        if segment.end == 0 {
            // An empty file for each attempt would be many.
            self.remove(segment.name);
            self.segments.pop_back();
            self.writer = None;
        } else if file.set_len(segment.end).is_err() {
            self.writer = None;
        }
    }

    /// The next entry that is not older than it may be at `now`, if there is one.
    pub(super) fn read(&mut self, now: u64) -> Option<Entry> {
        loop {
            let place = self.segments.iter().position(|segment| segment.read < segment.end)?;
            let segment = self.segments.get_mut(place)?;
            let reader = match self.reader.take() {
                Some((name, reader)) if name == segment.name => Ok(reader),
                Some(_) | None => Reader::open(&self.config.folder, segment.name, segment.read),
            };
            let step = reader.and_then(|mut reader| {
                let step = reader.next(segment.end)?;
                segment.read = reader.offset;
                self.reader = Some((segment.name, reader));
                Ok(step)
            });
            let mut entry = None;
            match step {
                Ok(Some(Step::Entry(header, parcel))) if header.sequence >= self.expected => {
                    segment.unread = segment.unread.saturating_sub(header.items.into());
                    self.news.passed.extend(gap(self.expected, header.sequence));
                    self.expected = header.sequence.saturating_add(1);
                    entry = Some((header, parcel));
                }
                Ok(Some(Step::Entry(..) | Step::Broken(..))) => {}
                // It can be read no further.
                Ok(None) | Err(_) => segment.read = segment.end,
            }
            if segment.read >= segment.end {
                self.reader = None;
                self.news.lose(Loss::Broken, std::mem::take(&mut segment.unread));
                let after = segment.after;
                self.news.passed.extend(gap(self.expected, after));
                self.expected = self.expected.max(after);
            }
            let Some((Header { sequence, written, items, .. }, parcel)) = entry else { continue };
            if self.is_expired(written, now) {
                self.news.lose(Loss::Expired, items.into());
                self.news.passed.push(sequence..sequence.saturating_add(1));
                continue;
            }
            return Some(Entry { sequence, written, parcel });
        }
    }

    /// Whether what was written then is too old at `now`. A clock that was set back makes nothing old.
    pub(super) fn is_expired(&self, written: u64, now: u64) -> bool {
        Duration::from_millis(now.saturating_sub(written)) > self.config.most_age
    }

    /// Removes files all of whose entries are too old at `now`.
    pub(super) fn expire(&mut self, now: u64) {
        while let Some((_, newest)) = self.segments.front().and_then(|segment| segment.written)
            && self.is_expired(newest, now)
        {
            self.lose_first(Loss::Expired);
        }
    }

    /// Removes files all of whose entries are below `lowest`, but for the one that is written; whether there was one.
    pub(super) fn trim(&mut self, lowest: u64) -> bool {
        let mut found = false;
        while let Some(segment) = self.segments.front()
            && segment.after <= lowest
            && !(self.segments.len() == 1 && self.writer.is_some())
        {
            self.remove(segment.name);
            self.segments.pop_front();
            found = true;
        }
        found
    }

    /// Nothing more is written: of what is dealt with up to `lowest` nothing is left.
    pub(super) fn close(&mut self, lowest: u64) {
        self.writer = None;
        self.trim(lowest);
    }

    fn lose_first(&mut self, loss: Loss) {
        let Some(segment) = self.segments.pop_front() else { return };
        self.remove(segment.name);
        self.news.lose(loss, segment.unread);
        // What was read is in memory and is dealt with all the same.
        self.news.passed.push(0..segment.after);
        self.expected = self.expected.max(segment.after);
        if self.segments.is_empty() {
            self.writer = None;
        }
    }

    fn remove(&self, name: Name) {
        // What stays is below the cursor, and removed at the next start.
        let _ = fs::remove_file(name.path(&self.config.folder));
    }

    /// Files that were written since somebody asked: they are to be synced.
    pub(super) fn take_dirty(&mut self) -> Vec<Arc<File>> {
        std::mem::take(&mut self.dirty)
    }

    /// How many files wait to be synced.
    pub(super) const fn dirty(&self) -> usize {
        self.dirty.len()
    }
}

/// Numbers from `expected` to the one that came instead.
fn gap(expected: u64, sequence: u64) -> Option<Range<u64>> {
    (expected < sequence).then_some(expected..sequence)
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, path::Path};

    use super::*;

    const AGE: Duration = Duration::from_secs(3600);
    const NOW: u64 = 1_795_391_164_000;

    fn config(folder: &Path, most_bytes: u64, loses: Loses) -> Config {
        Config { folder: folder.to_owned(), most_bytes, most_age: AGE, loses }
    }

    fn open(folder: &Path) -> Log {
        let mut log = Log::open(config(folder, 1 << 30, Loses::Oldest)).unwrap();
        log.recover(0);
        log
    }

    fn append(log: &mut Log, text: &str) -> u64 {
        log.append((&[text.len() as u32], text.as_bytes()), NOW, false).unwrap()
    }

    fn passed(news: &News) -> Vec<(u64, u64)> {
        news.passed.iter().map(|entries| (entries.start, entries.end)).collect()
    }

    fn text(entry: &Entry) -> String {
        String::from_utf8(entry.parcel.bytes().to_vec()).unwrap()
    }

    fn read(log: &mut Log) -> Vec<(u64, String)> {
        std::iter::from_fn(|| log.read(NOW)).map(|entry| (entry.sequence, text(&entry))).collect()
    }

    /// The only file of the log, and what is in it.
    fn file(folder: &Path) -> (std::path::PathBuf, Vec<u8>) {
        let paths = fs::read_dir(folder).unwrap().map(|file| file.unwrap().path());
        let mut files = paths.filter(|path| path.extension().is_some_and(|end| end == "seg"));
        let path = files.next().unwrap();
        assert_eq!(files.next(), None);
        let bytes = fs::read(&path).unwrap();
        (path, bytes)
    }

    #[test]
    fn what_is_read_is_what_was_written_in_its_order() {
        let folder = tempfile::tempdir().unwrap();
        let mut log = open(folder.path());
        let texts: Vec<_> = (0..100).map(|number| "x".repeat(number)).collect();
        let numbers: Vec<_> = texts.iter().map(|text| append(&mut log, text)).collect();
        let expected: Vec<_> = numbers.into_iter().zip(texts).collect();
        assert_eq!(read(&mut log), expected);
        assert!(!log.has_unread());
        assert_eq!(log.take_news(), News::default());
        drop(log);
        // Nothing was dealt with.
        assert_eq!(read(&mut open(folder.path())), expected);
    }

    #[test]
    fn two_agents_do_not_share_a_folder() {
        let folder = tempfile::tempdir().unwrap();
        let first = open(folder.path());
        let second = Log::open(config(folder.path(), 1 << 30, Loses::Oldest));
        assert_eq!(second.unwrap_err().kind(), io::ErrorKind::ResourceBusy);
        drop(first);
        open(folder.path());
    }

    #[test]
    fn only_its_owner_reads_it() {
        use std::os::unix::fs::MetadataExt as _;
        let outside = tempfile::tempdir().unwrap();
        let folder = outside.path().join("spool").join("http");
        append(&mut open(&folder), "a");
        let mode = |path: &Path| path.metadata().unwrap().mode() & 0o777;
        assert_eq!((mode(&folder), mode(folder.parent().unwrap())), (FOLDER_MODE, FOLDER_MODE));
        assert_eq!((mode(&file(&folder).0), mode(&folder.join(LOCK_FILE))), (FILE_MODE, FILE_MODE));
    }

    #[test]
    fn what_was_dealt_with_is_not_read_again_and_its_files_go() {
        let folder = tempfile::tempdir().unwrap();
        let mut log = Log::open(config(folder.path(), 800, Loses::Newest)).unwrap();
        log.recover(0);
        // A file is closed at 100 bytes: three of these.
        for number in 0..9 {
            append(&mut log, &number.to_string());
        }
        assert_eq!((log.segments(), read(&mut log).len()), (3, 9));
        assert!(!log.trim(2) && log.segments() == 3);
        assert!(log.trim(7) && log.segments() == 1);
        assert!(!log.trim(9), "the one that is written stays");
        drop(log);
        let mut log = Log::open(config(folder.path(), 800, Loses::Newest)).unwrap();
        assert_eq!(log.recover(7), 2);
        assert_eq!(read(&mut log), [(7, "7".to_owned()), (8, "8".to_owned())]);
        assert_eq!(append(&mut log, "9"), 9);
        log.close(10);
        assert_eq!((log.segments(), log.bytes()), (0, 0));
        drop(log);
        let mut log = open(folder.path());
        assert_eq!((log.recover(10), append(&mut log, "10")), (0, 10));
    }

    #[test]
    fn a_segment_is_closed_at_its_size() {
        let folder = tempfile::tempdir().unwrap();
        let mut log = open(folder.path());
        let frame = entry::size(&[0], b"").unwrap();
        let half = "x".repeat(usize::try_from(SEGMENT_BYTES / 2).unwrap() - frame);
        (0..2).for_each(|number| assert_eq!(append(&mut log, &half), number));
        assert_eq!((log.segments(), log.bytes()), (1, SEGMENT_BYTES));
        append(&mut log, "");
        assert_eq!(log.segments(), 2);
        let small = tempfile::tempdir().unwrap();
        let mut log = Log::open(config(small.path(), SEGMENT_SHARE * 82, Loses::Oldest)).unwrap();
        (0..5).for_each(|number| assert_eq!(append(&mut log, ""), number));
        assert_eq!((frame, log.segments()), (40, 2), "three are the first to be past 82 bytes");
    }

    #[test]
    fn what_does_not_fit_waits_or_the_oldest_gives_way() {
        const SIZE: u64 = 41;
        let folder = tempfile::tempdir().unwrap();
        let mut log = Log::open(config(folder.path(), 10 * SIZE, Loses::Newest)).unwrap();
        for number in 0..10 {
            assert_eq!(log.make_room(&[1], b"x"), Room::Enough, "{number}");
            append(&mut log, "x");
        }
        assert_eq!((log.make_room(&[1], b"x"), log.bytes()), (Room::Later, 10 * SIZE));
        assert_eq!(log.take_news(), News::default());
        drop(log);
        let mut log = Log::open(config(folder.path(), 10 * SIZE, Loses::Oldest)).unwrap();
        assert_eq!(log.recover(0), 10);
        let first = log.segments.front().unwrap().after;
        assert_eq!(log.make_room(&[1], b"x"), Room::Enough);
        let news = log.take_news();
        assert_eq!((news.lost, passed(&news)), ([first, 0, 0], vec![(0, first)]));
        append(&mut log, "y");
        let left = read(&mut log);
        assert_eq!((left.first().unwrap().0, left.last().unwrap()), (first, &(10, "y".to_owned())));
        let most = "x".repeat(10 * SIZE as usize - 40);
        let room = |log: &mut Log, text: &str| log.make_room(&[text.len() as u32], text.as_bytes());
        assert_eq!(room(&mut log, &format!("{most}x")), Room::Never);
        assert_eq!((room(&mut log, &most), log.segments()), (Room::Enough, 0));
        assert_eq!(append(&mut log, "z"), 11);
    }

    #[test]
    fn what_is_too_old_is_lost() {
        let folder = tempfile::tempdir().unwrap();
        let mut log = Log::open(config(folder.path(), 800, Loses::Oldest)).unwrap();
        let old = AGE.as_millis() as u64;
        for age in [old + 1, old + 1, old + 1, old + 1, old, 0] {
            log.append((&[1], b"x"), NOW - age, false).unwrap();
        }
        assert_eq!(log.oldest(), Some(NOW - old - 1));
        log.expire(NOW);
        let news = log.take_news();
        assert_eq!((news.lost, passed(&news), log.segments()), ([0, 3, 0], vec![(0, 3)], 1));
        let kept: Vec<_> = std::iter::from_fn(|| log.read(NOW)).map(|entry| entry.sequence).collect();
        let news = log.take_news();
        assert_eq!((kept, news.lost, passed(&news)), (vec![4, 5], [0, 1, 0], vec![(3, 4)]));
        assert!(!log.is_expired(NOW + 1, NOW), "of a clock that was set back");
    }

    #[test]
    fn what_stays_in_memory_is_not_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let mut log = open(folder.path());
        for stays in [true, true, false, false] {
            log.append((&[1], b"x"), NOW, stays).unwrap();
        }
        let numbers: Vec<_> = read(&mut log).into_iter().map(|(number, _)| number).collect();
        assert_eq!(numbers, [2, 3]);
        log.append((&[1], b"x"), NOW, true).unwrap();
        assert!(!log.has_unread());
    }

    #[test]
    fn a_disk_that_is_full_leaves_the_log_as_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let mut log = open(folder.path());
        append(&mut log, "a");
        let whole = log.segments.back().unwrap().name.path(folder.path());
        // A file that takes nothing; no disk has to be filled for that.
        log.writer = Some(Arc::new(OpenOptions::new().write(true).open("/dev/full").unwrap()));
        let error = log.append((&[1], b"b"), NOW, false).unwrap_err();
        assert_eq!((error.kind(), log.segments()), (io::ErrorKind::StorageFull, 1));
        assert_eq!(fs::read(whole).unwrap().len() as u64, log.bytes());
        assert_eq!(append(&mut log, "c"), 1);
        assert_eq!(read(&mut log), [(0, "a".to_owned()), (1, "c".to_owned())]);
    }

    #[test]
    fn an_empty_file_is_not_left_for_each_attempt() {
        let folder = tempfile::tempdir().unwrap();
        let mut log = open(folder.path());
        append(&mut log, "a");
        let (path, _) = file(folder.path());
        log.segments.back_mut().unwrap().end = 0;
        log.writer = Some(Arc::new(OpenOptions::new().write(true).open("/dev/full").unwrap()));
        log.append((&[1], b"b"), NOW, false).unwrap_err();
        assert_eq!((log.segments(), path.exists()), (0, false));
        assert_eq!(append(&mut log, "c"), 1);
    }

    /// A log whose file has more than 4 KiB, with where each entry ends in it.
    fn written(folder: &Path) -> (Vec<u64>, Vec<(u64, String)>) {
        let mut log = open(folder);
        let (mut ends, mut texts) = (Vec::new(), Vec::new());
        for number in 0..40 {
            let text = format!("{number} {}", "\u{1F600}p2".repeat(number % 60));
            texts.push((append(&mut log, &text), text));
            ends.push(log.bytes());
        }
        (ends, texts)
    }

    /// What is delivered of a log whose file has these bytes, and what is lost.
    fn recovered(path: &Path, bytes: &[u8]) -> (Vec<(u64, String)>, u64) {
        fs::write(path, bytes).unwrap();
        let mut log = open(path.parent().unwrap());
        let read = read(&mut log);
        let news = log.take_news();
        (read, news.lost[Loss::Broken as usize])
    }

    #[test]
    fn a_log_that_is_cut_anywhere_in_its_last_4_kib_has_all_before() {
        let folder = tempfile::tempdir().unwrap();
        let (ends, texts) = written(folder.path());
        let (path, bytes) = file(folder.path());
        assert!(bytes.len() > 4096);
        for cut in bytes.len() - 4096..bytes.len() {
            let whole = ends.iter().filter(|end| **end <= cut as u64).count();
            assert_eq!(recovered(&path, &bytes[..cut]).0, texts[..whole], "{cut}");
        }
    }

    #[test]
    fn a_log_with_any_byte_flipped_in_its_last_4_kib_has_all_others() {
        let folder = tempfile::tempdir().unwrap();
        let (ends, texts) = written(folder.path());
        let (path, bytes) = file(folder.path());
        for place in bytes.len() - 4096..bytes.len() {
            let mut broken = bytes.clone();
            broken[place] ^= 0xff;
            let lost = ends.iter().filter(|end| **end <= place as u64).count();
            let expected = [&texts[..lost], &texts[lost + 1..]].concat();
            let (read, counted) = recovered(&path, &broken);
            assert_eq!(read, expected, "{place}");
            let begin = if lost == 0 { 0 } else { ends[lost - 1] };
            let has_header = place as u64 >= begin + entry::HEADER_BYTES as u64;
            assert_eq!(counted, u64::from(has_header), "{place}");
        }
    }

    #[test]
    fn a_file_that_breaks_after_the_start_is_counted_and_passed_over() {
        let folder = tempfile::tempdir().unwrap();
        let (ends, texts) = written(folder.path());
        let (path, bytes) = file(folder.path());
        let mut log = open(folder.path());
        fs::write(&path, &bytes[..usize::try_from(ends[19]).unwrap()]).unwrap();
        assert_eq!(read(&mut log), texts[..20]);
        let news = log.take_news();
        assert_eq!((news.lost, passed(&news)), ([0, 0, 20], vec![(20, 40)]));
        assert!(!log.has_unread());
        fs::remove_file(&path).unwrap();
        assert_eq!(append(&mut log, "new"), 40);
        assert_eq!(read(&mut log), [(40, "new".to_owned())]);
    }

    #[test]
    fn numbers_that_are_missing_are_passed_over() {
        let folder = tempfile::tempdir().unwrap();
        let (ends, _) = written(folder.path());
        let (path, mut bytes) = file(folder.path());
        bytes[usize::try_from(ends[4]).unwrap()] ^= 1;
        fs::write(&path, &bytes).unwrap();
        let mut log = open(folder.path());
        assert_eq!(read(&mut log).len(), 39);
        assert_eq!(passed(&log.take_news()), [(5, 6)]);
    }

    #[test]
    fn files_that_are_nobodys_and_copies_do_no_harm() {
        let folder = tempfile::tempdir().unwrap();
        let (_, texts) = written(folder.path());
        let (path, bytes) = file(folder.path());
        let salt = Name::parse(path.file_name().unwrap().to_str().unwrap()).unwrap().salt;
        let copy = Name { first: 1, salt };
        fs::write(copy.path(folder.path()), &bytes).unwrap();
        fs::write(folder.path().join("notes"), "x").unwrap();
        fs::write(Name { first: 2, salt: 7 }.path(folder.path()), vec![0xff; 100_000]).unwrap();
        fs::create_dir(Name { first: 3, salt: 7 }.path(folder.path())).unwrap();
        let mut log = open(folder.path());
        assert_eq!(read(&mut log), texts);
        assert!(log.take_news().broken_bytes >= 100_000);
    }

    /// What a log should do, of which every entry is one item.
    #[derive(Default)]
    struct Model {
        /// Written, with whether it was dealt with.
        entries: BTreeMap<u64, (String, bool)>,
        /// Below it all was dealt with.
        lowest: u64,
    }

    impl Model {
        fn lowest(&mut self) -> u64 {
            while self.entries.get(&self.lowest).is_some_and(|(_, done)| *done) {
                self.lowest += 1;
            }
            self.lowest
        }
    }

    #[test]
    fn whatever_happens_in_whatever_order_it_does_what_a_model_does() {
        for seed in 0..40 {
            let folder = tempfile::tempdir().unwrap();
            let mut dice = Dice::seeded(seed);
            let mut roll = |most: u64| dice.roll() % most;
            let most = 4096;
            let reopen = |lowest| {
                let mut log = Log::open(config(folder.path(), most, Loses::Newest)).unwrap();
                let items = log.recover(lowest);
                (log, items)
            };
            let (mut log, _) = reopen(0);
            let (mut model, mut given) = (Model::default(), Vec::new());
            for step in 0..400 {
                match roll(8) {
                    0..=3 => {
                        let text = "y".repeat(roll(100) as usize);
                        if log.make_room(&[text.len() as u32], text.as_bytes()) == Room::Enough {
                            let number = append(&mut log, &text);
                            assert!(model.entries.insert(number, (text, false)).is_none(), "{seed} {step}");
                        }
                    }
                    4 | 5 => given.extend(log.read(NOW).map(|entry| (entry.sequence, text(&entry)))),
                    6 if !given.is_empty() => {
                        let place = roll(given.len() as u64) as usize;
                        let (number, text): (u64, String) = given.swap_remove(place);
                        let (expected, done) = model.entries.get_mut(&number).unwrap();
                        assert_eq!((&*expected, &*done), (&text, &false), "{seed} {step}");
                        *done = true;
                        log.trim(model.lowest());
                    }
                    7 if roll(4) == 0 => {
                        drop(log);
                        given.clear();
                        let lowest = model.lowest();
                        model.entries.range_mut(lowest..).for_each(|(_, (_, done))| *done = false);
                        let items;
                        (log, items) = reopen(lowest);
                        assert_eq!(items, model.entries.range(lowest..).count() as u64, "{seed} {step}");
                    }
                    _ => {}
                }
                assert!(log.bytes() <= most, "{seed} {step}");
            }
            assert_eq!(log.take_news(), News::default(), "{seed}");
        }
    }
}
