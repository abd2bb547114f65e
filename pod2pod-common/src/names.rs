//! Program, map and global names: the only strings that both sides share. A test compares them with the object file.

/// cgroup_skb ingress program.
pub const PROGRAM_CGROUP_INGRESS: &str = "pod2pod_ingress";
/// cgroup_skb egress program.
pub const PROGRAM_CGROUP_EGRESS: &str = "pod2pod_egress";

/// Ring buffer of segment records.
pub const MAP_SEGMENTS: &str = "SEGMENTS";
/// LRU hash: [`crate::flow::FlowKey`] → [`crate::flow::ConnectionState`]; the kernel writes.
pub const MAP_CONNECTIONS: &str = "CONNECTIONS";
/// LRU hash: [`crate::flow::FlowKey`] → [`crate::verdict::Verdict`]; user space writes.
pub const MAP_VERDICTS: &str = "VERDICTS";
/// Per-CPU array of [`crate::counters::Counter`].
pub const MAP_COUNTERS: &str = "COUNTERS";
/// Array of one u64 per ring: failed reservations; the kernel writes.
pub const MAP_RING_LOST: &str = "RING_LOST";
/// Array of one u64 per ring: consumer position at the last forced wake-up, plus 1; the kernel writes.
pub const MAP_RING_WOKEN: &str = "RING_WOKEN";
/// Array of one u64: CLOCK_MONOTONIC ns of the last heartbeat; user space writes.
pub const MAP_HEARTBEAT: &str = "HEARTBEAT";
/// Hash: socket cookie → 1, the agent's own sockets; user space writes.
pub const MAP_OWN_SOCKETS: &str = "OWN_SOCKETS";

/// Global: which scope flow keys have (`SCOPE_*`).
pub const GLOBAL_SCOPE_KIND: &str = "SCOPE_KIND";
/// Global: when the unread bytes of the ring cross this, the reader is woken once.
pub const GLOBAL_WAKE_THRESHOLD: &str = "WAKE_THRESHOLD";
