//! Objects as the API has them, with what tests need of each. Nothing is sent here.

use std::net::IpAddr;

use serde_json::{Map, Value, json};

/// Who owns an object.
#[derive(Clone, Debug)]
pub struct Owner {
    /// `apps/v1`, `batch/v1`.
    pub version: &'static str,
    /// `ReplicaSet`, `Job` and so on.
    pub kind: &'static str,
    /// Its name.
    pub name: String,
    /// Its uid, as the server gave it.
    pub uid: String,
}

impl Owner {
    fn reference(&self) -> Value {
        json!({"apiVersion": self.version, "kind": self.kind, "name": self.name, "uid": self.uid,
            "controller": true, "blockOwnerDeletion": true})
    }
}

/// A pod that is to be made.
#[derive(Clone, Debug, Default)]
pub struct Pod {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// The node that it is to run on; a pod without one waits.
    pub node: Option<String>,
    /// Who made it.
    pub owner: Option<Owner>,
    /// Labels.
    pub labels: Vec<(String, String)>,
    /// Annotations.
    pub annotations: Vec<(String, String)>,
    /// In the network of its node.
    pub host_network: bool,
    /// It ends by itself, as those of Jobs do.
    pub passing: bool,
}

impl Pod {
    /// One on a node.
    pub fn new(namespace: &str, name: &str, node: &str) -> Self {
        Self {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            node: Some(node.to_owned()),
            ..Self::default()
        }
    }

    /// With a label more.
    #[must_use]
    pub fn labelled(mut self, key: &str, value: &str) -> Self {
        self.labels.push((key.to_owned(), value.to_owned()));
        self
    }

    /// Made by `owner`.
    #[must_use]
    pub fn owned(mut self, owner: &Owner) -> Self {
        self.owner = Some(owner.clone());
        self
    }

    /// The object. Much of what a real one has beside it is there too, for those who measure.
    pub fn object(&self) -> Value {
        let container = json!({"name": "main", "image": "registry.example/app:1",
            "ports": [{"name": "http", "containerPort": 8080}],
            "env": [{"name": "MODE", "value": "test"}, {"name": "LEVEL", "value": "info"}],
            "resources": {"requests": {"cpu": "10m", "memory": "16Mi"}},
            "readinessProbe": {"httpGet": {"path": "/health", "port": 8080}}});
        let restart = if self.passing { "Never" } else { "Always" };
        let mut spec = json!({"containers": [container], "hostNetwork": self.host_network,
            "restartPolicy": restart});
        if let Some(node) = &self.node {
            spec["nodeName"] = json!(node);
        }
        json!({"apiVersion": "v1", "kind": "Pod", "spec": spec, "metadata": {
            "name": self.name, "namespace": self.namespace, "labels": strings(&self.labels),
            "annotations": strings(&self.annotations),
            "ownerReferences": self.owner.iter().map(Owner::reference).collect::<Vec<_>>()}})
    }

    /// Where pods of its namespace are.
    pub fn collection(&self) -> String {
        format!("/api/v1/namespaces/{}/pods", self.namespace)
    }

    /// Where it is.
    pub fn path(&self) -> String {
        format!("{}/{}", self.collection(), self.name)
    }
}

/// The status of a pod that runs, as kubelet tells it once the pod has its addresses. `container` tells the container's id.
pub fn running(host: IpAddr, addresses: &[IpAddr], container: u64) -> Value {
    let ips: Vec<Value> = addresses.iter().map(|address| json!({"ip": address})).collect();
    json!({"status": {"phase": "Running", "hostIP": host, "podIP": addresses.first(), "podIPs": ips,
        "startTime": "2026-01-01T00:00:00Z", "conditions": conditions("True"),
        "containerStatuses": [{"name": "main", "ready": true, "restartCount": 0, "started": true,
            "image": "registry.example/app:1", "imageID": "sha256:0", "containerID": container_id(container),
            "state": {"running": {"startedAt": "2026-01-01T00:00:00Z"}}}]}})
}

