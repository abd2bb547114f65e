//! One worker: a ring, a pipeline, and the loop that takes what the first holds through the second.
//!
//! One turn: what the ring holds, what is due, verdicts back to the kernel, records on. The ring is drained on a timer that
//! adapts to what came, since a wake-up per record costs more than the record.

use std::{
    cell::RefCell,
    os::fd::AsFd as _,
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::{clock::monotonic, waiting::Waiting};
use crate::{
    capture::{KernelInstant, kernel::Capture},
    pipeline::Pipeline,
    shutdown::Shutdown,
    sinks::{OwnConnections, Sinks},
};

/// Records taken from the ring in one turn: a few milliseconds of work, so that time limits and signals are looked at.
const TURN_RECORDS: usize = 8192;
/// A wait longer than this also ends when the kernel says that the ring fills.
const UNTIL_RING: Duration = Duration::from_millis(5);
/// Niceness of the worker thread: it needs little, but on a machine that is busy with what it watches it needs it in time,
/// or the ring overflows.
const WORKER_NICENESS: i32 = -10;

/// A ring, the stages behind it, and where their records go.
pub(super) struct Worker {
    pub(super) capture: Capture,
    pub(super) pipeline: Pipeline,
    pub(super) sinks: Rc<RefCell<Sinks>>,
    pub(super) own: Arc<OwnConnections>,
    pub(super) shutdown: Shutdown,
    own_version: u64,
    last_segment: KernelInstant,
}

impl Worker {
    /// A worker that has read nothing yet.
    pub(super) fn new(
        capture: Capture,
        pipeline: Pipeline,
        sinks: Rc<RefCell<Sinks>>,
        own: Arc<OwnConnections>,
        shutdown: Shutdown,
    ) -> Self {
        Self {
            capture,
            pipeline,
            sinks,
            own,
            shutdown,
            own_version: 0,
            last_segment: KernelInstant::default(),
        }
    }

    /// Reads until a signal comes or the reader of the records goes away. `duties` are done before every turn.
    pub(super) fn run(&mut self, duties: &mut impl FnMut(&mut Self, Instant)) {
        // Of this thread only. Without CAP_SYS_NICE it is as nice as others.
        let _ = rustix::process::setpriority_process(None, WORKER_NICENESS);
        let mut waiting = Waiting::new();
        while !self.shutdown.is_requested() && !self.sinks.borrow().reader_gone() {
            duties(self, Instant::now());
            let turn = self.turn();
            if !turn.more {
                self.wait(waiting.after(turn.records));
            }
        }
    }

    /// Takes what the ring holds, up to [`TURN_RECORDS`], through all stages.
    pub(super) fn turn(&mut self) -> Turn {
        self.update_own_tuples();
        let Self { capture, pipeline, last_segment, .. } = self;
        let before = monotonic();
        let drained = capture.drain(TURN_RECORDS, &mut |segment| {
            *last_segment = (*last_segment).max(segment.time);
            if pipeline.is_due(segment.time) {
                pipeline.expire(segment.time);
            }
            pipeline.push(segment);
        });
        // With a backlog, what looks overdue may be waiting in the ring.
        let now = if drained.more { *last_segment } else { before };
        if pipeline.is_due(now) {
            pipeline.expire(now);
        }
        while let Some(connection) = pipeline.pop_unwanted() {
            capture.ignore(&connection);
        }
        self.sinks.borrow_mut().flush_due();
        Turn { records: drained.records, more: drained.more }
    }

    fn wait(&self, wait: Duration) {
        let shutdown = PollFd::new(self.shutdown.as_fd(), PollFlags::POLLIN);
        let ring = PollFd::new(self.capture.as_fd(), PollFlags::POLLIN);
        // The ring polls as readable whenever it holds anything: on a short wait that would be at once, every time.
        let both = &mut [shutdown, ring];
        let watched = if wait > UNTIL_RING { &mut both[..] } else { &mut both[..1] };
        let limit = PollTimeout::try_from(wait).unwrap_or(PollTimeout::ZERO);
        // Interrupted or not: the loop looks at everything.
        let _ = poll(watched, limit);
    }

    fn update_own_tuples(&mut self) {
        let version = self.own.version();
        if version != self.own_version {
            self.own_version = version;
            self.pipeline.enricher().set_own_tuples(self.own.tuples());
        }
    }
}

/// What one turn did.
#[derive(Clone, Copy, Debug)]
pub(super) struct Turn {
    /// Records taken from the ring.
    pub(super) records: usize,
    /// The ring may hold more.
    pub(super) more: bool,
}
