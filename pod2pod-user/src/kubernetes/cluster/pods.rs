//! Pods: by uid, by address and time, by port in the network of their node. A pod is named as it was last heard of.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc, time::Duration};

use hashbrown::HashMap;
use smallvec::SmallVec;

use super::{
    Config, Ignored, check_name, growth,
    networks::{Network, Networks},
    nodes::Nodes,
    owners::{self, Owners},
    parse_address,
    services::{Joined, Step},
    strings::{Strings, text_bytes},
};
use crate::kubernetes::{
    addresses::{Addresses, Found, KEPT_AFTER_END, News, Tenure, View},
    cgroup::{ContainerId, PodUid},
    identity::{Pod, Workload},
    objects,
};

/// Pods of other nodes that are known at most, those that are gone and remembered among them. The node's own are always known:
/// kubelet has a limit for them.
pub const MAX_PODS: usize = 50_000;
/// Containers of one pod that are remembered, those that were started again among them.
pub const MAX_CONTAINERS: usize = 64;
/// Longest value of an annotation that is kept. Longer ones are left out.
pub const MAX_ANNOTATION: usize = 1024;
/// Hash of a static pod's manifest, which its cgroup is named by.
const MANIFEST_HASH: &str = "kubernetes.io/config.hash";

/// The same, of what stands for it in the API.
const MIRROR: &str = "kubernetes.io/config.mirror";

/// Labels or annotations.
type Pairs = Box<[(Arc<str>, Arc<str>)]>;

#[derive(Clone, Debug)]
struct Entry {
    pod: Arc<Pod>,
    /// Its own; of a pod in the network of its node, the node's.
    addresses: SmallVec<[IpAddr; 1]>,
    containers: Box<[(ContainerId, Arc<str>)]>,
    /// The ReplicaSet or Job that made it.
    made_by: Option<PodUid>,
    in_host_network: bool,
    tenure: Tenure,
    round: u32,
    gone: Option<Duration>,
}

/// How a pod went.
#[derive(Clone, Copy)]
enum End {
    /// All of it has ended.
    Ended,
    /// It is no more in the API.
    Removed,
}

/// All of them.
#[derive(Clone, Debug, Default)]
pub(super) struct Pods {
    entries: HashMap<PodUid, Entry, foldhash::fast::RandomState>,
    addresses: Addresses<PodUid>,
    /// Ports of pods in the network of their node.
    ports: Addresses<PodUid, (IpAddr, u16)>,
    /// By what a static pod's cgroup is named by.
    statics: HashMap<PodUid, PodUid, foldhash::fast::RandomState>,
    /// By ReplicaSets and Jobs that were not heard of.
    waiting: HashMap<PodUid, SmallVec<[PodUid; 1]>, foldhash::fast::RandomState>,
    gone: usize,
    /// Bytes of texts and lists.
    held: usize,
    long_values: u64,
    /// Nothing new is taken in, but for the own node's.
    pub(super) is_full: bool,
}

/// What else is known when news of a pod come.
pub(super) struct Known<'a> {
    pub(super) config: &'a Config,
    pub(super) strings: &'a mut Strings,
    pub(super) networks: &'a mut Networks,
    pub(super) owners: &'a Owners,
    pub(super) nodes: &'a Nodes,
}

impl Pods {
    /// `endpoint_ports` are those that the pod is an endpoint on.
    pub(super) fn apply(
        &mut self,
        object: &objects::Pod,
        mut known: Known<'_>,
        endpoint_ports: impl Iterator<Item = u16>,
        (round, news): (u32, News),
    ) -> Result<(), Ignored> {
        let metadata = &object.metadata;
        check_name(&metadata.namespace, &metadata.name)?;
        let uid = PodUid::parse(&metadata.uid).ok_or(Ignored::Uid)?;
        let has_ended = matches!(object.status.phase.as_str(), "Succeeded" | "Failed");
        let is_own = known.config.node.as_deref().is_some_and(|own| own == object.spec.node_name);
        let mut last = self.entries.remove(&uid);
        if last.is_none() {
            if has_ended {
                // Nothing of it is to be seen.
                return Ok(());
            }
            if !is_own && (self.is_full || self.entries.len() >= MAX_PODS) {
                return Err(Ignored::Room);
            }
        }
        if let Some(last) = &last {
            self.held -= held(last);
        }
        let mut entry = self.read(uid, object, is_own, last.as_ref(), &mut known);
        entry.round = round;
        // Who is gone does not come back: its uid is never given again.
        if entry.gone.is_none() {
            let before = last.as_mut().map(|last| std::mem::take(&mut last.addresses)).unwrap_or_default();
            self.hold(uid, &entry, &before, (endpoint_ports, known.networks), news);
            if has_ended {
                self.leave(uid, &mut entry, End::Ended, news);
            } else if metadata.deletion_timestamp.is_some() {
                self.ending(uid, &entry, news);
            }
        }
        self.held += held(&entry);
        self.entries.insert(uid, entry);
        Ok(())
    }

