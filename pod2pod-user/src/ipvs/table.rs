//! Entries of one address family, compactly: where each was at the last look and at the one before. Judges nothing.

use std::{hash::Hash, net::IpAddr};

use hashbrown::{HashMap, hash_map};

use super::{End, Sight, Tuple, parse::Protocol, state::State};

/// An address as it is kept.
pub(super) trait Address: Copy + Eq + Hash {
    /// Absent if it does not fit.
    fn new(address: IpAddr) -> Option<Self>;
    fn ip(self) -> IpAddr;
}

impl Address for u32 {
    fn new(address: IpAddr) -> Option<Self> {
        match address {
            IpAddr::V4(address) => Some(address.to_bits()),
            IpAddr::V6(_) => None,
        }
    }

    fn ip(self) -> IpAddr {
        IpAddr::V4(self.into())
    }
}

/// IPv6, and IPv4 mapped to it: the real server of a tunnel may be of the other family.
impl Address for [u64; 2] {
    fn new(address: IpAddr) -> Option<Self> {
        let bits = match address {
            IpAddr::V4(address) => address.to_ipv6_mapped().to_bits(),
            IpAddr::V6(address) => address.to_bits(),
        };
        Some([(bits >> 64) as u64, bits as u64])
    }

    fn ip(self) -> IpAddr {
        let [high, low] = self;
        IpAddr::V6((u128::from(high) << 64 | u128::from(low)).into()).to_canonical()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Key<A> {
    client: A,
    service: A,
    client_port: u16,
    service_port: u16,
    protocol: Protocol,
}

/// A [`Sight`], of 12 bytes with IPv4.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Kept<A> {
    server: A,
    expires: u32,
    port: u16,
    state: State,
}

impl<A: Address> Kept<A> {
    fn sight(self) -> Sight {
        Sight { server: (self.server.ip(), self.port), state: self.state, expires: self.expires }
    }

    /// Seconds since its last packet, as far as its state's time-out is the usual one.
    fn age(self) -> u32 {
        self.state.timeout().unwrap_or(self.expires).saturating_sub(self.expires)
    }

    /// Whether of two rows of one key `self` is the entry that is alive, or was read later. `self` came later in the table.
    fn succeeds(self, other: Self) -> bool {
        match (self.expires, other.expires) {
            (0, 1..) => false,
            (1.., 0) => true,
            _ => self.age() <= other.age(),
        }
    }
}

/// Number of a poll; 0 is none.
pub(super) type Poll = u32;

/// An entry.
#[derive(Clone, Copy, Debug)]
struct Entry<A> {
    before: Kept<A>,
    now: Kept<A>,
    /// Poll of `before`; [`NEVER`] if there was none.
    before_poll: Poll,
    poll: Poll,
    /// Last poll that had the key twice, with different servers.
    doubled: Poll,
}

const NEVER: Poll = 0;

/// What [`Table::push`] did with a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pushed {
    /// The first of its key in this poll.
    Kept,
    /// The key was there already in this poll.
    Double,
    /// The table is full, and the key is new.
    Full,
    /// The address family is another one.
    Foreign,
}

/// An entry that two polls saw, or one poll twice.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pair {
    pub(super) tuple: Tuple,
    pub(super) before: Sight,
    pub(super) before_poll: Poll,
    pub(super) now: Sight,
}

#[derive(Debug)]
pub(super) struct Table<A> {
    entries: HashMap<Key<A>, Entry<A>, foldhash::fast::RandomState>,
    max: usize,
}

impl<A: Address> Table<A> {
    pub(super) fn new(max: usize) -> Self {
        Self { entries: HashMap::default(), max }
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    #[inline]
    pub(super) fn push(&mut self, tuple: &Tuple, sight: Sight, poll: Poll) -> Pushed {
        let Some((key, kept)) = keep(tuple, sight) else { return Pushed::Foreign };
        let is_full = self.entries.len() >= self.max;
        match self.entries.entry(key) {
            hash_map::Entry::Vacant(_) if is_full => Pushed::Full,
            hash_map::Entry::Vacant(vacant) => {
                vacant.insert(Entry { before: kept, now: kept, before_poll: NEVER, poll, doubled: NEVER });
                Pushed::Kept
            }
            hash_map::Entry::Occupied(occupied) => occupied.into_mut().see(kept, poll),
        }
    }

    /// Hands over every entry that this poll and an earlier one had; forgets those of which `is_over` is true.
    pub(super) fn finish(
        &mut self,
        poll: Poll,
        mut is_over: impl FnMut(Poll, State) -> bool,
        mut each: impl FnMut(Pair),
    ) {
        self.entries.retain(|key, entry| {
            if entry.poll == poll && entry.before_poll != NEVER {
                let tuple = Tuple {
                    protocol: key.protocol,
                    client: (key.client.ip(), key.client_port),
                    service: (key.service.ip(), key.service_port),
                };
                let (before, now) = (entry.before.sight(), entry.now.sight());
                each(Pair { tuple, before, before_poll: entry.before_poll, now });
            }
            entry.poll == poll || !is_over(entry.poll, entry.now.state)
        });
    }
}

impl<A: Address> Entry<A> {
    #[inline]
    fn see(&mut self, kept: Kept<A>, poll: Poll) -> Pushed {
        if self.poll != poll {
            (self.before, self.before_poll) = (self.now, self.poll);
            (self.now, self.poll) = (kept, poll);
            return Pushed::Kept;
        }
        self.double(kept, poll);
        Pushed::Double
    }

    /// A second row of this poll: the table was read while it changed, or the entry of an old connection is dying.
    fn double(&mut self, kept: Kept<A>, poll: Poll) {
        let (old, new) = if kept.succeeds(self.now) { (self.now, kept) } else { (kept, self.now) };
        self.now = new;
        let is_other_server = (old.server, old.port) != (new.server, new.port);
        // An entry that controls others outlives its successor, beside which it is seen in poll after poll.
        let was_doubled = self.doubled != NEVER && self.doubled == self.before_poll;
        if self.before_poll == NEVER || (is_other_server && !was_doubled) {
            (self.before, self.before_poll) = (old, poll);
        }
        if is_other_server {
            self.doubled = poll;
        }
    }
}

#[inline]
fn keep<A: Address>(tuple: &Tuple, sight: Sight) -> Option<(Key<A>, Kept<A>)> {
    let end = |(address, port): End| Some((A::new(address)?, port));
    let ((client, client_port), (service, service_port)) = (end(tuple.client)?, end(tuple.service)?);
    let (server, port) = end(sight.server)?;
    let key = Key { client, service, client_port, service_port, protocol: tuple.protocol };
    Some((key, Kept { server, port, state: sight.state, expires: sight.expires }))
}
