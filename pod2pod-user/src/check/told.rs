//! Findings as a table for people and as JSON.

use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::finding::{Finding, Status};

/// A line each; what is not well has lines below it.
pub(super) fn text(findings: &[Finding]) -> String {
    let width = findings.iter().map(|finding| finding.name.len()).max().unwrap_or_default();
    let mut out = String::new();
    for Finding { name, status, found, needed, lost, cure } in findings {
        // Writing to a String does not fail.
        let _ = writeln!(out, "{name:width$}  {:7}  {found}", status.as_str());
        if *status != Status::Ok {
            for (what, text) in [("needed", needed), ("lost", lost), ("cure", cure)] {
                if !text.is_empty() {
                    let _ = writeln!(out, "{:width$}  {:7}  {what}: {text}", "", "");
                }
            }
        }
    }
    out
}

/// One object, with every finding and the exit code.
pub(super) fn json(findings: &[Finding], exit_code: u8) -> String {
    let one = |finding: &Finding| {
        json!({
            "name": finding.name,
            "status": finding.status.as_str(),
            "found": finding.found,
            "needed": finding.needed,
            "lost": finding.lost,
            "cure": finding.cure,
        })
    };
    let findings: Vec<Value> = findings.iter().map(one).collect();
    let all = json!({
        "version": env!("CARGO_PKG_VERSION"),
        "exit_code": exit_code,
        "findings": findings,
    });
    format!("{all:#}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_well_is_told_with_its_cure() {
        let findings = [
            Finding::ok("a", "there").with("it", "all", "a cure"),
            Finding::missing("longer", "none").with("it", "much", ""),
        ];
        assert_eq!(
            text(&findings),
            "a       ok       there\nlonger  missing  none\n                 needed: it\n                 lost: much\n"
        );
        let told: Value = serde_json::from_str(&json(&findings, 1)).unwrap();
        assert_eq!(told["findings"][1]["lost"], "much");
        assert_eq!((&told["exit_code"], &told["findings"][0]["cure"]), (&json!(1), &json!("a cure")));
    }
}
