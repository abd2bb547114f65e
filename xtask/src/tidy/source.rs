//! A Rust file taken apart for the rules: code without comments and strings, comments, strings, what is test code,
//! imports as full paths, and where each function ends. It reads no files and judges nothing.

/// A file as the rules see it. Lines count from 0.
pub(super) struct Source {
    /// Path in the work tree, with `/`.
    pub(super) path: String,
    /// Lines as they are.
    pub(super) text: Vec<String>,
    /// Lines with comments and the inside of strings blanked out.
    pub(super) code: Vec<String>,
    /// Lines with everything but comments blanked out.
    pub(super) comments: Vec<String>,
    /// Ordinary and raw string literals, by the line on which they begin.
    pub(super) strings: Vec<(usize, String)>,
    /// Whether the line belongs to an item under `#[cfg(test)]`.
    pub(super) unit_test: Vec<bool>,
    /// The same, or the whole file belongs to a test.
    pub(super) test: Vec<bool>,
}

impl Source {
    pub(super) fn parse(path: &str, text: &str) -> Self {
        let split = Split::of(text);
        let lines = |text: &str| text.lines().map(str::to_owned).collect::<Vec<_>>();
        let code = lines(&split.code);
        // Such a file is a module under `#[cfg(test)]` that is too long to stand where it is declared.
        let mut unit_test = vec![path.ends_with("/tests.rs"); code.len()];
        for (number, _) in code.iter().enumerate().filter(|(_, line)| line.contains("#[cfg(test)]")) {
            let end = end_of_item(&code, number);
            unit_test.iter_mut().take(end + 1).skip(number).for_each(|line| *line = true);
        }
        Self {
            path: path.to_owned(),
            text: lines(text),
            comments: lines(&split.comments),
            strings: split.strings,
            code,
            test: unit_test.iter().map(|test| *test || path.starts_with("tests/")).collect(),
            unit_test,
        }
    }

    /// Lines that hold `word` as a whole path or identifier, in code.
    pub(super) fn lines_with(&self, word: &str) -> Vec<usize> {
        let found = |line: &String| has_word(line, word);
        self.code.iter().enumerate().filter(|(_, line)| found(line)).map(|(number, _)| number).collect()
    }

    /// What the file imports: full paths, groups taken apart, each with the line of its `use`.
    pub(super) fn imports(&self) -> Vec<(usize, String)> {
        let mut imports = Vec::new();
        let mut number = 0;
        while let Some(line) = self.code.get(number) {
            let start = number;
            number += 1;
            let line = line.trim_start();
            let item = line.strip_prefix("pub ").or_else(|| line.strip_prefix("pub(crate) ")).unwrap_or(line);
            let Some(rest) = item.strip_prefix("use ") else { continue };
            let mut tree = rest.to_owned();
            while !tree.contains(';') && number < self.code.len() {
                tree.push_str(self.code[number].trim());
                number += 1;
            }
            let tree = tree.split(';').next().unwrap_or_default();
            imports.extend(expand(tree).into_iter().map(|path| (start, path)));
        }
        imports
    }

    /// Every function with a body: its name, first and last line.
    pub(super) fn functions(&self) -> Vec<(String, usize, usize)> {
        let mut functions = Vec::new();
        for (number, line) in self.code.iter().enumerate() {
            let Some(at) = word_at(line, "fn") else { continue };
            let name: String = line[at + 2..].trim_start().chars().take_while(|c| is_word(*c)).collect();
            if !name.is_empty() {
                functions.push((name, number, end_of_item(&self.code, number)));
            }
        }
        functions
    }
}

/// The last line of the item that begins on line `start`: its closing brace, or the semicolon if it has none.
fn end_of_item(code: &[String], start: usize) -> usize {
    let (mut braces, mut others) = (0_usize, 0_usize);
    for (number, line) in code.iter().enumerate().skip(start) {
        for c in line.chars() {
            match c {
                '(' | '[' => others += 1,
                ')' | ']' => others = others.saturating_sub(1),
                '{' => braces += 1,
                '}' if braces <= 1 => return number,
                '}' => braces -= 1,
                ';' if braces == 0 && others == 0 => return number,
                _ => {}
            }
        }
    }
    code.len().saturating_sub(1)
}

