//! What user space tells the programs about itself: that it lives, and how much it can take. Says nothing about traffic.

use core::mem::size_of;

/// Nothing is shed.
pub const SHED_NONE: u32 = 0;
/// The credit shrinks to [`crate::limits::SHED_CREDIT_BYTES`]: bodies go first.
pub const SHED_BODIES: u32 = 1;
/// Besides, [`crate::limits::SHED_SEGMENT_BYTES`] of a segment's payload are captured at most.
pub const SHED_HEADERS: u32 = 2;
/// Besides, connections of which nothing was captured yet are left alone.
pub const SHED_CONNECTIONS: u32 = 3;

/// The value of the control map's only element. Written by user space only, whole.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Control {
    /// CLOCK_MONOTONIC of the last heartbeat, ns.
    pub heartbeat_ns: u64,
    /// `SHED_*`; each level includes those below it.
    pub shed_level: u32,
    /// Zero.
    pub reserved: u32,
}

const _: () = assert!(size_of::<Control>() == 16);
