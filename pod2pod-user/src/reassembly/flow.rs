//! One connection: its two directions, and in which order their bytes go out.
//!
//! Delivery is causal: a piece waits until the other direction has reached what the piece's segment acknowledged, so a
//! response never overtakes its request, however the capture was ordered. What waits for a hole waits until the hole
//! fills, or until [`Flow::force_step`] gives the hole up. Knows no table and no clock.

use std::time::Duration;

use super::{
    Chunk, CloseCause, Connection, Content, GapCause, Side, Stats,
    config::{Config, JOIN_GRACE, RESET_GRACE, RESET_OVERHEAD, SYN_SIGHTING_WINDOW},
    half::{self, Half},
    index::Which,
    key::{End, FlowKey},
};
use crate::capture::{KernelInstant, Segment};

/// A reset that waits: one ahead of its sender's stream until the stream has come to it, one in its place on a path
/// until nobody can contradict it any more.
#[derive(Clone, Copy, Debug)]
pub(super) struct PendingReset {
    /// It came exactly in its place.
    pub(super) is_exact: bool,
    pub(super) sender: Side,
    pub(super) offset: u64,
    pub(super) after: u64,
    pub(super) time: KernelInstant,
    pub(super) arrived: KernelInstant,
}

impl PendingReset {
    /// How long it waits.
    pub(super) const fn patience(&self, config: &Config) -> Duration {
        if self.is_exact { RESET_GRACE } else { config.acknowledged_hole_timeout }
    }
}

/// One connection.
#[derive(Debug)]
pub(super) struct Flow {
    pub(super) facts: Connection,
    /// A second key: the child's cookie, where the handshake carried the listener's.
    pub(super) alias: Option<Box<FlowKey>>,
    /// The connection was made by a listener's segments and its child is not linked yet.
    pub(super) unlinked: bool,
    /// Client's initial sequence number as the capture has it.
    pub(super) generation: Option<u32>,
    /// Something is to be told to the capture, and queued.
    pub(super) wished: bool,
    /// Something was told to the capture.
    pub(super) steered: bool,
    /// Nothing of it is wanted.
    pub(super) ignored: bool,
    /// When the capture is asked how it stands, in the table's order.
    pub(super) look: Option<KernelInstant>,
    /// A SYN of the same tuple waits for its answer.
    pub(super) rival: bool,
    /// When its SYN was last seen, milliseconds after the first.
    pub(super) last_syn_ms: u16,
    pub(super) originator_end: End,
    originator: Half,
    responder: Half,
    pub(super) reset: Option<Box<PendingReset>>,
    /// Since when something waits, and when it has waited enough; kept for the table's order.
    pub(super) waiting: Option<(KernelInstant, KernelInstant)>,
    /// Held cost as counted in the table's total.
    pub(super) counted: usize,
    /// Time of the last segment, to the second.
    pub(super) active: KernelInstant,
}

impl Flow {
    pub(super) fn new(facts: Connection, originator_end: End, now: KernelInstant) -> Self {
        Self {
            facts,
            alias: None,
            unlinked: false,
            generation: None,
            wished: false,
            steered: false,
            ignored: false,
            look: None,
            rival: false,
            last_syn_ms: 0,
            originator_end,
            originator: Half::default(),
            responder: Half::default(),
            reset: None,
            waiting: None,
            counted: 0,
            active: now,
        }
    }

    /// Its own key.
    pub(super) fn key(&self) -> FlowKey {
        FlowKey::of_connection(&self.facts)
    }

    /// Whether `key` is its own, or its child's.
    #[inline]
    pub(super) fn has_key(&self, key: &FlowKey, which: Which) -> bool {
        match which {
            Which::Own => key.is_of(&self.facts),
            Which::Child => self.alias.as_deref() == Some(key),
        }
    }

    /// Its own key, or its child's.
    pub(super) fn key_of(&self, which: Which) -> Option<FlowKey> {
        match which {
            Which::Own => Some(self.key()),
            Which::Child => self.alias.as_deref().copied(),
        }
    }

    /// Its SYN was seen again, or late.
    pub(super) fn note_syn(&mut self, time: KernelInstant) {
        match self.facts.syn_time {
            None => self.facts.syn_time = Some(time),
            // The same packet is seen again sooner, at another interface.
            Some(first) => {
                let after = Self::syn_after(first, time);
                let apart = Duration::from_millis(after.saturating_sub(self.last_syn_ms).into());
                if apart > SYN_SIGHTING_WINDOW {
                    self.facts.syn_retransmits = self.facts.syn_retransmits.saturating_add(1);
                }
                self.last_syn_ms = self.last_syn_ms.max(after);
            }
        }
    }

