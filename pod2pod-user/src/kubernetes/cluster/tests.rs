//! What news of the API come to, event by event.

use serde_json::{Value, json};

use super::*;
use crate::kubernetes::{
    addresses::MAX_LATENESS,
    cgroup::ContainerId,
    identity::{Workload, WorkloadKind},
};

const fn second(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn uid(number: u32) -> String {
    format!("00000000-0000-4000-8000-{number:012x}")
}

fn read<T: serde::de::DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).unwrap()
}

fn config() -> Config {
    Config {
        node: Some("own".into()),
        labels: vec!["app".into()],
        annotations: vec!["pod2pod.io/observe".into()],
        ..Config::default()
    }
}

/// A running pod of the namespace `shop`, on the node `own`.
fn pod(name: &str, number: u32, address: &str) -> Value {
    json!({
        "metadata": {"name": name, "namespace": "shop", "uid": uid(number)},
        "spec": {"nodeName": "own", "restartPolicy": "Always"},
        "status": {"phase": "Running", "podIP": address, "podIPs": [{"ip": address}]},
    })
}

fn with(mut object: Value, pointer: &str, value: Value) -> Value {
    let (above, key) = pointer.rsplit_once('/').unwrap();
    object.pointer_mut(above).unwrap().as_object_mut().unwrap().insert(key.to_owned(), value);
    object
}

fn owned_by(object: Value, version: &str, kind: &str, name: &str, number: u32) -> Value {
    let owner =
        json!([{"apiVersion": version, "kind": kind, "name": name, "uid": uid(number), "controller": true}]);
    with(object, "/metadata/ownerReferences", owner)
}

struct Told {
    cluster: Cluster,
    at: Duration,
}

impl Told {
    /// With contact for ever, and no pods but those that are told of.
    fn new() -> Self {
        let mut told = Self { cluster: Cluster::new(config()), at: second(1000) };
        told.event(Event::Pod(Change::Begin));
        told.event(Event::Pod(Change::Done));
        told
    }

    fn event(&mut self, event: Event) {
        self.cluster.apply(event, News::live(self.at));
    }

    fn pod(&mut self, object: Value) {
        self.event(Event::Pod(Change::Applied(read(object))));
    }

    /// Long after, of now.
    fn find(&self, address: &str) -> Found<Identity> {
        self.find_at(address, self.at, self.at + second(1000))
    }

    fn find_at(&self, address: &str, at: Duration, now: Duration) -> Found<Identity> {
        self.cluster.remote(address.parse().unwrap(), at, View { now, contact: now })
    }

    fn held(&self, address: &str) -> Identity {
        match self.find(address) {
            Found::Held(identity) => identity,
            other @ (Found::Early(..) | Found::Stale(_) | Found::Nobody | Found::Several) => {
                panic!("{address}: {other:?}")
            }
        }
    }

    /// What is known of the address: pod, Service, node.
    fn names(&self, address: &str) -> String {
        let Found::Held(Identity { pod, service, node, .. }) = self.find(address) else {
            return format!("{:?}", self.find(address).and_then(|_| Some(())));
        };
        let pod = pod.map(|pod| pod.name.to_string());
        let service = service.map(|service| service.name.to_string());
        let word = |name: Option<String>| name.unwrap_or_else(|| "-".to_owned());
        format!("{} {} {}", word(pod), word(service), word(node.map(|node| node.to_string())))
    }
}

#[test]
fn a_pod_is_named_by_its_address_with_what_is_asked_for() {
    let mut told = Told::new();
    let object = owned_by(pod("web-0", 1, "10.1.0.1"), "apps/v1", "StatefulSet", "web", 9);
    let object = with(object, "/metadata/labels", json!({"app": "web", "team": "a", "zone": "b"}));
    let object = with(object, "/metadata/annotations", json!({"pod2pod.io/observe": "false", "other": "x"}));
    told.pod(with(object, "/status/podIPs", json!([{"ip": "10.1.0.1"}, {"ip": "fd00::1"}])));
    for address in ["10.1.0.1:8080", "[fd00::1]:0", "[::ffff:10.1.0.1]:1"] {
        let pod = told.held(address).pod.unwrap();
        assert_eq!((&*pod.namespace, &*pod.name, pod.node.as_deref()), ("shop", "web-0", Some("own")));
        assert_eq!(pod.workload, Some(Workload { kind: WorkloadKind::StatefulSet, name: "web".into() }));
        assert_eq!(*pod.labels, [("app".into(), "web".into())]);
        assert_eq!(*pod.annotations, [("pod2pod.io/observe".into(), "false".into())]);
    }
    // Of another node's pod only the labels.
    let object = with(pod("far", 2, "10.1.0.2"), "/spec/nodeName", json!("other"));
    let object = with(object, "/metadata/labels", json!({"app": "web"}));
    told.pod(with(object, "/metadata/annotations", json!({"pod2pod.io/observe": "false"})));
    let pod = told.held("10.1.0.2:1").pod.unwrap();
    assert_eq!((pod.labels.len(), pod.annotations.len()), (1, 0));
}

#[test]
fn objects_may_lack_anything() {
    let mut told = Told::new();
    for object in [
        json!({}),
        json!({"metadata": null, "spec": null, "status": null}),
        json!({"metadata": {"name": "a", "namespace": "b"}}),
        json!({"metadata": {"name": "a", "namespace": "b", "uid": "not a uid"}}),
        json!({"metadata": {"name": "a", "uid": uid(1)}}),
        json!({"metadata": {"namespace": "b", "uid": uid(1)}}),
    ] {
        told.pod(object.clone());
        told.event(Event::Pod(Change::Deleted(read(object.clone()))));
        told.event(Event::Service(Change::Applied(read(object.clone()))));
        told.event(Event::Slice(Change::Applied(read(object.clone()))));
        told.event(Event::Node(Change::Applied(read(object.clone()))));
        told.event(Event::ReplicaSet(Change::Applied(read(object))));
    }
    let stats = told.cluster.stats();
    // A Service needs no uid, a node no namespace either.
    assert_eq!(stats.objects, [0, 1, 0, 1, 0, 0]);
    assert_eq!((stats.ignored[0] > 0, stats.ignored[1] > 0), (true, true));
    // Nothing but a name and an address that is none.
    let object = json!({
        "metadata": {"name": "a", "namespace": "b", "uid": uid(1), "labels": null, "ownerReferences": [{}]},
        "spec": {"hostNetwork": null},
        "status": {"podIP": "", "podIPs": [{}, {"ip": "10.1.2"}, {"ip": "0.0.0.0"}, {"ip": "127.0.0.1"}],
            "containerStatuses": [{}, {"name": null, "containerID": "docker"}]},
    });
    told.pod(object);
    assert_eq!(told.cluster.stats().objects[0], 1);
    assert_eq!(told.find("0.0.0.0:1"), Found::Nobody);
}

