//! The one table of configuration keys: name, what is allowed, default, meaning, and where the value goes.

use std::{net::SocketAddr, time::Duration};

use pod2pod_common::limits::MAX_RINGS;
use tracing_subscriber::filter::LevelFilter;

use super::{Config, value::Given};
use crate::{
    admin::Listen,
    capture::kernel::{MAX_RING_BYTES, MIN_RING_BYTES, Pattern, ScopeChoice, SourceChoice, Workers},
    enrich::{Redaction, ignore::Subject},
    filter::{CgroupRule, NamePattern, Network, PortRange, Roles},
    logging,
    metrics::routes,
    restraint,
    sinks::{self, Format},
};

/// A configuration key.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// Levels separated by dots.
    pub path: &'static str,
    /// What may be written.
    pub allowed: &'static str,
    /// The default as it would be written; "" if there is none.
    pub default: &'static str,
    /// One sentence for people.
    pub sentence: &'static str,
    /// Puts the value where it belongs; absent if it is not allowed.
    pub set: fn(&mut Config, &Given) -> Option<()>,
}

impl Key {
    /// The environment variable for the key.
    pub fn environment(&self) -> String {
        let name = self.path.replace('.', "_").to_ascii_uppercase();
        format!("{}{name}", super::load::ENVIRONMENT_PREFIX)
    }
}

const DURATION: &str = "a duration such as 250ms, 10s, 2m";
const BYTES: &str = "a size such as 4096, 64KiB, 8MiB";
const PORTS: &str = "a list of ports and ranges such as 80, 8000-8100";
const NETWORKS: &str = "a list of addresses and networks such as 10.0.0.1, 10.0.0.0/8, fd00::/8";
const INTERFACES: &str = "a list of names and globs of interfaces such as eth0, veth*";
const CGROUPS: &str =
    "a list of units such as nginx.service, container ids (six digits or more), paths, and globs of them";
const GLOBS: &str = "a list of globs (*, ?, [abc], {a,b})";
const LISTEN: &str = "an address and port such as 127.0.0.1:9464, or off";
const HEADERS: &str = "a list of header names";
const BODY: &str = "a size from 0 to 64KiB";
const SWITCH: &str = "on, off";
const CORES: &str = "a number of cores such as 0.2, a percentage of one core, or off";
const RATE: &str = "a share from 0 to 1, or a percentage";

/// First bytes of a body that can be asked for: a record stays a line that log pipelines take.
const MAX_BODY_BYTES: usize = 64 * 1024;

