//! Sinks: Records out. One file per target; each has its own bounded queue and its own thread, so a slow one delays no other.
//!
//! A sink encodes a record at once and queues bytes: memory is bounded in bytes. Sinks know the Record and nothing upstream.

pub mod http;
pub mod http_client;
pub mod own;
pub mod pod2pod_log;
pub mod reuse;
pub mod text;
pub mod writer;

use std::{path::PathBuf, time::Instant};

pub use http::HttpSink;
pub use own::OwnConnections;
pub use writer::Writer;

use crate::{
    delivery::SinkStats,
    record::{Record, json},
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
    /// How.
    pub format: Format,
    /// The old record has the request's headers.
    pub with_headers: bool,
    /// A file to append to; standard output if absent.
    pub file: Option<PathBuf>,
    /// Bytes queued at most.
    pub queue_bytes: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self { format: Format::Auto, with_headers: false, file: None, queue_bytes: DEFAULT_QUEUE_BYTES }
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
}

impl Encoder {
    /// Appends `record` to `out`.
    pub fn push(&mut self, out: &mut Vec<u8>, record: &Record) {
        match self {
            Self::Json(lines) => lines.push(out, record),
            Self::Text(columns) => columns.push_line(out, record),
            Self::Old(lines) => lines.push(out, record),
        }
    }
}

/// All configured sinks.
#[derive(Debug)]
pub struct Sinks {
    writer: Writer,
    http: Option<HttpSink>,
}

impl Sinks {
    /// The writer, and the HTTP sink if there is one.
    pub const fn new(writer: Writer, http: Option<HttpSink>) -> Self {
        Self { writer, http }
    }

    /// The same sinks for another worker: it fills batches of its own, and hands whole ones to the same queues.
    pub fn for_worker(&self) -> Self {
        Self { writer: self.writer.for_worker(), http: self.http.as_ref().map(HttpSink::for_worker) }
    }

    /// Shows the header of columns, if columns are written.
    pub fn show_header(&mut self) {
        self.writer.show_header();
    }

    /// Queues `record` for every sink.
    pub fn write(&mut self, record: &Record) {
        self.writer.write(record);
        if let Some(http) = &mut self.http {
            http.write(record);
        }
    }

    /// Hands on what should wait no longer: a reader sees records at once, a collector gets batches.
    pub fn flush_due(&mut self) {
        self.writer.flush();
        if let Some(http) = &mut self.http {
            http.flush_due();
        }
    }

    /// Hands on everything: what comes next may be long in coming.
    pub fn flush(&mut self) {
        self.writer.flush();
        if let Some(http) = &mut self.http {
            http.flush();
        }
    }

    /// The reader of standard output went away: there is nobody to work for.
    pub fn reader_gone(&self) -> bool {
        self.writer.reader_gone()
    }

    /// Names and counters of the sinks.
    pub fn stats(&self) -> Vec<(&'static str, SinkStats)> {
        let http = self.http.as_ref().map(|http| (http::NAME, http.stats()));
        [("output", self.writer.stats())].into_iter().chain(http).collect()
    }

    /// Adds what this worker is filling to `stats`, which are another worker's of the same sinks.
    pub fn add_filling(&self, stats: &mut [(&'static str, SinkStats)]) {
        let filling = [Some(self.writer.filling()), self.http.as_ref().map(HttpSink::filling)];
        for ((_, stats), filling) in stats.iter_mut().zip(filling.into_iter().flatten()) {
            stats.received += filling;
            stats.in_flight += filling;
        }
    }

    /// Waits until everything queued is out, at most until `deadline`; what is left then is lost and counted.
    pub fn finish(self, deadline: Instant) -> Vec<(&'static str, SinkStats)> {
        let Self { writer, mut http } = self;
        // All of them have the whole time.
        http.iter_mut().for_each(HttpSink::end);
        let writer = writer.finish(deadline);
        let http = http.map(|http| (http::NAME, http.finish(deadline)));
        [("output", writer)].into_iter().chain(http).collect()
    }
}
