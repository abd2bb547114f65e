//! What Services are called by besides their own addresses: external addresses, those of load balancers, ports of every node.
//!
//! Each is an address with a port: several Services may share a load balancer's address, and that may be a node's own.

use std::{net::IpAddr, sync::Arc, time::Duration};

use super::parse_address;
use crate::kubernetes::{
    addresses::{Addresses, Found, News, View},
    identity::Service,
    objects,
};

/// An address with a port; without the address, that port of every node.
pub(super) type End = (Option<IpAddr>, u16);

/// Such ends of one Service at most: a dozen addresses with a dozen ports, and as many ports of nodes. With more it is not known whose
/// the rest are, and the Service counts as one that there was no room for.
pub const MAX_CALLED: usize = 256;

/// All of them.
#[derive(Clone, Debug, Default)]
pub(super) struct Called(Addresses<Arc<Service>, End>);

impl Called {
    /// `service` has the ends `now` and no others, of which it had those of `before`.
    pub(super) fn set(&mut self, service: &Arc<Service>, before: &[End], now: &[End], news: News) {
        for left in before.iter().filter(|end| !now.contains(end)) {
            self.0.ended(*left, service, news);
        }
        for end in now {
            self.0.claim(*end, Arc::clone(service), news);
        }
    }

    /// Who is called by it; absent if nobody was known to be then.
    pub(super) fn find(&self, end: End, at: Duration, view: View) -> Option<Found<Arc<Service>>> {
        self.0
            .find_known(end, at, view)
            .filter(|found| !matches!(found, Found::Nobody | Found::Early(_, None)))
    }

    pub(super) fn heard(&mut self, news: News) {
        self.0.heard(news);
    }

    pub(super) fn forget(&mut self, now: Duration) {
        self.0.forget(now, |_| ());
    }

    pub(super) fn forgotten(&self) -> u64 {
        self.0.forgotten()
    }

    pub(super) fn growth(&self) -> usize {
        self.0.growth()
    }

    pub(super) fn bytes(&self) -> usize {
        self.0.bytes()
    }
}

/// The ends of a Service, and whether these are all. Where nothing new is taken in, those of `known` only.
pub(super) fn ends(service: &objects::Service, known: Option<&[End]>) -> (Box<[End]>, bool) {
    let objects::Service { spec, status, .. } = service;
    let ingress = status.load_balancer.ingress.iter().map(|ingress| &ingress.ip);
    let addresses = spec.external_ips.iter().chain(ingress).filter_map(|text| parse_address(text));
    let ports = || spec.ports.iter().filter(|port| super::services::is_tcp(port));
    let of_address = |address| ports().filter_map(move |port| Some((Some(address), port.port?)));
    let of_nodes = ports().filter_map(|port| Some((None, port.node_port.filter(|port| *port != 0)?)));
    let mut ends = Vec::new();
    for end in addresses.flat_map(of_address).chain(of_nodes) {
        if ends.contains(&end) {
            continue;
        }
        if ends.len() >= MAX_CALLED {
            return (ends.into_boxed_slice(), false);
        }
        ends.push(end);
    }
    let all = ends.len();
    if let Some(known) = known {
        ends.retain(|end| known.contains(end));
    }
    let is_whole = ends.len() == all;
    (ends.into_boxed_slice(), is_whole)
}
