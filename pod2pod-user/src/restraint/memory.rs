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

/// A ring buffer, in the words of an fdinfo (`BPF_MAP_TYPE_RINGBUF`, include/uapi/linux/bpf.h).
const RING: u64 = 27;

/// Resident bytes of this process. `mapped` is how much of them is rings: a ring's pages are all resident, twice in a row
/// (kernel/bpf/ringbuf.c), and are counted with the maps.
pub fn resident(mapped: u64) -> u64 {
    let Ok(status) = Process::myself().and_then(|process| process.status()) else { return 0 };
    let of = |kilobytes: Option<u64>| kilobytes.unwrap_or(0) * 1024;
    // The rings are with the files. Before Linux 6.2 a thread that mapped them may not have told the process yet.
    of(status.rssanon) + of(status.rssshmem) + of(status.rssfile).saturating_sub(mapped)
}

/// Bytes of a ring of `bytes` that are mapped: the data twice, and the two positions.
pub fn mapped_of_ring(bytes: u32) -> u64 {
    2 * u64::from(bytes) + 2 * procfs::page_size()
}

/// What the kernel charges for the maps that this process holds: `memlock` of each map's fdinfo. Maps do not change once
/// they are made, so one look after the start will do.
pub fn maps() -> u64 {
    super::descriptors("map_id", charged)
}

/// Bytes of the map of an fdinfo. Linux 5.11 to 6.3 tells entries times their size, and the bytes of a ring have none.
fn charged(fdinfo: &str) -> Option<u64> {
    let field = |name| super::of_fdinfo(fdinfo, name);
    let ring = if field("map_type")? == RING { field("max_entries")? } else { 0 };
    Some(field("memlock")?.max(ring))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ring_is_counted_where_the_kernel_does_not() {
        let map =
            |kind: u64, charged: u64| format!("map_type:\t{kind}\nmax_entries:\t4096\nmemlock:\t{charged}\n");
        let of = |kind, told| charged(&map(kind, told));
        assert_eq!((of(RING, 0), of(RING, 12_784), of(9, 0)), (Some(4096), Some(12_784), Some(0)));
    }

    #[test]
    fn what_is_resident_is_measured() {
        let before = resident(0);
        assert!(before > 0 && resident(1 << 40) < before, "files are not counted if they are all rings");
        let touched = vec![1_u8; 32 << 20];
        assert!(std::hint::black_box(&touched).len() as u64 + before / 2 <= resident(0) + before);
    }
}
