//! Records to standard output or to a file, in large writes from a thread of its own.
//!
//! A reader that goes away ends the program. A full disk loses records, which is counted and said once, and capture goes on.

use std::{
    fs::{File, OpenOptions},
    io::{self, IsTerminal as _, Write},
    os::fd::AsFd as _,
    path::PathBuf,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use super::{Config, Encoder, Format, pod2pod_log::OldLines, text::Columns};
use crate::{
    delivery::{Batch, Overflow, Queue, SinkStats},
    record::{Record, json::Lines},
    rights::{self, Part},
    shutdown::Shutdown,
};

/// A batch is handed on at this size: large enough that neither a write nor the other thread's wake-up costs anything per
/// record.
const MAX_BATCH_BYTES: usize = 256 * 1024;
/// A batch is this part of the queue at most, so that a small queue holds some.
const BATCH_SHARE_OF_QUEUE: usize = 16;
/// Warnings about a target that keeps failing come this often at most.
const WARNING_PERIOD: Duration = Duration::from_secs(60);

/// Why the output could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The file.
    #[error("cannot open the output file {path}: {source}")]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Standard output.
    #[error("cannot use standard output: {0}")]
    Stdout(io::Error),
    /// The thread.
    #[error("cannot start the output's thread: {0}")]
    Thread(io::Error),
}

/// The output.
#[derive(Debug)]
pub struct Writer {
    /// Absent where nothing is written.
    encoder: Option<Encoder>,
    batch: Batch,
    batch_bytes: usize,
    queue: Arc<Queue>,
    shutdown: Shutdown,
}

impl Writer {
    /// Opens the output and starts its thread. When the program should end nothing waits; when the reader goes away the
    /// program is asked to end.
    ///
    /// # Errors
    /// The file cannot be opened.
    pub fn open(config: &Config, overflow: Overflow, shutdown: &Shutdown) -> Result<Self, OpenError> {
        let file = open_target(config)?;
        let terminal = file.is_terminal();
        let encoder = config.format.map(|format| match (format, terminal) {
            (Format::Json, _) | (Format::Auto, false) => Encoder::Json(Lines::default()),
            (Format::Pod2podLog, _) => Encoder::Old(OldLines::of_host(config.with_headers)),
            (Format::Text, _) | (Format::Auto, true) => Encoder::Text(Box::new(Columns::for_file(&file))),
        });
        let queue = Arc::new(Queue::new(config.queue_bytes, overflow));
        let target = Target { file, torn: false, last_warning: None };
        let (shared, told) = (Arc::clone(&queue), shutdown.clone());
        thread::Builder::new()
            .name("output".to_owned())
            .spawn(move || {
                let _ = rights::keep(Part::Output, |_| true);
                run(&shared, target, &told);
            })
            .map_err(OpenError::Thread)?;
        let batch_bytes = (config.queue_bytes / BATCH_SHARE_OF_QUEUE).min(MAX_BATCH_BYTES);
        Ok(Self { encoder, batch: Batch::default(), batch_bytes, queue, shutdown: shutdown.clone() })
    }

    /// Shows the header of columns before the first record: a person is waiting for it.
    pub fn show_header(&mut self) {
        if let Some(Encoder::Text(columns)) = &mut self.encoder {
            columns.push_header(&mut self.batch.bytes);
            self.flush();
        }
    }

    /// The same output for another worker: with batches of its own, on the same queue.
    pub fn for_worker(&self) -> Self {
        let Self { encoder, queue, shutdown, .. } = self;
        let (encoder, queue, shutdown) = (encoder.clone(), Arc::clone(queue), shutdown.clone());
        Self { encoder, batch: Batch::default(), queue, shutdown, ..*self }
    }

    /// Adds `record` to the batch.
    pub fn write(&mut self, record: &Record) {
        let Some(encoder) = &mut self.encoder else {
            return self.batch.count_unwanted(record);
        };
        encoder.push(&mut self.batch.bytes, record);
        self.batch.count(record);
        if self.batch.bytes.len() >= self.batch_bytes {
            self.flush();
        }
    }

