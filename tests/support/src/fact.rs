//! What a test found out besides passing: the runner of the tests gathers it (`cargo xtask test vm`).

use std::{
    io::{self, Write as _},
    thread,
};

/// Begins the line; xtask looks for it.
const FACT: &str = "pod2pod-fact ";

/// Tells how many instructions the verifier went through for `program`.
pub fn verified(program: &str, count: u32) {
    tell(&format!("verified {program} {count}"));
}

/// Tells that this kernel has not `what`, so that the calling test tried less than elsewhere.
pub fn lacks(what: &str) {
    let test = thread::current();
    tell(&format!("{}: {what}", test.name().unwrap_or_default()));
}

/// Past the test runner, which keeps what a test prints to itself if it passes.
fn tell(what: &str) {
    // Nobody listening is no fault of the test's.
    let _ = writeln!(io::stdout(), "{FACT}{what}");
}
