//! The live figures: rounds of load, with and without somebody who watches, in an order that gives everybody the same
//! weather.

use anyhow::{Context as _, Result, bail};
use support::processes;

use crate::{
    Plan, cost, latency,
    observers::{self, Observer, Seen, Started, Watching},
    report::{Report, Row},
    say,
    stage::Stage,
    streams, throughput,
};

/// A figure: its name, and what measures it.
type Figure = (&'static str, fn(&Plan, &mut Stage, &mut Report) -> Result<()>);

const FIGURES: [Figure; 7] = [
    (throughput::FIGURE, throughput::measure),
    (cost::FULL, cost::at_full_load),
    (cost::PACED, cost::at_a_pace),
    (latency::FIGURE, latency::measure),
    (streams::LARGE, streams::large),
    (streams::BULK, streams::bulk),
    (cost::QUIET, cost::when_quiet),
];

/// Measures all live figures that the plan wants.
pub(crate) fn run(plan: &Plan, report: &mut Report) -> Result<()> {
    let mut stage = Stage::build()?;
    for (name, measure) in FIGURES.iter().filter(|(name, _)| plan.wants(name)) {
        if let Err(error) = measure(plan, &mut stage, report) {
            // One figure less is no reason to lose the others, unless there is no stage any more.
            stage.check().with_context(|| format!("{error:#}"))?;
            if processes::interrupted() {
                return Err(error);
            }
            report.push(Row::failed(name, Observer::Pod2pod.name(), &format!("{error:#}")));
        }
    }
    Ok(())
}

/// Starts the agent as it comes.
pub(crate) fn agent(plan: &Plan, stage: &Stage) -> Result<Watching> {
    match observers::start(Observer::Pod2pod, &plan.agent, stage, &[])? {
        Started::Watching(watching) => Ok(watching),
        Started::Unknown(why) => bail!("the agent does not start as it comes: {why}"),
    }
}

/// Rounds of a load with the agent, and without it before and after each. What the agent saw of `target` is
/// for `check`.
pub(crate) fn rounds<T>(
    plan: &Plan,
    stage: &mut Stage,
    name: &str,
    mut load: impl FnMut(&Stage) -> Result<T>,
    mut check: impl FnMut(&T, &Seen),
    target: &str,
) -> Result<Vec<(Observer, T)>> {
    // Caches and frequencies before anything counts.
    load(stage)?;
    let mut rounds = vec![(Observer::None, load(stage)?)];
    for cycle in 1..=plan.rounds {
        say(&format!("{name}, cycle {cycle} of {}", plan.rounds));
        let watching = agent(plan, stage)?;
        let loaded = load(stage)?;
        check(&loaded, &watching.end(target)?);
        rounds.push((Observer::Pod2pod, loaded));
        rounds.push((Observer::None, load(stage)?));
        stage.check()?;
    }
    Ok(rounds)
}
