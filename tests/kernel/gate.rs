//! What is sent of connections that are not HTTP/1, and what a verdict stops.

use pod2pod_common::counters::Counter;
use pod2pod_user::capture::{Direction, kernel::ScopeChoice};
use support::netns::Namespace;

use crate::{
    lend::lend,
    talk::{Turn, client, server, talk},
};

/// Holds a conversation and says what payload was told of the client and of the server, at the server's end and at the
/// client's; both must be the same.
fn told(turns: &[Turn], gate: Counter, times: u64) -> [String; 2] {
    let host = Namespace::new();
    let mut streams = None;
    for scope in [ScopeChoice::Cookie, ScopeChoice::Cgroup] {
        let (cgroup, mut watch) = lend(scope);
        let ends = watch.during(talk(&cgroup, &host, &host, "127.0.0.1", turns));
        for directions in [[Direction::Egress, Direction::Ingress], [Direction::Ingress, Direction::Egress]] {
            let stream = |direction, source| watch.stream(direction, source).escape_ascii().to_string();
            let told = [stream(directions[0], ends.client), stream(directions[1], ends.server)];
            assert_eq!(*streams.get_or_insert_with(|| told.clone()), told, "{scope:?}, {directions:?}");
        }
        assert_eq!(watch.distinct(|seen| seen.flags.syn()), 4);
        assert_eq!(watch.distinct(|seen| seen.flags.fin()), 4);
        assert_eq!(watch.counter(gate), times, "{gate:?}, {scope:?}");
        watch.assert_lossless();
    }
    streams.unwrap()
}

#[test]
fn only_the_hello_of_tls_is_sent() {
    let hello = "\u{16}\u{3}\u{1}\u{0}\u{5}hello";
    let turns = [
        client(hello),
        server("\u{16}\u{3}\u{3}server"),
        client("\u{17}\u{3}\u{3}more"),
        server("GET / HTTP"),
    ];
    let expected = [hello.as_bytes().escape_ascii().to_string(), String::new()];
    assert_eq!(told(&turns, Counter::GateTls, 2), expected);
}

#[test]
fn only_the_preface_of_http2_is_sent() {
    let preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    let turns = [client(preface), server("settings"), client("GET / HTTP/1.1\r\n\r\n")];
    let expected = [preface.as_bytes().escape_ascii().to_string(), String::new()];
    assert_eq!(told(&turns, Counter::GateHttp2, 2), expected);
}

#[test]
fn nothing_of_other_protocols_is_sent() {
    let turns = [client("*1\r\n$4\r\nPING\r\n"), server("+PONG\r\n"), client("GET / HTTP/1.1\r\n\r\n")];
    assert_eq!(told(&turns, Counter::GateIgnored, 2), [String::new(), String::new()]);
}

#[test]
fn a_server_that_greets_first_decides_nothing() {
    let turns = [server("220 mail ESMTP\r\n"), client("\u{0}\u{1}binary"), server("GET / HTTP/1.1\r\n")];
    assert_eq!(told(&turns, Counter::GateIgnored, 2), [String::new(), String::new()]);
    let turns = [server("hello\r\n"), client("GET / HTTP/1.1\r\n\r\n"), server("HTTP/1.1 204 N\r\n\r\n")];
    let expected = ["GET / HTTP/1.1\\r\\n\\r\\n".to_owned(), "HTTP/1.1 204 N\\r\\n\\r\\n".to_owned()];
    assert_eq!(told(&turns, Counter::GateHttp, 2), expected);
}

#[test]
fn a_response_without_a_request_is_sent() {
    let response = "HTTP/1.1 408 Request Timeout\r\n\r\n";
    let expected = [String::new(), response.as_bytes().escape_ascii().to_string()];
    assert_eq!(told(&[server(response)], Counter::GateHttp, 2), expected);
}

#[test]
fn one_byte_keeps_the_connection() {
    for first in ["G", "\r", "P", "H"] {
        let turns = [client(first), server("x"), client("ET / HTTP/1.1\r\n\r\n")];
        let [requests, _] = told(&turns, Counter::GateHttp, 2);
        assert!(requests.ends_with("ET / HTTP/1.1\\r\\n\\r\\n"), "{requests}");
    }
}
