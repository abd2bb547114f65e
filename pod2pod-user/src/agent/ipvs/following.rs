//! Exact mode inside the agent: turned on where it can be, its decisions handed to who joins connections and to who tells of reuses.
//!
//! What stands in its way is said once, and polling goes on without it.

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use super::telling::Telling;
use crate::{
    ipvs::{
        Reuse,
        exact::{
            Decision,
            settle::{self, Settle, Settled},
        },
        selection::{self, Pattern},
        series::Series,
    },
    restraint::allocator,
    shutdown::Shutdown,
    watch::{
        exact::{Counts, Exact, Kept},
        source::Source,
    },
};

/// Decisions that the board gets at once: its lock is held for a copy of these.
const BATCH: usize = 64;

/// Said once, with the reason.
pub(super) const REFUSED: &str = "exact mode is not to be had: polling";

/// Follows the kernel's decisions, or does not.
pub(super) struct Following {
    /// The table whose namespace is followed.
    path: PathBuf,
    /// One that was said not to be followed.
    refused: PathBuf,
    exact: Option<Exact>,
    /// Decisions that polling may find again; none if nothing is to be followed.
    max_told: usize,
    services: Vec<Pattern>,
    start: Instant,
    batch: Vec<Decision>,
    /// How often it was turned on or off.
    turns: u64,
}

impl Following {
    /// Follows nothing yet. Times are after `start`.
    pub(super) fn new(max_told: usize, services: Vec<Pattern>, start: Instant) -> Self {
        let (path, refused) = Default::default();
        Self { path, refused, exact: None, max_told, services, start, batch: Vec::new(), turns: 0 }
    }

    /// Turns exact mode on or off, as it can be for this table, and says so.
    pub(super) fn keep(&mut self, source: &Source) {
        if self.max_told == 0 {
            return;
        }
        if self.path != source.path() {
            let fresh = Exact::of(source.path(), Settle::with_room(self.max_told));
            if fresh.is_some() {
                source.path().clone_into(&mut self.path);
            } else if self.refused != source.path() && source.path().exists() {
                source.path().clone_into(&mut self.refused);
                let path = source.path().display();
                tracing::info!(%path, reason = "whose network namespace it is of cannot be seen", "{REFUSED}");
            }
            let namespace = |exact: &Option<Exact>| exact.as_ref().map(Exact::namespace);
            if namespace(&fresh) != namespace(&self.exact) {
                self.turns += u64::from(self.is_on());
                self.exact = fresh;
            }
        }
        let start = self.start;
        match self.exact.as_mut().map_or(Kept::Same, |exact| exact.keep(|| start.elapsed())) {
            Kept::Same => return,
            Kept::Began => {
                tracing::info!("exact mode: every SYN that IPVS decides on is followed");
                self.turns += 1;
            }
            Kept::Ended => {
                tracing::info!("exact mode: the module ip_vs is gone");
                self.turns += 1;
            }
            Kept::Refused(reason) if reason.may_come() => {}
            Kept::Refused(reason) => tracing::info!(%reason, "{REFUSED}"),
        }
        // The kernel's types are megabytes, which only the look at them needed.
        allocator::trim();
    }

    /// Takes what was decided so far.
    pub(super) fn take(&mut self, telling: &mut Telling, series: &mut Series) {
        let Self { exact: Some(exact), services, batch, start, .. } = self else { return };
        let at = start.elapsed();
        exact.drain(at, &mut |decision| {
            batch.push(*decision);
            if batch.len() == BATCH {
                telling.board.put_decisions(batch);
                batch.clear();
            }
            if selection::selects(services, decision.tuple.service) {
                telling.decided(decision, at, series);
            }
        });
        if !batch.is_empty() {
            telling.board.put_decisions(batch);
            batch.clear();
        }
    }

    /// A poll begins.
    pub(super) fn poll(&mut self) {
        let at = self.start.elapsed();
        self.exact.iter_mut().for_each(|exact| exact.poll(at));
    }

    /// A poll is over, and all that was decided by then was taken: of what it found, leaves in `reuses` what was a new connection, and
    /// gives what was not told before.
    pub(super) fn settle(&mut self, reuses: &mut Vec<Reuse>) -> Vec<Reuse> {
        let Some(exact) = &mut self.exact else { return reuses.clone() };
        exact.polled(self.start.elapsed());
        let mut open = Vec::new();
        reuses.retain(|reuse| match exact.settle(reuse) {
            Settled::Disproved => false,
            Settled::Told => true,
            Settled::Open => {
                open.push(*reuse);
                true
            }
        });
        open
    }

    /// Waits until there are decisions, for `longest` at most, or until the end is asked for; whether there are.
    pub(super) fn wait(&self, shutdown: &Shutdown, longest: Duration) -> bool {
        match &self.exact {
            Some(exact) => exact.wait(shutdown, longest),
            None => {
                shutdown.wait(longest);
                false
            }
        }
    }

    /// Whether it is on.
    pub(super) fn is_on(&self) -> bool {
        self.exact.as_ref().is_some_and(Exact::is_on)
    }

    /// How often it was turned on or off.
    pub(super) const fn turns(&self) -> u64 {
        self.turns
    }

    /// What was counted.
    pub(super) fn counts(&self) -> (Counts, settle::Stats) {
        let exact = self.exact.as_ref();
        exact.map_or_else(Default::default, |exact| (exact.counts(), *exact.settled().stats()))
    }
}
