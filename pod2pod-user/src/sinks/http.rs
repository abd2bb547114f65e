//! Records to an HTTP/1.1 collector: JSON lines, one POST a batch, until it has them.
//!
//! Its sockets are told to the kernel before they connect, and it names itself: the agent never observes itself.

use std::{
    cell::RefCell,
    io,
    net::SocketAddr,
    sync::Arc,
    thread,
    time::{Duration, Instant, SystemTime},
};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{HeaderMap, Request, StatusCode, Uri, client::conn::http1::SendRequest, header};
use hyper_util::rt::TokioIo;

use super::own::{OwnConnections, OwnSocket};
use crate::{
    delivery::{
        Answer, Batch, Limits, Overflow, Parcel, Queue, Refusal, RefusalKind, Runner, SinkStats, Target,
        Trouble, TroubleKind,
    },
    record::{Record, json},
    rights::{self, Part},
    shutdown::Shutdown,
};

/// Records of one POST at most.
pub const DEFAULT_BATCH_RECORDS: u64 = 500;
/// Bytes queued for the collector at most.
pub const DEFAULT_QUEUE_BYTES: usize = 8 * 1024 * 1024;
/// A POST that takes longer has failed.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(30);
/// POSTs under way at once, at most: a connection each.
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

/// Where to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// `http://host[:port]/path`.
    pub url: Url,
    /// Records of one POST at most.
    pub batch_records: u64,
    /// Bytes queued at most.
    pub queue_bytes: usize,
    /// What may be asked of the collector.
    pub limits: Limits,
}

/// An `http:` URL, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Url {
    authority: String,
    host: String,
    port: u16,
    path: String,
}

impl Url {
    /// Reads `text`; absent if it is not an `http:` URL without user information.
    pub fn parse(text: &str) -> Option<Self> {
        let uri: Uri = text.parse().ok()?;
        let authority = uri.authority()?;
        if uri.scheme_str() != Some("http") || authority.as_str().contains('@') {
            return None;
        }
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        let path = uri.path_and_query().map_or("/", |path| path.as_str()).to_owned();
        Some(Self {
            authority: authority.as_str().to_owned(),
            host,
            port: uri.port_u16().unwrap_or(80),
            path,
        })
    }

    /// Host and port, as they were written.
    pub fn authority(&self) -> &str {
        &self.authority
    }

