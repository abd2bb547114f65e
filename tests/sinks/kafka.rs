//! A broker of Kafka (KRaft, makes no topics by itself): all records there, each once, a key's in order; who is refused, and what is.

use std::{collections::HashMap, fmt::Write as _, fs, path::Path, process::Command, time::Duration};

use rdkafka::{
    ClientConfig, Message as _,
    admin::{AdminClient, AdminOptions, NewTopic, TopicReplication},
    client::DefaultClientContext,
    consumer::{BaseConsumer, Consumer as _},
    message::Headers as _,
    topic_partition_list::{Offset, TopicPartitionList},
};
use serde_json::Value;
use support::{
    keeper,
    server::{Server, free_port, installed, listens},
};

use crate::{PATIENCE, RECORDS, Replay, outage, until};

/// The cluster's id: any will do.
const CLUSTER: &str = "MkU3OEVBNTcwNTJENDM2Qg";

struct Broker {
    server: Server,
    plain: u16,
    secret: u16,
    certified: u16,
}

/// A message as it was read back.
struct Message {
    partition: i32,
    key: Option<Vec<u8>>,
    time: i64,
    headers: Vec<(String, String)>,
    value: Value,
}

impl Broker {
    fn start() -> Self {
        let [plain, secret, certified, control] = std::array::from_fn(|_| free_port());
        let prepare = move |folder: &Path| {
            let (key, certificate) = (tls_file("key.pem"), tls_file("certificate.pem"));
            let both = [fs::read(key).unwrap(), fs::read(certificate).unwrap()].concat();
            fs::write(folder.join("kafka.pem"), both).unwrap();
            fs::write(folder.join("server.properties"), properties([plain, secret, certified, control]))
                .unwrap();
            let mut format = java();
            format.args(["kafka.tools.StorageTool", "format", "-t", CLUSTER, "-c", "server.properties"]);
            format.args(["--add-scram", "SCRAM-SHA-512=[name=u,password=p@ss]"]);
            format.args(["--add-scram", "SCRAM-SHA-256=[name=u,password=p@ss]"]).current_dir(folder);
            let formatted = format.output().unwrap();
            assert!(formatted.status.success(), "{}", String::from_utf8_lossy(&formatted.stderr));
        };
        let start = |_: &Path| {
            let mut command = java();
            command.args(["kafka.Kafka", "server.properties"]);
            command
        };
        let server = Server::start("kafka", prepare, start, move || {
            [plain, secret, certified].into_iter().all(listens)
        });
        let broker = Self { server, plain, secret, certified };
        until("the broker answers", || {
            broker.consumer().fetch_metadata(None, Duration::from_secs(1)).is_ok()
        });
        broker
    }

    fn client(&self) -> ClientConfig {
        let mut client = ClientConfig::new();
        client.set("bootstrap.servers", format!("127.0.0.1:{}", self.plain));
        client
    }

    fn consumer(&self) -> BaseConsumer {
        self.client().set("group.id", "none").set("enable.auto.commit", "false").create().unwrap()
    }

    /// Makes topics: names, and how many partitions.
    fn make(&self, topics: &[(&str, i32)], settings: &[(&str, &str)]) {
        let admin: AdminClient<DefaultClientContext> = self.client().create().unwrap();
        let topics: Vec<_> = topics
            .iter()
            .map(|(name, partitions)| {
                let topic = NewTopic::new(name, *partitions, TopicReplication::Fixed(1));
                settings.iter().fold(topic, |topic, (key, value)| topic.set(key, value))
            })
            .collect();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let made = runtime.block_on(admin.create_topics(&topics, &AdminOptions::new())).unwrap();
        assert!(made.iter().all(Result::is_ok), "{made:?}");
    }

    /// Waits until there are so many messages in the only partition of a topic: at the end of a replay there is little time.
    fn wait_for(&self, topic: &str, count: usize) {
        let consumer = self.consumer();
        // Beside records there may be the ends of transactions, which nobody makes here.
        let high = || consumer.fetch_watermarks(topic, 0, Duration::from_secs(5)).map_or(0, |(_, high)| high);
        until("records are there", || high() >= count as i64);
    }

