//! How long a batch waits before it is sent again: exponential with full jitter, so that agents that lost a server together do not
//! come back together. Pure: the random number is given.

use std::{
    hash::{BuildHasher as _, Hasher as _, RandomState},
    time::Duration,
};

/// The wait before the second attempt is this long at most; the bound doubles with each.
pub(super) const FIRST_BACKOFF: Duration = Duration::from_millis(250);
/// No wait is longer: a server that is back has its records within half a minute.
pub(super) const MAX_BACKOFF: Duration = Duration::from_secs(30);

/// The wait after `failures` attempts failed, by a `random` number of 64 bits: uniform from nothing to the bound.
pub(super) fn backoff(failures: u32, random: u64) -> Duration {
    let doubled =
        FIRST_BACKOFF.saturating_mul(1_u32.checked_shl(failures.saturating_sub(1)).unwrap_or(u32::MAX));
    let bound = doubled.min(MAX_BACKOFF).as_nanos();
    // The high half of the product: no division, and no number is more likely than another by more than one in 2^28.
    let nanos = (bound * u128::from(random)) >> 64;
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

/// Random numbers that nobody needs to be surprised by: SplitMix64, begun where the standard library's tables are.
#[derive(Clone, Debug)]
pub(super) struct Dice(u64);

impl Default for Dice {
    fn default() -> Self {
        Self(RandomState::new().build_hasher().finish())
    }
}

impl Dice {
    /// The same numbers each time.
    #[cfg(test)]
    pub(super) const fn seeded(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number.
    pub(super) const fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bound_doubles_until_half_a_minute() {
        let bound = |failures| backoff(failures, u64::MAX) + Duration::from_nanos(1);
        assert_eq!((bound(1), bound(2), bound(3)), (FIRST_BACKOFF, FIRST_BACKOFF * 2, FIRST_BACKOFF * 4));
        assert_eq!(bound(7), FIRST_BACKOFF * 64);
        for failures in [8, 32, 33, 34, u32::MAX] {
            assert_eq!(bound(failures), MAX_BACKOFF, "{failures}");
        }
    }

    #[test]
    fn jitter_is_full() {
        assert_eq!(backoff(3, 0), Duration::ZERO);
        assert_eq!(backoff(3, 1 << 63), FIRST_BACKOFF * 2);
        let mut dice = Dice::default();
        let waits: Vec<_> = (0..10_000).map(|_| backoff(8, dice.roll())).collect();
        for tenth in 0..10 {
            let of_tenth = |wait: &&Duration| wait.as_nanos() * 10 / MAX_BACKOFF.as_nanos() == tenth;
            let count = waits.iter().filter(of_tenth).count();
            // 1,000 with a deviation of 30: seven of them in one of ten tenths come once in 10^11 runs.
            assert!((790..=1210).contains(&count), "{tenth}: {count}");
        }
    }
}