/// Every key, in the order of the README.
pub static KEYS: &[Key] = &[
    Key {
        path: "capture.source",
        allowed: "auto, cgroup, tc",
        default: "auto",
        sentence: "Where packets are met: at the sockets of a cgroup, or at network interfaces; auto is cgroup where its root can be attached to.",
        set: |config, given| {
            config.capture.source = match given.text()? {
                "auto" => SourceChoice::Auto,
                "cgroup" => SourceChoice::Cgroup,
                "tc" => SourceChoice::Tc,
                _ => return None,
            };
            Some(())
        },
    },
    Key {
        path: "capture.interfaces",
        allowed: "a list of interface names and globs; veth is every host-side veth",
        default: "",
        sentence: "Interfaces to watch; without it tc watches the host-side veths, and the network cards if there is no veth.",
        set: |config, given| {
            let patterns: Option<Vec<_>> = given.items().iter().map(|text| Pattern::parse(text)).collect();
            put(&mut config.capture.interfaces, patterns)
        },
    },
    Key {
        path: "capture.cgroup",
        allowed: "a path below the cgroup v2 mount",
        default: "",
        sentence: "Watches this cgroup and those below it instead of the whole machine.",
        set: |config, given| {
            config.capture.cgroup = Some(given.text().filter(|path| !path.is_empty())?.into());
            Some(())
        },
    },
    Key {
        path: "capture.workers",
        allowed: "auto, or a number from 1 to 16",
        default: "auto",
        sentence: "Threads that read, each its own ring and its own connections; auto is one for each eight CPUs, at most four, whose rings take at most a third of limits.memory.",
        set: |config, given| {
            config.capture.workers = match given.text()? {
                "auto" => Workers::Auto,
                number => {
                    let number = number.parse().ok().filter(|number| (1..=MAX_RINGS).contains(number))?;
                    Workers::Exactly(number)
                }
            };
            Some(())
        },
    },
    Key {
        path: "capture.ring_bytes",
        allowed: "a power of two from 256KiB to 1GiB",
        default: "16MiB",
        sentence: "Ring buffer between kernel and agent, one for each worker.",
        set: |config, given| {
            let bytes = u32::try_from(given.bytes()?).ok().filter(|bytes| bytes.is_power_of_two());
            put(
                &mut config.capture.ring_bytes,
                bytes.filter(|bytes| (MIN_RING_BYTES..=MAX_RING_BYTES).contains(bytes)),
            )
        },
    },
    Key {
        path: "capture.scope",
        allowed: "auto, cgroup, cookie",
        default: "auto",
        sentence: "What tells containers with the same addresses apart: cgroup ids, or socket cookies where those do not.",
        set: |config, given| {
            config.capture.scope = match given.text()? {
                "auto" => ScopeChoice::Auto,
                "cgroup" => ScopeChoice::Cgroup,
                "cookie" => ScopeChoice::Cookie,
                _ => return None,
            };
            Some(())
        },
    },
    Key {
        path: "capture.debug_log",
        allowed: SWITCH,
        default: "off",
        sentence: "Lets the kernel side log, at debug level.",
        set: |config, given| put(&mut config.capture.debug_log, given.switch()),
    },
    Key {
        path: "filter.ports",
        allowed: PORTS,
        default: "",
        sentence: "Connections to these ports of the server only.",
        set: |config, given| put(&mut config.filter.ports, all(given, PortRange::parse)),
    },
    Key {
        path: "filter.ignore_ports",
        allowed: PORTS,
        default: "",
        sentence: "No connections to these ports of the server.",
        set: |config, given| put(&mut config.filter.ignore_ports, all(given, PortRange::parse)),
    },
    Key {
        path: "filter.cidrs",
        allowed: NETWORKS,
        default: "",
        sentence: "Connections with client or server in these only.",
        set: |config, given| put(&mut config.filter.networks, all(given, Network::parse)),
    },
    Key {
        path: "filter.ignore_cidrs",
        allowed: NETWORKS,
        default: "",
        sentence: "No connections with client or server in these.",
        set: |config, given| put(&mut config.filter.ignore_networks, all(given, Network::parse)),
    },
    Key {
        path: "filter.interfaces",
        allowed: INTERFACES,
        default: "",
        sentence: "Connections first seen at these interfaces of this network namespace only; agent only.",
        set: |config, given| put(&mut config.filter.interfaces, all(given, NamePattern::parse)),
    },
    Key {
        path: "filter.cgroups",
        allowed: CGROUPS,
        default: "",
        sentence: "Sockets of these cgroups and those below them only; agent only.",
        set: |config, given| put(&mut config.filter.cgroups, all(given, CgroupRule::parse)),
    },
    Key {
        path: "filter.expression",
        allowed: "an expression of pcap-filter(7)",
        default: "",
        sentence: "Connections of which a packet of either direction would match only.",
        set: |config, given| {
            put(&mut config.filter_expression, given.text().map(|text| Some(text.to_owned())))
        },
    },
    Key {
        path: "roles",
        allowed: "a list of server and client",
        default: "server, client",
        sentence: "Observed ends to tell of: with `server` alone an exchange inside this machine is told once.",
        set: |config, given| {
            let mut roles = Roles { server: false, client: false };
            for role in given.items() {
                match role.as_str() {
                    "server" => roles.server = true,
                    "client" => roles.client = true,
                    _ => return None,
                }
            }
            put(&mut config.filter.roles, (roles.server || roles.client).then_some(roles))
        },
    },
    Key {
        path: "http.timeout",
        allowed: DURATION,
        default: "10s",
        sentence: "A request without a response for this long is told as a timeout; a later response is told as `late`.",
        set: |config, given| put(&mut config.http.timeout, positive(given)),
    },
    Key {
        path: "http.progress",
        allowed: DURATION,
        default: "60s",
        sentence: "An exchange that is still open after this long is told once as in progress.",
        set: |config, given| put(&mut config.http.progress, positive(given)),
    },
    Key {
        path: "http.request_headers",
        allowed: HEADERS,
        default: "",
        sentence: "Request headers to capture; Host and User-Agent always are.",
        set: |config, given| headers(&mut config.http.request_headers, given),
    },
    Key {
        path: "http.response_headers",
        allowed: HEADERS,
        default: "",
        sentence: "Response headers to capture.",
        set: |config, given| headers(&mut config.http.response_headers, given),
    },
    Key {
        path: "http.body_bytes",
        allowed: BODY,
        default: "0",
        sentence: "First bytes of each body to capture, and to give once its content codings (gzip, deflate, br, zstd) are removed; bodies are not redacted.",
        set: |config, given| {
            let bytes = given.bytes().and_then(|bytes| usize::try_from(bytes).ok());
            let bytes = bytes.filter(|bytes| *bytes <= MAX_BODY_BYTES)?;
            config.http.request_body_prefix = bytes;
            config.http.response_body_prefix = bytes;
            config.enrich.content_bytes = bytes;
            Some(())
        },
    },
    Key {
        path: "redact",
        allowed: SWITCH,
        default: "on",
        sentence: "Replaces credentials in headers, URL parameters and user information.",
        set: |config, given| {
            config.enrich.redaction = if given.switch()? { Redaction::On } else { Redaction::Off };
            Some(())
        },
    },
    Key {
        path: "sampling.rate",
        allowed: RATE,
        default: "1",
        sentence: "Share of ordinary exchanges that is written; errors, failures and slow exchanges always are, and metrics count all.",
        set: |config, given| put(&mut config.enrich.rate, given.rate()),
    },
    Key {
        path: "sampling.slow",
        allowed: DURATION,
        default: "1s",
        sentence: "Exchanges at least this long are never sampled away.",
        set: |config, given| put(&mut config.enrich.slow, given.duration()),
    },
    Key {
        path: "ignore.paths",
        allowed: GLOBS,
        default: "",
        sentence: "Exchanges whose path matches are neither written nor counted in the HTTP metrics.",
        set: |config, given| ignore(config, Subject::Path, given),
    },
    Key {
        path: "ignore.hosts",
        allowed: GLOBS,
        default: "",
        sentence: "The same for the Host header, in any letter case.",
        set: |config, given| ignore(config, Subject::Host, given),
    },
    Key {
        path: "ignore.methods",
        allowed: GLOBS,
        default: "",
        sentence: "The same for the method.",
        set: |config, given| ignore(config, Subject::Method, given),
    },
    Key {
        path: "ignore.user_agents",
        allowed: GLOBS,
        default: "",
        sentence: "The same for the User-Agent header, in any letter case.",
        set: |config, given| ignore(config, Subject::UserAgent, given),
    },
    Key {
        path: "output.format",
        allowed: "auto, json, text",
        default: "auto",
        sentence: "JSON lines, or columns of text; auto is text on a terminal and JSON elsewhere.",
        set: |config, given| {
            config.output.format = match given.text()? {
                "auto" => Format::Auto,
                "json" => Format::Json,
                "text" => Format::Text,
                _ => return None,
            };
            Some(())
        },
    },
    Key {
        path: "output.file",
        allowed: "a path",
        default: "",
        sentence: "Appends records to this file instead of writing them to standard output.",
        set: |config, given| {
            config.output.file = Some(given.text().filter(|path| !path.is_empty())?.into());
            Some(())
        },
    },
    Key {
        path: "output.queue_bytes",
        allowed: BYTES,
        default: "8MiB",
        sentence: "Records queued for the output at most; live capture drops the newest beyond, replay waits.",
        set: |config, given| put(&mut config.output.queue_bytes, size(given)),
    },
    Key {
        path: "output.http.url",
        allowed: "an http:// URL without user information",
        default: "",
        sentence: "Also posts records as JSON lines to this collector.",
        set: |config, given| {
            let url = sinks::http::Url::parse(given.text()?)?;
            config.http_sink.url = Some(url);
            Some(())
        },
    },
    Key {
        path: "output.http.batch_records",
        allowed: "a number from 1 to 100000",
        default: "500",
        sentence: "Records of one POST at most.",
        set: |config, given| {
            put(
                &mut config.http_sink.batch_records,
                given.integer().filter(|count| (1..=100_000).contains(count)),
            )
        },
    },
    Key {
        path: "output.http.queue_bytes",
        allowed: BYTES,
        default: "8MiB",
        sentence: "Records queued for the collector at most; the newest are dropped beyond.",
        set: |config, given| put(&mut config.http_sink.queue_bytes, size(given)),
    },
    Key {
        path: "output.http.timeout",
        allowed: DURATION,
        default: "5s",
        sentence: "A POST that takes longer has failed; a batch is tried four times.",
        set: |config, given| put(&mut config.http_sink.timeout, positive(given)),
    },
    Key {
        path: "limits.memory",
        allowed: BYTES,
        default: "64MiB",
        sentence: "What the agent may take: its own memory, each ring once, and its kernel maps. Tables and queues get their shares of it.",
        set: |config, given| put(&mut config.limits.memory, given.bytes().filter(|bytes| *bytes > 0)),
    },
    Key {
        path: "limits.cpu",
        allowed: CORES,
        default: "off",
        sentence: "Processor time that the agent may take on average; past it bodies, then headers, then new connections are left out, and counted.",
        set: |config, given| put(&mut config.limits.cpu, given.millicores()),
    },
    Key {
        path: "metrics.listen",
        allowed: LISTEN,
        default: "127.0.0.1:9464",
        sentence: "Where /metrics, /live and /ready are served; replay serves them only if this is given.",
        set: |config, given| {
            config.metrics.listen = match given.text()? {
                "off" | "false" => Listen::Off,
                text => Listen::At(text.parse::<SocketAddr>().ok()?),
            };
            Some(())
        },
    },
    Key {
        path: "metrics.routes",
        allowed: routes::ALLOWED,
        default: "off",
        sentence: "Routes as the label `http_route` of the HTTP metrics: the first template that matches the path; `auto` learns the rest from the paths.",
        set: |config, given| put(&mut config.routes, routes::Config::read(&given.items())),
    },
    Key {
        path: "log.level",
        allowed: "off, error, warn, info, debug, trace",
        default: "warn",
        sentence: "Least severe log level that is written to standard error.",
        set: |config, given| {
            let level = given.text().map(|text| if text == "false" { "off" } else { text })?;
            let known = ["off", "error", "warn", "info", "debug", "trace"].contains(&level);
            put(&mut config.log.level, level.parse().ok().filter(|_: &LevelFilter| known))
        },
    },
    Key {
        path: "log.format",
        allowed: "text, json",
        default: "text",
        sentence: "How log lines look.",
        set: |config, given| {
            config.log.format = match given.text()? {
                "text" => logging::Format::Text,
                "json" => logging::Format::Json,
                _ => return None,
            };
            Some(())
        },
    },
];

