//! Flags of `pod2pod tail` and what they mean; all mistakes are told at once.

use std::{path::PathBuf, time::Duration};

use clap::Args;

use crate::{
    admin::MAX_TIME,
    config::value::Given,
    flags::{self, refused},
    route::{Filter, filter::ALLOWED},
    secrets::{small_file, tls},
    sinks::http_client::Url,
};

/// Where the agent of this machine shows records.
pub const DEFAULT_URL: &str = "http://127.0.0.1:9465/tail";
/// Agents that are listened to at most: each is a connection, and nobody reads more.
pub const MAX_URLS: usize = 64;
/// Longest token. Bytes.
const MAX_TOKEN_BYTES: usize = 4096;

const URLS: &str = "http://ADDRESS[:PORT] or https://, as of admin.listen";
const SIZES: &str = "a size such as 4KiB";
const TIMES: &str = "a duration such as 60s, 5m; at most 24h";

/// Flags as written.
#[derive(Debug, Default, Args)]
pub struct Flags {
    /// Records that fit, as of a sink's filter: status>=500 namespace=shop or kind=connect
    #[arg(value_name = "FILTER")]
    pub filter: Vec<String>,
    /// Where an agent's admin.listen is; can be repeated [default: http://127.0.0.1:9465]
    #[arg(long, value_name = "URL")]
    pub url: Vec<String>,
    /// JSON lines instead of columns
    #[arg(long)]
    pub json: bool,
    /// Ends after this time
    #[arg(long = "for", value_name = "TIME")]
    pub time: Option<String>,
    /// Also headers, all that the agents allow or these, for the time of --for; as JSON lines
    #[arg(long, value_name = "NAMES", num_args = 0..=1, require_equals = true, default_missing_value = "all")]
    pub headers: Option<String>,
    /// Also first bytes of bodies, such as 4KiB, for the time of --for; as JSON lines
    #[arg(long, value_name = "BYTES")]
    pub bodies: Option<String>,
    /// A file with the token that the agents ask for
    #[arg(long, value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// Certificates (PEM) of the authorities to believe, instead of this machine's
    #[arg(long, value_name = "FILE")]
    pub ca: Option<PathBuf>,
}

/// What the flags mean.
#[derive(Clone, Debug)]
pub struct Options {
    pub(super) filter: String,
    pub(super) urls: Vec<(String, Url)>,
    pub(super) json: bool,
    pub(super) time: Option<Duration>,
    pub(super) headers: Option<String>,
    pub(super) body_bytes: Option<u64>,
    pub(super) token: Option<String>,
    pub(super) tls: tls::Client,
}

impl Flags {
    /// What they mean.
    ///
    /// # Errors
    /// All mistakes, one line each.
    pub fn options(self) -> Result<Options, Vec<String>> {
        let Self { filter, url, json, time, headers, bodies, token_file, ca } = self;
        let mut mistakes = Vec::new();
        let filter = filter.join(" ");
        if !filter.is_empty()
            && let Err(error) = Filter::parse(&filter)
        {
            mistakes.push(format!("FILTER: {filter:?}: {error}; allowed: {ALLOWED}"));
        }
        let texts = if url.is_empty() { vec![DEFAULT_URL.to_owned()] } else { url };
        let parsed = texts.iter().map(|text| parse_url(text).ok_or_else(|| refused("--url", text, URLS)));
        let (urls, wrong): (Vec<_>, Vec<_>) = parsed.partition(Result::is_ok);
        let urls: Vec<(String, Url)> = urls.into_iter().flatten().collect();
        mistakes.extend(wrong.into_iter().filter_map(Result::err));
        if urls.len() > MAX_URLS {
            mistakes.push(format!("--url: {} are too many; allowed: {MAX_URLS}", urls.len()));
        }
        let time = time.and_then(|text| {
            let time = flags::interval(&text, Duration::from_nanos(1)..=MAX_TIME);
            if time.is_none() {
                mistakes.push(refused("--for", &text, TIMES));
            }
            time
        });
        let is_closer = headers.is_some() || bodies.is_some();
        let body_bytes = bodies.and_then(|text| {
            let bytes = Given::one(&*text).bytes().filter(|bytes| *bytes > 0);
            if bytes.is_none() {
                mistakes.push(refused("--bodies", &text, SIZES));
            }
            bytes
        });
        if is_closer && time.is_none() {
            mistakes.push("--headers and --bodies are shown for a time: add --for 60s".to_owned());
        }
        let token = token_file.and_then(|file| match small_file(&file, MAX_TOKEN_BYTES) {
            Ok(bytes) => Some(String::from_utf8_lossy(bytes.trim_ascii()).into_owned()),
            Err(error) => {
                mistakes.push(format!("--token-file: {error}"));
                None
            }
        });
        let tls = tls::Client { authorities: ca, own: None };
        if (tls.authorities.is_some() || urls.iter().any(|(_, url)| url.is_tls()))
            && let Err(error) = tls.connector()
        {
            mistakes.push(format!("--ca: {error}"));
        }
        if !mistakes.is_empty() {
            return Err(mistakes);
        }
        let json = json || is_closer;
        Ok(Options { filter, urls, json, time, headers, body_bytes, token, tls })
    }
}

