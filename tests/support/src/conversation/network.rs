//! What a network and a capture do to the segments of a conversation: order, copies, overlap.
//!
//! Loss is `Vec::remove`; a cut is [`OwnedSegment::cut_to`].

use std::time::Duration;

use super::{OwnedSegment, STEP_NS};
use crate::rng::Rng;

/// Gives the segments the times of their present order, `step` apart, beginning with the earliest: as a capture of
/// what arrived in this order would.
pub fn restamp(segments: &mut [OwnedSegment], step: Duration) {
    let mut time = segments.iter().map(|segment| segment.time).min().unwrap_or_default();
    for segment in segments {
        segment.time = time;
        time = time.plus(step);
    }
}

/// Puts the segments from index `from` on in a random order and stamps them in it.
pub fn shuffle_from(segments: &mut [OwnedSegment], from: usize, rng: &mut Rng) {
    let from = from.min(segments.len());
    rng.shuffle(&mut segments[from..]);
    restamp(segments, Duration::from_nanos(STEP_NS));
}

/// Sends about `percent` of the segments a second time, each at a random later place.
pub fn duplicate(segments: &mut Vec<OwnedSegment>, percent: usize, rng: &mut Rng) {
    let copies: Vec<(usize, OwnedSegment)> = segments
        .iter()
        .enumerate()
        .filter(|_| rng.below(100) < percent)
        .map(|(index, segment)| (index, segment.clone()))
        .collect();
    for (index, copy) in copies {
        segments.insert(index + 1 + rng.below(segments.len() - index), copy);
    }
    restamp(segments, Duration::from_nanos(STEP_NS));
}

/// A data segment that covers from `back` bytes before `segment` on, filled with `filler` there: an overlap whose old
/// part differs from what was sent.
pub fn overlapping(segment: &OwnedSegment, back: u32, filler: u8) -> OwnedSegment {
    let mut copy = segment.clone();
    copy.sequence = copy.sequence.wrapping_sub(back);
    copy.payload = vec![filler; back as usize];
    copy.payload.extend_from_slice(&segment.payload);
    copy.payload_length += back;
    copy
}
