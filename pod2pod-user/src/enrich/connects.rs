//! Which connection attempts are told, and how many there were of which kind.
//!
//! All are counted, whatever is told. Reads nothing but the attempt.

use std::ops::AddAssign;

use crate::{
    reassembly::{Attempt, Fate, Side},
    record::ObservedAt,
};

/// Which connection attempts get a record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Connects {
    /// None.
    Off,
    /// Those that came to nothing.
    Failed,
    /// Those, and what was answered late or whose SYN had to be sent again.
    #[default]
    Slow,
    /// All of which a SYN was seen.
    All,
}

impl Connects {
    /// The choice that is written so.
    pub fn of_word(word: &str) -> Option<Self> {
        match word {
            "off" => Some(Self::Off),
            "failed" => Some(Self::Failed),
            "slow" => Some(Self::Slow),
            "all" => Some(Self::All),
            _ => None,
        }
    }

    /// Whether `attempt` is told. That one is slow is reassembly's to say, which tells of no other that was answered unless
    /// asked to.
    pub(super) const fn tells(self, attempt: &Attempt) -> bool {
        match self {
            Self::Off => false,
            Self::Failed => attempt.late || !matches!(attempt.fate, Fate::Answered),
            Self::Slow | Self::All => true,
        }
    }
}

/// What a counted attempt came to, as metrics say it.
pub const OUTCOMES: [&str; 5] = ["answered", "refused", "unreachable", "timeout", "gap"];

/// Attempts that were told, or would have been, by what came of them and where that was seen. One that was told twice is
/// counted once, as what was told first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ConnectCounts([[u64; ObservedAt::ALL.len()]; OUTCOMES.len()]);

impl ConnectCounts {
    pub(super) fn count(&mut self, attempt: &Attempt) {
        if attempt.late {
            return;
        }
        let outcome = match attempt.fate {
            Fate::Answered => 0,
            Fate::Refused => 1,
            Fate::Unreachable(_) => 2,
            Fate::Timeout => 3,
            Fate::Unknown => 4,
        };
        let place = match attempt.connection.local {
            Some(Side::Originator) => ObservedAt::Client,
            Some(Side::Responder) => ObservedAt::Server,
            None => ObservedAt::Path,
        };
        let count = self.0.get_mut(outcome).and_then(|places| places.get_mut(place as usize));
        if let Some(count) = count {
            *count += 1;
        }
    }

    /// Every count with its outcome and place.
    pub fn all(&self) -> impl Iterator<Item = (&'static str, ObservedAt, u64)> {
        OUTCOMES.iter().zip(self.0).flat_map(|(outcome, places)| {
            ObservedAt::ALL.iter().zip(places).map(|(place, count)| (*outcome, *place, count))
        })
    }

    /// All of them.
    pub fn total(&self) -> u64 {
        self.0.iter().flatten().sum()
    }
}

impl AddAssign for ConnectCounts {
    fn add_assign(&mut self, part: Self) {
        for (count, more) in self.0.iter_mut().flatten().zip(part.0.iter().flatten()) {
            *count += more;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_counted_in_the_order_in_which_they_are_named() {
        for (at, place) in ObservedAt::ALL.iter().enumerate() {
            assert_eq!(*place as usize, at);
        }
    }
}
