//! Sinks: Records out. One file per target; each has its own bounded queue and its own thread, so a slow one delays no other.
//!
//! A sink encodes a record at once and queues bytes: memory is bounded in bytes. Sinks know the Record and nothing upstream.

pub mod closer;
pub mod coding;
pub mod datagram_client;
pub mod elasticsearch;
pub mod failover;
pub mod file;
pub mod fluentd;
mod grpc_client;
pub mod http;
pub mod http_client;
mod ids;
pub mod kafka;
mod kept;
pub mod logstash;
#[cfg(test)]
mod loopback;
pub mod objects;
pub mod otlp;
pub mod own;
pub mod own_stream;
mod peer;
pub mod pod2pod_log;
pub mod postgres;
pub mod probe;
pub mod remote;
pub mod reuse;
pub mod set;
pub mod stream_client;
pub mod syslog;
pub mod syslog_http;
pub mod tail;
pub mod text;
pub mod transport;
mod unacknowledged;
pub mod writer;

use std::{path::PathBuf, sync::Arc, time::Instant};

use self::{
    elasticsearch::Elasticsearch, file::LogFile, fluentd::Fluentd, http::Collector, otlp::Otlp,
    postgres::Postgres, remote::Start, syslog_http::SyslogHttp, transport::Carrier,
};
pub use self::{
    kept::{Kept, left_behind},
    objects::{Entries, Objects},
    own::OwnConnections,
    remote::{Common, Remote},
    set::SinkSet,
    tail::Tail,
    writer::Writer,
};
use crate::{
    delivery::{DeadLetters, Overflow, SinkStats},
    record::{Kind, Record, json, selected::Fields},
    secrets::SecretError,
    shutdown::Shutdown,
};

/// How records are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// Text on a terminal, JSON lines elsewhere.
    #[default]
    Auto,
    /// JSON lines.
    Json,
    /// Aligned columns.
    Text,
    /// The record of kubernetes-pod2pod-log, as JSON lines.
    Pod2podLog,
}

/// Bytes queued for the output at most: seconds of a busy node, and far below what a container is given.
pub const DEFAULT_QUEUE_BYTES: usize = 8 * 1024 * 1024;

/// Where and how records are written.
#[derive(Clone, Debug)]
pub struct Config {
    /// How; nothing is written if absent.
    pub format: Option<Format>,
    /// The old record has the request's headers.
    pub with_headers: bool,
    /// A file to append to; standard output if absent.
    pub file: Option<PathBuf>,
    /// Bytes queued at most.
    pub queue_bytes: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self { format: Some(Format::Auto), with_headers: false, file: None, queue_bytes: DEFAULT_QUEUE_BYTES }
    }
}

/// Turns a record into bytes.
#[derive(Clone, Debug)]
pub enum Encoder {
    /// JSON lines.
    Json(json::Lines),
    /// Columns.
    Text(Box<text::Columns>),
    /// Old JSON lines.
    Old(pod2pod_log::OldLines),
    /// Documents.
    Elasticsearch(Box<elasticsearch::Encoder>),
    /// Events of Logstash.
    Logstash(Box<logstash::Encoder>),
    /// Events of fluentd.
    Fluentd(Box<fluentd::Encoder>),
    /// Messages of syslog.
    Syslog(Box<syslog::Encoder>),
    /// Messages.
    Kafka(Box<kafka::Encoder>),
    /// Log records, or spans.
    Otlp(otlp::Encoder),
    /// Rows.
    Postgres(Box<postgres::Encoder>),
}

impl Encoder {
    /// Lines of JSON in this form, of these fields; the old form has its own.
    fn lines(format: Format, fields: Option<Arc<Fields>>) -> Self {
        match format {
            Format::Pod2podLog => Self::Old(pod2pod_log::OldLines::of_host(false)),
            Format::Auto | Format::Json | Format::Text => Self::Json(json::Lines::of(fields)),
        }
    }

    /// Appends `record` to `out`.
    pub fn push(&mut self, out: &mut Vec<u8>, record: &Record) {
        match self {
            Self::Json(lines) => lines.push(out, record),
            Self::Text(columns) => columns.push_line(out, record),
            Self::Old(lines) => lines.push(out, record),
            Self::Elasticsearch(documents) => documents.push(out, record),
            Self::Logstash(events) => events.push(out, record),
            Self::Syslog(messages) => messages.push(out, record),
            Self::Fluentd(events) => events.push(out, record),
            Self::Kafka(messages) => messages.push(out, record),
            Self::Otlp(items) => items.push(out, record),
            Self::Postgres(rows) => rows.push(out, record),
        }
    }
}

