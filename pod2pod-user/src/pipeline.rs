//! The stages in their order, one segment in, records out: what the agent and replay share. No loop, no clock.

mod closer;
mod gate;
mod output;

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use anyhow::Context as _;

use crate::{
    behind,
    capture::{KernelInstant, Segment},
    config::Config,
    delivery::{DeadLetters, Overflow, SinkStats},
    enrich::{self, Enricher, WallOffset},
    filter::{self, Filter, Selection},
    http::{self, HttpTracker},
    ipvs,
    joint::Joint,
    metrics::{HttpMetrics, PairMetrics, routes},
    named::{self, Names},
    pcap::{self, Recorder},
    reassembly::{self, Activity, Chunk, CloseCause, Connection, Content, Reassembler, Side, Steering},
    shutdown::Shutdown,
    sinks::{Kept, OwnConnections, Remote, SinkConfig, Sinks, Tail, Writer, closer::Closer, left_behind},
    views::{self, Views},
};

pub use self::gate::SharedSightings;
use self::{gate::Gate, output::Output};

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
    tail: &Arc<Tail>,
    shutdown: &Shutdown,
) -> anyhow::Result<SharedSinks> {
    let writer = Writer::open(&config.output, overflow, shutdown)?;
    let remotes =
        config.sinks.iter().map(|sink| open_sink(config, sink, overflow, own, Duration::ZERO, shutdown));
    let remotes = remotes.collect::<anyhow::Result<_>>()?;
    if let Some(data_dir) = config.data_dir.as_deref().filter(|_| overflow == Overflow::DropNewest) {
        for (folder, bytes) in left_behind(data_dir, &config.sinks) {
            let folder = folder.display();
            tracing::warn!(%folder, bytes, "what is kept here is of no sink that there is: of NAME.TYPE it is that one's");
        }
    }
    Ok(SharedSinks::new(Sinks::new(writer, remotes).with_tail(Arc::clone(tail))))
}

/// One further sink; how long it waits for its spool, if one of its name, which leaves, still has it.
///
/// # Errors
/// A file cannot be used, or its thread not be started.
pub fn open_sink(
    config: &Config,
    sink: &SinkConfig,
    overflow: Overflow,
    own: &Arc<OwnConnections>,
    patience: Duration,
    shutdown: &Shutdown,
) -> anyhow::Result<Remote> {
    let name = || Arc::clone(&sink.common.name);
    let dead = config.data_dir.as_deref().map(|folder| DeadLetters::of(folder, name())).transpose()?;
    // What is replayed can be replayed again, and the spool is the agent's.
    let data_dir = config.data_dir.clone().filter(|_| overflow == Overflow::DropNewest);
    let kept = Kept { dead, data_dir, patience };
    let started = sink.clone().start(overflow, Arc::clone(own), kept, shutdown.clone());
    started.with_context(|| format!("sinks.{}", name()))
}