    /// All messages of a topic, those of a partition in their order.
    fn messages(&self, topic: &str) -> Vec<Message> {
        let consumer = self.consumer();
        let metadata = consumer.fetch_metadata(Some(topic), PATIENCE).unwrap();
        let (mut all, mut left) = (TopicPartitionList::new(), HashMap::new());
        for partition in metadata.topics()[0].partitions() {
            let (low, high) = consumer.fetch_watermarks(topic, partition.id(), PATIENCE).unwrap();
            all.add_partition_offset(topic, partition.id(), Offset::Offset(low)).unwrap();
            if high > low {
                left.insert(partition.id(), high);
            }
        }
        consumer.assign(&all).unwrap();
        let mut messages = Vec::new();
        while !left.is_empty() {
            let message = consumer.poll(PATIENCE).expect("there is more").unwrap();
            if left.get(&message.partition()) == Some(&(message.offset() + 1)) {
                left.remove(&message.partition());
            }
            let headers = message.headers().into_iter().flat_map(|headers| headers.iter());
            let text = |bytes: Option<&[u8]>| String::from_utf8(bytes.unwrap_or_default().to_vec()).unwrap();
            messages.push(Message {
                partition: message.partition(),
                key: message.key().map(<[u8]>::to_vec),
                time: message.timestamp().to_millis().unwrap(),
                headers: headers.map(|header| (header.key.to_owned(), text(header.value))).collect(),
                value: serde_json::from_slice(message.payload().unwrap()).unwrap(),
            });
        }
        messages
    }

    fn replay(&self, records: usize, more: &[&str]) -> Replay {
        let url = format!("sinks.k.url=kafka://127.0.0.1:{}", self.plain);
        Replay::start(records, &[&[&*url], more].concat())
    }
}

fn tls_file(name: &str) -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("data/tls").join(name).display().to_string()
}

fn java() -> Command {
    let path = format!("{}/lib/*", installed("kafka").display());
    let mut command = keeper::command(Path::new("java"));
    command.args([
        "-Xmx256m",
        "-XX:+UseSerialGC",
        "-XX:TieredStopAtLevel=1",
        "-Dlog4j2.level=WARN",
        "-cp",
        &path,
    ]);
    command
}

fn properties([plain, secret, certified, control]: [u16; 4]) -> String {
    let mut text = String::new();
    for (key, value) in [
        ("process.roles", "broker,controller".to_owned()),
        ("node.id", "1".to_owned()),
        ("controller.quorum.voters", format!("1@127.0.0.1:{control}")),
        (
            "listeners",
            format!(
                "PLAINTEXT://127.0.0.1:{plain},SASL_SSL://127.0.0.1:{secret},SSL://127.0.0.1:{certified},\
                 CONTROLLER://127.0.0.1:{control}"
            ),
        ),
        (
            "advertised.listeners",
            format!(
                "PLAINTEXT://127.0.0.1:{plain},SASL_SSL://localhost:{secret},SSL://localhost:{certified}"
            ),
        ),
        ("controller.listener.names", "CONTROLLER".to_owned()),
        ("inter.broker.listener.name", "PLAINTEXT".to_owned()),
        (
            "listener.security.protocol.map",
            "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,SASL_SSL:SASL_SSL,SSL:SSL".to_owned(),
        ),
        ("sasl.enabled.mechanisms", "SCRAM-SHA-512,SCRAM-SHA-256".to_owned()),
        ("ssl.keystore.type", "PEM".to_owned()),
        ("ssl.keystore.location", "kafka.pem".to_owned()),
        ("ssl.truststore.type", "PEM".to_owned()),
        ("ssl.truststore.location", tls_file("certificate.pem")),
        ("listener.name.ssl.ssl.client.auth", "required".to_owned()),
        ("log.dirs", "data".to_owned()),
        ("offsets.topic.num.partitions", "1".to_owned()),
        ("offsets.topic.replication.factor", "1".to_owned()),
        ("transaction.state.log.num.partitions", "1".to_owned()),
        ("transaction.state.log.replication.factor", "1".to_owned()),
        ("transaction.state.log.min.isr", "1".to_owned()),
        ("broker.session.timeout.ms", "1000".to_owned()),
        ("broker.heartbeat.interval.ms", "300".to_owned()),
        ("auto.create.topics.enable", "false".to_owned()),
    ] {
        writeln!(text, "{key}={value}").unwrap();
    }
    for mechanism in ["512", "256"] {
        writeln!(
            text,
            "listener.name.sasl_ssl.scram-sha-{mechanism}.sasl.jaas.config=\
             org.apache.kafka.common.security.scram.ScramLoginModule required;"
        )
        .unwrap();
    }
    text
}

