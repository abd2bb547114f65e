//! Which exchanges are kept. By connection id, so that both ends' views of an exchange are kept or left out together.

use std::time::Duration;

use super::{Fate, identity};
use crate::record::{Kind, Outcome, Record};

/// A share in millionths, at most all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate(u32);

impl Rate {
    /// Everything is kept.
    pub const ALL: Self = Self(1_000_000);

    /// A rate, if `millionths` is at most 1,000,000.
    pub const fn from_millionths(millionths: u32) -> Option<Self> {
        if millionths <= Self::ALL.0 { Some(Self(millionths)) } else { None }
    }

    /// The share in millionths.
    pub const fn millionths(self) -> u32 {
        self.0
    }
}

/// Why a record is kept, or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice {
    /// All like it are.
    Always,
    /// By chance.
    Kept,
    /// By chance it is not.
    LeftOut,
}

/// Chooses. What is kept at some rate is kept at every higher one.
///
/// Never left out: status 400 and above, every outcome but complete and upgraded, late and progress records, and slow
/// exchanges. They carry no rate: all of them are kept.
pub fn choose(record: &Record, rate: Rate, slow: Duration) -> Choice {
    if rate == Rate::ALL || is_special(record, slow) {
        return Choice::Always;
    }
    // Mixed once more: an id is made of sequence numbers that a peer chooses.
    let chance = identity::mix(record.connection_id) >> 32;
    if chance * u64::from(Rate::ALL.0) < u64::from(rate.0) << 32 { Choice::Kept } else { Choice::LeftOut }
}

/// Keeps or leaves out `record` as [`choose`] says; one that is kept by chance says by which.
pub fn decide(record: &mut Record, rate: Rate, slow: Duration) -> Fate {
    match choose(record, rate, slow) {
        Choice::Always => Fate::Keep,
        Choice::Kept => {
            record.sample_rate_millionths = Some(rate.0);
            Fate::Keep
        }
        Choice::LeftOut => Fate::SampledAway,
    }
}

fn is_special(record: &Record, slow: Duration) -> bool {
    let ordinary_outcome = matches!(record.outcome, Some(Outcome::Complete | Outcome::Upgraded));
    !ordinary_outcome
        || record.kind == Kind::Connect && record.connect_retransmits > 0
        || record.late
        || record.in_progress
        || record.status.is_some_and(|status| status >= 400)
        || u128::from(record.duration) >= slow.as_nanos()
}
