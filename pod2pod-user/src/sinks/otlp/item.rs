//! A record as OTLP has it: a log record, or the span of an exchange. Pure.
//!
//! An item is a field `resource_logs` or `resource_spans` of an export request (opentelemetry-proto 1.9), with a record of one
//! resource: fields that follow each other are one list, so a batch's items are a request as they stand.

use std::sync::Arc;

use smallvec::SmallVec;

use super::wire::{bytes, fixed, message, number, text};
use crate::{
    record::{
        CapturedHeader, ErrorType, Kind, ObservedAt, Record, field::Value, fields, selected::Fields,
        text::push_base64,
    },
    route::of_text,
};

/// What becomes of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// A log record.
    Logs,
    /// Of an exchange a span; of other records, and of reports of progress, nothing.
    Spans,
}

/// `SpanKind` (trace.proto).
const INTERNAL: u64 = 1;
const SERVER: u64 = 2;
const CLIENT: u64 = 3;
/// `StatusCode` (trace.proto): that it is an error.
const ERROR: u64 = 2;

/// Makes items.
#[derive(Clone, Debug)]
pub struct Encoder {
    signal: Signal,
    /// All are written if absent.
    fields: Option<Arc<Fields>>,
}

impl Encoder {
    /// Items of `signal` with these of the record's fields; all if absent.
    pub const fn new(signal: Signal, fields: Option<Arc<Fields>>) -> Self {
        Self { signal, fields }
    }

    /// Appends the item of `record`, if it has one.
    pub fn push(&mut self, out: &mut Vec<u8>, record: &Record) {
        if self.signal == Signal::Spans && (record.kind != Kind::Http || record.in_progress) {
            return;
        }
        message(out, 1, |out| {
            message(out, 1, |out| push_resource(out, record));
            message(out, 2, |out| {
                message(out, 1, |out| {
                    bytes(out, 1, env!("CARGO_PKG_NAME").as_bytes());
                    bytes(out, 2, env!("CARGO_PKG_VERSION").as_bytes());
                });
                message(out, 2, |out| match self.signal {
                    Signal::Logs => self.push_log(out, record),
                    Signal::Spans => self.push_span(out, record),
                });
            });
        });
    }

    /// `LogRecord` (logs.proto).
    fn push_log(&self, out: &mut Vec<u8>, record: &Record) {
        let (severity, word) = severity(record);
        fixed(out, 1, record.time);
        number(out, 2, severity);
        bytes(out, 3, word.as_bytes());
        message(out, 5, |out| text(out, 1, &summary(record)));
        self.push_attributes(out, 6, record);
        if let Some(trace) = trace_of(record) {
            bytes(out, 9, &trace);
            bytes(out, 10, &span_id(record).to_be_bytes());
        }
        fixed(out, 11, record.time.saturating_add(record.duration));
    }

    /// `Span` (trace.proto).
    fn push_span(&self, out: &mut Vec<u8>, record: &Record) {
        let own = span_id(record);
        let parent = record.trace_parent_id.as_deref().and_then(hex::<8>);
        match trace_of(record) {
            Some(trace) => {
                bytes(out, 1, &trace);
                bytes(out, 2, &own.to_be_bytes());
                parent.iter().for_each(|parent| bytes(out, 4, parent));
            }
            // A span of no trace is none: the exchange is a trace of its own.
            None => {
                bytes(out, 1, &[mix(own).to_be_bytes(), own.to_be_bytes()].concat());
                bytes(out, 2, &own.to_be_bytes());
            }
        }
        // A path has too many values for a name (semantic conventions 1.37, HTTP spans, "Name").
        text(out, 5, record.method.as_deref().unwrap_or(b"HTTP"));
        let kind = match record.observed_at {
            ObservedAt::Client => CLIENT,
            ObservedAt::Server => SERVER,
            ObservedAt::Path => INTERNAL,
        };
        number(out, 6, kind);
        fixed(out, 7, record.time);
        fixed(out, 8, record.time.saturating_add(record.duration));
        self.push_attributes(out, 9, record);
        // What is the client's own fault is no error of the server's ("Status" there).
        let is_refused = kind == CLIENT && record.status.is_some_and(|status| status >= 400);
        if record.error_type().is_some() || is_refused {
            message(out, 15, |out| number(out, 3, ERROR));
        }
    }