#[test]
fn names_have_a_length() {
    let mut told = Told::new();
    let name = |length: usize| "a".repeat(length);
    told.pod(pod(&name(MAX_NAME), 1, "10.1.0.1"));
    told.pod(pod(&name(MAX_NAME + 1), 2, "10.1.0.2"));
    told.pod(pod("pod.with-dots.9", 3, "10.1.0.3"));
    assert_eq!(told.cluster.stats().objects[0], 2);
    assert_eq!(told.cluster.stats().ignored[Ignored::Name as usize], 1);
}

#[test]
fn a_pods_workload_is_the_owner_of_its_owner_whenever_that_is_heard_of() {
    let workload = |told: &Told, address| {
        let workload = told.held(address).pod.unwrap().workload.clone()?;
        Some(format!("{} {}", workload.kind.as_str(), workload.name))
    };
    let mut told = Told::new();
    let set =
        |name: &str, number| json!({"metadata": {"name": name, "namespace": "shop", "uid": uid(number)}});
    let of_set = |address, hash: Option<&str>, set: &str, number| {
        let object = owned_by(pod("p", number, address), "apps/v1", "ReplicaSet", set, number + 100);
        match hash {
            Some(hash) => with(object, "/metadata/labels", json!({"pod-template-hash": hash})),
            None => object,
        }
    };
    // Known by the hash, and then by the ReplicaSet, also if its name does not end with it.
    told.pod(of_set("10.1.0.1", Some("5d8f"), "web-5d8f", 1));
    told.pod(of_set("10.1.0.2", None, "api-77", 2));
    told.pod(of_set("10.1.0.3", Some("5d8f"), "-5d8f", 3));
    let first = workload(&told, "10.1.0.1:0");
    assert_eq!(first.as_deref(), Some("deployment web"));
    assert_eq!(workload(&told, "10.1.0.2:0").as_deref(), Some("replicaset api-77"));
    assert_eq!(workload(&told, "10.1.0.3:0").as_deref(), Some("replicaset -5d8f"));
    let above = owned_by(set("api-77", 102), "apps/v1", "Deployment", "api", 202);
    told.event(Event::ReplicaSet(Change::Applied(read(above.clone()))));
    assert_eq!(workload(&told, "10.1.0.2:0").as_deref(), Some("deployment api"));
    // It is gone before the pod's next news, and the name stays.
    told.event(Event::ReplicaSet(Change::Deleted(read(above))));
    told.pod(with(of_set("10.1.0.2", None, "api-77", 2), "/metadata/deletionTimestamp", json!("x")));
    assert_eq!(workload(&told, "10.1.0.2:0").as_deref(), Some("deployment api"));
    // One that nobody owns; adopted later.
    told.event(Event::ReplicaSet(Change::Applied(read(set("-5d8f", 103)))));
    assert_eq!(workload(&told, "10.1.0.3:0").as_deref(), Some("replicaset -5d8f"));
    let above = owned_by(set("-5d8f", 103), "argoproj.io/v1alpha1", "Rollout", "canary", 203);
    told.event(Event::ReplicaSet(Change::Applied(read(above))));
    assert_eq!(workload(&told, "10.1.0.3:0").as_deref(), Some("other canary"));
    // Jobs.
    let job = owned_by(set("night-29", 304), "batch/v1", "CronJob", "night", 404);
    told.event(Event::Job(Change::Applied(read(job))));
    told.pod(owned_by(pod("night-29-x", 4, "10.1.0.4"), "batch/v1", "Job", "night-29", 304));
    assert_eq!(workload(&told, "10.1.0.4:0").as_deref(), Some("cronjob night"));
    // By themselves; of a node; of one of several.
    told.pod(pod("alone", 5, "10.1.0.5"));
    told.pod(owned_by(pod("static", 6, "10.1.0.6"), "v1", "Node", "own", 306));
    assert_eq!((workload(&told, "10.1.0.5:0"), workload(&told, "10.1.0.6:0")), (None, None));
    let owners = json!([{"apiVersion": "v1", "kind": "A", "name": "a"},
        {"apiVersion": "apps/v1", "kind": "DaemonSet", "name": "b", "controller": true}]);
    told.pod(with(pod("of two", 7, "10.1.0.7"), "/metadata/ownerReferences", owners));
    assert_eq!(workload(&told, "10.1.0.7:0").as_deref(), Some("daemonset b"));
}

