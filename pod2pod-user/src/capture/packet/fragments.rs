//! IP fragments put together again (RFC 791 3.2, RFC 8200 4.5): bounded in datagrams, bytes, pieces and age.
//!
//! Where fragments overlap, the first copy of a byte wins. A datagram that a limit gives up is counted, and its later
//! fragments begin a new one.

use std::{collections::HashMap, net::IpAddr, time::Duration};

use super::ip::Addresses;
use crate::capture::KernelInstant;

/// Datagrams that may be incomplete at once; the oldest gives way. 65,536 identifications are shared by two hosts, and
/// a host has a handful under way.
pub const MAX_DATAGRAMS: usize = 1024;

/// Payload bytes held in incomplete datagrams; the oldest give way.
pub const MAX_FRAGMENT_BYTES: usize = 4 * 1024 * 1024;

/// Separate ranges that an incomplete datagram may consist of: a sender's fragments fill a path's MTU, so 65,535 bytes
/// are fewer than 128 fragments.
pub const MAX_RANGES: usize = 256;

/// Age at which an incomplete datagram is given up: the reassembly timeout of RFC 8200 4.5.
pub const MAX_FRAGMENT_AGE: Duration = Duration::from_secs(60);

/// Largest payload of a datagram: its length field has 16 bits (RFC 791 3.1).
pub const MAX_DATAGRAM_BYTES: usize = 65_535;

/// What became of fragments: plain counters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Fragments taken in.
    pub fragments: u64,
    /// Datagrams completed.
    pub datagrams: u64,
    /// Fragments dropped: past the end of their datagram, past [`MAX_DATAGRAM_BYTES`], or of a length that none may have.
    pub impossible: u64,
    /// Fragments dropped because the capture cut them.
    pub cut: u64,
    /// Datagrams given up: too many at once ([`MAX_DATAGRAMS`]).
    pub too_many: u64,
    /// Datagrams given up: too many bytes ([`MAX_FRAGMENT_BYTES`]).
    pub too_many_bytes: u64,
    /// Fragments dropped: their datagram has too many ranges ([`MAX_RANGES`]).
    pub too_many_ranges: u64,
    /// Datagrams given up: too old ([`MAX_FRAGMENT_AGE`]).
    pub too_old: u64,
}

/// Names a datagram between two hosts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key {
    pub(super) source: IpAddr,
    pub(super) destination: IpAddr,
    pub(super) identification: u32,
    /// Upper protocol with IPv4; 0 with IPv6, where fragments may differ in it.
    pub(super) protocol: u8,
}

/// One fragment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fragment<'a> {
    pub(super) key: Key,
    /// Protocol that the first fragment names.
    pub(super) protocol: u8,
    /// First byte in the datagram's payload.
    pub(super) offset: usize,
    /// More follow.
    pub(super) more: bool,
    pub(super) bytes: &'a [u8],
}

impl Fragment<'_> {
    pub(super) const fn addresses(&self) -> Addresses {
        Addresses { source: self.key.source, destination: self.key.destination }
    }
}

/// A datagram put together.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Datagram {
    pub(super) protocol: u8,
    pub(super) payload: Vec<u8>,
}

#[derive(Debug)]
struct Incomplete {
    key: Key,
    begun: KernelInstant,
    protocol: Option<u8>,
    /// Length of the payload, once the last fragment was seen.
    total: Option<usize>,
    payload: Vec<u8>,
    /// Ranges present, in order. Invariant: not empty, apart from each other.
    ranges: Vec<(usize, usize)>,
}

/// The incomplete datagrams.
#[derive(Debug, Default)]
pub(super) struct Fragments {
    index: HashMap<Key, usize, foldhash::fast::RandomState>,
    /// A ring: a new datagram takes the place of the oldest.
    slots: Vec<Option<Incomplete>>,
    next: usize,
    bytes: usize,
    stats: Stats,
}

