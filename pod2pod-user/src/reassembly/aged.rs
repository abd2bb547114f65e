//! A slab whose entries are kept in order of age: insertion, removal, renewal and the oldest entry cost O(1).
//!
//! Holds no clock and no limit of its own.

/// Entry number in an [`Aged`].
pub(super) type Slot = u32;

const NONE: Slot = Slot::MAX;

#[derive(Debug)]
struct Node<T> {
    value: Option<T>,
    older: Slot,
    newer: Slot,
}

/// Entries by number, in order of age.
#[derive(Debug)]
pub(super) struct Aged<T> {
    nodes: Vec<Node<T>>,
    /// Free nodes, chained by `newer`.
    free: Slot,
    oldest: Slot,
    newest: Slot,
    len: usize,
}

impl<T> Aged<T> {
    /// Room for so many entries; more are taken all the same.
    pub(super) fn with_capacity(entries: usize) -> Self {
        Self { nodes: Vec::with_capacity(entries), free: NONE, oldest: NONE, newest: NONE, len: 0 }
    }

    pub(super) const fn len(&self) -> usize {
        self.len
    }

    pub(super) fn get(&self, slot: Slot) -> Option<&T> {
        self.nodes.get(slot as usize)?.value.as_ref()
    }

    pub(super) fn get_mut(&mut self, slot: Slot) -> Option<&mut T> {
        self.nodes.get_mut(slot as usize)?.value.as_mut()
    }

    /// The entry inserted or renewed longest ago.
    pub(super) fn oldest(&self) -> Option<(Slot, &T)> {
        Some((self.oldest, self.get(self.oldest)?))
    }

    /// Entries that are `wanted`, all of them looked at.
    pub(super) fn slots_of(&self, wanted: impl Fn(&T) -> bool) -> Vec<Slot> {
        let fits = |node: &Node<T>| node.value.as_ref().is_some_and(&wanted);
        let slots = self.nodes.iter().enumerate().filter(|(_, node)| fits(node));
        slots.map(|(slot, _)| slot as Slot).collect()
    }

    /// Inserts `value` as the newest.
    pub(super) fn insert(&mut self, value: T) -> Slot {
        let node = Node { value: Some(value), older: NONE, newer: NONE };
        let slot = match self.nodes.get_mut(self.free as usize) {
            Some(free) => {
                let slot = self.free;
                self.free = free.newer;
                *free = node;
                slot
            }
            None => {
                self.nodes.push(node);
                (self.nodes.len() - 1) as Slot
            }
        };
        self.link(slot);
        self.len += 1;
        slot
    }

    /// Takes an entry out.
    pub(super) fn remove(&mut self, slot: Slot) -> Option<T> {
        let value = self.nodes.get_mut(slot as usize)?.value.take()?;
        self.unlink(slot);
        let free = self.free;
        if let Some(node) = self.nodes.get_mut(slot as usize) {
            node.newer = free;
            self.free = slot;
        }
        self.len -= 1;
        Some(value)
    }

    /// Makes an entry the newest.
    pub(super) fn renew(&mut self, slot: Slot) {
        if self.newest != slot && self.get(slot).is_some() {
            self.unlink(slot);
            self.link(slot);
        }
    }

    fn link(&mut self, slot: Slot) {
        let newest = self.newest;
        if let Some(node) = self.nodes.get_mut(slot as usize) {
            node.older = newest;
            node.newer = NONE;
        }
        match self.nodes.get_mut(newest as usize) {
            Some(node) => node.newer = slot,
            None => self.oldest = slot,
        }
        self.newest = slot;
    }

    fn unlink(&mut self, slot: Slot) {
        let Some(node) = self.nodes.get(slot as usize) else { return };
        let (older, newer) = (node.older, node.newer);
        match self.nodes.get_mut(older as usize) {
            Some(node) => node.newer = newer,
            None => self.oldest = newer,
        }
        match self.nodes.get_mut(newer as usize) {
            Some(node) => node.older = older,
            None => self.newest = older,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every operation against a plain list.
    #[test]
    fn agrees_with_a_list() {
        let mut aged = Aged::with_capacity(0);
        let mut list: Vec<(Slot, u32)> = Vec::new();
        let mut state = 7_u64;
        for step in 0..20_000_u32 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let pick = (state >> 33) as usize;
            match pick % 3 {
                0 => list.push((aged.insert(step), step)),
                1 if !list.is_empty() => {
                    let (slot, value) = list.remove(pick / 3 % list.len());
                    assert_eq!(aged.remove(slot), Some(value));
                    assert_eq!(aged.remove(slot), None);
                }
                _ if !list.is_empty() => {
                    let entry = list.remove(pick / 3 % list.len());
                    aged.renew(entry.0);
                    list.push(entry);
                }
                _ => {}
            }
            assert_eq!(aged.oldest().map(|(slot, value)| (slot, *value)), list.first().copied());
            assert_eq!(aged.len(), list.len());
        }
    }
}