#[test]
fn the_own_nodes_pods_are_known_by_cgroup_with_their_containers() {
    let mut told = Told::new();
    let id = |digit: char| digit.to_string().repeat(64);
    let place = |number: u32, digit: char| Place {
        pod: PodUid::parse(&uid(number)).unwrap(),
        container: ContainerId::parse(&id(digit)),
    };
    let container = |told: &Told, number, digit| {
        told.cluster.local(&place(number, digit)).map(|found| found.container.map(|name| name.to_string()))
    };
    let running = |digit| {
        let object = pod("web", 1, "10.1.0.1");
        let object = with(
            object,
            "/status/initContainerStatuses",
            json!([{"name": "init", "containerID": format!("cri-o://{}", id('a'))}]),
        );
        with(
            object,
            "/status/containerStatuses",
            json!([{"name": "web", "containerID": format!("containerd://{}", id(digit))}]),
        )
    };
    assert_eq!(container(&told, 1, 'b'), None);
    told.pod(running('b'));
    let name = |name: &str| Some(Some(name.to_owned()));
    assert_eq!((container(&told, 1, 'a'), container(&told, 1, 'b')), (name("init"), name("web")));
    assert_eq!(container(&told, 1, 'c'), Some(None), "not heard of yet");
    // Started again: the one before is remembered.
    told.pod(running('c'));
    assert_eq!((container(&told, 1, 'b'), container(&told, 1, 'c')), (name("web"), name("web")));
    // A static one is named by its manifest; its cgroup has no other name for it.
    let manifest = "0123456789abcdef0123456789abcdef";
    let object = with(pod("etcd", 2, "192.168.0.1"), "/spec/hostNetwork", json!(true));
    let says = json!({"kubernetes.io/config.hash": manifest, "kubernetes.io/config.mirror": manifest});
    told.pod(owned_by(with(object, "/metadata/annotations", says.clone()), "v1", "Node", "own", 9));
    let found = |told: &Told| {
        let place = Place { pod: PodUid::parse(manifest).unwrap(), container: None };
        let found = told.cluster.local(&place).unwrap();
        (found.pod.unwrap().name.to_string(), found.node)
    };
    assert_eq!(found(&told), ("etcd".to_owned(), Some("own".into())));
    // One that says the same of itself is not it: kubelet did not make it, or the one that it made is there.
    let forged = with(pod("forged", 3, "10.1.0.3"), "/metadata/annotations", says);
    told.pod(forged.clone());
    told.pod(owned_by(forged, "v1", "Node", "own", 9));
    assert_eq!(found(&told).0, "etcd");
    // Gone, it is remembered for a time.
    told.event(Event::Pod(Change::Deleted(read(running('c')))));
    told.cluster.forget(told.at + addresses::KEPT_AFTER_END - Duration::from_nanos(1));
    assert!(container(&told, 1, 'c').is_some());
    told.cluster.forget(told.at + addresses::KEPT_AFTER_END);
    assert_eq!(container(&told, 1, 'c'), None);
}

#[test]
fn a_pods_containers_have_a_limit() {
    let mut told = Told::new();
    let id = |number: usize| format!("{number:064x}");
    for number in 0..=MAX_CONTAINERS {
        let statuses = json!([{"name": "web", "containerID": format!("containerd://{}", id(number))}]);
        told.pod(with(pod("web", 1, "10.1.0.1"), "/status/containerStatuses", statuses));
    }
    let is_known = |number| {
        let place =
            Place { pod: PodUid::parse(&uid(1)).unwrap(), container: ContainerId::parse(&id(number)) };
        told.cluster.local(&place).unwrap().container.is_some()
    };
    assert_eq!((is_known(0), is_known(1), is_known(MAX_CONTAINERS)), (false, true, true));
}

#[test]
fn long_annotations_are_left_out() {
    let mut told = Told::new();
    for (number, length) in [(1, MAX_ANNOTATION), (2, MAX_ANNOTATION + 1)] {
        let annotations = json!({"pod2pod.io/observe": "x".repeat(length)});
        told.pod(with(pod("web", number, &format!("10.1.0.{number}")), "/metadata/annotations", annotations));
    }
    let count = |address| told.held(address).pod.unwrap().annotations.len();
    assert_eq!((count("10.1.0.1:0"), count("10.1.0.2:0"), told.cluster.stats().long_values), (1, 0, 1));
}

fn service(name: &str, address: &str, port: u16) -> Value {
    json!({
        "metadata": {"name": name, "namespace": "shop", "uid": "x"},
        "spec": {"type": "ClusterIP", "clusterIP": address, "clusterIPs": [address],
            "ports": [{"port": port}, {"port": 53, "protocol": "UDP"}]},
    })
}

fn slice(service: &str, number: u32, port: u16, endpoints: Value) -> Value {
    json!({
        "metadata": {"name": format!("{service}-x"), "namespace": "shop", "uid": uid(number),
            "labels": {"kubernetes.io/service-name": service}},
        "addressType": "IPv4",
        "ports": [{"name": "http", "port": port, "protocol": "TCP"}, {"port": null}],
        "endpoints": endpoints,
    })
}

fn target(address: &str, number: u32) -> Value {
    json!({"addresses": [address], "targetRef": {"kind": "Pod", "name": "p", "uid": uid(number)}})
}

#[test]
fn a_services_own_address_is_its_on_its_ports() {
    let mut told = Told::new();
    told.event(Event::Service(Change::Applied(read(service("cart", "10.96.0.7", 80)))));
    told.event(Event::Service(Change::Applied(read(service("headless", "None", 80)))));
    let count = |told: &Told| told.cluster.stats().objects[Kind::Services as usize];
    let expected = "- cart -";
    assert_eq!((told.names("10.96.0.7:80").as_str(), count(&told)), (expected, 2));
    assert_eq!((told.names("10.96.0.7:53"), told.names("10.96.0.7:81")), ("Nobody".into(), "Nobody".into()));
    // Of an exchange that is told of later.
    told.event(Event::Service(Change::Deleted(read(service("cart", "10.96.0.7", 80)))));
    let before = told.at - second(10);
    assert_eq!(told.find_at("10.96.0.7:80", before, told.at), Found::Nobody, "it came just before");
    assert_eq!((told.names("10.96.0.7:80").as_str(), count(&told)), (expected, 1));
    assert_eq!(told.find_at("10.96.0.7:80", told.at + second(1), told.at + second(100)), Found::Nobody);
    // The next list has not the other either.
    told.event(Event::Service(Change::Begin));
    told.event(Event::Service(Change::Done));
    assert_eq!(count(&told), 0);
}

