//! What has a pod made in the end: by the pod's own owner, and by that one's.

use std::sync::Arc;

use hashbrown::HashMap;

use super::{Ignored, MAX_NAME, growth, strings::Strings};
use crate::kubernetes::{
    cgroup::PodUid,
    identity::{Workload, WorkloadKind},
    objects::{Kind, Metadata, OwnerReference},
};

/// ReplicaSets and Jobs that are known at most: ten old ones a Deployment are kept by default.
pub const MAX_OWNERS: usize = 50_000;
/// Label of a Deployment's pods; its ReplicaSet's name ends with it.
const TEMPLATE_HASH: &str = "pod-template-hash";

/// What a ReplicaSet or a Job stands for.
#[derive(Clone, Debug)]
struct Entry {
    workload: Workload,
    kind: Kind,
    round: u32,
}

/// ReplicaSets and Jobs.
#[derive(Clone, Debug, Default)]
pub(super) struct Owners {
    entries: HashMap<PodUid, Entry, foldhash::fast::RandomState>,
    /// Nothing new is taken in.
    pub(super) is_full: bool,
}

/// What a pod's owner is heard to be.
pub(super) struct Made {
    pub(super) workload: Workload,
    /// The owner, if it has an owner of its own that is known of it or may be told.
    pub(super) by: Option<PodUid>,
    /// It was not heard of: what is said is a guess or the owner itself.
    pub(super) is_open: bool,
}

impl Owners {
    /// What the ReplicaSet or Job stands for, if that was not known, and whether it stood for something else.
    pub(super) fn apply(
        &mut self,
        kind: Kind,
        metadata: &Metadata,
        strings: &mut Strings,
        round: u32,
    ) -> Result<Option<(PodUid, Workload, bool)>, Ignored> {
        let uid = PodUid::parse(&metadata.uid).ok_or(Ignored::Uid)?;
        super::check_name(&metadata.namespace, &metadata.name)?;
        let itself = if kind == Kind::Jobs { WorkloadKind::Job } else { WorkloadKind::ReplicaSet };
        let (kind_above, name) = controller(metadata)
            .map_or((itself, metadata.name.as_str()), |owner| (kind_of(owner), owner.name.as_str()));
        if let Some(entry) = self.entries.get_mut(&uid) {
            entry.round = round;
            if entry.workload.kind == kind_above && *entry.workload.name == *name {
                return Ok(None);
            }
        } else if self.is_full || self.entries.len() >= MAX_OWNERS {
            return Err(Ignored::Room);
        }
        let workload = Workload { kind: kind_above, name: strings.share(name) };
        let last = self.entries.insert(uid, Entry { workload: workload.clone(), kind, round });
        Ok(Some((uid, workload, last.is_some())))
    }

    pub(super) fn delete(&mut self, metadata: &Metadata) {
        if let Some(uid) = PodUid::parse(&metadata.uid) {
            self.entries.remove(&uid);
        }
    }

    pub(super) fn listed(&mut self, kind: Kind, round: u32) {
        self.entries.retain(|_, entry| entry.kind != kind || entry.round == round);
    }

    /// What made a pod; absent of one that nothing did.
    pub(super) fn of_pod(&self, metadata: &Metadata, strings: &mut Strings) -> Option<Made> {
        let owner = controller(metadata)?;
        let itself = kind_of(owner);
        let is_group = |group: &str| owner.api_version.split('/').next() == Some(group);
        let is_made =
            (owner.kind == "ReplicaSet" && is_group("apps")) || (owner.kind == "Job" && is_group("batch"));
        let by = PodUid::parse(&owner.uid).filter(|_| is_made);
        if let Some(entry) = by.and_then(|uid| self.entries.get(&uid)) {
            return Some(Made { workload: entry.workload.clone(), by, is_open: false });
        }
        let deployment = metadata.labels.get(TEMPLATE_HASH).filter(|_| itself == WorkloadKind::ReplicaSet);
        let deployment =
            deployment.and_then(|hash| owner.name.strip_suffix(hash.as_str())?.strip_suffix('-'));
        let workload = match deployment.filter(|name| !name.is_empty()) {
            Some(name) => Workload { kind: WorkloadKind::Deployment, name: strings.share(name) },
            None => Workload { kind: itself, name: strings.share(&owner.name) },
        };
        Some(Made { workload, by, is_open: by.is_some() })
    }

    pub(super) fn count(&self, kind: Kind) -> usize {
        self.entries.values().filter(|entry| entry.kind == kind).count()
    }

    /// Bytes by which the table grows with the next one.
    pub(super) fn growth(&self) -> usize {
        growth(&self.entries)
    }

    pub(super) fn bytes(&self) -> usize {
        self.entries.capacity() * (size_of::<(PodUid, Entry)>() + 1)
    }
}

/// Who manages it; of owners that none of is said to, the first. The node of a static pod has not made it.
fn controller(metadata: &Metadata) -> Option<&OwnerReference> {
    let owners = &metadata.owner_references;
    let owner = owners.iter().find(|owner| owner.controller).or_else(|| owners.first())?;
    let is_node = owner.kind == "Node" && owner.api_version == "v1";
    (!is_node && !owner.name.is_empty() && owner.name.len() <= MAX_NAME).then_some(owner)
}

fn kind_of(owner: &OwnerReference) -> WorkloadKind {
    let group = owner.api_version.split_once('/').map_or("", |(group, _)| group);
    match (group, owner.kind.as_str()) {
        ("apps", "Deployment") => WorkloadKind::Deployment,
        ("apps", "ReplicaSet") => WorkloadKind::ReplicaSet,
        ("apps", "StatefulSet") => WorkloadKind::StatefulSet,
        ("apps", "DaemonSet") => WorkloadKind::DaemonSet,
        ("batch", "Job") => WorkloadKind::Job,
        ("batch", "CronJob") => WorkloadKind::CronJob,
        _ => WorkloadKind::Other,
    }
}

/// Whether two are the same, down to their sharing.
pub(super) fn same(one: Option<&Workload>, other: Option<&Workload>) -> bool {
    match (one, other) {
        (Some(one), Some(other)) => {
            one.kind == other.kind && (Arc::ptr_eq(&one.name, &other.name) || one == other)
        }
        (None, None) => true,
        _ => false,
    }
}
