//! `--format pod2pod-log`: the record of kubernetes-pod2pod-log, from a capture file.

use std::process::Stdio;

use serde_json::Value;
use support::{
    conversation::Conversation,
    process::{Running, command, run},
};

use crate::{capture, write};

/// Keys as that program emits them (without LOGHEADERS), each with the JSON type of its value.
const FIELDS: [(&str, &str); 11] = [
    ("resTime", "number"),
    ("type", "string"),
    ("srcIP", "string"),
    ("srcPort", "number"),
    ("dstIP", "string"),
    ("dstPort", "number"),
    ("host", "string"),
    ("url", "string"),
    ("method", "string"),
    ("resCode", "string"),
    ("HOSTNAME", "string"),
];

const fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

fn lines(arguments: &[&str], input: &[u8]) -> Vec<Value> {
    let finished = run(command([&["replay", "-", "--format", "pod2pod-log"], arguments].concat()), input);
    assert_eq!(finished.code, Some(0), "{finished:?}");
    finished.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Requests of these targets, all answered.
fn requests(targets: &[&str]) -> Vec<u8> {
    let mut conversation = Conversation::new();
    for target in targets {
        conversation = conversation
            .client(format!("GET {target} HTTP/1.1\r\nHost: shop\r\nX-A: b\r\n\r\n"))
            .server("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello");
    }
    write(&conversation.close())
}

#[test]
fn the_record_has_its_fields_in_its_order_and_types() {
    let told = lines(&[], &capture(2));
    assert_eq!(told.len(), 2);
    for record in &told {
        let fields: Vec<_> =
            record.as_object().unwrap().iter().map(|(key, value)| (key.as_str(), kind(value))).collect();
        assert_eq!(fields, FIELDS, "{record}");
        assert_eq!((&record["resCode"], &record["host"]), (&"200".into(), &"shop".into()));
    }
    assert_eq!(told[1]["url"], "/item/1?token=REDACTED");
    let plain = lines(&["--redact", "off"], &capture(1));
    assert_eq!(plain[0]["url"], "/item/0?token=secret", "the target verbatim");
}

#[test]
fn info_and_health_are_left_out_exactly_unless_others_are_given() {
    let targets = ["/info", "/health", "/info?x=1", "/health/", "/a", "/b?c"];
    let urls = |arguments: &[&str]| -> Vec<String> {
        let told = lines(arguments, &requests(&targets));
        told.iter().map(|record| record["url"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(urls(&[]), ["/info?x=1", "/health/", "/a", "/b?c"]);
    assert_eq!(urls(&["--set", "ignore.targets=/a,/b?c"]), ["/info", "/health", "/info?x=1", "/health/"]);
    // In any other format nobody asked for it.
    let json = run(command(["replay", "-", "--format", "json"]), &requests(&targets));
    assert_eq!(json.stdout.lines().count(), targets.len());
}

#[test]
fn an_unanswered_request_is_the_number_408() {
    let conversation = Conversation::new().client("GET /silent HTTP/1.1\r\nHost: shop\r\n\r\n");
    let told = lines(&["--set", "http.timeout=1s"], &write(&conversation.close()));
    let [record] = &told[..] else { panic!("{told:?}") };
    assert_eq!((&record["resCode"], &record["url"]), (&408.into(), &"/silent".into()));
}

#[test]
fn headers_are_written_where_they_are_asked_for() {
    let told = lines(&["--request-header", "X-A"], &requests(&["/a"]));
    let headers: Vec<String> = serde_json::from_str(told[0]["headers"].as_str().unwrap()).unwrap();
    assert_eq!(headers, ["GET /a HTTP/1.1", "host: shop", "x-a: b"]);
}

/// Nothing is in a batch for ever because the format has no line for it.
#[test]
fn a_record_without_a_line_is_dealt_with() {
    let mut replay = command(["replay", "-", "--format", "pod2pod-log", "--set", "connect.records=all"]);
    replay.stdin(Stdio::piped());
    let mut running = Running::start(replay);
    running.write(&capture(1));
    running.close_stdin();
    let finished = running.finish();
    assert_eq!((finished.code, finished.stdout.lines().count()), (Some(0), 1), "{finished:?}");
    assert!(finished.stderr.contains("seen 2, delivered 2, lost 0"), "{finished:?}");
}