    /// What is known of it from now on.
    fn read(
        &mut self,
        uid: PodUid,
        object: &objects::Pod,
        is_own: bool,
        last: Option<&Entry>,
        known: &mut Known<'_>,
    ) -> Entry {
        let objects::Pod { metadata, spec, status } = object;
        let config = known.config;
        let made = known.owners.of_pod(metadata, known.strings);
        let made_by = made.as_ref().and_then(|made| made.by);
        let mut workload = made.as_ref().map(|made| made.workload.clone());
        if made.is_some_and(|made| made.is_open)
            && let Some(by) = made_by
        {
            match last {
                // It was known: what was read off it stays.
                Some(last) if last.made_by == made_by => workload.clone_from(&last.pod.workload),
                _ => self.waiting.entry(by).or_default().push(uid),
            }
        }
        let labels = pairs(&metadata.labels, &config.labels, known.strings, usize::MAX).0;
        let asked = if is_own { &config.annotations[..] } else { &[] };
        let (annotations, long) = pairs(&metadata.annotations, asked, known.strings, MAX_ANNOTATION);
        self.long_values += long;
        let node = (!spec.node_name.is_empty()).then(|| known.strings.share(&spec.node_name));
        let pod = Pod {
            namespace: known.strings.share(&metadata.namespace),
            name: last.map_or_else(|| metadata.name.as_str().into(), |last| Arc::clone(&last.pod.name)),
            uid,
            zone: node.as_deref().and_then(|node| known.nodes.zone(node)),
            node,
            workload,
            labels,
            annotations,
        };
        let before = last.map_or(&[][..], |last| &last.containers);
        let containers = if is_own { containers(status, before, known.strings) } else { Box::default() };
        if is_own {
            self.note_static(uid, metadata);
        }
        Entry {
            pod: match last {
                Some(last) if *last.pod == pod => Arc::clone(&last.pod),
                _ => Arc::new(pod),
            },
            addresses: addresses(status),
            containers,
            made_by,
            in_host_network: spec.host_network,
            tenure: if matches!(spec.restart_policy.as_str(), "Always" | "") {
                Tenure::Lasting
            } else {
                Tenure::Passing
            },
            round: 0,
            gone: last.and_then(|last| last.gone),
        }
    }

    /// Of a static pod the API has a mirror, which kubelet marks and its node owns. One that is there is not taken its name by
    /// another that says the same of itself.
    fn note_static(&mut self, uid: PodUid, metadata: &objects::Metadata) {
        let of = |key: &str| metadata.annotations.get(key).map(String::as_str);
        let is_mirror = of(MIRROR) == of(MANIFEST_HASH)
            && metadata.owner_references.iter().any(|owner| owner.kind == "Node");
        let Some(manifest) = of(MANIFEST_HASH).filter(|_| is_mirror).and_then(PodUid::parse) else { return };
        let is_there = |other: &PodUid| self.entries.get(other).is_some_and(|entry| entry.gone.is_none());
        if !self.statics.get(&manifest).is_some_and(|other| *other != uid && is_there(other)) {
            self.statics.insert(manifest, uid);
        }
    }

    fn hold(
        &mut self,
        uid: PodUid,
        entry: &Entry,
        before: &[IpAddr],
        (endpoint_ports, networks): (impl Iterator<Item = u16>, &mut Networks),
        news: News,
    ) {
        if entry.in_host_network {
            for port in endpoint_ports {
                for address in &entry.addresses {
                    self.ports.claim_for((*address, port), uid, entry.tenure, news);
                }
            }
            return;
        }
        for left in before.iter().filter(|address| !entry.addresses.contains(address)) {
            self.addresses.ended(*left, &uid, news);
        }
        for address in &entry.addresses {
            if self.addresses.claim_for(*address, uid, entry.tenure, news) {
                networks.add(Network::around(*address));
            }
        }
    }

    fn ending(&mut self, uid: PodUid, entry: &Entry, news: News) {
        if entry.in_host_network {
            for held in self.ports_of(uid, entry) {
                self.ports.ending(held, &uid, news);
            }
            return;
        }
        for address in &entry.addresses {
            self.addresses.ending(*address, &uid, news);
        }
    }

