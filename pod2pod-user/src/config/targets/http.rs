//! Keys of `type: http`.

use ::http::Method;

use super::{DEFAULT_BATCH_RECORDS, Settings, SinkKey as Key, SinkType, Wrong, common, drain::Query, web};
use crate::{
    config::keys::put,
    sinks::{
        TargetConfig,
        coding::Coding,
        http::{self, Body},
        http_client,
    },
};

pub(super) static TYPE: SinkType = SinkType {
    word: "http",
    sentence: "An HTTP/1.1 collector: JSON lines, or arrays of objects, a batch a request.",
    schemes: &["http", "https"],
    keys: &[
        KEYS,
        web::USER,
        web::TOKEN,
        web::HEADERS,
        web::TLS,
        web::SERVER_NAME,
        common::FORMAT,
        common::LINES,
        common::KEYS,
    ],
    keeps_order: false,
    batch_records: DEFAULT_BATCH_RECORDS,
    build,
};

/// `http` as written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Http {
    url: Option<http_client::Url>,
    /// Why options in its URL are refused.
    refused: Vec<String>,
    method: Method,
    body: Body,
    coding: Coding,
}

impl Default for Http {
    fn default() -> Self {
        Self {
            url: None,
            refused: Vec::new(),
            method: Method::POST,
            body: Body::default(),
            coding: Coding::default(),
        }
    }
}

static KEYS: &[Key] = &[
    Key {
        path: "url",
        allowed: "an http:// or https:// URL without user information",
        default: "",
        sentence: "Where it is.",
        set: |sink, given| {
            let query = Query::take_insecure(given.text()?);
            sink.http.refused = query.refused(&[]);
            put(&mut sink.http.url, Some(Some(http_client::Url::parse(&query.url)?)))
        },
    },
    Key {
        path: "method",
        allowed: "POST, PUT, PATCH",
        default: "POST",
        sentence: "The method of requests.",
        set: |sink, given| {
            let methods = [Method::POST, Method::PUT, Method::PATCH];
            let text = given.text()?.to_ascii_uppercase();
            put(&mut sink.http.method, methods.into_iter().find(|method| method.as_str() == text))
        },
    },
    Key {
        path: "body",
        allowed: "lines, array",
        default: "lines",
        sentence: "Records as JSON lines (application/x-ndjson), or as an array of objects (application/json).",
        set: |sink, given| {
            sink.http.body = match given.text()? {
                "lines" => Body::Lines,
                "array" => Body::Array,
                _ => return None,
            };
            Some(())
        },
    },
    Key {
        path: "compression",
        allowed: "none, gzip, zstd",
        default: "none",
        sentence: "How bodies are compressed.",
        set: |sink, given| put(&mut sink.http.coding, Coding::parse(given.text()?)),
    },
];

fn build(sink: &Settings, wrong: &mut Vec<Wrong>) -> Option<TargetConfig> {
    let Http { url, refused, method, body, coding } = sink.http.clone();
    wrong.extend(refused.into_iter().map(|why| ("url", why)));
    let Some(url) = url else {
        wrong.push(("url", "it is missing: say where the collector is".to_owned()));
        return None;
    };
    sink.web.check(url.is_tls(), wrong);
    let authorization = sink.web.authorization(wrong);
    let access = sink.web.access(url, authorization);
    Some(TargetConfig::Http(Box::new(http::Config { access, method, body, coding })))
}
