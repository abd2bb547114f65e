//! Fills an API server with what a cluster has, many objects at a time.

#![expect(clippy::unwrap_used, reason = "test support: a failure here is the test's failure")]

use std::net::IpAddr;

use serde_json::{Value, json};

use crate::kubernetes::{
    client::{Client, Request},
    objects::{self, Endpoint, Owner, Pod},
};

/// Makes nodes; each is ready and has its address.
pub fn nodes(client: &Client, nodes: &[(&str, &str, IpAddr)]) {
    let make =
        nodes.iter().map(|(name, zone, _)| Request::create("/api/v1/nodes", objects::node(name, zone)));
    client.ask_all(make.collect());
    let tell = nodes.iter().map(|(name, _, address)| {
        Request::patch(format!("/api/v1/nodes/{name}/status"), objects::node_status(name, *address))
    });
    client.ask_all(tell.collect());
}

/// Makes namespaces.
pub fn namespaces(client: &Client, names: &[&str]) {
    let make = names.iter().map(|name| Request::create("/api/v1/namespaces", objects::namespace(name)));
    client.ask_all(make.collect());
}

/// Makes workloads of one kind in a namespace, each with the owner beside its name, and gives them as owners.
pub fn workloads(
    client: &Client,
    namespace: &str,
    (version, kind): (&'static str, &'static str),
    names: &[(String, Option<Owner>)],
) -> Vec<Owner> {
    let collection = format!("/apis/{version}/namespaces/{namespace}/{}s", kind.to_lowercase());
    let make = names.iter().map(|(name, owner)| {
        Request::create(collection.clone(), objects::workload(version, kind, name, owner.as_ref()))
    });
    let made = client.ask_all(make.collect());
    let owners = names.iter().zip(&made);
    owners.map(|((name, _), made)| Owner { version, kind, name: name.clone(), uid: uid(made) }).collect()
}

/// Makes Deployments, each with a ReplicaSet, and gives the ReplicaSets: the owners of pods.
pub fn deployments(client: &Client, namespace: &str, names: &[String]) -> Vec<Owner> {
    let names: Vec<(String, Option<Owner>)> = names.iter().map(|name| (name.clone(), None)).collect();
    let made = workloads(client, namespace, ("apps/v1", "Deployment"), &names);
    replica_sets(client, namespace, made, "6b8d7c9f5d")
}

/// Makes a ReplicaSet for each Deployment, of the version whose hash is given, as each roll makes one.
pub fn replica_sets(client: &Client, namespace: &str, deployments: Vec<Owner>, hash: &str) -> Vec<Owner> {
    let sets = deployments.into_iter().map(|owner| (format!("{}-{hash}", owner.name), Some(owner)));
    workloads(client, namespace, ("apps/v1", "ReplicaSet"), &sets.collect::<Vec<_>>())
}

/// Makes pods, and gives their uids.
pub fn pods(client: &Client, pods: &[Pod]) -> Vec<String> {
    let make = pods.iter().map(|pod| Request::create(pod.collection(), pod.object()));
    client.ask_all(make.collect()).iter().map(uid).collect()
}

/// Makes pods that run: each has the address beside it, and its number as its container's id. Gives their uids.
pub fn running_pods(client: &Client, host: IpAddr, pods: &[(Pod, IpAddr)]) -> Vec<String> {
    let uids = self::pods(client, &pods.iter().map(|(pod, _)| pod.clone()).collect::<Vec<_>>());
    let tell = pods.iter().zip(1..).map(|((pod, address), number)| {
        Request::patch(format!("{}/status", pod.path()), objects::running(host, &[*address], number))
    });
    client.ask_all(tell.collect());
    uids
}

/// Makes Services with their slices: `name`, `port` and `target`, and who is behind it. Gives the addresses that they were given.
pub fn services(
    client: &Client,
    namespace: &str,
    services: &[(String, u16, u16, Vec<Endpoint>)],
) -> Vec<IpAddr> {
    let make = services.iter().map(|(name, port, target, _)| {
        Request::create(
            format!("/api/v1/namespaces/{namespace}/services"),
            objects::service(name, *port, *target),
        )
    });
    let made = client.ask_all(make.collect());
    let slices = services.iter().map(|(name, _, target, endpoints)| {
        Request::create(
            format!("/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices"),
            objects::endpoint_slice(name, *target, endpoints),
        )
    });
    client.ask_all(slices.collect());
    made.iter().map(|made| made["spec"]["clusterIP"].as_str().unwrap().parse().unwrap()).collect()
}

/// Lets a user read what a ClusterRole of this name allows: `rules` as RBAC writes them.
pub fn role(client: &Client, name: &str, rules: &Value, subject: &Value) {
    let group = "rbac.authorization.k8s.io";
    let path = format!("/apis/{group}/v1");
    client.ask(&Request::create(
        format!("{path}/clusterroles"),
        json!({"apiVersion": format!("{group}/v1"), "kind": "ClusterRole", "metadata": {"name": name}, "rules": rules}),
    ));
    client.ask(&Request::create(
        format!("{path}/clusterrolebindings"),
        json!({"apiVersion": format!("{group}/v1"), "kind": "ClusterRoleBinding", "metadata": {"name": name},
            "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": name}, "subjects": [subject]}),
    ));
}

/// What an agent reads, as rules of a ClusterRole: each kind is one rule, so that one can be taken away.
pub fn reading_rules() -> Value {
    let kinds = [
        ("", "pods"),
        ("", "services"),
        ("", "nodes"),
        ("discovery.k8s.io", "endpointslices"),
        ("apps", "replicasets"),
        ("batch", "jobs"),
    ];
    let rule = |(group, resource)| json!({"apiGroups": [group], "resources": [resource], "verbs": ["get", "list", "watch"]});
    Value::Array(kinds.into_iter().map(rule).collect())
}

/// Where the binding that [`role`] made is.
pub fn binding(name: &str) -> String {
    format!("/apis/rbac.authorization.k8s.io/v1/clusterrolebindings/{name}")
}

/// A user as the subject of a binding.
pub fn user(name: &str) -> Value {
    json!({"kind": "User", "apiGroup": "rbac.authorization.k8s.io", "name": name})
}

/// The uid that the server gave an object.
pub fn uid(object: &Value) -> String {
    object["metadata"]["uid"].as_str().unwrap().to_owned()
}
