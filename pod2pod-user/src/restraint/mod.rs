//! Self-restraint: what the agent may take of its machine, and what it gives up when that is not enough.
//!
//! * Memory is divided before anything is allocated ([`budget`]): every table, queue and kernel map has its share, and what
//!   a share cannot hold is given up by the stage that owns it, and counted.
//! * What is really taken is measured ([`memory`], [`cpu`]); near a limit the newest unwanted work is shed first: bodies, then
//!   headers, then new connections ([`shedding`]). The kernel side does the shedding, where it costs least.
//!
//! Everything here but the two that measure is a function of its input.

pub mod allocator;
pub mod budget;
pub mod cpu;
pub mod memory;
pub mod shedding;

use std::{collections::HashSet, fs};

pub use budget::{Shares, TooSmall};
pub use shedding::{Level, Shedder};

/// What the agent may take: memory of the process, each ring counted once, and of its kernel maps. Bytes.
pub const DEFAULT_MEMORY: u64 = 64 << 20;

/// The limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// See [`DEFAULT_MEMORY`].
    pub memory: u64,
    /// Processor time, in thousandths of one core; none: as much as it takes.
    pub cpu: Option<u32>,
}

impl Default for Config {
    fn default() -> Self {
        Self { memory: DEFAULT_MEMORY, cpu: None }
    }
}

/// The sum of a `value` over the maps or programs that this process holds, each counted once by its id (fdinfo, kernel/bpf/syscall.c).
fn descriptors(id: &str, value: impl Fn(&str) -> Option<u64>) -> u64 {
    let Ok(directory) = fs::read_dir("/proc/self/fdinfo") else { return 0 };
    let mut seen = HashSet::new();
    let mut total = 0;
    for entry in directory.flatten() {
        // A descriptor that was closed meanwhile is none of ours.
        let Ok(text) = fs::read_to_string(entry.path()) else { continue };
        if let (Some(id), Some(value)) = (of_fdinfo(&text, id), value(&text))
            && seen.insert(id)
        {
            total += value;
        }
    }
    total
}

/// The number in a field of an fdinfo.
fn of_fdinfo(text: &str, field: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':')?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_of_an_fdinfo() {
        let map = "pos:\t0\nmap_type:\t9\nkey_size:\t48\nmemlock:\t12582912\nmap_id:\t77\nfrozen:\t0\n";
        assert_eq!((of_fdinfo(map, "map_id"), of_fdinfo(map, "memlock")), (Some(77), Some(12_582_912)));
        assert_eq!(
            (of_fdinfo(map, "prog_id"), of_fdinfo(map, "map"), of_fdinfo("", "map_id")),
            (None, None, None)
        );
    }
}
