//! Flags of `pod2pod top` and what they mean; all mistakes are told at once.

use std::time::Duration;

use clap::Args;

use super::{
    filter::{self, Filter},
    table::{Column, Order},
};
use crate::{
    flags::{self, chosen, refused},
    sinks::http_client::Url,
};

/// Where the agent of this machine is asked.
pub const DEFAULT_URL: &str = "http://127.0.0.1:9464/metrics";
/// From one page to the next.
pub const DEFAULT_INTERVAL: Duration = Duration::from_secs(2);
/// Shortest interval: an agent counts once a second.
pub const MIN_INTERVAL: Duration = Duration::from_secs(1);
/// Longest interval: nobody looks at a table that is older.
pub const MAX_INTERVAL: Duration = Duration::from_secs(300);
/// Agents that are asked at most: each page of one with all its pairs is two megabytes. A cluster has Prometheus.
pub const MAX_URLS: usize = 64;

const INTERVALS: &str = "a duration such as 2s, 1m, or a number of seconds; from 1s to 5m";
const URLS: &str = "http://ADDRESS[:PORT][/PATH]; /metrics is served without TLS";

/// Flags as written.
#[derive(Debug, Default, Args)]
pub struct Flags {
    /// Where an agent's metrics are; can be repeated: agents are added up [default: http://127.0.0.1:9464/metrics]
    #[arg(long, value_name = "URL")]
    pub url: Vec<String>,
    /// From one page to the next: a duration, or seconds [default: 2s]
    #[arg(long, value_name = "INTERVAL")]
    pub interval: Option<String>,
    /// client, server, rate, errors, p50, p95, p99 or network [default: rate]
    #[arg(long, value_name = "COLUMN")]
    pub sort: Option<String>,
    /// Pairs that all these words fit: shop/web, client=web-*, namespace=shop, !cart, errors>1%, p99>100ms
    #[arg(long, value_name = "WORDS")]
    pub filter: Option<String>,
    /// Prints one table after one interval, then ends
    #[arg(long)]
    pub once: bool,
    /// The same as one JSON object
    #[arg(long)]
    pub json: bool,
}

/// What the flags mean.
#[derive(Clone, Debug)]
pub struct Options {
    pub(super) urls: Vec<(String, Url)>,
    pub(super) interval: Duration,
    pub(super) order: Order,
    pub(super) filter: Filter,
    pub(super) filter_text: String,
    pub(super) once: bool,
    pub(super) json: bool,
}

impl Flags {
    /// What they mean.
    ///
    /// # Errors
    /// All mistakes, one line each.
    pub fn options(self) -> Result<Options, Vec<String>> {
        let Self { url, interval: text, sort, filter, once, json } = self;
        let mut mistakes = Vec::new();
        let interval = chosen(&mut mistakes, "--interval", text, DEFAULT_INTERVAL, INTERVALS, interval);
        let column = chosen(&mut mistakes, "--sort", sort, Column::Rate, Column::NAMES, Column::parse);
        let texts = if url.is_empty() { vec![DEFAULT_URL.to_owned()] } else { url };
        let mut urls: Vec<(String, Url)> = Vec::new();
        for text in texts {
            match parse_url(&text) {
                None => mistakes.push(refused("--url", &text, URLS)),
                // Whoever is asked twice would be counted twice.
                Some((_, url)) if urls.iter().any(|(_, known)| *known == url) => {
                    mistakes.push(format!("--url: {text:?} is given twice"));
                }
                Some(url) => urls.push(url),
            }
        }
        if urls.len() > MAX_URLS {
            mistakes.push(format!("--url: {} are too many; allowed: {MAX_URLS}", urls.len()));
        }
        let filter_text = filter.unwrap_or_default();
        let filter = Filter::parse(&filter_text).unwrap_or_else(|(at, word)| {
            let allowed = filter::ALLOWED;
            mistakes.push(format!("--filter: {word:?} at character {at} is not allowed; allowed: {allowed}"));
            Filter::default()
        });
        let order = Order { column, is_reversed: false };
        let options = Options { urls, interval, order, filter, filter_text, once, json };
        if mistakes.is_empty() { Ok(options) } else { Err(mistakes) }
    }
}

