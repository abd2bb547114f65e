//! A call through a Service's address, with the real API server: its client's record has the pod and the Service, and `pod2pod top` one
//! row for it. The agent is outside of the network in which the address is translated: only the pod's own end can say which pod it is.

use std::{
    collections::BTreeSet,
    io::{Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use nix::sys::signal::Signal;
use serde_json::Value;
use support::{
    ending::Ending,
    kubernetes::{
        objects::{self, Endpoint, Pod},
        population,
        server::ApiServer,
    },
    process::{Running, command},
    world::{CLIENT_POD, POD_PORT, SERVER_POD, World},
};

use crate::{place::Place, until};

const NODE: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 168, 7, 1));
const RESPONSE: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// The shop in the API, `web` and `cart` with a pod each, and where `cart` is called.
fn fill(server: &ApiServer) -> (Vec<String>, IpAddr) {
    let admin = server.admin();
    population::role(&admin, "agent", &population::reading_rules(), &population::user("agent"));
    population::namespaces(&admin, &["shop"]);
    population::nodes(&admin, &[("node-a", "zone-1", NODE)]);
    let owners = population::deployments(&admin, "shop", &["web", "cart"].map(str::to_owned));
    let pods: Vec<(Pod, IpAddr)> = [("web-1", CLIENT_POD), ("cart-1", SERVER_POD)]
        .into_iter()
        .zip(&owners)
        .map(|((name, own), owner)| (Pod::new("shop", name, "node-a").owned(owner), IpAddr::V4(own.v4)))
        .collect();
    let uids = population::running_pods(&admin, NODE, &pods);
    let (pod, address) = &pods[1];
    let endpoint = Endpoint {
        address: *address,
        node: "node-a".to_owned(),
        pod: pod.name.clone(),
        uid: uids[1].clone(),
    };
    let services = population::services(&admin, "shop", &[("cart".to_owned(), 80, POD_PORT, vec![endpoint])]);
    (uids, services[0])
}

/// The cgroup of a container, as kubelet and containerd call it with the driver cgroupfs.
fn cgroup_of(uid: &str, container: u64) -> String {
    let id = objects::container_id(container);
    format!("kubepods/besteffort/pod{uid}/{}", id.rsplit('/').next().expect("an id"))
}

fn answer(mut stream: TcpStream) {
    let mut request = [0; 1024];
    while stream.read(&mut request).is_ok_and(|length| length > 0) && stream.write_all(RESPONSE).is_ok() {}
}

/// Asks once over a connection that stays.
fn ask(stream: &mut TcpStream) {
    stream.write_all(b"GET /cart HTTP/1.1\r\nHost: cart.shop\r\n\r\n").expect("sent");
    let mut response = [0; RESPONSE.len()];
    stream.read_exact(&mut response).expect("an answer");
}

/// A whole answer of the agent.
fn page(admin: SocketAddr, target: &str) -> Option<String> {
    let mut stream = TcpStream::connect(admin).ok()?;
    write!(stream, "GET {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    Some(answer)
}

/// An agent at the pods' sockets, and where its metrics are; what it knows is certain.
fn watch(world: &World, server: &ApiServer) -> (Running, SocketAddr) {
    let admin = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|listener| listener.local_addr());
    let admin = admin.expect("a free port");
    let settings = [
        format!("capture.cgroup={}", world.cgroup.name()),
        format!("metrics.listen={admin}"),
        "admin.listen=off".to_owned(),
        // One reads all in its order: the server's end of an exchange comes before the client's.
        "capture.workers=1".to_owned(),
        format!("kubernetes.kubeconfig={}", server.kubeconfig("agent").display()),
        "kubernetes.node=node-a".to_owned(),
    ];
    let agent =
        Running::start(command(["agent"].into_iter().chain(settings.iter().flat_map(|one| ["--set", one]))));
    // From here on what is known is certain.
    until(|| {
        page(admin, "/metrics").is_some_and(|page| {
            let mut silence =
                page.lines().filter(|line| line.starts_with("pod2pod_kubernetes_silence_seconds{"));
            silence.next().is_some_and(|line| line.ends_with(" 0"))
                && silence.all(|line| line.ends_with(" 0"))
        })
    });
    (agent, admin)
}

#[test]
fn a_call_through_a_service_has_its_pod_and_one_row() {
    let mut server = ApiServer::start();
    server.add_user("agent", "");
    server.restart();
    let (uids, service) = fill(&server);
    let world = World::build("pod2pod-services").expect("a world");
    let rules = format!(
        "table ip shop {{ chain in {{ type nat hook prerouting priority -100; ip daddr {service} tcp dport 80 dnat to {}:{POD_PORT}; }}; }}\n",
        SERVER_POD.v4
    );
    world.node.run("nft -f -", &rules).expect("a rule");
    let place = |namespace: &support::world::Namespace, uid: &str, container| {
        let cgroup = world.cgroup.part(&cgroup_of(uid, container)).expect("a cgroup");
        Place::new(&namespace.path(), &cgroup)
    };
    let (mut web, mut cart) = (place(&world.client, &uids[0], 1), place(&world.server, &uids[1], 2));
    let listener = cart.listen((SERVER_POD.v4, POD_PORT));
    thread::spawn(move || {
        listener.incoming().flatten().for_each(|stream| drop(thread::spawn(|| answer(stream))))
    });
    let (agent, admin) = watch(&world, &server);
    let is_over = AtomicBool::new(false);
    let told = thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                let mut stream = web.connect((service, 80).into());
                (0..10).for_each(|_| ask(&mut stream));
            }
        });
        let _ending = Ending(&is_over);
        until(|| page(admin, "/metrics").is_some_and(|page| page.contains("server_workload=\"cart\"")));
        let url = admin.to_string();
        Running::start(command(["top", "--json", "--interval", "2s", "--url", &url])).finish()
    });
    agent.signal(Signal::SIGTERM);
    let finished = agent.finish();
    assert_eq!(finished.code, Some(0), "{}", finished.stderr);
    let records: Vec<Value> =
        finished.stdout.lines().map(|line| serde_json::from_str(line).expect("a record")).collect();
    let who = |record: &Value| {
        ["observed_at", "client.k8s.pod.name", "server.k8s.pod.name", "server.k8s.service.name"]
            .map(|key| record[key].as_str().unwrap_or("-").to_owned())
            .join(" ")
    };
    let seen: BTreeSet<String> = records.iter().filter(|record| record["kind"] == "http").map(who).collect();
    let expected = ["client", "server"].map(|end| format!("{end} web-1 cart-1 cart"));
    assert_eq!(seen, BTreeSet::from(expected));
    assert!(records.iter().any(|record| record["server.address"] == service.to_string()), "it was called so");
    let page: Value = serde_json::from_str(&told.stdout).expect("a page");
    let rows: Vec<_> = page["pairs"].as_array().expect("rows").iter().collect();
    assert_eq!(rows.len(), 1, "{page:#}");
    assert_eq!((&rows[0]["client_workload"], &rows[0]["server_workload"]), (&"web".into(), &"cart".into()));
}
