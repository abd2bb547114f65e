//! The stage: finds each segment's connection, keeps the table and its limits, and ends what is over.
//!
//! What a segment does to its connection is in `accept`, how connections open in `opening`.

use std::collections::BTreeSet;

use super::{
    Chunk, CloseCause, Config, Connection, Fate, GapCause, Side, Stats,
    accept::After,
    aged::{Aged, Slot},
    attempts::Attempts,
    config::OVERDUE_SHARE,
    ended::Ended,
    flow::Flow,
    half::Half,
    handshakes::Handshakes,
    index::{Entry, Index, Which},
    key::{End, FlowKey},
    steering::Wishes,
};
use crate::capture::{KernelInstant, Segment};

/// How much a connection's place in the order of activity may lag: renewing it for every segment would cost more than
/// the rest. ns.
const ACTIVITY_STEP_NS: u64 = 1_000_000_000;

/// Segments in, Chunks out. See the module's head.
#[derive(Debug)]
pub struct Reassembler {
    pub(super) config: Config,
    pub(super) stats: Stats,
    /// The latest `now`.
    pub(super) now: KernelInstant,
    pub(super) next_token: u64,
    keys: Index,
    pub(super) flows: Aged<Flow>,
    pub(super) ended: Aged<Ended>,
    pub(super) handshakes: Handshakes,
    pub(super) attempts: Attempts,
    /// Connections that a listener's segments opened, by tuple, until the child's first segment comes: several at once
    /// only where network namespaces have the same addresses.
    pub(super) unlinked: Index,
    /// Connections in which something waits, by when it has waited enough.
    due: BTreeSet<(KernelInstant, Slot)>,
    /// The same, by since when.
    longest: BTreeSet<(KernelInstant, Slot)>,
    /// Cost of everything held.
    held: usize,
    /// What the capture is to be told.
    pub(super) wishes: Wishes,
    /// Connections in a skip, by when the capture is asked how they stand.
    pub(super) looks: BTreeSet<(KernelInstant, Slot)>,
}

impl Reassembler {
    /// An empty table.
    pub fn new(config: Config) -> Self {
        let (connections, handshakes, lingering) = match config.reserve {
            true => (config.max_connections, config.max_handshakes, config.max_lingering),
            false => (0, 0, 0),
        };
        Self {
            config,
            stats: Stats::default(),
            now: KernelInstant::default(),
            next_token: 0,
            keys: Index::with_capacity(2 * (connections + lingering)),
            flows: Aged::with_capacity(connections),
            ended: Aged::with_capacity(lingering),
            handshakes: Handshakes::with_capacity(handshakes),
            attempts: Attempts::with_capacity(handshakes / OVERDUE_SHARE),
            unlinked: Index::default(),
            due: BTreeSet::new(),
            longest: BTreeSet::new(),
            held: 0,
            wishes: Wishes::default(),
            looks: BTreeSet::new(),
        }
    }

