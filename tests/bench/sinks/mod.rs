//! What sinks cost: records a second to an HTTP server, to Kafka and to a file, beside rsyslog and syslog-ng; into a spool and out of it;
//! and the memory of an agent with a sink of each kind.

mod beside;
mod load;
mod memory;
mod receiver;

use anyhow::Result;

use self::load::{Took, Work};
pub(crate) use self::load::{WORD, become_load};
use crate::{
    Plan,
    observers::Observer,
    report::{Report, Row},
    say,
    spread::Spread,
};

const ENGINE: &str = "sinks: records of 600 bytes through the engine alone";
const GZIP: &str = "sinks: records of 600 bytes to HTTP, by gzip, per core";
const ZSTD: &str = "sinks: records of 600 bytes to HTTP, by zstd, per core";
const KAFKA: &str = "sinks: records of 600 bytes to Kafka";
const WRITTEN: &str = "sinks: into a spool, from records on";
const READ: &str = "sinks: out of a spool, to HTTP";
/// Records of a run.
const RECORDS: u64 = 500_000;
/// Of a quick one.
const QUICK_RECORDS: u64 = 100_000;
const MIB: f64 = 1024.0 * 1024.0;

/// A row of one kind of work: its name and unit, what it is to reach, and what it is of a run.
struct Figure {
    name: &'static str,
    unit: &'static str,
    target: f64,
    of: fn(&Took, u64) -> f64,
}

/// Measures all of it.
pub(crate) fn run(plan: &Plan, report: &mut Report) -> Result<()> {
    let a_second = |took: &Took, count: u64| count as f64 / took.seconds;
    work(
        plan,
        report,
        Work::Engine,
        &[],
        &[Figure { name: ENGINE, unit: "1/s", target: 1e6, of: a_second }],
    )?;
    for (name, coding) in [(GZIP, "gzip"), (ZSTD, "zstd")] {
        let figure =
            Figure { name, unit: "1/s", target: 150_000.0, of: |took, count| count as f64 / took.cpu };
        work(plan, report, Work::Http, &[format!("sinks.load.compression={coding}")], &[figure])?;
    }
    let written = Figure {
        name: WRITTEN,
        unit: "MiB/s",
        target: 200.0,
        of: |took, _| took.bytes as f64 / MIB / took.seconds,
    };
    let read = Figure { name: READ, unit: "MiB/s", target: 200.0, of: drained };
    work(plan, report, Work::Spool, &[], &[written, read])?;
    kafka(plan, report, Figure { name: KAFKA, unit: "1/s", target: 200_000.0, of: a_second })?;
    beside::run(plan, report)?;
    memory::run(plan, report)
}

/// MiB a second out of the spool.
fn drained(took: &Took, count: u64) -> f64 {
    took.drained
        .map_or(0.0, |(seconds, records)| took.bytes as f64 * records as f64 / count as f64 / MIB / seconds)
}

/// Rounds of one kind of work; all that are `figures` of it.
fn work(plan: &Plan, report: &mut Report, work: Work, more: &[String], figures: &[Figure]) -> Result<()> {
    if !figures.iter().any(|figure| plan.wants(figure.name)) {
        return Ok(());
    }
    let count = if plan.quick { QUICK_RECORDS } else { RECORDS };
    let mut seen = Vec::new();
    for round in 1..=plan.rounds {
        say(&format!("{}, round {round} of {}", figures[0].name, plan.rounds));
        seen.push(load::run(work, count, more)?);
    }
    for Figure { name, unit, target, of } in figures {
        let spread = |of: &dyn Fn(&Took) -> f64| Spread::of(&seen.iter().map(of).collect::<Vec<_>>());
        let median = |of: &dyn Fn(&Took) -> f64| spread(of).map_or(0.0, |spread| spread.median);
        let row = Row::measured(name, Observer::Pod2pod.name(), unit, spread(&|took| of(took, count)));
        report.push(row.at_least(*target).note(format!(
            "{count} records a round, each delivered; {:.2} µs of CPU a record, {:.0} records/s by the clock",
            median(&|took| took.cpu * 1e6 / count as f64),
            median(&|took| count as f64 / took.seconds)
        )));
    }
    Ok(())
}

/// With a broker of its own.
#[cfg(feature = "kafka")]
fn kafka(plan: &Plan, report: &mut Report, figure: Figure) -> Result<()> {
    const TOPIC: &str = "records";
    const PARTITIONS: i32 = 4;
    const WARM_UPS: usize = 2;
    if !plan.wants(figure.name) {
        return Ok(());
    }
    let broker = support::broker::Broker::start_as_shipped();
    broker.make(&[(TOPIC, PARTITIONS)], &[]);
    let url = format!("sinks.load.url=kafka://127.0.0.1:{}", broker.plain);
    let settings = [url, format!("sinks.load.topic={TOPIC}")];
    let count = if plan.quick { QUICK_RECORDS } else { RECORDS };
    // Until then the broker is being compiled.
    say("a broker that warms up");
    (0..WARM_UPS).try_for_each(|_| load::run(Work::Kafka, count, &settings).map(drop))?;
    work(plan, report, Work::Kafka, &settings, &[figure])?;
    // Each once.
    let count = count * (WARM_UPS + plan.rounds) as u64;
    let there = broker.count(TOPIC, PARTITIONS);
    anyhow::ensure!(there == count, "{count} records were delivered, and {there} are there");
    Ok(())
}

#[cfg(not(feature = "kafka"))]
fn kafka(_: &Plan, report: &mut Report, figure: Figure) -> Result<()> {
    let why = "this benchmark was built without it: `--features kafka`";
    report.push(Row::skipped(figure.name, Observer::Pod2pod.name(), why));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_out_of_a_spool_is_as_fast_as_the_part_that_was_timed() {
        let took = Took { seconds: 1.0, cpu: 1.0, drained: Some((2.0, 30)), bytes: 40 * MIB as u64 };
        assert_eq!(drained(&took, 40), 15.0);
        assert_eq!(drained(&Took { drained: None, ..took }, 40), 0.0);
    }
}
