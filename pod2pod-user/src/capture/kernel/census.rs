//! How many socket ends the kernel's table holds, and so how many it evicted: the kernel tells of neither, only of what
//! it inserts, and nobody else deletes.
//!
//! The table is walked a piece at a time, while it changes. What is told never says more evictions than there were, and
//! is exact if nothing changed during the walk. Reads no clock: the caller says when to begin.

/// Batches in one step: 4,096 entries, well under a millisecond.
const MAX_BATCHES: usize = 16;

/// The table as it was when last walked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Table {
    /// Socket ends in it.
    pub entries: u64,
    /// Socket ends that it has forgotten so far to make room.
    pub evicted: u64,
}

/// What one look into the table gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Batch {
    /// Entries found.
    pub(super) entries: u64,
    /// Where to look next; none at the end.
    pub(super) next: Option<u32>,
}

/// Walks.
#[derive(Debug, Default)]
pub(super) struct Census {
    walk: Option<Walk>,
    /// Inserted when the last whole walk began.
    known: u64,
    table: Table,
}

/// A walk that has begun.
#[derive(Clone, Copy, Debug)]
struct Walk {
    inserted: u64,
    entries: u64,
    place: Option<u32>,
}

impl Census {
    /// Begins a walk, unless one is on its way or nothing was `inserted` since the last.
    pub(super) const fn begin(&mut self, inserted: u64) {
        if self.walk.is_none() && inserted != self.known {
            self.walk = Some(Walk { inserted, entries: 0, place: None });
        }
    }

    /// Goes on with the walk, if there is one: [`MAX_BATCHES`] looks at most. A table that cannot be read is given up until
    /// the next walk.
    pub(super) fn step<E>(&mut self, mut look: impl FnMut(Option<u32>) -> Result<Batch, E>) {
        for _ in 0..MAX_BATCHES {
            let Some(walk) = &mut self.walk else { return };
            let Ok(batch) = look(walk.place) else {
                self.walk = None;
                return;
            };
            walk.entries += batch.entries;
            walk.place = batch.next;
            if batch.next.is_none() {
                self.finish();
            }
        }
    }

    /// The table as last walked.
    pub(super) const fn table(&self) -> Table {
        self.table
    }

    /// What was inserted before the walk and was not met on it, is gone. What was inserted or evicted meanwhile only makes
    /// this less.
    fn finish(&mut self) {
        if let Some(walk) = self.walk.take() {
            let gone = walk.inserted.saturating_sub(walk.entries);
            self.known = walk.inserted;
            self.table = Table { entries: walk.entries, evicted: self.table.evicted.max(gone) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A table of `buckets`, of which a look tells four.
    fn look(buckets: &[u64]) -> impl FnMut(Option<u32>) -> Result<Batch, ()> {
        move |place| {
            let from = place.unwrap_or(0) as usize;
            let to = (from + 4).min(buckets.len());
            let next = (to < buckets.len()).then_some(to as u32);
            Ok(Batch { entries: buckets[from..to].iter().sum(), next })
        }
    }

    #[test]
    fn what_is_not_there_any_more_was_evicted() {
        let mut census = Census::default();
        census.begin(0);
        census.step(|_| -> Result<Batch, ()> { panic!("nothing was inserted, so nobody looks") });
        census.begin(9);
        census.step(look(&[1, 0, 2, 0, 1]));
        assert_eq!(census.table(), Table { entries: 4, evicted: 5 });
        // Nothing new: not walked again.
        census.begin(9);
        census.step(look(&[7]));
        assert_eq!(census.table(), Table { entries: 4, evicted: 5 });
    }

    #[test]
    fn a_step_is_bounded_and_the_next_one_goes_on() {
        let mut census = Census::default();
        let most = vec![1; 4 * MAX_BATCHES];
        census.begin(100);
        census.step(look(&most));
        assert_eq!(census.table(), Table { entries: 64, evicted: 36 });
        let more = vec![1; 4 * MAX_BATCHES + 1];
        census.begin(200);
        census.step(look(&more));
        assert_eq!(census.table(), Table { entries: 64, evicted: 36 }, "the walk is not at its end");
        // What is inserted meanwhile waits for the next walk.
        census.begin(300);
        census.step(look(&more));
        assert_eq!(census.table(), Table { entries: 65, evicted: 135 });
        census.begin(300);
        census.step(look(&[10]));
        assert_eq!(census.table(), Table { entries: 10, evicted: 290 });
    }

    #[test]
    fn evictions_never_become_fewer() {
        let mut census = Census::default();
        census.begin(10);
        census.step(look(&[3]));
        // Twenty more came, and were met though the walk began at the first of them.
        census.begin(11);
        census.step(look(&[23]));
        assert_eq!(census.table(), Table { entries: 23, evicted: 7 });
    }

    #[test]
    fn a_table_that_cannot_be_read_is_told_as_before() {
        let mut census = Census::default();
        census.begin(10);
        census.step(look(&[3]));
        census.begin(20);
        census.step(|_| Err(()));
        assert_eq!(census.table(), Table { entries: 3, evicted: 7 });
        census.begin(20);
        census.step(look(&[4]));
        assert_eq!(census.table(), Table { entries: 4, evicted: 16 });
    }
}
