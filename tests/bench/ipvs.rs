//! The IPVS figures: polls of large tables in memory, readings of live ones as a machine with IPVS told them, and what the rules
//! find: ours beside ipvs-logger's, on the same recorded tables and the same simulated kernel.

use std::{collections::BTreeMap, fs, hint::black_box, time::Duration};

use anyhow::{Context as _, Result};
use pod2pod_user::{
    ipvs::{
        Detector, Reuse, Verdict,
        detect::Config,
        kernel::Kernel,
        legacy,
        parse::{Connections, Lines},
        state::State,
    },
    watch::poller::thread_time,
};
use support::{
    ipvs::{HEADER, folder, poll},
    rng::Rng,
    simulation::{CLIENTS, Entry, FIRST_PORT, Fact, Setting, Simulation},
};

use crate::{
    Plan,
    report::{Report, Row},
    say,
    spread::Spread,
};

const OURS: &str = "pod2pod";
const OLD: &str = "ipvs-logger";
/// Readings of live tables, a line each: kernel, entries, microseconds. `cargo xtask bench ipvs` puts them beside the results.
const READINGS: &str = "ipvs-readings";
/// Sizes, and the milliseconds that are to be reached.
const SIZES: [(u32, f64); 2] = [(100_000, 20.0), (1_000_000, 250.0)];
/// Memory that is to be reached at the first of them, MiB.
const MEMORY: f64 = 24.0;
/// From one poll to the next, seconds.
const INTERVAL: u32 = 5;
const MIB: f64 = (1u32 << 20) as f64;

/// Makes the rows.
pub(crate) fn run(plan: &Plan, report: &mut Report) -> Result<()> {
    for (rows, bound) in SIZES {
        say(&format!("polls of {rows} rows"));
        polls(plan, report, rows, bound);
    }
    readings(plan, report);
    say("what the rules find");
    let (ours, old) = recorded()?;
    found(report, "recorded tables of four kernels", ours, old);
    let (ours, old) = simulated();
    found(report, "a simulated kernel", ours, old);
    Ok(())
}

/// Which rows a poll has, and in which order.
#[derive(Clone, Copy)]
enum Order {
    /// As the poll before, which is the kernel's.
    Same,
    /// In no order.
    Shuffled,
}

/// Closed connections with so many seconds left.
fn table(rows: u32, left: u32, order: Order) -> Vec<u8> {
    // In no order, as hashes are.
    let mut numbers: Vec<u32> = (0..rows).collect();
    Rng::new(match order {
        Order::Same => 0,
        Order::Shuffled => u64::from(left),
    })
    .shuffle(&mut numbers);
    let mut table = HEADER.as_bytes().to_vec();
    for number in numbers {
        let (client, port) = (0x0AF4_0100 + number / 25_000, 10_000 + number % 25_000);
        let row = format!("TCP {client:08X} {port:04X} 0A60000A 0050 0AF40203 1F90 TIME_WAIT   {left:>7}\n");
        table.extend_from_slice(row.as_bytes());
    }
    table
}

/// As in the watch: parsed and compared, with nothing kept of the text.
fn compare(detector: &mut Detector, table: &[u8], at: u32) -> Vec<Reuse> {
    detector.begin(Duration::from_secs(at.into()));
    let mut connections = Connections::default();
    Lines::default().push(black_box(table), &mut |line| {
        if let Some(row) = connections.line(line) {
            detector.push(&row);
        }
    });
    detector.finish(Duration::ZERO, None, &Kernel::default())
}

/// Milliseconds of a processor.
fn timed(work: impl FnOnce()) -> f64 {
    let begin = thread_time();
    work();
    (thread_time() - begin).as_secs_f64() * 1000.0
}

