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

/// kprobe at the look-up of an entry: a SYN comes.
pub const PROGRAM_IPVS_LOOK_UP: &str = "pod2pod_ipvs_look_up";
/// kretprobe of it: the entry found.
pub const PROGRAM_IPVS_FOUND: &str = "pod2pod_ipvs_found";
/// kprobe where an entry's time is ended.
pub const PROGRAM_IPVS_EXPIRE: &str = "pod2pod_ipvs_expire";
/// kretprobe where an entry is made.
pub const PROGRAM_IPVS_MAKE: &str = "pod2pod_ipvs_make";
/// kprobe where no real server was found.
pub const PROGRAM_IPVS_LEAVE: &str = "pod2pod_ipvs_leave";
/// kretprobe of the hook: its verdict.
pub const PROGRAM_IPVS_END: &str = "pod2pod_ipvs_end";

/// Ring buffer of [`crate::decision::DecisionRecord`]s.
pub const MAP_DECISIONS: &str = "DECISIONS";
/// LRU hash: a stack → the SYN that is on its way there; the kernel writes.
pub const MAP_PENDING: &str = "PENDING";
/// Array of the last SYN of a client and service; the kernel writes.
pub const MAP_LAST_SYNS: &str = "LAST_SYNS";
/// Per-CPU array of one [`crate::decision::DecisionCounterValues`]; the kernel writes.
pub const MAP_DECISION_COUNTERS: &str = "DECISION_COUNTERS";

/// Global, [`crate::decision::Layout`].
pub const GLOBAL_LAYOUT: &str = "LAYOUT";
/// Global, u32: inode of the network namespace watched, 0 for all.
pub const GLOBAL_NAMESPACE: &str = "NAMESPACE";
/// Global, u32: not 0, every decision is told, and not only those that met an old entry or failed.
pub const GLOBAL_TELL_ALL: &str = "TELL_ALL";

/// Every program of the object that watches IPVS.
pub const IPVS_PROGRAMS: [&str; 6] = [
    PROGRAM_IPVS_LOOK_UP,
    PROGRAM_IPVS_FOUND,
    PROGRAM_IPVS_EXPIRE,
    PROGRAM_IPVS_MAKE,
    PROGRAM_IPVS_LEAVE,
    PROGRAM_IPVS_END,
];
/// Every map of it.
pub const IPVS_MAPS: [&str; 4] = [MAP_DECISIONS, MAP_PENDING, MAP_LAST_SYNS, MAP_DECISION_COUNTERS];
/// Every global of it.
pub const IPVS_GLOBALS: [&str; 3] = [GLOBAL_LAYOUT, GLOBAL_NAMESPACE, GLOBAL_TELL_ALL];
