//! What one segment does to its connection: data, FIN and RST of one direction, acknowledgement of the other.
//!
//! The usual segment, next in sequence with nothing waiting, is handed on from where it lies; everything else takes the
//! longer way. Never opens a connection and never looks at SYNs.

use super::{
    Chunk, CloseCause, GapCause, Side, Start, Stats,
    config::{Config, JOIN_GRACE, MAX_WINDOW},
    flow::{Flow, PendingReset},
    half::{Fin, Mark},
};
use crate::capture::{Direction, KernelInstant, Segment};

/// What is to be done with the connection after a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum After {
    /// Nothing waits.
    Quiet,
    /// Something waits, or did before: deadline and limits are to be looked at.
    Waiting,
    /// It is over.
    Over(CloseCause),
}

impl Flow {
    /// Takes a segment of `sender` that is no SYN.
    pub(super) fn accept(
        &mut self,
        sender: Side,
        segment: &Segment<'_>,
        now: KernelInstant,
        stats: &mut Stats,
        deliver: &mut impl FnMut(Chunk<'_>),
    ) -> After {
        self.note_facts(sender, segment);
        if self.is_usual(sender, segment) {
            let peer = self.half_mut(sender.other());
            peer.acknowledged = peer.acknowledged.max(peer.next);
            self.half_mut(sender).note_sighting_of(segment);
            self.deliver_bytes(sender, segment.time, segment.payload, stats, deliver);
            return if self.is_quiet() { After::Quiet } else { self.settle(stats, deliver) };
        }
        if segment.flags.rst() {
            return self.take_reset(sender, segment, now, stats, deliver);
        }
        if !self.half(sender).known && !self.begin_unseen(sender, segment) {
            return self.after(false);
        }
        let start = self.half(sender).offset_of(segment.sequence);
        if !self.half(sender).believes(start) {
            if self.half(sender).heard || segment.payload_length == 0 {
                stats.far_segments += 1;
                return self.after(false);
            }
            // Its numbering was another's word, and garbled: what the sender says itself counts.
            self.begin(sender, segment.sequence);
        }
        self.half_mut(sender).heard = true;
        let start = self.half(sender).offset_of(segment.sequence);
        let after = self.take_acknowledgement(sender, segment, now);
        self.contradict_reset(sender, start, after, segment, stats);
        let mark = Mark { time: segment.time, arrived: now, after };
        if segment.skipped_before {
            self.half_mut(sender).note_sent(u64::try_from(start).unwrap_or(0), mark);
            self.pump(stats, deliver);
        }
        let peer_is_past = self.half(sender.other()).is_past(after);
        let half = self.half_mut(sender);
        let length = segment.payload_length;
        let is_next = start == half.next as i64 && peer_is_past && half.is_quiet();
        if is_next
            && length > 0
            && length as usize == segment.payload.len()
            && !segment.flags.fin()
            && !half.finished
        {
            half.note_sighting_of(segment);
            self.deliver_bytes(sender, segment.time, segment.payload, stats, deliver);
            return if self.is_quiet() { After::Quiet } else { self.settle(stats, deliver) };
        }
        if segment.lost_before {
            self.give_up_to(sender.other(), after, segment.time, stats, deliver);
            let start = u64::try_from(start).unwrap_or(0);
            self.give_up_to(sender, start, segment.time, stats, deliver);
        }
        self.take_data(sender, start, segment, mark, stats, deliver);
        if segment.flags.fin() {
            self.take_finish(sender, start + i64::from(length), mark, stats);
        }
        self.settle(stats, deliver)
    }

    /// Whether a segment is one as nearly all are, for which the rest of [`Self::accept`] would do no more than deliver its
    /// bytes: the next of its direction, all captured, sent when everything of the other direction had come and no more,
    /// where nothing waits and nothing was left out.
    fn is_usual(&self, sender: Side, segment: &Segment<'_>) -> bool {
        let (half, peer) = (self.half(sender), self.half(sender.other()));
        let flags = segment.flags;
        let is_data = flags.ack() && !flags.fin() && !flags.rst() && !segment.payload.is_empty();
        is_data
            && segment.payload.len() == segment.payload_length as usize
            && !segment.skipped_before
            && (half.known && half.heard && peer.known)
            && segment.sequence == half.next_sequence()
            && segment.acknowledgement == peer.next_sequence()
            && (half.is_quiet() && !half.finished && self.reset.is_none())
    }

    /// Delivers what may go, and says what is to be done.
    pub(super) fn settle(&mut self, stats: &mut Stats, deliver: &mut impl FnMut(Chunk<'_>)) -> After {
        let finished = self.pump(stats, deliver);
        if let Some(reset) = self.reset().filter(|reset| !reset.is_exact) {
            let next = self.half(reset.sender).next;
            if next == reset.offset && self.half(reset.sender.other()).is_past(reset.after) {
                return After::Over(CloseCause::Reset(reset.sender));
            }
            if next > reset.offset {
                self.reset = None;
                stats.resets_ignored += 1;
            }
        }
        self.after(finished)
    }

    fn after(&self, finished: bool) -> After {
        match (finished, self.is_quiet()) {
            (true, _) => After::Over(CloseCause::Finished),
            (false, true) if self.waiting.is_none() => After::Quiet,
            (false, _) => After::Waiting,
        }
    }

    /// Gives up whatever has waited long enough at `now`.
    pub(super) fn expire(
        &mut self,
        now: KernelInstant,
        config: &Config,
        stats: &mut Stats,
        deliver: &mut impl FnMut(Chunk<'_>),
    ) -> After {
        loop {
            let after = self.settle(stats, deliver);
            let due = self.wait(config).is_some_and(|(_, until)| until <= now);
            if !due || matches!(after, After::Over(_)) {
                return after;
            }
            if !self.force_due(now, config, stats, deliver) {
                if let Some(reset) = self.reset_in_skip() {
                    // Nothing went on behind it.
                    let mark = Mark { time: reset.time, arrived: reset.arrived, after: 0 };
                    self.half_mut(reset.sender).note_sent(reset.offset, mark);
                    return After::Over(CloseCause::Reset(reset.sender));
                }
                // Only the reset is due: valid if uncontradicted, or if the stream has come to it, though not the other
                // direction.
                let is_valid =
                    |reset: &PendingReset| reset.is_exact || reset.offset == self.half(reset.sender).next;
                if let Some(reset) = self.reset().filter(is_valid) {
                    return After::Over(CloseCause::Reset(reset.sender));
                }
                self.reset = None;
                stats.resets_ignored += 1;
            }
        }
    }

    /// Gives up one hole that is due. False if none is.
    fn force_due(
        &mut self,
        now: KernelInstant,
        config: &Config,
        stats: &mut Stats,
        deliver: &mut impl FnMut(Chunk<'_>),
    ) -> bool {
        for side in [Side::Originator, Side::Responder] {
            let half = self.half(side);
            let acknowledged =
                half.acknowledged_at.is_some_and(|since| since.plus(config.acknowledged_hole_timeout) <= now);
            let held = half.front().map(|(_, piece)| piece.mark.arrived);
            let held = held.into_iter().chain(half.fin().map(|fin| fin.mark.arrived)).min();
            let timeout = if half.joining { JOIN_GRACE } else { config.hole_timeout };
            let held = held.is_some_and(|since| since.plus(timeout) <= now);
            let reset = self.reset().is_some_and(|reset| {
                !reset.is_exact
                    && reset.arrived.plus(config.acknowledged_hole_timeout) <= now
                    && reset.sender == side
                    && reset.offset <= half.highest
            });
            if acknowledged || held || reset {
                return self.force_step(GapCause::Missing, stats, deliver);
            }
        }
        false
    }

    fn note_facts(&mut self, sender: Side, segment: &Segment<'_>) {
        let facts = &mut self.facts;
        if facts.established_time.is_none()
            && facts.start == Start::Handshake
            && sender == Side::Originator
            && segment.flags.ack()
        {
            facts.established_time = Some(segment.time);
        }
        if facts.socket_cookie != segment.socket_cookie && segment.socket_cookie != 0 {
            facts.socket_cookie = segment.socket_cookie;
        }
    }

    /// Fixes the numbering of a side of which nothing was seen, from its first bytes. False if the segment has none.
    fn begin_unseen(&mut self, sender: Side, segment: &Segment<'_>) -> bool {
        let has_bytes = segment.payload_length > 0 || segment.flags.fin();
        if has_bytes {
            self.begin(sender, segment.sequence);
        }
        has_bytes
    }

    /// Fixes the numbering of a side: `sequence` is that of its next byte.
    pub(super) fn begin(&mut self, side: Side, sequence: u32) {
        let offset = match self.facts.start {
            Start::Middle => u64::from(sequence),
            Start::Handshake => 1,
        };
        if self.facts.start == Start::Middle && self.facts.local.is_none() {
            self.half_mut(side).join(sequence, offset);
        } else {
            self.half_mut(side).begin(sequence, offset);
        }
        if self.facts.start == Start::Handshake {
            let isn = match side {
                Side::Originator => &mut self.facts.originator_isn,
                Side::Responder => &mut self.facts.responder_isn,
            };
            *isn = Some(sequence.wrapping_sub(1));
        }
    }

    /// Notes what the segment acknowledges; gives the offset that its own bytes must wait for.
    fn take_acknowledgement(&mut self, sender: Side, segment: &Segment<'_>, now: KernelInstant) -> u64 {
        if !segment.flags.ack() {
            return 0;
        }
        let peer = self.half_mut(sender.other());
        if !peer.known && segment.acknowledgement == 0 {
            // Composed packets leave it out; of true ones it is zero once in four thousand million.
            return 0;
        }
        if !peer.known {
            self.begin(sender.other(), segment.acknowledgement);
        }
        let peer = self.half_mut(sender.other());
        let Some(offset) = peer.acknowledgement(segment.acknowledgement) else { return 0 };
        peer.note_acknowledged(offset, now);
        offset
    }

    fn take_data(
        &mut self,
        sender: Side,
        start: i64,
        segment: &Segment<'_>,
        mark: Mark,
        stats: &mut Stats,
        deliver: &mut impl FnMut(Chunk<'_>),
    ) {
        let length = i64::from(segment.payload_length.min(MAX_WINDOW));
        if length == 0 {
            return;
        }
        let half = self.half(sender);
        let limit = half.fin().map_or(i64::MAX, |fin| fin.offset as i64);
        let limit = if half.finished { half.next as i64 - 1 } else { limit };
        let end = (start + length).min(limit);
        stats.bytes_after_finish += (start + length - end.max(start)) as u64;
        let next = half.next as i64;
        if end <= next || end <= start {
            if end > start {
                self.take_old(sender, start, end, segment, stats);
            }
            return;
        }
        let skip = (next - start).max(0);
        let captured =
            segment.payload.get(..segment.payload.len().min((end - start) as usize)).unwrap_or_default();
        let bytes = captured.get(skip as usize..).unwrap_or_default();
        let (from, left) = ((start + skip) as u64, (end - start - skip) as u64);
        let peer_is_past = self.half(sender.other()).is_past(mark.after);
        let half = self.half_mut(sender);
        let is_free = half.front().is_none();
        if is_free && from == half.next && peer_is_past {
            half.note_sighting_of(segment);
            stats.overlapped_bytes += skip as u64;
            if !bytes.is_empty() {
                self.deliver_bytes(sender, segment.time, bytes, stats, deliver);
            }
            self.deliver_gap(sender, segment.time, left - bytes.len() as u64, GapCause::Cut, stats, deliver);
            return;
        }
        match half.hold(from, bytes, left, mark) {
            0 => self.take_old(sender, start, end, segment, stats),
            new => {
                half.note_sighting_of(segment);
                stats.out_of_order += 1;
                stats.overlapped_bytes += (end - start) as u64 - new;
            }
        }
    }

    /// A segment of which every byte was seen, or given up.
    fn take_old(&mut self, sender: Side, start: i64, end: i64, segment: &Segment<'_>, stats: &mut Stats) {
        let half = self.half(sender);
        let late = half.late(start, u64::try_from(end).unwrap_or(0));
        if late > 0 {
            stats.late_bytes += late;
        } else if segment.direction == Direction::Path
            && half.is_second_sighting(segment.sequence, segment.payload_length, segment.time)
        {
            stats.sighted_twice += 1;
        } else if segment.payload_length == 1 && end == half.highest as i64 {
            // RFC 9293 3.8.4: a probe has no data or one byte, and lies just before what is to be sent next.
            stats.keep_alives += 1;
        } else {
            stats.retransmits += 1;
            self.facts.retransmits += 1;
        }
    }

    /// A FIN waits for its place. Where data has that place already, it is one more copy of it, and the first wins.
    fn take_finish(&mut self, sender: Side, offset: i64, mark: Mark, stats: &mut Stats) {
        let half = self.half_mut(sender);
        if half.finished || half.fin().is_some() {
            return;
        }
        if offset < half.next as i64 || half.holds(offset as u64) {
            stats.finishes_ignored += 1;
            return;
        }
        half.hold_fin(Fin { offset: offset as u64, mark });
        half.highest = half.highest.max(offset as u64);
    }

    /// RFC 5961 3.2: a reset counts only at exactly the next expected sequence number. What the receiver expects is the
    /// stream's end as seen, or what it last acknowledged; after a FIN also the FIN's own number (some stacks).
    fn take_reset(
        &mut self,
        sender: Side,
        segment: &Segment<'_>,
        now: KernelInstant,
        stats: &mut Stats,
        deliver: &mut impl FnMut(Chunk<'_>),
    ) -> After {
        let half = self.half(sender);
        let peer = self.half(sender.other());
        let after = match segment.flags.ack() && peer.known {
            true => peer.acknowledgement(segment.acknowledgement).unwrap_or(0),
            false => 0,
        };
        let offset = half.offset_of(segment.sequence);
        let next = half.next as i64;
        if peer.skips(after) {
            // What the one who resets has received of a body was sent.
            self.half_mut(sender.other())
                .note_sent(after, Mark { time: segment.time, arrived: now, after: 0 });
            self.pump(stats, deliver);
        }
        let (half, peer) = (self.half(sender), self.half(sender.other()));
        let is_exact =
            offset == next || offset == half.acknowledged as i64 || half.finished && offset == next - 1;
        if half.known && is_exact && offset <= next && after <= peer.next {
            return self.take_exact_reset(sender, segment, now);
        }
        if !half.known || !half.believes(offset) || offset < next && !is_exact {
            stats.resets_ignored += 1;
            return self.after(false);
        }
        let offset = offset.max(next) as u64;
        if segment.lost_before {
            self.give_up_to(sender.other(), after, segment.time, stats, deliver);
            self.give_up_to(sender, offset, segment.time, stats, deliver);
            return After::Over(CloseCause::Reset(sender));
        }
        if half.skips(offset) && self.facts.local == Some(sender) {
            // This kernel has sent it, so it is true.
            self.half_mut(sender).note_sent(offset, Mark { time: segment.time, arrived: now, after });
            return After::Over(CloseCause::Reset(sender));
        }
        if self.reset.is_some() {
            stats.resets_ignored += 1;
        } else {
            self.reset = Some(Box::new(PendingReset {
                is_exact: false,
                sender,
                offset,
                after,
                time: segment.time,
                arrived: now,
            }));
        }
        self.settle(stats, deliver)
    }

    /// A reset in its place ends the connection: at once at a socket end, after [`super::config::RESET_GRACE`] on a path.
    fn take_exact_reset(&mut self, sender: Side, segment: &Segment<'_>, now: KernelInstant) -> After {
        if segment.direction != Direction::Path {
            return After::Over(CloseCause::Reset(sender));
        }
        if self.reset().is_none_or(|reset| !reset.is_exact) {
            let (offset, after) = (self.half(sender).next, self.half(sender.other()).next);
            self.reset = Some(Box::new(PendingReset {
                is_exact: true,
                sender,
                offset,
                after,
                time: segment.time,
                arrived: now,
            }));
        }
        After::Waiting
    }

    /// Whoever goes on with the stream that it is said to have reset, or acknowledges what came after the reset, has not
    /// reset it.
    fn contradict_reset(
        &mut self,
        sender: Side,
        start: i64,
        acknowledged: u64,
        segment: &Segment<'_>,
        stats: &mut Stats,
    ) {
        let Some(reset) = self.reset().filter(|reset| reset.is_exact && reset.sender == sender) else {
            return;
        };
        let half = self.half(sender);
        let goes_on = start == half.next as i64
            && !half.finished
            && (segment.payload_length > 0 || segment.flags.fin());
        if goes_on || acknowledged > reset.after {
            self.reset = None;
            stats.resets_contradicted += 1;
        }
    }
}
