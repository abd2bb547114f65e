//! Handshakes that nothing has answered: a SYN is no connection, and forged ones cost only an entry here.
//!
//! Remembers and finds; whether an answer is one is judged by the [`super::Reassembler`].

use super::{
    Connection, Side, Start,
    aged::{Aged, Slot},
    config::MAX_HANDSHAKES_PER_TUPLE,
    index::{Entry, Index, Which},
    key::{End, FlowKey},
};
use crate::capture::{KernelInstant, Scope, Segment};

/// What was told of a connection attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Told {
    /// Nothing so far.
    Nothing,
    /// That none came that was seen.
    Silence,
    /// How it was answered.
    Answer,
}

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
    pub(super) cgroup_id: u64,
    pub(super) socket_cookie: u64,
    /// When the SYN was last seen.
    pub(super) last_syn: KernelInstant,
    /// How often the SYN was seen again.
    pub(super) retransmits: u8,
    /// What was told of it.
    pub(super) told: Told,
    /// Since when it waits where it is.
    pub(super) arrived: KernelInstant,
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
            cgroup_id: segment.cgroup_id,
            socket_cookie: segment.socket_cookie,
            last_syn: segment.time,
            retransmits: 0,
            told: Told::Nothing,
            arrived,
            older: None,
        }
    }

    /// It is a connection attempt of which nothing was told.
    pub(super) const fn is_open(&self) -> bool {
        self.syn_time.is_some() && matches!(self.told, Told::Nothing)
    }

    /// The connection that it would become.
    pub(super) fn connection(&self) -> Connection {
        let scope = if self.key.is_of_any_socket() { Scope(self.socket_cookie) } else { self.key.scope() };
        let other = if self.initiator == End::Near { End::Far } else { End::Near };
        let ends = (self.key.address(self.initiator), self.key.address(other));
        let local = match (self.key.is_path(), self.initiator) {
            (true, _) => None,
            (false, End::Near) => Some(Side::Originator),
            (false, End::Far) => Some(Side::Responder),
        };
        Connection {
            originator_isn: Some(self.isn),
            syn_time: self.syn_time,
            syn_retransmits: self.retransmits,
            cgroup_id: self.cgroup_id,
            socket_cookie: self.socket_cookie,
            interface_index: self.interface_index,
            ..Connection::between(scope, ends, local, Start::Handshake)
        }
    }

    /// The SYN was sent by the end that was observed. If that is its socket, every answer would come to it.
    pub(super) fn is_at_client(&self) -> bool {
        !self.key.is_path() && self.initiator == End::Near
    }

    /// Whether a reset leaves the observed server in a connection that it had accepted: the SYN-ACK passed unseen. What refuses a SYN
    /// has sequence number 0 (RFC 9293 3.10.7.1); this one is where the server's stream stands.
    pub(super) fn is_accepted_by_reset(&self, sender: End, reset: &Segment<'_>) -> bool {
        !self.key.is_path() && sender == End::Near && sender != self.initiator && reset.sequence != 0
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
    /// By their tuples without the network world; those of one tuple in several worlds lie beside each other.
    newest: Index,
    entries: Aged<Pending>,
    payload_bytes: usize,
    /// Those with [`Pending::is_open`].
    open: usize,
}

impl Handshakes {
    /// Room for so many.
    pub(super) fn with_capacity(entries: usize) -> Self {
        Self {
            newest: Index::with_capacity(entries),
            entries: Aged::with_capacity(entries),
            payload_bytes: 0,
            open: 0,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.len() == 0
    }

    pub(super) const fn len(&self) -> usize {
        self.entries.len()
    }

    /// Connection attempts of which nothing was told.
    pub(super) const fn open(&self) -> usize {
        self.open
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
        self.open += usize::from(pending.is_open());
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
        self.find_from(self.newest_of(key)?, &wanted)
    }

    fn find_from(&self, newest: Slot, wanted: &impl Fn(&Pending) -> bool) -> Option<Slot> {
        let mut at = Some(newest);
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

    /// As [`Self::find`], in whatever network world: what this kernel sends by itself, an ICMP error or the reset of a socket
    /// that does not exist, is sent by a socket of its own, which is in another.
    pub(super) fn find_in_any_scope(&self, key: &FlowKey, wanted: impl Fn(&Pending) -> bool) -> Option<Slot> {
        let name = key.of_any_scope();
        let is_so = |entry, _| key_of(&self.entries, entry).is_some_and(|key| key.of_any_scope() == name);
        self.newest.find_all(&name, is_so).find_map(|entry| match entry {
            Entry::Live(slot) => self.find_from(slot, &wanted),
            Entry::Ended(_) => None,
        })
    }

    /// Takes out what [`Self::find`] finds.
    pub(super) fn take_first(&mut self, key: &FlowKey, wanted: impl Fn(&Pending) -> bool) -> Option<Pending> {
        self.find(key, wanted).and_then(|slot| self.take(slot))
    }

    /// Whether it is a connection attempt must not be changed in place: take it out for that.
    pub(super) fn get_mut(&mut self, slot: Slot) -> Option<&mut Pending> {
        self.entries.get_mut(slot)
    }

    /// Takes one out.
    pub(super) fn take(&mut self, slot: Slot) -> Option<Pending> {
        let key = self.entries.get(slot)?.key;
        let newest = self.newest_of(&key);
        let pending = self.entries.remove(slot)?;
        self.payload_bytes -= pending.payload.len();
        self.open -= usize::from(pending.is_open());
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
        match self.newest.find(&key.of_any_scope(), |entry, _| key_of(&self.entries, entry) == Some(*key))? {
            Entry::Live(slot) => Some(slot),
            Entry::Ended(_) => None,
        }
    }

    /// The newest of `key`, from here on, which was another one before.
    fn rename(&mut self, key: &FlowKey, before: Option<Slot>, newest: Option<Slot>) {
        let Self { newest: index, entries, .. } = self;
        if let Some(before) = before {
            index.remove(&key.of_any_scope(), Entry::Live(before), Which::Own);
        }
        if let Some(slot) = newest {
            let name = |entry, _| key_of(entries, entry).map(FlowKey::of_any_scope);
            index.add(&key.of_any_scope(), Entry::Live(slot), Which::Own, name);
        }
    }
}

fn key_of(entries: &Aged<Pending>, entry: Entry) -> Option<FlowKey> {
    let Entry::Live(slot) = entry else { return None };
    entries.get(slot).map(|pending| pending.key)
}
