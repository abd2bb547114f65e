//! Entries of one address family, compactly: where each was at the last look and at the one before. Judges nothing.
//!
//! The kernel lists entries in the order of its own hash table, which stays: most rows are found where the row before them
//! was, and only others by their hash. Of a million rows the one took 7 ns a row, the other 280.

use std::{
    hash::{BuildHasher as _, Hash},
    net::IpAddr,
};

use hashbrown::HashTable;

use super::{End, Sight, Tuple, parse::Protocol, rule::Quiet, state::State};

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
    /// The poll had the key twice, with different servers.
    doubled: bool,
}

/// Ages that differ by no more are alike, seconds: both are rounded, and a table is read for a while.
const ALIKE: u32 = 2;

impl<A: Address> Kept<A> {
    fn sight(self) -> Sight {
        Sight { server: (self.server.ip(), self.port), state: self.state, expires: self.expires }
    }

    /// Whether it is at the same server and in the same state.
    fn is_of(&self, other: &Self) -> bool {
        (self.server, self.port, self.state) == (other.server, other.port, other.state)
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
            // Of two that are as old, as far as can be told, the later row was read later.
            _ => self.age() <= other.age().saturating_add(ALIKE),
        }
    }
}

/// Number of a poll; 0 is none.
pub(super) type Poll = u32;

/// An entry.
#[derive(Clone, Copy, Debug)]
struct Entry<A> {
    key: Key<A>,
    before: Kept<A>,
    now: Kept<A>,
    /// Poll of `before`; [`NEVER`] if there was none.
    before_poll: Poll,
    /// Poll of `now`; [`NEVER`] if it is over.
    poll: Poll,
    /// Ordinal of its row in that poll.
    row: u32,
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
    /// In the order of the rows of some poll, later ones behind.
    entries: Vec<Entry<A>>,
    /// Positions in `entries`, by the hash of the key.
    index: HashTable<u32>,
    hasher: foldhash::fast::RandomState,
    /// The table was empty: rows are not looked for, and are indexed at the end of the poll. A growing index would be built twice over,
    /// in an order that memory does not like: of a million rows that was half the time.
    is_loading: bool,
    /// Where the next row is expected: behind the last one that was, and behind the last one that was not.
    expected: [usize; 2],
    /// Rows of this poll.
    rows: u32,
    /// Rows of this poll that were elsewhere.
    strays: usize,
    /// Entries that are over.
    over: usize,
}

/// Entries that may have gone between two rows for the second one to be found at once.
const LOOK_AHEAD: usize = 3;

/// The table grows by one part in so many of it, or by so many entries.
const GROWTH_SHARE: usize = 4;
const MIN_GROWTH: usize = 256;

/// The table is put in order when one entry in so many is over, or was not where it was expected.
const DISORDER: usize = 4;

impl<A> Default for Table<A> {
    fn default() -> Self {
        Self {
            entries: Vec::new(),
            index: HashTable::new(),
            hasher: foldhash::fast::RandomState::default(),
            is_loading: false,
            expected: [0; 2],
            rows: 0,
            strays: 0,
            over: 0,
        }
    }
}

impl<A: Address> Table<A> {
    /// Entries, and those that are over and still have their places.
    pub(super) const fn places(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len() - self.over
    }

    /// Takes a row; one of a new key only while there are fewer than `max` places.
    #[inline]
    pub(super) fn push(&mut self, tuple: &Tuple, sight: Sight, poll: Poll, max: usize) -> Pushed {
        let Some((key, kept)) = keep(tuple, sight) else { return Pushed::Foreign };
        self.rows = self.rows.wrapping_add(1);
        self.is_loading |= self.entries.is_empty();
        if !self.is_loading
            && let Some(entry) = self.find(&key).and_then(|position| self.entries.get_mut(position))
        {
            return entry.see(kept, poll, self.rows);
        }
        if self.entries.len() >= max.min(u32::MAX as usize) {
            return Pushed::Full;
        }
        let Self { entries, index, hasher, is_loading, .. } = self;
        if entries.len() == entries.capacity() {
            // Not twice as many: what is never used of it would be a large part of all.
            entries.reserve_exact((entries.len() / GROWTH_SHARE).max(MIN_GROWTH));
        }
        let position = entries.len() as u32;
        entries.push(Entry { key, before: kept, now: kept, before_poll: NEVER, poll, row: self.rows });
        if !*is_loading {
            let hash = hasher.hash_one(key);
            index.insert_unique(hash, position, |position| hash_of(entries, hasher, *position));
        }
        Pushed::Kept
    }

    #[inline]
    fn find(&mut self, key: &Key<A>) -> Option<usize> {
        for expected in &mut self.expected {
            let ahead = self.entries.get(*expected..).unwrap_or_default().iter().take(LOOK_AHEAD);
            if let Some(ahead) =
                ahead.enumerate().find(|(_, entry)| entry.key == *key).map(|(ahead, _)| ahead)
            {
                *expected += ahead + 1;
                return Some(*expected - 1);
            }
        }
        let is_it =
            |position: &u32| self.entries.get(*position as usize).is_some_and(|entry| entry.key == *key);
        let position = *self.index.find(self.hasher.hash_one(key), is_it)? as usize;
        self.strays += 1;
        let [_, elsewhere] = &mut self.expected;
        *elsewhere = position + 1;
        Some(position)
    }

