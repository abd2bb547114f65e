//! Both modes side by side: what polling found is settled by what the kernel was seen to decide. Time is an argument.
//!
//! A reuse that two polls show and a decision told already is the same one. One that no decision explains, although every SYN
//! was followed since before those polls, was a late packet of the old connection or came after the old entry's end. What was not followed
//! is told as polling has it.

use std::{collections::VecDeque, time::Duration};

use hashbrown::HashMap;

use super::{Decision, Outcome};
use crate::ipvs::{Confidence, Reuse, Tuple, parse::Protocol};

/// Decisions that are remembered until polling has had its chance to see them, where nobody asks for fewer. Of more, some reuses are
/// told twice.
pub const MAX_TOLD: usize = 65_536;
/// What one of them takes at most, in a table that has just grown and beside the one before. Bytes.
pub const TOLD_BYTES: usize = 224;

/// Polls that a change may span: from the one before the last that had the entry, as one may miss it.
const POLLS: usize = 3;

/// What becomes of a reuse that polling found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settled {
    /// It was told, with the decision.
    Told,
    /// No new connection met the old entry.
    Disproved,
    /// It is to be told: nobody followed it, or what polling saw cannot be without a new connection.
    Open,
}

/// What was counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Reuses of polling that were told before.
    pub told: u64,
    /// Reuses of polling that were none.
    pub disproved: u64,
    /// Reuses of polling that are certain, and that no decision explains though all were followed.
    pub unexplained: u64,
    /// Decisions that could not be remembered.
    pub forgotten: u64,
}

/// Decisions and polls of the last while.
#[derive(Debug)]
pub struct Settle {
    max_told: usize,
    /// When a decision on a SYN of this tuple was last told.
    told: HashMap<Tuple, Duration, foldhash::fast::RandomState>,
    /// When the last polls began, the newest last.
    polls: VecDeque<Duration>,
    /// Since when every SYN was followed; absent if none is.
    complete_since: Option<Duration>,
    stats: Stats,
}

impl Default for Settle {
    fn default() -> Self {
        Self::with_room(MAX_TOLD)
    }
}

impl Settle {
    /// Remembers so many decisions at most.
    pub fn with_room(max_told: usize) -> Self {
        let (told, polls) = (HashMap::default(), VecDeque::new());
        Self { max_told, told, polls, complete_since: None, stats: Stats::default() }
    }

    /// From `at` on every SYN is followed; absent, none is. To be called anew when some were lost.
    pub fn follow(&mut self, at: Option<Duration>) {
        self.complete_since = at;
    }

    /// A poll begins.
    pub fn poll(&mut self, at: Duration) {
        self.polls.push_back(at);
        if self.polls.len() > POLLS {
            self.polls.pop_front();
        }
        let oldest = self.polls.front().copied().unwrap_or_default();
        self.told.retain(|_, told| *told >= oldest);
    }

    /// A decision was made, and is told if it met an old entry.
    pub fn decision(&mut self, decision: &Decision, at: Duration) {
        // A connection that is new for the kernel may follow a SYN that was dropped, which polling sees as one change.
        let tells = decision.met.is_some() || decision.outcome == Outcome::New;
        if !tells || decision.outcome == Outcome::Repeated {
            return;
        }
        if self.told.len() < self.max_told || self.told.contains_key(&decision.tuple) {
            self.told.insert(decision.tuple, at);
        } else {
            self.stats.forgotten += 1;
        }
    }

    /// What is to be done with a reuse that the last poll found.
    pub fn settle(&mut self, reuse: &Reuse) -> Settled {
        if self.told.contains_key(&reuse.tuple) {
            self.stats.told += 1;
            return Settled::Told;
        }
        let oldest = self.polls.front().copied().unwrap_or_default();
        let is_followed = reuse.tuple.protocol == Protocol::TCP
            && self.polls.len() == POLLS
            && self.complete_since.is_some_and(|since| since <= oldest);
        if !is_followed {
            return Settled::Open;
        }
        if reuse.confidence == Confidence::Probable || reuse.may_have_expired {
            self.stats.disproved += 1;
            return Settled::Disproved;
        }
        self.stats.unexplained += 1;
        Settled::Open
    }

    /// What was counted.
    pub const fn stats(&self) -> &Stats {
        &self.stats
    }
}