#[test]
fn an_endpoint_is_of_the_one_service_that_has_its_port() {
    let mut told = Told::new();
    told.pod(pod("cart-1", 1, "10.1.0.1"));
    told.event(Event::Slice(Change::Applied(read(slice("cart", 11, 8080, json!([target("10.1.0.1", 1)]))))));
    assert_eq!(told.names("10.1.0.1:8080"), "cart-1 cart -");
    assert_eq!(
        (told.names("10.1.0.1:8081"), told.names("10.1.0.1:0")),
        ("cart-1 - -".into(), "cart-1 - -".into())
    );
    let known = told.held("10.1.0.1:0").pod.unwrap();
    let of = told.cluster.service_of(&known, "10.1.0.1:8080".parse().unwrap(), told.at);
    assert_eq!(of.map(|service| service.name.to_string()).as_deref(), Some("cart"));
    // In a second slice of the same Service, and only in that one then.
    told.event(Event::Slice(Change::Applied(read(slice("cart", 12, 8080, json!([target("fd00::1", 1)]))))));
    told.event(Event::Slice(Change::Deleted(read(slice("cart", 11, 8080, json!([]))))));
    assert_eq!(told.names("10.1.0.1:8080"), "cart-1 cart -");
    // Two Services with the same port.
    told.event(Event::Slice(Change::Applied(read(slice("all", 13, 8080, json!([target("10.1.0.1", 1)]))))));
    assert_eq!(told.names("10.1.0.1:8080"), "cart-1 - -");
    told.event(Event::Slice(Change::Applied(read(slice("all", 13, 8080, json!([]))))));
    assert_eq!(told.names("10.1.0.1:8080"), "cart-1 cart -");
    // The address goes to another pod: the slice that still has it means the one before.
    told.event(Event::Pod(Change::Deleted(read(pod("cart-1", 1, "10.1.0.1")))));
    told.at += second(20);
    told.pod(pod("web-1", 2, "10.1.0.1"));
    assert_eq!(told.names("10.1.0.1:8080"), "web-1 - -");
    // What is no pod, in a slice that somebody wrote.
    let endpoint = json!([{"addresses": ["10.9.9.9", "no address", "10.1.0.1"]}, {}, {"addresses": null}]);
    told.event(Event::Slice(Change::Applied(read(slice("db", 14, 5432, endpoint)))));
    assert_eq!(
        (told.names("10.9.9.9:5432"), told.names("10.9.9.9:5433")),
        ("- db -".into(), "Nobody".into())
    );
    assert_eq!(told.names("10.1.0.1:5432"), "web-1 db -");
}

#[test]
fn pods_in_the_network_of_their_node_are_told_apart_by_the_ports_of_endpoints() {
    let node = json!({"metadata": {"name": "own", "labels": {"topology.kubernetes.io/zone": "z1"}},
        "status": {"addresses": [{"address": "192.168.0.1"}, {"address": "own.example"}]}});
    let host = |name: &str, number| with(pod(name, number, "192.168.0.1"), "/spec/hostNetwork", json!(true));
    let endpoints = |number| json!([target("192.168.0.1", number)]);
    // Whichever comes first.
    for is_pod_first in [true, false] {
        let mut told = Told::new();
        told.event(Event::Node(Change::Applied(read(node.clone()))));
        for pods in [is_pod_first, !is_pod_first] {
            if pods {
                told.pod(host("proxy", 1));
                told.pod(host("dns", 2));
                told.pod(host("quiet", 3));
            } else {
                told.event(Event::Slice(Change::Applied(read(slice("proxy", 11, 9000, endpoints(1))))));
                told.event(Event::Slice(Change::Applied(read(slice("dns", 12, 9153, endpoints(2))))));
            }
        }
        assert_eq!(told.names("192.168.0.1:9000"), "proxy proxy own");
        assert_eq!(told.names("192.168.0.1:9153"), "dns dns own");
        assert_eq!(
            (told.names("192.168.0.1:80"), told.names("192.168.0.1:0")),
            ("- - own".into(), "- - own".into())
        );
        assert_eq!(told.held("192.168.0.1:9000").pod.unwrap().zone.as_deref(), Some("z1"));
        // The next one has the port while the slice still means the first.
        told.event(Event::Pod(Change::Deleted(read(host("proxy", 1)))));
        told.at += second(60);
        assert_eq!(told.names("192.168.0.1:9000"), "- - own");
        told.pod(host("proxy-2", 4));
        told.event(Event::Slice(Change::Applied(read(slice("proxy", 11, 9000, endpoints(4))))));
        assert_eq!(told.names("192.168.0.1:9000"), "proxy-2 proxy own");
        // Gone from its Service.
        told.event(Event::Slice(Change::Deleted(read(slice("proxy", 11, 9000, json!([]))))));
        told.at += second(60);
        assert_eq!(told.names("192.168.0.1:9000"), "- - own");
    }
}

#[test]
fn what_a_slice_says_of_pods_of_another_namespace_is_not_believed() {
    let mut told = Told::new();
    let host = with(pod("proxy", 1, "192.168.0.1"), "/spec/hostNetwork", json!(true));
    told.event(Event::Node(Change::Applied(read(node("own", "192.168.0.1")))));
    told.pod(host.clone());
    told.pod(pod("cart", 2, "10.1.0.2"));
    let foreign = |number, endpoints| {
        with(slice("evil", number, 10250, endpoints), "/metadata/namespace", json!("evil"))
    };
    told.event(Event::Slice(Change::Applied(read(foreign(11, json!([target("192.168.0.1", 1)]))))));
    told.event(Event::Slice(Change::Applied(read(foreign(12, json!([target("10.1.0.2", 2)]))))));
    told.event(Event::Slice(Change::Applied(read(foreign(13, json!([{"addresses": ["10.1.0.2"]}]))))));
    // Also of a pod that is heard of later.
    told.pod(host);
    assert_eq!(told.names("192.168.0.1:10250"), "- - own");
    assert_eq!(told.names("10.1.0.2:10250"), "cart - -");
    // Beside it, its own Service is the one, and stays it when the other goes.
    told.event(Event::Slice(Change::Applied(read(slice(
        "dns",
        14,
        10250,
        json!([target("192.168.0.1", 1)]),
    )))));
    told.event(Event::Slice(Change::Applied(read(slice("cart", 15, 10250, json!([target("10.1.0.2", 2)]))))));
    told.event(Event::Slice(Change::Deleted(read(foreign(11, json!([]))))));
    told.at += second(60);
    assert_eq!(told.names("192.168.0.1:10250"), "proxy dns own");
    assert_eq!(told.names("10.1.0.2:10250"), "cart cart -");
}

