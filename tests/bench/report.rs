//! The rows of a run: as the table that a person reads and as the JSON that is kept. It measures nothing.

use std::{
    fs,
    path::Path,
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

use crate::{checks::Checks, machine::Machine, plot, readme, spread::Spread};

/// One figure of one observer.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub(crate) struct Row {
    /// What was measured.
    pub(crate) figure: String,
    /// Who watched, or what did it.
    pub(crate) observer: String,
    pub(crate) unit: String,
    /// Absent if it was not measured.
    pub(crate) spread: Option<Spread>,
    /// What is to be reached.
    pub(crate) target: Option<Target>,
    /// What else is to be said; why it was not measured.
    pub(crate) note: String,
    /// What makes the figure worthless; empty if nothing does.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) wrong: String,
}

/// A bound that a figure is to keep.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Serialize)]
pub(crate) enum Target {
    AtLeast(f64),
    AtMost(f64),
}

impl Row {
    pub(crate) fn measured(figure: &str, observer: &str, unit: &str, spread: Option<Spread>) -> Self {
        Self {
            figure: figure.to_owned(),
            observer: observer.to_owned(),
            unit: unit.to_owned(),
            spread,
            target: None,
            note: String::new(),
            wrong: String::new(),
        }
    }

    pub(crate) fn skipped(figure: &str, observer: &str, why: &str) -> Self {
        let mut row = Self::measured(figure, observer, "", None);
        row.note = format!("not measured: {why}");
        row
    }

    /// A figure whose measurement failed.
    pub(crate) fn failed(figure: &str, observer: &str, why: &str) -> Self {
        let mut row = Self::measured(figure, observer, "", None);
        row.wrong = format!("FAILED: {why}");
        row
    }

    /// With what the rounds' checks found.
    pub(crate) fn checked(mut self, checks: &Checks) -> Self {
        self.wrong = checks.verdict();
        self
    }

    /// Everything that is to be said in words.
    pub(crate) fn words(&self) -> String {
        let words = [self.wrong.as_str(), self.note.as_str()];
        words.into_iter().filter(|words| !words.is_empty()).collect::<Vec<_>>().join("; ")
    }

    pub(crate) fn at_least(mut self, bound: f64) -> Self {
        self.target = Some(Target::AtLeast(bound));
        self
    }

    pub(crate) fn at_most(mut self, bound: f64) -> Self {
        self.target = Some(Target::AtMost(bound));
        self
    }

    pub(crate) fn note(mut self, note: impl Into<String>) -> Self {
        self.note = note.into();
        self
    }

    /// Whether the median keeps the bound, if there are both.
    pub(crate) fn reached(&self) -> Option<bool> {
        let median = self.spread?.median;
        Some(match self.target? {
            Target::AtLeast(bound) => median >= bound,
            Target::AtMost(bound) => median <= bound,
        })
    }

    /// Median, quartiles and target as text.
    pub(crate) fn cells(&self) -> [String; 3] {
        let Some(Spread { low, median, high, .. }) = self.spread else {
            return ["–".to_owned(), String::new(), String::new()];
        };
        let unit = if self.unit == "share" { String::new() } else { format!(" {}", self.unit) };
        let target = match self.target {
            Some(Target::AtLeast(bound)) => format!("≥ {}", number(bound)),
            Some(Target::AtMost(bound)) => format!("≤ {}", number(bound)),
            None => String::new(),
        };
        let met = match self.reached() {
            Some(true) => " reached",
            Some(false) => " MISSED",
            None => "",
        };
        [
            format!("{}{unit}", number(median)),
            format!("{} – {}", number(low), number(high)),
            format!("{target}{met}"),
        ]
    }
}

/// With three significant digits; whole from a hundred on.
pub(crate) fn number(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        size if size >= 1.0 || size == 0.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

/// The rows of one section, and what they were measured on.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub(crate) struct Report {
    pub(crate) section: String,
    /// Seconds since 1970.
    pub(crate) time: u64,
    /// A quick run is for the developer, not for the README.
    pub(crate) quick: bool,
    pub(crate) machine: Machine,
    pub(crate) rows: Vec<Row>,
}

