//! Who an end is in Kubernetes, as records say it. One party stands in many records: its text is made once and copied.
//!
//! How it was found is not known here.

use std::sync::{Arc, OnceLock};

use super::{
    Record,
    field::{Field, Lead, Presence, Shape, Value},
    fields::Taker,
};
use crate::kubernetes::identity::{Identity, WorkloadKind};

/// What an address is in the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PartyKind {
    /// A pod's, or a socket in one.
    Pod,
    /// A Service's: which pod is behind it is not known.
    Service,
    /// A node's.
    Node,
    /// Nobody's in the cluster.
    Outside,
}

impl PartyKind {
    /// Every kind.
    pub const ALL: &'static [Self] = &[Self::Pod, Self::Service, Self::Node, Self::Outside];

    /// The word in the record.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pod => "pod",
            Self::Service => "service",
            Self::Node => "node",
            Self::Outside => "outside",
        }
    }

    /// What an identity is. One without a name is outside.
    pub const fn of(identity: &Identity) -> Self {
        match identity {
            Identity { pod: Some(_), .. } | Identity { place: Some(_), .. } => Self::Pod,
            Identity { service: Some(_), .. } => Self::Service,
            Identity { node: Some(_), .. } => Self::Node,
            Identity { .. } => Self::Outside,
        }
    }
}

/// What pods have besides their names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extra {
    /// A label.
    Label,
    /// An annotation.
    Annotation,
}

/// Keys and values, in the order of the keys.
pub type Pairs = Box<[(Arc<str>, Arc<str>)]>;

/// Who an end is, as records say it.
#[derive(Debug)]
pub struct Party {
    /// What its address is.
    pub kind: PartyKind,
    /// Who it is.
    pub identity: Identity,
    /// It was so when there last was contact with the API server.
    pub is_stale: bool,
    /// Of the pod's labels, those that records have.
    pub labels: Pairs,
    /// Of its annotations likewise.
    pub annotations: Pairs,
    /// As client, as server.
    text: [OnceLock<Box<[u8]>>; 2],
}

impl PartialEq for Party {
    fn eq(&self, other: &Self) -> bool {
        let of = |party: &Self| (party.is_stale, party.labels.clone(), party.annotations.clone());
        self.identity == other.identity && of(self) == of(other)
    }
}

impl Eq for Party {}

impl Party {
    /// With those labels and annotations of its pod that `shows` takes.
    pub fn new(identity: Identity, is_stale: bool, shows: impl Fn(Extra, &str) -> bool) -> Self {
        let of = |what, pairs: &[(Arc<str>, Arc<str>)]| {
            pairs.iter().filter(|(key, _)| shows(what, key)).cloned().collect()
        };
        let pod = identity.pod.as_deref();
        let labels = of(Extra::Label, pod.map_or(&[], |pod| &pod.labels));
        let annotations = of(Extra::Annotation, pod.map_or(&[], |pod| &pod.annotations));
        let text = [const { OnceLock::new() }; 2];
        Self { kind: PartyKind::of(&identity), identity, is_stale, labels, annotations, text }
    }

    /// Its part of a line, made by `make` the first time.
    pub(super) fn text(&self, role: Role, make: impl FnOnce() -> Vec<u8>) -> &[u8] {
        let [client, server] = &self.text;
        let text = match role {
            Role::Client => client,
            Role::Server => server,
        };
        text.get_or_init(|| make().into_boxed_slice())
    }

    /// Name for people: `namespace/pod`, `namespace/service`, the node's; none of what is outside.
    pub fn name(&self) -> Option<String> {
        let Identity { pod, service, node, .. } = &self.identity;
        match (pod, service, node) {
            (Some(pod), _, _) => Some(format!("{}/{}", pod.namespace, pod.name)),
            (None, Some(service), _) => Some(format!("{}/{}", service.namespace, service.name)),
            (None, None, node) => node.as_deref().map(str::to_owned),
        }
    }
}

/// Which end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// Who asked.
    Client,
    /// Who was asked.
    Server,
}

impl Role {
    fn party(self, record: &Record) -> Option<&Party> {
        match self {
            Self::Client => record.client_party.as_deref(),
            Self::Server => record.server_party.as_deref(),
        }
    }
}

/// Makes the table of one end's fields, and what goes through them.
macro_rules! end {
    ($table:ident, $take:ident, $role:ident, $name:literal, $($key:literal, $shape:expr, $sentence:literal, $value:expr;)*) => {
        pub(super) static $table: &[Field] = &[$(Field {
            key: concat!($name, ".", $key),
            shape: $shape,
            unit: "",
            presence: Presence::IfKnown,
            sentence: $sentence,
        }),*];

        pub(super) fn $take(record: &Record, taker: &mut impl Taker) {
            let Some(party) = Role::$role.party(record) else { return };
            $({
                let lead = Lead {
                    key: concat!($name, ".", $key),
                    bare: concat!(",\"", $name, ".", $key, "\":"),
                    quoted: concat!(",\"", $name, ".", $key, "\":\""),
                };
                let value: fn(&Party) -> Value<'_> = $value;
                taker.take(lead, value(party));
            })*
        }
    };
}

