//! ICMP errors of other nodes, by the real agent on a node's interfaces: sockets never see those that come in.

use std::{io::ErrorKind, path::Path};

use serde_json::Value;
use support::netns::Namespace;

use super::{
    agent::{AMPLE_RING, Agent, wait_until},
    connects::{Trying, check_one, parse},
    interfaces::{ADMIN, metrics, ready},
    stage::party,
};
use crate::tc::world::{Node, forward};

/// The node's pods leave it with its address.
const NAT: &str = "table inet nat {
    chain out { type nat hook postrouting priority 100; oifname uplink masquerade; }
}";

/// A node, and beyond its uplink a router with routes that lead nowhere, and a network where nobody is.
fn world() -> (Node, Namespace, Namespace) {
    let (node, router, far) = (Node::routed(), Namespace::new(), Namespace::new());
    let near = ["198.51.100.1/24", "fd08:ffff::1/64"];
    node.node.wire("uplink", &near, &router, "node", &["198.51.100.2/24", "fd08:ffff::2/64"]);
    node.node.ip("route add default via 198.51.100.2\nroute add ::/0 via fd08:ffff::2\n");
    node.node.run_with("nft -f -", NAT);
    router.wire("far", &["10.9.1.1/24", "fd09:1::1/64"], &far, "router", &[]);
    forward(&router);
    for (at, kind) in [(1, "unreachable"), (2, "prohibit")] {
        router.ip(&format!("route add {kind} 10.9.2.{at}\nroute add {kind} fd09:2::{at}\n"));
    }
    (node, router, far)
}

#[test]
fn errors_of_another_node_are_told_once_through_nat() {
    let (node, _router, _far) = world();
    // A router is sparing with errors: one may come for a later copy of the SYN only.
    let settings = [AMPLE_RING, "capture.interfaces=veth, uplink", "connect.timeout=60s"];
    let agent = Agent::launch(party(&node.node.path(), Path::new("-")), None, ADMIN, &settings);
    let mut here = ready(&node, &agent);
    // What is tried, in both versions, with type and code of the answer and what the client's kernel makes of it.
    let cases = [
        ("no route", ["10.9.2.1:80", "[fd09:2::1]:80"], [(3, 1), (1, 0)]),
        ("forbidden", ["10.9.2.2:80", "[fd09:2::2]:80"], [(3, 13), (1, 1)]),
        ("nobody there", ["10.9.1.9:80", "[fd09:1::9]:80"], [(3, 1), (1, 3)]),
    ];
    let tried = cases.map(|(_, servers, _)| servers.map(|server| Trying::begin(&node.one, server)));
    for ((what, ..), tried) in cases.iter().zip(&tried) {
        let ends = tried.each_ref().map(|tried| tried.end());
        let is_so = |end: &Option<ErrorKind>| {
            use ErrorKind::{HostUnreachable, NetworkUnreachable, PermissionDenied};
            matches!(end, Some(HostUnreachable | NetworkUnreachable | PermissionDenied))
        };
        assert!(ends.iter().all(is_so), "{what}: {ends:?}");
    }
    wait_until("all are told at the pod, and left alone at the uplink", || {
        let metrics = metrics(&mut here);
        let told = metrics.sum("connects_total", "outcome=\"unreachable\"");
        (told, metrics.counter("filter_refused_attempts")) == (6, 6)
    });
    let metrics = metrics(&mut here);
    assert_eq!((metrics.sum("ledger_balanced", ""), metrics.counter("sightings_duplicates")), (1, 6));
    // Each at both interfaces, and of those whom nobody answers one a SYN that waited.
    assert!(metrics.counter("kernel_unreachables") >= 12, "{}", metrics.text());
    let records: Vec<Value> = parse(&agent.end().text);
    for ((_, _, codes), tried) in cases.iter().zip(&tried) {
        for (tried, code) in tried.iter().zip(codes) {
            check_one(&records, tried, "unreachable", Some(*code));
        }
    }
    assert_eq!(records.len(), 6, "{records:?}");
}
