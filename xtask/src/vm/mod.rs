//! The vm tier: the kernel tier's own test binary in small machines with stock Debian kernels, two machines at a time.
//!
//! The tests ask their kernel what it has; here is only which kernels there are, and how much the tests do.

use std::{
    path::PathBuf,
    process::ExitCode,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};

use crate::{
    build,
    cmd::{self, Cmd, say},
    setup, toolchain,
};

mod cpio;
mod facts;
mod fetch;
mod initramfs;
mod machine;

use facts::{Facts, Outcome};
use fetch::Kernel;
use initramfs::Content;

/// Debian suites with the kernels that the tests run on: the oldest kernel that we support, and those of the newer
/// stable releases.
const SUITES: [&str; 3] = ["bullseye-security", "bookworm-security", "trixie-security"];
/// Machines at a time.
const MACHINES: usize = 2;
/// The tests make a twentieth of what they make on the machine itself: so much slower is emulation.
const SCALE: &str = "20";
/// A machine that runs longer hangs. It takes a fifth of it where nothing else runs.
const MAX_TIME: Duration = Duration::from_secs(1200);
/// Tests at a time in a machine.
const TEST_THREADS: usize = 2;
/// Programs that the tests start.
const PROGRAMS: [&str; 10] = ["sh", "ip", "tc", "nft", "nsenter", "tee", "sleep", "cat", "nginx", "wrk"];

/// `cargo xtask vm [SUITE…] [-- ARG…]`: the tests on some kernels only, with the test runner's arguments.
///
/// # Errors
/// Set-up or a machine fails. Tests that fail are an exit code.
pub(crate) fn command(arguments: &[String]) -> Result<ExitCode> {
    setup::ensure(&["vm"])?;
    let mut halves = arguments.split(|argument| argument == "--");
    let suites: Vec<&str> = halves.next().unwrap_or_default().iter().map(String::as_str).collect();
    let suites = if suites.is_empty() { SUITES.to_vec() } else { suites };
    if let Some(unknown) = suites.iter().find(|suite| !SUITES.contains(suite)) {
        say(&format!("xtask: no kernel is of `{unknown}`; there are: {}", SUITES.join(" ")));
        return Ok(ExitCode::from(crate::EXIT_USAGE));
    }
    run(&suites, halves.next().unwrap_or_default()).map(|()| ExitCode::SUCCESS)
}

/// The tier: all kernels, all tests.
///
/// # Errors
/// A kernel cannot be fetched, a machine dies, or a test fails.
pub(crate) fn tier() -> Result<()> {
    run(&SUITES, &[])
}

fn run(suites: &[&str], arguments: &[String]) -> Result<()> {
    if !cfg!(target_arch = "x86_64") {
        bail!("the machines run this machine's own programs, and their kernels are for x86-64");
    }
    let tests = Tests::build(arguments)?;
    let kernels = suites.iter().map(|suite| fetch::kernel(suite)).collect::<Result<Vec<Kernel>>>()?;
    let next = AtomicUsize::new(0);
    let outcomes = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..MACHINES.min(kernels.len()) {
            scope.spawn(|| {
                while let Some(kernel) = kernels.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let outcome = run_on(kernel, &tests);
                    outcomes.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(outcome);
                }
            });
        }
    });
    let mut outcomes = outcomes.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    // In the order of `suites`, not of their ends.
    outcomes.sort_by_key(|outcome| kernels.iter().position(|kernel| kernel.version == outcome.kernel));
    say(&facts::table(&outcomes));
    let failures: Vec<String> = outcomes
        .into_iter()
        .filter_map(|outcome| outcome.result.err().map(|error| format!("{}: {error}", outcome.kernel)))
        .collect();
    if failures.is_empty() { Ok(()) } else { bail!("{}", failures.join("\n")) }
}

fn run_on(kernel: &Kernel, tests: &Tests) -> Outcome {
    let start = Instant::now();
    let mut facts = Facts::default();
    let result = tests.run_on(kernel, &mut facts).map_err(|error| format!("{error:#}"));
    Outcome { kernel: kernel.version.clone(), facts, result, time: start.elapsed() }
}

/// What runs on each kernel.
struct Tests {
    files: Vec<PathBuf>,
    command: String,
}

impl Tests {
    /// Builds as the kernel tier does, so that nothing is built twice: the daemon optimised, as people run it, the tests
    /// not.
    fn build(arguments: &[String]) -> Result<Self> {
        let daemon = build::daemon()?;
        let build = ["--locked", "--quiet", "--package", "pod2pod-tests", "--test", "kernel"];
        let cargo =
            |subcommand| Cmd::cargo().env("CARGO_TARGET_DIR", "target").args([subcommand]).args(build);
        cargo("build").args(["--bin", "pod2pod-party"]).run_aside()?;
        let built = cargo("test").args(["--no-run", "--message-format=json"]);
        let built = built.ask().with_context(|| format!("this command failed:\n  {built}"))?;
        let test = executable(&built, "kernel").context("cargo does not say where the kernel tier is")?;
        let root = cmd::workspace();
        let party = root.join("target/debug/pod2pod-party");
        // The tests know their own places on this machine, and find these there.
        let manifest = root.join("tests/Cargo.toml");
        let words = arguments.iter().map(|word| format!(" '{}'", word.replace('\'', r"'\''")));
        let command = format!(
            "#!/bin/sh\nexport RUST_BACKTRACE=1 RUST_TEST_THREADS={TEST_THREADS}\n\
             export POD2POD_TEST_SCALE={SCALE} POD2POD_TEST_BINARY='{}'\nexec '{}'{}\n",
            daemon.display(),
            test.display(),
            words.collect::<String>()
        );
        Ok(Self { files: vec![test, party, daemon, toolchain::object(), manifest], command })
    }

    fn run_on(&self, kernel: &Kernel, facts: &mut Facts) -> Result<()> {
        let content = Content { programs: &PROGRAMS, files: &self.files, command: &self.command };
        let file_system = initramfs::build(kernel, &content)?;
        let name = kernel.version.split('-').next().unwrap_or_default();
        let status = machine::run(kernel, file_system, MAX_TIME, &mut |line| {
            if !facts.take(line) {
                say(&format!("{name:<12} {line}"));
            }
        })?;
        if status == 0 { Ok(()) } else { bail!("the tests failed with status {status}") }
    }
}

/// Where cargo built the test called `name`, from its messages in JSON, one a line.
fn executable(messages: &str, name: &str) -> Option<PathBuf> {
    let named = format!("\"name\":\"{name}\"");
    let line = messages.lines().find(|line| line.contains(&named) && line.contains("\"executable\":\""))?;
    let (_, path) = line.split_once("\"executable\":\"")?;
    path.split('"').next().map(PathBuf::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_test_is_found_in_what_cargo_says() {
        let messages = "{\"target\":{\"name\":\"kernel\"},\"executable\":null}\n\
                        {\"target\":{\"name\":\"support\"},\"executable\":\"/t/support-1\"}\n\
                        {\"target\":{\"name\":\"kernel\"},\"executable\":\"/t/kernel-1\",\"fresh\":true}\n";
        assert_eq!(executable(messages, "kernel"), Some(PathBuf::from("/t/kernel-1")));
        assert_eq!(executable(messages, "opinion"), None);
    }
}
