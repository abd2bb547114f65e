//! Where connections to a Service's address were led: the server's own end, if it was seen on this node; what conntrack says; what a
//! poll of IPVS says. In this order, which is that of their cost.
//!
//! Answers are remembered by connection, so that only its first exchange costs a question. Nobody waits: what is not known leaves the
//! record as it is. Who has the server's address is not known here.

mod asker;
mod conntrack;
mod servers;

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use hashbrown::HashMap;

use self::servers::{Busy, Servers, Source};
pub use self::{
    asker::{Conntrack, has_conntrack},
    servers::{MAX_SERVERS, MAX_TRIES},
};

/// Connections whose answer all workers remember, in each of two halves: when one is full the other is forgotten. As many as a node has
/// that go to Services, and 48 bytes each. Past it some are asked for anew.
pub const MAX_REMEMBERED: usize = 1792;
/// Questions to conntrack a second at most, of all workers. One takes some microseconds, so that this is a hundredth of a processor.
pub const MAX_QUESTIONS: u32 = 1000;
/// Connections that one poll of IPVS is asked about at most: where conntrack knows of IPVS' connections none is.
pub const MAX_LOOKED_UP: usize = 200;
/// Where there is no conntrack, it is looked for again after so long: kube-proxy may start later.
pub const RETRY_PERIOD: Duration = Duration::from_secs(60);

/// What all of it takes at most, of all workers. Bytes.
pub const BEHIND_BYTES: u64 = 256 << 10;

/// Who knows how connections are translated.
pub trait Translations {
    /// Where the TCP connection that `client` opened to `service` was led; absent if it was not led elsewhere, as far as is known.
    ///
    /// # Errors
    /// Nobody may be asked, or is there to be.
    fn ask(&mut self, client: SocketAddr, service: SocketAddr) -> io::Result<Option<SocketAddr>>;
}

/// A connection to a Service's address.
#[derive(Clone, Copy, Debug)]
pub struct Called {
    /// The same at both ends, and of no other connection.
    pub key: u64,
    /// Who opened it.
    pub client: SocketAddr,
    /// To where.
    pub service: SocketAddr,
    /// An exchange of it ended just now: nobody else has its addresses and ports yet.
    pub is_fresh: bool,
}

/// What was counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Connections to Services whose server's own end was seen on this node.
    pub found_by_connection: u64,
    /// Those that conntrack knew.
    pub found_by_conntrack: u64,
    /// Those that a poll of IPVS knew.
    pub found_by_ipvs: u64,
    /// Times that it was not known for a record.
    pub unknown: u64,
    /// Questions to conntrack.
    pub questions: u64,
    /// Of these, to which it knew no other server.
    pub untranslated: u64,
    /// Questions that were left out because there were too many in their second.
    pub over_rate: u64,
    /// Questions that were left out because conntrack is not there or may not be asked.
    pub unasked: u64,
    /// Connections that polls of IPVS were not asked about because there were too many.
    pub lookups_refused: u64,
    /// Answers that were forgotten because there were too many.
    pub forgotten: u64,
    /// Times that another worker was at the place.
    pub busy: u64,
}

/// Between whom connections are that the next poll of IPVS is asked about, and their keys.
type Looked = HashMap<(End, End), u64>;
/// An address and a port, smaller than the standard library has them.
type End = (IpAddr, u16);

/// What all workers and the watch over IPVS share.
#[derive(Debug)]
pub struct Shared {
    servers: Servers,
    /// Where IPVS is watched.
    looked_up: Option<Mutex<Looked>>,
    /// It was said that conntrack is not there, and that it may not be asked.
    said: [AtomicBool; 2],
}

impl Shared {
    /// Nothing is known yet. Polls of IPVS are asked if there are any.
    pub fn new(is_ipvs_watched: bool) -> Self {
        Self {
            servers: Servers::new(MAX_SERVERS),
            looked_up: is_ipvs_watched.then(Mutex::default),
            said: Default::default(),
        }
    }

    /// What is asked of a poll that begins now.
    pub fn begin_poll(&self) -> Lookups<'_> {
        let looked_up = self.looked_up.as_ref();
        let looked_up =
            looked_up.map(|all| std::mem::take(&mut *all.lock().unwrap_or_else(PoisonError::into_inner)));
        Lookups { shared: self, looked_up: looked_up.unwrap_or_default() }
    }

    /// Whether a poll will be asked.
    fn look_up(&self, called: &Called) -> bool {
        let Some(looked_up) = &self.looked_up else { return true };
        let Ok(mut looked_up) = looked_up.try_lock() else { return false };
        let ends = (end_of(called.client), end_of(called.service));
        let has_room = looked_up.len() < MAX_LOOKED_UP || looked_up.contains_key(&ends);
        if has_room {
            looked_up.insert(ends, called.key);
        }
        has_room
    }
}

