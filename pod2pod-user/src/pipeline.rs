//! The stages in their order, one segment in, records out: what the agent and replay share. No loop, no clock.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use crate::{
    capture::{KernelInstant, Segment},
    config::Config,
    enrich::{self, Enricher, Fate, WallOffset},
    filter::{
        self, Filter, Verdict,
        sightings::{SightingStats, Sightings},
    },
    host::Host,
    http::{self, Exchange, HttpTracker},
    metrics::{HttpMetrics, routes},
    pcap::{self, Recorder},
    reassembly::{self, Activity, Chunk, CloseCause, Connection, Content, Reassembler, Side, Steering},
    shutdown::Shutdown,
    sinks::{HttpSink, Overflow, OwnConnections, SinkStats, Sinks, Writer},
};

/// One worker's sinks, shared by its pipeline and whoever says when to flush. Nobody waits for it: it is the worker's own.
#[derive(Clone, Debug)]
pub struct SharedSinks(Arc<Mutex<Sinks>>);

impl SharedSinks {
    /// Shares `sinks`.
    pub fn new(sinks: Sinks) -> Self {
        Self(Arc::new(Mutex::new(sinks)))
    }

    /// The sinks.
    pub fn get(&self) -> MutexGuard<'_, Sinks> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The sinks as configured.
///
/// # Errors
/// The output cannot be opened, or the thread of a sink cannot be started.
pub fn open_sinks(
    config: &Config,
    overflow: Overflow,
    own: &Arc<OwnConnections>,
    shutdown: &Shutdown,
) -> anyhow::Result<SharedSinks> {
    let writer = Writer::open(&config.output, overflow, shutdown)?;
    let http = config.http_sink.clone().build();
    let http = http.map(|http| HttpSink::start(http, overflow, Arc::clone(own), shutdown.clone()));
    Ok(SharedSinks::new(Sinks::new(writer, http.transpose()?)))
}

/// Waits until everything queued is out, at most until `deadline`; what the sinks counted. Drop the pipeline before.
pub fn finish_sinks(sinks: SharedSinks, deadline: Instant) -> Vec<(&'static str, SinkStats)> {
    match Arc::try_unwrap(sinks.0) {
        Ok(sinks) => sinks.into_inner().unwrap_or_else(PoisonError::into_inner).finish(deadline),
        Err(shared) => SharedSinks(shared).get().stats(),
    }
}

/// Who tells of connections that several interfaces see: shared by all workers, since NAT may give the sightings of one
/// connection to several. Asked once a connection.
#[derive(Clone, Debug, Default)]
pub struct SharedSightings(Arc<Mutex<Sightings>>);

impl SharedSightings {
    /// What was counted.
    pub fn stats(&self) -> SightingStats {
        *self.lock().stats()
    }

    /// A worker that panicked leaves a whole table behind.
    fn lock(&self) -> MutexGuard<'_, Sightings> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// All stages behind capture, owned by one worker.
pub struct Pipeline {
    reassembler: Reassembler,
    gate: Gate,
    tracker: HttpTracker,
    output: Output,
    /// Where what was captured is written.
    recorder: Option<Box<Recorder>>,
}

/// Judges connections, and keeps those that are refused from the stages behind.
struct Gate {
    filter: Filter,
    host: Host,
    /// Nothing is to be judged.
    is_open: bool,
    /// Where connections may be seen at several interfaces.
    sightings: Option<SharedSightings>,
    /// Refused since [`Pipeline::settle`].
    refused: Vec<Connection>,
    /// Of which chunks were let through since then, if somebody wants to know.
    passed: Option<Vec<Connection>>,
}

/// What exchanges go through once they are whole.
struct Output {
    enricher: Enricher,
    sinks: SharedSinks,
    metrics: Option<HttpMetrics>,
    wall: WallOffset,
}

impl Pipeline {
    /// Stages as configured; records go to `sinks`.
    pub fn new(config: &Config, sinks: SharedSinks, metrics: Option<HttpMetrics>) -> Self {
        let enricher = Enricher::new(config.enrich.clone());
        Self {
            reassembler: Reassembler::new(config.reassembly.clone()),
            gate: Gate::new(Filter::new(config.filter.clone())),
            tracker: HttpTracker::new(config.http.clone()),
            output: Output { enricher, sinks, metrics, wall: WallOffset::default() },
            recorder: None,
        }
    }

    /// Also writes what is captured to `output`. Nothing is left out of bodies then: the file has every packet. To be called
    /// before the first segment, and after [`Self::share_sightings`].
    pub fn write_packets(&mut self, config: &Config, output: pcap::Output) {
        let is_judged = !self.gate.is_open;
        let rules = pcap::Rules { redaction: config.enrich.redaction, http: &config.http, is_judged };
        self.gate.passed = is_judged.then(Vec::new);
        self.recorder = Some(Box::new(Recorder::new(&config.pcap, &rules, output)));
        self.tracker = self.new_tracker(config);
    }

