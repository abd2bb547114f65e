//! The two clocks of the live agent: the one that stamps segments, and what is added to it for the wall clock.

use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

use crate::{capture::KernelInstant, enrich::WallOffset};

/// CLOCK_MONOTONIC, which the kernel side stamps segments with.
pub(super) fn monotonic() -> KernelInstant {
    KernelInstant::from_nanos(clock(ClockId::CLOCK_MONOTONIC))
}

/// The same as a duration.
pub(super) fn instant() -> Duration {
    Duration::from_nanos(monotonic().as_nanos())
}

/// Realtime minus monotonic. Read in the middle of two readings of the other clock, so that being interrupted between
/// them does not shift it.
pub(super) fn wall_offset() -> WallOffset {
    let before = clock(ClockId::CLOCK_MONOTONIC);
    let wall = clock(ClockId::CLOCK_REALTIME);
    let after = clock(ClockId::CLOCK_MONOTONIC);
    let monotonic = before + after.saturating_sub(before) / 2;
    WallOffset(i64::try_from(i128::from(wall) - i128::from(monotonic)).unwrap_or_default())
}

/// Nanoseconds of `clock`. Zero if it is before its zero or cannot be read, which these two clocks always can.
fn clock(clock: ClockId) -> u64 {
    clock_gettime(clock)
        .map(Duration::from)
        .map_or(0, |time| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX))
}
