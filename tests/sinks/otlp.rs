//! The OpenTelemetry Collector: all log records and spans there, through outages, as it reads them.

use std::{collections::BTreeMap, fs, path::Path};

use serde_json::Value;
use support::{
    keeper,
    server::{Server, free_port, installed, listens},
};

use crate::{RECORDS, Replay, outage, tls_file, until};

struct Collector {
    server: Server,
    port: u16,
}

impl Collector {
    /// One that says `more` of its receiver.
    fn start(more: &str) -> Self {
        let port = free_port();
        let settings = format!(
            "receivers:\n  otlp:\n    protocols:\n      http:\n        endpoint: 127.0.0.1:{port}\n{more}\
             exporters:\n  file/logs: {{path: logs}}\n  file/spans: {{path: spans}}\n\
             service:\n  telemetry: {{metrics: {{level: none}}}}\n  pipelines:\n    \
             logs: {{receivers: [otlp], exporters: [file/logs]}}\n    \
             traces: {{receivers: [otlp], exporters: [file/spans]}}\n"
        );
        let prepare = move |folder: &Path| fs::write(folder.join("settings.yaml"), settings).unwrap();
        let start = |_: &Path| {
            let mut command = keeper::command(&installed("otelcol"));
            command.args(["--config", "settings.yaml"]);
            command
        };
        let server = Server::start("otelcol", prepare, start, move || listens(port));
        Self { server, port }
    }

    /// What it wrote of a signal: resources with what they have.
    fn written(&self, signal: &str, resources: &str) -> Vec<Value> {
        let text = fs::read_to_string(self.server.folder().join(signal)).unwrap();
        let requests = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        requests.flat_map(|mut request| request[resources].as_array_mut().unwrap().split_off(0)).collect()
    }

    fn replay(&self, scheme: &str, records: usize, more: &[&str]) -> Replay {
        let url = format!("sinks.otel.url={scheme}://127.0.0.1:{}", self.port);
        Replay::start(records, &[&["sinks.otel.type=otlp", &*url], more].concat())
    }
}

/// Attributes by their keys.
fn attributes(of: &Value) -> BTreeMap<String, Value> {
    let pairs = of["attributes"].as_array().unwrap().iter();
    pairs.map(|pair| (pair["key"].as_str().unwrap().to_owned(), pair["value"].clone())).collect()
}

#[test]
fn all_log_records_are_there_through_an_outage() {
    let mut collector = Collector::start("");
    let replay = collector.replay("http", RECORDS, &["sinks.otel.timeout=10s"]);
    until("log records come", || {
        fs::metadata(collector.server.folder().join("logs")).is_ok_and(|file| file.len() > 0)
    });
    collector.server.stop();
    outage();
    collector.server.start_again();
    let summary = replay.finish();
    assert!(summary.contains(&format!("otel: delivered {RECORDS}, lost 0")), "{summary}");
    let mut times = BTreeMap::<String, usize>::new();
    for resource in collector.written("logs", "resourceLogs") {
        assert!(attributes(&resource["resource"]).contains_key("service.name"), "{resource}");
        let log = &resource["scopeLogs"][0]["logRecords"][0];
        let attributes = attributes(log);
        let path = attributes["url.path"]["stringValue"].as_str().unwrap();
        assert_eq!(log["body"]["stringValue"], format!("GET {path} 200"));
        assert_eq!((&log["severityNumber"], &log["severityText"]), (&Value::from(9), &Value::from("INFO")));
        assert_eq!(attributes["http.response.status_code"]["intValue"], "200");
        *times.entry(path.to_owned()).or_default() += 1;
    }
    assert_eq!(times.len(), RECORDS);
    // What was under way when it ended may be there twice: OTLP has no ids to tell.
    let again = times.values().sum::<usize>() - RECORDS;
    assert!(again <= 8 * 500, "{again}");
}

#[test]
fn spans_are_read_as_they_were_meant() {
    const RECORDS: usize = 1000;
    let tls = format!(
        "        tls: {{cert_file: {}, key_file: {}}}\n",
        tls_file("certificate.pem"),
        tls_file("key.pem")
    );
    let collector = Collector::start(&tls);
    let ca = format!("sinks.otel.tls.ca={}", tls_file("certificate.pem"));
    let settings = ["sinks.otel.signal=spans", "sinks.otel.compression=none"];
    let summary = collector.replay("https", RECORDS, &[&settings[..], &[&ca]].concat()).finish();
    assert!(summary.contains(&format!("otel: delivered {RECORDS}, lost 0")), "{summary}");
    let (mut ids, mut paths) = (BTreeMap::new(), BTreeMap::new());
    for resource in collector.written("spans", "resourceSpans") {
        let span = &resource["scopeSpans"][0]["spans"][0];
        let attributes = attributes(span);
        assert_eq!(
            (&span["name"], &attributes["http.request.method"]["stringValue"]),
            (&Value::from("GET"), &Value::from("GET"))
        );
        let number = |key: &str| span[key].as_str().unwrap().parse::<u64>().unwrap();
        let duration = (number("endTimeUnixNano") - number("startTimeUnixNano")) as f64 / 1e9;
        assert!((attributes["duration"]["doubleValue"].as_f64().unwrap() - duration).abs() < 1e-9, "{span}");
        let id = span["spanId"].as_str().unwrap();
        assert!(id.len() == 16 && span["traceId"].as_str().unwrap().len() == 32, "{span}");
        *ids.entry(id.to_owned()).or_insert(0) += 1;
        *paths.entry(attributes["url.path"]["stringValue"].to_string()).or_insert(0) += 1;
    }
    assert_eq!((ids.len(), paths.len()), (RECORDS, RECORDS));
    assert!(ids.values().chain(paths.values()).all(|times| *times == 1));
    // Nobody vouches for its certificate.
    let replay = collector.replay("https", 1, &["sinks.otel.attempts=1"]);
    until("its certificate is refused", || replay.said().contains("reason=\"tls\""));
    assert!(replay.finish().contains("otel: delivered 0, lost 1"));
}
