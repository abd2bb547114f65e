//! The kernel's counters and what the rings hold, as they were at one instant.
//!
//! Counters are words that the kernel adds to while they are copied: a copy may hold the packet and not yet its fate, or
//! the other way round. So it is read until two copies in a row are alike, the rings' positions with it: between the end
//! of the first and the beginning of the second nothing was counted anywhere, and both are that instant's. Where the
//! machine never stands still for so long the last copy is given, and said to be none of an instant.

use pod2pod_common::counters::{COUNTERS, CounterValues};

use super::{Capture, Reader};
use crate::capture::decode::outline;

/// Packets that may be inside the programs on one CPU at a time: a program of process context, and one of a soft
/// interrupt above it (net/core/filter.c: cgroup and tc programs run with migration disabled, soft interrupts do not
/// nest). They are seen and have no fate yet. On a kernel that preempts tasks anywhere (`CONFIG_PREEMPT`), a task that
/// was preempted inside a program adds one.
pub const IN_PROGRAM_PER_CPU: u64 = 2;

/// Copies of the counters taken at most: half a millisecond, once a second.
const MAX_COPIES: usize = 64;

/// Submitted to the rings and not read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Unread {
    /// Records.
    pub records: u64,
    /// Packets whose last record is among them.
    pub packets: u64,
    /// Captured payload bytes of them.
    pub bytes: u64,
}

/// What the kernel side counted, and what its rings hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// By `Counter` index, summed over all CPUs.
    pub counters: CounterValues,
    /// CPUs that have counters.
    pub cpus: u64,
    /// In the rings.
    pub unread: Unread,
    /// All of it is of one instant.
    pub exact: bool,
}

impl Capture {
    /// The counters and the rings as they are now. `readers` are all of them; nobody drains while they are borrowed.
    pub fn snapshot(&self, readers: &[&Reader]) -> Snapshot {
        let written = || readers.iter().map(|reader| reader.ring.written()).collect::<Vec<_>>();
        let ((cpus, written), exact) = settled(|| (self.per_cpu(), written()));
        let mut unread = Unread::default();
        for (reader, written) in readers.iter().zip(written) {
            reader.ring.look(written, &mut |record| {
                let outline = outline(record);
                unread.records += 1;
                unread.packets += u64::from(outline.ends_packet);
                unread.bytes += u64::from(outline.captured);
            });
        }
        Snapshot { counters: sum(&cpus), cpus: cpus.len() as u64, unread, exact }
    }

    /// The kernel's counters by `Counter` index, summed over all CPUs; zero what cannot be read.
    pub fn counters(&self) -> [u64; COUNTERS] {
        sum(&self.per_cpu()).0
    }

    fn per_cpu(&self) -> Vec<CounterValues> {
        self.counters.get(&0, 0).map(|values| values.iter().copied().collect()).unwrap_or_default()
    }
}

/// The first copy that is like the one before it, and whether there was one.
fn settled<T: PartialEq>(mut copy: impl FnMut() -> T) -> (T, bool) {
    let mut last = copy();
    for _ in 1..MAX_COPIES {
        let next = copy();
        if next == last {
            return (next, true);
        }
        last = next;
    }
    (last, false)
}

fn sum(cpus: &[CounterValues]) -> CounterValues {
    let mut sum = CounterValues::ZERO;
    for cpu in cpus {
        for (total, value) in sum.0.iter_mut().zip(cpu.0) {
            *total = total.wrapping_add(value);
        }
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_copies_in_a_row_that_are_alike_are_of_one_instant() {
        let run = |still: usize| {
            let mut copies = 0;
            let settled = settled(|| {
                copies += 1;
                copies.min(still)
            });
            (settled, copies)
        };
        assert_eq!(run(1), ((1, true), 2));
        assert_eq!(run(MAX_COPIES - 1), ((MAX_COPIES - 1, true), MAX_COPIES));
        assert_eq!(run(MAX_COPIES), ((MAX_COPIES, false), MAX_COPIES));
    }
}