/// The numbers of the exchanges, as their paths say.
fn numbers(messages: &[Message]) -> Vec<usize> {
    let number = |message: &Message| {
        let path = message.value["url.path"].as_str().unwrap();
        path.strip_prefix("/item/").unwrap().parse().unwrap()
    };
    messages.iter().map(number).collect()
}

/// Details of what is kept of what was refused.
fn letters(data_dir: &Path) -> Vec<Value> {
    let letters = fs::read_to_string(data_dir.join("dead-letters/k.jsonl")).unwrap_or_default();
    letters.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn all_records_are_there_once_and_in_order_through_an_outage() {
    let mut broker = Broker::start();
    broker.make(&[("_unrouted", 4)], &[]);
    let settings = ["sinks.k.compression=zstd", "sinks.k.message_headers=source: pod2pod"];
    let replay = broker.replay(RECORDS, &settings);
    let first = broker.consumer();
    until("records come", || {
        (0..4).any(|partition| {
            first.fetch_watermarks("_unrouted", partition, PATIENCE).is_ok_and(|(_, high)| high > 0)
        })
    });
    broker.server.stop();
    outage();
    broker.server.start_again();
    let summary = replay.finish();
    assert!(summary.contains(&format!("k: delivered {RECORDS}, lost 0")), "{summary}");
    let messages = broker.messages("_unrouted");
    // One connection is one key, and so one partition, in which its records keep their order.
    assert!(messages.iter().all(|message| message.partition == messages[0].partition));
    assert_eq!(numbers(&messages), (0..RECORDS).collect::<Vec<_>>());
    let first = &messages[0];
    assert_eq!(first.key.as_deref(), first.value["connection.id"].as_str().map(str::as_bytes));
    assert_eq!(first.headers, [("source".to_owned(), "pod2pod".to_owned())]);
    assert!(first.value["time"].is_string() && first.time > 0);
}

#[test]
fn who_we_are_is_told_over_tls_and_who_we_are_not_is_refused() {
    const RECORDS: usize = 1000;
    let broker = Broker::start();
    broker.make(&[("a", 1)], &[]);
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, content: &str| {
        fs::write(folder.path().join(name), content).unwrap();
        format!("sinks.k.password_file={}", folder.path().join(name).display())
    };
    let (right, wrong) = (file("right", "p@ss\n"), file("wrong", "pass\n"));
    let ca = format!("sinks.k.tls.ca={}", tls_file("certificate.pem"));
    let certificate = format!("sinks.k.tls.certificate={}", tls_file("certificate.pem"));
    let key = format!("sinks.k.tls.key={}", tls_file("key.pem"));
    let url = |port| format!("sinks.k.url=kafka+tls://localhost:{port}");
    let (secret, certified) = (url(broker.secret), url(broker.certified));
    let run =
        |more: &[&str]| Replay::start(RECORDS, &[&["sinks.k.topic=a", "sinks.k.attempts=1"], more].concat());
    for mechanism in ["sinks.k.mechanism=scram_sha_512", "sinks.k.mechanism=scram_sha_256"] {
        let summary = run(&[&secret, &ca, "sinks.k.user=u", &right, mechanism]).finish();
        assert!(summary.contains(&format!("k: delivered {RECORDS}, lost 0")), "{mechanism}: {summary}");
    }
    let summary = run(&[&certified, &ca, &certificate, &key]).finish();
    assert!(summary.contains(&format!("k: delivered {RECORDS}, lost 0")), "{summary}");
    assert_eq!(broker.messages("a").len(), 3 * RECORDS);
    for (settings, reason) in [
        (&[&*secret, &ca, "sinks.k.user=u", &wrong][..], "reason=\"unauthorized\""),
        (&[&secret, "sinks.k.user=u", &right], "reason=\"tls\""),
        (&[&certified, &ca], "reason="),
    ] {
        let replay = run(&[settings, &["sinks.k.attempts=1"]].concat());
        until("it is refused", || replay.said().contains(reason));
        let summary = replay.finish();
        assert!(summary.contains("k: delivered 0, lost 1000"), "{summary}");
        assert!(!summary.contains("p@ss"));
    }
    assert_eq!(broker.messages("a").len(), 3 * RECORDS);
}

#[test]
fn what_has_no_topic_goes_where_it_is_told() {
    const RECORDS: usize = 2000;
    let broker = Broker::start();
    broker.make(&[("item-200", 1), ("home", 1)], &[]);
    let folder = tempfile::tempdir().unwrap();
    let data_dir = format!("data_dir={}", folder.path().display());
    let base = ["sinks.k.default_topic=home", &data_dir];
    // Refused, and kept; the next time it is asked for, by a sink that sends it to the default one.
    let settings = ["sinks.k.topic=none-{http.response.status_code}", "sinks.k.unknown_topic=dead_letter"];
    let replay = broker.replay(RECORDS, &[&base[..], &settings].concat());
    until("all are refused", || letters(folder.path()).len() == RECORDS);
    let summary = replay.finish();
    assert!(summary.contains(&format!("k: delivered 0, lost {RECORDS}")), "{summary}");
    let refused = letters(folder.path());
    assert_eq!(refused[0]["detail"], "none-200: the cluster has no such topic");
    let settings = ["sinks.k.topic=none-{http.response.status_code}", "sinks.k.unknown_topic=default"];
    let replay = broker.replay(RECORDS, &[&base[..], &settings].concat());
    broker.wait_for("home", RECORDS);
    let summary = replay.finish();
    assert!(summary.contains(&format!("k: delivered {RECORDS}, lost 0")), "{summary}");
    assert_eq!(broker.messages("home").len(), RECORDS);
    // Not an allowed one.
    let settings = ["sinks.k.topic=item-{http.response.status_code}", "sinks.k.topics=team-*"];
    let replay = broker.replay(RECORDS, &[&base[..], &settings].concat());
    until("all are refused", || letters(folder.path()).len() == 2 * RECORDS);
    let summary = replay.finish();
    assert!(summary.contains(&format!("k: delivered 0, lost {RECORDS}")), "{summary}");
    // It waits until somebody makes it.
    let settings = ["sinks.k.topic=late-{http.response.status_code}", "sinks.k.unknown_topic=wait"];
    let replay = broker.replay(RECORDS, &[&base[..], &settings].concat());
    until("records wait", || replay.said().contains("unavailable"));
    broker.make(&[("late-200", 1)], &[]);
    broker.wait_for("late-200", RECORDS);
    let summary = replay.finish();
    assert!(summary.contains(&format!("k: delivered {RECORDS}, lost 0")), "{summary}");
    let mut there = numbers(&broker.messages("late-200"));
    there.sort_unstable();
    assert_eq!(there, (0..RECORDS).collect::<Vec<_>>());
}

#[test]
fn what_is_too_large_is_kept_and_the_rest_goes_on() {
    const RECORDS: usize = 1000;
    let broker = Broker::start();
    // Of what is sent at once: many records of usual size are too much, and one of them is not.
    broker.make(&[("small", 1)], &[("max.message.bytes", "20000")]);
    let folder = tempfile::tempdir().unwrap();
    let data_dir = format!("data_dir={}", folder.path().display());
    let summary = broker.replay(RECORDS, &["sinks.k.topic=small", &data_dir]).finish();
    assert!(summary.contains(&format!("k: delivered {RECORDS}, lost 0")), "{summary}");
    let mut there = numbers(&broker.messages("small"));
    there.sort_unstable();
    assert_eq!(there, (0..RECORDS).collect::<Vec<_>>());
    broker.make(&[("tiny", 1)], &[("max.message.bytes", "300")]);
    let summary = broker.replay(10, &["sinks.k.topic=tiny", &data_dir]).finish();
    assert!(summary.contains("k: delivered 0, lost 10"), "{summary}");
    assert!(letters(folder.path()).iter().all(|letter| letter["reason"] == "too_large"));
}