/// Takes a use tree apart: `a::{b, c::d}` is `a::b` and `a::c::d`.
fn expand(tree: &str) -> Vec<String> {
    let tree = tree.trim();
    let Some((prefix, group)) = tree.split_once('{') else {
        let path = tree.split(" as ").next().unwrap_or_default().trim();
        return if path.is_empty() { Vec::new() } else { vec![path.to_owned()] };
    };
    let group = group.rsplit_once('}').map_or(group, |(inside, _)| inside);
    let (mut depth, mut part, mut parts) = (0_usize, String::new(), Vec::new());
    for c in group.chars() {
        match c {
            '{' => depth += 1,
            '}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if c == ',' && depth == 0 {
            parts.push(std::mem::take(&mut part));
        } else {
            part.push(c);
        }
    }
    parts.push(part);
    parts.iter().flat_map(|part| expand(part)).map(|path| format!("{}{path}", prefix.trim())).collect()
}

const fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

/// Whether `line` holds `word` with nothing of a longer word around it.
pub(super) fn has_word(line: &str, word: &str) -> bool {
    word_at(line, word).is_some()
}

fn word_at(line: &str, word: &str) -> Option<usize> {
    let edge = |c: Option<char>| !c.is_some_and(is_word);
    line.match_indices(word).map(|(at, _)| at).find(|at| {
        let (before, after) = (&line[..*at], &line[at + word.len()..]);
        (edge(before.chars().next_back()) || !word.starts_with(is_word))
            && (edge(after.chars().next()) || !word.ends_with(is_word))
    })
}

/// The three layers of a file's text; each has every line break of the file.
#[derive(Default)]
struct Split {
    code: String,
    comments: String,
    strings: Vec<(usize, String)>,
}

impl Split {
    fn of(text: &str) -> Self {
        let mut split = Self::default();
        let mut rest = text;
        while let Some(c) = rest.chars().next() {
            let length = if rest.starts_with("//") {
                split.comment(rest, rest.find('\n').unwrap_or(rest.len()))
            } else if rest.starts_with("/*") {
                split.comment(rest, block_comment(rest))
            } else if c == '"' {
                split.string(rest, 1, string_end(rest, 1))
            } else if let Some(hashes) = raw_string(rest, &split.code) {
                let open = hashes + 2;
                let close = format!("\"{}", "#".repeat(hashes));
                let end = rest[open..].find(&close).map_or(rest.len(), |at| open + at + close.len());
                split.string(rest, open, end)
            } else if c == '\'' {
                let length = char_literal(rest);
                split.blank(&rest[..length]);
                length
            } else {
                split.code.push(c);
                split.comments.push(if c == '\n' { '\n' } else { ' ' });
                c.len_utf8()
            };
            rest = &rest[length..];
        }
        split
    }

    fn comment(&mut self, rest: &str, length: usize) -> usize {
        self.comments.push_str(&rest[..length]);
        self.code.extend(rest[..length].chars().map(blanked));
        length
    }

    fn string(&mut self, rest: &str, open: usize, end: usize) -> usize {
        let line = self.code.matches('\n').count();
        let inside = rest[open..end].trim_end_matches('#');
        self.strings.push((line, inside.strip_suffix('"').unwrap_or(inside).to_owned()));
        self.blank(&rest[..end]);
        end
    }

    /// A literal: its place stays, its content goes.
    fn blank(&mut self, literal: &str) {
        self.code.extend(literal.chars().map(blanked));
        self.comments.extend(literal.chars().map(blanked));
    }
}

const fn blanked(c: char) -> char {
    if c == '\n' { '\n' } else { ' ' }
}

/// Length of a block comment; they nest.
fn block_comment(text: &str) -> usize {
    let (mut depth, mut at) = (0_usize, 0);
    while let Some(c) = text[at..].chars().next() {
        match text[at..].get(..2) {
            Some("/*") => (depth, at) = (depth + 1, at + 2),
            Some("*/") if depth <= 1 => return at + 2,
            Some("*/") => (depth, at) = (depth - 1, at + 2),
            _ => at += c.len_utf8(),
        }
    }
    text.len()
}

