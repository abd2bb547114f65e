//! Label selectors as Kubernetes writes them: `app=web, tier in (a, b), !canary`. Reads and evaluates; knows no pods.
//!
//! The grammar is that of `kubectl --selector` (k8s.io/apimachinery/pkg/labels/selector.go): all requirements must hold.

use std::sync::Arc;

/// Longest name in a key, and longest value (k8s.io/apimachinery/pkg/util/validation). Characters.
pub const MAX_NAME: usize = 63;
/// Longest prefix of a key, a DNS subdomain (ibid.). Characters.
pub const MAX_PREFIX: usize = 253;

/// One requirement.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Requirement {
    key: String,
    test: Test,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Test {
    Exists,
    IsAbsent,
    In(Vec<String>),
    /// Also of a pod without the key.
    NotIn(Vec<String>),
    /// Both are integers.
    GreaterThan(i64),
    LessThan(i64),
}

/// A selector.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selector {
    requirements: Vec<Requirement>,
}

/// Why a text is no selector, and where: characters from its beginning, from 1 on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("at {at}: {what}")]
pub struct SelectorError {
    /// Where.
    pub at: usize,
    /// What is wrong there.
    pub what: &'static str,
}

impl Selector {
    /// Reads a selector.
    ///
    /// # Errors
    /// It is none.
    pub fn parse(text: &str) -> Result<Self, SelectorError> {
        let mut input = Input { rest: text, at: 1 };
        let mut requirements = Vec::new();
        loop {
            requirements.push(input.requirement()?);
            input.skip_spaces();
            if input.rest.is_empty() {
                return Ok(Self { requirements });
            }
            input.expect(',', "a comma or the end is expected")?;
        }
    }

    /// Whether a pod with these labels is meant.
    pub fn matches(&self, labels: &[(Arc<str>, Arc<str>)]) -> bool {
        self.requirements.iter().all(|requirement| {
            let value = labels.iter().find(|(key, _)| **key == *requirement.key).map(|(_, value)| &**value);
            requirement.test.holds(value)
        })
    }

    /// Keys that are asked for.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.requirements.iter().map(|requirement| requirement.key.as_str())
    }
}

impl Test {
    fn holds(&self, value: Option<&str>) -> bool {
        let integer = || value.and_then(|value| value.parse::<i64>().ok());
        match self {
            Self::Exists => value.is_some(),
            Self::IsAbsent => value.is_none(),
            Self::In(values) => value.is_some_and(|value| values.iter().any(|wanted| wanted == value)),
            Self::NotIn(values) => value.is_none_or(|value| values.iter().all(|refused| refused != value)),
            Self::GreaterThan(bound) => integer().is_some_and(|value| value > *bound),
            Self::LessThan(bound) => integer().is_some_and(|value| value < *bound),
        }
    }
}

/// What is left to read, and where that begins.
struct Input<'a> {
    rest: &'a str,
    at: usize,
}

impl<'a> Input<'a> {
    const fn error(&self, what: &'static str) -> SelectorError {
        SelectorError { at: self.at, what }
    }

