//! `pod2pod agent`: the kernel's segments through all stages, live. The one loop, and the only place that sees it all.
//!
//! One turn: what the ring holds, what is due, verdicts back to the kernel, records on. The ring is drained on a timer that
//! adapts to what came, since a wake-up per record costs more than the record.

use std::{
    cell::RefCell,
    os::fd::AsFd as _,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    time::{ClockId, clock_gettime},
};

use crate::{
    admin::{self, Listen},
    capture::{KernelInstant, kernel::Capture},
    config::Config,
    enrich::WallOffset,
    exit,
    metrics::{HttpMetrics, Metrics, counters, stages},
    pipeline::{self, Pipeline},
    shutdown::{DEFAULT_DRAIN, Shutdown},
    sinks::{Overflow, OwnConnections, Sinks},
    summary::Summary,
};

/// Records taken from the ring in one turn: a few milliseconds of work, so that time limits and signals are looked at.
const TURN_RECORDS: usize = 8192;
/// The kernel side stops when the heartbeat is 2 s old: four beats may be missed.
const HEARTBEAT_PERIOD: Duration = Duration::from_millis(500);
/// Wall time is read again and metrics are published this often.
const HOUSEKEEPING_PERIOD: Duration = Duration::from_secs(1);
/// Loss is logged this often at most.
const WARNING_PERIOD: Duration = Duration::from_secs(10);
/// Wait after a turn that found records: short of what fills the ring at 1 GB/s, long enough to batch.
const BUSY_WAIT: Duration = Duration::from_millis(2);
/// Longest wait when nothing comes: what a person watching a terminal does not notice.
const IDLE_WAIT: Duration = Duration::from_millis(50);
/// A wait longer than this also ends when the kernel says that the ring fills.
const UNTIL_RING: Duration = Duration::from_millis(5);
/// Niceness of the worker thread: it needs little, but on a machine that is busy with what it watches it needs it in time,
/// or the ring overflows.
const WORKER_NICENESS: i32 = -10;
/// Of the time to drain, this much is the output's.
const OUTPUT_SHARE: Duration = Duration::from_millis(3500);

/// Watches until a signal comes or the reader goes away; says how the program should exit.
pub fn run(config: Config, shutdown: &Shutdown) -> u8 {
    let capture = match Capture::open(&config.capture) {
        Ok(capture) => capture,
        Err(error) => {
            exit::tell(&error);
            return error.exit_code();
        }
    };
    match Agent::start(config, capture, shutdown.clone()) {
        Ok(agent) => agent.run(),
        Err(error) => {
            exit::tell(format_args!("{error:#}"));
            exit::FAILURE
        }
    }
}

struct Agent {
    capture: Capture,
    pipeline: Pipeline,
    sinks: Rc<RefCell<Sinks>>,
    metrics: Arc<Metrics>,
    own: Arc<OwnConnections>,
    own_version: u64,
    shutdown: Shutdown,
    last_segment: KernelInstant,
    last_beat: Instant,
    last_housekeeping: Instant,
    last_warning: Option<Instant>,
    warned: u64,
}

impl Agent {
    fn start(config: Config, capture: Capture, shutdown: Shutdown) -> anyhow::Result<Self> {
        let sockets = capture.own_sockets();
        let forget = sockets.clone();
        let own = Arc::new(OwnConnections::new(
            Box::new(move |cookie| sockets.register(cookie)),
            Box::new(move |cookie| forget.forget(cookie)),
        ));
        let (metrics, http_metrics): (Metrics, HttpMetrics) = Metrics::new()?;
        let metrics = Arc::new(metrics);
        let listen = match config.metrics.listen {
            Listen::Unsaid => Some(admin::DEFAULT_LISTEN),
            Listen::Off => None,
            Listen::At(address) => Some(address),
        };
        let ready = Arc::new(AtomicBool::new(false));
        if let Some(listen) = listen {
            admin::start(listen, Arc::clone(&metrics), Arc::clone(&ready), Arc::clone(&own))?;
        }
        let sinks = pipeline::open_sinks(&config, Overflow::DropNewest, &own, &shutdown)?;
        sinks.borrow_mut().show_header();
        let pipeline = Pipeline::new(&config, Rc::clone(&sinks), Some(http_metrics));
        let now = Instant::now();
        let mut agent = Self {
            capture,
            pipeline,
            sinks,
            metrics,
            own,
            own_version: 0,
            shutdown,
            last_segment: KernelInstant::default(),
            last_beat: now,
            last_housekeeping: now,
            last_warning: None,
            warned: 0,
        };
        agent.beat(now);
        agent.keep_house(now);
        // The programs are attached since the capture was opened; with the first heartbeat they work.
        ready.store(true, Ordering::Relaxed);
        Ok(agent)
    }

    fn run(mut self) -> u8 {
        // Of this thread only. Without CAP_SYS_NICE it is as nice as others.
        let _ = rustix::process::setpriority_process(None, WORKER_NICENESS);
        let mut wait = BUSY_WAIT;
        while !self.shutdown.is_requested() && !self.sinks.borrow().reader_gone() {
            let now = Instant::now();
            if now.duration_since(self.last_beat) >= HEARTBEAT_PERIOD {
                self.beat(now);
            }
            if now.duration_since(self.last_housekeeping) >= HOUSEKEEPING_PERIOD {
                self.keep_house(now);
            }
            let turn = self.turn();
            if turn.more {
                continue;
            }
            wait = if turn.records > 0 { BUSY_WAIT } else { (wait * 2).min(IDLE_WAIT) };
            self.wait(wait);
        }
        self.finish()
    }

