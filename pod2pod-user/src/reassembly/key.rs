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
    near: Number,
    far: Number,
    near_port: u16,
    far_port: u16,
    kind: Kind,
}

/// An address of 16 bytes, its upper and its lower half: as one number it would have to lie at every 16th byte.
type Number = (u64, u64);

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

    /// Whether this is [`Self::of_connection`], without making it: asked for every segment.
    pub(super) fn is_of(&self, connection: &Connection) -> bool {
        let ends = [connection.originator, connection.responder];
        let (kind, in_order, in_reverse) = match connection.local {
            Some(Side::Originator) => (Kind::SocketEnd, true, false),
            Some(Side::Responder) => (Kind::SocketEnd, false, true),
            // The lower address is the near one, whoever spoke first.
            None => (Kind::Path, true, true),
        };
        self.kind == kind
            && self.scope == connection.scope.0
            && (in_order && self.is_between(ends[0], ends[1])
                || in_reverse && self.is_between(ends[1], ends[0]))
    }

    fn is_between(&self, near: SocketAddr, far: SocketAddr) -> bool {
        (self.near_port, self.far_port) == (near.port(), far.port())
            && (self.near, self.far) == (number(near.ip()), number(far.ip()))
    }

    /// Address of one of the ends, as in the segments.
    pub(super) fn address(&self, end: End) -> SocketAddr {
        let (number, port) = match end {
            End::Near => (self.near, self.near_port),
            End::Far => (self.far, self.far_port),
        };
        let number = u128::from(number.0) << 64 | u128::from(number.1);
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

    /// The same ends, whatever the network world.
    pub(super) const fn of_any_scope(mut self) -> Self {
        self.scope = 0;
        self
    }

    /// It stands for any socket of its ends: [`Self::any_socket`].
    pub(super) const fn is_of_any_socket(&self) -> bool {
        matches!(self.kind, Kind::AnySocket)
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

fn number(address: IpAddr) -> Number {
    match address {
        IpAddr::V4(address) => (0, 0xffff_0000_0000 | u64::from(address.to_bits())),
        IpAddr::V6(address) => ((address.to_bits() >> 64) as u64, address.to_bits() as u64),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reassembly::Start;

    fn connection(
        scope: u64,
        originator: SocketAddr,
        responder: SocketAddr,
        local: Option<Side>,
    ) -> Connection {
        Connection::between(Scope(scope), (originator, responder), local, Start::Handshake)
    }

    #[test]
    fn a_key_is_of_the_connections_that_have_it_and_of_no_other() {
        let addresses: [SocketAddr; 5] =
            ["10.0.0.1:80", "10.0.0.1:81", "10.0.0.2:80", "[fd00::1]:80", "[::a00:1]:80"]
                .map(|text| text.parse().unwrap());
        let mut all = Vec::new();
        for scope in [0, 7] {
            for local in [None, Some(Side::Originator), Some(Side::Responder)] {
                for (originator, responder) in
                    addresses.iter().flat_map(|one| addresses.map(|two| (*one, two)))
                {
                    all.push(connection(scope, originator, responder, local));
                }
            }
        }
        for (one, other) in all.iter().flat_map(|one| all.iter().map(move |other| (one, other))) {
            let (key, same) = (FlowKey::of_connection(one), FlowKey::of_connection(other));
            assert_eq!(key.is_of(other), key == same, "{one:?} {other:?}");
            let [near, far] = [End::Near, End::Far].map(|end| key.address(end));
            assert!([(near, far), (far, near)].contains(&(one.originator, one.responder)), "{one:?}");
        }
    }
}
