//! Records as lines of a file: begun anew by size and age, compressed behind, on disk as far as asked for.
//!
//! A batch is in the file as a whole or not at all: what an attempt left that did not end well is cut off before the next one. Where
//! there is no room the records wait in the queue. Whoever moves the file away gets the next batch in a new one.

mod older;

use std::{
    cell::{Cell, RefCell},
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, ErrorKind, Write as _},
    os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, SystemTime},
};

use self::older::Keeper;
use super::probe::Probe;
use crate::delivery::{Answer, Parcel, Target, Trouble, TroubleKind};

/// Bytes of one file at most: a few minutes of a busy node, and what people still open.
pub const DEFAULT_MAX_FILE_BYTES: u64 = 64 * 1024 * 1024;
/// A smaller file holds less than a batch.
pub const MIN_FILE_BYTES: u64 = 1024 * 1024;
/// Files at most, with the one that is written.
pub const DEFAULT_MAX_FILES: u64 = 4;
/// More are more than a folder should be asked to list at every new one.
pub const MAX_FILES: u64 = 1000;
/// Only who runs the agent reads them.
pub const DEFAULT_MODE: u32 = 0o600;

/// When what was written is made to be on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// When the kernel likes to: a crash of the machine loses the last half a minute.
    Never,
    /// Before a batch counts as delivered.
    Batch,
    /// Not later than so long after it counts as delivered.
    Every(Duration),
}

/// How a file is kept when the next one is begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// As it is.
    None,
    /// RFC 1952.
    Gzip,
    /// RFC 8878.
    Zstd,
}

/// Where to, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The file that is written.
    pub path: PathBuf,
    /// Bytes of it at most; a single batch may be more.
    pub max_file_bytes: u64,
    /// How old it becomes at most; without a time as old as its size lets it.
    pub max_file_age: Option<Duration>,
    /// Files at most, with the one that is written.
    pub max_files: u64,
    /// How the others are kept.
    pub compression: Compression,
    /// When what was written is made to be on disk.
    pub durability: Durability,
    /// Who may read and write a new file.
    pub mode: u32,
}

/// The file, and those before it.
pub(super) struct LogFile {
    config: Config,
    keeper: Keeper,
    open: RefCell<Option<Arc<Open>>>,
    /// How long the open file was before an attempt of which it is not known that it ended well.
    unsure: Cell<Option<u64>>,
}

struct Open {
    file: File,
    /// Something was written that may not be on disk yet, and that somebody will see to.
    dirty: AtomicBool,
}

impl Target for LogFile {
    async fn send(&self, parcel: &Parcel) -> Answer {
        match self.append(parcel.bytes()).await {
            Ok(()) => Answer::Delivered,
            Err(error) => Answer::Later(trouble(&self.config.path, &error)),
        }
    }
}

impl Probe for LogFile {
    /// Without making it.
    async fn probe(&self) -> Result<String, Trouble> {
        let path = &self.config.path;
        let place = if path.exists() { path } else { folder(path) };
        rustix::fs::access(place, rustix::fs::Access::WRITE_OK)
            .map_err(|error| trouble(place, &error.into()))?;
        if path.exists() && !path.is_file() {
            return Err(trouble(path, &io::Error::other("what is there is no regular file")));
        }
        Ok(format!("{} can be written", path.display()))
    }
}

impl LogFile {
    /// Opens it when there is something to write.
    ///
    /// # Errors
    /// The thread that looks after older files cannot be started.
    pub(super) fn new(config: Config) -> io::Result<Self> {
        let keeper = Keeper::start(&config)?;
        Ok(Self { config, keeper, open: RefCell::default(), unsure: Cell::default() })
    }

