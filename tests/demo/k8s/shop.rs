//! The shop: its objects in the API, and what a kubelet and a service proxy would make of them: namespaces with the pods' addresses,
//! cgroups with their uids, rules for the Services. What is asked and answered in it is not here.

use std::{
    fmt::Write as _,
    io::{BufRead as _, BufReader},
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use serde_json::json;
use support::{
    kubernetes::{
        client::{Client, Request},
        objects::{self, Endpoint, Owner, Pod},
        population,
        server::ApiServer,
    },
    netns::Namespace,
    processes::Process,
    world::Cgroup,
};

use super::{judge::Truth, party::PORT};

/// Where everything is.
pub(crate) const NAMESPACE: &str = "shop";
/// The nodes: name, zone, own address, first three bytes of its pods' addresses.
pub(crate) const NODES: [(&str, &str, Ipv4Addr, [u8; 3]); 2] = [
    ("node-a", "zone-1", Ipv4Addr::new(192, 168, 7, 1), [10, 244, 1]),
    ("node-b", "zone-2", Ipv4Addr::new(192, 168, 7, 2), [10, 244, 2]),
];
/// Where every pod believes its router to be: its node answers for it.
const ROUTER: &str = "169.254.1.1";
/// How long a pod may take to end.
const MAX_END: Duration = Duration::from_secs(30);

/// A pod that is to be: its role, the number of its node, the last byte of its address.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    pub(crate) app: &'static str,
    pub(crate) node: usize,
    pub(crate) host: u8,
}

impl Place {
    fn address(self) -> Ipv4Addr {
        let [a, b, c] = NODES[self.node].3;
        Ipv4Addr::new(a, b, c, self.host)
    }
}

/// A pod that runs.
pub(crate) struct RunningPod {
    pub(crate) place: Place,
    pub(crate) truth: Truth,
    pub(crate) notes: PathBuf,
    object: Pod,
    process: Process,
    // With it goes its network.
    _namespace: Namespace,
}

/// A Service and where it is.
struct Front {
    app: &'static str,
    address: IpAddr,
}

/// All of it.
pub(crate) struct Shop {
    pub(crate) server: ApiServer,
    client: Client,
    nodes: [Namespace; 2],
    pub(crate) cgroup: Cgroup,
    fronts: Vec<Front>,
    pub(crate) pods: Vec<RunningPod>,
    folder: PathBuf,
    made: usize,
}

impl Shop {
    /// An empty one: nodes, Services without pods. Notes are kept in `folder`.
    pub(crate) fn open(server: ApiServer, cgroup: Cgroup, folder: &Path) -> Result<Self> {
        let client = server.admin();
        population::namespaces(&client, &[NAMESPACE]);
        let nodes = NODES.map(|(name, zone, address, _)| (name, zone, IpAddr::V4(address)));
        population::nodes(&client, &nodes);
        let services = ["cart", "db"].map(|app| (app.to_owned(), 80, PORT, Vec::new()));
        let addresses = population::services(&client, NAMESPACE, &services);
        let fronts = ["cart", "db"].into_iter().zip(addresses);
        let fronts = fronts.map(|(app, address)| Front { app, address }).collect();
        for (name, ..) in NODES {
            cgroup.part(name)?;
        }
        let (nodes, folder) = (wired_nodes(), folder.to_owned());
        Ok(Self { server, client, nodes, cgroup, fronts, pods: Vec::new(), folder, made: 0 })
    }

    /// Makes a Deployment with a ReplicaSet, which pods are made by.
    pub(crate) fn deployment(&self, app: &str) -> Owner {
        population::deployments(&self.client, NAMESPACE, &[app.to_owned()]).remove(0)
    }

    /// The next version of one that was made: another ReplicaSet.
    pub(crate) fn next_version(&self, app: &str, hash: &str) -> Owner {
        let path = format!("/apis/apps/v1/namespaces/{NAMESPACE}/deployments/{app}");
        let uid = population::uid(&self.client.ask(&Request::get(path)));
        let deployment = Owner { version: "apps/v1", kind: "Deployment", name: app.to_owned(), uid };
        population::replica_sets(&self.client, NAMESPACE, vec![deployment], hash).remove(0)
    }

