//! Reassembly over the conversation builder: what comes out for what a network and a capture can do to a connection.
//!
//! Expectations are told as text, one line a step; adjacent bytes of one side are one line.

mod limits;
mod openings;
mod oracle;
mod rules;

use std::collections::BTreeMap;

use pod2pod_user::reassembly::{
    Chunk, CloseCause, Config, Connection, ConnectionToken, Content, GapCause, Reassembler, Side, Stats,
};
use support::conversation::OwnedSegment;

/// One step, as told by a Chunk.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Told {
    token: ConnectionToken,
    sender: Side,
    offset: u64,
    what: What,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum What {
    Bytes(Vec<u8>),
    Gap(u64, GapCause, bool),
    Finished,
    Closed(CloseCause),
}

/// Everything that came out, and what is known at the end.
#[derive(Debug)]
struct Outcome {
    told: Vec<Told>,
    facts: BTreeMap<ConnectionToken, Connection>,
    stats: Stats,
    /// The most that was held at once, bytes.
    most_held: usize,
}

/// A reassembler with what it told.
struct Observer {
    reassembler: Reassembler,
    outcome: Outcome,
}

impl Observer {
    fn new(config: Config) -> Self {
        let outcome =
            Outcome { told: Vec::new(), facts: BTreeMap::new(), stats: Stats::default(), most_held: 0 };
        Self { reassembler: Reassembler::new(config), outcome }
    }

    /// As the agent's loop does: first what is due, then the segment.
    fn push(&mut self, segment: &OwnedSegment) {
        let outcome = &mut self.outcome;
        if self.reassembler.next_deadline().is_some_and(|deadline| deadline <= segment.time) {
            self.reassembler.expire(segment.time, &mut |chunk| outcome.tell(&chunk));
        }
        self.reassembler.push(&segment.borrow(), segment.time, &mut |chunk| outcome.tell(&chunk));
        outcome.most_held = outcome.most_held.max(self.reassembler.held_bytes());
    }

    fn finish(mut self) -> Outcome {
        let outcome = &mut self.outcome;
        self.reassembler.finish(&mut |chunk| outcome.tell(&chunk));
        assert_eq!(self.reassembler.held_bytes(), 0);
        assert_eq!(self.reassembler.connections(), 0);
        self.outcome.stats = *self.reassembler.stats();
        self.outcome
    }
}

impl Outcome {
    /// Notes a Chunk, and checks what must hold for every one: per direction offsets run on without a hole.
    fn tell(&mut self, chunk: &Chunk<'_>) {
        let what = match chunk.content {
            Content::Bytes(bytes) => What::Bytes(bytes.to_vec()),
            Content::Gap { length, cause, may_be_ours } => What::Gap(length, cause, may_be_ours),
            Content::Finished => What::Finished,
            Content::Closed(cause) => What::Closed(cause),
        };
        let token = chunk.connection.token;
        let told = Told { token, sender: chunk.sender, offset: chunk.offset, what };
        self.facts.insert(token, *chunk.connection);
        let previous = self.told.iter_mut().rev().find(|told| told.token == token);
        if let Some(previous) = &previous {
            assert!(!matches!(previous.what, What::Closed(_)), "{told:?} after the end");
        }
        if let Some(Told { sender, offset, what: What::Bytes(bytes), .. }) = previous
            && let What::Bytes(more) = &told.what
            && *sender == told.sender
        {
            assert!(!more.is_empty());
            assert_eq!(*offset + bytes.len() as u64, told.offset);
            bytes.extend_from_slice(more);
            return;
        }
        self.told.push(told);
    }

    /// The steps as text: connection, side, offset, content.
    fn lines(&self) -> Vec<String> {
        self.told.iter().map(line).collect()
    }

    /// What a side of the first connection said; missing bytes are `?`.
    fn stream(&self, side: Side) -> Vec<u8> {
        let first = self.told.first().map(|told| told.token);
        let mut stream = Vec::new();
        for told in self.told.iter().filter(|told| Some(told.token) == first && told.sender == side) {
            match &told.what {
                What::Bytes(bytes) => stream.extend_from_slice(bytes),
                What::Gap(length, ..) => stream.resize(stream.len() + *length as usize, b'?'),
                What::Finished | What::Closed(_) => {}
            }
        }
        stream
    }
}

fn line(told: &Told) -> String {
    let Told { token, sender, offset, what } = told;
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
fn observe(segments: &[OwnedSegment]) -> Outcome {
    observe_with(Config::default(), segments)
}

fn observe_with(config: Config, segments: &[OwnedSegment]) -> Outcome {
    let mut observer = Observer::new(config);
    for segment in segments {
        observer.push(segment);
    }
    observer.finish()
}

/// `segments` must give exactly these lines; gives the rest of what is known.
#[track_caller]
fn check(segments: &[OwnedSegment], expected: &[&str]) -> Outcome {
    let outcome = observe(segments);
    assert_eq!(outcome.lines(), expected);
    outcome
}
