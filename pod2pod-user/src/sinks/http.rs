//! Records to an HTTP/1.1 collector: JSON lines or an array of objects, one request a batch, until it has them.

use std::{
    io::Write as _,
    sync::Arc,
    thread,
    time::{Duration, Instant, SystemTime},
};

use bytes::Bytes;
use flate2::{Compression, write::GzEncoder};
use http_body_util::Full;
use hyper::{HeaderMap, Method, StatusCode, header};

use super::{
    http_client::{Access, Client},
    own::OwnConnections,
};
use crate::{
    delivery::{
        Answer, Batch, DeadLetters, Limits, Overflow, Parcel, Queue, Refusal, RefusalKind, Runner, SinkStats,
        Target, Trouble, TroubleKind,
    },
    record::{Record, json},
    rights::{self, Part},
    secrets::SecretError,
    shutdown::Shutdown,
};

/// Records of one request at most.
pub const DEFAULT_BATCH_RECORDS: u64 = 500;
/// Bytes queued for the collector at most.
pub const DEFAULT_QUEUE_BYTES: usize = 8 * 1024 * 1024;
/// A request that takes longer has failed.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(30);
/// Requests under way at once, at most: a connection each.
pub const DEFAULT_CONCURRENCY: usize = 8;
/// More would be more sockets of one node than collectors count with.
pub const MAX_CONCURRENCY: usize = 64;
/// A record waits this long for others to be posted with.
pub const DEFAULT_LINGER: Duration = Duration::from_millis(500);
/// Bytes of an answer that are read at most: only its head counts.
pub const MAX_ANSWER_BYTES: usize = 64 * 1024;
/// A batch is handed on at this size whatever the number of its records.
pub const MAX_BATCH_BYTES: usize = 1024 * 1024;
/// Its name in metrics and messages.
pub const NAME: &str = "http";

/// How records are put into a request's body.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Body {
    /// An object a line.
    #[default]
    Lines,
    /// An array of objects.
    Array,
}

/// Where to, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Where it is, and who we are to it.
    pub access: Access,
    /// POST, PUT or PATCH.
    pub method: Method,
    /// How records are put into a body.
    pub body: Body,
    /// Bodies are compressed.
    pub gzip: bool,
    /// Records of one request at most.
    pub batch_records: u64,
    /// Bytes queued at most.
    pub queue_bytes: usize,
    /// What may be asked of the collector.
    pub limits: Limits,
}

/// The sink.
#[derive(Debug)]
pub struct HttpSink {
    lines: json::Lines,
    batch: Batch,
    /// When the first record of the batch came.
    since: Option<Instant>,
    batch_records: u64,
    queue: Arc<Queue>,
    shutdown: Shutdown,
}

impl HttpSink {
    /// Starts the sink's thread. When the program should end nothing waits. What the collector refuses goes to `dead`.
    ///
    /// # Errors
    /// A file cannot be used; the thread or its runtime cannot be started.
    pub fn start(
        config: Config,
        overflow: Overflow,
        own: Arc<OwnConnections>,
        dead: Option<DeadLetters>,
        shutdown: Shutdown,
    ) -> anyhow::Result<Self> {
        let queue = Arc::new(Queue::new(config.queue_bytes, overflow));
        let batch_records = config.batch_records.max(1);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (shared, limits) = (Arc::clone(&queue), config.limits);
        let collector = Collector::new(config, own)?;
        thread::Builder::new().name("http-sink".to_owned()).spawn(move || {
            let _ = rights::keep(Part::Collector, |_| true);
            let _done = Done(&shared);
            let runner = Runner::new(NAME, collector, Arc::clone(&shared), limits);
            runtime.block_on(runner.with_dead_letters(dead).run());
        })?;
        let (lines, batch) = (json::Lines::default(), Batch::default());
        Ok(Self { lines, batch, since: None, batch_records, queue, shutdown })
    }

    /// The same collector for another worker: with batches of its own, on the same queue.
    pub fn for_worker(&self) -> Self {
        let (queue, shutdown) = (Arc::clone(&self.queue), self.shutdown.clone());
        let (lines, batch) = (json::Lines::default(), Batch::default());
        Self { lines, batch, since: None, batch_records: self.batch_records, queue, shutdown }
    }

    /// Records in the batch that is being filled.
    pub const fn filling(&self) -> u64 {
        self.batch.records
    }