    /// One at a time.
    async fn append(&self, bytes: &[u8]) -> io::Result<()> {
        let open = self.current(SystemTime::now())?;
        let file = &open.file;
        let before = file.metadata()?.len();
        self.unsure.set(Some(before));
        // Else it is somebody else's, or was left when the machine went down.
        let begins_a_line = before == 0 || ends_a_line(file, before)?;
        let begin: &[u8] = if begins_a_line { b"" } else { b"\n" };
        let written = [begin, bytes].into_iter().try_for_each(|part| { file }.write_all(part));
        let written = match self.config.durability {
            Durability::Never => written,
            Durability::Batch if written.is_ok() => to_disk(&open).await,
            Durability::Batch => written,
            Durability::Every(time) => written.map(|()| self.see_to_it(&open, time)),
        };
        if written.is_ok() || file.set_len(before).is_ok() {
            self.unsure.set(None);
        }
        written
    }

    /// The file that is to be written at `now`: the one that is open, unless it was moved away, or is too long or too old.
    fn current(&self, now: SystemTime) -> io::Result<Arc<Open>> {
        let open = self.open.borrow().clone().filter(|open| is_at(&open.file, &self.config.path));
        let open = match open {
            Some(open) => {
                if let Some(length) = self.unsure.get() {
                    open.file.set_len(length)?;
                }
                open
            }
            None => self.open()?,
        };
        self.unsure.set(None);
        let metadata = open.file.metadata()?;
        if self.is_over(metadata.len(), metadata.created().ok(), now) {
            open.finish()?;
            fs::rename(&self.config.path, older::name(&self.config.path, now))?;
            return self.open();
        }
        Ok(open)
    }

    fn is_over(&self, length: u64, created: Option<SystemTime>, now: SystemTime) -> bool {
        let age = created.and_then(|created| now.duration_since(created).ok()).unwrap_or_default();
        let is_old = self.config.max_file_age.is_some_and(|most| age >= most);
        length > 0 && (length >= self.config.max_file_bytes || is_old)
    }

    fn open(&self) -> io::Result<Arc<Open>> {
        let Config { path, mode, durability, .. } = &self.config;
        let options = OpenOptions::new().read(true).append(true).create(true).mode(*mode).to_owned();
        let file = options.open(path)?;
        if !file.metadata()?.is_file() {
            return Err(io::Error::new(ErrorKind::InvalidInput, "what is there is no regular file"));
        }
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(io::Error::new(ErrorKind::ResourceBusy, "another process writes it"));
            }
            Err(TryLockError::Error(error)) => return Err(error),
        }
        if *durability != Durability::Never {
            File::open(folder(path))?.sync_all()?;
        }
        self.keeper.look();
        let open = Arc::new(Open { file, dirty: AtomicBool::default() });
        *self.open.borrow_mut() = Some(Arc::clone(&open));
        Ok(open)
    }

    /// What was written to `open` will be on disk after `time`.
    fn see_to_it(&self, open: &Arc<Open>, time: Duration) {
        if open.dirty.swap(true, Ordering::Relaxed) {
            return;
        }
        let (open, path) = (Arc::clone(open), self.config.path.clone());
        tokio::task::spawn_local(async move {
            tokio::time::sleep(time).await;
            if open.dirty.swap(false, Ordering::Relaxed)
                && let Err(error) = to_disk(&open).await
            {
                tracing::warn!(file = %path.display(), %error, "what was written may not be on disk");
            }
        });
    }
}

impl Open {
    /// Whoever was to see to it need not.
    fn finish(&self) -> io::Result<()> {
        if self.dirty.swap(false, Ordering::Relaxed) { self.file.sync_data() } else { Ok(()) }
    }
}

/// What nobody waited for is on disk at the end too.
impl Drop for LogFile {
    fn drop(&mut self) {
        if let Some(open) = self.open.borrow().as_ref()
            && let Err(error) = open.finish()
        {
            tracing::warn!(file = %self.config.path.display(), %error, "what was written may not be on disk");
        }
    }
}

async fn to_disk(open: &Arc<Open>) -> io::Result<()> {
    let open = Arc::clone(open);
    // Seconds, on a slow disk.
    tokio::task::spawn_blocking(move || open.file.sync_data()).await.unwrap_or_else(|error| Err(error.into()))
}

