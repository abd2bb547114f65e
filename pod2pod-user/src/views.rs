//! Both views of an exchange: where its client and its server are on one node, each end tells it. The view that comes second finds
//! the first one here; the client's duration less the server's is the time in the network and the stacks.
//!
//! One table for all workers: NAT may lead the two views through different ones. It is of buckets of a few places, each found by one
//! hash; nobody ever waits for a bucket, and nothing is allocated. Names, metrics and what is written are not known here.

use std::{
    sync::{Arc, Mutex, MutexGuard, TryLockError},
    time::Duration,
};

use crate::{
    capture::KernelInstant,
    enrich::identity::mix,
    record::{Kind, ObservedAt, Outcome, Record},
};

/// Views that wait for the other one at most. The second comes as soon as its worker has read it, some milliseconds later: at
/// 100,000 exchanges a second a thousand wait. 32 bytes each.
pub const MAX_VIEWS: usize = 8192;
/// Places of a bucket: of a thousand views that wait one in a million is given up because its bucket is full.
const PLACES: usize = 8;
/// A view waits so long at most: records wait five seconds for a name, and lost packets are sent again within seconds.
pub const MAX_AGE: Duration = Duration::from_secs(10);
/// Looks at a bucket that another worker has, which it gives back within some dozen instructions unless it is interrupted.
pub const MAX_TRIES: u32 = 200;
/// In a view: it is the client's. The rest is its duration, ns, of which 63 bits are 292 years.
const CLIENT: u64 = 1 << 63;

/// What was counted: seen = 2 · joined + alone + forgotten + busy + those that wait.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Views of complete exchanges, told at an end of theirs.
    pub seen: u64,
    /// Exchanges of which both views met.
    pub joined: u64,
    /// Of these, that took longer at the server than at the client: their time in the network counts as none.
    pub negative: u64,
    /// Views that waited in vain as long as they may, as all do whose other end is elsewhere.
    pub alone: u64,
    /// Views that were given up before for want of room.
    pub forgotten: u64,
    /// Views that were not looked up because another worker was at their place.
    pub busy: u64,
}

/// A view that waits; free if its key is 0.
#[derive(Clone, Copy, Debug, Default)]
struct Place {
    key: u64,
    /// When it came, ns.
    at: u64,
    view: u64,
}

/// On cache lines of its own.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Bucket(Mutex<[Place; PLACES]>);

/// One worker's hold of the table.
#[derive(Debug)]
pub struct Views {
    table: Arc<[Bucket]>,
    stats: Stats,
}

impl Default for Views {
    fn default() -> Self {
        Self::new(MAX_VIEWS)
    }
}

impl Views {
    /// A table for `most` views.
    pub fn new(most: usize) -> Self {
        let buckets = (most / PLACES).max(1);
        Self { table: (0..buckets).map(|_| Bucket::default()).collect(), stats: Stats::default() }
    }

    /// The same table for another worker, which counts for itself.
    pub fn for_worker(&self) -> Self {
        Self { table: Arc::clone(&self.table), stats: Stats::default() }
    }

    /// What was counted.
    pub const fn stats(&self) -> &Stats {
        &self.stats
    }

    /// Looks for the other view of `record`'s exchange: its time in the network, ns, if that came before; else `record` waits to
    /// be found.
    #[inline]
    pub fn meet(&mut self, record: &Record, now: KernelInstant) -> Option<u64> {
        let (key, view) = (key(record)?, view(record)?);
        let Self { table, stats } = self;
        stats.seen += 1;
        let Some(mut bucket) = usize::try_from(key % table.len() as u64)
            .ok()
            .and_then(|index| table.get(index))
            .and_then(|bucket| take(&bucket.0))
        else {
            stats.busy += 1;
            return None;
        };
        let now = now.as_nanos();
        let is_other = |place: &&mut Place| place.key == key && (place.view ^ view) & CLIENT != 0;
        if let Some(place) = bucket.iter_mut().find(is_other).filter(|place| is_fresh(place, now)) {
            let other = std::mem::take(place).view;
            let (client, server) = if view & CLIENT != 0 { (view, other) } else { (other, view) };
            let (client, server) = (client & !CLIENT, server & !CLIENT);
            stats.joined += 1;
            stats.negative += u64::from(server > client);
            return Some(client.saturating_sub(server));
        }
        // The same view again, a free place, or the oldest one.
        let rank = |place: &&mut Place| (place.key != key, place.key != 0, place.at);
        if let Some(place) = bucket.iter_mut().min_by_key(rank) {
            if place.key != 0 {
                *(if is_fresh(place, now) { &mut stats.forgotten } else { &mut stats.alone }) += 1;
            }
            *place = Place { key, at: now, view };
        }
        None
    }
}

