//! Every map and global of the object: who writes it, who reads it, how big it is. Names are those of
//! `pod2pod_common::names`; a test compares them.

use aya_ebpf::{
    Global,
    macros::map,
    maps::{Array, LruHashMap, PerCpuArray, RingBuf},
};
use pod2pod_common::decision::{
    DECISION_RING_BYTES, DecisionCounterValues, DecisionRecord, FIELDS, Layout, MAX_LAST_SYNS, MAX_PENDING,
};

/// A SYN on its way through IPVS.
#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) struct Pending {
    /// Where the stack was at the look-up: what is nearer to its beginning is the hook, what is farther was called by it.
    pub(crate) stack: u64,
    /// The packet.
    pub(crate) packet: u64,
    /// The address family of the packet.
    pub(crate) family: u64,
    /// The entry found, 0 for none.
    pub(crate) entry: u64,
    /// The entry made, 0 for none.
    pub(crate) made: u64,
    /// What is known so far.
    pub(crate) record: DecisionRecord,
}

/// Decisions. Written here, read by user space.
#[map]
pub(crate) static DECISIONS: RingBuf = RingBuf::with_byte_size(DECISION_RING_BYTES, 0);

/// SYNs on their way, by the stack that they are on. Written here only.
#[map]
pub(crate) static PENDING: LruHashMap<u64, Pending> = LruHashMap::with_max_entries(MAX_PENDING, 0);

/// The last SYN of a client and service, by a hash of these: the newest one has the place. Written here only.
#[map]
pub(crate) static LAST_SYNS: Array<u64> = Array::with_max_entries(MAX_LAST_SYNS, 0);

/// One value that holds all counters. Written here, summed by user space.
#[map]
pub(crate) static DECISION_COUNTERS: PerCpuArray<DecisionCounterValues> = PerCpuArray::with_max_entries(1, 0);

/// Offsets of the fields that are read. Set before load.
#[unsafe(no_mangle)]
pub(crate) static LAYOUT: Global<Layout> = Global::new(Layout([0; FIELDS]));

/// Inode of the network namespace watched, 0 for all. Set before load.
#[unsafe(no_mangle)]
pub(crate) static NAMESPACE: Global<u32> = Global::new(0);

/// Not 0: every decision is told. Set before load.
#[unsafe(no_mangle)]
pub(crate) static TELL_ALL: Global<u32> = Global::new(0);
