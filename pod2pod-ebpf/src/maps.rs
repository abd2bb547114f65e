//! Every map and global: who writes it, who reads it, how big it is. Names are those of `pod2pod_common::names`.

use aya_ebpf::{
    Global,
    macros::map,
    maps::{Array, HashMap, LruHashMap, PerCpuArray, RingBuf},
};
use pod2pod_common::{
    counters::COUNTERS as COUNTER_ENTRIES,
    flow::{ConnectionState, FlowKey, SCOPE_CGROUP},
    limits::{
        DEFAULT_RING_BYTES, DEFAULT_WAKE_THRESHOLD, MAX_CONNECTIONS, MAX_OWN_SOCKETS, MAX_VERDICTS, RINGS,
    },
    verdict::Verdict,
};

/// Segment records. Kernel → user.
#[map]
pub(crate) static SEGMENTS: RingBuf = RingBuf::with_byte_size(DEFAULT_RING_BYTES, 0);

/// What is remembered of a socket end. Kernel only.
#[map]
pub(crate) static CONNECTIONS: LruHashMap<FlowKey, ConnectionState> =
    LruHashMap::with_max_entries(MAX_CONNECTIONS, 0);

/// What user space does not want. User → kernel.
#[map]
pub(crate) static VERDICTS: LruHashMap<FlowKey, Verdict> = LruHashMap::with_max_entries(MAX_VERDICTS, 0);

/// Counters by `Counter` index. Kernel → user.
#[map]
pub(crate) static COUNTERS: PerCpuArray<u64> = PerCpuArray::with_max_entries(COUNTER_ENTRIES as u32, 0);

/// Failed reservations per ring. Kernel → user, in every record.
#[map]
pub(crate) static RING_LOST: Array<u64> = Array::with_max_entries(RINGS, 0);

/// Consumer position at the last forced wake-up, plus 1, per ring. Kernel only.
#[map]
pub(crate) static RING_WOKEN: Array<u64> = Array::with_max_entries(RINGS, 0);

/// CLOCK_MONOTONIC of the agent's last heartbeat, ns. User → kernel.
#[map]
pub(crate) static HEARTBEAT: Array<u64> = Array::with_max_entries(1, 0);

/// Cookies of the agent's own sockets. User → kernel.
#[map]
pub(crate) static OWN_SOCKETS: HashMap<u64, u8> = HashMap::with_max_entries(MAX_OWN_SOCKETS, 0);

/// Which scope flow keys have.
#[unsafe(no_mangle)]
pub(crate) static SCOPE_KIND: Global<u32> = Global::new(SCOPE_CGROUP);

/// Unread bytes of the ring from which its reader is woken.
#[unsafe(no_mangle)]
pub(crate) static WAKE_THRESHOLD: Global<u64> = Global::new(DEFAULT_WAKE_THRESHOLD);
