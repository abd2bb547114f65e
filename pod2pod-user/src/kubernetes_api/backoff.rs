//! How long to wait after a failure: longer with each, and never for long as others do.

use std::{
    hash::{BuildHasher as _, RandomState},
    time::Duration,
};

/// Wait after the first failure, at most.
pub(super) const FIRST_WAIT: Duration = Duration::from_secs(1);
/// Wait after any failure, at most, unless more is asked for.
pub(super) const MAX_WAIT: Duration = Duration::from_secs(30);
/// Who asks for a longer wait is asked again after this time: servers ask for seconds.
pub(super) const MAX_ASKED_WAIT: Duration = Duration::from_secs(300);

/// Numbers that differ from process to process.
#[derive(Debug, Default)]
pub(super) struct Random {
    state: RandomState,
    drawn: u64,
}

impl Random {
    /// A time shorter than `most`.
    pub(super) fn below(&mut self, most: Duration) -> Duration {
        self.drawn = self.drawn.wrapping_add(1);
        // 32 bits are a fraction between zero and one.
        let part = self.state.hash_one(self.drawn) >> 32;
        let nanoseconds = (most.as_nanos() * u128::from(part)) >> 32;
        Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(u64::MAX))
    }
}

/// Waits between attempts.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    random: Random,
    failures: u32,
}

impl Backoff {
    /// It went well.
    pub(super) fn reset(&mut self) {
        self.failures = 0;
    }

    /// It failed: how long to wait, at least as long as was asked for.
    pub(super) fn next(&mut self, asked: Option<Duration>) -> Duration {
        let most = FIRST_WAIT.saturating_mul(1 << self.failures.min(16)).min(MAX_WAIT);
        self.failures += 1;
        // Half of it is sure: a server that refuses at once is not asked a hundred times a second.
        let wait = most / 2 + self.random.below(most / 2);
        // All are told the same: they come back spread over a time.
        asked.map_or(wait, |asked| wait.max(asked.min(MAX_ASKED_WAIT) + self.random.below(most)))
    }

    pub(super) fn random(&mut self) -> &mut Random {
        &mut self.random
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_up_to_the_limit_and_begin_anew() {
        let mut backoff = Backoff::default();
        for most in [1, 2, 4, 8, 16, 30, 30] {
            let wait = backoff.next(None);
            let most = Duration::from_secs(most);
            assert!(most / 2 <= wait && wait < most, "{wait:?} of {most:?}");
        }
        backoff.failures = u32::MAX - 1;
        assert!(backoff.next(None) < MAX_WAIT);
        backoff.reset();
        assert!(backoff.next(None) < FIRST_WAIT);
    }

    #[test]
    fn what_is_asked_for_is_waited_for_and_a_time_of_ones_own() {
        for (asked, least) in [
            (Duration::from_secs(1), Duration::from_secs(1)),
            (MAX_WAIT + FIRST_WAIT, MAX_WAIT + FIRST_WAIT),
            (MAX_ASKED_WAIT, MAX_ASKED_WAIT),
            (MAX_ASKED_WAIT + Duration::from_secs(1), MAX_ASKED_WAIT),
            (Duration::MAX, MAX_ASKED_WAIT),
        ] {
            let waits: Vec<_> = (0..100).map(|_| Backoff::default().next(Some(asked))).collect();
            let (first, last) = (waits.iter().min().unwrap(), waits.iter().max().unwrap());
            assert!(least <= *first && *last < least + FIRST_WAIT, "{first:?} to {last:?} of {asked:?}");
            assert!(*last - *first > FIRST_WAIT / 2, "{first:?} to {last:?} of {asked:?}");
        }
    }
}
