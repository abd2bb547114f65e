//! Items that are to be sent together, with what is known of attempts to do so.

use std::{rc::Rc, time::Instant};

use super::{Parcel, spool::Ticket};

/// A batch whose answer did not come in time so often is sent in halves from then on: the way to its target may be too slow for all of it.
/// The first time it may have been anything.
pub(super) const FAILURES_TO_HALVE: u32 = 2;
/// A batch of no more bytes is left whole: a way on which that takes as long as an attempt may is none, and of a target that never answers
/// nothing shall be left in crumbs.
pub(super) const MIN_HALVED_BYTES: usize = 16 * 1024;

/// Items that are to be sent.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) parcel: Parcel,
    /// What is given back to the queue when it is done.
    pub(super) weight: usize,
    /// Who is to be told when it is done, and its other parts are.
    pub(super) ticket: Option<Rc<Ticket>>,
    /// Attempts that failed.
    pub(super) failures: u32,
    pub(super) due: Instant,
    /// When it was queued, unless it was on disk.
    pub(super) since: Option<Instant>,
}

impl Job {
    /// Whether its items are on disk.
    pub(super) fn is_stored(&self) -> bool {
        self.ticket.as_deref().is_some_and(Ticket::is_stored)
    }

    /// Whether it may be its size that an answer did not come in time.
    pub(super) fn may_be_too_slow(&self) -> bool {
        self.failures >= FAILURES_TO_HALVE && self.parcel.bytes().len() > MIN_HALVED_BYTES
    }

    /// The first and the second half of its items; itself if there are no two.
    pub(super) fn halves(self) -> Result<[Self; 2], Self> {
        let Some([first, second]) = self.parcel.halves() else { return Err(self) };
        let Self { weight, ticket, failures, due, since, .. } = self;
        let half = |parcel, weight| Self { parcel, weight, ticket: ticket.clone(), failures, due, since };
        Ok([half(first, weight / 2), half(second, weight - weight / 2)])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(bytes: usize, failures: u32) -> Job {
        let ends = [bytes as u32 / 2, bytes as u32].to_vec();
        let parcel = Parcel::new(vec![b'x'; bytes], ends);
        Job { parcel, weight: 7, ticket: None, failures, due: Instant::now(), since: None }
    }

    #[test]
    fn so_many_failures_and_bytes_are_too_slow_and_one_fewer_are_not() {
        assert!(job(MIN_HALVED_BYTES + 1, FAILURES_TO_HALVE).may_be_too_slow());
        assert!(!job(MIN_HALVED_BYTES, FAILURES_TO_HALVE).may_be_too_slow());
        assert!(!job(MIN_HALVED_BYTES + 1, FAILURES_TO_HALVE - 1).may_be_too_slow());
    }

    #[test]
    fn halves_are_the_whole_together() {
        let [first, second] = job(10, 3).halves().unwrap();
        assert_eq!((first.parcel.len(), second.parcel.len(), first.weight, second.weight), (1, 1, 3, 4));
        assert_eq!((first.failures, second.failures), (3, 3));
        assert_eq!(first.halves().unwrap_err().weight, 3);
    }
}
