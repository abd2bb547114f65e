//! The agent keeps to its limits: measures once a second what it takes, sets what is shed, and says so.
//!
//! What is decided is `restraint`'s; here are the clock, the log and the gauges.

use std::time::{Duration, Instant};

use pod2pod_common::decision::DECISION_RING_BYTES;

use super::clock::monotonic;
use crate::{
    capture::kernel::{Capture, Snapshot},
    metrics::stages::{Counted, Kind},
    restraint::{
        Config, Level, Shedder, allocator,
        cpu::{self, Meter, Totals, Window},
        memory::{self, Measured},
        shedding::MEMORY_LOW,
    },
};

/// What is shed is logged this often at most.
const WARNING_PERIOD: Duration = Duration::from_secs(60);

/// Near the limit the allocator is asked for what it keeps this often at most.
const TRIM_PERIOD: Duration = Duration::from_secs(5);

/// Limits, and what was measured last.
pub(super) struct Limits {
    config: Config,
    /// Bytes of rings in the process's address space.
    mapped: u64,
    /// Those of decisions of IPVS, and which turning on or off of exact mode they are of.
    mapped_of_ipvs: u64,
    turn_of_ipvs: u64,
    /// What the kernel charges for maps: fixed once they are made.
    maps: Option<u64>,
    meter: Meter,
    window: Window,
    measured: Measured,
    peak: u64,
    by_cpu: Shedder,
    by_memory: Shedder,
    level: Level,
    last_warning: Option<Instant>,
    last_trim: Option<Instant>,
}

impl Limits {
    /// Nothing is shed yet. `rings` are the sizes of the rings.
    pub(super) fn new(config: Config, rings: &[u32]) -> Self {
        Self {
            config,
            mapped: rings.iter().map(|bytes| memory::mapped_of_ring(*bytes)).sum(),
            mapped_of_ipvs: 0,
            turn_of_ipvs: 0,
            maps: None,
            meter: Meter::default(),
            window: Window::default(),
            measured: Measured::default(),
            peak: 0,
            by_cpu: Shedder::of_cpu(),
            by_memory: Shedder::of_memory(),
            level: Level::Nothing,
            last_warning: None,
            last_trim: None,
        }
    }

    /// Exact mode was turned on or off so many times, and `is_on`: its maps come and go.
    pub(super) fn follow(&mut self, (turn, is_on): (u64, bool)) {
        if turn != self.turn_of_ipvs {
            self.turn_of_ipvs = turn;
            self.mapped_of_ipvs = if is_on { memory::mapped_of_ring(DECISION_RING_BYTES) } else { 0 };
            self.maps = None;
        }
    }

    /// Measures, and has the kernel side shed as much as is needed.
    pub(super) fn keep(&mut self, capture: &mut Capture, kernel: &Snapshot, now: Instant) {
        let totals = Totals {
            process: cpu::of_process(),
            // A look at every descriptor: only where somebody needs it.
            measured: self.config.cpu.map_or(Duration::ZERO, |_| cpu::of_programs()),
            estimated: cpu::estimated(&kernel.counters),
        };
        if let Some(window) = self.meter.window(Duration::from_nanos(monotonic().as_nanos()), totals) {
            self.window = window;
            if let Some(budget) = self.config.cpu {
                self.by_cpu.window(window.millicores(), budget.into());
            }
        }
        let maps = *self.maps.get_or_insert_with(memory::maps);
        self.measured = Measured { process: memory::resident(self.mapped + self.mapped_of_ipvs), maps };
        let has_room = self.measured.total() * 100 <= self.config.memory * MEMORY_LOW;
        if !has_room && self.last_trim.is_none_or(|last| now.duration_since(last) >= TRIM_PERIOD) {
            self.last_trim = Some(now);
            allocator::trim();
            self.measured.process = memory::resident(self.mapped + self.mapped_of_ipvs);
        }
        self.peak = self.peak.max(self.measured.total());
        self.by_memory.window(self.measured.total(), self.config.memory);
        let level = self.by_cpu.level().max(self.by_memory.level());
        if level != self.level {
            self.level = level;
            capture.shed(level.of_kernel());
        }
        self.warn(now);
    }

    fn warn(&mut self, now: Instant) {
        let quiet = self.last_warning.is_some_and(|last| now.duration_since(last) < WARNING_PERIOD);
        if self.level == Level::Nothing || quiet {
            return;
        }
        self.last_warning = Some(now);
        let (limit, remedy) = if self.by_memory.level() >= self.by_cpu.level() {
            ("limits.memory", "raise it, or watch less: filters, capture.cgroup, a smaller ring")
        } else {
            ("limits.cpu", "raise it, or watch less: filters, capture.cgroup")
        };
        tracing::warn!(
            shed = self.level.word(),
            limit,
            millicores = self.window.millicores(),
            memory_bytes = self.measured.total(),
            remedy,
            "near a limit: what is shed is counted"
        );
    }

    /// What was measured, beside the limits.
    pub(super) fn rows(&self) -> Vec<Counted> {
        let memory = "Memory taken: resident without rings, and kernel maps with them.";
        let cores = "Processor time taken in the last second, in cores: by the process, and by its programs in the kernel.";
        let gauge = |name: &str, help, value: f64| Counted {
            name: format!("pod2pod_{name}"),
            help,
            kind: Kind::Gauge,
            labels: Vec::new(),
            value,
        };
        let share = |time: Duration| {
            let length = self.window.length.as_secs_f64();
            if length > 0.0 { time.as_secs_f64() / length } else { 0.0 }
        };
        let budget = self.config.cpu.map_or(f64::INFINITY, |millicores| f64::from(millicores) / 1000.0);
        vec![
            Counted::gauge("memory_bytes", memory, self.measured.process).with("of", "process"),
            Counted::gauge("memory_bytes", memory, self.measured.maps).with("of", "maps"),
            Counted::gauge(
                "memory_peak_bytes",
                "Most memory taken so far, as measured each second.",
                self.peak,
            ),
            Counted::gauge("memory_limit_bytes", "limits.memory.", self.config.memory),
            gauge("cpu_cores", cores, share(self.window.process)).with("of", "process"),
            gauge("cpu_cores", cores, share(self.window.programs)).with("of", "programs"),
            gauge("cpu_limit_cores", "limits.cpu.", budget),
            Counted::gauge(
                "shed_level",
                "What is shed: 0 nothing, 1 bodies, 2 headers too, 3 new connections too.",
                self.level.of_kernel().into(),
            ),
        ]
    }
}