/// What cannot be together.
pub fn contradictions(config: &Config) -> Vec<String> {
    let mut found = Vec::new();
    let http_defaults = super::HttpSink::default();
    let http_without_url = super::HttpSink { url: None, ..config.http_sink.clone() };
    if config.http_sink.url.is_none() && http_without_url != http_defaults {
        found.push("output.http: values are given, but no output.http.url to use them for");
    }
    let capture = &config.capture;
    if capture.source == SourceChoice::Cgroup && !capture.interfaces.is_empty() {
        found.push(
            "capture.source cgroup and capture.interfaces: interfaces are watched with capture.source tc",
        );
    }
    let at_interfaces = capture.source == SourceChoice::Tc || !capture.interfaces.is_empty();
    if capture.cgroup.is_some() && at_interfaces {
        found.push("capture.cgroup and interfaces: a cgroup is watched with capture.source cgroup");
    }
    if !config.filter.cgroups.is_empty() && at_interfaces {
        found.push("filter.cgroups and interfaces: only capture.source cgroup tells cgroups");
    }
    if config.output.file.is_some() && config.output.format == Format::Text {
        found.push("output.file and output.format text: columns are for terminals; a file gets JSON lines");
    }
    let mut found: Vec<String> = found.into_iter().map(str::to_owned).collect();
    let budget = restraint::budget::split(&config.wanted());
    found.extend(budget.err().map(|too_small| too_small.to_string()));
    found
}

