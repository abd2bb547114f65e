//! How connections begin: SYNs and their answers, the middle, and the child of a listener.
//!
//! A SYN alone opens nothing and ends nothing, for anybody can send one; it is remembered until something answers it.

use pod2pod_common::segment as contract;

use super::{
    Chunk, CloseCause, Connection, ConnectionToken, GapCause, Reassembler, Side, Start, Stats,
    aged::{Aged, Slot},
    config::HANDSHAKE_REACH,
    flow::Flow,
    handshakes::Pending,
    index::{Entry, Which},
    key::{End, FlowKey},
    reassembler::Unanswered,
};
use crate::capture::{Direction, KernelInstant, Segment, TcpFlags};

impl Reassembler {
    /// Takes a segment with SYN.
    pub(super) fn take_syn(
        &mut self,
        key: FlowKey,
        sender: End,
        segment: &Segment<'_>,
        deliver: &mut impl FnMut(Chunk<'_>),
    ) {
        let name = handshake_key(key, segment);
        self.revive(&name, deliver);
        if let Some(unreachable) = segment.unreachable {
            self.take_unreachable(&name, sender, segment, unreachable);
        } else if segment.flags.fin() || segment.flags.rst() {
            self.stats.contradictory_flags += 1;
        } else if self.is_repeated(key, sender, segment) {
            self.stats.handshake_retransmits += 1;
        } else if segment.flags.ack() {
            self.take_syn_ack(key, sender, segment, deliver);
        } else {
            self.take_first_syn(key, sender, segment, deliver);
        }
    }

    /// Whether a SYN or SYN-ACK is the own one of the live connection, or of the last, seen again or late.
    fn is_repeated(&mut self, key: FlowKey, sender: End, segment: &Segment<'_>) -> bool {
        let slot = match self.entry(&key) {
            Some(Entry::Live(slot)) => slot,
            Some(Entry::Ended(slot)) => {
                return self.ended.get(slot).is_some_and(|ended| ended.began_with(sender, segment));
            }
            None => return false,
        };
        let Some(flow) = self.flows.get_mut(slot) else { return false };
        let side = flow.side_of(sender);
        let half = flow.half(side);
        let is_own = half.known && half.first == segment.sequence.wrapping_add(1);
        if !is_own || flow.facts.start == Start::Middle {
            return is_own;
        }
        let is_answer = segment.flags.ack();
        if is_answer == (side == Side::Originator) {
            return false;
        }
        let is_client = flow.facts.local == Some(Side::Originator);
        if is_answer && is_client && flow.facts.established_time.is_none() {
            flow.facts.established_time = Some(segment.time);
        }
        if !is_answer {
            flow.note_syn(segment.time);
        }
        true
    }

    fn take_first_syn(
        &mut self,
        key: FlowKey,
        sender: End,
        segment: &Segment<'_>,
        deliver: &mut impl FnMut(Chunk<'_>),
    ) {
        let name = handshake_key(key, segment);
        let isn = segment.sequence;
        let known = self.handshakes.find(&name, |pending| pending.initiator == sender && pending.isn == isn);
        if let Some(slot) = known {
            if self.handshakes.get_mut(slot).is_some_and(|pending| pending.syn_time.is_some()) {
                return self.note_syn_again(slot, segment.time);
            }
            let Some(mut pending) = self.handshakes.take(slot) else { return };
            // Its SYN-ACK came first: the capture is out of order.
            pending.syn_time = Some(segment.time);
            self.stats.attempts_begun += 1;
            self.open_taken(pending, sender, segment, deliver);
            return;
        }
        self.stats.attempts_begun += 1;
        let mut pending = Pending::new(name, sender, isn, segment, self.now);
        pending.syn_time = Some(segment.time);
        pending.payload_length = segment.payload_length;
        if self.held_bytes() + segment.payload.len() <= self.config.max_total_held_bytes {
            pending.payload = segment.payload.into();
        }
        self.remember(key, pending, deliver);
    }

    fn take_syn_ack(
        &mut self,
        key: FlowKey,
        sender: End,
        segment: &Segment<'_>,
        deliver: &mut impl FnMut(Chunk<'_>),
    ) {
        let name = handshake_key(key, segment);
        let found = self.handshakes.find(&name, |pending| {
            pending.initiator != sender && pending.is_acknowledged_by(segment.acknowledgement)
        });
        let answer = Some((segment.sequence, segment.time));
        let Some(slot) = found else {
            let isn = segment.acknowledgement.wrapping_sub(1);
            let initiator = if sender == End::Near { End::Far } else { End::Near };
            let mut pending = Pending::new(name, initiator, isn, segment, self.now);
            pending.answer = answer;
            return self.remember(key, pending, deliver);
        };
        let Some(pending) = self.handshakes.get_mut(slot) else { return };
        if pending.syn_time.is_none() {
            self.stats.handshake_retransmits += 1;
            return;
        }
        pending.answer = answer;
        pending.accepted = pending.initiator_distance(segment.acknowledgement);
        let slot = self.open_pending(slot, sender, segment, deliver);
        if let (Some(slot), true) = (slot, segment.payload_length > 0) {
            let flags = TcpFlags(segment.flags.0 & !contract::TCP_SYN);
            let data = Segment { sequence: segment.sequence.wrapping_add(1), flags, ..*segment };
            self.take_live(slot, sender, &data, deliver);
        }
    }

    fn remember(&mut self, key: FlowKey, pending: Pending, deliver: &mut impl FnMut(Chunk<'_>)) {
        if let Some(Entry::Live(slot)) = self.entry(&key)
            && let Some(flow) = self.flows.get_mut(slot)
        {
            flow.rival = true;
        }
        self.insert_pending(pending, deliver);
    }

    /// Tells what a SYN carried that nothing answered, as a connection of its own. On a path only, where the answer may
    /// just not have been seen: an end knows that there was none. A SYN of the other end that was not answered either
    /// is the second half of a simultaneous opening (RFC 9293 3.5).
    pub(super) fn tell_unanswered(
        &mut self,
        pending: &Pending,
        cause: CloseCause,
        deliver: &mut impl FnMut(Chunk<'_>),
    ) {
        let Some(time) = pending.syn_time else { return };
        if pending.payload_length == 0 || !pending.key.is_path() {
            return;
        }
        let answers = |other: &Pending| other.initiator != pending.initiator && other.answer.is_none();
        let partner = self.handshakes.take_first(&pending.key, answers);
        let partner = partner.or_else(|| self.attempts.overdue.take_first(&pending.key, answers));
        self.stats.attempts_cut_off += u64::from(partner.as_ref().is_some_and(Pending::is_open));
        let facts = Connection { token: self.new_token(), originator_isn: None, ..pending.connection() };
        self.stats.opened_handshake += 1;
        let mut flow = Flow::new(facts, pending.initiator, self.now);
        for (side, syn) in [(Side::Originator, Some(pending)), (Side::Responder, partner.as_ref())] {
            let Some(syn) = syn else { continue };
            let time = syn.syn_time.unwrap_or(time);
            flow.begin(side, syn.isn.wrapping_add(1));
            deliver_syn_data(&mut flow, side, time, syn, syn.payload_length, &mut self.stats, deliver);
        }
        flow.close(cause, self.now, &mut self.stats, deliver);
    }

    const fn new_token(&mut self) -> ConnectionToken {
        let token = ConnectionToken(self.next_token);
        self.next_token += 1;
        token
    }

    /// Opens the connection that a segment without SYN proves, if it proves one. `is_alone`: the tuple has no live
    /// connection, so less is asked of the proof.
    pub(super) fn answered(
        &mut self,
        key: FlowKey,
        sender: End,
        segment: &Segment<'_>,
        is_alone: bool,
        deliver: &mut impl FnMut(Chunk<'_>),
    ) -> Result<Slot, Unanswered> {
        if self.handshakes.is_empty() && self.attempts.overdue.is_empty() {
            return Err(Unanswered::Nothing);
        }
        let name = handshake_key(key, segment);
        self.revive(&name, deliver);
        if segment.flags.rst() {
            let refused = self.find_anywhere(&name, |pending| is_refusal(pending, sender, segment));
            return match refused {
                Some(slot) => {
                    self.refuse_pending(slot, sender, segment);
                    Err(Unanswered::Taken)
                }
                None => Err(Unanswered::Nothing),
            };
        }
        let proved = self.handshakes.find(&name, |pending| is_proof(pending, sender, segment, is_alone));
        if proved.is_none() && !is_alone {
            // A bare third packet proves too little to end the older connection, of which it is none either.
            let third = |pending: &Pending| {
                pending.initiator == sender && pending.initiator_distance(segment.sequence) == 0
            };
            return match self.handshakes.find(&name, third) {
                Some(_) => Err(Unanswered::Taken),
                None => Err(Unanswered::Nothing),
            };
        }
        let slot = proved.and_then(|slot| {
            let pending = self.handshakes.get_mut(slot)?;
            if pending.initiator == sender
                && pending.initiator_distance(segment.sequence) == pending.payload_length
            {
                // The sender goes on after its SYN's data: they were accepted.
                pending.accepted = pending.payload_length;
            }
            self.open_pending(slot, sender, segment, deliver)
        });
        slot.ok_or(Unanswered::Nothing)
    }

    /// Turns a remembered handshake into the tuple's live connection. `segment` is the one that proved it.
    fn open_pending(
        &mut self,
        slot: Slot,
        sender: End,
        segment: &Segment<'_>,
        deliver: &mut impl FnMut(Chunk<'_>),
    ) -> Option<Slot> {
        let pending = self.handshakes.take(slot)?;
        Some(self.open_taken(pending, sender, segment, deliver))
    }

    fn open_taken(
        &mut self,
        pending: Pending,
        sender: End,
        segment: &Segment<'_>,
        deliver: &mut impl FnMut(Chunk<'_>),
    ) -> Slot {
        let mut facts = self.facts(sender == pending.initiator, segment, Start::Handshake);
        facts.syn_time = pending.syn_time;
        facts.syn_retransmits = pending.retransmits;
        facts.interface_index = pending.interface_index;
        if facts.local == Some(Side::Originator) {
            facts.established_time = pending.answer.map(|(_, time)| time);
        }
        let mut flow = Flow::new(facts, pending.initiator, self.now);
        if let Some(first) = pending.syn_time {
            flow.last_syn_ms = Flow::syn_after(first, pending.last_syn);
        }
        flow.begin(Side::Originator, pending.isn.wrapping_add(1));
        if let Some((isn, _)) = pending.answer {
            flow.begin(Side::Responder, isn.wrapping_add(1));
        }
        let accepted = pending.accepted.min(pending.payload_length);
        self.stats.syn_bytes_dropped += u64::from(pending.payload_length - accepted);
        self.stats.opened_handshake += 1;
        flow.unlinked = segment.scope_is_cookie && flow.facts.local == Some(Side::Responder);
        self.attempt_answered(&pending, &flow.facts, segment);
        let slot = self.install(flow, segment, deliver);
        if let Some(flow) = self.flows.get_mut(slot) {
            let time = pending.syn_time.unwrap_or(segment.time);
            deliver_syn_data(flow, Side::Originator, time, &pending, accepted, &mut self.stats, deliver);
        }
        slot
    }

    /// Opens a connection whose beginning was not seen.
    pub(super) fn open_middle(
        &mut self,
        key: FlowKey,
        sender: End,
        segment: &Segment<'_>,
        deliver: &mut impl FnMut(Chunk<'_>),
    ) -> Slot {
        let facts = self.facts(true, segment, Start::Middle);
        let mut flow = Flow::new(facts, sender, self.now);
        flow.begin(Side::Originator, segment.sequence);
        flow.rival = self.handshakes.find(&handshake_key(key, segment), |_| true).is_some();
        self.stats.opened_middle += 1;
        self.install(flow, segment, deliver)
    }

    /// Puts a connection into the table; the tuple's older one ends, and so does the least recently active one if the
    /// table is full.
    fn install(&mut self, flow: Flow, segment: &Segment<'_>, deliver: &mut impl FnMut(Chunk<'_>)) -> Slot {
        let key = flow.key();
        match self.entry(&key) {
            Some(Entry::Live(old)) => self.end(old, CloseCause::Replaced, segment.time, deliver),
            Some(Entry::Ended(old)) => self.forget_ended(old),
            None => {}
        }
        while self.flows.len() >= self.config.max_connections.max(1)
            && let Some((oldest, _)) = self.flows.oldest()
        {
            self.end(oldest, CloseCause::Evicted, segment.time, deliver);
        }
        let unlinked = flow.unlinked;
        let slot = self.flows.insert(flow);
        self.enter(&key, Entry::Live(slot), Which::Own);
        if unlinked {
            let Self { unlinked, flows, .. } = self;
            unlinked.add(&key.any_socket(), Entry::Live(slot), Which::Own, |entry, _| name_of(flows, entry));
        }
        slot
    }

    /// Where scopes are socket cookies: the connection that the listener's segments opened, if this is its child's
    /// first segment. It is known by its tuple and its place in the sequence.
    pub(super) fn link_child(&mut self, key: FlowKey, sender: End, segment: &Segment<'_>) -> Option<Slot> {
        if !segment.scope_is_cookie {
            return None;
        }
        let name = key.any_socket();
        let distance = |entry: Entry| {
            let Entry::Live(slot) = entry else { return None };
            let flow = self.flows.get(slot)?;
            let half = flow.half(flow.side_of(sender));
            let distance = half.offset_of(segment.sequence).abs_diff(half.next as i64);
            // Without a number to compare, every other one fits better.
            let distance = if half.known { distance } else { u64::from(HANDSHAKE_REACH) };
            (distance <= u64::from(HANDSHAKE_REACH)).then_some((distance, slot))
        };
        let named = self.unlinked.find_all(&name, |entry, _| name_of(&self.flows, entry) == Some(name));
        let (_, slot) = named.filter_map(distance).min()?;
        let flow = self.flows.get_mut(slot)?;
        flow.alias = Some(Box::new(key));
        flow.unlinked = false;
        self.unlinked.remove(&name, Entry::Live(slot), Which::Own);
        if let Some(Entry::Ended(old)) = self.enter(&key, Entry::Live(slot), Which::Child) {
            self.forget_ended(old);
        }
        Some(slot)
    }

    fn facts(&mut self, is_by_originator: bool, segment: &Segment<'_>, start: Start) -> Connection {
        let ends = match is_by_originator {
            true => (segment.source, segment.destination),
            false => (segment.destination, segment.source),
        };
        let local = match (segment.direction, is_by_originator) {
            (Direction::Path, _) => None,
            (Direction::Egress, true) | (Direction::Ingress, false) => Some(Side::Originator),
            (Direction::Egress, false) | (Direction::Ingress, true) => Some(Side::Responder),
        };
        Connection {
            token: self.new_token(),
            behind_loss: start == Start::Middle && segment.lost_before,
            ..Connection::between(segment.scope, ends, local, start).seen_with(segment)
        }
    }
}

/// Hands on the first `length` bytes of what a SYN carried, as far as they were captured and kept.
fn deliver_syn_data(
    flow: &mut Flow,
    side: Side,
    time: KernelInstant,
    syn: &Pending,
    length: u32,
    stats: &mut Stats,
    deliver: &mut impl FnMut(Chunk<'_>),
) {
    let bytes = syn.payload.get(..syn.payload.len().min(length as usize)).unwrap_or_default();
    if !bytes.is_empty() {
        flow.deliver_bytes(side, time, bytes, stats, deliver);
    }
    let cut = u64::from(length) - bytes.len() as u64;
    flow.deliver_gap(side, time, cut, GapCause::Cut, stats, deliver);
}

/// The name under which a connection waits for its child.
fn name_of(flows: &Aged<Flow>, entry: Entry) -> Option<FlowKey> {
    let Entry::Live(slot) = entry else { return None };
    flows.get(slot).map(|flow| flow.key().any_socket())
}

/// A listener's handshake has another cookie than its child: there the tuple and the ISN must do.
fn handshake_key(key: FlowKey, segment: &Segment<'_>) -> FlowKey {
    if segment.scope_is_cookie { key.any_socket() } else { key }
}

/// Whether a reset answers a SYN (RFC 9293 3.10.7.3), or takes it back.
fn is_refusal(pending: &Pending, sender: End, segment: &Segment<'_>) -> bool {
    if sender == pending.initiator {
        pending.initiator_distance(segment.sequence) == 0
    } else {
        segment.flags.ack() && pending.is_acknowledged_by(segment.acknowledgement)
    }
}

/// Whether a segment without SYN proves that a handshake was answered.
fn is_proof(pending: &Pending, sender: End, segment: &Segment<'_>, is_alone: bool) -> bool {
    let has_bytes = segment.payload_length > 0 || segment.flags.fin();
    let reach = if is_alone { HANDSHAKE_REACH } else { 0 };
    if sender == pending.initiator {
        let distance = pending.initiator_distance(segment.sequence);
        let is_next = distance == 0 || distance == pending.payload_length;
        return match pending.answer {
            // RFC 9293 3.10.7.4: it must acknowledge the SYN-ACK.
            Some((isn, _)) => {
                let acknowledged = segment.acknowledgement.wrapping_sub(isn).wrapping_sub(1);
                segment.flags.ack()
                    && acknowledged <= HANDSHAKE_REACH
                    && (is_next || has_bytes && distance <= reach)
            }
            None => (is_next && (has_bytes || is_alone)) || has_bytes && distance <= reach,
        };
    }
    let acknowledged = pending.initiator_distance(segment.acknowledgement);
    match pending.answer {
        Some((isn, _)) => has_bytes && segment.sequence.wrapping_sub(isn).wrapping_sub(1) <= reach,
        None => has_bytes && segment.flags.ack() && acknowledged <= reach.max(pending.payload_length),
    }
}
