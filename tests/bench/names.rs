//! What names cost at a cluster of 10,000 pods on a real API server: CPU time of an exchange whose ends are two of them, beside the
//! same without anybody to ask; memory; how soon all of it is known.
//!
//! Two rounds make a pair, now the one first, now the other; a figure is the difference within a pair, since the machine's own
//! speed drifts by more than what is measured.

use std::{
    net::IpAddr,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use support::{
    kubernetes::{
        fleet::{self, NAMESPACE},
        objects::Pod,
        population,
        server::{ADMIN, ApiServer},
    },
    processes,
};

use crate::{
    Plan,
    agent::{Meter, Used, value},
    checks::{self, Checks},
    observers::{self, Observer, Seen, Started, Watching},
    report::{Report, Row},
    say,
    spread::Spread,
    stage::{CLIENT, SERVER, SMALL, Stage},
    wrk,
};

/// At full load.
const COST: &str = "CPU for the names of both ends of an exchange, full load";
/// Of it, all but the thread that writes records.
const FOUND: &str = "of it, finding and telling them without writing longer lines";
/// From the start of the process on.
const START: &str = "start until a cluster of 10 000 pods is known";
/// After full load, without what the ring's pages are counted twice.
const MEMORY: &str = "most memory, 10 000 pods known, full load";
/// How long the agent may take until it names what it sees: it asks within a second, and the watches catch up in two.
const MAX_UNTIL_NAMED: Duration = Duration::from_secs(30);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(100);
/// What did not change for so long is all that there was: the page is made anew each second.
const SETTLED: Duration = Duration::from_millis(1500);
/// A record waits for its names for five seconds at most; what goes on for longer is somebody else's traffic.
const MAX_UNTIL_SETTLED: Duration = Duration::from_secs(20);
/// Of an exchange: both its ends tell both.
const ENDS: f64 = 4.0;

/// Measures it on a stage whose ends are pods.
pub(crate) fn run(plan: &Plan, report: &mut Report) -> Result<()> {
    let mut stage = Stage::build()?;
    say("a cluster of 10 000 pods is made");
    let server = cluster();
    // What else speaks on the machine are the API server and its store: they are nobody's pods.
    let own = ["--set", "filter.cidrs=10.78.0.0/24"];
    let asked = [
        format!("kubernetes.kubeconfig={}", server.kubeconfig(ADMIN).display()),
        format!("kubernetes.node={}", fleet::node(0).0),
    ];
    let named = ["--set", &asked[0], "--set", &asked[1], own[0], own[1]];
    let mut pairs = Pairs::default();
    for round in 1..=plan.rounds {
        say(&format!("{COST}, pair {round} of {}", plan.rounds));
        let order = if round % 2 == 0 { [true, false] } else { [false, true] };
        let mut costs = [Cost::default(); 2];
        for is_named in order {
            let more: &[&str] =
                if is_named { &named } else { &["--set", "kubernetes.mode=off", own[0], own[1]] };
            costs[usize::from(is_named)] = one(plan, &mut stage, more, is_named, &mut pairs)?;
        }
        pairs.costs.push(costs);
    }
    pairs.rows().into_iter().for_each(|row| report.push(row));
    Ok(())
}

/// A server that knows the stage's ends as pods of two Deployments among many.
fn cluster() -> ApiServer {
    let server = ApiServer::start();
    let client = server.admin();
    fleet::fill(&client);
    let owners = population::deployments(&client, NAMESPACE, &["web".to_owned(), "cart".to_owned()]);
    let (node, address) = fleet::node(0);
    let pods: Vec<(Pod, IpAddr)> = owners
        .iter()
        .zip([CLIENT, SERVER.ip()])
        .map(|(owner, own)| (Pod::new(NAMESPACE, &format!("{}-10977", owner.name), &node).owned(owner), own))
        .collect();
    population::running_pods(&client, address, &pods);
    server
}

/// One load: what an exchange cost. What else was found goes to `pairs`: whether all was told, and named if it was to be.
fn one(plan: &Plan, stage: &mut Stage, more: &[&str], is_named: bool, pairs: &mut Pairs) -> Result<Cost> {
    let begin = Instant::now();
    let watching = match observers::start(Observer::Pod2pod, &plan.agent, stage, more)? {
        Started::Watching(watching) => watching,
        Started::Unknown(why) => bail!("the agent does not start: {why}"),
    };
    // It is ready when it knows the cluster.
    let ready = begin.elapsed();
    let before = warm(&watching, stage, is_named)?;
    let meter = Meter::start(watching.pid().context("the agent is a process")?)?;
    let load = wrk::run(stage, SMALL, plan.round)?;
    let Used { agent, output, programs, .. } = meter.stop()?;
    let ends = settled(&watching)?.since(before);
    if is_named {
        let peak = value(&watching.page()?, "pod2pod_memory_peak_bytes");
        pairs.memory.push(peak.context("there is no peak")? / f64::from(1 << 20));
        pairs.starts.push(ready.as_secs_f64());
    }
    let seen = watching.end(SMALL)?;
    stage.check()?;
    pairs.checks.add(told(load.requests, &seen).and_then(|()| ends.fit(load.requests, is_named)));
    let each = |time: Duration| time.as_secs_f64() * 1e6 / load.requests as f64;
    Ok(Cost { all: each(agent + programs), output: each(output) })
}

/// CPU time of an exchange, in microseconds.
#[derive(Clone, Copy, Debug, Default)]
struct Cost {
    all: f64,
    /// Of it, the thread's that writes records: with names they are twice as long.
    output: f64,
}

/// Nothing lost, both ends told; some exchanges were made before those that count.
fn told(requests: u64, seen: &Seen) -> Result<()> {
    let earlier = seen.records.at("client").saturating_sub(requests);
    checks::both_ends(requests, earlier + wrk::CONNECTIONS, seen)
}

/// Has exchanges made until their ends are named, and once where nobody can; what was counted then.
fn warm(watching: &Watching, stage: &Stage, is_named: bool) -> Result<Ends> {
    let begin = Instant::now();
    loop {
        wrk::run(stage, SMALL, Duration::from_secs(1))?;
        let ends = settled(watching)?;
        if !is_named || ends.named > 0.0 {
            return Ok(ends);
        }
        if begin.elapsed() > MAX_UNTIL_NAMED {
            bail!("no end was named within {MAX_UNTIL_NAMED:?}");
        }
    }
}

/// What is counted once nothing more comes.
fn settled(watching: &Watching) -> Result<Ends> {
    let begin = Instant::now();
    let (mut last, mut since) = (Ends::read(watching)?, begin);
    while since.elapsed() < SETTLED {
        if begin.elapsed() > MAX_UNTIL_SETTLED || processes::interrupted() {
            bail!("ends are named and named, with no load");
        }
        thread::sleep(LOOK);
        let ends = Ends::read(watching)?;
        if ends != last {
            (last, since) = (ends, Instant::now());
        }
    }
    Ok(last)
}

/// Ends of exchanges.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Ends {
    named: f64,
    unknown: f64,
}

