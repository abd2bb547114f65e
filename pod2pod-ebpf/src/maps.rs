//! Every map and global of the object: who writes it, who reads it, how big it is. Names are those of
//! `pod2pod_common::names`; a test compares them.

use aya_ebpf::{
    Global,
    macros::map,
    maps::{Array, HashMap, LruHashMap, PerCpuArray, RingBuf},
};
use pod2pod_common::{
    counters::CounterValues,
    flow::{ConnectionState, FlowKey, SCOPE_CGROUP},
    limits::{
        DEFAULT_RING_BYTES, DEFAULT_WAKE_THRESHOLD_BYTES, MAX_CONNECTIONS, MAX_OWN_SOCKETS, MAX_VERDICTS,
    },
    segment::RingState,
    verdict::Verdict,
};

/// Segment records. Written here, read by user space, which sets the size before load.
#[map]
pub(crate) static SEGMENTS: RingBuf = RingBuf::with_byte_size(DEFAULT_RING_BYTES, 0);

/// State of socket ends. Written here only; the least recently used is evicted.
#[map]
pub(crate) static CONNECTIONS: LruHashMap<FlowKey, ConnectionState> =
    LruHashMap::with_max_entries(MAX_CONNECTIONS, 0);

/// Verdicts on connections. Written by user space only.
#[map]
pub(crate) static VERDICTS: LruHashMap<FlowKey, Verdict> = LruHashMap::with_max_entries(MAX_VERDICTS, 0);

/// One value that holds all counters, so that a packet costs one look-up. Written here, summed by user space.
#[map]
pub(crate) static COUNTERS: PerCpuArray<CounterValues> = PerCpuArray::with_max_entries(1, 0);

/// Lost reservations and wake-up of each ring. Written here only.
#[map]
pub(crate) static RINGS: Array<RingState> = Array::with_max_entries(1, 0);

/// CLOCK_MONOTONIC ns of the agent's last sign of life. Written by user space only.
#[map]
pub(crate) static HEARTBEAT: Array<u64> = Array::with_max_entries(1, 0);

/// Cookies of the agent's own sockets. Written by user space only.
#[map]
pub(crate) static OWN_SOCKETS: HashMap<u64, u8> = HashMap::with_max_entries(MAX_OWN_SOCKETS, 0);

/// What tells network worlds apart, `SCOPE_*`. Set before load.
#[unsafe(no_mangle)]
pub(crate) static SCOPE_KIND: Global<u32> = Global::new(SCOPE_CGROUP);

/// Unread bytes at which a filling ring wakes its reader. Set before load.
#[unsafe(no_mangle)]
pub(crate) static WAKE_THRESHOLD: Global<u64> = Global::new(DEFAULT_WAKE_THRESHOLD_BYTES as u64);
