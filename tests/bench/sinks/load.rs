//! A process that does nothing but write records to one sink of the library, and says what that took.

use std::{
    fs::File,
    io,
    path::Path,
    process::Stdio,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use bytes::Bytes;
use nix::time::{ClockId, clock_gettime};
use pod2pod_user::{
    config::load::{Sources, load},
    delivery::{Answer, Batch, Limits, Overflow, Parcel, Queue, Runner, Target},
    record::{Kind, Outcome, Record, json},
    shutdown::Shutdown,
    sinks::{Kept, OwnConnections, Remote, remote},
};
use serde::{Deserialize, Serialize};
use support::{
    processes::{PAUSE, Process},
    rng::Rng,
};

use super::receiver::Receiver;
use crate::stage;

/// First word of the command line by which the benchmark becomes it.
pub(crate) const WORD: &str = "sinks-load";
/// Bytes of a record as a line, with its end.
pub(super) const RECORD_BYTES: usize = 600;
/// Different ones: the same one again and again would compress to nothing.
const RECORDS: usize = 4096;
/// A run takes seconds.
pub(super) const MAX_TIME: Duration = Duration::from_secs(120);

/// What is done.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub(crate) enum Work {
    /// Lines to a target that takes everything.
    Engine,
    /// To an HTTP server, with the settings that follow.
    Http,
    /// Into a spool while the server takes nothing, and out of it.
    Spool,
    /// To the broker whose address follows.
    Kafka,
    /// Into a file.
    File,
}

/// What it took.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
pub(crate) struct Took {
    /// From the first record on until all were delivered; into the spool, until it had all.
    pub(crate) seconds: f64,
    /// Of the whole process, without what receives.
    pub(crate) cpu: f64,
    /// From the first record out of the spool on until all were delivered, and how many that were.
    pub(crate) drained: Option<(f64, u64)>,
    /// Bytes of all lines.
    pub(crate) bytes: u64,
}

/// Has `count` records written.
pub(crate) fn run(work: Work, count: u64, more: &[String]) -> Result<Took> {
    let directory = tempfile::tempdir().context("cannot make a temporary directory")?;
    let file = |name: &str| directory.path().join(name);
    let mut command = stage::command(None, std::env::current_exe()?)?;
    let work = serde_json::to_string(&work)?;
    command.arg(WORD).arg(work).arg(count.to_string()).arg(directory.path()).args(more);
    command.stdout(File::create(file("took"))?).stderr(Stdio::inherit());
    Process::start("load", &mut command)?.finish(MAX_TIME)?;
    serde_json::from_str(&std::fs::read_to_string(file("took"))?).context("what a run took")
}

/// This process becomes it.
pub(crate) fn become_load(words: &[String]) -> Result<()> {
    let [work, count, directory, more @ ..] = words else {
        bail!("{WORD} WORK COUNT DIRECTORY [SETTING…]")
    };
    let count = count.parse()?;
    let took = match serde_json::from_str(work)? {
        Work::Engine => engine(count)?,
        Work::Http => http(count, more)?,
        Work::Spool => spool(count, Path::new(directory))?,
        Work::Kafka => kafka(count, more)?,
        Work::File => file(count, Path::new(directory))?,
    };
    Ok(serde_json::to_writer(io::stdout(), &took)?)
}

/// A target that takes everything.
struct Anything;

impl Target for Anything {
    async fn send(&self, _: &Parcel) -> Answer {
        Answer::Delivered
    }
}

/// Nothing but the queue and the thread behind it, and a copy into the batch.
fn engine(count: u64) -> Result<Took> {
    let lines = lines();
    let queue = Arc::new(Queue::new(remote::DEFAULT_QUEUE_BYTES, Overflow::Wait));
    let limits =
        Limits { concurrency: remote::DEFAULT_CONCURRENCY, timeout: remote::DEFAULT_TIMEOUT, attempts: None };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
    let (begin, before, mut bytes) = (Instant::now(), process_time()?, 0);
    thread::scope(|scope| {
        scope.spawn(|| {
            runtime.block_on(Runner::new("engine".into(), Anything, Arc::clone(&queue), limits).run());
        });
        let (mut batch, mut written) = (Batch::default(), 0);
        for line in lines.iter().cycle() {
            if batch.records == remote::DEFAULT_BATCH_RECORDS || written == count {
                queue.push(std::mem::take(&mut batch), || false);
            }
            if written == count {
                break;
            }
            batch.bytes.extend_from_slice(line);
            batch.end_item();
            batch.records += 1;
            bytes += line.len() as u64;
            written += 1;
        }
        queue.end();
    });
    let cpu = process_time()? - before;
    all(&queue.stats(), count)?;
    Ok(Took { seconds: begin.elapsed().as_secs_f64(), cpu: cpu.as_secs_f64(), drained: None, bytes })
}

