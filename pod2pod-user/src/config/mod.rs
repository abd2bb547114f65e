//! Configuration: defaults, then the file, then the environment, then flags. Zero configuration works.
//!
//! One table of keys ([`keys::keys`]) drives parsing, environment names and the README. All mistakes are reported at once,
//! each with its key and where it was written.

pub mod arguments;
pub mod file;
pub mod keys;
pub mod legacy;
pub mod load;
pub mod shown;
pub mod value;

use std::path::PathBuf;

use rustls::pki_types::ServerName;

use crate::{
    admin, capture, delivery, enrich,
    filter::{self, Expression},
    http, kubernetes_api, logging,
    metrics::routes,
    named, pcap, reassembly, restraint,
    secrets::tls,
    sinks::{self, http_client::Access},
    watch,
};

/// Every stage's configuration.
#[derive(Clone, Debug, Default)]
pub struct Config {
    /// What the kernel captures.
    pub capture: capture::kernel::Config,
    /// How capture files are read.
    pub file: capture::file::Config,
    /// Limits of reassembly.
    pub reassembly: reassembly::Config,
    /// Which connections are wanted.
    pub filter: filter::Config,
    /// The filter expression as written; compiled once all sources are read.
    pub filter_expression: Option<String>,
    /// Which exchanges are wanted by the names of their ends, and what pods may ask for.
    pub names: named::Config,
    /// Label selectors as written; read once all sources are.
    pub selectors: Selectors,
    /// Time limits, captured headers and bodies.
    pub http: http::Config,
    /// Redaction, sampling, ignore list.
    pub enrich: enrich::Config,
    /// Where records go.
    pub output: sinks::Config,
    /// The HTTP collector, as written: without a URL there is none.
    pub http_sink: HttpSink,
    /// Where what was captured is written.
    pub pcap: pcap::Config,
    /// The watch over IPVS.
    pub ipvs: watch::config::Config,
    /// How the cluster is known.
    pub kubernetes: kubernetes_api::Config,
    /// What outlives the process is here.
    pub data_dir: Option<PathBuf>,
    /// What the agent may take.
    pub limits: restraint::Config,
    /// Routes as a label of the HTTP metrics.
    pub routes: routes::Config,
    /// Sets of labels that the metrics tell apart: as memory allows.
    pub label_sets: usize,
    /// Pairs of workloads in the metrics.
    pub pairs: usize,
    /// The listener of metrics.
    pub metrics: admin::Config,
    /// The listener of settings.
    pub admin: admin::AdminConfig,
    /// Logs.
    pub log: logging::Config,
    /// What became of names that another program's environment has.
    pub notes: Vec<String>,
    /// What was given, in the order in which it counts.
    pub said: Vec<shown::Said>,
}

/// `filter.labels` and `filter.ignore_labels` as written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selectors {
    /// Which are wanted.
    pub only: Option<String>,
    /// Which are not.
    pub ignore: Option<String>,
}

impl Config {
    /// What is allowed, and yet hardly meant.
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = self.notes.clone();
        if self.filter.expression.as_ref().is_some_and(Expression::matches_nothing) {
            warnings.push("filter.expression: no TCP connection can match it".to_owned());
        }
        warnings
    }
}

/// `output.http` as written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpSink {
    /// Where to.
    pub url: Option<sinks::http_client::Url>,
    /// POST, PUT or PATCH.
    pub method: ::http::Method,
    /// How records are put into a body.
    pub body: sinks::http::Body,
    /// Bodies are compressed.
    pub gzip: bool,
    /// More headers.
    pub headers: Vec<sinks::http_client::Header>,
    /// More headers, with values from files.
    pub header_files: Vec<sinks::http_client::HeaderFile>,
    /// Files of TLS.
    pub tls: TlsFiles,
    /// Whose certificate it should be, if not the URL's host's.
    pub server_name: Option<ServerName<'static>>,
    /// Records of one request at most.
    pub batch_records: u64,
    /// Bytes queued at most.
    pub queue_bytes: usize,
    /// What may be asked of the collector.
    pub limits: delivery::Limits,
}

/// Files of a client's TLS as written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsFiles {
    /// Certificates of authorities.
    pub ca: Option<PathBuf>,
    /// Our own certificate.
    pub certificate: Option<PathBuf>,
    /// Its key.
    pub key: Option<PathBuf>,
}

impl TlsFiles {
    /// Whether one of our own certificate and its key is missing.
    pub const fn is_half_a_pair(&self) -> bool {
        self.certificate.is_some() != self.key.is_some()
    }
}

impl Default for HttpSink {
    fn default() -> Self {
        Self {
            url: None,
            method: ::http::Method::POST,
            body: sinks::http::Body::default(),
            gzip: false,
            headers: Vec::new(),
            header_files: Vec::new(),
            tls: TlsFiles::default(),
            server_name: None,
            batch_records: sinks::http::DEFAULT_BATCH_RECORDS,
            queue_bytes: sinks::http::DEFAULT_QUEUE_BYTES,
            limits: delivery::Limits {
                concurrency: sinks::http::DEFAULT_CONCURRENCY,
                timeout: sinks::http::DEFAULT_TIMEOUT,
                attempts: None,
            },
        }
    }
}

