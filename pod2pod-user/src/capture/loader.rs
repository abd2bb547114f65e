//! Loads the kernel side, attaches it, and reads what it tells. The only file that knows eBPF programs and maps.
//!
//! Decides nothing about traffic, and waits for nothing: the caller polls [`Capture`]'s descriptor or a timer.

use std::{
    fs::File,
    net::{IpAddr, SocketAddr},
    os::fd::{AsFd, BorrowedFd},
    path::PathBuf,
};

use aya::{
    Ebpf, EbpfLoader,
    maps::{Array, HashMap, Map, MapData, MapError, PerCpuArray, RingBuf},
    programs::{CgroupAttachMode, CgroupSkb, CgroupSkbAttachType},
};
use aya_log::EbpfLogger;
use nix::time::{ClockId, clock_gettime};
use pod2pod_common::{
    counters::{COUNTERS, CounterValues},
    flow::{FlowKey, SCOPE_COOKIE},
    limits::{DEFAULT_RING_BYTES, DEFAULT_WAKE_THRESHOLD_BYTES},
    names,
    segment::RingState,
    verdict::{ACTION_IGNORE, Verdict},
};

pub use super::open_error::OpenError;
use super::{
    Segment, cgroup,
    decode::{DecodeError, decode},
    object,
    own_sockets::OwnSockets,
    preflight,
};
use crate::reassembly::{Connection, Start};

/// Smallest ring: a record of the largest class must fit several times. Bytes.
pub const MIN_RING_BYTES: u32 = 256 * 1024;
/// Largest ring: what a u32 holds as a power of two that the kernel can still map twice (kernel/bpf/ringbuf.c). Bytes.
pub const MAX_RING_BYTES: u32 = 1 << 30;
/// The wake-up must come while most of the ring is free.
const WAKE_SHARE_OF_RING: u32 = 4;
/// aya-log's levels (aya_log_common::Level).
const LOG_OFF: u8 = 0;
const LOG_DEBUG: u8 = 4;

/// What tells network worlds apart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ScopeChoice {
    /// The cgroup id where cgroup v2 is the only hierarchy, the socket cookie elsewhere.
    #[default]
    Auto,
    /// The cgroup id of the socket.
    Cgroup,
    /// The socket cookie.
    Cookie,
}

/// How to capture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Watch this cgroup only: a path from the root of cgroup v2 on (`kubepods.slice`) or an absolute one.
    pub cgroup: Option<PathBuf>,
    /// Size of the ring: a power of two from [`MIN_RING_BYTES`] to [`MAX_RING_BYTES`].
    pub ring_bytes: u32,
    /// What tells network worlds apart.
    pub scope: ScopeChoice,
    /// Pass on what the kernel side says of its decisions. Costs nothing when off: the code is then dead to the verifier.
    pub debug_log: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self { cgroup: None, ring_bytes: DEFAULT_RING_BYTES, scope: ScopeChoice::Auto, debug_log: false }
    }
}

/// What one call to [`Capture::drain`] did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Drained {
    /// Records taken from the ring.
    pub records: usize,
    /// Bytes of them, waste of their size classes included.
    pub bytes: usize,
    /// The limit was reached: there may be more.
    pub more: bool,
}

/// What this stage counted since it was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Records taken from the ring.
    pub records: u64,
    /// Bytes of them.
    pub bytes: u64,
    /// Records of a layout that this program does not read.
    pub unknown_version: u64,
    /// Records that are no records.
    pub malformed: u64,
    /// Ignore verdicts written.
    pub verdicts_written: u64,
    /// Ignore verdicts that the kernel refused.
    pub verdicts_refused: u64,
    /// Own sockets that the table had no place for.
    pub own_sockets_refused: u64,
}

/// The running kernel side. Detaches when dropped.
pub struct Capture {
    // Dropped first, so that nothing is written to maps that are gone.
    _ebpf: Ebpf,
    ring: RingBuf<MapData>,
    counters: PerCpuArray<MapData, CounterValues>,
    rings: Array<MapData, RingState>,
    heartbeat: Array<MapData, u64>,
    verdicts: HashMap<MapData, FlowKey, Verdict>,
    own_sockets: OwnSockets,
    logger: Option<EbpfLogger<&'static dyn log::Log>>,
    scope_kind: u32,
    description: String,
    instructions: [Option<u32>; 2],
    stats: Stats,
}