/// The same fields for both ends.
macro_rules! ends {
    ($($row:tt)*) => {
        end! { CLIENT, take_client, Client, "client", $($row)* }
        end! { SERVER, take_server, Server, "server", $($row)* }
    };
}

ends! {
    "k8s.kind", Shape::Enum(kinds),
        "What this end is in the cluster: a pod, a Service's address behind which no pod is known, a node, or nobody in it; absent if that is not known.",
        |party| Value::Word(party.kind.as_str());
    "k8s.namespace.name", Shape::String,
        "Namespace of the pod, else of the Service.",
        |party| {
            let Identity { pod, service, .. } = &party.identity;
            let of_service = || service.as_ref().map(|service| &service.namespace);
            text(pod.as_ref().map(|pod| &pod.namespace).or_else(of_service))
        };
    "k8s.pod.name", Shape::String,
        "The pod that had this address, or this socket, at the time; of a Service's address, the pod that the connection was led to.",
        |party| text(party.identity.pod.as_ref().map(|pod| &pod.name));
    "k8s.pod.uid", Shape::String,
        "Its uid: known of the observed end without the API server; of a static pod then the hash of its manifest.",
        |party| {
            let Identity { pod, place, .. } = &party.identity;
            let uid = pod.as_ref().map(|pod| pod.uid).or(place.as_ref().map(|place| place.pod));
            uid.map_or(Value::Absent, Value::PodUid)
        };
    "container.id", Shape::String,
        "The container of the observed end: known without the API server.",
        |party| {
            let id = party.identity.place.as_ref().and_then(|place| place.container);
            id.map_or(Value::Absent, Value::ContainerId)
        };
    "k8s.container.name", Shape::String,
        "The container in it: known of the observed end.",
        |party| text(party.identity.container.as_ref());
    "k8s.deployment.name", Shape::String, "Deployment of the pod.",
        |party| workload(party, WorkloadKind::Deployment);
    "k8s.statefulset.name", Shape::String, "StatefulSet of the pod.",
        |party| workload(party, WorkloadKind::StatefulSet);
    "k8s.daemonset.name", Shape::String, "DaemonSet of the pod.",
        |party| workload(party, WorkloadKind::DaemonSet);
    "k8s.job.name", Shape::String, "Job of the pod, if no CronJob made it.",
        |party| workload(party, WorkloadKind::Job);
    "k8s.cronjob.name", Shape::String, "CronJob of the pod.",
        |party| workload(party, WorkloadKind::CronJob);
    "k8s.replicaset.name", Shape::String, "ReplicaSet of the pod, if no Deployment made it.",
        |party| workload(party, WorkloadKind::ReplicaSet);
    "k8s.workload.name", Shape::String, "What has made the pod, if it is of another kind.",
        |party| workload(party, WorkloadKind::Other);
    "k8s.service.name", Shape::String,
        "The Service that was called; of a pod's own address, the one Service that leads to this port of it.",
        |party| text(party.identity.service.as_ref().map(|service| &service.name));
    "k8s.node.name", Shape::String, "Node of the pod, or the node itself.",
        |party| {
            let Identity { pod, node, .. } = &party.identity;
            text(pod.as_ref().and_then(|pod| pod.node.as_ref()).or(node.as_ref()))
        };
    "cloud.availability_zone", Shape::String, "Zone of the pod's node.",
        |party| text(party.identity.pod.as_ref().and_then(|pod| pod.zone.as_ref()));
    "k8s.pod.label.", Shape::Pairs, "A label of the pod, if configured.",
        |party| pairs(&party.labels);
    "k8s.pod.annotation.", Shape::Pairs, "An annotation of the pod, if configured.",
        |party| pairs(&party.annotations);
    "k8s.stale", Shape::Mark,
        "It was so when there last was contact with the API server, and may have changed since.",
        |party| if party.is_stale { Value::True } else { Value::Absent };
}

fn kinds() -> Vec<&'static str> {
    PartyKind::ALL.iter().map(|kind| kind.as_str()).collect()
}

fn text(name: Option<&Arc<str>>) -> Value<'_> {
    name.map_or(Value::Absent, |name| Value::Text(name.as_bytes()))
}

fn workload(party: &Party, kind: WorkloadKind) -> Value<'_> {
    let made_by = party.identity.pod.as_ref().and_then(|pod| pod.workload.as_ref());
    text(made_by.filter(|workload| workload.kind == kind).map(|workload| &workload.name))
}

fn pairs(pairs: &[(Arc<str>, Arc<str>)]) -> Value<'_> {
    if pairs.is_empty() { Value::Absent } else { Value::Pairs(pairs) }
}
