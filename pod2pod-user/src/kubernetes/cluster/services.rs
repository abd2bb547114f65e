//! Services: what they are called by, and which pods and addresses are their endpoints, on which ports.

use std::{
    hash::{Hash, Hasher},
    net::IpAddr,
    sync::Arc,
    time::Duration,
};

use hashbrown::{Equivalent, HashMap};
use smallvec::SmallVec;

use super::{
    Ignored,
    called::{self, Called},
    check_name, growth, parse_address,
    strings::{Strings, text_bytes},
};
use crate::kubernetes::{
    addresses::{Addresses, Found, KEPT_AFTER_END, News, View},
    cgroup::PodUid,
    identity::Service,
    objects,
};

/// Label of a slice with the name of its Service.
const SERVICE_NAME: &str = "kubernetes.io/service-name";
/// Services that are known at most; 10,000 is what a cluster is said to bear.
pub const MAX_SERVICES: usize = 20_000;
/// Pairs of an endpoint and a port that are known at most.
pub const MAX_ENDPOINTS: usize = 200_000;

/// Whether an endpoint's port came to a Service or went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Joined,
    Left,
}

/// A pod's port came to a Service, or went from the last of its namespace.
#[derive(Clone, Copy, Debug)]
pub(super) struct Joined<'a> {
    pub(super) pod: PodUid,
    /// Of the slice that says so: what it says of pods of another is not believed.
    pub(super) namespace: &'a str,
    pub(super) port: u16,
    pub(super) step: Step,
}

/// What an endpoint is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Target {
    Pod(PodUid),
    /// Something that is no pod of the cluster, or that nobody said is one.
    Address(IpAddr),
}

/// That an endpoint is one of a Service.
#[derive(Clone, Debug)]
struct Member {
    service: Arc<Service>,
    port: u16,
    /// Slices that say so: one moves from slice to slice, and has one for each IP version.
    slices: u32,
    until: Option<Duration>,
}

#[derive(Clone, Debug, Default)]
struct Entry {
    addresses: SmallVec<[IpAddr; 1]>,
    ports: SmallVec<[u16; 4]>,
    /// What it is called by besides; most have nothing.
    called: Box<[called::End]>,
    round: u32,
    /// It is there; slices may know it without.
    is_there: bool,
}

#[derive(Clone, Debug)]
struct Slice {
    service: Arc<Service>,
    members: Box<[(Target, u16)]>,
    round: u32,
}

struct Name<'a> {
    namespace: &'a str,
    name: &'a str,
}

impl Hash for Name<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        // As `Service` does.
        self.namespace.hash(state);
        self.name.hash(state);
    }
}

impl Equivalent<Arc<Service>> for Name<'_> {
    fn equivalent(&self, service: &Arc<Service>) -> bool {
        *service.namespace == *self.namespace && *service.name == *self.name
    }
}

/// All of them.
#[derive(Clone, Debug, Default)]
pub(super) struct Services {
    entries: HashMap<Arc<Service>, Entry, foldhash::fast::RandomState>,
    addresses: Addresses<Arc<Service>>,
    called: Called,
    slices: HashMap<PodUid, Slice, foldhash::fast::RandomState>,
    members: HashMap<Target, SmallVec<[Member; 1]>, foldhash::fast::RandomState>,
    /// Of these, those that are addresses: there are few or none.
    addressed: usize,
    /// Endpoints of all slices.
    endpoints: usize,
    /// Bytes of texts and lists.
    held: usize,
    /// Nothing new is taken in.
    pub(super) is_full: bool,
}

