//! Dead letters: records that a target will never take, each with why, in a file that people read and that can be sent again.
//!
//! A line of JSON each, the newest last; two files of half the room each, so that the oldest give way. They are written under
//! the file's lock, so that whoever takes them away to send them again misses none.

use std::{
    collections::BTreeSet,
    fs::{self, File, OpenOptions},
    io::{self, BufRead as _, BufReader, ErrorKind, Read as _, Write as _},
    os::unix::fs::{DirBuilderExt as _, FileExt as _, MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use serde_json::{Value, json};

use super::Refusal;
use crate::record::number::Clock;

/// Bytes of dead letters of one sink at most: some ten thousand records, of a target that hardly ever refuses one.
pub const MAX_DEAD_BYTES: u64 = 16 * 1024 * 1024;
/// The folder of all sinks' in the data directory.
const FOLDER: &str = "dead-letters";
/// Only who runs the agent reads them: they hold what records hold.
const FOLDER_MODE: u32 = 0o700;
const FILE_MODE: u32 = 0o600;

/// What became of records that were to be kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DeadStats {
    /// Written.
    pub written: u64,
    /// Lost: older ones that gave way.
    pub gave_way: u64,
    /// Lost: the file could not be written.
    pub failed: u64,
}

/// The dead letters of one sink.
#[derive(Debug)]
pub struct DeadLetters {
    sink: Arc<str>,
    folder: PathBuf,
    /// Bytes of one of the two files at most.
    most: u64,
    open: Option<File>,
    clock: Clock,
    stats: DeadStats,
}

impl DeadLetters {
    /// Those of `sink`, in a folder of `data_dir`.
    ///
    /// # Errors
    /// The folder cannot be made.
    pub fn of(data_dir: &Path, sink: Arc<str>) -> io::Result<Self> {
        Self::with_most(data_dir, sink, MAX_DEAD_BYTES)
    }

    fn with_most(data_dir: &Path, sink: Arc<str>, most: u64) -> io::Result<Self> {
        let folder = data_dir.join(FOLDER);
        fs::DirBuilder::new().recursive(true).mode(FOLDER_MODE).create(&folder)?;
        let (clock, stats) = (Clock::default(), DeadStats::default());
        Ok(Self { sink, folder, most: most / 2, open: None, clock, stats })
    }

    /// What was counted so far.
    pub const fn stats(&self) -> DeadStats {
        self.stats
    }

    /// Keeps `item`, refused at `time`.
    ///
    /// # Errors
    /// It could not be written; it is counted.
    pub fn put(&mut self, item: &[u8], refusal: &Refusal, time: SystemTime) -> io::Result<()> {
        let line = self.line(item, refusal, time);
        let written = self.write(&line);
        match written {
            Ok(()) => self.stats.written += 1,
            Err(_) => self.stats.failed += 1,
        }
        written
    }

    fn line(&mut self, item: &[u8], refusal: &Refusal, time: SystemTime) -> Vec<u8> {
        let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        let mut text = Vec::new();
        self.clock.push_time(&mut text, u64::try_from(since.as_nanos()).unwrap_or(u64::MAX));
        let is_text = str::from_utf8(item).is_ok();
        let mut letter = json!({
            "time": String::from_utf8_lossy(&text),
            "sink": *self.sink,
            "reason": refusal.kind.as_str(),
            "detail": refusal.detail,
            "item": if is_text { String::from_utf8_lossy(item).into_owned() } else { of_bytes(item) },
        });
        if !is_text {
            letter["is_text"] = Value::Bool(false);
        }
        format!("{letter}\n").into_bytes()
    }

    fn write(&mut self, line: &[u8]) -> io::Result<()> {
        if line.len() as u64 > self.most {
            return Err(io::Error::new(ErrorKind::FileTooLarge, "a letter is longer than its file may be"));
        }
        let path = self.path(Part::Current);
        loop {
            let known = self.open.take();
            let is_known = known.is_some();
            let file = known.map_or_else(|| append(&path), Ok)?;
            file.lock()?;
            // Whoever sends letters again moves the file away: what comes later is for the next one.
            if !is_at(&file, &path) {
                continue;
            }
            if file.metadata()?.len() + line.len() as u64 > self.most {
                self.stats.gave_way += count(&self.path(Part::Older));
                fs::rename(&path, self.path(Part::Older))?;
                continue;
            }
            if !is_known {
                end_line(&file)?;
            }
            // After half a line it is opened anew.
            (&file).write_all(line)?;
            file.unlock()?;
            self.open = Some(file);
            return Ok(());
        }
    }

    fn path(&self, part: Part) -> PathBuf {
        path(&self.folder, &self.sink, part)
    }
}

/// One of a sink's files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    /// Taken to be sent again.
    Sending,
    /// About to be taken.
    Moving,
    Older,
    Current,
}

