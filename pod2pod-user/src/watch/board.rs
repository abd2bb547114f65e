//! Where the watch over IPVS and those who read packets leave each other word: polls and decisions one way, exchanges that failed
//! the other. Whoever reads asks one number first, and nothing else while there is no news.

use std::{
    collections::VecDeque,
    mem,
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use hashbrown::HashMap;

use crate::{
    enrich::reuse::Failed,
    ipvs::{End, exact::Decision, kernel::Kernel, look::Look},
};

/// Decisions that wait for who reads them, where nobody asks for fewer: a tenth of a second of a busy director. What is past it is in
/// the next poll.
pub const MAX_DECISIONS: usize = 1024;
/// What one of them takes at most, in a list that is being made twice as large. Bytes.
pub const DECISION_BYTES: usize = 3 * size_of::<Decision>();
/// Exchanges that failed and may be named by a reuse, those of one poll, where nobody asks for fewer. Bytes.
pub const MAX_FAILED_BYTES: usize = 256 * 1024;
/// What one of them takes at most beside its texts, in a table that is being made larger. Bytes.
pub const FAILED_BYTES: usize = 4 * size_of::<(Place, Kept)>();

/// How much is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Decisions that wait.
    pub decisions: usize,
    /// Exchanges that failed, of one poll; two polls' are kept. Bytes.
    pub failed_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { decisions: MAX_DECISIONS, failed_bytes: MAX_FAILED_BYTES }
    }
}

/// A client, where it spoke to, and how many other connections between these failed before.
type Place = (SocketAddr, SocketAddr, u32);

/// A failure.
#[derive(Debug)]
struct Kept {
    failed: Failed,
    /// Another connection between the same ends did not fail.
    has_other: bool,
}

/// Connections that failed, of one poll, each with its last failure.
#[derive(Debug, Default)]
struct FailedOnes {
    by_place: HashMap<Place, Kept>,
    bytes: usize,
}

impl FailedOnes {
    /// Those between two ends.
    fn between(&self, client: SocketAddr, to: SocketAddr) -> impl Iterator<Item = &Kept> {
        (0..).map_while(move |number| self.by_place.get(&(client, to, number)))
    }

    fn put(&mut self, client: SocketAddr, to: SocketAddr, failed: Failed, room: usize) {
        let known = self.between(client, to).position(|kept| kept.failed.isn() == failed.isn());
        let number = known.unwrap_or_else(|| self.between(client, to).count());
        let place = (client, to, u32::try_from(number).unwrap_or(u32::MAX));
        let bytes_of = |failed: &Failed| FAILED_BYTES + failed.text_bytes();
        let last = self.by_place.get(&place);
        let others = self.bytes - last.map_or(0, |last| bytes_of(&last.failed));
        let bytes = others.saturating_add(bytes_of(&failed));
        if bytes <= room {
            self.bytes = bytes;
            let has_other = last.is_some_and(|last| last.has_other);
            self.by_place.insert(place, Kept { failed, has_other });
        }
    }

    fn note_other(&mut self, client: SocketAddr, to: SocketAddr, isn: u32) {
        for number in 0.. {
            let Some(kept) = self.by_place.get_mut(&(client, to, number)) else { return };
            kept.has_other |= kept.failed.isn() != isn;
        }
    }
}

/// The board.
#[derive(Debug, Default)]
pub struct Board {
    limits: Limits,
    /// Changes with every piece of news.
    version: AtomicU64,
    news: Mutex<News>,
    /// Decisions that somebody had not read when they had to go.
    unread: AtomicU64,
    /// Those of this poll, and of the one before.
    failed: Mutex<[FailedOnes; 2]>,
    /// There may be some.
    has_failed: AtomicBool,
}

#[derive(Debug, Default)]
struct News {
    look: Option<Arc<Look>>,
    /// How often that changed.
    looks: u64,
    kernel: Arc<Kernel>,
    decisions: VecDeque<Decision>,
    /// Number of the first of these.
    first: u64,
}

