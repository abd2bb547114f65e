//! Which interface tells a connection that several of them see: the first one, once for each end.
//!
//! A connection is known by both initial sequence numbers, which NAT keeps; one that never came to be by its client's, and one that was
//! joined late by its addresses and ports. Both of its ends may be seen, and are told apart. Where neither end is (a bridge), a sighting counts for both:
//! it is told only if it comes first, and then no other is.

use std::{mem, net::SocketAddr, time::Duration};

use hashbrown::HashMap;

use crate::{
    capture::KernelInstant,
    reassembly::{Connection, Side, Start},
};

/// Connections and SYNs remembered: those of nearly a second at 10,000 new connections a second, and a packet goes through a node
/// in milliseconds. About 3 MiB. The older half is forgotten at once, and counted.
pub const MAX_SIGHTINGS: usize = 16_384;
/// A pair of initial sequence numbers names one connection for this long. Two other connections of a node share both
/// numbers by a chance of one in 2^64. The client's alone names an attempt: one SYN in 250,000 has the number of one remembered.
pub const SIGHTING_LIFETIME: Duration = Duration::from_secs(60);
/// A tuple names one connection for this long after it was sighted: ports are used again.
pub const TUPLE_LIFETIME: Duration = Duration::from_secs(2);

/// What is the same at every interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Name {
    /// Of the client and of the server.
    Numbers(u32, u32),
    /// Of the client, as long as nothing is heard of the server: an attempt, until it is answered.
    Syn(u32),
    /// The lower end first.
    Tuple(SocketAddr, SocketAddr),
}

/// Where on its way a connection was seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// At its client, or at the lower end of a tuple.
    First,
    /// At its server, or at the higher end.
    Second,
    /// Between.
    Between,
}

#[derive(Clone, Copy, Debug)]
struct Claim {
    interface: u32,
    time: KernelInstant,
}

/// Who tells of a connection, by [`Place`].
type Claims = [Option<Claim>; 3];

/// What was counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SightingStats {
    /// Sightings that another interface tells of.
    pub duplicates: u64,
    /// Connections forgotten before their time because there were too many.
    pub forgotten: u64,
}

/// Who tells of which connection.
#[derive(Debug, Default)]
pub struct Sightings {
    young: HashMap<Name, Claims, foldhash::fast::RandomState>,
    old: HashMap<Name, Claims, foldhash::fast::RandomState>,
    /// When the young began to be gathered.
    turned: KernelInstant,
    stats: SightingStats,
}

impl Sightings {
    /// Whether another interface tells of `connection`; if not, this one does from now on. To be asked once of each
    /// sighting, with its first bytes; `now` is their time.
    pub fn is_duplicate(&mut self, connection: &Connection, now: KernelInstant) -> bool {
        let (name, place) = sighted(connection);
        let is_duplicate = !self.claim(name, place, connection.interface_index, now);
        self.stats.duplicates += u64::from(is_duplicate);
        is_duplicate
    }

    /// The SYN of `connection` was seen: should nothing come of it, the interface tells so that saw it first. What answers it comes by them in
    /// the opposite order, with addresses that are translated.
    pub fn note_syn(&mut self, connection: &Connection, now: KernelInstant) {
        let (name, place) = sighted(connection);
        self.claim(name, place, connection.interface_index, now);
    }

    /// Whether `interface` is the one that tells.
    fn claim(&mut self, name: Name, place: Place, interface: u32, now: KernelInstant) -> bool {
        let lifetime = match name {
            Name::Numbers(..) | Name::Syn(_) => SIGHTING_LIFETIME,
            Name::Tuple(..) => TUPLE_LIFETIME,
        };
        let mut claims = self.take(&name, now);
        for claim in &mut claims {
            *claim = claim.filter(|claim| now.since(claim.time) <= lifetime);
        }
        let other = |claim: Option<Claim>| claim.is_some_and(|claim| claim.interface != interface);
        let [first, second, between] = claims;
        let is_others = match place {
            Place::First => other(first) || other(between),
            Place::Second => other(second) || other(between),
            Place::Between => other(first) || other(second) || other(between),
        };
        if !is_others {
            let claim = Some(Claim { interface, time: now });
            match place {
                Place::First => claims = [claim, second, between],
                Place::Second => claims = [first, claim, between],
                Place::Between => claims = [first, second, claim],
            }
        }
        self.young.insert(name, claims);
        !is_others
    }