/// What one poll of IPVS is asked.
#[derive(Debug)]
pub struct Lookups<'a> {
    shared: &'a Shared,
    looked_up: Looked,
}

impl Lookups<'_> {
    /// An entry of the table: its client, the virtual address, the real server.
    #[inline]
    pub fn row(&self, client: End, service: End, server: End) {
        if !self.looked_up.is_empty()
            && let Some(key) = self.looked_up.get(&(client, service))
        {
            // Whoever is at the place just now has newer ones to put there.
            let _ = self.shared.servers.put(*key, server.into(), Source::Ipvs);
        }
    }
}

/// What is known of a connection.
#[derive(Clone, Copy, Debug)]
enum Answer {
    At(End),
    /// Conntrack knows no other server.
    Untranslated,
}

/// Answers, those of the last while.
#[derive(Debug)]
struct Remembered {
    most: usize,
    now: HashMap<u64, Answer, foldhash::fast::RandomState>,
    before: HashMap<u64, Answer, foldhash::fast::RandomState>,
}

impl Remembered {
    fn get(&mut self, key: u64) -> Option<Answer> {
        if let Some(answer) = self.now.get(&key) {
            return Some(*answer);
        }
        let answer = self.before.remove(&key)?;
        self.put(key, answer);
        Some(answer)
    }

    /// How many were forgotten for it.
    fn put(&mut self, key: u64, answer: Answer) -> usize {
        let is_full = self.now.len() >= self.most && !self.now.contains_key(&key);
        let forgotten = if is_full { self.before.len() } else { 0 };
        if is_full {
            std::mem::swap(&mut self.now, &mut self.before);
            self.now.clear();
        }
        self.now.insert(key, answer);
        forgotten
    }
}

/// Whether conntrack is asked.
#[derive(Clone, Copy, Debug)]
enum Asking {
    Yes,
    /// It is not there; to be tried again then.
    Absent(Duration),
    /// This thread may not ask.
    Refused,
}

/// One worker's way to all who may know.
pub struct Behind {
    shared: Arc<Shared>,
    translations: Box<dyn Translations + Send>,
    asking: Asking,
    /// Questions in the second that is going on, and which that is.
    asked: (u64, u32),
    most_questions: u32,
    remembered: Remembered,
    stats: Stats,
}

impl Behind {
    /// One of `workers`, who asks `translations`.
    pub fn new(shared: Arc<Shared>, workers: usize, translations: Box<dyn Translations + Send>) -> Self {
        let workers = workers.max(1);
        let most = (MAX_REMEMBERED / workers).max(1);
        let most_questions = (MAX_QUESTIONS / u32::try_from(workers).unwrap_or(u32::MAX)).max(1);
        let remembered = Remembered { most, now: HashMap::default(), before: HashMap::default() };
        let (asking, asked, stats) = (Asking::Yes, (0, 0), Stats::default());
        Self { shared, translations, asking, asked, most_questions, remembered, stats }
    }

    /// The connection's own server was seen.
    #[inline]
    pub fn note(&mut self, key: u64, server: SocketAddr) {
        self.stats.busy += u64::from(self.shared.servers.put(key, server, Source::Connection) == Err(Busy));
    }

    /// Where a connection was led, if anybody knows it `now`.
    pub fn find(&mut self, called: &Called, now: Duration) -> Option<SocketAddr> {
        let known = self.remembered.get(called.key);
        if let Some(Answer::At(server)) = known {
            return Some(server.into());
        }
        let found = self.seen(called.key).or_else(|| {
            if known.is_some() || !called.is_fresh {
                return None;
            }
            let answer = self.translated(called, now);
            if answer.flatten().is_none() {
                self.stats.lookups_refused += u64::from(!self.shared.look_up(called));
            }
            if answer == Some(None) {
                self.remember(called.key, Answer::Untranslated);
            }
            answer.flatten()
        });
        match found {
            Some(server) => self.remember(called.key, Answer::At(end_of(server))),
            None => self.stats.unknown += 1,
        }
        found
    }

    /// What was counted.
    pub const fn stats(&self) -> &Stats {
        &self.stats
    }

    /// By the server's end, or a poll.
    fn seen(&mut self, key: u64) -> Option<SocketAddr> {
        let Ok(known) = self.shared.servers.get(key) else {
            self.stats.busy += 1;
            return None;
        };
        let (server, source) = known?;
        *match source {
            Source::Connection => &mut self.stats.found_by_connection,
            Source::Ipvs => &mut self.stats.found_by_ipvs,
        } += 1;
        Some(server)
    }

