//! Who both ends of an exchange are: one by its cgroup, one by its address, in a cluster of 10,000 pods.

use std::{
    hint::black_box,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use pod2pod_user::kubernetes::{
    addresses::{News, View},
    cgroup::{Place, PodUid},
    cluster::{Cluster, Config},
    objects::{Change, Endpoint, Event, Metadata, Pod, PodIp, Port, Slice, TargetRef},
};

use super::Parts;

const PODS: usize = 10_000;
/// Pods behind a Service.
const BEHIND: usize = 5;
const QUESTIONS: usize = 10_000;
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

fn uid(number: usize) -> String {
    format!("00000000-0000-4000-8000-{number:012x}")
}

fn address(number: usize) -> IpAddr {
    IpAddr::from((0x0a01_0000 + number as u32).to_be_bytes())
}

fn cluster() -> Cluster {
    let mut cluster = Cluster::new(Config { node: Some("node-0".into()), ..Config::default() });
    let metadata = |number: usize| Metadata {
        name: format!("checkout-{number:05}-6b8d7c9f5d-x2x7q"),
        namespace: format!("team-{:02}", number % 50),
        uid: uid(number),
        ..Metadata::default()
    };
    for number in 0..PODS {
        let mut pod = Pod { metadata: metadata(number), ..Pod::default() };
        pod.spec.node_name = format!("node-{}", number % 300);
        pod.status.pod_ips = vec![PodIp { ip: address(number).to_string() }];
        cluster.apply(Event::Pod(Change::Applied(pod)), News::live(Duration::ZERO));
    }
    for number in 0..PODS / BEHIND {
        let pods = number * BEHIND..(number + 1) * BEHIND;
        let target = |pod| Some(TargetRef { kind: "Pod".to_owned(), uid: uid(pod) });
        let mut slice = Slice {
            metadata: metadata(PODS + number),
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
