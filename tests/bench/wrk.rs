//! wrk: thirty-two connections that ask as fast as they are answered. Reads what it reports.

use std::{fs::File, path::Path, process::Stdio, time::Duration};

use anyhow::{Context as _, Result, bail};
use support::processes::Process;

use crate::stage::{self, SERVER, Stage};

/// Connections at a time.
pub(crate) const CONNECTIONS: u64 = 32;
/// How much longer than asked wrk may take.
const MAX_OVERTIME: Duration = Duration::from_secs(20);

/// What wrk reports.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Load {
    /// Responses that it read whole.
    pub(crate) requests: u64,
    /// Requests a second.
    pub(crate) rate: f64,
}

/// Asks for `target` for `time`.
pub(crate) fn run(stage: &Stage, target: &str, time: Duration) -> Result<Load> {
    let said = stage.file("wrk");
    let mut command = stage::command(Some(&stage.client), "wrk")?;
    command.args(["--threads", "1", "--connections", &CONNECTIONS.to_string()]);
    command.args(["--duration", &format!("{}s", time.as_secs().max(1)), &format!("http://{SERVER}{target}")]);
    command.stdout(File::create(&said)?).stderr(Stdio::inherit());
    Process::start("load", &mut command)?.finish(time + MAX_OVERTIME)?;
    parse(&read(&said)?).with_context(|| format!("wrk said: {}", read(&said).unwrap_or_default()))
}

fn read(file: &Path) -> Result<String> {
    std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))
}

fn parse(text: &str) -> Result<Load> {
    for bad in ["Socket errors", "Non-2xx"] {
        if text.contains(bad) {
            bail!("requests failed");
        }
    }
    let requests = text.lines().find_map(|line| line.trim().split_once(" requests in "));
    let rate = text.lines().find_map(|line| line.strip_prefix("Requests/sec:"));
    Ok(Load {
        requests: requests.context("no count")?.0.parse()?,
        rate: rate.context("no rate")?.trim().parse()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAID: &str = "Running 2s test @ http://10.78.0.2:8080/small\n  1 threads and 32 connections\n  \
        229416 requests in 2.00s, 38.51MB read\nRequests/sec: 114621.05\nTransfer/sec:     19.24MB\n";

    #[test]
    fn the_report_of_wrk_is_read() {
        let load = parse(SAID).expect("a report");
        assert_eq!(load, Load { requests: 229_416, rate: 114_621.05 });
    }

    #[test]
    fn failed_requests_are_no_figure() {
        let errors =
            SAID.replace("Transfer", "  Socket errors: connect 0, read 3, write 0, timeout 0\nTransfer");
        assert!(parse(&errors).is_err());
    }
}