fn put<T>(place: &mut T, value: Option<T>) -> Option<()> {
    *place = value?;
    Some(())
}

/// All items of a list, as `parse` reads them.
fn all<T>(given: &Given, parse: impl Fn(&str) -> Option<T>) -> Option<Vec<T>> {
    given.items().iter().map(|item| parse(item)).collect()
}

/// Header names, lower-case, by the token grammar (RFC 9110 5.6.2).
fn headers(place: &mut Vec<String>, given: &Given) -> Option<()> {
    let in_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    let names = given.items();
    let valid = names.iter().all(|name| !name.is_empty() && name.bytes().all(in_token));
    put(place, valid.then(|| names.iter().map(|name| name.to_ascii_lowercase()).collect()))
}

fn positive(given: &Given) -> Option<Duration> {
    given.duration().filter(|duration| !duration.is_zero())
}

fn size(given: &Given) -> Option<usize> {
    given.bytes().filter(|bytes| *bytes > 0).and_then(|bytes| usize::try_from(bytes).ok())
}

fn ignore(config: &mut Config, subject: Subject, given: &Given) -> Option<()> {
    config.enrich.ignore.set(subject, &given.items()).ok()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn defaults_are_as_the_table_says() {
        for key in KEYS.iter().filter(|key| !key.default.is_empty()) {
            let mut config = Config::default();
            assert!((key.set)(&mut config, &Given::one(key.default)).is_some(), "{}", key.path);
            if key.path == "metrics.listen" {
                assert_eq!(config.metrics.listen, Listen::At(crate::admin::DEFAULT_LISTEN));
                continue;
            }
            assert_eq!(format!("{config:?}"), format!("{:?}", Config::default()), "{}", key.path);
        }
    }

    #[test]
    fn sizes_have_their_limits() {
        let check = |path: &str, size: u64, allowed: bool| {
            let key = KEYS.iter().find(|key| key.path == path).unwrap();
            let set = (key.set)(&mut Config::default(), &Given::one(size.to_string()));
            assert_eq!(set.is_some(), allowed, "{path} {size}");
        };
        check("http.body_bytes", MAX_BODY_BYTES as u64, true);
        check("http.body_bytes", MAX_BODY_BYTES as u64 + 1, false);
        check("capture.workers", MAX_RINGS.into(), true);
        check("capture.workers", u64::from(MAX_RINGS) + 1, false);
        check("capture.workers", 0, false);
        check("capture.ring_bytes", MAX_RING_BYTES.into(), true);
        check("capture.ring_bytes", u64::from(MAX_RING_BYTES) * 2, false);
        check("capture.ring_bytes", MIN_RING_BYTES.into(), true);
        check("capture.ring_bytes", u64::from(MIN_RING_BYTES) / 2, false);
        check("capture.ring_bytes", u64::from(MIN_RING_BYTES) + 1, false);
        check("output.queue_bytes", 0, false);
    }

    #[test]
    fn cgroups_and_interfaces_exclude_each_other() {
        let count = |source, interfaces: bool, cgroup: bool| {
            let mut config = Config::default();
            config.capture.source = source;
            config.capture.interfaces.extend(interfaces.then_some(Pattern::HostVeths));
            config.capture.cgroup = cgroup.then(|| "a".into());
            contradictions(&config).len()
        };
        assert_eq!(count(SourceChoice::Auto, false, true) + count(SourceChoice::Auto, true, false), 0);
        assert_eq!(count(SourceChoice::Tc, true, false) + count(SourceChoice::Cgroup, false, true), 0);
        assert_eq!(count(SourceChoice::Auto, true, true), 1);
        assert_eq!(count(SourceChoice::Tc, false, true), 1);
        assert_eq!(count(SourceChoice::Cgroup, true, false), 1);
        let mut config = Config::default();
        config.filter.cgroups.extend(CgroupRule::parse("nginx.service"));
        assert_eq!(contradictions(&config).len(), 0);
        config.capture.source = SourceChoice::Tc;
        assert_eq!(contradictions(&config).len(), 1);
    }

    #[test]
    fn keys_and_their_environment_names_are_unique() {
        let mut seen = HashSet::new();
        for key in KEYS {
            assert!(seen.insert(key.environment()), "{}", key.path);
            assert!(key.sentence.ends_with('.'), "{}", key.path);
        }
    }

    #[test]
    fn nonsense_is_refused_by_every_key_but_paths_and_globs() {
        let any_text = ["output.file", "capture.cgroup", "filter.expression"];
        let is_glob = |key: &&Key| [GLOBS, INTERFACES, CGROUPS].contains(&key.allowed);
        for key in KEYS.iter().filter(|key| !is_glob(key) && !any_text.contains(&key.path)) {
            let mut config = Config::default();
            assert!((key.set)(&mut config, &Given::one("\u{1}?")).is_none(), "{}", key.path);
        }
    }
}
