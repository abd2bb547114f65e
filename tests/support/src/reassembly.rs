//! Runs a Reassembler as the agent does, notes what it tells, and checks what must hold for every input.
//!
//! Expectations are told as text, one line a step: connection, side, offset, content. Adjacent bytes of one side are
//! one line. [`properties`] is what the fuzz target and the corpus test run.

use std::collections::BTreeMap;

use pod2pod_user::{
    capture::{Direction, KernelInstant, Scope, TcpFlags},
    reassembly::{
        Attempt, Chunk, CloseCause, Config, Connection, ConnectionToken, Content, GapCause, Reassembler,
        Side, Start, Stats,
    },
};

use crate::conversation::{Conversation, OwnedSegment};

/// One step, as told by Chunks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    /// The connection.
    pub token: ConnectionToken,
    /// Who sent it.
    pub sender: Side,
    /// Where in the sender's stream.
    pub offset: u64,
    /// Time of the first Chunk of the step.
    pub time: KernelInstant,
    /// What it is.
    pub what: What,
}

/// What a step is; the owned form of [`Content`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// Bytes.
    Bytes(Vec<u8>),
    /// Length, cause, may be ours.
    Gap(u64, GapCause, bool),
    /// FIN.
    Finished,
    /// The end.
    Closed(CloseCause),
}

/// Everything that came out, and what is known at the end.
#[derive(Debug, Default)]
pub struct Outcome {
    /// The steps.
    pub told: Vec<Told>,
    /// Connection attempts.
    pub attempts: Vec<Attempt>,
    /// Each connection as told last.
    pub facts: BTreeMap<ConnectionToken, Connection>,
    /// Counters.
    pub stats: Stats,
    /// The most that was held at once, bytes.
    pub most_held: usize,
    /// The most connections at once.
    pub most_connections: usize,
    /// Offset that must come next, per side.
    next: BTreeMap<(ConnectionToken, bool), u64>,
    open: BTreeMap<ConnectionToken, bool>,
    /// Index of each connection's last step.
    last: BTreeMap<ConnectionToken, usize>,
}

/// A Reassembler with what it told.
pub struct Observer {
    reassembler: Reassembler,
    outcome: Outcome,
}

impl Observer {
    /// Nothing seen yet.
    pub fn new(config: Config) -> Self {
        Self { reassembler: Reassembler::new(config), outcome: Outcome::default() }
    }

    /// As the agent's loop does: first what is due, then the segment.
    pub fn push(&mut self, segment: &OwnedSegment) {
        if self.reassembler.next_deadline().is_some_and(|deadline| deadline <= segment.time) {
            self.expire(segment.time);
        }
        self.push_at_once(segment);
    }

    /// As [`push`](Self::push), but in the same instant as what was pushed before: nothing falls due between them.
    fn push_at_once(&mut self, segment: &OwnedSegment) {
        let outcome = &mut self.outcome;
        self.reassembler.push(&segment.borrow(), segment.time, &mut |chunk| outcome.tell(&chunk));
        outcome.attempts.extend(std::iter::from_fn(|| self.reassembler.pop_attempt()));
        outcome.most_held = outcome.most_held.max(self.reassembler.held_bytes());
        outcome.most_connections = outcome.most_connections.max(self.reassembler.connections());
    }

    /// Tells the reassembler that the first connection's `side` is left out below `offset`.
    pub fn expect_cut(&mut self, side: Side, offset: u64) {
        let connection = self.outcome.facts.values().next().expect("a connection was told");
        self.reassembler.expect_cut(connection, side, offset);
    }

    /// Tells the reassembler that the connection told last is not wanted.
    pub fn refuse(&mut self) {
        let connection = self.outcome.facts.values().next_back().expect("a connection was told");
        self.reassembler.refuse(connection);
        self.outcome.open.insert(connection.token, false);
    }

    /// Tells the reassembler that what was refused may be wanted now.
    pub fn forget_refused(&mut self) {
        self.reassembler.forget_refused();
    }

    /// The steps so far, as text.
    pub fn lines(&self) -> Vec<String> {
        self.outcome.lines()
    }

