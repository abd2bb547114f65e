//! A filter over records: words that must all fit, `or` between lists of them. Read once, evaluated for each record.
//!
//! `status>=500 namespace=shop`, `kind=connect or duration>1s`, `!path=/health*`, `web`, `"url.path=/a b"`.

use super::word::{Found, Word, WordError};
use crate::record::{Record, fields};

/// More words are no filter that a person wrote, and each costs its share of every record.
pub const MAX_WORDS: usize = 64;

/// What a filter may be, for whoever wrote another.
pub const ALLOWED: &str = "words that all must fit, `or` between alternatives: a field of the record with =, !=, >, >=, < or <= and a value \
    (globs, durations, sizes), such as status>=500, namespace=shop, duration>1s, !path=/health*; or a name or glob of an end, such as \
    web or shop/web-*";

/// Why a text is no filter.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FilterError {
    /// A word is none.
    #[error("word {at}, {word:?}: {error}")]
    Word {
        /// Which one, from 1.
        at: usize,
        /// As written.
        word: String,
        /// Why not.
        error: WordError,
    },
    /// An `or` without words before or behind it, or no word at all.
    #[error("there is no word on a side of `or`")]
    Empty,
    /// A quote that does not end.
    #[error("a quote does not end")]
    OpenQuote,
    /// Too many words.
    #[error("more than {MAX_WORDS} words")]
    TooLong,
}

/// Alternatives; in each, words that all must fit.
#[derive(Clone, Debug, PartialEq)]
pub struct Filter {
    text: String,
    alternatives: Vec<Vec<Word>>,
}

impl Filter {
    /// Reads `text`.
    ///
    /// # Errors
    /// It is no filter: the first word that is none.
    pub fn parse(text: &str) -> Result<Self, FilterError> {
        let words = split(text)?;
        if words.len() > MAX_WORDS {
            return Err(FilterError::TooLong);
        }
        let mut alternatives = vec![Vec::new()];
        for (place, word) in words.iter().enumerate() {
            match (word.as_str(), alternatives.last_mut()) {
                ("or", _) => alternatives.push(Vec::new()),
                (_, Some(alternative)) => {
                    alternative.push(Word::parse(word).map_err(|error| FilterError::Word {
                        at: place + 1,
                        word: word.clone(),
                        error,
                    })?)
                }
                (_, None) => {}
            }
        }
        if alternatives.iter().any(Vec::is_empty) {
            return Err(FilterError::Empty);
        }
        Ok(Self { text: text.to_owned(), alternatives })
    }

    /// As it was written.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Whether all words of an alternative fit.
    pub fn fits(&self, record: &Record) -> bool {
        let words = || self.alternatives.iter().flatten();
        let mut found = Found::default();
        if words().any(Word::is_of_fields) {
            fields::visit(record, |key, value| {
                for (place, word) in words().enumerate() {
                    if word.meets(key, value) {
                        found.note(place);
                    }
                }
            });
        }
        let mut place = 0;
        self.alternatives.iter().any(|alternative| {
            let fits =
                alternative.iter().zip(place..).all(|(word, place)| word.fits(record, found.has(place)));
            place += alternative.len();
            fits
        })
    }
}

