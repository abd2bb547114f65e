//! Keys to connections, four bytes each: the key itself is where the connection is.
//!
//! Holds no connection. Whoever asks brings what says which key an entry stands for.

use std::hash::BuildHasher as _;

use hashbrown::HashTable;

use super::{
    aged::Slot,
    config::{churned, table},
    key::FlowKey,
};

/// What a key stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Entry {
    Live(Slot),
    Ended(Slot),
}

/// Which of its keys: its own, or its child's where scopes are socket cookies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Which {
    Own,
    Child,
}

/// An entry, and by which key: the upper two bits, above what any table has slots for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Packed(u32);

const ENDED: u32 = 1 << 31;
const CHILD: u32 = 1 << 30;

impl Packed {
    const fn new(entry: Entry, which: Which) -> Self {
        let (slot, ended) = match entry {
            Entry::Live(slot) => (slot, 0),
            Entry::Ended(slot) => (slot, ENDED),
        };
        let child = match which {
            Which::Own => 0,
            Which::Child => CHILD,
        };
        Self(slot & !(ENDED | CHILD) | ended | child)
    }

    const fn entry(self) -> Entry {
        let slot = self.0 & !(ENDED | CHILD);
        if self.0 & ENDED == 0 { Entry::Live(slot) } else { Entry::Ended(slot) }
    }

    const fn which(self) -> Which {
        if self.0 & CHILD == 0 { Which::Own } else { Which::Child }
    }
}

/// Entries by key. Keys come from foreign packets: a random seed keeps them from being chosen to collide.
#[derive(Debug, Default)]
pub(super) struct Index {
    entries: HashTable<Packed>,
    seed: foldhash::fast::RandomState,
}

impl Index {
    /// Room for so many keys, that come and go.
    pub(super) fn with_capacity(keys: usize) -> Self {
        Self {
            entries: HashTable::with_capacity(churned(keys)),
            seed: foldhash::fast::RandomState::default(),
        }
    }

    /// Bytes of one for so many keys.
    pub(super) const fn bytes(keys: u64) -> u64 {
        table(churned(keys as usize) as u64, size_of::<Packed>() as u64)
    }

    /// What `key` stands for. `has` says whether an entry has it.
    #[inline]
    pub(super) fn find(&self, key: &FlowKey, has: impl Fn(Entry, Which) -> bool) -> Option<Entry> {
        let found = self.entries.find(self.seed.hash_one(key), |packed| has(packed.entry(), packed.which()));
        found.map(|packed| packed.entry())
    }

    /// All that `key` stands for, where several may have one key.
    pub(super) fn find_all(
        &self,
        key: &FlowKey,
        has: impl Fn(Entry, Which) -> bool,
    ) -> impl Iterator<Item = Entry> {
        let all =
            self.entries.iter_hash(self.seed.hash_one(key)).map(|packed| (packed.entry(), packed.which()));
        all.filter(move |(entry, which)| has(*entry, *which)).map(|(entry, _)| entry)
    }

    /// Adds an entry under `key`. `key_of` says which key an entry has.
    pub(super) fn add(
        &mut self,
        key: &FlowKey,
        entry: Entry,
        which: Which,
        key_of: impl Fn(Entry, Which) -> Option<FlowKey>,
    ) {
        let seed = &self.seed;
        let hash =
            |packed: &Packed| key_of(packed.entry(), packed.which()).map_or(0, |key| seed.hash_one(key));
        self.entries.insert_unique(seed.hash_one(key), Packed::new(entry, which), hash);
    }

    /// Takes an entry out, if it is there under `key`; the connection itself may be gone.
    pub(super) fn remove(&mut self, key: &FlowKey, entry: Entry, which: Which) {
        let packed = Packed::new(entry, which);
        if let Ok(found) = self.entries.find_entry(self.seed.hash_one(key), |other| *other == packed) {
            found.remove();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_unpacked_as_it_was_packed() {
        for slot in [0, 1, CHILD - 1] {
            for entry in [Entry::Live(slot), Entry::Ended(slot)] {
                for which in [Which::Own, Which::Child] {
                    let packed = Packed::new(entry, which);
                    assert_eq!((packed.entry(), packed.which()), (entry, which));
                }
            }
        }
        assert!(super::super::config::DEFAULT_MAX_CONNECTIONS < CHILD as usize);
    }
}
