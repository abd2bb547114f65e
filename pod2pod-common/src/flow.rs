//! The flow key and what the kernel remembers of a socket end.

use core::mem::size_of;

/// Scope is the cgroup v2 id of the socket.
pub const SCOPE_CGROUP: u32 = 0;
/// Scope is the interface index.
pub const SCOPE_INTERFACE: u32 = 1;
/// Scope is the socket cookie: chosen where cgroup ids do not tell containers apart.
pub const SCOPE_COOKIE: u32 = 2;

/// One socket end: which network world it is in (every pod has the same 127.0.0.1 tuples), local end, remote end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct FlowKey {
    /// cgroup id, interface index or socket cookie, as `scope_kind` says.
    pub scope: u64,
    /// Address of the local end.
    pub local_address: [u8; 16],
    /// Address of the remote end.
    pub remote_address: [u8; 16],
    /// Port of the local end.
    pub local_port: u16,
    /// Port of the remote end.
    pub remote_port: u16,
    /// `SCOPE_*`.
    pub scope_kind: u32,
}

const _: () = assert!(size_of::<FlowKey>() == 48);

/// Not decided yet: each segment's first bytes are looked at.
pub const GATE_UNKNOWN: u8 = 0;
/// Sent: the first bytes begin an HTTP/1 message, or are too few to tell.
pub const GATE_HTTP: u8 = 1;
/// Counted and left alone. Final if the connection's first bytes were seen.
pub const GATE_IGNORE: u8 = 2;

/// The SYN of this generation was seen, so first payload bytes are known to be first.
pub const STATE_SYN_SEEN: u8 = 0x01;
/// The local end sent the SYN: it is the client.
pub const STATE_LOCAL_IS_CLIENT: u8 = 0x02;
/// A record of this socket end was lost and the loss has not been told.
pub const STATE_LOST: u8 = 0x04;
/// The first payload byte of the client was seen.
pub const STATE_CLIENT_SPOKE: u8 = 0x08;
/// The first payload byte of the server was seen.
pub const STATE_SERVER_SPOKE: u8 = 0x10;

/// What the kernel remembers of a socket end. Written by the kernel only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct ConnectionState {
    /// CLOCK_MONOTONIC of the last segment, ns.
    pub last_time_ns: u64,
    /// Client's initial sequence number, valid with [`STATE_SYN_SEEN`].
    pub generation: u32,
    /// Sequence number after the last byte seen, per `DIRECTION_*`.
    pub next_sequence: [u32; 2],
    /// `GATE_*`.
    pub gate: u8,
    /// `STATE_*` bits.
    pub marks: u8,
    /// Zero.
    pub reserved: u16,
}

const _: () = assert!(size_of::<ConnectionState>() == 24);
