//! Why tests failed, of what the test runner said: a machine's lines pass among those of the other one, and the tier is long.

/// Begins what a failed test said, with its name between.
const HEAD: [&str; 2] = ["---- ", " stdout ----"];
/// What comes behind the reason: where in the code it was, and the list of the names.
const ENDS: [&str; 2] = ["stack backtrace:", "failures:"];
/// Lines of one test that are kept: a reason can be a list.
const MAX_REASON_LINES: usize = 8;
/// Bytes of a line that are kept: it can be a record.
const MAX_LINE_BYTES: usize = 1500;

/// What was said of failed tests so far.
#[derive(Debug, Default)]
pub(super) struct Failures {
    text: String,
    /// Lines that are left of the test being read, if one is.
    left: usize,
}

impl Failures {
    /// One more line of the test runner.
    pub(super) fn read(&mut self, line: &str) {
        let [before, behind] = HEAD;
        if line.starts_with(before) && line.ends_with(behind) {
            // Its name does not count.
            self.left = MAX_REASON_LINES + 1;
        } else if ENDS.contains(&line) {
            self.left = 0;
        }
        if self.left > 0 && !line.is_empty() {
            self.left -= 1;
            self.text.push('\n');
            self.text.push_str(&line[..line.floor_char_boundary(MAX_LINE_BYTES)]);
        }
    }

    /// Every failed test with its reason, each line behind a line break.
    pub(super) fn text(&self) -> &str {
        &self.text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(lines: &[&str]) -> String {
        let mut failures = Failures::default();
        lines.iter().for_each(|line| failures.read(line));
        failures.text().to_owned()
    }

    #[test]
    fn a_failed_test_is_told_with_its_reason_and_without_its_backtrace() {
        let said = [
            "running 2 tests",
            "failures:",
            "",
            "---- a::b stdout ----",
            "",
            "thread 'a::b' panicked at a.rs:1:2:",
            "2 mistakes",
            "stack backtrace:",
            "   0: rust_begin_unwind",
            "---- c stdout ----",
            "broken",
            "",
            "failures:",
            "    a::b",
        ];
        let wanted = "\n---- a::b stdout ----\nthread 'a::b' panicked at a.rs:1:2:\n2 mistakes\n---- c stdout ----\nbroken";
        assert_eq!(text(&said), wanted);
        assert_eq!(text(&["running 1 test", "ok"]), "");
    }

    #[test]
    fn a_long_reason_is_cut_by_lines_and_bytes() {
        let line = "é".repeat(MAX_LINE_BYTES);
        let lines: Vec<&str> =
            ["---- a stdout ----"].into_iter().chain([line.as_str(); MAX_REASON_LINES + 1]).collect();
        let cut = text(&lines);
        assert_eq!(cut.lines().skip(2).count(), MAX_REASON_LINES);
        assert!(cut.lines().skip(2).all(|line| line.len() == MAX_LINE_BYTES), "{cut}");
    }

    #[test]
    fn as_many_lines_and_bytes_as_may_be_are_whole() {
        let line = "e".repeat(MAX_LINE_BYTES);
        let lines: Vec<&str> =
            ["---- a stdout ----"].into_iter().chain([line.as_str(); MAX_REASON_LINES]).collect();
        assert_eq!(text(&lines), format!("\n{}", lines.join("\n")));
    }
}