    fn push_attributes(&self, out: &mut Vec<u8>, field: u64, record: &Record) {
        fields::visit(record, |key, value| {
            // It stands beside them.
            if key != "time" && self.fields.as_ref().is_none_or(|fields| fields.has(key)) {
                push_attribute(out, field, key, value);
            }
        });
    }
}

/// Attributes of what was observed: an end's workload and pod.
fn push_resource(out: &mut Vec<u8>, record: &Record) {
    let (end, address) = match record.observed_at {
        ObservedAt::Client => ("client.", record.client.0),
        ObservedAt::Server | ObservedAt::Path => ("server.", record.server.0),
    };
    // By what it is called: the first of these that it has.
    const NAMES: [&str; 3] = ["k8s.workload.name", "k8s.service.name", "k8s.pod.name"];
    let mut name: Option<(usize, SmallVec<[u8; 64]>)> = None;
    fields::visit(record, |key, value| {
        let Some(key) = key.strip_prefix(end) else { return };
        if !["k8s.", "container.", "cloud."].iter().any(|group| key.starts_with(group)) {
            return;
        }
        let place = NAMES.iter().position(|name| *name == key);
        if let Some(place) = place.filter(|place| name.as_ref().is_none_or(|(best, _)| place < best)) {
            name = of_text(value).map(|text| (place, SmallVec::from_slice(&text)));
        }
        push_attribute(out, 1, key, value);
    });
    match name {
        Some((_, name)) => push_text(out, 1, "service.name", &name),
        None => push_text(out, 1, "service.name", address.to_string().as_bytes()),
    }
}

/// `KeyValue` (common.proto).
fn push_attribute(out: &mut Vec<u8>, field: u64, key: &str, value: Value<'_>) {
    match value {
        Value::Absent => {}
        Value::Texts(texts) => push_list(out, field, key, texts.iter().map(|text| &text[..])),
        Value::Words(words) => push_list(out, field, key, words.iter().map(|word| word.as_bytes())),
        Value::Headers(headers) => push_headers(out, field, key, headers),
        Value::Pairs(pairs) => pairs
            .iter()
            .for_each(|(name, value)| push_text(out, field, &format!("{key}{name}"), value.as_bytes())),
        Value::Base64(content) => {
            let mut base64 = Vec::new();
            push_base64(&mut base64, content);
            push_text(out, field, key, &base64);
        }
        Value::True => push_value(out, field, key, |out| number(out, 2, 1)),
        Value::Integer(integer) => push_value(out, field, key, |out| number(out, 3, integer)),
        Value::Seconds(nanoseconds) => push_double(out, field, key, nanoseconds as f64 / 1e9),
        Value::Millionths(millionths) => push_double(out, field, key, f64::from(millionths) / 1e6),
        Value::Word(_)
        | Value::Text(_)
        | Value::Address(_)
        | Value::Id(_)
        | Value::Time(_)
        | Value::StatusText(_)
        | Value::PodUid(_)
        | Value::ContainerId(_) => push_text(out, field, key, &of_text(value).unwrap_or_default()),
    }
}

/// One attribute for each name.
fn push_headers(out: &mut Vec<u8>, field: u64, prefix: &str, headers: &[CapturedHeader]) {
    for group in headers.chunk_by(|a, b| a.name == b.name) {
        let Some(first) = group.first() else { continue };
        let key = format!("{prefix}{}", String::from_utf8_lossy(&first.name));
        push_list(out, field, &key, group.iter().map(|header| &header.value[..]));
    }
}

fn push_value(out: &mut Vec<u8>, field: u64, key: &str, write: impl FnOnce(&mut Vec<u8>)) {
    message(out, field, |out| {
        bytes(out, 1, key.as_bytes());
        message(out, 2, write);
    });
}

fn push_text(out: &mut Vec<u8>, field: u64, key: &str, value: &[u8]) {
    push_value(out, field, key, |out| text(out, 1, value));
}

fn push_double(out: &mut Vec<u8>, field: u64, key: &str, value: f64) {
    push_value(out, field, key, |out| fixed(out, 4, value.to_bits()));
}

fn push_list<'a>(out: &mut Vec<u8>, field: u64, key: &str, values: impl Iterator<Item = &'a [u8]>) {
    push_value(out, field, key, |out| {
        message(out, 5, |out| values.for_each(|value| message(out, 1, |out| text(out, 1, value))));
    });
}