/// Words as a shell would see them: blanks between, none in double quotes.
fn split(text: &str) -> Result<Vec<String>, FilterError> {
    let (mut words, mut word, mut is_quoted) = (Vec::new(), String::new(), false);
    for character in text.chars() {
        match character {
            '"' => is_quoted = !is_quoted,
            blank if blank.is_whitespace() && !is_quoted => words.push(std::mem::take(&mut word)),
            other => word.push(other),
        }
    }
    words.push(word);
    words.retain(|word| !word.is_empty());
    if is_quoted { Err(FilterError::OpenQuote) } else { Ok(words) }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::Bytes;

    use super::*;
    use crate::{
        kubernetes::{
            cgroup::PodUid,
            identity::{Identity, Pod},
        },
        record::{CapturedHeader, Kind, MessageFacts, Outcome, Party},
    };

    fn fits(filter: &str, record: &Record) -> bool {
        Filter::parse(filter).unwrap_or_else(|error| panic!("{filter}: {error}")).fits(record)
    }

    fn record() -> Record {
        let header = CapturedHeader { name: Bytes::from("x-tenant"), value: Bytes::from("shop") };
        let web = Pod {
            namespace: "shop".into(),
            name: "web-1".into(),
            uid: PodUid::parse("0f1e2d3c-4b5a-6978-8796-a5b4c3d2e1f0").unwrap(),
            node: None,
            zone: None,
            workload: None,
            labels: Box::default(),
            annotations: Box::default(),
        };
        let identity = Identity { pod: Some(Arc::new(web)), ..Identity::default() };
        Record {
            kind: Kind::Http,
            outcome: Some(Outcome::Complete),
            method: Some(Bytes::from("GET")),
            path: Some(Bytes::from("/health/a b")),
            status: Some(503),
            duration: 1_500_000_000,
            client: ("10.0.0.7".parse().unwrap(), 40000),
            server_party: Some(Arc::new(Party::new(identity, false, |_, _| false))),
            request: MessageFacts { headers: vec![header], body_size: Some(65536), ..Default::default() },
            ..Record::blank()
        }
    }

    #[test]
    fn words_are_of_fields_and_names() {
        for (filter, expected) in [
            ("kind=http", true),
            ("kind=connect", false),
            ("kind!=connect", true),
            ("!kind=http", false),
            ("status=503", true),
            ("status=5*", true),
            ("status=4*", false),
            ("status>=503 status<504", true),
            ("status>503", false),
            ("http.response.status_code<=503", true),
            ("duration>1s", true),
            ("duration>1500ms", false),
            ("duration>=1500ms", true),
            ("duration=1.5s", true),
            ("http.request.body.size>=64KiB", true),
            ("http.request.body.size>64KiB", false),
            ("path=/health*", true),
            ("path=/health", false),
            ("\"path=/health/a b\"", true),
            ("path=\"/health/a b\"", true),
            ("method=GET,POST", false),
            ("method={GET,POST}", true),
            ("error.type=*", true),
            ("trace.id=*", false),
            ("!trace.id=*", true),
            ("http.request.header.x-tenant=shop", true),
            ("http.request.header.x-tenant=other", false),
            ("http.request.header.x-other=*", false),
            ("namespace=shop", true),
            ("server.k8s.namespace.name=shop", true),
            ("client.k8s.namespace.name=shop", false),
            ("pod=web-*", true),
            ("web-*", true),
            ("shop/web-1", true),
            ("other/web-1", false),
            ("!web-1", false),
            ("server=web-1", true),
            ("client=web-1", false),
            ("client=10.0.0.7", true),
            ("client=10.0.*", true),
            ("10.0.0.7", true),
            ("kind=connect or status=503", true),
            ("kind=connect status=503 or status=503", true),
            ("kind=connect or status=504", false),
        ] {
            assert_eq!(fits(filter, &record()), expected, "{filter}");
        }
    }

    #[test]
    fn what_is_no_filter_says_why() {
        for (text, expected) in [
            ("", "no word"),
            ("or", "no word"),
            ("a or", "no word"),
            ("or a", "no word"),
            ("\"a", "a quote does not end"),
            ("web statuz=5", "word 2, \"statuz=5\": no field is called statuz; did you mean status?"),
            ("kind>5", "kind is no number"),
            ("duration>soon", "soon is no duration"),
            ("status>=", "no value"),
            ("path=[", "[ is no glob"),
            ("=5", "no field is named"),
            ("!", "nothing behind !"),
        ] {
            let told = Filter::parse(text).unwrap_err().to_string();
            assert!(told.contains(expected), "{text}: {told}");
        }
    }

    #[test]
    fn as_many_words_as_allowed_and_one_more() {
        let of = |words: usize| Filter::parse(&vec!["status=503"; words].join(" "));
        assert!(of(MAX_WORDS).unwrap().fits(&record()));
        assert_eq!(of(MAX_WORDS + 1), Err(FilterError::TooLong));
    }
}
