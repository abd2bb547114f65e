//! Captures that tests use one after the other: of what a short test costs, the verifier's work on the programs is most.
//!
//! Each test has a cgroup of its own below that of its capture. A capture is lent again when no socket of the last test is
//! left in it, and closed when no test uses any, so that nothing stays on the machine. What changes a capture for good
//! (a full table, a ring of another size) belongs on one of the test's own, by `Watch::open`.

use std::{
    cell::Cell,
    ops::{Deref, DerefMut},
    sync::{Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use pod2pod_common::control::SHED_NONE;
use pod2pod_user::capture::kernel::ScopeChoice;
use support::netns::Cgroup;

use crate::{machine, watch::Watch};

/// Captures that wait: two tests at a time, each with both scopes.
const MAX_IDLE: usize = 4;
/// How long the sockets of the last test may take to vanish; opening another takes about as long.
const MAX_WAIT_ALONE: Duration = Duration::from_secs(1);
/// Time between two looks at that.
const PAUSE: Duration = Duration::from_millis(5);

static POOL: Mutex<Pool> = Mutex::new(Pool { idle: Vec::new(), users: 0 });

struct Pool {
    /// The longest unused one first.
    idle: Vec<Kept>,
    /// Tests that have used one and are still running.
    users: usize,
}

struct Kept {
    scope: ScopeChoice,
    // Dropped before its cgroup.
    watch: Watch,
    cgroup: Cgroup,
}

fn pool() -> MutexGuard<'static, Pool> {
    POOL.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A test that uses the pool: each runs on a thread of its own.
struct User(Cell<bool>);

thread_local! {
    static USER: User = const { User(Cell::new(false)) };
}

impl User {
    fn enter(&self) {
        if !self.0.replace(true) {
            pool().users += 1;
        }
    }
}

impl Drop for User {
    fn drop(&mut self) {
        if self.0.get() {
            let mut pool = pool();
            pool.users -= 1;
            let unused = if pool.users == 0 { std::mem::take(&mut pool.idle) } else { Vec::new() };
            drop(pool);
            drop(unused);
        }
    }
}

/// A watch that goes back when it is dropped, unless its test failed.
pub(crate) struct Lent(Option<Kept>);

/// A cgroup, and a watch that has seen nothing yet and sees only what is in there.
pub(crate) fn lend(scope: ScopeChoice) -> (Cgroup, Lent) {
    machine::share();
    USER.with(User::enter);
    let mut kept = idle(scope).unwrap_or_else(|| {
        let cgroup = Cgroup::new();
        Kept { scope, watch: Watch::on(&cgroup, scope), cgroup }
    });
    kept.watch.renew();
    (kept.cgroup.below(), Lent(Some(kept)))
}

fn idle(scope: ScopeChoice) -> Option<Kept> {
    let deadline = Instant::now() + MAX_WAIT_ALONE;
    loop {
        let mut pool = pool();
        let fits = |kept: &Kept| kept.scope == scope && kept.cgroup.is_alone();
        if let Some(index) = pool.idle.iter().position(fits) {
            return Some(pool.idle.remove(index));
        }
        if Instant::now() > deadline || pool.idle.iter().all(|kept| kept.scope != scope) {
            return None;
        }
        drop(pool);
        thread::park_timeout(PAUSE);
    }
}

impl Deref for Lent {
    type Target = Watch;

    fn deref(&self) -> &Watch {
        &self.0.as_ref().unwrap().watch
    }
}

impl DerefMut for Lent {
    fn deref_mut(&mut self) -> &mut Watch {
        &mut self.0.as_mut().unwrap().watch
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        let Some(mut kept) = self.0.take() else { return };
        if thread::panicking() {
            return;
        }
        kept.watch.capture.shed(SHED_NONE);
        let mut pool = pool();
        pool.idle.push(kept);
        let unused = if pool.idle.len() > MAX_IDLE { Some(pool.idle.remove(0)) } else { None };
        drop(pool);
        drop(unused);
    }
}

#[test]
fn what_is_left_of_a_test_keeps_its_capture_from_being_lent() {
    let scope = ScopeChoice::Cookie;
    let (cgroup, lent) = lend(scope);
    let name = lent.capture.description().to_owned();
    drop(lent);
    // All that can be had, lest it is just not its turn.
    let others: Vec<Lent> = std::iter::from_fn(|| idle(scope)).map(|kept| Lent(Some(kept))).collect();
    assert!(others.iter().all(|other| other.capture.description() != name));
    drop(cgroup);
}
