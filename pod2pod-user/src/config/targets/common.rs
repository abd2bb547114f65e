//! Keys that every sink has.

use super::SinkKey as Key;
use crate::{
    config::keys::{BYTES, DURATION, positive, put, size},
    delivery::spool::Loses,
    sinks::{
        Format,
        remote::{MAX_BATCH_RECORDS, MAX_CONCURRENCY, MIN_SPOOL_BYTES},
    },
};

pub(super) static KEYS: &[Key] = &[
    Key {
        path: "filter",
        allowed: "a filter",
        default: "",
        sentence: "Records that it is given: words that all must fit, `or` between alternatives, such as `status>=500 namespace=shop or kind=connect`.",
        set: |sink, given| put(&mut sink.filter, Some(Some(given.text()?.to_owned()))),
    },
    Key {
        path: "sample",
        allowed: "a share from 0 to 1, or a percentage",
        default: "1",
        sentence: "The share of ordinary exchanges that it is given, of all that there are; what `sampling.rate` never leaves out is always given.",
        set: |sink, given| put(&mut sink.rate, given.rate()),
    },
    Key {
        path: "batch_records",
        allowed: "a number from 1 to 100000",
        default: "500",
        sentence: "Records of one batch at most; 5000 to Kafka.",
        set: |sink, given| {
            put(
                &mut sink.batch_records,
                given.integer().filter(|count| (1..=MAX_BATCH_RECORDS).contains(count)),
            )
        },
    },
    Key {
        path: "queue_bytes",
        allowed: BYTES,
        default: "8MiB",
        sentence: "Records queued for it at most; the newest are dropped beyond.",
        set: |sink, given| put(&mut sink.queue_bytes, size(given)),
    },
    Key {
        path: "timeout",
        allowed: DURATION,
        default: "30s",
        sentence: "An attempt that takes longer has failed.",
        set: |sink, given| put(&mut sink.limits.timeout, positive(given)),
    },
    Key {
        path: "attempts",
        allowed: "a number from 1, or unlimited",
        default: "unlimited",
        sentence: "A batch is lost after so many attempts that failed; each waits for a random part of a time that doubles, up to 30 s.",
        set: |sink, given| {
            let attempts = match given.text()? {
                "unlimited" => None,
                _ => Some(
                    given.integer().and_then(|count| u32::try_from(count).ok()).filter(|count| *count > 0)?,
                ),
            };
            put(&mut sink.limits.attempts, Some(attempts))
        },
    },
    Key {
        path: "concurrency",
        allowed: "a number from 1 to 64",
        default: "8",
        sentence: "Batches under way at once, at most: as many as the target answers without slowing down. With 1 records keep their order, which is the default of types whose targets read one thing after the other.",
        set: |sink, given| {
            let count = given.integer().and_then(|count| usize::try_from(count).ok());
            put(&mut sink.limits.concurrency, count.filter(|count| (1..=MAX_CONCURRENCY).contains(count)))
        },
    },
    Key {
        path: "spool.bytes",
        allowed: "a size from 8MiB such as 64MiB, 1GiB, or off",
        default: "256MiB",
        sentence: "What is kept for it on disk at most, across the end of the agent too, where there is a `data_dir`; agent only.",
        set: |sink, given| {
            let bytes = match given.text()? {
                "off" | "false" => Some(0),
                _ => given.bytes().filter(|bytes| *bytes >= MIN_SPOOL_BYTES),
            };
            put(&mut sink.spool.most_bytes, bytes)
        },
    },
    Key {
        path: "spool.age",
        allowed: DURATION,
        default: "168h",
        sentence: "What was kept for longer is lost, and counted.",
        set: |sink, given| put(&mut sink.spool.most_age, positive(given)),
    },
    Key {
        path: "spool.loses",
        allowed: "oldest, newest",
        default: "oldest",
        sentence: "Which records are lost when there are too many: those that waited longest, or those that come.",
        set: |sink, given| {
            sink.spool.loses = match given.text()? {
                "oldest" => Loses::Oldest,
                "newest" => Loses::Newest,
                _ => return None,
            };
            Some(())
        },
    },
    Key {
        path: "linger",
        allowed: DURATION,
        default: "500ms",
        sentence: "A record waits this long for others to be sent with.",
        set: |sink, given| put(&mut sink.linger, positive(given)),
    },
];

/// Keys of those whose records are lines of text or objects.
pub(super) static LINES: &[Key] = &[
    Key {
        path: "fields",
        allowed: "a list of fields of the record, and globs of them",
        default: "",
        sentence: "Fields that are written, in the record's order; all if there are none.",
        set: |sink, given| put(&mut sink.fields, Some(given.items())),
    },
    Key {
        path: "without_fields",
        allowed: "a list of fields of the record, and globs of them",
        default: "",
        sentence: "Fields that are not written.",
        set: |sink, given| put(&mut sink.without_fields, Some(given.items())),
    },
];

/// The key of those whose records may be the old ones.
pub(super) static FORMAT: &[Key] = &[Key {
    path: "format",
    allowed: "json, pod2pod-log",
    default: "json",
    sentence: "The record as it is, or kubernetes-pod2pod-log's.",
    set: |sink, given| {
        sink.format = match given.text()? {
            "json" => Format::Json,
            "pod2pod-log" => Format::Pod2podLog,
            _ => return None,
        };
        Some(())
    },
}];
