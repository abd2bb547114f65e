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
    /// What tests did not find in this kernel, each once.
    lacks: BTreeSet<String>,
}

impl Facts {
    /// Keeps a line if it is a fact; whether it is.
    pub(super) fn take(&mut self, line: &str) -> bool {
        let Some((_, fact)) = line.split_once(FACT) else { return false };
        if let Some((program, count)) = fact.strip_prefix("verified ").and_then(|rest| rest.split_once(' ')) {
            self.verified.insert(program.to_owned(), count.to_owned());
        } else {
            self.lacks.insert(fact.to_owned());
        }
        true
    }
}

/// What became of one kernel.
pub(super) struct Outcome {
    pub(super) kernel: String,
    pub(super) facts: Facts,
    pub(super) result: Result<(), String>,
    pub(super) time: Duration,
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
    for outcome in outcomes {
        for what in &outcome.facts.lacks {
            text.push_str(&format!("not tried on {}: {what}\n", outcome.kernel));
        }
    }
    text
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
                &["pod2pod-fact verified in 123", "pod2pod-fact tcx::one: no tcx"],
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
        assert!(text.ends_with("not tried on 6.12: tcx::one: no tcx\n"), "{text}");
        assert!(!Facts::default().take("test a ... ok"));
    }
}
