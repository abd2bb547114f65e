//! What is seen at interfaces: the same as at the sockets, once for each end.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use pod2pod_common::counters::Counter;
use pod2pod_user::capture::{
    Direction,
    kernel::{Config, ScopeChoice, SourceChoice, TcWay},
};

use support::scale;

use super::world::{Node, ONE, TWO, TWO_V6, VETH_ONE, VETH_TWO, until, ways};
use crate::{
    lend::lend,
    talk::{Ends, Turn, client, server, talk},
    watch::Watch,
};

const REQUEST: &str = "GET /index HTTP/1.1\r\nHost: a\r\n\r\n";
const RESPONSE: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi";

pub(super) fn script() -> Vec<Turn> {
    // Within the credit: nobody here says how far it was read.
    let large = format!("HTTP/1.1 200 OK\r\nContent-Length: 200000\r\n\r\n{}", "x".repeat(200_000));
    vec![client(REQUEST), server(RESPONSE), client(REQUEST), server(&large)]
}

/// Both ends saw both streams whole, each packet at its own end's interface.
pub(super) fn assert_both_ends(watch: &Watch, ends: Ends, turns: &[Turn], interfaces: [u32; 2]) {
    let mut sent = [Vec::new(), Vec::new()];
    for turn in turns {
        match turn {
            Turn::Client(pieces) => sent[0].extend(pieces.concat()),
            Turn::Server(pieces) => sent[1].extend(pieces.concat()),
        }
    }
    for (source, sent) in [(ends.client, &sent[0]), (ends.server, &sent[1])] {
        for direction in [Direction::Egress, Direction::Ingress] {
            assert!(watch.stream(direction, source) == *sent, "{direction:?} from {source} differs");
        }
    }
    for seen in watch.seen.iter().filter(|seen| [seen.source, seen.destination].contains(&ends.client)) {
        let local = if seen.direction == Direction::Egress { seen.source } else { seen.destination };
        let interface = interfaces[usize::from(local == ends.server)];
        assert_eq!((seen.scope.0, seen.interface_index), (u64::from(interface), interface), "{seen:?}");
        assert!(!seen.lost_before && seen.payload_length as usize == seen.payload.len(), "{seen:?}");
    }
    assert_eq!(watch.capture.ring_lost(), 0);
}

pub(super) fn index(name: &str) -> u32 {
    nix::net::if_::if_nametoindex(name).unwrap()
}

/// SYN, FIN and payload bytes by whether an end sent it and whether that is the client.
pub(super) type Counts = BTreeMap<(bool, bool), (usize, usize, u64)>;

/// Those of one connection.
pub(super) fn counts(watch: &Watch, ends: Ends) -> Counts {
    let mut counts = BTreeMap::new();
    for seen in watch.seen.iter().filter(|seen| [seen.source, seen.destination].contains(&ends.client)) {
        let count = counts
            .entry((seen.direction == Direction::Egress, seen.source == ends.client))
            .or_insert((0, 0, 0));
        count.0 += usize::from(seen.flags.syn());
        count.1 += usize::from(seen.flags.fin());
        count.2 += u64::from(seen.payload_length);
    }
    counts
}

#[test]
fn routed_pods_are_seen_as_at_their_sockets() {
    for way in ways() {
        let node = Node::routed();
        let (cgroup, mut at_sockets) = lend(ScopeChoice::Cgroup);
        let mut watch = node.watch(way, &[]);
        for address in [TWO, TWO_V6] {
            // The last one may have taken its time.
            at_sockets.drain();
            let work = talk(&cgroup, &node.one, &node.two, address, &script());
            let ends = Watch::all_during(&mut [&mut watch, &mut at_sockets], work);
            assert_both_ends(&watch, ends, &script(), [index(VETH_ONE), index(VETH_TWO)]);
            assert_same(&counts(&watch, ends), &counts(&at_sockets, ends), address);
        }
        assert_eq!(watch.counter(Counter::GateHttp), at_sockets.counter(Counter::GateHttp));
        assert_eq!(watch.counter(Counter::BytesMatched), at_sockets.counter(Counter::BytesMatched));
        assert_eq!(watch.capture.interface_stats().unwrap().attaches, 2);
        watch.assert_lossless();
    }
}

