//! The real agent on a node's interfaces: each end once, though several interfaces see it, and nothing of it stays.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::Path,
};

use nix::sys::signal::Signal;
use support::{metrics::Metrics, netns::Namespace};

use super::{
    agent::{AMPLE_RING, Agent, get, wait_until},
    http::{Body, Client, Server},
    seen::{End, check_end},
    stage::{Place, party},
};
use crate::tc::world::{Node, ONE, TWO, VETH_ONE, has_tcx, said};

pub(super) const ADMIN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 9464);
/// Where the server of the second pod is, and what the node calls it towards the outside.
const PORT: u16 = 8080;
/// The node's address outside, and somebody there.
const UPLINK: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
const OUTSIDE: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 2);
/// What a node does for its pods: their packets leave as its own, and one of its ports is a pod's.
const NAT: &str = "table ip nat {
    chain out { type nat hook postrouting priority 100; oifname uplink masquerade; }
    chain in { type nat hook prerouting priority -100; iifname uplink tcp dport 8080 dnat to 10.8.2.2:8080; }
}";

/// An agent in the node's namespace, and somebody there who asks it.
pub(super) fn watch(node: &Node, interfaces: &str) -> (Agent, Place) {
    let interfaces = format!("capture.interfaces={interfaces}");
    let party = party(&node.node.path(), Path::new("-"));
    let agent = Agent::launch(party, None, ADMIN, &[AMPLE_RING, &interfaces]);
    let here = ready(node, &agent);
    (agent, here)
}

/// Somebody in the node's namespace, once `agent` there is ready.
pub(super) fn ready(node: &Node, agent: &Agent) -> Place {
    let mut here = place(&node.node);
    wait_until("ready", || {
        assert!(!agent.log().contains("pod2pod: "), "it ended: {}", agent.log());
        here.try_connect(None, ADMIN).is_ok_and(|stream| get(stream, "/ready").starts_with("HTTP/1.1 200"))
    });
    here
}

pub(super) fn place(namespace: &Namespace) -> Place {
    Place::new(&namespace.path(), Path::new("-"))
}

pub(super) fn metrics(here: &mut Place) -> Metrics {
    Metrics::parse(&get(here.connect(ADMIN), "/metrics"))
}

pub(super) fn address(text: &str) -> SocketAddr {
    SocketAddr::new(text.parse().unwrap(), PORT)
}

#[test]
fn an_end_that_two_interfaces_see_is_told_once_through_nat() {
    let node = Node::routed();
    let outside = Namespace::new();
    node.node.wire("uplink", &[&format!("{UPLINK}/24")], &outside, "eth0", &[&format!("{OUTSIDE}/24")]);
    node.node.run(&format!("ip route add default via {OUTSIDE}"));
    node.node.run_with("nft -f -", NAT);
    let (agent, mut here) = watch(&node, "veth, uplink");
    let [mut one, mut two, mut outside] = [&node.one, &node.two, &outside].map(place);
    let _servers = [outside.listen((OUTSIDE, PORT)), two.listen(address(TWO))].map(Server::start);
    let mut out = Client::connect(&mut one, (OUTSIDE, PORT).into());
    out.post("/out/length/3000", Body::Length, 2000);
    let mut into = Client::connect(&mut outside, (UPLINK, PORT).into());
    into.post("/in/chunked/2000", Body::Chunked, 3000);
    let mut within = Client::connect(&mut one, address(TWO));
    within.get("/within/get");
    wait_until("two sightings are left alone", || {
        let metrics = metrics(&mut here);
        metrics.counter("filter_refused_duplicate") == 2 && metrics.counter("sightings_duplicates") == 2
    });
    assert_eq!(metrics(&mut here).counter("interfaces_attaches"), 3);
    let records = agent.end().records();
    check_end(End::Client, &records, &[out.done, within.done.clone()].concat());
    check_end(End::Server, &records, &[into.done, within.done].concat());
    // Seen first at the pod, with the pod's own address.
    let of_client =
        |prefix: &str| records.iter().find(|seen| seen.exchange.target.starts_with(prefix)).unwrap();
    assert_eq!(of_client("/out/").client.ip().to_string(), ONE);
    assert_eq!(of_client("/in/").server, (UPLINK, PORT).into());
}

#[test]
fn a_killed_agent_leaves_nothing_that_the_next_one_does_not_take_away() {
    let node = Node::routed();
    let left = || said(&node.node, &format!("tc filter show dev {VETH_ONE} ingress")).contains("pod2pod");
    let (agent, _) = watch(&node, "veth");
    assert_eq!(left(), !has_tcx(), "while it watches");
    agent.signal(Signal::SIGKILL);
    drop(agent);
    assert_eq!(left(), !has_tcx(), "after it was killed");
    let (agent, mut here) = watch(&node, "veth");
    let stale = if has_tcx() { 0 } else { 4 };
    wait_until("taken away", || metrics(&mut here).counter("interfaces_stale_filters_removed") == stale);
    agent.end();
    assert!(!left(), "after the next one");
}

/// What kubernetes-pod2pod-log's environment says.
#[test]
fn the_old_environment_watches_its_interface_and_writes_its_record() {
    let node = Node::routed();
    let mut party = party(&node.node.path(), Path::new("-"));
    party.envs([("IFACE", VETH_ONE), ("TIMEOUT_AFTER_MS", "5000"), ("SEND_LOGS_TO", "fluentd")]);
    let agent = Agent::launch(party, None, ADMIN, &[AMPLE_RING, "output.format=pod2pod-log"]);
    let mut here = ready(&node, &agent);
    assert_eq!(metrics(&mut here).counter("interfaces_attaches"), 1);
    for told in [
        "IFACE: taken as capture.interfaces: one",
        "SEND_LOGS_TO: taken as sinks.fluentd: ",
        "http.timeout: 5000ms",
    ] {
        assert!(agent.log().contains(told), "{told}: {}", agent.log());
    }
    let [mut one, mut two] = [&node.one, &node.two].map(place);
    let _server = Server::start(two.listen(address(TWO)));
    let mut client = Client::connect(&mut one, address(TWO));
    client.get("/health");
    client.get("/old/record");
    wait_until("it is written", || agent.lines().contains("/old/record"));
    let text = agent.end().text;
    let lines: Vec<serde_json::Value> =
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let [record] = &lines[..] else { panic!("one record: {text}") };
    let ends = [&record["srcIP"], &record["dstIP"]].map(|end| end.as_str().unwrap());
    assert_eq!((ends, &record["type"], &record["url"]), ([ONE, TWO], &"outgo".into(), &"/old/record".into()));
    assert_eq!(record["resCode"], "200", "{record}");
}
