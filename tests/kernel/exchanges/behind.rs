//! The pod behind a Service's address in its client's record, with a node that translates: what conntrack says, what the server's own
//! end says, what a poll of IPVS says.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream},
    path::Path,
};

use pod2pod_user::{
    behind::{Conntrack, Translations as _},
    rights::{Part, keep},
};
use serde_json::Value;
use support::{
    director::{self, Director, Family, SERVERS, Settings},
    fact,
    ipvs::HEADER,
    metrics::Metrics,
};

use super::{
    cluster::Cluster,
    http::{Client, Server},
    interfaces::{address, place},
    stage::Place,
};
use crate::tc::world::{Node, ONE, TWO, TWO_V6, VETH_ONE};

/// A Service's own addresses.
const SERVICE: &str = "10.96.0.10";
const SERVICE_V6: &str = "fd00:96::10";
/// What a node's service proxy does.
const NAT: &str = "table ip nat {
    chain in { type nat hook prerouting priority -100; ip daddr 10.96.0.10 tcp dport 8080 dnat to 10.8.2.2:8080; }
}
table ip6 nat {
    chain in { type nat hook prerouting priority -100; ip6 daddr fd00:96::10 tcp dport 8080 dnat to [fd08:2::2]:8080; }
}";

/// A node that translates, its cluster, and a server in the second pod.
struct Stage {
    node: Node,
    cluster: Cluster,
    one: Place,
    two: Place,
    _servers: [Server; 2],
}

impl Stage {
    fn new() -> Self {
        crate::machine::share();
        let node = Node::routed();
        node.node.run_with("nft -f -", NAT);
        let pods = [("web-1", [ONE, "fd08:1::2"]), ("cart-1", [TWO, "fd08:2::2"])];
        let pods = pods.map(|(name, addresses)| (name, ips(&addresses)));
        let cluster = Cluster::start(&node.node, pods.into(), ips(&[SERVICE, SERVICE_V6]));
        let (one, mut two) = (place(&node.one), place(&node.two));
        let servers = [TWO, "fd08:2::2"].map(|own| Server::start(two.listen(address(own))));
        Self { node, cluster, one, two, _servers: servers }
    }
}

fn ips(addresses: &[&str]) -> Vec<IpAddr> {
    addresses.iter().map(|address| address.parse().unwrap()).collect()
}

/// Who the server is, of each record of these views.
fn named(text: &str, observed_at: &str) -> Vec<[Option<String>; 3]> {
    let records = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let seen = records.filter(|record| record["observed_at"] == observed_at);
    let word = |record: &Value, key: &str| record[format!("server.k8s.{key}")].as_str().map(str::to_owned);
    seen.map(|record| ["kind", "pod.name", "service.name"].map(|key| word(&record, key))).collect()
}

fn names(kind: &str, pod: Option<&str>) -> [Option<String>; 3] {
    [Some(kind.to_owned()), pod.map(str::to_owned), Some("cart".to_owned())]
}

#[test]
fn conntrack_tells_the_pod_behind_a_service() {
    let mut stage = Stage::new();
    // The server's end is not seen.
    let agent = stage.cluster.watch(&stage.node.node, VETH_ONE, &[]);
    let mut done = 0;
    for service in [SERVICE, SERVICE_V6] {
        let mut client = Client::connect(&mut stage.one, address(service));
        for number in 0..3 {
            client.get(&format!("/{number}"));
        }
        done += client.done.len();
    }
    agent.wait_records("all are told", |records| records.len() == done);
    let metrics =
        agent.wait_metrics("they are counted", |metrics| metrics.counter("behind_found_by_conntrack") == 2);
    assert_eq!(
        ["behind_found_by_conntrack", "behind_questions", "behind_unknown"].map(|name| metrics.counter(name)),
        [2, 2, 0],
        "one question a connection"
    );
    assert_eq!(named(&agent.end().text, "client"), vec![names("pod", Some("cart-1")); done]);
}

#[test]
fn the_servers_own_end_tells_the_pod_behind_a_service() {
    let mut stage = Stage::new();
    let agent = stage.cluster.watch(&stage.node.node, "veth", &[]);
    let mut client = Client::connect(&mut stage.one, address(SERVICE));
    for number in 0..3 {
        client.get(&format!("/{number}"));
    }
    let done = client.done.len();
    agent.wait_records("both ends are told", |records| records.len() == 2 * done);
    let found = |metrics: &Metrics| {
        let found = ["connection", "conntrack"].map(|by| metrics.counter(&format!("behind_found_by_{by}")));
        found.iter().sum::<u64>()
    };
    let metrics = agent.wait_metrics("it is counted", |metrics| found(metrics) == 1);
    assert_eq!(metrics.counter("behind_unknown"), 0);
    let text = agent.end().text;
    assert_eq!(named(&text, "client"), vec![names("pod", Some("cart-1")); done]);
    assert_eq!(named(&text, "server").len(), done);
}