/// How far somebody has read.
#[derive(Clone, Copy, Debug, Default)]
pub struct Mark {
    version: u64,
    looks: u64,
    decision: u64,
}

/// What somebody has not read yet.
#[derive(Debug)]
pub struct Fresh {
    /// The last poll, if it is another one; none of it if there is no table any more.
    pub look: Option<Option<Arc<Look>>>,
    /// What the kernel is set to.
    pub kernel: Arc<Kernel>,
    /// Decisions since.
    pub decisions: Vec<Decision>,
}

impl Board {
    /// Empty, with room for so much.
    pub fn with_room(limits: Limits) -> Self {
        Self { limits, ..Self::default() }
    }

    /// A poll is over; there is none while there is no table.
    pub fn put_look(&self, look: Option<Arc<Look>>) {
        let kernel = look.as_ref().map(|look| Arc::new(look.kernel.clone()));
        let mut news = self.news();
        if look.is_none() && news.look.is_none() {
            return;
        }
        let kernel = kernel.map(|kernel| mem::replace(&mut news.kernel, kernel));
        let last = mem::replace(&mut news.look, look);
        news.looks += 1;
        drop(news);
        self.version.fetch_add(1, Ordering::Release);
        // A large one is not freed while others wait for the lock.
        drop((last, kernel));
    }

    /// The kernel was seen to decide.
    pub fn put_decisions(&self, decisions: &[Decision]) {
        let mut news = self.news();
        // The last ones are the news; as many as are kept.
        let passed = decisions.len().saturating_sub(self.limits.decisions);
        let kept = decisions.get(passed..).unwrap_or_default();
        let over = (news.decisions.len() + kept.len()).saturating_sub(self.limits.decisions);
        news.decisions.drain(..over);
        news.decisions.extend(kept);
        news.first += (over + passed) as u64;
        drop(news);
        self.version.fetch_add(1, Ordering::Release);
    }

    /// What is new since `mark`, which is moved.
    #[inline]
    pub fn fresh(&self, mark: &mut Mark) -> Option<Fresh> {
        let version = self.version.load(Ordering::Acquire);
        if version == mark.version {
            return None;
        }
        mark.version = version;
        let news = self.news();
        self.unread.fetch_add(news.first.saturating_sub(mark.decision), Ordering::Relaxed);
        let skip = usize::try_from(mark.decision.saturating_sub(news.first)).unwrap_or(usize::MAX);
        let decisions = news.decisions.iter().skip(skip).copied().collect();
        mark.decision = news.first + news.decisions.len() as u64;
        let is_other = mem::replace(&mut mark.looks, news.looks) != news.looks;
        let look = is_other.then(|| news.look.clone());
        Some(Fresh { look, kernel: Arc::clone(&news.kernel), decisions })
    }

    /// Decisions that somebody had not read when they had to go, each as often as it was not read.
    pub fn unread(&self) -> u64 {
        self.unread.load(Ordering::Relaxed)
    }

    /// An exchange failed whose connection is in question, or met an old entry.
    pub fn put_failed(&self, client: SocketAddr, to: SocketAddr, failed: Failed) {
        let [now, _] = &mut *self.failures();
        now.put(client, to, failed, self.limits.failed_bytes);
        self.has_failed.store(true, Ordering::Relaxed);
    }

    /// The connection that its client began at `isn` did not fail, and is in question, or met an old entry.
    pub fn note_other(&self, client: SocketAddr, to: SocketAddr, isn: u32) {
        if self.has_failed.load(Ordering::Relaxed) {
            self.failures().iter_mut().for_each(|all| all.note_other(client, to, isn));
        }
    }

    /// The failure of the connection that a client began at `isn` to one of these ends, if it was seen.
    pub fn failed(&self, client: End, ends: &[End], isn: u32) -> Option<Failed> {
        let failed = self.failures();
        let found = all_between(&failed, client, ends).find(|kept| kept.failed.isn() == isn);
        found.map(|kept| kept.failed.clone())
    }

