//! What user space tells the kernel about a connection, once it knows. Written by user space only.

use core::mem::size_of;

/// Nothing of this connection is wanted: payload and FIN are counted, not sent.
pub const ACTION_IGNORE: u8 = 1;
/// The direction's payload below `until_sequence` is not wanted; lengths are, and FIN and RST always.
pub const ACTION_SKIP: u8 = 2;

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
    /// `ACTION_*`, per `DIRECTION_*`; 0: none.
    pub action: [u8; 2],
    /// 1 if the verdict is for a connection whose SYN was not seen (`generation` is then not compared).
    pub any_generation: u8,
    /// Zero.
    pub reserved: u8,
}

const _: () = assert!(size_of::<Verdict>() == 24);
