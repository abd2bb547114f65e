//! Keys of `type: otlp`.

use super::{DEFAULT_BATCH_RECORDS, Settings, SinkKey as Key, SinkType, Wrong, common, web};
use crate::{
    config::keys::put,
    sinks::{
        TargetConfig,
        http_client::Url,
        otlp::{self, Signal},
    },
};

pub(super) static TYPE: SinkType = SinkType {
    word: "otlp",
    sentence: "Whoever takes OTLP over HTTP, such as the OpenTelemetry Collector: log records, or spans of exchanges.",
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
    signal: Signal,
    gzip: bool,
}

impl Default for Otlp {
    fn default() -> Self {
        Self { url: None, signal: Signal::Logs, gzip: true }
    }
}

static KEYS: &[Key] = &[
    Key {
        path: "url",
        allowed: "an http:// or https:// URL without user information",
        default: "",
        sentence: "Where it is; `/v1/logs` or `/v1/traces` is looked for below its path.",
        set: |sink, given| put(&mut sink.otlp.url, Some(Some(Url::parse(given.text()?)?))),
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
        allowed: "none, gzip",
        default: "gzip",
        sentence: "How bodies are compressed.",
        set: |sink, given| {
            sink.otlp.gzip = match given.text()? {
                "none" => false,
                "gzip" => true,
                _ => return None,
            };
            Some(())
        },
    },
];

fn build(sink: &Settings, wrong: &mut Vec<Wrong>) -> Option<TargetConfig> {
    let Otlp { url, signal, gzip } = sink.otlp.clone();
    let Some(url) = url else {
        wrong.push(("url", "it is missing: say where the collector is".to_owned()));
        return None;
    };
    sink.web.check(url.is_tls(), wrong);
    let authorization = sink.web.authorization(wrong);
    let access = sink.web.access(url, authorization);
    Some(TargetConfig::Otlp(Box::new(otlp::Config { access, signal, gzip })))
}
