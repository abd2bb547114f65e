//! `pod2pod replay`: capture files through the same stages. `now` is the packets' time; nothing here looks at a clock.
//!
//! Files are read in the order given, each with connections of its own; records come as exchanges end. A damaged file does
//! not keep the next one from being read.

use std::{
    io::{self, Read},
    os::fd::AsFd as _,
    path::{Path, PathBuf},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::{
    admin::{self, Health, Listen, Shown},
    capture::{
        KernelInstant,
        file::{self, CaptureFile, FileError, Progress},
        packet,
    },
    config::{Config, shown},
    delivery::Overflow,
    enrich::{Failures, OwnTraffic},
    exit,
    metrics::{Metrics, http::MAX_LABEL_SETS, stages},
    pcap,
    pipeline::{self, Pipeline, SharedSinks},
    shutdown::{DEFAULT_DRAIN, Shutdown},
    sinks::{OwnConnections, Tail},
    summary::Summary,
};

/// Metrics are published this often, between batches of packets.
const PUBLISH_PERIOD: Duration = Duration::from_secs(1);

/// At the end it is looked this often whether the targets have everything.
const LOOK_PERIOD: Duration = Duration::from_millis(5);

/// Reads `files` and writes their records; says how the program should exit.
pub fn run(files: &[PathBuf], config: Config, shutdown: &Shutdown) -> u8 {
    if let Some(file) = files.iter().find(|file| config.pcap.would_move(file)) {
        exit::tell(format_args!("capture.write_pcap.file: {} is to be read", file.display()));
        return exit::CONFIGURATION;
    }
    let packets = match pcap::Output::open(&config.pcap, Overflow::Wait, shutdown) {
        Ok(packets) => packets,
        Err(error) => {
            exit::tell(&error);
            return error.exit_code();
        }
    };
    match Replay::start(config, packets, shutdown.clone()) {
        Ok(replay) => replay.run(files),
        Err(error) => {
            exit::tell(format_args!("{error:#}"));
            exit::FAILURE
        }
    }
}

struct Replay {
    config: Config,
    pipeline: Pipeline,
    sinks: SharedSinks,
    packets: Option<pcap::Output>,
    metrics: Arc<Metrics>,
    last_publication: Instant,
    shutdown: Shutdown,
}

impl Replay {
    fn start(mut config: Config, packets: Option<pcap::Output>, shutdown: Shutdown) -> anyhow::Result<Self> {
        // What is in somebody's file is what that person wants to see.
        config.enrich.own_traffic = OwnTraffic::Told;
        config.enrich.failures = Failures::All;
        let (metrics, http_metrics) = Metrics::new(&config.routes, MAX_LABEL_SETS)?;
        let metrics = Arc::new(metrics);
        let own = Arc::new(OwnConnections::default());
        let tail = Arc::new(Tail::new(config.tail.clone()));
        serve(&config, &metrics, &own, &tail)?;
        let sinks = pipeline::open_sinks(&config, Overflow::Wait, &own, &tail, &shutdown)?;
        let mut pipeline = Pipeline::new(&config, sinks.clone(), Some(http_metrics));
        if let Some(packets) = &packets {
            pipeline.write_packets(&config, packets.clone());
        }
        let last_publication = Instant::now();
        let mut replay = Self { config, pipeline, sinks, packets, metrics, last_publication, shutdown };
        replay.publish();
        Ok(replay)
    }

    fn run(mut self, files: &[PathBuf]) -> u8 {
        let mut code = exit::OK;
        for file in files {
            if let Err(error) = self.replay(file) {
                // Records up to the damage come first.
                self.sinks.get().flush();
                exit::tell(error);
                code = exit::INPUT;
            }
            if self.is_over() {
                break;
            }
            self.pipeline.restart(&self.config);
        }
        let enriched = self.pipeline.stats().enrich;
        let filtered = *self.pipeline.stats().filter;
        self.wait_for_sinks();
        let Self { pipeline, sinks, packets, .. } = self;
        drop(pipeline);
        let deadline = Instant::now() + DEFAULT_DRAIN;
        let packets = packets.map(|packets| packets.finish(deadline));
        let summary = Summary::new(enriched, pipeline::finish_sinks(sinks, deadline));
        let summary = summary.with_filter(&filtered).with_packets(packets);
        exit::tell(&summary);
        if code == exit::OK && summary.output_failed() { exit::FAILURE } else { code }
    }

    fn replay(&mut self, path: &Path) -> Result<(), FileError> {
        let mut file = if path.as_os_str() == "-" {
            let input = Input { sinks: self.sinks.clone(), shutdown: self.shutdown.clone() };
            CaptureFile::from_reader("standard input", Box::new(input), &self.config.file)?
        } else {
            CaptureFile::open(path, &self.config.file)?
        };
        let mut now = KernelInstant::default();
        let result = loop {
            let pipeline = &mut self.pipeline;
            let batch = file.next_batch(&mut |segment| {
                // Not the latest so far: one packet with a wrong date must not make all that follow look overdue.
                now = segment.time;
                if pipeline.is_due(now) {
                    pipeline.expire(now);
                }
                pipeline.push(segment);
            });
            // A batch of a live stream ends where there is no more for a while.
            self.pipeline.publish_metrics();
            self.pipeline.flush_packets(now);
            if self.last_publication.elapsed() >= PUBLISH_PERIOD {
                self.publish();
            }
            match batch {
                Ok(Progress::More) if self.is_over() => break Ok(()),
                Ok(Progress::More) => {}
                Ok(Progress::Ended) => break Ok(()),
                // The input was ended in mid-record by us.
                Err(FileError::Damaged { .. }) if self.shutdown.is_requested() => break Ok(()),
                Err(error) => break Err(error),
            }
        };
        self.pipeline.finish(now);
        say_what_was_left_out(path, &file.stats());
        result
    }

    fn publish(&mut self) {
        self.last_publication = Instant::now();
        let mut rows = stages::pipeline(&self.pipeline.stats());
        rows.extend(stages::sinks(&self.sinks.get().stats()));
        rows.extend(stages::tail(self.sinks.get().tail()));
        if let Some(packets) = &self.packets {
            rows.extend(stages::packets(&self.pipeline.stats().packets, &packets.stats()));
        }
        self.metrics.publish(rows);
    }

    /// Nothing is lost for want of time, unless somebody asks for the end: a target may be slow, or away for a while.
    fn wait_for_sinks(&mut self) {
        self.sinks.get().flush();
        self.pipeline.publish_metrics();
        while !self.is_over() && self.sinks.get().stats().iter().any(|(_, stats)| stats.in_flight > 0) {
            if self.last_publication.elapsed() >= PUBLISH_PERIOD {
                self.publish();
            }
            thread::park_timeout(LOOK_PERIOD);
        }
    }

    fn is_over(&self) -> bool {
        self.shutdown.is_requested() || self.sinks.get().reader_gone()
    }
}

/// A file that gives fewer records than expected says why.
fn say_what_was_left_out(path: &Path, stats: &file::Stats) {
    let packet::Stats { frames, segments, not_ip, not_tcp, malformed, truncated_header, .. } = stats.packets;
    let file = path.display();
    tracing::info!(%file, frames, segments, not_ip, not_tcp, malformed, truncated_header, "read");
    let packet::Stats { unsupported_link, unsupported_link_type, encrypted, payload_cut_bytes, .. } =
        stats.packets;
    if unsupported_link > 0 {
        let link_type = unsupported_link_type.unwrap_or_default();
        tracing::warn!(%file, frames = unsupported_link, link_type, "frames of a link layer that is not decoded");
    }
    if encrypted > 0 {
        tracing::warn!(%file, frames = encrypted, "encrypted or compressed frames cannot be read");
    }
    if payload_cut_bytes > 0 {
        tracing::warn!(%file, bytes = payload_cut_bytes, "the capture cut packets; records of them say what was not seen");
    }
}

/// Standard input that a signal ends, and that hands on finished records before it waits for more bytes.
struct Input {
    sinks: SharedSinks,
    shutdown: Shutdown,
}

impl Read for Input {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let stdin = io::stdin();
        let mut waiting = [
            PollFd::new(stdin.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.shutdown.as_fd(), PollFlags::POLLIN),
        ];
        if poll(&mut waiting, PollTimeout::ZERO)? == 0 {
            self.sinks.get().flush();
            poll(&mut waiting, PollTimeout::NONE)?;
        }
        if self.shutdown.is_requested() {
            return Ok(0);
        }
        Ok(rustix::io::read(stdin.as_fd(), buffer)?)
    }
}
/// Serves what is asked to be served; replay is ready as soon as it runs.
fn serve(
    config: &Config,
    metrics: &Arc<Metrics>,
    own: &Arc<OwnConnections>,
    tail: &Arc<Tail>,
) -> Result<(), admin::StartError> {
    let health = Arc::new(Health::new(Instant::now(), None));
    health.set_ready();
    let shown =
        Shown { metrics: Arc::clone(metrics), health, settings: shown::page(config), tail: Arc::clone(tail) };
    let asked = |listen| if let Listen::At(address) = listen { Some(address) } else { None };
    let settings = (&config.admin, asked(config.admin.listen));
    admin::start(asked(config.metrics.listen), settings, shown, Arc::clone(own))
}