/// A URL as written, with what may be left out.
fn parse_url(text: &str) -> Option<(String, Url)> {
    let text = if text.contains("://") { text.to_owned() } else { format!("http://{text}") };
    let has_path = text.split_once("://").is_some_and(|(_, rest)| rest.trim_end_matches('/').contains('/'));
    let text = if has_path { text } else { format!("{}/tail", text.trim_end_matches('/')) };
    let url = Url::parse(&text)?;
    Some((text, url))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::DEFAULT_ADMIN_LISTEN;

    fn flags(set: impl FnOnce(&mut Flags)) -> Result<Options, Vec<String>> {
        let mut flags = Flags::default();
        set(&mut flags);
        flags.options()
    }

    #[test]
    fn defaults() {
        let options = flags(|_| {}).unwrap();
        assert_eq!(options.urls[0].0, DEFAULT_URL);
        assert_eq!(DEFAULT_URL, format!("http://{DEFAULT_ADMIN_LISTEN}/tail"));
        let (filter, time) = (options.filter.as_str(), options.time);
        assert_eq!((filter, time, options.json, options.token), ("", None, false, None));
    }

    #[test]
    fn words_of_a_filter_may_be_arguments() {
        let options = flags(|flags| {
            flags.filter = ["status>=500", "or", "kind=connect"].map(str::to_owned).to_vec();
            flags.url = vec!["10.0.0.1:9465".to_owned(), "https://node-a:9465/".to_owned()];
            flags.time = Some("60s".to_owned());
        });
        // There may be no authorities on this machine.
        let Ok(options) = options else { return };
        assert_eq!(options.filter, "status>=500 or kind=connect");
        let urls: Vec<_> = options.urls.iter().map(|(text, _)| text.as_str()).collect();
        assert_eq!(urls, ["http://10.0.0.1:9465/tail", "https://node-a:9465/tail"]);
        assert_eq!(options.time, Some(Duration::from_secs(60)));
    }

    #[test]
    fn all_mistakes_are_told_at_once() {
        let mistakes = flags(|flags| {
            flags.filter = vec!["statuz=5".to_owned()];
            flags.url = vec!["ftp://a/".to_owned(); MAX_URLS + 1];
            flags.time = Some("25h".to_owned());
            flags.token_file = Some("/nowhere/token".into());
            flags.ca = Some("/nowhere/ca".into());
        })
        .unwrap_err();
        for expected in ["FILTER: ", "--url: ", "--for: ", "--token-file: ", "--ca: "] {
            assert!(mistakes.iter().any(|mistake| mistake.starts_with(expected)), "{expected}: {mistakes:?}");
        }
        let many = |count: usize| {
            flags(|flags| {
                flags.url = (0..count).map(|number| format!("10.0.0.1:{}", 9000 + number)).collect()
            })
        };
        assert!(many(MAX_URLS).is_ok());
        assert_eq!(many(MAX_URLS + 1).unwrap_err(), ["--url: 65 are too many; allowed: 64"]);
        let longest = |text: &str| flags(|flags| flags.time = Some(text.to_owned())).is_ok();
        assert!(
            longest(&format!("{}s", MAX_TIME.as_secs())) && !longest(&format!("{}s", MAX_TIME.as_secs() + 1))
        );
    }
}
