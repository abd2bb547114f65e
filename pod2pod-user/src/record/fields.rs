//! The one table of the record's fields: key, type, unit, meaning and where the value stands. Its order is the record's.

use bytes::Bytes;

use super::{
    CapturedHeader, ErrorType, Kind, ObservedAt, Outcome, Record,
    field::{Field, Lead, Presence, Shape, Value},
    text,
};

/// Takes the fields of a record one by one.
pub(super) trait Taker {
    /// A field: what stands before its value, and the value.
    fn take(&mut self, lead: Lead, value: Value<'_>);
}

/// Makes the table, and what goes through a record in its order: there, what kind of value a field has is known where it
/// is written, which is a fraction of the cost of asking for each. The table has parts: a writer may know one by heart.
macro_rules! fields {
    ($($(#[$doc:meta])* $part:ident {
        $($key:literal, $shape:expr, $unit:literal, $presence:ident, $sentence:literal, |$record:ident| $value:expr;)*
    })*) => {
        /// Every field, in the order of the record.
        pub static FIELDS: &[Field] = &[$($(Field {
            key: $key,
            shape: $shape,
            unit: $unit,
            presence: Presence::$presence,
            sentence: $sentence,
        }),*),*];

        $(
            $(#[$doc])*
            #[inline(always)]
            pub(super) fn $part(record: &Record, taker: &mut impl Taker) {
                $({
                    let lead = Lead {
                        key: $key,
                        bare: concat!(",\"", $key, "\":"),
                        quoted: concat!(",\"", $key, "\":\""),
                    };
                    let $record = record;
                    taker.take(lead, $value);
                })*
            }
        )*
    };
}

fields! {
    /// Hands over what is before the connection's ends.
    before_ends {
        "time", Shape::Time, "", Always,
            "When the exchange began: the first byte seen of it.",
            |r| Value::Time(r.time);
        "kind", Shape::Enum(kinds), "", Always,
            "What the record is about: an HTTP/1 exchange, or an HTTP/2 connection.",
            |r| Value::Word(r.kind.as_str());
        "outcome", Shape::Enum(outcomes), "", IfKnown,
            "What became of the exchange; absent while it is in progress.",
            |r| r.outcome.map_or(Value::Absent, |outcome| Value::Word(outcome.as_str()));
        "exchange.in_progress", Shape::Mark, "", IfKnown,
            "A progress report: the exchange is still open, and its own record follows.",
            |r| mark(r.in_progress);
        "late", Shape::Mark, "", IfKnown,
            "The response came after the timeout record: a second record of one exchange, with the same id and offset.",
            |r| mark(r.late);
        "observed_at", Shape::Enum(places), "", Always,
            "Whose socket was observed; `path` is a place between the ends.",
            |r| Value::Word(r.observed_at.as_str());
        "http.request.method", Shape::String, "", IfKnown,
            "Method, as sent; absent if the response answers no request.",
            |r| optional(r.method.as_ref());
        "url.path", Shape::String, "", IfKnown,
            "Path of the request target.",
            |r| optional(r.path.as_ref());
        "url.query", Shape::String, "", IfKnown,
            "Query of the request target, without the question mark.",
            |r| optional(r.query.as_ref());
        "url.original", Shape::String, "", IfKnown,
            "The whole request target; given whenever path, \"?\" and query do not rebuild it exactly.",
            |r| optional(r.original.as_ref());
        "url.scheme", Shape::String, "", IfKnown,
            "Scheme of the target.",
            |r| optional(r.scheme.as_ref());
        "http.response.status_code", Shape::Integer, "", IfKnown,
            "Status code of the final response.",
            |r| r.status.map_or(Value::Absent, |status| Value::Integer(u64::from(status)));
        "error.type", Shape::String, "", IfKnown,
            "The status of a server error, or the outcome if it is timeout, reset or closed.",
            |r| match r.error_type() {
                None => Value::Absent,
                Some(ErrorType::Status(status)) => Value::StatusText(status),
                Some(ErrorType::Outcome(outcome)) => Value::Word(outcome.as_str()),
            };
        "duration", Shape::Number, "s", Always,
            "First byte of the exchange to its end; of a progress report, so far.",
            |r| Value::Seconds(r.duration);
        "time_to_first_byte", Shape::Number, "s", IfKnown,
            "First byte of the request to first byte of the final response.",
            |r| seconds(r.time_to_first_byte);
        "request_duration", Shape::Number, "s", IfKnown,
            "First byte to last byte of the request.",
            |r| seconds(r.request_duration);
    }
    /// Hands over what says between whom the connection is.
    ends {
        "client.address", Shape::String, "", Always,
            "Address of the client; from the PROXY protocol header if there was one.",
            |r| Value::Address(r.client.0);
        "client.port", Shape::Integer, "", Always,
            "Port of the client.",
            |r| Value::Integer(u64::from(r.client.1));
        "server.address", Shape::String, "", Always,
            "Address of the server's end of the connection.",
            |r| Value::Address(r.server.0);
        "server.port", Shape::Integer, "", Always,
            "Port of the server.",
            |r| Value::Integer(u64::from(r.server.1));
        "network.peer.address", Shape::String, "", IfKnown,
            "Address of the client's end of the connection, if `client.address` is from a PROXY protocol header.",
            |r| r.network_peer.map_or(Value::Absent, |(address, _)| Value::Address(address));
        "network.peer.port", Shape::Integer, "", IfKnown,
            "Port to `network.peer.address`.",
            |r| r.network_peer.map_or(Value::Absent, |(_, port)| Value::Integer(u64::from(port)));
        "network.type", Shape::Enum(network_types), "", Always,
            "IP version of the connection.",
            |r| Value::Word(if r.server.0.is_ipv4() { "ipv4" } else { "ipv6" });
    }
    /// Hands over what is behind the connection's ends.
    behind_ends {
        "network.protocol.version", Shape::String, "", IfKnown,
            "HTTP version of the request, or of the response if there is no request.",
            |r| r.protocol_version.map_or(Value::Absent, Value::Word);
        "http.request.header.host", Shape::StringOrStrings, "", IfKnown,
            "`Host`; an array only if it was sent more than once.",
            |r| match r.host.as_slice() {
                [] => Value::Absent,
                [one] => Value::Text(one),
                many => Value::Texts(many),
            };
        "user_agent.original", Shape::String, "", IfKnown,
            "`User-Agent`.",
            |r| optional(r.user_agent.as_ref());
        "http.request.body.size", Shape::Integer, "bytes", IfKnown,
            "Content of the request: after removal of transfer coding, before content decoding.",
            |r| r.request.body_size.map_or(Value::Absent, Value::Integer);
        "http.request.body.cut", Shape::Mark, "", IfKnown,
            "Part of the request's content was not seen; without a length in its head the size is a lower bound.",
            |r| mark(r.request.body_cut);
        "http.response.body.size", Shape::Integer, "bytes", IfKnown,
            "Content of the response: after removal of transfer coding, before content decoding.",
            |r| r.response.body_size.map_or(Value::Absent, Value::Integer);
        "http.response.body.cut", Shape::Mark, "", IfKnown,
            "Part of the response's content was not seen; without a length in its head the size is a lower bound.",
            |r| mark(r.response.body_cut);
        "http.request.header.", Shape::Headers, "", IfKnown,
            "A captured request header; credentials are redacted.",
            |r| headers(&r.request.headers);
        "http.response.header.", Shape::Headers, "", IfKnown,
            "A captured response header; credentials are redacted.",
            |r| headers(&r.response.headers);
        "exchange.interim_responses", Shape::Integer, "", IfKnown,
            "1xx responses before the final one, if there were any.",
            |r| if r.interim_responses == 0 { Value::Absent } else { Value::Integer(u64::from(r.interim_responses)) };
        "connection.id", Shape::Id, "", Always,
            "The connection: the same from both ends and through NAT.",
            |r| Value::Id(r.connection_id);
        "connection.joined_late", Shape::Mark, "", IfKnown,
            "The handshake was not seen: the id is of the addresses and ports, and does not join through NAT.",
            |r| mark(r.joined_late);
        "exchange.offset", Shape::Integer, "bytes", IfKnown,
            "First byte of the request counted from the client's initial sequence number (of a response without a request, from the server's); joined late, the raw sequence number.",
            |r| r.offset.map_or(Value::Absent, Value::Integer);
        "exchange.index", Shape::Integer, "", IfKnown,
            "Ordinal of the exchange on its connection, from 0; absent after a gap or a late start.",
            |r| r.index.map_or(Value::Absent, |index| Value::Integer(u64::from(index)));
        "trace.id", Shape::String, "", IfKnown,
            "Trace id of a valid W3C `traceparent`.",
            |r| optional(r.trace_id.as_ref());
        "trace.parent_id", Shape::String, "", IfKnown,
            "Parent (span) id of a valid W3C `traceparent`.",
            |r| optional(r.trace_parent_id.as_ref());
        "tcp.retransmits", Shape::Integer, "", IfKnown,
            "Segments seen again while the exchange was open.",
            |r| r.retransmits.map_or(Value::Absent, Value::Integer);
        "tcp.connect.duration", Shape::Number, "s", IfKnown,
            "SYN to established, as the observed end saw it.",
            |r| seconds(r.connect_duration);
        "http.anomalies", Shape::Strings, "", IfKnown,
            "Framing that a strict reader would refuse.",
            |r| words(&r.anomalies);
        "sample.rate", Shape::Number, "", IfKnown,
            "Share of records like this one that is kept; absent if all are.",
            |r| r.sample_rate_millionths.map_or(Value::Absent, Value::Millionths);
        "http.request.body.content", Shape::String, "", IfKnown,
            "First bytes of the request's content, if configured.",
            |r| content(&r.request.body);
        "http.request.body.encoding", Shape::Enum(encodings), "", IfKnown,
            "`base64` if the content given is not text.",
            |r| encoding(&r.request.body);
        "http.request.body.decoded", Shape::Strings, "", IfKnown,
            "Content codings that were removed from the content given, in the order in which they had been applied.",
            |r| words(&r.request.decoded);
        "http.response.body.content", Shape::String, "", IfKnown,
            "First bytes of the response's content, if configured.",
            |r| content(&r.response.body);
        "http.response.body.encoding", Shape::Enum(encodings), "", IfKnown,
            "`base64` if the content given is not text.",
            |r| encoding(&r.response.body);
        "http.response.body.decoded", Shape::Strings, "", IfKnown,
            "Content codings that were removed from the content given, in the order in which they had been applied.",
            |r| words(&r.response.decoded);
    }
}

fn kinds() -> Vec<&'static str> {
    Kind::ALL.iter().map(|kind| kind.as_str()).collect()
}

fn outcomes() -> Vec<&'static str> {
    Outcome::ALL.iter().map(|outcome| outcome.as_str()).collect()
}

