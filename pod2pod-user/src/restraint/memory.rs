//! Memory that the agent really takes: resident pages of the process, each ring once, and its kernel maps.

use procfs::process::Process;

/// What was measured. Bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Measured {
    /// Resident, without the rings.
    pub process: u64,
    /// Kernel maps, the rings among them, as the kernel charges them.
    pub maps: u64,
}

impl Measured {
    /// All of it.
    pub const fn total(&self) -> u64 {
        self.process + self.maps
    }
}

/// Resident bytes of this process. `mapped` is how much of them is rings: a ring's pages are all resident, twice in a row
/// (kernel/bpf/ringbuf.c), and are counted with the maps.
pub fn resident(mapped: u64) -> u64 {
    let pages = Process::myself().and_then(|process| process.statm()).map_or(0, |statm| statm.resident);
    (pages * procfs::page_size()).saturating_sub(mapped)
}

/// Bytes of a ring of `bytes` that are mapped: the data twice, and the two positions.
pub fn mapped_of_ring(bytes: u32) -> u64 {
    2 * u64::from(bytes) + 2 * procfs::page_size()
}

/// What the kernel charges for the maps that this process holds: `memlock` of each map's fdinfo. Maps do not change once
/// they are made, so one look after the start will do.
pub fn maps() -> u64 {
    super::descriptors("map_id", "memlock")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_resident_is_measured() {
        let before = resident(0);
        assert!(before > 0 && resident(before * 2) == 0);
        let touched = vec![1_u8; 32 << 20];
        assert!(std::hint::black_box(&touched).len() as u64 + before / 2 <= resident(0) + before);
    }
}
