//! The thread that writes packets, and the queue before it.
//!
//! Live capture never waits for it: what the queue has no room for is dropped and counted. A full disk loses packets, which
//! is counted and said once a minute at most; each batch is tried anew.

use std::{
    io,
    path::PathBuf,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use super::{Config, block, files::Files};
use crate::{
    delivery::{Batch, Overflow, Queue, SinkStats},
    exit,
    rights::{self, Part},
    shutdown::Shutdown,
};

/// Warnings about a file that keeps failing come this often at most.
const WARNING_PERIOD: Duration = Duration::from_secs(60);

/// Why writing could not begin.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The file.
    #[error("capture.write_pcap.file: cannot create {path}: {source}")]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The thread.
    #[error("cannot start the thread that writes packets: {0}")]
    Thread(io::Error),
}

impl OpenError {
    /// How the program should exit.
    pub const fn exit_code(&self) -> u8 {
        match self {
            Self::File { .. } => exit::CONFIGURATION,
            Self::Thread(_) => exit::FAILURE,
        }
    }
}

/// The way to the files, shared by all workers.
#[derive(Clone, Debug)]
pub struct Output {
    queue: Arc<Queue>,
    shutdown: Shutdown,
}

impl Output {
    /// Creates the file and starts the thread, if something is to be written. When the program should end nothing waits.
    ///
    /// # Errors
    /// The file cannot be created, or the thread not started.
    pub fn open(config: &Config, overflow: Overflow, shutdown: &Shutdown) -> Result<Option<Self>, OpenError> {
        let Some(path) = &config.file else { return Ok(None) };
        let files = Files::open(path, config.max_file_bytes, config.max_files, block::begin())
            .map_err(|source| OpenError::File { path: path.clone(), source })?;
        let queue = Arc::new(Queue::new(config.queue_bytes, overflow));
        let shared = Arc::clone(&queue);
        thread::Builder::new()
            .name("pcap".to_owned())
            .spawn(move || {
                let _ = rights::keep(Part::Packets, |_| true);
                run(&shared, files);
            })
            .map_err(OpenError::Thread)?;
        Ok(Some(Self { queue, shutdown: shutdown.clone() }))
    }

    /// Queues a batch of blocks, and gives back an empty buffer.
    pub fn push(&self, batch: Batch) -> Vec<u8> {
        self.queue.push(batch, || self.shutdown.is_requested())
    }

    /// What was counted so far, in packets.
    pub fn stats(&self) -> SinkStats {
        self.queue.stats()
    }

    /// Writes what is left, at most until `deadline`; what was counted.
    pub fn finish(self, deadline: Instant) -> SinkStats {
        self.queue.end();
        self.queue.wait_done(deadline)
    }
}

fn run(queue: &Queue, mut files: Files) {
    let mut last_warning: Option<Instant> = None;
    let mut lost = 0;
    while let Some(batch) = queue.pop() {
        match files.write(&batch.bytes) {
            Ok(()) => queue.judge(batch.records, 0),
            Err(error) => {
                queue.judge(0, batch.records);
                lost += batch.records;
                if last_warning.is_none_or(|last| last.elapsed() >= WARNING_PERIOD) {
                    last_warning = Some(Instant::now());
                    tracing::warn!(lost, %error, "the packet file takes no packets; capture goes on");
                }
            }
        }
        queue.recycle(batch.bytes);
    }
    queue.set_done();
}