    /// Lets time pass.
    pub fn expire(&mut self, now: KernelInstant) {
        let outcome = &mut self.outcome;
        let mut is_full = true;
        while is_full {
            self.reassembler.expire(now, &mut |chunk| outcome.tell(&chunk));
            is_full = self.reassembler.attempts_are_full();
            outcome.attempts.extend(std::iter::from_fn(|| self.reassembler.pop_attempt()));
        }
        let next = self.reassembler.next_deadline();
        assert!(next.is_none_or(|next| next > now), "{next:?} is not after {now:?}");
    }

    /// The running stage.
    pub const fn reassembler(&self) -> &Reassembler {
        &self.reassembler
    }

    /// The source lost something.
    pub fn note_loss(&mut self, now: KernelInstant) {
        self.reassembler.note_loss(now);
    }

    /// The stage, without what it told.
    pub fn into_reassembler(self) -> Reassembler {
        self.reassembler
    }

    /// Ends the source; nothing may be left then.
    pub fn finish(mut self) -> Outcome {
        let outcome = &mut self.outcome;
        let mut is_full = true;
        while is_full {
            self.reassembler.finish(&mut |chunk| outcome.tell(&chunk));
            is_full = self.reassembler.attempts_are_full();
            outcome.attempts.extend(std::iter::from_fn(|| self.reassembler.pop_attempt()));
        }
        assert_eq!(self.reassembler.open_attempts(), 0);
        assert_eq!(self.reassembler.held_bytes(), 0);
        assert_eq!(self.reassembler.connections(), 0);
        assert!(outcome.open.values().all(|open| !open), "a connection was not closed");
        let stats = *self.reassembler.stats();
        let closed = stats.closed_finished
            + stats.closed_reset
            + stats.closed_replaced
            + stats.closed_idle
            + stats.closed_evicted
            + stats.closed_source_ended
            + stats.closed_refused;
        assert_eq!(stats.opened_handshake + stats.opened_middle, closed);
        outcome.check_attempts(&stats);
        outcome.stats = stats;
        self.outcome
    }
}

impl Outcome {
    /// Notes a Chunk, and checks what must hold for every one.
    fn tell(&mut self, chunk: &Chunk<'_>) {
        let token = chunk.connection.token;
        let what = match chunk.content {
            Content::Bytes(bytes) => What::Bytes(bytes.to_vec()),
            Content::Gap { length, cause, may_be_ours } => What::Gap(length, cause, may_be_ours),
            Content::Finished => What::Finished,
            Content::Closed(cause) => What::Closed(cause),
        };
        let told = Told { token, sender: chunk.sender, offset: chunk.offset, time: chunk.time, what };
        assert!(*self.open.entry(token).or_insert(true), "{told:?} after the end");
        self.facts.insert(token, *chunk.connection);
        let length = match &told.what {
            What::Bytes(bytes) => bytes.len() as u64,
            What::Gap(length, ..) => *length,
            What::Finished => 1,
            What::Closed(_) => {
                self.open.insert(token, false);
                self.told.push(told);
                return;
            }
        };
        assert_ne!(length, 0, "{told:?} is empty");
        let next = self.next.entry((token, told.sender == Side::Originator)).or_insert(told.offset);
        assert_eq!(*next, told.offset, "{told:?} is not what comes next");
        *next += length;
        let previous = self.last.get(&token).and_then(|index| self.told.get_mut(*index));
        if let Some(Told { sender, what: What::Bytes(bytes), .. }) = previous
            && let What::Bytes(more) = &told.what
            && *sender == told.sender
        {
            bytes.extend_from_slice(more);
        } else {
            self.last.insert(token, self.told.len());
            self.told.push(told);
        }
    }

