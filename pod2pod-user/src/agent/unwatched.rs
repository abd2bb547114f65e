//! Time in which nobody watched: from the end of the last agent on this node to the beginning of this one, as in a rolling update.
//! A file outlives the agent and says until when it watched, and what came together before. Knows nothing of what passed meanwhile.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, Read as _},
    os::unix::fs::{FileExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    time::Duration,
};

use serde_json::{Value, json};

use crate::metrics::stages::Counted;

/// Name of the file in the data directory.
const FILE: &str = "watched.json";
/// How often a running agent says that it watches: one that is killed is taken to have ended this much earlier at most.
const SAY_PERIOD: Duration = Duration::from_secs(10);
/// The file has a line of less than two hundred bytes; what is longer is not ours.
const MAX_FILE_BYTES: u64 = 4096;

/// Which run of the kernel this is.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// Why the file is of no use.
#[derive(Debug, thiserror::Error)]
pub(super) enum Useless {
    /// Another agent has it: both watch, and each says what it sees.
    #[error("{path}: another agent writes it")]
    Taken {
        /// The file.
        path: PathBuf,
    },
    /// It cannot be opened, read or written.
    #[error("{path}: {error}")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
}

/// What the file says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Told {
    boot: String,
    /// CLOCK_MONOTONIC of that boot.
    until: Duration,
    /// That agent ended, and was not killed.
    ended: bool,
    unwatched: Duration,
    gaps: u64,
}

impl Told {
    fn read(text: &str) -> Option<Self> {
        // A longer one was there before, and the writer was killed before it cut the file.
        let value: Value = serde_json::from_str(text.lines().next()?).ok()?;
        let nanos = |key: &str| value[key].as_u64().map(Duration::from_nanos);
        Some(Self {
            boot: value["boot_id"].as_str()?.to_owned(),
            until: nanos("watched_until_ns")?,
            ended: value["ended"].as_bool()?,
            unwatched: nanos("unwatched_ns")?,
            gaps: value["gaps"].as_u64()?,
        })
    }

    fn line(&self) -> String {
        let nanos = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        let value = json!({"boot_id": self.boot, "watched_until_ns": nanos(self.until), "ended": self.ended,
            "unwatched_ns": nanos(self.unwatched), "gaps": self.gaps});
        format!("{value}\n")
    }

    /// How long nobody has watched at `now` of `boot`; absent if nobody did before in this run of the kernel.
    fn gap(&self, boot: &str, now: Duration) -> Option<Duration> {
        (self.boot == boot).then(|| now.checked_sub(self.until)).flatten()
    }
}

/// One gap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Gap {
    /// How long; up to [`SAY_PERIOD`] too long if the last agent was killed.
    pub(super) length: Duration,
    /// It was.
    pub(super) killed: bool,
}

/// The file, of which this agent is the only writer.
#[derive(Debug)]
pub(super) struct Unwatched {
    file: File,
    told: Told,
    failed: u64,
}

