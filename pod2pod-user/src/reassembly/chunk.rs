//! What reassembly hands on: the Chunk, and what is known of the connection it belongs to.

use std::net::SocketAddr;

use crate::capture::{Direction, KernelInstant, Scope, Segment};

/// Names one connection generation for as long as the process lives; never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionToken(pub u64);

impl ConnectionToken {
    /// Of a connection that was tried and never was one.
    pub const NONE: Self = Self(u64::MAX);
}

/// An end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Side {
    /// Sent the SYN; with [`Start::Middle`], sent the first segment that was seen.
    Originator,
    /// The other end.
    Responder,
}

impl Side {
    /// The other side.
    pub const fn other(self) -> Self {
        match self {
            Self::Originator => Self::Responder,
            Self::Responder => Self::Originator,
        }
    }
}

/// Whether the connection was seen from its first byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Start {
    /// A SYN or SYN-ACK was seen: roles and stream offsets are known.
    Handshake,
    /// Joined in the middle: roles are unknown, offsets are raw sequence numbers.
    Middle,
}

/// What is known of a connection at the moment of a Chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connection {
    /// The generation's name.
    pub token: ConnectionToken,
    /// Network world of the tuple.
    pub scope: Scope,
    /// End that sent the SYN (or the first segment seen).
    pub originator: SocketAddr,
    /// The other end.
    pub responder: SocketAddr,
    /// The end whose socket was observed; absent on a path.
    pub local: Option<Side>,
    /// How it was joined.
    pub start: Start,
    /// Joined in the middle, and the capture says that it lost something of it before.
    pub behind_loss: bool,
    /// Originator's initial sequence number: from its SYN, or the SYN-ACK's acknowledgement − 1.
    pub originator_isn: Option<u32>,
    /// Responder's initial sequence number: from its SYN-ACK, or the first originator data's acknowledgement − 1.
    pub responder_isn: Option<u32>,
    /// First SYN of the originator.
    pub syn_time: Option<KernelInstant>,
    /// When the handshake was complete as this end saw it: SYN-ACK at the client, first ACK or data at the server.
    pub established_time: Option<KernelInstant>,
    /// Segments with payload seen again whole, in both directions so far.
    pub retransmits: u64,
    /// How often the originator's SYN was seen again.
    pub syn_retransmits: u8,
    /// cgroup v2 id of the observed socket, 0 if unknown.
    pub cgroup_id: u64,
    /// Cookie of the observed socket, 0 if unknown.
    pub socket_cookie: u64,
    /// Interface of the first segment.
    pub interface_index: u32,
}

impl Connection {
    /// A connection of which nothing is known but its ends and how it began: the rest is absent, or 0.
    pub const fn between(
        scope: Scope,
        (originator, responder): (SocketAddr, SocketAddr),
        local: Option<Side>,
        start: Start,
    ) -> Self {
        Self {
            token: ConnectionToken::NONE,
            scope,
            originator,
            responder,
            local,
            start,
            behind_loss: false,
            originator_isn: None,
            responder_isn: None,
            syn_time: None,
            established_time: None,
            retransmits: 0,
            syn_retransmits: 0,
            cgroup_id: 0,
            socket_cookie: 0,
            interface_index: 0,
        }
    }

    /// The connection that `syn` asks for, where it was seen.
    pub const fn asked_for_by(syn: &Segment<'_>) -> Self {
        let local = match syn.direction {
            Direction::Egress => Some(Side::Originator),
            Direction::Ingress => Some(Side::Responder),
            Direction::Path => None,
        };
        let ends = (syn.source, syn.destination);
        let connection = Self::between(syn.scope, ends, local, Start::Handshake).seen_with(syn);
        Self { originator_isn: Some(syn.sequence), ..connection }
    }

    /// The same, at the place where `segment` was seen.
    pub(super) const fn seen_with(self, segment: &Segment<'_>) -> Self {
        let Segment { cgroup_id, socket_cookie, interface_index, .. } = *segment;
        Self { cgroup_id, socket_cookie, interface_index, ..self }
    }

    /// Address of `side`.
    pub const fn address(&self, side: Side) -> SocketAddr {
        match side {
            Side::Originator => self.originator,
            Side::Responder => self.responder,
        }
    }
}

/// Why bytes are missing for good.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum GapCause {
    /// The capture cut the payload on purpose (snap length, credit): the length is known, the bytes are not.
    Cut,
    /// Never seen, though the receiver acknowledged or the sender went on: lost by the capture.
    Missing,
    /// Given up because out-of-order bytes hit their limit.
    Limit,
}

/// How a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CloseCause {
    /// Both sides finished and everything before was delivered.
    Finished,
    /// A valid reset by the side.
    Reset(Side),
    /// A new generation took the tuple.
    Replaced,
    /// No segment for the idle limit.
    Idle,
    /// Evicted to keep the table or its memory within limits.
    Evicted,
    /// The source ended (end of file, shutdown).
    SourceEnded,
}

/// What a Chunk carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content<'a> {
    /// The next bytes, never empty, never delivered before. Boundaries mean nothing but are those of segments.
    Bytes(&'a [u8]),
    /// The next `length` bytes will not come. `may_be_ours`: our own capture may have lost them, so what follows from
    /// their absence must not be blamed on the peers.
    Gap {
        /// Bytes that are missing; never 0.
        length: u64,
        /// Why.
        cause: GapCause,
        /// Our own capture may have lost them.
        may_be_ours: bool,
    },
    /// The sender finished (FIN): no byte of this direction follows.
    Finished,
    /// The connection is over, both directions: nothing of it follows. `sender` is meaningless.
    Closed(CloseCause),
}

/// A step of one direction of one connection.
///
/// Delivery is causal: bytes of one side come only after the bytes of the other side that they acknowledge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chunk<'a> {
    /// The connection, as known now.
    pub connection: &'a Connection,
    /// Who sent the bytes.
    pub sender: Side,
    /// Time of the segment that brought these bytes (of the first copy), not of their delivery.
    pub time: KernelInstant,
    /// Sequence number of the first byte minus the sender's ISN, extended to 64 bits (the first byte of a connection is
    /// 1); with [`Start::Middle`] the raw sequence number, extended.
    pub offset: u64,
    /// What it carries.
    pub content: Content<'a>,
}