/// Workers are chosen by themselves only while their rings take at most this part of the memory.
const RINGS_SHARE: u64 = 3;

impl Config {
    /// What memory is asked for.
    pub fn wanted(&self) -> restraint::budget::Wanted {
        let queue = |bytes: usize, default: usize| (bytes as u64, bytes != default);
        restraint::budget::Wanted {
            memory: self.limits.memory,
            rings: u64::from(self.capture.ring_bytes) * u64::from(self.capture.workers.count()),
            output_queue: queue(self.output.queue_bytes, sinks::DEFAULT_QUEUE_BYTES),
            collector_queue: self
                .http_sink
                .url
                .as_ref()
                .map(|_| queue(self.http_sink.queue_bytes, sinks::http::DEFAULT_QUEUE_BYTES)),
            packets: self.pcap.memory(),
            ipvs: self.ipvs.wants(),
            exact: self.ipvs.detector == watch::config::Detector::Auto,
            routes: self.routes.mode != routes::Mode::Off,
            cluster: self.kubernetes.is_asked(),
        }
    }

    /// What is done with names: what belongs to other sections too comes from there.
    pub fn naming(&self) -> named::Config {
        let enrich::Config { rate, slow, content_bytes, .. } = self.enrich;
        let own_headers = [&self.http.request_headers, &self.http.response_headers].map(Clone::clone);
        let rules = named::Rules { own_headers, own_body_bytes: content_bytes, ..self.names.rules.clone() };
        named::Config { rate, slow, rules, ..self.names.clone() }
    }

    /// Gives every stage its share of the memory.
    ///
    /// # Errors
    /// There is too little.
    pub fn divide_memory(&mut self) -> Result<(), restraint::TooSmall> {
        if self.capture.workers == capture::kernel::Workers::Auto {
            // A ring for each worker, and room for what is in them.
            let most = (self.limits.memory / RINGS_SHARE / u64::from(self.capture.ring_bytes)).max(1);
            let most = u32::try_from(most).unwrap_or(u32::MAX);
            self.capture.workers = capture::kernel::Workers::Exactly(self.capture.workers.count().min(most));
        }
        let shares = restraint::budget::split(&self.wanted())?;
        let entries = |count: u64| usize::try_from(count).unwrap_or(usize::MAX);
        // Each worker has stages of its own; queues are shared.
        let workers = u64::from(self.capture.workers.count());
        let of_worker = |count: u64| entries(count / workers);
        let of_kernel = |count: u64, most: u32| u32::try_from(count).unwrap_or(most).min(most);
        self.capture.max_connections = of_kernel(shares.kernel_connections, self.capture.max_connections);
        self.capture.max_verdicts = of_kernel(shares.kernel_verdicts, self.capture.max_verdicts);
        let reassembly = &mut self.reassembly;
        reassembly.reserve = true;
        reassembly.max_connections = of_worker(shares.connections);
        reassembly.max_handshakes = of_worker(shares.handshakes);
        reassembly.max_lingering = of_worker(shares.lingering);
        reassembly.max_total_held_bytes = of_worker(shares.held);
        reassembly.max_held_bytes = reassembly.max_held_bytes.min(reassembly.max_total_held_bytes);
        self.http.reserve = of_worker(shares.connections);
        self.http.max_busy = of_worker(shares.busy);
        // A buffer that grows is up to twice as large as what is in it.
        self.http.max_kept = of_worker(shares.kept / 4);
        self.http.max_open_bytes = of_worker(shares.kept / 2);
        self.pcap.held_bytes = of_worker(self.pcap.held_bytes as u64);
        self.label_sets = entries(shares.label_sets);
        self.pairs = entries(shares.pairs);
        self.kubernetes.max_bytes = entries(shares.cluster);
        (self.ipvs.memory, self.ipvs.exact) = (shares.ipvs, shares.exact);
        self.output.queue_bytes = entries(shares.output_queue);
        self.http_sink.queue_bytes = entries(shares.collector_queue);
        Ok(())
    }
}

impl HttpSink {
    /// The sink's configuration, if there is to be one.
    pub fn build(self) -> Option<sinks::http::Config> {
        let TlsFiles { ca, certificate, key } = self.tls;
        Some(sinks::http::Config {
            access: Access {
                url: self.url?,
                headers: self.headers,
                header_files: self.header_files,
                tls: tls::Client { authorities: ca, own: certificate.zip(key) },
                server_name: self.server_name,
            },
            method: self.method,
            body: self.body,
            gzip: self.gzip,
            batch_records: self.batch_records,
            queue_bytes: self.queue_bytes,
            limits: self.limits,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use capture::kernel::Workers;

    #[test]
    fn workers_by_themselves_fit_the_memory_and_asked_ones_are_kept() {
        let mut config = Config::default();
        config.limits.memory = RINGS_SHARE * u64::from(config.capture.ring_bytes) - 1;
        config.divide_memory().unwrap();
        assert_eq!(config.capture.workers, Workers::Exactly(1));
        let mut config = Config::default();
        config.capture.workers = Workers::Exactly(3);
        config.limits.memory *= 8;
        config.divide_memory().unwrap();
        assert_eq!(config.capture.workers, Workers::Exactly(3));
    }
}
