//! Which server a connection was led to, as somebody on this node knows: one table for all workers and for the watch over IPVS, since
//! NAT may lead the two ends of a connection through different workers.
//!
//! It is of buckets of a few places, as that of `views` is: nobody ever waits for a bucket, and nothing is allocated.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::{Mutex, MutexGuard, TryLockError},
};

/// Connections whose server is known at most. A client asks some milliseconds after the server's end was told, and remembers the
/// answer: at 50,000 new connections a second a thousand are between the two. 32 bytes each.
pub const MAX_SERVERS: usize = 2048;
/// Places of a bucket.
const PLACES: usize = 8;
/// Looks at a bucket that another worker has, which it gives back within some dozen instructions unless it is interrupted.
pub const MAX_TRIES: u32 = 200;

/// Who knew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// The server's own end, seen on this node.
    Connection,
    /// A poll of IPVS.
    Ipvs,
}

/// A connection; free if its key is 0.
#[derive(Clone, Copy, Debug)]
struct Place {
    key: u64,
    /// Of those of a bucket the least is the oldest.
    stamp: u32,
    port: u16,
    source: Source,
    address: IpAddr,
}

const FREE: Place = Place {
    key: 0,
    stamp: 0,
    port: 0,
    source: Source::Connection,
    address: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
};

/// On cache lines of its own.
#[derive(Debug)]
#[repr(align(64))]
struct Bucket(Mutex<[Place; PLACES]>);

/// The table.
#[derive(Debug)]
pub(super) struct Servers(Box<[Bucket]>);

/// Another worker was at the place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Busy;

impl Servers {
    /// For `most` connections.
    pub(super) fn new(most: usize) -> Self {
        Self((0..(most / PLACES).max(1)).map(|_| Bucket(Mutex::new([FREE; PLACES]))).collect())
    }

    /// The connection's server is known now. The oldest of its bucket makes room.
    pub(super) fn put(&self, key: u64, server: SocketAddr, source: Source) -> Result<(), Busy> {
        let mut places = self.bucket(key)?;
        let newest = places.iter().map(|place| place.stamp).max().unwrap_or_default();
        // After 2³² of one bucket the oldest are taken for the newest, once.
        let stamp = newest.wrapping_add(1);
        let rank = |place: &&mut Place| (place.key != key, place.key != 0, place.stamp);
        if let Some(place) = places.iter_mut().min_by_key(rank) {
            *place = Place { key, stamp, port: server.port(), source, address: server.ip() };
        }
        Ok(())
    }

    /// The connection's server, if somebody knows it.
    pub(super) fn get(&self, key: u64) -> Result<Option<(SocketAddr, Source)>, Busy> {
        let places = self.bucket(key)?;
        let place = places.iter().find(|place| place.key == key);
        Ok(place.map(|place| (SocketAddr::new(place.address, place.port), place.source)))
    }

    fn bucket(&self, key: u64) -> Result<MutexGuard<'_, [Place; PLACES]>, Busy> {
        let index = usize::try_from(key % self.0.len() as u64).ok();
        let Some(Bucket(bucket)) = index.and_then(|index| self.0.get(index)) else { return Err(Busy) };
        for _ in 0..MAX_TRIES {
            match bucket.try_lock() {
                Ok(places) => return Ok(places),
                Err(TryLockError::Poisoned(places)) => return Ok(places.into_inner()),
                Err(TryLockError::WouldBlock) => std::hint::spin_loop(),
            }
        }
        Err(Busy)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(last: u8) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, last], 8080))
    }

    #[test]
    fn a_connections_server_is_known_to_all() {
        let servers = Servers::new(MAX_SERVERS);
        assert_eq!(servers.get(5), Ok(None));
        servers.put(5, server(1), Source::Connection).unwrap();
        servers.put(6, "[fd00::1]:80".parse().unwrap(), Source::Ipvs).unwrap();
        assert_eq!(servers.get(5), Ok(Some((server(1), Source::Connection))));
        assert_eq!(servers.get(6), Ok(Some(("[fd00::1]:80".parse().unwrap(), Source::Ipvs))));
        // Said again, by another.
        servers.put(5, server(2), Source::Ipvs).unwrap();
        assert_eq!(servers.get(5), Ok(Some((server(2), Source::Ipvs))));
    }

    #[test]
    fn so_many_are_known_and_the_oldest_makes_room() {
        let one = Servers::new(PLACES);
        for (count, known) in [(PLACES as u64, true), (PLACES as u64 + 1, false)] {
            for key in 1..=count {
                one.put(key, server(key as u8), Source::Connection).unwrap();
            }
            assert_eq!(one.get(1).unwrap().is_some(), known, "{count}");
            assert!((2..=count).all(|key| one.get(key) == Ok(Some((server(key as u8), Source::Connection)))));
        }
        assert_eq!(Servers::new(MAX_SERVERS).0.len() * PLACES, MAX_SERVERS);
        assert_eq!((size_of::<Place>(), size_of::<Bucket>()), (32, 320));
    }

    #[test]
    fn nobody_waits_for_another_worker() {
        const { assert!(MAX_TRIES > 0) };
        let servers = Servers::new(PLACES);
        let held = servers.0[0].0.lock().unwrap();
        assert_eq!((servers.put(1, server(1), Source::Ipvs), servers.get(1)), (Err(Busy), Err(Busy)));
        drop(held);
        assert_eq!((servers.put(1, server(1), Source::Ipvs), servers.get(2)), (Ok(()), Ok(None)));
    }
}
