//! Our own rules about the code, each finding with file and line. What rustfmt and clippy find is theirs.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};

use crate::{
    cmd::{self, say},
    lint,
};

mod rules;
mod source;
mod table;

use source::Source;

/// Folders without code of ours.
const NOT_OURS: [&str; 4] = ["target", ".git", "artifacts", "corpus"];

/// Something that a rule forbids.
pub(crate) struct Finding {
    path: String,
    /// From 1, as editors count.
    line: usize,
    what: String,
}

impl Finding {
    fn new(source: &Source, line: usize, what: &str) -> Self {
        Self { path: source.path.clone(), line: line + 1, what: what.to_owned() }
    }
}

/// `cargo xtask tidy`: everything about the code that can be checked without running it.
///
/// # Errors
/// There are findings.
pub(crate) fn command() -> Result<()> {
    let (ours, theirs) = (rules_hold(), lint::command());
    ours.and(theirs)
}

/// Our own rules.
///
/// # Errors
/// There are findings, which were said, or a file cannot be read.
pub(crate) fn rules_hold() -> Result<()> {
    let root = cmd::workspace();
    let mut paths = Vec::new();
    collect(&root, &mut paths)?;
    paths.sort();
    let mut sources = Vec::new();
    for path in paths {
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let relative = path.strip_prefix(&root).unwrap_or(&path).to_string_lossy().into_owned();
        sources.push(Source::parse(&relative, &text));
    }
    let findings = rules::check(&sources);
    for Finding { path, line, what } in &findings {
        say(&format!("{path}:{line}: {what}"));
    }
    if findings.is_empty() { Ok(()) } else { bail!("tidy: {} findings", findings.len()) }
}

/// All Rust files below `directory`.
fn collect(directory: &Path, paths: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(directory).with_context(|| format!("cannot list {}", directory.display()))? {
        let entry = entry?;
        let (path, name) = (entry.path(), entry.file_name());
        if entry.file_type()?.is_dir() {
            if !NOT_OURS.iter().any(|not_ours| name == *not_ours) {
                collect(&path, paths)?;
            }
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            paths.push(path);
        }
    }
    Ok(())
}
