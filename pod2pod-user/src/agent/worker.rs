//! One worker: a ring, a pipeline, and the loop that takes what the first holds through the second.
//!
//! One turn: what the ring holds, what is due, verdicts back to the kernel, records on. The ring is drained on a timer that
//! adapts to what came, since a wake-up per record costs more than the record.

use std::{cell::RefCell, io, rc::Rc, sync::Arc, time::Instant};

use super::{clock::monotonic, waiting::Waiting};
use crate::{
    capture::{
        KernelInstant,
        kernel::{Capture, Wake},
    },
    pipeline::Pipeline,
    shutdown::Shutdown,
    sinks::{OwnConnections, Sinks},
};

/// Records taken from the ring in one turn: a few milliseconds of work, so that time limits and signals are looked at.
const TURN_RECORDS: usize = 8192;
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
    wake: Wake,
    ring_bytes: u32,
    own_version: u64,
    last_segment: KernelInstant,
}

impl Worker {
    /// A worker that has read nothing yet of a ring of `ring_bytes`.
    ///
    /// # Errors
    /// The kernel has no descriptor for what it waits with.
    pub(super) fn new(
        capture: Capture,
        pipeline: Pipeline,
        sinks: Rc<RefCell<Sinks>>,
        own: Arc<OwnConnections>,
        shutdown: Shutdown,
        ring_bytes: u32,
    ) -> io::Result<Self> {
        Ok(Self {
            wake: Wake::new(&capture, &shutdown)?,
            ring_bytes,
            capture,
            pipeline,
            sinks,
            own,
            shutdown,
            own_version: 0,
            last_segment: KernelInstant::default(),
        })
    }

    /// Reads until a signal comes or the reader of the records goes away. `duties` are done before every turn.
    pub(super) fn run(&mut self, duties: &mut impl FnMut(&mut Self, Instant)) {
        // Of this thread only. Without CAP_SYS_NICE it is as nice as others.
        let _ = rustix::process::setpriority_process(None, WORKER_NICENESS);
        let mut waiting = Waiting::new(self.ring_bytes, Instant::now());
        let mut taken = 0;
        while !self.shutdown.is_requested() && !self.sinks.borrow().reader_gone() {
            duties(self, Instant::now());
            let turn = self.turn();
            taken += turn.bytes;
            if !turn.more {
                // Whatever ends the wait: the loop looks at everything.
                let _ = self.wake.wait(waiting.after(taken, Instant::now()));
                taken = 0;
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
        pipeline.look(now, &mut |connection| capture.activity(connection));
        if pipeline.is_due(now) {
            pipeline.expire(now);
        }
        pipeline.steer(&mut |steering| capture.steer(steering));
        self.sinks.borrow_mut().flush_due();
        Turn { bytes: drained.bytes, more: drained.more }
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
    /// Bytes taken from the ring.
    bytes: usize,
    /// The ring may hold more.
    pub(super) more: bool,
}
