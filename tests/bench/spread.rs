//! The arithmetic of figures: medians, quartiles, and what is kept of the rounds beside. Pure.

use serde::{Deserialize, Serialize};

/// Median and quartiles of some rounds.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Serialize)]
pub(crate) struct Spread {
    pub(crate) low: f64,
    pub(crate) median: f64,
    pub(crate) high: f64,
    pub(crate) rounds: usize,
}

impl Spread {
    /// Of values in any order; `None` if there are none.
    pub(crate) fn of(values: &[f64]) -> Option<Self> {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        Some(Self {
            low: quantile(&sorted, 0.25)?,
            median: quantile(&sorted, 0.5)?,
            high: quantile(&sorted, 0.75)?,
            rounds: sorted.len(),
        })
    }
}

/// The value that a share of `sorted` is not above, between two values by linear interpolation.
pub(crate) fn quantile(sorted: &[f64], share: f64) -> Option<f64> {
    let last = sorted.len().checked_sub(1)?;
    let place = share * last as f64;
    let below = place.floor();
    let (low, high) = (sorted.get(below as usize)?, sorted.get((place.ceil() as usize).min(last))?);
    Some(low + (high - low) * (place - below))
}

/// Every round of `variant` as a share of the rounds of `without` next to it: the median of the one before and the one
/// after, since the machine's own speed drifts. `rounds` are in the order of time.
pub(crate) fn kept<V: PartialEq>(rounds: &[(V, f64)], variant: &V, without: &V) -> Vec<f64> {
    let mut shares = Vec::new();
    for (place, (_, value)) in rounds.iter().enumerate().filter(|(_, (name, _))| name == variant) {
        let (before, after) = rounds.split_at(place);
        let bare = |round: &&(V, f64)| round.0 == *without;
        let neighbours: Vec<f64> = before
            .iter()
            .rev()
            .find(bare)
            .into_iter()
            .chain(after.iter().find(bare))
            .map(|(_, value)| *value)
            .collect();
        if let Some(Spread { median, .. }) = Spread::of(&neighbours).filter(|spread| spread.median > 0.0) {
            shares.push(value / median);
        }
    }
    shares
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quartiles_are_interpolated() {
        let spread = Spread::of(&[4.0, 1.0, 3.0, 2.0]).expect("values");
        assert_eq!(spread, Spread { low: 1.75, median: 2.5, high: 3.25, rounds: 4 });
        let odd = Spread::of(&[9.0, 1.0, 5.0]).expect("values");
        assert_eq!(odd, Spread { low: 3.0, median: 5.0, high: 7.0, rounds: 3 });
        let one = Spread::of(&[7.0]).expect("a value");
        assert_eq!(one, Spread { low: 7.0, median: 7.0, high: 7.0, rounds: 1 });
        assert_eq!(Spread::of(&[]), None);
    }

    #[test]
    fn a_percentile_is_near_the_end() {
        let values: Vec<f64> = (0..=100).map(f64::from).collect();
        assert_eq!(quantile(&values, 0.99), Some(99.0));
        assert_eq!(quantile(&values, 1.0), Some(100.0));
    }

    #[test]
    fn what_is_kept_is_measured_against_the_neighbours() {
        let rounds = [
            ("none", 100.0),
            ("tool", 90.0),
            ("other", 50.0),
            ("none", 200.0),
            ("tool", 100.0),
            ("none", 300.0),
            ("other", 30.0),
        ];
        assert_eq!(kept(&rounds, &"tool", &"none"), [90.0 / 150.0, 100.0 / 250.0]);
        assert_eq!(kept(&rounds, &"other", &"none"), [50.0 / 150.0, 30.0 / 300.0]);
        assert_eq!(kept(&rounds, &"absent", &"none"), [0.0; 0]);
        assert_eq!(kept(&[("tool", 1.0)], &"tool", &"none"), [0.0; 0]);
    }
}