    /// Adds `record` to the batch.
    pub fn write(&mut self, record: &Record) {
        self.lines.push(&mut self.batch.bytes, record);
        self.batch.end_item();
        self.batch.count(record);
        if self.batch.records >= self.batch_records || self.batch.bytes.len() >= MAX_BATCH_BYTES {
            self.flush();
        }
    }

    /// Hands the batch on if it has waited long enough.
    pub fn flush_due(&mut self) {
        if self.batch.records == 0 {
            return;
        }
        let now = Instant::now();
        if now.duration_since(*self.since.get_or_insert(now)) >= DEFAULT_LINGER {
            self.flush();
        }
    }

    /// Hands the batch on.
    pub fn flush(&mut self) {
        self.since = None;
        if self.batch.records > 0 {
            // Its buffer goes on its way.
            self.queue.push(std::mem::take(&mut self.batch), || self.shutdown.is_requested());
        }
    }

    /// What was counted so far.
    pub fn stats(&self) -> SinkStats {
        let stats = self.queue.stats();
        let filling = self.filling();
        SinkStats { received: stats.received + filling, in_flight: stats.in_flight + filling, ..stats }
    }

    /// Nothing comes any more.
    pub fn end(&mut self) {
        self.since = None;
        if self.batch.records > 0 {
            // There is nothing to wait for.
            self.queue.push(std::mem::take(&mut self.batch), || true);
        }
        self.queue.end();
    }

    /// Waits until what is left is sent, at most until `deadline`.
    pub fn finish(mut self, deadline: Instant) -> SinkStats {
        self.end();
        self.queue.wait_done(deadline)
    }
}

/// However the thread ends, nobody waits for it.
struct Done<'a>(&'a Queue);

impl Drop for Done<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.abandon();
        }
        self.0.set_done();
    }
}

/// The collector.
struct Collector {
    client: Client,
    method: Method,
    body: Body,
    gzip: bool,
}

impl Target for Collector {
    async fn send(&self, parcel: &Parcel) -> Answer {
        self.post(parcel).await.unwrap_or_else(Answer::Later)
    }
}

/// Sends items that were records once, on this thread; what became of them.
///
/// # Errors
/// A file cannot be used; the runtime cannot be started.
pub fn send_again(
    config: Config,
    own: Arc<OwnConnections>,
    dead: DeadLetters,
    items: &[Vec<u8>],
) -> anyhow::Result<SinkStats> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let queue = Arc::new(Queue::new(config.queue_bytes, Overflow::Wait));
    let mut batch = Batch::default();
    for item in items {
        batch.bytes.extend_from_slice(item);
        batch.end_item();
        batch.records += 1;
    }
    queue.push(batch, || false);
    queue.end();
    let limits = config.limits;
    let runner = Runner::new(NAME, Collector::new(config, own)?, Arc::clone(&queue), limits);
    runtime.block_on(runner.with_dead_letters(Some(dead)).run());
    Ok(queue.stats())
}

impl Collector {
    fn new(config: Config, own: Arc<OwnConnections>) -> Result<Self, SecretError> {
        let Config { access, method, body, gzip, .. } = config;
        Ok(Self { client: Client::new(access, own, MAX_ANSWER_BYTES)?, method, body, gzip })
    }

    async fn post(&self, parcel: &Parcel) -> Result<Answer, Trouble> {
        let content_type = match self.body {
            Body::Lines => "application/x-ndjson",
            Body::Array => "application/json",
        };
        let mut request = self.client.request(&self.method).header(header::CONTENT_TYPE, content_type);
        if self.gzip {
            request = request.header(header::CONTENT_ENCODING, "gzip");
        }
        let request = request.body(Full::new(self.body(parcel)));
        let request = request.map_err(|error| Trouble::new(TroubleKind::Nonsense, error))?;
        let (head, _) = self.client.send(request).await?;
        Ok(judge(head.status, &head.headers, SystemTime::now()))
    }

    fn body(&self, parcel: &Parcel) -> Bytes {
        let bytes = match self.body {
            Body::Lines => parcel.bytes().clone(),
            Body::Array => array(parcel).into(),
        };
        if self.gzip { gzip(&bytes).into() } else { bytes }
    }
}

/// Objects of one line each as an array.
fn array(parcel: &Parcel) -> Vec<u8> {
    let mut array = Vec::with_capacity(parcel.bytes().len() + 2);
    array.push(b'[');
    for (place, item) in parcel.items().enumerate() {
        if place > 0 {
            array.push(b',');
        }
        array.extend_from_slice(item.trim_ascii_end());
    }
    array.push(b']');
    array
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::with_capacity(bytes.len() / 4), Compression::fast());
    // A Vec takes every write.
    let _ = encoder.write_all(bytes);
    encoder.finish().unwrap_or_default()
}