fn polls(plan: &Plan, report: &mut Report, rows: u32, bound: f64) {
    let tables = |order| [100, 95, 90].map(|left| table(rows, left, order));
    let [same, shuffled] = [Order::Same, Order::Shuffled].map(tables);
    let mut times: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
    for _ in 0..plan.rounds {
        for (tables, name) in [(&same, "in the order of the poll before"), (&shuffled, "in no order")] {
            let mut detector = Detector::new(Config::default());
            for (index, table) in tables.iter().enumerate() {
                let at = INTERVAL * index as u32;
                let time = timed(|| drop(black_box(compare(&mut detector, table, at))));
                let name = if index == 0 { "the first one" } else { name };
                times.entry(name).or_default().push(time);
            }
        }
        let mut rule = legacy::Rule::default();
        for table in &same {
            rule.begin();
            let time = timed(|| {
                Lines::default().push(black_box(table), &mut |line| {
                    black_box(rule.line(line, |_| true));
                });
            });
            times.entry(OLD).or_default().push(time);
        }
    }
    let figure = format!("IPVS: a poll of {rows} rows in memory");
    for (name, times) in &times {
        let observer = if *name == OLD { OLD.to_owned() } else { format!("{OURS}, {name}") };
        let row = Row::measured(&figure, &observer, "ms", Spread::of(times));
        report.push(if *name == OLD || *name == "in no order" { row } else { row.at_most(bound) });
    }
    memory(report, rows, &same);
}

fn memory(report: &mut Report, rows: u32, tables: &[Vec<u8>]) {
    let mut detector = None;
    let used = allocation_counter::measure(|| {
        let mut new = Detector::new(Config::default());
        for (index, table) in tables.iter().enumerate() {
            compare(&mut new, table, INTERVAL * index as u32);
        }
        detector = Some(new);
    });
    let most = Spread::of(&[used.bytes_max as f64 / MIB]);
    let row = Row::measured(&format!("IPVS: memory of {rows} entries"), OURS, "MiB", most);
    report.push(if rows == SIZES[0].0 { row.at_most(MEMORY) } else { row });
}

/// The kernel's part, from a machine that has IPVS.
fn readings(plan: &Plan, report: &mut Report) {
    let file = plan.out.join(READINGS);
    let Ok(text) = fs::read_to_string(&file) else {
        let why = "no machine with IPVS told any; `cargo xtask bench ipvs` asks one";
        return report.push(Row::skipped("IPVS: reading a live table", OURS, why));
    };
    for line in text.lines() {
        let mut words = line.split(' ');
        let (Some(kernel), Some(rows), Some(Ok(time))) =
            (words.next(), words.next(), words.next().map(str::parse::<f64>))
        else {
            continue;
        };
        let figure = format!("IPVS: reading a live table of {rows} rows");
        let row = Row::measured(&figure, OURS, "ms", Spread::of(&[time / 1000.0]));
        report.push(row.note(format!(
            "Linux {kernel}, in an emulated machine: the kernel's part alone, to be compared with each other"
        )));
    }
}

/// How often it happened that a new connection came to the real server of the old one's entry; how often of that it was told;
/// and how often that was told and was not so.
#[derive(Clone, Copy, Debug, Default)]
struct Found {
    happened: u32,
    found: u32,
    wrong: u32,
}

impl Found {
    fn add(&mut self, happened: bool, told: bool) {
        self.happened += u32::from(happened);
        self.found += u32::from(happened && told);
        self.wrong += u32::from(told && !happened);
    }
}

fn found(report: &mut Report, where_: &str, ours: Found, old: Found) {
    for (observer, Found { happened, found, wrong }) in [(OURS, ours), (OLD, old)] {
        let share = f64::from(found) / f64::from(happened.max(1));
        let row =
            Row::measured(&format!("IPVS: reuses found, {where_}"), observer, "share", Spread::of(&[share]));
        let missed = happened - found;
        report.push(
            row.note(format!("found {found} of {happened}, missed {missed}, told {wrong} that were none")),
        );
    }
}

