//! Who both ends of an exchange are: one by its cgroup, one by its address, in a cluster of 10,000 pods.

use std::{
    cell::RefCell,
    hint::black_box,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use pod2pod_user::{
    enrich::naming::{Ends, Named, Naming, Socket, Who},
    kubernetes::{
        addresses::{Found, News, View},
        cgroup::{Place, PodUid},
        cluster::{Cluster, Config},
        identity::Identity,
        objects::{Change, Endpoint, Event, Metadata, Pod, PodIp, Port, Slice, TargetRef},
    },
    record::{Extra, Party, Role},
};

use super::Parts;

const PODS: usize = 10_000;
/// Pods behind a Service.
const BEHIND: usize = 5;
const QUESTIONS: usize = 10_000;
/// Pods of our node, and those that they talk to over so many connections.
const NEAR: usize = 110;
const PEERS: usize = 500;
const CONNECTIONS: usize = 2_000;
const NOW: Duration = Duration::from_secs(1000);

pub(super) fn naming(parts: &mut Parts) {
    let cluster = cluster();
    let questions: Vec<(SocketAddr, Place)> = (0..QUESTIONS)
        .map(|number| {
            // In no order: a number that shares no factor with the count.
            let far = number * 7919 % PODS;
            let near = PodUid::parse(&uid(number * 3 % 64)).expect("a uid");
            (SocketAddr::new(address(far), 8080), Place { pod: near, container: None })
        })
        .collect();
    let view = View { now: NOW, contact: NOW };
    for (remote, local) in &questions {
        let found = cluster.remote(*remote, NOW, view);
        let has_both = |identity: &Identity| identity.pod.is_some() && identity.service.is_some();
        assert!(matches!(&found, Found::Held(identity) if has_both(identity)), "{found:?}");
        assert!(cluster.local(local).is_some());
    }
    parts.measure(
        "kubernetes, both ends of an exchange",
        QUESTIONS,
        || (),
        |()| {
            for (remote, local) in &questions {
                black_box(cluster.remote(*remote, NOW, view));
                black_box(cluster.local(local));
            }
        },
    );
}

/// As the agent asks: answers are remembered for as long as nothing new comes of the cluster.
pub(super) fn remembered(parts: &mut Parts) {
    let asked = RefCell::new((Known(cluster()), Naming::default()));
    let name = |ends: &Ends| {
        let (who, naming) = &mut *asked.borrow_mut();
        naming.name(who, ends, NOW)
    };
    let ends: Vec<Ends> = (0..QUESTIONS)
        .map(|number| {
            let connection = number * 7919 % CONNECTIONS;
            let far = (address(connection * 3 % PEERS), 8080);
            let client = (address(connection % NEAR), 20_000 + connection as u16);
            let cgroup_id = (connection % NEAR) as u64 + 1;
            Ends { client, server: far, local: Some(Role::Client), cgroup_id, real: None, at: NOW }
        })
        .collect();
    for ends in &ends {
        let named = name(ends);
        let are_known =
            |ends: [&Party; 2]| ends[0].identity.pod.is_some() && ends[1].identity.service.is_some();
        assert!(
            matches!(&named, Named::Now([Some(client), Some(server)]) if are_known([client, server])),
            "{named:?}"
        );
    }
    parts.measure(
        "naming, both ends of an exchange",
        QUESTIONS,
        || (),
        |()| ends.iter().for_each(|ends| drop(black_box(name(ends)))),
    );
}

/// Who is in the cluster; the cgroups of our own pods are numbered from one on.
struct Known(Cluster);

impl Who for Known {
    fn version(&self) -> u64 {
        1
    }

    fn socket(&mut self, cgroup_id: u64, _called: Option<SocketAddr>, _now: Duration) -> Socket {
        let pod = PodUid::parse(&uid(cgroup_id as usize - 1)).expect("a uid");
        let local = self.0.local(&Place { pod, container: None });
        Socket::Of(Box::new(local.expect("a pod")))
    }

    fn address(&mut self, address: SocketAddr, at: Duration, now: Duration) -> Found<Identity> {
        self.0.remote(address, at, View { now, contact: now })
    }

    fn is_outside(&self, address: IpAddr) -> bool {
        self.0.is_outside(address)
    }

    fn shows(&self, _what: Extra, _key: &str) -> bool {
        false
    }
}

fn uid(number: usize) -> String {
    format!("00000000-0000-4000-8000-{number:012x}")
}

fn address(number: usize) -> IpAddr {
    IpAddr::from((0x0a01_0000 + number as u32).to_be_bytes())
}

fn cluster() -> Cluster {
    let mut cluster = Cluster::new(Config { node: Some("node-0".into()), ..Config::default() });
    // A Service has a namespace with its pods.
    let metadata = |number: usize, service: usize| Metadata {
        name: format!("checkout-{number:05}-6b8d7c9f5d-x2x7q"),
        namespace: format!("team-{:02}", service % 50),
        uid: uid(number),
        ..Metadata::default()
    };
    for number in 0..PODS {
        let mut pod = Pod { metadata: metadata(number, number / BEHIND), ..Pod::default() };
        pod.spec.node_name = format!("node-{}", number % 300);
        pod.status.pod_ips = vec![PodIp { ip: address(number).to_string() }];
        cluster.apply(Event::Pod(Change::Applied(pod)), News::live(Duration::ZERO));
    }
    for number in 0..PODS / BEHIND {
        let pods = number * BEHIND..(number + 1) * BEHIND;
        let target = |pod| Some(TargetRef { kind: "Pod".to_owned(), uid: uid(pod) });
        let mut slice = Slice {
            metadata: metadata(PODS + number, number),
            ports: vec![Port { port: Some(8080), ..Port::default() }],
            endpoints: pods.map(|pod| Endpoint { target_ref: target(pod), ..Endpoint::default() }).collect(),
            ..Slice::default()
        };
        slice.metadata.labels =
            [("kubernetes.io/service-name".to_owned(), format!("checkout-{number}"))].into();
        cluster.apply(Event::Slice(Change::Applied(slice)), News::live(Duration::ZERO));
    }
    cluster
}