#[test]
fn an_endpoint_that_does_not_serve_has_no_port() {
    for (conditions, expected) in [
        (json!(null), "proxy proxy own"),
        (json!({}), "proxy proxy own"),
        (json!({"ready": true, "serving": null}), "proxy proxy own"),
        (json!({"ready": false, "serving": true, "terminating": true}), "proxy proxy own"),
        (json!({"ready": false}), "- - own"),
        (json!({"ready": false, "serving": false}), "- - own"),
    ] {
        let mut told = Told::new();
        told.event(Event::Node(Change::Applied(read(node("own", "192.168.0.1")))));
        told.pod(with(pod("proxy", 1, "192.168.0.1"), "/spec/hostNetwork", json!(true)));
        let mut endpoint = target("192.168.0.1", 1);
        endpoint["conditions"] = conditions.clone();
        told.event(Event::Slice(Change::Applied(read(slice("proxy", 11, 80, json!([endpoint]))))));
        assert_eq!(told.names("192.168.0.1:80"), expected, "{conditions}");
    }
}

fn node(name: &str, address: &str) -> Value {
    json!({"metadata": {"name": name}, "status": {"addresses": [{"address": address}]}})
}

/// Called by an external address, a load balancer's, and a port of nodes.
fn called(name: &str, external: &str, balancer: &str, node_port: u16) -> Value {
    let object = with(service(name, "10.96.0.7", 80), "/spec/externalIPs", json!([external, "", "name"]));
    let object = with(object, "/spec/ports/0/nodePort", json!(node_port));
    let object = with(object, "/spec/ports/1/nodePort", json!(node_port + 1));
    let ingress = json!([{"ip": balancer}, {"hostname": "lb.example"}, {"ip": null}]);
    with(object, "/status", json!({"loadBalancer": {"ingress": ingress}}))
}

#[test]
fn a_service_is_called_by_external_addresses_and_ports_of_nodes() {
    let mut told = Told::new();
    told.event(Event::Node(Change::Applied(read(node("a", "192.168.0.1")))));
    told.event(Event::Node(Change::Applied(read(node("b", "fd00::9")))));
    told.event(Event::Service(Change::Applied(read(called("cart", "203.0.113.5", "198.51.100.7", 30080)))));
    for (address, expected) in [
        ("10.96.0.7:80", "- cart -"),
        ("203.0.113.5:80", "- cart -"),
        ("198.51.100.7:80", "- cart -"),
        ("192.168.0.1:30080", "- cart -"),
        ("[fd00::9]:30080", "- cart -"),
        // Another port, that of UDP, that of nodes elsewhere, and who calls from there.
        ("203.0.113.5:81", "Nobody"),
        ("203.0.113.5:30080", "Nobody"),
        ("203.0.113.5:0", "Nobody"),
        ("192.168.0.1:80", "- - a"),
        ("192.168.0.1:30081", "- - a"),
        ("192.168.0.1:0", "- - a"),
        ("192.168.0.2:30080", "Nobody"),
    ] {
        assert_eq!(told.names(address), expected, "{address}");
    }
    // It is called by others, and an exchange is told of that was before.
    let then = told.at;
    told.at += second(100);
    told.event(Event::Service(Change::Applied(read(called("cart", "203.0.113.6", "198.51.100.7", 30090)))));
    for address in ["203.0.113.5:80", "192.168.0.1:30080"] {
        let found = told.find_at(address, then + second(50), told.at + second(60));
        assert!(matches!(found, Found::Held(Identity { service: Some(_), .. })), "{address}: {found:?}");
    }
    told.at += second(60);
    for (address, expected) in [
        ("203.0.113.5:80", "Nobody"),
        ("203.0.113.6:80", "- cart -"),
        ("198.51.100.7:80", "- cart -"),
        ("192.168.0.1:30080", "- - a"),
        ("192.168.0.1:30090", "- cart -"),
    ] {
        assert_eq!(told.names(address), expected, "{address}");
    }
}

#[test]
fn a_service_that_is_gone_is_called_by_nothing_and_forgotten() {
    // By its own word, or because it is in no list.
    for is_deleted in [true, false] {
        let mut told = Told::new();
        let object = called("cart", "203.0.113.6", "198.51.100.7", 30090);
        told.event(Event::Node(Change::Applied(read(node("a", "192.168.0.1")))));
        told.event(Event::Service(Change::Applied(read(object.clone()))));
        if is_deleted {
            told.event(Event::Service(Change::Deleted(read(object))));
        } else {
            told.event(Event::Service(Change::Begin));
            told.event(Event::Service(Change::Done));
        }
        told.at += second(60);
        assert_eq!(told.names("198.51.100.7:80"), "Nobody");
        assert_eq!(told.names("192.168.0.1:30090"), "- - a");
        told.at += addresses::KEPT_AFTER_END;
        let before = told.cluster.services.bytes();
        told.cluster.forget(told.at);
        let ends = 3 * size_of::<(Option<IpAddr>, u16)>();
        assert!(told.cluster.services.bytes() < before - ends, "{is_deleted}");
    }
}

