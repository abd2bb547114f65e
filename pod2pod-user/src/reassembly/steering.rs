//! Steering: what the capture is to know of a connection so that it sends what is wanted and no more.
//!
//! Three facts, told together: how far each direction was read (the capture runs at most a credit ahead of that), from
//! where on it is wanted again (a body nobody looks into), and that it is not wanted at all. A source that cannot be
//! steered, a file, is never told anything. What the capture makes of it is not known here: whatever does not come is a
//! gap.

use std::{collections::VecDeque, time::Duration};

use super::{
    Chunk, Connection, ConnectionToken, Reassembler, Side, Stats,
    accept::After,
    aged::Slot,
    flow::{Flow, PendingReset},
    half::Mark,
    index::Entry,
    key::FlowKey,
};
use crate::capture::KernelInstant;

/// How long a connection in a skip may be silent before the capture is asked whether it goes on: as long as HTTP waits
/// for a response, and one look-up.
pub const SKIP_LOOK: Duration = Duration::from_secs(10);

/// What moved less long ago than this tells itself: its records are on their way.
pub const SKIP_SILENCE: Duration = Duration::from_secs(1);

/// How soon the capture is asked about a reset inside a skip: before its patience ends, after what follows it.
const RESET_LOOK: Duration = Duration::from_millis(50);

/// In the order of [`Wanted::Both`] and [`Activity::next`].
const SIDES: [Side; 2] = [Side::Originator, Side::Responder];

/// What the capture is to know of one connection; complete, so each one replaces the one before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Steering {
    /// The connection.
    pub connection: Connection,
    /// Client's initial sequence number as the capture has it.
    pub generation: Option<u32>,
    /// What is wanted of it.
    pub wanted: Wanted,
}

/// What is wanted of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// Nothing.
    Nothing,
    /// Both directions, of the originator and of the responder.
    Both([Course; 2]),
    /// It is over: what was said of it can be forgotten.
    Over,
}

/// How one direction stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Course {
    /// Sequence number after what was read; absent while nothing of the direction is known.
    pub read: Option<u32>,
    /// First sequence number that is wanted again; absent if all is wanted.
    pub until: Option<u32>,
}

/// How a connection stands at the capture, which sees also what it does not send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Activity {
    /// Its last segment.
    pub last: KernelInstant,
    /// Sequence number after the last byte, of the originator and of the responder; a FIN counts one.
    pub next: [Option<u32>; 2],
}

/// What is to be told, in order.
#[derive(Debug, Default)]
pub(super) struct Wishes {
    queue: VecDeque<Wish>,
}

#[derive(Debug)]
enum Wish {
    /// As it stands when it is told.
    Live(Slot, ConnectionToken),
    /// Of a connection that has left the table.
    Last(Steering),
}

impl Wishes {
    /// A connection has ended; it matters if something was told of it.
    pub(super) fn over(&mut self, flow: &Flow) {
        if flow.steered {
            self.last(flow, Wanted::Over);
        }
    }

    /// A connection is refused and forgotten.
    pub(super) fn refuse(&mut self, flow: &Flow) {
        if flow.facts.local.is_some() {
            self.last(flow, Wanted::Nothing);
        }
    }

    fn last(&mut self, flow: &Flow, wanted: Wanted) {
        let (connection, generation) = (flow.facts, flow.generation);
        self.queue.push_back(Wish::Last(Steering { connection, generation, wanted }));
    }
}

impl Reassembler {
    /// The capture is asked to leave out what `side` says below `offset`: what is missing there is a cut.
    pub fn skip(&mut self, connection: &Connection, side: Side, offset: u64) {
        self.expect_cut(connection, side, offset);
        let Some(slot) = self.live(connection) else { return };
        self.wish(slot);
        self.look_at(slot, self.now.plus(SKIP_LOOK));
    }

    /// Nothing of `connection` is wanted any more.
    pub fn ignore(&mut self, connection: &Connection) {
        let Some(slot) = self.live(connection) else { return };
        if let Some(flow) = self.flows.get_mut(slot) {
            flow.ignored = true;
        }
        self.wish(slot);
    }

    /// What was refused may be wanted now: each is a new connection, joined in its middle, when it is seen again, and of what is
    /// ignored the capture is told once more.
    pub fn forget_refused(&mut self) {
        for slot in self.ended.slots_of(|ended| ended.refused) {
            self.forget_ended(slot);
        }
        for slot in self.flows.slots_of(|flow| flow.ignored) {
            self.wish(slot);
        }
    }

    /// The next connection of which the capture is to be told something. To be taken until there is none, or not at
    /// all: without [`super::Config::credit_step`], and if nothing is asked of it, nothing is queued.
    pub fn pop_steering(&mut self) -> Option<Steering> {
        loop {
            match self.wishes.queue.pop_front()? {
                Wish::Last(steering) => return Some(steering),
                Wish::Live(slot, token) => {
                    let flow = self.flows.get_mut(slot).filter(|flow| flow.facts.token == token);
                    if let Some(flow) = flow {
                        return Some(flow.steering());
                    }
                }
            }
        }
    }

