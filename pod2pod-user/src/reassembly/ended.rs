//! Connections that are over: late copies of their segments must not look like a new one.
//!
//! Holds facts only; the table and its limits are the [`super::Reassembler`]'s.

use super::{
    config::LINGER_REACH,
    index::Which,
    key::{End, FlowKey},
};
use crate::capture::{KernelInstant, Segment};

/// An ended connection: late copies must not look like a new one.
#[derive(Debug)]
pub(super) struct Ended {
    pub(super) key: FlowKey,
    pub(super) child: Option<Box<FlowKey>>,
    /// Where the near and the far end's streams began, as sequence numbers, as far as known.
    pub(super) first: [Option<u32>; 2],
    /// Where they ended.
    pub(super) next: [u32; 2],
    pub(super) at: KernelInstant,
    /// Nothing of it is wanted: it has not ended, but is left alone all the same.
    pub(super) refused: bool,
}

impl Ended {
    pub(super) fn key_of(&self, which: Which) -> Option<FlowKey> {
        match which {
            Which::Own => Some(self.key),
            Which::Child => self.child.as_deref().copied(),
        }
    }

    /// Whether a SYN or SYN-ACK is the one that the connection began with: a new one has another number (RFC 9293
    /// 3.4.1 and 3.6.1), so this is a late copy.
    pub(super) fn began_with(&self, sender: End, segment: &Segment<'_>) -> bool {
        let [near, far] = self.first;
        let first = if sender == End::Near { near } else { far };
        first == Some(segment.sequence.wrapping_add(1))
    }

    /// Whether a segment is so near to where the connection ended that it belongs to it.
    pub(super) fn is_near(&self, sender: End, segment: &Segment<'_>) -> bool {
        let [near, far] = self.next;
        let next = if sender == End::Near { near } else { far };
        let distance = segment.sequence.wrapping_sub(next);
        distance <= LINGER_REACH || distance.wrapping_neg() <= LINGER_REACH
    }
}
