//! What a client waits longer because the agent watches, at half of the load that the machine can do.

use std::time::Duration;

use anyhow::Result;

use crate::{
    Plan,
    checks::{self, Checks},
    live,
    observers::Observer,
    paced::{self, Answered, Pace},
    report::{Report, Row},
    spread::{self, Spread},
    stage::{SMALL, Stage},
};

/// The figure.
pub(crate) const FIGURE: &str = "added latency at half load";
const CONNECTIONS: usize = 32;
/// More requests a second than anything answers, and how long they are due.
const FLOOD: u64 = 1_000_000;
const FLOOD_TIME: Duration = Duration::from_millis(200);
/// Requests a second are a multiple of this.
const STEP: u64 = 1000;

/// Measures it.
pub(crate) fn measure(plan: &Plan, stage: &mut Stage, report: &mut Report) -> Result<()> {
    // All of it is due at once: what this client and the server can do.
    let flood = Pace { connections: CONNECTIONS, rate: FLOOD, time: FLOOD_TIME };
    let flooded = paced::run(stage, flood)?;
    let full = (flooded.requests as f64 / flooded.seconds) as u64;
    let rate = (full / 2 / STEP).max(1) * STEP;
    let pace = Pace { connections: CONNECTIONS, rate, time: plan.round };
    let mut checks = Checks::default();
    let rounds = live::rounds(
        plan,
        stage,
        FIGURE,
        |stage| paced::run(stage, pace),
        |answered, seen| checks.add(checks::both_ends(answered.requests, 0, seen)),
        SMALL,
    )?;
    for (name, bound, part) in [
        ("p50", 3.0, (|answered: &Answered| answered.p50) as fn(&Answered) -> f64),
        ("p99", 5.0, |answered| answered.p99),
    ] {
        let values: Vec<(Observer, f64)> =
            rounds.iter().map(|(observer, answered)| (*observer, part(answered))).collect();
        let kept = spread::kept(&values, &Observer::Pod2pod, &Observer::None);
        let added: Vec<f64> = kept.iter().map(|share| (share - 1.0) * 100.0).collect();
        let median = |wanted: Observer| {
            let values: Vec<f64> =
                values.iter().filter(|(one, _)| *one == wanted).map(|(_, value)| *value).collect();
            Spread::of(&values).map_or(0.0, |spread| spread.median)
        };
        let row =
            Row::measured(&format!("{FIGURE}, {name}"), Observer::Pod2pod.name(), "%", Spread::of(&added));
        report.push(row.at_most(bound).checked(&checks).note(format!(
            "{:.0} µs, {:.0} µs with nobody watching; {rate} requests/s",
            median(Observer::Pod2pod),
            median(Observer::None)
        )));
    }
    Ok(())
}
