//! What the tests of a machine told besides passing, and the table that the tier ends with.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

/// Begins a line that is a fact; `tests/support/src/fact.rs` writes it, maybe behind the words of the test runner.
const FACT: &str = "pod2pod-fact ";

/// What one kernel's tests told.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Facts {
    /// Instructions that the verifier went through, by program.
    verified: BTreeMap<String, String>,
    /// How a detector of reused connections did, by its name and the verdict.
    scores: BTreeMap<(String, String), Score>,
    /// Microseconds that reading a live table took, by its entries.
    reading: BTreeMap<u64, u64>,
    /// Nanoseconds that a packet or a connection through IPVS took without exact mode and with it.
    costs: BTreeMap<String, (u64, u64)>,
    /// What tests did not find in this kernel, each once.
    lacks: BTreeSet<String>,
}

/// Of one verdict: how often it happened, how often of that it was told; how often it was told, and how often of that it was so.
type Score = [u32; 4];

impl Facts {
    /// Keeps a line if it is a fact; whether it is.
    pub(super) fn take(&mut self, line: &str) -> bool {
        let Some((_, fact)) = line.split_once(FACT) else { return false };
        if let Some((program, count)) = fact.strip_prefix("verified ").and_then(|rest| rest.split_once(' ')) {
            self.verified.insert(program.to_owned(), count.to_owned());
        } else if let Some((key, counts)) = fact.strip_prefix("scored ").and_then(score) {
            // Several tests may tell of one.
            let sum = self.scores.entry(key).or_default();
            sum.iter_mut().zip(counts).for_each(|(sum, count)| *sum += count);
        } else if let Some((rows, time)) = fact.strip_prefix("read ").and_then(reading) {
            self.reading.insert(rows, time);
        } else if let Some((what, times)) = fact.strip_prefix("cost ").and_then(|rest| rest.split_once(' '))
            && let Some(times) = reading(times)
        {
            self.costs.insert(what.to_owned(), times);
        } else {
            self.lacks.insert(fact.to_owned());
        }
        true
    }
}

/// Detector, verdict and counts, as `tests/support/src/fact.rs` writes them.
fn score(fact: &str) -> Option<((String, String), Score)> {
    let mut words = fact.split(' ');
    let key = (words.next()?.to_owned(), words.next()?.to_owned());
    let mut count = || words.next()?.parse().ok();
    Some((key, [count()?, count()?, count()?, count()?]))
}

/// Two numbers, as entries and microseconds are.
fn reading(fact: &str) -> Option<(u64, u64)> {
    let (rows, time) = fact.split_once(' ')?;
    Some((rows.parse().ok()?, time.parse().ok()?))
}

/// What became of one kernel.
pub(super) struct Outcome {
    pub(super) kernel: String,
    pub(super) facts: Facts,
    pub(super) result: Result<(), String>,
    pub(super) time: Duration,
}

/// A line of kernel, entries and microseconds for each live table that was read.
pub(super) fn readings(kernel: &str, facts: &Facts) -> String {
    facts.reading.iter().map(|(rows, time)| format!("{kernel} {rows} {time}\n")).collect()
}

/// The table: kernels, the verifier's work on each program, and after it what was lacking.
pub(super) fn table(outcomes: &[Outcome]) -> String {
    let mut programs: Vec<&str> = Vec::new();
    for program in outcomes.iter().flat_map(|outcome| outcome.facts.verified.keys()) {
        if !programs.contains(&program.as_str()) {
            programs.push(program);
        }
    }
    let mut text = "\nInstructions that the verifier went through:\nkernel                   ".to_owned();
    programs.iter().for_each(|program| text.push_str(&format!("{program:>20}")));
    text.push_str("      tests  not tried    time\n");
    for outcome in outcomes {
        text.push_str(&format!("{:<25}", outcome.kernel));
        for program in &programs {
            let count = outcome.facts.verified.get(*program).map_or("-", String::as_str);
            text.push_str(&format!("{count:>20}"));
        }
        let result = if outcome.result.is_ok() { "passed" } else { "FAILED" };
        let lacks = outcome.facts.lacks.len();
        text.push_str(&format!("{result:>11}{lacks:>11}{:>6.0} s\n", outcome.time.as_secs_f64()));
    }
    text.push_str(&scores(outcomes));
    for outcome in outcomes {
        for (rows, time) in &outcome.facts.reading {
            let milliseconds = Duration::from_micros(*time).as_secs_f64() * 1000.0;
            text.push_str(&format!("{}: reading {rows} entries took {milliseconds:.1} ms\n", outcome.kernel));
        }
    }
    for outcome in outcomes {
        for (what, (without, with)) in &outcome.facts.costs {
            let added = with.saturating_sub(*without);
            text.push_str(&format!(
                "{}: a {what} through IPVS takes {without} ns, exact mode adds {added} ns\n",
                outcome.kernel
            ));
        }
    }
    for outcome in outcomes {
        for what in &outcome.facts.lacks {
            text.push_str(&format!("not tried on {}: {what}\n", outcome.kernel));
        }
    }
    text
}

