//! Program, map and global names: the only strings that both sides share. A test compares them with the object file.

/// cgroup_skb ingress program.
pub const PROGRAM_CGROUP_INGRESS: &str = "pod2pod_ingress";
/// cgroup_skb egress program.
pub const PROGRAM_CGROUP_EGRESS: &str = "pod2pod_egress";

/// The same for a path: packets towards the observed end, seen on an interface.
pub const PROGRAM_TC_INGRESS: &str = "pod2pod_tc_ingress";
/// The same for a path: packets from the observed end, seen on an interface.
pub const PROGRAM_TC_EGRESS: &str = "pod2pod_tc_egress";

/// Array of [`crate::limits::MAX_RINGS`] ring buffers of segment records; user space makes the rings and puts them in
/// before it attaches.
pub const MAP_SEGMENTS: &str = "SEGMENTS";
/// LRU hash: [`crate::flow::FlowKey`] → [`crate::flow::ConnectionState`]; the kernel writes.
pub const MAP_CONNECTIONS: &str = "CONNECTIONS";
/// LRU hash: [`crate::flow::FlowKey`] → [`crate::verdict::Verdict`]; user space writes.
pub const MAP_VERDICTS: &str = "VERDICTS";
/// Array of one u32: the epoch of verdicts ([`crate::verdict::next_epoch`]); user space writes.
pub const MAP_VERDICT_EPOCH: &str = "VERDICT_EPOCH";
/// Per-CPU array of one [`crate::counters::CounterValues`]; the kernel writes.
pub const MAP_COUNTERS: &str = "COUNTERS";
/// Array of one [`crate::segment::RingState`] per ring; the kernel writes.
pub const MAP_RINGS: &str = "RINGS";
/// Array of one [`crate::control::Control`]; user space writes.
pub const MAP_CONTROL: &str = "CONTROL";
/// Hash: socket cookie → 1, the agent's own sockets; user space writes.
pub const MAP_OWN_SOCKETS: &str = "OWN_SOCKETS";

/// Global, u32: which scope flow keys have (`SCOPE_*`).
pub const GLOBAL_SCOPE_KIND: &str = "SCOPE_KIND";
/// Global, u64: when the unread bytes of the ring cross this, the reader is woken once.
pub const GLOBAL_WAKE_THRESHOLD: &str = "WAKE_THRESHOLD";
/// Global, u32: rings in [`MAP_SEGMENTS`], from the first on; [`crate::flow::FlowKey::ring`] chooses among them.
pub const GLOBAL_RING_COUNT: &str = "RING_COUNT";
/// Global, u8: aya-log's level; below debug (4) the logging code is dead to the verifier.
pub const GLOBAL_LOG_LEVEL: &str = "AYA_LOG_LEVEL";
/// Ring buffer of aya-log.
pub const MAP_LOGS: &str = "AYA_LOGS";

/// Every program of the object.
pub const PROGRAMS: [&str; 4] =
    [PROGRAM_CGROUP_INGRESS, PROGRAM_CGROUP_EGRESS, PROGRAM_TC_INGRESS, PROGRAM_TC_EGRESS];
/// Every map of the object, aya-log's among them.
pub const MAPS: [&str; 9] = [
    MAP_SEGMENTS,
    MAP_CONNECTIONS,
    MAP_VERDICTS,
    MAP_VERDICT_EPOCH,
    MAP_COUNTERS,
    MAP_RINGS,
    MAP_CONTROL,
    MAP_OWN_SOCKETS,
    MAP_LOGS,
];
/// Every global of the object.
pub const GLOBALS: [&str; 4] =
    [GLOBAL_SCOPE_KIND, GLOBAL_WAKE_THRESHOLD, GLOBAL_RING_COUNT, GLOBAL_LOG_LEVEL];
