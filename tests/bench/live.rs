//! The live figures: rounds of load, each with another observer, in an order that gives everybody the same weather.

use std::fmt::Write as _;

use anyhow::{Context as _, Result, bail};

use crate::{
    Plan,
    agent::Meter,
    observers::{self, Observer, Seen, Started},
    report::{Report, Row},
    say,
    spread::{self, Spread},
    stage::{SMALL, Stage},
    wrk::{self, Load},
};

/// The order of a cycle: every observer has a round without any next to it.
const CYCLE: [Observer; 10] = [
    Observer::None,
    Observer::Pod2pod,
    Observer::Tcpdump,
    Observer::None,
    Observer::Pod2podServer,
    Observer::Httpry,
    Observer::None,
    Observer::Pod2podTc,
    Observer::Tshark,
    Observer::None,
];

/// The figure that everything else is about.
const THROUGHPUT: &str = "throughput kept, small exchanges";

const CPU_FULL: &str = "CPU per exchange, both ends seen, full load";

/// Measures all live figures that the plan wants.
pub(crate) fn run(plan: &Plan, report: &mut Report) -> Result<()> {
    let mut stage = Stage::build()?;
    if plan.wants(THROUGHPUT) {
        throughput(plan, &mut stage, report).context(THROUGHPUT)?;
    }
    if plan.wants(CPU_FULL) {
        cpu_at_full_load(plan, &stage, report).context(CPU_FULL)?;
    }
    stage.check()
}

/// CPU time of the agent and of the kernel's programs over the exchanges of wrk. Rounds of their own: measuring the
/// programs costs them some tens of nanoseconds a run.
fn cpu_at_full_load(plan: &Plan, stage: &Stage, report: &mut Report) -> Result<()> {
    let (mut all, mut user, mut runs) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..plan.rounds {
        let Started::Watching(watching) = observers::start(Observer::Pod2pod, &plan.agent, stage, &[])?
        else {
            bail!("the agent does not start as it comes");
        };
        let meter = Meter::start(watching.pid().context("the agent is a process")?)?;
        let load = wrk::run(stage, SMALL, plan.round)?;
        let used = meter.stop()?;
        watching.end(SMALL)?;
        let exchanges = load.requests as f64;
        all.push((used.agent + used.programs).as_secs_f64() * 1e6 / exchanges);
        user.push(used.agent.as_secs_f64() * 1e6 / exchanges);
        runs.push(used.runs as f64 / exchanges);
    }
    let median = |values: &[f64]| Spread::of(values).map_or(0.0, |spread| spread.median);
    let row = Row::measured(CPU_FULL, Observer::Pod2pod.name(), "µs", Spread::of(&all)).at_most(3.0);
    report.push(row.note(format!(
        "agent {:.2} µs; kernel programs {:.2} µs in {:.1} runs an exchange",
        median(&user),
        median(&all) - median(&user),
        median(&runs)
    )));
    Ok(())
}

/// One round.
struct Round {
    observer: Observer,
    load: Load,
    seen: Seen,
}

fn throughput(plan: &Plan, stage: &mut Stage, report: &mut Report) -> Result<()> {
    let mut rounds: Vec<Round> = Vec::new();
    let mut unknown: Vec<(Observer, String)> = Vec::new();
    // Caches and frequencies before anything counts.
    wrk::run(stage, SMALL, plan.round)?;
    for cycle in 1..=plan.rounds {
        let mut line = format!("{THROUGHPUT}, cycle {cycle} of {}:", plan.rounds);
        for observer in CYCLE {
            if unknown.iter().any(|(one, _)| *one == observer) {
                continue;
            }
            let watching = match observers::start(observer, &plan.agent, stage, &[])? {
                Started::Watching(watching) => watching,
                Started::Unknown(why) => {
                    unknown.push((observer, why));
                    continue;
                }
            };
            let load = wrk::run(stage, SMALL, plan.round)?;
            let seen = watching.end(SMALL)?;
            write!(line, " {} {:.0}", observer.name(), load.rate)?;
            stage.check()?;
            rounds.push(Round { observer, load, seen });
        }
        say(&line);
    }
    let values: Vec<(Observer, f64)> = rounds.iter().map(|round| (round.observer, round.load.rate)).collect();
    let bare: Vec<f64> =
        values.iter().filter(|(observer, _)| *observer == Observer::None).map(|(_, rate)| *rate).collect();
    report.push(Row::measured("requests a second, nobody watching", "none", "1/s", Spread::of(&bare)));
    for (place, observer) in CYCLE.into_iter().enumerate() {
        if observer == Observer::None || CYCLE[..place].contains(&observer) {
            continue;
        }
        if let Some((_, why)) = unknown.iter().find(|(one, _)| *one == observer) {
            report.push(Row::skipped(THROUGHPUT, observer.name(), why));
            continue;
        }
        let kept = spread::kept(&values, &observer, &Observer::None);
        let mut row = Row::measured(THROUGHPUT, observer.name(), "share", Spread::of(&kept));
        let own: Vec<&Round> = rounds.iter().filter(|round| round.observer == observer).collect();
        row.note = if observer.is_agent() { records(observer, &own)? } else { sightings(observer, &own) };
        if observer.is_agent() {
            row = row.at_least(0.90);
        }
        report.push(row);
    }
    Ok(())
}

/// Records against requests. wrk leaves requests unanswered when its time is over, at most one a connection: so every
/// round's records at each end are what wrk reports, or up to that many more.
fn records(observer: Observer, rounds: &[&Round]) -> Result<String> {
    let (mut requests, mut extra, mut lost) = (0, 0, 0);
    for Round { load, seen, .. } in rounds {
        requests += load.requests;
        lost += seen.lost;
        for end in ["client", "server"] {
            let at_end = seen.records.at(end);
            if observer.sightings() == 1 && end == "client" && at_end == 0 {
                continue;
            }
            match at_end.checked_sub(load.requests) {
                Some(more) if more <= wrk::CONNECTIONS => extra += more,
                _ if seen.lost > 0 => {}
                _ => bail!("{} requests, but the records are {:?}", load.requests, seen.records.by_kind),
            }
        }
    }
    let total: u64 = rounds.iter().map(|round| round.seen.records.total()).sum();
    let sightings = observer.sightings();
    Ok(format!(
        "{total} records = {sightings} × {requests} requests + {extra} of requests that wrk left unanswered; lost {lost}"
    ))
}

/// What another tool saw of what there was to see.
fn sightings(observer: Observer, rounds: &[&Round]) -> String {
    let requests: u64 = rounds.iter().map(|round| round.load.requests).sum();
    let (lines, missed) = rounds
        .iter()
        .fold((0, 0), |(lines, missed), Round { seen, .. }| (lines + seen.lines, missed + seen.missed));
    let share = lines as f64 / (2 * requests) as f64;
    match observer {
        Observer::Tcpdump => format!("{lines} packets, {missed} missed"),
        _ => format!("saw {share:.3} of the messages, {missed} packets missed"),
    }
}
