//! The README's table of figures, made of the committed results. A test compares; `UPDATE_EXPECT=1` writes it.

use crate::report::Report;

/// In its place when nothing was measured.
const NOTHING: &str = "No results are committed.\n";

/// The table, and what it was measured on.
pub(crate) fn section(reports: &[Report]) -> String {
    if reports.is_empty() {
        return NOTHING.to_owned();
    }
    let mut text = measured_on(reports) + "\n";
    text.push_str("| figure | observer | median | quartiles | to reach | |\n|---|---|---|---|---|---|\n");
    let mut above = "";
    for row in reports.iter().flat_map(|report| &report.rows) {
        let [median, quartiles, target] = row.cells();
        // A figure is named once, in its first row.
        let figure = if row.figure == above { "" } else { &row.figure };
        above = &row.figure;
        let cells = [figure, &row.observer, &median, &quartiles, &target, &row.words()];
        text.push_str(&format!("| {} |\n", cells.map(|cell| cell.replace('|', "\\|")).join(" | ")));
    }
    text
}

/// Where and of which commit: sections may have been measured at different times.
fn measured_on(reports: &[Report]) -> String {
    let mut groups: Vec<(String, Vec<&str>)> = Vec::new();
    for report in reports {
        let line = report.machine.line();
        match groups.iter_mut().find(|(known, _)| *known == line) {
            Some((_, sections)) => sections.push(&report.section),
            None => groups.push((line, vec![&report.section])),
        }
    }
    if let [(line, _)] = &groups[..] {
        return format!("Measured on {line}.\n");
    }
    groups.iter().map(|(line, sections)| format!("Measured on {line} ({}).\n", sections.join(", "))).collect()
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use super::*;
    use crate::{machine::Machine, report::Row, spread::Spread};

    const BEGIN: &str = "<!-- benchmarks -->\n";
    const END: &str = "<!-- end of benchmarks -->";

    #[test]
    fn the_readme_shows_the_committed_results() {
        let here = Path::new(env!("CARGO_MANIFEST_DIR"));
        let results = fs::read_to_string(here.join("bench/results.json")).expect("committed results");
        let reports: Vec<Report> = serde_json::from_str(&results).expect("reports");
        assert!(reports.iter().all(|report| !report.quick), "a quick run is not for the README");
        let file = here.join("../README.md");
        let mut readme = fs::read_to_string(&file).expect("a README");
        let from = readme.find(BEGIN).expect("the beginning") + BEGIN.len();
        let to = readme.find(END).expect("the end");
        let section = section(&reports);
        if std::env::var_os("UPDATE_EXPECT").is_some() {
            readme.replace_range(from..to, &section);
            fs::write(&file, readme).expect("written");
        } else {
            assert_eq!(&readme[from..to], section, "README.md: run with UPDATE_EXPECT=1");
        }
    }

    #[test]
    fn nothing_measured_is_said() {
        assert_eq!(section(&[]), NOTHING);
    }

    fn machine(commit: &str) -> Machine {
        Machine {
            cpu: "CPU".to_owned(),
            cores: 2,
            kernel: "6.18".to_owned(),
            memory_mib: 100,
            versions: vec![("pod2pod".to_owned(), commit.to_owned())],
        }
    }

    #[test]
    fn sections_of_different_commits_are_told_apart() {
        let report = |section: &str, commit| Report {
            section: section.to_owned(),
            time: 0,
            quick: false,
            machine: machine(commit),
            rows: Vec::new(),
        };
        let reports = [report("live", "abc"), report("replay", "def"), report("names", "abc")];
        assert_eq!(
            measured_on(&reports),
            "Measured on 2 × CPU, 100 MiB, Linux 6.18; pod2pod abc (live, names).\n\
             Measured on 2 × CPU, 100 MiB, Linux 6.18; pod2pod def (replay).\n"
        );
    }

    #[test]
    fn a_figure_is_named_once() {
        let spread = Some(Spread { low: 1.0, median: 2.0, high: 3.0, rounds: 10 });
        let machine = machine("abc");
        let rows = vec![
            Row::measured("kept", "a|b", "µs", spread).at_most(3.0).note("noted"),
            Row::skipped("kept", "c", "why"),
        ];
        let report = Report { section: "live".to_owned(), time: 0, quick: false, machine, rows };
        assert_eq!(
            section(&[report]),
            "Measured on 2 × CPU, 100 MiB, Linux 6.18; pod2pod abc.\n\n\
             | figure | observer | median | quartiles | to reach | |\n|---|---|---|---|---|---|\n\
             | kept | a\\|b | 2.00 µs | 1.00 – 3.00 | ≤ 3.00 reached | noted |\n\
             |  | c | – |  |  | not measured: why |\n"
        );
    }
}