    fn turn(&mut self) -> Turn {
        self.update_own_tuples();
        let Self { capture, pipeline, last_segment, .. } = self;
        let before = monotonic();
        let drained = capture.drain(TURN_RECORDS, &mut |segment| {
            *last_segment = (*last_segment).max(segment.time);
            if pipeline.is_due(segment.time) {
                pipeline.expire(segment.time);
            }
            pipeline.push(segment);
        });
        // With a backlog, what looks overdue may be waiting in the ring.
        let now = if drained.more { *last_segment } else { before };
        if pipeline.is_due(now) {
            pipeline.expire(now);
        }
        while let Some(connection) = pipeline.tracker().pop_unwanted() {
            capture.ignore(&connection);
        }
        self.sinks.borrow_mut().flush_due();
        Turn { records: drained.records, more: drained.more }
    }

    fn wait(&self, wait: Duration) {
        let shutdown = PollFd::new(self.shutdown.as_fd(), PollFlags::POLLIN);
        let ring = PollFd::new(self.capture.as_fd(), PollFlags::POLLIN);
        // The ring polls as readable whenever it holds anything: on a short wait that would be at once, every time.
        let both = &mut [shutdown, ring];
        let watched = if wait > UNTIL_RING { &mut both[..] } else { &mut both[..1] };
        let limit = PollTimeout::try_from(wait).unwrap_or(PollTimeout::ZERO);
        // Interrupted or not: the loop looks at everything.
        let _ = poll(watched, limit);
    }

    fn beat(&mut self, now: Instant) {
        self.last_beat = now;
        self.capture.beat();
    }

    fn keep_house(&mut self, now: Instant) {
        self.last_housekeeping = now;
        self.pipeline.set_wall(wall_offset());
        let counted = self.counted();
        self.metrics.publish(counted);
        self.warn_of_loss(now);
    }

    fn counted(&self) -> Vec<stages::Counted> {
        let mut rows = stages::kernel(&self.capture.counters(), self.capture.ring_lost());
        rows.extend(counters::reader(self.capture.stats()));
        rows.extend(stages::pipeline(&self.pipeline.stats()));
        rows.extend(stages::sinks(&self.sinks.borrow().stats()));
        rows
    }

    /// What was lost so far, wherever: in the kernel and in the queues.
    fn lost(&self) -> u64 {
        let queues: u64 = self.sinks.borrow().stats().iter().map(|(_, stats)| stats.lost()).sum();
        self.capture.ring_lost() + queues
    }

    fn warn_of_loss(&mut self, now: Instant) {
        let lost = self.lost();
        let quiet = self.last_warning.is_some_and(|last| now.duration_since(last) < WARNING_PERIOD);
        if lost > self.warned && !quiet {
            let in_kernel = self.capture.ring_lost();
            tracing::warn!(
                lost = lost - self.warned,
                total = lost,
                in_kernel,
                "records were lost; see the loss counters"
            );
            self.warned = lost;
            self.last_warning = Some(now);
        }
    }

    fn update_own_tuples(&mut self) {
        let version = self.own.version();
        if version != self.own_version {
            self.own_version = version;
            self.pipeline.enricher().set_own_tuples(self.own.tuples());
        }
    }

    /// What the ring holds, every open exchange, every queued record: out by the deadline.
    fn finish(mut self) -> u8 {
        let deadline = Instant::now() + DEFAULT_DRAIN;
        while Instant::now() + OUTPUT_SHARE < deadline && self.turn().more {
            self.beat(Instant::now());
        }
        self.pipeline.finish(monotonic());
        let enriched = self.pipeline.stats().enrich;
        let kernel = self.capture.counters();
        let Self { pipeline, sinks, capture, .. } = self;
        drop(pipeline);
        drop(capture);
        let sinks = pipeline::finish_sinks(sinks, deadline);
        let summary = Summary::new(enriched, sinks).with_kernel(&kernel);
        exit::tell(&summary);
        if summary.output_failed() { exit::FAILURE } else { exit::OK }
    }
}

struct Turn {
    records: usize,
    more: bool,
}

fn monotonic() -> KernelInstant {
    KernelInstant::from_nanos(clock(ClockId::CLOCK_MONOTONIC))
}

/// Realtime minus monotonic. Read in the middle of two readings of the other clock, so that being interrupted between
/// them does not shift it.
fn wall_offset() -> WallOffset {
    let before = clock(ClockId::CLOCK_MONOTONIC);
    let wall = clock(ClockId::CLOCK_REALTIME);
    let after = clock(ClockId::CLOCK_MONOTONIC);
    let monotonic = before + after.saturating_sub(before) / 2;
    WallOffset(i64::try_from(i128::from(wall) - i128::from(monotonic)).unwrap_or_default())
}

/// Nanoseconds of `clock`. Zero if it is before its zero or cannot be read, which these two clocks always can.
fn clock(clock: ClockId) -> u64 {
    clock_gettime(clock)
        .map(Duration::from)
        .map_or(0, |time| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX))
}
