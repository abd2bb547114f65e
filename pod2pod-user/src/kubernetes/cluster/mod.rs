//! What is known of the cluster: news of the API go in, and who an end of a connection is comes out.
//!
//! Instants are those at which news came, never those of objects, so that clocks need not agree. Nothing is asked here, and
//! whoever asks the API is not here. A pod is never named that may be the wrong one; what rests on that is in
//! [`super::addresses`].

mod beside;
mod called;
mod networks;
mod nodes;
mod owners;
mod pods;
mod services;
mod strings;
#[cfg(test)]
mod tests;

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

pub use called::MAX_CALLED;
use hashbrown::HashMap;
pub use networks::Network;
pub use nodes::MAX_NODES;
pub use owners::MAX_OWNERS;
pub use pods::{MAX_ANNOTATION, MAX_CONTAINERS, MAX_PODS};
pub use services::{MAX_ENDPOINTS, MAX_SERVICES};

use self::{
    networks::Networks, nodes::Nodes, owners::Owners, pods::Pods, services::Services, strings::Strings,
};
use super::{
    addresses::{self, Found, News, View},
    cgroup::{Place, PodUid},
    identity::{Identity, Pod, Service},
    objects::{self, Change, Event, Kind, Metadata},
};

/// Longest name of an object or a namespace (RFC 1123 subdomain, as the API has it), in bytes.
pub const MAX_NAME: usize = 253;

/// Memory that all of it may take, where nobody says how much: that of 100,000 pods and what is around them. Bytes.
pub const DEFAULT_MAX_BYTES: usize = 128 << 20;

/// What is kept, and where we are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Name of our own node; absent if it is not known, and no pod is our own then.
    pub node: Option<Arc<str>>,
    /// Keys of labels that are kept.
    pub labels: Vec<Arc<str>>,
    /// Keys of annotations that are kept, of our own node's pods.
    pub annotations: Vec<Arc<str>>,
    /// Networks of pods, beside those that nodes name and those around pods' addresses.
    pub networks: Vec<Network>,
    /// Bytes that all of it may take: past it what is new is not taken in, but for the own node's pods. What is not known has no
    /// name, and nobody else gets one in its stead.
    pub max_bytes: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            node: None,
            labels: Vec::new(),
            annotations: Vec::new(),
            networks: Vec::new(),
            max_bytes: DEFAULT_MAX_BYTES,
        }
    }
}

/// Why an object is not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Ignored {
    /// It has no name or namespace, or one that is too long.
    Name,
    /// It has no uid.
    Uid,
    /// A slice that says no Service.
    Service,
    /// There are too many.
    Room,
}

impl Ignored {
    /// Every reason.
    pub const ALL: [Self; 4] = [Self::Name, Self::Uid, Self::Service, Self::Room];

    /// The word for metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Name => "name",
            Self::Uid => "uid",
            Self::Service => "service",
            Self::Room => "room",
        }
    }
}

/// What was counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Objects that are known, in the order of [`Kind::ALL`].
    pub objects: [u64; Kind::ALL.len()],
    /// News of objects that are not, by reason, in the order of [`Ignored::ALL`].
    pub ignored: [u64; Ignored::ALL.len()],
    /// Holders of addresses that were forgotten before their time.
    pub forgotten: u64,
    /// Values of annotations that were too long to keep.
    pub long_values: u64,
    /// Bytes of memory, nearly.
    pub bytes: u64,
}

/// The cluster, as far as it was heard of.
#[derive(Clone, Debug)]
pub struct Cluster {
    config: Config,
    pods: Pods,
    services: Services,
    nodes: Nodes,
    owners: Owners,
    networks: Networks,
    strings: Strings,
    /// Lists begun, a kind.
    rounds: [u32; Kind::ALL.len()],
    /// Kinds whose first list is complete.
    listed: [bool; Kind::ALL.len()],
    /// When contact was lost, a kind; absent while there is.
    lost: [Option<Duration>; Kind::ALL.len()],
    ignored: [u64; Ignored::ALL.len()],
    /// The last list, a kind, in or after which there was no room for an object; absent once a whole list had room.
    refused: [Option<u32>; Kind::ALL.len()],
}

