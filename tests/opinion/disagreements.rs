//! The listed disagreements: where tshark and pod2pod differ, who is right, and the sentence that decides it. A
//! difference that is not listed fails the tier, and so does a listed one that no longer occurs.

use std::{fs, path::Path};

use anyhow::{Context, Result};
use serde_json::Value;

use crate::listing::{Difference, Line};

/// One listed disagreement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Disagreement {
    /// Name of the scenario or capture.
    pub(crate) capture: String,
    /// tshark's line or `nothing`; `*` stands for any run of characters.
    pub(crate) tshark: String,
    /// pod2pod's line, likewise.
    pub(crate) pod2pod: String,
}

/// Reads the list; an entry without a rule and its sentence is refused.
pub(crate) fn read(file: &Path) -> Result<Vec<Disagreement>> {
    let text = fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    let entries: Vec<Value> = serde_json::from_str(&text).context("the list of disagreements")?;
    entries.iter().map(|entry| parse(entry).with_context(|| format!("entry {entry}"))).collect()
}

fn parse(entry: &Value) -> Result<Disagreement> {
    let field = |name: &str| -> Result<String> {
        let text = entry.get(name).and_then(Value::as_str).with_context(|| format!("no {name}"))?;
        Ok(text.to_owned())
    };
    field("rule")?;
    field("sentence")?;
    Ok(Disagreement { capture: field("capture")?, tshark: field("tshark")?, pod2pod: field("pod2pod")? })
}

/// What is wrong with `capture`: differences that are not listed, and listed ones that did not occur.
pub(crate) fn unexplained(capture: &str, differences: &[Difference], listed: &[Disagreement]) -> Vec<String> {
    let listed: Vec<&Disagreement> = listed.iter().filter(|entry| entry.capture == capture).collect();
    let mut occurred = vec![false; listed.len()];
    let mut wrong = Vec::new();
    for difference in differences {
        let found = listed.iter().position(|entry| {
            matches(&entry.tshark, &shown(difference.tshark.as_ref()))
                && matches(&entry.pod2pod, &shown(difference.pod2pod.as_ref()))
        });
        match found {
            Some(at) => occurred[at] = true,
            None => wrong.push(format!("{capture}: {difference}")),
        }
    }
    for (entry, _) in listed.iter().zip(&occurred).filter(|(_, occurred)| !**occurred) {
        wrong.push(format!("{capture}: listed but did not occur: {entry:?}"));
    }
    wrong
}

fn shown(line: Option<&Line>) -> String {
    line.map_or_else(|| "nothing".to_owned(), Line::to_string)
}

/// Whether `text` is as `pattern` says, `*` standing for any run of characters.
fn matches(pattern: &str, text: &str) -> bool {
    let mut pieces = pattern.split('*');
    let first = pieces.next().unwrap_or("");
    let Some(mut rest) = text.strip_prefix(first) else { return false };
    let mut pieces: Vec<&str> = pieces.collect();
    let Some(last) = pieces.pop() else { return rest.is_empty() };
    for piece in pieces {
        let Some(at) = rest.find(piece) else { return false };
        rest = &rest[at + piece.len()..];
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_any_run() {
        for (pattern, text, expected) in [
            ("GET / 0 200 5", "GET / 0 200 5", true),
            ("GET / 0 200 5", "GET / 0 200 55", false),
            ("GET /* 0 200 *", "GET /a/b 0 200 55", true),
            ("GET /* 0 200 *", "GET /a/b 0 404 55", false),
            ("*5", "5", true),
            ("", "x", false),
        ] {
            assert_eq!(matches(pattern, text), expected, "{pattern} on {text}");
        }
    }

    fn difference() -> Difference {
        let end = ([127, 0, 0, 1], 1).into();
        let line = Line { status: Some(200), ..Line::default() };
        let ends = crate::listing::Ends { client: end, server: end };
        Difference { ends, position: 0, tshark: None, pod2pod: Some(line) }
    }

    fn entry(capture: &str, pod2pod: &str) -> Disagreement {
        Disagreement {
            capture: capture.to_owned(),
            tshark: "nothing".to_owned(),
            pod2pod: pod2pod.to_owned(),
        }
    }

    /// How many complaints one difference and `listed` make.
    fn check(differences: &[Difference], listed: &[Disagreement], expected: usize) {
        assert_eq!(unexplained("a", differences, listed).len(), expected, "{listed:?}");
    }

    #[test]
    fn only_what_is_listed_for_the_capture_is_explained() {
        check(&[difference()], &[entry("a", "- - - 200 -")], 0);
        check(&[difference()], &[], 1);
        check(&[difference()], &[entry("b", "- - - 200 -")], 1);
        check(&[difference()], &[entry("a", "- - - 201 -")], 2);
    }

    #[test]
    fn a_stale_entry_is_a_complaint() {
        check(&[], &[entry("a", "- - - 200 -")], 1);
        check(&[], &[entry("b", "- - - 200 -")], 0);
    }

    #[test]
    fn an_entry_without_a_sentence_is_refused() {
        let entry = r#"{"capture":"a","tshark":"b","pod2pod":"c","rule":"RFC 9112 6.3"}"#;
        assert!(parse(&serde_json::from_str(entry).unwrap()).is_err());
    }
}