impl Services {
    pub(super) fn apply(
        &mut self,
        object: &objects::Service,
        strings: &mut Strings,
        (round, news): (u32, News),
    ) -> Result<(), Ignored> {
        let objects::Service { metadata, spec, .. } = object;
        check_name(&metadata.namespace, &metadata.name)?;
        let service = self.named(&metadata.namespace, &metadata.name, strings)?;
        let texts = spec.cluster_ips.iter().chain([&spec.cluster_ip]);
        let mut addresses: SmallVec<[IpAddr; 1]> = SmallVec::new();
        // `None`, ``, and the names of `ExternalName` are no addresses.
        for address in texts.filter_map(|text| parse_address(text)) {
            if !addresses.contains(&address) {
                addresses.push(address);
            }
        }
        let ports = spec.ports.iter().filter(|port| is_tcp(port)).filter_map(|port| port.port).collect();
        let Some(entry) = self.entries.get_mut(&service) else { return Ok(()) };
        let (ends, is_whole) = called::ends(object, self.is_full.then_some(&*entry.called));
        self.called.set(&service, &entry.called, &ends, news);
        self.held = self.held + size_of_val(&*ends) - size_of_val(&*entry.called);
        for left in entry.addresses.iter().filter(|address| !addresses.contains(address)) {
            self.addresses.ended(*left, &service, news);
        }
        for address in &addresses {
            self.addresses.claim(*address, Arc::clone(&service), news);
        }
        *entry = Entry { addresses, ports, called: ends, round, is_there: true };
        if is_whole { Ok(()) } else { Err(Ignored::Room) }
    }

    pub(super) fn delete(&mut self, metadata: &objects::Metadata, news: News) {
        let name = Name { namespace: &metadata.namespace, name: &metadata.name };
        let Some((service, entry)) = self.entries.get_key_value_mut(&name) else { return };
        // Its ports are remembered: exchanges with it are told of later.
        entry.is_there = false;
        for address in &entry.addresses {
            self.addresses.ended(*address, service, news);
        }
        self.called.set(service, &entry.called, &[], news);
    }

    /// What is not in the list that is complete is gone.
    pub(super) fn listed(&mut self, round: u32, news: News) {
        self.addresses.heard(news);
        self.called.heard(news);
        for (service, entry) in &mut self.entries {
            if entry.is_there && entry.round != round {
                entry.is_there = false;
                for address in &entry.addresses {
                    self.addresses.ended(*address, service, news);
                }
                self.called.set(service, &entry.called, &[], news);
            }
        }
    }

    fn named(&mut self, namespace: &str, name: &str, strings: &mut Strings) -> Result<Arc<Service>, Ignored> {
        if let Some((service, _)) = self.entries.get_key_value(&Name { namespace, name }) {
            return Ok(Arc::clone(service));
        }
        if self.is_full || self.entries.len() >= MAX_SERVICES {
            return Err(Ignored::Room);
        }
        let service = Arc::new(Service { namespace: strings.share(namespace), name: name.into() });
        self.held += service_bytes(&service);
        self.entries.insert(Arc::clone(&service), Entry::default());
        Ok(service)
    }