    /// Hands over every entry that this poll and an earlier one had, but for those that are `quiet` since the last one; forgets
    /// those of which `is_over` is true, and gives their places away if all `is_full`. Gives how many second rows of a key were found
    /// only now.
    pub(super) fn finish(
        &mut self,
        poll: Poll,
        quiet: Quiet,
        is_full: bool,
        mut is_over: impl FnMut(Poll, State) -> bool,
        mut each: impl FnMut(Pair),
    ) -> u64 {
        let doubles = if self.is_loading { self.index_all(poll) } else { 0 };
        self.is_loading = false;
        self.over = 0;
        for entry in &mut self.entries {
            if entry.poll != poll {
                if entry.poll == NEVER || is_over(entry.poll, entry.now.state) {
                    entry.poll = NEVER;
                    self.over += 1;
                }
                continue;
            }
            if entry.now.expires == 0 {
                entry.mend(quiet);
            }
            if entry.before_poll != NEVER && !entry.is_quiet(quiet) {
                each(entry.pair());
            }
        }
        let disorder = self.over.max(self.strays) * DISORDER;
        if disorder > self.entries.len() || (self.over > 0 && is_full) {
            self.put_in_order();
        }
        (self.expected, self.rows, self.strays) = ([0; 2], 0, 0);
        doubles
    }

    /// Finds the entries of the first poll by their keys, all at once; second rows of a key become one entry with the first. Gives how
    /// many those were.
    fn index_all(&mut self, poll: Poll) -> u64 {
        let Self { entries, index, hasher, .. } = self;
        index.clear();
        index.reserve(entries.len(), |position| hash_of(entries, hasher, *position));
        let mut kept = 0;
        for position in 0..entries.len() {
            let Some(entry) = entries.get(position).copied() else { continue };
            let hash = hasher.hash_one(entry.key);
            let is_it =
                |other: &u32| entries.get(*other as usize).is_some_and(|other| other.key == entry.key);
            match index.find(hash, is_it).copied() {
                Some(first) => {
                    if let Some(first) = entries.get_mut(first as usize) {
                        first.see(entry.now, poll, entry.row);
                    }
                }
                None => {
                    if let Some(place) = entries.get_mut(kept) {
                        *place = entry;
                    }
                    index.insert_unique(hash, kept as u32, |position| hash_of(entries, hasher, *position));
                    kept += 1;
                }
            }
        }
        let doubles = entries.len() - kept;
        entries.truncate(kept);
        doubles as u64
    }

    /// Entries of a poll whose connection ended.
    pub(super) fn count_closed(&self, poll: Poll) -> usize {
        self.entries.iter().filter(|entry| entry.poll == poll && entry.now.state.is_closed()).count()
    }

    /// Hands over the entries of a poll.
    pub(super) fn each(&self, poll: Poll, mut each: impl FnMut(&Tuple, Sight)) {
        for entry in self.entries.iter().filter(|entry| entry.poll == poll) {
            let pair = entry.pair();
            each(&pair.tuple, pair.now);
        }
    }

    fn put_in_order(&mut self) {
        let Self { entries, index, hasher, .. } = self;
        entries.retain(|entry| entry.poll != NEVER);
        entries.sort_unstable_by_key(|entry| entry.row);
        index.clear();
        for (position, entry) in entries.iter().enumerate() {
            let hash = hasher.hash_one(entry.key);
            index.insert_unique(hash, position as u32, |position| hash_of(entries, hasher, *position));
        }
        self.over = 0;
    }
}

fn hash_of<A: Address>(entries: &[Entry<A>], hasher: &foldhash::fast::RandomState, position: u32) -> u64 {
    entries.get(position as usize).map_or(0, |entry| hasher.hash_one(entry.key))
}

impl<A: Address> Entry<A> {
    /// Whether there is nothing to be told: most of all entries.
    #[inline]
    fn is_quiet(&self, quiet: Quiet) -> bool {
        let Self { before, now, .. } = self;
        self.before_poll + 1 == self.poll
            && before.is_of(now)
            && quiet.holds(now.state, before.expires, now.expires)
    }

    /// An entry that was ended before its time is as old as it was: its last packet is no matter of its end.
    fn mend(&mut self, quiet: Quiet) {
        if self.before_poll + 1 == self.poll
            && self.before.is_of(&self.now)
            && let Some(left) = quiet.cut_short(self.before.expires)
        {
            self.now.expires = left;
        }
    }

    fn pair(&self) -> Pair {
        let Self { key, before, now, before_poll, .. } = *self;
        let tuple = Tuple {
            protocol: key.protocol,
            client: (key.client.ip(), key.client_port),
            service: (key.service.ip(), key.service_port),
        };
        Pair { tuple, before: before.sight(), before_poll, now: now.sight() }
    }

    #[inline]
    fn see(&mut self, kept: Kept<A>, poll: Poll, row: u32) -> Pushed {
        self.row = row;
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
        let (old, mut new) = if kept.succeeds(self.now) { (self.now, kept) } else { (kept, self.now) };
        let is_other_server = (old.server, old.port) != (new.server, new.port);
        // An entry that controls others outlives its successor, beside which it is seen in poll after poll.
        let was_doubled = self.before_poll != poll && self.before.doubled;
        // What is dying has nothing left: what it had is known from the poll before.
        let is_known = old.expires == 0 && self.before_poll != NEVER && self.before.is_of(&old);
        if self.before_poll == NEVER || (is_other_server && !was_doubled && !is_known) {
            (self.before, self.before_poll) = (old, poll);
        }
        new.doubled = is_other_server || self.now.doubled;
        self.now = new;
    }
}

#[inline]
fn keep<A: Address>(tuple: &Tuple, sight: Sight) -> Option<(Key<A>, Kept<A>)> {
    let end = |(address, port): End| Some((A::new(address)?, port));
    let ((client, client_port), (service, service_port)) = (end(tuple.client)?, end(tuple.service)?);
    let (server, port) = end(sight.server)?;
    let key = Key { client, service, client_port, service_port, protocol: tuple.protocol };
    Some((key, Kept { server, port, state: sight.state, expires: sight.expires, doubled: false }))
}
