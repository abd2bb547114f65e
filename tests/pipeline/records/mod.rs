//! Exchange → Record → line: the facts, redaction, sampling, the ignore list, the schema, the README's tables.

mod behind;
mod closer;
mod connects;
mod content;
mod facts;
mod fates;
mod identity;
mod metrics;
mod names;
mod readme;
mod redaction;
mod routes;
mod schema;

use std::net::SocketAddr;

use bytes::Bytes;
use pod2pod_user::{
    capture::{KernelInstant, Scope},
    enrich::{Config, Enricher, Fate, WallOffset},
    http::{Codings, Exchange, Header, Outcome, Protocol, Request, Response, exchange::Anomalies},
    reassembly::{Connection, ConnectionToken, Side, Start},
    record::{Record, json},
};
use serde_json::Value;

/// 2026-11-21T08:15:30.123456789Z.
const START: u64 = 1_795_248_930_123_456_789;

fn at(nanoseconds: u64) -> KernelInstant {
    KernelInstant::from_nanos(START + nanoseconds)
}

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn connection() -> Connection {
    Connection {
        token: ConnectionToken(1),
        scope: Scope(0),
        originator: address("10.1.4.9:51514"),
        responder: address("10.1.2.3:8080"),
        local: Some(Side::Responder),
        start: Start::Handshake,
        behind_loss: false,
        originator_isn: Some(1000),
        responder_isn: Some(7_000_000),
        syn_time: Some(KernelInstant::from_nanos(START - 400_000)),
        established_time: Some(KernelInstant::from_nanos(START - 100_000)),
        retransmits: 0,
        syn_retransmits: 0,
        cgroup_id: 0,
        socket_cookie: 0,
        interface_index: 0,
    }
}

fn header(name: &'static str, value: &'static str) -> Header {
    Header { name: Bytes::from_static(name.as_bytes()), value: Bytes::from_static(value.as_bytes()) }
}

fn request() -> Request {
    Request {
        method: Bytes::from_static(b"GET"),
        target: Bytes::from_static(b"/cart?id=7"),
        minor_version: 1,
        headers: [header("host", "cart.shop"), header("user-agent", "curl/8.5")].into(),
        body_size: 0,
        codings: Codings::default(),
        body_prefix: Bytes::new(),
        first_byte: at(0),
        last_byte: Some(at(41_000)),
        body_cut: false,
    }
}

fn response() -> Response {
    Response {
        status: 200,
        minor_version: 1,
        headers: Vec::new(),
        body_size: 5120,
        codings: Codings::default(),
        body_prefix: Bytes::new(),
        first_byte: at(1_702_000),
        last_byte: Some(at(1_834_000)),
        body_cut: false,
    }
}

fn exchange() -> Exchange {
    Exchange {
        connection: connection(),
        client: Side::Originator,
        proxied: None,
        protocol: Protocol::Http1,
        outcome: Some(Outcome::Complete),
        late: false,
        offset: 1842,
        index: Some(3),
        request: Some(request()),
        response: Some(response()),
        interim_responses: 0,
        start: at(0),
        end: at(1_834_000),
        retransmits: 0,
        anomalies: Anomalies::default(),
    }
}

/// An exchange with one thing changed.
fn with(change: impl FnOnce(&mut Exchange)) -> Exchange {
    let mut exchange = exchange();
    change(&mut exchange);
    exchange
}

/// One of every kind, for what must hold for all.
fn all_kinds() -> Vec<Exchange> {
    let outcomes = [
        Outcome::Complete,
        Outcome::Timeout,
        Outcome::Reset,
        Outcome::Closed,
        Outcome::Gap,
        Outcome::Upgraded,
    ];
    let mut kinds: Vec<_> = outcomes.into_iter().map(|outcome| with(|e| e.outcome = Some(outcome))).collect();
    kinds.extend([
        with(|e| e.outcome = None),
        with(|e| e.late = true),
        with(|e| e.response = None),
        with(|e| e.request = None),
        with(|e| {
            e.protocol = Protocol::Http2;
            e.request = None;
            e.response = None;
        }),
        with(|e| e.connection.start = Start::Middle),
        with(|e| e.connection.local = None),
        with(|e| e.index = None),
        with(|e| e.interim_responses = 2),
        with(|e| e.anomalies = Anomalies(u32::MAX)),
        with(|e| e.proxied = Some((address("192.0.2.7:1234"), address("10.1.2.3:80")))),
        with(|e| {
            let request = e.request.as_mut().unwrap();
            request.target = Bytes::from_static(b"http://u:p@h/\xff\x00\"?");
            request.headers = vec![
                header("host", "a"),
                header("host", "b"),
                header("x-b", "2"),
                header("x-a", "1"),
                header("x-b", "3"),
                header("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
            ]
            .into();
            request.body_cut = true;
            request.body_prefix = Bytes::from_static(b"\x1f\x8b");
            let response = e.response.as_mut().unwrap();
            response.headers = vec![header("content-type", "text/plain")];
            response.body_cut = true;
            response.body_prefix = Bytes::from_static(b"{\"a\":\"\xc3");
        }),
    ]);
    kinds
}

fn enrich(mut exchange: Exchange, config: Config) -> (Record, Fate) {
    let mut enricher = Enricher::new(config);
    let (record, fate) = enricher.enrich(&mut exchange, WallOffset(0));
    (record.clone(), fate)
}

fn record(exchange: Exchange) -> Record {
    enrich(exchange, Config::default()).0
}

fn line(record: &Record) -> String {
    let mut out = Vec::new();
    json::Lines::default().push(&mut out, record);
    String::from_utf8(out).unwrap()
}

/// The record of `exchange` as a reader gets it.
fn parsed(exchange: Exchange) -> Value {
    serde_json::from_str(&line(&record(exchange))).unwrap()
}
