//! Which records are on their way, and what became of each: reports come one by one, in any order, on another thread. Pure but for a lock.

use std::sync::{
    Mutex, MutexGuard, PoisonError,
    atomic::{AtomicU64, Ordering},
};

use foldhash::HashMap;
use tokio::sync::oneshot;

use super::code::Code;
use crate::sinks::remote::MAX_BATCH_RECORDS;

/// Bits of a tag that say which record of a flight it is.
const PLACE_BITS: u32 = 24;

const _: () = assert!(MAX_BATCH_RECORDS < 1 << PLACE_BITS, "every record of a batch has a tag");

/// All that are on their way.
#[derive(Debug, Default)]
pub(super) struct Flights {
    next: AtomicU64,
    open: Mutex<HashMap<u64, Open>>,
}

#[derive(Debug)]
struct Open {
    codes: Vec<Code>,
    left: usize,
    done: oneshot::Sender<Vec<Code>>,
}

/// Records that were sent together; reports of what is dropped are for nobody.
#[derive(Debug)]
pub(super) struct Flight<'a> {
    flights: &'a Flights,
    number: u64,
    done: oneshot::Receiver<Vec<Code>>,
}

impl Flights {
    /// A flight of `count` records, at least one.
    pub(super) fn begin(&self, count: usize) -> Flight<'_> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let (done, receiver) = oneshot::channel();
        self.lock().insert(number, Open { codes: vec![Code::NONE; count], left: count, done });
        Flight { flights: self, number, done: receiver }
    }

    /// What became of the record with this tag. One report each.
    pub(super) fn land(&self, tag: u64, code: Code) {
        let (number, place) = (tag >> PLACE_BITS, tag & ((1 << PLACE_BITS) - 1));
        let mut open = self.lock();
        let Some(flight) = open.get_mut(&number) else { return };
        if let Some(known) = usize::try_from(place).ok().and_then(|place| flight.codes.get_mut(place)) {
            *known = code;
            flight.left = flight.left.saturating_sub(1);
        }
        if flight.left == 0
            && let Some(flight) = open.remove(&number)
        {
            // Nobody may wait any more.
            let _ = flight.done.send(flight.codes);
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u64, Open>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Flight<'_> {
    /// The tag of the record at `place`.
    pub(super) const fn tag(&self, place: usize) -> u64 {
        self.number << PLACE_BITS | place as u64
    }

    /// Waits until there is a report of each record; absent if there will be none.
    pub(super) async fn landed(&mut self) -> Option<Vec<Code>> {
        (&mut self.done).await.ok()
    }
}

impl Drop for Flight<'_> {
    fn drop(&mut self) {
        self.flights.lock().remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn landed(flight: &mut Flight<'_>) -> Vec<i32> {
        flight.done.try_recv().unwrap().into_iter().map(|code| code.0).collect()
    }

    #[test]
    fn reports_are_of_the_records_that_were_sent_whatever_their_order() {
        let flights = Flights::default();
        let (mut first, mut second) = (flights.begin(3), flights.begin(1));
        for (flight, place, code) in [(&first, 2, 12), (&first, 0, 10), (&second, 0, 20), (&first, 1, 11)] {
            flights.land(flight.tag(place), Code(code));
        }
        assert_eq!((landed(&mut first), landed(&mut second)), (vec![10, 11, 12], vec![20]));
        assert!(flights.lock().is_empty());
    }

    #[test]
    fn the_last_record_of_the_largest_batch_has_a_tag() {
        let flights = Flights::default();
        let count = MAX_BATCH_RECORDS as usize;
        let mut flight = flights.begin(count);
        (0..count).for_each(|place| flights.land(flight.tag(place), Code(place as i32)));
        assert_eq!(landed(&mut flight).last(), Some(&(count as i32 - 1)));
    }

    #[test]
    fn what_nobody_waits_for_is_forgotten() {
        let flights = Flights::default();
        let flight = flights.begin(2);
        let tag = flight.tag(0);
        drop(flight);
        flights.land(tag, Code::NONE);
        assert!(flights.lock().is_empty());
    }
}