    /// From the first SYN to its last copy, ms: Linux sends that after 63 s.
    pub(super) fn syn_after(first: KernelInstant, last: KernelInstant) -> u16 {
        u16::try_from(last.since(first).as_millis()).unwrap_or(u16::MAX)
    }

    /// The reset that waits.
    pub(super) fn reset(&self) -> Option<PendingReset> {
        self.reset.as_deref().copied()
    }

    pub(super) fn side_of(&self, end: End) -> Side {
        if end == self.originator_end { Side::Originator } else { Side::Responder }
    }

    /// Whether a segment is exactly the sender's next: then it is this connection's, whatever SYNs were forged.
    pub(super) fn expects(&self, sender: End, segment: &Segment<'_>) -> bool {
        let half = self.half(self.side_of(sender));
        half.known && half.next_sequence() == segment.sequence
    }

    pub(super) const fn half(&self, side: Side) -> &Half {
        match side {
            Side::Originator => &self.originator,
            Side::Responder => &self.responder,
        }
    }

    pub(super) const fn half_mut(&mut self, side: Side) -> &mut Half {
        match side {
            Side::Originator => &mut self.originator,
            Side::Responder => &mut self.responder,
        }
    }

    /// What is held of both directions costs so much, and what else waits.
    pub(super) fn held_cost(&self) -> usize {
        let reset = if self.reset.is_some() { RESET_OVERHEAD } else { 0 };
        self.originator.held_cost() + self.responder.held_cost() + reset
    }

    /// Whether a direction holds more than it may.
    pub(super) fn is_over(&self, bytes: usize, pieces: usize) -> bool {
        [&self.originator, &self.responder]
            .iter()
            .any(|half| half.held_cost() > bytes || half.held_pieces() > pieces)
    }

    /// Whether the capture leaves out what comes next of a direction.
    pub(super) const fn is_skipping(&self) -> bool {
        self.originator.is_skipping() || self.responder.is_skipping()
    }

    /// Nothing waits.
    pub(super) fn is_quiet(&self) -> bool {
        self.originator.is_quiet() && self.responder.is_quiet() && self.reset.is_none()
    }

