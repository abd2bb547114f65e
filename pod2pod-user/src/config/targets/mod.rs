//! The section `sinks`: targets by name, each of a type. Keys are looked for once a sink's type is known, so that each type has its own.

mod common;
mod drain;
mod elasticsearch;
mod file;
mod fluentd;
mod http;
mod kafka;
mod logstash;
mod otlp;
mod postgres;
mod streams;
mod syslog;
mod web;

use std::{path::PathBuf, sync::Arc, time::Duration};

use rustls::pki_types::ServerName;

pub(super) use self::file::shared as shared_files;
pub use self::{
    elasticsearch::Elasticsearch, file::LogFile, http::Http, kafka::Kafka, otlp::Otlp, postgres::Postgres,
};
use self::{fluentd::Fluentd, streams::Streams, syslog::Syslog};
use super::{keys::Key, load::Source, value::Given};
use crate::{
    delivery::Limits,
    enrich::Rate,
    record::selected::Fields,
    route::{Filter, Route},
    sinks::{
        Common, Format, OUTPUT, SinkConfig, TargetConfig,
        http_client::{Header, HeaderFile},
        remote::{
            DEFAULT_BATCH_RECORDS, DEFAULT_CONCURRENCY, DEFAULT_LINGER, DEFAULT_QUEUE_BYTES, DEFAULT_TIMEOUT,
            Spool,
        },
    },
};

/// What the keys of sinks begin with.
pub const SECTION: &str = "sinks";
/// Longest name of a sink: it is in metrics, threads and files.
pub const MAX_NAME: usize = 32;
/// More sinks are more threads and queues than a node's budget divides among.
pub const MAX_SINKS: usize = 16;

/// A key of a sink, without `sinks.NAME.`.
pub type SinkKey = Key<Settings>;

/// What is wrong with a sink: a key, and why.
type Wrong = (&'static str, String);

/// A type of sinks.
#[derive(Debug)]
pub struct SinkType {
    /// The word for `type`.
    pub word: &'static str,
    /// What its target is, in a sentence.
    pub sentence: &'static str,
    /// Schemes of URLs that only it has.
    pub schemes: &'static [&'static str],
    /// Its keys.
    pub keys: &'static [&'static [SinkKey]],
    /// Its target takes one thing after the other: batches are sent one by one, unless `concurrency` says otherwise.
    pub keeps_order: bool,
    /// Records of one of its batches at most, unless `batch_records` says otherwise.
    pub batch_records: u64,
    /// What was written, put together as far as it can be; adds what is wrong with it.
    build: fn(&Settings, &mut Vec<Wrong>) -> Option<TargetConfig>,
}

impl SinkType {
    /// Its keys, its own first.
    pub fn keys(&self) -> impl Iterator<Item = &'static SinkKey> {
        self.keys.iter().copied().flatten()
    }

    /// What sets a sink of this type apart.
    pub fn own_keys(&self) -> impl Iterator<Item = &'static SinkKey> {
        self.keys().filter(|key| !common_keys().any(|common| common.path == key.path))
    }
}

/// Every type.
pub static TYPES: &[&SinkType] = &[
    &elasticsearch::TYPE,
    &file::TYPE,
    &fluentd::TYPE,
    &http::TYPE,
    &kafka::TYPE,
    &logstash::TYPE,
    &otlp::TYPE,
    &postgres::TYPE,
    &syslog::TYPE,
    &syslog::HTTP_TYPE,
];

/// Keys that every type has.
pub fn common_keys() -> impl Iterator<Item = &'static SinkKey> {
    common::KEYS.iter()
}