    /// The next connection in a skip that has been silent at `now`: how it stands is to be told by
    /// [`Self::note_activity`]. Where a capture can be asked, to be taken until there is none before [`Self::expire`].
    pub fn pop_silent(&mut self, now: KernelInstant) -> Option<Connection> {
        loop {
            let &(at, slot) = self.looks.first().filter(|(at, _)| *at <= now)?;
            self.looks.remove(&(at, slot));
            let Some(flow) = self.flows.get_mut(slot) else { continue };
            flow.look = None;
            if !flow.is_skipping() {
                continue;
            }
            let (connection, spoke) = (flow.facts, flow.active.plus(SKIP_LOOK));
            if spoke > now && flow.reset_in_skip().is_none() {
                self.look_at(slot, spoke);
                continue;
            }
            self.look_at(slot, now.plus(SKIP_LOOK));
            return Some(connection);
        }
    }

    /// Takes how a silent connection stands: it lives as long as the capture sees it, what was left out is told if
    /// nothing followed it, and a reset that was not the last word is void.
    pub fn note_activity(
        &mut self,
        connection: &Connection,
        activity: Activity,
        now: KernelInstant,
        deliver: &mut impl FnMut(Chunk<'_>),
    ) {
        let Some(slot) = self.live(connection) else { return };
        self.now = self.now.max(now);
        let Some(flow) = self.flows.get_mut(slot) else { return };
        if flow.active < activity.last {
            flow.active = activity.last;
            self.flows.renew(slot);
        }
        let Some(flow) = self.flows.get_mut(slot) else { return };
        let after = flow.take_activity(&activity, now, &mut self.stats, deliver);
        self.follow_up(slot, after, now, deliver);
    }

    /// Asks about a connection at `at` at the latest.
    pub(super) fn look_at(&mut self, slot: Slot, at: KernelInstant) {
        let Some(flow) = self.flows.get_mut(slot) else { return };
        if flow.look.is_some_and(|look| look <= at) {
            return;
        }
        if let Some(later) = flow.look.replace(at) {
            self.looks.remove(&(later, slot));
        }
        self.looks.insert((at, slot));
    }

    /// Asks soon about a reset that came inside a skip.
    pub(super) fn look_at_reset(&mut self, slot: Slot) {
        let reset = self.flows.get(slot).and_then(Flow::reset_in_skip);
        if let Some(at) = reset.map(|reset| reset.arrived.plus(RESET_LOOK))
            && at > self.now
        {
            self.look_at(slot, at);
        }
    }

    /// Queues what is to be told of a connection, once.
    pub(super) fn wish(&mut self, slot: Slot) {
        if let Some(flow) = self.flows.get_mut(slot)
            && !flow.wished
            && flow.facts.local.is_some()
        {
            flow.wished = true;
            self.wishes.queue.push_back(Wish::Live(slot, flow.facts.token));
        }
    }

    pub(super) fn live(&self, connection: &Connection) -> Option<Slot> {
        let Some(Entry::Live(slot)) = self.entry(&FlowKey::of_connection(connection)) else {
            return None;
        };
        self.flows.get(slot).filter(|flow| flow.facts.token == connection.token).map(|_| slot)
    }
}

impl Flow {
    /// A reset that came inside a skip: whether its place is the end of its sender's stream, the stream does not show.
    pub(super) fn reset_in_skip(&self) -> Option<PendingReset> {
        self.reset().filter(|reset| !reset.is_exact && self.half(reset.sender).skips(reset.offset))
    }

    fn take_activity(
        &mut self,
        activity: &Activity,
        now: KernelInstant,
        stats: &mut Stats,
        deliver: &mut impl FnMut(Chunk<'_>),
    ) -> After {
        for (side, next) in SIDES.into_iter().zip(activity.next) {
            let half = self.half(side);
            let Some(next) = next.filter(|_| half.known && half.is_skipping()) else { continue };
            let sent = u64::try_from(half.offset_of(next)).unwrap_or(0);
            let reset = self.reset_in_skip().filter(|reset| reset.sender == side);
            if reset.is_some_and(|reset| reset.offset != sent) {
                self.reset = None;
                stats.resets_ignored += 1;
            }
            if now.since(activity.last) >= SKIP_SILENCE {
                let mark = Mark { time: activity.last, arrived: now, after: 0 };
                let half = self.half_mut(side);
                // Its last number may be that of a FIN that was lost, unless it is past the skip.
                let end = if sent < half.cut_below { sent.saturating_sub(1) } else { sent };
                half.note_sent(end, mark);
            }
        }
        self.settle(stats, deliver)
    }

    fn steering(&mut self) -> Steering {
        self.wished = false;
        self.steered = true;
        let wanted = match self.ignored {
            true => Wanted::Nothing,
            false => Wanted::Both(SIDES.map(|side| self.half_mut(side).course())),
        };
        Steering { connection: self.facts, generation: self.generation, wanted }
    }
}