    /// Hands on the next bytes of `sender`.
    pub(super) fn deliver_bytes(
        &mut self,
        sender: Side,
        time: KernelInstant,
        bytes: &[u8],
        stats: &mut Stats,
        deliver: &mut impl FnMut(Chunk<'_>),
    ) {
        let offset = self.half(sender).next;
        let content = Content::Bytes(bytes);
        stats.bytes_delivered += bytes.len() as u64;
        deliver(Chunk { connection: &self.facts, sender, time, offset, content });
        self.half_mut(sender).advance(bytes.len() as u64);
    }

    /// Hands on a gap of `length` bytes, if it has any.
    pub(super) fn deliver_gap(
        &mut self,
        sender: Side,
        time: KernelInstant,
        length: u64,
        cause: GapCause,
        stats: &mut Stats,
        deliver: &mut impl FnMut(Chunk<'_>),
    ) {
        if length == 0 {
            return;
        }
        let (gaps, bytes) = match cause {
            GapCause::Cut => (&mut stats.gaps_cut, &mut stats.gap_bytes_cut),
            GapCause::Missing => (&mut stats.gaps_missing, &mut stats.gap_bytes_missing),
            GapCause::Limit => (&mut stats.gaps_limit, &mut stats.gap_bytes_limit),
        };
        *gaps += 1;
        *bytes += length;
        let may_be_ours = cause != GapCause::Missing || self.loss_may_be_ours(sender);
        let offset = self.half(sender).next;
        let content = Content::Gap { length, cause, may_be_ours };
        deliver(Chunk { connection: &self.facts, sender, time, offset, content });
        self.half_mut(sender).give_up(length);
    }

    /// Whether bytes of `sender` that were never seen may have been there. Not if the local end received them neither:
    /// it sees what arrives and has not acknowledged them.
    fn loss_may_be_ours(&self, sender: Side) -> bool {
        let half = self.half(sender);
        match self.facts.local {
            Some(local) => local == sender || half.is_loss_ours(),
            None => true,
        }
    }

    /// Delivers everything whose turn it is. True once both sides have finished.
    pub(super) fn pump(&mut self, stats: &mut Stats, deliver: &mut impl FnMut(Chunk<'_>)) -> bool {
        let mut moved = true;
        while moved {
            moved = false;
            for side in [Side::Originator, Side::Responder] {
                moved |= self.deliver_left_out(side, stats, deliver);
                while self.deliver_front(side, stats, deliver) {
                    moved = true;
                }
                moved |= self.deliver_finish(side, stats, deliver);
            }
        }
        self.originator.finished && self.responder.finished
    }

    /// Tells at once what the capture was told to leave out.
    fn deliver_left_out(
        &mut self,
        side: Side,
        stats: &mut Stats,
        deliver: &mut impl FnMut(Chunk<'_>),
    ) -> bool {
        let half = self.half(side);
        let length = half.left_out();
        let time = half.front().map(|(_, piece)| piece.mark.time).or(half.fin().map(|fin| fin.mark.time));
        let time = time.or(half.acknowledged_at).unwrap_or_default();
        self.deliver_gap(side, time, length, GapCause::Cut, stats, deliver);
        length > 0
    }

    fn deliver_front(&mut self, side: Side, stats: &mut Stats, deliver: &mut impl FnMut(Chunk<'_>)) -> bool {
        let (half, other) = (self.half(side), self.half(side.other()));
        let ready =
            half.front().is_some_and(|(start, piece)| start <= half.next && other.is_past(piece.mark.after));
        if !ready {
            return false;
        }
        let Some(piece) = self.half_mut(side).take_front() else { return false };
        match piece.content {
            half::Content::Bytes(bytes) => {
                self.deliver_bytes(side, piece.mark.time, &bytes, stats, deliver);
            }
            half::Content::Cut(length) => {
                self.deliver_gap(side, piece.mark.time, length, GapCause::Cut, stats, deliver);
            }
        }
        true
    }

    fn deliver_finish(&mut self, side: Side, stats: &mut Stats, deliver: &mut impl FnMut(Chunk<'_>)) -> bool {
        let (half, other) = (self.half(side), self.half(side.other()));
        let ready = |fin: &half::Fin| fin.offset <= half.next && other.is_past(fin.mark.after);
        let Some(fin) = half.fin().filter(ready) else { return false };
        let (time, offset) = (fin.mark.time, half.next);
        stats.bytes_after_finish += self.half_mut(side).finish();
        let content = Content::Finished;
        deliver(Chunk { connection: &self.facts, sender: side, time, offset, content });
        true
    }

    /// Makes way where delivery is stuck, by one step: gives up the hole that has waited longest or, where pieces only
    /// wait for each other, lets one go. False if nothing is stuck. Call [`Flow::pump`] afterwards.
    pub(super) fn force_step(
        &mut self,
        cause: GapCause,
        stats: &mut Stats,
        deliver: &mut impl FnMut(Chunk<'_>),
    ) -> bool {
        let Some(side) = self.longest_waiting() else { return false };
        if self.half(side).hole_end().is_some_and(|end| end <= self.half(side).next) {
            // Nothing is missing here: the piece waits for the other direction.
            if !self.give_up_hole(side.other(), cause, stats, deliver) {
                self.half_mut(side).release_front();
            }
            return true;
        }
        self.give_up_hole(side, cause, stats, deliver)
    }

    /// Gives up the hole of `side`. False if it has none.
    pub(super) fn give_up_hole(
        &mut self,
        side: Side,
        cause: GapCause,
        stats: &mut Stats,
        deliver: &mut impl FnMut(Chunk<'_>),
    ) -> bool {
        let half = self.half(side);
        let acknowledged = half.acknowledged_at.map(|_| half.acknowledged);
        let end = match (half.hole_end(), acknowledged) {
            (Some(end), Some(acknowledged)) => end.min(acknowledged),
            (Some(end), None) => end,
            (None, Some(acknowledged)) => acknowledged,
            (None, None) => return false,
        };
        let cause = if acknowledged.is_some() { GapCause::Missing } else { cause };
        let length = end.saturating_sub(half.next);
        if half.joining {
            self.half_mut(side).settle_start(end);
            return length > 0;
        }
        let time = half.front().map(|(_, piece)| piece.mark.time).or(half.fin().map(|fin| fin.mark.time));
        let time = time.or(half.acknowledged_at).unwrap_or_default();
        self.deliver_gap(side, time, length, cause, stats, deliver);
        length > 0
    }

    /// Gives up every hole of `side` below `offset`: our own capture lost what was there.
    pub(super) fn give_up_to(
        &mut self,
        side: Side,
        offset: u64,
        time: KernelInstant,
        stats: &mut Stats,
        deliver: &mut impl FnMut(Chunk<'_>),
    ) {
        self.half_mut(side).note_lost(offset);
        loop {
            self.pump(stats, deliver);
            let half = self.half(side);
            if half.finished || half.next >= offset {
                return;
            }
            let end = half.hole_end().map_or(offset, |end| end.min(offset));
            let (end, cause) = match half.is_skipping() {
                true => (end.min(half.cut_below), GapCause::Cut),
                false => (end, GapCause::Missing),
            };
            match end.saturating_sub(half.next) {
                0 => self.half_mut(side).release_front(),
                length => self.deliver_gap(side, time, length, cause, stats, deliver),
            }
        }
    }

    /// The side whose front has waited longest.
    fn longest_waiting(&self) -> Option<Side> {
        let since = |half: &Half| {
            let front = half.front().map(|(_, piece)| piece.mark.arrived);
            let fin = half.fin().map(|fin| fin.mark.arrived);
            front.into_iter().chain(fin).chain(half.acknowledged_at).min()
        };
        match (since(&self.originator), since(&self.responder)) {
            (None, None) => None,
            (Some(_), None) => Some(Side::Originator),
            (None, Some(_)) => Some(Side::Responder),
            (Some(originator), Some(responder)) if originator <= responder => Some(Side::Originator),
            (Some(_), Some(_)) => Some(Side::Responder),
        }
    }

    /// Delivers everything that is held, holes as gaps.
    pub(super) fn flush(
        &mut self,
        cause: GapCause,
        stats: &mut Stats,
        deliver: &mut impl FnMut(Chunk<'_>),
    ) -> bool {
        loop {
            let finished = self.pump(stats, deliver);
            if !self.force_step(cause, stats, deliver) {
                return finished;
            }
        }
    }

    /// Since when something waits, and when it has waited enough.
    pub(super) fn wait(&self, config: &Config) -> Option<(KernelInstant, KernelInstant)> {
        let mut wait: Option<(KernelInstant, KernelInstant)> = None;
        let mut add = |since: KernelInstant, timeout| {
            let until = since.plus(timeout);
            wait = Some(wait.map_or((since, until), |(s, u)| (s.min(since), u.min(until))));
        };
        for half in [&self.originator, &self.responder] {
            if let Some(since) = half.acknowledged_at {
                add(since, config.acknowledged_hole_timeout);
            }
            if let Some((_, piece)) = half.front() {
                add(piece.mark.arrived, if half.joining { JOIN_GRACE } else { config.hole_timeout });
            }
            if let Some(fin) = half.fin() {
                add(fin.mark.arrived, config.hole_timeout);
            }
        }
        if let Some(reset) = self.reset() {
            add(reset.arrived, reset.patience(config));
        }
        wait
    }

    /// Tells the end of the connection; everything held goes out before.
    pub(super) fn close(
        &mut self,
        cause: CloseCause,
        time: KernelInstant,
        stats: &mut Stats,
        deliver: &mut impl FnMut(Chunk<'_>),
    ) {
        self.flush(GapCause::Missing, stats, deliver);
        let sender = match cause {
            CloseCause::Reset(side) => side,
            CloseCause::Finished
            | CloseCause::Replaced
            | CloseCause::Idle
            | CloseCause::Evicted
            | CloseCause::SourceEnded => Side::Originator,
        };
        let counter = match cause {
            CloseCause::Finished => &mut stats.closed_finished,
            CloseCause::Reset(_) => &mut stats.closed_reset,
            CloseCause::Replaced => &mut stats.closed_replaced,
            CloseCause::Idle => &mut stats.closed_idle,
            CloseCause::Evicted => &mut stats.closed_evicted,
            CloseCause::SourceEnded => &mut stats.closed_source_ended,
        };
        *counter += 1;
        let offset = self.half(sender).next;
        let content = Content::Closed(cause);
        deliver(Chunk { connection: &self.facts, sender, time, offset, content });
    }
}