/// A further sink: what all have, and where its records go.
#[derive(Clone, Debug)]
pub struct SinkConfig {
    /// What all have.
    pub common: Common,
    /// How a record is written, where the target leaves a choice.
    pub lines: Format,
    /// The record's fields that are written; all if absent.
    pub fields: Option<Arc<Fields>>,
    /// Where they go.
    pub target: TargetConfig,
}

/// Where records go. One file of `sinks` each.
#[derive(Clone, Debug)]
pub enum TargetConfig {
    /// An HTTP collector.
    Http(Box<http::Config>),
    /// Elasticsearch or OpenSearch.
    Elasticsearch(Box<elasticsearch::Config>),
    /// Logstash.
    Logstash(Box<logstash::Config>),
    /// Syslog in a stream or datagrams.
    Syslog(Box<syslog::Config>),
    /// Syslog in requests of HTTP.
    SyslogHttp(Box<syslog_http::Config>),
    /// Fluentd or Fluent Bit.
    Fluentd(Box<fluentd::Config>),
    /// Kafka.
    Kafka(Box<kafka::Config>),
    /// A file.
    File(Box<file::Config>),
    /// Whoever takes OTLP.
    Otlp(Box<otlp::Config>),
    /// PostgreSQL.
    Postgres(Box<postgres::Config>),
}

impl TargetConfig {
    /// What its type is called in a configuration.
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Http(_) => "http",
            Self::Elasticsearch(_) => "elasticsearch",
            Self::Logstash(_) => "logstash",
            Self::Syslog(_) => "syslog",
            Self::SyslogHttp(_) => "syslog-http",
            Self::Fluentd(_) => "fluentd",
            Self::Kafka(_) => "kafka",
            Self::File(_) => "file",
            Self::Otlp(_) => "otlp",
            Self::Postgres(_) => "postgres",
        }
    }
}

/// Why a sink of Kafka is not in this program.
pub const NO_KAFKA: &str = "this program was built without it: build it with `--features kafka`";

impl SinkConfig {
    /// Reads the files that it names, to see whether they can be used; each that cannot be.
    pub fn check_files(&self) -> Vec<SecretError> {
        match &self.target {
            TargetConfig::Http(http) => http.access.check_files(),
            TargetConfig::Elasticsearch(nodes) => nodes.access.check_files(),
            TargetConfig::Logstash(logstash) => logstash.transport.check_files(),
            TargetConfig::Syslog(syslog) => syslog.transport.check_files(),
            TargetConfig::SyslogHttp(syslog) => syslog.access.check_files(),
            TargetConfig::Fluentd(fluentd) => fluentd.check_files(),
            TargetConfig::Kafka(kafka) => kafka.check_files(),
            TargetConfig::File(_) => Vec::new(),
            TargetConfig::Otlp(otlp) => otlp.access.check_files(),
            TargetConfig::Postgres(table) => table.check_files(),
        }
    }

    fn encoder(&self) -> Encoder {
        match &self.target {
            TargetConfig::Http(_) | TargetConfig::File(_) => Encoder::lines(self.lines, self.fields.clone()),
            TargetConfig::Elasticsearch(nodes) => {
                let objects = Objects::of(self.lines, self.fields.clone());
                Encoder::Elasticsearch(Box::new(elasticsearch::Encoder::new(objects, nodes.index.clone())))
            }
            TargetConfig::Logstash(logstash) => {
                let objects = Objects::of(self.lines, self.fields.clone());
                Encoder::Logstash(Box::new(logstash::Encoder::new(objects, &logstash.transport)))
            }
            TargetConfig::Syslog(syslog) => self.messages(&syslog.style),
            TargetConfig::SyslogHttp(syslog) => self.messages(&syslog.style),
            TargetConfig::Fluentd(fluentd) => {
                let entries = Entries::of(self.lines, self.fields.clone());
                Encoder::Fluentd(Box::new(fluentd::Encoder::new(entries, fluentd.tag.clone())))
            }
            TargetConfig::Kafka(kafka) => {
                let lines = json::Lines::of(self.fields.clone());
                let kafka::Config { topic, default_topic, key, .. } = (**kafka).clone();
                Encoder::Kafka(Box::new(kafka::Encoder::new(lines, topic, default_topic, key)))
            }
            TargetConfig::Otlp(otlp) => Encoder::Otlp(otlp::Encoder::new(otlp.signal, self.fields.clone())),
            TargetConfig::Postgres(_) => {
                Encoder::Postgres(Box::new(postgres::Encoder::new(json::Lines::of(self.fields.clone()))))
            }
        }
    }

