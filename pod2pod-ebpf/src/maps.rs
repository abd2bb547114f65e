//! Every map and global of the object: who writes it, who reads it, how big it is. Names are those of
//! `pod2pod_common::names`; a test compares them.

use aya_ebpf::{
    Global,
    btf_maps::{ArrayOfMaps, RingBuf},
    macros::{btf_map, map},
    maps::{Array, HashMap, LruHashMap, PerCpuArray},
};
use pod2pod_common::{
    control::Control,
    counters::CounterValues,
    flow::{ConnectionState, FlowKey, SCOPE_CGROUP},
    limits::{DEFAULT_WAKE_THRESHOLD_BYTES, MAX_CONNECTIONS, MAX_OWN_SOCKETS, MAX_RINGS, MAX_VERDICTS},
    segment::RingState,
    verdict::Verdict,
};

/// What the kernel takes for an example of the rings when it loads the array; a multiple of every page size.
const EXAMPLE_RING_BYTES: usize = 65_536;

/// Rings of segment records. Written here, read by user space, which makes the rings. A map of maps must be described by
/// BTF: the kernel wants an example of what is in it.
#[btf_map]
pub(crate) static SEGMENTS: ArrayOfMaps<RingBuf<u8, EXAMPLE_RING_BYTES>, { MAX_RINGS as usize }> =
    ArrayOfMaps::new();

/// State of socket ends. Written here only; the least recently used is evicted.
#[map]
pub(crate) static CONNECTIONS: LruHashMap<FlowKey, ConnectionState> =
    LruHashMap::with_max_entries(MAX_CONNECTIONS, 0);

/// Verdicts on connections. Written by user space only.
#[map]
pub(crate) static VERDICTS: LruHashMap<FlowKey, Verdict> = LruHashMap::with_max_entries(MAX_VERDICTS, 0);

/// The epoch of verdicts: spares a look-up while none was written. Written by user space only.
#[map]
pub(crate) static VERDICT_EPOCH: Array<u32> = Array::with_max_entries(1, 0);

/// One value that holds all counters, so that a packet costs one look-up. Written here, summed by user space.
#[map]
pub(crate) static COUNTERS: PerCpuArray<CounterValues> = PerCpuArray::with_max_entries(1, 0);

/// Lost reservations and wake-up of each ring. Written here only.
#[map]
pub(crate) static RINGS: Array<RingState> = Array::with_max_entries(MAX_RINGS, 0);

/// The agent's last sign of life, and what it cannot take. Written by user space only.
#[map]
pub(crate) static CONTROL: Array<Control> = Array::with_max_entries(1, 0);

/// Cookies of the agent's own sockets. Written by user space only.
#[map]
pub(crate) static OWN_SOCKETS: HashMap<u64, u8> = HashMap::with_max_entries(MAX_OWN_SOCKETS, 0);

/// What tells network worlds apart, `SCOPE_*`. Set before load.
#[unsafe(no_mangle)]
pub(crate) static SCOPE_KIND: Global<u32> = Global::new(SCOPE_CGROUP);

/// Unread bytes at which a filling ring wakes its reader. Set before load.
#[unsafe(no_mangle)]
pub(crate) static WAKE_THRESHOLD: Global<u64> = Global::new(DEFAULT_WAKE_THRESHOLD_BYTES as u64);

/// Rings that user space has put in. Set before load.
#[unsafe(no_mangle)]
pub(crate) static RING_COUNT: Global<u32> = Global::new(1);
