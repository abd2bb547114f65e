//! Handshakes that nothing has answered: a SYN is no connection, and forged ones cost only an entry here.
//!
//! Remembers and finds; whether an answer is one is judged by the [`super::Reassembler`].

use super::{
    aged::{Aged, Slot},
    config::MAX_HANDSHAKES_PER_TUPLE,
    index::{Entry, Index, Which},
    key::{End, FlowKey},
};
use crate::capture::{KernelInstant, Segment};

/// One SYN or SYN-ACK.
#[derive(Debug)]
pub(super) struct Pending {
    pub(super) key: FlowKey,
    /// Who sent the SYN.
    pub(super) initiator: End,
    /// Its sequence number.
    pub(super) isn: u32,
    /// When it was first seen; absent if only its SYN-ACK was.
    pub(super) syn_time: Option<KernelInstant>,
    /// Sequence number and time of the SYN-ACK.
    pub(super) answer: Option<(u32, KernelInstant)>,
    /// What the SYN carried (RFC 7413), as far as captured and kept.
    pub(super) payload: Box<[u8]>,
    /// Length of what it carried.
    pub(super) payload_length: u32,
    /// How much of it the SYN-ACK acknowledged.
    pub(super) accepted: u32,
    pub(super) interface_index: u32,
    arrived: KernelInstant,
    /// The next older one of the same tuple.
    older: Option<Slot>,
}

impl Pending {
    pub(super) fn new(
        key: FlowKey,
        initiator: End,
        isn: u32,
        segment: &Segment<'_>,
        arrived: KernelInstant,
    ) -> Self {
        Self {
            key,
            initiator,
            isn,
            syn_time: None,
            answer: None,
            payload: Box::default(),
            payload_length: 0,
            accepted: 0,
            interface_index: segment.interface_index,
            arrived,
            older: None,
        }
    }

    /// Whether `acknowledgement` is an answer to this SYN: of the SYN itself, or also of data in it.
    pub(super) const fn is_acknowledged_by(&self, acknowledgement: u32) -> bool {
        self.initiator_distance(acknowledgement) <= self.payload_length
    }

    /// Distance of a sequence number of the initiator from its first data byte.
    pub(super) const fn initiator_distance(&self, sequence: u32) -> u32 {
        sequence.wrapping_sub(self.isn).wrapping_sub(1)
    }
}

/// Unanswered handshakes, newest first per tuple.
#[derive(Debug)]
pub(super) struct Handshakes {
    newest: Index,
    entries: Aged<Pending>,
    payload_bytes: usize,
}

impl Handshakes {
    /// Room for so many.
    pub(super) fn with_capacity(entries: usize) -> Self {
        Self {
            newest: Index::with_capacity(entries),
            entries: Aged::with_capacity(entries),
            payload_bytes: 0,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.len() == 0
    }

    pub(super) const fn len(&self) -> usize {
        self.entries.len()
    }

    /// SYN data held.
    pub(super) const fn payload_bytes(&self) -> usize {
        self.payload_bytes
    }

    /// When the oldest was taken.
    pub(super) fn oldest(&self) -> Option<KernelInstant> {
        self.entries.oldest().map(|(_, pending)| pending.arrived)
    }

    /// Takes the oldest out.
    pub(super) fn take_oldest(&mut self) -> Option<Pending> {
        let (slot, _) = self.entries.oldest()?;
        self.take(slot)
    }

    /// Remembers one; gives the one of the same tuple that had to make way for it.
    pub(super) fn insert(&mut self, mut pending: Pending) -> Option<Pending> {
        let key = pending.key;
        let older = self.newest_of(&key);
        pending.older = older;
        self.payload_bytes += pending.payload.len();
        let slot = self.entries.insert(pending);
        self.rename(&key, older, Some(slot));
        let mut at = Some(slot);
        for _ in 0..MAX_HANDSHAKES_PER_TUPLE {
            at = at.and_then(|slot| self.entries.get(slot)?.older);
        }
        at.and_then(|oldest| self.take(oldest))
    }

    /// The newest of `key` that satisfies `wanted`.
    pub(super) fn find(&self, key: &FlowKey, wanted: impl Fn(&Pending) -> bool) -> Option<Slot> {
        let mut at = self.newest_of(key);
        for _ in 0..MAX_HANDSHAKES_PER_TUPLE {
            let slot = at?;
            let pending = self.entries.get(slot)?;
            if wanted(pending) {
                return Some(slot);
            }
            at = pending.older;
        }
        None
    }

    pub(super) fn get_mut(&mut self, slot: Slot) -> Option<&mut Pending> {
        self.entries.get_mut(slot)
    }

    /// Takes one out.
    pub(super) fn take(&mut self, slot: Slot) -> Option<Pending> {
        let key = self.entries.get(slot)?.key;
        let newest = self.newest_of(&key);
        let pending = self.entries.remove(slot)?;
        self.payload_bytes -= pending.payload.len();
        if newest == Some(slot) {
            self.rename(&key, newest, pending.older);
            return Some(pending);
        }
        let Some(mut at) = newest else { return Some(pending) };
        for _ in 0..=MAX_HANDSHAKES_PER_TUPLE {
            let Some(entry) = self.entries.get_mut(at) else { break };
            match entry.older {
                Some(older) if older == slot => {
                    entry.older = pending.older;
                    break;
                }
                Some(older) => at = older,
                None => break,
            }
        }
        Some(pending)
    }

    /// The newest of `key`.
    fn newest_of(&self, key: &FlowKey) -> Option<Slot> {
        match self.newest.find(key, |entry, _| key_of(&self.entries, entry) == Some(*key))? {
            Entry::Live(slot) => Some(slot),
            Entry::Ended(_) => None,
        }
    }

    /// The newest of `key`, from here on, which was another one before.
    fn rename(&mut self, key: &FlowKey, before: Option<Slot>, newest: Option<Slot>) {
        let Self { newest: index, entries, .. } = self;
        if let Some(before) = before {
            index.remove(key, Entry::Live(before), Which::Own);
        }
        if let Some(slot) = newest {
            index.add(key, Entry::Live(slot), Which::Own, |entry, _| key_of(entries, entry));
        }
    }
}

fn key_of(entries: &Aged<Pending>, entry: Entry) -> Option<FlowKey> {
    let Entry::Live(slot) = entry else { return None };
    entries.get(slot).map(|pending| pending.key)
}