impl Report {
    pub(crate) fn new(section: &str, quick: bool) -> Self {
        let time = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs());
        Self { section: section.to_owned(), time, quick, machine: Machine::this(), rows: Vec::new() }
    }

    pub(crate) fn push(&mut self, row: Row) {
        self.rows.push(row);
    }

    /// The table that a person reads.
    pub(crate) fn table(&self) -> String {
        let mut lines =
            vec![["FIGURE", "OBSERVER", "MEDIAN", "QUARTILES", "TO REACH", "NOTE"].map(str::to_owned)];
        for row in &self.rows {
            let [median, quartiles, target] = row.cells();
            lines.push([row.figure.clone(), row.observer.clone(), median, quartiles, target, row.words()]);
        }
        let quick = if self.quick { ", quick" } else { "" };
        format!("\n{}{quick}: {}\n{}", self.section, self.machine.line(), aligned(&lines))
    }

    /// Writes the rows to `<section>.json` in `directory`.
    pub(crate) fn save(&self, directory: &Path) -> Result<()> {
        fs::create_dir_all(directory)?;
        let file = directory.join(format!("{}.json", self.section));
        let text = serde_json::to_string_pretty(self)? + "\n";
        fs::write(&file, text).with_context(|| format!("cannot write {}", file.display()))
    }
}

/// Puts the sections' last results, of this run and of earlier ones, into one file, one picture and one table.
pub(crate) fn collect(directory: &Path, sections: &[&str]) -> Result<()> {
    let mut reports: Vec<Report> = Vec::new();
    for section in sections {
        if let Ok(text) = fs::read_to_string(directory.join(format!("{section}.json"))) {
            reports.push(serde_json::from_str(&text).with_context(|| format!("the results of {section}"))?);
        }
    }
    let write = |name: &str, text: &str| {
        let file = directory.join(name);
        fs::write(&file, text).with_context(|| format!("cannot write {}", file.display()))
    };
    write("results.json", &(serde_json::to_string_pretty(&reports)? + "\n"))?;
    write("results.svg", &plot::draw(&reports))?;
    write("table.md", &readme::section(&reports))
}

fn aligned<const COLUMNS: usize>(lines: &[[String; COLUMNS]]) -> String {
    let mut text = String::new();
    let width =
        |column: usize| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or_default();
    let widths: [usize; COLUMNS] = std::array::from_fn(width);
    for line in lines {
        let cells: Vec<String> =
            line.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        text.push_str(cells.join("  ").trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row() -> Row {
        let spread = Spread { low: 0.91, median: 0.934, high: 0.9512, rounds: 10 };
        Row::measured("kept", "pod2pod", "share", Some(spread)).at_least(0.90)
    }

    #[test]
    fn a_row_says_whether_the_target_is_reached() {
        assert_eq!(row().cells(), ["0.934", "0.910 – 0.951", "≥ 0.900 reached"]);
        assert_eq!(row().at_least(0.95).cells()[2], "≥ 0.950 MISSED");
        assert_eq!(row().at_most(0.95).reached(), Some(true));
        assert_eq!(row().at_most(0.93).reached(), Some(false));
        assert_eq!(Row::skipped("kept", "tc", "no such key").reached(), None);
        assert_eq!(Row::failed("kept", "tc", "no").note("more").words(), "FAILED: no; more");
    }

    #[test]
    fn the_table_is_aligned_and_says_why_a_row_is_empty() {
        let mut report = Report::new("live", false);
        report.push(row());
        report.push(Row::skipped("kept", "tc", "no such key"));
        let table = report.table();
        let lines: Vec<&str> = table.trim().lines().collect();
        assert!(lines[2].starts_with("kept    pod2pod   0.934"), "{table}");
        assert!(lines[3].ends_with("not measured: no such key"), "{table}");
    }

    #[test]
    fn a_report_survives_its_file() {
        let directory = tempfile::tempdir().expect("a directory");
        let mut report = Report::new("live", true);
        report.push(row());
        report.save(directory.path()).expect("saved");
        let text = fs::read_to_string(directory.path().join("live.json")).expect("written");
        assert_eq!(serde_json::from_str::<Report>(&text).expect("a report"), report);
        collect(directory.path(), &["live", "absent"]).expect("collected");
        let text = fs::read_to_string(directory.path().join("results.json")).expect("written");
        assert_eq!(serde_json::from_str::<Vec<Report>>(&text).expect("reports"), [report]);
    }
}