    fn messages(&self, style: &syslog::Style) -> Encoder {
        Encoder::Syslog(Box::new(syslog::Encoder::new(json::Lines::of(self.fields.clone()), style)))
    }

    /// Starts it.
    ///
    /// # Errors
    /// A file cannot be used; its thread cannot be started.
    pub fn start(
        self,
        overflow: Overflow,
        own: Arc<OwnConnections>,
        kept: Kept,
        shutdown: Shutdown,
    ) -> anyhow::Result<Remote> {
        let Kept { dead, data_dir, patience } = kept;
        let spool_folder = data_dir.map(|data_dir| kept::spool_folder(&data_dir, &self));
        let start = Start { encoder: self.encoder(), overflow, dead, spool_folder, patience, shutdown };
        let remote = match self.target {
            TargetConfig::Http(http) => Remote::start(self.common, Collector::new(*http, own)?, start),
            TargetConfig::Elasticsearch(nodes) => {
                Remote::start(self.common, Elasticsearch::new(*nodes, own)?, start)
            }
            TargetConfig::Logstash(logstash) => {
                Remote::start(self.common, Carrier::new(logstash.transport, own)?, start)
            }
            TargetConfig::Syslog(syslog) => {
                Remote::start(self.common, Carrier::new(syslog.transport, own)?, start)
            }
            TargetConfig::SyslogHttp(syslog) => {
                Remote::start(self.common, SyslogHttp::new(syslog.access, own)?, start)
            }
            TargetConfig::Fluentd(fluentd) => Remote::start(self.common, Fluentd::new(*fluentd, own)?, start),
            #[cfg(feature = "kafka")]
            TargetConfig::Kafka(kafka) => {
                let target = kafka::Kafka::new(*kafka, &self.common, own)?;
                Remote::start(self.common, target, start)
            }
            #[cfg(not(feature = "kafka"))]
            TargetConfig::Kafka(_) => anyhow::bail!(NO_KAFKA),
            TargetConfig::File(file) => Remote::start(self.common.in_order(), LogFile::new(*file)?, start),
            TargetConfig::Otlp(otlp) => Remote::start(self.common, Otlp::new(*otlp, own)?, start),
            TargetConfig::Postgres(table) => {
                Remote::start(self.common.in_order(), Postgres::new(*table, own)?, start)
            }
        };
        Ok(remote?)
    }

    /// Sends items that were its records once, on this thread; what became of them.
    ///
    /// # Errors
    /// A file cannot be used; the runtime cannot be started.
    pub fn send_again(
        self,
        own: Arc<OwnConnections>,
        dead: DeadLetters,
        items: &[Vec<u8>],
    ) -> anyhow::Result<SinkStats> {
        let stats = match self.target {
            TargetConfig::Http(http) => {
                remote::send_again(self.common, Collector::new(*http, own)?, dead, items)
            }
            TargetConfig::Elasticsearch(nodes) => {
                remote::send_again(self.common, Elasticsearch::new(*nodes, own)?, dead, items)
            }
            TargetConfig::Logstash(logstash) => {
                remote::send_again(self.common, Carrier::new(logstash.transport, own)?, dead, items)
            }
            TargetConfig::Syslog(syslog) => {
                remote::send_again(self.common, Carrier::new(syslog.transport, own)?, dead, items)
            }
            TargetConfig::SyslogHttp(syslog) => {
                remote::send_again(self.common, SyslogHttp::new(syslog.access, own)?, dead, items)
            }
            TargetConfig::Fluentd(fluentd) => {
                remote::send_again(self.common, Fluentd::new(*fluentd, own)?, dead, items)
            }
            #[cfg(feature = "kafka")]
            TargetConfig::Kafka(kafka) => {
                let target = kafka::Kafka::new(*kafka, &self.common, own)?;
                remote::send_again(self.common, target, dead, items)
            }
            #[cfg(not(feature = "kafka"))]
            TargetConfig::Kafka(_) => anyhow::bail!(NO_KAFKA),
            TargetConfig::File(file) => {
                remote::send_again(self.common.in_order(), LogFile::new(*file)?, dead, items)
            }
            TargetConfig::Otlp(otlp) => remote::send_again(self.common, Otlp::new(*otlp, own)?, dead, items),
            TargetConfig::Postgres(table) => {
                remote::send_again(self.common.in_order(), Postgres::new(*table, own)?, dead, items)
            }
        };
        Ok(stats?)
    }
}

/// Name of the output in metrics and messages.
pub const OUTPUT: &str = "output";

