//! A broker of Kafka (KRaft), in clear text, behind a password and behind certificates; what is in its topics is read back.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "test support: a failure here is the test's failure"
)]

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

use crate::{
    keeper,
    server::{PATIENCE, Server, free_port, installed, listens, tls_file, until},
};

/// The cluster's id: any will do.
const CLUSTER: &str = "MkU3OEVBNTcwNTJENDM2Qg";

/// Compiled once and quickly.
const SMALL: [&str; 3] = ["-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"];
/// Of kafka-run-class.sh and kafka-server-start.sh.
const SHIPPED: [&str; 7] = [
    "-Xmx1G",
    "-Xms1G",
    "-server",
    "-XX:+UseG1GC",
    "-XX:MaxGCPauseMillis=20",
    "-XX:InitiatingHeapOccupancyPercent=35",
    "-XX:+ExplicitGCInvokesConcurrent",
];

/// A broker that makes no topics by itself, and the ports of loopback where it listens.
pub struct Broker {
    /// Its process.
    pub server: Server,
    /// Anybody, in clear text.
    pub plain: u16,
    /// TLS, and user `u` with the password `p@ss` by SCRAM.
    pub secret: u16,
    /// TLS, and whoever has a certificate.
    pub certified: u16,
    /// Anybody, in clear text, by the way there that it was started with.
    pub way: u16,
}

/// A message as it was read back.
#[derive(Debug)]
pub struct Message {
    /// Where it is.
    pub partition: i32,
    /// What it was put there by.
    pub key: Option<Vec<u8>>,
    /// Milliseconds since 1970.
    pub time: i64,
    /// Names and values.
    pub headers: Vec<(String, String)>,
    /// The record.
    pub value: Value,
}

impl Broker {
    /// Starts one that is soon there and takes little, and waits until it answers.
    pub fn start() -> Self {
        Self::start_by(&SMALL, |port| port)
    }

    /// Starts one by the options that Kafka's own script gives it, and waits until it answers: for who measures.
    pub fn start_as_shipped() -> Self {
        Self::start_by(&SHIPPED, |port| port)
    }

    /// Starts one that tells who asks at the port that `way` makes a way to, that it is where that way begins.
    pub fn start_behind(way: impl FnOnce(u16) -> u16) -> Self {
        Self::start_by(&SMALL, way)
    }

    fn start_by(options: &'static [&str], way: impl FnOnce(u16) -> u16) -> Self {
        let [plain, secret, certified, control, far] = std::array::from_fn(|_| free_port());
        let way = way(far);
        let prepare = move |folder: &Path| {
            let (key, certificate) = (tls_file("key.pem"), tls_file("certificate.pem"));
            let both = [fs::read(key).unwrap(), fs::read(certificate).unwrap()].concat();
            fs::write(folder.join("kafka.pem"), both).unwrap();
            let ports = [plain, secret, certified, control, far];
            fs::write(folder.join("server.properties"), properties(ports, way)).unwrap();
            let mut format = java(&SMALL);
            format.args(["kafka.tools.StorageTool", "format", "-t", CLUSTER, "-c", "server.properties"]);
            format.args(["--add-scram", "SCRAM-SHA-512=[name=u,password=p@ss]"]);
            format.args(["--add-scram", "SCRAM-SHA-256=[name=u,password=p@ss]"]).current_dir(folder);
            let formatted = format.output().unwrap();
            assert!(formatted.status.success(), "{}", String::from_utf8_lossy(&formatted.stderr));
        };
        let start = move |_: &Path| {
            let mut command = java(options);
            command.args(["kafka.Kafka", "server.properties"]);
            command
        };
        let server = Server::start("kafka", prepare, start, move || {
            [plain, secret, certified, far].into_iter().all(listens)
        });
        let broker = Self { server, plain, secret, certified, way };
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

    /// Somebody who reads.
    pub fn consumer(&self) -> BaseConsumer {
        self.client().set("group.id", "none").set("enable.auto.commit", "false").create().unwrap()
    }

    /// Makes topics: names, and how many partitions.
    pub fn make(&self, topics: &[(&str, i32)], settings: &[(&str, &str)]) {
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
    pub fn wait_for(&self, topic: &str, count: usize) {
        let consumer = self.consumer();
        // Beside records there may be the ends of transactions, which nobody makes here.
        let high = || consumer.fetch_watermarks(topic, 0, Duration::from_secs(5)).map_or(0, |(_, high)| high);
        until("records are there", || high() >= count as i64);
    }

    /// How many messages are in a topic of so many partitions.
    pub fn count(&self, topic: &str, partitions: i32) -> u64 {
        let consumer = self.consumer();
        let of = |partition| consumer.fetch_watermarks(topic, partition, PATIENCE).unwrap();
        (0..partitions).map(of).map(|(low, high)| (high - low).cast_unsigned()).sum()
    }

    /// All messages of a topic, those of a partition in their order.
    pub fn messages(&self, topic: &str) -> Vec<Message> {
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
}

fn java(options: &[&str]) -> Command {
    let path = format!("{}/lib/*", installed("kafka").display());
    let mut command = keeper::command(Path::new("java"));
    command.args(options).args(["-Dlog4j2.level=WARN", "-cp", &path]);
    command
}

fn properties([plain, secret, certified, control, far]: [u16; 5], way: u16) -> String {
    let mut text = String::new();
    for (key, value) in [
        ("process.roles", "broker,controller".to_owned()),
        ("node.id", "1".to_owned()),
        ("controller.quorum.voters", format!("1@127.0.0.1:{control}")),
        (
            "listeners",
            format!(
                "PLAINTEXT://127.0.0.1:{plain},SASL_SSL://127.0.0.1:{secret},SSL://127.0.0.1:{certified},\
                 WAY://127.0.0.1:{far},CONTROLLER://127.0.0.1:{control}"
            ),
        ),
        (
            "advertised.listeners",
            format!(
                "PLAINTEXT://127.0.0.1:{plain},SASL_SSL://localhost:{secret},SSL://localhost:{certified},\
                 WAY://127.0.0.1:{way}"
            ),
        ),
        ("controller.listener.names", "CONTROLLER".to_owned()),
        ("inter.broker.listener.name", "PLAINTEXT".to_owned()),
        (
            "listener.security.protocol.map",
            "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,SASL_SSL:SASL_SSL,SSL:SSL,WAY:PLAINTEXT".to_owned(),
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