/// Waits until everything queued is out, at most until `deadline`; what the sinks counted. Drop the pipeline before.
pub fn finish_sinks(sinks: SharedSinks, deadline: Instant) -> Vec<(Arc<str>, SinkStats)> {
    match Arc::try_unwrap(sinks.0) {
        Ok(sinks) => sinks.into_inner().unwrap_or_else(PoisonError::into_inner).finish(deadline),
        Err(shared) => SharedSinks(shared).get().stats(),
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
    /// Who looks closer, and which change of that is followed; none by a new tracker.
    closer: Arc<Closer>,
    closer_version: Option<u64>,
}

impl Pipeline {
    /// Stages as configured; records go to `sinks`.
    pub fn new(config: &Config, sinks: SharedSinks, metrics: Option<HttpMetrics>) -> Self {
        let enricher = Enricher::new(config.enrich.clone());
        let closer = Arc::clone(sinks.get().closer());
        Self {
            reassembler: Reassembler::new(config.reassembly.clone()),
            gate: Gate::new(Filter::new(config.filter.clone())),
            tracker: HttpTracker::new(config.http.clone()),
            output: Output::new(enricher, sinks, metrics),
            recorder: None,
            closer,
            closer_version: None,
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
        self.closer_version = None;
    }

    fn new_tracker(&self, config: &Config) -> HttpTracker {
        let mut http = config.http.clone();
        if let Some(names) = &self.output.names {
            http.more_headers = names.rules().offered_headers().to_vec();
            http.more_body_prefix = names.rules().most_body_bytes();
        }
        http.disclose = self.recorder.as_ref().is_some_and(|recorder| recorder.wants_disclosures());
        HttpTracker::new(http)
    }

    /// Also says of each record what IPVS did with its connection.
    pub fn join_ipvs(&mut self, joint: Joint) {
        self.output.last.joint = Some(Box::new(joint));
    }

    /// Also says of each record who its ends are, and keeps what pods may ask for. To be called before the first segment.
    pub fn name_ends(&mut self, config: &Config, names: Names) {
        self.output.enricher.decode_up_to(names.rules().most_body_bytes());
        self.output.names = Some(Box::new(names));
        self.tracker = self.new_tracker(config);
        self.closer_version = None;
    }

    /// Also counts exchanges by who their ends are.
    pub fn count_pairs(&mut self, pairs: PairMetrics) {
        self.output.last.pairs = Some(pairs);
    }

    /// Views of an exchange may come through other workers too: these are met.
    pub fn share_views(&mut self, views: Views) {
        self.output.last.views = views;
    }

    /// Takes what is new of IPVS. To be called each turn.
    #[inline]
    pub fn read_ipvs(&mut self) {
        self.output.read_ipvs();
    }

    /// Stages behind a capture that does what [`Self::steer`] tells it.
    pub fn live(config: &Config, sinks: SharedSinks, metrics: Option<HttpMetrics>) -> Self {
        let mut config = config.clone();
        config.http.min_skip = Some(http::DEFAULT_MIN_SKIP);
        config.reassembly.credit_step = Some(reassembly::config::DEFAULT_CREDIT_STEP);
        let mut pipeline = Self::new(&config, sinks, metrics);
        pipeline.gate.open_places();
        pipeline
    }

    /// Takes a segment through all stages. What is due before its time is told first.
    pub fn push(&mut self, segment: &Segment<'_>) {
        self.look_closer();
        let Self { reassembler, gate, tracker, output, recorder, .. } = self;
        let now = segment.time;
        if let Some(joint) = &mut output.last.joint {
            joint.see(segment);
        }
        if let Some(recorder) = recorder
            && segment.unreachable.is_none()
            && !output.enricher.owns(segment.source, segment.destination)
        {
            recorder.take(segment, output.wall);
        }
        if segment.opens() {
            gate.note_syn(segment);
        }
        let names = &mut output.names;
        reassembler.push(segment, now, &mut |chunk| gate.push(chunk, now, tracker, names.as_deref_mut()));
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
        let Self { reassembler, gate, tracker, output, .. } = self;
        let names = &mut output.names;
        while let Some(connection) = reassembler.pop_silent(now) {
            if let Some(activity) = ask(&connection) {
                let deliver = &mut |chunk: Chunk<'_>| gate.push(chunk, now, tracker, names.as_deref_mut());
                reassembler.note_activity(&connection, activity, now, deliver);
            }
        }
        self.settle(now);
    }

    /// The source has lost or left out segments of connections that it does not name, some time before `now`.
    pub fn note_loss(&mut self, now: KernelInstant) {
        self.reassembler.note_loss(now);
    }

    /// Tells what is due at `now`.
    pub fn expire(&mut self, now: KernelInstant) {
        // First: what is refused by its names is left alone below.
        self.output.expire(now, &mut self.gate);
        loop {
            let Self { reassembler, gate, tracker, output, .. } = self;
            let names = &mut output.names;
            reassembler.expire(now, &mut |chunk| gate.push(chunk, now, tracker, names.as_deref_mut()));
            let may_be_more = reassembler.attempts_are_full();
            tracker.expire(now);
            self.settle(now);
            if !may_be_more {
                break;
            }
        }
    }

    /// Whether [`Pipeline::expire`] has something to do at `now`.
    pub fn is_due(&self, now: KernelInstant) -> bool {
        let due = |deadline: Option<KernelInstant>| deadline.is_some_and(|deadline| deadline <= now);
        due(self.tracker.next_deadline()) || due(self.reassembler.next_deadline()) || self.output.is_due(now)
    }

    /// The source ended: every connection is closed.
    pub fn finish(&mut self, now: KernelInstant) {
        loop {
            let Self { reassembler, gate, tracker, output, .. } = self;
            let names = &mut output.names;
            reassembler.finish(&mut |chunk| gate.push(chunk, now, tracker, names.as_deref_mut()));
            let may_be_more = reassembler.attempts_are_full();
            self.settle(now);
            if !may_be_more {
                break;
            }
        }
        self.output.finish(now);
        self.recorder.iter_mut().for_each(|recorder| recorder.finish());
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
        let Self { reassembler, gate, tracker, output, recorder, .. } = self;
        if let Some(recorder) = recorder {
            while let Some(disclosure) = tracker.pop_disclosure() {
                recorder.disclose(&disclosure);
            }
            gate.passed
                .iter_mut()
                .flat_map(|passed| passed.drain(..))
                .for_each(|passed| recorder.want(&passed));
        }
        output.drain(tracker, gate, recorder, now);
        while let Some(attempt) = reassembler.pop_attempt() {
            if gate.wants_attempt(&attempt, now) {
                output.tell_attempt(&attempt, now);
            }
        }
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
        output.drain(tracker, gate, recorder, now);
        gate.refused.clear();
    }

    /// Fresh connections for the next source; what was counted by filter and enrichment stays.
    pub fn restart(&mut self, config: &Config) {
        self.reassembler = Reassembler::new(config.reassembly.clone());
        self.tracker = self.new_tracker(config);
        self.closer_version = None;
    }

    /// Other rules of which connections and exchanges are wanted, from now on: what was kept is judged by them with its next exchange,
    /// and what was refused when it is seen again, which the capture is to be told.
    pub fn refilter(&mut self, rules: &filter::Config, selection: &Selection) {
        self.gate.change(rules.clone());
        self.output.names.iter_mut().for_each(|names| names.select(selection.clone()));
        self.reassembler.forget_refused();
    }

    /// Tells each end of a connection once, though several interfaces may see it.
    pub fn share_sightings(&mut self, sightings: SharedSightings) {
        self.reassembler.watch_interfaces();
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
    pub fn publish_metrics(&mut self) {
        let last = &mut self.output.last;
        last.metrics.iter().for_each(|metrics| metrics.publish());
        last.pairs.iter_mut().for_each(PairMetrics::publish);
    }

    /// What the stages counted.
    pub fn stats(&self) -> Stats<'_> {
        Stats {
            reassembly: self.reassembler.stats(),
            filter: self.gate.filter.stats(),
            http: self.tracker.stats(),
            open_exchanges: self.tracker.open_exchanges(),
            open_attempts: self.reassembler.open_attempts(),
            enrich: *self.output.enricher.stats(),
            routes: self.output.last.metrics.as_ref().map(HttpMetrics::route_stats).unwrap_or_default(),
            packets: self.recorder.as_ref().map(|recorder| *recorder.stats()).unwrap_or_default(),
            label_overflows: self.output.last.metrics.as_ref().map_or(0, HttpMetrics::overflowed),
            pairs_overflowed: self.output.last.pairs.as_ref().map(PairMetrics::overflowed),
            views: *self.output.last.views.stats(),
            waiting: self.output.waiting(),
            join: self.output.last.joint.as_ref().map(|joint| *joint.stats()).unwrap_or_default(),
            names: self.output.names.as_ref().map(|names| names.stats()).unwrap_or_default(),
            behind: self.output.names.as_ref().map(|names| names.behind_stats()).unwrap_or_default(),
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
    /// Connection attempts that nothing has come of so far.
    pub open_attempts: usize,
    /// Enrichment.
    pub enrich: enrich::Stats,
    /// The finding of routes.
    pub routes: routes::Stats,
    /// Packets to be written to a file.
    pub packets: pcap::Stats,
    /// Exchanges whose metrics lost their labels.
    pub label_overflows: u64,
    /// Exchanges counted without who their ends are, where pairs are counted.
    pub pairs_overflowed: Option<u64>,
    /// What came of views.
    pub views: views::Stats,
    /// Records that wait until it is known what IPVS did with their connection, or who its ends are.
    pub waiting: usize,
    /// What was joined with IPVS.
    pub join: ipvs::join::Stats,
    /// What was named.
    pub names: named::Stats,
    /// What was found behind Services' addresses.
    pub behind: behind::Stats,
}

#[cfg(test)]
mod tests {
    use std::{net::SocketAddr, time::Duration};

    use super::*;
    use crate::{
        capture::Scope,
        enrich::Connects,
        ipvs::{
            Tuple,
            exact::{Decision, Met, Outcome},
            parse::Protocol,
            services::Standing,
            state::State,
        },
        reassembly::{Attempt, Fate as Came, Start},
        sinks,
        watch::board::Board,
    };

    const NOW: Duration = Duration::from_secs(100);

    #[test]
    fn a_reuse_names_a_failure_that_has_no_record() {
        /// More than a client may have told at once.
        const ATTEMPTS: u32 = 150;
        let (client, service) = (([10, 244, 1, 2].into(), 40_001), ([10, 96, 0, 10].into(), 80));
        let met = Met {
            server: ([10, 244, 2, 3].into(), 8080),
            standing: Standing::Weight(0),
            state: State::TimeWait,
            flags: 0,
            left: NOW,
            idle: NOW,
            is_controlled: false,
        };
        let tuple = Tuple { protocol: Protocol::TCP, client, service };
        let (outcome, met) = (Outcome::Reused, Some(met));
        let decision =
            Decision { at: NOW, tuple, outcome, is_repeated: None, met, made: None, after: None, isn: 1 };
        let time = KernelInstant::from_nanos(NOW.as_nanos() as u64);
        let ends = (SocketAddr::from(client), SocketAddr::from(service));
        for (connects, records) in [(Connects::Off, 0..=0), (Connects::Failed, 1..=u64::from(ATTEMPTS) - 1)] {
            let output = sinks::Config { file: Some("/dev/null".into()), ..sinks::Config::default() };
            let shutdown = Shutdown::without_signals().unwrap();
            let writer = Writer::open(&output, Overflow::DropNewest, &shutdown).unwrap();
            let mut config = Config::default();
            config.enrich.connects = connects;
            let shared = SharedSinks::new(Sinks::new(writer, Vec::new()));
            let mut pipeline = Pipeline::new(&config, shared.clone(), None);
            let board = Arc::<Board>::default();
            let join =
                ipvs::join::Config { max_suspects: 10, max_waiting: 10, max_waiting_bytes: usize::MAX };
            pipeline.join_ipvs(Joint::new(join, Arc::clone(&board)));
            board.put_decisions(&[decision]);
            pipeline.read_ipvs();
            for isn in 0..ATTEMPTS {
                let connection = Connection {
                    originator_isn: Some(isn),
                    syn_time: Some(time),
                    ..Connection::between(Scope::default(), ends, None, Start::Handshake)
                };
                let attempt = Attempt { connection, fate: Came::Refused, end: time, late: false };
                pipeline.output.tell_attempt(&attempt, time);
                assert!(board.failed(client, &[service], isn).is_some(), "{connects:?}: {isn}");
            }
            shared.get().flush();
            let came = shared.get().stats()[0].1.received;
            assert!(records.contains(&came), "{connects:?}: {came} records");
        }
    }
}
