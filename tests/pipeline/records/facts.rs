//! What an Exchange says is what the line says.

use bytes::Bytes;
use pod2pod_user::{
    enrich::{Config, Enricher, WallOffset},
    http::{Outcome, Protocol},
};
use serde_json::{Value, json};

use super::{address, at, exchange, header, line, parsed, record, with};

#[test]
fn the_line_is_as_the_design_shows_it() {
    let expected = concat!(
        r#"{"time":"2026-11-21T08:15:30.123456789Z","kind":"http","outcome":"complete","observed_at":"server","#,
        r#""http.request.method":"GET","url.path":"/cart","url.query":"id=7","url.scheme":"http","#,
        r#""http.response.status_code":200,"duration":0.001834,"time_to_first_byte":0.001702,"request_duration":0.000041,"#,
        r#""client.address":"10.1.4.9","client.port":51514,"server.address":"10.1.2.3","server.port":8080,"#,
        r#""network.type":"ipv4","network.protocol.version":"1.1","#,
        r#""http.request.header.host":"cart.shop","user_agent.original":"curl/8.5","#,
        r#""http.request.body.size":0,"http.response.body.size":5120,"#,
        r#""connection.id":"2aca37da011cdf00","exchange.offset":1842,"exchange.index":3,"#,
        r#""tcp.retransmits":0,"tcp.connect.duration":0.0003}"#,
        "\n"
    );
    assert_eq!(line(&record(exchange())), expected);
}

#[test]
fn stamps_become_wall_time_by_the_offset() {
    let check = |offset, expected: &str| {
        let mut enricher = Enricher::new(Config::default());
        let line = line(enricher.enrich(&mut exchange(), WallOffset(offset)).0);
        assert!(line.contains(expected), "{line}");
    };
    check(1, "2026-11-21T08:15:30.123456790Z");
    check(-3_600_000_000_000, "2026-11-21T07:15:30.123456789Z");
}

#[test]
fn a_record_holds_nothing_of_the_one_before() {
    let kinds = super::all_kinds();
    let mut enricher = Enricher::new(Config::default());
    for before in &kinds {
        for exchange in &kinds {
            enricher.enrich(&mut before.clone(), WallOffset(7));
            let record = enricher.enrich(&mut exchange.clone(), WallOffset(0)).0;
            assert_eq!(*record, super::record(exchange.clone()));
        }
    }
}

#[test]
fn a_target_that_path_and_query_do_not_rebuild_is_given_whole() {
    let check = |target: &'static [u8], path: Value, query: Value, original: Value| {
        let json = parsed(with(|e| e.request.as_mut().unwrap().target = Bytes::from_static(target)));
        let told = [&json["url.path"], &json["url.query"], &json["url.original"]];
        assert_eq!(told, [&path, &query, &original], "{target:?}");
    };
    check(b"/a?b", json!("/a"), json!("b"), Value::Null);
    check(b"/a?", json!("/a"), Value::Null, json!("/a?"));
    check(b"*", Value::Null, Value::Null, json!("*"));
    check(b"h:443", Value::Null, Value::Null, json!("h:443"));
    check(b"http://h/a?b", json!("/a"), json!("b"), json!("http://h/a?b"));
    check("/é".as_bytes(), json!("/é"), Value::Null, Value::Null);
    check(b"/\xe9", json!("/é"), Value::Null, json!("/é"));
    check(b"/\"\\\x00", json!("/\"\\\u{0}"), Value::Null, Value::Null);
}

#[test]
fn errors_are_named() {
    let check = |status: Option<u16>, outcome, expected: Value| {
        let json = parsed(with(|e| {
            e.outcome = Some(outcome);
            match status {
                Some(status) => e.response.as_mut().unwrap().status = status,
                None => e.response = None,
            }
        }));
        assert_eq!(json["error.type"], expected, "{status:?} {outcome:?}");
    };
    check(Some(200), Outcome::Complete, Value::Null);
    check(Some(404), Outcome::Complete, Value::Null);
    check(Some(500), Outcome::Complete, json!("500"));
    check(Some(599), Outcome::Closed, json!("599"));
    check(Some(600), Outcome::Complete, Value::Null);
    check(Some(200), Outcome::Closed, json!("closed"));
    check(None, Outcome::Timeout, json!("timeout"));
    check(None, Outcome::Reset, json!("reset"));
    check(None, Outcome::Gap, Value::Null);
    check(None, Outcome::Upgraded, Value::Null);
}

