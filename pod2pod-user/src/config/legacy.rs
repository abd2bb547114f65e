//! The environment of kubernetes-pod2pod-log: what each of its names does here, or what takes its place. One table, from which the
//! README's is made. Whatever else is said wins over it.

use super::value::Given;

/// A name of its environment.
pub struct Name {
    /// As it is set.
    pub name: &'static str,
    /// What it does here, or what to use instead: part of a sentence.
    pub meaning: &'static str,
    take: fn(&str) -> Taken,
}

/// What a value comes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Taken {
    /// A key has this value.
    Set(&'static str, Given),
    /// It is what happens anyway.
    Nothing,
    /// Something else is to be used.
    Replaced,
}

impl Name {
    /// What `value` comes to. A variable that Kubernetes sets for a Service of the same name ("service links") is none of ours.
    pub fn take(&self, value: &str) -> Taken {
        if value.is_empty() || is_link(value) { Taken::Nothing } else { (self.take)(value) }
    }
}

/// Whether Kubernetes set it.
fn is_link(value: &str) -> bool {
    ["tcp://", "udp://", "sctp://"].iter().any(|scheme| value.starts_with(scheme))
}

/// What chooses a sink.
const SINKS: &str = "`fluentd`, `logstash` or `elasticsearch`: a sink of that type and name, with `format: pod2pod-log`, beside standard output; without \
                     it one for each host below. `sinks.` of that type or name wins";

/// A sink of its, which is of the type and has the name that it is chosen by.
struct OldSink {
    /// Type, name and choice.
    pub word: &'static str,
    /// Who says where it is, the first first.
    hosts: &'static [&'static str],
    ports: &'static [&'static str],
    /// Where it is if nobody says so.
    usual_port: &'static str,
    /// What else is said of it: the URL's scheme, and a key.
    rest: fn(&Environment<'_>) -> Rest,
}

