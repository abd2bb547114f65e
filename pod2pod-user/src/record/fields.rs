//! The one table of the record's fields: key, type, unit, meaning and where the value stands. Its order is the record's.

use std::net::IpAddr;

use bytes::Bytes;

use super::{
    CapturedHeader, ErrorType, IpvsFacts, Kind, ObservedAt, Outcome, Record,
    field::{Field, Lead, Presence, Shape, Value},
    ipvs, party, text,
};

/// Takes the fields of a record one by one.
pub(super) trait Taker {
    /// A field: what stands before its value, and the value.
    fn take(&mut self, lead: Lead, value: Value<'_>);
}

/// Hands every field that `record` has to `take`, in the record's order: key and value.
pub fn visit(record: &Record, take: impl FnMut(&'static str, Value<'_>)) {
    everything(record, &mut Visitor(take));
}

struct Visitor<F>(F);

impl<F: FnMut(&'static str, Value<'_>)> Taker for Visitor<F> {
    #[inline(always)]
    fn take(&mut self, lead: Lead, value: Value<'_>) {
        if value != Value::Absent {
            self.0(lead.key, value);
        }
    }
}

/// Goes through all parts in their order.
pub(super) fn everything(record: &Record, taker: &mut impl Taker) {
    before_ends(record, taker);
    ends(record, taker);
    party::take_client(record, taker);
    party::take_server(record, taker);
    behind_ends(record, taker);
    if record.ipvs.is_some() {
        of_ipvs(record, taker);
    }
}

/// Makes the table, and what goes through a record in its order: there, what kind of value a field has is known where it
/// is written, which is a fraction of the cost of asking for each. The table has parts: a writer may know one by heart.
macro_rules! fields {
    ($table:ident: $($(#[$doc:meta])* $part:ident {
        $($key:literal, $shape:expr, $unit:literal, $presence:ident, $sentence:literal, |$record:ident| $value:expr;)*
    })*) => {
        static $table: &[Field] = &[$($(Field {
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

/// Every field, in the order of the record.
pub fn all() -> impl Iterator<Item = &'static Field> {
    [TO_ENDS, party::CLIENT, party::SERVER, FROM_ENDS].into_iter().flatten()
}

fields! { TO_ENDS:
    /// Hands over what is before the connection's ends.
    before_ends {
        "time", Shape::Time, "", Always,
            "When the exchange began: the first byte seen of it; of a reuse, when it was found; of a connection attempt, its first SYN.",
            |r| Value::Time(r.time);
        "kind", Shape::Enum(kinds), "", Always,
            "What the record is about: an HTTP/1 exchange, an HTTP/2 connection, a try to open a connection, or a connection that met an old entry of IPVS.",
            |r| Value::Word(r.kind.as_str());
        "outcome", Shape::Enum(outcomes), "", IfKnown,
            "What became of the exchange or connection attempt; absent while it is in progress.",
            |r| r.outcome.map_or(Value::Absent, |outcome| Value::Word(outcome.as_str()));
        "exchange.in_progress", Shape::Mark, "", IfKnown,
            "A progress report: the exchange is still open, and its own record follows.",
            |r| mark(r.in_progress);
        "late", Shape::Mark, "", IfKnown,
            "The response, or the answer to the SYN, came after a record that said there was none: a second record of the same.",
            |r| mark(r.late);
        "observed_at", Shape::Enum(places), "", OfTraffic,
            "Whose socket was observed; `path` is a place between the ends.",
            |r| of_traffic(r, Value::Word(r.observed_at.as_str()));
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
            "The status of a server error, or the outcome if it is timeout, reset, closed, refused or unreachable.",
            |r| match r.error_type() {
                None => Value::Absent,
                Some(ErrorType::Status(status)) => Value::StatusText(status),
                Some(ErrorType::Outcome(outcome)) => Value::Word(outcome.as_str()),
            };
        "duration", Shape::Number, "s", OfTraffic,
            "First byte of the exchange to its end; of a progress report, so far; of a connection attempt, first SYN to its answer or to the end of waiting.",
            |r| of_traffic(r, Value::Seconds(r.duration));
        "time_to_first_byte", Shape::Number, "s", IfKnown,
            "First byte of the request to first byte of the final response.",
            |r| seconds(r.time_to_first_byte);
        "request_duration", Shape::Number, "s", IfKnown,
            "First byte to last byte of the request.",
            |r| seconds(r.request_duration);
        "network.duration", Shape::Number, "s", IfKnown,
            "Time in the network and the stacks: the client's `duration` less the server's; in the second record of an exchange that both ends tell on this node.",
            |r| seconds(r.network_duration);
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
            "Address of the server's end of the connection; of a reuse, the virtual address.",
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
}

fields! { FROM_ENDS:
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
        "connection.id", Shape::Id, "", OfTraffic,
            "The connection: the same from both ends and through NAT. A reuse has it, and what is known of the exchange, if that was seen to fail.",
            |r| if r.connection_id == 0 { of_traffic(r, Value::Id(0)) } else { Value::Id(r.connection_id) };
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
        "tcp.connect.retransmits", Shape::Integer, "", IfKnown,
            "How often the SYN was seen again, if it was.",
            |r| if r.connect_retransmits == 0 { Value::Absent } else { Value::Integer(u64::from(r.connect_retransmits)) };
        "icmp.type", Shape::Integer, "", IfKnown,
            "Type of the ICMP or ICMPv6 error that answered the connection attempt.",
            |r| r.icmp.map_or(Value::Absent, |(kind, _)| Value::Integer(u64::from(kind)));
        "icmp.code", Shape::Integer, "", IfKnown,
            "Code of that error.",
            |r| r.icmp.map_or(Value::Absent, |(_, code)| Value::Integer(u64::from(code)));
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
    /// Hands over what IPVS did with the connection.
    of_ipvs {
        "ipvs.reuse", Shape::Enum(|| ipvs::SURENESS.to_vec()), "", IfKnown,
            "The connection met the entry that IPVS had of an older one: `certain` if nothing else explains what was seen.",
            |r| ipvs_word(r, |ipvs| ipvs.reuse);
        "ipvs.verdict", Shape::Enum(|| ipvs::VERDICTS.to_vec()), "", IfKnown,
            "What became of it: sent to the old real server, scheduled anew, or dropped; `legacy` is what ipvs-logger's rule takes for a reuse.",
            |r| ipvs_word(r, |ipvs| ipvs.verdict);
        "ipvs.detector", Shape::Enum(|| ipvs::DETECTORS.to_vec()), "", IfKnown,
            "Who found it: two polls of the kernel's table, or probes in the kernel.",
            |r| ipvs_word(r, |ipvs| ipvs.detector);
        "ipvs.severity", Shape::Enum(|| ipvs::SEVERITIES.to_vec()), "", IfKnown,
            "How much that matters to the client.",
            |r| ipvs_word(r, |ipvs| ipvs.severity);
        "ipvs.situation", Shape::Enum(|| ipvs::SITUATIONS.to_vec()), "", IfKnown,
            "Which of the known situations it is.",
            |r| ipvs_word(r, |ipvs| ipvs.situation);
        "network.transport", Shape::Enum(|| ipvs::TRANSPORTS.to_vec()), "", IfKnown,
            "Protocol of a reuse.",
            |r| ipvs_word(r, |ipvs| ipvs.transport);
        "ipvs.service.address", Shape::String, "", IfKnown,
            "Virtual address that the client spoke to.",
            |r| ipvs_address(r, |ipvs| ipvs.service);
        "ipvs.service.port", Shape::Integer, "", IfKnown,
            "Port to `ipvs.service.address`.",
            |r| ipvs_port(r, |ipvs| ipvs.service);
        "ipvs.real_server.address", Shape::String, "", IfKnown,
            "Address of the real server behind it.",
            |r| ipvs_address(r, |ipvs| ipvs.real_server);
        "ipvs.real_server.port", Shape::Integer, "", IfKnown,
            "Port of the real server.",
            |r| ipvs_port(r, |ipvs| ipvs.real_server);
        "ipvs.real_server.weight", Shape::Integer, "", IfKnown,
            "Its weight; 0 takes no new connections.",
            |r| ipvs_number(r, |ipvs| ipvs.weight);
        "ipvs.real_server.absent", Shape::Mark, "", IfKnown,
            "The service does not have the real server any more.",
            |r| of_facts(r, |ipvs| mark(ipvs.is_absent));
        "ipvs.real_server.before.address", Shape::String, "", IfKnown,
            "Address of the old connection's real server, if it was another one.",
            |r| ipvs_address(r, |ipvs| ipvs.real_server_before);
        "ipvs.real_server.before.port", Shape::Integer, "", IfKnown,
            "Port to `ipvs.real_server.before.address`.",
            |r| ipvs_port(r, |ipvs| ipvs.real_server_before);
        "ipvs.state_before", Shape::String, "", IfKnown,
            "State of the old connection's entry, as last seen.",
            |r| ipvs_word(r, |ipvs| ipvs.state_before);
        "ipvs.state", Shape::String, "", IfKnown,
            "State of the entry when the reuse was found.",
            |r| ipvs_word(r, |ipvs| ipvs.state);
        "ipvs.expires_before", Shape::Integer, "s", IfKnown,
            "Time that was left to the old entry.",
            |r| ipvs_number(r, |ipvs| ipvs.expires_before);
        "ipvs.expires", Shape::Integer, "s", IfKnown,
            "Time left to the entry when the reuse was found.",
            |r| ipvs_number(r, |ipvs| ipvs.expires);
        "ipvs.idle", Shape::Number, "s", IfKnown,
            "Old connection's last packet to the new one's SYN; of a reuse, to the last packet seen.",
            |r| of_facts(r, |ipvs| seconds(ipvs.idle));
        "ipvs.entry.may_have_expired", Shape::Mark, "", IfKnown,
            "The old entry may have run out between two polls, so that the port came back by a new entry.",
            |r| of_facts(r, |ipvs| mark(ipvs.may_have_expired));
        "os.version", Shape::String, "", IfKnown,
            "Release of the kernel that balances.",
            |r| of_facts(r, |ipvs| optional(ipvs.os_version.as_ref()));
        "ipvs.conn_reuse_mode", Shape::Integer, "", IfKnown,
            "Its setting net.ipv4.vs.conn_reuse_mode.",
            |r| ipvs_number(r, |ipvs| ipvs.conn_reuse_mode);
        "ipvs.expire_nodest_conn", Shape::Integer, "", IfKnown,
            "Its setting net.ipv4.vs.expire_nodest_conn.",
            |r| ipvs_number(r, |ipvs| ipvs.expire_nodest_conn);
        "ipvs.conntrack", Shape::Integer, "", IfKnown,
            "Its setting net.ipv4.vs.conntrack.",
            |r| ipvs_number(r, |ipvs| ipvs.conntrack);
        "ipvs.explanation", Shape::String, "", IfKnown,
            "What happens to the client, and what cures it.",
            |r| ipvs_word(r, |ipvs| ipvs.explanation);
    }
}

/// What only records of traffic have.
#[inline]
fn of_traffic<'a>(record: &Record, value: Value<'a>) -> Value<'a> {
    if record.kind == Kind::IpvsReuse { Value::Absent } else { value }
}

fn of_facts<'a>(record: &'a Record, value: impl FnOnce(&'a IpvsFacts) -> Value<'a>) -> Value<'a> {
    record.ipvs.as_deref().map_or(Value::Absent, value)
}

fn ipvs_word<'a>(record: &'a Record, word: fn(&IpvsFacts) -> Option<&'static str>) -> Value<'a> {
    of_facts(record, |ipvs| word(ipvs).map_or(Value::Absent, Value::Word))
}

fn ipvs_number<'a>(record: &'a Record, number: fn(&IpvsFacts) -> Option<u32>) -> Value<'a> {
    of_facts(record, |ipvs| number(ipvs).map_or(Value::Absent, |number| Value::Integer(number.into())))
}

/// An end of a connection.
type End = (IpAddr, u16);

fn ipvs_address<'a>(record: &'a Record, end: fn(&IpvsFacts) -> Option<End>) -> Value<'a> {
    of_facts(record, |ipvs| end(ipvs).map_or(Value::Absent, |(address, _)| Value::Address(address)))
}

fn ipvs_port<'a>(record: &'a Record, end: fn(&IpvsFacts) -> Option<End>) -> Value<'a> {
    of_facts(record, |ipvs| end(ipvs).map_or(Value::Absent, |(_, port)| Value::Integer(port.into())))
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
