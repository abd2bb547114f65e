//! `cargo xtask bench`: figures of the agent beside those of other tools, measured in the same run on a stage of its own.

use std::{
    io::{self, Write as _},
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use anyhow::{Context as _, Result, bail};

mod agent;
mod bulk;
mod checks;
mod cost;
mod ipvs;
mod latency;
mod live;
mod machine;
mod measured;
mod memory;
mod names;
mod observers;
mod output;
mod paced;
mod parts;
mod plot;
mod readme;
mod replay;
mod report;
mod sinks;
mod spread;
mod stage;
mod streams;
mod throughput;
mod wrk;

use report::Report;
use support::processes;

const USAGE: &str = "usage: pod2pod-bench AGENT OUT [live|replay|memory|parts|ipvs|names|sinks]… [--quick] [--rounds N] [--seconds N] [--only WORD]";

/// What was asked for.
#[derive(Debug)]
pub(crate) struct Plan {
    /// The release binary.
    pub(crate) agent: PathBuf,
    /// Where the results go.
    pub(crate) out: PathBuf,
    /// Sections to run.
    sections: Vec<String>,
    /// Rounds of each comparison.
    pub(crate) rounds: usize,
    /// How long a round measures.
    pub(crate) round: Duration,
    /// Only figures whose name has this in it.
    only: Option<String>,
    pub(crate) quick: bool,
}

/// Everything, in the order of the README.
const SECTIONS: [&str; 7] = ["live", "memory", "replay", "parts", "ipvs", "names", "sinks"];
/// Interleaved rounds, unless told otherwise.
const DEFAULT_ROUNDS: usize = 10;
/// Rounds of a quick run.
const QUICK_ROUNDS: usize = 3;

impl Plan {
    fn parse(words: &[String]) -> Result<Self> {
        let (agent, out, rest) = match words {
            [agent, out, rest @ ..] => (agent, out, rest),
            _ => bail!(USAGE),
        };
        let quick = rest.iter().any(|word| word == "--quick");
        let mut plan = Self {
            agent: agent.into(),
            out: out.into(),
            sections: Vec::new(),
            rounds: if quick { QUICK_ROUNDS } else { DEFAULT_ROUNDS },
            round: Duration::from_millis(if quick { 1000 } else { 2000 }),
            only: None,
            quick,
        };
        let mut rest = rest.iter();
        while let Some(word) = rest.next() {
            match word.as_str() {
                "live" | "replay" | "memory" | "parts" | "ipvs" | "names" | "sinks" => {
                    plan.sections.push(word.clone())
                }
                "--quick" => {}
                "--rounds" => plan.rounds = rest.next().context(USAGE)?.parse().context("--rounds N")?,
                "--seconds" => {
                    let seconds = rest.next().context(USAGE)?.parse().context("--seconds N")?;
                    plan.round = Duration::from_secs(seconds);
                }
                "--only" => plan.only = Some(rest.next().context(USAGE)?.clone()),
                _ => bail!(USAGE),
            }
        }
        if plan.sections.is_empty() {
            plan.sections = SECTIONS.map(str::to_owned).to_vec();
        }
        Ok(plan)
    }

    /// Whether a figure is to be measured.
    pub(crate) fn wants(&self, figure: &str) -> bool {
        self.only.as_ref().is_none_or(|only| figure.contains(only.as_str()))
    }
}

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let (first, rest) = words.split_first().map_or(("", &[][..]), |(first, rest)| (first.as_str(), rest));
    let result = match (first, rest) {
        // The benchmark starts itself again in front of what it starts, and as its own clients.
        (stage::BECOME, [namespace, program, arguments @ ..]) => {
            stage::become_program(Path::new(namespace), program, arguments).map(|never| match never {})
        }
        (paced::WORD, rest) => paced::become_client(rest).map(|()| ExitCode::SUCCESS),
        (bulk::SEND, rest) => bulk::become_sender(rest).map(|()| ExitCode::SUCCESS),
        (measured::WORD, rest) => measured::become_parent(rest).map(|()| ExitCode::SUCCESS),
        (sinks::WORD, rest) => sinks::become_load(rest).map(|()| ExitCode::SUCCESS),
        (bulk::RECEIVE, _) => bulk::become_receiver().map(|()| ExitCode::SUCCESS),
        _ => Plan::parse(&words).and_then(|plan| run(&plan)),
    };
    result.unwrap_or_else(|error| {
        let _ = writeln!(io::stderr(), "pod2pod-bench: {error:#}");
        ExitCode::FAILURE
    })
}

fn run(plan: &Plan) -> Result<ExitCode> {
    processes::watch_signals()?;
    let mut wrong = 0;
    for section in &plan.sections {
        let mut report = Report::new(section, plan.quick);
        let result = match section.as_str() {
            "live" => live::run(plan, &mut report),
            "memory" => memory::run(plan, &mut report),
            "parts" => parts::run(plan, &mut report),
            "ipvs" => ipvs::run(plan, &mut report),
            "names" => names::run(plan, &mut report),
            "sinks" => sinks::run(plan, &mut report),
            _ => replay::run(plan, &mut report),
        };
        // What was measured before something failed is worth reading.
        writeln!(io::stdout(), "{}", report.table())?;
        result?;
        wrong += report.rows.iter().filter(|row| !row.wrong.is_empty()).count();
        if plan.only.is_none() {
            report.save(&plan.out)?;
        }
    }
    report::collect(&plan.out, &SECTIONS)?;
    say(&format!("{0}/results.json, {0}/results.svg and {0}/table.md have it all", plan.out.display()));
    if wrong > 0 {
        bail!("{wrong} rows are WRONG: see the table");
    }
    Ok(ExitCode::SUCCESS)
}

/// Says how far it is: a run takes minutes.
pub(crate) fn say(text: &str) {
    let _ = writeln!(io::stderr(), "bench: {text}");
}
