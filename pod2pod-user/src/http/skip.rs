//! Skips: which part of a body that is being read nobody will look into.
//!
//! Only what is certain to be body is offered: up to the end that the framing told, of a chunked body up to the end of
//! the chunk. So whatever is left out changes no size and hides no message.

use super::{
    Config, MAX_SKIP, Shared,
    flow::{Flow, Speech},
    reader::{Phase, Reader},
};
use crate::reassembly::{Chunk, Content, Side};

impl Flow {
    /// Queues the sender of `chunk` if it is in the midst of an unwanted body and that was not said yet.
    pub(super) fn offer_skip(&mut self, chunk: &Chunk<'_>, shared: &mut Shared) {
        let Some(least) = shared.config.min_skip else { return };
        if matches!(chunk.content, Content::Finished | Content::Closed(_)) {
            return;
        }
        let sender = chunk.sender;
        let reader = self.reader(sender);
        if reader.offers_skip
            || reader.unwanted_until(least).is_none()
            || self.wants_content(sender, &shared.config)
        {
            return;
        }
        self.reader(sender).offers_skip = true;
        shared.skips.push_back((self.connection.token, sender));
    }

    /// Takes up the offer: the first offset that is wanted again, unless nearly all before it was read.
    pub(super) fn take_skip(&mut self, sender: Side, config: &Config) -> Option<u64> {
        let is_http = self.speech == Speech::Http1;
        let reader = self.reader(sender);
        reader.offers_skip = false;
        let until = reader.unwanted_until(config.min_skip?).filter(|_| is_http)?;
        reader.skipped_until = until;
        Some(until)
    }

    /// Whether the first bytes of the body being read are to be kept, and not all were read.
    fn wants_content(&self, sender: Side, config: &Config) -> bool {
        let limit = |own| config.content(own, self.keeps_more);
        match self.client == Some(sender) {
            true => self.pairing.wants_request_content(limit(config.request_body_prefix)),
            false => self.pairing.wants_response_content(limit(config.response_body_prefix)),
        }
    }
}

impl Reader {
    /// The offset up to which only body follows, if that is `least` bytes or more and nothing was skipped there yet.
    fn unwanted_until(&self, least: u64) -> Option<u64> {
        let ahead = match &self.phase {
            Phase::Length(left) => *left,
            Phase::Chunked(chunked) => chunked.content_ahead(),
            Phase::UntilClose => MAX_SKIP,
            Phase::Opening | Phase::Head | Phase::Lost | Phase::Skip(_) | Phase::Unframed(_) => 0,
        };
        (ahead >= least && self.position >= self.skipped_until)
            .then(|| self.position.wrapping_add(ahead.min(MAX_SKIP)))
    }
}