    /// What was counted.
    pub const fn stats(&self) -> &SightingStats {
        &self.stats
    }

    /// Connections remembered.
    pub fn len(&self) -> usize {
        self.young.len() + self.old.len()
    }

    /// Whether none is remembered.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn take(&mut self, name: &Name, now: KernelInstant) -> Claims {
        let full = self.young.len() >= MAX_SIGHTINGS / 2;
        if full || now.since(self.turned) > SIGHTING_LIFETIME {
            let old = mem::replace(&mut self.old, mem::take(&mut self.young));
            if full && now.since(self.turned) <= SIGHTING_LIFETIME {
                self.stats.forgotten += old.len() as u64;
            }
            self.turned = now;
        }
        let claims = self.young.get(name).copied();
        claims.or_else(|| self.old.remove(name)).unwrap_or_default()
    }
}

fn sighted(connection: &Connection) -> (Name, Place) {
    let Connection { originator, responder, local, .. } = *connection;
    if let (Start::Handshake, Some(client)) = (connection.start, connection.originator_isn) {
        let place = match local {
            Some(Side::Originator) => Place::First,
            Some(Side::Responder) => Place::Second,
            None => Place::Between,
        };
        let name = connection.responder_isn.map_or(Name::Syn(client), |server| Name::Numbers(client, server));
        return (name, place);
    }
    let (low, high) = (originator.min(responder), originator.max(responder));
    let place = match local.map(|side| connection.address(side) == low) {
        Some(true) => Place::First,
        Some(false) => Place::Second,
        None => Place::Between,
    };
    (Name::Tuple(low, high), place)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capture::Scope;

    const CLIENT: Option<Side> = Some(Side::Originator);
    const SERVER: Option<Side> = Some(Side::Responder);
    const BETWEEN: Option<Side> = None;

    fn connection(interface_index: u32, local: Option<Side>, isn: u32) -> Connection {
        // NAT: other addresses at every interface.
        let client = format!("10.0.0.{interface_index}:40000").parse().unwrap();
        let ends = (client, "10.0.0.200:8080".parse().unwrap());
        Connection {
            originator_isn: Some(isn),
            responder_isn: Some(7),
            interface_index,
            ..Connection::between(Scope(interface_index.into()), ends, local, Start::Handshake)
        }
    }

    fn late(interface_index: u32, local: Option<Side>) -> Connection {
        Connection {
            start: Start::Middle,
            behind_loss: false,
            originator: "10.0.0.1:40000".parse().unwrap(),
            ..connection(interface_index, local, 0)
        }
    }

    fn at(seconds: u64) -> KernelInstant {
        KernelInstant::from_nanos(seconds * 1_000_000_000)
    }

    /// Which of the sightings are told.
    fn told(sightings: &[Connection]) -> Vec<u32> {
        let mut table = Sightings::default();
        let mut told = Vec::new();
        for connection in sightings {
            if !table.is_duplicate(connection, at(100)) {
                told.push(connection.interface_index);
            }
        }
        assert_eq!(table.stats().duplicates as usize, sightings.len() - told.len());
        told
    }

    #[test]
    fn each_end_is_told_once_by_the_first_interface() {
        let outgoing = [connection(1, CLIENT, 5), connection(2, BETWEEN, 5), connection(3, CLIENT, 5)];
        assert_eq!(told(&outgoing), [1]);
        let incoming = [connection(3, SERVER, 5), connection(2, BETWEEN, 5), connection(1, SERVER, 5)];
        assert_eq!(told(&incoming), [3]);
        let within = [connection(1, CLIENT, 5), connection(2, BETWEEN, 5), connection(4, SERVER, 5)];
        assert_eq!(told(&within), [1, 4]);
        let between = [connection(2, BETWEEN, 5), connection(4, SERVER, 5), connection(1, CLIENT, 5)];
        assert_eq!(told(&between), [2]);
        assert_eq!(told(&[connection(1, CLIENT, 5), connection(2, CLIENT, 6)]), [1, 2]);
        assert_eq!(told(&[connection(1, CLIENT, 5), connection(1, CLIENT, 5)]), [1, 1]);
    }

    #[test]
    fn an_attempt_that_failed_is_known_by_its_own_number() {
        let failed =
            |interface, local, isn| Connection { responder_isn: None, ..connection(interface, local, isn) };
        assert_eq!(told(&[failed(1, CLIENT, 5), failed(2, BETWEEN, 5), failed(3, CLIENT, 5)]), [1]);
        assert_eq!(told(&[failed(1, CLIENT, 5), failed(2, CLIENT, 6)]), [1, 2]);
        assert_eq!(told(&[failed(1, CLIENT, 5), failed(2, SERVER, 5)]), [1, 2], "each end tells");
        // It is none that came to be.
        assert_eq!(told(&[failed(1, CLIENT, 5), connection(2, CLIENT, 5)]), [1, 2]);
        // Whoever saw the SYN first tells, whoever saw the answer first.
        for local in [CLIENT, SERVER, BETWEEN] {
            let mut table = Sightings::default();
            for (interface, milliseconds) in [(1, 0), (2, 1), (1, 1000), (2, 1001)] {
                let syn = failed(interface, local, 5);
                table.note_syn(&syn, at(100).plus(Duration::from_millis(milliseconds)));
            }
            assert_eq!(table.stats().duplicates, 0, "a SYN is told of nobody");
            for (interface, expected) in [(2, true), (1, false), (2, true)] {
                let attempt = failed(interface, local, 5);
                assert_eq!(table.is_duplicate(&attempt, at(111)), expected, "{interface} {local:?}");
            }
        }
    }

    #[test]
    fn joined_late_the_tuple_decides() {
        assert_eq!(told(&[late(1, CLIENT), late(2, CLIENT)]), [1]);
        // What one interface saw first may be what the other saw second.
        let turned = Connection {
            originator: late(2, CLIENT).responder,
            responder: late(2, CLIENT).originator,
            ..late(2, SERVER)
        };
        assert_eq!(told(&[late(1, CLIENT), turned]), [1]);
        assert_eq!(told(&[late(1, CLIENT), late(2, SERVER)]), [1, 2]);
    }

    #[test]
    fn names_are_used_again_after_their_lifetime() {
        let check = |first: Connection, second: Connection, lifetime: Duration| {
            for (gap, duplicate) in [(lifetime, true), (lifetime + Duration::from_nanos(1), false)] {
                let mut table = Sightings::default();
                assert!(!table.is_duplicate(&first, at(100)));
                assert_eq!(table.is_duplicate(&second, at(100).plus(gap)), duplicate, "{gap:?}");
            }
        };
        check(connection(1, CLIENT, 5), connection(2, CLIENT, 5), SIGHTING_LIFETIME);
        check(late(1, CLIENT), late(2, CLIENT), TUPLE_LIFETIME);
        let failed = |interface| Connection { responder_isn: None, ..connection(interface, CLIENT, 5) };
        check(failed(1), failed(2), SIGHTING_LIFETIME);
    }

    #[test]
    fn the_oldest_are_forgotten_at_the_limit() {
        let mut table = Sightings::default();
        for isn in 0..MAX_SIGHTINGS as u32 {
            assert!(!table.is_duplicate(&connection(1, CLIENT, isn), at(100)));
        }
        assert_eq!((table.len(), table.stats().forgotten), (MAX_SIGHTINGS, 0));
        assert!(!table.is_duplicate(&connection(1, CLIENT, u32::MAX), at(100)));
        assert_eq!(table.len(), MAX_SIGHTINGS / 2 + 1);
        assert_eq!(table.stats().forgotten as usize, MAX_SIGHTINGS / 2);
        assert!(table.is_duplicate(&connection(2, CLIENT, MAX_SIGHTINGS as u32 - 1), at(100)));
        assert!(!table.is_duplicate(&connection(2, CLIENT, 0), at(100)));
    }
}