fn is_fresh(place: &Place, now: u64) -> bool {
    u128::from(now.saturating_sub(place.at)) <= MAX_AGE.as_nanos()
}

/// The bucket, unless another worker keeps it.
#[inline]
fn take(bucket: &Mutex<[Place; PLACES]>) -> Option<MutexGuard<'_, [Place; PLACES]>> {
    for _ in 0..MAX_TRIES {
        match bucket.try_lock() {
            Ok(places) => return Some(places),
            Err(TryLockError::Poisoned(places)) => return Some(places.into_inner()),
            Err(TryLockError::WouldBlock) => std::hint::spin_loop(),
        }
    }
    None
}

/// The exchange: its connection, and where on it the request begins. Both are exact at either end whatever was lost before, and
/// differ for each request of a pipeline. Two that wait at once have one key by a chance of 1 in 2^50.
fn key(record: &Record) -> Option<u64> {
    let offset = record.offset?;
    let connection = mix(record.connection_id ^ u64::from(record.joined_late));
    Some(mix(connection.wrapping_add(offset)).max(1))
}

/// Only of what was seen to its end two durations can be compared.
fn view(record: &Record) -> Option<u64> {
    let is_whole =
        record.kind == Kind::Http && record.outcome == Some(Outcome::Complete) && record.method.is_some();
    if !is_whole || record.late || record.in_progress {
        return None;
    }
    match record.observed_at {
        ObservedAt::Client => Some(record.duration & !CLIENT | CLIENT),
        ObservedAt::Server => Some(record.duration & !CLIENT),
        ObservedAt::Path => None,
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::Barrier, thread};

    use bytes::Bytes;

    use super::*;

    fn view_of(observed_at: ObservedAt, connection: u64, offset: u64, duration: u64) -> Record {
        Record {
            outcome: Some(Outcome::Complete),
            method: Some(Bytes::from_static(b"GET")),
            observed_at,
            connection_id: connection,
            offset: Some(offset),
            duration,
            ..Record::blank()
        }
    }

    fn client(connection: u64, offset: u64, duration: u64) -> Record {
        view_of(ObservedAt::Client, connection, offset, duration)
    }

    fn server(connection: u64, offset: u64, duration: u64) -> Record {
        view_of(ObservedAt::Server, connection, offset, duration)
    }

    fn at(nanoseconds: u64) -> KernelInstant {
        KernelInstant::from_nanos(nanoseconds)
    }

    #[test]
    fn the_second_view_finds_the_first() {
        let mut views = Views::default();
        for (first, second, network, negative) in [
            (server(1, 1, 700), client(1, 1, 1000), 300, 0),
            (client(1, 90, 1000), server(1, 90, 1000), 0, 0),
            (client(2, 1, 1000), server(2, 1, 1001), 0, 1),
        ] {
            let before = views.stats;
            assert_eq!(views.meet(&first, at(5)), None);
            assert_eq!(views.meet(&second, at(6)), Some(network));
            let expected = Stats {
                seen: before.seen + 2,
                joined: before.joined + 1,
                negative: before.negative + negative,
                ..before
            };
            assert_eq!(views.stats, expected);
            assert_eq!(views.meet(&second, at(7)), None, "it is taken once");
        }
    }

    #[test]
    fn only_the_other_view_of_the_same_exchange_is_met() {
        let first = client(1, 50, 1000);
        let late = |record: Record| Record { joined_late: true, ..record };
        for (second, meets) in [
            (server(1, 50, 700), true),
            (client(1, 50, 700), false),
            (server(1, 51, 700), false),
            (server(2, 50, 700), false),
            (late(server(1, 50, 700)), false),
            (Record { outcome: Some(Outcome::Timeout), ..server(1, 50, 700) }, false),
            (Record { outcome: None, in_progress: true, ..server(1, 50, 700) }, false),
            (Record { late: true, ..server(1, 50, 700) }, false),
            (Record { method: None, ..server(1, 50, 700) }, false),
            (Record { offset: None, ..server(1, 50, 700) }, false),
            (view_of(ObservedAt::Path, 1, 50, 700), false),
        ] {
            let mut views = Views::default();
            views.meet(&first, at(5));
            assert_eq!(views.meet(&second, at(6)).is_some(), meets, "{second:?}");
        }
        let mut views = Views::default();
        views.meet(&late(client(1, 50, 1000)), at(5));
        assert_eq!(views.meet(&late(server(1, 50, 700)), at(6)), Some(300));
    }

    #[test]
    fn a_view_waits_so_long() {
        let age = MAX_AGE.as_nanos() as u64;
        for (later, joined) in [(age, 1), (age + 1, 0)] {
            let mut views = Views::default();
            views.meet(&server(1, 1, 5), at(100));
            assert_eq!(views.meet(&client(1, 1, 9), at(100 + later)).is_some(), joined == 1);
            let expected = Stats { seen: 2, joined, alone: 1 - joined, ..Stats::default() };
            assert_eq!(views.stats, expected);
        }
    }

    #[test]
    fn so_many_views_wait_and_the_oldest_makes_room() {
        // One bucket: all meet in it.
        for (count, forgotten) in [(PLACES as u64, 0), (PLACES as u64 + 1, 1)] {
            let mut views = Views::new(PLACES);
            for number in 0..count {
                assert_eq!(views.meet(&server(number, 1, 5), at(100 + number)), None);
            }
            assert_eq!(views.stats.forgotten, forgotten);
            // The newest first: one that meets nobody waits itself.
            for number in (0..count).rev() {
                let meets = number >= forgotten;
                assert_eq!(
                    views.meet(&client(number, 1, 7), at(200)).is_some(),
                    meets,
                    "{number} of {count}"
                );
            }
            assert_eq!(views.stats.joined, count - forgotten);
        }
        // What has waited in vain is no loss.
        let mut views = Views::new(PLACES);
        (0..PLACES as u64).for_each(|number| assert!(views.meet(&server(number, 1, 5), at(0)).is_none()));
        views.meet(&server(99, 1, 5), at(MAX_AGE.as_nanos() as u64 + 1));
        assert_eq!((views.stats.forgotten, views.stats.alone), (0, 1));
        assert_eq!(Views::default().table.len() * PLACES, MAX_VIEWS);
        assert_eq!(size_of::<Bucket>(), 256);
    }

    #[test]
    fn nobody_waits_for_another_worker() {
        let views = Views::new(PLACES);
        let mut other = views.for_worker();
        let held = views.table[0].0.lock().unwrap();
        assert_eq!(other.meet(&server(1, 1, 5), at(1)), None);
        assert_eq!(other.stats, Stats { seen: 1, busy: 1, ..Stats::default() });
        const { assert!(MAX_TRIES > 0) };
        drop(held);
        assert_eq!(other.meet(&server(1, 1, 5), at(1)), None);
        assert_eq!(other.meet(&client(1, 1, 8), at(1)), Some(3));
    }

    #[test]
    fn two_workers_join_every_exchange_once() {
        const ROUNDS: u64 = 50;
        const EXCHANGES: u64 = 400;
        let views = Views::default();
        let together = Barrier::new(2);
        let work = |view: fn(u64, u64, u64) -> Record, duration: u64| {
            let mut views = views.for_worker();
            for number in 0..ROUNDS * EXCHANGES {
                if number % EXCHANGES == 0 {
                    together.wait();
                }
                let network = views.meet(&view(number, 1, duration), at(number));
                assert!(network.is_none_or(|network| network == 4), "{network:?}");
            }
            views.stats
        };
        let (one, other) = thread::scope(|scope| {
            let one = scope.spawn(|| work(client, 9));
            let other = scope.spawn(|| work(server, 5));
            (one.join().unwrap(), other.join().unwrap())
        });
        let of = |figure: fn(&Stats) -> u64| figure(&one) + figure(&other);
        let (joined, lost) = (of(|stats| stats.joined), of(|stats| stats.busy + stats.forgotten));
        assert!(joined <= ROUNDS * EXCHANGES && joined + lost >= ROUNDS * EXCHANGES, "{one:?} {other:?}");
        assert!(lost < ROUNDS * EXCHANGES / 100, "{one:?} {other:?}");
    }
}
