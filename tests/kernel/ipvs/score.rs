//! What happened beside what was told of it: how much of it was found, and how much of what was told was so. Pure.

use std::{collections::BTreeMap, fmt};

/// What becomes of a SYN that meets an old entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Verdict {
    /// It goes to the old real server.
    Reused,
    /// It goes to another one.
    Rescheduled,
    /// It goes nowhere.
    Dropped,
}

impl Verdict {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Reused => "reused",
            Self::Rescheduled => "rescheduled",
            Self::Dropped => "dropped",
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(self.as_str())
    }
}

/// Counts of one verdict.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Count {
    /// It happened so often.
    pub(crate) happened: u32,
    /// Of that so often it was told.
    pub(crate) found: u32,
    /// So often it was told.
    pub(crate) told: u32,
    /// Of that it was so.
    pub(crate) right: u32,
}

/// Counts of all verdicts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Score(pub(crate) BTreeMap<Verdict, Count>);

impl Score {
    /// Adds what happened in one case, and what was told of it.
    pub(crate) fn add(&mut self, happened: &[Verdict], told: &[Verdict]) {
        for verdict in happened {
            let count = self.0.entry(*verdict).or_default();
            count.happened += 1;
            count.found += u32::from(told.contains(verdict));
        }
        for verdict in told {
            let count = self.0.entry(*verdict).or_default();
            count.told += 1;
            count.right += u32::from(happened.contains(verdict));
        }
    }
}

#[test]
fn what_was_not_told_lowers_recall_and_what_was_not_so_precision() {
    use Verdict::{Dropped, Rescheduled, Reused};
    let mut score = Score::default();
    score.add(&[Reused], &[Reused]);
    score.add(&[Reused, Rescheduled], &[Rescheduled]);
    score.add(&[Dropped], &[]);
    score.add(&[Rescheduled], &[Reused]);
    let count = |happened, found, told, right| Count { happened, found, told, right };
    let expected =
        [(Reused, count(2, 1, 2, 1)), (Rescheduled, count(2, 1, 1, 1)), (Dropped, count(1, 0, 0, 0))];
    assert_eq!(score, Score(BTreeMap::from(expected)));
}