    pub(super) fn apply_slice(
        &mut self,
        object: &objects::Slice,
        strings: &mut Strings,
        (round, news): (u32, News),
        mut told: impl FnMut(Joined<'_>),
    ) -> Result<(), Ignored> {
        let metadata = &object.metadata;
        let uid = PodUid::parse(&metadata.uid).ok_or(Ignored::Uid)?;
        let name = metadata.labels.get(SERVICE_NAME).ok_or(Ignored::Service)?;
        check_name(&metadata.namespace, name)?;
        let members = members(object);
        let before = self.slices.get(&uid).map_or(0, |slice| slice.members.len());
        let is_more = members.len() > before || !self.slices.contains_key(&uid);
        if is_more && self.is_full || self.endpoints - before + members.len() > MAX_ENDPOINTS {
            self.delete_slice(uid, news, told);
            return Err(Ignored::Room);
        }
        let service = self.named(&metadata.namespace, name, strings)?;
        for (target, port) in &members {
            self.join(*target, *port, &service, &mut told);
        }
        self.endpoints += members.len();
        self.held += list_bytes(&members);
        // What is in both was joined before it leaves.
        self.delete_slice(uid, news, told);
        self.slices.insert(uid, Slice { service, members, round });
        Ok(())
    }

    pub(super) fn delete_slice(&mut self, uid: PodUid, news: News, mut told: impl FnMut(Joined<'_>)) {
        let Some(slice) = self.slices.remove(&uid) else { return };
        self.endpoints -= slice.members.len();
        self.held -= list_bytes(&slice.members);
        for (target, port) in &slice.members {
            self.leave(*target, *port, &slice.service, news, &mut told);
        }
    }

    pub(super) fn listed_slices(&mut self, round: u32, news: News, mut told: impl FnMut(Joined<'_>)) {
        let gone = self.slices.iter().filter(|(_, slice)| slice.round != round).map(|(uid, _)| *uid);
        for uid in gone.collect::<Vec<_>>() {
            self.delete_slice(uid, news, &mut told);
        }
    }

    fn join(&mut self, target: Target, port: u16, service: &Arc<Service>, told: &mut impl FnMut(Joined<'_>)) {
        let members = self.members.entry(target).or_insert_with(|| {
            self.addressed += usize::from(matches!(target, Target::Address(_)));
            SmallVec::new()
        });
        match members.iter_mut().find(|member| member.port == port && member.service == *service) {
            Some(member) => {
                member.slices += 1;
                member.until = None;
            }
            None => members.push(Member { service: Arc::clone(service), port, slices: 1, until: None }),
        }
        if let Target::Pod(pod) = target {
            told(Joined { pod, namespace: &service.namespace, port, step: Step::Joined });
        }
    }

    fn leave(
        &mut self,
        target: Target,
        port: u16,
        service: &Arc<Service>,
        news: News,
        told: &mut impl FnMut(Joined<'_>),
    ) {
        let Some(members) = self.members.get_mut(&target) else { return };
        let same = |member: &&mut Member| member.port == port && member.service == *service;
        let Some(member) = members.iter_mut().find(same) else { return };
        member.slices = member.slices.saturating_sub(1);
        if member.slices > 0 {
            return;
        }
        member.until = Some(news.at);
        let namespace = &*service.namespace;
        let stays = |member: &Member| {
            member.port == port && member.until.is_none() && *member.service.namespace == *namespace
        };
        if let Target::Pod(pod) = target
            && !members.iter().any(stays)
        {
            told(Joined { pod, namespace, port, step: Step::Left });
        }
    }

    /// Ports on which a pod is an endpoint.
    pub(super) fn ports_of(&self, pod: PodUid, namespace: &str) -> impl Iterator<Item = u16> {
        let members = self.members.get(&Target::Pod(pod)).map_or(&[][..], |members| members);
        let is_its = move |member: &&Member| *member.service.namespace == *namespace;
        members.iter().filter(is_its).filter(|member| member.until.is_none()).map(|member| member.port)
    }

    /// The Service of its namespace that the pod with this address is an endpoint of on the port; absent if there are several.
    pub(super) fn of_pod(
        &self,
        (pod, namespace): (PodUid, &str),
        address: IpAddr,
        port: u16,
        at: Duration,
    ) -> Option<&Arc<Service>> {
        let is_its = |service: &&Arc<Service>| *service.namespace == *namespace;
        let of_pod = self.members_of(Target::Pod(pod), port, at).filter(is_its);
        if self.addressed == 0 {
            return only(of_pod);
        }
        only(of_pod.chain(self.members_of(Target::Address(address), port, at).filter(is_its)))
    }

    /// The Service that what is no pod is an endpoint of.
    pub(super) fn of_address(&self, address: IpAddr, port: u16, at: Duration) -> Option<&Arc<Service>> {
        if self.addressed == 0 {
            return None;
        }
        only(self.members_of(Target::Address(address), port, at))
    }

    fn members_of(&self, target: Target, port: u16, at: Duration) -> impl Iterator<Item = &Arc<Service>> {
        let members = self.members.get(&target).map_or(&[][..], |members| members);
        let holds =
            move |member: &&Member| member.port == port && member.until.is_none_or(|until| at < until);
        members.iter().filter(holds).map(|member| &member.service)
    }

    /// Whose own address it is; absent if it is not known to be any Service's. Port 0 is any.
    pub(super) fn find(
        &self,
        address: IpAddr,
        port: u16,
        at: Duration,
        view: View,
    ) -> Option<Found<Arc<Service>>> {
        let found = self.addresses.find_known(address, at, view)?;
        Some(found.and_then(|service| {
            let entry = self.entries.get(&service)?;
            (port == 0 || entry.ports.contains(&port)).then_some(service)
        }))
    }

    /// Who is called by it besides; absent if nobody was known to be then.
    pub(super) fn called(&self, end: called::End, at: Duration, view: View) -> Option<Found<Arc<Service>>> {
        self.called.find(end, at, view)
    }

    pub(super) fn forget(&mut self, now: Duration) {
        self.addresses.forget(now, |_| ());
        self.called.forget(now);
        let addressed = &mut self.addressed;
        self.members.retain(|target, members| {
            members.retain(|member| member.until.is_none_or(|until| until + KEPT_AFTER_END > now));
            if members.is_empty() && matches!(target, Target::Address(_)) {
                *addressed -= 1;
            }
            !members.is_empty()
        });
        let held = &mut self.held;
        self.entries.retain(|service, entry| {
            let is_kept = entry.is_there || Arc::strong_count(service) > 1;
            if !is_kept {
                *held -= service_bytes(service) + size_of_val(&*entry.called);
            }
            is_kept
        });
    }

    pub(super) fn count(&self) -> usize {
        self.entries.values().filter(|entry| entry.is_there).count()
    }

    pub(super) fn count_slices(&self) -> usize {
        self.slices.len()
    }

    pub(super) fn forgotten(&self) -> u64 {
        self.addresses.forgotten() + self.called.forgotten()
    }

    /// Bytes by which tables grow with the next Service or slice.
    pub(super) fn growth(&self) -> usize {
        growth(&self.entries)
            + growth(&self.slices)
            + growth(&self.members)
            + self.addresses.growth()
            + self.called.growth()
    }

    pub(super) fn bytes(&self) -> usize {
        self.entries.capacity() * (size_of::<(Arc<Service>, Entry)>() + 1)
            + self.slices.capacity() * (size_of::<(PodUid, Slice)>() + 1)
            + self.members.capacity() * (size_of::<(Target, SmallVec<[Member; 1]>)>() + 1)
            + self.addresses.bytes()
            + self.called.bytes()
            + self.held
    }
}

fn service_bytes(service: &Arc<Service>) -> usize {
    size_of::<Service>() + 3 * size_of::<usize>() + text_bytes(&service.name)
}

fn list_bytes(members: &[(Target, u16)]) -> usize {
    size_of_val(members) + size_of::<usize>()
}

pub(super) fn is_tcp(port: &objects::Port) -> bool {
    port.protocol.as_deref().is_none_or(|protocol| protocol == "TCP")
}

/// Every endpoint that serves with every port, each once. One that does not may have no socket there, and another may.
fn members(slice: &objects::Slice) -> Box<[(Target, u16)]> {
    let ports: SmallVec<[u16; 4]> =
        slice.ports.iter().filter(|port| is_tcp(port)).filter_map(|port| port.port).collect();
    let mut members = Vec::new();
    for endpoint in slice.endpoints.iter().filter(|endpoint| endpoint.conditions.is_serving()) {
        let pod = endpoint.target_ref.as_ref().filter(|target| target.kind == "Pod");
        let pod = pod.and_then(|target| PodUid::parse(&target.uid)).map(Target::Pod);
        let addresses = endpoint.addresses.iter().filter(|_| pod.is_none());
        let addresses = addresses.filter_map(|text| parse_address(text)).map(Target::Address);
        for target in pod.into_iter().chain(addresses) {
            members.extend(ports.iter().map(|port| (target, *port)));
        }
    }
    members.sort_unstable_by_key(|(target, port)| (target.order(), *port));
    members.dedup();
    members.into_boxed_slice()
}

impl Target {
    /// Any order, to find what is there twice.
    fn order(self) -> (Option<PodUid>, Option<IpAddr>) {
        match self {
            Self::Pod(uid) => (Some(uid), None),
            Self::Address(address) => (None, Some(address)),
        }
    }
}

/// The Service that all are; absent if they are several.
fn only<'a>(mut services: impl Iterator<Item = &'a Arc<Service>>) -> Option<&'a Arc<Service>> {
    let first = services.next()?;
    services.all(|other| other == first).then_some(first)
}