impl Cluster {
    /// An empty one, with contact.
    pub fn new(mut config: Config) -> Self {
        for keys in [&mut config.labels, &mut config.annotations] {
            keys.sort_unstable();
            keys.dedup();
        }
        let mut networks = Networks::default();
        config.networks.iter().for_each(|network| networks.add(*network));
        Self {
            config,
            pods: Pods::default(),
            services: Services::default(),
            nodes: Nodes::default(),
            owners: Owners::default(),
            networks,
            strings: Strings::default(),
            rounds: Default::default(),
            listed: Default::default(),
            lost: Default::default(),
            ignored: Default::default(),
            refused: Default::default(),
        }
    }

    /// Takes in what the API told.
    pub fn apply(&mut self, event: Event, news: News) {
        let kind = event.kind();
        self.look_for_room();
        let taken = match event {
            Event::Pod(change) => self.pod(change, news),
            Event::Service(change) => self.service(change, news),
            Event::Slice(change) => self.slice(change, news),
            Event::Node(change) => self.node(change, news),
            Event::ReplicaSet(change) => self.owner(Kind::ReplicaSets, change),
            Event::Job(change) => self.owner(Kind::Jobs, change),
        };
        if let Err(ignored) = taken {
            self.ignored[ignored as usize] += 1;
            if ignored == Ignored::Room {
                self.refused[kind as usize] = Some(self.round(kind));
            }
        }
    }

    /// Whether anything new may be taken in: it fits, also if a table has to grow for it.
    fn look_for_room(&mut self) {
        let Self { pods, services, nodes, owners, .. } = self;
        let growth = pods.growth() + services.growth() + nodes.growth() + owners.growth();
        let is_full = self.bytes() + growth > self.config.max_bytes;
        (self.pods.is_full, self.services.is_full) = (is_full, is_full);
        (self.nodes.is_full, self.owners.is_full) = (is_full, is_full);
    }

    /// Whether all objects of the kind were taken in, as far as there is a list.
    fn is_whole(&self, kind: Kind) -> bool {
        self.refused[kind as usize].is_none()
    }

    /// Contact with the news of a kind was lost at that moment, or is there if it is absent.
    pub fn set_lost(&mut self, kind: Kind, lost: Option<Duration>) {
        self.lost[kind as usize] = lost;
    }

    /// Whether the kind's first list is complete.
    pub fn is_listed(&self, kind: Kind) -> bool {
        self.listed[kind as usize]
    }

    fn round(&self, kind: Kind) -> u32 {
        self.rounds[kind as usize]
    }

    fn begin(&mut self, kind: Kind) {
        let round = &mut self.rounds[kind as usize];
        *round = round.wrapping_add(1);
    }

    fn done(&mut self, kind: Kind) {
        self.listed[kind as usize] = true;
        let round = self.round(kind);
        let refused = &mut self.refused[kind as usize];
        *refused = refused.filter(|refused| *refused == round);
    }

    fn pod(&mut self, change: Change<objects::Pod>, news: News) -> Result<(), Ignored> {
        let round = self.round(Kind::Pods);
        match change {
            Change::Begin => self.begin(Kind::Pods),
            Change::Listed(object) | Change::Applied(object) => {
                let Self { config, pods, services, nodes, owners, networks, strings, .. } = self;
                let namespace = &*object.metadata.namespace;
                let uid = PodUid::parse(&object.metadata.uid).into_iter();
                let ports = uid.flat_map(|uid| services.ports_of(uid, namespace));
                return pods.apply(
                    &object,
                    pods::Known { config, strings, networks, owners, nodes },
                    ports,
                    (round, news),
                );
            }
            Change::Deleted(object) => self.pods.delete(&object.metadata.uid, news),
            Change::Done => {
                self.pods.listed(round, news);
                self.done(Kind::Pods);
            }
        }
        Ok(())
    }

    fn service(&mut self, change: Change<objects::Service>, news: News) -> Result<(), Ignored> {
        let round = self.round(Kind::Services);
        match change {
            Change::Begin => self.begin(Kind::Services),
            Change::Listed(object) | Change::Applied(object) => {
                return self.services.apply(&object, &mut self.strings, (round, news));
            }
            Change::Deleted(object) => self.services.delete(&object.metadata, news),
            Change::Done => {
                self.services.listed(round, news);
                self.done(Kind::Services);
            }
        }
        Ok(())
    }

