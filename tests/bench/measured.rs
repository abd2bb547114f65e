//! A program run to its end: how long it took, and how much memory it had at its peak. The benchmark becomes its parent,
//! since the kernel tells a parent the peak of all its children together.

use std::{
    fs::{self, File},
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use nix::sys::resource::{UsageWho, getrusage};
use serde::{Deserialize, Serialize};
use support::processes::{self, Process};

use crate::stage;

/// First word of the command line by which the benchmark becomes the parent.
pub(crate) const WORD: &str = "measured";
/// How long a program may take.
const MAX_TIME: Duration = Duration::from_secs(300);

/// What a run took.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
pub(crate) struct Measured {
    pub(crate) seconds: f64,
    /// Most resident memory at a time, in MiB.
    pub(crate) peak: f64,
}

/// Runs `program` with its standard output in `output` and its standard error in `log`; the result is in `report` meanwhile.
pub(crate) fn run(
    program: &Path,
    arguments: &[String],
    output: &Path,
    log: &Path,
    report: &Path,
) -> Result<Measured> {
    let mut command = stage::command(None, std::env::current_exe()?)?;
    command.arg(WORD).arg(report).arg(program).args(arguments);
    command.stdout(File::create(output)?).stderr(File::create(log)?);
    let said = || fs::read_to_string(log).unwrap_or_default();
    Process::start("program", &mut command)?.finish(MAX_TIME).with_context(said)?;
    serde_json::from_str(&fs::read_to_string(report)?).context("the report of a run")
}

/// This process becomes the parent.
pub(crate) fn become_parent(words: &[String]) -> Result<()> {
    let [report, program, arguments @ ..] = words else { bail!("{WORD} REPORT PROGRAM ARGUMENTS") };
    processes::die_with_parent()?;
    let measured = measure(stage::command(None, program)?.args(arguments))?;
    Ok(serde_json::to_writer(File::create(report)?, &measured)?)
}

fn measure(command: &mut Command) -> Result<Measured> {
    let start = Instant::now();
    let status =
        command.stdin(Stdio::null()).status().with_context(|| format!("cannot start {command:?}"))?;
    let seconds = start.elapsed().as_secs_f64();
    if !status.success() {
        bail!("{command:?} failed: {status}");
    }
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN).context("cannot ask for the children's usage")?;
    // Linux counts KiB (getrusage(2)).
    Ok(Measured { seconds, peak: usage.max_rss() as f64 / 1024.0 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_has_a_time_and_a_peak() {
        let measured = measure(Command::new("sh").args(["-c", "sleep 0.02"])).expect("a shell");
        assert!(measured.seconds >= 0.02 && measured.peak > 0.1, "{measured:?}");
        assert!(measure(&mut Command::new("false")).is_err(), "a failure is no figure");
    }
}
