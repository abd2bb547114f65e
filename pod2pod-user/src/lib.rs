//! pod2pod: what talks HTTP to what on this machine, exactly and cheaply.
//!
//! ```text
//! kernel  pod2pod-ebpf   packet → is it HTTP, is it wanted → Segment in the ring buffer
//!           │                      (contract: pod2pod-common)
//!         capture        ring buffer | capture file → Segment            shell + pure decode
//!         reassembly     Segment → Chunk (in-order bytes, one direction) pure
//!         filter         which connections are wanted                        pure
//!         http           Chunk → Message → Exchange                      pure
//!         enrich         Exchange → Record                               pure
//!         named          Record → Record with the names of its ends, by what `directory` knows, and of Services `behind`
//!         route          Record → whether a target is given it                      pure
//!         delivery       queues, retries, what becomes of what: knows no protocol    pure + shell
//!         sinks          Record → terminal, file, pipe, collector        shell
//!         ipvs           the kernel's IPVS tables → Reuse                pure
//!         kubernetes     news of the API server → whose cgroup, whose address    pure
//!         kubernetes_api lists and watches of the API server → news      shell
//!         pcap           Segment → packet file: what of its bytes may be seen  pure + shell
//! beside  config  flags  metrics  admin  secrets  check  finding  rights  mode  restraint  urgency  netlink  shutdown  logging  views  top
//! ```
//!
//! Invariant: a stage imports only the output type of the stage before it.
//! Invariant: pure stages hold no clock, file, lock, socket, async or metrics registry; `now` is an argument.
//! Invariant: only `pipeline`, and `agent` and `replay` around it, see all stages; `watch` and `joint` see `ipvs`, `directory` and `named` see `kubernetes`.
//! Invariant: only `record` (and a sink, for its target's own wire form) serialises.
//! Invariant: only `capture::kernel` names eBPF programs and maps, through `pod2pod_common::names`.

/// What pod2pod calls itself in `User-Agent`, without a version: agents of any version leave each other out.
pub const OWN_PRODUCT: &str = "pod2pod/";
/// `User-Agent` of pod2pod's own clients.
pub const OWN_USER_AGENT: &str = concat!("pod2pod/", env!("CARGO_PKG_VERSION"));

pub mod capture;
pub mod delivery;
pub mod enrich;
pub mod filter;
pub mod http;
pub mod ipvs;
pub mod kubernetes;
pub mod kubernetes_api;
pub mod pcap;
pub mod reassembly;
pub mod record;
pub mod route;
pub mod sinks;

pub mod admin;
pub mod config;
pub mod exit;
pub mod finding;
mod flags;
pub mod host;
pub mod logging;
pub mod metrics;
pub mod mode;
mod nearest;
pub mod netlink;
pub mod restraint;
pub mod rights;
pub mod secrets;
pub mod shutdown;
pub mod summary;
mod terminal;
pub mod urgency;

pub mod agent;
pub mod behind;
pub mod check;
pub mod dead_letters;
pub mod directory;
pub mod joint;
pub mod named;
pub mod pipeline;
pub mod replay;
pub mod tail;
pub mod top;
pub mod views;
pub mod watch;
