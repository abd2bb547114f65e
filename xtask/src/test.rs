//! Runs the tiers, each timed, all of them even if one fails, and sums up. What a tier proves is in the tests.

use std::{
    path::Path,
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::Result;

use crate::{
    build,
    cmd::{self, Cmd, say},
    image as archive, lint, setup, tidy, vm,
};

/// A tier: its name, what it runs, and how long that may take on two cores with everything built.
struct Tier {
    name: &'static str,
    run: fn() -> Result<()>,
    budget: Duration,
}

/// In the order in which a developer wants to know.
const TIERS: [Tier; 10] = [
    Tier { name: "tidy", run: tidy::rules_hold, budget: Duration::from_secs(5) },
    Tier { name: "lint", run: lint::command, budget: Duration::from_secs(120) },
    Tier { name: "unit", run: unit, budget: Duration::from_secs(60) },
    Tier { name: "pipeline", run: || integration("pipeline", &[]), budget: Duration::from_secs(180) },
    Tier { name: "daemon", run: || integration("daemon", &[]), budget: Duration::from_secs(120) },
    Tier { name: "opinion", run: || integration("opinion", &[]), budget: Duration::from_secs(240) },
    Tier { name: "kernel", run: kernel, budget: Duration::from_secs(180) },
    Tier { name: "services", run: services, budget: Duration::from_secs(900) },
    // Two release builds.
    Tier { name: "image", run: image, budget: Duration::from_secs(900) },
    // Two rounds of machines.
    Tier { name: "vm", run: vm::tier, budget: Duration::from_secs(720) },
];

/// Tests of the kernel tier at a time: each has namespaces of its own, and more than the cores would only disturb
/// those that count under load.
const KERNEL_TEST_THREADS: usize = 2;

/// Names the daemon that a test starts (tests/support/src/process.rs).
const BINARY_VARIABLE: &str = "POD2POD_TEST_BINARY";

/// Tests of the services tier at a time: a server takes a core while it starts, and half a gigabyte.
const SERVICES_TEST_THREADS: usize = 1;

/// Of those of sinks: an outage takes most of a minute in which nobody does anything.
const SINKS_TEST_THREADS: usize = 4;

/// `cargo xtask test [TIER…]`.
///
/// # Errors
/// Set-up fails. A tier that fails is an exit code.
pub(crate) fn command(names: &[String]) -> Result<ExitCode> {
    if let Some(unknown) = names.iter().find(|name| TIERS.iter().all(|tier| tier.name != **name)) {
        let known: Vec<&str> = TIERS.iter().map(|tier| tier.name).collect();
        say(&format!("xtask: there is no tier `{unknown}`; there are: {}", known.join(" ")));
        return Ok(ExitCode::from(crate::EXIT_USAGE));
    }
    let is_chosen = |tier: &&Tier| names.is_empty() || names.iter().any(|name| name == tier.name);
    let chosen: Vec<&Tier> = TIERS.iter().filter(is_chosen).collect();
    let goals: Vec<&str> =
        chosen.iter().map(|tier| tier.name).filter(|name| setup::GOALS.contains(name)).collect();
    setup::ensure(&goals)?;
    if ["kernel", "services", "vm"].iter().any(|tier| goals.contains(tier)) {
        // Before all tiers: the object is embedded, so building it later would build the daemon twice.
        build::ebpf()?;
    }
    let mut results = Vec::new();
    for tier in chosen {
        say(&format!("\n==== {} ====", tier.name));
        let start = Instant::now();
        let result = (tier.run)();
        if let Err(error) = &result {
            say(&format!("{}: {error:#}", tier.name));
        }
        results.push(TierResult {
            name: tier.name,
            passed: result.is_ok(),
            time: start.elapsed(),
            budget: tier.budget,
        });
    }
    say(&summary(&results));
    Ok(if results.iter().all(|result| result.passed) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

struct TierResult {
    name: &'static str,
    passed: bool,
    time: Duration,
    budget: Duration,
}

fn summary(results: &[TierResult]) -> String {
    let mut table = "\ntier      result      time\n".to_owned();
    for result in results {
        let verdict = if result.passed { "passed" } else { "FAILED" };
        let late = if result.time > result.budget {
            format!("  over its {} s", result.budget.as_secs())
        } else {
            String::new()
        };
        let line = format!("{:<10}{verdict:<8}{:>6.1} s{late}\n", result.name, result.time.as_secs_f64());
        table.push_str(&line);
    }
    let total: Duration = results.iter().map(|result| result.time).sum();
    table.push_str(&format!("{:<18}{:>6.1} s", "total", total.as_secs_f64()));
    table
}

fn unit() -> Result<()> {
    Cmd::cargo().args(["test", "--locked", "--quiet", "--lib", "--bins"]).run()
}

/// A tier that is a test binary of the tests crate. The daemon is built first, for the tiers that start it.
fn integration(tier: &str, arguments: &[&str]) -> Result<()> {
    Cmd::cargo().args(["build", "--locked", "--quiet", "--package", "pod2pod-user"]).run()?;
    test_binary(tier, arguments).run()
}

fn test_binary(tier: &str, arguments: &[&str]) -> Cmd {
    // Only there is something read back from a broker.
    let features: &[&str] = if tier == "sinks" { &build::KAFKA } else { &[] };
    Cmd::cargo()
        .args(["test", "--locked", "--package", "pod2pod-tests"])
        .args(features)
        .args(["--test", tier, "--"])
        .args(arguments)
}

fn kernel() -> Result<()> {
    if !cmd::is_root() {
        anyhow::bail!("this tier loads programs into the kernel and makes namespaces: run it as root");
    }
    build::daemon()?;
    integration("kernel", &[&format!("--test-threads={KERNEL_TEST_THREADS}")])
}

/// Tests of the kernel tier that the image's program has to pass too: it is compiled with another C library and allocator.
const IN_THE_KERNEL: &str = "exchanges::ends::";

fn image() -> Result<()> {
    if !cmd::is_root() {
        anyhow::bail!("this tier runs the image's program with nothing around it: run it as root");
    }
    archive::make()?;
    integration("image", &[])?;
    let program = archive::program_of_this_machine()?;
    test_binary("kernel", &[IN_THE_KERNEL]).env("POD2POD_TEST_BINARY", program).run()
}

fn services() -> Result<()> {
    if !cmd::is_root() {
        anyhow::bail!("this tier runs the agent as it runs on a node: run it as root");
    }
    // As it runs on a node: what it takes is measured.
    let daemon = build::daemon()?;
    let one_binary = |name, threads: usize, program: &Path| {
        test_binary(name, &[&format!("--test-threads={threads}")]).env(BINARY_VARIABLE, program).run()
    };
    let services = one_binary("services", SERVICES_TEST_THREADS, &daemon);
    let with_kafka = Cmd::cargo().args(["build", "--locked", "--quiet", "--package", "pod2pod-user"]);
    with_kafka.args(build::KAFKA).env("CARGO_TARGET_DIR", "target").run()?;
    // One that fails is no reason not to know of the others.
    services.and(one_binary("sinks", SINKS_TEST_THREADS, &cmd::workspace().join("target/debug/pod2pod")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_summary_shows_failures_and_broken_budgets() {
        let result = |name, passed, seconds| TierResult {
            name,
            passed,
            time: Duration::from_secs(seconds),
            budget: Duration::from_secs(60),
        };
        let table = summary(&[result("unit", true, 5), result("kernel", false, 61)]);
        assert_eq!(
            table.trim(),
            "tier      result      time\n\
             unit      passed     5.0 s\n\
             kernel    FAILED    61.0 s  over its 60 s\n\
             total               66.0 s"
        );
    }

    #[test]
    fn tiers_of_tests_can_be_set_up() {
        for tier in TIERS.iter().filter(|tier| tier.name != "tidy") {
            assert!(setup::GOALS.contains(&tier.name), "{}", tier.name);
        }
    }
}
