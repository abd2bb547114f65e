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

impl FlowKey {
    /// The ring, of `count`, that carries this connection: the same for both directions and from both ends.
    #[inline(always)]
    pub const fn ring(&self, count: u32) -> u32 {
        // Nothing to work out where there is one, which the verifier knows.
        if count == 1 {
            return 0;
        }
        let ports = self.local_port ^ self.remote_port;
        let mixed = folded(self.local_address) ^ folded(self.remote_address) ^ ports as u32;
        // Fibonacci hashing (Knuth 6.4): the upper bits depend on all of them.
        let hash = mixed.wrapping_mul(0x9e37_79b1) >> 16;
        (hash * (count & 0xffff)) >> 16
    }
}

#[inline(always)]
const fn folded(address: [u8; 16]) -> u32 {
    let words = u128::from_ne_bytes(address);
    (words ^ words >> 32 ^ words >> 64 ^ words >> 96) as u32
}

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

/// Counted and left alone until another generation: user space does not want it. A verdict that the kernel has read once.
pub const GATE_UNWANTED: u8 = 4;
/// Counted and left alone until another generation: it began while connections were shed.
pub const GATE_SHED: u8 = 5;

/// What the kernel remembers of a socket end. Written by the kernel, and by user space only to have it met [`ConnectionState::anew`].
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
    /// Where the credit begins, per `DIRECTION_*`, valid with `read_known`: where sending began, then what user space said
    /// that it has read or does not want.
    pub read_sequence: [u32; 2],
    /// `GATE_*`.
    pub gate: u8,
    /// 1 if the SYN or SYN-ACK of this generation was seen.
    pub generation_known: u8,
    /// 1 if `pending` is valid.
    pub pending_known: u8,
    /// `DIRECTION_*` of the client's packets, valid with `generation_known`.
    pub client_direction: u8,
    /// 1 if `read_sequence` is valid, per `DIRECTION_*`.
    pub read_known: [u8; 2],
    /// The epoch of verdicts ([`crate::verdict::next_epoch`]) in which there was none for this socket end, or one that was
    /// taken whole; 0 before the first look: there is no such epoch once a verdict was written.
    pub heeded_epoch: u16,
}

const _: () = assert!(size_of::<ConnectionState>() == 64);

impl ConnectionState {
    /// The same socket end, looked at as if it had just been met in its middle: neither what it was taken for nor what was read of it
    /// holds any more.
    pub const fn anew(self) -> Self {
        Self { gate: GATE_UNKNOWN, read_known: [0; 2], heeded_epoch: 0, ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::MAX_RINGS;

    fn key(client: u8, port: u16) -> FlowKey {
        let mut local_address = [0; 16];
        local_address[15] = client;
        FlowKey {
            scope: 1,
            local_address,
            remote_address: [9; 16],
            local_port: port,
            remote_port: 80,
            scope_kind: SCOPE_CGROUP,
        }
    }

    #[test]
    fn both_ends_of_a_connection_share_a_ring() {
        for port in 1000..2000 {
            let near = key(port as u8, port);
            let far = FlowKey {
                scope: 2,
                local_address: near.remote_address,
                remote_address: near.local_address,
                local_port: near.remote_port,
                remote_port: near.local_port,
                ..near
            };
            assert_eq!(near.ring(MAX_RINGS), far.ring(MAX_RINGS));
            assert_eq!(near.ring(1), 0);
        }
    }

    #[test]
    fn connections_spread_over_all_rings() {
        for count in [2, 3, MAX_RINGS] {
            let mut carried = [0; MAX_RINGS as usize];
            for port in 32_768..36_768 {
                carried[key(7, port).ring(count) as usize] += 1;
                carried[key(port as u8, 40_000).ring(count) as usize] += 1;
            }
            let even = 8000 / count;
            for ring in 0..count as usize {
                assert!(carried[ring] > even / 2 && carried[ring] < even * 2, "{count}: {carried:?}");
            }
        }
    }
}