impl Capture {
    /// Loads and attaches. Packets are told from here on, and as long as [`Self::beat`] is called.
    ///
    /// # Errors
    /// Something is missing; the error says what, and what to do.
    pub fn open(config: &Config) -> Result<Self, OpenError> {
        let object = object::embedded().ok_or(OpenError::NoObject)?;
        preflight::check()?;
        let (cgroup, path) = cgroup::open(config.cgroup.as_deref())?;
        let scope_kind = cgroup::choose_scope(config.scope);
        let ring_bytes = config.ring_bytes.clamp(MIN_RING_BYTES, MAX_RING_BYTES).next_power_of_two();
        let wake_threshold = u64::from(DEFAULT_WAKE_THRESHOLD_BYTES.min(ring_bytes / WAKE_SHARE_OF_RING));
        let log_level = if config.debug_log { LOG_DEBUG } else { LOG_OFF };
        let mut ebpf = EbpfLoader::new()
            .override_global(names::GLOBAL_SCOPE_KIND, &scope_kind, true)
            .override_global(names::GLOBAL_WAKE_THRESHOLD, &wake_threshold, true)
            .override_global(names::GLOBAL_LOG_LEVEL, &log_level, true)
            .map_max_entries(names::MAP_SEGMENTS, ring_bytes)
            .load(object)
            .map_err(|cause| OpenError::Load { cause: Box::new(cause) })?;
        let instructions =
            [load(&mut ebpf, names::PROGRAM_CGROUP_INGRESS)?, load(&mut ebpf, names::PROGRAM_CGROUP_EGRESS)?];
        let logger = if config.debug_log { EbpfLogger::init(&mut ebpf).ok() } else { None };
        let mut capture = Self {
            ring: map(&mut ebpf, names::MAP_SEGMENTS)?,
            counters: map(&mut ebpf, names::MAP_COUNTERS)?,
            rings: map(&mut ebpf, names::MAP_RINGS)?,
            heartbeat: map(&mut ebpf, names::MAP_HEARTBEAT)?,
            verdicts: map(&mut ebpf, names::MAP_VERDICTS)?,
            own_sockets: OwnSockets::new(map(&mut ebpf, names::MAP_OWN_SOCKETS)?),
            _ebpf: ebpf,
            logger,
            scope_kind,
            description: format!("{} by {}", path.display(), scope_name(scope_kind)),
            instructions,
            stats: Stats::default(),
        };
        capture.beat();
        attach(&mut capture._ebpf, names::PROGRAM_CGROUP_INGRESS, &cgroup, CgroupSkbAttachType::Ingress)?;
        attach(&mut capture._ebpf, names::PROGRAM_CGROUP_EGRESS, &cgroup, CgroupSkbAttachType::Egress)?;
        Ok(capture)
    }

    /// Hands on at most `max_records` records, each borrowed from ring memory.
    pub fn drain(&mut self, max_records: usize, deliver: &mut impl FnMut(&Segment<'_>)) -> Drained {
        let mut drained = Drained::default();
        while drained.records < max_records {
            let Some(record) = self.ring.next() else { break };
            drained.records += 1;
            drained.bytes += record.len();
            match decode(&record) {
                Ok(segment) => deliver(&segment),
                Err(DecodeError::Version(_)) => self.stats.unknown_version += 1,
                Err(DecodeError::Truncated | DecodeError::Malformed) => self.stats.malformed += 1,
            }
        }
        drained.more = drained.records == max_records;
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
            let nanoseconds = now.tv_sec() as u64 * 1_000_000_000 + now.tv_nsec() as u64;
            let _ = self.heartbeat.set(0, nanoseconds, 0);
        }
    }

