//! Loss: what missing bytes and unfinished heads do to a connection.
//!
//! Inside a body whose framing stands, counts stay exact. Elsewhere the message is told by what was seen of it, and the
//! pairing learns that others may be missing.

use super::{
    Shared,
    exchange::{Anomalies, Outcome},
    fields::Fields,
    flow::{Flow, Speech, request_of, response_of},
    framing::Method,
    head,
    reader::{GapEffect, Place},
    start_line::{self, StartLine},
    telling::{Kind, Open},
};
use crate::{
    capture::KernelInstant,
    reassembly::{Chunk, Content, GapCause, Side},
};

impl Flow {
    /// Takes bytes that were not seen.
    pub(super) fn gap(&mut self, chunk: &Chunk<'_>, length: u64, cause: GapCause, shared: &mut Shared) {
        if self.speech != Speech::Http1 {
            return;
        }
        shared.stats.gaps += 1;
        shared.stats.gap_bytes += length;
        let (sender, time) = (chunk.sender, chunk.time);
        let from_client = self.client.map_or(sender == Side::Originator, |client| client == sender);
        // A cut segment was seen with its length: the time of its last byte is known.
        let last_byte = (cause == GapCause::Cut).then_some(time);
        let may_be_unframed = cause == GapCause::Cut && self.may_be_unframed(sender);
        let effect = self.reader(sender).gap(length, time, may_be_unframed);
        let (content, ended, lost) = match effect {
            GapEffect::Inside { content, ended } => (content, ended, false),
            GapEffect::PastEnd { content } => (content, true, true),
            GapEffect::BodyLost { content } => (content, false, true),
            GapEffect::Unframed { content } => (content, false, false),
            GapEffect::MessagesLost => (0, false, true),
        };
        let (pairing, mut teller) = self.split(shared);
        if from_client {
            pairing.request_content(b"", content, &mut teller);
            match effect {
                GapEffect::Unframed { .. } => pairing.mark_cut(from_client),
                _ if ended => pairing.end_request(time, last_byte, Anomalies::NONE, &mut teller),
                GapEffect::BodyLost { .. } => pairing.cut_request(time, Anomalies::NONE, &mut teller),
                GapEffect::Inside { .. } | GapEffect::PastEnd { .. } | GapEffect::MessagesLost => {}
            }
        } else {
            if content > 0 {
                pairing.response_content(b"", content, time, &mut teller);
            }
            match effect {
                GapEffect::Unframed { .. } => pairing.mark_cut(from_client),
                _ if ended => pairing.end_response(time, last_byte, Anomalies::NONE, &mut teller),
                GapEffect::BodyLost { .. } => {
                    pairing.cut_response(Outcome::Gap, Anomalies::NONE, time, &mut teller)
                }
                GapEffect::Inside { .. } | GapEffect::PastEnd { .. } | GapEffect::MessagesLost => {}
            }
        }
        if lost {
            let kept = self.reader(sender).kept();
            let cut = self.reader(sender).take_cut_head();
            shared.kept -= kept;
            self.cut_head(sender, cut, time, shared);
            if cause == GapCause::Cut {
                self.reader(sender).expect_head();
            }
            let may_be_ours = matches!(chunk.content, Content::Gap { may_be_ours: true, .. });
            self.messages_lost(sender, may_be_ours, time, shared);
        }
    }

    /// Tells the message of a head that is not seen to its end by the head's first part.
    pub(super) fn cut_head(
        &mut self,
        sender: Side,
        cut: Option<(Vec<u8>, Place)>,
        time: KernelInstant,
        shared: &mut Shared,
    ) {
        if let Some((mut bytes, place)) = cut {
            if let Some(at) = memchr::memrchr(b'\n', &bytes) {
                bytes.truncate(at + 1);
            }
            self.tell_cut_head(sender, &bytes, place, time, shared);
        }
    }

    /// Whole messages of `sender` may be missing, maybe by our own loss.
    pub(super) fn messages_lost(
        &mut self,
        sender: Side,
        may_be_ours: bool,
        time: KernelInstant,
        shared: &mut Shared,
    ) {
        if self.client.map_or(sender == Side::Originator, |client| client == sender) {
            // What would have ended the response may be among them.
            self.give_up_unframed(sender.other(), time, shared);
            self.pairing.client_gap();
        } else {
            self.pairing.server_gap(may_be_ours);
        }
    }

    fn tell_cut_head(
        &mut self,
        sender: Side,
        bytes: &[u8],
        place: Place,
        time: KernelInstant,
        shared: &mut Shared,
    ) {
        let (first, rest) = head::split_line(bytes);
        let read = if first.ends_with(b"\n") { start_line::read } else { start_line::read_cut };
        let line = read(first).filter(|line| self.reader(sender).wanted.accepts(line));
        let Some(line) = line else { return };
        if shared.disclosed.is_some() && first.ends_with(b"\n") {
            self.disclose_head(sender, bytes, place, shared);
        }
        let mut anomalies = Anomalies::HEAD_CUT;
        shared.scratch.begin();
        if let StartLine::Request(line) = line {
            let mut fields = Fields::new(&shared.request_headers, &mut shared.scratch);
            anomalies.insert(head::read_fields(rest, &mut fields));
            let mut request = request_of(&line, place, shared);
            request.body_cut = true;
            anomalies.insert(line.anomalies);
            self.set_client(sender, shared);
            let exchange = shared.begin_request(request, place);
            let mut open = Open::new(Kind::Asked, exchange, self.connection.retransmits);
            (open.method, open.unsure) = (Method::of(line.method), true);
            open.told.anomalies = anomalies;
            let (pairing, mut teller) = self.split(shared);
            pairing.begin_request(open, &mut teller);
            pairing.end_request(time, None, Anomalies::NONE, &mut teller);
        } else if let StartLine::Status(line) = line {
            let mut fields = Fields::new(&shared.response_headers, &mut shared.scratch);
            anomalies.insert(head::read_fields(rest, &mut fields));
            self.set_client(sender.other(), shared);
            if line.status < 200 {
                return;
            }
            let response = response_of(&line, place, shared);
            anomalies.insert(line.anomalies);
            let (pairing, mut teller) = self.split(shared);
            pairing.answered_method(time, &mut teller);
            pairing.begin_response(response, anomalies, place.offset, &mut teller);
            pairing.cut_response(Outcome::Gap, Anomalies::NONE, time, &mut teller);
        }
    }
}