/// The index after the closing quote.
fn string_end(text: &str, open: usize) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip_while(|(at, _)| *at < open) {
        match c {
            '"' if !escaped => return at + 1,
            '\\' => escaped = !escaped,
            _ => escaped = false,
        }
    }
    text.len()
}

/// Number of hashes if a raw string begins here; the code before tells an `r` from the end of a word.
fn raw_string(text: &str, before: &str) -> Option<usize> {
    let after = text.strip_prefix('r')?;
    let previous = before.chars().next_back();
    if previous.is_some_and(|c| is_word(c) && c != 'b' && c != 'c') {
        return None;
    }
    let hashes = after.chars().take_while(|c| *c == '#').count();
    after[hashes..].starts_with('"').then_some(hashes)
}

/// Length of a character literal, or of the quote of a lifetime.
fn char_literal(text: &str) -> usize {
    let mut chars = text.char_indices().skip(1);
    match chars.next() {
        Some((_, '\\')) => {
            // The escaped character itself may be a quote.
            chars.next();
            chars.find(|(_, c)| *c == '\'').map_or(1, |(at, _)| at + 1)
        }
        Some(_) => match chars.next() {
            Some((at, '\'')) => at + 1,
            _ => 1,
        },
        None => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(text: &str) -> String {
        Source::parse("a.rs", text).code.join("\n")
    }

    #[test]
    fn comments_and_strings_are_no_code() {
        let words = |text: &str| code(text).split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(words("a // b\nc /* d /* e */ f */ g"), ["a", "c", "g"]);
        assert_eq!(words("a /*/ b */ c"), ["a", "c"]);
        assert_eq!(words(r#"a("b\"c") d"#), ["a(", ")", "d"]);
        assert_eq!(code("r#\"a \" b\"# c").trim_start(), "c");
        assert_eq!(code("('\"', '\\'', 'a', &'b str)"), "(   ,     ,    , & b str)");
    }

    #[test]
    fn strings_are_known_by_content_and_line() {
        let source = Source::parse("a.rs", "x(\"one\",\n r\"two\", br#\"th\"ree\"#)");
        let strings = [(0, "one".to_owned()), (1, "two".to_owned()), (1, "th\"ree".to_owned())];
        assert_eq!(source.strings, strings);
    }

    #[test]
    fn test_items_are_marked_to_their_end() {
        let source = Source::parse("a.rs", "fn a() {}\n#[cfg(test)]\nmod tests {\n fn b() { }\n}\nfn c() {}");
        assert_eq!(source.test, [false, true, true, true, true, false]);
        assert_eq!(Source::parse("tests/a/main.rs", "fn a() {}").test, [true]);
        for (path, expected) in [("src/a/tests.rs", true), ("src/a/contests.rs", false)] {
            assert_eq!(Source::parse(path, "fn a() {}").unit_test, [expected], "{path}");
        }
    }

    #[test]
    fn imports_are_taken_apart() {
        let source = Source::parse("a.rs", "use std::{\n    fs::{self, File},\n    io as i,\n};\nuse b::C;");
        let paths: Vec<String> = source.imports().into_iter().map(|(_, path)| path).collect();
        assert_eq!(paths, ["std::fs::self", "std::fs::File", "std::io", "b::C"]);
    }

    #[test]
    fn functions_end_where_their_body_does() {
        let source = Source::parse(
            "a.rs",
            "fn a(\n x: [u8; 2],\n) {\n  if x { }\n}\ntrait B { fn c(); }\nlet f: fn(u8) = d;",
        );
        let expected = [("a".to_owned(), 0, 4), ("c".to_owned(), 5, 5)];
        assert_eq!(source.functions(), expected);
    }

    #[test]
    fn words_are_whole() {
        assert!(has_word("use tokio::net;", "tokio"));
        assert!(!has_word("tokio_like", "tokio"));
        assert!(has_word("std::thread::sleep(x)", "thread::sleep"));
        assert!(has_word("todo!()", "todo!"));
    }
}