    fn skip(&mut self, bytes: usize) -> &'a str {
        let (taken, rest) = self.rest.split_at(bytes);
        (self.rest, self.at) = (rest, self.at + taken.chars().count());
        taken
    }

    fn skip_spaces(&mut self) {
        self.skip(self.rest.len() - self.rest.trim_start().len());
    }

    fn take(&mut self, text: &str) -> bool {
        let is_next = self.rest.starts_with(text);
        if is_next {
            self.skip(text.len());
        }
        is_next
    }

    fn expect(&mut self, what: char, error: &'static str) -> Result<(), SelectorError> {
        self.skip_spaces();
        if self.rest.starts_with(what) {
            self.skip(what.len_utf8());
            return Ok(());
        }
        Err(self.error(error))
    }

    /// Letters, digits and what may be between them.
    fn word(&mut self) -> &'a str {
        self.skip_spaces();
        let is_part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '/');
        let end = self.rest.find(|c| !is_part(c)).unwrap_or(self.rest.len());
        self.skip(end)
    }

    fn requirement(&mut self) -> Result<Requirement, SelectorError> {
        self.skip_spaces();
        let is_absent = self.take("!");
        let key = self.key()?;
        if is_absent {
            return Ok(Requirement { key, test: Test::IsAbsent });
        }
        self.skip_spaces();
        let test = if self.take("!=") {
            Test::NotIn(vec![self.value()?])
        } else if self.take("==") || self.take("=") {
            Test::In(vec![self.value()?])
        } else if self.take(">") {
            Test::GreaterThan(self.integer()?)
        } else if self.take("<") {
            Test::LessThan(self.integer()?)
        } else if self.rest.is_empty() || self.rest.starts_with(',') {
            Test::Exists
        } else {
            let begin = self.at;
            match self.word() {
                "in" => Test::In(self.set()?),
                "notin" => Test::NotIn(self.set()?),
                _ => {
                    let what = "=, ==, !=, in, notin, >, < or a comma is expected";
                    return Err(SelectorError { at: begin, what });
                }
            }
        };
        Ok(Requirement { key, test })
    }

    fn key(&mut self) -> Result<String, SelectorError> {
        self.skip_spaces();
        let begin = self.at;
        let key = self.word();
        let (prefix, name) = key.split_once('/').unwrap_or(("", key));
        let is_prefix = prefix.len() <= MAX_PREFIX && (prefix.is_empty() != key.contains('/'));
        if is_prefix && !name.is_empty() && is_name(name) {
            Ok(key.to_owned())
        } else {
            Err(SelectorError { at: begin, what: "a label's key is expected" })
        }
    }

    fn value(&mut self) -> Result<String, SelectorError> {
        self.skip_spaces();
        let begin = self.at;
        let value = self.word();
        if is_name(value) {
            Ok(value.to_owned())
        } else {
            Err(SelectorError { at: begin, what: "no label has such a value" })
        }
    }

    fn integer(&mut self) -> Result<i64, SelectorError> {
        self.skip_spaces();
        let begin = self.at;
        self.word().parse().map_err(|_| SelectorError { at: begin, what: "an integer is expected" })
    }

    fn set(&mut self) -> Result<Vec<String>, SelectorError> {
        self.expect('(', "( is expected")?;
        let mut values = vec![self.value()?];
        loop {
            self.skip_spaces();
            if self.take(")") {
                return Ok(values);
            }
            self.expect(',', "a comma or ) is expected")?;
            values.push(self.value()?);
        }
    }
}

/// Empty, or letters and digits with `-`, `_` and `.` between them.
fn is_name(text: &str) -> bool {
    let is_end = |c: Option<char>| c.is_none_or(|c| c.is_ascii_alphanumeric());
    text.len() <= MAX_NAME
        && !text.contains('/')
        && is_end(text.chars().next())
        && is_end(text.chars().next_back())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> Vec<(Arc<str>, Arc<str>)> {
        pairs.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect()
    }

    #[test]
    fn requirements_hold_as_kubectl_has_them() {
        let pod = labels(&[("app", "web"), ("tier", "front"), ("size", "7"), ("example.com/team", "")]);
        for (text, expected) in [
            ("app", true),
            ("!app", false),
            ("!canary", true),
            ("app=web", true),
            ("app == web", true),
            ("app!=web", false),
            ("canary!=yes", true),
            ("app=db", false),
            ("app in (db, web)", true),
            ("app in (db)", false),
            ("app notin (db,cache)", true),
            ("canary notin (yes)", true),
            ("app notin (web)", false),
            ("size>6,size<8", true),
            ("size > 7", false),
            ("app > 1", false),
            ("example.com/team", true),
            ("example.com/team=", true),
            ("app=web,tier=front", true),
            ("app=web,tier=back", false),
            (" app = web , tier in ( back , front ) ", true),
        ] {
            assert_eq!(Selector::parse(text).unwrap().matches(&pod), expected, "{text}");
        }
    }

    #[test]
    fn a_mistake_is_told_with_its_place() {
        for (text, at) in [
            ("", 1),
            (",", 1),
            ("app=web,", 9),
            ("app web", 5),
            ("app in web", 8),
            ("app in (web", 12),
            ("app in (web db)", 13),
            ("app=we!b", 7),
            ("app=-web", 5),
            ("-app", 1),
            ("/app", 1),
            ("a/b/c", 1),
            ("size>many", 6),
            ("ä=b", 1),
            ("a=b,ü", 5),
        ] {
            assert_eq!(Selector::parse(text).unwrap_err().at, at, "{text}");
        }
    }

    #[test]
    fn names_have_their_limits() {
        let of = |text: String| Selector::parse(&text).is_ok();
        assert!(of("a".repeat(MAX_NAME)) && !of("a".repeat(MAX_NAME + 1)));
        assert!(of(format!("a={}", "b".repeat(MAX_NAME))) && !of(format!("a={}", "b".repeat(MAX_NAME + 1))));
        assert!(
            of(format!("{}/a", "b".repeat(MAX_PREFIX))) && !of(format!("{}/a", "b".repeat(MAX_PREFIX + 1)))
        );
    }
}