    fn leave(&mut self, uid: PodUid, entry: &mut Entry, end: End, news: News) {
        if entry.in_host_network {
            for held in self.ports_of(uid, entry) {
                match end {
                    End::Ended => self.ports.ended(held, &uid, news),
                    End::Removed => self.ports.release(held, &uid, news),
                }
            }
        } else {
            for address in &entry.addresses {
                match end {
                    End::Ended => self.addresses.ended(*address, &uid, news),
                    End::Removed => self.addresses.release(*address, &uid, news),
                }
            }
        }
        if entry.gone.is_none() {
            entry.gone = Some(news.at);
            self.gone += 1;
        }
    }

    /// Ports that a pod in the network of its node has.
    fn ports_of(&self, uid: PodUid, entry: &Entry) -> Vec<(IpAddr, u16)> {
        let is_its = |(address, _): &&(IpAddr, u16)| entry.addresses.contains(address);
        self.ports.held_by(&uid).filter(is_its).copied().collect()
    }

    pub(super) fn delete(&mut self, uid: &str, news: News) {
        let Some(uid) = PodUid::parse(uid) else { return };
        let Some(mut entry) = self.entries.remove(&uid) else { return };
        self.leave(uid, &mut entry, End::Removed, news);
        self.entries.insert(uid, entry);
    }

    /// What is not in the list that is complete is gone.
    pub(super) fn listed(&mut self, round: u32, news: News) {
        self.addresses.heard(news);
        let is_gone = |entry: &Entry| entry.gone.is_none() && entry.round != round;
        let gone = self.entries.iter().filter(|(_, entry)| is_gone(entry)).map(|(uid, _)| *uid);
        for uid in gone.collect::<Vec<_>>() {
            if let Some(mut entry) = self.entries.remove(&uid) {
                self.leave(uid, &mut entry, End::Removed, news);
                self.entries.insert(uid, entry);
            }
        }
    }

    /// News of slices: of a break of contact with them too.
    pub(super) fn listed_endpoints(&mut self, news: News) {
        self.ports.heard(news);
    }

    /// A pod's port came to a Service, or went from the last.
    pub(super) fn endpoint(&mut self, joined: Joined<'_>, news: News) {
        let Joined { pod, namespace, port, step } = joined;
        let Some(entry) = self.entries.get(&pod) else { return };
        if !entry.in_host_network || entry.gone.is_some() || *entry.pod.namespace != *namespace {
            return;
        }
        for address in &entry.addresses {
            match step {
                Step::Joined => {
                    self.ports.claim_for((*address, port), pod, entry.tenure, news);
                }
                Step::Left => self.ports.release((*address, port), &pod, news),
            }
        }
    }

    /// A ReplicaSet or Job stands for `workload`.
    pub(super) fn made(&mut self, by: PodUid, workload: &Workload, is_changed: bool) {
        let waiting = self.waiting.remove(&by).unwrap_or_default();
        if is_changed {
            for entry in self.entries.values_mut().filter(|entry| entry.made_by == Some(by)) {
                entry.rename(workload);
            }
            return;
        }
        for uid in waiting {
            if let Some(entry) = self.entries.get_mut(&uid).filter(|entry| entry.made_by == Some(by)) {
                entry.rename(workload);
            }
        }
    }

    /// The nodes' zones, of pods of `node` only if it is given.
    pub(super) fn set_zones(&mut self, nodes: &Nodes, node: Option<&str>) {
        for entry in self.entries.values_mut() {
            let Some(its) = entry.pod.node.as_deref() else { continue };
            if node.is_none_or(|node| node == its) {
                let zone = nodes.zone(its);
                if entry.pod.zone != zone {
                    entry.pod = Arc::new(Pod { zone, ..Pod::clone(&entry.pod) });
                }
            }
        }
    }

    pub(super) fn find(&self, address: IpAddr, at: Duration, view: View) -> Option<Found<PodUid>> {
        self.addresses.find_known(address, at, view)
    }

    pub(super) fn find_port(
        &self,
        address: IpAddr,
        port: u16,
        at: Duration,
        view: View,
    ) -> Option<Found<PodUid>> {
        self.ports.find_known((address, port), at, view)
    }

    /// The pod, and whether it is in the network of its node.
    pub(super) fn get(&self, uid: PodUid) -> Option<(&Arc<Pod>, bool)> {
        self.entries.get(&uid).map(|entry| (&entry.pod, entry.in_host_network))
    }

    /// The pod that a cgroup names.
    pub(super) fn of_cgroup(&self, named: PodUid) -> Option<PodUid> {
        if self.entries.contains_key(&named) { Some(named) } else { self.statics.get(&named).copied() }
    }