fn http(count: u64, more: &[String]) -> Result<Took> {
    let receiver = Receiver::start(true)?;
    let url = format!("sinks.load.url={}", receiver.url());
    let sink = start(&[&[url], more].concat(), None)?;
    let (took, used) = write_all(sink, count, || receiver.used())?;
    if receiver.records() != count {
        bail!("{count} records, and {} came", receiver.records());
    }
    Ok(Took { cpu: took.cpu - used.as_secs_f64(), ..took })
}

fn kafka(count: u64, more: &[String]) -> Result<Took> {
    Ok(write_all(start(more, None)?, count, || Duration::ZERO)?.0)
}

/// All of it into one.
fn file(count: u64, directory: &Path) -> Result<Took> {
    let path = directory.join("records");
    let settings = [
        "sinks.load.type=file".to_owned(),
        format!("sinks.load.path={}", path.display()),
        "sinks.load.max_file_bytes=1048576MiB".to_owned(),
    ];
    let (took, _) = write_all(start(&settings, None)?, count, || Duration::ZERO)?;
    let length = std::fs::metadata(&path)?.len();
    if length != took.bytes {
        bail!("{} bytes were written, and {length} are there", took.bytes);
    }
    Ok(took)
}

/// Writes records until all are delivered; what that took, and what `other` used meanwhile.
fn write_all(mut sink: Remote, count: u64, other: impl Fn() -> Duration) -> Result<(Took, Duration)> {
    let records = records();
    let (begin, before, other_before) = (Instant::now(), process_time()?, other());
    let bytes = write(&mut sink, &records, count);
    all(&sink.finish(Instant::now() + MAX_TIME), count)?;
    let cpu = process_time()? - before;
    let took = Took { seconds: begin.elapsed().as_secs_f64(), cpu: cpu.as_secs_f64(), drained: None, bytes };
    Ok((took, other().saturating_sub(other_before)))
}

/// All of it goes through files: the server takes nothing until the last record is in them.
fn spool(count: u64, directory: &Path) -> Result<Took> {
    let receiver = Receiver::start(false)?;
    let settings = [format!("sinks.load.url={}", receiver.url()), "sinks.load.spool.bytes=4GiB".to_owned()];
    let mut sink = start(&settings, Some(directory))?;
    let records = records();
    let (begin, before) = (Instant::now(), process_time()?);
    let bytes = write(&mut sink, &records, count);
    sink.flush();
    wait(|| sink.stats().spool.is_some_and(|spool| spool.bytes >= bytes))?;
    let seconds = begin.elapsed().as_secs_f64();
    let cpu = (process_time()? - before).as_secs_f64();
    receiver.take();
    // It waits for its next attempt: what it takes from there on is its speed.
    wait(|| sink.stats().delivered > 0)?;
    let (begin, first) = (Instant::now(), sink.stats().delivered);
    wait(|| sink.stats().delivered == count)?;
    let drained = Some((begin.elapsed().as_secs_f64(), count - first));
    all(&sink.finish(Instant::now() + MAX_TIME), count)?;
    if receiver.records() != count {
        bail!("{count} records, and {} came", receiver.records());
    }
    Ok(Took { seconds, cpu, drained, bytes })
}

/// The sink of `settings`, as it comes otherwise.
fn start(settings: &[String], data_dir: Option<&Path>) -> Result<Remote> {
    let sources = Sources { settings: settings.to_vec(), ..Sources::default() };
    let config = load(&sources).map_err(|mistakes| anyhow::anyhow!("{mistakes:?}"))?;
    let sink = config.sinks.into_iter().next().context("there is no sink")?;
    let kept = Kept { dead: None, data_dir: data_dir.map(Path::to_owned), patience: Duration::ZERO };
    sink.start(Overflow::Wait, Arc::<OwnConnections>::default(), kept, Shutdown::without_signals()?)
}