#[test]
fn a_load_balancers_address_may_be_shared_and_a_nodes_own() {
    let mut told = Told::new();
    told.event(Event::Node(Change::Applied(read(node("a", "192.168.0.1")))));
    let of = |name: &str, port: u16| {
        let object = service(name, "None", port);
        with(object, "/status", json!({"loadBalancer": {"ingress": [{"ip": "192.168.0.1"}]}}))
    };
    told.event(Event::Service(Change::Applied(read(of("web", 80)))));
    told.event(Event::Service(Change::Applied(read(of("db", 5432)))));
    assert_eq!(told.names("192.168.0.1:80"), "- web -");
    assert_eq!(told.names("192.168.0.1:5432"), "- db -");
    assert_eq!(told.names("192.168.0.1:22"), "- - a");
    // Two that have the same port of it: of the two none, but it is the node's.
    told.event(Event::Service(Change::Applied(read(of("other", 80)))));
    assert_eq!(told.names("192.168.0.1:80"), "- - a");
    told.event(Event::Node(Change::Deleted(read(node("a", "192.168.0.1")))));
    told.at += second(60);
    assert_eq!(told.names("192.168.0.1:80"), "Several");
}

#[test]
fn a_port_that_a_pod_of_the_node_has_too_is_not_said_to_be_a_services() {
    let mut told = Told::new();
    told.event(Event::Node(Change::Applied(read(node("own", "192.168.0.1")))));
    told.event(Event::Service(Change::Applied(read(called("cart", "203.0.113.5", "198.51.100.7", 30080)))));
    let host = with(pod("proxy", 1, "192.168.0.1"), "/spec/hostNetwork", json!(true));
    told.pod(host.clone());
    assert_eq!(told.names("192.168.0.1:30080"), "- cart -", "nobody says that it is the pod's");
    let endpoints = json!([target("192.168.0.1", 1)]);
    told.event(Event::Slice(Change::Applied(read(slice("proxy", 11, 30080, endpoints.clone())))));
    assert_eq!(told.names("192.168.0.1:30080"), "- - own", "it may be either's");
    // It is behind that very Service.
    told.event(Event::Slice(Change::Applied(read(slice("cart", 11, 30080, endpoints)))));
    told.at += second(60);
    assert_eq!(told.names("192.168.0.1:30080"), "proxy cart own");
    told.event(Event::Pod(Change::Deleted(read(host))));
    told.at += second(60);
    assert_eq!(told.names("192.168.0.1:30080"), "- cart -");
}

#[test]
fn so_many_ends_of_a_service_are_known() {
    for (count, ignored) in [(MAX_CALLED, 0), (MAX_CALLED + 1, 1)] {
        let mut told = Told::new();
        let external: Vec<_> =
            (0..count).map(|number| format!("203.0.{}.{}", number / 250, 1 + number % 250)).collect();
        let object = with(service("cart", "10.96.0.7", 80), "/spec/externalIPs", json!(external));
        told.event(Event::Service(Change::Applied(read(object.clone()))));
        assert_eq!(told.names(&format!("{}:80", external[MAX_CALLED - 1])), "- cart -");
        assert_eq!(told.names("10.96.0.7:80"), "- cart -");
        assert_eq!(told.cluster.stats().ignored[Ignored::Room as usize], ignored);
        assert_eq!(told.cluster.is_whole(Kind::Services), ignored == 0, "else the rest might be outside");
        // What is new is not taken in past the memory's limit, what is known stays.
        told.cluster.config.max_bytes = 0;
        let more = with(object, "/spec/ports/0/nodePort", json!(30080));
        told.event(Event::Service(Change::Applied(read(more))));
        assert_eq!(told.names(&format!("{}:80", external[0])), "- cart -");
        assert_eq!(told.cluster.stats().ignored[Ignored::Room as usize], ignored + 1);
    }
}

#[test]
fn zones_and_nodes_are_known_whenever_they_come() {
    let mut told = Told::new();
    let node = |zone: &str| {
        json!({"metadata": {"name": "own", "labels": {"topology.kubernetes.io/zone": zone}},
            "status": {"addresses": [{"address": "192.168.0.1"}, {"address": "fd00::9"}]}})
    };
    told.pod(pod("a", 1, "10.1.0.1"));
    let zone = |told: &Told| told.held("10.1.0.1:0").pod.unwrap().zone.as_deref().map(str::to_owned);
    assert_eq!(zone(&told), None);
    told.event(Event::Node(Change::Begin));
    told.event(Event::Node(Change::Listed(read(node("z1")))));
    told.event(Event::Node(Change::Done));
    assert_eq!(zone(&told).as_deref(), Some("z1"));
    told.event(Event::Node(Change::Applied(read(node("z2")))));
    assert_eq!(zone(&told).as_deref(), Some("z2"));
    assert_eq!(
        (told.names("192.168.0.1:1"), told.names("[fd00::9]:1")),
        ("- - own".into(), "- - own".into())
    );
    told.event(Event::Node(Change::Begin));
    told.event(Event::Node(Change::Done));
    told.at += second(60);
    assert_eq!(told.names("192.168.0.1:1"), "Nobody");
}

#[test]
fn pods_that_ended_or_are_not_in_the_new_list_give_their_address_back() {
    for phase in ["Succeeded", "Failed"] {
        let mut told = Told::new();
        told.pod(pod("job-1", 1, "10.1.0.1"));
        told.at += second(100);
        told.pod(with(pod("job-1", 1, "10.1.0.1"), "/status/phase", json!(phase)));
        told.at += second(60);
        told.pod(with(pod("job-1", 1, "10.1.0.1"), "/status/phase", json!(phase)));
        told.pod(pod("job-2", 2, "10.1.0.1"));
        assert_eq!(told.names("10.1.0.1:0"), "job-2 - -");
        assert_eq!(told.cluster.stats().objects[0], 1);
        // Ended before it was ever heard of.
        told.pod(with(pod("job-3", 3, "10.1.0.1"), "/status/phase", json!(phase)));
        assert_eq!(told.names("10.1.0.1:0"), "job-2 - -");
    }
    let mut told = Told::new();
    told.pod(pod("a", 1, "10.1.0.1"));
    told.pod(pod("b", 2, "10.1.0.2"));
    told.at += second(100);
    told.event(Event::Pod(Change::Begin));
    told.event(Event::Pod(Change::Listed(read(pod("b", 2, "10.1.0.2")))));
    assert_eq!(told.cluster.stats().objects[0], 2, "until it is complete");
    told.event(Event::Pod(Change::Done));
    told.at += second(60);
    assert_eq!((told.names("10.1.0.1:0"), told.names("10.1.0.2:0")), ("Nobody".into(), "b - -".into()));
    told.cluster.forget(told.at + addresses::KEPT_AFTER_END);
    assert_eq!(told.cluster.stats().objects[0], 1);
}