    /// The failure of the one connection of a client to these ends, if it was seen; none if there were several, since which of them
    /// is meant is not known.
    pub fn only_failed(&self, client: End, ends: &[End]) -> Option<Failed> {
        let failed = self.failures();
        let mut all = all_between(&failed, client, ends);
        let first = all.next().filter(|kept| !kept.has_other)?;
        let is_one = all.all(|kept| !kept.has_other && kept.failed.isn() == first.failed.isn());
        is_one.then(|| first.failed.clone())
    }

    /// The next poll begins to be waited for.
    pub fn turn(&self) {
        // Freed while nobody waits for the lock.
        drop(self.take_oldest());
    }

    fn take_oldest(&self) -> FailedOnes {
        let mut failed = self.failures();
        failed.rotate_right(1);
        let [now, before] = &mut *failed;
        let oldest = mem::take(now);
        self.has_failed.store(!before.by_place.is_empty(), Ordering::Relaxed);
        oldest
    }

    fn failures(&self) -> MutexGuard<'_, [FailedOnes; 2]> {
        self.failed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn news(&self) -> MutexGuard<'_, News> {
        self.news.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The failures between a client and these ends.
fn all_between<'a>(
    failed: &'a [FailedOnes; 2],
    client: End,
    ends: &'a [End],
) -> impl Iterator<Item = &'a Kept> {
    let keys = ends.iter().map(move |end| (SocketAddr::from(client), SocketAddr::from(*end)));
    keys.flat_map(move |(client, to)| failed.iter().flat_map(move |all| all.between(client, to)))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{
        ipvs::{Tuple, exact::Outcome, parse::Protocol},
        record::Record,
    };

    fn decision(isn: u32) -> Decision {
        let end = ([10, 0, 0, 1].into(), 1);
        let tuple = Tuple { protocol: Protocol::TCP, client: end, service: end };
        let (at, outcome) = (Duration::ZERO, Outcome::New);
        Decision { at, tuple, outcome, is_repeated: None, met: None, made: None, after: None, isn }
    }

    #[test]
    fn each_reads_all_news_once_and_as_many_as_are_kept() {
        let board = Board::default();
        let (mut one, mut other) = (Mark::default(), Mark::default());
        assert!(board.fresh(&mut one).is_none());
        board.put_decisions(&[decision(1), decision(2)]);
        let isns = |fresh: Fresh| fresh.decisions.iter().map(|decision| decision.isn).collect::<Vec<_>>();
        assert_eq!(board.fresh(&mut one).map(isns), Some(vec![1, 2]));
        assert!(board.fresh(&mut one).is_none());
        board.put_decisions(&(3..=MAX_DECISIONS as u32 + 3).map(decision).collect::<Vec<_>>());
        assert_eq!(board.fresh(&mut one).map(isns), Some((4..=MAX_DECISIONS as u32 + 3).collect()));
        assert_eq!(board.unread(), 1, "that of the third");
        board.put_look(Some(Arc::default()));
        assert_eq!(board.fresh(&mut other).map(isns).map(|isns| isns.len()), Some(MAX_DECISIONS));
        let fresh = board.fresh(&mut one).unwrap();
        assert!(fresh.look.is_some_and(|look| look.is_some()) && fresh.decisions.is_empty());
        board.put_decisions(&[decision(1)]);
        let fresh = board.fresh(&mut one).unwrap();
        assert!(fresh.look.is_none() && fresh.decisions.len() == 1, "the poll was read before");
        board.put_look(None);
        assert!(matches!(board.fresh(&mut one).unwrap().look, Some(None)), "there is none any more");
    }

    #[test]
    fn a_failure_takes_the_room_of_its_texts_too() {
        let board = Board::with_room(Limits { failed_bytes: FAILED_BYTES + 9, ..Limits::default() });
        let address = SocketAddr::from(([10, 0, 0, 1], 80));
        let failed =
            |path: &'static [u8]| Failed::of(&Record { path: Some(path.into()), ..Record::blank() }, 1);
        let end = (address.ip(), address.port());
        board.put_failed(address, address, failed(b"/123456789"));
        assert!(board.failed(end, &[end], 1).is_none(), "a byte too many");
        board.put_failed(address, address, failed(b"/12345678"));
        assert!(board.failed(end, &[end], 1).is_some());
    }

    #[test]
    fn a_failure_is_that_of_its_own_connection() {
        const A: u32 = 1000;
        const B: u32 = 2000;
        let client = ([10, 244, 1, 2].into(), 40_001);
        let ends: [End; 2] = [([10, 96, 0, 10].into(), 80), ([10, 244, 2, 3].into(), 8080)];
        let failed = |isn, id| Failed::of(&Record { connection_id: id, ..Record::blank() }, isn);
        // What failed or did not, with where it was seen; of A, of B and of a poll is named.
        type Seen = (u32, Option<u64>, usize);
        let cases: [(&[Seen], [Option<u64>; 3]); 7] = [
            (&[(A, Some(1), 0)], [Some(1), None, Some(1)]),
            (&[(A, Some(1), 0), (B, None, 0)], [Some(1), None, None]),
            (&[(A, Some(1), 0), (B, Some(2), 0)], [Some(1), Some(2), None]),
            (&[(A, Some(1), 0), (B, Some(2), 1)], [Some(1), Some(2), None]),
            (&[(A, Some(1), 0), (A, Some(1), 1)], [Some(1), None, Some(1)]),
            (&[(A, Some(1), 0), (A, Some(3), 0), (A, None, 0)], [Some(3), None, Some(3)]),
            (&[(A, Some(1), 0), (B, None, 0), (A, Some(3), 0)], [Some(3), None, None]),
        ];
        // Also when a poll comes between the two.
        for (seen, expected) in cases {
            for turns_after in 0..=seen.len() {
                let board = Board::default();
                for (at, (isn, id, end)) in seen.iter().enumerate() {
                    if at == turns_after {
                        board.turn();
                    }
                    let to = ends[*end].into();
                    match id {
                        Some(id) => board.put_failed(client.into(), to, failed(*isn, *id)),
                        None => board.note_other(client.into(), to, *isn),
                    }
                }
                let [a, b] = [A, B].map(|isn| board.failed(client, &ends, isn));
                let named = [a, b, board.only_failed(client, &ends)].map(|failed| {
                    let mut record = Record::blank();
                    failed.map(|failed| failed.put(&mut record)).map(|()| record.connection_id)
                });
                assert_eq!(named, expected, "{seen:?}, a poll after {turns_after}");
            }
        }
    }

    #[test]
    fn nothing_is_freed_under_the_locks() {
        let board = Board::default();
        let address = SocketAddr::from(([10, 0, 0, 1], 80));
        board.put_failed(address, address, Failed::of(&Record::blank(), 1));
        assert!(board.take_oldest().by_place.is_empty());
        let oldest = board.take_oldest();
        assert!(board.failed.try_lock().is_ok(), "free while there is still something to drop");
        assert_eq!(oldest.by_place.len(), 1);
        assert!(!board.has_failed.load(Ordering::Relaxed));
    }

    #[test]
    fn failures_are_kept_for_two_polls_up_to_a_limit() {
        let board = Board::default();
        let failed = || Failed::of(&Record::blank(), 1);
        let address = |port: u16| SocketAddr::from(([10, 0, 0, 1], port));
        let count = || board.failed.lock().unwrap().iter().map(|all| all.by_place.len()).collect::<Vec<_>>();
        let room = MAX_FAILED_BYTES / FAILED_BYTES;
        for port in 0..=room as u16 {
            board.put_failed(address(port), address(80), failed());
        }
        assert_eq!(count(), [room, 0]);
        board.turn();
        board.put_failed(address(1), address(80), failed());
        assert_eq!(count(), [1, room]);
        board.turn();
        assert_eq!(count(), [0, 1]);
        board.turn();
        assert_eq!(count(), [0, 0]);
    }
}
