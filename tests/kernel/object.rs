//! The object loads, and holds what the contract names.

use pod2pod_user::capture::loader::{Capture, Config};

/// The verifier stops at a million; older kernels walk more of the same program, so half is kept free.
const MAX_VERIFIED_INSTRUCTIONS: u32 = 500_000;

#[test]
fn the_verifier_accepts_both_programs_with_room_to_spare() {
    let capture = Capture::open(&Config::default()).unwrap_or_else(|error| panic!("{error}"));
    for count in capture.verified_instructions() {
        let count = count.expect("Linux 5.16 and later count instructions");
        assert!(count < MAX_VERIFIED_INSTRUCTIONS, "{count}");
    }
}
