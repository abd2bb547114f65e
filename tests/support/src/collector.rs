//! An OpenTelemetry Collector that takes OTLP over HTTP and gRPC on loopback, and keeps what it got in files.

#![expect(clippy::unwrap_used, reason = "test support: a failure here is the test's failure")]

use std::{
    collections::BTreeMap,
    fs::{self, File},
    path::{Path, PathBuf},
};

use serde_json::Value;

use crate::{
    keeper,
    server::{Server, free_port, installed, listens},
};

/// A Collector, and where it listens.
#[derive(Debug)]
pub struct Collector {
    /// Its process.
    pub server: Server,
    /// Of loopback, for HTTP.
    pub port: u16,
    /// For gRPC.
    pub grpc: u16,
}

/// What it keeps, a file each: the file's name, and what a request has in its JSON.
const LOGS: (&str, &str) = ("logs", "resourceLogs");
const SPANS: (&str, &str) = ("spans", "resourceSpans");

impl Collector {
    /// Starts one whose receivers have `more` settings each, lines of YAML of eight spaces each, and waits until it listens.
    pub fn start(more: &str) -> Self {
        let (port, grpc) = (free_port(), free_port());
        let settings = format!(
            "receivers:\n  otlp:\n    protocols:\n      http:\n        endpoint: 127.0.0.1:{port}\n{more}\
             \x20     grpc:\n        endpoint: 127.0.0.1:{grpc}\n{more}\
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
        let server = Server::start("otelcol", prepare, start, move || listens(port) && listens(grpc));
        Self { server, port, grpc }
    }

    /// Ends it at once. A line it was at is cut off: it was not answered, so it will be sent again.
    pub fn kill(&mut self) {
        self.server.kill();
        for (name, _) in [LOGS, SPANS] {
            let text = fs::read(self.file(name)).unwrap();
            let whole = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
            File::options().write(true).open(self.file(name)).unwrap().set_len(whole as u64).unwrap();
        }
    }

    /// Whether it has taken a log record yet.
    pub fn has_logs(&self) -> bool {
        fs::metadata(self.file(LOGS.0)).is_ok_and(|file| file.len() > 0)
    }

    /// Log records as it read them: each with its resource.
    pub fn logs(&self) -> Vec<(Value, Value)> {
        self.items(LOGS, "scopeLogs", "logRecords")
    }

    /// Spans as it read them: each with its resource.
    pub fn spans(&self) -> Vec<(Value, Value)> {
        self.items(SPANS, "scopeSpans", "spans")
    }

    /// The paths of all log records, in order of arrival.
    pub fn paths(&self) -> Vec<String> {
        let path = |log: &Value| attributes(log)["url.path"]["stringValue"].as_str().unwrap().to_owned();
        self.logs().iter().map(|(_, log)| path(log)).collect()
    }

    fn file(&self, name: &str) -> PathBuf {
        self.server.folder().join(name)
    }

    fn items(&self, (name, resources): (&str, &str), scopes: &str, items: &str) -> Vec<(Value, Value)> {
        let text = fs::read_to_string(self.file(name)).unwrap();
        let mut all = Vec::new();
        for line in text.lines() {
            let mut request: Value = serde_json::from_str(line).unwrap();
            for resource in request[resources].as_array_mut().unwrap() {
                let of = resource["resource"].take();
                for scope in resource[scopes].as_array_mut().unwrap() {
                    all.extend(scope[items].as_array_mut().unwrap().drain(..).map(|item| (of.clone(), item)));
                }
            }
        }
        all
    }
}

/// Attributes of a resource, a log record or a span, by their keys.
pub fn attributes(of: &Value) -> BTreeMap<String, Value> {
    let pairs = of["attributes"].as_array().unwrap().iter();
    pairs.map(|pair| (pair["key"].as_str().unwrap().to_owned(), pair["value"].clone())).collect()
}
