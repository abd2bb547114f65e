//! Who an end of a connection is, as records, metrics and filters need it. Names only: how they are found is not here.

use std::sync::Arc;

use super::cgroup::{Place, PodUid};

/// What has a pod made in the end: the owner of its owner, where there is one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum WorkloadKind {
    /// `apps/v1` Deployment, through its ReplicaSet.
    Deployment,
    /// `apps/v1` ReplicaSet that nobody owns.
    ReplicaSet,
    /// `apps/v1` StatefulSet.
    StatefulSet,
    /// `apps/v1` DaemonSet.
    DaemonSet,
    /// `batch/v1` Job that nobody owns.
    Job,
    /// `batch/v1` CronJob, through its Job.
    CronJob,
    /// Anything else that owns pods: of another operator's own kind.
    Other,
}

impl WorkloadKind {
    /// Every kind.
    pub const ALL: &'static [Self] = &[
        Self::Deployment,
        Self::ReplicaSet,
        Self::StatefulSet,
        Self::DaemonSet,
        Self::Job,
        Self::CronJob,
        Self::Other,
    ];

    /// The word for filters, in lower case.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Deployment => "deployment",
            Self::ReplicaSet => "replicaset",
            Self::StatefulSet => "statefulset",
            Self::DaemonSet => "daemonset",
            Self::Job => "job",
            Self::CronJob => "cronjob",
            Self::Other => "other",
        }
    }
}

/// What has a pod made in the end.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Workload {
    /// Its kind.
    pub kind: WorkloadKind,
    /// Its name, in the pod's namespace.
    pub name: Arc<str>,
}

/// A pod, as it was when it was last heard of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pod {
    /// `metadata.namespace`.
    pub namespace: Arc<str>,
    /// `metadata.name`.
    pub name: Arc<str>,
    /// `metadata.uid`.
    pub uid: PodUid,
    /// `spec.nodeName`; absent while it waits for one.
    pub node: Option<Arc<str>>,
    /// Label `topology.kubernetes.io/zone` of its node.
    pub zone: Option<Arc<str>>,
    /// What has made it; absent of a pod by itself, and of a static one.
    pub workload: Option<Workload>,
    /// Its labels, those that are asked for, in the order of their keys.
    pub labels: Box<[(Arc<str>, Arc<str>)]>,
    /// Its annotations, those that are asked for, in the order of their keys.
    pub annotations: Box<[(Arc<str>, Arc<str>)]>,
}

/// A Service.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Service {
    /// `metadata.namespace`.
    pub namespace: Arc<str>,
    /// `metadata.name`.
    pub name: Arc<str>,
}

/// Who an end is. Of a Service's address the Service is known, and the pod too if it is known where the connection was led; of a pod's
/// own address, the Service too, if its port belongs to exactly one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// Where the observed socket is, read off its cgroup: known without anybody's help.
    pub place: Option<Place>,
    /// The pod.
    pub pod: Option<Arc<Pod>>,
    /// Name of its container; known of the node's own pods.
    pub container: Option<Arc<str>>,
    /// The Service.
    pub service: Option<Arc<Service>>,
    /// The node whose own address it is: something that runs there beside pods, or a pod in the network of its node.
    pub node: Option<Arc<str>>,
}
