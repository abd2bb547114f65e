//! The OpenTelemetry Collector: all log records and spans there, through a kill and an outage, as it reads them.

use std::collections::BTreeMap;

use serde_json::Value;
use support::{
    collector::{Collector, attributes},
    server::{tls_file, until},
};

use crate::{MAX_UNDER_WAY, RECORDS, Replay, outage, trace};

/// How records travel.
#[derive(Clone, Copy, Debug)]
enum Protocol {
    Http,
    Grpc,
}

fn play(collector: &Collector, protocol: Protocol, scheme: &str, records: usize, more: &[&str]) -> Replay {
    let (word, port) = match protocol {
        Protocol::Http => ("http", collector.port),
        Protocol::Grpc => ("grpc", collector.grpc),
    };
    let url = format!("sinks.otel.url={scheme}://127.0.0.1:{port}");
    let protocol = format!("sinks.otel.protocol={word}");
    Replay::start(records, &[&["sinks.otel.type=otlp", &*protocol, &*url], more].concat())
}

/// One whose certificate vouches for itself.
fn start_with_tls() -> Collector {
    let (certificate, key) = (tls_file("certificate.pem"), tls_file("key.pem"));
    Collector::start(&format!("        tls: {{cert_file: {certificate}, key_file: {key}}}\n"))
}

#[test]
fn all_log_records_are_there_through_a_kill_and_an_outage() {
    all_are_there(Protocol::Http, "gzip");
}

#[test]
fn all_log_records_by_grpc_are_there_through_a_kill_and_an_outage() {
    all_are_there(Protocol::Grpc, "zstd");
}

fn all_are_there(protocol: Protocol, compression: &str) {
    let mut collector = Collector::start("");
    let compression = format!("sinks.otel.compression={compression}");
    let more = [&*compression, "sinks.otel.timeout=10s"];
    let replay = play(&collector, protocol, "http", RECORDS, &more);
    until("log records come", || collector.has_logs());
    collector.kill();
    outage();
    collector.server.start_again();
    let summary = replay.finish();
    assert!(summary.contains(&format!("otel: delivered {RECORDS}, lost 0")), "{summary}");
    let mut times = BTreeMap::<String, usize>::new();
    for (resource, log) in collector.logs() {
        assert!(attributes(&resource).contains_key("service.name"), "{resource}");
        let attributes = attributes(&log);
        let path = attributes["url.path"]["stringValue"].as_str().unwrap();
        assert_eq!(log["body"]["stringValue"], format!("GET {path} 200"));
        assert_eq!((&log["severityNumber"], &log["severityText"]), (&Value::from(9), &Value::from("INFO")));
        assert_eq!(attributes["http.response.status_code"]["intValue"], "200");
        *times.entry(path.to_owned()).or_default() += 1;
    }
    assert_eq!(times.len(), RECORDS);
    // What was under way when it ended may be there twice: OTLP has no ids to tell.
    let again = times.values().sum::<usize>() - RECORDS;
    eprintln!("{again} of {RECORDS} log records are there again");
    assert!(again <= MAX_UNDER_WAY, "{again}");
}

#[test]
fn spans_are_read_as_they_were_meant() {
    spans_are_there(Protocol::Http, "none");
}

#[test]
fn spans_by_grpc_are_read_as_they_were_meant() {
    spans_are_there(Protocol::Grpc, "gzip");
}

fn spans_are_there(protocol: Protocol, compression: &str) {
    const RECORDS: usize = 1000;
    let collector = start_with_tls();
    let ca = format!("sinks.otel.tls.ca={}", tls_file("certificate.pem"));
    let compression = format!("sinks.otel.compression={compression}");
    let settings = ["sinks.otel.signal=spans", &*compression, &*ca];
    let summary = play(&collector, protocol, "https", RECORDS, &settings).finish();
    assert!(summary.contains(&format!("otel: delivered {RECORDS}, lost 0")), "{summary}");
    let (mut ids, mut paths) = (BTreeMap::new(), BTreeMap::new());
    for (_, span) in collector.spans() {
        let attributes = attributes(&span);
        assert_eq!(
            (&span["name"], &attributes["http.request.method"]["stringValue"]),
            (&Value::from("GET"), &Value::from("GET"))
        );
        let number = |key: &str| span[key].as_str().unwrap().parse::<u64>().unwrap();
        let duration = (number("endTimeUnixNano") - number("startTimeUnixNano")) as f64 / 1e9;
        assert!((attributes["duration"]["doubleValue"].as_f64().unwrap() - duration).abs() < 1e-9, "{span}");
        let id = span["spanId"].as_str().unwrap();
        assert!(id.len() == 16 && span["traceId"].as_str().unwrap().len() == 32, "{span}");
        let path = attributes["url.path"]["stringValue"].as_str().unwrap();
        let item = path.strip_prefix("/item/").unwrap().parse().unwrap();
        if let Some((trace, parent)) = trace(item) {
            assert_eq!((&span["traceId"], &span["parentSpanId"]), (&trace.into(), &parent.into()), "{span}");
        } else {
            assert_eq!(span["parentSpanId"].as_str().unwrap_or_default(), "", "{span}");
        }
        *ids.entry(id.to_owned()).or_insert(0) += 1;
        *paths.entry(attributes["url.path"]["stringValue"].to_string()).or_insert(0) += 1;
    }
    assert_eq!((ids.len(), paths.len()), (RECORDS, RECORDS));
    assert!(ids.values().chain(paths.values()).all(|times| *times == 1));
}

#[test]
fn a_certificate_that_nobody_vouches_for_is_told() {
    let collector = start_with_tls();
    let ca = format!("sinks.otel.tls.ca={}", tls_file("other.pem"));
    for protocol in [Protocol::Http, Protocol::Grpc] {
        let replay = play(&collector, protocol, "https", 1, &["sinks.otel.attempts=1", &ca]);
        until("its certificate is refused", || replay.said().contains("reason=\"tls\""));
        let summary = replay.finish();
        assert!(summary.contains("otel: delivered 0, lost 1"), "{protocol:?}: {summary}");
    }
    assert!(collector.logs().is_empty());
}

/// Each port says what it is not.
#[test]
fn a_port_that_speaks_something_else_is_told() {
    let collector = Collector::start("");
    let swapped = Collector { port: collector.grpc, grpc: collector.port, ..collector };
    for protocol in [Protocol::Http, Protocol::Grpc] {
        let replay = play(&swapped, protocol, "http", 1, &["sinks.otel.attempts=1"]);
        until("it is told", || replay.said().contains("reason=\""));
        let summary = replay.finish();
        assert!(summary.contains("otel: delivered 0, lost 1"), "{protocol:?}: {summary}");
    }
    assert!(swapped.logs().is_empty());
}
