//! Much data that nobody wants told: large responses, and a stream that is no HTTP.

use anyhow::Result;

use crate::{
    Plan, bulk, live,
    observers::Observer,
    report::{Report, Row},
    spread::{self, Spread},
    stage::{LARGE as LARGE_TARGET, Stage},
    wrk,
};

/// Large responses.
pub(crate) const LARGE: &str = "throughput kept, 1 MB responses";
/// The stream.
pub(crate) const BULK: &str = "throughput kept, non-HTTP stream of one connection";

/// Large responses, of which only the heads and lengths are told.
pub(crate) fn large(plan: &Plan, stage: &mut Stage, report: &mut Report) -> Result<()> {
    let (mut requests, mut records, mut lost) = (0, 0, 0);
    let rounds = live::rounds(
        plan,
        stage,
        LARGE,
        |stage| wrk::run(stage, LARGE_TARGET, plan.round),
        |load, seen| {
            (requests, records) = (requests + load.requests, records + seen.records.total());
            lost += seen.lost;
        },
        LARGE_TARGET,
    )?;
    let rates: Vec<(Observer, f64)> = rounds.iter().map(|(observer, load)| (*observer, load.rate)).collect();
    let mut row = kept(LARGE, &rates, 1.0, "responses/s").at_least(0.97);
    row.note.push_str(&format!(
        "; {records} records of 2 × {requests} requests; lost, in bytes and records: {lost}"
    ));
    report.push(row);
    Ok(())
}

/// A stream that is no HTTP.
pub(crate) fn bulk(plan: &Plan, stage: &mut Stage, report: &mut Report) -> Result<()> {
    let rates =
        live::rounds(plan, stage, BULK, |stage| bulk::run(stage, plan.round), |_, _| {}, LARGE_TARGET)?;
    report.push(kept(BULK, &rates, 1e-9, "GB/s").at_least(0.98));
    Ok(())
}

fn kept(figure: &str, rates: &[(Observer, f64)], scale: f64, unit: &str) -> Row {
    let kept = spread::kept(rates, &Observer::Pod2pod, &Observer::None);
    let bare: Vec<f64> =
        rates.iter().filter(|(one, _)| *one == Observer::None).map(|(_, rate)| *rate).collect();
    let bare = Spread::of(&bare).map_or(0.0, |spread| spread.median) * scale;
    let row = Row::measured(figure, Observer::Pod2pod.name(), "share", Spread::of(&kept));
    row.note(format!("{bare:.2} {unit} with nobody watching"))
}
