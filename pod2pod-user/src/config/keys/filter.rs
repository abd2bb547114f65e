//! Keys that say which connections are wanted: the section `filter`, and `roles`.

use super::{CGROUPS, INTERFACES, Key, NETWORKS, PORTS, all, put};
use crate::filter::{
    CgroupRule, NamePattern, Network, PortRange, Roles,
    selection::{self, ObjectPattern},
};

const NAMES: &str = "a list of names and globs such as shop, kube-*";
const OBJECTS: &str = "a list of names and globs, with a namespace or without, such as web-*, shop/web-*";
const WORKLOADS: &str = "a list such as web, shop/web, deployment:shop/web-*";
const SELECTOR: &str = "a label selector such as app=web,tier in (front,back),!canary";

pub(super) static KEYS: &[Key] = &[
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
        path: "filter.namespaces",
        allowed: NAMES,
        default: "",
        sentence: "Exchanges with an end in these namespaces only. Of these lists of names one end must fit each that is given.",
        set: |config, given| put(&mut config.names.selection.only.namespaces, all(given, selection::name)),
    },
    Key {
        path: "filter.ignore_namespaces",
        allowed: NAMES,
        default: "",
        sentence: "No exchanges with an end in these namespaces.",
        set: |config, given| put(&mut config.names.selection.ignore.namespaces, all(given, selection::name)),
    },
    Key {
        path: "filter.pods",
        allowed: OBJECTS,
        default: "",
        sentence: "Exchanges with an end in these pods only.",
        set: |config, given| put(&mut config.names.selection.only.pods, all(given, ObjectPattern::parse)),
    },
    Key {
        path: "filter.ignore_pods",
        allowed: OBJECTS,
        default: "",
        sentence: "No exchanges with an end in these pods.",
        set: |config, given| put(&mut config.names.selection.ignore.pods, all(given, ObjectPattern::parse)),
    },
    Key {
        path: "filter.workloads",
        allowed: WORKLOADS,
        default: "",
        sentence: "Exchanges with an end in a pod that one of these made only.",
        set: |config, given| {
            put(&mut config.names.selection.only.workloads, all(given, ObjectPattern::parse_workload))
        },
    },
    Key {
        path: "filter.ignore_workloads",
        allowed: WORKLOADS,
        default: "",
        sentence: "No exchanges with an end in a pod that one of these made.",
        set: |config, given| {
            put(&mut config.names.selection.ignore.workloads, all(given, ObjectPattern::parse_workload))
        },
    },
    Key {
        path: "filter.containers",
        allowed: NAMES,
        default: "",
        sentence: "Exchanges whose observed end is in containers of these names only.",
        set: |config, given| put(&mut config.names.selection.only.containers, all(given, selection::name)),
    },
    Key {
        path: "filter.ignore_containers",
        allowed: NAMES,
        default: "",
        sentence: "No exchanges whose observed end is in containers of these names.",
        set: |config, given| put(&mut config.names.selection.ignore.containers, all(given, selection::name)),
    },
    Key {
        path: "filter.labels",
        allowed: SELECTOR,
        default: "",
        sentence: "Exchanges with an end in a pod with such labels only.",
        set: |config, given| put(&mut config.selectors.only, given.text().map(|text| Some(text.to_owned()))),
    },
    Key {
        path: "filter.ignore_labels",
        allowed: SELECTOR,
        default: "",
        sentence: "No exchanges with an end in a pod with such labels.",
        set: |config, given| {
            put(&mut config.selectors.ignore, given.text().map(|text| Some(text.to_owned())))
        },
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
];
