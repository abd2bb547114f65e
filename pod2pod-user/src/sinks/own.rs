//! The agent's own connections: their sockets are refused in the kernel, their peers' view is dropped by address tuple.

use std::{
    collections::{HashSet, VecDeque},
    fmt,
    net::SocketAddr,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

/// Tuples remembered: those of connections closed last too, because their records come after they closed. A sink keeps
/// one connection and a scraper opens one every few seconds.
pub const MAX_OWN_TUPLES: usize = 1024;

/// What the kernel is told of a socket: its cookie.
pub type CookieHook = Box<dyn Fn(u64) + Send + Sync>;

/// Own connections, shared by sinks and the admin server (which add) and the worker (which reads).
#[derive(Default)]
pub struct OwnConnections {
    tuples: Mutex<VecDeque<(SocketAddr, SocketAddr)>>,
    version: AtomicU64,
    register: Option<CookieHook>,
    forget: Option<CookieHook>,
}

impl OwnConnections {
    /// Connections whose sockets are told to the kernel by `register` and `forget`.
    pub fn new(register: CookieHook, forget: CookieHook) -> Self {
        Self { register: Some(register), forget: Some(forget), ..Self::default() }
    }

    /// A socket of ours, before it connects or as soon as it was accepted.
    pub fn opened(&self, cookie: u64) {
        if let Some(register) = &self.register {
            register(cookie);
        }
    }

    /// Its socket is closed.
    pub fn closed(&self, cookie: u64) {
        if let Some(forget) = &self.forget {
            forget(cookie);
        }
    }

    /// It is connected: the oldest tuple makes room if there are too many.
    pub fn connected(&self, client: SocketAddr, server: SocketAddr) {
        let mut tuples = self.lock();
        if tuples.len() == MAX_OWN_TUPLES {
            tuples.pop_front();
        }
        tuples.push_back((client, server));
        self.version.fetch_add(1, Ordering::Release);
    }

    /// Changes with every new tuple.
    pub fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    /// The tuples (client, server).
    pub fn tuples(&self) -> HashSet<(SocketAddr, SocketAddr)> {
        self.lock().iter().copied().collect()
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<(SocketAddr, SocketAddr)>> {
        self.tuples.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for OwnConnections {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("OwnConnections").field("version", &self.version()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_tuple_makes_room_one_past_the_limit() {
        let own = OwnConnections::default();
        let end = |port: usize| SocketAddr::from(([127, 0, 0, 1], u16::try_from(port).unwrap()));
        for port in 1..=MAX_OWN_TUPLES {
            own.connected(end(port), end(80));
        }
        assert!(own.tuples().contains(&(end(1), end(80))));
        own.connected(end(MAX_OWN_TUPLES + 1), end(80));
        let tuples = own.tuples();
        assert_eq!((tuples.len(), own.version()), (MAX_OWN_TUPLES, MAX_OWN_TUPLES as u64 + 1));
        assert!(!tuples.contains(&(end(1), end(80))));
        assert!(tuples.contains(&(end(MAX_OWN_TUPLES + 1), end(80))));
    }

    #[test]
    fn the_kernel_is_told_of_sockets() {
        let seen = std::sync::Arc::<Mutex<Vec<(u64, bool)>>>::default();
        let (opened, closed) = (std::sync::Arc::clone(&seen), std::sync::Arc::clone(&seen));
        let own = OwnConnections::new(
            Box::new(move |cookie| opened.lock().unwrap().push((cookie, true))),
            Box::new(move |cookie| closed.lock().unwrap().push((cookie, false))),
        );
        own.opened(7);
        own.closed(7);
        assert_eq!(*seen.lock().unwrap(), [(7, true), (7, false)]);
    }
}