#[test]
fn addresses_that_no_pod_can_have_are_nobodys_at_once() {
    let mut told = Told::new();
    let now = told.at;
    let find = |told: &Told, address: &str| told.find_at(address, now, now);
    let early = Found::Early(now + MAX_LATENESS, None);
    assert_eq!(find(&told, "10.1.0.9:1"), Found::Nobody);
    told.pod(pod("a", 1, "10.1.0.1"));
    assert_eq!((find(&told, "10.1.0.9:1"), find(&told, "10.1.1.9:1")), (early.clone(), Found::Nobody));
    let node = json!({"metadata": {"name": "n"}, "spec": {"podCIDRs": ["10.1.1.0/24", "fd00:7::/64", "x"]}});
    told.event(Event::Node(Change::Applied(read(node.clone()))));
    for (address, expected) in [
        ("10.1.1.9:1", &early),
        ("[fd00:7::1]:1", &early),
        ("10.1.2.9:1", &Found::Nobody),
        ("1.1.1.1:443", &Found::Nobody),
    ] {
        assert_eq!(find(&told, address), *expected, "{address}");
    }
    told.event(Event::Node(Change::Deleted(read(node))));
    assert_eq!(find(&told, "10.1.1.9:1"), Found::Nobody);
    // Nothing is known before the first list, and then what is configured.
    let networks = vec![Network::parse("10.8.0.0/16").unwrap()];
    let mut cluster = Cluster::new(Config { networks, ..config() });
    let find = |cluster: &Cluster, address: &str| {
        cluster.remote(address.parse().unwrap(), now, View { now, contact: now })
    };
    assert_eq!(find(&cluster, "1.1.1.1:443"), early);
    cluster.apply(Event::Pod(Change::Begin), News::live(now));
    cluster.apply(Event::Pod(Change::Done), News::live(now));
    assert_eq!((find(&cluster, "1.1.1.1:443"), find(&cluster, "10.8.1.1:1")), (Found::Nobody, early));
}

#[test]
fn a_private_address_is_outside_only_where_networks_of_pods_are_told() {
    let (address, now) = (|text: &str| text.parse::<IpAddr>().unwrap(), second(100));
    let mut cluster = Cluster::new(config());
    let list = |cluster: &mut Cluster, begin: Event, done: Event| {
        cluster.apply(begin, News::live(now));
        cluster.apply(done, News::live(now));
    };
    list(&mut cluster, Event::Pod(Change::Begin), Event::Pod(Change::Done));
    list(&mut cluster, Event::Service(Change::Begin), Event::Service(Change::Done));
    assert!(!cluster.is_outside(address("1.1.1.1")), "it may be a node's");
    list(&mut cluster, Event::Node(Change::Begin), Event::Node(Change::Done));
    let private =
        ["10.0.0.1", "172.31.0.1", "192.168.0.1", "100.64.0.1", "100.127.0.1", "fd00::1", "fc00::1"];
    let public = ["1.1.1.1", "172.32.0.1", "100.63.0.1", "100.128.0.1", "2001:db8::1", "::ffff:1.1.1.1"];
    assert!(private.iter().all(|text| !cluster.is_outside(address(text))));
    assert!(public.iter().all(|text| cluster.is_outside(address(text))));
    let node = json!({"metadata": {"name": "n"}, "spec": {"podCIDRs": ["10.1.1.0/24"]}});
    cluster.apply(Event::Node(Change::Applied(read(node))), News::live(now));
    assert!(private.iter().chain(&public).all(|text| cluster.is_outside(address(text))));
    assert!(!cluster.is_outside(address("10.1.1.9")), "it may be a pod's");
}

#[test]
fn without_contact_with_a_kind_what_was_is_stale() {
    let mut told = Told::new();
    told.pod(pod("a", 1, "10.1.0.1"));
    told.event(Event::Service(Change::Applied(read(service("cart", "10.96.0.7", 80)))));
    let later = told.at + second(100);
    told.cluster.set_lost(Kind::Pods, Some(told.at + second(1)));
    let find = |told: &Told, address| told.find_at(address, later, later + second(100));
    assert!(matches!(find(&told, "10.1.0.1:0"), Found::Stale(_)));
    assert!(matches!(find(&told, "10.96.0.7:80"), Found::Held(_)));
    told.cluster.set_lost(Kind::Pods, None);
    assert!(matches!(find(&told, "10.1.0.1:0"), Found::Held(_)));
}

