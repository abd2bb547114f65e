//! What user space tells the kernel about a connection, once it knows. Written by user space only.

use core::mem::size_of;

/// Bit: nothing of this direction is wanted; payload, FIN and RST are counted, not sent.
pub const ACTION_IGNORE: u8 = 1;
/// Bit: the direction's payload below `until_sequence` is not wanted; lengths are, and FIN and RST always.
pub const ACTION_SKIP: u8 = 2;
/// Bit: `read_sequence` is valid, the credit counts from there.
pub const ACTION_CREDIT: u8 = 4;

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
    /// Whether nothing of `direction` is wanted of the generation that the kernel has (absent if it knows none).
    #[inline(always)]
    pub fn ignores(&self, generation: Option<u32>, direction: u8) -> bool {
        let [ingress, egress] = self.action;
        let action = if direction == crate::segment::DIRECTION_EGRESS { egress } else { ingress };
        let holds = match generation {
            Some(known) => self.any_generation == 0 && self.generation == known,
            None => self.any_generation != 0,
        };
        holds && action & ACTION_IGNORE != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::segment::{DIRECTION_EGRESS, DIRECTION_INGRESS};

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
