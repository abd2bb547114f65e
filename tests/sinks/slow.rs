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
/// A batch may be there again, whose answer was too late; what was given up before it was whole may not.
const MAX_SEEN: usize = RECORDS + RECORDS / 2;
/// An attempt may take three quarters of that.
const TIMEOUT: &str = "timeout=1500ms";

/// Plays through a slow way to `port`; the server has as many as there are.
#[track_caller]
fn play(name: &str, port: u16, url: impl Fn(u16) -> String, more: &[&str], count: impl Fn() -> Count) {
    let link = SlowLink::start(port, SLOW);
    play_by(name, &url(link.port), more, count);
}

/// The same by a way that is there.
#[track_caller]
fn play_by(name: &str, url: &str, more: &[&str], count: impl Fn() -> Count) {
    let own = |setting: &str| format!("sinks.{name}.{setting}");
    let mut settings = vec![own(&format!("url={url}")), own(TIMEOUT), own("concurrency=1")];
    settings.extend(more.iter().map(|setting| own(setting)));
    let settings: Vec<_> = settings.iter().map(String::as_str).collect();
    let replay = Replay::start(RECORDS, &settings);
    until("an attempt takes too long", || replay.said().contains("reason=\"timeout\""));
    let summary = replay.finish();
    assert!(summary.contains(&format!("{name}: delivered {RECORDS}, lost 0")), "{summary}");
    until("all are there", || count().unique >= RECORDS);
    let Count { all, unique } = count();
    assert_eq!(unique, RECORDS);
    eprintln!("{name}: {} of {RECORDS} records are there again", all - unique);
    assert!(all <= MAX_SEEN, "{name}: what was given up came all the same: {all}");
}

/// What a server has.
struct Count {
    all: usize,
    unique: usize,
}

impl Count {
    fn of(paths: impl IntoIterator<Item = String>) -> Self {
        let (mut all, mut unique) = (0, BTreeSet::new());
        for path in paths {
            all += 1;
            unique.insert(path);
        }
        Self { all, unique: unique.len() }
    }

    /// Of a server that has none twice, or of a stream's, which is not told what was given up.
    const fn of_unique(unique: usize) -> Self {
        Self { all: unique, unique }
    }
}

#[test]
fn http() {
    let server = Nginx::start("", "");
    play("web", server.port, |port| format!("http://127.0.0.1:{port}/in"), &[], || Count::of(server.paths()));
}

#[test]
fn fluentd() {
    let server = Forward::start(&[]);
    let path = |entry: Entry| entry.record["url.path"].as_str().unwrap().to_owned();
    let count = || Count::of(server.entries().into_iter().map(path));
    play("f", server.port, |port| format!("fluentd://127.0.0.1:{port}"), &["compression=none"], count);
}

#[test]
fn elasticsearch() {
    let node = Node::start("");
    let more = ["type=elasticsearch", "install_template=on", "compression=none"];
    let count = || Count::of_unique(node.count("pod2pod-*") as usize);
    play("es", node.port, |port| format!("http://127.0.0.1:{port}/"), &more, count);
    assert_eq!(node.count("pod2pod-*"), RECORDS as u64);
}

fn otlp(protocol: &str, port: impl Fn(&Collector) -> u16) {
    let collector = Collector::start("");
    let path = |log: &Value| attributes(log)["url.path"]["stringValue"].as_str().unwrap().to_owned();
    let count = || Count::of(collector.logs().iter().map(|(_, log)| path(log)));
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
        Count::of_unique(String::from_utf8_lossy(&told.stdout).trim().parse().unwrap_or_default())
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
    let count = || Count::of_unique(Count::of(server.messages().iter().map(path)).unique);
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
    let count = || Count::of(broker.messages("a").into_iter().map(path));
    play_by("k", &format!("kafka://127.0.0.1:{}", broker.way), &["topic=a", "batch_records=500"], count);
}
