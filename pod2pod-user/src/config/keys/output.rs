//! Keys of the section `output`: where records go.

use http::Method;
use rustls::pki_types::ServerName;

use super::{BYTES, DURATION, Key, all, positive, put, size};
use crate::sinks::{
    Format,
    http::{Body, MAX_CONCURRENCY},
    http_client::{self, Header, HeaderFile},
};

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
        allowed: "an http:// or https:// URL without user information",
        default: "",
        sentence: "Also posts records as JSON to this collector.",
        set: |config, given| {
            let url = http_client::Url::parse(given.text()?)?;
            config.http_sink.url = Some(url);
            Some(())
        },
    },
    Key {
        path: "output.http.method",
        allowed: "POST, PUT, PATCH",
        default: "POST",
        sentence: "The method of requests.",
        set: |config, given| {
            let methods = [Method::POST, Method::PUT, Method::PATCH];
            let text = given.text()?.to_ascii_uppercase();
            put(&mut config.http_sink.method, methods.into_iter().find(|method| method.as_str() == text))
        },
    },
    Key {
        path: "output.http.body",
        allowed: "lines, array",
        default: "lines",
        sentence: "Records as JSON lines (application/x-ndjson), or as an array of objects (application/json).",
        set: |config, given| {
            config.http_sink.body = match given.text()? {
                "lines" => Body::Lines,
                "array" => Body::Array,
                _ => return None,
            };
            Some(())
        },
    },
    Key {
        path: "output.http.compression",
        allowed: "none, gzip",
        default: "none",
        sentence: "How bodies are compressed.",
        set: |config, given| {
            config.http_sink.gzip = match given.text()? {
                "none" => false,
                "gzip" => true,
                _ => return None,
            };
            Some(())
        },
    },
    Key {
        path: "output.http.headers",
        allowed: "a list of headers such as X-Scope-OrgID: shop",
        default: "",
        sentence: "Headers of every request, for what is no secret.",
        set: |config, given| put(&mut config.http_sink.headers, all(given, Header::parse)),
    },
    Key {
        path: "output.http.header_files",
        allowed: "a list of headers and files such as Authorization: /run/secrets/collector",
        default: "",
        sentence: "Headers whose values are in files, which are read again when they change.",
        set: |config, given| put(&mut config.http_sink.header_files, all(given, HeaderFile::parse)),
    },
    Key {
        path: "output.http.tls.ca",
        allowed: "a path",
        default: "",
        sentence: "Certificates (PEM) of the authorities to believe, instead of this machine's; read again when it changes.",
        set: |config, given| put(&mut config.http_sink.tls.ca, Some(Some(given.path()?))),
    },
    Key {
        path: "output.http.tls.certificate",
        allowed: "a path",
        default: "",
        sentence: "Our own certificate (PEM), for a collector that asks for one; read again when it changes.",
        set: |config, given| put(&mut config.http_sink.tls.certificate, Some(Some(given.path()?))),
    },
    Key {
        path: "output.http.tls.key",
        allowed: "a path",
        default: "",
        sentence: "Its private key (PEM).",
        set: |config, given| put(&mut config.http_sink.tls.key, Some(Some(given.path()?))),
    },
    Key {
        path: "output.http.tls.server_name",
        allowed: "a name or an address",
        default: "",
        sentence: "Whose certificate the collector should have, if not the URL's host's.",
        set: |config, given| {
            let name = ServerName::try_from(given.text()?.to_owned()).ok()?;
            put(&mut config.http_sink.server_name, Some(Some(name)))
        },
    },
    Key {
        path: "output.http.batch_records",
        allowed: "a number from 1 to 100000",
        default: "500",
        sentence: "Records of one request at most.",
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
        sentence: "A request that takes longer has failed.",
        set: |config, given| put(&mut config.http_sink.limits.timeout, positive(given)),
    },
    Key {
        path: "output.http.attempts",
        allowed: "a number from 1, or unlimited",
        default: "unlimited",
        sentence: "A batch is lost after so many requests that failed; each waits for a random part of a time that doubles, up to 30 s.",
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
        sentence: "Requests under way at once, at most: as many as the collector answers without slowing down; with 1 records keep their order.",
        set: |config, given| {
            let count = given.integer().and_then(|count| usize::try_from(count).ok());
            put(
                &mut config.http_sink.limits.concurrency,
                count.filter(|count| (1..=MAX_CONCURRENCY).contains(count)),
            )
        },
    },
];
