//! A way to the server that is slow, and one that is too slow for a batch: all is there in the end, for every server there is one for.

use std::collections::BTreeSet;

use serde_json::Value;
use support::{
    collector::{Collector, attributes},
    fluentd::{Entry, Forward},
    nginx::Nginx,
    opensearch::Node,
    postgres::{Database, USER, WITHOUT_PASSWORD},
    rsyslog::{Message, Rsyslog},
    server::until,
    slow_link::SlowLink,
};

use crate::Replay;

/// Records of a run: two batches, of some 320 KB each.
const RECORDS: usize = 1000;
/// A batch takes two seconds.
const SLOW: u32 = 160 * 1024;
/// An attempt may take three quarters of that.
const TIMEOUT: &str = "timeout=1500ms";

/// Plays through a slow way to `port`; the server has as many as there are.
#[track_caller]
fn play(name: &str, port: u16, url: impl Fn(u16) -> String, more: &[&str], count: impl Fn() -> usize) {
    let link = SlowLink::start(port, SLOW);
    play_by(name, &url(link.port), more, count);
}

/// The same by a way that is there.
#[track_caller]
fn play_by(name: &str, url: &str, more: &[&str], count: impl Fn() -> usize) {
    let own = |setting: &str| format!("sinks.{name}.{setting}");
    let mut settings = vec![own(&format!("url={url}")), own(TIMEOUT), own("concurrency=1")];
    settings.extend(more.iter().map(|setting| own(setting)));
    let settings: Vec<_> = settings.iter().map(String::as_str).collect();
    let replay = Replay::start(RECORDS, &settings);
    until("an attempt takes too long", || replay.said().contains("reason=\"timeout\""));
    let summary = replay.finish();
    assert!(summary.contains(&format!("{name}: delivered {RECORDS}, lost 0")), "{summary}");
    until("all are there", || count() >= RECORDS);
    assert_eq!(count(), RECORDS);
}

/// How many there are.
fn unique(paths: impl IntoIterator<Item = String>) -> usize {
    paths.into_iter().collect::<BTreeSet<_>>().len()
}

#[test]
fn http() {
    let server = Nginx::start("", "");
    play("web", server.port, |port| format!("http://127.0.0.1:{port}/in"), &[], || unique(server.paths()));
}

#[test]
fn fluentd() {
    let server = Forward::start(&[]);
    let path = |entry: Entry| entry.record["url.path"].as_str().unwrap().to_owned();
    let count = || unique(server.entries().into_iter().map(path));
    play("f", server.port, |port| format!("fluentd://127.0.0.1:{port}"), &["compression=none"], count);
}

#[test]
fn elasticsearch() {
    let node = Node::start("");
    let more = ["type=elasticsearch", "install_template=on", "compression=none"];
    let count = || node.count("pod2pod-*") as usize;
    play("es", node.port, |port| format!("http://127.0.0.1:{port}/"), &more, count);
    assert_eq!(node.count("pod2pod-*"), RECORDS as u64);
}

fn otlp(protocol: &str, port: impl Fn(&Collector) -> u16) {
    let collector = Collector::start("");
    let path = |log: &Value| attributes(log)["url.path"]["stringValue"].as_str().unwrap().to_owned();
    let count = || unique(collector.logs().iter().map(|(_, log)| path(log)));
    let more = ["type=otlp", protocol, "compression=none"];
    play("otel", port(&collector), |port| format!("http://127.0.0.1:{port}"), &more, count);
}

#[test]
fn otlp_over_http() {
    otlp("protocol=http", |collector| collector.port);
}

#[test]
fn otlp_over_grpc() {
    otlp("protocol=grpc", |collector| collector.grpc);
}

#[test]
fn postgres() {
    let database = Database::start(WITHOUT_PASSWORD);
    let more = ["tls.mode=disable", "create_table=on"];
    let url = |port| format!("postgres://{USER}@127.0.0.1:{port}/postgres");
    let count = || {
        let told = database.psql("SELECT count(*) FROM pod2pod_records").output().unwrap();
        String::from_utf8_lossy(&told.stdout).trim().parse().unwrap_or_default()
    };
    play("db", database.port, url, &more, count);
    assert_eq!(database.counts(), format!("{RECORDS}|{RECORDS}"));
}

/// Nobody answers: what is written is delivered, and a write that takes too long is begun anew on another connection.
#[test]
fn syslog() {
    let server = Rsyslog::start();
    let path = |message: &Message| {
        let record: Value = serde_json::from_str(&message.text).unwrap();
        record["url.path"].as_str().unwrap().to_owned()
    };
    let count = || unique(server.messages().iter().map(path));
    play("log", server.tcp, |port| format!("syslog+tcp://127.0.0.1:{port}"), &[], count);
}

/// A broker says where it is: there the way begins.
#[cfg(feature = "kafka")]
#[test]
fn kafka() {
    use support::broker::{Broker, Message};
    let broker = Broker::start_behind(|port| SlowLink::start(port, SLOW).port);
    broker.make(&[("a", 1)], &[]);
    let path = |message: Message| message.value["url.path"].as_str().unwrap().to_owned();
    let count = || unique(broker.messages("a").into_iter().map(path));
    play_by("k", &format!("kafka://127.0.0.1:{}", broker.way), &["topic=a", "batch_records=500"], count);
    let again = broker.messages("a").len() - RECORDS;
    eprintln!("{again} of {RECORDS} messages are there again");
    assert!(again <= RECORDS, "{again}");
}