/// A sink as written, of whatever type.
#[derive(Clone, Debug)]
pub struct Settings {
    filter: Option<String>,
    rate: Rate,
    fields: Vec<String>,
    without_fields: Vec<String>,
    format: Format,
    batch_records: u64,
    linger: Duration,
    queue_bytes: usize,
    limits: Limits,
    spool: Spool,
    web: Web,
    streams: Streams,
    syslog: Syslog,
    fluentd: Fluentd,
    http: Http,
    elasticsearch: Elasticsearch,
    kafka: Kafka,
    file: LogFile,
    otlp: Otlp,
    postgres: Postgres,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            filter: None,
            rate: Rate::ALL,
            fields: Vec::new(),
            without_fields: Vec::new(),
            format: Format::Json,
            batch_records: DEFAULT_BATCH_RECORDS,
            linger: DEFAULT_LINGER,
            queue_bytes: DEFAULT_QUEUE_BYTES,
            limits: Limits { concurrency: DEFAULT_CONCURRENCY, timeout: DEFAULT_TIMEOUT, attempts: None },
            spool: Spool::default(),
            web: Web::default(),
            streams: Streams::default(),
            syslog: Syslog::default(),
            fluentd: Fluentd::default(),
            http: Http::default(),
            elasticsearch: Elasticsearch::default(),
            kafka: Kafka::default(),
            file: LogFile::default(),
            otlp: Otlp::default(),
            postgres: Postgres::default(),
        }
    }
}

/// What sinks that speak HTTP have, and of this TLS those that do not.
#[derive(Clone, Debug, Default)]
struct Web {
    headers: Vec<Header>,
    header_files: Vec<HeaderFile>,
    user: Option<String>,
    password_file: Option<PathBuf>,
    token_file: Option<PathBuf>,
    tls: TlsFiles,
    server_name: Option<ServerName<'static>>,
}

/// Files of a client's TLS as written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct TlsFiles {
    ca: Option<PathBuf>,
    certificate: Option<PathBuf>,
    key: Option<PathBuf>,
}

impl TlsFiles {
    /// Whether one of our own certificate and its key is missing.
    const fn is_half_a_pair(&self) -> bool {
        self.certificate.is_some() != self.key.is_some()
    }
}

/// What was said of one sink, in the order in which it counts.
#[derive(Clone, Debug)]
pub struct Written {
    /// Its name.
    pub name: String,
    /// Keys without `sinks.NAME.`, values, and where they were written.
    pub said: Vec<(String, Given, Source)>,
}

/// The name and the key in `sinks.NAME.KEY`; `sinks.NAME` alone is its URL.
pub fn name_and_key(path: &str) -> Option<(&str, &str)> {
    let rest = path.strip_prefix(SECTION)?.strip_prefix('.')?;
    Some(rest.split_once('.').unwrap_or((rest, "url")))
}

/// The same for what is left of an environment variable: `NAME_KEY` in capitals, blanks of either as `_`.
pub fn of_environment(rest: &str) -> Option<(String, &'static str)> {
    let keys = TYPES.iter().flat_map(|one| one.keys()).map(|key| key.path).chain(["type"]);
    let named = keys.filter_map(|key| {
        let name = rest.strip_suffix(&environment_word(key))?.strip_suffix('_')?;
        (!name.is_empty()).then_some((name, key))
    });
    // `a_tls_key` is key `tls.key` of `a`.
    let (name, key) = named.min_by_key(|(name, _)| name.len())?;
    Some((name.to_ascii_lowercase().replace('_', "-"), key))
}

fn environment_word(key: &str) -> String {
    key.replace('.', "_").to_ascii_uppercase()
}

impl Written {
    /// What it should be called.
    pub fn check_name(&self) -> Option<String> {
        let Self { name, .. } = self;
        let is_plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        if name == OUTPUT {
            return Some(format!(
                "sinks.{name}: {OUTPUT} is the name of what the section {OUTPUT} describes"
            ));
        }
        let fits = name.bytes().all(is_plain)
            && name.bytes().next().is_some_and(|byte| byte.is_ascii_lowercase())
            && name.len() <= MAX_NAME;
        (!fits).then(|| {
            format!(
                "sinks.{name}: a sink's name has lower-case letters, digits and -, begins with a letter and is no longer than \
                 {MAX_NAME}"
            )
        })
    }