    /// Hands the batch to the thread.
    pub fn flush(&mut self) {
        // A format may have no line for a record, which is dealt with all the same.
        if self.batch.bytes.is_empty() && self.batch.records + self.batch.unwanted == 0 {
            return;
        }
        let batch = std::mem::take(&mut self.batch);
        let usual = batch.bytes.len();
        self.batch.bytes = self.queue.push(batch, || self.shutdown.is_requested());
        // The next one will be about as long: it should not grow to that line by line.
        self.batch.bytes.reserve(usual);
    }

    /// The reader went away.
    pub fn reader_gone(&self) -> bool {
        self.queue.is_abandoned()
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

    /// Writes what is left, at most until `deadline`.
    pub fn finish(mut self, deadline: Instant) -> SinkStats {
        self.flush();
        self.queue.end();
        self.queue.wait_done(deadline)
    }
}

fn open_target(config: &Config) -> Result<File, OpenError> {
    match &config.file {
        Some(path) => OpenOptions::new()
            .create(true)
            .append(true)
            .open(path)
            .map_err(|source| OpenError::File { path: path.clone(), source }),
        // A handle of our own: `Stdout` would buffer once more and lock.
        None => io::stdout().as_fd().try_clone_to_owned().map(File::from).map_err(OpenError::Stdout),
    }
}

struct Target {
    file: File,
    /// The last write ended inside a line.
    torn: bool,
    last_warning: Option<Instant>,
}

fn run(queue: &Queue, mut target: Target, shutdown: &Shutdown) {
    queue.introduce_sink();
    while let Some(batch) = queue.pop() {
        match target.write(&batch) {
            Ok(()) => queue.judge(batch.records, 0),
            Err(failure) if failure.error.kind() == io::ErrorKind::BrokenPipe => {
                queue.judge(failure.delivered, batch.records.saturating_sub(failure.delivered));
                queue.abandon();
                shutdown.request();
                break;
            }
            Err(failure) => {
                let lost = batch.records.saturating_sub(failure.delivered);
                queue.judge(failure.delivered, lost);
                target.warn(&failure.error, lost);
            }
        }
        queue.recycle(batch.bytes);
    }
    queue.set_done();
}

struct WriteFailure {
    error: io::Error,
    delivered: u64,
}

impl Target {
    fn write(&mut self, batch: &Batch) -> Result<(), WriteFailure> {
        if self.torn {
            self.file.write_all(b"\n").map_err(|error| WriteFailure { error, delivered: 0 })?;
            self.torn = false;
        }
        let mut rest = batch.bytes.as_slice();
        while !rest.is_empty() {
            let error = match self.file.write(rest) {
                Ok(0) => io::Error::from(io::ErrorKind::WriteZero),
                Ok(written) => {
                    rest = rest.get(written..).unwrap_or_default();
                    continue;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    wait_writable(&self.file);
                    continue;
                }
                Err(error) => error,
            };
            let written = batch.bytes.get(..batch.bytes.len() - rest.len()).unwrap_or_default();
            self.torn = written.last().is_some_and(|byte| *byte != b'\n');
            let lines = written.iter().filter(|byte| **byte == b'\n').count() as u64;
            return Err(WriteFailure { error, delivered: lines.min(batch.records) });
        }
        Ok(())
    }

    fn warn(&mut self, error: &io::Error, lost: u64) {
        if self.last_warning.is_some_and(|last| last.elapsed() < WARNING_PERIOD) {
            return;
        }
        self.last_warning = Some(Instant::now());
        tracing::warn!(lost, %error, "the output takes no records; capture goes on");
    }
}

/// Somebody else made the output non-blocking (it is shared with other processes): wait as a blocking write would.
fn wait_writable(file: &File) {
    let mut waiting = [nix::poll::PollFd::new(file.as_fd(), nix::poll::PollFlags::POLLOUT)];
    // An error shows again in the write that follows.
    let _ = nix::poll::poll(&mut waiting, nix::poll::PollTimeout::NONE);
}
