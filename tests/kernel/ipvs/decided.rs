//! The agent beside a director's live table, with exact mode where the kernel can be followed: each reuse is told once, drops are told
//! too, and what it takes is counted. Where it cannot, the agent says so once and polls.

use std::{
    collections::BTreeSet,
    net::{Ipv4Addr, SocketAddr, TcpStream},
    path::Path,
};

use pod2pod_user::{
    capture::kernel::{Decisions, DecisionsConfig},
    ipvs::state::State,
    restraint::{budget::EXACT_BYTES, memory},
};
use serde_json::Value;
use support::{
    director::{Family, Settings},
    metrics::Metrics,
    netns::Cgroup,
};

use super::followed::{From, World, service};
use crate::exchanges::{
    agent::{Agent, Told, get, wait_until},
    stage::party,
};

const MODE_OFF: Settings = Settings { conn_reuse_mode: 0, expire_nodest_conn: 0, conntrack: 0 };

/// Where the agent's metrics are, in the director's namespace.
const ADMIN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 9464);

/// The agent in the director's namespace.
struct Node<'a> {
    world: &'a World,
    agent: Agent,
    _cgroup: Cgroup,
}

impl<'a> Node<'a> {
    fn start(world: &'a World, settings: &[&str]) -> Self {
        let cgroup = Cgroup::new();
        let own = ["ipvs.path=/proc/self/net/ip_vs_conn", "ipvs.interval=500ms", "log.level=info"];
        let settings = [&own, settings].concat();
        let party = party(&world.director.node.path(), Path::new("-"));
        let agent = Agent::launch(party, Some(cgroup.path()), ADMIN, &settings);
        let ready =
            || world.director.node.within(|| TcpStream::connect(ADMIN).map(|stream| get(stream, "/ready")));
        wait_until("ready", || ready().is_ok_and(|answer| answer.starts_with("HTTP/1.1 200")));
        let node = Self { world, agent, _cgroup: cgroup };
        node.wait("it is watched", |metrics| metrics.text().contains("pod2pod_ipvs_present 1"));
        node
    }

    fn wait(&self, what: &str, wanted: impl Fn(&Metrics) -> bool + Send) -> Metrics {
        self.world.director.node.within(|| self.agent.wait_metrics(what, wanted))
    }

    /// Waits until as many polls have begun and ended as a change may span.
    fn polled(&self) {
        let polls = self.wait("metrics", |_| true).counter("ipvs_polls");
        self.wait("three more polls", |metrics| metrics.counter("ipvs_polls") >= polls + 4);
    }
}

/// Memory that the probes take in this kernel, if they can be had.
fn probes() -> Option<u64> {
    let before = memory::maps();
    let _probes = Decisions::open(&DecisionsConfig::default()).ok()?;
    Some(memory::maps() - before)
}

/// What was told of a client's reuses.
fn told(told: &Told, from: From) -> Vec<Value> {
    let lines = told.text.lines().map(|line| serde_json::from_str(line).unwrap());
    lines.filter(|line: &Value| line["kind"] == "ipvs_reuse" && line["client.port"] == from.1).collect()
}

#[test]
fn the_agent_tells_what_the_kernel_decides() {
    let Some(mut world) = World::unfollowed(MODE_OFF) else { return };
    let probes = probes();
    let [kept, lost] = [Family::V4, Family::V6].map(|family| world.client(family));
    let servers = [kept, lost].map(|from| world.ended_in(State::TimeWait, from));

    let polling = Node::start(&world, &["ipvs.detector=polling"]);
    let metrics = polling.wait("all of it", |metrics| metrics.text().contains("pod2pod_ipvs_exact "));
    assert_eq!(metrics.sum("ipvs_exact", ""), 0);
    let maps = metrics.sum("memory_bytes", "maps");
    let said = polling.agent.log();
    assert!(!said.contains("exact mode"), "{said}");
    polling.agent.end();

    let node = Node::start(&world, &[]);
    let says = if probes.is_some() {
        "every SYN that IPVS decides on is followed"
    } else {
        "is not to be had: polling"
    };
    wait_until("it is said", || node.agent.log().contains(says));
    if let Some(probes) = probes {
        assert!(probes <= EXACT_BYTES && probes > EXACT_BYTES / 2, "{probes} bytes");
        node.wait("its maps are counted", |metrics| metrics.sum("memory_bytes", "maps") == maps + probes);
    }
    node.polled();
    world.director.remove(service(Family::V6), servers[1]);
    let dialed = world.dial(kept);
    let served = world.served(dialed);
    assert_eq!(served.server, servers[0]);
    let _lost = world.dial(lost);
    if probes.is_some() {
        node.wait("the drop", |metrics| metrics.sum("ipvs_decisions_total", "dropped") > 0);
    }
    node.polled();
    let metrics = node.wait("in balance", |metrics| metrics.sum("ledger_balanced", "") == 1);
    let of = |name: &str, label: &str| metrics.sum(name, label);
    assert_eq!(node.agent.log().matches("exact mode").count(), 1, "{}", node.agent.log());
    let text = metrics.text().to_owned();
    let figures = (
        of("ipvs_exact", ""),
        of("ipvs_reuses_found_total", "polling"),
        of("ipvs_decisions_total", "reused"),
    );
    let of_kept = [of("ipvs_reuses_settled_total", "told"), of("ipvs_decisions_lost_total", "")];
    let ended = node.agent.end();

    let reuse = told(&ended, kept);
    let [reuse] = &reuse[..] else { panic!("once: {}", ended.text) };
    assert_eq!((&reuse["ipvs.verdict"], &reuse["ipvs.reuse"]), (&"reused".into(), &"certain".into()));
    assert_eq!(reuse["ipvs.state_before"], "TIME_WAIT");
    if probes.is_none() {
        assert_eq!((&reuse["ipvs.detector"], figures), (&"polling".into(), (0, 1, 0)), "{text}");
        return;
    }
    assert_eq!((&reuse["ipvs.detector"], figures), (&"exact".into(), (1, 0, 1)), "{text}");
    assert_eq!(of_kept, [1, 0], "{text}");
    let dropped = told(&ended, lost);
    assert!(!dropped.is_empty(), "{}", ended.text);
    let situations: BTreeSet<_> =
        dropped.iter().map(|record| record["ipvs.situation"].as_str().unwrap()).collect();
    assert_eq!(situations, BTreeSet::from(["removed_server_dropped"]), "{}", ended.text);
}
