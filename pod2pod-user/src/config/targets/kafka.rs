//! Keys of `type: kafka`.

use super::{Settings, SinkKey as Key, SinkType, Wrong, common, web};
use crate::{
    config::keys::{all, put, size},
    route::Template,
    secrets::tls,
    sinks::{
        TargetConfig,
        kafka::{
            self, Acks, Brokers, Compression, Mechanism, Partitioner, Sasl, UnknownTopic,
            item::is_topic,
            settings::{DEFAULT_MESSAGE_BYTES, MAX_MESSAGE_BYTES, MIN_MESSAGE_BYTES},
            topics::{Allowed, DEFAULT_MAX_TOPICS, MAX_TOPICS},
        },
    },
};

pub(super) static TYPE: SinkType = SinkType {
    word: "kafka",
    sentence: "Kafka: a topic by namespace or whatever else records have, in which a connection's records keep their order, judged one by one by what the brokers report.",
    schemes: &["kafka", "kafka+tls"],
    keys: &[KEYS, web::TLS, common::LINES, common::KEYS],
    // An attempt that takes longer than it may is made again behind those that were made beside it.
    keeps_order: true,
    batch_records: BATCH_RECORDS,
    build,
};

/// One batch is under way at a time, so it is as large as it may be: with 500 records the wait for the brokers' answers halved what went
/// through.
const BATCH_RECORDS: u64 = 5000;
/// Where records go that say nothing else.
const DEFAULT_TOPIC: &str = "{namespace}";
/// Where those go that have no namespace: no namespace has such a name.
const UNROUTED: &str = "_unrouted";
/// One connection's records stay in order.
const DEFAULT_KEY: &str = "{connection.id}";
/// How we are called.
const CLIENT_ID: &str = "pod2pod";

/// `kafka` as written.
#[derive(Clone, Debug)]
pub struct Kafka {
    brokers: Option<Brokers>,
    topic: Option<Template>,
    default_topic: String,
    unknown_topic: UnknownTopic,
    topics: Vec<String>,
    max_topics: usize,
    key: Option<Template>,
    has_key: bool,
    partitioner: Partitioner,
    acks: Acks,
    is_idempotent: bool,
    compression: Compression,
    messages: Vec<(String, String)>,
    message_bytes: usize,
    mechanism: Mechanism,
    client_id: String,
}

impl Default for Kafka {
    fn default() -> Self {
        Self {
            brokers: None,
            topic: None,
            default_topic: UNROUTED.to_owned(),
            unknown_topic: UnknownTopic::default(),
            topics: Vec::new(),
            max_topics: DEFAULT_MAX_TOPICS,
            key: None,
            has_key: true,
            partitioner: Partitioner::Crc32,
            acks: Acks::All,
            is_idempotent: true,
            compression: Compression::None,
            messages: Vec::new(),
            message_bytes: DEFAULT_MESSAGE_BYTES,
            mechanism: Mechanism::Scram512,
            client_id: CLIENT_ID.to_owned(),
        }
    }
}

