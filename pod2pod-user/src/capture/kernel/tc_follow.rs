//! Follows the interfaces of this network namespace: attaches to those that are wanted as they come, forgets those that
//! went. A thread of its own, so that a new pod's first packets do not wait for the reader of the ring.

use std::{
    collections::BTreeMap,
    io,
    os::fd::{AsFd as _, OwnedFd},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use rustix::event::{EventfdFlags, eventfd};

use super::{
    interfaces::{Interface, Pattern, Selection, View},
    interfaces_socket::{News, NewsSocket, Questions},
    tc::{Attached, TcPrograms},
    tc_filter::ABANDONED_AFTER,
};
use crate::rights::{self, Feature, Part};

/// An agent that was killed just before this one began is known to be dead by then.
const STALE_SWEEP: Duration = ABANDONED_AFTER.saturating_add(Duration::from_secs(1));
/// After a list of interfaces could not be had.
const RETRY: Duration = Duration::from_secs(1);
/// Refused attaches are logged this often at most; all are counted.
const WARNING_PERIOD: Duration = Duration::from_secs(60);

/// Counted since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct InterfaceStats {
    /// Times that they were attached to an interface.
    pub attaches: u64,
    /// Times that a watched interface went away or was not wanted any more.
    pub detaches: u64,
    /// Attaches that failed because the interface was gone already.
    pub failed_gone: u64,
    /// Attaches that failed for lack of a right.
    pub failed_not_permitted: u64,
    /// Attaches that failed because others hold every place.
    pub failed_occupied: u64,
    /// Attaches that failed otherwise.
    pub failed_other: u64,
    /// Times that all interfaces were listed anew because news of them were lost or not enough.
    pub rescans: u64,
    /// Filters of killed agents that were taken away.
    pub stale_filters_removed: u64,
}

/// What the thread tells.
#[derive(Default)]
struct Shared {
    stats: Mutex<InterfaceStats>,
    /// Changed with each change of `paths`.
    version: AtomicU64,
    paths: Mutex<Vec<u32>>,
}

/// The thread; ended, with every program detached, when dropped.
pub(super) struct Follower {
    stop: Arc<OwnedFd>,
    thread: Option<JoinHandle<()>>,
    shared: Arc<Shared>,
    /// For people.
    pub(super) description: String,
}

impl Follower {
    /// Attaches to what is there, and follows from then on.
    ///
    /// # Errors
    /// The interfaces cannot be listed or heard of, or nothing may be attached.
    pub(super) fn start(programs: TcPrograms, patterns: &[Pattern]) -> io::Result<Self> {
        // Heard of before they are listed: what comes in between is not missed.
        let news = NewsSocket::open()?;
        let mut questions = Questions::open()?;
        let present = questions.interfaces()?;
        let selection = Selection::new(patterns, &present);
        let description = selection.to_string();
        let unmatched = selection.unmatched(&present);
        if !unmatched.is_empty() {
            tracing::info!(
                patterns = unmatched.join(", "),
                "no interface matches yet; those that come are watched"
            );
        }
        let shared = Arc::new(Shared::default());
        let mut following = Following {
            programs,
            questions,
            selection,
            known: BTreeMap::new(),
            shared: Arc::clone(&shared),
            stats: InterfaceStats::default(),
            last_warning: None,
            refused: None,
        };
        following.take(present);
        if let Some(refused) = following.refused.take().filter(|_| following.stats.attaches == 0) {
            return Err(refused);
        }
        let stop = Arc::new(eventfd(0, EventfdFlags::CLOEXEC)?);
        let stopped = Arc::clone(&stop);
        let thread = std::thread::Builder::new()
            .name("interfaces".to_owned())
            .spawn(move || following.run(news, &stopped))?;
        Ok(Self { stop, thread: Some(thread), shared, description })
    }

    pub(super) fn stats(&self) -> InterfaceStats {
        *self.shared.stats.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Interfaces where neither end is seen, for one who asks often.
    pub(super) fn paths(&self) -> Paths {
        Paths { shared: Arc::clone(&self.shared), version: 0, indices: Vec::new() }
    }
}

/// Interfaces where neither end of a connection is, as they were last asked for.
pub(super) struct Paths {
    shared: Arc<Shared>,
    version: u64,
    indices: Vec<u32>,
}

impl Paths {
    /// Asks for changes.
    pub(super) fn refresh(&mut self) {
        let current = self.shared.version.load(Relaxed);
        if current != self.version {
            self.version = current;
            self.indices.clone_from(&self.shared.paths.lock().unwrap_or_else(PoisonError::into_inner));
        }
    }

