//! Keys that say what is told of exchanges and connection attempts: the sections `http`, `connect`, `sampling` and `ignore`, and
//! `redact`.

use super::{DURATION, GLOBS, Key, SWITCH, positive, put};
use crate::{
    config::{Config, value::Given},
    enrich::{Connects, Redaction, ignore::Subject},
};

pub(super) const HEADERS: &str = "a list of header names";
const TARGETS: &str = "a list of request targets such as /health, /status?full=1";
pub(super) const BODY: &str = "a size from 0 to 64KiB";
const RATE: &str = "a share from 0 to 1, or a percentage";

/// First bytes of a body that can be asked for: a record stays a line that log pipelines take.
pub(super) const MAX_BODY_BYTES: usize = 64 * 1024;

pub(super) static KEYS: &[Key] = &[
    Key {
        path: "http.timeout",
        allowed: DURATION,
        default: "10s",
        sentence: "A request without a response for this long is told as a timeout; a later response is told as `late`.",
        set: |config, given| put(&mut config.http.timeout, positive(given)),
    },
    Key {
        path: "http.progress",
        allowed: DURATION,
        default: "60s",
        sentence: "An exchange that is still open after this long is told once as in progress.",
        set: |config, given| put(&mut config.http.progress, positive(given)),
    },
    Key {
        path: "http.request_headers",
        allowed: HEADERS,
        default: "",
        sentence: "Request headers to capture; Host and User-Agent always are.",
        set: |config, given| headers(&mut config.http.request_headers, given),
    },
    Key {
        path: "http.response_headers",
        allowed: HEADERS,
        default: "",
        sentence: "Response headers to capture.",
        set: |config, given| headers(&mut config.http.response_headers, given),
    },
    Key {
        path: "http.body_bytes",
        allowed: BODY,
        default: "0",
        sentence: "First bytes of each body to capture, and to give once its content codings (gzip, deflate, br, zstd) are removed; bodies are not redacted.",
        set: |config, given| {
            let bytes = body(given)?;
            config.http.request_body_prefix = bytes;
            config.http.response_body_prefix = bytes;
            config.enrich.content_bytes = bytes;
            Some(())
        },
    },
    Key {
        path: "connect.records",
        allowed: "off, failed, slow, all",
        default: "slow",
        sentence: "Tries to open a connection, whatever it is for, that get a record: those that failed; also those whose SYN was sent again or was answered late; or all.",
        set: |config, given| {
            let choice = Connects::of_word(given.text()?)?;
            config.enrich.connects = choice;
            config.reassembly.tell_every_attempt = choice == Connects::All;
            Some(())
        },
    },
    Key {
        path: "connect.timeout",
        allowed: DURATION,
        default: "10s",
        sentence: "A SYN without an answer for this long is told as a timeout; a later answer is told as `late`.",
        set: |config, given| put(&mut config.reassembly.attempt_timeout, positive(given)),
    },
    Key {
        path: "connect.slow",
        allowed: DURATION,
        default: "1s",
        sentence: "A SYN that is answered after this long, or was sent again, is a slow connect.",
        set: |config, given| put(&mut config.reassembly.slow_attempt, given.duration()),
    },
    Key {
        path: "redact",
        allowed: SWITCH,
        default: "on",
        sentence: "Replaces credentials in headers, URL parameters and user information.",
        set: |config, given| {
            config.enrich.redaction = if given.switch()? { Redaction::On } else { Redaction::Off };
            Some(())
        },
    },
    Key {
        path: "sampling.rate",
        allowed: RATE,
        default: "1",
        sentence: "Share of ordinary exchanges that is written; errors, failures and slow exchanges always are, and metrics count all.",
        set: |config, given| put(&mut config.enrich.rate, given.rate()),
    },
    Key {
        path: "sampling.slow",
        allowed: DURATION,
        default: "1s",
        sentence: "Exchanges at least this long are never sampled away.",
        set: |config, given| put(&mut config.enrich.slow, given.duration()),
    },
    Key {
        path: "ignore.paths",
        allowed: GLOBS,
        default: "",
        sentence: "Exchanges whose path matches are neither written nor counted in the HTTP metrics.",
        set: |config, given| ignore(config, Subject::Path, given),
    },
    Key {
        path: "ignore.targets",
        allowed: TARGETS,
        default: "",
        sentence: "The same for the whole request target, which has to be exactly one of these; with output.format pod2pod-log /info and /health are, unless others are given.",
        set: |config, given| {
            let targets = given.items();
            let is_one =
                |target: &String| !target.is_empty() && target.bytes().all(|byte| byte.is_ascii_graphic());
            config.enrich.ignore.set_targets(targets.iter().all(is_one).then_some(targets)?);
            Some(())
        },
    },
    Key {
        path: "ignore.hosts",
        allowed: GLOBS,
        default: "",
        sentence: "The same for the Host header, in any letter case.",
        set: |config, given| ignore(config, Subject::Host, given),
    },
    Key {
        path: "ignore.methods",
        allowed: GLOBS,
        default: "",
        sentence: "The same for the method.",
        set: |config, given| ignore(config, Subject::Method, given),
    },
    Key {
        path: "ignore.user_agents",
        allowed: GLOBS,
        default: "",
        sentence: "The same for the User-Agent header, in any letter case.",
        set: |config, given| ignore(config, Subject::UserAgent, given),
    },
];

/// First bytes of a body.
pub(super) fn body(given: &Given) -> Option<usize> {
    given.bytes().and_then(|bytes| usize::try_from(bytes).ok()).filter(|bytes| *bytes <= MAX_BODY_BYTES)
}

/// Header names, lower-case, by the token grammar (RFC 9110 5.6.2).
pub(super) fn headers(place: &mut Vec<String>, given: &Given) -> Option<()> {
    let in_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    let names = given.items();
    let valid = names.iter().all(|name| !name.is_empty() && name.bytes().all(in_token));
    put(place, valid.then(|| names.iter().map(|name| name.to_ascii_lowercase()).collect()))
}

fn ignore(config: &mut Config, subject: Subject, given: &Given) -> Option<()> {
    config.enrich.ignore.set(subject, &given.items()).ok()
}