/// A URL as written, with what may be left out.
fn parse_url(text: &str) -> Option<(String, Url)> {
    let text = if text.contains("://") { text.to_owned() } else { format!("http://{text}") };
    let has_path = text.split_once("://").is_some_and(|(_, rest)| rest.trim_end_matches('/').contains('/'));
    let text = if has_path { text } else { format!("{}/metrics", text.trim_end_matches('/')) };
    let url = Url::parse(&text).filter(|url| !url.is_tls())?;
    Some((text, url))
}

fn interval(text: &str) -> Option<Duration> {
    flags::interval(text, MIN_INTERVAL..=MAX_INTERVAL)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::DEFAULT_LISTEN;

    fn flags(set: impl FnOnce(&mut Flags)) -> Result<Options, Vec<String>> {
        let mut flags = Flags::default();
        set(&mut flags);
        flags.options()
    }

    fn texts(options: &Options) -> Vec<&str> {
        options.urls.iter().map(|(text, _)| text.as_str()).collect()
    }

    #[test]
    fn defaults() {
        let options = flags(|_| {}).unwrap();
        assert_eq!((texts(&options), options.interval), (vec![DEFAULT_URL], DEFAULT_INTERVAL));
        assert_eq!(options.order, Order { column: Column::Rate, is_reversed: false });
        let (listen, url) = (format!("{DEFAULT_LISTEN:?}"), DEFAULT_URL.trim_start_matches("http://"));
        assert!(listen.contains(url.trim_end_matches("/metrics")), "{listen} {url}");
    }

    #[test]
    fn a_url_may_leave_out_what_is_usual() {
        for (text, expected) in [
            ("10.0.0.1:9464", "http://10.0.0.1:9464/metrics"),
            ("http://node-a:9464/", "http://node-a:9464/metrics"),
            ("http://node-a/other", "http://node-a/other"),
            ("[fd00::1]:9464", "http://[fd00::1]:9464/metrics"),
        ] {
            assert_eq!(texts(&flags(|flags| flags.url = vec![text.to_owned()]).unwrap()), [expected]);
        }
    }

    #[test]
    fn intervals() {
        for (text, expected) in [
            ("2", Some(DEFAULT_INTERVAL)),
            ("1s", Some(MIN_INTERVAL)),
            ("999ms", None),
            ("5m", Some(MAX_INTERVAL)),
            ("301", None),
            ("soon", None),
        ] {
            let options = flags(|flags| flags.interval = Some(text.to_owned()));
            assert_eq!(options.ok().map(|options| options.interval), expected, "{text}");
        }
    }

    #[test]
    fn so_many_agents_are_asked() {
        let of = |count: usize| {
            flags(|flags| {
                flags.url = (0..count).map(|number| format!("10.0.0.1:{}", 9000 + number)).collect()
            })
        };
        assert_eq!(of(MAX_URLS).unwrap().urls.len(), MAX_URLS);
        assert_eq!(of(MAX_URLS + 1).unwrap_err(), ["--url: 65 are too many; allowed: 64"]);
    }

    #[test]
    fn all_mistakes_are_told() {
        let mistakes = flags(|flags| {
            flags.url = ["https://node-a/metrics", "", "node-a:9464", "http://node-a:9464/metrics"]
                .map(str::to_owned)
                .to_vec();
            flags.interval = Some("0".to_owned());
            flags.sort = Some("size".to_owned());
            flags.filter = Some("web errors>5".to_owned());
        });
        let mistakes = mistakes.unwrap_err();
        let expected =
            ["--interval: ", "--sort: ", "--url: \"https:", "--url: \"\"", "--url: ", "--filter: "];
        assert_eq!(mistakes.len(), expected.len(), "{mistakes:#?}");
        for (mistake, beginning) in mistakes.iter().zip(expected) {
            assert!(mistake.starts_with(beginning), "{mistake}");
        }
        assert!(mistakes[4].ends_with("is given twice"), "{}", mistakes[4]);
        assert!(mistakes[5].contains("\"errors>5\" at character 5"), "{}", mistakes[5]);
    }
}
