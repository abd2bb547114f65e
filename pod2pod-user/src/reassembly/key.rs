//! The flow key: which segments belong to one connection as seen at one place.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use super::{Connection, Side};
use crate::capture::{Direction, Scope, Segment};

/// One of the two ends in a [`FlowKey`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum End {
    /// The local end; on a path the lower address.
    Near,
    /// The other.
    Far,
}

/// Network world, kind of view, and the two ends. Loopback connections are seen at both of their socket ends in one
/// world, so the key says which end is local.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct FlowKey {
    scope: u64,
    near: u128,
    far: u128,
    near_port: u16,
    far_port: u16,
    kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
enum Kind {
    SocketEnd,
    Path,
    /// Any socket of the tuple: used to find what a listener's cookie carried.
    AnySocket,
}

impl FlowKey {
    /// Key of a segment, and which end sent it.
    pub(super) fn of(segment: &Segment<'_>) -> (Self, End) {
        let (kind, sender) = match segment.direction {
            Direction::Egress => (Kind::SocketEnd, End::Near),
            Direction::Ingress => (Kind::SocketEnd, End::Far),
            Direction::Path if segment.source <= segment.destination => (Kind::Path, End::Near),
            Direction::Path => (Kind::Path, End::Far),
        };
        let (near, far) = match sender {
            End::Near => (segment.source, segment.destination),
            End::Far => (segment.destination, segment.source),
        };
        (Self::new(segment.scope, kind, near, far), sender)
    }

    /// Key of a connection, as its first segment had it.
    pub(super) fn of_connection(connection: &Connection) -> Self {
        let (originator, responder) = (connection.originator, connection.responder);
        let (kind, near, far) = match connection.local {
            Some(Side::Originator) => (Kind::SocketEnd, originator, responder),
            Some(Side::Responder) => (Kind::SocketEnd, responder, originator),
            None => (Kind::Path, originator.min(responder), originator.max(responder)),
        };
        Self::new(connection.scope, kind, near, far)
    }

    /// Address of one of the ends, as in the segments.
    pub(super) fn address(&self, end: End) -> SocketAddr {
        let (number, port) = match end {
            End::Near => (self.near, self.near_port),
            End::Far => (self.far, self.far_port),
        };
        SocketAddr::new(Ipv6Addr::from_bits(number).to_canonical(), port)
    }

    /// The network world.
    pub(super) const fn scope(&self) -> Scope {
        Scope(self.scope)
    }

    /// Neither end is local.
    pub(super) fn is_path(&self) -> bool {
        self.kind == Kind::Path
    }

    /// The same ends in any socket's scope, where scopes are socket cookies.
    pub(super) fn any_socket(mut self) -> Self {
        self.scope = 0;
        self.kind = Kind::AnySocket;
        self
    }

    fn new(scope: Scope, kind: Kind, near: SocketAddr, far: SocketAddr) -> Self {
        Self {
            scope: scope.0,
            near: number(near.ip()),
            far: number(far.ip()),
            near_port: near.port(),
            far_port: far.port(),
            kind,
        }
    }
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => 0xffff_0000_0000 | u128::from(address.to_bits()),
        IpAddr::V6(address) => address.to_bits(),
    }
}