/// What a status says about all records of a request (RFC 9110, section 15).
fn judge(status: StatusCode, headers: &HeaderMap, now: SystemTime) -> Answer {
    let later = |kind| {
        let after = headers.get(header::RETRY_AFTER).and_then(|value| retry_after(value.to_str().ok()?, now));
        Answer::Later(Trouble { kind, detail: status.to_string(), after })
    };
    match status.as_u16() {
        200..=299 => Answer::Delivered,
        // It is for people to say that another place is right, and to correct a wrong one: records wait for them.
        300..=399 | 404 | 405 | 411 | 415 | 421 | 423 | 424 | 426 | 431 => later(TroubleKind::Nonsense),
        401 | 403 | 407 => later(TroubleKind::Unauthorized),
        413 => Answer::TooLarge,
        425 | 429 => later(TroubleKind::Throttled),
        408 | 500..=599 => later(TroubleKind::Unavailable),
        400..=499 => Answer::Never(Refusal::new(RefusalKind::Rejected, status)),
        _ => later(TroubleKind::Nonsense),
    }
}

/// How long a server wants to be left alone: seconds, or until a date (RFC 9110, section 10.2.3).
fn retry_after(value: &str, now: SystemTime) -> Option<Duration> {
    let seconds = value.parse().ok().map(Duration::from_secs);
    seconds.or_else(|| httpdate::parse_http_date(value).ok()?.duration_since(now).ok())
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;
    use crate::sinks::http_client::{MAX_BODY_TIME, MAX_CONNECT_TIME};

    #[test]
    fn a_second_address_and_a_body_that_does_not_end_have_their_time_in_an_attempt() {
        assert!(2 * MAX_CONNECT_TIME + MAX_BODY_TIME < DEFAULT_TIMEOUT);
    }

    #[test]
    fn bodies() {
        let parcel = Parcel::new("{\"a\":1}\n{\"b\":2}\n".as_bytes(), vec![8, 16]);
        assert_eq!(array(&parcel), b"[{\"a\":1},{\"b\":2}]");
        assert_eq!(array(&parcel.only(|_| false)), b"[]");
        let mut back = Vec::new();
        let zipped = gzip(parcel.bytes());
        flate2::read::GzDecoder::new(&zipped[..]).read_to_end(&mut back).unwrap();
        assert_eq!(back, parcel.bytes().as_ref());
    }

    #[test]
    fn statuses() {
        let answer = |status: u16| {
            judge(StatusCode::from_u16(status).unwrap(), &HeaderMap::new(), SystemTime::UNIX_EPOCH)
        };
        let check = |statuses: &[u16], expected: fn(&Answer) -> bool| {
            for status in statuses {
                assert!(expected(&answer(*status)), "{status}: {:?}", answer(*status));
            }
        };
        check(&[200, 202, 204, 299], |answer| *answer == Answer::Delivered);
        check(&[413], |answer| *answer == Answer::TooLarge);
        check(&[400, 406, 409, 422, 451], |answer| matches!(answer, Answer::Never(_)));
        fn kind(answer: &Answer) -> Option<TroubleKind> {
            if let Answer::Later(trouble) = answer { Some(trouble.kind) } else { None }
        }
        check(&[408, 500, 503, 599], |answer| kind(answer) == Some(TroubleKind::Unavailable));
        check(&[425, 429], |answer| kind(answer) == Some(TroubleKind::Throttled));
        check(&[401, 403, 407], |answer| kind(answer) == Some(TroubleKind::Unauthorized));
        check(&[101, 301, 307, 404, 405, 415, 431, 999], |answer| {
            kind(answer) == Some(TroubleKind::Nonsense)
        });
    }

    #[test]
    fn when_to_come_back() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777);
        let check = |value: &str, seconds: Option<u64>| {
            assert_eq!(retry_after(value, now), seconds.map(Duration::from_secs), "{value}");
        };
        check("120", Some(120));
        check("0", Some(0));
        // The date is RFC 9110's own example, section 5.6.7.
        check("Sun, 06 Nov 1994 08:49:47 GMT", Some(10));
        check("Sun, 06 Nov 1994 08:49:27 GMT", None);
        check("-1", None);
        check("soon", None);
    }
}