static KEYS: &[Key] = &[
    Key {
        path: "url",
        allowed: "kafka://host:port,host:port or kafka+tls://",
        default: "",
        sentence: "Where some of the brokers are, which tell of the others; the port is 9092 if none is written.",
        set: |sink, given| put(&mut sink.kafka.brokers, Some(Some(Brokers::parse(given.text()?)?))),
    },
    Key {
        path: "topic",
        allowed: "a name of a topic, with placeholders such as {namespace}, {kind}, {client.k8s.pod.annotation.NAME}",
        default: DEFAULT_TOPIC,
        sentence: "Where a record goes. A placeholder is a field of the record, and after `|` what stands there without it; an annotation is one if `kubernetes.annotations` keeps it. What may not be in a topic's name is left out.",
        set: |sink, given| {
            let topic = Template::parse(given.text()?).ok()?;
            let is_usual = topic.text() == DEFAULT_TOPIC;
            put(&mut sink.kafka.topic, Some((!is_usual).then_some(topic)))
        },
    },
    Key {
        path: "default_topic",
        allowed: "a name of a topic",
        default: UNROUTED,
        sentence: "Where records go that lack a field of `topic`, or would go to one that begins with two underscores.",
        set: |sink, given| {
            let topic = given.text().filter(|topic| is_topic(topic.as_bytes()))?;
            put(&mut sink.kafka.default_topic, Some(topic.to_owned()))
        },
    },
    Key {
        path: "unknown_topic",
        allowed: "dead_letter, default, wait",
        default: "dead_letter",
        sentence: "What is done with records for a topic that the cluster does not have: none is ever made. With wait, all others wait behind them.",
        set: |sink, given| {
            let unknown = match given.text()? {
                "dead_letter" => UnknownTopic::DeadLetter,
                "default" => UnknownTopic::Default,
                "wait" => UnknownTopic::Wait,
                _ => return None,
            };
            put(&mut sink.kafka.unknown_topic, Some(unknown))
        },
    },
    Key {
        path: "topics",
        allowed: "a list of names of topics, and globs of them",
        default: "",
        sentence: "Topics that are sent to, beside the default one; all if there are none. What goes to another is refused.",
        set: |sink, given| put(&mut sink.kafka.topics, Some(given.items())),
    },
    Key {
        path: "max_topics",
        allowed: "a number from 1 to 10000",
        default: "500",
        sentence: "Topics at most, since namespaces are of others' choice; one to which nothing went for an hour gives way. What goes to more is refused.",
        set: |sink, given| {
            let count = given.integer().and_then(|count| usize::try_from(count).ok());
            put(&mut sink.kafka.max_topics, count.filter(|count| (1..=MAX_TOPICS).contains(count)))
        },
    },
    Key {
        path: "key",
        allowed: "text with placeholders, or none",
        default: DEFAULT_KEY,
        sentence: "What a record is put into a partition by: those with the same key keep their order. With none, or without its fields, it is put into any.",
        set: |sink, given| {
            let text = given.text()?;
            sink.kafka.has_key = text != "none";
            let is_usual = !sink.kafka.has_key || text == DEFAULT_KEY;
            put(&mut sink.kafka.key, Some(if is_usual { None } else { Some(Template::parse(text).ok()?) }))
        },
    },
    Key {
        path: "partitioner",
        allowed: "crc32, fnv1a, murmur2, random",
        default: "crc32",
        sentence: "How a partition follows from a key: murmur2 is the Java client's.",
        set: |sink, given| put(&mut sink.kafka.partitioner, Partitioner::parse(given.text()?)),
    },
    Key {
        path: "acks",
        allowed: "0, 1, all",
        default: "all",
        sentence: "How many brokers must have a record before it counts as delivered; with 0 what a broker refuses is never known.",
        set: |sink, given| put(&mut sink.kafka.acks, Acks::parse(given.text()?)),
    },
    Key {
        path: "idempotence",
        allowed: "on, off",
        default: "on",
        sentence: "Brokers know what they were sent already, so that what is sent again is stored once and in order.",
        set: |sink, given| put(&mut sink.kafka.is_idempotent, given.switch()),
    },
    Key {
        path: "compression",
        allowed: "none, gzip, snappy, lz4, zstd",
        default: "none",
        sentence: "How records are compressed, many at once.",
        set: |sink, given| put(&mut sink.kafka.compression, Compression::parse(given.text()?)),
    },
    Key {
        path: "message_headers",
        allowed: "a list of headers such as source: pod2pod",
        default: "",
        sentence: "Headers of every message, for what is no secret.",
        set: |sink, given| put(&mut sink.kafka.messages, all(given, header)),
    },
    Key {
        path: "message_bytes",
        allowed: "a number of bytes, with or without a unit, from 1000 to 64MiB",
        default: "1000000",
        sentence: "Bytes of a message at most, and of what a partition is sent at once: no more than the brokers' `message.max.bytes`, or each batch is sent in ever smaller parts.",
        set: |sink, given| {
            let bytes = size(given).filter(|bytes| (MIN_MESSAGE_BYTES..=MAX_MESSAGE_BYTES).contains(bytes));
            put(&mut sink.kafka.message_bytes, bytes)
        },
    },
    Key {
        path: "client_id",
        allowed: "a name",
        default: CLIENT_ID,
        sentence: "How we are called in the brokers' logs and quotas.",
        set: |sink, given| {
            let name = given.text().filter(|name| !name.is_empty() && !name.contains(char::is_control))?;
            put(&mut sink.kafka.client_id, Some(name.to_owned()))
        },
    },
    Key {
        path: "user",
        allowed: "a name",
        default: "",
        sentence: "Who we are, for brokers that ask (SASL).",
        set: |sink, given| {
            let user = given.text().filter(|user| !user.is_empty() && !user.contains(char::is_control))?;
            put(&mut sink.web.user, Some(Some(user.to_owned())))
        },
    },
    Key {
        path: "password_file",
        allowed: "a path",
        default: "",
        sentence: "Where the password is; read again when it changes.",
        set: |sink, given| put(&mut sink.web.password_file, Some(Some(given.path()?))),
    },
    Key {
        path: "mechanism",
        allowed: "plain, scram_sha_256, scram_sha_512",
        default: "scram_sha_512",
        sentence: "How we say who we are.",
        set: |sink, given| put(&mut sink.kafka.mechanism, Mechanism::parse(given.text()?)),
    },
];

/// Reads `name: value`.
fn header(text: &str) -> Option<(String, String)> {
    let (name, value) = text.split_once(':')?;
    let (name, value) = (name.trim(), value.trim());
    let is_text = !name.is_empty() && !text.contains(char::is_control);
    is_text.then(|| (name.to_owned(), value.to_owned()))
}