    /// By conntrack; absent if it was not asked.
    fn translated(&mut self, called: &Called, now: Duration) -> Option<Option<SocketAddr>> {
        match self.asking {
            Asking::Absent(until) if until <= now => self.asking = Asking::Yes,
            Asking::Refused | Asking::Absent(_) => {
                self.stats.unasked += 1;
                return None;
            }
            Asking::Yes => {}
        }
        let (second, count) = &mut self.asked;
        if *second != now.as_secs() {
            (*second, *count) = (now.as_secs(), 0);
        }
        if *count >= self.most_questions {
            self.stats.over_rate += 1;
            return None;
        }
        *count += 1;
        match self.translations.ask(called.client, called.service) {
            Ok(found) => {
                self.stats.questions += 1;
                self.stats.found_by_conntrack += u64::from(found.is_some());
                self.stats.untranslated += u64::from(found.is_none());
                Some(found)
            }
            Err(error) => {
                self.stats.unasked += 1;
                self.refuse(&error, now);
                None
            }
        }
    }

    fn refuse(&mut self, error: &io::Error, now: Duration) {
        let [absent, refused] = &self.shared.said;
        let lost = "which pod is behind a Service's address is told only where the pod's own end is seen too";
        if error.kind() == io::ErrorKind::PermissionDenied {
            self.asking = Asking::Refused;
            if !refused.swap(true, Relaxed) {
                let remedy = "CAP_NET_ADMIN";
                tracing::warn!(%error, lost, remedy, "conntrack may not be asked");
            }
            return;
        }
        self.asking = Asking::Absent(now + RETRY_PERIOD);
        if !absent.swap(true, Relaxed) {
            tracing::info!(%error, lost, "conntrack is not asked until it is there");
        }
    }

    fn remember(&mut self, key: u64, answer: Answer) {
        self.stats.forgotten += self.remembered.put(key, answer) as u64;
    }
}

