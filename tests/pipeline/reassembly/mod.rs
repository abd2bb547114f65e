//! Reassembly over the conversation builder: what comes out for what a network and a capture can do to a connection.

mod attempts;
mod edges;
mod limits;
mod noise;
mod openings;
mod oracle;
mod refused;
mod rules;

use pod2pod_user::reassembly::Config;
use support::{
    conversation::OwnedSegment,
    reassembly::{self, Outcome},
};

/// Everything that comes out of `segments`, with the default limits.
fn observe(segments: &[OwnedSegment]) -> Outcome {
    reassembly::observe(Config::default(), segments)
}

/// `segments` must give exactly these lines; gives the rest of what is known.
#[track_caller]
fn check(segments: &[OwnedSegment], expected: &[&str]) -> Outcome {
    let outcome = observe(segments);
    assert_eq!(outcome.lines(), expected);
    outcome
}