fn places() -> Vec<&'static str> {
    ObservedAt::ALL.iter().map(|place| place.as_str()).collect()
}

fn network_types() -> Vec<&'static str> {
    vec!["ipv4", "ipv6"]
}

fn encodings() -> Vec<&'static str> {
    vec!["base64"]
}

#[inline]
fn optional(bytes: Option<&Bytes>) -> Value<'_> {
    bytes.map_or(Value::Absent, |bytes| Value::Text(bytes))
}

#[inline]
fn seconds(nanoseconds: Option<u64>) -> Value<'static> {
    nanoseconds.map_or(Value::Absent, Value::Seconds)
}

#[inline]
fn mark(set: bool) -> Value<'static> {
    if set { Value::True } else { Value::Absent }
}

#[inline]
fn words<'a>(words: &'a [&'static str]) -> Value<'a> {
    if words.is_empty() { Value::Absent } else { Value::Words(words) }
}

#[inline]
fn headers(headers: &[CapturedHeader]) -> Value<'_> {
    if headers.is_empty() { Value::Absent } else { Value::Headers(headers) }
}

#[inline]
fn content(body: &[u8]) -> Value<'_> {
    if body.is_empty() {
        Value::Absent
    } else {
        text::readable(body).map_or(Value::Base64(body), Value::Text)
    }
}

#[inline]
fn encoding(body: &[u8]) -> Value<'_> {
    if body.is_empty() || text::readable(body).is_some() { Value::Absent } else { Value::Word("base64") }
}
