//! What an Exchange or an Attempt says, in the words of a Record. No judgement: nothing is left out or replaced here.

use std::{mem::take, net::SocketAddr};

use bytes::Bytes;

use super::{WallOffset, identity, target, trace};
use crate::{
    capture::KernelInstant,
    http::{Exchange, Header, Outcome, Protocol, Request, Response},
    reassembly::{Attempt, Fate, Side},
    record::{self, CapturedHeader, Kind, MessageFacts, ObservedAt, Record},
};

/// Makes `record`, whatever it was, the one of `exchange`, whose texts move to it. A record is large and is filled where
/// it lies.
pub fn fill(record: &mut Record, exchange: &mut Exchange, offset: WallOffset, keep_traceparent: bool) {
    let connection = &exchange.connection;
    let identity = identity::identify(connection);
    let socket_client = connection.address(exchange.client);
    record.time = offset.wall_nanos(exchange.start);
    record.kind = kind(exchange.protocol);
    record.outcome = exchange.outcome.map(outcome);
    record.in_progress = exchange.outcome.is_none();
    record.late = exchange.late;
    record.observed_at = observed_at(exchange);
    record.status = exchange.response.as_ref().map(|response| response.status);
    record.duration = nanos(exchange.start, exchange.end);
    record.time_to_first_byte = time_to_first_byte(exchange);
    record.client = pair(exchange.proxied.map_or(socket_client, |(client, _)| client));
    record.server = pair(connection.address(exchange.client.other()));
    record.network_peer = exchange.proxied.map(|_| pair(socket_client));
    record.protocol_version = Some(version(exchange));
    record.interim_responses = exchange.interim_responses;
    record.connection_id = identity.id;
    record.joined_late = identity.joined_late;
    record.offset = Some(exchange.offset).filter(|_| exchange.protocol == Protocol::Http1);
    record.index = exchange.index;
    record.retransmits = Some(exchange.retransmits);
    record.connect_duration = connect_duration(exchange);
    record.connect_retransmits = connection.syn_retransmits;
    record.icmp = None;
    record.anomalies.clear();
    // Hardly any message has one, so that is asked first.
    if !exchange.anomalies.is_empty() {
        record.anomalies.extend(exchange.anomalies.names());
    }
    (record.sample_rate_millionths, record.network_duration, record.ipvs) = (None, None, None);
    (record.client_party, record.server_party, record.closer) = (None, None, None);
    add_request(record, exchange.request.as_mut(), keep_traceparent);
    add_response(&mut record.response, exchange.response.as_mut());
}

/// Makes `record`, whatever it was, the one of `attempt`.
pub fn fill_attempt(record: &mut Record, attempt: &Attempt, offset: WallOffset) {
    let connection = &attempt.connection;
    *record = Record {
        time: offset.wall_nanos(connection.syn_time.unwrap_or(attempt.end)),
        kind: Kind::Connect,
        outcome: Some(match attempt.fate {
            Fate::Answered => record::Outcome::Complete,
            Fate::Refused => record::Outcome::Refused,
            Fate::Unreachable(_) => record::Outcome::Unreachable,
            Fate::Timeout => record::Outcome::Timeout,
            Fate::Unknown => record::Outcome::Gap,
        }),
        late: attempt.late,
        observed_at: match connection.local {
            None => ObservedAt::Path,
            Some(Side::Originator) => ObservedAt::Client,
            Some(Side::Responder) => ObservedAt::Server,
        },
        duration: attempt.duration(),
        client: pair(connection.originator),
        server: pair(connection.responder),
        connection_id: identity::identify_attempt(connection),
        connect_retransmits: connection.syn_retransmits,
        icmp: match attempt.fate {
            Fate::Unreachable(unreachable) => Some((unreachable.kind, unreachable.code)),
            Fate::Answered | Fate::Refused | Fate::Timeout | Fate::Unknown => None,
        },
        ..Record::blank()
    };
}

