//! What user space tells the kernel about a connection, once it knows. Written by user space only.
//!
//! A verdict is replaced whole, and what it says holds until then: sequence numbers wrap, so user space takes a skip out of
//! the next verdict that it writes once it has read past it, and writes one every [`crate::limits::CREDIT_STEP_BYTES`].

use core::mem::size_of;

/// Bit: nothing of this direction is wanted; payload, FIN and RST are counted, not sent.
pub const ACTION_IGNORE: u8 = 1;
/// Bit: the direction's payload below `until_sequence` is not wanted; lengths are, and FIN and RST always. At most
/// [`crate::limits::MAX_SKIP_BYTES`] ahead of what the direction has come to.
pub const ACTION_SKIP: u8 = 2;
/// Bit: `read_sequence` is valid, the credit counts from there.
pub const ACTION_CREDIT: u8 = 4;

/// The epoch after `epoch`: it changes with every verdict that is written, after that, so a socket end without a verdict has
/// none until the epoch changes. Never 0, which is the epoch before the first.
pub const fn next_epoch(epoch: u16) -> u16 {
    if epoch == u16::MAX { 1 } else { epoch + 1 }
}

/// A verdict on one generation of a socket end; ignored for any other generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Verdict {
    /// Client's initial sequence number that the verdict was made for.
    pub generation: u32,
    /// For [`ACTION_SKIP`]: first sequence number that is wanted again, per `DIRECTION_*`.
    pub until_sequence: [u32; 2],
    /// Payload that user space has read up to, per `DIRECTION_*`: the kernel runs a credit ahead of it.
    pub read_sequence: [u32; 2],
    /// `ACTION_*` bits, per `DIRECTION_*`; 0: none.
    pub action: [u8; 2],
    /// 1 if the verdict is for a connection whose SYN was not seen: it holds as long as the kernel knows none either.
    pub any_generation: u8,
    /// Zero.
    pub reserved: u8,
}

const _: () = assert!(size_of::<Verdict>() == 24);

impl Verdict {
    /// Whether the verdict is for the generation that the kernel has (absent if it knows none).
    #[inline(always)]
    pub const fn holds(&self, generation: Option<u32>) -> bool {
        match generation {
            Some(known) => self.any_generation == 0 && self.generation == known,
            None => self.any_generation != 0,
        }
    }

    /// Whether nothing of `direction` is wanted of that generation.
    #[inline(always)]
    pub const fn ignores(&self, generation: Option<u32>, direction: u8) -> bool {
        self.holds(generation) && self.action_of(direction) & ACTION_IGNORE != 0
    }

    /// Whether nothing at all is wanted of that generation: then the kernel need not ask again.
    #[inline(always)]
    pub const fn ignores_all(&self, generation: Option<u32>) -> bool {
        let [ingress, egress] = self.action;
        self.holds(generation) && ingress & egress & ACTION_IGNORE != 0
    }

    /// Whether nothing at all is wanted, of whichever generation it was said.
    pub const fn is_refusal(&self) -> bool {
        let [ingress, egress] = self.action;
        ingress & egress & ACTION_IGNORE != 0
    }

    /// First sequence number of `direction` that is wanted again, if something is skipped.
    #[inline(always)]
    pub const fn skip_until(&self, direction: u8) -> Option<u32> {
        if self.action_of(direction) & ACTION_SKIP != 0 {
            Some(self.until_sequence[direction as usize & 1])
        } else {
            None
        }
    }

    /// Sequence number that user space has read up to in `direction`, if it says so.
    #[inline(always)]
    pub const fn read(&self, direction: u8) -> Option<u32> {
        if self.action_of(direction) & ACTION_CREDIT != 0 {
            Some(self.read_sequence[direction as usize & 1])
        } else {
            None
        }
    }

    #[inline(always)]
    const fn action_of(&self, direction: u8) -> u8 {
        self.action[direction as usize & 1]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::segment::{DIRECTION_EGRESS, DIRECTION_INGRESS};

    #[test]
    fn epochs_never_become_0() {
        assert_eq!(next_epoch(0), 1);
        assert_eq!(next_epoch(u16::MAX - 1), u16::MAX);
        assert_eq!(next_epoch(u16::MAX), 1);
    }

    #[test]
    fn all_is_ignored_only_if_both_directions_are() {
        let verdict = |ingress, egress| Verdict {
            generation: 7,
            until_sequence: [1, 2],
            read_sequence: [3, 4],
            action: [ingress, egress],
            any_generation: 0,
            reserved: 0,
        };
        assert!(verdict(ACTION_IGNORE, ACTION_IGNORE).ignores_all(Some(7)));
        assert!(!verdict(ACTION_IGNORE, ACTION_IGNORE).ignores_all(Some(8)));
        assert!(!verdict(ACTION_IGNORE, ACTION_SKIP).ignores_all(Some(7)));
        let mixed = verdict(ACTION_SKIP, ACTION_CREDIT);
        assert_eq!(mixed.skip_until(DIRECTION_INGRESS), Some(1));
        assert_eq!(mixed.skip_until(DIRECTION_EGRESS), None);
        assert_eq!((mixed.read(DIRECTION_INGRESS), mixed.read(DIRECTION_EGRESS)), (None, Some(4)));
    }

    #[test]
    fn a_verdict_holds_for_its_generation_and_direction_only() {
        let verdict = |any_generation| Verdict {
            generation: 7,
            until_sequence: [0; 2],
            read_sequence: [0; 2],
            action: [ACTION_IGNORE | ACTION_SKIP, ACTION_SKIP],
            any_generation,
            reserved: 0,
        };
        let cases = [
            (0, Some(7), DIRECTION_INGRESS, true),
            (0, Some(7), DIRECTION_EGRESS, false),
            (0, Some(8), DIRECTION_INGRESS, false),
            (0, None, DIRECTION_INGRESS, false),
            (1, None, DIRECTION_INGRESS, true),
            (1, Some(7), DIRECTION_INGRESS, false),
        ];
        for (any, generation, direction, expected) in cases {
            assert_eq!(
                verdict(any).ignores(generation, direction),
                expected,
                "{any} {generation:?} {direction}"
            );
        }
    }
}
