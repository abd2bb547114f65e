//! How to capture: what the user of this stage chooses. Reads no file and no environment.

use std::{num::NonZero, path::PathBuf};

use nix::net::if_::if_nametoindex;
use pod2pod_common::limits::{DEFAULT_RING_BYTES, MAX_CONNECTIONS, MAX_RINGS, MAX_VERDICTS};

pub use super::interfaces::Pattern;

/// Smallest ring: a record of the largest class must fit several times. Bytes.
pub const MIN_RING_BYTES: u32 = 256 * 1024;
/// Largest ring: what a u32 holds as a power of two that the kernel can still map twice (kernel/bpf/ringbuf.c). Bytes.
pub const MAX_RING_BYTES: u32 = 1 << 30;
/// CPUs that one worker keeps up with: it takes a fraction of the time of what it watches.
const CPUS_A_WORKER: usize = 8;
/// Workers unless more are asked for: beyond, the memory of their rings is what is short.
const MAX_AUTO_WORKERS: usize = 4;

/// How many workers read, each a ring of its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Workers {
    /// One for each eight CPUs, at most four.
    #[default]
    Auto,
    /// So many, at most [`MAX_RINGS`].
    Exactly(u32),
}

impl Workers {
    /// How many these are on this machine.
    pub fn count(self) -> u32 {
        match self {
            Self::Auto => auto(std::thread::available_parallelism().map_or(1, NonZero::get)),
            Self::Exactly(count) => count.clamp(1, MAX_RINGS),
        }
    }
}

const fn auto(cpus: usize) -> u32 {
    let workers = cpus.div_ceil(CPUS_A_WORKER);
    (if workers > MAX_AUTO_WORKERS { MAX_AUTO_WORKERS } else { workers }) as u32
}

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

/// Where packets are met.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SourceChoice {
    /// At the sockets where the root of cgroup v2 can be attached to, else at interfaces.
    #[default]
    Auto,
    /// At the sockets, by their cgroup.
    Cgroup,
    /// At network interfaces, by traffic control.
    Tc,
}

/// By what means programs get to an interface.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TcWay {
    /// By tcx where the kernel has it, else by clsact.
    #[default]
    Newest,
    /// By clsact, as on kernels before Linux 6.6.
    Clsact,
}

/// How to capture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Where packets are met.
    pub source: SourceChoice,
    /// Interfaces to watch; if there are none, the host-side veths, and the cards of a machine without any.
    pub interfaces: Vec<Pattern>,
    /// For a test of the older way on a newer kernel; the user does not choose.
    pub tc_way: TcWay,
    /// Watch this cgroup only: a path from the root of cgroup v2 on (`kubepods.slice`) or an absolute one.
    pub cgroup: Option<PathBuf>,
    /// How many workers read.
    pub workers: Workers,
    /// Size of each worker's ring: a power of two from [`MIN_RING_BYTES`] to [`MAX_RING_BYTES`].
    pub ring_bytes: u32,
    /// Socket ends that the kernel remembers; one past it, the least recently used goes.
    pub max_connections: u32,
    /// Verdicts that the kernel holds; one past it, the least recently used goes.
    pub max_verdicts: u32,
    /// What tells network worlds apart.
    pub scope: ScopeChoice,
    /// Pass on what the kernel side says of its decisions. Costs nothing when off: the code is then dead to the verifier.
    pub debug_log: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            source: SourceChoice::Auto,
            interfaces: Vec::new(),
            tc_way: TcWay::Newest,
            cgroup: None,
            workers: Workers::Auto,
            ring_bytes: DEFAULT_RING_BYTES,
            max_connections: MAX_CONNECTIONS,
            max_verdicts: MAX_VERDICTS,
            scope: ScopeChoice::Auto,
            debug_log: false,
        }
    }
}

impl Config {
    /// Whether it is said that interfaces are to be watched.
    pub fn watches_interfaces(&self) -> bool {
        self.source == SourceChoice::Tc || !self.interfaces.is_empty()
    }

    /// Names among [`Self::interfaces`] that no interface of this network namespace has.
    pub fn missing_interfaces(&self) -> Vec<&str> {
        let names = self.interfaces.iter().filter_map(|pattern| match pattern {
            Pattern::Name(name) => Some(name.as_str()),
            Pattern::HostVeths | Pattern::Glob(_) => None,
        });
        names.filter(|name| if_nametoindex(*name).is_err()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_worker_for_eight_cpus_and_at_most_four() {
        let cases = [(1, 1), (2, 1), (8, 1), (9, 2), (16, 2), (17, 3), (32, 4), (33, 4), (256, 4)];
        for (cpus, workers) in cases {
            assert_eq!(auto(cpus), workers, "{cpus}");
        }
        assert_eq!(auto(CPUS_A_WORKER * MAX_AUTO_WORKERS + 1) as usize, MAX_AUTO_WORKERS);
    }

    #[test]
    fn a_number_is_kept_to_the_rings_that_there_can_be() {
        let cases = [(0, 1), (1, 1), (MAX_RINGS, MAX_RINGS), (MAX_RINGS + 1, MAX_RINGS)];
        for (asked, given) in cases {
            assert_eq!(Workers::Exactly(asked).count(), given);
        }
    }
}