    fn new_tracker(&self, config: &Config) -> HttpTracker {
        let mut http = config.http.clone();
        http.disclose = self.recorder.as_ref().is_some_and(|recorder| recorder.wants_disclosures());
        HttpTracker::new(http)
    }

    /// Stages behind a capture that does what [`Self::steer`] tells it.
    pub fn live(config: &Config, sinks: SharedSinks, metrics: Option<HttpMetrics>) -> Self {
        let mut config = config.clone();
        config.http.min_skip = Some(http::DEFAULT_MIN_SKIP);
        config.reassembly.credit_step = Some(reassembly::config::DEFAULT_CREDIT_STEP);
        Self::new(&config, sinks, metrics)
    }

    /// Takes a segment through all stages. What is due before its time is told first.
    pub fn push(&mut self, segment: &Segment<'_>) {
        let Self { reassembler, gate, tracker, output, recorder } = self;
        let now = segment.time;
        if let Some(recorder) = recorder
            && !output.enricher.owns(segment.source, segment.destination)
        {
            recorder.take(segment, output.wall);
        }
        reassembler.push(segment, now, &mut |chunk| gate.push(chunk, now, tracker));
        self.settle(now);
    }

    /// What the capture is to know of connections, in order, at most one thing a connection. To be taken each turn by
    /// whoever can tell it, and by nobody else.
    pub fn steer(&mut self, tell: &mut impl FnMut(&Steering)) {
        let Self { reassembler, tracker, .. } = self;
        while let Some(skip) = tracker.pop_skip() {
            reassembler.skip(&skip.connection, skip.sender, skip.until);
        }
        while let Some(steering) = reassembler.pop_steering() {
            tell(&steering);
        }
    }

    /// Has `ask` say how connections stand of which not everything is sent, before [`Self::expire`] judges their silence.
    pub fn look(&mut self, now: KernelInstant, ask: &mut impl FnMut(&Connection) -> Option<Activity>) {
        let Self { reassembler, gate, tracker, .. } = self;
        while let Some(connection) = reassembler.pop_silent(now) {
            if let Some(activity) = ask(&connection) {
                let deliver = &mut |chunk: Chunk<'_>| gate.push(chunk, now, tracker);
                reassembler.note_activity(&connection, activity, now, deliver);
            }
        }
        self.settle(now);
    }

    /// Tells what is due at `now`.
    pub fn expire(&mut self, now: KernelInstant) {
        let Self { reassembler, gate, tracker, .. } = self;
        reassembler.expire(now, &mut |chunk| gate.push(chunk, now, tracker));
        tracker.expire(now);
        self.settle(now);
    }

    /// Whether [`Pipeline::expire`] has something to do at `now`.
    pub fn is_due(&self, now: KernelInstant) -> bool {
        let due = |deadline: Option<KernelInstant>| deadline.is_some_and(|deadline| deadline <= now);
        due(self.tracker.next_deadline()) || due(self.reassembler.next_deadline())
    }

    /// The source ended: every connection is closed.
    pub fn finish(&mut self, now: KernelInstant) {
        let Self { reassembler, gate, tracker, .. } = self;
        reassembler.finish(&mut |chunk| gate.push(chunk, now, tracker));
        self.settle(now);
        if let Some(recorder) = &mut self.recorder {
            recorder.finish();
        }
    }

    /// Hands on packets that have waited long enough at `now`.
    pub fn flush_packets(&mut self, now: KernelInstant) {
        if let Some(recorder) = &mut self.recorder {
            recorder.release(now);
            recorder.flush();
        }
    }

    /// Hands on what was told, and leaves alone what was refused.
    fn settle(&mut self, now: KernelInstant) {
        let Self { reassembler, gate, tracker, output, recorder } = self;
        if let Some(recorder) = recorder {
            while let Some(disclosure) = tracker.pop_disclosure() {
                recorder.disclose(&disclosure);
            }
            gate.passed
                .iter_mut()
                .flat_map(|passed| passed.drain(..))
                .for_each(|passed| recorder.want(&passed));
        }
        output.drain(tracker, gate, recorder);
        while let Some(connection) = tracker.pop_unwanted() {
            reassembler.ignore(&connection);
        }
        if gate.refused.is_empty() {
            return;
        }
        for connection in &gate.refused {
            reassembler.refuse(connection);
            // Of what was read before it was known to be unwanted nothing is kept either.
            let content = Content::Closed(CloseCause::Evicted);
            let sender = Side::Originator;
            tracker.push(Chunk { connection, sender, time: now, offset: 0, content }, now);
            if let Some(recorder) = recorder {
                recorder.refuse(connection);
            }
        }
        output.drain(tracker, gate, recorder);
        gate.refused.clear();
    }

