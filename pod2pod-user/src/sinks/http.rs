//! Records to an HTTP/1.1 collector: JSON lines, one POST a batch, a few attempts, then the batch is lost and counted.
//!
//! Its sockets are told to the kernel before they connect, and it names itself: the agent never observes itself.

use std::{
    io,
    net::{SocketAddr, ToSocketAddrs as _},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{Request, Uri, client::conn::http1::SendRequest, header};
use hyper_util::rt::TokioIo;

use super::{
    own::{OwnConnections, OwnSocket},
    queue::{Batch, Overflow, Queue, SinkStats},
};
use crate::{
    record::{Record, json},
    rights::{self, Part},
    shutdown::Shutdown,
};

/// Records of one POST at most.
pub const DEFAULT_BATCH_RECORDS: u64 = 500;
/// Bytes queued for the collector at most.
pub const DEFAULT_QUEUE_BYTES: usize = 8 * 1024 * 1024;
/// A POST that takes longer has failed.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(5);
/// Attempts for one batch.
pub const MAX_ATTEMPTS: u32 = 4;
/// Wait before the second attempt; doubles with each.
const FIRST_BACKOFF: Duration = Duration::from_millis(100);
/// A record waits this long for others to be posted with.
pub const DEFAULT_LINGER: Duration = Duration::from_millis(500);
/// Bytes of an answer that are read at most: only its status counts.
pub const MAX_ANSWER_BYTES: usize = 64 * 1024;
/// A batch is handed on at this size whatever the number of its records.
pub const MAX_BATCH_BYTES: usize = 1024 * 1024;

/// Where to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// `http://host[:port]/path`.
    pub url: Url,
    /// Records of one POST at most.
    pub batch_records: u64,
    /// Bytes queued at most.
    pub queue_bytes: usize,
    /// A POST that takes longer has failed.
    pub timeout: Duration,
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
        let client = Client { config, own, connection: None, queue: Arc::clone(&queue) };
        thread::Builder::new().name("http-sink".to_owned()).spawn(move || {
            let _ = rights::keep(Part::Collector, |_| true);
            runtime.block_on(deliver_all(client, &shared));
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
            self.batch.bytes =
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

struct Client {
    config: Config,
    own: Arc<OwnConnections>,
    connection: Option<Connection>,
    queue: Arc<Queue>,
}

struct Connection {
    sender: SendRequest<Full<Bytes>>,
    _socket: OwnSocket,
}

/// How an attempt ended.
enum Answer {
    Taken,
    Refused,
    TryAgain,
}

async fn deliver_all(mut client: Client, queue: &Queue) {
    while let Some(batch) = queue.pop() {
        let body = Bytes::copy_from_slice(&batch.bytes);
        let taken = client.deliver(body).await;
        let (delivered, failed) = if taken { (batch.records, 0) } else { (0, batch.records) };
        queue.judge(delivered, failed);
        queue.recycle(batch.bytes);
    }
}

impl Client {
    async fn deliver(&mut self, body: Bytes) -> bool {
        let mut backoff = FIRST_BACKOFF;
        for attempt in 1..=MAX_ATTEMPTS {
            let post = tokio::time::timeout(self.config.timeout, self.post(body.clone())).await;
            match post {
                Ok(Ok(Answer::Taken)) => return true,
                Ok(Ok(Answer::Refused)) => return false,
                Ok(Ok(Answer::TryAgain) | Err(_)) | Err(_) => self.connection = None,
            }
            if attempt == MAX_ATTEMPTS || self.queue.is_abandoned() {
                break;
            }
            tokio::time::sleep(backoff).await;
            backoff *= 2;
        }
        false
    }

    async fn post(&mut self, body: Bytes) -> anyhow::Result<Answer> {
        let mut connection = match self.connection.take() {
            Some(connection) if !connection.sender.is_closed() => connection,
            _ => self.connect().await?,
        };
        connection.sender.ready().await?;
        let request = Request::post(self.config.url.path.as_str())
            .header(header::HOST, self.config.url.authority.as_str())
            .header(header::USER_AGENT, crate::OWN_USER_AGENT)
            .header(header::CONTENT_TYPE, "application/x-ndjson")
            .body(Full::new(body))?;
        let answer = connection.sender.send_request(request).await?;
        let status = answer.status();
        // The answer is read to its end so that the connection can be used again.
        if Limited::new(answer.into_body(), MAX_ANSWER_BYTES).collect().await.is_ok() {
            self.connection = Some(connection);
        }
        Ok(match status.as_u16() {
            200..=299 => Answer::Taken,
            408 | 425 | 429 | 500..=599 => Answer::TryAgain,
            _ => Answer::Refused,
        })
    }

    async fn connect(&self) -> anyhow::Result<Connection> {
        let mut last = anyhow::anyhow!("{} has no address", self.config.url.host);
        let addresses = (self.config.url.host.as_str(), self.config.url.port).to_socket_addrs()?;
        for address in addresses {
            match self.connect_to(address).await {
                Ok(connection) => return Ok(connection),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    async fn connect_to(&self, address: SocketAddr) -> anyhow::Result<Connection> {
        let (stream, own_socket) = OwnSocket::connect(address, &self.own).await?;
        let (sender, driver) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(async move {
            // What goes wrong here shows in the request that waits for it.
            let _ = driver.await;
        });
        Ok(Connection { sender, _socket: own_socket })
    }
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
}