#[test]
fn what_is_not_known_is_not_said() {
    let json = parsed(with(|e| {
        e.request = None;
        e.connection.syn_time = None;
        e.index = None;
    }));
    for key in [
        "http.request.method",
        "url.path",
        "url.scheme",
        "time_to_first_byte",
        "request_duration",
        "http.request.body.size",
        "tcp.connect.duration",
        "exchange.index",
        "late",
    ] {
        assert!(json.get(key).is_none(), "{key}: {json}");
    }
    let json = parsed(with(|e| e.response = None));
    for key in ["http.response.status_code", "http.response.body.size", "time_to_first_byte"] {
        assert!(json.get(key).is_none(), "{key}: {json}");
    }
    for line in super::all_kinds().into_iter().map(|exchange| line(&record(exchange))) {
        assert!(!line.contains(":null") && !line.contains(":\"\""), "{line}");
    }
}

#[test]
fn a_proxied_client_is_the_client() {
    let json = parsed(with(|e| e.proxied = Some((address("192.0.2.7:1234"), address("198.51.100.1:443")))));
    assert_eq!(json["client.address"], "192.0.2.7");
    assert_eq!(json["client.port"], 1234);
    assert_eq!(json["network.peer.address"], "10.1.4.9");
    assert_eq!(json["network.peer.port"], 51514);
    assert_eq!(json["server.address"], "10.1.2.3");
}

#[test]
fn headers_are_arrays_and_host_is_plain() {
    let json = parsed(with(|e| {
        let headers = &mut e.request.as_mut().unwrap().headers;
        headers.extend([header("x-b", "1"), header("x-a", "2"), header("x-b", "3")]);
        e.response.as_mut().unwrap().headers = vec![header("server", "nginx")];
    }));
    assert_eq!(json["http.request.header.host"], "cart.shop");
    assert_eq!(json["http.request.header.x-b"], json!(["1", "3"]));
    assert_eq!(json["http.request.header.x-a"], json!(["2"]));
    assert_eq!(json["http.response.header.server"], json!(["nginx"]));
    let json = parsed(with(|e| e.request.as_mut().unwrap().headers.push(header("host", "second"))));
    assert_eq!(json["http.request.header.host"], json!(["cart.shop", "second"]));
}

#[test]
fn bodies_are_text_or_marked() {
    let check = |body: &'static [u8], content: Value, encoding: Value| {
        let json = parsed(with(|e| e.response.as_mut().unwrap().body_prefix = Bytes::from_static(body)));
        assert_eq!(json["http.response.body.content"], content);
        assert_eq!(json["http.response.body.encoding"], encoding);
    };
    check(b"", Value::Null, Value::Null);
    check(b"{\"a\":1}", json!("{\"a\":1}"), Value::Null);
    check(b"caf\xc3", json!("caf"), Value::Null);
    check(b"\x1f\x8b\x00", json!("H4sA"), json!("base64"));
}

#[test]
fn one_valid_traceparent_names_the_trace() {
    const ONE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let ids = |values: &[&'static str]| {
        let headers = values.iter().map(|value| header("traceparent", value)).collect();
        let json = parsed(with(|e| e.request.as_mut().unwrap().headers = headers));
        assert!(json.get("http.request.header.traceparent").is_none(), "{json}");
        (json["trace.id"].clone(), json["trace.parent_id"].clone())
    };
    assert_eq!(ids(&[ONE]), (json!("4bf92f3577b34da6a3ce929d0e0e4736"), json!("00f067aa0ba902b7")));
    assert_eq!(ids(&["00-x"]), (Value::Null, Value::Null));
    assert_eq!(ids(&[ONE, ONE]), (Value::Null, Value::Null));
}

#[test]
fn progress_late_and_http2_are_marked() {
    let progress = parsed(with(|e| {
        e.outcome = None;
        e.end = at(61_000_000_000);
    }));
    assert_eq!((&progress["exchange.in_progress"], progress.get("outcome")), (&json!(true), None));
    assert_eq!(progress["duration"], json!(61));
    assert_eq!(parsed(with(|e| e.late = true))["late"], true);
    let http2 = parsed(with(|e| {
        e.protocol = Protocol::Http2;
        e.request = None;
        e.response = None;
    }));
    assert_eq!((&http2["kind"], &http2["network.protocol.version"]), (&json!("http2"), &json!("2")));
}