impl Ends {
    fn read(watching: &Watching) -> Result<Self> {
        let page = watching.page()?;
        // Without names there are no such rows.
        let [named, unknown] = ["pod2pod_names_ends_named_total", "pod2pod_names_ends_unknown_total"]
            .map(|name| value(&page, name).unwrap_or_default());
        Ok(Self { named, unknown })
    }

    fn since(self, before: Self) -> Self {
        Self { named: self.named - before.named, unknown: self.unknown - before.unknown }
    }

    /// Whether all ends of so many exchanges have a name, or none.
    fn fit(self, requests: u64, is_named: bool) -> Result<()> {
        let wanted = if is_named { ENDS * requests as f64 } else { 0.0 };
        let most = if is_named { wanted + ENDS * wrk::CONNECTIONS as f64 } else { 0.0 };
        if self.unknown > 0.0 || !(wanted..=most).contains(&self.named) {
            bail!("{requests} requests: {} ends have names, {} have none", self.named, self.unknown);
        }
        Ok(())
    }
}

/// What was measured, pair by pair.
#[derive(Debug, Default)]
struct Pairs {
    /// Without names and with them.
    costs: Vec<[Cost; 2]>,
    /// Seconds.
    starts: Vec<f64>,
    /// MiB.
    memory: Vec<f64>,
    checks: Checks,
}

impl Pairs {
    fn rows(&self) -> [Row; 4] {
        let spread = |of: fn(&[Cost; 2]) -> f64| Spread::of(&self.costs.iter().map(of).collect::<Vec<_>>());
        let median = |of| spread(of).map_or(0.0, |spread| spread.median);
        let row = |figure, unit, spread| Row::measured(figure, Observer::Pod2pod.name(), unit, spread);
        let cost = row(COST, "µs", spread(|[without, with]| with.all - without.all));
        let found = row(
            FOUND,
            "µs",
            spread(|[without, with]| with.all - with.output - (without.all - without.output)),
        );
        [
            row(START, "s", Spread::of(&self.starts)).at_most(5.0),
            row(MEMORY, "MiB", Spread::of(&self.memory)).at_most(64.0),
            cost.at_most(0.2).checked(&self.checks).note(format!(
                "both ends seen, four names an exchange; without {:.2} µs, with them {:.2} µs",
                median(|[without, _]| without.all),
                median(|[_, with]| with.all)
            )),
            found.at_most(0.2).note(format!(
                "records are twice as long: the output takes {:.2} µs without, {:.2} µs with names",
                median(|[without, _]| without.output),
                median(|[_, with]| with.output)
            )),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_figure_is_the_difference_within_a_pair() {
        let cost = |all| Cost { all, output: all / 2.0 };
        let costs = vec![[2.0, 2.5].map(cost), [3.0, 3.1].map(cost), [4.0, 4.25].map(cost)];
        let pairs = Pairs { costs, ..Pairs::default() };
        let [.., row, found] = pairs.rows();
        for (row, expected) in [(&row, 0.25), (&found, 0.125)] {
            let median = row.spread.map(|spread| spread.median);
            assert!(median.is_some_and(|median| (median - expected).abs() < 1e-9), "{median:?}");
        }
        assert!(row.note.ends_with("without 3.00 µs, with them 3.10 µs"), "{}", row.note);
    }

    #[test]
    fn all_ends_have_names_or_none_has() {
        let ends = |named: f64, unknown: f64| Ends { named, unknown };
        for (ends, is_named, expected) in [
            (ends(400.0, 0.0), true, true),
            (ends(528.0, 0.0), true, true),
            (ends(529.0, 0.0), true, false),
            (ends(399.0, 0.0), true, false),
            (ends(400.0, 1.0), true, false),
            (ends(0.0, 0.0), false, true),
            (ends(1.0, 0.0), false, false),
        ] {
            assert_eq!(ends.fit(100, is_named).is_ok(), expected, "{ends:?} {is_named}");
        }
    }
}