impl Unwatched {
    /// Opens the file in `directory` and reads it; what is damaged is as if it were not there, and said.
    ///
    /// # Errors
    /// It is of no use.
    pub(super) fn open(directory: &Path) -> Result<Self, Useless> {
        let path = directory.join(FILE);
        let failed = |error| Useless::Io { path: path.clone(), error };
        let mut options = OpenOptions::new();
        options
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags(libc::O_NOFOLLOW);
        let file = options.open(&path).map_err(failed)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(Useless::Taken { path }),
            Err(TryLockError::Error(error)) => return Err(failed(error)),
        }
        let mut text = Vec::new();
        (&file).take(MAX_FILE_BYTES + 1).read_to_end(&mut text).map_err(failed)?;
        let is_ours = text.len() as u64 <= MAX_FILE_BYTES;
        let told = std::str::from_utf8(&text).ok().filter(|_| is_ours).and_then(Told::read);
        if told.is_none() && !text.is_empty() {
            tracing::warn!(path = %path.display(), "what is in it is not understood, and is begun anew");
        }
        Ok(Self { file, told: told.unwrap_or_default(), failed: 0 })
    }

    /// This agent watches from `now` on: the gap before it, if anybody watched earlier in this run of the kernel.
    pub(super) fn begin(&mut self, now: Duration) -> Option<Gap> {
        let boot = fs::read_to_string(BOOT_ID).unwrap_or_default().trim().to_owned();
        self.begin_in(boot, now)
    }

    fn begin_in(&mut self, boot: String, now: Duration) -> Option<Gap> {
        let gap = self.told.gap(&boot, now).map(|length| Gap { length, killed: !self.told.ended });
        if let Some(gap) = gap {
            self.told.unwatched = self.told.unwatched.saturating_add(gap.length);
            self.told.gaps = self.told.gaps.saturating_add(1);
        }
        self.told.boot = boot;
        self.say(now, false);
        gap
    }

    /// It still watches; what metrics tell.
    pub(super) fn keep(&mut self, now: Duration) -> Vec<Counted> {
        if now.saturating_sub(self.told.until) >= SAY_PERIOD {
            self.say(now, false);
        }
        self.rows()
    }

    /// Nobody watches from `now` on.
    pub(super) fn end(mut self, now: Duration) {
        self.say(now, true);
    }

    fn say(&mut self, now: Duration, ended: bool) {
        self.told.until = now;
        self.told.ended = ended;
        let line = self.told.line();
        // Less than a page, so written whole; what is left of a longer one behind it is not read.
        let written = self.file.write_all_at(line.as_bytes(), 0);
        let written = written.and_then(|()| self.file.set_len(line.len() as u64));
        if let Err(error) = written {
            self.failed += 1;
            tracing::debug!(%error, "{FILE} cannot be written");
        }
    }

    fn rows(&self) -> Vec<Counted> {
        let mut unwatched = Counted::counter(
            "unwatched_seconds",
            "Time in which nobody watched this node, between one agent and the next, all together.",
            0,
        );
        unwatched.value = self.told.unwatched.as_secs_f64();
        vec![
            unwatched,
            Counted::counter("unwatched_gaps", "Times that nobody watched this node.", self.told.gaps),
            Counted::counter(
                "unwatched_write_errors",
                "Failed writes of the file that says so.",
                self.failed,
            ),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOOT: &str = "1c1f0c9e-0000-4000-8000-000000000001";

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn begin(folder: &Path, boot: &str, at: u64) -> (Unwatched, Option<Gap>) {
        let mut unwatched = Unwatched::open(folder).unwrap();
        let gap = unwatched.begin_in(boot.to_owned(), seconds(at));
        (unwatched, gap)
    }

    fn total(unwatched: &Unwatched) -> (f64, f64) {
        let rows = unwatched.rows();
        (rows[0].value, rows[1].value)
    }

    #[test]
    fn gaps_add_up_over_agents() {
        let folder = tempfile::tempdir().unwrap();
        let (first, gap) = begin(folder.path(), BOOT, 100);
        assert_eq!((gap, total(&first)), (None, (0.0, 0.0)));
        first.end(seconds(200));
        let (second, gap) = begin(folder.path(), BOOT, 203);
        assert_eq!(gap, Some(Gap { length: seconds(3), killed: false }));
        second.end(seconds(300));
        let (third, gap) = begin(folder.path(), BOOT, 304);
        assert_eq!((gap.map(|gap| gap.length), total(&third)), (Some(seconds(4)), (7.0, 2.0)));
    }

    #[test]
    fn one_that_was_killed_watched_until_it_last_said_so() {
        let folder = tempfile::tempdir().unwrap();
        let (mut first, _) = begin(folder.path(), BOOT, 100);
        first.keep(seconds(100) + SAY_PERIOD - Duration::from_nanos(1));
        first.keep(seconds(110));
        first.keep(seconds(119));
        drop(first);
        let (_, gap) = begin(folder.path(), BOOT, 121);
        assert_eq!(gap, Some(Gap { length: seconds(11), killed: true }));
    }

    #[test]
    fn another_run_of_the_kernel_and_a_clock_that_went_back_are_no_gap() {
        let folder = tempfile::tempdir().unwrap();
        begin(folder.path(), BOOT, 100).0.end(seconds(200));
        assert_eq!(begin(folder.path(), BOOT, 150).1, None);
        begin(folder.path(), BOOT, 150).0.end(seconds(200));
        assert_eq!(begin(folder.path(), "another", 5000).1, None);
    }

    #[test]
    fn what_is_damaged_is_begun_anew() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(FILE);
        let (first, _) = begin(folder.path(), BOOT, 100);
        first.end(seconds(200));
        let whole = fs::read(&path).unwrap();
        for length in 0..whole.len() - 1 {
            fs::write(&path, &whole[..length]).unwrap();
            assert_eq!(begin(folder.path(), BOOT, 300).1, None, "{length}");
        }
        // Blanks behind a whole line are read up to the limit.
        for (length, gap) in [(MAX_FILE_BYTES, Some(seconds(100))), (MAX_FILE_BYTES + 1, None)] {
            let mut long = whole.clone();
            long.resize(length as usize, b' ');
            fs::write(&path, &long).unwrap();
            assert_eq!(begin(folder.path(), BOOT, 300).1.map(|gap| gap.length), gap);
        }
        fs::write(&path, [&whole, &b"0,\"gaps\":0}\n"[..]].concat()).unwrap();
        assert_eq!(begin(folder.path(), BOOT, 300).1.map(|gap| gap.length), Some(seconds(100)));
        fs::write(&path, [0xff; 100]).unwrap();
        assert_eq!(begin(folder.path(), BOOT, 300).1, None);
        assert!(fs::metadata(&path).unwrap().len() < 250);
    }

    #[test]
    fn two_agents_do_not_share_a_file_and_no_link_is_followed() {
        let folder = tempfile::tempdir().unwrap();
        let first = Unwatched::open(folder.path()).unwrap();
        assert!(matches!(Unwatched::open(folder.path()), Err(Useless::Taken { .. })));
        drop(first);
        Unwatched::open(folder.path()).unwrap();
        fs::remove_file(folder.path().join(FILE)).unwrap();
        std::os::unix::fs::symlink("elsewhere", folder.path().join(FILE)).unwrap();
        assert!(matches!(Unwatched::open(folder.path()), Err(Useless::Io { .. })));
    }
}
