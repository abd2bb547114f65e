//! Builds and starts the benchmarks: a program of the tests crate, and the library's own for its stages.

use std::process::ExitCode;

use anyhow::Result;

use crate::{
    build,
    cmd::{self, Cmd},
    setup,
};

/// Where results and plots go.
const RESULTS: &str = "target/bench";

/// `cargo xtask bench [live|replay]… [--quick] [--rounds N] [--only WORD]`: becomes the benchmark.
///
/// # Errors
/// Set-up or build fails, or the benchmark cannot be started.
pub(crate) fn command(arguments: &[String]) -> Result<ExitCode> {
    setup::ensure(&["bench"])?;
    let agent = build::daemon()?;
    // A release build: its clients share two cores with what is measured.
    Cmd::cargo()
        .env("CARGO_TARGET_DIR", "target")
        .args(["build", "--locked", "--release", "--package", "pod2pod-tests", "--bin", "pod2pod-bench"])
        .run_aside()?;
    let bench = Cmd::new(cmd::workspace().join("target/release/pod2pod-bench"));
    let bench = bench.args([agent, cmd::workspace().join(RESULTS)]).args(arguments);
    cmd::as_root(bench).become_it().map(|never| match never {})
}
