//! Connection attempts: how long a SYN is waited for, what is told of it, and what is remembered of one that was told.
//!
//! * A SYN that nothing answered within [`super::Config::attempt_timeout`] is told as such and goes to the overdue, where its
//!   later copies and a late answer still find it, as far as [`super::Config::handshake_timeout`] reaches.
//! * At a server's end, on a path and at a network interface it is told only if the client sent it again: there an answer may pass unseen (SYN cookies,
//!   IPv6 before Linux 6.6; another way back), but no client repeats a SYN that was answered in time. One that did not has got
//!   its answer, or has given up: which of them is not known.
//! * Where the source lost something while it was waited for, the answer may have been in it: the fate is unknown.
//! * What was told as not answered, and is refused or found unreachable after that, is told a second time, as late.
//! * An ICMP error, which anybody can forge, ends an attempt only if it quotes the SYN's own sequence number, and an answer
//!   that comes all the same opens the connection.

use std::collections::VecDeque;

use super::{
    Attempt, Chunk, CloseCause, Connection, Fate, Reassembler, Side, Start,
    aged::Slot,
    config::{MAX_ATTEMPTS_QUEUED, OVERDUE_SHARE, SYN_SIGHTING_WINDOW},
    handshakes::{Handshakes, Pending, Told},
    key::{End, FlowKey},
};
use crate::capture::{Direction, KernelInstant, Segment, Unreachable};

/// What was told, and what may still come of it.
#[derive(Debug)]
pub(super) struct Attempts {
    queue: VecDeque<Attempt>,
    /// SYNs that were waited for long enough, in the order in which that was so.
    pub(super) overdue: Handshakes,
    /// The source last lost something then, or shortly before.
    last_loss: Option<KernelInstant>,
}

impl Attempts {
    /// Room for so many that are overdue.
    pub(super) fn with_capacity(overdue: usize) -> Self {
        Self { queue: VecDeque::new(), overdue: Handshakes::with_capacity(overdue), last_loss: None }
    }
}

impl Reassembler {
    /// The next connection attempt that came to its end. To be taken after every step until there is none; and if
    /// [`Self::attempts_are_full`] after [`Self::expire`] or [`Self::finish`], that has more to tell.
    pub fn pop_attempt(&mut self) -> Option<Attempt> {
        self.attempts.queue.pop_front()
    }

    /// As many wait to be taken as may: [`Self::expire`] or [`Self::finish`] may have stopped before its time.
    pub fn attempts_are_full(&self) -> bool {
        self.attempts.queue.len() >= MAX_ATTEMPTS_QUEUED
    }

    /// The source has lost or left out segments of connections that it does not name, some time before `now`.
    pub fn note_loss(&mut self, now: KernelInstant) {
        self.attempts.last_loss = Some(now);
    }

    /// Ends are seen at network interfaces from here on: [`super::Config::at_interfaces`].
    pub const fn watch_interfaces(&mut self) {
        self.config.at_interfaces = true;
    }

    /// Attempts that nothing has come of so far.
    pub fn open_attempts(&self) -> usize {
        self.handshakes.open() + self.attempts.overdue.open()
    }

