//! How many connections are served at once, and whose. Whoever reaches the listener may hold every place but a few: these are for
//! connections of this machine itself, so that kubelet is always answered whether the agent lives.

use std::{net::IpAddr, sync::Arc};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Connections that a listener serves at once; a scraper needs one.
pub const MAX_CONNECTIONS: usize = 16;
/// And beside these so many of this machine: two probes of kubelet, and who looks for what is wrong.
pub const MAX_LOCAL_CONNECTIONS: usize = 4;

/// The places of a listener.
pub(super) struct Places {
    any: Arc<Semaphore>,
    local: Arc<Semaphore>,
}

impl Default for Places {
    fn default() -> Self {
        Self {
            any: Arc::new(Semaphore::new(MAX_CONNECTIONS)),
            local: Arc::new(Semaphore::new(MAX_LOCAL_CONNECTIONS)),
        }
    }
}

impl Places {
    /// One for a connection of `peer` to our address `own`, as long as it is kept; absent if there is none left.
    pub(super) fn take(&self, peer: IpAddr, own: IpAddr) -> Option<OwnedSemaphorePermit> {
        // Who asks a node's address on that node has it, too.
        let is_local = peer.to_canonical().is_loopback() || peer == own;
        let take = |places: &Arc<Semaphore>| Arc::clone(places).try_acquire_owned().ok();
        take(&self.any).or_else(|| is_local.then(|| take(&self.local)).flatten())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_places_are_for_this_machine() {
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        let (node, pod) = (ip("10.0.0.1"), ip("10.244.0.7"));
        for (peer, own, is_local) in [
            (pod, node, false),
            (ip("10.0.0.2"), node, false),
            (node, node, true),
            (ip("127.0.0.1"), ip("127.0.0.1"), true),
            (ip("::1"), ip("::1"), true),
            (ip("::ffff:127.0.0.1"), ip("::ffff:127.0.0.1"), true),
            (ip("::ffff:10.0.0.1"), ip("::ffff:10.0.0.1"), true),
            (ip("::ffff:10.244.0.7"), ip("::ffff:10.0.0.1"), false),
        ] {
            let places = Places::default();
            let mut held: Vec<_> = (0..MAX_CONNECTIONS).filter_map(|_| places.take(pod, node)).collect();
            assert_eq!(held.len(), MAX_CONNECTIONS);
            held.extend((0..MAX_LOCAL_CONNECTIONS).filter_map(|_| places.take(peer, own)));
            let local = if is_local { MAX_LOCAL_CONNECTIONS } else { 0 };
            assert_eq!(held.len(), MAX_CONNECTIONS + local, "{peer} {own}");
            assert!(places.take(peer, own).is_none(), "{peer} {own}: one past the limit");
            drop(held.remove(0));
            assert!(places.take(pod, node).is_some(), "a place is free again");
        }
    }
}
