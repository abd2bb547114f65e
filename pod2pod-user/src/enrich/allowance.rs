//! How many failed connection attempts get a record: all but a flood.
//!
//! A port scan, or whoever tries a closed port again and again, fails as often as it likes, at no cost; its records must not push
//! out those of exchanges. So each client's address has an allowance, and all together have one, which holds where addresses are
//! forged. What is past it is left out and counted; metrics count every attempt. Its clock is that of the attempts' ends, which do not come in order: it stands
//! still until they pass the latest one.

use std::{hash::BuildHasher as _, net::IpAddr, time::Duration};

use crate::capture::KernelInstant;

/// Records of failed attempts that one client may cause at once, in one worker: a pool of connections that fails as a whole is told.
pub const MAX_FAILED_AT_ONCE: u32 = 100;
/// After that, one as often as this: enough to see that it goes on, and from whom.
pub const FAILED_INTERVAL: Duration = Duration::from_millis(100);
/// The same for all clients together: every pod of a large node loses a server that it had a few connections to.
pub const MAX_ALL_FAILED_AT_ONCE: u32 = 1_000;
/// See there; 100 a second are 40 KB of JSON.
pub const ALL_FAILED_INTERVAL: Duration = Duration::from_millis(10);

/// Allowances of clients, found by a hash of their address; more clients share some. 8 bytes each.
const SHARES: usize = 512;

/// So many at once, and one an interval after that.
#[derive(Clone, Copy, Debug)]
struct Pace {
    at_once: u32,
    interval: Duration,
}

const OF_CLIENT: Pace = Pace { at_once: MAX_FAILED_AT_ONCE, interval: FAILED_INTERVAL };
const OF_ALL: Pace = Pace { at_once: MAX_ALL_FAILED_AT_ONCE, interval: ALL_FAILED_INTERVAL };

/// When all that was taken would have been due, at one an interval.
#[derive(Clone, Copy, Debug, Default)]
struct Due(KernelInstant);

impl Due {
    /// When it would be after one more, if there may be one at `now`.
    fn after_one(self, now: KernelInstant, pace: Pace) -> Option<Self> {
        let begin = self.0.max(now);
        let has_room = begin.since(now) + pace.interval <= pace.interval * pace.at_once;
        has_room.then(|| Self(begin.plus(pace.interval)))
    }
}

/// What is left to whom.
#[derive(Debug)]
pub(super) struct Allowance {
    /// The latest end.
    now: KernelInstant,
    all: Due,
    shares: Vec<Due>,
}

impl Default for Allowance {
    fn default() -> Self {
        Self { now: KernelInstant::default(), all: Due::default(), shares: vec![Due::default(); SHARES] }
    }
}

impl Allowance {
    /// Whether one more attempt of `client`, which failed at `now`, gets a record; takes it from what is left.
    pub(super) fn take(&mut self, client: IpAddr, now: KernelInstant) -> bool {
        self.now = self.now.max(now);
        let now = self.now;
        let Some(share) = self.shares.get_mut(share_of(client)) else { return false };
        let (Some(own), Some(all)) = (share.after_one(now, OF_CLIENT), self.all.after_one(now, OF_ALL))
        else {
            return false;
        };
        (*share, self.all) = (own, all);
        true
    }
}

/// The same in every run: who shares with whom is no secret, and decides on nothing but which records are left out.
fn share_of(client: IpAddr) -> usize {
    foldhash::fast::FixedState::default().hash_one(client) as usize % SHARES
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, net::Ipv4Addr};

    use super::*;

    fn at(milliseconds: u64) -> KernelInstant {
        KernelInstant::from_nanos(milliseconds * 1_000_000)
    }

    /// Addresses that share nothing.
    fn strangers(count: usize) -> Vec<IpAddr> {
        let mut taken = BTreeSet::new();
        let all = (1..).map(|number| IpAddr::from(Ipv4Addr::from_bits(0x0a00_0000 + number)));
        all.filter(|address| taken.insert(share_of(*address))).take(count).collect()
    }

    /// How many of `count` at `now` get a record.
    fn taken(allowance: &mut Allowance, client: IpAddr, count: u32, now: KernelInstant) -> u32 {
        (0..count).map(|_| u32::from(allowance.take(client, now))).sum()
    }

    #[test]
    fn a_client_has_so_many_at_once_and_then_one_an_interval() {
        let [client, other] = strangers(2)[..] else { panic!() };
        let mut allowance = Allowance::default();
        for (now, tried, expected) in [
            (1000, MAX_FAILED_AT_ONCE - 1, MAX_FAILED_AT_ONCE - 1),
            (1000, 1, 1),
            (1000, 1, 0),
            (1099, 1, 0),
            (1100, 2, 1),
            (1350, 9, 2),
            // All is made up for, and no more than all.
            (60_000, 1000, MAX_FAILED_AT_ONCE),
        ] {
            assert_eq!(taken(&mut allowance, client, tried, at(now)), expected, "{tried} at {now}");
        }
        assert_eq!(taken(&mut allowance, other, 1000, at(60_000)), MAX_FAILED_AT_ONCE, "another client");
    }

    #[test]
    fn all_together_have_so_many() {
        let clients = strangers(200);
        let mut allowance = Allowance::default();
        let mut each = |count, now| -> u32 {
            clients.iter().map(|client| taken(&mut allowance, *client, count, at(now))).sum()
        };
        assert_eq!(each(4, 0) + each(1, 0), MAX_ALL_FAILED_AT_ONCE);
        assert_eq!(each(1, 0), 0, "one past them");
        assert_eq!((each(1, 9), each(1, 10), each(1, 10)), (0, 1, 0));
        // What was refused took nothing of the clients' own.
        assert_eq!(each(1, 10_010), 200);
    }

    #[test]
    fn a_clock_that_goes_back_stands_still() {
        let [client, other] = strangers(2)[..] else { panic!() };
        let mut allowance = Allowance::default();
        assert_eq!(taken(&mut allowance, client, 10, at(100_000)), 10);
        assert_eq!(taken(&mut allowance, client, 1, at(99_999)), 1);
        // An attempt that was open at the end of the source ends with its last SYN, however long ago that was.
        assert_eq!(taken(&mut allowance, client, 1, at(50_000)), 1);
        assert_eq!(taken(&mut allowance, other, 1, at(0)), 1, "the share of all");
        assert_eq!(taken(&mut allowance, client, 1000, at(50_000)), MAX_FAILED_AT_ONCE - 12);
        assert_eq!(taken(&mut allowance, client, 2, at(100_100)), 1);
    }
}
