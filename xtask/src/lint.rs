//! rustfmt and clippy, for the host and for the kernel side separately. Our own rules are in `tidy`.

use anyhow::Result;

use crate::{build, cmd::Cmd, setup};

/// `cargo xtask lint`.
///
/// # Errors
/// A tool has findings, or cannot be run.
pub(crate) fn command() -> Result<()> {
    setup::ensure(&["lint"])?;
    Cmd::cargo().args(["fmt", "--all", "--check"]).run()?;
    Cmd::cargo().args(["clippy", "--locked", "--all-targets", "--quiet", "--", "-D", "warnings"]).run()?;
    // `--all-targets` passes over targets that a plain `cargo test` does not run.
    Cmd::cargo()
        .args(["clippy", "--locked", "--quiet", "--package", "pod2pod-tests", "--test", "kernel"])
        .args(["--test", "opinion", "--", "-D", "warnings"])
        .run()?;
    build::ebpf_cargo("clippy").args(["--release", "--quiet", "--", "-D", "warnings"]).run()
}
