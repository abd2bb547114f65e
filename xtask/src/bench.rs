//! Builds and starts the benchmarks: a program of the tests crate, and the library's own for its stages.

use std::{fs, process::ExitCode};

use anyhow::Result;

use crate::{
    build,
    cmd::{self, Cmd, say},
    image, setup, vm,
};

/// Where results and plots go.
const RESULTS: &str = "target/bench";

/// Where it puts how long a machine with IPVS took to read live tables; the benchmark looks for it there.
const READINGS: &str = "ipvs-readings";

/// `cargo xtask bench [live|replay|memory|parts|ipvs|names|sinks]… [--quick] [--rounds N] [--seconds N] [--only WORD]`: becomes the benchmark.
///
/// # Errors
/// Set-up or build fails, or the benchmark cannot be started.
pub(crate) fn command(arguments: &[String]) -> Result<ExitCode> {
    setup::ensure(&["bench", "image"])?;
    let has_sinks = wants("sinks", arguments);
    if has_sinks || wants("names", arguments) {
        setup::ensure(&["services"])?;
    }
    // What people run: with its C library and its allocator.
    let agent = image::program_of_this_machine()?;
    // A release build: its clients share two cores with what is measured.
    Cmd::cargo()
        .env("CARGO_TARGET_DIR", "target")
        .args(["build", "--locked", "--release", "--package", "pod2pod-tests", "--bin", "pod2pod-bench"])
        // Its library takes minutes to build.
        .args(if has_sinks { &build::KAFKA[..] } else { &[] })
        .run_aside()?;
    if wants("ipvs", arguments) {
        let file = cmd::workspace().join(RESULTS).join(READINGS);
        fs::create_dir_all(cmd::workspace().join(RESULTS))?;
        match vm::readings() {
            Ok(lines) => fs::write(&file, lines)?,
            // The other figures are measured without.
            Err(error) => {
                say(&format!("bench: no live table was read: {error:#}"));
                if file.exists() {
                    fs::remove_file(&file)?;
                }
            }
        }
    }
    if wants("parts", arguments) {
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

/// Sections by their names.
const SECTIONS: [&str; 7] = ["live", "replay", "memory", "parts", "ipvs", "names", "sinks"];

/// Whether a section is among what is to be measured: all are, if none is named.
fn wants(section: &str, arguments: &[String]) -> bool {
    let named = |section: &str| arguments.iter().any(|argument| argument == section);
    named(section) || !SECTIONS.into_iter().any(named)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_section_is_measured_unless_only_others_are_named() {
        let line = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        for (text, parts, ipvs) in [
            ("names", false, false),
            ("", true, true),
            ("--quick", true, true),
            ("parts live", true, false),
            ("live --rounds 3", false, false),
            ("memory", false, false),
            ("ipvs", false, true),
        ] {
            assert_eq!((wants("parts", &line(text)), wants("ipvs", &line(text))), (parts, ipvs), "{text}");
        }
    }
}
