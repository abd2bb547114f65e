//! Keys of the section `output`: where records go.

use super::{BYTES, DURATION, Key, positive, put, size};
use crate::sinks::{self, Format, http::MAX_CONCURRENCY};

pub(super) static KEYS: &[Key] = &[
    Key {
        path: "output.format",
        allowed: "auto, json, text, pod2pod-log",
        default: "auto",
        sentence: "JSON lines, columns of text, or kubernetes-pod2pod-log's record as JSON lines; auto is text on a terminal and JSON elsewhere.",
        set: |config, given| {
            config.output.format = match given.text()? {
                "auto" => Format::Auto,
                "json" => Format::Json,
                "text" => Format::Text,
                "pod2pod-log" => Format::Pod2podLog,
                _ => return None,
            };
            Some(())
        },
    },
    Key {
        path: "output.file",
        allowed: "a path",
        default: "",
        sentence: "Appends records to this file instead of writing them to standard output.",
        set: |config, given| {
            config.output.file = Some(given.text().filter(|path| !path.is_empty())?.into());
            Some(())
        },
    },
    Key {
        path: "output.queue_bytes",
        allowed: BYTES,
        default: "8MiB",
        sentence: "Records queued for the output at most; live capture drops the newest beyond, replay waits.",
        set: |config, given| put(&mut config.output.queue_bytes, size(given)),
    },
    Key {
        path: "output.http.url",
        allowed: "an http:// URL without user information",
        default: "",
        sentence: "Also posts records as JSON lines to this collector.",
        set: |config, given| {
            let url = sinks::http::Url::parse(given.text()?)?;
            config.http_sink.url = Some(url);
            Some(())
        },
    },
    Key {
        path: "output.http.batch_records",
        allowed: "a number from 1 to 100000",
        default: "500",
        sentence: "Records of one POST at most.",
        set: |config, given| {
            put(
                &mut config.http_sink.batch_records,
                given.integer().filter(|count| (1..=100_000).contains(count)),
            )
        },
    },
    Key {
        path: "output.http.queue_bytes",
        allowed: BYTES,
        default: "8MiB",
        sentence: "Records queued for the collector at most; the newest are dropped beyond.",
        set: |config, given| put(&mut config.http_sink.queue_bytes, size(given)),
    },
    Key {
        path: "output.http.timeout",
        allowed: DURATION,
        default: "30s",
        sentence: "A POST that takes longer has failed.",
        set: |config, given| put(&mut config.http_sink.limits.timeout, positive(given)),
    },
    Key {
        path: "output.http.attempts",
        allowed: "a number from 1, or unlimited",
        default: "unlimited",
        sentence: "A batch is lost after so many POSTs that failed; each waits for a random part of a time that doubles, up to 30 s.",
        set: |config, given| {
            let attempts = match given.text()? {
                "unlimited" => None,
                _ => Some(
                    given.integer().and_then(|count| u32::try_from(count).ok()).filter(|count| *count > 0)?,
                ),
            };
            put(&mut config.http_sink.limits.attempts, Some(attempts))
        },
    },
    Key {
        path: "output.http.concurrency",
        allowed: "a number from 1 to 64",
        default: "8",
        sentence: "POSTs under way at once, at most: as many as the collector answers without slowing down; with 1 records keep their order.",
        set: |config, given| {
            let count = given.integer().and_then(|count| usize::try_from(count).ok());
            put(
                &mut config.http_sink.limits.concurrency,
                count.filter(|count| (1..=MAX_CONCURRENCY).contains(count)),
            )
        },
    },
];
