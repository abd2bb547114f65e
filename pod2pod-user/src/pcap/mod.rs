//! Writes what was captured: segments in, pcapng files out, in which no byte is that a record would not show.
//!
//! A segment becomes a packet of its own (`packet`), waits until the HTTP stage has said what its bytes are (`hold`), and is
//! written with everything else covered (`cover`), under the checksums of what is written. Packets that complete an exchange
//! carry a comment that names it (`comment`). With redaction off the payload is written as it came.
//!
//! `packet`, `block`, `cover`, `hold` and `comment` are pure; `recorder` is a worker's way through them; `files` and `output`
//! are the shell: a bounded queue and a thread for all workers, so that a slow disk delays no capture.

pub mod block;
pub mod comment;
pub mod cover;
pub mod files;
pub mod hold;
pub mod output;
pub mod packet;
pub mod recorder;

use std::path::{Path, PathBuf};

pub use hold::Stats;
pub use output::{OpenError, Output};
pub use recorder::{Recorder, Rules};

/// Bytes of one file at most: it opens at once in any viewer.
pub const DEFAULT_MAX_FILE_BYTES: u64 = 64 << 20;

/// Fewer bytes would not hold the largest batch.
pub const MIN_FILE_BYTES: u64 = 256 << 10;

/// Files at most, the one being written among them: a quarter of a gigabyte in all.
pub const DEFAULT_MAX_FILES: u64 = 4;

/// More files than this are a directory that nobody reads.
pub const MAX_FILES: u64 = 1000;

/// Memory for packets that wait to be understood, all workers together, bytes: a second of a small busy node.
pub const DEFAULT_HELD_BYTES: usize = 4 << 20;

/// Memory for packets on their way to the disk, bytes: a hundred large writes.
pub const DEFAULT_QUEUE_BYTES: usize = 4 << 20;

/// Whether, where and how much is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The file being written; older ones are `FILE.1`, `FILE.2`, … Absent: nothing is written.
    pub file: Option<PathBuf>,
    /// See [`DEFAULT_MAX_FILE_BYTES`].
    pub max_file_bytes: u64,
    /// See [`DEFAULT_MAX_FILES`].
    pub max_files: u64,
    /// Memory for packets that wait, of one worker.
    pub held_bytes: usize,
    /// See [`DEFAULT_QUEUE_BYTES`].
    pub queue_bytes: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            file: None,
            max_file_bytes: DEFAULT_MAX_FILE_BYTES,
            max_files: DEFAULT_MAX_FILES,
            held_bytes: DEFAULT_HELD_BYTES,
            queue_bytes: DEFAULT_QUEUE_BYTES,
        }
    }
}

impl Config {
    /// Whether writing would move the file `other` out of its place, or remove it.
    pub fn would_move(&self, other: &Path) -> bool {
        let Some(file) = &self.file else { return false };
        let older = (1..self.max_files).map(|number| files::older(file, number));
        let is_other = |path: &Path| {
            path.canonicalize().is_ok_and(|path| other.canonicalize().is_ok_and(|other| path == other))
        };
        is_other(file) || older.into_iter().any(|older| is_other(&older))
    }

    /// Memory that is taken if anything is written, all workers together, bytes.
    pub const fn memory(&self) -> u64 {
        if self.file.is_some() { (self.held_bytes + self.queue_bytes) as u64 } else { 0 }
    }
}
