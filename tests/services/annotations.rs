//! What pods ask for by annotations: from the API server to the records.

use std::{
    cell::Cell,
    net::{IpAddr, Ipv4Addr, TcpListener, TcpStream},
    time::Instant,
};

use serde_json::{Value, json};
use support::{
    kubernetes::{
        client::{Client, Request},
        fleet,
        objects::Pod,
        population,
        server::{ADMIN, ApiServer},
    },
    netns::{Cgroup, Namespace},
    wire::{Framing, Wire},
};

use crate::{PATIENCE, agent::Agent, until};

const WEB: Ipv4Addr = Ipv4Addr::new(10, 244, 1, 3);
const CART: Ipv4Addr = Ipv4Addr::new(10, 244, 1, 4);
/// What is sent with each request.
const BODY: &str = "0123456789abcdefghij";
/// Bytes of it that a pod may have.
const MAY_HAVE: usize = 16;

/// Two pods on the agent's node, and what runs in them.
struct Shop {
    client: Client,
    cart: Pod,
    cgroup: Cgroup,
    web: Namespace,
    listener: TcpListener,
    made: Cell<usize>,
}

impl Shop {
    fn open(server: &ApiServer) -> Self {
        let client = server.admin();
        let (node, address) = fleet::node(1);
        population::namespaces(&client, &["shop"]);
        population::nodes(&client, &[(&node, "zone-1", address)]);
        let pods = [("web", WEB), ("cart", CART)]
            .map(|(name, address)| (Pod::new("shop", name, &node), IpAddr::V4(address)));
        population::running_pods(&client, address, &pods);
        let [_, (cart, _)] = pods;
        let (web, other) = (Namespace::new(), Namespace::new());
        web.wire("eth0", &[&format!("{WEB}/24")], &other, "eth0", &[&format!("{CART}/24")]);
        let cgroup = Cgroup::new();
        let listening = cgroup.spawn(&other, || TcpListener::bind((CART, 0)));
        let listener = listening.join().expect("it listens").expect("a port");
        Self { client, cart, cgroup, web, listener, made: Cell::new(0) }
    }

    /// The cart asks for this from now on; for nothing, where a value is null.
    fn ask(&self, annotations: &Value) {
        let change = json!({"metadata": {"annotations": annotations}});
        self.client.ask(&Request::patch(self.cart.path(), change));
    }

    /// Makes an exchange on a connection of its own; its path.
    fn exchange(&self) -> String {
        let path = format!("/{}", self.made.replace(self.made.get() + 1));
        let request = format!(
            "POST {path} HTTP/1.1\r\nHost: cart\r\nX-Shop: open\r\nX-Other: seen\r\n\
             Content-Length: {}\r\nConnection: close\r\n\r\n{BODY}",
            BODY.len()
        );
        let address = self.listener.local_addr().expect("an address");
        let connecting = self.cgroup.spawn(&self.web, move || TcpStream::connect_timeout(&address, PATIENCE));
        let client = connecting.join().expect("it connects").expect("a connection");
        let (server, _) = self.listener.accept().expect("the connection");
        let [mut client, mut server] = [client, server].map(|stream| {
            stream.set_read_timeout(Some(PATIENCE)).expect("a limit");
            Wire::new(stream).expect("a wire")
        });
        client.write(request.as_bytes()).expect("sent");
        read(&mut server);
        server.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok").expect("sent");
        read(&mut client);
        path
    }
}

fn read(wire: &mut Wire) {
    let head = wire.head().expect("whole").expect("a message");
    wire.body(head.framing(Framing::Length(0)), &mut 0).expect("whole");
}

/// What the records of an exchange say, that of its client and that of its server, once both are there.
fn told(agent: &Agent, path: &str) -> Option<[Value; 2]> {
    let records = agent.records();
    let at = |end: &str| {
        let mut of_it = records.iter().filter(|record| record["url.path"] == path);
        of_it.find(|record| record["observed_at"] == end).cloned()
    };
    Some([at("client")?, at("server")?])
}

/// Makes exchanges until the records of one are as wanted.
fn exchange_until(shop: &Shop, agent: &Agent, are_wanted: impl Fn(&[Value; 2]) -> bool) -> [Value; 2] {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let path = shop.exchange();
        until(|| told(agent, &path).is_some());
        let told = told(agent, &path).expect("it was there");
        if are_wanted(&told) {
            return told;
        }
        assert!(Instant::now() < deadline, "{told:#?}");
    }
}

const SHOP: &str = "http.request.header.x-shop";
const OTHER: &str = "http.request.header.x-other";
const CONTENT: &str = "http.request.body.content";

#[test]
fn what_a_pod_asks_for_holds_for_its_own_records_as_far_as_it_may() {
    let server = ApiServer::start();
    let shop = Shop::open(&server);
    let settings = [
        "kubernetes.pods_may=observe,headers,body-bytes",
        "kubernetes.pods_headers=x-shop",
        &format!("kubernetes.pods_body_bytes={MAY_HAVE}"),
    ];
    let agent = Agent::with(&server.kubeconfig(ADMIN), &shop.cgroup, &settings);
    until(|| agent.ready().is_some_and(|(status, _)| status == 200));
    // Nobody asked.
    let has_names = |[client, server]: &[Value; 2]| {
        [client, server]
            .iter()
            .all(|told| told["client.k8s.pod.name"] == "web" && told["server.k8s.pod.name"] == "cart")
    };
    for record in &exchange_until(&shop, &agent, has_names) {
        assert!([SHOP, OTHER, CONTENT].iter().all(|key| record.get(*key).is_none()), "{record:#}");
    }
    // For more than it may have; its client did not ask.
    shop.ask(&json!({"pod2pod.io/headers": "x-shop, x-other", "pod2pod.io/body-bytes": "64KiB"}));
    let [client, of_server] = exchange_until(&shop, &agent, |[_, server]| server.get(SHOP).is_some());
    assert!([SHOP, OTHER, CONTENT].iter().all(|key| client.get(*key).is_none()), "{client:#}");
    assert_eq!(of_server[SHOP], json!(["open"]));
    assert_eq!((of_server.get(OTHER), &of_server[CONTENT]), (None, &json!(BODY[..MAY_HAVE])));
    until(|| agent.metric("pod2pod_names_wishes_limited_total ").is_some_and(|limited| limited > 0.0));
    // To be left alone, and not any more.
    shop.ask(
        &json!({"pod2pod.io/headers": null, "pod2pod.io/body-bytes": null, "pod2pod.io/observe": "false"}),
    );
    // Each exchange is two records, or two that are refused.
    let told = || agent.records().len();
    let refused = || agent.metric("pod2pod_names_refused_total ").expect("a metric") as usize;
    let settle = || until(|| told() + refused() == 2 * shop.made.get());
    until(|| {
        shop.exchange();
        settle();
        refused() > 0
    });
    let before = told();
    shop.exchange();
    settle();
    assert_eq!(told(), before);
    shop.ask(&json!({"pod2pod.io/observe": null}));
    until(|| {
        shop.exchange();
        settle();
        told() > before
    });
    agent.end();
}
