//! Keys of the section `output`: where records go.

use super::{BYTES, Key, put, size};
use crate::sinks::Format;

pub(super) static KEYS: &[Key] = &[
    Key {
        path: "output.format",
        allowed: "auto, json, text, pod2pod-log, none",
        default: "auto",
        sentence: "JSON lines, columns of text, or kubernetes-pod2pod-log's record as JSON lines; auto is text on a terminal and JSON elsewhere; none for sinks only.",
        set: |config, given| {
            config.output.format = match given.text()? {
                "auto" => Some(Format::Auto),
                "json" => Some(Format::Json),
                "text" => Some(Format::Text),
                "pod2pod-log" => Some(Format::Pod2podLog),
                "none" => None,
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
];