const fn end_of(end: SocketAddr) -> End {
    (end.ip(), end.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::from_secs(100);

    fn end(last: u8, port: u16) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, last], port))
    }

    fn called(key: u64) -> Called {
        Called { key, client: end(1, key as u16), service: end(96, 80), is_fresh: true }
    }

    /// Leads clients with an even port to a server of that port, all others nowhere; or fails.
    #[derive(Default)]
    struct Fake {
        fails: Fails,
        asked: Arc<Mutex<u64>>,
    }

    impl Translations for Fake {
        fn ask(&mut self, client: SocketAddr, _: SocketAddr) -> io::Result<Option<SocketAddr>> {
            *self.asked.lock().unwrap() += 1;
            match *self.fails.lock().unwrap() {
                Some(kind) => Err(kind.into()),
                None => Ok(client.port().is_multiple_of(2).then(|| end(3, client.port()))),
            }
        }
    }

    type Fails = Arc<Mutex<Option<io::ErrorKind>>>;

    fn behind(is_ipvs_watched: bool) -> (Behind, Fails, Arc<Mutex<u64>>) {
        let fake = Fake::default();
        let (fails, asked) = (Arc::clone(&fake.fails), Arc::clone(&fake.asked));
        (Behind::new(Arc::new(Shared::new(is_ipvs_watched)), 1, Box::new(fake)), fails, asked)
    }

    #[test]
    fn the_servers_own_end_is_asked_first_and_conntrack_once_a_connection() {
        let (mut behind, _, asked) = behind(false);
        behind.note(2, end(7, 8080));
        for _ in 0..3 {
            assert_eq!(behind.find(&called(2), NOW), Some(end(7, 8080)));
            assert_eq!(behind.find(&called(4), NOW), Some(end(3, 4)));
            assert_eq!(behind.find(&called(5), NOW), None);
        }
        assert_eq!(*asked.lock().unwrap(), 2);
        let expected = Stats {
            found_by_connection: 1,
            found_by_conntrack: 1,
            unknown: 3,
            questions: 2,
            untranslated: 1,
            ..Stats::default()
        };
        assert_eq!(behind.stats, expected);
        // The server's end comes after the client's.
        behind.note(5, end(8, 8080));
        assert_eq!(behind.find(&called(5), NOW), Some(end(8, 8080)));
        assert_eq!(behind.stats.found_by_connection, 2);
    }

    #[test]
    fn another_workers_server_is_found_and_what_ended_long_ago_is_not_asked_for() {
        let (mut behind, _, asked) = behind(false);
        let mut other = Behind::new(Arc::clone(&behind.shared), 2, Box::<Fake>::default());
        other.note(2, end(7, 8080));
        let old = |key| Called { is_fresh: false, ..called(key) };
        assert_eq!((behind.find(&old(2), NOW), behind.find(&old(4), NOW)), (Some(end(7, 8080)), None));
        assert_eq!(*asked.lock().unwrap(), 0, "others may have its ports by now");
    }

    #[test]
    fn so_many_questions_are_asked_in_a_second() {
        let (mut behind, _, _) = behind(false);
        let most = u64::from(MAX_QUESTIONS);
        assert!((1..=most).all(|key| behind.find(&called(2 * key), NOW).is_some()));
        assert_eq!(behind.stats.over_rate, 0);
        let next = called(2 * most + 2);
        assert_eq!((behind.find(&next, NOW), behind.stats.over_rate), (None, 1));
        assert!(behind.find(&next, NOW + Duration::from_secs(1)).is_some(), "it is not remembered as none");
        // Of all workers.
        let half = Behind::new(Arc::clone(&behind.shared), 2, Box::<Fake>::default());
        assert_eq!(half.most_questions * 2, MAX_QUESTIONS);
        assert_eq!(half.remembered.most * 2, MAX_REMEMBERED);
    }

    #[test]
    fn so_many_answers_are_remembered_and_those_in_use_the_longest() {
        let (mut behind, _, asked) = behind(false);
        let mut find = |key: u64, second: u64| {
            assert!(behind.find(&called(2 * key), Duration::from_secs(second)).is_some());
            (std::mem::take(&mut *asked.lock().unwrap()), behind.stats.forgotten)
        };
        let most = MAX_REMEMBERED as u64;
        assert!((1..=most).all(|key| find(key, key) == (1, 0)));
        assert_eq!(find(1, 0), (0, 0), "at the limit");
        assert!((most + 1..2 * most).all(|key| find(key, key) == (1, 0)));
        // The first is used, and stays when others go.
        assert_eq!(find(1, 0), (0, 0));
        assert_eq!(find(2 * most, 2 * most), (1, most - 1), "one past it");
        assert_eq!((find(1, 0).0, find(2, 0).0), (0, 1));
    }

    #[test]
    fn without_the_right_nobody_asks_again_and_without_conntrack_somebody_does() {
        for (kind, again) in [(io::ErrorKind::PermissionDenied, 0), (io::ErrorKind::NotFound, 1)] {
            let (mut behind, fails, asked) = behind(false);
            *fails.lock().unwrap() = Some(kind);
            assert_eq!((behind.find(&called(2), NOW), behind.find(&called(2), NOW)), (None, None));
            assert_eq!((*asked.lock().unwrap(), behind.stats.unasked), (1, 2));
            *fails.lock().unwrap() = None;
            let nearly = NOW + RETRY_PERIOD - Duration::from_nanos(1);
            assert_eq!(behind.find(&called(2), nearly), None);
            assert_eq!(behind.find(&called(2), NOW + RETRY_PERIOD).is_some(), again == 1, "{kind:?}");
            assert_eq!(*asked.lock().unwrap(), 1 + again);
        }
    }

    #[test]
    fn a_poll_answers_what_it_was_asked_before_it_began() {
        let (mut behind, _, _) = behind(true);
        let shared = Arc::clone(&behind.shared);
        assert_eq!(behind.find(&called(3), NOW), None);
        let poll = shared.begin_poll();
        assert_eq!(behind.find(&called(5), NOW), None);
        for key in [1, 3, 5] {
            poll.row(end_of(end(1, key)), end_of(end(96, 80)), end_of(end(9, key)));
        }
        poll.row(end_of(end(1, 3)), end_of(end(97, 80)), end_of(end(10, 80)));
        assert_eq!(behind.find(&called(3), NOW), Some(end(9, 3)));
        assert_eq!((behind.find(&called(5), NOW), behind.stats.found_by_ipvs), (None, 1));
    }

    #[test]
    fn a_poll_is_asked_about_so_many_connections() {
        let (mut behind, _, _) = behind(true);
        let odd = |number: usize| called(2 * number as u64 + 1);
        assert!((0..MAX_LOOKED_UP).all(|number| behind.find(&odd(number), NOW).is_none()));
        assert_eq!(behind.stats.lookups_refused, 0);
        behind.find(&odd(MAX_LOOKED_UP), NOW);
        assert_eq!(behind.stats.lookups_refused, 1);
        assert_eq!(behind.shared.begin_poll().looked_up.len(), MAX_LOOKED_UP);
    }

    #[test]
    fn all_of_it_fits_its_bytes() {
        // A table has up to 16 places for 7 entries, with a byte beside each.
        let table = |entries: usize, entry: usize| (entries * 8 / 7).next_power_of_two() * (entry + 1);
        let remembered = 2 * table(MAX_REMEMBERED, size_of::<(u64, Answer)>());
        let looked_up = 2 * table(MAX_LOOKED_UP, size_of::<((End, End), u64)>());
        let all = remembered + looked_up + MAX_SERVERS * 40;
        assert!(all as u64 <= BEHIND_BYTES, "{all}");
    }
}
