//! The live source: loads the kernel side, attaches it, and reads what it tells. The only folder that knows eBPF programs
//! and maps.
//!
//! Decides nothing about traffic, and waits for nothing: the caller does, with [`Wake`].

mod attach;
mod batch;
mod census;
mod cgroup;
mod config;
mod decisions;
pub mod findings;
mod interfaces;
mod interfaces_message;
mod interfaces_socket;
mod object;
mod open;
mod open_error;
pub mod own_sockets;
mod preflight;
mod reader;
mod ring;
mod rings;
mod snapshot;
mod tc;
mod tc_filter;
mod tc_follow;
mod verdicts;
mod wake;

use std::io;

use aya::maps::{Array, MapData, PerCpuArray};
use aya_log::EbpfLogger;
use nix::time::{ClockId, clock_gettime};
use pod2pod_common::{
    control::{Control, SHED_CONNECTIONS},
    counters::{Counter, CounterValues},
    flow::{ConnectionState, FlowKey, GATE_UNWANTED, SCOPE_COOKIE},
    segment::RingState,
    verdict::Verdict,
};

pub use self::verdicts::{activity_of, verdict_of};
use self::{attach::Attachment, batch::Entries, census::Census, own_sockets::OwnSockets};
pub use self::{
    census::Table,
    config::{Config, MAX_RING_BYTES, MIN_RING_BYTES, Pattern, ScopeChoice, SourceChoice, TcWay, Workers},
    decisions::{Decisions, DecisionsConfig, Unavailable},
    interfaces::{HOST_VETHS, MAX_INTERFACE_NAME},
    open_error::OpenError,
    preflight::locks_memory,
    reader::{Reader, Stats},
    ring::Drained,
    snapshot::{IN_PROGRAM_PER_CPU, Snapshot, Unread},
    tc_follow::InterfaceStats,
    wake::{Wake, Woken},
};

/// The root of cgroup v2, for the names of cgroups.
///
/// # Errors
/// There is none, or it is not visible.
pub fn cgroup_root() -> Result<std::fs::File, OpenError> {
    cgroup::open(None).map(|(root, _)| root)
}

/// Controllers of resources that cgroup v1 has here: numbers of cgroups do not tell containers apart then.
pub fn v1_controllers() -> Vec<&'static str> {
    cgroup::v1_controllers()
}

/// The running kernel side. Detaches when dropped.
pub struct Capture {
    // Dropped first, so that nothing is written to maps that are gone.
    attachment: Attachment,
    readers: Vec<Reader>,
    entries: Entries,
    verdict_entries: Entries,
    census: Census,
    counters: PerCpuArray<MapData, CounterValues>,
    rings: Array<MapData, RingState>,
    control: Array<MapData, Control>,
    shed_level: u32,
    own_sockets: OwnSockets,
    logger: Option<EbpfLogger<&'static dyn log::Log>>,
    scope_kind: u32,
    description: String,
    instructions: [Option<u32>; 2],
}

impl Capture {
    /// The readers, one for each ring; none when they were taken before.
    pub fn take_readers(&mut self) -> Vec<Reader> {
        std::mem::take(&mut self.readers)
    }

    /// Passes on what the kernel side logged, if it was asked to.
    pub fn pass_on_log(&mut self) {
        if let Some(logger) = &mut self.logger {
            logger.flush();
        }
    }

    /// Tells the kernel side that the agent lives. Without it for [`pod2pod_common::limits::HEARTBEAT_TIMEOUT_NS`] the
    /// programs let every packet pass unseen.
    pub fn beat(&mut self) {
        // The clock exists on every Linux, and a failed write means the next one comes in time.
        if let Ok(now) = clock_gettime(ClockId::CLOCK_MONOTONIC) {
            let heartbeat_ns = now.tv_sec() as u64 * 1_000_000_000 + now.tv_nsec() as u64;
            let control = Control { heartbeat_ns, shed_level: self.shed_level, reserved: 0 };
            let _ = self.control.set(0, control, 0);
        }
    }

    /// Has the kernel side shed from the next packet on: a `SHED_*` level of [`pod2pod_common::control`]; one above the
    /// highest is the highest.
    pub fn shed(&mut self, level: u32) {
        self.shed_level = level.min(SHED_CONNECTIONS);
        self.beat();
    }

    /// Reservations that failed because the ring was full.
    pub fn ring_lost(&self) -> u64 {
        (0..self.rings.len()).filter_map(|ring| self.rings.get(&ring, 0).ok()).map(|state| state.lost).sum()
    }

    /// Begins to count what the table of connections holds, unless nothing was inserted since it was last counted.
    pub fn begin_census(&mut self) {
        let counters = CounterValues(self.counters());
        self.census.begin(counters.of(Counter::ConnectionsInserted));
    }

    /// Goes on counting, a bounded piece of the table, and says how many it held when it was last counted whole.
    pub fn table(&mut self) -> Table {
        let Self { census, entries, .. } = self;
        census.step(|place| entries.look(place));
        census.table()
    }

    /// Socket ends of which nothing is wanted, as was said by [`Reader::steer`]: one of the readers has them looked at again.
    ///
    /// # Errors
    /// The kernel refuses to tell.
    pub fn unwanted(&mut self) -> io::Result<Vec<FlowKey>> {
        let mut keys = self.verdict_entries.keys_of(Verdict::is_refusal)?;
        // There is room for more connections than for verdicts.
        let is_left_alone = |state: &ConnectionState| state.gate == GATE_UNWANTED;
        keys.append(&mut self.entries.keys_of(is_left_alone)?);
        Ok(keys)
    }

    /// What the follower of interfaces counted, if interfaces are watched.
    pub fn interface_stats(&self) -> Option<InterfaceStats> {
        match &self.attachment {
            Attachment::Interfaces(follower) => Some(follower.stats()),
            Attachment::Loaded(_) | Attachment::Cgroup { .. } => None,
        }
    }

    /// Whether interfaces are watched, and so an end of a connection may be seen several times.
    pub const fn watches_interfaces(&self) -> bool {
        matches!(self.attachment, Attachment::Interfaces(_))
    }

    /// Own sockets that the table had no place for.
    pub fn own_sockets_refused(&self) -> u64 {
        self.own_sockets.refused()
    }

    /// Where and how it watches, for people.
    pub fn description(&self) -> &str {
        &self.description
    }

    /// A handle to keep the agent's own sockets out of the capture.
    pub fn own_sockets(&self) -> OwnSockets {
        self.own_sockets.clone()
    }

    /// Whether [`super::Segment::scope`] is the socket cookie.
    pub const fn scope_is_cookie(&self) -> bool {
        self.scope_kind == SCOPE_COOKIE
    }

    /// Instructions that the verifier went through, of ingress and egress; unknown before Linux 5.16.
    pub const fn verified_instructions(&self) -> [Option<u32>; 2] {
        self.instructions
    }
}