/// `SeverityNumber` (logs.proto) and its word.
fn severity(record: &Record) -> (u64, &'static str) {
    match record.error_type() {
        Some(ErrorType::Status(_) | ErrorType::Outcome(_)) => (17, "ERROR"),
        None if record.kind == Kind::IpvsReuse || record.status.is_some_and(|status| status >= 400) => {
            (13, "WARN")
        }
        None => (9, "INFO"),
    }
}

/// What a person reads first: `GET /item/1 200`, `connect 10.0.0.1:80 refused`.
fn summary(record: &Record) -> Vec<u8> {
    let mut text = record.method.as_deref().unwrap_or(record.kind.as_str().as_bytes()).to_vec();
    let server = format!("{}:{}", record.server.0, record.server.1);
    text.push(b' ');
    text.extend_from_slice(record.path.as_deref().unwrap_or(server.as_bytes()));
    let status = record.status.map(|status| status.to_string());
    if let Some(end) = status.as_deref().or(record.outcome.map(crate::record::Outcome::as_str)) {
        text.push(b' ');
        text.extend_from_slice(end.as_bytes());
    }
    text
}

/// Of the exchange's header `traceparent`.
fn trace_of(record: &Record) -> Option<[u8; 16]> {
    record.trace_id.as_deref().and_then(hex::<16>)
}

/// The exchange's own span: the same whenever it is made, and nobody else's.
fn span_id(record: &Record) -> u64 {
    let place =
        record.offset.unwrap_or(u64::MAX) ^ u64::from(record.index.unwrap_or_default()).rotate_left(40);
    // Zero is no id (W3C Trace Context, 3.2.2.4).
    mix(record.connection_id ^ mix(place)).max(1)
}

