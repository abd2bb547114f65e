//! Keys of `type: logstash`.

use super::{
    DEFAULT_BATCH_RECORDS, Settings, SinkKey as Key, SinkType, Wrong, common,
    streams::{self, Carriage, Url},
    web,
};
use crate::{
    config::keys::put,
    sinks::{TargetConfig, logstash},
};

pub(super) static TYPE: SinkType = SinkType {
    word: "logstash",
    sentence: "Logstash: a line of JSON each over TCP or TLS, or a datagram. It does not answer: what is known of what it has is that its \
               kernel took it.",
    schemes: &["logstash", "logstash+tcp", "logstash+tls", "logstash+udp"],
    keys: &[KEYS, streams::KEYS, web::TLS, web::SERVER_NAME, common::FORMAT, common::LINES, common::KEYS],
    keeps_order: true,
    batch_records: DEFAULT_BATCH_RECORDS,
    build,
};

static KEYS: &[Key] = &[Key {
    path: "url",
    allowed: "logstash+tcp://, logstash+tls:// or logstash+udp://, a host and a port; logstash:// is over TCP",
    default: "",
    sentence: "Where it is, and how it is reached.",
    set: |sink, given| {
        let url = Url::parse(given.text()?, "logstash", Carriage::Tcp, |_| None)?;
        put(&mut sink.streams.url, Some(Some(url)))
    },
}];

fn build(sink: &Settings, wrong: &mut Vec<Wrong>) -> Option<TargetConfig> {
    let transport = sink.streams.transport(&sink.web, wrong)?;
    Some(TargetConfig::Logstash(Box::new(logstash::Config { transport })))
}
