//! What a test found out besides passing: the runner of the tests gathers it (`cargo xtask test vm`).

use std::{
    io::{self, Write as _},
    thread,
    time::Duration,
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

/// Tells how `detector` did with `verdict`: how often that happened, how often of that it was told; how often it was told, and how
/// often of that it was so.
pub fn scored(detector: &str, verdict: &str, counts: [u32; 4]) {
    let [happened, found, told, right] = counts;
    tell(&format!("scored {detector} {verdict} {happened} {found} {told} {right}"));
}

/// Tells how long it took to read a live table with so many entries once.
pub fn read(rows: u64, time: Duration) {
    tell(&format!("read {rows} {}", time.as_micros()));
}

/// Tells how long a `packet` or a `connection` through IPVS took without exact mode and with it.
pub fn cost(what: &str, without: Duration, with: Duration) {
    tell(&format!("cost {what} {} {}", without.as_nanos(), with.as_nanos()));
}

/// Past the test runner, which keeps what a test prints to itself if it passes.
fn tell(what: &str) {
    // Nobody listening is no fault of the test's.
    let _ = writeln!(io::stdout(), "{FACT}{what}");
}
