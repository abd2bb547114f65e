//! The live source: loads the kernel side, attaches it, and reads what it tells. The only folder that knows eBPF programs
//! and maps.
//!
//! Decides nothing about traffic, and waits for nothing: the caller polls [`Capture`]'s descriptor or a timer.

mod attach;
mod cgroup;
mod config;
mod interfaces;
mod interfaces_message;
mod interfaces_socket;
mod object;
mod open;
mod open_error;
pub mod own_sockets;
mod preflight;
mod ring;
mod rings;
mod snapshot;
mod tc;
mod tc_filter;
mod tc_follow;
mod verdicts;
mod wake;

use std::os::fd::{AsFd, BorrowedFd};

use aya::maps::{Array, MapData, PerCpuArray};
use aya_log::EbpfLogger;
use nix::time::{ClockId, clock_gettime};
use pod2pod_common::{
    control::{Control, SHED_CONNECTIONS},
    counters::CounterValues,
    flow::SCOPE_COOKIE,
    segment::RingState,
};

pub use self::verdicts::{activity_of, verdict_of};
use self::{attach::Attachment, own_sockets::OwnSockets, ring::Ring, verdicts::Verdicts};
pub use self::{
    config::{Config, MAX_RING_BYTES, MIN_RING_BYTES, Pattern, ScopeChoice, SourceChoice, TcWay},
    interfaces::{HOST_VETHS, MAX_INTERFACE_NAME},
    open_error::OpenError,
    ring::Drained,
    snapshot::{IN_PROGRAM_PER_CPU, Snapshot, Unread},
    tc_follow::InterfaceStats,
    wake::{Wake, Woken},
};
use super::{
    Direction, Segment,
    decode::{DecodeError, decode, outline},
};
use crate::reassembly::{Activity, Connection, Steering};

/// The root of cgroup v2, for the names of cgroups.
///
/// # Errors
/// There is none, or it is not visible.
pub fn cgroup_root() -> Result<std::fs::File, OpenError> {
    cgroup::open(None).map(|(root, _)| root)
}

/// What this stage counted since it was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Records taken from the ring.
    pub records: u64,
    /// Bytes of them.
    pub bytes: u64,
    /// Packets whose last record was handed on.
    pub packets: u64,
    /// Captured payload bytes handed on.
    pub payload_bytes: u64,
    /// Packets whose last record was not understood.
    pub refused_packets: u64,
    /// Captured payload bytes, as they say, of records that were not understood.
    pub refused_bytes: u64,
    /// Records of a layout that this program does not read.
    pub unknown_version: u64,
    /// Records that are no records.
    pub malformed: u64,
    /// Verdicts written.
    pub verdicts_written: u64,
    /// Of these, those that leave out a part of a direction.
    pub skips_written: u64,
    /// Verdicts that the kernel refused.
    pub verdicts_refused: u64,
    /// Verdicts of connections that are over, taken out.
    pub verdicts_deleted: u64,
    /// Own sockets that the table had no place for.
    pub own_sockets_refused: u64,
}

/// Interfaces where neither end of a connection is.
#[derive(Debug, Default)]
struct Paths {
    version: u64,
    indices: Vec<u32>,
}

/// The running kernel side. Detaches when dropped.
pub struct Capture {
    // Dropped first, so that nothing is written to maps that are gone.
    attachment: Attachment,
    ring: Ring,
    counters: PerCpuArray<MapData, CounterValues>,
    rings: Array<MapData, RingState>,
    control: Array<MapData, Control>,
    shed_level: u32,
    verdicts: Verdicts,
    own_sockets: OwnSockets,
    logger: Option<EbpfLogger<&'static dyn log::Log>>,
    scope_kind: u32,
    description: String,
    instructions: [Option<u32>; 2],
    paths: Paths,
    stats: Stats,
}

impl Capture {
    /// Hands on at most `max_records` records, each borrowed from ring memory.
    pub fn drain(&mut self, max_records: usize, deliver: &mut impl FnMut(&Segment<'_>)) -> Drained {
        let Self { ring, stats, attachment, paths, .. } = self;
        if let Attachment::Interfaces(follower) = attachment
            && let Some(indices) = follower.paths(&mut paths.version)
        {
            paths.indices = indices;
        }
        let drained = ring.drain(max_records, &mut |record| {
            let outline = outline(record);
            let refused = match decode(record) {
                Ok(mut segment) => {
                    if paths.indices.contains(&segment.interface_index) {
                        segment.direction = Direction::Path;
                    }
                    stats.packets += u64::from(outline.ends_packet);
                    stats.payload_bytes += segment.payload.len() as u64;
                    return deliver(&segment);
                }
                Err(DecodeError::Version(_)) => &mut stats.unknown_version,
                Err(DecodeError::Truncated | DecodeError::Malformed) => &mut stats.malformed,
            };
            *refused += 1;
            stats.refused_packets += u64::from(outline.ends_packet);
            stats.refused_bytes += u64::from(outline.captured);
        });
        self.stats.malformed += u64::from(drained.broken);
        self.stats.records += drained.records as u64;
        self.stats.bytes += drained.bytes as u64;
        self.stats.own_sockets_refused = self.own_sockets.refused();
        if let Some(logger) = &mut self.logger {
            logger.flush();
        }
        drained
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

    /// What the follower of interfaces counted, if interfaces are watched.
    pub fn interface_stats(&self) -> Option<InterfaceStats> {
        match &self.attachment {
            Attachment::Interfaces(follower) => Some(follower.stats()),
            Attachment::Programs(_) => None,
        }
    }

    /// Whether interfaces are watched, and so an end of a connection may be seen several times.
    pub const fn watches_interfaces(&self) -> bool {
        matches!(self.attachment, Attachment::Interfaces(_))
    }

    /// What this stage counted.
    pub const fn stats(&self) -> &Stats {
        &self.stats
    }

    /// Where and how it watches, for people.
    pub fn description(&self) -> &str {
        &self.description
    }

    /// Tells the kernel side what is wanted of a connection.
    pub fn steer(&mut self, steering: &Steering) {
        self.verdicts.write(steering, &mut self.stats);
    }

    /// How a connection stands, of which not everything is sent; absent if the kernel side has forgotten it.
    pub fn activity(&self, connection: &Connection) -> Option<Activity> {
        self.verdicts.activity(connection)
    }

    /// A handle to keep the agent's own sockets out of the capture.
    pub fn own_sockets(&self) -> OwnSockets {
        self.own_sockets.clone()
    }

    /// Whether [`Segment::scope`] is the socket cookie.
    pub const fn scope_is_cookie(&self) -> bool {
        self.scope_kind == SCOPE_COOKIE
    }

    /// Instructions that the verifier went through, of ingress and egress; unknown before Linux 5.16.
    pub const fn verified_instructions(&self) -> [Option<u32>; 2] {
        self.instructions
    }
}

impl AsFd for Capture {
    /// For [`Wake`]: a filling ring wakes its reader; a slow trickle of records does not, so a timer is needed too.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.ring.as_fd()
    }
}
