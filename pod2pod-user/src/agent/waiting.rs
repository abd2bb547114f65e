//! How long the worker waits before it looks into the ring again: follows what came. Pure: reads no clock and waits for
//! nothing itself.
//!
//! A wake-up costs the machine more than the records it finds, so waits are as long as the ring allows: until about
//! [`SHARE_OF_RING`] of it is filled at the pace of late. The kernel wakes the reader by itself when the ring has filled
//! far beyond that, or when one connection has used half of its credit, so a burst that follows a quiet time needs no
//! short waits in the quiet time.

use std::time::{Duration, Instant};

/// The part of the ring that may fill in one wait, at the pace of late: far from what makes the kernel wake the reader
/// ([`pod2pod_common::limits::DEFAULT_WAKE_THRESHOLD_BYTES`]), and so little that what a turn takes does not stop the
/// programs watched for longer than it takes them to run out of work for each other.
const SHARE_OF_RING: u32 = 256;
/// Shortest wait: a wake-up takes some microseconds. A tiny ring is not drained faster than this.
const MIN_WAIT: Duration = Duration::from_micros(250);
/// Longest wait: eight wake-ups a second, and as many of the output's thread, for any trickle. A person who watches a
/// terminal hardly notices, and no verdict is later, since the credit and not the timer is what bounds a body.
pub(super) const MAX_WAIT: Duration = Duration::from_millis(125);

/// What came of late, and how long that allows to wait.
#[derive(Clone, Copy, Debug)]
pub(super) struct Waiting {
    /// Bytes that may come in one wait.
    target: f64,
    /// Bytes a second: rises at once, falls slowly.
    pace: f64,
    /// When the ring was last looked into.
    last: Instant,
}

impl Waiting {
    /// Nothing has come of a ring of `ring_bytes` yet.
    pub(super) fn new(ring_bytes: u32, now: Instant) -> Self {
        Self { target: f64::from(ring_bytes / SHARE_OF_RING), pace: 0.0, last: now }
    }

    /// The wait after a turn at `now` that took `bytes` from the ring.
    pub(super) fn after(&mut self, bytes: usize, now: Instant) -> Duration {
        // Two looks in one instant are not infinitely fast traffic.
        let elapsed = now.saturating_duration_since(self.last).max(MIN_WAIT);
        self.last = now;
        let seen = bytes as f64 / elapsed.as_secs_f64();
        // Halving: the longest wait follows the end of full load within a second, and a pause of a connection or two does
        // not undo what was learned.
        self.pace = seen.max(f64::midpoint(self.pace, seen));
        let wait = self.target / self.pace.max(1.0);
        Duration::try_from_secs_f64(wait).unwrap_or(MAX_WAIT).clamp(MIN_WAIT, MAX_WAIT)
    }
}

#[cfg(test)]
mod tests {
    use pod2pod_common::limits::{DEFAULT_RING_BYTES, DEFAULT_WAKE_THRESHOLD_BYTES};

    use super::*;
    use crate::capture::kernel::MIN_RING_BYTES;

    /// Records of the smallest class that holds a small request.
    const RECORD: usize = 256;

    /// Waits one after the other while `pace` bytes a second come; what came in each wait is found after it.
    fn waits(waiting: &mut Waiting, pace: f64, turns: usize) -> Vec<Duration> {
        let mut wait = MIN_WAIT;
        let mut told = Vec::new();
        for _ in 0..turns {
            let bytes = (pace * wait.as_secs_f64()) as usize;
            let now = waiting.last + wait;
            wait = waiting.after(bytes, now);
            told.push(wait);
        }
        told
    }

    #[test]
    fn a_trickle_is_read_a_dozen_times_a_second() {
        // 500 requests a second between two local ends: of each, a request in a record of 256 bytes and a response in 512.
        let pace = 500.0 * 2.0 * (256.0 + 512.0);
        let mut waiting = Waiting::new(DEFAULT_RING_BYTES, Instant::now());
        assert!(waits(&mut waiting, pace, 20).into_iter().all(|wait| wait > Duration::from_millis(80)));
        assert!(waits(&mut waiting, 0.0, 3).into_iter().all(|wait| wait == MAX_WAIT));
    }

    #[test]
    fn full_load_is_read_before_the_kernel_would_wake_the_reader() {
        for pace in [20e6, 100e6, 400e6] {
            let mut waiting = Waiting::new(DEFAULT_RING_BYTES, Instant::now());
            for wait in waits(&mut waiting, pace, 100) {
                let filled = pace * wait.as_secs_f64();
                assert!(filled <= f64::from(DEFAULT_WAKE_THRESHOLD_BYTES) / 4.0, "{pace}: {wait:?}");
                assert!(filled >= f64::from(DEFAULT_RING_BYTES / SHARE_OF_RING) * 0.9, "{pace}: {wait:?}");
            }
        }
    }

    #[test]
    fn overload_and_a_tiny_ring_are_read_as_often_as_the_timer_can() {
        let mut waiting = Waiting::new(MIN_RING_BYTES, Instant::now());
        assert!(waits(&mut waiting, 400e6, 10).into_iter().all(|wait| wait == MIN_WAIT));
    }

    #[test]
    fn a_burst_after_idleness_shortens_the_next_wait() {
        let mut waiting = Waiting::new(DEFAULT_RING_BYTES, Instant::now());
        waits(&mut waiting, 0.0, 10);
        // The kernel woke the reader 5 ms into the wait.
        let now = waiting.last + Duration::from_millis(5);
        let wait = waiting.after(DEFAULT_WAKE_THRESHOLD_BYTES as usize, now);
        assert_eq!(wait.as_micros(), 312);
    }

    #[test]
    fn the_longest_wait_comes_back_within_a_second_of_the_end() {
        let mut waiting = Waiting::new(DEFAULT_RING_BYTES, Instant::now());
        waits(&mut waiting, 100e6, 100);
        let mut elapsed = Duration::ZERO;
        let mut wait = waiting.after(RECORD, waiting.last + MIN_WAIT);
        while wait < MAX_WAIT {
            elapsed += wait;
            wait = waiting.after(RECORD, waiting.last + wait);
        }
        assert!(elapsed < Duration::from_secs(1), "{elapsed:?}");
    }

    #[test]
    fn two_looks_in_one_instant_are_no_infinite_pace() {
        let now = Instant::now();
        let mut waiting = Waiting::new(DEFAULT_RING_BYTES, now);
        assert!(waiting.after(RECORD, now) > MAX_WAIT / 2);
    }
}