    /// Fresh connections for the next source; what was counted by filter and enrichment stays.
    pub fn restart(&mut self, config: &Config) {
        self.reassembler = Reassembler::new(config.reassembly.clone());
        self.tracker = self.new_tracker(config);
    }

    /// Tells each end of a connection once, though several interfaces may see it.
    pub fn share_sightings(&mut self, sightings: SharedSightings) {
        self.gate.is_open = false;
        self.gate.sightings = Some(sightings);
    }

    /// What is added to stamps for the wall clock from here on.
    pub const fn set_wall(&mut self, wall: WallOffset) {
        self.output.wall = wall;
    }

    /// The enricher, for the agent's own tuples.
    pub const fn enricher(&mut self) -> &mut Enricher {
        &mut self.output.enricher
    }

    /// Makes what the HTTP metrics counted visible to those who read them.
    pub fn publish_metrics(&self) {
        if let Some(metrics) = &self.output.metrics {
            metrics.publish();
        }
    }

    /// What the stages counted.
    pub fn stats(&self) -> Stats<'_> {
        Stats {
            reassembly: self.reassembler.stats(),
            filter: self.gate.filter.stats(),
            http: self.tracker.stats(),
            open_exchanges: self.tracker.open_exchanges(),
            enrich: *self.output.enricher.stats(),
            routes: self.output.metrics.as_ref().map(HttpMetrics::route_stats).unwrap_or_default(),
            packets: self.recorder.as_ref().map(|recorder| *recorder.stats()).unwrap_or_default(),
            label_overflows: self.output.metrics.as_ref().map_or(0, HttpMetrics::overflowed),
        }
    }
}

/// What the stages counted.
#[derive(Clone, Copy, Debug)]
pub struct Stats<'a> {
    /// Reassembly.
    pub reassembly: &'a reassembly::Stats,
    /// Filter.
    pub filter: &'a filter::Stats,
    /// HTTP.
    pub http: &'a http::Stats,
    /// Exchanges that the HTTP stage has begun and not told.
    pub open_exchanges: usize,
    /// Enrichment.
    pub enrich: enrich::Stats,
    /// The finding of routes.
    pub routes: routes::Stats,
    /// Packets to be written to a file.
    pub packets: pcap::Stats,
    /// Exchanges whose metrics lost their labels.
    pub label_overflows: u64,
}

impl Gate {
    fn new(filter: Filter) -> Self {
        let is_open = filter.is_open();
        Self { filter, host: Host::default(), is_open, sightings: None, refused: Vec::new(), passed: None }
    }

    /// Hands a chunk on if its connection is wanted; a connection is judged with its first one.
    fn push(&mut self, chunk: Chunk<'_>, now: KernelInstant, tracker: &mut HttpTracker) {
        if !self.is_open && !tracker.follows(chunk.connection) {
            let is_over = matches!(chunk.content, Content::Closed(_));
            if is_over || self.has_refused(chunk.connection) {
                return;
            }
            let sightings = self.sightings.as_ref();
            let is_duplicate =
                || sightings.is_some_and(|sightings| sightings.lock().is_duplicate(chunk.connection, now));
            if let Verdict::Ignore(_) = self.filter.judge(chunk.connection, &mut self.host, is_duplicate) {
                self.refused.push(*chunk.connection);
                return;
            }
        }
        if let Some(passed) = &mut self.passed {
            passed.push(*chunk.connection);
        }
        tracker.push(chunk, now);
    }

    /// Whether an exchange is of a connection that is wanted.
    fn wants(&mut self, exchange: &Exchange) -> bool {
        if self.is_open {
            return true;
        }
        let connection = &exchange.connection;
        let refused = self.has_refused(connection);
        if !refused && self.filter.still_wants(connection, exchange.client) {
            return true;
        }
        self.filter.count_exchange();
        if !refused {
            self.refused.push(*connection);
        }
        false
    }

    /// Whether a connection was refused just now. Hardly ever is it more than one.
    fn has_refused(&self, connection: &Connection) -> bool {
        self.refused.iter().any(|refused| refused.token == connection.token)
    }
}

impl Output {
    fn drain(&mut self, tracker: &mut HttpTracker, gate: &mut Gate, recorder: &mut Option<Box<Recorder>>) {
        tracker.drain_told(|exchange| {
            if !gate.wants(exchange) {
                return;
            }
            let connection = recorder.is_some().then_some(exchange.connection);
            let (record, fate) = self.enricher.enrich(exchange, self.wall);
            if let (Some(recorder), Some(connection)) = (recorder.as_mut(), connection)
                && matches!(fate, Fate::Keep | Fate::SampledAway)
                && !record.in_progress
            {
                recorder.comment(&connection, record);
            }
            if matches!(fate, Fate::Keep | Fate::SampledAway)
                && let Some(metrics) = &mut self.metrics
            {
                metrics.observe(record);
            }
            if fate == Fate::Keep {
                self.sinks.get().write(record);
            }
        });
    }
}