    /// Its type: what it says, else what its URL says.
    pub fn sink_type(&self) -> Option<&'static SinkType> {
        let last = |key| self.said.iter().rfind(|(said, ..)| said == key)?.1.text();
        match last("type") {
            Some(word) => TYPES.iter().find(|one| one.word == word).copied(),
            None => {
                let (scheme, _) = last("url")?.split_once("://")?;
                let scheme = scheme.to_ascii_lowercase();
                TYPES.iter().find(|one| one.schemes.contains(&scheme.as_str())).copied()
            }
        }
    }

    /// Why it has no type.
    pub fn without_type(&self) -> String {
        let url = self.said.iter().rfind(|(said, ..)| said == "url").and_then(|(_, url, _)| url.text());
        let replaced = url.and_then(|url| drain::replaced(url.split_once("://")?.0));
        let Self { name, .. } = self;
        if let Some(instead) = replaced {
            return format!("{SECTION}.{name}.url: {instead}");
        }
        let words = TYPES.iter().map(|one| one.word).collect::<Vec<_>>().join(", ");
        format!("{SECTION}.{name}.type: it is missing, or none of {words}")
    }

    /// The sink, as far as it can be made, and what is wrong with what was written, but for keys with `bad` values, which were told.
    pub fn build(
        &self,
        one: &SinkType,
        settings: &Settings,
        bad: &[&str],
        slow: Duration,
    ) -> (Option<SinkConfig>, Vec<String>) {
        let mut wrong = Vec::new();
        let target = (one.build)(settings, &mut wrong);
        let filter = settings.filter.as_deref().map(Filter::parse).transpose();
        let filter = filter.map_err(|error| wrong.push(("filter", error.to_string()))).unwrap_or_default();
        let Settings { fields, without_fields, .. } = settings;
        let fields = if fields.is_empty() && without_fields.is_empty() {
            None
        } else {
            let fields = Fields::parse(fields, without_fields).map(Arc::new);
            fields.map_err(|error| wrong.push(("fields", error.to_string()))).ok()
        };
        let is_said = |key: &str| self.said.iter().any(|(said, ..)| said == key);
        let mut limits = settings.limits;
        if one.keeps_order && !is_said("concurrency") {
            limits.concurrency = 1;
        }
        let batch_records = if is_said("batch_records") { settings.batch_records } else { one.batch_records };
        let common = Common {
            name: self.name.as_str().into(),
            route: Route { filter, rate: settings.rate, slow },
            batch_records,
            linger: settings.linger,
            queue_bytes: settings.queue_bytes,
            limits,
            spool: settings.spool,
        };
        let sink = target.map(|target| SinkConfig { common, lines: settings.format, fields, target });
        wrong.retain(|(key, _)| !bad.contains(key));
        (sink, wrong.into_iter().map(|(key, error)| format!("sinks.{}.{key}: {error}", self.name)).collect())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::{
        config::{Config, load},
        record::{Kind, Record},
        sinks::{
            left_behind,
            remote::{
                DEFAULT_SPOOL_AGE, DEFAULT_SPOOL_BYTES, MAX_BATCH_RECORDS, MAX_CONCURRENCY, MIN_SPOOL_BYTES,
            },
        },
    };

    /// As the first file of a spool may be called.
    const SEGMENT: &str = "00000000000000000000.0123abcd.seg";

    fn load(settings: &[&str], environment: &[(&str, &str)]) -> Result<Config, Vec<String>> {
        let sources = load::Sources {
            settings: settings.iter().map(|setting| (*setting).to_owned()).collect(),
            environment: environment.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect(),
            ..Default::default()
        };
        load::load(&sources).map_err(|mistakes| mistakes.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn sinks_are_as_they_were_said_wherever() {
        let settings = ["sinks.a.url=http://a/in", "sinks.b-2=https://b/", "sinks.a.filter=kind=connect"];
        let environment = [
            ("POD2POD_SINKS_A_TLS_SERVER_NAME", ""),
            ("POD2POD_SINKS_B_2_TLS_SERVER_NAME", "c"),
            ("POD2POD_SINKS_B_2_BATCH_RECORDS", "7"),
        ];
        let config = load(&settings, &environment[1..]).unwrap();
        let [b, a] = &config.sinks[..] else { panic!("{:?}", config.sinks) };
        assert_eq!((&*a.common.name, &*b.common.name), ("a", "b-2"));
        assert_eq!((a.common.batch_records, b.common.batch_records), (DEFAULT_BATCH_RECORDS, 7));
        // A type may have a default of its own.
        if cfg!(feature = "kafka") {
            let batches = |settings: &[&str]| load(settings, &[]).unwrap().sinks[0].common.batch_records;
            assert_eq!(batches(&["sinks.k=kafka://broker"]), kafka::TYPE.batch_records);
            assert_eq!(batches(&["sinks.k=kafka://broker", "sinks.k.batch_records=500"]), 500);
        }
        let fits = |kind| a.common.route.take(&Record { kind, ..Record::blank() }, &mut None).is_some();
        assert!(fits(Kind::Connect) && !fits(Kind::Http));
        let TargetConfig::Http(http) = &b.target else { panic!("{b:?}") };
        assert!(http.access.url.is_tls() && http.access.server_name.is_some());
        assert!(load(&settings, &environment).is_err());
    }

    #[test]
    fn every_mistake_of_every_sink_is_told_at_once() {
        let told = load(
            &[
                "sinks.output.url=http://a/",
                "sinks.Upper.url=http://a/",
                "sinks.none.url=gopher://a/",
                "sinks.none.fitler=a",
                "sinks.missing.type=http",
                "sinks.one.url=http://a/",
                "sinks.one.fitler=a",
                "sinks.one.timeout=soon",
                "sinks.one.headers=Authorization Bearer hunter2",
                "sinks.two.url=http://a/",
                "sinks.two.filter=statuz=5",
                "sinks.two.fields=nothing",
                "sinks.two.tls.key=/x",
                "sinks.=http://a/",
            ],
            &[("POD2POD_SINKS_ONE_QUEUE_BYTE", "1")],
        );
        let told = told.unwrap_err();
        for expected in [
            "POD2POD_SINKS_ONE_QUEUE_BYTE: unknown key",
            "sinks.output: output is the name of",
            "sinks.Upper: a sink's name has",
            "sinks.none.type: it is missing, or none of elasticsearch, file, fluentd, http, kafka, logstash, otlp",
            "sinks.missing.url: it is missing",
            "--set: unknown key sinks.one.fitler; did you mean sinks.one.filter?",
            "--set: sinks.one.timeout: \"soon\" is not allowed; allowed: a duration",
            "--set: sinks.one.headers: ",
            "sinks.two.filter: word 1, \"statuz=5\": no field is called statuz; did you mean status?",
            "sinks.two.fields: no field is called nothing",
            "sinks.two.tls: values are given, but its url is not one of TLS",
            "sinks.two.tls: certificate and key are needed together",
            "sinks.: a sink's name has",
        ] {
            assert!(told.iter().any(|mistake| mistake.starts_with(expected)), "{expected}: {told:#?}");
        }
        assert_eq!(told.len(), 13, "{told:#?}");
        assert!(!told.concat().contains("hunter2"));
    }

    #[test]
    fn names_and_numbers_of_sinks_have_their_limits() {
        let of = |length| load(&[&format!("sinks.{}=http://a/", "a".repeat(length))], &[]);
        assert!(of(MAX_NAME).is_ok() && of(MAX_NAME + 1).is_err());
        let many = |count: usize| {
            let all: Vec<_> = (0..count).map(|number| format!("sinks.a{number}=http://a/")).collect();
            load(&all.iter().map(String::as_str).chain(["limits.memory=1GiB"]).collect::<Vec<_>>(), &[])
        };
        assert!(many(MAX_SINKS).is_ok());
        assert!(many(MAX_SINKS + 1).unwrap_err()[0].starts_with("sinks: 17 are named"));
        for (setting, allowed) in [
            ("concurrency=0".to_owned(), false),
            (format!("concurrency={MAX_CONCURRENCY}"), true),
            (format!("concurrency={}", MAX_CONCURRENCY + 1), false),
            ("attempts=0".to_owned(), false),
            (format!("attempts={}", u32::MAX), true),
            (format!("attempts={}", u64::from(u32::MAX) + 1), false),
            ("batch_records=0".to_owned(), false),
            (format!("batch_records={MAX_BATCH_RECORDS}"), true),
            (format!("batch_records={}", MAX_BATCH_RECORDS + 1), false),
            (format!("spool.bytes={MIN_SPOOL_BYTES}"), true),
            (format!("spool.bytes={}", MIN_SPOOL_BYTES - 1), false),
            (format!("spool.bytes={DEFAULT_SPOOL_BYTES}"), true),
            (format!("spool.age={}s", DEFAULT_SPOOL_AGE.as_secs()), true),
            ("spool.age=0s".to_owned(), false),
            ("spool.bytes=off".to_owned(), true),
        ] {
            let settings = ["sinks.a=http://a/", &format!("sinks.a.{setting}")];
            assert_eq!(load(&settings, &[]).is_ok(), allowed, "{setting}");
        }
    }

    #[test]
    fn a_name_that_is_said_twice_in_a_file_is_a_mistake() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "sinks:\n  a:\n    url: http://a/\n  a:\n    url: http://b/\n").unwrap();
        let sources = load::Sources { file: Some(file.path().into()), ..Default::default() };
        let told = load::load(&sources).unwrap_err();
        assert!(told[0].to_string().contains("duplicate"), "{told:?}");
    }

    #[test]
    fn keys_of_a_type_are_unique_and_their_defaults_are_as_the_table_says() {
        for one in TYPES {
            let mut seen = HashSet::new();
            for key in one.keys() {
                assert!(seen.insert(key.path) && key.path != "type", "{}: {}", one.word, key.path);
                assert!(key.sentence.ends_with('.'), "{}", key.path);
                let mut settings = Settings::default();
                if !key.default.is_empty() {
                    assert!((key.set)(&mut settings, &Given::one(key.default)).is_some(), "{}", key.path);
                    assert_eq!(format!("{settings:?}"), format!("{:?}", Settings::default()), "{}", key.path);
                }
            }
        }
    }

    #[test]
    fn a_target_is_called_as_its_type_is() {
        for one in TYPES.iter().filter(|one| cfg!(feature = "kafka") || one.word != kafka::TYPE.word) {
            let place = match one.word {
                "elasticsearch" | "http" | "otlp" => "url=http://a/",
                "file" => "path=/a",
                "fluentd" => "url=fluentd://a",
                "kafka" => "url=kafka://a",
                "logstash" => "url=logstash://a:1",
                "postgres" => "url=postgres://a@b/c",
                "syslog-http" => "url=syslog+http://a/",
                _ => "url=syslog://a:1",
            };
            let settings = [format!("sinks.one.{place}"), format!("sinks.one.type={}", one.word)];
            let config = load(&settings.each_ref().map(String::as_str), &[]).unwrap();
            assert_eq!(config.sinks[0].target.word(), one.word);
        }
    }

    #[test]
    fn what_a_sink_of_another_name_or_type_kept_is_nobodys() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(left_behind(folder.path(), &[]), []);
        let spools = folder.path().join("spool");
        for (name, file, bytes) in
            [("a.http", SEGMENT, 7), ("a.otlp", SEGMENT, 8), ("b.http", SEGMENT, 9), ("c.http", "cursor", 10)]
        {
            std::fs::create_dir_all(spools.join(name)).unwrap();
            std::fs::write(spools.join(name).join(file), vec![0; bytes]).unwrap();
        }
        let config = load(&["sinks.a=http://a/"], &[]).unwrap();
        let expected = [(spools.join("a.otlp"), 8), (spools.join("b.http"), 9)];
        assert_eq!(left_behind(folder.path(), &config.sinks), expected);
    }
}