impl Part {
    /// In the order of their letters.
    const ALL: [Self; 4] = [Self::Sending, Self::Moving, Self::Older, Self::Current];
}

fn path(folder: &Path, sink: &str, part: Part) -> PathBuf {
    folder.join(match part {
        Part::Sending => format!("{sink}.sending.jsonl"),
        Part::Moving => format!("{sink}.moving.jsonl"),
        Part::Older => format!("{sink}.1.jsonl"),
        Part::Current => format!("{sink}.jsonl"),
    })
}

/// `Ok` with nothing if there is no such file.
fn if_there<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn append(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).append(true).create(true).mode(FILE_MODE).open(path)
}

/// Where a write stopped in a line, the next one begins on its own.
fn end_line(mut file: &File) -> io::Result<()> {
    let mut last = [b'\n'];
    if file.metadata()?.len() > 0 {
        file.read_exact_at(&mut last, file.metadata()?.len() - 1)?;
    }
    if last == *b"\n" { Ok(()) } else { file.write_all(b"\n") }
}

/// Whether the file is still the one of that name.
fn is_at(file: &File, path: &Path) -> bool {
    let (Ok(this), Ok(named)) = (file.metadata(), path.metadata()) else { return false };
    (this.dev(), this.ino()) == (named.dev(), named.ino())
}

/// Lines of a file; none if it cannot be read.
fn count(path: &Path) -> u64 {
    let Ok(file) = File::open(path) else { return 0 };
    BufReader::new(file).split(b'\n').map_while(Result::ok).count() as u64
}

/// Sinks that have letters in `data_dir`, in the order of their names.
///
/// # Errors
/// The folder cannot be read.
pub fn sinks(data_dir: &Path) -> io::Result<BTreeSet<String>> {
    let mut names = BTreeSet::new();
    for entry in if_there(fs::read_dir(data_dir.join(FOLDER)))?.into_iter().flatten() {
        let file = entry?.file_name();
        // What follows a sink's name begins with a point.
        let name = file.to_str().and_then(|file| file.split_once('.'));
        names.extend(name.map(|(name, _)| name.to_owned()));
    }
    Ok(names)
}

/// All letters of `sink` in `data_dir` as they were written, oldest first.
///
/// # Errors
/// A file cannot be read.
pub fn read(data_dir: &Path, sink: &str) -> io::Result<Vec<u8>> {
    let folder = data_dir.join(FOLDER);
    let mut all = Vec::new();
    for part in Part::ALL {
        if let Some(mut file) = if_there(File::open(path(&folder, sink, part)))? {
            file.read_to_end(&mut all)?;
        }
    }
    Ok(all)
}

/// Letters that were taken to be sent again: nobody adds to them.
#[derive(Debug)]
pub struct Taken {
    file: PathBuf,
    lines: Vec<Vec<u8>>,
    /// Their items, oldest first.
    pub items: Vec<Vec<u8>>,
    /// Lines that are no letters: one that was half written.
    pub broken: u64,
}

