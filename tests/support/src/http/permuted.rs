//! The same conversation as segments in any order, through reassembly: what is told must not depend on the order.
//! No gaps and no waiting: order alone must not lose anything.

use pod2pod_user::{
    http::{Config, HttpTracker},
    reassembly::{self, CloseCause, Reassembler, Side, Start},
};

use super::{Step, Talk, line};
use crate::{
    conversation::{Conversation, OwnedSegment, shuffle_from},
    rng::Rng,
};

/// Orders tried of each conversation.
const ORDERS: u64 = 12;

/// Segments of a conversation at most: all of them come within the time that a hole may wait once acknowledged.
const MOST_SEGMENTS: usize = 60;

/// SYN, SYN-ACK and the third packet stay in front: what comes before them is another rule's business.
const HANDSHAKE: usize = 3;

impl Talk {
    /// Checks that any order of its segments tells the same, if it consists of bytes and orderly ends.
    pub(super) fn check_permuted(&self, config: &Config) {
        let Some(segments) = self.segments() else { return };
        let expected = told(config, &segments);
        for seed in 0..ORDERS {
            let mut permuted = segments.clone();
            shuffle_from(&mut permuted, HANDSHAKE, &mut Rng::new(seed));
            assert_eq!(told(config, &permuted), expected, "seed {seed}: {self:?}");
        }
    }

    /// As segments of equal length, several to a message.
    fn segments(&self) -> Option<Vec<OwnedSegment>> {
        let orderly = matches!(self.close, None | Some(CloseCause::Finished | CloseCause::SourceEnded));
        if self.start != Start::Handshake || !orderly {
            return None;
        }
        let mut conversation = Conversation::new().cut_every(self.bytes().div_ceil(MOST_SEGMENTS / 2).max(1));
        let mut open = [true; 2];
        for step in &self.steps {
            conversation = match step {
                Step::Bytes(Side::Originator, bytes) => conversation.client(bytes),
                Step::Bytes(Side::Responder, bytes) => conversation.server(bytes),
                Step::Finished(side) => {
                    open[usize::from(*side == Side::Responder)] = false;
                    fin(conversation, *side)
                }
                Step::Gap(..) | Step::Cut(..) | Step::Wait(_) | Step::Expire => return None,
            };
        }
        if self.close == Some(CloseCause::Finished) {
            for side in [Side::Originator, Side::Responder] {
                if open[usize::from(side == Side::Responder)] {
                    conversation = fin(conversation, side);
                }
            }
        }
        let segments = conversation.segments();
        (segments.len() <= MOST_SEGMENTS + HANDSHAKE).then_some(segments)
    }
}

fn fin(conversation: Conversation, side: Side) -> Conversation {
    match side {
        Side::Originator => conversation.client_fin(),
        Side::Responder => conversation.server_fin(),
    }
}

/// What both stages tell of the segments: each exchange with its place on the connection.
fn told(config: &Config, segments: &[OwnedSegment]) -> Vec<(String, u64, Option<u32>)> {
    let mut reassembler = Reassembler::new(reassembly::Config::default());
    let mut tracker = HttpTracker::new(config.clone());
    let mut told = Vec::new();
    let mut now = segments[0].time;
    for segment in segments {
        now = segment.time;
        reassembler.expire(now, &mut |chunk| tracker.push(chunk, now));
        reassembler.push(&segment.borrow(), now, &mut |chunk| tracker.push(chunk, now));
        told.extend(std::iter::from_fn(|| tracker.pop()));
    }
    reassembler.finish(&mut |chunk| tracker.push(chunk, now));
    told.extend(std::iter::from_fn(|| tracker.pop()));
    told.iter().map(|exchange| (line(exchange), exchange.offset, exchange.index)).collect()
}