fn build(sink: &Settings, wrong: &mut Vec<Wrong>) -> Option<TargetConfig> {
    let Kafka { topic, topics, key, has_key, acks, is_idempotent, .. } = sink.kafka.clone();
    if cfg!(not(feature = "kafka")) {
        wrong.push(("type", crate::sinks::NO_KAFKA.to_owned()));
    }
    let Some(brokers) = sink.kafka.brokers.clone() else {
        wrong.push(("url", "it is missing: say where a broker is".to_owned()));
        return None;
    };
    sink.web.check(brokers.is_tls, wrong);
    if is_idempotent && acks != Acks::All {
        wrong.push(("acks", "idempotence is only with acks of all brokers: turn one of them off".to_owned()));
    }
    let allowed = Allowed::parse(&topics);
    let allowed = allowed.map_err(|error| wrong.push(("topics", error.to_string()))).unwrap_or_default();
    let sasl = sasl(sink, brokers.is_tls, wrong);
    let files = sink.web.tls.clone();
    let key = if has_key { key.or_else(|| Template::parse(DEFAULT_KEY).ok()) } else { None };
    Some(TargetConfig::Kafka(Box::new(kafka::Config {
        brokers,
        tls: tls::Client { authorities: files.ca, own: files.certificate.zip(files.key) },
        sasl,
        client_id: sink.kafka.client_id.clone(),
        topic: topic.or_else(|| Template::parse(DEFAULT_TOPIC).ok())?,
        default_topic: sink.kafka.default_topic.clone(),
        unknown_topic: sink.kafka.unknown_topic,
        allowed,
        max_topics: sink.kafka.max_topics,
        key,
        partitioner: sink.kafka.partitioner,
        acks,
        is_idempotent,
        compression: sink.kafka.compression,
        headers: sink.kafka.messages.clone(),
        message_bytes: sink.kafka.message_bytes,
    })))
}

fn sasl(sink: &Settings, is_tls: bool, wrong: &mut Vec<Wrong>) -> Option<Sasl> {
    let mechanism = sink.kafka.mechanism;
    match (&sink.web.user, &sink.web.password_file) {
        (None, None) => None,
        (Some(user), Some(file)) => {
            if mechanism == Mechanism::Plain && !is_tls {
                wrong.push((
                    "mechanism",
                    "plain shows the password to the network: use kafka+tls://".to_owned(),
                ));
            }
            Some(Sasl { mechanism, user: user.clone(), password_file: file.clone() })
        }
        (Some(_), None) | (None, Some(_)) => {
            wrong.push(("user", "user and password_file are needed together".to_owned()));
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::value::Given;

    fn wrong(settings: &[(&str, &str)]) -> Vec<&'static str> {
        let mut sink = Settings::default();
        for (path, value) in settings {
            let key = TYPE.keys().find(|key| key.path == *path).unwrap();
            assert!((key.set)(&mut sink, &Given::one(*value)).is_some(), "{path}={value}");
        }
        let mut wrong = Vec::new();
        build(&sink, &mut wrong);
        wrong.into_iter().map(|(key, _)| key).filter(|key| *key != "type").collect()
    }

    #[test]
    fn what_cannot_be_together_is_told() {
        let url = ("url", "kafka://a");
        assert_eq!(wrong(&[url]), [""; 0]);
        assert_eq!(wrong(&[]), ["url"]);
        assert_eq!(wrong(&[url, ("acks", "1")]), ["acks"]);
        assert_eq!(wrong(&[url, ("acks", "1"), ("idempotence", "off")]), [""; 0]);
        assert_eq!(wrong(&[url, ("topics", "a[")]), ["topics"]);
        assert_eq!(wrong(&[url, ("tls.ca", "/ca.pem")]), ["tls"]);
        assert_eq!(wrong(&[url, ("user", "u")]), ["user"]);
        let plain = [("user", "u"), ("password_file", "/p"), ("mechanism", "plain")];
        assert_eq!(wrong(&[&[url], &plain[..]].concat()), ["mechanism"]);
        assert_eq!(wrong(&[&[("url", "kafka+tls://a")], &plain[..]].concat()), [""; 0]);
    }

    #[test]
    fn values_have_their_limits() {
        let is_allowed = |path: &str, value: &str| {
            let key = KEYS.iter().find(|key| key.path == path).unwrap();
            (key.set)(&mut Settings::default(), &Given::one(value)).is_some()
        };
        for (path, value, expected) in [
            ("max_topics", "0".to_owned(), false),
            ("max_topics", MAX_TOPICS.to_string(), true),
            ("max_topics", (MAX_TOPICS + 1).to_string(), false),
            ("message_bytes", (MIN_MESSAGE_BYTES - 1).to_string(), false),
            ("message_bytes", MIN_MESSAGE_BYTES.to_string(), true),
            ("message_bytes", DEFAULT_MESSAGE_BYTES.to_string(), true),
            ("message_bytes", MAX_MESSAGE_BYTES.to_string(), true),
            ("message_bytes", (MAX_MESSAGE_BYTES + 1).to_string(), false),
            ("default_topic", "__mine".to_owned(), false),
            ("default_topic", "a/b".to_owned(), false),
            ("message_headers", "source: pod2pod".to_owned(), true),
            ("message_headers", "source".to_owned(), false),
            ("key", "none".to_owned(), true),
            ("key", "{nothing}".to_owned(), false),
        ] {
            assert_eq!(is_allowed(path, &value), expected, "{path}={value}");
        }
    }
}