/// What became of connections that met the entry of an old one, beside what was told of them; nothing if no test told.
fn scores(outcomes: &[Outcome]) -> String {
    let mut text = String::new();
    for outcome in outcomes {
        for ((detector, verdict), [happened, found, told, right]) in &outcome.facts.scores {
            let share = |part: u32, of: u32| match of {
                0 => "-".to_owned(),
                of => format!("{:.3}", f64::from(part) / f64::from(of)),
            };
            let (precision, recall) = (share(*right, *told), share(*found, *happened));
            text.push_str(&format!(
                "{:<27}{detector:<10}{verdict:<12}{happened:>9}{found:>7}{told:>6}{right:>7}{precision:>11}{recall:>8}\n",
                outcome.kernel
            ));
        }
    }
    if text.is_empty() {
        return text;
    }
    format!(
        "\nConnections that met the entry of an old one:\n{:<27}{:<10}{:<12}{:>9}{:>7}{:>6}{:>7}{:>11}{:>8}\n{text}",
        "kernel", "detector", "verdict", "happened", "found", "told", "right", "precision", "recall"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_shows_what_was_told() {
        let outcome = |kernel: &str, lines: &[&str], result: Result<(), String>| {
            let mut facts = Facts::default();
            lines.iter().for_each(|line| assert!(facts.take(line), "{line}"));
            Outcome { kernel: kernel.to_owned(), facts, result, time: Duration::from_secs(90) }
        };
        let outcomes = [
            outcome("5.10", &["test a ... pod2pod-fact verified in 77"], Ok(())),
            outcome(
                "6.12",
                &[
                    "pod2pod-fact verified in 123",
                    "pod2pod-fact tcx::one: no tcx",
                    "pod2pod-fact scored polling reused 30 10 20 20",
                    "pod2pod-fact scored polling reused 10 10 5 0",
                    "pod2pod-fact scored polling dropped 7 0 0 0",
                    "pod2pod-fact read 4000 23456",
                    "pod2pod-fact cost packet 20000 21002",
                ],
                Err("1".to_owned()),
            ),
        ];
        let text = table(&outcomes);
        assert!(
            text.contains("5.10                                       77     passed          0    90 s\n"),
            "{text}"
        );
        assert!(
            text.contains("6.12                                      123     FAILED          1    90 s\n"),
            "{text}"
        );
        let scores: Vec<&str> = text.lines().filter(|line| line.contains(" polling ")).collect();
        assert_eq!(
            scores,
            [
                "6.12                       polling   dropped             7      0     0      0          -   0.000",
                "6.12                       polling   reused             40     20    25     20      0.800   0.500",
            ]
        );
        assert_eq!(readings("6.12", &outcomes[1].facts), "6.12 4000 23456\n");
        assert!(text.contains("6.12: reading 4000 entries took 23.5 ms\n"), "{text}");
        assert!(
            text.contains("6.12: a packet through IPVS takes 20000 ns, exact mode adds 1002 ns\n"),
            "{text}"
        );
        assert!(text.ends_with("not tried on 6.12: tcx::one: no tcx\n"), "{text}");
        assert!(!Facts::default().take("test a ... ok"));
    }
}