    /// Ends what was waited for long enough.
    pub(super) fn expire_attempts(&mut self, deliver: &mut impl FnMut(Chunk<'_>)) {
        let now = self.now;
        while self.handshakes.oldest().is_some_and(|at| at.plus(self.config.attempt_timeout) <= now)
            && !self.must_pause()
            && let Some(mut pending) = self.handshakes.take_oldest()
        {
            let begin = pending.arrived;
            let end = begin.plus(self.config.attempt_timeout);
            pending.arrived = end;
            let is_certain = pending.is_at_client() && !self.config.at_interfaces;
            if is_certain || pending.retransmits > 0 {
                let is_in_doubt = self.attempts.last_loss.is_some_and(|lost| lost >= begin);
                let fate = if is_in_doubt { Fate::Unknown } else { Fate::Timeout };
                self.tell_pending(&mut pending, fate, end);
            }
            self.make_overdue(pending, deliver);
        }
        let patience = self.config.overdue_patience();
        while self.attempts.overdue.oldest().is_some_and(|at| at.plus(patience) <= now)
            && let Some(pending) = self.attempts.overdue.take_oldest()
        {
            self.stats.handshakes_expired += 1;
            self.stats.attempts_unanswered += u64::from(pending.is_open());
            self.tell_unanswered(&pending, CloseCause::Idle, deliver);
        }
    }

    /// When [`Self::expire_attempts`] has something to do at the earliest.
    pub(super) fn attempts_deadline(&self) -> Option<KernelInstant> {
        let waiting = self.handshakes.oldest().map(|at| at.plus(self.config.attempt_timeout));
        let overdue = self.attempts.overdue.oldest().map(|at| at.plus(self.config.overdue_patience()));
        match (waiting, overdue) {
            (Some(waiting), Some(overdue)) => Some(waiting.min(overdue)),
            (one, other) => one.or(other),
        }
    }

    /// Whether what is due has to wait until others were taken.
    fn must_pause(&mut self) -> bool {
        let is_full = self.attempts_are_full();
        self.stats.attempts_paused += u64::from(is_full);
        is_full
    }

    /// The source has ended: nobody knows what would have come of the rest. What a client had sent again is told.
    pub(super) fn finish_attempts(&mut self, deliver: &mut impl FnMut(Chunk<'_>)) {
        while let Some(mut pending) = self.next_unfinished() {
            self.stats.handshakes_expired += 1;
            if pending.is_open() && pending.retransmits > 0 {
                let end = pending.last_syn;
                self.tell_pending(&mut pending, Fate::Unknown, end);
            } else {
                self.stats.attempts_cut_off += u64::from(pending.is_open());
            }
            self.tell_unanswered(&pending, CloseCause::SourceEnded, deliver);
        }
    }

    fn next_unfinished(&mut self) -> Option<Pending> {
        let is_over = self.handshakes.is_empty() && self.attempts.overdue.is_empty();
        if is_over || self.must_pause() {
            return None;
        }
        self.handshakes.take_oldest().or_else(|| self.attempts.overdue.take_oldest())
    }

    /// Brings back what is overdue under `name`: something came that may be of it.
    pub(super) fn revive(&mut self, name: &FlowKey, deliver: &mut impl FnMut(Chunk<'_>)) {
        while !self.attempts.overdue.is_empty()
            && let Some(slot) = self.attempts.overdue.find_in_any_scope(name, |_| true)
            && let Some(mut pending) = self.attempts.overdue.take(slot)
        {
            pending.arrived = self.now;
            self.insert_pending(pending, deliver);
        }
    }

    fn make_overdue(&mut self, pending: Pending, deliver: &mut impl FnMut(Chunk<'_>)) {
        let mut oldest = None;
        if self.attempts.overdue.len() >= self.config.max_handshakes / OVERDUE_SHARE {
            oldest = self.attempts.overdue.take_oldest();
        }
        for forgotten in oldest.into_iter().chain(self.attempts.overdue.insert(pending)) {
            self.forget_pending(&forgotten, deliver);
        }
    }

    /// Remembers a handshake; those that have to make way for it are forgotten.
    pub(super) fn insert_pending(&mut self, pending: Pending, deliver: &mut impl FnMut(Chunk<'_>)) {
        let mut oldest = None;
        if self.handshakes.len() >= self.config.max_handshakes {
            oldest = self.handshakes.take_oldest();
        }
        for forgotten in oldest.into_iter().chain(self.handshakes.insert(pending)) {
            self.forget_pending(&forgotten, deliver);
        }
    }

    fn forget_pending(&mut self, pending: &Pending, deliver: &mut impl FnMut(Chunk<'_>)) {
        self.stats.handshakes_forgotten += 1;
        self.stats.attempts_forgotten += u64::from(pending.is_open());
        self.tell_unanswered(pending, CloseCause::Evicted, deliver);
    }

    /// A SYN that is remembered was seen again.
    pub(super) fn note_syn_again(&mut self, slot: Slot, time: KernelInstant) {
        self.stats.handshake_retransmits += 1;
        if let Some(pending) = self.handshakes.get_mut(slot) {
            // The same packet is seen again sooner, at another interface.
            if time.since(pending.last_syn) > SYN_SIGHTING_WINDOW {
                pending.retransmits = pending.retransmits.saturating_add(1);
            }
            pending.last_syn = pending.last_syn.max(time);
        }
    }

    /// A reset answered a handshake, or its own sender took it back, or it was answered before.
    pub(super) fn refuse_pending(&mut self, slot: Slot, sender: End, segment: &Segment<'_>) {
        let Some(mut pending) = self.handshakes.take(slot) else { return };
        if pending.is_accepted_by_reset(sender, segment) {
            let connection = pending.connection();
            return self.attempt_answered(&pending, &connection, segment);
        }
        self.stats.handshakes_refused += 1;
        if sender == pending.initiator {
            self.stats.attempts_withdrawn += u64::from(pending.is_open());
        } else {
            self.tell_pending(&mut pending, Fate::Refused, segment.time);
        }
    }

    /// An ICMP error quotes a SYN. The attempt is over for most clients, but the SYN stays remembered: RFC 1122 4.2.3.9 has a
    /// client go on, and what is forged ends nothing.
    pub(super) fn take_unreachable(
        &mut self,
        name: &FlowKey,
        sender: End,
        segment: &Segment<'_>,
        unreachable: Unreachable,
    ) {
        let is_quoted = |pending: &Pending| pending.initiator == sender && pending.isn == segment.sequence;
        let found = self.find_anywhere(name, is_quoted);
        let Some(mut pending) = found.and_then(|slot| self.handshakes.take(slot)) else {
            return match unreachable.by_this_kernel {
                // Of a client elsewhere, whose SYN was forwarded here, or not seen for another reason.
                true => {
                    self.tell_answer_alone(None, segment, segment.sequence, Fate::Unreachable(unreachable))
                }
                false => self.stats.unreachables_ignored += 1,
            };
        };
        self.tell_pending(&mut pending, Fate::Unreachable(unreachable), segment.time);
        pending.arrived = self.now;
        // It takes the place that it had.
        self.handshakes.insert(pending);
    }

    /// The handshake of `name` that satisfies `wanted`; of a socket end in any network world, if there is none in its own.
    pub(super) fn find_anywhere(&self, name: &FlowKey, wanted: impl Fn(&Pending) -> bool) -> Option<Slot> {
        let own = self.handshakes.find(name, &wanted);
        own.or_else(|| self.handshakes.find_in_any_scope(name, wanted))
    }

    /// The reset by which this kernel answers a SYN to a port that no socket has, and whose SYN is not seen at sockets
    /// therefore: no other segment is answered by one that has sequence number 0 (RFC 9293 3.10.7.1).
    pub(super) fn is_refusal_alone(segment: &Segment<'_>) -> bool {
        let flags = segment.flags;
        segment.direction == Direction::Egress
            && flags.rst()
            && flags.ack()
            && segment.sequence == 0
            && segment.payload_length == 0
    }

    /// Tells an attempt of which only the answer was seen. `segment` has the client as its source if it is a quoted SYN.
    pub(super) fn tell_answer_alone(
        &mut self,
        local: Option<Side>,
        segment: &Segment<'_>,
        isn: u32,
        fate: Fate,
    ) {
        let ends = match fate {
            Fate::Unreachable(_) => (segment.source, segment.destination),
            Fate::Answered | Fate::Refused | Fate::Timeout | Fate::Unknown => {
                (segment.destination, segment.source)
            }
        };
        self.stats.attempts_begun += 1;
        let connection = Connection {
            originator_isn: Some(isn),
            ..Connection::between(segment.scope, ends, local, Start::Handshake).seen_with(segment)
        };
        self.tell_attempt(Attempt { connection, fate, end: segment.time, late: false });
    }

    /// A handshake became `connection`, by what `segment` proves.
    pub(super) fn attempt_answered(
        &mut self,
        pending: &Pending,
        connection: &Connection,
        segment: &Segment<'_>,
    ) {
        let Some(begin) = pending.syn_time else { return };
        let late = pending.told != Told::Nothing;
        self.stats.attempts_answered += u64::from(!late);
        let is_third = segment.payload_length == 0 && !segment.flags.fin() && !segment.flags.rst();
        let end = match pending.answer {
            Some((_, time)) => time.max(begin),
            None if is_third => segment.time,
            // The answer passed unseen, and who has it may be silent for long: it came after the last SYN, no more is known.
            None => pending.last_syn,
        };
        let slow = pending.retransmits > 0 || end.since(begin) >= self.config.slow_attempt;
        self.stats.attempts_slow += u64::from(slow && !late);
        if slow || late || self.config.tell_every_attempt {
            self.tell_attempt(Attempt { connection: *connection, fate: Fate::Answered, end, late });
        }
    }

    /// Tells what came of a handshake that opened nothing: once, and a second time if it was answered after all.
    pub(super) fn tell_pending(&mut self, pending: &mut Pending, fate: Fate, end: KernelInstant) {
        let told = match fate {
            Fate::Timeout | Fate::Unknown => Told::Silence,
            Fate::Answered | Fate::Refused | Fate::Unreachable(_) => Told::Answer,
        };
        let late = pending.told == Told::Silence && told == Told::Answer;
        if !pending.is_open() && !late {
            return;
        }
        pending.told = told;
        let connection = pending.connection();
        self.tell_attempt(Attempt { connection, fate, end, late });
    }

    pub(super) fn tell_attempt(&mut self, attempt: Attempt) {
        let count = match attempt.fate {
            _ if attempt.late => &mut self.stats.attempts_late,
            Fate::Answered => &mut self.stats.attempts_answered_told,
            Fate::Refused => &mut self.stats.attempts_refused,
            Fate::Unreachable(_) => &mut self.stats.attempts_unreachable,
            Fate::Timeout => &mut self.stats.attempts_timed_out,
            Fate::Unknown => &mut self.stats.attempts_unknown,
        };
        *count += 1;
        self.attempts.queue.push_back(attempt);
    }
}
