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

/// `cargo xtask bench [live|replay|memory|parts]… [--quick] [--rounds N] [--seconds N] [--only WORD]`: becomes the benchmark.
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
    if wants_parts(arguments) {
        // Half of criterion's default times: eight stages in half a minute.
        Cmd::cargo()
            .env("CARGO_TARGET_DIR", cmd::workspace().join("target"))
            .args(["bench", "--locked", "--package", "pod2pod-user", "--bench", "parts", "--"])
            .args(["--noplot", "--warm-up-time", "1", "--measurement-time", "3"])
            .run_aside()?;
    }
    let bench = Cmd::new(cmd::workspace().join("target/release/pod2pod-bench"));
    let bench = bench.args([agent, cmd::workspace().join(RESULTS)]).args(arguments);
    cmd::as_root(bench).become_it().map(|never| match never {})
}

/// Whether the stages are among what is to be measured: they are, if nothing is named.
fn wants_parts(arguments: &[String]) -> bool {
    let named = |section: &str| arguments.iter().any(|argument| argument == section);
    named("parts") || !["live", "replay", "memory"].into_iter().any(named)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stages_are_measured_unless_only_others_are_named() {
        let wants = |line: &str| wants_parts(&line.split_whitespace().map(str::to_owned).collect::<Vec<_>>());
        for (line, expected) in [
            ("", true),
            ("--quick", true),
            ("parts live", true),
            ("live --rounds 3", false),
            ("memory", false),
        ] {
            assert_eq!(wants(line), expected, "{line}");
        }
    }
}