    /// Takes a segment and hands on what it sets free. `now` is by the same clock as the segments' times; call
    /// [`Self::expire`] first when [`Self::next_deadline`] has passed.
    pub fn push(&mut self, segment: &Segment<'_>, now: KernelInstant, deliver: &mut impl FnMut(Chunk<'_>)) {
        self.stats.segments += 1;
        self.now = self.now.max(now);
        let (key, sender) = FlowKey::of(segment);
        if segment.flags.syn() {
            return self.take_syn(key, sender, segment, deliver);
        }
        match self.entry(&key) {
            Some(Entry::Live(slot)) => {
                let rival =
                    self.flows.get(slot).is_some_and(|flow| flow.rival && !flow.expects(sender, segment));
                let opened = match rival {
                    true => self.answered(key, sender, segment, false, deliver),
                    false => Err(Unanswered::Nothing),
                };
                match opened {
                    Ok(newer) => self.take_live(newer, sender, segment, deliver),
                    Err(Unanswered::Nothing) => self.take_live(slot, sender, segment, deliver),
                    Err(Unanswered::Taken) => {}
                }
            }
            entry => self.take_unknown(key, sender, segment, entry, deliver),
        }
    }

    /// Ends what has waited or been silent long enough at `now`.
    pub fn expire(&mut self, now: KernelInstant, deliver: &mut impl FnMut(Chunk<'_>)) {
        self.now = self.now.max(now);
        let now = self.now;
        while let Some(&(until, slot)) = self.due.first()
            && until <= now
        {
            let Some(flow) = self.flows.get_mut(slot) else { break };
            let after = flow.expire(now, &self.config, &mut self.stats, deliver);
            self.follow_up(slot, after, now, deliver);
        }
        while let Some((slot, flow)) = self.flows.oldest()
            && flow.active.plus(self.config.idle_timeout) <= now
        {
            self.end(slot, CloseCause::Idle, now, deliver);
        }
        self.expire_attempts(deliver);
        while let Some((slot, ended)) = self.ended.oldest()
            && ended.at.plus(self.config.linger) <= now
        {
            self.forget_ended(slot);
        }
    }

    /// When [`Self::expire`] has something to do at the earliest.
    pub fn next_deadline(&self) -> Option<KernelInstant> {
        // Asked for every segment, so without iterators: nothing of it is due by the latest instant there is.
        let latest = KernelInstant::from_nanos(u64::MAX);
        let mut deadline = latest;
        if let Some((until, _)) = self.due.first() {
            deadline = *until;
        }
        if let Some((_, flow)) = self.flows.oldest() {
            deadline = deadline.min(flow.active.plus(self.config.idle_timeout));
        }
        if let Some(at) = self.attempts_deadline() {
            deadline = deadline.min(at);
        }
        if let Some((_, ended)) = self.ended.oldest() {
            deadline = deadline.min(ended.at.plus(self.config.linger));
        }
        (deadline < latest).then_some(deadline)
    }

    /// The source has ended: everything held goes out, holes as gaps, and every connection is closed. To be called again if
    /// [`Self::attempts_are_full`] after it, once they were taken.
    pub fn finish(&mut self, deliver: &mut impl FnMut(Chunk<'_>)) {
        while let Some((slot, _)) = self.flows.oldest() {
            self.end(slot, CloseCause::SourceEnded, self.now, deliver);
        }
        self.finish_attempts(deliver);
    }

    /// The capture was told to leave out what `side` says below `offset` (the kernel's skip): what is missing there is
    /// a cut, told as soon as anything after it shows, and not waited for.
    pub fn expect_cut(&mut self, connection: &Connection, side: Side, offset: u64) {
        if let Some(slot) = self.live(connection)
            && let Some(flow) = self.flows.get_mut(slot)
        {
            flow.half_mut(side).expect_cut(offset);
        }
    }

    /// Counters since start.
    pub const fn stats(&self) -> &Stats {
        &self.stats
    }

    /// Connections in the table.
    pub const fn connections(&self) -> usize {
        self.flows.len()
    }

    /// What is held before its turn, bookkeeping included, bytes.
    pub const fn held_bytes(&self) -> usize {
        self.held + self.handshakes.payload_bytes() + self.attempts.overdue.payload_bytes()
    }

    pub(super) fn take_live(
        &mut self,
        slot: Slot,
        sender: End,
        segment: &Segment<'_>,
        deliver: &mut impl FnMut(Chunk<'_>),
    ) {
        let Some(flow) = self.flows.get_mut(slot) else { return };
        let side = flow.side_of(sender);
        flow.generation = segment.generation;
        let after = flow.accept(side, segment, self.now, &mut self.stats, deliver);
        let untold = self.config.credit_step.is_some_and(|step| flow.half(side).untold() >= step);
        if self.now.as_nanos().saturating_sub(flow.active.as_nanos()) >= ACTIVITY_STEP_NS {
            flow.active = self.now;
            self.flows.renew(slot);
        }
        if untold {
            self.wish(slot);
        }
        if after != After::Quiet {
            self.follow_up(slot, after, segment.time, deliver);
        }
    }

    /// A segment whose key has no live connection.
    fn take_unknown(
        &mut self,
        key: FlowKey,
        sender: End,
        segment: &Segment<'_>,
        entry: Option<Entry>,
        deliver: &mut impl FnMut(Chunk<'_>),
    ) {
        if let Some(slot) = self.link_child(key, sender, segment) {
            return self.take_live(slot, sender, segment, deliver);
        }
        match self.answered(key, sender, segment, true, deliver) {
            Ok(slot) => return self.take_live(slot, sender, segment, deliver),
            Err(Unanswered::Taken) => return,
            Err(Unanswered::Nothing) => {}
        }
        if let Some(Entry::Ended(slot)) = entry {
            if self.ended.get(slot).is_some_and(|ended| ended.refused) {
                return self.pass_over(slot, segment);
            }
            if self.ended.get(slot).is_some_and(|ended| ended.is_near(sender, segment)) {
                self.stats.after_close += 1;
                return;
            }
            self.forget_ended(slot);
        }
        if Self::is_refusal_alone(segment) {
            let isn = segment.acknowledgement.wrapping_sub(1);
            return self.tell_answer_alone(Some(Side::Responder), segment, isn, Fate::Refused);
        }
        if segment.payload_length == 0 || segment.flags.rst() {
            self.stats.unknown_bare += 1;
            return;
        }
        let slot = self.open_middle(key, sender, segment, deliver);
        self.take_live(slot, sender, segment, deliver);
    }

    /// Acts on what a segment left behind: the end, a deadline, a limit.
    pub(super) fn follow_up(
        &mut self,
        slot: Slot,
        after: After,
        time: KernelInstant,
        deliver: &mut impl FnMut(Chunk<'_>),
    ) {
        if let After::Over(cause) = after {
            return self.end(slot, cause, time, deliver);
        }
        self.look_at_reset(slot);
        self.count_waiting(slot);
        if let Some(cause) = self.limit_flow(slot, deliver) {
            return self.end(slot, cause, time, deliver);
        }
        while self.held_bytes() > self.config.max_total_held_bytes
            && let Some(&(_, longest)) = self.longest.first()
        {
            self.stats.limit_total += 1;
            match self.force(longest, deliver) {
                Some(After::Over(cause)) => self.end(longest, cause, time, deliver),
                Some(After::Quiet | After::Waiting) => self.count_waiting(longest),
                None => return,
            }
        }
    }

    /// Gives up holes of one connection until its directions are within their limits.
    fn limit_flow(&mut self, slot: Slot, deliver: &mut impl FnMut(Chunk<'_>)) -> Option<CloseCause> {
        loop {
            let flow = self.flows.get(slot)?;
            if !flow.is_over(self.config.max_held_bytes, self.config.max_held_pieces) {
                return None;
            }
            self.stats.limit_direction += 1;
            let after = self.force(slot, deliver)?;
            self.count_waiting(slot);
            if let After::Over(cause) = after {
                return Some(cause);
            }
        }
    }

    /// One step of making way. Absent if there was nothing to do.
    fn force(&mut self, slot: Slot, deliver: &mut impl FnMut(Chunk<'_>)) -> Option<After> {
        let flow = self.flows.get_mut(slot)?;
        let mut moved = flow.force_step(GapCause::Limit, &mut self.stats, deliver);
        if !moved && flow.reset.take().is_some() {
            self.stats.resets_ignored += 1;
            moved = true;
        }
        moved.then(|| flow.settle(&mut self.stats, deliver))
    }

    /// Brings the totals and the order of waiting up to date.
    fn count_waiting(&mut self, slot: Slot) {
        let Some(flow) = self.flows.get_mut(slot) else { return };
        let cost = flow.held_cost();
        self.held = self.held - flow.counted + cost;
        flow.counted = cost;
        let wait = flow.wait(&self.config);
        if wait == flow.waiting {
            return;
        }
        if let Some((since, until)) = std::mem::replace(&mut flow.waiting, wait) {
            self.longest.remove(&(since, slot));
            self.due.remove(&(until, slot));
        }
        if let Some((since, until)) = wait {
            self.longest.insert((since, slot));
            self.due.insert((until, slot));
        }
    }

    /// Ends a connection: the rest of it goes out, and its key is free or lingers.
    pub(super) fn end(
        &mut self,
        slot: Slot,
        cause: CloseCause,
        time: KernelInstant,
        deliver: &mut impl FnMut(Chunk<'_>),
    ) {
        let Some(mut flow) = self.flows.remove(slot) else { return };
        let time = flow.reset().map_or(time, |reset| reset.time);
        // A reset that nobody contradicted is what ended it, whatever made us look.
        let cause = flow
            .reset()
            .filter(|reset| reset.is_exact)
            .map_or(cause, |reset| CloseCause::Reset(reset.sender));
        flow.close(cause, time, &mut self.stats, deliver);
        self.strike(slot, &flow);
        if matches!(cause, CloseCause::Finished | CloseCause::Reset(_)) {
            self.linger(flow, false);
        }
    }

    /// Nothing of this connection is wanted. What is held of it is dropped and nothing more is delivered, not even its
    /// end; its segments are only counted until it was silent for [`Config::linger`]. A new generation is a new
    /// connection.
    pub fn refuse(&mut self, connection: &Connection) {
        if let Some(slot) = self.live(connection)
            && let Some(flow) = self.flows.remove(slot)
        {
            self.stats.closed_refused += 1;
            self.strike(slot, &flow);
            self.wishes.refuse(&flow);
            self.linger(flow, true);
        }
    }

    /// Counts a segment of a refused connection.
    fn pass_over(&mut self, slot: Slot, segment: &Segment<'_>) {
        self.stats.refused_segments += 1;
        self.stats.refused_bytes += u64::from(segment.payload_length);
        if let Some(ended) = self.ended.get_mut(slot) {
            ended.at = self.now;
            self.ended.renew(slot);
        }
    }

    /// Strikes a connection that left the table from everything that names it.
    fn strike(&mut self, slot: Slot, flow: &Flow) {
        self.held -= flow.counted;
        if let Some((since, until)) = flow.waiting {
            self.longest.remove(&(since, slot));
            self.due.remove(&(until, slot));
        }
        if let Some(at) = flow.look {
            self.looks.remove(&(at, slot));
        }
        self.wishes.over(flow);
        if flow.unlinked {
            self.unlinked.remove(&flow.key().any_socket(), Entry::Live(slot), Which::Own);
        }
        self.keys.remove(&flow.key(), Entry::Live(slot), Which::Own);
        if let Some(child) = &flow.alias {
            self.keys.remove(child, Entry::Live(slot), Which::Child);
        }
    }

    fn linger(&mut self, flow: Flow, refused: bool) {
        if self.config.max_lingering == 0 {
            return;
        }
        while self.ended.len() >= self.config.max_lingering
            && let Some((oldest, _)) = self.ended.oldest()
        {
            self.stats.limit_lingering += 1;
            self.forget_ended(oldest);
        }
        let halves = [End::Near, End::Far].map(|end| flow.half(flow.side_of(end)));
        let next = halves.map(Half::next_sequence);
        let first = halves.map(|half| half.known.then_some(half.first));
        let (key, child) = (flow.key(), flow.alias);
        let second = child.as_deref().copied();
        let slot = self.ended.insert(Ended { key, child, first, next, at: self.now, refused });
        self.enter(&key, Entry::Ended(slot), Which::Own);
        if let Some(child) = second {
            self.enter(&child, Entry::Ended(slot), Which::Child);
        }
    }

    pub(super) fn forget_ended(&mut self, slot: Slot) {
        let Some(ended) = self.ended.remove(slot) else { return };
        self.keys.remove(&ended.key, Entry::Ended(slot), Which::Own);
        if let Some(child) = &ended.child {
            self.keys.remove(child, Entry::Ended(slot), Which::Child);
        }
    }

    /// What `key` stands for.
    pub(super) fn entry(&self, key: &FlowKey) -> Option<Entry> {
        let Self { keys, flows, ended, .. } = self;
        keys.find(key, |entry, which| match entry {
            Entry::Live(slot) => flows.get(slot).is_some_and(|flow| flow.has_key(key, which)),
            Entry::Ended(slot) => ended.get(slot).is_some_and(|ended| ended.key_of(which) == Some(*key)),
        })
    }

    /// `key` stands for `entry` from here on; for what it stood before.
    pub(super) fn enter(&mut self, key: &FlowKey, entry: Entry, which: Which) -> Option<Entry> {
        let before = self.entry(key);
        if let Some(before) = before {
            self.keys.remove(key, before, Which::Own);
            self.keys.remove(key, before, Which::Child);
        }
        let Self { keys, flows, ended, .. } = self;
        keys.add(key, entry, which, |entry, which| key_of(flows, ended, entry, which));
        before
    }
}

/// The key of an entry in the table's index.
fn key_of(flows: &Aged<Flow>, ended: &Aged<Ended>, entry: Entry, which: Which) -> Option<FlowKey> {
    match entry {
        Entry::Live(slot) => flows.get(slot)?.key_of(which),
        Entry::Ended(slot) => ended.get(slot)?.key_of(which),
    }
}

/// Why a segment opened no pending connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unanswered {
    /// It answers none.
    Nothing,
    /// It is a handshake's but opens none: it refused it, or may be forged with it.
    Taken,
}
