//! What is read of the API's objects: of each kind only the fields that names are made of. Any of them may be missing.
//!
//! What they mean together is not here.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer};

/// The kinds that are watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// `v1` Pod.
    Pods,
    /// `v1` Service.
    Services,
    /// `discovery.k8s.io/v1` EndpointSlice.
    EndpointSlices,
    /// `v1` Node.
    Nodes,
    /// `apps/v1` ReplicaSet.
    ReplicaSets,
    /// `batch/v1` Job.
    Jobs,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 6] =
        [Self::Pods, Self::Services, Self::EndpointSlices, Self::Nodes, Self::ReplicaSets, Self::Jobs];

    /// The resource's name, as rules and paths have it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pods => "pods",
            Self::Services => "services",
            Self::EndpointSlices => "endpointslices",
            Self::Nodes => "nodes",
            Self::ReplicaSets => "replicasets",
            Self::Jobs => "jobs",
        }
    }

    /// Its API group; "" for the core.
    pub const fn group(self) -> &'static str {
        match self {
            Self::Pods | Self::Services | Self::Nodes => "",
            Self::EndpointSlices => "discovery.k8s.io",
            Self::ReplicaSets => "apps",
            Self::Jobs => "batch",
        }
    }
}

/// What happened to objects of a kind, in the order in which it is told.
#[derive(Clone, Debug)]
pub enum Change<T> {
    /// A new list begins: what is not in it is gone.
    Begin,
    /// In the list.
    Listed(T),
    /// The list is complete.
    Done,
    /// New, or as it is now.
    Applied(T),
    /// Gone; as it last was.
    Deleted(T),
}

/// What the API told.
#[derive(Clone, Debug)]
pub enum Event {
    /// Of pods.
    Pod(Change<Pod>),
    /// Of Services.
    Service(Change<Service>),
    /// Of EndpointSlices.
    Slice(Change<Slice>),
    /// Of nodes.
    Node(Change<Node>),
    /// Of ReplicaSets.
    ReplicaSet(Change<Owned>),
    /// Of Jobs.
    Job(Change<Owned>),
}

impl Event {
    /// Of which kind it is.
    pub const fn kind(&self) -> Kind {
        match self {
            Self::Pod(_) => Kind::Pods,
            Self::Service(_) => Kind::Services,
            Self::Slice(_) => Kind::EndpointSlices,
            Self::Node(_) => Kind::Nodes,
            Self::ReplicaSet(_) => Kind::ReplicaSets,
            Self::Job(_) => Kind::Jobs,
        }
    }
}

/// `null` is as good as missing.
fn absent<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(deserializer: D) -> Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// `metadata`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Metadata {
    /// `name`.
    #[serde(deserialize_with = "absent")]
    pub name: String,
    /// `namespace`; "" of what has none.
    #[serde(deserialize_with = "absent")]
    pub namespace: String,
    /// `uid`.
    #[serde(deserialize_with = "absent")]
    pub uid: String,
    /// `resourceVersion`.
    #[serde(deserialize_with = "absent")]
    pub resource_version: String,
    /// `labels`.
    #[serde(deserialize_with = "absent")]
    pub labels: BTreeMap<String, String>,
    /// `annotations`.
    #[serde(deserialize_with = "absent")]
    pub annotations: BTreeMap<String, String>,
    /// `ownerReferences`.
    #[serde(deserialize_with = "absent")]
    pub owner_references: Vec<OwnerReference>,
    /// `deletionTimestamp`: that there is one counts, not what it says.
    pub deletion_timestamp: Option<String>,
}

/// One of `metadata.ownerReferences`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct OwnerReference {
    /// `apiVersion`.
    #[serde(deserialize_with = "absent")]
    pub api_version: String,
    /// `kind`.
    #[serde(deserialize_with = "absent")]
    pub kind: String,
    /// `name`.
    #[serde(deserialize_with = "absent")]
    pub name: String,
    /// `uid`.
    #[serde(deserialize_with = "absent")]
    pub uid: String,
    /// `controller`.
    #[serde(deserialize_with = "absent")]
    pub controller: bool,
}

/// A Pod.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Pod {
    /// `metadata`.
    #[serde(deserialize_with = "absent")]
    pub metadata: Metadata,
    /// `spec`.
    #[serde(deserialize_with = "absent")]
    pub spec: PodSpec,
    /// `status`.
    #[serde(deserialize_with = "absent")]
    pub status: PodStatus,
}

/// `spec` of a Pod.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct PodSpec {
    /// `nodeName`; "" while it has none.
    #[serde(deserialize_with = "absent")]
    pub node_name: String,
    /// `hostNetwork`.
    #[serde(deserialize_with = "absent")]
    pub host_network: bool,
    /// `restartPolicy`: with any but `Always` a pod may end by itself.
    #[serde(deserialize_with = "absent")]
    pub restart_policy: String,
}

/// `status` of a Pod.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct PodStatus {
    /// `phase`.
    #[serde(deserialize_with = "absent")]
    pub phase: String,
    /// `podIP`.
    #[serde(rename = "podIP", deserialize_with = "absent")]
    pub pod_ip: String,
    /// `podIPs`.
    #[serde(rename = "podIPs", deserialize_with = "absent")]
    pub pod_ips: Vec<PodIp>,
    /// `containerStatuses`.
    #[serde(deserialize_with = "absent")]
    pub container_statuses: Vec<ContainerStatus>,
    /// `initContainerStatuses`.
    #[serde(deserialize_with = "absent")]
    pub init_container_statuses: Vec<ContainerStatus>,
    /// `ephemeralContainerStatuses`.
    #[serde(deserialize_with = "absent")]
    pub ephemeral_container_statuses: Vec<ContainerStatus>,
}