    /// Every attempt came to one end, and what was told is what was counted.
    fn check_attempts(&self, stats: &Stats) {
        let told = stats.attempts_answered_told
            + stats.attempts_refused
            + stats.attempts_unreachable
            + stats.attempts_timed_out
            + stats.attempts_unknown;
        assert_eq!(self.attempts.len() as u64, told + stats.attempts_late);
        let untold = stats.attempts_answered - stats.attempts_answered_told
            + stats.attempts_withdrawn
            + stats.attempts_unanswered
            + stats.attempts_cut_off
            + stats.attempts_forgotten;
        assert_eq!(stats.attempts_begun, told + untold, "{stats:?}");
        let late = self.attempts.iter().filter(|attempt| attempt.late).count() as u64;
        assert_eq!(late, stats.attempts_late);
        for attempt in &self.attempts {
            assert!(
                attempt.connection.start == Start::Handshake && attempt.connection.originator_isn.is_some()
            );
            assert!(attempt.connection.syn_time.is_some() || attempt.duration() == 0, "{attempt:?}");
        }
    }

    /// The connection attempts as text: client, what came of it, milliseconds, copies of the SYN.
    pub fn attempt_lines(&self) -> Vec<String> {
        let line = |attempt: &Attempt| {
            let Attempt { connection, fate, late, .. } = attempt;
            let late = if *late { " late" } else { "" };
            let (port, copies) = (connection.originator.port(), connection.syn_retransmits);
            format!("{port} {fate:?} {} ms +{copies}{late}", attempt.duration() / 1_000_000)
        };
        self.attempts.iter().map(line).collect()
    }

    /// The steps as text.
    pub fn lines(&self) -> Vec<String> {
        self.told.iter().map(line).collect()
    }

    /// What a side of a connection said; missing bytes are `?`, the FIN is `.`.
    pub fn stream(&self, token: ConnectionToken, side: Side) -> Vec<u8> {
        let mut stream = Vec::new();
        for told in self.told.iter().filter(|told| told.token == token && told.sender == side) {
            match &told.what {
                What::Bytes(bytes) => stream.extend_from_slice(bytes),
                What::Gap(length, ..) => stream.resize(stream.len() + *length as usize, b'?'),
                What::Finished => stream.push(b'.'),
                What::Closed(_) => {}
            }
        }
        stream
    }
}

fn line(told: &Told) -> String {
    let Told { token, sender, offset, what, .. } = told;
    let token = token.0;
    let side = match sender {
        Side::Originator => "O",
        Side::Responder => "R",
    };
    match what {
        What::Bytes(bytes) => format!("{token} {side} {offset} {}", String::from_utf8_lossy(bytes)),
        What::Gap(length, cause, may_be_ours) => {
            let whose = if *may_be_ours { "ours" } else { "theirs" };
            format!("{token} {side} {offset} {cause:?} {length} {whose}")
        }
        What::Finished => format!("{token} {side} {offset} Finished"),
        What::Closed(cause) => format!("{token} {cause:?}"),
    }
}

/// Everything that comes out of `segments`.
pub fn observe(config: Config, segments: &[OwnedSegment]) -> Outcome {
    let mut observer = Observer::new(config);
    for segment in segments {
        observer.push(segment);
    }
    observer.finish()
}

/// The first of the tuples of [`properties`].
const CLIENT: ([u8; 4], u16) = ([10, 0, 0, 1], 1000);
const SERVER: ([u8; 4], u16) = ([10, 0, 0, 2], 80);

/// Bytes that one connection of [`properties`] may hold per direction.
const HELD: usize = 4_096;

