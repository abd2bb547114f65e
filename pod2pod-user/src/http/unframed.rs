//! Chunked bodies of which the capture left out a part with chunk sizes in it: the rest is content and framing mixed, and
//! its size a lower bound. What can still be known is where the body ends.
//!
//! A last chunk and an empty line end it if nothing of the direction follows: before the other side goes on, before the
//! direction ends, or for a while. Where both sides take turns the next request ends the response before it, whatever
//! was seen of its end; and where the client closes first, the server's end is that of the body. Content that looks like
//! messages is never read as such here. Trailers are not recognised.

use std::time::Duration;

use super::{
    Shared,
    exchange::{Anomalies, Outcome},
    flow::Flow,
    reader::{Phase, Reader},
};
use crate::{capture::KernelInstant, reassembly::Side};

/// How long nothing may follow what looks like the end of a body before it is taken for it: a sender in the midst of a
/// body does not pause so often just there.
pub(super) const END_GRACE: Duration = Duration::from_secs(1);

/// Ends a chunked body: the line end of the last content, the last chunk, no trailers (RFC 9112 7.1).
const END: &[u8] = b"\r\n0\r\n\r\n";
/// Of [`END`], what may have been left out before what is seen again.
const UNSEEN: usize = 2;

/// Where the reader is in such a body.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Tail {
    /// How much of [`END`] the latest bytes are.
    matched: usize,
    /// When the latest bytes came.
    latest: KernelInstant,
    /// The other side has finished since.
    heard_out: bool,
}

impl Tail {
    /// Behind a part that was left out, the last of it at `time`.
    pub(super) const fn behind_gap(time: KernelInstant) -> Self {
        Self { matched: UNSEEN, latest: time, heard_out: false }
    }

    /// Reads on.
    pub(super) fn read(&mut self, bytes: &[u8], time: KernelInstant) {
        for &byte in bytes {
            let matched = if self.matched == END.len() { 0 } else { self.matched };
            self.matched = match END.get(matched) {
                Some(expected) if *expected == byte => matched + 1,
                // What was left out may have ended inside a line end.
                _ if byte == b'\n' && matched == UNSEEN => UNSEEN,
                _ => usize::from(byte == b'\r'),
            };
        }
        self.latest = time;
        self.heard_out = false;
    }

    /// When the body ended, if the latest bytes look like its end.
    const fn ended(&self) -> Option<KernelInstant> {
        if self.matched == END.len() { Some(self.latest) } else { None }
    }
}

impl Reader {
    fn tail(&self) -> Option<&Tail> {
        match &self.phase {
            Phase::Unframed(tail) => Some(tail),
            Phase::Opening
            | Phase::Head
            | Phase::Length(_)
            | Phase::Chunked(_)
            | Phase::UntilClose
            | Phase::Lost
            | Phase::Skip(_) => None,
        }
    }
}

impl Flow {
    /// Whether the end of a body of `sender` that lost its framing can be known: the sides take turns.
    pub(super) fn may_be_unframed(&self, sender: Side) -> bool {
        self.client.is_some_and(|client| self.pairing.takes_turns(client == sender))
    }

    /// When [`Self::settle_unframed`] may have something to do.
    pub(super) fn unframed_due(&self) -> Option<KernelInstant> {
        let ended = |reader: &Reader| reader.tail().and_then(Tail::ended);
        let ended = match (ended(&self.originator), ended(&self.responder)) {
            (Some(one), Some(other)) => one.min(other),
            (one, other) => one.or(other)?,
        };
        Some(ended.plus(END_GRACE))
    }

    /// Ends the bodies behind whose end nothing came.
    pub(super) fn settle_unframed(&mut self, now: KernelInstant, shared: &mut Shared) {
        for side in [Side::Originator, Side::Responder] {
            let ended = self.reader(side).tail().and_then(Tail::ended);
            if ended.is_some_and(|ended| ended.plus(END_GRACE) <= now) {
                self.end_unframed(side, shared);
            }
        }
    }

    /// The other side of `sender` has begun its next message, which it does not before the body of `sender` is over.
    pub(super) fn turn(&mut self, sender: Side, shared: &mut Shared) {
        self.end_unframed(sender, shared);
        let Some(latest) = self.reader(sender).tail().map(|tail| tail.latest) else { return };
        let from_client = self.client == Some(sender);
        self.reader(sender).expect_head();
        let (pairing, mut teller) = self.split(shared);
        if from_client {
            // It may have been answered early.
            pairing.end_request(latest, None, Anomalies::NONE, &mut teller);
        } else {
            pairing.end_response(latest, Some(latest), Anomalies::NONE, &mut teller);
        }
    }

    /// `sender` has finished. Who hears a body out before it closes has heard all of it: else what still comes is answered
    /// by a reset.
    pub(super) fn finish_unframed(&mut self, sender: Side, time: KernelInstant, shared: &mut Shared) {
        if self.reader(sender).tail().is_some_and(|tail| tail.heard_out) {
            self.turn(sender, shared);
        }
        self.give_up_unframed(sender, time, shared);
        if let Phase::Unframed(tail) = &mut self.reader(sender.other()).phase {
            tail.heard_out = true;
        }
    }

    /// Ends the body of `sender` if its end was seen.
    pub(super) fn end_unframed(&mut self, sender: Side, shared: &mut Shared) {
        let Some(ended) = self.reader(sender).tail().and_then(Tail::ended) else { return };
        let from_client = self.client == Some(sender);
        self.reader(sender).expect_head();
        let (pairing, mut teller) = self.split(shared);
        if from_client {
            pairing.end_request(ended, Some(ended), Anomalies::NONE, &mut teller);
        } else {
            pairing.end_response(ended, Some(ended), Anomalies::NONE, &mut teller);
        }
    }

    /// The body of `sender` is over, and nobody knows whether it was whole unless its end was seen.
    pub(super) fn give_up_unframed(&mut self, sender: Side, time: KernelInstant, shared: &mut Shared) {
        self.end_unframed(sender, shared);
        if self.reader(sender).tail().is_none() {
            return;
        }
        let from_client = self.client == Some(sender);
        self.reader(sender).lose();
        let (pairing, mut teller) = self.split(shared);
        if from_client {
            pairing.cut_request(time, Anomalies::NONE, &mut teller);
        } else {
            pairing.cut_response(Outcome::Gap, Anomalies::NONE, time, &mut teller);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ends(bytes: &[u8]) -> bool {
        let time = KernelInstant::default();
        let (mut whole, mut single) = (Tail::behind_gap(time), Tail::behind_gap(time));
        whole.read(bytes, time);
        bytes.chunks(1).for_each(|byte| single.read(byte, time));
        assert_eq!(whole, single, "however it is cut");
        whole.ended().is_some()
    }

    #[test]
    fn the_end_of_a_body_is_a_last_chunk_with_nothing_behind_it() {
        for end in
            ["0\r\n\r\n", "\n0\r\n\r\n", "\r\n0\r\n\r\n", "xyz\r\n0\r\n\r\n", "a\r\n0\r\n\r\n\r\n0\r\n\r\n"]
        {
            assert!(ends(end.as_bytes()), "{end:?}");
        }
        for rest in [
            "",
            "\r\n\r\n",
            "x0\r\n\r\n",
            "10\r\n\r\n",
            "0\r\n\r\nx",
            "0\r\n\r",
            "\r\n0\r\nTrailer: x\r\n\r\n",
        ] {
            assert!(!ends(rest.as_bytes()), "{rest:?}");
        }
    }
}