    /// The kernel's counters by `Counter` index, summed over all CPUs; zero what cannot be read.
    pub fn counters(&self) -> [u64; COUNTERS] {
        let mut sum = [0_u64; COUNTERS];
        if let Ok(values) = self.counters.get(&0, 0) {
            for cpu in values.iter() {
                for (total, value) in sum.iter_mut().zip(cpu.0) {
                    *total = total.wrapping_add(value);
                }
            }
        }
        sum
    }

    /// Reservations that failed because the ring was full.
    pub fn ring_lost(&self) -> u64 {
        self.rings.get(&0, 0).map_or(0, |state| state.lost)
    }

    /// What this stage counted.
    pub const fn stats(&self) -> &Stats {
        &self.stats
    }

    /// Where and how it watches, for people.
    pub fn description(&self) -> &str {
        &self.description
    }

    /// Tells the kernel side that nothing of this connection is wanted.
    pub fn ignore(&mut self, connection: &Connection) {
        let Some((key, verdict)) = ignore_verdict(connection, self.scope_kind) else { return };
        match self.verdicts.insert(key, verdict, 0) {
            Ok(()) => self.stats.verdicts_written += 1,
            Err(_) => self.stats.verdicts_refused += 1,
        }
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
    /// Readable when a filling ring woke its reader; a slow trickle of records does not, so a timer is needed too.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.ring.as_fd()
    }
}

fn load(ebpf: &mut Ebpf, name: &'static str) -> Result<Option<u32>, OpenError> {
    let program = program(ebpf, name)?;
    program.load().map_err(|cause| OpenError::of_program(name, cause))?;
    Ok(program.info().ok().and_then(|info| info.verified_instruction_count()))
}

fn attach(
    ebpf: &mut Ebpf,
    name: &'static str,
    cgroup: &File,
    kind: CgroupSkbAttachType,
) -> Result<(), OpenError> {
    // A link, and links are always many to a cgroup: others' programs stay.
    program(ebpf, name)?
        .attach(cgroup, kind, CgroupAttachMode::Single)
        .map(|_| ())
        .map_err(|cause| OpenError::Attach { cause: Box::new(cause) })
}

fn program<'a>(ebpf: &'a mut Ebpf, name: &'static str) -> Result<&'a mut CgroupSkb, OpenError> {
    ebpf.program_mut(name)
        .and_then(|program| <&mut CgroupSkb>::try_from(program).ok())
        .ok_or(OpenError::ObjectMismatch { name })
}

fn map<T: TryFrom<Map, Error = MapError>>(ebpf: &mut Ebpf, name: &'static str) -> Result<T, OpenError> {
    let map = ebpf.take_map(name).ok_or(OpenError::ObjectMismatch { name })?;
    T::try_from(map).map_err(|cause| OpenError::Map { name, cause })
}

/// The verdict that makes the kernel leave `connection` alone; none for one that was seen on a path.
fn ignore_verdict(connection: &Connection, scope_kind: u32) -> Option<(FlowKey, Verdict)> {
    let local = connection.local?;
    let (near, far) = (connection.address(local), connection.address(local.other()));
    let key = FlowKey {
        scope: if scope_kind == SCOPE_COOKIE { connection.socket_cookie } else { connection.scope.0 },
        local_address: octets(near),
        remote_address: octets(far),
        local_port: near.port(),
        remote_port: far.port(),
        scope_kind,
    };
    let generation = match connection.start {
        Start::Handshake => connection.originator_isn,
        Start::Middle => None,
    };
    let verdict = Verdict {
        generation: generation.unwrap_or(0),
        until_sequence: [0; 2],
        read_sequence: [0; 2],
        action: [ACTION_IGNORE; 2],
        any_generation: u8::from(generation.is_none()),
        reserved: 0,
    };
    Some((key, verdict))
}

fn octets(address: SocketAddr) -> [u8; 16] {
    match address.ip() {
        IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
        IpAddr::V6(address) => address.octets(),
    }
}

const fn scope_name(scope_kind: u32) -> &'static str {
    if scope_kind == SCOPE_COOKIE { "socket cookie" } else { "cgroup id" }
}