    pub(super) fn container(&self, uid: PodUid, id: ContainerId) -> Option<&Arc<str>> {
        let containers = &self.entries.get(&uid)?.containers;
        containers.iter().find(|(known, _)| *known == id).map(|(_, name)| name)
    }

    pub(super) fn forget(&mut self, now: Duration, networks: &mut Networks) {
        self.addresses.forget(now, |address| networks.remove(Network::around(address)));
        self.ports.forget(now, |_| ());
        if self.gone == 0 {
            return;
        }
        let Self { entries, statics, waiting, gone, held, .. } = self;
        entries.retain(|uid, entry| {
            let is_kept = entry.gone.is_none_or(|gone| gone + KEPT_AFTER_END > now);
            if !is_kept {
                *gone -= 1;
                *held -= self::held(entry);
                if let Some(by) = entry.made_by
                    && let Some(pods) = waiting.get_mut(&by)
                {
                    pods.retain(|waiting| waiting != uid);
                    if pods.is_empty() {
                        waiting.remove(&by);
                    }
                }
            }
            is_kept
        });
        statics.retain(|_, uid| entries.contains_key(uid));
    }

    pub(super) fn count(&self) -> usize {
        self.entries.len() - self.gone
    }

    pub(super) fn forgotten(&self) -> u64 {
        self.addresses.forgotten() + self.ports.forgotten()
    }

    pub(super) const fn long_values(&self) -> u64 {
        self.long_values
    }

    /// Bytes by which tables grow with the next pod.
    pub(super) fn growth(&self) -> usize {
        growth(&self.entries) + growth(&self.waiting) + self.addresses.growth() + self.ports.growth()
    }

    pub(super) fn bytes(&self) -> usize {
        self.entries.capacity() * (size_of::<(PodUid, Entry)>() + 1)
            + self.waiting.capacity() * (size_of::<(PodUid, SmallVec<[PodUid; 1]>)>() + 1)
            + self.addresses.bytes()
            + self.ports.bytes()
            + self.held
    }
}

impl Entry {
    fn rename(&mut self, workload: &Workload) {
        if !owners::same(self.pod.workload.as_ref(), Some(workload)) {
            let workload = Some(workload.clone());
            self.pod = Arc::new(Pod { workload, ..Pod::clone(&self.pod) });
        }
    }
}

fn held(entry: &Entry) -> usize {
    let Pod { name, labels, annotations, .. } = &*entry.pod;
    size_of::<Pod>()
        + 3 * size_of::<usize>()
        + text_bytes(name)
        + size_of_val(&**labels)
        + size_of_val(&**annotations)
        + size_of_val(&*entry.containers)
}

fn addresses(status: &objects::PodStatus) -> SmallVec<[IpAddr; 1]> {
    let mut addresses = SmallVec::new();
    let texts = status.pod_ips.iter().map(|ip| &ip.ip).chain([&status.pod_ip]);
    for address in texts.filter_map(|text| parse_address(text)) {
        if !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    addresses
}

/// Those in the status, and those that were before them: what they did is told of later.
fn containers(
    status: &objects::PodStatus,
    before: &[(ContainerId, Arc<str>)],
    strings: &mut Strings,
) -> Box<[(ContainerId, Arc<str>)]> {
    let kinds =
        [&status.container_statuses, &status.init_container_statuses, &status.ephemeral_container_statuses];
    let now = kinds.into_iter().flatten().filter_map(|container| {
        let id = ContainerId::of_status(&container.container_id)?;
        (!container.name.is_empty()).then(|| (id, strings.share(&container.name)))
    });
    let mut all: Vec<_> = now.take(MAX_CONTAINERS).collect();
    for (id, name) in before {
        if all.len() < MAX_CONTAINERS && !all.iter().any(|(known, _)| known == id) {
            all.push((*id, Arc::clone(name)));
        }
    }
    all.into_boxed_slice()
}

/// Of `all`, those that are asked for, in the order of their keys; and how many of these were too long.
fn pairs(
    all: &BTreeMap<String, String>,
    asked: &[Arc<str>],
    strings: &mut Strings,
    longest: usize,
) -> (Pairs, u64) {
    let found = asked.iter().filter_map(|key| Some((key, all.get(&**key)?)));
    let (kept, long): (Vec<_>, Vec<_>) = found.partition(|(_, value)| value.len() <= longest);
    let kept = kept.into_iter().map(|(key, value)| (Arc::clone(key), strings.share(value)));
    (kept.collect(), long.len() as u64)
}
