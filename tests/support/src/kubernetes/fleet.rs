//! A cluster of the size that figures are given for.

use std::net::{IpAddr, Ipv4Addr};

use super::{
    client::Client,
    objects::{Endpoint, Pod},
    population,
};

/// Nodes.
pub const NODES: usize = 100;
/// Pods, all of which run.
pub const PODS: usize = 10_000;
/// Deployments that have them, each with its ReplicaSet.
pub const DEPLOYMENTS: usize = 1_500;
/// Services.
pub const SERVICES: usize = 2_000;
/// Ends behind each Service.
const ENDPOINTS: usize = 5;
/// The namespace of all.
pub const NAMESPACE: &str = "shop";

/// Name and address of a node.
pub fn node(number: usize) -> (String, IpAddr) {
    (format!("node-{number}"), IpAddr::from(Ipv4Addr::from(0xc0a8_0000 + number as u32)))
}

/// Makes all of it.
pub fn fill(admin: &Client) {
    let names: Vec<(String, IpAddr)> = (0..NODES).map(node).collect();
    let nodes: Vec<(&str, &str, IpAddr)> =
        names.iter().map(|(name, address)| (name.as_str(), "zone-1", *address)).collect();
    population::nodes(admin, &nodes);
    population::namespaces(admin, &[NAMESPACE]);
    let names: Vec<String> = (0..DEPLOYMENTS).map(|number| format!("app-{number}")).collect();
    let owners = population::deployments(admin, NAMESPACE, &names);
    let pods: Vec<(Pod, IpAddr)> = (0..PODS)
        .map(|number| {
            let owner = &owners[number % DEPLOYMENTS];
            let pod = Pod::new(NAMESPACE, &format!("{}-{number:05}", owner.name), &node(number % NODES).0);
            let address = IpAddr::from(Ipv4Addr::from(0x0af4_0000 + number as u32));
            (pod.owned(owner).labelled("app", &names[number % DEPLOYMENTS]), address)
        })
        .collect();
    let uids = population::running_pods(admin, node(0).1, &pods);
    let services: Vec<(String, u16, u16, Vec<Endpoint>)> = (0..SERVICES)
        .map(|number| {
            let ends = (0..ENDPOINTS).map(|end| (number * ENDPOINTS + end) % PODS).map(|index| Endpoint {
                address: pods[index].1,
                node: node(index % NODES).0,
                pod: pods[index].0.name.clone(),
                uid: uids[index].clone(),
            });
            (format!("service-{number}"), 80, 8080, ends.collect())
        })
        .collect();
    population::services(admin, NAMESPACE, &services);
}
