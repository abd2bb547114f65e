//! What a sink's spool costs: a mebibyte written, and read again.

use std::{
    path::Path,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use pod2pod_user::delivery::{
    Answer, Batch, Limits, Overflow, Parcel, Queue, Runner, Target,
    spool::{self, Config, Loses},
};

use crate::Parts;

/// Bytes of a batch: 500 records of 600 bytes, about.
const BATCH_BYTES: usize = 256 * 1024;
const RECORD_BYTES: usize = 600;
/// Of each measurement.
const MEBIBYTES: usize = 64;
/// Little beside what is written: nearly all is read from files.
const QUEUE_BYTES: usize = 2 * 1024 * 1024;

/// A target that takes everything.
struct Anything;

impl Target for Anything {
    async fn send(&self, _: &Parcel) -> Answer {
        Answer::Delivered
    }
}

/// Writing, and reading what was written.
pub(super) fn spooling(parts: &mut Parts) {
    let folder = || tempfile::tempdir().expect("a folder for files");
    parts.measure("spool, a MiB written", MEBIBYTES, folder, |folder| write(folder.path()));
    let written = || {
        let folder = folder();
        write(folder.path());
        folder
    };
    parts.measure("spool, a MiB found and read", MEBIBYTES, written, |folder| read(folder.path()));
}

fn open(folder: &Path) -> Arc<Queue> {
    let queue = Arc::new(Queue::new(QUEUE_BYTES, Overflow::Wait));
    let most_age = Duration::from_secs(3600);
    let config = Config { folder: folder.to_owned(), most_bytes: 1 << 30, most_age, loses: Loses::Newest };
    spool::start("bench", config, &queue, Duration::ZERO, || ()).expect("a folder of our own");
    queue
}

fn write(folder: &Path) {
    let queue = open(folder);
    let mut buffer = Vec::new();
    for _ in 0..MEBIBYTES * 1024 * 1024 / BATCH_BYTES {
        let mut batch = Batch { bytes: buffer, ..Batch::default() };
        while batch.bytes.len() < BATCH_BYTES {
            batch.bytes.resize(batch.bytes.len() + RECORD_BYTES, b'x');
            batch.end_item();
            batch.records += 1;
        }
        buffer = queue.push(batch, || false);
    }
    wait(|| queue.stats().spool.is_some_and(|spool| spool.bytes >= (MEBIBYTES * 1024 * 1024) as u64));
    finish(&queue);
}

fn read(folder: &Path) {
    let queue = open(folder);
    let limits = Limits { concurrency: 1, timeout: Duration::from_secs(30), attempts: None };
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime of one thread");
    let runner = Runner::new("bench".into(), Anything, Arc::clone(&queue), limits);
    thread::scope(|scope| {
        scope.spawn(|| {
            wait(|| queue.stats().delivered * RECORD_BYTES as u64 >= (MEBIBYTES * 1024 * 1024) as u64);
            queue.end();
        });
        runtime.block_on(runner.run());
    });
    finish(&queue);
}

/// The folder is another queue's then.
fn finish(queue: &Queue) {
    queue.set_done();
    queue.wait_done(Instant::now() + Duration::from_secs(60));
}

fn wait(is_so: impl Fn() -> bool) {
    while !is_so() {
        thread::yield_now();
    }
}
