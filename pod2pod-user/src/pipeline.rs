//! The stages in their order, one segment in, records out: what the agent and replay share. No loop, no clock.

use std::{cell::RefCell, rc::Rc, sync::Arc, time::Instant};

use crate::{
    capture::{KernelInstant, Segment},
    config::Config,
    enrich::{self, Enricher, Fate, WallOffset},
    http::{self, HttpTracker},
    metrics::HttpMetrics,
    reassembly::{self, Reassembler},
    shutdown::Shutdown,
    sinks::{HttpSink, Overflow, OwnConnections, SinkStats, Sinks, Writer},
};

/// The sinks as configured, shared by a worker and its pipeline.
///
/// # Errors
/// The output cannot be opened, or the thread of a sink cannot be started.
pub fn open_sinks(
    config: &Config,
    overflow: Overflow,
    own: &Arc<OwnConnections>,
    shutdown: &Shutdown,
) -> anyhow::Result<Rc<RefCell<Sinks>>> {
    let writer = Writer::open(&config.output, overflow, shutdown)?;
    let http = config.http_sink.clone().build();
    let http = http.map(|http| HttpSink::start(http, overflow, Arc::clone(own), shutdown.clone()));
    Ok(Rc::new(RefCell::new(Sinks::new(writer, http.transpose()?))))
}

/// Waits until everything queued is out, at most until `deadline`; what the sinks counted. Drop the pipeline before.
pub fn finish_sinks(sinks: Rc<RefCell<Sinks>>, deadline: Instant) -> Vec<(&'static str, SinkStats)> {
    match Rc::try_unwrap(sinks) {
        Ok(sinks) => sinks.into_inner().finish(deadline),
        Err(shared) => shared.borrow().stats(),
    }
}

/// All stages behind capture, owned by one worker.
pub struct Pipeline {
    reassembler: Reassembler,
    tracker: HttpTracker,
    output: Output,
}

/// What exchanges go through once they are whole.
struct Output {
    enricher: Enricher,
    sinks: Rc<RefCell<Sinks>>,
    metrics: Option<HttpMetrics>,
    wall: WallOffset,
}

impl Pipeline {
    /// Stages as configured; records go to `sinks`.
    pub fn new(config: &Config, sinks: Rc<RefCell<Sinks>>, metrics: Option<HttpMetrics>) -> Self {
        let enricher = Enricher::new(config.enrich.clone());
        Self {
            reassembler: Reassembler::new(config.reassembly.clone()),
            tracker: HttpTracker::new(config.http.clone()),
            output: Output { enricher, sinks, metrics, wall: WallOffset::default() },
        }
    }

    /// Takes a segment through all stages. What is due before its time is told first.
    pub fn push(&mut self, segment: &Segment<'_>) {
        let Self { reassembler, tracker, output } = self;
        let now = segment.time;
        reassembler.push(segment, now, &mut |chunk| tracker.push(chunk, now));
        output.drain(tracker);
    }

    /// Tells what is due at `now`.
    pub fn expire(&mut self, now: KernelInstant) {
        let Self { reassembler, tracker, output } = self;
        reassembler.expire(now, &mut |chunk| tracker.push(chunk, now));
        tracker.expire(now);
        output.drain(tracker);
    }

    /// Whether [`Pipeline::expire`] has something to do at `now`.
    pub fn is_due(&self, now: KernelInstant) -> bool {
        let due = |deadline: Option<KernelInstant>| deadline.is_some_and(|deadline| deadline <= now);
        due(self.tracker.next_deadline()) || due(self.reassembler.next_deadline())
    }

    /// The source ended: every connection is closed.
    pub fn finish(&mut self, now: KernelInstant) {
        let Self { reassembler, tracker, output } = self;
        reassembler.finish(&mut |chunk| tracker.push(chunk, now));
        output.drain(tracker);
    }

    /// Fresh connections for the next source; what was counted by enrichment stays.
    pub fn restart(&mut self, config: &Config) {
        self.reassembler = Reassembler::new(config.reassembly.clone());
        self.tracker = HttpTracker::new(config.http.clone());
    }

    /// What is added to stamps for the wall clock from here on.
    pub const fn set_wall(&mut self, wall: WallOffset) {
        self.output.wall = wall;
    }

    /// The HTTP stage, for its verdicts.
    pub const fn tracker(&mut self) -> &mut HttpTracker {
        &mut self.tracker
    }

    /// The enricher, for the agent's own tuples.
    pub const fn enricher(&mut self) -> &mut Enricher {
        &mut self.output.enricher
    }

    /// What the stages counted. The HTTP metrics are as new as the last call.
    pub fn stats(&self) -> Stats<'_> {
        if let Some(metrics) = &self.output.metrics {
            metrics.publish();
        }
        Stats {
            reassembly: self.reassembler.stats(),
            http: self.tracker.stats(),
            enrich: *self.output.enricher.stats(),
            label_overflows: self.output.metrics.as_ref().map_or(0, HttpMetrics::overflowed),
        }
    }
}

/// What the stages counted.
#[derive(Clone, Copy, Debug)]
pub struct Stats<'a> {
    /// Reassembly.
    pub reassembly: &'a reassembly::Stats,
    /// HTTP.
    pub http: &'a http::Stats,
    /// Enrichment.
    pub enrich: enrich::Stats,
    /// Exchanges whose metrics lost their labels.
    pub label_overflows: u64,
}

impl Output {
    fn drain(&mut self, tracker: &mut HttpTracker) {
        while let Some(exchange) = tracker.pop() {
            let (record, fate) = self.enricher.enrich(exchange, self.wall);
            if matches!(fate, Fate::Keep | Fate::SampledAway)
                && let Some(metrics) = &mut self.metrics
            {
                metrics.observe(&record);
            }
            if fate == Fate::Keep {
                self.sinks.borrow_mut().write(&record);
            }
        }
    }
}
