//! `--filter`: words that a pair must all fit. Evaluated once a pair and table.

use super::{
    figures::Row,
    page::End,
    table::{Column, end},
};
use crate::{config::value::Given, filter::NamePattern};

/// What a filter may be, for whoever wrote another.
pub(super) const ALLOWED: &str = "words that all must fit: a name or glob such as web or shop/web-*, client=NAME, server=NAME, \
    namespace=NAME, each with ! before it, and rate>10, errors>1%, p99>100ms, network<50%";

/// Words; none fits every pair.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Filter(Vec<Word>);

#[derive(Clone, Debug, PartialEq)]
enum Word {
    /// An end is called so, or is not.
    Name { whose: Whose, pattern: NamePattern, is_wanted: bool },
    /// A figure is above or below.
    Figure { column: Column, is_above: bool, limit: f64 },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Whose {
    Any,
    Client,
    Server,
    Namespace,
}

impl Filter {
    /// Reads it.
    ///
    /// # Errors
    /// The word that is none, and where it begins, in characters from 1.
    pub(super) fn parse(text: &str) -> Result<Self, (usize, String)> {
        let mut words = Vec::new();
        let mut at = 1;
        for part in text.split(' ') {
            if !part.is_empty() {
                words.push(Word::parse(part).ok_or_else(|| (at, part.to_owned()))?);
            }
            at += part.chars().count() + 1;
        }
        Ok(Self(words))
    }

    /// Whether it asks for nothing.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether all words fit.
    pub(super) fn fits(&self, row: &Row) -> bool {
        self.0.iter().all(|word| word.fits(row))
    }
}

impl Word {
    fn parse(text: &str) -> Option<Self> {
        if let Some((name, limit)) = text.split_once(['<', '>']) {
            let column = Column::parse(name)?;
            return Some(Self::Figure {
                column,
                is_above: text.contains('>'),
                limit: number(column, limit)?,
            });
        }
        let (text, is_wanted) = text.strip_prefix('!').map_or((text, true), |rest| (rest, false));
        let (whose, pattern) = match text.split_once('=') {
            None => (Whose::Any, text),
            Some(("client", pattern)) => (Whose::Client, pattern),
            Some(("server", pattern)) => (Whose::Server, pattern),
            Some(("namespace", pattern)) => (Whose::Namespace, pattern),
            Some(_) => return None,
        };
        Some(Self::Name { whose, pattern: NamePattern::parse(pattern)?, is_wanted })
    }

    fn fits(&self, row: &Row) -> bool {
        let (client, server) = (&row.pair.client, &row.pair.server);
        match self {
            Self::Name { whose, pattern, is_wanted } => {
                let is_called = |one: &End| pattern.matches(&one.workload) || pattern.matches(&end(one));
                let fits = match whose {
                    Whose::Any => is_called(client) || is_called(server),
                    Whose::Client => is_called(client),
                    Whose::Server => is_called(server),
                    Whose::Namespace => {
                        pattern.matches(&client.namespace) || pattern.matches(&server.namespace)
                    }
                };
                fits == *is_wanted
            }
            Self::Figure { column, is_above, limit } => {
                column.value(row).is_some_and(|value| if *is_above { value > *limit } else { value < *limit })
            }
        }
    }
}

/// A limit in the unit of its column.
fn number(column: Column, text: &str) -> Option<f64> {
    let plain = |text: &str| text.parse::<f64>().ok().filter(|number| number.is_finite() && *number >= 0.0);
    match column {
        Column::Rate => plain(text),
        Column::Errors | Column::Network => Some(plain(text.strip_suffix('%')?)? / 100.0),
        Column::P50 | Column::P95 | Column::P99 => Given::one(text).duration().map(|time| time.as_secs_f64()),
        Column::Client | Column::Server => None,
    }
}

#[cfg(test)]
mod tests {
    use super::{super::table::tests::row, *};

    #[test]
    fn all_words_must_fit() {
        // web of the shop asks a Service of another namespace.
        let row = row("shop/web", "bank/service/pay", 20.0);
        for (text, fits) in [
            ("", true),
            ("  ", true),
            ("web", true),
            ("we", false),
            ("we*", true),
            ("shop/web", true),
            ("bank/web", false),
            ("shop/*", true),
            ("service/pay", true),
            ("bank/service/*", true),
            ("!web", false),
            ("!cart", true),
            ("client=web", true),
            ("server=web", false),
            ("server=*/pay", true),
            ("namespace=bank", true),
            ("namespace=b*", true),
            ("!namespace=bank", false),
            ("web namespace=bank rate>10", true),
            ("web namespace=other", false),
            ("rate>20", false),
            ("rate<20.5", true),
            ("errors>9%", true),
            ("errors>10%", false),
            ("p50<5ms", true),
            ("p99>1s", false),
            ("network>24%", true),
            ("network<24%", false),
        ] {
            assert_eq!(Filter::parse(text).unwrap().fits(&row), fits, "{text:?}");
        }
    }

    #[test]
    fn a_figure_that_is_not_known_fits_no_limit() {
        let row = Row { network: None, ..row("shop/web", "shop/cart", 20.0) };
        for text in ["network>1%", "network<99%"] {
            assert!(!Filter::parse(text).unwrap().fits(&row), "{text}");
        }
    }

    #[test]
    fn a_word_that_is_none_is_said_with_its_place() {
        for (text, at, word) in [
            ("web[", 1, "web["),
            ("web pod=x", 5, "pod=x"),
            ("wéb  rate>many", 6, "rate>many"),
            ("errors>5", 1, "errors>5"),
            ("p99>5", 1, "p99>5"),
            ("size>5", 1, "size>5"),
            ("client>5", 1, "client>5"),
            ("client=", 1, "client="),
            ("!", 1, "!"),
            ("rate>-1", 1, "rate>-1"),
            ("rate>NaN", 1, "rate>NaN"),
        ] {
            assert_eq!(Filter::parse(text), Err((at, word.to_owned())), "{text:?}");
        }
    }
}