/// As with `net.ipv4.vs.conntrack=0`: conntrack knows the client's connection, and not that it is led elsewhere.
#[test]
fn a_poll_of_ipvs_tells_the_pod_behind_a_service() {
    let mut stage = Stage::new();
    stage.node.node.run("nft flush ruleset");
    // The real server has the address itself.
    stage.node.two.ip("address add 10.96.0.10/32 dev lo\n");
    stage.node.node.ip(&format!("route add 10.96.0.10/32 via {TWO}\n"));
    let _server = Server::start(stage.two.listen(address(SERVICE)));
    let folder = tempfile::tempdir().unwrap();
    let table = folder.path().join("ip_vs_conn");
    fs::write(&table, HEADER).unwrap();
    let path = format!("ipvs.path={}", table.display());
    let agent = stage.cluster.watch(&stage.node.node, VETH_ONE, &[&path, "ipvs.interval=100ms"]);
    let from = SocketAddr::new(ONE.parse().unwrap(), 40_001);
    let hexadecimal = |text: &str| format!("{:08X}", text.parse::<Ipv4Addr>().unwrap().to_bits());
    let ends = [(ONE, 40_001), (SERVICE, 8080), (TWO, 8080)];
    let ends = ends.map(|(address, port)| format!("{} {port:04X}", hexadecimal(address))).join(" ");
    let fresh = folder.path().join("fresh");
    fs::write(&fresh, format!("{HEADER}TCP {ends} ESTABLISHED     890\n")).unwrap();
    fs::rename(&fresh, &table).unwrap();
    let stream = stage.one.try_connect(Some(from), address(SERVICE)).unwrap();
    let mut client = Client::new(stream);
    client.get("/before");
    agent.wait_records("the first is told", |records| records.len() == 1);
    let polls = agent.metrics().counter("ipvs_polls");
    agent.wait_metrics("two more polls", |metrics| metrics.counter("ipvs_polls") >= polls + 2);
    client.get("/after");
    agent.wait_records("the second is told", |records| records.len() == 2);
    let metrics = agent.wait_metrics("it is counted", |metrics| metrics.counter("behind_found_by_ipvs") == 1);
    assert_eq!(["behind_untranslated", "behind_unknown"].map(|name| metrics.counter(name)), [1, 1]);
    assert_eq!(named(&agent.end().text, "client"), [names("service", None), names("pod", Some("cart-1"))]);
}

/// IPVS itself, with conntrack knowing of its connections and without.
#[test]
fn behind_ipvs_the_pod_is_told_with_conntrack_and_without() {
    if !director::has_ipvs() {
        return fact::lacks("IPVS");
    }
    let service = director::Service { is_tcp: true, family: Family::V4, port: 8080, server_port: 8080 };
    for conntrack in [1, 0] {
        crate::machine::share();
        let director = Director::new(Settings { conntrack, ..Settings::default() });
        director.serve(service, "");
        // All go to the second one.
        director.weigh(service, 0, 0);
        let pods = ["cart-1", "cart-2"].into_iter().zip(SERVERS);
        let pods = pods.map(|(name, own)| (name, vec![IpAddr::V4(own.v4), own.v6.into()])).collect();
        let cluster = Cluster::start(&director.node, pods, vec![service.address().ip()]);
        let [_, second] = &director.servers;
        let _server = Server::start(place(second).listen(service.server(1)));
        let agent = cluster.watch(
            &director.node,
            "client",
            &["ipvs.path=/proc/self/net/ip_vs_conn", "ipvs.interval=100ms"],
        );
        let mut client = Client::connect(&mut place(&director.client), service.address());
        client.get("/first");
        agent.wait_records("the first is told", |records| records.len() == 1);
        let polls = agent.metrics().counter("ipvs_polls");
        agent.wait_metrics("two more polls", |metrics| metrics.counter("ipvs_polls") >= polls + 2);
        client.get("/second");
        agent.wait_records("the second is told", |records| records.len() == 2);
        let source = if conntrack == 1 { "conntrack" } else { "ipvs" };
        agent.wait_metrics("it is found", |metrics| {
            metrics.counter(&format!("behind_found_by_{source}")) == 1
        });
        let first = if conntrack == 1 { names("pod", Some("cart-2")) } else { names("service", None) };
        assert_eq!(named(&agent.end().text, "client"), [first, names("pod", Some("cart-2"))], "{conntrack}");
    }
}

/// The kernel is asked itself: of a connection that is translated, of one that is not, of none, and by a thread without the right.
#[test]
fn conntrack_answers_as_it_is_asked() {
    let mut stage = Stage::new();
    let ask = |client: SocketAddr, service: SocketAddr, has_right: bool| {
        stage.node.node.within(|| {
            if !has_right {
                keep(Part::Output, |_| true).unwrap();
            }
            let mut conntrack = Conntrack::default();
            // Also what is asked after a refusal.
            let first = conntrack.ask(client, service).map_err(|error| error.kind());
            assert_eq!(conntrack.ask(client, service).map_err(|error| error.kind()), first);
            first
        })
    };
    for (service, real) in [
        (address(SERVICE), Some(address(TWO))),
        (address(SERVICE_V6), Some(format!("{TWO_V6}:8080").parse().unwrap())),
        (address(TWO), None),
    ] {
        let stream: TcpStream = stage.one.connect(service);
        let client = stream.local_addr().unwrap();
        assert_eq!(ask(client, service, true), Ok(real), "{service}");
        assert_eq!(ask(client, service, false), Err(std::io::ErrorKind::PermissionDenied));
        let other = SocketAddr::new(client.ip(), client.port() ^ 1);
        assert_eq!(ask(other, service, true), Ok(None), "there is no such connection");
    }
    assert!(Path::new("/proc/sys/net/netfilter/nf_conntrack_count").exists());
}
