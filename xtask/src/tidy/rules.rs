//! One function a rule: sources in, findings out. The tables are in `table`, reading files is in `mod`.

use super::{
    Finding,
    source::{Source, has_word},
    table::{self, Forbidden, Layer, Whose},
};

/// All findings in all sources.
pub(super) fn check(sources: &[Source]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for source in sources {
        head(source, &mut findings);
        sizes(source, &mut findings);
        comments(source, &mut findings);
        layers(source, &mut findings);
        for rule in table::FORBIDDEN {
            forbidden(rule, source, &mut findings);
        }
    }
    names(sources, &mut findings);
    limits(sources, &mut findings);
    findings
}

fn is_in(path: &str, places: &[&str]) -> bool {
    places.iter().any(|place| path.starts_with(place))
}

fn head(source: &Source, findings: &mut Vec<Finding>) {
    if !source.text.first().is_some_and(|line| line.starts_with("//! ")) {
        findings.push(Finding::new(source, 0, "a file begins with `//!` and its job in one sentence"));
    }
}

fn sizes(source: &Source, findings: &mut Vec<Finding>) {
    let lines = source.unit_test.iter().filter(|test| !**test).count();
    let is_main = source.path.ends_with("src/main.rs");
    let most = if is_main { table::MAX_MAIN_LINES } else { table::MAX_FILE_LINES };
    if lines > most {
        let last = source.text.len().saturating_sub(1);
        findings.push(Finding::new(
            source,
            last,
            &format!("{lines} lines that are not tests; at most {most}"),
        ));
    }
    for (name, first, last) in source.functions() {
        let lines = last - first + 1;
        if lines > table::MAX_FUNCTION_LINES {
            let what = format!("`{name}` has {lines} lines; at most {}", table::MAX_FUNCTION_LINES);
            findings.push(Finding::new(source, first, &what));
        }
    }
}

fn comments(source: &Source, findings: &mut Vec<Finding>) {
    for (number, line) in source.comments.iter().enumerate() {
        if let Some(word) = table::FORBIDDEN_COMMENTS.iter().find(|word| has_word(line, word)) {
            findings.push(Finding::new(source, number, &format!("{word}: what is to be done is an issue")));
        }
        if is_commented_out(line.trim()) {
            findings.push(Finding::new(source, number, "code in a comment: git remembers it"));
        }
    }
}

/// Whether a plain comment is a statement or the head of a block.
fn is_commented_out(comment: &str) -> bool {
    let Some(text) = comment.strip_prefix("//").filter(|text| !text.starts_with(['/', '!'])) else {
        return false;
    };
    let text = text.trim();
    let starts = ["let ", "fn ", "pub ", "use ", "if ", "for ", "while ", "match ", "return ", "assert", "}"];
    let statement = text.ends_with(';') || text.ends_with('{') || text.ends_with("})");
    (statement && starts.iter().any(|start| text.starts_with(start))) || text.ends_with(");")
}

fn layers(source: &Source, findings: &mut Vec<Finding>) {
    let Some(inside) = source.path.strip_prefix("pod2pod-user/src/") else { return };
    let module = inside.split(['/', '.']).next().unwrap_or_default();
    let fits =
        |layer: &&Layer| inside.strip_prefix(layer.module).is_some_and(|rest| rest.starts_with(['/', '.']));
    let Some(layer) = table::LAYERS.iter().filter(fits).max_by_key(|layer| layer.module.len()) else {
        return;
    };
    for (number, path) in source.imports() {
        let Some(other) = path.strip_prefix("crate::").and_then(|path| path.split("::").next()) else {
            continue;
        };
        let may = other == module || layer.may_import.contains(&other);
        if !may && !source.test[number] {
            findings.push(Finding::new(source, number, &format!("`{module}` may not import `{path}`")));
        }
    }
}

fn forbidden(rule: &Forbidden, source: &Source, findings: &mut Vec<Finding>) {
    if !is_in(&source.path, rule.places) || is_in(&source.path, rule.except) {
        return;
    }
    for word in rule.words {
        let mut lines = source.lines_with(word);
        // `use std::{fs, …}` holds no `std::fs`, but imports it.
        let part = format!("{word}::");
        let imported = source.imports().into_iter().filter(|(_, path)| {
            path == word || path.starts_with(&part) || path.ends_with(&format!("::{word}"))
        });
        lines.extend(imported.map(|(number, _)| number));
        lines.sort_unstable();
        lines.dedup();
        for number in lines {
            let concerned = match rule.whose {
                Whose::All => true,
                Whose::Product => !source.test[number],
                Whose::Tests => source.test[number],
            };
            if concerned {
                findings.push(Finding::new(source, number, &format!("`{word}`: {}", rule.why)));
            }
        }
    }
}

fn names(sources: &[Source], findings: &mut Vec<Finding>) {
    let Some(names) = sources.iter().find(|source| source.path == table::NAMES) else { return };
    let known: Vec<&str> = names.strings.iter().map(|(_, name)| name.as_str()).collect();
    for source in sources.iter().filter(|source| source.path != table::NAMES) {
        for (number, string) in &source.strings {
            if known.contains(&string.as_str()) && !source.test[*number] {
                let what = format!("\"{string}\" is spelled in {} only", table::NAMES);
                findings.push(Finding::new(source, *number, &what));
            }
        }
    }
}