#[test]
fn of_too_many_objects_the_rest_is_counted() {
    let room = Ignored::Room as usize;
    let mut told = Told::new();
    let mut object: objects::Pod = read(with(pod("p", 1, ""), "/spec/nodeName", json!("other")));
    for number in 0..=MAX_PODS {
        object.metadata.uid = uid(u32::try_from(number).unwrap());
        told.event(Event::Pod(Change::Applied(object.clone())));
    }
    assert_eq!((told.cluster.stats().objects[0], told.cluster.stats().ignored[room]), (MAX_PODS as u64, 1));
    // Our own are always known.
    told.pod(pod("own", u32::MAX, "10.1.0.1"));
    assert_eq!(told.names("10.1.0.1:0"), "own - -");

    let mut told = Told::new();
    let mut object: objects::Service = read(service("s", "", 80));
    for number in 0..=MAX_SERVICES {
        object.metadata.name = number.to_string();
        told.event(Event::Service(Change::Applied(object.clone())));
    }
    assert_eq!(
        (told.cluster.stats().objects[1], told.cluster.stats().ignored[room]),
        (MAX_SERVICES as u64, 1)
    );

    let mut object: objects::Node = read(json!({}));
    for number in 0..=MAX_NODES {
        object.metadata.name = number.to_string();
        told.event(Event::Node(Change::Applied(object.clone())));
    }
    assert_eq!((told.cluster.stats().objects[3], told.cluster.stats().ignored[room]), (MAX_NODES as u64, 2));

    let mut object: objects::Owned = read(json!({"metadata": {"name": "a", "namespace": "b"}}));
    for number in 0..=MAX_OWNERS {
        object.metadata.uid = uid(u32::try_from(number).unwrap());
        told.event(Event::ReplicaSet(Change::Applied(object.clone())));
    }
    assert_eq!((told.cluster.stats().objects[4], told.cluster.stats().ignored[room]), (MAX_OWNERS as u64, 3));
}

#[test]
fn what_there_is_no_memory_for_has_no_name_and_gives_nobody_a_wrong_one() {
    const LIMIT: usize = 64 << 10;
    let mut told = Told { cluster: Cluster::new(Config { max_bytes: LIMIT, ..config() }), at: second(1000) };
    let address = |number: u32| format!("203.0.{}.{}", number / 200, number % 200 + 1);
    let far = |number: u32| {
        with(pod(&format!("far-{number}"), number, &address(number)), "/spec/nodeName", json!("other"))
    };
    let list = |told: &mut Told, pods: std::ops::Range<u32>| {
        told.event(Event::Pod(Change::Begin));
        pods.for_each(|number| told.event(Event::Pod(Change::Listed(read(far(number))))));
        told.event(Event::Pod(Change::Done));
    };
    for (begin, done) in [
        (Event::Service(Change::Begin), Event::Service(Change::Done)),
        (Event::Node(Change::Begin), Event::Node(Change::Done)),
    ] {
        told.event(begin);
        told.event(done);
    }
    list(&mut told, 0..1000);
    let stats = told.cluster.stats();
    let (known, refused) = (stats.objects[0], stats.ignored[Ignored::Room as usize]);
    assert!(known > 50 && refused > 100 && known + refused == 1000, "{stats:?}");
    assert!(stats.bytes as usize <= LIMIT && stats.bytes as usize > LIMIT / 2, "{stats:?}");
    let end = |number: u32| format!("{}:80", address(number));
    let names: Vec<String> = (0..1000).map(|number| told.names(&end(number))).collect();
    let named = |number: &u32| names[*number as usize] == format!("far-{number} - -");
    assert_eq!((0..1000).filter(named).count() as u64, known);
    assert_eq!(names.iter().filter(|name| *name == "Nobody").count() as u64, refused);
    // One that is not known is not said to be outside, nor is anybody.
    let outside = |told: &Told, text: &str| told.cluster.is_outside(text.parse().unwrap());
    assert!(!outside(&told, &address(999)) && !outside(&told, "1.1.1.1"));
    // The own node's pods, and what is known already, are taken in all the same.
    told.pod(pod("own", 5000, "10.1.0.1"));
    told.pod(with(far(1), "/metadata/labels", json!({"app": "web"})));
    assert_eq!((told.names("10.1.0.1:0"), told.names(&end(1))), ("own - -".into(), "far-1 - -".into()));
    // A slice that there is no room for may have been another Service's.
    let slices = |told: &mut Told, count: u32| {
        told.event(Event::Slice(Change::Begin));
        for number in 0..count {
            let service = format!("service-{number}");
            let object = slice(&service, 10_000 + number, 8080, json!([target("10.1.0.1", 5000 + number)]));
            told.event(Event::Slice(Change::Listed(read(object))));
        }
        told.event(Event::Slice(Change::Done));
    };
    let room = told.cluster.config.max_bytes;
    told.cluster.config.max_bytes = 2 * LIMIT;
    slices(&mut told, 1);
    assert_eq!(told.names("10.1.0.1:8080"), "own service-0 -");
    told.cluster.config.max_bytes = room;
    slices(&mut told, 2);
    assert_eq!(told.names("10.1.0.1:8080"), "own - -");
    // With room again the next list has all.
    told.cluster.config.max_bytes = DEFAULT_MAX_BYTES;
    slices(&mut told, 2);
    assert_eq!(told.names("10.1.0.1:8080"), "own service-0 -");
    list(&mut told, 0..1000);
    told.at += second(60);
    assert_eq!(told.names(&end(999)), "far-999 - -");
    assert!(outside(&told, "1.1.1.1") && !outside(&told, &address(999)));
}

#[test]
fn endpoints_have_a_limit() {
    const SLICES: u32 = 200;
    let mut told = Told::new();
    let each = MAX_ENDPOINTS / SLICES as usize;
    let object = |number: u32, count: usize| {
        let mut object: objects::Slice = read(slice("s", number, 80, json!([])));
        let target = |at: usize| objects::Endpoint {
            target_ref: Some(objects::TargetRef { kind: "Pod".into(), uid: uid(number * 4096 + at as u32) }),
            ..objects::Endpoint::default()
        };
        object.endpoints = (0..count).map(target).collect();
        object
    };
    for number in 0..SLICES {
        told.event(Event::Slice(Change::Applied(object(number, each))));
    }
    let stats = |told: &Told| {
        let stats = told.cluster.stats();
        (stats.objects[2], stats.ignored[Ignored::Room as usize])
    };
    assert_eq!(stats(&told), (u64::from(SLICES), 0));
    // The same again is no more; one more is.
    told.event(Event::Slice(Change::Applied(object(0, each))));
    assert_eq!(stats(&told), (u64::from(SLICES), 0));
    told.event(Event::Slice(Change::Applied(object(0, each + 1))));
    assert_eq!(stats(&told), (u64::from(SLICES) - 1, 1), "what it was no longer is, and is not said");
}
