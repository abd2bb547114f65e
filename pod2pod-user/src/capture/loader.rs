//! Loads the eBPF object, attaches it, and reads what it sends. The only file that names programs and maps; it decides
//! nothing about connections.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd},
    path::PathBuf,
    sync::Arc,
};

use aya::{
    Ebpf, EbpfLoader,
    maps::{Array, HashMap, Map, MapData, MapError, PerCpuArray, RingBuf},
    programs::{CgroupAttachMode, CgroupSkb, CgroupSkbAttachType},
};
use pod2pod_common::{
    counters::COUNTERS,
    flow::{FlowKey, SCOPE_CGROUP, SCOPE_COOKIE},
    limits::{DEFAULT_RING_BYTES, DEFAULT_WAKE_THRESHOLD},
    names,
    verdict::{ACTION_IGNORE, Verdict},
};

use super::{Segment, cgroup, decode::decode};
use crate::reassembly::{Connection, Start};

/// The object that `cargo xtask build-ebpf` made, or nothing.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/pod2pod-ebpf.o"));

/// Oldest kernel that has all that the programs need (ring buffer 5.8, CAP_BPF 5.8, tested from 5.10 on).
const MINIMUM_KERNEL: (u32, u32) = (5, 10);

/// Smallest ring: a record of the largest class must fit several times. Bytes.
pub const MIN_RING_BYTES: u32 = 256 * 1024;

/// Largest ring that the kernel takes (kernel/bpf/ringbuf.c, RINGBUF_MAX_DATA_SZ is 4 GiB; a u32 power of two). Bytes.
pub const MAX_RING_BYTES: u32 = 1 << 30;

/// What tells containers apart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ScopeChoice {
    /// cgroup ids where cgroup v2 is the only hierarchy, socket cookies elsewhere.
    #[default]
    Auto,
    /// cgroup v2 ids.
    Cgroup,
    /// Socket cookies.
    Cookie,
}

/// How to capture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// cgroup to attach to: absolute, or relative to the root of cgroup v2; none: the root.
    pub cgroup: Option<PathBuf>,
    /// Ring size: a power of two from [`MIN_RING_BYTES`] to [`MAX_RING_BYTES`].
    pub ring_bytes: u32,
    /// What tells containers apart.
    pub scope: ScopeChoice,
    /// Let the kernel side log (aya-log); without it log statements are dead code to the verifier.
    pub debug_log: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self { cgroup: None, ring_bytes: DEFAULT_RING_BYTES, scope: ScopeChoice::Auto, debug_log: false }
    }
}

/// Why capture could not begin, and what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Built without the kernel side.
    #[error(
        "this pod2pod was built without its eBPF object, so it can replay captures but not watch this machine; \
         build it with `cargo xtask build`"
    )]
    NoObject,
    /// Old kernel.
    #[error("kernel {release} is too old: 5.10 or newer is needed")]
    KernelTooOld {
        /// As uname gives it.
        release: String,
    },
    /// /proc is not there.
    #[error("cannot read /proc/self/mountinfo to find cgroup v2: {0}; mount /proc")]
    Mounts(#[source] io::Error),
    /// No cgroup v2, and none could be mounted.
    #[error(
        "no cgroup v2 is mounted and mounting it privately failed: {0}; run as root (CAP_SYS_ADMIN) or mount it: \
         mount -t cgroup2 none /sys/fs/cgroup/unified"
    )]
    NoCgroup2(#[source] io::Error),
    /// The root that is visible is not the host's.
    #[error(
        "{path} (inode {inode}) is not the root of the host's cgroup v2 but a cgroup namespace's: programs attached \
         there would see nothing; mount the host's /sys/fs/cgroup into the container (hostPath /sys/fs/cgroup) or run \
         with the host's cgroup namespace"
    )]
    CgroupNamespace {
        /// Where it is mounted.
        path: PathBuf,
        /// Its inode.
        inode: u64,
    },
    /// The named cgroup cannot be opened.
    #[error("cannot open cgroup {path}: {source}; capture.cgroup must name a directory of cgroup v2")]
    Cgroup {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The kernel refuses for want of privilege.
    #[error(
        "loading eBPF programs is not permitted: run as root, or with the capabilities CAP_BPF, CAP_NET_ADMIN and \
         CAP_PERFMON (and kernel.unprivileged_bpf_disabled does not matter to them)"
    )]
    Privilege,
    /// The kernel refuses the object.
    #[error("the kernel refused the eBPF programs: {0}")]
    Load(String),
    /// The programs are loaded but cannot be attached.
    #[error("cannot attach to cgroup {path}: {reason}; another program may hold it exclusively")]
    Attach {
        /// The cgroup.
        path: PathBuf,
        /// Why.
        reason: String,
    },
}

