//! The one table of configuration keys: name, what is allowed, default, meaning, and where the value goes. A file a section;
//! here is what they share, and what cannot be together.

mod capture;
mod filter;
mod ipvs;
mod kubernetes;
mod output;
mod process;
mod records;

use std::time::Duration;

use super::{Config, targets, value::Given};
use crate::{capture::kernel::SourceChoice, kubernetes_api, mode::Mode, restraint, sinks::Format, watch};

/// A configuration key, of `C`.
#[derive(Clone, Copy, Debug)]
pub struct Key<C: 'static = Config> {
    /// Levels separated by dots.
    pub path: &'static str,
    /// What may be written.
    pub allowed: &'static str,
    /// The default as it would be written; "" if there is none.
    pub default: &'static str,
    /// One sentence for people.
    pub sentence: &'static str,
    /// Puts the value where it belongs; absent if it is not allowed.
    pub set: fn(&mut C, &Given) -> Option<()>,
}

impl Key {
    /// The environment variable for the key.
    pub fn environment(&self) -> String {
        let name = self.path.replace('.', "_").to_ascii_uppercase();
        format!("{}{name}", super::load::ENVIRONMENT_PREFIX)
    }
}

pub(super) const DURATION: &str = "a duration such as 250ms, 10s, 2m";
pub(super) const BYTES: &str = "a size such as 4096, 64KiB, 8MiB";
const PORTS: &str = "a list of ports and ranges such as 80, 8000-8100";
const NETWORKS: &str = "a list of addresses and networks such as 10.0.0.1, 10.0.0.0/8, fd00::/8";
const INTERFACES: &str = "a list of names and globs of interfaces such as eth0, veth*";
const CGROUPS: &str =
    "a list of units such as nginx.service, container ids (six digits or more), paths, and globs of them";
const GLOBS: &str = "a list of globs (*, ?, [abc], {a,b})";
const SWITCH: &str = "on, off";
const MODE: &str = "auto, on, off";

/// Every key, in the order of the README.
pub fn keys() -> impl Iterator<Item = &'static Key> {
    [capture::KEYS, filter::KEYS, records::KEYS, output::KEYS, ipvs::KEYS, kubernetes::KEYS, process::KEYS]
        .into_iter()
        .flatten()
}

/// What cannot be together.
pub fn contradictions(config: &Config) -> Vec<String> {
    let mut found = Vec::new();
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
    if config.output.file.is_some() && config.output.format == Some(Format::Text) {
        found.push("output.file and output.format text: columns are for terminals; a file gets JSON lines");
    }
    if config.output.file.is_some() && config.output.format.is_none() {
        found.push("output.file and output.format none: nothing would be written to it");
    }
    let pcap_without_file = crate::pcap::Config { file: None, ..config.pcap.clone() };
    if config.pcap.file.is_none() && pcap_without_file != crate::pcap::Config::default() {
        found.push("capture.write_pcap: values are given, but no capture.write_pcap.file to use them for");
    }
    let ipvs_switched_on = watch::config::Config { mode: Mode::Auto, ..config.ipvs.clone() };
    if config.ipvs.mode == Mode::Off && ipvs_switched_on != watch::config::Config::default() {
        found.push("ipvs: values are given, but ipvs.mode is off");
    }
    found.extend(config.admin.contradiction());
    let cluster = &config.kubernetes;
    let cluster_switched_on = kubernetes_api::Config { mode: Mode::Auto, ..cluster.clone() };
    if cluster.mode == Mode::Off && cluster_switched_on != kubernetes_api::Config::default() {
        found.push("kubernetes: values are given, but kubernetes.mode is off");
    }
    let rules = &config.names.rules;
    if !rules.headers && !rules.more_headers.is_empty() {
        found.push("kubernetes.pods_headers: names are given, but pods may not ask for headers (kubernetes.pods_may)");
    }
    if !rules.body_bytes && rules.more_body_bytes > 0 {
        found.push(
            "kubernetes.pods_body_bytes: a size is given, but pods may not ask for body-bytes (kubernetes.pods_may)",
        );
    }
    let mut found: Vec<String> = found.into_iter().map(str::to_owned).collect();
    found.extend(targets::shared_files(config));
    let budget = restraint::budget::split(&config.wanted());
    found.extend(budget.err().map(|too_small| too_small.to_string()));
    found
}

pub(super) fn put<T>(place: &mut T, value: Option<T>) -> Option<()> {
    *place = value?;
    Some(())
}

/// All items of a list, as `parse` reads them.
pub(super) fn all<T>(given: &Given, parse: impl Fn(&str) -> Option<T>) -> Option<Vec<T>> {
    given.items().iter().map(|item| parse(item)).collect()
}

pub(super) fn positive(given: &Given) -> Option<Duration> {
    given.duration().filter(|duration| !duration.is_zero())
}

