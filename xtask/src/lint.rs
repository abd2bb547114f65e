//! rustfmt and clippy, for the host and for the kernel side separately, and whether the daemon compiles for its other target. Our own rules are in `tidy`.

use anyhow::Result;

use crate::{
    build,
    cmd::{self, Cmd},
    setup, toolchain,
};

/// The fuzz targets are outside the workspace: they need a nightly compiler to be built, not to be formatted.
const FUZZ: &str = "tests/fuzz/Cargo.toml";

/// `cargo xtask lint`.
///
/// # Errors
/// A tool has findings, or cannot be run.
pub(crate) fn command() -> Result<()> {
    setup::ensure(&["lint"])?;
    Cmd::cargo().args(["fmt", "--all", "--check"]).run()?;
    if cmd::workspace().join(FUZZ).exists() {
        Cmd::cargo().args(["fmt", "--manifest-path", FUZZ, "--check"]).run()?;
    }
    Cmd::cargo().args(["clippy", "--locked", "--all-targets", "--quiet", "--", "-D", "warnings"]).run()?;
    // `--all-targets` passes over targets that a plain `cargo test` does not run.
    Cmd::cargo()
        .args(["clippy", "--locked", "--quiet", "--package", "pod2pod-tests", "--test", "kernel"])
        .args(["--test", "opinion", "--", "-D", "warnings"])
        .run()?;
    Cmd::cargo()
        .args(["clippy", "--locked", "--quiet", "--package", "pod2pod-user", "--package", "pod2pod-tests"])
        .args(["--lib", "--bins", "--test", "sinks"])
        .args(build::KAFKA)
        .args(["--", "-D", "warnings"])
        .run()?;
    Cmd::cargo()
        .args(["check", "--locked", "--quiet", "--package", "pod2pod-user"])
        .args(["--target", toolchain::OTHER_TARGET])
        .run()?;
    build::ebpf_cargo("clippy")?.args(["--release", "--quiet", "--", "-D", "warnings"]).run()
}
