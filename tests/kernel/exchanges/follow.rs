//! Where the agent watches when it is not told to, and that it finds every interface though news of them were lost.

use std::{fmt::Write as _, path::Path};

use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    sched::{CloneFlags, unshare},
    sys::signal::Signal,
};
use support::netns::Cgroup;

use super::{
    agent::{AMPLE_RING, Agent, wait_until},
    http::{Client, Server},
    interfaces::{ADMIN, address, metrics, place, ready, watch},
    seen::check,
    stage::party,
};
use crate::tc::world::{Node, TWO, VETH_ONE, said};

/// Moves this thread to a cgroup namespace, where the root of cgroup v2 is not to be had, and to a namespace of mounts
/// without cgroup v2, so that an agent started here tries a mount of its own.
fn hide_the_root() {
    unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWCGROUP).unwrap();
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>).unwrap();
    let mounts = procfs::process::Process::myself().unwrap().mountinfo().unwrap();
    for mount in mounts.0.iter().filter(|mount| mount.fs_type == "cgroup2") {
        umount2(&mount.mount_point, MntFlags::MNT_DETACH).unwrap();
    }
}

#[test]
fn auto_takes_interfaces_where_the_root_cgroup_is_hidden_and_says_so() {
    let (cgroup, node) = (Cgroup::new(), Node::routed());
    // The agent dies with the thread that started it.
    let host = node.node.clone();
    cgroup.spawn(&host, move || falls_back(&node)).join().unwrap();
}

fn falls_back(node: &Node) {
    hide_the_root();
    let agent = Agent::launch(party(Path::new("-"), Path::new("-")), None, ADMIN, &[AMPLE_RING]);
    ready(node, &agent);
    let line = watching(&agent);
    for part in ["WARN", "source=\"tc\"", "host-side veths by interface", "is not the root of cgroup v2"] {
        assert!(line.contains(part), "{part}: {line}");
    }
    let [mut one, mut two] = [&node.one, &node.two].map(place);
    let _server = Server::start(two.listen(address(TWO)));
    let mut client = Client::connect(&mut one, address(TWO));
    client.get("/fallen/back");
    check(&agent.end().records(), &client.done);
}

/// The one line of its log that says where it watches.
fn watching(agent: &Agent) -> String {
    wait_until("it says where it watches", || agent.log().contains("watching"));
    let log = agent.log();
    let lines: Vec<&str> = log.lines().filter(|line| line.contains("watching")).collect();
    let [line] = lines[..] else { panic!("one line says where it watches: {log}") };
    line.to_owned()
}

#[test]
fn auto_takes_the_root_cgroup_where_it_is_to_be_had_and_says_so() {
    let agent = Agent::start(None, &["log.level=info"]);
    let line = watching(&agent);
    for part in ["INFO", "source=\"cgroup\"", "it sees each socket of this machine once"] {
        assert!(line.contains(part), "{part}: {line}");
    }
    agent.end();
}

/// Datagrams that the kernel threw away because a listener for news of interfaces had no room (proc_net_netlink(5): the
/// column before the last, of those that are in the first group).
fn news_lost(node: &Node) -> u64 {
    let listeners = said(&node.node, "cat /proc/thread-self/net/netlink");
    let lost = listeners.lines().filter_map(|line| {
        let columns: Vec<&str> = line.split_whitespace().collect();
        (columns.get(1..2) == Some(&["0"]) && columns.get(3) == Some(&"00000001"))
            .then(|| columns[8].parse::<u64>().unwrap())
    });
    lost.sum()
}

/// Changes of an interface between two looks at what was lost.
const CHANGES: u32 = 500;

#[test]
fn interfaces_are_listed_anew_when_news_of_them_were_lost() {
    let node = Node::routed();
    let (agent, mut here) = watch(&node, "veth");
    assert_eq!(metrics(&mut here).counter("interfaces_attaches"), 2);
    assert_eq!(news_lost(&node), 0);
    agent.signal(Signal::SIGSTOP);
    // What it would hear first fills its buffer, so that it does not hear of what comes after.
    let mut changes = String::new();
    for change in 0..CHANGES {
        writeln!(changes, "link set lo mtu {}", 60_000 + change).unwrap();
    }
    wait_until("news are lost", || {
        node.node.run_with("ip -batch -", &changes);
        news_lost(&node) > 0
    });
    node.node.run(&format!("ip link delete {VETH_ONE}"));
    node.node.wire("other", &["10.8.1.1/24"], &node.one, "eth0", &["10.8.1.2/24"]);
    node.one.run("ip route add default via 10.8.1.1");
    agent.signal(Signal::SIGCONT);
    wait_until("the other one is watched, and the first forgotten", || {
        let metrics = metrics(&mut here);
        metrics.counter("interfaces_attaches") == 3 && metrics.counter("interfaces_detaches") == 1
    });
    assert_eq!(metrics(&mut here).sum("interfaces_attached", ""), 2);
    assert!(metrics(&mut here).counter("interfaces_rescans") >= 1);
    let [mut one, mut two] = [&node.one, &node.two].map(place);
    let _server = Server::start(two.listen(address(TWO)));
    let mut client = Client::connect(&mut one, address(TWO));
    client.get("/found/again");
    check(&agent.end().records(), &client.done);
}
