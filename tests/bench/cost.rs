//! What watching costs: CPU time of the agent and of its programs in the kernel.
//!
//! Rounds of their own: that the kernel measures the programs costs them some tens of nanoseconds a run.

use anyhow::{Context as _, Result};

use crate::{
    Plan,
    agent::{Meter, Used},
    checks::{self, Checks},
    live,
    observers::{Observer, Seen},
    paced::{self, Pace},
    report::{Report, Row},
    say,
    spread::Spread,
    stage::{SMALL, Stage},
    wrk,
};

/// With wrk.
pub(crate) const FULL: &str = "CPU per exchange, both ends seen, full load";
/// At the pace.
pub(crate) const PACED: &str = "CPU per exchange, both ends seen, 20 000 requests/s";
/// On a quiet node.
pub(crate) const QUIET: &str = "CPU of a node with 500 requests/s, share of a core";

const PACED_RATE: u64 = 20_000;
const QUIET_RATE: u64 = 500;
/// A quiet node's CPU time is short: it is measured so many times as long as anything else.
const QUIET_ROUND: u32 = 5;
/// And so many times less often.
const QUIET_ROUNDS: usize = 3;
const CONNECTIONS: usize = 32;

/// CPU time an exchange, both ends of it told, when the load is all that the machine can do.
pub(crate) fn at_full_load(plan: &Plan, stage: &mut Stage, report: &mut Report) -> Result<()> {
    let mut costs = Costs::default();
    for round in 1..=plan.rounds {
        say(&format!("{FULL}, round {round} of {}", plan.rounds));
        let (used, requests, found) = one(plan, stage, |stage| {
            let load = wrk::run(stage, SMALL, plan.round)?;
            Ok((load.requests, wrk::CONNECTIONS))
        })?;
        costs.add(used, requests);
        costs.checks.add(found);
    }
    report.push(costs.row(FULL).at_most(3.0));
    Ok(())
}

/// The same at a pace.
pub(crate) fn at_a_pace(plan: &Plan, stage: &mut Stage, report: &mut Report) -> Result<()> {
    let mut costs = Costs::default();
    let pace = Pace { connections: CONNECTIONS, rate: PACED_RATE, time: plan.round };
    for round in 1..=plan.rounds {
        say(&format!("{PACED}, round {round} of {}", plan.rounds));
        let (used, requests, found) = one(plan, stage, |stage| Ok((paced::run(stage, pace)?.requests, 0)))?;
        costs.add(used, requests);
        costs.checks.add(found);
    }
    report.push(costs.row(PACED).at_most(3.0));
    Ok(())
}

/// The whole node's CPU time for a trickle.
pub(crate) fn when_quiet(plan: &Plan, stage: &mut Stage, report: &mut Report) -> Result<()> {
    let pace = Pace { connections: CONNECTIONS, rate: QUIET_RATE, time: plan.round * QUIET_ROUND };
    let rounds = plan.rounds.div_ceil(QUIET_ROUNDS);
    let (mut shares, mut programs, mut checks) = (Vec::new(), Vec::new(), Checks::default());
    for round in 1..=rounds {
        say(&format!("{QUIET}, round {round} of {rounds}"));
        let mut seconds = 0.0;
        let (used, _, found) = one(plan, stage, |stage| {
            let answered = paced::run(stage, pace)?;
            seconds = answered.seconds;
            Ok((answered.requests, 0))
        })?;
        shares.push(100.0 * (used.agent + used.programs).as_secs_f64() / seconds);
        checks.add(found);
        programs.push(100.0 * used.programs.as_secs_f64() / seconds);
    }
    let programs = Spread::of(&programs).map_or(0.0, |spread| spread.median);
    let row = Row::measured(QUIET, Observer::Pod2pod.name(), "%", Spread::of(&shares))
        .at_most(0.2)
        .checked(&checks);
    report
        .push(row.note(format!("of it kernel programs {programs:.3} %; CPU time in interrupts is nobody's")));
    Ok(())
}

/// One load under the agent: what it used, how many requests there were, and whether they are what it told. `load` says
/// how many more may have been begun.
fn one(
    plan: &Plan,
    stage: &mut Stage,
    load: impl FnOnce(&Stage) -> Result<(u64, u64)>,
) -> Result<(Used, u64, Result<()>)> {
    let watching = live::agent(plan, stage)?;
    let meter = Meter::start(watching.pid().context("the agent is a process")?)?;
    let (requests, more) = load(stage)?;
    let used = meter.stop()?;
    let seen: Seen = watching.end(SMALL)?;

    stage.check()?;
    Ok((used, requests, checks::both_ends(requests, more, &seen)))
}

/// Costs of exchanges in microseconds, round by round.
#[derive(Default)]
struct Costs {
    all: Vec<f64>,
    agent: Vec<f64>,
    programs: Vec<f64>,
    runs: Vec<f64>,
    checks: Checks,
}

impl Costs {
    fn add(&mut self, used: Used, requests: u64) {
        let requests = requests as f64;
        let each = |seconds: f64| seconds * 1e6 / requests;
        self.all.push(each((used.agent + used.programs).as_secs_f64()));
        self.agent.push(each(used.agent.as_secs_f64()));
        self.programs.push(each(used.programs.as_secs_f64()));
        self.runs.push(used.runs as f64 / requests);
    }

    fn row(&self, figure: &str) -> Row {
        let median = |values: &[f64]| Spread::of(values).map_or(0.0, |spread| spread.median);
        let row = Row::measured(figure, Observer::Pod2pod.name(), "µs", Spread::of(&self.all))
            .checked(&self.checks);
        row.note(format!(
            "agent {:.2} µs; kernel programs {:.2} µs in {:.1} runs an exchange",
            median(&self.agent),
            median(&self.programs),
            median(&self.runs)
        ))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn costs_are_of_one_exchange() {
        let used = Used {
            agent: Duration::from_micros(300),
            output: Duration::ZERO,
            programs: Duration::from_micros(100),
            runs: 800,
        };
        let mut costs = Costs::default();
        costs.add(used, 200);
        let row = costs.row("cost");
        assert_eq!(row.spread.map(|spread| spread.median), Some(2.0));
        assert_eq!(row.note, "agent 1.50 µs; kernel programs 0.50 µs in 4.0 runs an exchange");
    }
}