/// Rows of `reuse/table-KERNEL.tsv`: each a client that came back, with the entry before and after.
fn recorded() -> Result<(Found, Found)> {
    let (mut ours, mut old) = (Found::default(), Found::default());
    for kernel in ["5.10", "6.1", "6.12", "7.2"] {
        let file = folder().join(format!("reuse/table-{kernel}.tsv"));
        let text = fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
        for line in text.lines().skip(1) {
            let columns: Vec<&str> = line.split('\t').collect();
            let [_, _, event, _, _, _, _, before, outcome, _, after] = columns[..] else {
                anyhow::bail!("{}: {line}", file.display());
            };
            // One that timed out was at its silent server, unless that was removed: then its SYN was dropped.
            let was_reused = outcome == "same" || (outcome == "timeout" && !event.starts_with("deleted"));
            let tables = [before, after].map(entries);
            let mut detector = Detector::new(Config::default());
            let told = tables.iter().enumerate().flat_map(|(index, table)| {
                let at = Duration::from_secs(index as u64);
                poll(&mut detector, table.as_bytes(), at, None, &Kernel::default())
            });
            ours.add(was_reused, told.filter(|reuse| reuse.verdict == Verdict::Reused).count() > 0);
            let mut rule = legacy::Rule::default();
            old.add(was_reused, tables.iter().any(|table| !findings(&mut rule, table).is_empty()));
        }
    }
    Ok((ours, old))
}

/// `s2/TIME_WAIT/119,…` as a table.
fn entries(entries: &str) -> String {
    let rows = entries.split(',').filter_map(|entry| {
        let (server, rest) = entry.split_once('/')?;
        let (state, left) = rest.split_once('/')?;
        let server = if server == "s1" { "0AF40202" } else { "0AF40203" };
        Some(format!("TCP 0AF40102 C351 0A60000A 0050 {server} 1F90 {state:11} {left:>7}\n"))
    });
    HEADER.to_owned() + &rows.collect::<String>()
}

/// What ipvs-logger's rule finds in a poll.
fn findings(rule: &mut legacy::Rule, table: &str) -> Vec<legacy::Finding> {
    rule.begin();
    table.lines().filter_map(|line| rule.line(line.as_bytes(), |_| true)).collect()
}

/// Five minutes of every setting, polled every five seconds: whether each client's SYN was taken by its old entry since the poll
/// before, and whether that is told.
fn simulated() -> (Found, Found) {
    let (mut ours, mut old) = (Found::default(), Found::default());
    for seed in 0..32 {
        let setting = Setting {
            reuse_mode: u32::from(seed & 1 != 0),
            expire_nodest: seed & 2 != 0,
            conntrack: seed & 4 != 0,
            direct: seed & 8 != 0,
        };
        let mut simulation = Simulation::new(seed, setting);
        let (mut detector, mut rule) = (Detector::new(Config::default()), legacy::Rule::default());
        let mut last: [Vec<Entry>; 2] = Default::default();
        let step = u64::from(INTERVAL) * 1000;
        for now in (step..=300_000).step_by(step as usize) {
            simulation.run_until(now);
            let rows: String = simulation.rows().into_iter().map(|(_, row)| row).collect();
            let table = HEADER.to_owned() + &rows;
            let (at, services) = (Duration::from_millis(now), simulation.services());
            let told = poll(&mut detector, table.as_bytes(), at, Some(&services), &Kernel::default());
            let findings = findings(&mut rule, &table);
            for client in 0..CLIENTS {
                // One in SYN_RECV may be sent again; one that a poll misses is remembered for the next.
                let before = last.iter().flatten().find(|entry| entry.client == client);
                let before = before.filter(|entry| entry.state != State::SynRecv);
                let is_reuse = |fact| matches!(fact, Fact::Syn { server, .. } if before.is_some_and(|entry| entry.server == server));
                let happened = simulation.facts(client, now - step, now).any(is_reuse);
                let port = FIRST_PORT + client;
                let is_told = |reuse: &Reuse| {
                    usize::from(reuse.tuple.client.1) == port && reuse.verdict == Verdict::Reused
                };
                ours.add(happened, told.iter().any(is_told));
                old.add(happened, findings.iter().any(|finding| finding.client.port as usize == port));
            }
            last = [simulation.entries.clone(), std::mem::take(&mut last[0])];
        }
    }
    (ours, old)
}
