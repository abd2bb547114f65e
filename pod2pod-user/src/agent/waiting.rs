//! How long the worker waits before it looks into the ring again: follows what came. Pure: reads no clock and waits for
//! nothing itself.

use std::time::Duration;

/// Wait after a turn that found records: short of what fills the ring at 1 GB/s, long enough to batch.
const BUSY_WAIT: Duration = Duration::from_millis(2);
/// Longest wait when nothing comes: what a person watching a terminal does not notice.
const IDLE_WAIT: Duration = Duration::from_millis(50);

/// What the next wait depends on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Waiting {
    last: Duration,
}

impl Waiting {
    /// As after a turn that found records.
    pub(super) const fn new() -> Self {
        Self { last: BUSY_WAIT }
    }

    /// The wait after a turn that took `records` from the ring and left none.
    pub(super) fn after(&mut self, records: usize) -> Duration {
        self.last = if records > 0 { BUSY_WAIT } else { (self.last * 2).min(IDLE_WAIT) };
        self.last
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_while_nothing_comes_and_shrink_at_once() {
        let mut waiting = Waiting::new();
        let waits: Vec<_> = (0..6).map(|_| waiting.after(0).as_millis()).collect();
        assert_eq!(waits, [4, 8, 16, 32, 50, 50]);
        assert_eq!(waiting.after(1), BUSY_WAIT);
    }
}