    /// A name or an address.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// 80 if none was written.
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// With its query.
    pub fn path(&self) -> &str {
        &self.path
    }
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
    /// Starts the sink's thread. When the program should end nothing waits.
    ///
    /// # Errors
    /// The thread or its runtime cannot be started.
    pub fn start(
        config: Config,
        overflow: Overflow,
        own: Arc<OwnConnections>,
        shutdown: Shutdown,
    ) -> io::Result<Self> {
        let queue = Arc::new(Queue::new(config.queue_bytes, overflow));
        let batch_records = config.batch_records.max(1);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let shared = Arc::clone(&queue);
        thread::Builder::new().name("http-sink".to_owned()).spawn(move || {
            let _ = rights::keep(Part::Collector, |_| true);
            let limits = config.limits;
            let collector = Collector { url: config.url, own, idle: RefCell::default() };
            runtime.block_on(Runner::new(NAME, collector, Arc::clone(&shared), limits).run());
            shared.set_done();
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

    /// Sends what is left, at most until `deadline`.
    pub fn finish(mut self, deadline: Instant) -> SinkStats {
        self.flush();
        self.queue.end();
        self.queue.wait_done(deadline)
    }
}

/// The collector, and connections to it that nobody uses.
struct Collector {
    url: Url,
    own: Arc<OwnConnections>,
    idle: RefCell<Vec<Connection>>,
}

struct Connection {
    sender: SendRequest<Full<Bytes>>,
    _socket: OwnSocket,
}

impl Target for Collector {
    async fn send(&self, parcel: &Parcel) -> Answer {
        self.post(parcel).await.unwrap_or_else(Answer::Later)
    }
}

impl Collector {
    async fn post(&self, parcel: &Parcel) -> Result<Answer, Trouble> {
        loop {
            let kept = self.keep_one();
            let is_kept = kept.is_some();
            let mut connection = match kept {
                Some(connection) => connection,
                None => self.connect().await?,
            };
            let answer = match connection.sender.ready().await {
                Ok(()) => connection.sender.send_request(self.request(parcel)?).await,
                Err(error) => Err(error),
            };
            match answer {
                Ok(response) => {
                    let (head, body) = response.into_parts();
                    // It is read to its end so that the connection can be used again.
                    if Limited::new(body, MAX_ANSWER_BYTES).collect().await.is_ok() {
                        self.idle.borrow_mut().push(connection);
                    }
                    return Ok(judge(head.status, &head.headers, SystemTime::now()));
                }
                // The collector closed what was idle, which is no trouble.
                Err(error) if is_kept && !error.is_parse() => {}
                Err(error) if error.is_parse() => return Err(Trouble::new(TroubleKind::Nonsense, error)),
                Err(error) => return Err(Trouble::new(TroubleKind::Closed, error)),
            }
        }
    }

    /// A connection that nobody uses.
    fn keep_one(&self) -> Option<Connection> {
        let mut idle = self.idle.borrow_mut();
        std::iter::from_fn(|| idle.pop()).find(|connection| !connection.sender.is_closed())
    }

    fn request(&self, parcel: &Parcel) -> Result<Request<Full<Bytes>>, Trouble> {
        Request::post(self.url.path.as_str())
            .header(header::HOST, self.url.authority.as_str())
            .header(header::USER_AGENT, crate::OWN_USER_AGENT)
            .header(header::CONTENT_TYPE, "application/x-ndjson")
            .body(Full::new(parcel.bytes().clone()))
            .map_err(|error| Trouble::new(TroubleKind::Nonsense, error))
    }

    async fn connect(&self) -> Result<Connection, Trouble> {
        let trouble = |error: &dyn std::fmt::Display| Trouble::new(TroubleKind::Connect, error);
        let (host, port) = (self.url.host.as_str(), self.url.port);
        let addresses = tokio::net::lookup_host((host, port)).await.map_err(|error| trouble(&error))?;
        let mut last = trouble(&format_args!("{host} has no address"));
        for address in addresses {
            match self.connect_to(address).await {
                Ok(connection) => return Ok(connection),
                Err(error) => last = trouble(&format_args!("{address}: {error}")),
            }
        }
        Err(last)
    }

    async fn connect_to(&self, address: SocketAddr) -> anyhow::Result<Connection> {
        let (stream, own_socket) = OwnSocket::connect(address, &self.own).await?;
        stream.set_nodelay(true)?;
        let (sender, driver) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(async move {
            // What goes wrong here shows in the request that waits for it.
            let _ = driver.await;
        });
        Ok(Connection { sender, _socket: own_socket })
    }
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
        300..=399 | 404 => later(TroubleKind::Nonsense),
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
    use super::*;

    #[test]
    fn urls() {
        let check = |text: &str, expected: Option<(&str, u16, &str)>| {
            let url = Url::parse(text);
            let parts = url.as_ref().map(|url| (url.host.as_str(), url.port, url.path.as_str()));
            assert_eq!(parts, expected, "{text}");
        };
        check("http://collector", Some(("collector", 80, "/")));
        check("http://[::1]:8080/in?x=1", Some(("::1", 8080, "/in?x=1")));
        check("https://collector/", None);
        check("http://u:p@collector/", None);
        check("collector:80", None);
        check("", None);
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
        check(&[400, 405, 415, 422, 451], |answer| matches!(answer, Answer::Never(_)));
        fn kind(answer: &Answer) -> Option<TroubleKind> {
            if let Answer::Later(trouble) = answer { Some(trouble.kind) } else { None }
        }
        check(&[408, 500, 503, 599], |answer| kind(answer) == Some(TroubleKind::Unavailable));
        check(&[425, 429], |answer| kind(answer) == Some(TroubleKind::Throttled));
        check(&[401, 403, 407], |answer| kind(answer) == Some(TroubleKind::Unauthorized));
        check(&[101, 301, 307, 404, 999], |answer| kind(answer) == Some(TroubleKind::Nonsense));
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
