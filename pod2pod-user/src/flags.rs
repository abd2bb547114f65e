//! Values of command lines' flags, and what is said of those that are mistaken.

use std::{ops::RangeInclusive, time::Duration};

use crate::config::value::Given;

/// What is said of a value that is none.
pub(crate) fn refused(flag: &str, text: &str, allowed: &str) -> String {
    format!("{flag}: {text:?} is not allowed; allowed: {allowed}")
}

/// The value of a flag, or its default; a mistake is noted.
pub(crate) fn chosen<T>(
    mistakes: &mut Vec<String>,
    flag: &str,
    text: Option<String>,
    default: T,
    allowed: &str,
    parse: impl Fn(&str) -> Option<T>,
) -> T {
    let Some(text) = text else { return default };
    parse(&text).unwrap_or_else(|| {
        mistakes.push(refused(flag, &text, allowed));
        default
    })
}

/// A duration, or a number of seconds, of those that are `allowed`.
pub(crate) fn interval(text: &str, allowed: RangeInclusive<Duration>) -> Option<Duration> {
    let seconds = || text.trim().parse().ok().map(Duration::from_secs);
    Given::one(text).duration().or_else(seconds).filter(|interval| allowed.contains(interval))
}