/// The change of status of a pod that has done its work: it keeps its addresses in the API, and another may have them.
pub fn succeeded() -> Value {
    json!({"status": {"phase": "Succeeded", "conditions": conditions("False")}})
}

fn conditions(ready: &str) -> Value {
    let condition = |kind: &str| {
        json!({"type": kind, "status": ready,
        "lastTransitionTime": "2026-01-01T00:00:00Z"})
    };
    json!(["Initialized", "Ready", "ContainersReady", "PodScheduled"].map(condition))
}

/// The id of a container as containerd makes them.
pub fn container_id(number: u64) -> String {
    format!("containerd://{number:064x}")
}

/// A namespace.
pub fn namespace(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
}

/// A node in a zone; its addresses come with [`node_status`].
pub fn node(name: &str, zone: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": {
        "topology.kubernetes.io/zone": zone, "kubernetes.io/hostname": name}}})
}

/// The status of a node that is ready.
pub fn node_status(name: &str, address: IpAddr) -> Value {
    json!({"status": {"addresses": [{"type": "InternalIP", "address": address},
        {"type": "Hostname", "address": name}],
        "conditions": [{"type": "Ready", "status": "True", "reason": "KubeletReady",
            "lastHeartbeatTime": "2026-01-01T00:00:00Z", "lastTransitionTime": "2026-01-01T00:00:00Z"}]}})
}

/// A workload whose pods are labelled `app: NAME`.
pub fn workload(version: &str, kind: &str, name: &str, owner: Option<&Owner>) -> Value {
    let labels = json!({"app": name});
    let template = json!({"metadata": {"labels": labels}, "spec": {"containers": [
        {"name": "main", "image": "registry.example/app:1"}]}});
    let mut job = template.clone();
    job["spec"]["restartPolicy"] = json!("Never");
    let selector = json!({"matchLabels": labels});
    let spec = match kind {
        "Job" => json!({"template": job}),
        "CronJob" => json!({"schedule": "0 * * * *", "jobTemplate": {"spec": {"template": job}}}),
        "StatefulSet" => json!({"selector": selector, "template": template, "serviceName": name}),
        _ => json!({"selector": selector, "template": template}),
    };
    json!({"apiVersion": version, "kind": kind, "spec": spec, "metadata": {
        "name": name, "labels": labels,
        "ownerReferences": owner.map(Owner::reference).into_iter().collect::<Vec<_>>()}})
}

/// A Service in front of pods that are labelled `app: NAME`: `port` of it is `target` of theirs.
pub fn service(name: &str, port: u16, target: u16) -> Value {
    json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": {
        "selector": {"app": name}, "ports": [{"name": "http", "port": port, "targetPort": target}]}})
}

/// One end of a slice.
#[derive(Clone, Debug)]
pub struct Endpoint {
    /// Its address.
    pub address: IpAddr,
    /// The node that it is on.
    pub node: String,
    /// Name of its pod.
    pub pod: String,
    /// Uid of its pod.
    pub uid: String,
}

/// The slice of a Service, as its controller makes it.
pub fn endpoint_slice(service: &str, target: u16, endpoints: &[Endpoint]) -> Value {
    let is_v6 = endpoints.first().is_some_and(|end| end.address.is_ipv6());
    let endpoint = |Endpoint { address, node, pod, uid }: &Endpoint| {
        json!({"addresses": [address], "nodeName": node,
            "targetRef": {"kind": "Pod", "name": pod, "uid": uid},
            "conditions": {"ready": true, "serving": true, "terminating": false}})
    };
    let endpoints: Vec<Value> = endpoints.iter().map(endpoint).collect();
    json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "addressType": if is_v6 { "IPv6" } else { "IPv4" }, "endpoints": endpoints,
        "ports": [{"name": "http", "protocol": "TCP", "port": target}],
        "metadata": {"name": format!("{service}-1"), "labels": {"kubernetes.io/service-name": service,
            "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io"}}})
}

fn strings(pairs: &[(String, String)]) -> Value {
    Value::Object(pairs.iter().map(|(key, value)| (key.clone(), json!(value))).collect::<Map<_, _>>())
}
