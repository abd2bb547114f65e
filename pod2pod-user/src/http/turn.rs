//! Turns: whether the client begins a request only after the server answered what came before.
//!
//! That is what makes a pair sure again when messages were lost. Goes by stream offsets and causal delivery, never by times.

use super::{
    flow::Flow,
    pairing::Pairing,
    telling::{Kind, Teller},
};
use crate::{
    capture::KernelInstant,
    reassembly::{Chunk, Content, Side, Start},
};

/// Whose turn it is, as far as the server spoke behind what the client said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// The client's, whatever it says next: it has said nothing that was seen, and nothing is known to be outstanding.
    Open,
    /// Something of the connection was lost before anything was seen.
    Unknown,
    /// The server spoke last when the client's stream had come to this offset: what begins there is in turn.
    Behind(u64),
    /// Something of the client was lost since.
    Lost,
}

impl Flow {
    /// Notes how far a direction has come, and that the server speaks behind what the client said.
    pub(super) fn note_position(&mut self, chunk: &Chunk<'_>) {
        let length = match chunk.content {
            Content::Bytes(bytes) => bytes.len() as u64,
            Content::Gap { length, .. } => length,
            Content::Finished | Content::Closed(_) => return,
        };
        self.reader(chunk.sender).position = chunk.offset.wrapping_add(length);
        self.note_turn(chunk.sender);
    }

    /// Notes that `sender` speaks, if it is known who it is: who opened a connection is its client.
    pub(super) fn note_turn(&mut self, sender: Side) {
        let opener = (self.connection.start == Start::Handshake).then_some(Side::Originator);
        if let Some(client) = self.client.or(opener)
            && client != sender
        {
            let offset = self.reader(client).position;
            self.pairing.server_spoke(offset);
        }
    }
}

impl Pairing {
    /// The client begins a request at `offset`: what that says of those before, if some may have been lost.
    pub(super) fn take_turn(&mut self, offset: u64, start: KernelInstant, teller: &mut Teller<'_>) {
        let speaks_last = match self.turn {
            Turn::Open => true,
            Turn::Behind(end) => end == offset,
            Turn::Unknown | Turn::Lost => false,
        };
        let in_turn = speaks_last && !self.reading_response;
        self.may_lack = self.may_lack && self.queue.iter().any(|open| open.kind == Kind::Lost);
        let in_doubt = self.server_doubt || self.may_lack;
        let behind = self.queue.back().is_some_and(|back| back.unanswered() && !back.told_timeout);
        if !in_doubt {
            self.pipelined |= behind;
        } else if !in_turn {
            // It was sent before what was lost was answered. Where the client's own were lost last, the server may have
            // spoken among them.
            self.pipelined |= matches!(self.turn, Turn::Open | Turn::Behind(_));
        } else if !self.pipelined {
            // A client that waits for each response has got all of them.
            self.give_up_unanswered(teller, start);
            self.queue.retain(|open| open.kind != Kind::Lost);
            self.server_doubt = false;
        }
    }

    /// The server spoke, or what it said was lost, when the client's stream had come to `offset`; 0 if nothing of it was seen.
    const fn server_spoke(&mut self, offset: u64) {
        self.turn = if offset > 0 { Turn::Behind(offset) } else { Turn::Open };
    }
}
