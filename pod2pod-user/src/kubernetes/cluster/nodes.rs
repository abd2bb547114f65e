//! Nodes: their own addresses, the networks of their pods, their zones.

use std::{net::IpAddr, sync::Arc, time::Duration};

use hashbrown::HashMap;
use smallvec::SmallVec;

use super::{
    Ignored, check_name, growth,
    networks::{Network, Networks},
    parse_address,
    strings::Strings,
};
use crate::kubernetes::{
    addresses::{Addresses, Found, News, View},
    objects,
};

/// Label with the zone.
const ZONE: &str = "topology.kubernetes.io/zone";
/// Nodes that are known at most; 5,000 is what a cluster is said to bear.
pub const MAX_NODES: usize = 10_000;

#[derive(Clone, Debug, Default)]
struct Entry {
    addresses: SmallVec<[IpAddr; 2]>,
    networks: SmallVec<[Network; 1]>,
    zone: Option<Arc<str>>,
    round: u32,
}

/// All of them.
#[derive(Clone, Debug, Default)]
pub(super) struct Nodes {
    entries: HashMap<Arc<str>, Entry, foldhash::fast::RandomState>,
    addresses: Addresses<Arc<str>>,
    /// Nothing new is taken in.
    pub(super) is_full: bool,
}

impl Nodes {
    /// Whether any says which network its pods have.
    pub(super) fn tell_networks(&self) -> bool {
        self.entries.values().any(|entry| !entry.networks.is_empty())
    }

    /// The node, if its zone is another one from now on.
    pub(super) fn apply(
        &mut self,
        object: &objects::Node,
        strings: &mut Strings,
        networks: &mut Networks,
        (round, news): (u32, News),
    ) -> Result<Option<Arc<str>>, Ignored> {
        let objects::Node { metadata, spec, status } = object;
        check_name("-", &metadata.name)?;
        let is_full = self.is_full || self.entries.len() >= MAX_NODES;
        if is_full && !self.entries.contains_key(metadata.name.as_str()) {
            return Err(Ignored::Room);
        }
        let name = strings.share(&metadata.name);
        let mut entry = Entry { round, ..Entry::default() };
        for address in status.addresses.iter().filter_map(|address| parse_address(&address.address)) {
            if !entry.addresses.contains(&address) {
                entry.addresses.push(address);
            }
        }
        for network in spec.pod_cidrs.iter().chain([&spec.pod_cidr]).filter_map(|text| Network::parse(text)) {
            if !entry.networks.contains(&network) {
                entry.networks.push(network);
            }
        }
        let zone = metadata.labels.get(ZONE).filter(|zone| !zone.is_empty());
        entry.zone = zone.map(|zone| strings.share(zone));
        entry.networks.iter().for_each(|network| networks.add(*network));
        for address in &entry.addresses {
            self.addresses.claim(*address, Arc::clone(&name), news);
        }
        let zone = entry.zone.clone();
        let last = self.entries.insert(Arc::clone(&name), entry.clone()).unwrap_or_default();
        last.networks.iter().for_each(|network| networks.remove(*network));
        for left in last.addresses.iter().filter(|address| !entry.addresses.contains(address)) {
            self.addresses.release(*left, &name, news);
        }
        Ok((last.zone != zone).then_some(name))
    }

    pub(super) fn delete(&mut self, name: &str, networks: &mut Networks, news: News) {
        let Some((name, entry)) = self.entries.remove_entry(name) else { return };
        entry.networks.iter().for_each(|network| networks.remove(*network));
        for address in &entry.addresses {
            self.addresses.release(*address, &name, news);
        }
    }

    pub(super) fn listed(&mut self, round: u32, networks: &mut Networks, news: News) {
        self.addresses.heard(news);
        let gone = self.entries.iter().filter(|(_, entry)| entry.round != round);
        for name in gone.map(|(name, _)| Arc::clone(name)).collect::<Vec<_>>() {
            self.delete(&name, networks, news);
        }
    }

    pub(super) fn zone(&self, node: &str) -> Option<Arc<str>> {
        self.entries.get(node)?.zone.clone()
    }

    /// Whose own address it is; absent if it is not known to be any node's.
    pub(super) fn find(&self, address: IpAddr, at: Duration, view: View) -> Option<Found<Arc<str>>> {
        self.addresses.find_known(address, at, view)
    }

    pub(super) fn forget(&mut self, now: Duration) {
        self.addresses.forget(now, |_| ());
    }

    pub(super) fn count(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn forgotten(&self) -> u64 {
        self.addresses.forgotten()
    }

    /// Bytes by which tables grow with the next node.
    pub(super) fn growth(&self) -> usize {
        growth(&self.entries) + self.addresses.growth()
    }

    pub(super) fn bytes(&self) -> usize {
        self.entries.capacity() * (size_of::<(Arc<str>, Entry)>() + 1) + self.addresses.bytes()
    }
}
