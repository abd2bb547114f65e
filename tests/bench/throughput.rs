//! The throughput that is kept while somebody watches, and whether what the agent wrote is what was spoken.

use std::fmt::Write as _;

use anyhow::Result;

use crate::{
    Plan,
    checks::{self, Checks},
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

/// The figure.
pub(crate) const FIGURE: &str = "throughput kept, small exchanges";

/// One round.
struct Round {
    observer: Observer,
    load: Load,
    seen: Seen,
}

/// Measures it; requests a second with nobody watching.
pub(crate) fn measure(plan: &Plan, stage: &mut Stage, report: &mut Report) -> Result<()> {
    let mut rounds: Vec<Round> = Vec::new();
    let mut unknown: Vec<(Observer, String)> = Vec::new();
    // Caches and frequencies before anything counts.
    wrk::run(stage, SMALL, plan.round)?;
    for cycle in 1..=plan.rounds {
        let mut line = format!("{FIGURE}, cycle {cycle} of {}:", plan.rounds);
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
            report.push(Row::skipped(FIGURE, observer.name(), why));
            continue;
        }
        let kept = spread::kept(&values, &observer, &Observer::None);
        let mut row = Row::measured(FIGURE, observer.name(), "share", Spread::of(&kept));
        let own: Vec<&Round> = rounds.iter().filter(|round| round.observer == observer).collect();
        row = if observer.is_agent() {
            row.at_least(0.90).checked(&check(observer, &own)).note(records(observer, &own))
        } else {
            row.note(sightings(observer, &own))
        };
        report.push(row);
    }
    Ok(())
}

/// Records against requests. wrk leaves requests unanswered when its time is over, at most one a connection: so every
/// round's records at each end are what wrk reports, or up to that many more.
fn check(observer: Observer, rounds: &[&Round]) -> Checks {
    let mut checks = Checks::default();
    for Round { load, seen, .. } in rounds {
        let check = if observer.sightings() == 2 { checks::both_ends } else { checks::one_end };
        checks.add(check(load.requests, wrk::CONNECTIONS, seen));
    }
    checks
}

/// The same in all rounds together, in words.
fn records(observer: Observer, rounds: &[&Round]) -> String {
    let sum = |part: fn(&Round) -> u64| rounds.iter().map(|round| part(round)).sum::<u64>();
    let (requests, lost) = (sum(|round| round.load.requests), sum(|round| round.seen.lost));
    let records = sum(|round| round.seen.records.total());
    let sightings = observer.sightings();
    let rest = i128::from(records) - i128::from(sightings * requests);
    format!(
        "{records} records = {sightings} × {requests} requests {rest:+} that wrk left unanswered; lost {lost}"
    )
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
