//! Whose an address is that is no pod's own: a Service's, a node's, that of a pod in the network of its node, of an endpoint that is
//! no pod.

use std::{net::IpAddr, sync::Arc, time::Duration};

use super::Cluster;
use crate::kubernetes::{
    addresses::{Found, View},
    identity::{Identity, Service},
    objects::Kind,
};

impl Cluster {
    /// Absent if it is not known to be anybody's. Port 0 is that of who calls.
    pub(super) fn beside_pods(
        &self,
        address: IpAddr,
        port: u16,
        at: Duration,
        view: View,
    ) -> Option<Found<Identity>> {
        let service = self.services.find(address, port, at, self.view(Kind::Services, view));
        if let Some(found) = service {
            return Some(found.and_then(of_service));
        }
        let node = self.nodes.find(address, at, self.view(Kind::Nodes, view));
        if port != 0 {
            let pod = self.by_port(address, port, at, view);
            let of_node = node.as_ref().filter(|node| **node != Found::Nobody);
            let called = self.called(address, port, of_node, at, view);
            match (pod, called) {
                (Some(pod), None) => return Some(pod),
                (None, Some(called)) => return Some(called.and_then(of_service)),
                (Some(pod), Some(called)) if is_its(&pod, &called) => return Some(pod),
                // Whether packets come to the Service or to the pod's socket depends on rules that are not seen: the node is certain.
                (Some(_), Some(_)) | (None, None) => {}
            }
        }
        let endpoint = self.services.of_address(address, port, at);
        if let Some(found) = node {
            return Some(found.and_then(|node| {
                Some(Identity { node: Some(node), service: endpoint.cloned(), ..Identity::default() })
            }));
        }
        let service = endpoint?;
        Some(Found::Held(Identity { service: Some(Arc::clone(service)), ..Identity::default() }))
    }

    /// The pod in the network of its node that has the port.
    fn by_port(&self, address: IpAddr, port: u16, at: Duration, view: View) -> Option<Found<Identity>> {
        let found = self.pods.find_port(address, port, at, self.view(Kind::EndpointSlices, view))?;
        matches!(found, Found::Held(_) | Found::Stale(_) | Found::Early(_, Some(_)))
            .then(|| found.and_then(|uid| self.of_pod(uid, address, port, at)))
    }

    /// The Service that is called by an address with this port, or by this port of any `node`.
    fn called(
        &self,
        address: IpAddr,
        port: u16,
        node: Option<&Found<Arc<str>>>,
        at: Duration,
        view: View,
    ) -> Option<Found<Arc<Service>>> {
        let view = self.view(Kind::Services, view);
        let of_address = self.services.called((Some(address), port), at, view);
        let found = match (of_address, node) {
            (Some(found), _) => found,
            (None, Some(node)) => through(node, self.services.called((None, port), at, view)?),
            (None, None) => return None,
        };
        // Of a node's address it is certain all the same whose it is.
        Some(found).filter(|found| node.is_none() || *found != Found::Several)
    }
}

/// A Service that is called through a node: known as well as the node is.
fn through(node: &Found<Arc<str>>, service: Found<Arc<Service>>) -> Found<Arc<Service>> {
    match (node, service) {
        (Found::Held(_), service) => service,
        (node, Found::Held(service) | Found::Stale(service) | Found::Early(_, Some(service))) => {
            node.clone().and_then(|_| Some(service))
        }
        (_, service @ (Found::Early(_, None) | Found::Nobody | Found::Several)) => service,
    }
}

fn of_service(service: Arc<Service>) -> Option<Identity> {
    Some(Identity { service: Some(service), ..Identity::default() })
}

/// Whether the pod is an endpoint of the very Service.
fn is_its(pod: &Found<Identity>, service: &Found<Arc<Service>>) -> bool {
    match (pod, service) {
        (Found::Held(pod), Found::Held(service)) => pod.service.as_ref() == Some(service),
        _ => false,
    }
}
