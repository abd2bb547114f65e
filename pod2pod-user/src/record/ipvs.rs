//! What a record says of IPVS: of a reuse, all of it; of an exchange, what happened to the connection that it came over.
//!
//! Words come from elsewhere; which there are is said here, for the schema.

use std::net::IpAddr;

use bytes::Bytes;

/// How sure it is that a connection met an old entry.
pub const SURENESS: &[&str] = &["probable", "certain"];
/// What became of a connection that did; `legacy` is what ipvs-logger's rule takes for one.
pub const VERDICTS: &[&str] = &["reused", "rescheduled", "dropped", "legacy"];
/// How much it matters.
pub const SEVERITIES: &[&str] = &["info", "unknown", "warning", "critical"];
/// Which of the known situations it is.
pub const SITUATIONS: &[&str] = &[
    "same_server_alive",
    "draining_server_mode_off",
    "draining_server_old_kernel",
    "draining_server_against_settings",
    "draining_server",
    "removed_server_dropped",
    "removed_server",
    "same_server",
    "rescheduled_after_drop",
    "rescheduled",
    "no_server",
    "dropped",
];
/// Who found a reuse: two polls of the kernel's table, or probes in the kernel.
pub const DETECTORS: &[&str] = &["polling", "exact"];
/// Protocols whose entries are watched.
pub const TRANSPORTS: &[&str] = &["tcp", "udp", "sctp"];

/// A connection that met the entry of an older one. Durations are nanoseconds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IpvsFacts {
    /// One of [`SURENESS`].
    pub reuse: Option<&'static str>,
    /// One of [`VERDICTS`].
    pub verdict: Option<&'static str>,
    /// One of [`DETECTORS`].
    pub detector: Option<&'static str>,
    /// One of [`SEVERITIES`].
    pub severity: Option<&'static str>,
    /// One of [`SITUATIONS`].
    pub situation: Option<&'static str>,
    /// One of [`TRANSPORTS`].
    pub transport: Option<&'static str>,
    /// The virtual address.
    pub service: Option<(IpAddr, u16)>,
    /// The real server.
    pub real_server: Option<(IpAddr, u16)>,
    /// Its weight.
    pub weight: Option<u32>,
    /// The service does not have it any more.
    pub is_absent: bool,
    /// The old connection's real server, if it was another one.
    pub real_server_before: Option<(IpAddr, u16)>,
    /// The entry's state, as last seen of the old connection.
    pub state_before: Option<&'static str>,
    /// The same, of the new one.
    pub state: Option<&'static str>,
    /// Seconds that were left to the old entry.
    pub expires_before: Option<u32>,
    /// Seconds left to the new one.
    pub expires: Option<u32>,
    /// From the old connection's last packet on.
    pub idle: Option<u64>,
    /// The old entry may have run out before.
    pub may_have_expired: bool,
    /// Release of the kernel.
    pub os_version: Option<Bytes>,
    /// `net.ipv4.vs.conn_reuse_mode`.
    pub conn_reuse_mode: Option<u32>,
    /// `net.ipv4.vs.expire_nodest_conn`.
    pub expire_nodest_conn: Option<u32>,
    /// `net.ipv4.vs.conntrack`.
    pub conntrack: Option<u32>,
    /// What happens to the client, and what cures it.
    pub explanation: Option<&'static str>,
}