pub(super) fn assert_same(interfaces: &Counts, sockets: &Counts, address: &str) {
    assert_eq!(interfaces.len(), 4);
    for (key, told) in interfaces {
        // Before Linux 6.6 a server's socket is not seen to send its SYN-ACK over IPv6.
        let hidden = usize::from(sockets[key].0 == 0 && address.starts_with('[') && *key == (true, false));
        assert_eq!((told.0 - hidden, told.1, told.2), sockets[key], "{key:?} {address}");
    }
}

#[test]
fn pods_on_a_bridge_are_seen_at_their_veths() {
    for way in ways() {
        let node = Node::bridged();
        let mut watch = node.watch(way, &[]);
        let ends = watch.during(talk(&node.cgroup, &node.one, &node.two, "10.8.0.3", &script()));
        assert_both_ends(&watch, ends, &script(), [index(VETH_ONE), index(VETH_TWO)]);
        watch.assert_lossless();
    }
}

#[test]
fn the_uplink_is_seen_from_this_side() {
    // The first pod plays a machine whose only interface is a veth.
    let node = Node::routed();
    node.one.enter();
    let mut watch = Watch::open(Config { source: SourceChoice::Tc, ..Config::default() });
    let ends = watch.during(talk(&node.cgroup, &node.one, &node.two, TWO, &script()));
    let stream: Vec<u8> = watch.stream(Direction::Egress, ends.client);
    assert_eq!(stream, [REQUEST, REQUEST].concat().into_bytes());
    assert!(watch.seen.iter().all(|seen| seen.interface_index == index("eth0")));
    assert_eq!(ends.client.ip().to_string(), ONE);
}

#[test]
fn on_a_bridge_itself_neither_end_is_seen() {
    let node = Node::bridged();
    node.node.run("ip address add 10.8.0.1/16 dev cni0");
    let mut watch = node.watch(TcWay::Newest, &["cni0"]);
    watch.during(talk(&node.cgroup, &node.node, &node.two, "10.8.0.3", &script()));
    assert!(watch.seen.len() > 4);
    assert!(watch.seen.iter().all(|seen| seen.direction == Direction::Path), "{:?}", watch.seen);
}

#[test]
fn interfaces_come_go_and_come_again() {
    for way in ways() {
        let node = Node::routed();
        node.node.run("ip link delete one");
        let mut watch = node.watch(way, &["o*", VETH_TWO]);
        let attaches = |watch: &Watch| watch.capture.interface_stats().unwrap().attaches;
        let detaches = |watch: &Watch| watch.capture.interface_stats().unwrap().detaches;
        assert_eq!(attaches(&watch), 1);
        for round in 1..=scale::count(3, 1) as u64 {
            node.node.wire(VETH_ONE, &["10.8.1.1/24"], &node.one, "eth0", &["10.8.1.2/24"]);
            node.one.run("ip route add default via 10.8.1.1");
            until("attached", || attaches(&watch) == 1 + round);
            let ends = watch.during(talk(&node.cgroup, &node.one, &node.two, TWO, &script()));
            assert_both_ends(&watch, ends, &script(), [index(VETH_ONE), index(VETH_TWO)]);
            node.node.run("ip link delete one");
            until("forgotten", || detaches(&watch) == round);
            watch.capture.beat();
        }
    }
}

/// Interfaces that come, one after the other.
const COMING: usize = 20;
const LEAST_COMING: usize = 5;
/// From the order to make an interface to the programs on it: half of them within this, however busy the machine is. At a
/// load of six on two cores it was 30 ms, runs of `ip` included; under emulation 1 s.
const USUAL_ATTACH: Duration = Duration::from_secs(1);
const USUAL_ATTACH_WHERE_SLOW: Duration = Duration::from_secs(10);

#[test]
fn the_programs_are_on_a_new_interface_at_once() {
    for way in ways() {
        let node = Node::routed();
        let mut watch = node.watch(way, &["new*"]);
        let mut times: Vec<Duration> = (1..=scale::count(COMING, LEAST_COMING) as u64)
            .map(|number| {
                let start = Instant::now();
                node.node.wire(&format!("new{number}"), &[], &node.one, &format!("end{number}"), &[]);
                until("attached", || watch.capture.interface_stats().unwrap().attaches == number);
                watch.capture.beat();
                start.elapsed()
            })
            .collect();
        times.sort();
        let slow = scale::count(COMING, LEAST_COMING) < COMING;
        let usual = if slow { USUAL_ATTACH_WHERE_SLOW } else { USUAL_ATTACH };
        assert!(times[times.len() / 2] < usual, "{way:?}: {times:?}");
        assert_eq!(watch.capture.interface_stats().unwrap().rescans, 0, "{way:?}");
    }
}
