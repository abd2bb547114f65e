//! The further sinks, which may be others while the agent runs: workers follow a change at their next turn, and what a sink that is taken
//! away still has goes out, or its time is over.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use super::Remote;
use crate::{delivery::SinkStats, route::Route};

/// What a sink that was taken away still has is sent within this time, or lost and counted.
pub const MAX_LEAVE: Duration = Duration::from_secs(30);

/// The sinks of now, and those that leave.
#[derive(Debug, Default)]
pub struct SinkSet {
    /// Changes with every change.
    version: AtomicU64,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Nobody writes to these: each worker has its own of them.
    remotes: Vec<Remote>,
    leaving: Vec<Leaving>,
}

#[derive(Debug)]
struct Leaving {
    remote: Remote,
    /// All workers have left it.
    is_ended: bool,
    deadline: Instant,
}

impl SinkSet {
    /// These.
    pub(super) fn new(remotes: Vec<Remote>) -> Self {
        Self { version: AtomicU64::new(0), state: Mutex::new(State { remotes, leaving: Vec::new() }) }
    }

    /// Which change was the last.
    pub(super) fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    /// One worker's of the sinks of now: those of `known` that stay, and new ones, which count what was `written` before as not theirs.
    pub(super) fn follow(&self, known: Vec<Remote>, (written, reuses): (u64, u64)) -> (u64, Vec<Remote>) {
        let state = self.lock();
        let mut known: Vec<_> = known.into_iter().map(Some).collect();
        let remotes = state.remotes.iter().map(|remote| {
            let same =
                known.iter_mut().find(|known| known.as_ref().is_some_and(|known| known.is_same(remote)));
            let mut own = same.and_then(Option::take).unwrap_or_else(|| {
                let mut own = remote.for_worker();
                own.count_before(written, reuses);
                own
            });
            own.set_route(Arc::clone(remote.route()));
            own
        });
        let remotes = remotes.collect();
        // What is in the batches of the others is theirs.
        known.into_iter().flatten().for_each(|mut left| left.flush());
        (self.version(), remotes)
    }

    /// The sinks are those that have a route by their name, which is theirs from now on, and `new` ones.
    pub fn change(&self, route: impl Fn(&str) -> Option<Route>, new: Vec<Remote>, now: Instant) {
        let mut state = self.lock();
        let (mut remotes, mut leaving) = (Vec::new(), Vec::new());
        for mut remote in std::mem::take(&mut state.remotes) {
            match route(remote.name()) {
                Some(route) => {
                    remote.set_route(Arc::new(route));
                    remotes.push(remote);
                }
                None => leaving.push(remote),
            }
        }
        remotes.extend(new);
        state.remotes = remotes;
        let deadline = now + MAX_LEAVE;
        state.leaving.extend(leaving.into_iter().map(|remote| Leaving { remote, is_ended: false, deadline }));
        self.version.fetch_add(1, Ordering::Release);
    }

    /// Looks after those that leave; each that has left, and what it counted.
    pub fn keep(&self, now: Instant) -> Vec<(Arc<str>, SinkStats)> {
        let mut state = self.lock();
        let mut left = Vec::new();
        for mut one in std::mem::take(&mut state.leaving) {
            if !one.is_ended && !one.remote.has_workers() {
                one.remote.end();
                one.is_ended = true;
            }
            if one.is_ended && one.remote.is_done() || now >= one.deadline {
                // There is nothing to wait for any more.
                left.push((Arc::clone(one.remote.name()), one.remote.finish(one.deadline - MAX_LEAVE)));
            } else {
                state.leaving.push(one);
            }
        }
        left
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        delivery::{Answer, Limits, Overflow, Parcel, Target, Trouble, TroubleKind},
        record::Record,
        route::Route,
        shutdown::Shutdown,
        sinks::{Common, Encoder, remote::Start},
    };

    /// Takes everything, or nothing.
    struct Ready(bool);

    impl Target for Ready {
        async fn send(&self, _: &Parcel) -> Answer {
            if self.0 { Answer::Delivered } else { Answer::Later(Trouble::new(TroubleKind::Connect, "down")) }
        }
    }

    fn remote(name: &str, is_up: bool) -> Remote {
        let limits = Limits { concurrency: 1, timeout: Duration::from_secs(1), attempts: None };
        let common = Common {
            name: name.into(),
            route: Route::default(),
            batch_records: 10,
            linger: Duration::from_millis(1),
            queue_bytes: 1 << 20,
            limits,
            spool: Default::default(),
        };
        let shutdown = Shutdown::without_signals().unwrap();
        let encoder = Encoder::Json(Default::default());
        let (overflow, patience) = (Overflow::Wait, Duration::ZERO);
        let start = Start { encoder, overflow, dead: None, spool_folder: None, patience, shutdown };
        Remote::start(common, Ready(is_up), start).unwrap()
    }

    /// What left, once it has.
    fn left(set: &SinkSet, now: Instant) -> Vec<(Arc<str>, SinkStats)> {
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            assert!(Instant::now() < deadline, "it does not leave");
            let left = set.keep(now);
            if !left.is_empty() {
                return left;
            }
            std::thread::yield_now();
        }
    }

    #[test]
    fn a_sink_that_leaves_is_given_what_was_written_for_it() {
        let set = SinkSet::new(vec![remote("a", true), remote("b", true)]);
        let (version, mut remotes) = set.follow(Vec::new(), (0, 0));
        assert_eq!((version, remotes.len()), (0, 2));
        remotes.iter_mut().for_each(|remote| remote.write(&Record::blank()));
        let now = Instant::now();
        set.change(|name| (name == "b").then(Route::default), vec![remote("c", true)], now);
        assert!(set.version() == 1 && set.keep(now).is_empty(), "a worker still has it");
        let (version, remotes) = set.follow(remotes, (1, 0));
        let names: Vec<_> = remotes.iter().map(|remote| remote.name().to_string()).collect();
        assert_eq!((version, names), (1, vec!["b".to_owned(), "c".to_owned()]));
        let stats: Vec<_> =
            remotes.iter().map(Remote::stats).map(|stats| (stats.received, stats.unwanted)).collect();
        assert_eq!(stats, [(1, 0), (0, 1)]);
        let [(name, stats)] = &left(&set, now)[..] else { panic!() };
        assert_eq!((&**name, stats.received, stats.delivered, stats.lost()), ("a", 1, 1, 0));
    }

    #[test]
    fn one_whose_target_is_down_is_let_go_when_its_time_is_over() {
        let set = SinkSet::new(vec![remote("a", false)]);
        let (_, mut remotes) = set.follow(Vec::new(), (0, 0));
        remotes[0].write(&Record::blank());
        let now = Instant::now();
        set.change(|_| None, Vec::new(), now);
        assert!(set.follow(remotes, (1, 0)).1.is_empty());
        let last = now + MAX_LEAVE - Duration::from_nanos(1);
        assert!(set.keep(last).is_empty());
        let [(_, stats)] = &set.keep(now + MAX_LEAVE)[..] else { panic!() };
        assert_eq!((stats.received, stats.delivered, stats.lost()), (1, 0, 1));
    }
}
