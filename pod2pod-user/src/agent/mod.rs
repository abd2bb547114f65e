//! `pod2pod agent`: the kernel's segments through all stages, live. Start, what is done beside the loop, and the end; the
//! loop itself is the worker's.

mod clock;
mod limits;
mod waiting;
mod worker;

use std::{
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use self::{
    clock::{monotonic, wall_offset},
    limits::Limits,
    worker::Worker,
};
use crate::{
    admin::{self, Listen},
    capture::kernel::{Capture, Snapshot},
    config::Config,
    exit,
    metrics::{HttpMetrics, Ledger, Metrics, counters, ledger, stages},
    pipeline::{self, Pipeline, SharedSightings},
    shutdown::{DEFAULT_DRAIN, Shutdown},
    sinks::{Overflow, OwnConnections},
    summary::Summary,
};

/// The kernel side stops when the heartbeat is 2 s old: four beats may be missed.
const HEARTBEAT_PERIOD: Duration = Duration::from_millis(500);
/// Wall time is read again and metrics are published this often.
const HOUSEKEEPING_PERIOD: Duration = Duration::from_secs(1);
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
    match Agent::start(config, capture, shutdown.clone()) {
        Ok(agent) => agent.run(),
        Err(error) => {
            exit::tell(format_args!("{error:#}"));
            exit::FAILURE
        }
    }
}

struct Agent {
    worker: Worker,
    house: House,
}

/// What is done beside reading: the heartbeat, metrics, warnings.
struct House {
    limits: Limits,
    metrics: Arc<Metrics>,
    sightings: Option<SharedSightings>,
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
        let mut pipeline = Pipeline::live(&config, Rc::clone(&sinks), Some(http_metrics));
        let sightings = capture.watches_interfaces().then(SharedSightings::default);
        if let Some(sightings) = &sightings {
            pipeline.share_sightings(sightings.clone());
        }
        let limits = Limits::new(config.limits, &[config.capture.ring_bytes]);
        let now = Instant::now();
        let mut worker = Worker::new(capture, pipeline, sinks, own, shutdown, config.capture.ring_bytes)?;
        let mut house = House {
            limits,
            metrics,
            sightings,
            last_beat: now,
            last_housekeeping: now,
            last_warning: None,
            warned: 0,
        };
        house.beat(&mut worker, now);
        house.keep(&mut worker, now);
        // The programs are attached since the capture was opened; with the first heartbeat they work.
        ready.store(true, Ordering::Relaxed);
        Ok(Self { worker, house })
    }

    fn run(mut self) -> u8 {
        let Self { worker, house } = &mut self;
        worker.run(&mut |worker, now| house.do_due(worker, now));
        self.finish()
    }

    /// What the ring holds, every open exchange, every queued record: out by the deadline.
    fn finish(self) -> u8 {
        let Self { mut worker, mut house } = self;
        let deadline = Instant::now() + DEFAULT_DRAIN;
        while Instant::now() + OUTPUT_SHARE < deadline && worker.turn().more {
            house.beat(&mut worker, Instant::now());
        }
        let Worker { capture, mut pipeline, sinks, .. } = worker;
        pipeline.finish(monotonic());
        let enriched = pipeline.stats().enrich;
        let filtered = *pipeline.stats().filter;
        let kernel = capture.counters();
        drop(pipeline);
        drop(capture);
        let sinks = pipeline::finish_sinks(sinks, deadline);
        let summary = Summary::new(enriched, sinks).with_kernel(&kernel).with_filter(&filtered);
        exit::tell(&summary);
        if summary.output_failed() { exit::FAILURE } else { exit::OK }
    }
}

impl House {
    fn do_due(&mut self, worker: &mut Worker, now: Instant) {
        if now.duration_since(self.last_beat) >= HEARTBEAT_PERIOD {
            self.beat(worker, now);
        }
        if now.duration_since(self.last_housekeeping) >= HOUSEKEEPING_PERIOD {
            self.keep(worker, now);
        }
    }

    fn beat(&mut self, worker: &mut Worker, now: Instant) {
        self.last_beat = now;
        worker.capture.beat();
    }

    fn keep(&mut self, worker: &mut Worker, now: Instant) {
        self.last_housekeeping = now;
        worker.pipeline.set_wall(wall_offset());
        worker.pipeline.publish_metrics();
        let kernel = worker.capture.snapshot();
        self.limits.keep(&mut worker.capture, &kernel, now);
        let mut rows = counted(worker, &kernel);
        rows.extend(self.limits.rows());
        rows.extend(self.sightings.iter().flat_map(|sightings| counters::sightings(&sightings.stats())));
        self.metrics.publish(rows);
        self.warn_of_loss(worker, now);
    }

    fn warn_of_loss(&mut self, worker: &Worker, now: Instant) {
        let lost = lost(worker);
        let quiet = self.last_warning.is_some_and(|last| now.duration_since(last) < WARNING_PERIOD);
        if lost > self.warned && !quiet {
            let in_kernel = worker.capture.ring_lost();
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

fn counted(worker: &Worker, kernel: &Snapshot) -> Vec<stages::Counted> {
    let stages = worker.pipeline.stats();
    let sinks = worker.sinks.borrow().stats();
    let ledger = Ledger::of(&ledger::Sources {
        kernel,
        reader: worker.capture.stats(),
        http: stages.http,
        open: stages.open_exchanges as u64,
        filter: stages.filter,
        enrich: &stages.enrich,
        sinks: &sinks,
    });
    let mut rows = stages::kernel(&kernel.counters.0, worker.capture.ring_lost());
    rows.extend(counters::reader(worker.capture.stats()));
    rows.extend(worker.capture.interface_stats().iter().flat_map(counters::interfaces));
    rows.extend(stages::pipeline(&stages));
    rows.extend(stages::sinks(&sinks));
    rows.extend(ledger.rows());
    rows
}

/// What was lost so far, wherever: in the kernel and in the queues.
fn lost(worker: &Worker) -> u64 {
    let queues: u64 = worker.sinks.borrow().stats().iter().map(|(_, stats)| stats.lost()).sum();
    worker.capture.ring_lost() + queues
}