    fn slice(&mut self, change: Change<objects::Slice>, news: News) -> Result<(), Ignored> {
        let round = self.round(Kind::EndpointSlices);
        let Self { services, pods, strings, .. } = self;
        let told = |joined: services::Joined<'_>| pods.endpoint(joined, news);
        match change {
            Change::Begin => self.begin(Kind::EndpointSlices),
            Change::Listed(object) | Change::Applied(object) => {
                return services.apply_slice(&object, strings, (round, news), told);
            }
            Change::Deleted(object) => {
                if let Some(uid) = PodUid::parse(&object.metadata.uid) {
                    services.delete_slice(uid, news, told);
                }
            }
            Change::Done => {
                services.listed_slices(round, news, told);
                pods.listed_endpoints(news);
                self.done(Kind::EndpointSlices);
            }
        }
        Ok(())
    }

    fn node(&mut self, change: Change<objects::Node>, news: News) -> Result<(), Ignored> {
        let round = self.round(Kind::Nodes);
        let Self { nodes, pods, networks, strings, .. } = self;
        match change {
            Change::Begin => self.begin(Kind::Nodes),
            Change::Listed(object) => {
                // Their zones are told to pods at once, at the end.
                nodes.apply(&object, strings, networks, (round, news))?;
            }
            Change::Applied(object) => {
                if let Some(node) = nodes.apply(&object, strings, networks, (round, news))? {
                    pods.set_zones(nodes, Some(&node));
                }
            }
            Change::Deleted(object) => nodes.delete(&object.metadata.name, networks, news),
            Change::Done => {
                nodes.listed(round, networks, news);
                pods.set_zones(nodes, None);
                self.done(Kind::Nodes);
            }
        }
        Ok(())
    }

    fn owner(&mut self, kind: Kind, change: Change<objects::Owned>) -> Result<(), Ignored> {
        let round = self.round(kind);
        match change {
            Change::Begin => self.begin(kind),
            Change::Listed(object) | Change::Applied(object) => self.owned(kind, &object.metadata, round)?,
            Change::Deleted(object) => self.owners.delete(&object.metadata),
            Change::Done => {
                self.owners.listed(kind, round);
                self.done(kind);
            }
        }
        Ok(())
    }

    fn owned(&mut self, kind: Kind, metadata: &Metadata, round: u32) -> Result<(), Ignored> {
        if let Some((uid, workload, is_changed)) =
            self.owners.apply(kind, metadata, &mut self.strings, round)?
        {
            self.pods.made(uid, &workload, is_changed);
        }
        Ok(())
    }

    /// Until when it is worth waiting to hear of a pod that was there `since` then; absent if that has passed.
    pub fn patience(&self, since: Duration, view: View) -> Option<Duration> {
        self.view(Kind::Pods, view).patience(since)
    }

    /// Whose the cgroup is: exact, at any time.
    pub fn local(&self, place: &Place) -> Option<Identity> {
        let uid = self.pods.of_cgroup(place.pod)?;
        let (pod, in_host_network) = self.pods.get(uid)?;
        let container = place.container.and_then(|id| self.pods.container(uid, id));
        Some(Identity {
            place: Some(*place),
            pod: Some(Arc::clone(pod)),
            container: container.cloned(),
            service: None,
            node: pod.node.clone().filter(|_| in_host_network),
        })
    }

    /// The Service that a pod's end is of: absent if there is none, or several, or another may be that there was no room for.
    pub fn service_of(&self, pod: &Pod, end: SocketAddr, at: Duration) -> Option<Arc<Service>> {
        if !self.is_whole(Kind::EndpointSlices) {
            return None;
        }
        self.services.of_pod((pod.uid, &pod.namespace), end.ip().to_canonical(), end.port(), at).cloned()
    }

