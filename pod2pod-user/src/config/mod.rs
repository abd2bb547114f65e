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
pub mod targets;
pub mod value;

use std::path::PathBuf;

use crate::{
    admin, capture, enrich,
    filter::{self, Expression},
    http, kubernetes_api, logging,
    metrics::routes,
    named, pcap, reassembly, restraint,
    sinks::{self, SinkConfig},
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
    /// Where else they go.
    pub sinks: Vec<SinkConfig>,
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
    /// What who looks on may ask for.
    pub tail: sinks::closer::Allowed,
    /// Logs.
    pub log: logging::Config,
    /// What became of names that another program's environment has.
    pub notes: Vec<String>,
    /// What was given, in the order in which it counts.
    pub said: Vec<shown::Said>,
    /// Where that is, to be read again.
    pub sources: load::Sources,
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

/// Workers are chosen by themselves only while their rings take at most this part of the memory.
const RINGS_SHARE: u64 = 3;

impl Config {
    /// What memory is asked for.
    pub fn wanted(&self) -> restraint::budget::Wanted {
        let queue = |bytes: usize, default: usize| (bytes as u64, bytes != default);
        let of_sink = |bytes| queue(bytes, sinks::remote::DEFAULT_QUEUE_BYTES);
        restraint::budget::Wanted {
            memory: self.limits.memory,
            rings: u64::from(self.capture.ring_bytes) * u64::from(self.capture.workers.count()),
            output_queue: queue(self.output.queue_bytes, sinks::DEFAULT_QUEUE_BYTES),
            sink_queues: self.sinks.iter().map(|sink| sink.common.queue_bytes).map(of_sink).collect(),
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
        for (sink, bytes) in self.sinks.iter_mut().zip(shares.sink_queues) {
            sink.common.queue_bytes = entries(bytes);
        }
        Ok(())
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
