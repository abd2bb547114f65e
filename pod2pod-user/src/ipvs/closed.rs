//! The closed entries of one poll, to be asked about single connections: by the virtual address that a client speaks to, or
//! by the real server where it comes out. A copy; it does not change.

use std::{hash::BuildHasher as _, net::SocketAddr};

use hashbrown::HashTable;

use super::{End, Sight, Tuple, parse::Protocol, state::State, table::Address};

/// What one entry takes here, with its places in both indices. Bytes.
pub const CLOSED_BYTES: usize = size_of::<Item<u32>>() + 2 * 12;

/// An entry whose connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Old {
    /// Whose.
    pub tuple: Tuple,
    /// As the poll had it.
    pub sight: Sight,
}

/// All of a poll; TCP's only.
#[derive(Debug, Default)]
pub struct Closed {
    four: List<u32>,
    six: List<[u64; 2]>,
}

impl Closed {
    /// None yet, and room for so many of each address family.
    pub fn with_room(four: usize, six: usize) -> Self {
        Self { four: List::with_room(four), six: List::with_room(six) }
    }

    /// Takes an entry, if it is of a connection of TCP that ended.
    pub fn push(&mut self, tuple: &Tuple, sight: Sight) {
        let is_one = tuple.protocol == Protocol::TCP && sight.state.is_closed();
        if is_one && !self.four.push(tuple, sight) {
            self.six.push(tuple, sight);
        }
    }

    /// The entry that a connection from `client` to `to` would meet, or has come by.
    pub fn find(&self, client: SocketAddr, to: SocketAddr) -> Option<Old> {
        self.four.find(client, to).or_else(|| self.six.find(client, to))
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.four.items.len() + self.six.items.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[derive(Clone, Copy, Debug)]
struct Item<A> {
    client: A,
    service: A,
    server: A,
    client_port: u16,
    service_port: u16,
    server_port: u16,
    /// Seconds; more than a closed entry ever has are told as that many.
    expires: u16,
    state: State,
}

/// Those of an address family.
#[derive(Debug)]
struct List<A> {
    items: Vec<Item<A>>,
    /// Positions, by client and virtual address.
    by_service: HashTable<u32>,
    /// The same, by client and real server.
    by_server: HashTable<u32>,
    hasher: foldhash::fast::RandomState,
}

impl<A> Default for List<A> {
    fn default() -> Self {
        let (by_service, by_server) = (HashTable::new(), HashTable::new());
        Self { items: Vec::new(), by_service, by_server, hasher: foldhash::fast::RandomState::default() }
    }
}

/// A connection's ends.
type Key<A> = (A, u16, A, u16);

impl<A: Address> Item<A> {
    const fn of_service(&self) -> Key<A> {
        (self.client, self.client_port, self.service, self.service_port)
    }

    const fn of_server(&self) -> Key<A> {
        (self.client, self.client_port, self.server, self.server_port)
    }

    fn old(&self) -> Old {
        let end = |address: A, port| (address.ip(), port);
        let (client, service) = (end(self.client, self.client_port), end(self.service, self.service_port));
        let server = end(self.server, self.server_port);
        Old {
            tuple: Tuple { protocol: Protocol::TCP, client, service },
            sight: Sight { server, state: self.state, expires: self.expires.into() },
        }
    }
}

impl<A: Address> List<A> {
    fn with_room(count: usize) -> Self {
        Self {
            items: Vec::with_capacity(count),
            by_service: HashTable::with_capacity(count),
            by_server: HashTable::with_capacity(count),
            ..Self::default()
        }
    }

    /// Whether it is of this family.
    fn push(&mut self, tuple: &Tuple, sight: Sight) -> bool {
        let end = |(address, port): End| Some((A::new(address)?, port));
        let ends = (end(tuple.client), end(tuple.service), end(sight.server));
        let (Some((client, client_port)), Some((service, service_port)), Some((server, server_port))) = ends
        else {
            return false;
        };
        let expires = u16::try_from(sight.expires).unwrap_or(u16::MAX);
        let Self { items, by_service, by_server, hasher } = self;
        let Ok(position) = u32::try_from(items.len()) else { return true };
        let state = sight.state;
        items.push(Item { client, service, server, client_port, service_port, server_port, expires, state });
        let hash = |items: &[Item<A>], position: u32, key: fn(&Item<A>) -> Key<A>| {
            items.get(position as usize).map_or(0, |item| hasher.hash_one(key(item)))
        };
        for (index, key) in
            [(by_service, Item::of_service as fn(&Item<A>) -> Key<A>), (by_server, Item::of_server)]
        {
            index.insert_unique(hash(items, position, key), position, |position| hash(items, *position, key));
        }
        true
    }

    fn find(&self, client: SocketAddr, to: SocketAddr) -> Option<Old> {
        if self.items.is_empty() {
            return None;
        }
        let key = (A::new(client.ip())?, client.port(), A::new(to.ip())?, to.port());
        let hash = self.hasher.hash_one(key);
        let is_it = |position: &u32, of: fn(&Item<A>) -> Key<A>| {
            self.items.get(*position as usize).is_some_and(|item| of(item) == key)
        };
        let found = self.by_service.find(hash, |position| is_it(position, Item::of_service));
        let found = found.or_else(|| self.by_server.find(hash, |position| is_it(position, Item::of_server)));
        self.items.get(*found? as usize).map(Item::old)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_found_by_service_and_by_server() {
        let address = |text: &str| text.parse::<SocketAddr>().unwrap();
        let end = |text: &str| (address(text).ip(), address(text).port());
        let mut closed = Closed::with_room(1, 1);
        let rows = [
            ("10.0.0.1:1", "10.96.0.10:80", "10.0.0.9:8080", State::TimeWait),
            ("10.0.0.1:2", "10.96.0.10:80", "10.0.0.9:8080", State::Established),
            ("10.0.0.1:3", "10.96.0.10:80", "10.0.0.9:8080", State::Close),
            ("[fd00::1]:1", "[fd00:96::10]:80", "[fd00::9]:8080", State::FinWait),
            ("[fd00::1]:2", "[fd00:96::10]:80", "10.0.0.9:8080", State::CloseWait),
        ];
        for (client, service, server, state) in rows {
            let tuple = Tuple { protocol: Protocol::TCP, client: end(client), service: end(service) };
            closed.push(&tuple, Sight { server: end(server), state, expires: 100_000 });
            closed.push(
                &Tuple { protocol: Protocol::UDP, ..tuple },
                Sight { server: end(server), state, expires: 1 },
            );
        }
        assert_eq!(closed.len(), 4);
        for (client, service, server, state) in rows {
            for to in [service, server] {
                let found = closed.find(address(client), address(to));
                if state == State::Established {
                    assert_eq!(found, None);
                    continue;
                }
                // Of a tunnel to the other family the client there is another one.
                let Some(found) = found else { panic!("{client} {to}") };
                assert_eq!((found.tuple.client, found.tuple.service), (end(client), end(service)));
                assert_eq!((found.sight.server, found.sight.state), (end(server), state));
                assert_eq!(found.sight.expires, u32::from(u16::MAX));
            }
        }
        for (client, to) in [
            ("10.0.0.1:4", "10.96.0.10:80"),
            ("10.0.0.1:1", "10.96.0.10:81"),
            ("10.0.0.2:1", "10.0.0.9:8080"),
        ] {
            assert_eq!(closed.find(address(client), address(to)), None, "{client} {to}");
        }
        const { assert!(CLOSED_BYTES <= 48) };
    }
}