/// Every limit and default is named by a test: at least one knows where it bites.
fn limits(sources: &[Source], findings: &mut Vec<Finding>) {
    let tests: Vec<&str> = sources
        .iter()
        .flat_map(|source| source.text.iter().zip(&source.test))
        .filter_map(|(line, test)| test.then_some(line.as_str()))
        .collect();
    for source in sources.iter().filter(|source| is_in(&source.path, table::LIMITS)) {
        for (number, line) in source.code.iter().enumerate() {
            let Some(name) = limit(line).filter(|_| !source.test[number]) else { continue };
            // A default is tried through the field of a Config that it fills.
            let field = name.strip_prefix("DEFAULT_").map(str::to_ascii_lowercase);
            let named =
                |line: &str| has_word(line, name) || field.as_ref().is_some_and(|f| has_word(line, f));
            if !tests.iter().any(|line| named(line)) {
                findings.push(Finding::new(source, number, &format!("no test names the limit `{name}`")));
            }
        }
    }
}

/// The name of the limit that a line declares.
fn limit(line: &str) -> Option<&str> {
    let (_, declared) = line.split_once("const ")?;
    let (name, _) = declared.split_once(':')?;
    (name.starts_with("MAX_") || name.starts_with("DEFAULT_")).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The findings in one file, as `line what`, lines from 1.
    fn findings(path: &str, text: &str) -> Vec<String> {
        check(&[Source::parse(path, text)]).iter().map(|f| format!("{} {}", f.line, f.what)).collect()
    }

    fn check_flagged(path: &str, body: &str, line: usize, part: &str) {
        let found = findings(path, &format!("//! A head.\n{body}\n"));
        let hit = found.iter().any(|f| f.starts_with(&format!("{line} ")) && f.contains(part));
        assert!(hit, "{path}: {body:?} is flagged on line {line} with {part:?}: {found:?}");
    }

    fn check_clean(path: &str, body: &str) {
        assert_eq!(findings(path, &format!("//! A head.\n{body}\n")), [""; 0], "{path}: {body:?}");
    }

    const PURE_FILE: &str = "pod2pod-user/src/http/head.rs";

    #[test]
    fn a_file_needs_a_head() {
        assert_eq!(findings("xtask/src/a.rs", "use b;\n").len(), 1);
        check_clean("xtask/src/a.rs", "");
    }

    #[test]
    fn sizes_have_a_limit_and_tests_are_not_counted() {
        let lines = |count: usize| "const A: u8 = 0;\n".repeat(count - 1);
        let check_size = |path: &str, most: usize| {
            assert_eq!(findings(path, &format!("//! A.\n{}", lines(most))), [""; 0], "{path} at {most}");
            assert_eq!(
                findings(path, &format!("//! A.\n{}", lines(most + 1))).len(),
                1,
                "{path} past {most}"
            );
        };
        check_size("xtask/src/a.rs", table::MAX_FILE_LINES);
        check_size("tests/pipeline/main.rs", table::MAX_FILE_LINES);
        check_size("xtask/src/main.rs", table::MAX_MAIN_LINES);
        let tests = format!("//! A.\n#[cfg(test)]\nmod tests {{\n{}}}\n", lines(600));
        assert_eq!(findings("xtask/src/a.rs", &tests), [""; 0]);
    }

    #[test]
    fn functions_have_a_limit() {
        let function = |lines: usize| format!("fn long() {{\n{}}}", "    step();\n".repeat(lines - 2));
        check_clean("xtask/src/a.rs", &function(table::MAX_FUNCTION_LINES));
        check_flagged("xtask/src/a.rs", &function(table::MAX_FUNCTION_LINES + 1), 2, "`long` has 71 lines");
    }

    #[test]
    fn pure_stages_hold_no_shell() {
        for body in [
            "async fn a() {}",
            "use tokio::net;",
            "use std::{fs, io};",
            "fn a() { std::fs::read(b); }",
            "use std::net::{IpAddr, TcpStream};",
            "fn a() { Instant::now(); }",
            "fn a() { std::time::SystemTime::now(); }",
            "use std::sync::Mutex;",
            "use std::sync::{Arc, RwLock};",
            "fn a() { tracing::debug!(b); }",
            "use prometheus::Registry;",
            "use aya::maps;",
        ] {
            check_flagged(PURE_FILE, body, 2, "pure stage");
            check_clean("pod2pod-user/src/agent.rs", body);
        }
        check_clean(PURE_FILE, "// async is for shells\nconst A: &str = \"tokio\";");
        check_clean(PURE_FILE, "#[cfg(test)]\nmod tests {\n    use std::fs;\n}");
    }

    #[test]
    fn stages_import_only_what_comes_before() {
        check_flagged(
            "pod2pod-user/src/reassembly/mod.rs",
            "use crate::http::Exchange;",
            2,
            "may not import",
        );
        check_flagged(
            "pod2pod-user/src/sinks/mod.rs",
            "use crate::{config::Config, record::Record};",
            2,
            "config",
        );
        check_flagged("pod2pod-user/src/record.rs", "use crate::http::Exchange;", 2, "may not import");
        check_flagged(
            "pod2pod-user/src/capture/decode.rs",
            "use crate::reassembly::Side;",
            2,
            "may not import",
        );
        check_clean("pod2pod-user/src/capture/kernel.rs", "use crate::reassembly::Side;");
        check_clean("pod2pod-user/src/http/mod.rs", "use crate::{http::head, reassembly::Chunk};");
        check_clean("pod2pod-user/src/agent.rs", "use crate::config::Config;");
    }

    #[test]
    fn only_the_record_is_serialised() {
        check_flagged("pod2pod-user/src/http/exchange.rs", "use serde::Serialize;", 2, "serialised");
        check_flagged("pod2pod-user/src/agent.rs", "#[derive(serde::Serialize)]", 2, "serialised");
        check_clean("pod2pod-user/src/record/mod.rs", "use serde::Serialize;");
        check_clean("pod2pod-user/src/sinks/http.rs", "use serde::Serialize;");
        check_clean("pod2pod-user/src/config/mod.rs", "use serde::Deserialize;");
    }

    #[test]
    fn unsafe_lives_in_listed_files() {
        check_flagged("pod2pod-user/src/agent.rs", "fn a() { unsafe { b() } }", 2, "`unsafe`");
        check_flagged("tests/support/src/netns.rs", "fn a() { unsafe { b() } }", 2, "`unsafe`");
        check_clean("pod2pod-ebpf/src/emit.rs", "fn a() { unsafe { b() } }");
        check_clean("pod2pod-user/src/agent.rs", "// unsafe is elsewhere");
    }

    #[test]
    fn tests_run_and_do_not_hope() {
        check_flagged("tests/daemon/main.rs", "fn a() { std::thread::sleep(b); }", 2, "deadline");
        check_flagged("tests/daemon/main.rs", "use std::thread::sleep;", 2, "deadline");
        check_flagged(
            PURE_FILE,
            "#[cfg(test)]\nmod tests {\n    fn a() { thread::sleep(b) }\n}",
            4,
            "deadline",
        );
        check_flagged("tests/daemon/main.rs", "#[ignore]\nfn a() {}", 2, "ignore");
        check_flagged("tests/daemon/main.rs", "#[ignore = \"slow\"]\nfn a() {}", 2, "ignore");
        check_flagged("tests/daemon/main.rs", "#[should_panic]\nfn a() {}", 2, "should_panic");
        check_clean("tests/support/src/process.rs", "fn a() { std::thread::sleep(b); }");
    }

    #[test]
    fn unfinished_code_is_flagged() {
        check_flagged("xtask/src/a.rs", "fn a() { todo!() }", 2, "todo!");
        check_flagged("xtask/src/a.rs", "// TODO: later", 2, "issue");
        check_flagged("xtask/src/a.rs", "/* XXX */", 2, "issue");
        check_flagged("xtask/src/a.rs", "// let a = b();", 2, "comment");
        check_flagged("xtask/src/a.rs", "// call(b);", 2, "comment");
        check_flagged("xtask/src/a.rs", "#![allow(dead_code)]", 2, "reason");
        check_clean(
            "xtask/src/a.rs",
            "// The list; if it is empty,\n// for example after a(b); nothing happens.",
        );
    }

    #[test]
    fn names_are_spelled_once() {
        let names = Source::parse(table::NAMES, "//! A.\npub const MAP_A: &str = \"SEGMENTS\";\n");
        let user = Source::parse("pod2pod-user/src/capture/kernel.rs", "//! A.\nlet a = b(\"SEGMENTS\");\n");
        let found = check(&[names, user]);
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].path.as_str(), found[0].line), ("pod2pod-user/src/capture/kernel.rs", 2));
    }

    #[test]
    fn a_limit_is_named_by_a_test() {
        let limit = "pub const MAX_HEADS: usize = 8;";
        check_flagged(PURE_FILE, limit, 2, "`MAX_HEADS`");
        check_clean(
            PURE_FILE,
            &format!("{limit}\n#[cfg(test)]\nmod tests {{\n    const A: usize = MAX_HEADS + 1;\n}}"),
        );
        let default = "pub const DEFAULT_MAX_HEADS: usize = 8;";
        check_flagged(PURE_FILE, default, 2, "`DEFAULT_MAX_HEADS`");
        check_clean(
            PURE_FILE,
            &format!("{default}\n#[cfg(test)]\nmod tests {{\n    let c = Config {{ max_heads: 2 }};\n}}"),
        );
        let product = Source::parse(PURE_FILE, &format!("//! A.\n{limit}\n"));
        let test = Source::parse("tests/pipeline/main.rs", "//! A.\nuse pod2pod_user::http::MAX_HEADS;\n");
        assert_eq!(check(&[product, test]).len(), 0);
    }
}