impl Fragments {
    pub(super) const fn stats(&self) -> &Stats {
        &self.stats
    }

    /// Counts a fragment of which the capture kept only a part.
    pub(super) fn count_cut(&mut self) {
        self.stats.cut += 1;
    }

    /// Takes in a fragment; gives the datagram if that completes it.
    pub(super) fn push(&mut self, fragment: &Fragment<'_>, now: KernelInstant) -> Option<Datagram> {
        self.stats.fragments += 1;
        // Offsets count eights, so what an inner fragment has beyond a multiple of eight has no place. As Linux does.
        let usable = fragment.bytes.len() - if fragment.more { fragment.bytes.len() % 8 } else { 0 };
        let bytes = fragment.bytes.get(..usable).unwrap_or_default();
        if bytes.is_empty() || fragment.offset + bytes.len() > MAX_DATAGRAM_BYTES {
            self.stats.impossible += 1;
            return None;
        }
        let fragment = &Fragment { bytes, ..*fragment };
        let slot = self.slot(fragment.key, now);
        let incomplete = self.slots.get_mut(slot)?.as_mut()?;
        let before = incomplete.payload.len();
        match incomplete.add(fragment) {
            Added::Kept => {}
            Added::Impossible => self.stats.impossible += 1,
            Added::TooManyRanges => self.stats.too_many_ranges += 1,
        }
        self.bytes += incomplete.payload.len() - before;
        let protocol = incomplete.complete();
        if let Some(protocol) = protocol {
            self.stats.datagrams += 1;
            return self.remove(slot).map(|whole| Datagram { protocol, payload: whole.payload });
        }
        self.shed(slot);
        None
    }

    /// The slot of the datagram; a new one if it has none.
    fn slot(&mut self, key: Key, now: KernelInstant) -> usize {
        if let Some(&slot) = self.index.get(&key) {
            let begun = self.slots.get(slot).and_then(Option::as_ref).map_or(now, |datagram| datagram.begun);
            if now.since(begun) <= MAX_FRAGMENT_AGE {
                return slot;
            }
            self.stats.too_old += 1;
            self.remove(slot);
        }
        let slot = self.next;
        self.next = (self.next + 1) % MAX_DATAGRAMS;
        if self.slots.len() <= slot {
            self.slots.resize_with(slot + 1, || None);
        }
        if self.remove(slot).is_some() {
            self.stats.too_many += 1;
        }
        let incomplete = Incomplete {
            key,
            begun: now,
            protocol: None,
            total: None,
            payload: Vec::new(),
            ranges: Vec::new(),
        };
        if let Some(place) = self.slots.get_mut(slot) {
            *place = Some(incomplete);
        }
        self.index.insert(key, slot);
        slot
    }

    fn remove(&mut self, slot: usize) -> Option<Incomplete> {
        let incomplete = self.slots.get_mut(slot)?.take()?;
        self.index.remove(&incomplete.key);
        self.bytes -= incomplete.payload.len();
        Some(incomplete)
    }

    /// Gives up the oldest datagrams but `keep` until the bytes are within their limit.
    fn shed(&mut self, keep: usize) {
        for step in 0..self.slots.len() {
            if self.bytes <= MAX_FRAGMENT_BYTES {
                return;
            }
            let slot = (self.next + step) % self.slots.len();
            if slot != keep && self.remove(slot).is_some() {
                self.stats.too_many_bytes += 1;
            }
        }
    }
}

enum Added {
    Kept,
    Impossible,
    TooManyRanges,
}