#[inline]
fn add_request(record: &mut Record, request: Option<&mut Request>, keep_traceparent: bool) {
    record.host.clear();
    record.request.headers.clear();
    record.request.decoded.clear();
    (record.user_agent, record.trace_id, record.trace_parent_id) = (None, None, None);
    let Some(request) = request else {
        (record.method, record.path, record.query, record.original) = (None, None, None, None);
        (record.scheme, record.request_duration) = (None, None);
        record.request = MessageFacts::default();
        return;
    };
    let parts = target::split(take(&mut request.target));
    record.path = parts.path;
    record.query = parts.query;
    record.original = parts.original;
    record.scheme = Some(parts.scheme.unwrap_or(Bytes::from_static(b"http")));
    record.method = Some(take(&mut request.method));
    record.request_duration = request.last_byte.map(|last| nanos(request.first_byte, last));
    record.request.body_size = known_size(request.body_size, request.body_cut);
    record.request.body_cut = request.body_cut;
    record.request.body = take(&mut request.body_prefix);
    let mut traceparents = 0;
    for header in &mut request.headers {
        match &header.name[..] {
            b"host" => record.host.push(take(&mut header.value)),
            b"user-agent" => {
                record.user_agent = record.user_agent.take().or_else(|| Some(take(&mut header.value)))
            }
            b"traceparent" => {
                traceparents += 1;
                let ids = trace::parse(&header.value);
                (record.trace_id, record.trace_parent_id) = ids.unzip();
                if keep_traceparent {
                    record.request.headers.push(captured(header));
                }
            }
            _ => record.request.headers.push(captured(header)),
        }
    }
    // W3C Trace Context 3.2: a sender sends one; of several none can be trusted.
    if traceparents > 1 {
        (record.trace_id, record.trace_parent_id) = (None, None);
    }
    group(&mut record.request.headers);
}

#[inline]
fn add_response(facts: &mut MessageFacts, response: Option<&mut Response>) {
    facts.headers.clear();
    facts.decoded.clear();
    let Some(response) = response else {
        *facts = MessageFacts::default();
        return;
    };
    facts.body_size = known_size(response.body_size, response.body_cut);
    facts.body_cut = response.body_cut;
    facts.body = take(&mut response.body_prefix);
    if response.headers.is_empty() {
        return;
    }
    facts.headers.extend(response.headers.iter_mut().map(captured));
    group(&mut facts.headers);
}

/// A body of which nothing was seen and whose framing told nothing has no known size; 0 would be made up.
const fn known_size(size: u64, is_cut: bool) -> Option<u64> {
    if size == 0 && is_cut { None } else { Some(size) }
}

fn captured(header: &mut Header) -> CapturedHeader {
    CapturedHeader { name: take(&mut header.name), value: take(&mut header.value) }
}

/// Brings values of one name together, wire order kept within a name.
fn group(headers: &mut [CapturedHeader]) {
    if headers.len() < 2 {
        return;
    }
    headers.sort_by(|a, b| a.name.cmp(&b.name));
}

const fn kind(protocol: Protocol) -> Kind {
    match protocol {
        Protocol::Http1 => Kind::Http,
        Protocol::Http2 => Kind::Http2,
    }
}

const fn outcome(outcome: Outcome) -> record::Outcome {
    match outcome {
        Outcome::Complete => record::Outcome::Complete,
        Outcome::Timeout => record::Outcome::Timeout,
        Outcome::Reset => record::Outcome::Reset,
        Outcome::Closed => record::Outcome::Closed,
        Outcome::Gap => record::Outcome::Gap,
        Outcome::Upgraded => record::Outcome::Upgraded,
    }
}

fn observed_at(exchange: &Exchange) -> ObservedAt {
    match exchange.connection.local {
        None => ObservedAt::Path,
        Some(side) if side == exchange.client => ObservedAt::Client,
        Some(_) => ObservedAt::Server,
    }
}

fn version(exchange: &Exchange) -> &'static str {
    let minor = match (&exchange.request, &exchange.response) {
        (Some(request), _) => request.minor_version,
        (None, Some(response)) => response.minor_version,
        (None, None) => 1,
    };
    match (exchange.protocol, minor) {
        (Protocol::Http2, _) => "2",
        (Protocol::Http1, 0) => "1.0",
        (Protocol::Http1, _) => "1.1",
    }
}

fn time_to_first_byte(exchange: &Exchange) -> Option<u64> {
    let request = exchange.request.as_ref()?;
    exchange.response.as_ref().map(|response| nanos(request.first_byte, response.first_byte))
}

fn connect_duration(exchange: &Exchange) -> Option<u64> {
    let syn = exchange.connection.syn_time?;
    exchange.connection.established_time.map(|established| nanos(syn, established))
}

fn nanos(from: KernelInstant, to: KernelInstant) -> u64 {
    to.as_nanos().saturating_sub(from.as_nanos())
}

const fn pair(address: SocketAddr) -> (std::net::IpAddr, u16) {
    (address.ip(), address.port())
}

#[cfg(test)]
mod tests {
    use super::known_size;

    #[test]
    fn a_size_that_nothing_told_is_absent() {
        assert_eq!(known_size(0, true), None);
        assert_eq!(known_size(0, false), Some(0));
        assert_eq!(known_size(1, true), Some(1));
    }
}
