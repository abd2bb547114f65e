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

/// Scope of the key under which a server's handshake is kept where scope is the cookie: SYN and SYN-ACK carry the
/// listener's, and the first packet with the child's own is linked by the sequence number.
pub const SCOPE_OF_HANDSHAKE: u64 = 0;

/// Not decided yet. If the SYN was seen, the client's first bytes decide; else the first bytes of every segment are
/// looked at until some begin a message.
pub const GATE_UNKNOWN: u8 = 0;
/// Sent: bytes that begin an HTTP/1 message were seen, or too few to tell.
pub const GATE_HTTP: u8 = 1;
/// Counted and left alone, for good: the client's first bytes are not HTTP/1. SYN, FIN and RST are sent.
pub const GATE_IGNORE: u8 = 2;
/// The agent's own connection: nothing is sent.
pub const GATE_OWN: u8 = 3;

/// What the kernel remembers of a socket end. Written by the kernel only.
///
/// Ingress and egress may write at once, on two CPUs. So every fact has a field of its own that is written whole, and
/// any order of two writes leaves a state that is right for one of the two packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct ConnectionState {
    /// CLOCK_MONOTONIC of the last segment, ns.
    pub last_time_ns: u64,
    /// Cookie of the listener, in an entry under [`SCOPE_OF_HANDSHAKE`]; else 0.
    pub listener_cookie: u64,
    /// Records of this socket end that the ring had no room for.
    pub lost: u64,
    /// `lost` when it was told last, by [`crate::segment::MARK_CONNECTION_LOST`].
    pub told: u64,
    /// Client's initial sequence number, valid with `generation_known`.
    pub generation: u32,
    /// Initial sequence number of a SYN that arrived and is not answered: it may be forged, so it changes nothing yet.
    pub pending: u32,
    /// Sequence number after the last byte seen, per `DIRECTION_*`.
    pub next_sequence: [u32; 2],
    /// `GATE_*`.
    pub gate: u8,
    /// 1 if the SYN or SYN-ACK of this generation was seen.
    pub generation_known: u8,
    /// 1 if `pending` is valid.
    pub pending_known: u8,
    /// `DIRECTION_*` of the client's packets, valid with `generation_known`.
    pub client_direction: u8,
    /// Zero.
    pub reserved: u32,
}

const _: () = assert!(size_of::<ConnectionState>() == 56);