impl Taken {
    /// Takes the letters of `sink`, and what an earlier taking left.
    ///
    /// # Errors
    /// A file cannot be moved, read or written.
    pub fn take(data_dir: &Path, sink: &str) -> io::Result<Self> {
        let folder = data_dir.join(FOLDER);
        let [sending, moving] = [Part::Sending, Part::Moving].map(|part| path(&folder, sink, part));
        for part in [Part::Moving, Part::Older, Part::Current] {
            if part != Part::Moving && if_there(fs::rename(path(&folder, sink, part), &moving))?.is_none() {
                continue;
            }
            let Some(mut file) = if_there(File::open(&moving))? else { continue };
            // Whoever is writing a letter there has its end first.
            file.lock()?;
            let mut to = append(&sending)?;
            end_line(&to)?;
            io::copy(&mut file, &mut to)?;
            to.sync_data()?;
            fs::remove_file(&moving)?;
        }
        let mut taken = Self { file: sending, lines: Vec::new(), items: Vec::new(), broken: 0 };
        if let Some(file) = if_there(File::open(&taken.file))? {
            for line in BufReader::new(&file).split(b'\n') {
                let line = line?;
                match item(&line) {
                    Some(item) => {
                        taken.items.push(item);
                        taken.lines.push(line);
                    }
                    None => taken.broken += 1,
                }
            }
        }
        Ok(taken)
    }

    /// The first `count` were dealt with; the rest stays taken.
    ///
    /// # Errors
    /// The file cannot be written or removed.
    pub fn done(&self, count: usize) -> io::Result<()> {
        let rest = self.lines.get(count..).unwrap_or_default();
        if rest.is_empty() {
            return if_there(fs::remove_file(&self.file)).map(|_| ());
        }
        let new = self.file.with_extension("new");
        let mut file =
            OpenOptions::new().write(true).create(true).truncate(true).mode(FILE_MODE).open(&new)?;
        let mut text = rest.join(&b'\n');
        text.push(b'\n');
        file.write_all(&text)?;
        file.sync_data()?;
        fs::rename(new, &self.file)
    }
}

/// Of an item that is no text each byte is the character of its number.
fn of_bytes(item: &[u8]) -> String {
    item.iter().copied().map(char::from).collect()
}

