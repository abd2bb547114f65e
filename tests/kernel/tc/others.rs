//! Others' filters stay and work in every order of start, and nothing of ours stays.

use std::{thread, time::Duration};

use pod2pod_user::capture::kernel::TcWay;
use support::{fact, netns::Namespace};

use super::world::{Node, TWO, VETH_ONE, said, until, ways};
use crate::{
    machine,
    talk::{client, server, talk},
    watch::Watch,
};

/// A filter that counts what passes by copying it to where nobody is.
const COUNTING: &str = "filter add dev one ingress protocol all bpf bytecode '1,6 0 0 4294967295,' \
                        action mirred egress mirror dev away\n";

/// Time between two heartbeats of a watch that waits.
const BEAT: Duration = Duration::from_millis(100);

/// A node with somewhere to copy packets to.
fn node() -> Node {
    let node = Node::routed();
    node.node.run("ip link add name away type bridge");
    node.node.run("ip link set away up");
    node
}

/// A conversation that all of `watches` see; how many records the first told of it.
fn talk_once(node: &Node, watches: &mut [&mut Watch]) -> usize {
    watches.iter_mut().for_each(|watch| watch.seen.clear());
    let turns = [client("GET / HTTP/1.1\r\n\r\n"), server("HTTP/1.1 204 No Content\r\n\r\n")];
    Watch::all_during(watches, talk(&node.cgroup, &node.one, &node.two, TWO, &turns));
    watches[0].seen.len()
}

/// Packets that the other's filter has counted.
fn counted(node: &Namespace) -> u64 {
    let told = said(node, "tc -s filter show dev one ingress");
    let sent = told.lines().find_map(|line| line.trim().strip_prefix("Sent ")).unwrap_or_default();
    sent.split(' ').nth(2).and_then(|packets| packets.parse().ok()).unwrap_or_else(|| panic!("{told}"))
}

fn assert_counts(node: &Node, watch: &mut Watch) {
    let before = counted(&node.node);
    assert!(talk_once(node, &mut [watch]) > 0);
    assert!(counted(&node.node) > before);
}

#[test]
fn a_filter_that_was_there_before_works_during_and_after() {
    for way in ways() {
        let node = node();
        node.node.run("tc qdisc add dev one clsact");
        node.node.run_with("tc -batch -", COUNTING);
        let mut watch = node.watch(way, &[]);
        assert_counts(&node, &mut watch);
        drop(watch);
        assert_nothing_of_ours(&node.node);
        let left = said(&node.node, "tc filter show dev one ingress");
        assert!(left.contains("mirred"), "{left}");
        let mut again = node.watch(way, &[]);
        assert_counts(&node, &mut again);
    }
}

#[test]
fn a_filter_that_comes_later_works_during_and_after() {
    for way in ways() {
        let node = node();
        let mut watch = node.watch(way, &[]);
        if way == TcWay::Newest && !said(&node.node, "tc qdisc show dev one").contains("clsact") {
            node.node.run("tc qdisc add dev one clsact");
        }
        node.node.run_with("tc -batch -", COUNTING);
        assert_counts(&node, &mut watch);
        drop(watch);
        assert_nothing_of_ours(&node.node);
        assert!(said(&node.node, "tc filter show dev one ingress").contains("mirred"));
        assert!(said(&node.node, "tc qdisc show dev one").contains("clsact"));
    }
}

#[test]
fn nothing_is_left_and_nothing_of_others_is_taken() {
    for way in ways() {
        let node = node();
        let watch = node.watch(way, &[]);
        assert_eq!(watch.capture.interface_stats().unwrap().attaches, 2);
        let filters = said(&node.node, &format!("tc filter show dev {VETH_ONE} ingress"));
        if way == TcWay::Newest && filters.contains("pod2pod") {
            fact::lacks("tcx, which is from Linux 6.6 on: clsact is tried twice");
        }
        drop(watch);
        assert_nothing_of_ours(&node.node);
        assert!(!said(&node.node, "tc qdisc show dev one").contains("clsact"));
        // Somebody's discipline without a filter, who is about to add one.
        node.node.run("tc qdisc add dev one clsact");
        drop(node.watch(way, &[]));
        assert!(said(&node.node, "tc qdisc show dev one").contains("clsact"));
    }
}

/// Opens another watch while `first` lives on: where all is slow, opening takes longer than what a filter without a heartbeat
/// stays.
fn open_beside(first: &mut Watch, node: &Node, way: TcWay) -> Watch {
    thread::scope(|scope| {
        let opening = scope.spawn(|| {
            machine::share_with_test();
            node.watch(way, &[])
        });
        while !opening.is_finished() {
            first.drain();
            thread::park_timeout(BEAT);
        }
        opening.join().unwrap()
    })
}

#[test]
fn two_agents_see_the_same() {
    for way in ways() {
        let node = node();
        let mut first = node.watch(way, &[]);
        let mut second = open_beside(&mut first, &node, way);
        let told = talk_once(&node, &mut [&mut first, &mut second]);
        assert!(told > 0, "{way:?} {:?} {}", first.capture.counters(), first.seen.len());
        assert_eq!(second.seen.len(), told);
        drop(first);
        assert_eq!(talk_once(&node, &mut [&mut second]), told);
    }
}

#[test]
fn what_a_killed_agent_left_is_taken_away() {
    let node = node();
    node.node.run("tc qdisc add dev one clsact");
    node.node.run_with("tc -batch -", COUNTING);
    // Nobody tells its programs any more that it lives.
    std::mem::forget(node.watch(TcWay::Clsact, &[VETH_ONE]));
    let mut watch = node.watch(TcWay::Clsact, &[VETH_ONE]);
    until("stale filters removed", || {
        watch.capture.beat();
        watch.capture.interface_stats().unwrap().stale_filters_removed == 2
    });
    for hook in ["ingress", "egress"] {
        let left = said(&node.node, &format!("tc filter show dev {VETH_ONE} {hook}"));
        assert_eq!(left.matches("direct-action").count(), 1, "{left}");
    }
    assert_counts(&node, &mut watch);
}

fn assert_nothing_of_ours(node: &Namespace) {
    for hook in ["ingress", "egress"] {
        let left = said(node, &format!("tc filter show dev {VETH_ONE} {hook}"));
        assert!(!left.contains("pod2pod"), "{left}");
    }
}