    /// Who had the address `at` that moment. Port 0 says nothing: it is for ends that call, whose port is no Service's.
    pub fn remote(&self, address: SocketAddr, at: Duration, view: View) -> Found<Identity> {
        let (address, port) = (address.ip().to_canonical(), address.port());
        let pods = self.view(Kind::Pods, view);
        let found = self.pods.find(address, at, pods);
        match found {
            // What is asked nearly always.
            Some(Found::Held(uid)) => {
                return self.of_pod(uid, address, port, at).map_or(Found::Nobody, Found::Held);
            }
            Some(found @ (Found::Stale(_) | Found::Several | Found::Early(_, Some(_)))) => {
                return found.and_then(|uid| self.of_pod(uid, address, port, at));
            }
            Some(Found::Early(_, None) | Found::Nobody) | None => {}
        }
        if let Some(other) = self.beside_pods(address, port, at, view) {
            return other;
        }
        match found {
            Some(found) => found.and_then(|_| None),
            None if self.may_be_pods(address) => addresses::unheard_of(at, pods),
            None => Found::Nobody,
        }
    }

    /// Whether pods may have the address; all may be theirs before any pod is known.
    pub fn may_be_pods(&self, address: IpAddr) -> bool {
        !self.is_listed(Kind::Pods) || self.networks.hold(address.to_canonical())
    }

    /// Whether an address that is nobody's is outside of the cluster. Pods of a network that was not heard of yet have private
    /// addresses (RFC 1918, RFC 6598, RFC 4193): where nobody says which networks pods have, such an address is not said to be outside.
    pub fn is_outside(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        let are_listed = [Kind::Pods, Kind::Services, Kind::Nodes]
            .into_iter()
            .all(|kind| self.is_listed(kind) && self.is_whole(kind));
        let are_told = || !self.config.networks.is_empty() || self.nodes.tell_networks();
        are_listed && !self.may_be_pods(address) && (!is_private(address) || are_told())
    }

    fn of_pod(&self, uid: PodUid, address: IpAddr, port: u16, at: Duration) -> Option<Identity> {
        let (pod, in_host_network) = self.pods.get(uid)?;
        Some(Identity {
            place: None,
            pod: Some(Arc::clone(pod)),
            container: None,
            service: if port == 0 { None } else { self.service_of(pod, (address, port).into(), at) },
            node: if in_host_network { pod.node.clone() } else { None },
        })
    }

    fn view(&self, kind: Kind, view: View) -> View {
        let lost = self.lost[kind as usize].unwrap_or(view.contact);
        View { contact: view.contact.min(lost), ..view }
    }

    /// Forgets what was gone for long at `now`. To be called every few seconds.
    pub fn forget(&mut self, now: Duration) {
        self.pods.forget(now, &mut self.networks);
        self.services.forget(now);
        self.nodes.forget(now);
        self.strings.forget();
    }

    /// What was counted, and what is held.
    pub fn stats(&self) -> Stats {
        let count = |kind| match kind {
            Kind::Pods => self.pods.count(),
            Kind::Services => self.services.count(),
            Kind::EndpointSlices => self.services.count_slices(),
            Kind::Nodes => self.nodes.count(),
            Kind::ReplicaSets | Kind::Jobs => self.owners.count(kind),
        };
        Stats {
            objects: Kind::ALL.map(|kind| count(kind) as u64),
            ignored: self.ignored,
            forgotten: self.pods.forgotten() + self.services.forgotten() + self.nodes.forgotten(),
            long_values: self.pods.long_values(),
            bytes: self.bytes() as u64,
        }
    }

    fn bytes(&self) -> usize {
        self.pods.bytes()
            + self.services.bytes()
            + self.nodes.bytes()
            + self.owners.bytes()
            + self.networks.bytes()
            + self.strings.bytes()
    }
}

/// Bytes by which a table grows with the next entry.
fn growth<K, V, S>(table: &HashMap<K, V, S>) -> usize {
    if table.len() < table.capacity() { 0 } else { table.capacity().max(4) * (size_of::<(K, V)>() + 1) }
}

fn check_name(namespace: &str, name: &str) -> Result<(), Ignored> {
    let is_name = |text: &str| !text.is_empty() && text.len() <= MAX_NAME;
    if is_name(namespace) && is_name(name) { Ok(()) } else { Err(Ignored::Name) }
}

/// An address that somebody can have.
fn parse_address(text: &str) -> Option<IpAddr> {
    let address = text.parse::<IpAddr>().ok()?.to_canonical();
    (!address.is_unspecified() && !address.is_loopback()).then_some(address)
}

fn is_private(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => {
            let [first, second, ..] = address.octets();
            address.is_private() || first == 100 && second & 0xc0 == 64
        }
        IpAddr::V6(address) => address.is_unique_local(),
    }
}
