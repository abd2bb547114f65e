//! `pod2pod agent`: the kernel's segments through all stages, live. Start, what is done beside the loop, and the end; the
//! loop itself is the worker's.

mod clock;
mod ipvs;
mod limits;
mod listeners;
mod names;
mod reload;
mod totals;
mod unwatched;
mod waiting;
mod worker;

use std::{
    sync::Arc,
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use pod2pod_common::counters::Counter;

use self::{
    clock::{instant, monotonic, wall_offset},
    ipvs::Ipvs,
    limits::Limits,
    names::Naming,
    reload::{Reload, Reloads},
    totals::Totals,
    unwatched::Unwatched,
    worker::{LONG_TURN_RECORDS, Seat, Worker},
};
use crate::{
    admin::Health,
    capture::kernel::{Capture, Snapshot, Table},
    check,
    config::Config,
    delivery::Overflow,
    directory::Directory,
    exit,
    joint::Joint,
    metrics::{Ledger, Metrics, counters, kubernetes, ledger, stages},
    mode::Mode,
    pcap,
    pipeline::{self, Pipeline, SharedSightings, SharedSinks},
    restraint::allocator,
    rights::{self, Feature, Part},
    shutdown::{DEFAULT_DRAIN, Shutdown},
    sinks::{OwnConnections, Tail},
    summary::Summary,
    views::Views,
    watch::{self, board::Board},
};

/// The kernel side stops when the heartbeat is 2 s old: four beats may be missed.
const HEARTBEAT_PERIOD: Duration = Duration::from_millis(500);
/// A worker that has begun no turn for this long hangs: the longest wait is an eighth of it, and a turn takes milliseconds.
const MAX_SILENCE: Duration = Duration::from_secs(1);
/// Wall time is read again and metrics are published this often.
const HOUSEKEEPING_PERIOD: Duration = Duration::from_secs(1);
/// The kernel's table of connections is counted this often at most, and only if something came into it.
const CENSUS_PERIOD: Duration = Duration::from_secs(60);
/// Loss is logged this often at most.
const WARNING_PERIOD: Duration = Duration::from_secs(60);
/// Of the time to drain, this much is the output's.
const OUTPUT_SHARE: Duration = Duration::from_millis(3500);

/// Watches until a signal comes or the reader goes away; says how the program should exit.
pub fn run(mut config: Config, shutdown: &Shutdown) -> u8 {
    if let Err(too_small) = config.divide_memory() {
        exit::tell(too_small);
        return exit::CONFIGURATION;
    }
    let lacking = check::before_start(&config);
    if !lacking.is_empty() {
        lacking.iter().for_each(exit::tell);
        return exit::PRIVILEGE;
    }
    let packets = match pcap::Output::open(&config.pcap, Overflow::DropNewest, shutdown) {
        Ok(packets) => packets,
        Err(error) => {
            exit::tell(&error);
            return error.exit_code();
        }
    };
    // Pages of two megabytes for a table that is touched here and there would be memory that nobody uses. Where the
    // kernel knows none, there is nothing to switch off.
    let _ = rustix::thread::disable_transparent_huge_pages(true);
    let capture = match Capture::open(&config.capture) {
        Ok(capture) => capture,
        Err(error) => {
            exit::tell(&error);
            return error.exit_code();
        }
    };
    if !capture.watches_interfaces() {
        check::tell_of_cgroups(&config);
    }
    // What loading took and gave back, the kernel's types among it, is megabytes; tables that are touched here and there are
    // next, and of pages that were in use before they would take all.
    allocator::trim();
    match Agent::start(config, capture, packets, shutdown.clone()) {
        Ok(agent) => agent.run(),
        Err(error) => {
            exit::tell(format_args!("{error:#}"));
            exit::FAILURE
        }
    }
}

struct Agent {
    capture: Capture,
    seats: Vec<Arc<Seat>>,
    house: House,
}

/// What is done beside reading: the heartbeat, metrics, warnings.
struct House {
    limits: Limits,
    metrics: Arc<Metrics>,
    health: Arc<Health>,
    packets: Option<pcap::Output>,
    sightings: Option<SharedSightings>,
    ipvs: Option<Ipvs>,
    directory: Option<Directory>,
    unwatched: Option<Unwatched>,
    reload: Reload,
    reloads: Reloads,
    last_beat: Instant,
    last_housekeeping: Instant,
    last_census: Option<Instant>,
    last_warning: Option<Instant>,
    warned: u64,
    /// Segments that nobody was told of when it was last looked, see [`unseen`].
    unseen: u64,
}

impl Agent {
    fn start(
        config: Config,
        mut capture: Capture,
        packets: Option<pcap::Output>,
        shutdown: Shutdown,
    ) -> anyhow::Result<Self> {
        let used = Used::of(&config);
        let own = own_connections(&capture);
        let (mut metrics, http_metrics) = Metrics::new(&config.routes, config.label_sets)?;
        let naming = Naming::start(&config, &own, &shutdown)?;
        let (pairs, views) = (names::pairs(naming.as_ref(), config.pairs, &mut metrics)?, Views::default());
        let metrics = Arc::new(metrics);
        let health = Arc::new(Health::new(Instant::now(), naming.as_ref().and_then(Naming::lists)));
        let tail = Arc::new(Tail::new(config.tail.clone()));
        listeners::start(&config, &metrics, &health, (&own, &tail))?;
        let sinks = pipeline::open_sinks(&config, Overflow::DropNewest, &own, &tail, &shutdown)?;
        sinks.get().show_header();
        let sightings = capture.watches_interfaces().then(SharedSightings::default);
        let mut seats = Vec::new();
        let (readers, board) = (capture.take_readers(), board(&config.ipvs));
        let workers = readers.len();
        let join = ipvs::join_config(&config.ipvs, workers);
        for reader in readers {
            // The first one's are the sinks themselves: it is the last to finish.
            let sinks =
                if seats.is_empty() { sinks.clone() } else { SharedSinks::new(sinks.get().for_worker()) };
            let mut pipeline = Pipeline::live(&config, sinks.clone(), Some(http_metrics.for_worker()));
            pipeline.count_pairs(pairs.for_worker());
            pipeline.share_views(views.for_worker());
            if let Some(sightings) = &sightings {
                pipeline.share_sightings(sightings.clone());
            }
            if let Some(board) = &board {
                pipeline.join_ipvs(Joint::new(join, Arc::clone(board)));
            }
            if let Some(naming) = &naming {
                pipeline.name_ends(&config, naming.for_worker(workers));
            }
            if let Some(packets) = &packets {
                pipeline.write_packets(&config, packets.clone());
            }
            let worker = Worker::new(reader, pipeline, sinks, Arc::clone(&own));
            seats.push(Arc::new(Seat::new(worker, config.capture.ring_bytes, shutdown.clone())?));
        }
        let behind = naming.as_ref().and_then(Naming::behind);
        let start = |board| Ipvs::start(&config.ipvs, (board, behind), sinks.get().for_worker(), &shutdown);
        let ipvs = board.map(start).transpose()?;
        let now = Instant::now();
        let house = House {
            limits: Limits::new(config.limits, &vec![config.capture.ring_bytes; seats.len()]),
            metrics,
            health,
            packets,
            sightings,
            ipvs,
            directory: naming.map(Naming::directory),
            unwatched: unwatched(&config),
            reload: Reload::new(&config, &own, sinks.get().set(), &shutdown),
            reloads: Reloads::default(),
            last_beat: now,
            last_housekeeping: now,
            last_census: None,
            last_warning: None,
            warned: 0,
            unseen: 0,
        };
        Ok(Self { capture, seats, house }.begin(&used, now))
    }

    /// Everything is open: the kernel side may work, and rights are given up.
    fn begin(mut self, used: &Used, now: Instant) -> Self {
        let Self { capture, seats, house } = &mut self;
        house.begin(capture);
        house.keep(capture, seats, now);
        // It is only memory, and the kernel takes it when it is in need.
        let _ = allocator::forget_text();
        give_up(capture, used);
        // The programs are attached, and work, since the capture was opened.
        house.health.beat(Instant::now());
        house.health.set_ready();
        self
    }

    fn run(mut self) -> u8 {
        let Self { capture, seats, house } = &mut self;
        let mut threads = Vec::new();
        for (number, seat) in seats.iter().enumerate().skip(1) {
            let seat = Arc::clone(seat);
            let thread = thread::Builder::new().name(format!("worker-{number}"));
            match thread.spawn(move || seat.run(&mut |_| ())) {
                Ok(thread) => threads.push(thread),
                Err(error) => {
                    exit::tell(format_args!("cannot start a worker's thread: {error}"));
                    return exit::FAILURE;
                }
            }
        }
        // The first worker's thread is this one: what beats is one that reads.
        if let Some(first) = seats.first() {
            first.run(&mut |now| house.do_due(capture, seats, now));
        }
        // Each sees the end within a turn.
        let panicked = threads.into_iter().map(JoinHandle::join).filter(Result::is_err).count() > 0;
        let code = self.finish();
        if panicked { exit::FAILURE } else { code }
    }

    /// What the rings hold, every open exchange, every queued record: out by the deadline.
    fn finish(self) -> u8 {
        let Self { mut capture, seats, house } = self;
        let deadline = Instant::now() + DEFAULT_DRAIN;
        // Their threads are done: nobody else has them.
        let mut workers: Vec<_> =
            seats.into_iter().filter_map(Arc::into_inner).map(Seat::into_worker).collect();
        for worker in &mut workers {
            while Instant::now() + OUTPUT_SHARE < deadline && worker.turn(LONG_TURN_RECORDS).more {
                capture.beat();
            }
            worker.pipeline.finish(monotonic());
            worker.sinks.get().flush();
        }
        house.ipvs.into_iter().for_each(|ipvs| ipvs.finish(deadline - OUTPUT_SHARE));
        // What comes from here on is not read.
        let watched_until = instant();
        let totals = Totals::of(workers.iter());
        let kernel = capture.counters();
        drop(capture);
        house.unwatched.into_iter().for_each(|unwatched| unwatched.end(watched_until));
        let sinks = workers.into_iter().map(|worker| worker.sinks).next();
        let sinks = sinks.map_or_else(Vec::new, |sinks| pipeline::finish_sinks(sinks, deadline));
        let packets = house.packets.map(|packets| packets.finish(deadline));
        let stages = totals.stages();
        let summary = Summary::new(stages.enrich, sinks).with_kernel(&kernel).with_filter(stages.filter);
        let summary = summary.with_packets(packets);
        exit::tell(&summary);
        if summary.output_failed() { exit::FAILURE } else { exit::OK }
    }
}

impl House {
    /// The programs work from now on.
    fn begin(&mut self, capture: &mut Capture) {
        capture.beat();
        let gap = self.unwatched.as_mut().and_then(|unwatched| unwatched.begin(instant()));
        if let Some(gap) = gap {
            let seconds = gap.length.as_secs_f64();
            tracing::info!(
                seconds,
                killed = gap.killed,
                "nobody watched between the last agent and this one"
            );
        }
    }

    fn do_due(&mut self, capture: &mut Capture, seats: &[Arc<Seat>], now: Instant) {
        capture.pass_on_log();
        if now.duration_since(self.last_beat) >= HEARTBEAT_PERIOD {
            self.last_beat = now;
            if all_work(seats, now) {
                capture.beat();
                self.health.beat(now);
            }
        }
        if now.duration_since(self.last_housekeeping) >= HOUSEKEEPING_PERIOD {
            self.keep(capture, seats, now);
        }
    }

    /// Makes the workers stand still for a moment: what is told of them is of one instant.
    fn keep(&mut self, capture: &mut Capture, seats: &[Arc<Seat>], now: Instant) {
        self.last_housekeeping = now;
        self.reload.keep(&mut self.reloads, now);
        let mut workers: Vec<_> = seats.iter().map(|seat| seat.worker()).collect();
        self.reload.refilter(capture, &mut workers);
        for worker in &mut workers {
            worker.pipeline.set_wall(wall_offset());
            worker.pipeline.publish_metrics();
            worker.pipeline.flush_packets(monotonic());
        }
        let published = stages::published(wall_offset().wall_nanos(monotonic()));
        let readers: Vec<_> = workers.iter().map(|worker| &worker.reader).collect();
        let kernel = capture.snapshot(&readers);
        let unseen = unseen(&kernel, capture.ring_lost());
        if unseen > self.unseen {
            self.unseen = unseen;
            workers.iter_mut().for_each(|worker| worker.pipeline.note_loss(monotonic()));
        }
        let mut totals = Totals::of(workers.iter().map(|worker| &**worker));
        drop(workers);
        totals.reader.own_sockets_refused = capture.own_sockets_refused();
        let ipvs = self.ipvs.as_ref().map(Ipvs::shown);
        ipvs.iter().for_each(|shown| self.limits.follow(shown.exact));
        self.limits.keep(capture, &kernel, now);
        self.health.set_troubled(totals.troubled());
        let mut rows = counted(&kernel, capture.ring_lost(), &totals);
        rows.push(published);
        rows.extend(stages::reloads(self.reloads.taken, self.reloads.refused));
        rows.extend(stages::went_first(seats.iter().map(|seat| seat.went_first()), &totals.sinks));
        rows.extend(stages::table(self.count_connections(capture, now)));
        rows.extend(capture.interface_stats().iter().flat_map(counters::interfaces));
        rows.extend(self.limits.rows());
        rows.extend(
            self.packets.iter().flat_map(|packets| stages::packets(&totals.packets, &packets.stats())),
        );
        rows.extend(self.sightings.iter().flat_map(|sightings| counters::sightings(&sightings.stats())));
        rows.extend(self.unwatched.iter_mut().flat_map(|unwatched| unwatched.keep(instant())));
        rows.extend(self.directory.iter().flat_map(kubernetes::rows));
        if self.directory.is_some() {
            rows.extend(counters::names(&totals.stages().names));
            rows.extend(counters::behind(&totals.stages().behind));
        }
        if let Some(shown) = ipvs {
            rows.extend(shown.rows(now));
            rows.extend(counters::join(&totals.stages().join));
        }
        self.metrics.publish(rows);
        self.warn_of_loss(capture.ring_lost(), &totals, now);
    }

    fn count_connections(&mut self, capture: &mut Capture, now: Instant) -> Table {
        if self.last_census.is_none_or(|last| now.duration_since(last) >= CENSUS_PERIOD) {
            self.last_census = Some(now);
            capture.begin_census();
        }
        capture.table()
    }

    fn warn_of_loss(&mut self, in_kernel: u64, totals: &Totals, now: Instant) {
        // Wherever it was lost: in the kernel and in the queues.
        let queues: u64 = totals.sinks.iter().map(|(_, stats)| stats.lost()).sum();
        let lost = in_kernel + queues;
        let quiet = self.last_warning.is_some_and(|last| now.duration_since(last) < WARNING_PERIOD);
        if lost > self.warned && !quiet {
            tracing::warn!(
                lost = lost - self.warned,
                total = lost,
                in_kernel,
                remedy = if in_kernel > 0 { "raise capture.ring_bytes" } else { "raise output.queue_bytes" },
                "records were lost; see the loss counters"
            );
            self.warned = lost;
            self.last_warning = Some(now);
        }
    }
}

/// What outlives this agent, if it may leave something behind. It goes on without.
fn unwatched(config: &Config) -> Option<Unwatched> {
    let opened = Unwatched::open(config.data_dir.as_deref()?);
    opened.inspect_err(|error| tracing::warn!(%error, "time in which nobody watches is not counted")).ok()
}

/// Our own connections, whose sockets the kernel side is told of.
fn own_connections(capture: &Capture) -> Arc<OwnConnections> {
    let (sockets, forget) = (capture.own_sockets(), capture.own_sockets());
    Arc::new(OwnConnections::new(
        Box::new(move |cookie| sockets.register(cookie)),
        Box::new(move |cookie| forget.forget(cookie)),
    ))
}

/// What of the configuration decides about rights.
struct Used {
    ipvs: bool,
    exact: bool,
    packets: bool,
    /// Services have names.
    cluster: bool,
}

impl Used {
    fn of(config: &Config) -> Self {
        let ipvs = config.ipvs.mode != Mode::Off;
        let exact = ipvs && config.ipvs.follows();
        Self { ipvs, exact, packets: config.pcap.file.is_some(), cluster: config.kubernetes.is_asked() }
    }
}

/// Everything is open: this thread, and the workers that it starts, keep what they need from here on; the others did so
/// when they began. What all keep is told.
fn give_up(capture: &Capture, used: &Used) {
    let follows = capture.watches_interfaces();
    let is_used = |feature| match feature {
        Feature::Exact => used.exact,
        Feature::ExactWhereClosed => used.exact && rights::probes_need_a_right(),
        Feature::HostNamespace => used.exact && !watch::source::is_host(),
        Feature::IpvsAsked => used.ipvs,
        Feature::Conntrack => used.cluster,
        Feature::LaterInterfaces => follows,
        // For some seconds only.
        Feature::StaleFilters => false,
        Feature::PacketFile => used.packets,
        Feature::MapCalls => rights::calls_need_a_right(),
        Feature::Capture | Feature::LockedMemory | Feature::OwnMount | Feature::GoFirst => true,
    };
    let kept = rights::kept(rights::effective(), is_used);
    match rights::keep(Part::Worker, is_used) {
        Ok(()) => tracing::info!(kept, process = rights::state(), "rights are given up"),
        Err(error) => tracing::warn!(%error, "rights cannot be given up"),
    }
}

fn board(config: &watch::config::Config) -> Option<Arc<Board>> {
    (config.mode != Mode::Off).then(|| Arc::new(ipvs::board(config)))
}

/// Whether every worker takes its turns. Where one does not, its connections are not read, and the kernel side is left to
/// stop for all of them: half a view is none.
fn all_work(seats: &[Arc<Seat>], now: Instant) -> bool {
    all_heard(seats.iter().map(|seat| seat.silence(now)))
}

fn all_heard(mut silences: impl Iterator<Item = Duration>) -> bool {
    silences.all(|silence| silence < MAX_SILENCE)
}

/// Segments that an answer may have been among, and that were lost or left out before anybody knew whose they were.
fn unseen(kernel: &Snapshot, ring_lost: u64) -> u64 {
    let of = |counter| kernel.counters.of(counter);
    ring_lost + of(Counter::HeartbeatStale) + of(Counter::SegmentsShedConnections)
}

fn counted(kernel: &Snapshot, ring_lost: u64, totals: &Totals) -> Vec<stages::Counted> {
    let stages = totals.stages();
    let ledger = Ledger::of(&ledger::Sources {
        kernel,
        reader: &totals.reader,
        reassembly: stages.reassembly,
        http: stages.http,
        open: (stages.open_exchanges + stages.open_attempts) as u64,
        filter: stages.filter,
        enrich: &stages.enrich,
        waiting: stages.waiting as u64,
        names: stages.names,
        sinks: &totals.sinks,
    });
    let mut rows = stages::kernel(&kernel.counters.0, ring_lost);
    rows.extend(totals.rows());
    rows.extend(ledger.rows());
    rows
}

#[cfg(test)]
mod tests {
    use pod2pod_common::limits::HEARTBEAT_TIMEOUT_NS;

    use super::*;

    #[test]
    fn one_worker_that_hangs_stops_the_heartbeat() {
        let (quiet, nearly) = (Duration::ZERO, MAX_SILENCE - Duration::from_nanos(1));
        assert!(all_heard([quiet, nearly].into_iter()));
        assert!(!all_heard([quiet, MAX_SILENCE, quiet].into_iter()));
        // An idle worker is heard in time, and a hanging one is before the kernel side would stop by itself.
        assert!(waiting::MAX_WAIT * 2 < MAX_SILENCE);
        assert!(MAX_SILENCE + HEARTBEAT_PERIOD < Duration::from_nanos(HEARTBEAT_TIMEOUT_NS));
    }
}