impl OpenError {
    /// Exit code of the program (EX_NOPERM of sysexits.h): privilege or kernel.
    pub const fn exit_code(&self) -> u8 {
        77
    }
}

/// What one turn of reading gave.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Drained {
    /// Records read.
    pub records: usize,
    /// Payload bytes of them.
    pub bytes: u64,
    /// The turn ended at its limit: there may be more.
    pub more: bool,
}

/// Plain counters of the reading side.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Records read.
    pub records: u64,
    /// Payload bytes read.
    pub bytes: u64,
    /// Records that do not keep the contract.
    pub malformed: u64,
    /// Verdicts that the kernel's table did not take.
    pub verdicts_refused: u64,
}

/// The agent's own sockets, told to the kernel so that it does not watch them. Cheap to clone.
#[derive(Clone)]
pub struct OwnSockets(Arc<std::sync::Mutex<HashMap<MapData, u64, u8>>>);

impl OwnSockets {
    /// The socket with this cookie is ours.
    pub fn register(&self, cookie: u64) {
        // A full table costs the kernel the look at one more connection; the peer's view is dropped by tuple anyway.
        let _ = self.lock().insert(cookie, 1, 0);
    }

    /// The socket is closed.
    pub fn forget(&self, cookie: u64) {
        let _ = self.lock().remove(&cookie);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<MapData, u64, u8>> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// A running capture. Dropping it detaches the programs.
pub struct Capture {
    ring: RingBuf<MapData>,
    counters: PerCpuArray<MapData, u64>,
    lost: Array<MapData, u64>,
    heartbeat: Array<MapData, u64>,
    verdicts: HashMap<MapData, FlowKey, Verdict>,
    own: OwnSockets,
    scope_kind: u32,
    description: String,
    stats: Stats,
    /// Owns programs and links.
    ebpf: Ebpf,
}

impl Capture {
    /// Loads the programs and attaches them. They work from the first heartbeat on, which is given here.
    ///
    /// # Errors
    /// Each says what is missing and what to do.
    pub fn open(config: &Config) -> Result<Self, OpenError> {
        if OBJECT.is_empty() {
            return Err(OpenError::NoObject);
        }
        check_kernel()?;
        let cgroup = cgroup::open(config.cgroup.as_deref())?;
        let scope_kind = match config.scope {
            ScopeChoice::Cgroup => SCOPE_CGROUP,
            ScopeChoice::Cookie => SCOPE_COOKIE,
            ScopeChoice::Auto if cgroup.is_hybrid => SCOPE_COOKIE,
            ScopeChoice::Auto => SCOPE_CGROUP,
        };
        let mut ebpf = load(config, scope_kind)?;
        let mut capture = Self {
            ring: map(&mut ebpf, names::MAP_SEGMENTS)?,
            counters: map(&mut ebpf, names::MAP_COUNTERS)?,
            lost: map(&mut ebpf, names::MAP_RING_LOST)?,
            heartbeat: map(&mut ebpf, names::MAP_HEARTBEAT)?,
            verdicts: map(&mut ebpf, names::MAP_VERDICTS)?,
            own: OwnSockets(Arc::new(std::sync::Mutex::new(map(&mut ebpf, names::MAP_OWN_SOCKETS)?))),
            scope_kind,
            description: format!("{} by {}", cgroup.path.display(), scope_name(scope_kind)),
            stats: Stats::default(),
            ebpf,
        };
        capture.beat();
        capture.attach(&cgroup)?;
        Ok(capture)
    }

    fn attach(&mut self, cgroup: &cgroup::Cgroup) -> Result<(), OpenError> {
        for (name, kind) in [
            (names::PROGRAM_CGROUP_INGRESS, CgroupSkbAttachType::Ingress),
            (names::PROGRAM_CGROUP_EGRESS, CgroupSkbAttachType::Egress),
        ] {
            let program: &mut CgroupSkb = self
                .ebpf
                .program_mut(name)
                .and_then(|program| program.try_into().ok())
                .ok_or_else(|| OpenError::Load(format!("the object has no program {name}")))?;
            program.load().map_err(|error| refused(&error))?;
            // On kernels with links `Single` is a link, and links are many.
            program
                .attach(&cgroup.directory, kind, CgroupAttachMode::Single)
                .map_err(|error| OpenError::Attach { path: cgroup.path.clone(), reason: chain(&error) })?;
        }
        Ok(())
    }

    /// Reads up to `max_records` records, borrowed from the ring's memory.
    pub fn drain(&mut self, max_records: usize, deliver: &mut impl FnMut(&Segment<'_>)) -> Drained {
        let mut drained = Drained::default();
        while drained.records < max_records {
            let Some(record) = self.ring.next() else { return drained };
            drained.records += 1;
            match decode(&record, self.scope_kind == SCOPE_COOKIE) {
                Ok(decoded) => {
                    drained.bytes += decoded.segment.payload.len() as u64;
                    deliver(&decoded.segment);
                }
                Err(_) => self.stats.malformed += 1,
            }
        }
        drained.more = true;
        drained
    }

    /// Tells the kernel that somebody reads. Without it for two seconds the programs return at once.
    pub fn beat(&mut self) {
        // An array of one entry takes every write to index 0.
        let _ = self.heartbeat.set(0, monotonic_nanos(), 0);
    }

    /// The kernel's counters, summed over CPUs, by `Counter` index.
    pub fn counters(&self) -> [u64; COUNTERS] {
        let mut sums = [0; COUNTERS];
        for (index, sum) in sums.iter_mut().enumerate() {
            if let Ok(values) = self.counters.get(&(index as u32), 0) {
                *sum = values.iter().sum();
            }
        }
        sums
    }

    /// Failed reservations of the ring since load.
    pub fn ring_lost(&self) -> u64 {
        self.lost.get(&0, 0).unwrap_or(0)
    }

    /// Counters of the reading side.
    pub const fn stats(&self) -> &Stats {
        &self.stats
    }

    /// Where and how it watches, for people.
    pub fn description(&self) -> &str {
        &self.description
    }

    /// Tells the kernel that nothing of this connection is wanted.
    pub fn ignore(&mut self, connection: &Connection) {
        let Some((key, verdict)) = ignore_verdict(connection, self.scope_kind) else { return };
        if self.verdicts.insert(key, verdict, 0).is_err() {
            self.stats.verdicts_refused += 1;
        }
    }

    /// Handle for those who open sockets of ours.
    pub fn own_sockets(&self) -> OwnSockets {
        self.own.clone()
    }
}

impl AsFd for Capture {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.ring.as_fd()
    }
}

/// The verdict that makes the kernel leave `connection` alone; none for one seen on a path.
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
    let generation = match (connection.start, connection.originator_isn) {
        (Start::Handshake, Some(isn)) => Some(isn),
        (Start::Handshake, None) | (Start::Middle, _) => None,
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

fn octets(address: std::net::SocketAddr) -> [u8; 16] {
    match address.ip() {
        std::net::IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
        std::net::IpAddr::V6(address) => address.octets(),
    }
}

fn load(config: &Config, scope_kind: u32) -> Result<Ebpf, OpenError> {
    let threshold = DEFAULT_WAKE_THRESHOLD.min(u64::from(config.ring_bytes) / 4);
    EbpfLoader::new()
        .override_global(names::GLOBAL_SCOPE_KIND, &scope_kind, true)
        .override_global(names::GLOBAL_WAKE_THRESHOLD, &threshold, true)
        .map_max_entries(names::MAP_SEGMENTS, config.ring_bytes)
        .load(OBJECT)
        .map_err(|error| refused(&error))
}

fn map<T: TryFrom<Map, Error = MapError>>(ebpf: &mut Ebpf, name: &str) -> Result<T, OpenError> {
    let map = ebpf.take_map(name).ok_or_else(|| OpenError::Load(format!("the object has no map {name}")))?;
    T::try_from(map).map_err(|error| OpenError::Load(chain(&error)))
}

/// Tells a lack of privilege from a verifier's refusal.
fn refused(error: &(dyn std::error::Error + 'static)) -> OpenError {
    let mut cause = Some(error);
    while let Some(this) = cause {
        let kind = this.downcast_ref::<io::Error>().map(io::Error::kind);
        if kind == Some(io::ErrorKind::PermissionDenied) {
            return OpenError::Privilege;
        }
        cause = this.source();
    }
    OpenError::Load(chain(error))
}

/// An error with all its causes.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(this) = cause {
        text.push_str(": ");
        text.push_str(&this.to_string());
        cause = this.source();
    }
    text
}

fn check_kernel() -> Result<(), OpenError> {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let release = release.trim();
    match version(release) {
        Some(version) if version < MINIMUM_KERNEL => {
            Err(OpenError::KernelTooOld { release: release.to_owned() })
        }
        _ => Ok(()),
    }
}

/// Major and minor version of a release name.
fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|character: char| !character.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

const fn scope_name(scope_kind: u32) -> &'static str {
    if scope_kind == SCOPE_COOKIE { "socket cookie" } else { "cgroup id" }
}

/// CLOCK_MONOTONIC, the clock of bpf_ktime_get_ns. ns.
pub fn monotonic_nanos() -> u64 {
    let now = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC);
    now.map_or(0, |now| now.tv_sec() as u64 * 1_000_000_000 + now.tv_nsec() as u64)
}
