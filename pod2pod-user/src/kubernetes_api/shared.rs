//! The cluster as those who ask and those who are told share it, with what was counted of lists and watches.

use std::{
    sync::{
        Arc, PoisonError, RwLock, RwLockReadGuard,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use super::trouble::Cause;
use crate::kubernetes::{
    addresses::{News, View},
    cluster::{Cluster, Stats},
    objects::{Event, Kind},
};

/// There is contact.
const NOW: u64 = u64::MAX;

/// What was counted of one kind.
#[derive(Debug, Default)]
struct Counts {
    lists: AtomicU64,
    watches: AtomicU64,
    unreadable: AtomicU64,
    failures: [AtomicU64; Cause::ALL.len()],
    /// When contact was lost, in nanoseconds; [`NOW`] while there is.
    lost: AtomicU64,
    /// The first list is complete, or failed.
    is_first_done: AtomicBool,
}

#[derive(Debug)]
struct Inner {
    cluster: RwLock<Cluster>,
    counts: [Counts; Kind::ALL.len()],
    /// Of what may change answers: how much came.
    version: AtomicU64,
    /// Somebody is asked.
    has_server: bool,
    clock: fn() -> Duration,
}

/// Everybody's handle.
#[derive(Clone, Debug)]
pub struct Shared(Arc<Inner>);

/// How the first lists stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FirstLists {
    /// Not all are here, and none of those has failed.
    Awaited,
    /// All are here.
    Complete,
    /// All are here but those that failed; they are asked for again.
    Failed,
}

/// What is told of a kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Told {
    /// Objects that are known.
    pub objects: u64,
    /// Lists begun.
    pub lists: u64,
    /// Watches begun.
    pub watches: u64,
    /// Objects that could not be read.
    pub unreadable: u64,
    /// Failures, in the order of [`Cause::ALL`].
    pub failures: [u64; Cause::ALL.len()],
    /// How long there has been no contact; zero while there is.
    pub silence: Duration,
}

impl Shared {
    pub(crate) fn new(cluster: Cluster, clock: fn() -> Duration) -> Self {
        Self::made(cluster, clock, true)
    }

    /// A cluster of which nobody tells.
    pub(super) fn without_server(cluster: Cluster, clock: fn() -> Duration) -> Self {
        Self::made(cluster, clock, false)
    }

    fn made(mut cluster: Cluster, clock: fn() -> Duration, has_server: bool) -> Self {
        // As if contact had just been lost: the first lists are waited for as long as news are.
        let begin = clock();
        Kind::ALL.iter().for_each(|kind| cluster.set_lost(*kind, Some(begin)));
        let counts: [Counts; Kind::ALL.len()] = Default::default();
        counts.iter().for_each(|counts| counts.lost.store(nanoseconds(begin), Relaxed));
        let (cluster, version) = (RwLock::new(cluster), AtomicU64::new(0));
        Self(Arc::new(Inner { cluster, counts, version, has_server, clock }))
    }

    /// Whether an API server is asked.
    pub fn has_server(&self) -> bool {
        self.0.has_server
    }

    /// The cluster, to ask many questions: news wait meanwhile.
    pub fn read(&self) -> RwLockReadGuard<'_, Cluster> {
        self.0.cluster.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// What to ask with: whether there is contact the cluster itself knows, a kind.
    pub fn view(&self) -> View {
        let now = self.now();
        View { now, contact: now }
    }

    /// Another number after anything came that may change answers.
    pub fn version(&self) -> u64 {
        self.0.version.load(Relaxed)
    }

    /// Whether each kind's first list is complete, or has failed once.
    pub fn is_ready(&self) -> bool {
        self.0.counts.iter().all(|counts| counts.is_first_done.load(Relaxed))
    }

    /// How each kind's first list stands.
    pub fn first_lists(&self) -> FirstLists {
        let cluster = self.read();
        if Kind::ALL.into_iter().all(|kind| cluster.is_listed(kind)) {
            FirstLists::Complete
        } else if self.is_ready() {
            FirstLists::Failed
        } else {
            FirstLists::Awaited
        }
    }

    /// What is told of each kind, in the order of [`Kind::ALL`], and what the cluster counted.
    pub fn told(&self) -> ([Told; Kind::ALL.len()], Stats) {
        let (now, stats) = (self.now(), self.read().stats());
        let told = Kind::ALL.map(|kind| {
            let counts = self.counts(kind);
            let lost = counts.lost.load(Relaxed);
            Told {
                objects: stats.objects[kind as usize],
                lists: counts.lists.load(Relaxed),
                watches: counts.watches.load(Relaxed),
                unreadable: counts.unreadable.load(Relaxed),
                failures: std::array::from_fn(|cause| counts.failures[cause].load(Relaxed)),
                silence: if lost == NOW {
                    Duration::ZERO
                } else {
                    now.saturating_sub(Duration::from_nanos(lost))
                },
            }
        });
        (told, stats)
    }