/// Writes `count` of them; how many bytes that are.
fn write(sink: &mut Remote, records: &[Record], count: u64) -> u64 {
    let lengths: Vec<u64> = records.iter().map(|record| line(record).len() as u64).collect();
    let each = records.iter().zip(lengths).cycle();
    each.take(count as usize).map(|(record, length)| (sink.write(record), length).1).sum()
}

fn line(record: &Record) -> Vec<u8> {
    let mut bytes = Vec::new();
    json::Lines::default().push(&mut bytes, record);
    bytes
}

fn all(stats: &pod2pod_user::delivery::SinkStats, count: u64) -> Result<()> {
    if stats.delivered != count || stats.lost() > 0 {
        bail!("{count} records; {} delivered, {} lost", stats.delivered, stats.lost());
    }
    Ok(())
}

fn wait(is_so: impl Fn() -> bool) -> Result<()> {
    let deadline = Instant::now() + MAX_TIME;
    while !is_so() {
        if Instant::now() > deadline {
            bail!("it takes longer than {MAX_TIME:?}");
        }
        thread::sleep(PAUSE);
    }
    Ok(())
}

/// The lines of all records.
pub(super) fn lines() -> Vec<Vec<u8>> {
    records().iter().map(line).collect()
}

/// Exchanges of a shop, as a node tells them, of [`RECORD_BYTES`] each.
fn records() -> Vec<Record> {
    let mut rng = Rng::new(7);
    (0..RECORDS as u64).map(|number| record(&mut rng, number)).collect()
}

fn record(rng: &mut Rng, number: u64) -> Record {
    let pick = |rng: &mut Rng, words: &[&'static str]| words[rng.below(words.len())];
    let address = |rng: &mut Rng| [10, 42, rng.below(16) as u8, rng.below(256) as u8].into();
    let mut record = Record {
        time: 1_790_000_000_000_000_000 + number * 123_456_789,
        kind: Kind::Http,
        outcome: Some(Outcome::Complete),
        method: Some(Bytes::from_static(pick(rng, &["GET", "GET", "GET", "POST", "PUT"]).as_bytes())),
        path: Some(format!("/{}/{}", pick(rng, &["cart", "items", "user"]), rng.below(100_000)).into()),
        status: Some([200, 200, 200, 201, 304, 404, 500][rng.below(7)]),
        duration: rng.next_u64() % 100_000_000,
        time_to_first_byte: Some(rng.next_u64() % 50_000_000),
        client: (address(rng), 32_768 + rng.below(28_000) as u16),
        server: (address(rng), 8080),
        host: [Bytes::from_static(b"shop.example.com")].into_iter().collect(),
        protocol_version: Some("1.1"),
        connection_id: rng.next_u64(),
        trace_id: Some(format!("{:016x}{:016x}", rng.next_u64(), rng.next_u64()).into()),
        user_agent: Some(Bytes::new()),
        ..Record::blank()
    };
    // Filled up by the one field that is as long as it likes.
    let missing = RECORD_BYTES.saturating_sub(line(&record).len());
    let agent = format!("Mozilla/5.0 (X11; Linux x86_64; build {:x}) AppleWebKit/537.36 ", rng.next_u64());
    record.user_agent = Some(agent.bytes().cycle().take(missing).collect());
    record
}

fn process_time() -> Result<Duration> {
    Ok(clock_gettime(ClockId::CLOCK_PROCESS_CPUTIME_ID)?.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_as_long_as_said_and_differ() {
        let mut lines = lines();
        assert!(
            lines.iter().all(|line| line.len() == RECORD_BYTES),
            "{:?}",
            lines.iter().map(Vec::len).max()
        );
        lines.sort();
        lines.dedup();
        assert_eq!(lines.len(), RECORDS);
    }

    #[test]
    fn all_that_is_written_is_delivered() {
        let directory = tempfile::tempdir().expect("a directory");
        let [gzip, zstd] =
            ["gzip", "zstd"].map(|coding| http(10_000, &[format!("sinks.load.compression={coding}")]));
        for took in
            [engine(10_000), gzip, zstd, spool(10_000, directory.path()), file(10_000, directory.path())]
        {
            let took = took.expect("all is delivered");
            assert_eq!(took.bytes, 10_000 * RECORD_BYTES as u64);
            assert!(took.seconds > 0.0 && took.cpu > 0.0, "{took:?}");
        }
    }
}