/// A scheme, and perhaps a key and its value.
type Rest = (String, Option<(&'static str, String)>);

/// What is set and is meant for us.
struct Environment<'a>(&'a [(String, String)]);

impl Environment<'_> {
    fn first(&self, names: &[&'static str]) -> Option<(&'static str, &str)> {
        let set = |name: &&'static str| Some((*name, self.value(name)?));
        names.iter().find_map(set)
    }

    fn value(&self, name: &str) -> Option<&str> {
        let (_, value) = self.0.iter().find(|(other, _)| other == name)?;
        let value = value.trim();
        (!value.is_empty() && !is_link(value)).then_some(value)
    }
}

/// What it sends records with if nothing else is said: the tag, and the index.
const USUAL_NAME: &str = "k8s-pod2pod-log";
const USUAL_HOST: &str = "localhost";
const CHOICE: &str = "SEND_LOGS_TO";

const SINKS_BY_WORD: [OldSink; 3] = [
    OldSink {
        word: "fluentd",
        hosts: &["FLUENTD_HOST", "FLUENTHOST"],
        ports: &["FLUENTD_PORT", "FLUENTPORT"],
        usual_port: "2123",
        rest: |set| {
            let tag = set.value("FLUENTD_TAG").unwrap_or(USUAL_NAME);
            ("fluentd".to_owned(), Some(("tag", format!("{tag}.follow"))))
        },
    },
    OldSink {
        word: "logstash",
        hosts: &["LOGSTASH_HOST"],
        ports: &["LOGSTASH_PORT"],
        usual_port: "2123",
        rest: |set| (format!("logstash+{}", set.value("LOGSTASH_TYPE").unwrap_or("udp")), None),
    },
    OldSink {
        word: "elasticsearch",
        hosts: &["ELASTICSEARCH_HOST"],
        ports: &["ELASTICSEARCH_PORT"],
        usual_port: "9200",
        rest: |set| {
            let index = set.value("ELASTICSEARCH_INDEX").unwrap_or(USUAL_NAME);
            ("http".to_owned(), Some(("index", index.to_owned())))
        },
    },
];

/// A sink that its environment asks for.
pub struct Asked {
    /// Its type and its name.
    pub word: &'static str,
    /// The variable that asks for it.
    pub by: &'static str,
    /// Keys without `sinks.NAME.`, and their values.
    pub said: Vec<(&'static str, String)>,
}

/// The sinks that its environment asks for: the one that is chosen, or each whose host is set.
pub fn sinks(environment: &[(String, String)]) -> Vec<Asked> {
    let set = Environment(environment);
    let chosen = set.value(CHOICE);
    let asked = SINKS_BY_WORD.iter().filter_map(|sink| {
        let host = set.first(sink.hosts);
        let by = match (chosen, host) {
            (Some(word), _) if word != sink.word => return None,
            (_, Some((name, _))) => name,
            (Some(_), None) => CHOICE,
            (None, None) => return None,
        };
        let host = host.map_or(USUAL_HOST, |(_, host)| host);
        let host =
            if host.contains(':') && !host.starts_with('[') { format!("[{host}]") } else { host.to_owned() };
        let port = set.first(sink.ports).map_or(sink.usual_port, |(_, port)| port);
        let (scheme, more) = (sink.rest)(&set);
        let url = format!("{scheme}://{host}:{port}");
        let said = [("type", sink.word.to_owned()), ("url", url), ("format", "pod2pod-log".to_owned())];
        Some(Asked { word: sink.word, by, said: said.into_iter().chain(more).collect() })
    });
    asked.collect()
}

/// The old format's ignore list, if none is given.
pub const IGNORED_TARGETS: [&str; 2] = ["/info", "/health"];

/// Every name that it reads, and the two that its README has.
pub const NAMES: &[Name] = &[
    name("IFACE", "`capture.interfaces`, and so `capture.source: tc`", |value| {
        Taken::Set("capture.interfaces", Given::one(value))
    }),
    name("IGNORE_URLS", "`ignore.targets`", |value| Taken::Set("ignore.targets", Given::one(value))),
    name("CAP_FILTER", "`filter.expression`; without it every port is watched, not port 80 alone", |value| {
        Taken::Set("filter.expression", Given::one(value))
    }),
    name("TIMEOUT_AFTER_MS", "`http.timeout`, in milliseconds", |value| {
        Taken::Set("http.timeout", Given::one(format!("{}ms", value.trim())))
    }),
    name("TIMEOUT_INTERVAL_CHECK", "nothing to set: time-outs are told when they are due", |_| {
        Taken::Replaced
    }),
    name(
        "MODE",
        "of `development`: `capture.interfaces: lo`, without a server for tests; `prod` and `debug` did nothing",
        |value| match value {
            "prod" | "debug" => Taken::Nothing,
            "development" => Taken::Set("capture.interfaces", Given::one("lo")),
            _ => Taken::Replaced,
        },
    ),
    name(
        "LOGHEADERS",
        "name headers in `http.request_headers`: they are what `headers` of the old record has",
        |_| Taken::Replaced,
    ),
    name("SEND_LOGS_TO", SINKS, |value| {
        let is_known = value == "stdout" || SINKS_BY_WORD.iter().any(|sink| sink.word == value);
        if is_known { Taken::Nothing } else { Taken::Replaced }
    }),
    name("FLUENTD_HOST", "`sinks.fluentd.url`; `localhost` if absent", |_| Taken::Nothing),
    name("FLUENTD_PORT", "its port; 2123 if absent", |_| Taken::Nothing),
    name("FLUENTD_TAG", "`sinks.fluentd.tag`, with `.follow` behind it; `k8s-pod2pod-log` if absent", |_| {
        Taken::Nothing
    }),
    name("FLUENTHOST", "`FLUENTD_HOST` if that is absent", |_| Taken::Nothing),
    name("FLUENTPORT", "`FLUENTD_PORT` if that is absent", |_| Taken::Nothing),
    name("LOGSTASH_HOST", "`sinks.logstash.url`; `localhost` if absent", |_| Taken::Nothing),
    name("LOGSTASH_PORT", "its port; 2123 if absent", |_| Taken::Nothing),
    name("LOGSTASH_TYPE", "`udp` or `tcp`, in `sinks.logstash.url`; `udp` if absent", |_| Taken::Nothing),
    name("ELASTICSEARCH_HOST", "`sinks.elasticsearch.url`; `localhost` if absent", |_| Taken::Nothing),
    name("ELASTICSEARCH_PORT", "its port; 9200 if absent", |_| Taken::Nothing),
    name("ELASTICSEARCH_LOG", "`log.level` is that of our own log", |_| Taken::Replaced),
    name("ELASTICSEARCH_API_VERSION", "nothing to set: `_bulk` is the same in all of them", |_| {
        Taken::Replaced
    }),
    name("ELASTICSEARCH_INDEX", "`sinks.elasticsearch.index`; `k8s-pod2pod-log` if absent", |_| {
        Taken::Nothing
    }),
    name("ELASTICSEARCH_TYPE", "nothing to set: documents have no types any more", |_| Taken::Replaced),
];

const fn name(name: &'static str, meaning: &'static str, take: fn(&str) -> Taken) -> Name {
    Name { name, meaning, take }
}

#[cfg(test)]
mod tests {
    use std::{collections::HashSet, time::Duration};

    use super::*;
    use crate::config::load::{Sources, load};

    fn with(environment: &[(&str, &str)], settings: &[&str]) -> Sources {
        Sources {
            environment: environment.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect(),
            settings: settings.iter().map(|setting| (*setting).into()).collect(),
            live: true,
            ..Sources::default()
        }
    }

    #[test]
    fn every_name_of_the_old_environment_has_its_meaning() {
        let names: HashSet<_> = NAMES.iter().map(|name| name.name).collect();
        assert_eq!(names.len(), NAMES.len());
        for name in NAMES {
            assert!(!name.meaning.is_empty() && !name.meaning.ends_with('.'), "{}", name.name);
            let config = load(&with(&[(name.name, "")], &[])).unwrap();
            assert!(config.warnings().is_empty(), "{}: an empty one is as none", name.name);
        }
    }

    #[test]
    fn values_are_taken_or_answered_with_what_to_use() {
        for (name, value, key, told) in [
            ("IFACE", "lo", "capture.interfaces", "lo"),
            ("MODE", "development", "capture.interfaces", "lo"),
            ("IGNORE_URLS", "/info?x=1,/b", "ignore.targets", "/info?x=1,/b"),
            ("TIMEOUT_AFTER_MS", "2500", "http.timeout", "2500ms"),
        ] {
            let config = load(&with(&[(name, value)], &[])).unwrap();
            let said = config.said.iter().find(|said| said.key == key).unwrap();
            assert_eq!((said.text.as_str(), said.source.as_str()), (told, name));
            assert_eq!(config.warnings(), [format!("{name}: taken as {key}: {told}")]);
        }
        for (name, value, part) in [
            ("SEND_LOGS_TO", "kafka", "elasticsearch"),
            ("ELASTICSEARCH_TYPE", "x", "no types"),
            ("LOGHEADERS", "0", "http.request_headers"),
            ("TIMEOUT_INTERVAL_CHECK", "2000", "when they are due"),
            ("MODE", "other", "capture.interfaces"),
        ] {
            let config = load(&with(&[(name, value)], &[])).unwrap();
            let [told] = &config.warnings()[..] else { panic!("{name}: {:?}", config.warnings()) };
            assert!(told.starts_with(&format!("{name} is not used here: ")) && told.contains(part), "{told}");
        }
        for (name, value) in [
            ("MODE", "prod"),
            ("MODE", "debug"),
            ("SEND_LOGS_TO", "stdout"),
            ("LOGSTASH_PORT", "tcp://10.96.0.7:5044"),
            ("ELASTICSEARCH_PORT", "tcp://10.96.0.8:9200"),
        ] {
            assert!(load(&with(&[(name, value)], &[])).unwrap().warnings().is_empty(), "{name}");
        }
    }

    #[test]
    fn its_sinks_are_sinks_here() {
        let said = |environment: &[(&str, &str)], settings: &[&str]| {
            let config = load(&with(environment, settings)).unwrap();
            let said = config
                .said
                .iter()
                .filter(|said| !said.key.ends_with(".type") && !said.key.ends_with(".format"));
            (said.map(|said| format!("{}={}", said.key, said.text)).collect::<Vec<_>>(), config.warnings())
        };
        for (environment, expected) in [
            (&[("SEND_LOGS_TO", "stdout"), ("FLUENTD_HOST", "f")][..], &[][..]),
            (&[("FLUENTD_PORT", "1")], &[]),
            (
                &[("SEND_LOGS_TO", "fluentd")],
                &["sinks.fluentd.url=fluentd://localhost:2123", "sinks.fluentd.tag=k8s-pod2pod-log.follow"],
            ),
            (
                &[("FLUENTHOST", "f"), ("FLUENTPORT", "24224"), ("FLUENTD_TAG", "a")],
                &["sinks.fluentd.url=fluentd://f:24224", "sinks.fluentd.tag=a.follow"],
            ),
            (
                &[("LOGSTASH_HOST", "fd00::1"), ("LOGSTASH_PORT", "tcp://10.96.0.7:1")],
                &["sinks.logstash.url=logstash+udp://[fd00::1]:2123"],
            ),
            (
                &[("LOGSTASH_HOST", "l"), ("LOGSTASH_TYPE", "tcp")],
                &["sinks.logstash.url=logstash+tcp://l:2123"],
            ),
            (
                &[
                    ("ELASTICSEARCH_HOST", "e"),
                    ("ELASTICSEARCH_INDEX", "web"),
                    ("LOGSTASH_HOST", "l"),
                    ("SEND_LOGS_TO", "elasticsearch"),
                ],
                &["sinks.elasticsearch.url=http://e:9200", "sinks.elasticsearch.index=web"],
            ),
        ] {
            let (said, warnings) = said(environment, &[]);
            assert_eq!(said, expected, "{environment:?}");
            assert_eq!(warnings.len(), usize::from(!expected.is_empty()), "{warnings:?}");
        }
        let (said, warnings) = said(&[("FLUENTD_HOST", "f")], &["sinks.other=fluentd://g"]);
        assert_eq!(said, ["sinks.other.url=fluentd://g"]);
        assert_eq!(warnings, ["FLUENTD_HOST is not used: sinks.other is of type fluentd or has its name"]);
        let mistakes = load(&with(&[("LOGSTASH_HOST", "l"), ("LOGSTASH_TYPE", "memory")], &[])).unwrap_err();
        assert!(mistakes[0].to_string().starts_with("LOGSTASH_HOST: sinks.logstash.url: "), "{mistakes:?}");
    }

    #[test]
    fn what_is_said_otherwise_wins_and_mistakes_are_told() {
        let config = load(&with(&[("TIMEOUT_AFTER_MS", "2500")], &["http.timeout=3s"])).unwrap();
        assert_eq!(config.http.timeout, Duration::from_secs(3));
        for (name, value, part) in [
            ("TIMEOUT_AFTER_MS", "soon", "TIMEOUT_AFTER_MS: http.timeout: \"soonms\" is not allowed"),
            ("IFACE", "nowhere0", "capture.interfaces: there is no interface nowhere0"),
        ] {
            let mistakes = load(&with(&[(name, value)], &[])).unwrap_err();
            assert!(mistakes.iter().any(|mistake| mistake.to_string().contains(part)), "{mistakes:?}");
        }
        // Files are not watched, and have no interfaces.
        let replay = Sources { live: false, ..with(&[("IFACE", "nowhere0"), ("MODE", "development")], &[]) };
        let config = load(&replay).unwrap();
        assert!(config.said.is_empty() && config.warnings().is_empty());
    }
}