/// Spreads bits: the end of SplitMix64 (Steele, Lea, Flood, 2014).
const fn mix(mut bits: u64) -> u64 {
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

/// So many bytes in hexadecimal.
fn hex<const LENGTH: usize>(text: &[u8]) -> Option<[u8; LENGTH]> {
    let mut bytes = [0; LENGTH];
    let (pairs, rest) = text.as_chunks::<2>();
    if pairs.len() != LENGTH || !rest.is_empty() {
        return None;
    }
    for (byte, [high, low]) in bytes.iter_mut().zip(pairs) {
        let digit = |byte: u8| char::from(byte).to_digit(16);
        *byte = u8::try_from(digit(*high)? << 4 | digit(*low)?).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::{
        super::wire::{Content, take},
        *,
    };
    use crate::record::{MessageFacts, Outcome};

    /// Contents of a message's field, one after the other.
    fn all(mut message: &[u8], field: u64) -> Vec<Content<'_>> {
        let mut found = Vec::new();
        while let Some((number, content)) = take(&mut message) {
            found.extend((number == field).then_some(content));
        }
        assert!(message.is_empty());
        found
    }

    fn inner(message: &[u8], path: &[u64]) -> Vec<u8> {
        let mut message = message.to_vec();
        for field in path {
            let found = all(&message, *field);
            let [Content::Bytes(inner)] = found[..] else { panic!("{field}: {found:?}") };
            message = inner.to_vec();
        }
        message
    }

    /// Attributes: keys, and their values as they are written.
    fn attributes(message: &[u8], field: u64) -> Vec<(String, Vec<u8>)> {
        let pairs = all(message, field).into_iter().map(|content| {
            let Content::Bytes(pair) = content else { panic!("{content:?}") };
            (String::from_utf8(inner(pair, &[1])).unwrap(), inner(pair, &[2]))
        });
        pairs.collect()
    }

    fn record() -> Record {
        Record {
            time: 7,
            duration: 1_500_000_000,
            method: Some(Bytes::from_static(b"GET")),
            path: Some(Bytes::from_static(b"/a\xff")),
            status: Some(404),
            outcome: Some(Outcome::Complete),
            connection_id: 9,
            offset: Some(100),
            request: MessageFacts {
                headers: ["1", "2"]
                    .map(|value| CapturedHeader { name: Bytes::from_static(b"x"), value: value.into() })
                    .to_vec(),
                ..MessageFacts::default()
            },
            ..Record::blank()
        }
    }

    fn item(signal: Signal, record: &Record) -> Vec<u8> {
        let mut out = Vec::new();
        Encoder::new(signal, None).push(&mut out, record);
        out
    }

    #[test]
    fn a_log_record_has_what_the_record_has() {
        let item = item(Signal::Logs, &record());
        let resource = attributes(&inner(&item, &[1, 1]), 1);
        assert_eq!(resource.len(), 1);
        assert_eq!(resource[0].0, "service.name");
        let log = inner(&item, &[1, 2, 2]);
        assert_eq!(all(&log, 1), [Content::Bytes(&7_u64.to_le_bytes())]);
        assert_eq!(all(&log, 11), [Content::Bytes(&1_500_000_007_u64.to_le_bytes())]);
        assert_eq!((all(&log, 2), &inner(&log, &[3])[..]), (vec![Content::Number(13)], &b"WARN"[..]));
        assert_eq!(inner(&log, &[5, 1]), "GET /a\u{ff} 404".as_bytes());
        let attributes = attributes(&log, 6);
        let of = |key: &str| &attributes.iter().find(|(other, _)| other == key).unwrap().1;
        assert_eq!(all(of("http.response.status_code"), 3), [Content::Number(404)]);
        assert_eq!(all(of("duration"), 4), [Content::Bytes(&1.5_f64.to_bits().to_le_bytes())]);
        assert_eq!(inner(of("url.path"), &[1]), "/a\u{ff}".as_bytes());
        let values = inner(of("http.request.header.x"), &[5]);
        let texts = [b"1", b"2"].map(|text| [&[0x0a, 1][..], &text[..]].concat());
        assert_eq!(all(&values, 1), texts.each_ref().map(|text| Content::Bytes(text)));
        assert!(attributes.iter().all(|(key, _)| key != "time"));
        // There is no trace.
        assert!(all(&log, 9).is_empty() && all(&log, 10).is_empty());
    }

    #[test]
    fn spans_are_of_the_trace_that_they_name_or_of_their_own() {
        let plain = record();
        let traced = Record {
            trace_id: Some(Bytes::from_static(b"4bf92f3577b34da6a3ce929d0e0e4736")),
            trace_parent_id: Some(Bytes::from_static(b"00f067aa0ba902b7")),
            ..record()
        };
        let span = |record: &Record| inner(&item(Signal::Spans, record), &[1, 2, 2]);
        let (own, named) = (span(&plain), span(&traced));
        assert_eq!(inner(&named, &[1]), hex::<16>(b"4bf92f3577b34da6a3ce929d0e0e4736").unwrap());
        assert_eq!(inner(&named, &[4]), hex::<8>(b"00f067aa0ba902b7").unwrap());
        assert!(inner(&own, &[1]).len() == 16 && inner(&own, &[1]) != [0; 16] && all(&own, 4).is_empty());
        // The same whenever it is made, and another for the next exchange of the connection.
        assert_eq!(inner(&own, &[2]), inner(&named, &[2]));
        assert_ne!(inner(&own, &[2]), inner(&span(&Record { offset: Some(101), ..record() }), &[2]));
        assert_eq!(inner(&own, &[5]), b"GET");
        assert_eq!(all(&own, 8), [Content::Bytes(&1_500_000_007_u64.to_le_bytes())]);
        let kind_and_status = |observed_at, status| {
            let span = span(&Record { observed_at, status: Some(status), ..record() });
            (all(&span, 6) == [Content::Number(CLIENT)], all(&span, 15).len())
        };
        assert_eq!(kind_and_status(ObservedAt::Client, 404), (true, 1));
        assert_eq!(kind_and_status(ObservedAt::Server, 404), (false, 0));
        assert_eq!(kind_and_status(ObservedAt::Server, 500), (false, 1));
        let log = inner(&item(Signal::Logs, &traced), &[1, 2, 2]);
        assert_eq!((inner(&log, &[9]), inner(&log, &[10])), (inner(&named, &[1]), inner(&own, &[2])));
    }

    #[test]
    fn only_exchanges_that_have_ended_are_spans() {
        let ended = record();
        for (kind, in_progress) in [(Kind::Http, true), (Kind::Connect, false), (Kind::IpvsReuse, false)] {
            let record = Record { kind, in_progress, ..record() };
            assert!(item(Signal::Spans, &record).is_empty());
            assert!(!item(Signal::Logs, &record).is_empty());
        }
        assert!(!item(Signal::Spans, &ended).is_empty());
    }

    #[test]
    fn ids_are_hexadecimal_and_whole() {
        assert_eq!(hex::<2>(b"00ff"), Some([0, 255]));
        for wrong in [&b"00f"[..], b"00ffff", b"00fg", b"+1+1"] {
            assert_eq!(hex::<2>(wrong), None, "{wrong:?}");
        }
    }
}