    pub(super) fn now(&self) -> Duration {
        (self.0.clock)()
    }

    fn counts(&self, kind: Kind) -> &Counts {
        &self.0.counts[kind as usize]
    }

    pub(crate) fn apply(&self, event: Event, news: News) {
        self.0.cluster.write().unwrap_or_else(PoisonError::into_inner).apply(event, news);
        self.0.version.fetch_add(1, Relaxed);
    }

    pub(super) fn forget(&self) {
        let now = self.now();
        self.0.cluster.write().unwrap_or_else(PoisonError::into_inner).forget(now);
    }

    /// Contact was lost at that moment, or is there.
    pub(super) fn set_lost(&self, kind: Kind, lost: Option<Duration>) {
        self.counts(kind).lost.store(lost.map_or(NOW, nanoseconds), Relaxed);
        self.0.cluster.write().unwrap_or_else(PoisonError::into_inner).set_lost(kind, lost);
        self.0.version.fetch_add(1, Relaxed);
    }

    pub(super) fn first_done(&self, kind: Kind) {
        self.counts(kind).is_first_done.store(true, Relaxed);
    }

    pub(super) fn count_list(&self, kind: Kind) {
        self.counts(kind).lists.fetch_add(1, Relaxed);
    }

    pub(super) fn count_watch(&self, kind: Kind) {
        self.counts(kind).watches.fetch_add(1, Relaxed);
    }

    pub(super) fn count_unreadable(&self, kind: Kind) {
        self.counts(kind).unreadable.fetch_add(1, Relaxed);
    }

    pub(super) fn count_failure(&self, kind: Kind, cause: Cause) {
        self.counts(kind).failures[cause as usize].fetch_add(1, Relaxed);
    }
}

fn nanoseconds(instant: Duration) -> u64 {
    u64::try_from(instant.as_nanos()).unwrap_or(NOW - 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kubernetes::{
        addresses::{Found, MAX_LATENESS},
        objects::{Change, Owned},
    };

    #[test]
    fn before_the_first_list_nobody_is_waited_for_longer_than_after_contact_was_lost() {
        static NOW: AtomicU64 = AtomicU64::new(1000);
        let second = |seconds| Duration::from_secs(seconds);
        let clock = || Duration::from_secs(NOW.load(Relaxed));
        let shared = Shared::new(Cluster::new(Default::default()), clock);
        let find = |now: u64| {
            NOW.store(now, Relaxed);
            let view = shared.view();
            shared.read().remote("10.1.0.1:80".parse().unwrap(), view.now, view)
        };
        assert_eq!(find(1003), Found::Early(second(1000) + MAX_LATENESS, None));
        assert_eq!(find(1005), Found::Nobody);
        assert_eq!(shared.told().0[0].silence, second(5));
    }

    #[test]
    fn it_is_ready_when_each_kind_was_tried_and_contact_is_told() {
        let shared = Shared::new(Cluster::new(Default::default()), || Duration::from_secs(100));
        for kind in Kind::ALL {
            assert_eq!((shared.is_ready(), shared.first_lists()), (false, FirstLists::Awaited));
            shared.first_done(kind);
        }
        assert_eq!((shared.is_ready(), shared.first_lists()), (true, FirstLists::Failed));
        let done: [fn(Change<Owned>) -> Event; 2] = [Event::ReplicaSet, Event::Job];
        let done = done.map(|event| event(Change::Done));
        let done = done.into_iter().chain([
            Event::Pod(Change::Done),
            Event::Service(Change::Done),
            Event::Slice(Change::Done),
            Event::Node(Change::Done),
        ]);
        done.for_each(|event| shared.apply(event, News::live(Duration::from_secs(100))));
        assert_eq!(shared.first_lists(), FirstLists::Complete);
        shared.set_lost(Kind::Nodes, None);
        shared.set_lost(Kind::Jobs, Some(Duration::from_secs(70)));
        shared.count_failure(Kind::Jobs, Cause::Forbidden);
        let (told, _) = shared.told();
        assert_eq!(told[Kind::Nodes as usize].silence, Duration::ZERO);
        assert_eq!(told[Kind::Jobs as usize].silence, Duration::from_secs(30));
        assert_eq!(told[Kind::Jobs as usize].failures.iter().sum::<u64>(), 1);
    }
}