/// One of `status.podIPs`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct PodIp {
    /// `ip`.
    #[serde(deserialize_with = "absent")]
    pub ip: String,
}

/// One of the statuses of containers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct ContainerStatus {
    /// `name`.
    #[serde(deserialize_with = "absent")]
    pub name: String,
    /// `containerID`; "" before it runs.
    #[serde(rename = "containerID", deserialize_with = "absent")]
    pub container_id: String,
}

/// A Service.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Service {
    /// `metadata`.
    #[serde(deserialize_with = "absent")]
    pub metadata: Metadata,
    /// `spec`.
    #[serde(deserialize_with = "absent")]
    pub spec: ServiceSpec,
    /// `status`.
    #[serde(deserialize_with = "absent")]
    pub status: ServiceStatus,
}

/// `spec` of a Service.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct ServiceSpec {
    /// `type`.
    #[serde(rename = "type", deserialize_with = "absent")]
    pub service_type: String,
    /// `clusterIP`; `None` of a headless one.
    #[serde(rename = "clusterIP", deserialize_with = "absent")]
    pub cluster_ip: String,
    /// `clusterIPs`.
    #[serde(rename = "clusterIPs", deserialize_with = "absent")]
    pub cluster_ips: Vec<String>,
    /// `externalIPs`.
    #[serde(rename = "externalIPs", deserialize_with = "absent")]
    pub external_ips: Vec<String>,
    /// `ports`.
    #[serde(deserialize_with = "absent")]
    pub ports: Vec<Port>,
}

/// `status` of a Service.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ServiceStatus {
    /// `loadBalancer`.
    #[serde(deserialize_with = "absent")]
    pub load_balancer: LoadBalancer,
}

/// `status.loadBalancer` of a Service.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct LoadBalancer {
    /// `ingress`.
    #[serde(deserialize_with = "absent")]
    pub ingress: Vec<Ingress>,
}

/// One of `status.loadBalancer.ingress`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Ingress {
    /// `ip`; "" where it is a name.
    #[serde(deserialize_with = "absent")]
    pub ip: String,
}

/// A port of a Service or of an EndpointSlice.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Port {
    /// `port`; absent in a slice that means every port.
    pub port: Option<u16>,
    /// `nodePort` of a Service: absent or 0 where it has none.
    pub node_port: Option<u16>,
    /// `protocol`; TCP if absent.
    pub protocol: Option<String>,
}

/// An EndpointSlice.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Slice {
    /// `metadata`, with the label `kubernetes.io/service-name`.
    #[serde(deserialize_with = "absent")]
    pub metadata: Metadata,
    /// `addressType`.
    #[serde(deserialize_with = "absent")]
    pub address_type: String,
    /// `ports`.
    #[serde(deserialize_with = "absent")]
    pub ports: Vec<Port>,
    /// `endpoints`.
    #[serde(deserialize_with = "absent")]
    pub endpoints: Vec<Endpoint>,
}

/// One of a slice's endpoints. Whether it is ready does not matter: one that is not may yet be talked to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Endpoint {
    /// `addresses`.
    #[serde(deserialize_with = "absent")]
    pub addresses: Vec<String>,
    /// `conditions`.
    #[serde(deserialize_with = "absent")]
    pub conditions: Conditions,
    /// `targetRef`.
    pub target_ref: Option<TargetRef>,
}

/// Whether an endpoint answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Conditions {
    /// `ready`; absent is true.
    pub ready: Option<bool>,
    /// `serving`: ready, also while it ends; absent is as `ready`.
    pub serving: Option<bool>,
}

impl Conditions {
    /// Whether anything may be listening there.
    pub fn is_serving(self) -> bool {
        self.serving.or(self.ready).unwrap_or(true)
    }
}

/// What an endpoint is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct TargetRef {
    /// `kind`.
    #[serde(deserialize_with = "absent")]
    pub kind: String,
    /// `uid`.
    #[serde(deserialize_with = "absent")]
    pub uid: String,
}

/// A Node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Node {
    /// `metadata`, with the label `topology.kubernetes.io/zone`.
    #[serde(deserialize_with = "absent")]
    pub metadata: Metadata,
    /// `spec`.
    #[serde(deserialize_with = "absent")]
    pub spec: NodeSpec,
    /// `status`.
    #[serde(deserialize_with = "absent")]
    pub status: NodeStatus,
}

/// `spec` of a Node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct NodeSpec {
    /// `podCIDR`.
    #[serde(rename = "podCIDR", deserialize_with = "absent")]
    pub pod_cidr: String,
    /// `podCIDRs`.
    #[serde(rename = "podCIDRs", deserialize_with = "absent")]
    pub pod_cidrs: Vec<String>,
}

/// `status` of a Node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct NodeStatus {
    /// `addresses`; some are names.
    #[serde(deserialize_with = "absent")]
    pub addresses: Vec<NodeAddress>,
}

/// One of a Node's addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct NodeAddress {
    /// `address`.
    #[serde(deserialize_with = "absent")]
    pub address: String,
}

/// A ReplicaSet or a Job: only whose it is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Owned {
    /// `metadata`.
    #[serde(deserialize_with = "absent")]
    pub metadata: Metadata,
}
