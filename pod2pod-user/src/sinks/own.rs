//! The agent's own connections: their sockets are refused in the kernel, their peers' view is dropped by address tuple.

use std::{
    collections::{HashSet, VecDeque},
    fmt, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use super::own_stream::OwnStream;

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

    /// A socket of ours that is bound to `port` is about to connect: an attempt that fails has no other tuple.
    pub fn connecting(&self, port: u16, server: SocketAddr) {
        let any = match server {
            SocketAddr::V4(_) => SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)),
            SocketAddr::V6(_) => SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)),
        };
        self.connected(any, server);
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

/// A socket that the kernel was told of; it is told again when the socket goes.
#[derive(Debug)]
pub struct OwnSocket {
    cookie: Option<u64>,
    own: Arc<OwnConnections>,
}

impl OwnSocket {
    /// Connects to `address`; to be kept as long as the stream. All is told before the first packet leaves.
    ///
    /// # Errors
    /// As of the system calls.
    pub async fn connect(address: SocketAddr, own: &Arc<OwnConnections>) -> io::Result<(OwnStream, Self)> {
        let (socket, any): (_, IpAddr) = match address {
            SocketAddr::V4(_) => (tokio::net::TcpSocket::new_v4()?, Ipv4Addr::UNSPECIFIED.into()),
            SocketAddr::V6(_) => (tokio::net::TcpSocket::new_v6()?, Ipv6Addr::UNSPECIFIED.into()),
        };
        let cookie = rustix::net::sockopt::socket_cookie(&socket).ok();
        cookie.iter().for_each(|cookie| own.opened(*cookie));
        let own_socket = Self { cookie, own: Arc::clone(own) };
        socket.bind(SocketAddr::new(any, 0))?;
        own.connecting(socket.local_addr()?.port(), address);
        let stream = socket.connect(address).await?;
        own.connected(stream.local_addr()?, stream.peer_addr()?);
        // A hint: what is written is whole.
        let _ = stream.set_nodelay(true);
        Ok((OwnStream::new(stream), own_socket))
    }

    /// A socket for datagrams to `address`; to be kept as long as that.
    ///
    /// # Errors
    /// As of the system calls.
    pub async fn connect_datagrams(
        address: SocketAddr,
        own: &Arc<OwnConnections>,
    ) -> io::Result<(tokio::net::UdpSocket, Self)> {
        let any: IpAddr = match address {
            SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        let socket = tokio::net::UdpSocket::bind(SocketAddr::new(any, 0)).await?;
        let cookie = rustix::net::sockopt::socket_cookie(&socket).ok();
        cookie.iter().for_each(|cookie| own.opened(*cookie));
        let own_socket = Self { cookie, own: Arc::clone(own) };
        socket.connect(address).await?;
        own.connected(socket.local_addr()?, address);
        Ok((socket, own_socket))
    }
}

impl Drop for OwnSocket {
    fn drop(&mut self) {
        if let Some(cookie) = self.cookie {
            self.own.closed(cookie);
        }
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
        let seen = Arc::<Mutex<Vec<(u64, bool)>>>::default();
        let (opened, closed) = (Arc::clone(&seen), Arc::clone(&seen));
        let own = OwnConnections::new(
            Box::new(move |cookie| opened.lock().unwrap().push((cookie, true))),
            Box::new(move |cookie| closed.lock().unwrap().push((cookie, false))),
        );
        own.opened(7);
        own.closed(7);
        assert_eq!(*seen.lock().unwrap(), [(7, true), (7, false)]);
    }
}
