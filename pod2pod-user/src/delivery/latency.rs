//! How long targets took to answer, as a histogram. Pure.

use std::time::Duration;

/// Upper bounds, seconds: from a neighbour's answer to the longest that is waited for.
pub const BOUNDS: [f64; 8] = [0.001, 0.005, 0.025, 0.1, 0.5, 2.5, 10.0, 60.0];

/// Answers by how long they took.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Latency {
    /// Up to each bound and past the one before; the last is of those past all.
    pub counts: [u64; BOUNDS.len() + 1],
    /// Of all answers together, seconds.
    pub seconds: f64,
}

impl Latency {
    /// Counts one.
    pub fn observe(&mut self, took: Duration) {
        let seconds = took.as_secs_f64();
        let place = BOUNDS.iter().position(|bound| seconds <= *bound).unwrap_or(BOUNDS.len());
        if let Some(count) = self.counts.get_mut(place) {
            *count += 1;
        }
        self.seconds += seconds;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_is_of_its_own_bucket_and_one_past_of_the_next() {
        let mut latency = Latency::default();
        for bound in BOUNDS {
            latency.observe(Duration::from_secs_f64(bound));
            latency.observe(Duration::from_secs_f64(bound) + Duration::from_nanos(100));
        }
        assert_eq!(latency.counts, [1, 2, 2, 2, 2, 2, 2, 2, 1]);
        assert!((latency.seconds - 2.0 * BOUNDS.iter().sum::<f64>()).abs() < 1e-3);
    }
}