/// Runs any bytes as a capture and checks: no panic; every direction is told without a hole, nothing after the end;
/// all limits hold; and unless a limit was hit, what a side said does not depend on how its segments were cut.
pub fn properties(data: &[u8]) {
    let segments = decode(data);
    let tight = Config {
        max_connections: 3,
        max_handshakes: 3,
        max_lingering: 2,
        max_held_bytes: HELD,
        max_held_pieces: 8,
        max_total_held_bytes: 2 * HELD,
        ..Config::default()
    };
    let outcome = observe(tight, &segments);
    assert!(outcome.most_held <= 2 * HELD, "{} bytes held", outcome.most_held);
    assert!(outcome.most_connections <= 3);

    // Resets, and data that proves a SYN, are judged by exact places, which a cut can make: one whole handshake instead.
    let handshake = Conversation::new().isns(0xffff_ff08, 0xffff_ff20).start_at(1 << 60);
    let mut whole = handshake.addresses(CLIENT.into(), SERVER.into()).segments();
    whole.extend(segments.into_iter().filter(|segment| !segment.flags.rst() && !segment.flags.syn()));
    let mut cut = Observer::new(Config::default());
    for segment in &whole {
        let halves = halves(segment);
        halves.iter().take(1).for_each(|half| cut.push(half));
        halves.iter().skip(1).for_each(|half| cut.push_at_once(half));
    }
    let (whole, cut) = (observe(Config::default(), &whole), cut.finish());
    assert_eq!(whole.facts.len(), cut.facts.len(), "the number of connections depends on the cut");
    for token in whole.facts.keys() {
        for side in [Side::Originator, Side::Responder] {
            assert_eq!(whole.stream(*token, side), cut.stream(*token, side), "{token:?} {side:?}");
        }
    }
}

/// A data segment as two, neither empty; anything else as it is.
fn halves(segment: &OwnedSegment) -> Vec<OwnedSegment> {
    if segment.payload_length < 2 || segment.flags.syn() {
        return vec![segment.clone()];
    }
    let at = segment.payload_length / 2;
    let (mut first, mut second) = (segment.clone(), segment.clone());
    first.flags = TcpFlags(segment.flags.0 & !1);
    first.payload_length = at;
    first.payload.truncate(at as usize);
    second.sequence = segment.sequence.wrapping_add(at);
    second.payload_length -= at;
    second.payload.drain(..second.payload.len().min(at as usize));
    second.lost_before = false;
    vec![first, second]
}

/// Eight bytes a segment: ends and direction, flags, sequence, acknowledgement, length, time.
fn decode(data: &[u8]) -> Vec<OwnedSegment> {
    let mut time = KernelInstant::from_nanos(1 << 60);
    let decoded = data.chunks_exact(8).enumerate().map(|(index, bytes)| {
        let &[ends, flags, sequence, near, acknowledgement, length, cut, pause] = bytes else {
            unreachable!("chunks of eight")
        };
        let client = (CLIENT.0, CLIENT.1 + u16::from(ends & 3)).into();
        let server = SERVER.into();
        let is_client = ends & 4 == 0;
        let (source, destination) = if is_client { (client, server) } else { (server, client) };
        let direction = match (ends >> 3 & 3, is_client) {
            (0 | 1, _) => Direction::Path,
            (2, true) | (3, false) => Direction::Egress,
            (2 | 3, _) | (4.., _) => Direction::Ingress,
        };
        let scope_is_cookie = ends & 0x20 != 0;
        let cookie = if scope_is_cookie { u64::from(ends >> 6) } else { 0 };
        // Numbers lie around the wrap, so that most segments of a tuple have to do with each other.
        let number = |coarse: u8, fine: u8| {
            0xffff_ff00_u32.wrapping_add(u32::from(coarse) * 16).wrapping_add(u32::from(fine & 15))
        };
        // A pause is up to a quarter of an hour, in steps that double.
        time = KernelInstant::from_nanos(time.as_nanos() + (1_u64 << (pause % 40)));
        let payload_length = u32::from(length) * if cut & 0x80 == 0 { 1 } else { 64 };
        let captured = if cut & 3 == 3 { payload_length / 2 } else { payload_length };
        OwnedSegment {
            time,
            scope: Scope(cookie),
            direction,
            source,
            destination,
            sequence: number(sequence, near),
            acknowledgement: number(acknowledgement, near >> 4),
            flags: TcpFlags(flags & 0x17),
            payload_length,
            payload: vec![b'a' + (index % 26) as u8; captured as usize],
            lost_before: cut & 0x0c == 0x0c,
            skipped_before: cut & 0x30 == 0x30,
            generation: None,
            cgroup_id: 0,
            socket_cookie: cookie,
            interface_index: 0,
            unreachable: None,
            scope_is_cookie,
        }
    });
    decoded.collect()
}
