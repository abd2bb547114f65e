//! How much the tests do: less of the same where everything is slow. Counts and waits on purpose are scaled, never what
//! is asserted of them.

use std::{sync::OnceLock, time::Duration};

/// Number by which counts are divided; 1 without it.
pub const SCALE_VARIABLE: &str = "POD2POD_TEST_SCALE";

/// Times as long between two looks where everything is slow. It is ten times as slow there, and a wait shall not be half
/// a pause longer than it must be.
const SLOW_PAUSE: u32 = 5;

/// `count`, or the share of it that this run makes, but at least `least`.
pub fn count(count: usize, least: usize) -> usize {
    (count / scale() as usize).max(least)
}

/// `size`, or the share of it that this run makes, but at least `least`.
pub fn bytes(size: u64, least: u64) -> u64 {
    (size / u64::from(scale())).max(least)
}

/// `time`, or the share of it that this run lasts, but at least `least`.
pub fn time(time: Duration, least: Duration) -> Duration {
    (time / scale()).max(least)
}

/// How long to wait between two looks: where everything is slow, to look costs more too.
pub fn pause(between: Duration) -> Duration {
    if is_slow() { between * SLOW_PAUSE } else { between }
}

/// Whether everything is slow here.
pub fn is_slow() -> bool {
    scale() > 1
}

fn scale() -> u32 {
    static SCALE: OnceLock<u32> = OnceLock::new();
    *SCALE.get_or_init(|| {
        std::env::var(SCALE_VARIABLE).map_or(1, |value| value.parse().expect("the scale is a number")).max(1)
    })
}
