//! Keys of `type: otlp`.

use super::{DEFAULT_BATCH_RECORDS, Settings, SinkKey as Key, SinkType, Wrong, common, web};
use crate::{
    config::keys::put,
    sinks::{
        TargetConfig,
        coding::Coding,
        http_client::Url,
        otlp::{self, Protocol, Signal},
    },
};

pub(super) static TYPE: SinkType = SinkType {
    word: "otlp",
    sentence: "Whoever takes OTLP over HTTP or gRPC, such as the OpenTelemetry Collector: log records, or spans of exchanges.",
    schemes: &[],
    keys: &[KEYS, web::USER, web::TOKEN, web::HEADERS, web::TLS, common::LINES, common::KEYS],
    keeps_order: false,
    batch_records: DEFAULT_BATCH_RECORDS,
    build,
};

/// `otlp` as written.
#[derive(Clone, Debug)]
pub struct Otlp {
    url: Option<Url>,
    protocol: Protocol,
    signal: Signal,
    coding: Coding,
}

impl Default for Otlp {
    fn default() -> Self {
        Self { url: None, protocol: Protocol::default(), signal: Signal::Logs, coding: Coding::Gzip }
    }
}

static KEYS: &[Key] = &[
    Key {
        path: "url",
        allowed: "an http:// or https:// URL without user information",
        default: "",
        sentence: "Where it is; over HTTP `/v1/logs` or `/v1/traces` is looked for below its path, over gRPC it has no path.",
        set: |sink, given| put(&mut sink.otlp.url, Some(Some(Url::parse(given.text()?)?))),
    },
    Key {
        path: "protocol",
        allowed: "http, grpc",
        default: "http",
        sentence: "How requests travel: over HTTP/1.1, as to a Collector's port 4318, or by gRPC, as to its port 4317.",
        set: |sink, given| {
            sink.otlp.protocol = match given.text()? {
                "http" => Protocol::Http,
                "grpc" => Protocol::Grpc,
                _ => return None,
            };
            Some(())
        },
    },
    Key {
        path: "signal",
        allowed: "logs, spans",
        default: "logs",
        sentence: "A record as a log record, or an exchange as a span: of the trace and parent that its `traceparent` names, else of a trace of its own. Who wants both has two sinks.",
        set: |sink, given| {
            sink.otlp.signal = match given.text()? {
                "logs" => Signal::Logs,
                "spans" => Signal::Spans,
                _ => return None,
            };
            Some(())
        },
    },
    Key {
        path: "compression",
        allowed: "none, gzip, zstd",
        default: "gzip",
        sentence: "How bodies are compressed.",
        set: |sink, given| put(&mut sink.otlp.coding, Coding::parse(given.text()?)),
    },
];

fn build(sink: &Settings, wrong: &mut Vec<Wrong>) -> Option<TargetConfig> {
    let Otlp { url, protocol, signal, coding } = sink.otlp.clone();
    let Some(url) = url else {
        wrong.push(("url", "it is missing: say where the collector is".to_owned()));
        return None;
    };
    if protocol == Protocol::Grpc && url.path() != "/" {
        wrong.push(("url", format!("with protocol grpc it has no path: without {}", url.path())));
    }
    sink.web.check(url.is_tls(), wrong);
    let authorization = sink.web.authorization(wrong);
    let access = sink.web.access(url, authorization);
    Some(TargetConfig::Otlp(Box::new(otlp::Config { access, protocol, signal, coding })))
}