fn ends_a_line(file: &File, length: u64) -> io::Result<bool> {
    let mut last = [0];
    file.read_exact_at(&mut last, length - 1)?;
    Ok(last == *b"\n")
}

/// Whether `path` leads to `file`.
fn is_at(file: &File, path: &Path) -> bool {
    let identity = |metadata: fs::Metadata| (metadata.dev(), metadata.ino());
    let (Ok(open), Ok(there)) = (file.metadata(), fs::metadata(path)) else { return false };
    identity(open) == identity(there)
}

fn folder(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn trouble(path: &Path, error: &io::Error) -> Trouble {
    let is_refused = matches!(error.kind(), ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem);
    let kind = if is_refused { TroubleKind::Unauthorized } else { TroubleKind::Unavailable };
    Trouble::new(kind, format_args!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use std::{os::unix::fs::PermissionsExt as _, pin::pin};

    use tempfile::TempDir;

    use super::*;

    fn config(folder: &TempDir) -> Config {
        Config {
            path: folder.path().join("f"),
            max_file_bytes: 6,
            max_file_age: None,
            max_files: 3,
            compression: Compression::None,
            durability: Durability::Never,
            mode: DEFAULT_MODE,
        }
    }

    fn parcel(text: &str) -> Parcel {
        Parcel::new(text.as_bytes().to_vec(), vec![u32::try_from(text.len()).unwrap()])
    }

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap()
    }

    fn send(file: &LogFile, text: &str) -> Answer {
        tokio::task::LocalSet::new().block_on(&runtime(), file.send(&parcel(text)))
    }

    /// Whoever has something to do has done it.
    async fn settle() {
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
    }

    /// What is in the files, the oldest first, the one that is written last.
    fn held(folder: &TempDir) -> Vec<String> {
        let entries = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().path());
        let mut paths: Vec<_> = entries.filter(|path| !path.ends_with("f")).collect();
        paths.sort_unstable();
        paths.push(folder.path().join("f"));
        paths.iter().map(|path| fs::read_to_string(path).unwrap()).collect()
    }

    #[test]
    fn a_file_at_its_size_and_one_past() {
        let folder = tempfile::tempdir().unwrap();
        let file = LogFile::new(config(&folder)).unwrap();
        for (text, expected) in [
            ("a\n", &["a\n"][..]),
            ("bcd", &["a\nbcd"]),
            // Five bytes, which are no whole line.
            ("\n", &["a\nbcd\n\n"]),
            ("e\n", &["a\nbcd\n\n", "e\n"]),
        ] {
            assert_eq!(send(&file, text), Answer::Delivered);
            assert_eq!(held(&folder), expected);
        }
        let mode = |path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(folder.path().join("f")), DEFAULT_MODE);
    }

    #[test]
    fn an_old_file_is_ended_by_the_next_batch() {
        let folder = tempfile::tempdir().unwrap();
        let most = Duration::from_secs(60);
        let file = LogFile::new(Config { max_file_age: Some(most), ..config(&folder) }).unwrap();
        let (begin, young) = (SystemTime::UNIX_EPOCH, most - Duration::from_nanos(1));
        assert!(!file.is_over(1, Some(begin), begin + young));
        assert!(file.is_over(1, Some(begin), begin + most));
        // Nothing is in it, its age is unknown, the clock was set back.
        assert!(!file.is_over(0, Some(begin), begin + most));
        assert!(!file.is_over(1, None, begin + most) && !file.is_over(1, Some(begin + most), begin));
    }

    #[test]
    fn who_moves_the_file_away_gets_the_rest_in_a_new_one() {
        let folder = tempfile::tempdir().unwrap();
        let file = LogFile::new(config(&folder)).unwrap();
        assert_eq!(send(&file, "a\n"), Answer::Delivered);
        fs::rename(folder.path().join("f"), folder.path().join("f.1")).unwrap();
        assert_eq!(send(&file, "b\n"), Answer::Delivered);
        assert_eq!(held(&folder), ["a\n", "b\n"]);
        fs::remove_file(folder.path().join("f")).unwrap();
        assert_eq!(send(&file, "c\n"), Answer::Delivered);
        assert_eq!(held(&folder), ["a\n", "c\n"]);
        // What is copied and cut is written on.
        OpenOptions::new().write(true).truncate(true).open(folder.path().join("f")).unwrap();
        assert_eq!(send(&file, "d\n"), Answer::Delivered);
        assert_eq!(held(&folder), ["a\n", "d\n"]);
    }

    #[test]
    fn what_is_there_already_stays_and_its_last_line_ends() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("f"), "old").unwrap();
        let file = LogFile::new(config(&folder)).unwrap();
        assert_eq!(send(&file, "a\n"), Answer::Delivered);
        assert_eq!(held(&folder), ["old\na\n"]);
    }

    #[test]
    fn an_attempt_that_was_given_up_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let file = LogFile::new(Config { durability: Durability::Batch, ..config(&folder) }).unwrap();
        assert_eq!(send(&file, "a\n"), Answer::Delivered);
        runtime().block_on(async {
            let late = parcel("b\n");
            let mut attempt = pin!(file.send(&late));
            // It waits for the disk, and nobody for it.
            let polled =
                std::future::poll_fn(|context| std::task::Poll::Ready(attempt.as_mut().poll(context)));
            assert!(polled.await.is_pending());
        });
        assert_eq!(held(&folder), ["a\nb\n"]);
        assert_eq!(send(&file, "c\n"), Answer::Delivered);
        assert_eq!(held(&folder), ["a\nc\n"]);
    }

    #[test]
    fn what_is_written_will_be_on_disk() {
        let folder = tempfile::tempdir().unwrap();
        let every = Durability::Every(Duration::from_secs(1));
        let file = LogFile::new(Config { durability: every, ..config(&folder) }).unwrap();
        let is_dirty = || file.open.borrow().as_ref().unwrap().dirty.load(Ordering::Relaxed);
        let runtime = runtime();
        tokio::task::LocalSet::new().block_on(&runtime, async {
            assert_eq!(file.send(&parcel("a\n")).await, Answer::Delivered);
            assert!(is_dirty());
            // Whoever sees to it begins to wait now.
            tokio::task::yield_now().await;
            tokio::time::advance(Duration::from_millis(999)).await;
            settle().await;
            assert!(is_dirty());
            tokio::time::advance(Duration::from_millis(2)).await;
            settle().await;
            assert!(!is_dirty());
        });
        assert_eq!(send(&file, "b\nc\n"), Answer::Delivered);
        assert!(is_dirty());
        assert_eq!(send(&file, "d\n"), Answer::Delivered);
        assert_eq!(held(&folder), ["a\nb\nc\n", "d\n"]);
    }

    #[test]
    fn what_cannot_be_written_waits() {
        let folder = tempfile::tempdir().unwrap();
        let within = |path: &str| Config { path: folder.path().join(path), ..config(&folder) };
        let kind = |config| match send(&LogFile::new(config).unwrap(), "a\n") {
            Answer::Later(trouble) => trouble.kind,
            other @ (Answer::Delivered | Answer::Judged(_) | Answer::TooLarge | Answer::Never(_)) => {
                panic!("{other:?}")
            }
        };
        assert_eq!(kind(within("missing/f")), TroubleKind::Unavailable);
        fs::create_dir(folder.path().join("folder")).unwrap();
        assert_eq!(kind(within("folder")), TroubleKind::Unavailable);
        let first = LogFile::new(config(&folder)).unwrap();
        assert_eq!(send(&first, "a\n"), Answer::Delivered);
        assert_eq!(kind(config(&folder)), TroubleKind::Unavailable);
        assert_eq!(fs::read_to_string(folder.path().join("f")).unwrap(), "a\n");
    }
}
