//! The Segment: one TCP segment as seen at one place, whatever the source was.

use std::{net::SocketAddr, num::NonZeroU64, time::Duration};

use pod2pod_common::segment as contract;

/// A moment by the clock that stamped the packets: CLOCK_MONOTONIC ns from the kernel, ns since 1970 from a capture
/// file. Durations in a Record are differences of these, never of wall time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KernelInstant(
    /// One more than the nanoseconds: an instant that may be absent takes no more room than one.
    NonZeroU64,
);

impl KernelInstant {
    /// The instant `nanoseconds` after the clock's zero; the clock's last is 584 years after it, less one of them.
    pub const fn from_nanos(nanoseconds: u64) -> Self {
        Self(NonZeroU64::MIN.saturating_add(nanoseconds))
    }

    /// Nanoseconds since the clock's zero.
    pub const fn as_nanos(self) -> u64 {
        self.0.get() - 1
    }

    /// Time from `earlier` to `self`; zero if `earlier` is later.
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.get().saturating_sub(earlier.0.get()))
    }

    /// The instant `duration` later, at most the clock's last.
    pub const fn plus(self, duration: Duration) -> Self {
        let seconds = duration.as_secs().saturating_mul(1_000_000_000);
        Self(self.0.saturating_add(seconds.saturating_add(duration.subsec_nanos() as u64)))
    }
}

impl Default for KernelInstant {
    fn default() -> Self {
        Self::from_nanos(0)
    }
}

/// Which network world a tuple belongs to: every pod has the same 127.0.0.1 tuples.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Scope(pub u64);

/// Where the packet was seen, relative to the socket end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    /// Received by the local socket: the destination is local.
    Ingress,
    /// Sent by the local socket: the source is local.
    Egress,
    /// Seen on a path between the ends (capture file, bridge): neither end is local.
    Path,
}

/// TCP flag bits (RFC 9293 3.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct TcpFlags(pub u8);

impl TcpFlags {
    /// No more data from the sender.
    pub const fn fin(self) -> bool {
        self.0 & contract::TCP_FIN != 0
    }

    /// Synchronise sequence numbers.
    pub const fn syn(self) -> bool {
        self.0 & contract::TCP_SYN != 0
    }

    /// Reset the connection.
    pub const fn rst(self) -> bool {
        self.0 & contract::TCP_RST != 0
    }

    /// The acknowledgement number is significant.
    pub const fn ack(self) -> bool {
        self.0 & contract::TCP_ACK != 0
    }
}

/// An ICMP error that answered a segment: type and code as they are in the message (RFC 792, RFC 4443), which differ between
/// IPv4 and IPv6.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Unreachable {
    /// Type.
    pub kind: u8,
    /// Code.
    pub code: u8,
    /// This kernel sent it, so nobody has forged it.
    pub by_this_kernel: bool,
}

/// One TCP segment. The payload is borrowed from ring or file memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment<'a> {
    /// Kernel (or capture) time.
    pub time: KernelInstant,
    /// Network world of the tuple.
    pub scope: Scope,
    /// Which end is local.
    pub direction: Direction,
    /// Sender. IPv4-mapped addresses are given as IPv4.
    pub source: SocketAddr,
    /// Receiver.
    pub destination: SocketAddr,
    /// Sequence number of the first payload byte, of the SYN itself on a SYN (whose payload begins one later).
    pub sequence: u32,
    /// Acknowledgement number; significant with ACK.
    pub acknowledgement: u32,
    /// Flags.
    pub flags: TcpFlags,
    /// Payload bytes on the wire; more than `payload.len()` if the capture cut it.
    pub payload_length: u32,
    /// Payload bytes that were captured: always the first of the payload.
    pub payload: &'a [u8],
    /// Records of this socket end were lost by our own capture since the last segment that arrived.
    pub lost_before: bool,
    /// The capture left out, as it was told to, what of this direction lies before `sequence` and did not come.
    pub skipped_before: bool,
    /// The client's initial sequence number that the kernel side files the socket end under; verdicts name it.
    pub generation: Option<u32>,
    /// cgroup v2 id of the socket, 0 if unknown.
    pub cgroup_id: u64,
    /// Socket cookie, 0 if unknown; a listener's during a handshake.
    pub socket_cookie: u64,
    /// Interface index, or the interface's number in a capture file.
    pub interface_index: u32,
    /// The segment itself was not seen: an ICMP error quotes it, and that is what happened at `time`. Only SYNs are told so.
    pub unreachable: Option<Unreachable>,
    /// Keys are made of the socket cookie: user space has to link a listener's handshake to the child by ISN.
    pub scope_is_cookie: bool,
}

impl Segment<'_> {
    /// Whether it asks for a connection: a SYN that answers none, and that no ICMP error quotes.
    pub const fn opens(&self) -> bool {
        self.flags.syn() && !self.flags.ack() && self.unreachable.is_none()
    }
}