/// All configured sinks.
#[derive(Debug)]
pub struct Sinks {
    writer: Writer,
    remotes: Vec<Remote>,
    tail: Arc<Tail>,
    set: Arc<SinkSet>,
    /// Which change of the set `remotes` are of.
    version: u64,
    /// Records that came here, and how many of them are of reuses.
    written: (u64, u64),
}

impl Sinks {
    /// The writer, and the further sinks.
    pub fn new(writer: Writer, remotes: Vec<Remote>) -> Self {
        let own = remotes.iter().map(Remote::for_worker).collect();
        let set = Arc::new(SinkSet::new(remotes));
        Self { writer, remotes: own, tail: Arc::default(), set, version: 0, written: (0, 0) }
    }

    /// Whoever looks on is shown records too.
    #[must_use]
    pub fn with_tail(self, tail: Arc<Tail>) -> Self {
        Self { tail, ..self }
    }

    /// The same sinks for another worker: it fills batches of its own, and hands whole ones to the same queues.
    pub fn for_worker(&self) -> Self {
        let Self { writer, tail, set, .. } = self;
        let (writer, tail, set) = (writer.for_worker(), Arc::clone(tail), Arc::clone(set));
        let (version, remotes) = set.follow(Vec::new(), (0, 0));
        Self { writer, remotes, tail, set, version, written: (0, 0) }
    }

    /// Shows the header of columns, if columns are written.
    pub fn show_header(&mut self) {
        self.writer.show_header();
    }

    /// Queues `record` for every sink.
    pub fn write(&mut self, record: &Record) {
        self.written.0 += 1;
        self.written.1 += u64::from(record.kind == Kind::IpvsReuse);
        self.tail.write(record);
        self.writer.write(record);
        self.remotes.iter_mut().for_each(|remote| remote.write(record));
    }

    /// Hands on what should wait no longer: a reader sees records at once, other targets get batches.
    pub fn flush_due(&mut self) {
        self.follow();
        self.writer.flush();
        self.remotes.iter_mut().for_each(Remote::flush_due);
    }

    /// Hands on everything: what comes next may be long in coming.
    pub fn flush(&mut self) {
        self.follow();
        self.writer.flush();
        self.remotes.iter_mut().for_each(Remote::flush);
    }

    /// The further sinks may be others by now.
    #[inline]
    fn follow(&mut self) {
        if self.set.version() != self.version {
            let known = std::mem::take(&mut self.remotes);
            (self.version, self.remotes) = self.set.follow(known, self.written);
        }
    }

    /// The further sinks, which can be changed.
    pub const fn set(&self) -> &Arc<SinkSet> {
        &self.set
    }

    /// The reader of standard output went away: there is nobody to work for.
    pub fn reader_gone(&self) -> bool {
        self.writer.reader_gone()
    }

    /// What who looks closer asks for.
    pub fn closer(&self) -> &Arc<closer::Closer> {
        self.tail.closer()
    }

    /// What was counted of who looks on.
    pub fn tail(&self) -> tail::TailStats {
        self.tail.stats()
    }

    /// Names and counters of the sinks.
    pub fn stats(&self) -> Vec<(Arc<str>, SinkStats)> {
        let remotes = self.remotes.iter().map(|remote| (Arc::clone(remote.name()), remote.stats()));
        [(OUTPUT.into(), self.writer.stats())].into_iter().chain(remotes).collect()
    }

    /// Adds what this worker is filling to `stats`, which are another worker's of the same sinks.
    pub fn add_filling(&self, stats: &mut [(Arc<str>, SinkStats)]) {
        let Some(((_, output), others)) = stats.split_first_mut() else { return };
        self.writer.add_filling(output);
        for remote in &self.remotes {
            // Right after a change a worker may have another set.
            let same = others.iter_mut().find(|(name, _)| Arc::ptr_eq(name, remote.name()));
            same.into_iter().for_each(|(_, stats)| remote.add_filling(stats));
        }
    }

    /// Waits until everything queued is out, at most until `deadline`; what is left then is lost and counted.
    pub fn finish(self, deadline: Instant) -> Vec<(Arc<str>, SinkStats)> {
        let Self { writer, mut remotes, .. } = self;
        // All of them have the whole time.
        remotes.iter_mut().for_each(Remote::end);
        let writer = writer.finish(deadline);
        let remotes = remotes.into_iter().map(|remote| (Arc::clone(remote.name()), remote.finish(deadline)));
        [(OUTPUT.into(), writer)].into_iter().chain(remotes).collect()
    }
}
