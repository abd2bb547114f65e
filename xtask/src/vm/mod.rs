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
mod failures;
mod fetch;
mod initramfs;
mod machine;

use facts::{Facts, Outcome};
use failures::Failures;
use fetch::Kernel;
use initramfs::Content;

/// Debian suites with the kernels that the tests run on: the oldest kernel that we support, and those of the newer
/// stable releases.
const SUITES: [&str; 3] = ["bullseye-security", "bookworm-security", "trixie-security"];
/// Machines at a time.
const MACHINES: usize = 2;
/// The tests make a twentieth of what they make on the machine itself: so much slower is emulation.
const SCALE: &str = "20";
/// The benchmark's larger tables.
const BENCH_SCALE: &str = "4";
/// The kernel of what is not run on all: the one whose release most clusters have.
const ONE_SUITE: &str = "bookworm-security";
/// The test that reads live tables of several sizes.
const READING_TEST: &str = "ipvs::live";
/// A machine that runs longer hangs. It takes a sixth of it where little else runs.
const MAX_TIME: Duration = Duration::from_secs(2400);
/// Tests at a time in a machine: what a test waits costs nothing there.
const TEST_THREADS: usize = 1;
/// Programs that the tests start.
const PROGRAMS: [&str; 12] =
    ["sh", "ip", "tc", "nft", "ipvsadm", "nsenter", "tee", "sleep", "cat", "nginx", "wrk", "setpriv"];

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
    let tests = Job::tests(arguments, SCALE)?;
    let kernels = suites.iter().map(|suite| fetch::kernel(suite)).collect::<Result<Vec<Kernel>>>()?;
    let next = AtomicUsize::new(0);
    let outcomes = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..MACHINES.min(kernels.len()) {
            scope.spawn(|| {
                // The newer a kernel, the more of the tests find what they try: the longest ones first.
                while let Some(kernel) = kernels.iter().nth_back(next.fetch_add(1, Ordering::Relaxed)) {
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

/// How long a machine took to read live tables: a line each of kernel, entries and microseconds.
///
/// # Errors
/// Set-up or the machine fails, or the test.
pub(crate) fn readings() -> Result<String> {
    setup::ensure(&["vm"])?;
    let outcome = run_on(&fetch::kernel(ONE_SUITE)?, &Job::tests(&[READING_TEST.to_owned()], BENCH_SCALE)?);
    outcome.result.map_err(anyhow::Error::msg)?;
    Ok(facts::readings(&outcome.kernel, &outcome.facts))
}

/// Runs a program of the tests crate on one kernel, with the daemon and these arguments behind it, and shows what it says.
///
/// # Errors
/// Set-up or the machine fails, or the program.
pub(crate) fn show(program: &str, arguments: &[&str]) -> Result<ExitCode> {
    setup::ensure(&["vm"])?;
    let job = Job::program(program, arguments)?;
    let status = job.run(&fetch::kernel(ONE_SUITE)?, &mut |line| say(line))?;
    Ok(ExitCode::from(u8::try_from(status).unwrap_or(1)))
}

fn run_on(kernel: &Kernel, tests: &Job) -> Outcome {
    let start = Instant::now();
    let (mut facts, mut failures) = (Facts::default(), Failures::default());
    let name = kernel.version.split('-').next().unwrap_or_default();
    let status = tests.run(kernel, &mut |line| {
        if !facts.take(line) {
            failures.read(line);
            say(&format!("{name:<12} {line}"));
        }
    });
    let result = match status {
        Ok(0) => Ok(()),
        Ok(status) => Err(format!("the tests failed with status {status}{}", failures.text())),
        Err(error) => Err(format!("{error:#}")),
    };
    Outcome { kernel: kernel.version.clone(), facts, result, time: start.elapsed() }
}

/// What runs on a kernel.
struct Job {
    files: Vec<PathBuf>,
    command: String,
}

impl Job {
    /// Builds as the kernel tier does, so that nothing is built twice: the daemon optimised, as people run it, the tests
    /// not.
    fn tests(arguments: &[String], scale: &str) -> Result<Self> {
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
             export POD2POD_TEST_SCALE={scale} POD2POD_TEST_BINARY='{}'\nexec '{}'{}\n",
            daemon.display(),
            test.display(),
            words.collect::<String>()
        );
        let mut files = vec![test, party, daemon, manifest];
        files.extend(toolchain::OBJECTS.map(toolchain::object));
        Ok(Self { files, command })
    }

    /// A program of the tests crate; the daemon is its first argument.
    fn program(name: &str, arguments: &[&str]) -> Result<Self> {
        let daemon = build::daemon()?;
        Cmd::cargo()
            .env("CARGO_TARGET_DIR", "target")
            .args(["build", "--locked", "--quiet", "--package", "pod2pod-tests", "--bin", name])
            .run_aside()?;
        let program = cmd::workspace().join("target/debug").join(name);
        let words: String = arguments.iter().map(|word| format!(" '{word}'")).collect();
        let command = format!(
            "#!/bin/sh\nexport POD2POD_TEST_BINARY='{0}'\nexec '{1}' '{0}'{words}\n",
            daemon.display(),
            program.display()
        );
        Ok(Self { files: vec![program, daemon], command })
    }

    /// Gives its status.
    fn run(&self, kernel: &Kernel, said: &mut impl FnMut(&str)) -> Result<i32> {
        let content = Content { programs: &PROGRAMS, files: &self.files, command: &self.command };
        let file_system = initramfs::build(kernel, &content)?;
        machine::run(kernel, file_system, MAX_TIME, said)
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
