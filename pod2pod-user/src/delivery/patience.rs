//! How long a worker may wait for a sink's thread on the same machine: as a rule that thread only has to get its turn, which the
//! worker's own may stand in the way of. A target that takes nothing is not waited for again and again.

use std::time::{Duration, Instant};

/// A worker waits this long at most at a time. By estimate (140,000 exchanges a second of four segments, 300 bytes each in the ring, two
/// workers) a ring of its own of 8 MiB fills to a half meanwhile.
pub(super) const MAX_PATIENCE: Duration = Duration::from_millis(50);
/// One in so many seconds may be spent waiting in the long run: no more than capture can do without.
const PATIENCE_SHARE: u32 = 20;

/// Time that may be spent waiting: so much at once, and it comes back slowly.
#[derive(Debug)]
pub(super) struct Patience {
    most: Duration,
    left: Duration,
    /// When that was left.
    at: Option<Instant>,
}

impl Default for Patience {
    fn default() -> Self {
        Self::of(MAX_PATIENCE)
    }
}

impl Patience {
    /// So much at a time.
    pub(super) const fn of(most: Duration) -> Self {
        Self { most, left: most, at: None }
    }

    /// How long somebody may wait who begins `now`.
    pub(super) fn left(&mut self, now: Instant) -> Duration {
        let gone = self.at.map_or(Duration::ZERO, |at| now.saturating_duration_since(at));
        self.left = (self.left + gone / PATIENCE_SHARE).min(self.most);
        self.at = Some(now);
        self.left
    }

    /// Somebody waited from `begin` until `now`.
    pub(super) fn spend(&mut self, begin: Instant, now: Instant) {
        self.left = self.left.saturating_sub(now.saturating_duration_since(begin));
        self.at = Some(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_spent_comes_back_slowly_and_not_beyond_the_most() {
        let begin = Instant::now();
        let after = |milliseconds| begin + Duration::from_millis(milliseconds);
        let mut patience = Patience::default();
        assert_eq!(patience.left(begin), MAX_PATIENCE);
        patience.spend(begin, after(20));
        assert_eq!(patience.left(after(20)), Duration::from_millis(30));
        patience.spend(after(20), after(70));
        assert_eq!(patience.left(after(70)), Duration::ZERO);
        assert_eq!(patience.left(after(170)), Duration::from_millis(5));
        assert_eq!(patience.left(after(170)), Duration::from_millis(5));
        assert_eq!(patience.left(after(1_069)), MAX_PATIENCE - Duration::from_micros(50));
        assert_eq!(patience.left(after(1_070)), MAX_PATIENCE);
        assert_eq!(patience.left(after(100_000)), MAX_PATIENCE);
    }
}
