//! Builds and starts the demo, which is a program of the tests crate.

use std::process::ExitCode;

use anyhow::Result;

use crate::{
    build,
    cmd::{self, Cmd},
    setup, vm,
};

/// What tells the story of IPVS.
const IPVS: &str = "ipvs";
/// What tells the story of a shop in Kubernetes.
const KUBERNETES: &str = "k8s";
/// What tells the story of servers that records go to.
const SINKS: &str = "sinks";

/// `cargo xtask demo [--tamper sent|observed]`: becomes the demo; its exit code says whether all was observed. `cargo xtask demo
/// ipvs` runs it in a small machine whose kernel has IPVS; `cargo xtask demo k8s` starts an API server first, `cargo xtask demo sinks`
/// servers that records go to.
///
/// # Errors
/// Set-up or build fails, or the demo cannot be started.
pub(crate) fn command(arguments: &[String]) -> Result<ExitCode> {
    if arguments == [IPVS] {
        return vm::show("pod2pod-demo", &[IPVS]);
    }
    let has_servers = arguments == [KUBERNETES] || arguments == [SINKS];
    let goals: &[&str] = if has_servers { &["demo", "services"] } else { &["demo"] };
    setup::ensure(goals)?;
    let agent = build::daemon()?;
    // Not a release build: the tests crate asks for other features of the same dependencies, and they would be built
    // twice; as it is, the test tiers share them.
    Cmd::cargo()
        .env("CARGO_TARGET_DIR", "target")
        .args(["build", "--locked", "--package", "pod2pod-tests", "--bin", "pod2pod-demo"])
        .run_aside()?;
    let demo = Cmd::new(cmd::workspace().join("target/debug/pod2pod-demo")).args([agent]).args(arguments);
    cmd::as_root(demo).become_it().map(|never| match never {})
}