    /// Makes a pod and lets it run; it takes no part in its Service yet.
    pub(crate) fn start(&mut self, place: Place, owner: &Owner) -> Result<()> {
        self.made += 1;
        let (node, ..) = NODES[place.node];
        let name = format!("{}-{:05}", owner.name, 10_000 + 977 * self.made);
        let object = Pod::new(NAMESPACE, &name, node).owned(owner).labelled("app", place.app);
        let uid = population::pods(&self.client, std::slice::from_ref(&object)).remove(0);
        let container = self.made as u64;
        let cgroup = self.cgroup.part(&cgroup_path(node, &uid, container))?;
        let namespace = self.network(place);
        let peer = match place.app {
            "web" => self.front("cart")?,
            "cart" => self.front("db")?,
            _ => "-".to_owned(),
        };
        let notes = self.folder.join(&name);
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["pod", place.app]).arg(namespace.path()).arg(cgroup).arg(&notes).arg(peer);
        let mut process = Process::start("pod", command.stdin(Stdio::piped()).stdout(Stdio::piped()))?;
        let mut ready = String::new();
        let output = process.child.stdout.take().context("a pod has a standard output")?;
        BufReader::new(output).read_line(&mut ready)?;
        if ready.trim() != "ready" {
            bail!("the pod {name} did not start");
        }
        let status = objects::running(IpAddr::V4(NODES[place.node].2), &[place.address().into()], container);
        self.client.ask(&Request::patch(format!("{}/status", object.path()), status));
        let truth = Truth { pod: name, uid, app: place.app.to_owned() };
        self.pods.push(RunningPod { place, truth, notes, object, process, _namespace: namespace });
        Ok(())
    }

    /// Has the Services lead to all pods that run, but for those that are `leaving`.
    pub(crate) fn lead(&self, leaving: &[String]) {
        let mut rules = "table ip shop\ndelete table ip shop\ntable ip shop {\n chain services {\n  \
                         type nat hook prerouting priority -100;\n"
            .to_owned();
        for Front { app, address } in &self.fronts {
            let behind = |pod: &&RunningPod| pod.place.app == *app && !leaving.contains(&pod.truth.pod);
            let pods: Vec<&RunningPod> = self.pods.iter().filter(behind).collect();
            let endpoints: Vec<Endpoint> = pods.iter().map(|pod| pod.endpoint()).collect();
            let slice = objects::endpoint_slice(app, PORT, &endpoints);
            let path = format!("/apis/discovery.k8s.io/v1/namespaces/{NAMESPACE}/endpointslices/{app}-1");
            self.client.ask(&Request::patch(path, json!({"endpoints": slice["endpoints"]})));
            let ends = pods
                .iter()
                .enumerate()
                .map(|(index, pod)| format!("{index} : {} . {PORT}", pod.place.address()));
            let ends: Vec<String> = ends.collect();
            if !ends.is_empty() {
                let _ = writeln!(
                    rules,
                    "  ip daddr {address} tcp dport 80 dnat ip to numgen inc mod {} map {{ {} }}",
                    ends.len(),
                    ends.join(", ")
                );
            }
        }
        rules.push_str(" }\n}\n");
        for node in &self.nodes {
            node.run_with("nft -f -", &rules);
        }
    }

    /// Marks a pod in the API as kubectl would; what runs in it goes on.
    pub(crate) fn mark(&self, pod: &str) -> Result<()> {
        let pod = self.pods.iter().find(|running| running.truth.pod == pod).context("no such pod")?;
        self.client.ask(&Request::delete(pod.object.path()));
        Ok(())
    }

    /// Ends what runs in a pod, gives its address back, and removes it from the API.
    pub(crate) fn end(&mut self, pod: &str) -> Result<RunningNotes> {
        let index = self.pods.iter().position(|running| running.truth.pod == pod).context("no such pod")?;
        let mut pod = self.pods.remove(index);
        drop(pod.process.child.stdin.take());
        pod.process.finish(MAX_END)?;
        let node = &self.nodes[pod.place.node];
        node.run(&format!("ip link delete {}", interface(pod.place)));
        self.client.ask(&Request::remove(pod.object.path()));
        Ok(RunningNotes { truth: pod.truth, notes: pod.notes })
    }

    fn front(&self, app: &str) -> Result<String> {
        let front = self.fronts.iter().find(|front| front.app == app).context("no such Service")?;
        Ok(SocketAddr::new(front.address, 80).to_string())
    }

    /// A network for a pod, with a way to its node.
    fn network(&self, place: Place) -> Namespace {
        let (namespace, node) = (Namespace::new(), &self.nodes[place.node]);
        let (interface, address) = (interface(place), place.address());
        node.wire(&interface, &[], &namespace, "eth0", &[&format!("{address}/32")]);
        node.ip(&format!("route replace {address}/32 dev {interface}\n"));
        namespace.ip(&format!(
            "route add {ROUTER} dev eth0 scope link\nroute add default via {ROUTER} dev eth0\n"
        ));
        namespace
    }
}

/// What is left of a pod.
pub(crate) struct RunningNotes {
    pub(crate) truth: Truth,
    pub(crate) notes: PathBuf,
}

impl RunningPod {
    fn endpoint(&self) -> Endpoint {
        Endpoint {
            address: self.place.address().into(),
            node: NODES[self.place.node].0.to_owned(),
            pod: self.truth.pod.clone(),
            uid: self.truth.uid.clone(),
        }
    }
}

/// Name of the node's end of a pod's wire.
fn interface(place: Place) -> String {
    format!("pod{}", place.host)
}

/// Two nodes with a wire between them, each with the way to the other's pods.
fn wired_nodes() -> [Namespace; 2] {
    let nodes = [Namespace::new(), Namespace::new()];
    let [own, other] = NODES.map(|(.., address, _)| format!("{address}/24"));
    nodes[0].wire("other", &[&own], &nodes[1], "other", &[&other]);
    for (here, there) in [(0, 1), (1, 0)] {
        let (_, _, address, [a, b, c]) = NODES[there];
        nodes[here].run_with("tee /proc/sys/net/ipv4/ip_forward", "1");
        nodes[here]
            .ip(&format!("address add {ROUTER}/32 dev lo\nroute add {a}.{b}.{c}.0/24 via {address}\n"));
    }
    nodes
}

/// The cgroup of a container, as kubelet and containerd call it with the driver systemd.
fn cgroup_path(node: &str, uid: &str, container: u64) -> String {
    let pod = format!("kubepods-besteffort-pod{}.slice", uid.replace('-', "_"));
    let id = objects::container_id(container);
    let id = id.rsplit('/').next().unwrap_or_default();
    format!("{node}/kubepods.slice/kubepods-besteffort.slice/{pod}/cri-containerd-{id}.scope")
}