fn item(line: &[u8]) -> Option<Vec<u8>> {
    let letter: Value = serde_json::from_slice(line).ok()?;
    let item = letter.get("item")?.as_str()?;
    match letter.get("is_text") {
        Some(Value::Bool(false)) => item.chars().map(|byte| u8::try_from(byte).ok()).collect(),
        Some(_) | None => Some(item.as_bytes().to_vec()),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::delivery::RefusalKind;

    #[test]
    fn items_are_the_same_whether_they_are_text_or_not() {
        let folder = tempfile::tempdir().unwrap();
        let letters = DeadLetters::of(folder.path(), "a".into());
        let mut letters = letters.unwrap();
        let refusal = Refusal::new(RefusalKind::Rejected, "");
        for wanted in [&b"text\n"[..], "\u{e4}".as_bytes(), b"\xff\0\n\"\x80a", b"", &[0xc3]] {
            let line = letters.line(wanted, &refusal, UNIX_EPOCH);
            assert_eq!(line.iter().filter(|byte| **byte == b'\n').count(), 1);
            assert_eq!(item(&line).as_deref(), Some(wanted));
        }
    }

    const TIME: Duration = Duration::from_nanos(1_795_391_164_000_000_001);

    fn refusal() -> Refusal {
        Refusal::new(RefusalKind::Rejected, "400 Bad \"Request\"")
    }

    fn letters(data_dir: &Path, most: u64) -> DeadLetters {
        DeadLetters::with_most(data_dir, "http".into(), most).unwrap()
    }

    fn put(letters: &mut DeadLetters, item: &str) {
        letters.put(item.as_bytes(), &refusal(), UNIX_EPOCH + TIME).unwrap();
    }

    fn texts(items: &[Vec<u8>]) -> Vec<&str> {
        items.iter().map(|item| str::from_utf8(item).unwrap()).collect()
    }

    #[test]
    fn a_letter_says_what_and_why() {
        let folder = tempfile::tempdir().unwrap();
        put(&mut letters(folder.path(), MAX_DEAD_BYTES), "{\"a\":\"\u{1F600}\"}\n");
        let told = String::from_utf8(read(folder.path(), "http").unwrap()).unwrap();
        let expected = "{\"time\":\"2026-11-22T23:46:04.000000001Z\",\"sink\":\"http\",\"reason\":\"rejected\",\
            \"detail\":\"400 Bad \\\"Request\\\"\",\"item\":\"{\\\"a\\\":\\\"\u{1F600}\\\"}\\n\"}\n";
        assert_eq!(told, expected);
        assert!(read(folder.path(), "other").unwrap().is_empty());
        let mode = |path: &Path| path.metadata().unwrap().mode() & 0o777;
        let inside = folder.path().join(FOLDER);
        assert_eq!((mode(&inside), mode(&inside.join("http.jsonl"))), (FOLDER_MODE, FILE_MODE));
    }

    #[test]
    fn the_oldest_give_way_and_are_counted() {
        let folder = tempfile::tempdir().unwrap();
        let mut letters = letters(folder.path(), 4096);
        (0..1000).for_each(|number| put(&mut letters, &number.to_string()));
        let told = read(folder.path(), "http").unwrap();
        assert!((2048..=4096).contains(&told.len()), "{}", told.len());
        let taken = Taken::take(folder.path(), "http").unwrap();
        let kept = taken.items.len();
        let expected: Vec<_> = (1000 - kept..1000).map(|number| number.to_string()).collect();
        assert_eq!(texts(&taken.items), expected);
        assert_eq!(letters.stats(), DeadStats { written: 1000, gave_way: 1000 - kept as u64, failed: 0 });
    }

    #[test]
    fn a_letter_at_the_size_of_its_file_and_one_past() {
        let folder = tempfile::tempdir().unwrap();
        let mut letters = letters(folder.path(), MAX_DEAD_BYTES);
        let frame = letters.line(b"", &refusal(), UNIX_EPOCH + TIME).len();
        let longest = "x".repeat(usize::try_from(MAX_DEAD_BYTES / 2).unwrap() - frame);
        put(&mut letters, &longest);
        let past = letters.put(format!("{longest}x").as_bytes(), &refusal(), UNIX_EPOCH + TIME);
        assert_eq!(past.unwrap_err().kind(), ErrorKind::FileTooLarge);
        assert_eq!(letters.stats(), DeadStats { written: 1, gave_way: 0, failed: 1 });
    }

    #[test]
    fn after_half_a_letter_the_next_is_whole() {
        let folder = tempfile::tempdir().unwrap();
        put(&mut letters(folder.path(), MAX_DEAD_BYTES), "a");
        let file = folder.path().join(FOLDER).join("http.jsonl");
        let whole = fs::read(&file).unwrap();
        fs::write(&file, whole.repeat(2).split_last_chunk::<9>().unwrap().0).unwrap();
        put(&mut letters(folder.path(), MAX_DEAD_BYTES), "b");
        let taken = Taken::take(folder.path(), "http").unwrap();
        assert_eq!((texts(&taken.items), taken.broken), (vec!["a", "b"], 1));
    }

    #[test]
    fn what_is_taken_is_out_of_the_way_of_what_comes() {
        let folder = tempfile::tempdir().unwrap();
        let mut letters = letters(folder.path(), MAX_DEAD_BYTES);
        ["a", "b", "c"].iter().for_each(|item| put(&mut letters, item));
        let taken = Taken::take(folder.path(), "http").unwrap();
        assert_eq!(texts(&taken.items), ["a", "b", "c"]);
        // It has the file open that was moved away.
        put(&mut letters, "d");
        taken.done(1).unwrap();
        let taken = Taken::take(folder.path(), "http").unwrap();
        assert_eq!(texts(&taken.items), ["b", "c", "d"]);
        taken.done(3).unwrap();
        assert!(read(folder.path(), "http").unwrap().is_empty());
        assert!(Taken::take(folder.path(), "http").unwrap().items.is_empty());
    }

    #[test]
    fn a_taking_that_stopped_anywhere_loses_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let mut letters = letters(folder.path(), MAX_DEAD_BYTES);
        put(&mut letters, "a");
        let inside = folder.path().join(FOLDER);
        fs::rename(inside.join("http.jsonl"), inside.join("http.moving.jsonl")).unwrap();
        put(&mut letters, "b");
        fs::write(inside.join("http.sending.jsonl"), "{\"item\":\"0\"}\n{\"item\":\"half").unwrap();
        let taken = Taken::take(folder.path(), "http").unwrap();
        assert_eq!((texts(&taken.items), taken.broken), (vec!["0", "a", "b"], 1));
    }
}