    /// Whether it is one of them.
    pub(super) fn contains(&self, interface: u32) -> bool {
        self.indices.contains(&interface)
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        // An eventfd takes a first write always.
        let _ = rustix::io::write(&*self.stop, &1_u64.to_ne_bytes());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// What this thread does not need any more.
fn give_up(part: Part, is_used: impl Fn(Feature) -> bool) {
    if let Err(error) = rights::keep(part, is_used) {
        tracing::warn!(%error, "rights cannot be given up");
    }
}

struct Known {
    interface: Interface,
    view: View,
    attached: Option<Attached>,
}

struct Following {
    programs: TcPrograms,
    questions: Questions,
    selection: Selection,
    known: BTreeMap<u32, Known>,
    shared: Arc<Shared>,
    stats: InterfaceStats,
    last_warning: Option<Instant>,
    /// The last failure that was not the interface's own end.
    refused: Option<io::Error>,
}

impl Following {
    fn run(mut self, mut news: NewsSocket, stop: &OwnedFd) {
        let may_be_stale = self.programs.uses_filters();
        give_up(Part::InterfacesAtFirst, |feature| feature != Feature::StaleFilters || may_be_stale);
        let mut again = Some(Instant::now() + STALE_SWEEP);
        let mut rescan = false;
        while !self.wait(&news, stop, again) {
            let mut heard = Vec::new();
            rescan |= !news.read(|news| heard.push(news));
            for news in heard {
                rescan |= self.hear(news);
            }
            if rescan {
                self.stats.rescans += 1;
                let listed = self.questions.interfaces();
                rescan = listed.is_err();
                if let Ok(present) = listed {
                    self.take(present);
                }
            }
            if again.is_some_and(|at| at <= Instant::now()) {
                self.sweep();
                give_up(Part::Interfaces, |_| true);
                again = None;
            }
            if rescan {
                again = Some(Instant::now() + RETRY);
            }
            self.publish();
        }
        for (_, known) in std::mem::take(&mut self.known) {
            if let Some(attached) = known.attached {
                attached.detach(&mut self.questions);
            }
        }
    }

    /// Waits for news, or until `again`. True if it is over.
    fn wait(&self, news: &NewsSocket, stop: &OwnedFd, again: Option<Instant>) -> bool {
        let limit = again.map_or(PollTimeout::NONE, |at| {
            let left = at.saturating_duration_since(Instant::now()) + Duration::from_millis(1);
            PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX)
        });
        let mut both =
            [PollFd::new(stop.as_fd(), PollFlags::POLLIN), PollFd::new(news.as_fd(), PollFlags::POLLIN)];
        // Interrupted or not: both are looked at.
        let _ = poll(&mut both, limit);
        both[0].any().unwrap_or(false)
    }

    /// True if that is not enough to know what is there.
    fn hear(&mut self, news: News) -> bool {
        match news {
            News::There(mut interface) => {
                let before = self.known.get(&interface.index);
                interface.uplink = match before {
                    Some(known) if known.interface.name == interface.name => known.interface.uplink,
                    _ => self.questions.uplinks().contains(&Some(interface.index)),
                };
                self.consider(interface);
                false
            }
            News::Gone(interface) => {
                self.forget(interface.index);
                // It may have been moved to a pod: then its other end, of which there is no news, is a host-side veth.
                self.known.values().any(|known| known.interface.link == Some(interface.index))
            }
        }
    }

    /// All there is.
    fn take(&mut self, present: Vec<Interface>) {
        let gone: Vec<u32> = self
            .known
            .keys()
            .copied()
            .filter(|index| !present.iter().any(|interface| interface.index == *index))
            .collect();
        for index in gone {
            self.forget(index);
        }
        for interface in present {
            self.consider(interface);
        }
        self.publish();
    }

    /// Attaches to an interface or detaches from it, as it is now.
    fn consider(&mut self, interface: Interface) {
        let (index, view) = (interface.index, interface.view());
        let wanted = self.selection.wants(&interface);
        let before = self.known.remove(&index);
        let same_view = before.as_ref().is_some_and(|known| known.view == view);
        let mut attached = before.and_then(|known| known.attached);
        if attached.is_some() && !(wanted && same_view) {
            self.detach(attached.take());
        }
        if wanted && attached.is_none() {
            self.announce(index, view);
            attached = self.attach(&interface, view);
        }
        self.known.insert(index, Known { interface, view, attached });
    }

    fn attach(&mut self, interface: &Interface, view: View) -> Option<Attached> {
        match self.programs.attach(&mut self.questions, interface.index, view) {
            Ok(attached) => {
                self.stats.attaches += 1;
                tracing::debug!(interface = interface.name, ?view, "interface is watched");
                Some(attached)
            }
            Err(error) => {
                self.count_failure(&interface.name, error);
                None
            }
        }
    }

    fn count_failure(&mut self, name: &str, error: io::Error) {
        let counter = match error.raw_os_error() {
            Some(libc::ENODEV | libc::ENXIO | libc::ENOENT) => {
                // It went while we were about to attach: nothing to tell.
                self.stats.failed_gone += 1;
                return;
            }
            Some(libc::EPERM | libc::EACCES) => &mut self.stats.failed_not_permitted,
            Some(libc::EEXIST | libc::EBUSY | libc::ERANGE | libc::ENOSPC) => &mut self.stats.failed_occupied,
            _ => &mut self.stats.failed_other,
        };
        *counter += 1;
        let now = Instant::now();
        if self.last_warning.is_none_or(|last| now.duration_since(last) >= WARNING_PERIOD) {
            self.last_warning = Some(now);
            tracing::warn!(interface = name, %error, "cannot attach to an interface; see the counters for more");
        }
        self.refused = Some(error);
    }

    /// Tells the readers of the ring whose end they will see, before the first packet.
    fn announce(&self, index: u32, view: View) {
        let mut paths = self.shared.paths.lock().unwrap_or_else(PoisonError::into_inner);
        let known = paths.contains(&index);
        match view {
            View::Path if !known => paths.push(index),
            View::Behind | View::Here if known => paths.retain(|path| *path != index),
            View::Path | View::Behind | View::Here => return,
        }
        drop(paths);
        self.shared.version.fetch_add(1, Relaxed);
    }

    fn forget(&mut self, index: u32) {
        if let Some(known) = self.known.remove(&index) {
            self.detach(known.attached);
        }
    }

    fn detach(&mut self, attached: Option<Attached>) {
        if let Some(attached) = attached {
            attached.detach(&mut self.questions);
            self.stats.detaches += 1;
        }
    }

    fn sweep(&mut self) {
        for index in self.known.keys() {
            self.programs.remove_stale(&mut self.questions, *index);
        }
    }

    fn publish(&mut self) {
        self.stats.stale_filters_removed = self.programs.stale_removed;
        *self.shared.stats.lock().unwrap_or_else(PoisonError::into_inner) = self.stats;
    }
}