impl Incomplete {
    fn add(&mut self, fragment: &Fragment<'_>) -> Added {
        let end = fragment.offset + fragment.bytes.len();
        let known_end = self.total.unwrap_or(MAX_DATAGRAM_BYTES);
        let seen_end = self.ranges.last().map_or(0, |&(_, end)| end);
        if end > known_end
            || !fragment.more && (end < seen_end || self.total.is_some_and(|total| total != end))
        {
            return Added::Impossible;
        }
        if self.ranges.len() >= MAX_RANGES {
            return Added::TooManyRanges;
        }
        if !fragment.more {
            self.total = Some(end);
        }
        if fragment.offset == 0 && self.protocol.is_none() {
            self.protocol = Some(fragment.protocol);
        }
        if self.payload.len() < end {
            self.payload.resize(end, 0);
        }
        self.fill(fragment.offset, fragment.bytes);
        Added::Kept
    }

    /// Writes the bytes that are not there yet, and merges the range.
    fn fill(&mut self, offset: usize, bytes: &[u8]) {
        let end = offset + bytes.len();
        let mut at = offset;
        let (mut start, mut stop) = (offset, end);
        let mut merged = Vec::with_capacity(self.ranges.len() + 1);
        for &(low, high) in &self.ranges {
            if high < offset || low > end {
                merged.push((low, high));
                continue;
            }
            copy(&mut self.payload, bytes, offset, at, low);
            at = at.max(high);
            start = start.min(low);
            stop = stop.max(high);
        }
        copy(&mut self.payload, bytes, offset, at, end);
        let place = merged.partition_point(|&(low, _)| low < start);
        merged.insert(place, (start, stop));
        self.ranges = merged;
    }

    /// The protocol, if nothing is missing.
    fn complete(&self) -> Option<u8> {
        let total = self.total?;
        if self.ranges.as_slice() == [(0, total)] { self.protocol } else { None }
    }
}

/// Copies the part of `bytes`, which begin at `offset`, that lies from `low` to `high`.
fn copy(payload: &mut [u8], bytes: &[u8], offset: usize, low: usize, high: usize) {
    if low < high
        && let Some(target) = payload.get_mut(low..high)
        && let Some(source) = bytes.get(low - offset..high - offset)
    {
        target.copy_from_slice(source);
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    /// The datagram as a byte map: what first-copy-wins means, written plainly.
    #[derive(Default)]
    struct ByteMap {
        bytes: Vec<Option<u8>>,
        total: Option<usize>,
    }

    impl ByteMap {
        fn push(&mut self, offset: usize, more: bool, bytes: &[u8]) -> Option<Vec<u8>> {
            let end = offset + bytes.len();
            if self.bytes.len() < end {
                self.bytes.resize(end, None);
            }
            for (place, byte) in self.bytes[offset..end].iter_mut().zip(bytes) {
                *place = place.or(Some(*byte));
            }
            if !more {
                self.total = Some(end);
            }
            let whole: Option<Vec<u8>> = self.bytes.iter().copied().collect();
            whole.filter(|whole| self.total == Some(whole.len()))
        }
    }

    fn key() -> Key {
        let address = IpAddr::V4(Ipv4Addr::LOCALHOST);
        Key { source: address, destination: address, identification: 1, protocol: 6 }
    }

    #[test]
    fn any_fragments_give_what_a_byte_map_gives() {
        for seed in 1..2000_u64 {
            let mut state = seed;
            let mut below = |bound: usize| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                (state >> 33) as usize % bound
            };
            let mut map = ByteMap::default();
            let mut fragments = Fragments::default();
            let total = 8 * (2 + below(12));
            for step in 0..100_u8 {
                let offset = 8 * below(total / 8);
                let length = 8 * (1 + below((total - offset) / 8));
                let more = offset + length != total;
                let bytes = vec![step; length];
                let fragment = Fragment { key: key(), protocol: 6, offset, more, bytes: &bytes };
                let datagram = fragments.push(&fragment, KernelInstant::default());
                let expected = map.push(offset, more, &bytes);
                assert_eq!(datagram.map(|datagram| datagram.payload), expected, "seed {seed}, step {step}");
                if expected.is_some() {
                    break;
                }
            }
        }
    }
}
