//! Pods by the cgroups of their sockets alone: no API server is known. Container runtimes' layouts, one after the other.

use std::{collections::BTreeSet, net::TcpStream};

use support::world::{CLIENT_POD, SERVER_POD};

use super::{
    agent::{self, AMPLE_RING, Agent},
    http::{Client, Server},
    stage::{Place, Stage},
};

/// A pod, and a container of it.
const UID: &str = "0f5a1c2e-6b1d-4c9a-9d57-3f0a1b2c3d4e";
const CONTAINER: &str = "5e1f0c2b9a8d7e6f5a4b3c2d1e0f9a8b7c6d5e4f3a2b1c0d9e8f7a6b5c4d3e2f";

/// Where the runtimes put it, with either driver of cgroups.
fn layouts() -> [String; 5] {
    let slice = UID.replace('-', "_");
    [
        format!(
            "kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{slice}.slice/cri-containerd-{CONTAINER}.scope"
        ),
        format!("kubepods.slice/kubepods-pod{slice}.slice/crio-{CONTAINER}.scope/container"),
        format!(
            "kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod{slice}.slice/docker-{CONTAINER}.scope"
        ),
        format!("kubepods/burstable/pod{UID}/{CONTAINER}"),
        format!(
            "kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-pod{slice}.slice/cri-containerd-{CONTAINER}.scope"
        ),
    ]
}

/// Whether controllers of resources are on cgroup v1, so that containers are there (cgroups(7)).
fn is_hybrid() -> bool {
    let text = std::fs::read_to_string("/proc/self/cgroup").unwrap();
    let controllers = text.lines().filter_map(|line| line.split(':').nth(1));
    controllers.flat_map(|names| names.split(',')).any(|name| ["cpu", "memory", "pids"].contains(&name))
}

#[test]
fn without_an_api_server_the_cgroup_tells_the_pod() {
    let mut stage = Stage::new();
    let places: Vec<_> = layouts()
        .iter()
        .map(|layout| Place::new(&stage.world.server.path(), &stage.world.cgroup.part(layout).unwrap()))
        .collect();
    let agent = Agent::start(Some(stage.world.cgroup.path()), &[AMPLE_RING]);
    let ready = agent::get(TcpStream::connect(agent.address()).unwrap(), "/ready");
    assert!(ready.ends_with("\r\n\r\nok\n"), "no list is awaited: {ready}");
    for (number, mut place) in places.into_iter().enumerate() {
        let server = Server::start(place.listen((SERVER_POD.v4, 0)));
        Client::connect(&mut stage.client, server.address).get(&format!("/{number}"));
    }
    let count = layouts().len();
    agent.wait_records("both ends of each are told", |records| records.len() == 2 * count);
    let told = agent.end().text;
    let mut named = BTreeSet::new();
    for record in told.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()) {
        let at_server = record["observed_at"] == "server";
        let has = |end: &str| record.get(format!("{end}.k8s.pod.uid")).is_some();
        // The peer is nobody without an API server, and the client is in no pod.
        assert!(!has("client") && (at_server || !has("server")), "{record:#}");
        if has("server") {
            assert_eq!(record["server.k8s.pod.uid"], UID, "{record:#}");
            assert_eq!(record["server.container.id"], CONTAINER, "{record:#}");
            named.insert(record["url.path"].to_string());
        }
    }
    // Where cgroup v1 has the containers, numbers of cgroup v2 say nothing, and nothing is said.
    assert_eq!(named.len(), if is_hybrid() { 0 } else { count }, "{told}");
    assert!(told.contains(&CLIENT_POD.v4.to_string()), "{told}");
}
