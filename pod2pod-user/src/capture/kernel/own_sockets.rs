//! The agent's own sockets, which the kernel side refuses: an agent that saw what it sends would send that too.
//!
//! Holds cookies only; who opens a socket registers it before it connects, and forgets it after it closed.

use std::{
    io,
    os::fd::AsFd,
    sync::{Arc, Mutex, PoisonError, atomic},
};

use aya::maps::{HashMap, MapData};
use nix::sys::socket::getsockopt;

/// Registers sockets. Cheap to clone, may be sent to other threads.
#[derive(Clone)]
pub struct OwnSockets {
    map: Arc<Mutex<HashMap<MapData, u64, u8>>>,
    refused: Arc<atomic::AtomicU64>,
}

mod option {
    use nix::{getsockopt_impl, sockopt_impl};

    sockopt_impl!(
        /// SO_COOKIE (socket(7)): the name of a socket, never used twice on a host.
        Cookie,
        GetOnly,
        libc::SOL_SOCKET,
        libc::SO_COOKIE,
        u64
    );
}

impl OwnSockets {
    pub(super) fn new(map: HashMap<MapData, u64, u8>) -> Self {
        Self { map: Arc::new(Mutex::new(map)), refused: Arc::default() }
    }

    /// Keeps a socket out of the capture. For a listener that holds for the connections that it accepts.
    ///
    /// The table holds [`pod2pod_common::limits::MAX_OWN_SOCKETS`]; what it refuses is counted, and costs the kernel the
    /// look at one more connection.
    pub fn register(&self, cookie: u64) {
        if self.lock().insert(cookie, 1, 0).is_err() {
            self.refused.fetch_add(1, atomic::Ordering::Relaxed);
        }
    }

    /// Registers an open socket, and says what its cookie is.
    ///
    /// # Errors
    /// It is not a socket.
    pub fn register_socket(&self, socket: &impl AsFd) -> io::Result<u64> {
        let cookie = cookie(socket)?;
        self.register(cookie);
        Ok(cookie)
    }

    /// Frees the place of a closed socket.
    pub fn forget(&self, cookie: u64) {
        // It may have been refused.
        let _ = self.lock().remove(&cookie);
    }

    /// Sockets that the table had no place for.
    pub fn refused(&self) -> u64 {
        self.refused.load(atomic::Ordering::Relaxed)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<MapData, u64, u8>> {
        self.map.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The kernel's name of a socket.
///
/// # Errors
/// It is not a socket.
pub fn cookie(socket: &impl AsFd) -> io::Result<u64> {
    Ok(getsockopt(socket, option::Cookie)?)
}

#[cfg(test)]
mod tests {
    use std::{fs::File, net::TcpListener};

    use super::*;

    #[test]
    fn every_socket_has_a_cookie_of_its_own() {
        let sockets = [TcpListener::bind("127.0.0.1:0").unwrap(), TcpListener::bind("127.0.0.1:0").unwrap()];
        let cookies = sockets.each_ref().map(|socket| cookie(socket).unwrap());
        assert_ne!(cookies[0], 0);
        assert_ne!(cookies[0], cookies[1]);
        assert_eq!(cookie(&sockets[0]).unwrap(), cookies[0]);
        assert!(cookie(&File::open("/dev/null").unwrap()).is_err());
    }
}