pub(super) fn size(given: &Given) -> Option<usize> {
    given.bytes().filter(|bytes| *bytes > 0).and_then(|bytes| usize::try_from(bytes).ok())
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use pod2pod_common::limits::MAX_RINGS;

    use super::{records::MAX_BODY_BYTES, *};
    use crate::{
        admin::Listen,
        capture::kernel::{MAX_RING_BYTES, MIN_RING_BYTES, Pattern},
        filter::CgroupRule,
        pcap::{MAX_FILES, MIN_FILE_BYTES},
    };

    #[test]
    fn defaults_are_as_the_table_says() {
        for key in keys().filter(|key| !key.default.is_empty()) {
            let mut config = Config::default();
            assert!((key.set)(&mut config, &Given::one(key.default)).is_some(), "{}", key.path);
            if key.path == "metrics.listen" {
                assert_eq!(config.metrics.listen, Listen::At(crate::admin::DEFAULT_LISTEN));
                continue;
            }
            if key.path == "admin.listen" {
                assert_eq!(config.admin.listen, Listen::At(crate::admin::DEFAULT_ADMIN_LISTEN));
                continue;
            }
            assert_eq!(format!("{config:?}"), format!("{:?}", Config::default()), "{}", key.path);
        }
    }

    #[test]
    fn sizes_have_their_limits() {
        let check = |path: &str, size: u64, allowed: bool| {
            let key = keys().find(|key| key.path == path).unwrap();
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
        check("capture.write_pcap.max_file_bytes", MIN_FILE_BYTES, true);
        check("capture.write_pcap.max_file_bytes", MIN_FILE_BYTES - 1, false);
        check("capture.write_pcap.max_files", 0, false);
        check("capture.write_pcap.max_files", MAX_FILES, true);
        check("capture.write_pcap.max_files", MAX_FILES + 1, false);
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
    fn ipvs_has_its_limits_and_is_not_configured_when_off() {
        let set = |path: &str, value: &str, config: &mut Config| {
            let key = keys().find(|key| key.path == path).unwrap();
            (key.set)(config, &Given::one(value)).is_some()
        };
        for (path, value, allowed) in [
            ("ipvs.interval", "100ms", true),
            ("ipvs.interval", "99ms", false),
            ("ipvs.interval", "1m", true),
            ("ipvs.interval", "61s", false),
            ("ipvs.interval", "5", false),
            ("ipvs.mode", "on", true),
            ("ipvs.mode", "maybe", false),
            ("ipvs.path", "", false),
            ("ipvs.services", "10.96.0.0/16, [fd00:96::10]:80", true),
            ("ipvs.services", "10.96.0.0/16, web", false),
        ] {
            assert_eq!(set(path, value, &mut Config::default()), allowed, "{path} {value}");
        }
        let mut config = Config::default();
        assert!(set("ipvs.mode", "off", &mut config));
        assert_eq!(contradictions(&config).len(), 0);
        assert!(set("ipvs.interval", "10s", &mut config));
        assert_eq!(contradictions(&config).len(), 1);
    }

    #[test]
    fn kubernetes_is_not_configured_when_off() {
        let set = |path: &str, value: &str, config: &mut Config| {
            let key = keys().find(|key| key.path == path).unwrap();
            (key.set)(config, &Given::one(value)).is_some()
        };
        for (path, value, allowed) in [
            ("kubernetes.mode", "maybe", false),
            ("kubernetes.node", "node-1.example", true),
            ("kubernetes.node", "", false),
            ("kubernetes.labels", "app, app.kubernetes.io/name", true),
            ("kubernetes.annotations", "a=b", false),
            ("kubernetes.pod_networks", "10.244.0.0/16, fd00::/48", true),
            ("kubernetes.pod_networks", "10.244.0.0", false),
            ("kubernetes.kubeconfig", "", false),
        ] {
            assert_eq!(set(path, value, &mut Config::default()), allowed, "{path} {value}");
        }
        let mut config = Config::default();
        assert!(set("kubernetes.mode", "off", &mut config));
        assert_eq!(contradictions(&config).len(), 0);
        assert!(set("kubernetes.node", "a", &mut config));
        assert_eq!(contradictions(&config).len(), 1);
    }

    #[test]
    fn a_packet_file_is_named_and_is_its_own() {
        let count = |file: Option<&str>, output: Option<&str>, max_files| {
            let mut config = Config::default();
            (config.pcap.file, config.output.file) = (file.map(Into::into), output.map(Into::into));
            config.pcap.max_files = max_files;
            contradictions(&config).len()
        };
        let default = crate::pcap::DEFAULT_MAX_FILES;
        assert_eq!(count(Some("a"), Some("b"), default + 1) + count(None, None, default), 0);
        assert_eq!((count(None, None, default + 1), count(Some("a"), Some("a"), default)), (1, 1));
    }

    #[test]
    fn keys_and_their_environment_names_are_unique() {
        let mut seen = HashSet::new();
        for key in keys() {
            assert!(seen.insert(key.environment()), "{}", key.path);
            assert!(key.sentence.ends_with('.'), "{}", key.path);
        }
    }

    #[test]
    fn nonsense_is_refused_by_every_key_but_paths_and_globs() {
        let any_text = [
            "admin.tls_certificate",
            "admin.tls_key",
            "admin.token_file",
            "data_dir",
            "output.file",
            "capture.write_pcap.file",
            "capture.cgroup",
            "filter.expression",
            "filter.labels",
            "filter.ignore_labels",
            "ipvs.path",
            "kubernetes.kubeconfig",
            "data_dir",
        ];
        let is_glob = |key: &&Key| [GLOBS, INTERFACES, CGROUPS].contains(&key.allowed);
        for key in keys().filter(|key| !is_glob(key) && !any_text.contains(&key.path)) {
            let mut config = Config::default();
            assert!((key.set)(&mut config, &Given::one("\u{1}?")).is_none(), "{}", key.path);
        }
    }
}
