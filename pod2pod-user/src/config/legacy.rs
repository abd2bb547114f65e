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
        let is_link = ["tcp://", "udp://", "sctp://"].iter().any(|scheme| value.starts_with(scheme));
        if value.is_empty() || is_link { Taken::Nothing } else { (self.take)(value) }
    }
}

/// Where records can go instead.
const ELSEWHERE: &str =
    "`sinks.NAME` sends records elsewhere; log pipelines take them from standard output or `output.file`";

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
    name("SEND_LOGS_TO", ELSEWHERE, |value| if value == "stdout" { Taken::Nothing } else { Taken::Replaced }),
    name("FLUENTD_HOST", ELSEWHERE, |_| Taken::Replaced),
    name("FLUENTD_PORT", ELSEWHERE, |_| Taken::Replaced),
    name("FLUENTD_TAG", "a part of `sinks.NAME.url`, for Fluentd's input `http`", |_| Taken::Replaced),
    name("FLUENTHOST", ELSEWHERE, |_| Taken::Replaced),
    name("FLUENTPORT", ELSEWHERE, |_| Taken::Replaced),
    name("LOGSTASH_HOST", ELSEWHERE, |_| Taken::Replaced),
    name("LOGSTASH_PORT", ELSEWHERE, |_| Taken::Replaced),
    name("LOGSTASH_TYPE", "nothing to choose: `sinks.NAME.url` posts to Logstash's input `http`", |_| {
        Taken::Replaced
    }),
    name("ELASTICSEARCH_HOST", ELSEWHERE, |_| Taken::Replaced),
    name("ELASTICSEARCH_PORT", ELSEWHERE, |_| Taken::Replaced),
    name("ELASTICSEARCH_LOG", "`log.level` is that of our own log", |_| Taken::Replaced),
    name("ELASTICSEARCH_API_VERSION", "the log pipeline's to know", |_| Taken::Replaced),
    name("ELASTICSEARCH_INDEX", "the log pipeline's to choose", |_| Taken::Replaced),
    name("ELASTICSEARCH_TYPE", "the log pipeline's to choose", |_| Taken::Replaced),
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
            ("SEND_LOGS_TO", "fluentd", "sinks.NAME"),
            ("FLUENTHOST", "fluentd.logs", "sinks.NAME"),
            ("ELASTICSEARCH_INDEX", "x", "log pipeline"),
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
