//! One poll, as those who join connections need it: its closed entries, what it proved, and what it says of a connection in
//! question. It does not change.

use std::{net::SocketAddr, time::Duration};

use hashbrown::HashMap;

use super::{
    End, Reuse, Tuple, Verdict,
    closed::{Closed, Old},
    kernel::Kernel,
    met::Met,
    parse::Protocol,
    services::{Services, Standing},
};

/// Time left is told in whole seconds, rounded down.
const SECOND: Duration = Duration::from_secs(1);

/// One poll, as those who join need it.
#[derive(Debug, Default)]
pub struct Look {
    /// When the poll before it began.
    pub from: Duration,
    /// When it began and ended.
    pub begin: Duration,
    /// See there.
    pub end: Duration,
    /// From its beginning to that of the next one.
    pub period: Duration,
    /// Its closed entries.
    pub closed: Closed,
    /// What it proved of connections of TCP.
    pub reuses: Reuses,
    /// The services then.
    pub services: Option<Services>,
    /// What the kernel was set to.
    pub kernel: Kernel,
}

/// Client, and where it speaks to, or comes out.
pub type Key = (SocketAddr, SocketAddr);

/// Reuses by their connection.
#[derive(Debug, Default)]
pub struct Reuses(pub(super) HashMap<Key, Reuse, foldhash::fast::RandomState>);

impl Reuses {
    /// Of these, as many as `max`.
    pub fn new(reuses: &[Reuse], max: usize) -> Self {
        let tcp = reuses.iter().filter(|reuse| reuse.tuple.protocol == Protocol::TCP).take(max);
        Self(tcp.flat_map(|reuse| keys(&reuse.tuple, reuse.now.server).map(|key| (key, *reuse))).collect())
    }
}

/// By the virtual address, and by the real server.
pub(super) fn keys(tuple: &Tuple, server: End) -> [Key; 2] {
    [(tuple.client.into(), tuple.service.into()), (tuple.client.into(), server.into())]
}

/// What a poll says of a connection in question.
pub(super) enum Settled {
    /// Nothing yet: the poll began before the SYN.
    Open,
    /// It met no old entry.
    Cleared,
    /// Nothing, and no later one will.
    Unknown,
    /// It did.
    Met(Met),
}

impl Look {
    /// What a SYN at `time` to a closed entry would have met, if that was there still; and whether the entry may be its own: what
    /// begins and ends while the table is read is in it.
    pub(super) fn in_question(&self, key: Key, time: Duration) -> Option<(Met, bool)> {
        // What came before the poll is in what it saw.
        let elapsed = time.checked_sub(self.begin)?;
        let old = self.closed.find(key.0, key.1)?;
        let may_be_own = time <= self.end && self.last_packet(&old).is_none_or(|last| last >= time);
        let left =
            Duration::from_secs(old.sight.expires.into()) + SECOND + self.end.saturating_sub(self.begin);
        (elapsed <= left).then(|| (Met::at_syn(&old, self, time), may_be_own))
    }

    /// When an entry's last packet came at the latest, if its time-out is known.
    fn last_packet(&self, old: &Old) -> Option<Duration> {
        let timeout = self.kernel.timeouts.known(old.sight.state)?;
        let age = Duration::from_secs(timeout.saturating_sub(old.sight.expires).into());
        Some((self.end + SECOND).saturating_sub(age))
    }

    pub(super) fn standing(&self, old: &Old) -> Standing {
        let services = self.services.as_ref();
        services.map_or(Standing::Unknown, |services| services.standing(&old.tuple, old.sight.server))
    }

    /// What it says of a connection that may have met `met`, and whose SYNs came from `first` to `last`.
    pub(super) fn settle(&self, key: Key, met: Met, first: Duration, last: Duration) -> Settled {
        if let Some(reuse) = self.reuses.0.get(&key).filter(|_| first <= self.end) {
            return Settled::Met(Met::of(reuse));
        }
        if last >= self.begin {
            return Settled::Open;
        }
        let Some(old) = self.closed.find(key.0, key.1) else { return Settled::Unknown };
        if old.sight.server != met.before.server {
            let met = Met { server: old.sight.server, ..met };
            return Settled::Met(met.with_verdict(Verdict::Rescheduled, &self.kernel));
        }
        let Some(last_packet) = self.last_packet(&old) else { return Settled::Unknown };
        // As for any reuse, how the server stands is what this poll says: in an update the SYN may come before that.
        let now = self.standing(&old);
        let standing = if now == Standing::Unknown { met.standing } else { now };
        if last_packet >= first {
            return Settled::Met(Met { standing, ..met }.with_verdict(Verdict::Reused, &self.kernel));
        }
        // The entry was there all the time, and no packet came to it.
        let is_absent = [met.standing, standing].contains(&Standing::Absent);
        if is_absent && self.kernel.expire_nodest_conn == Some(0) {
            let met = Met { standing: Standing::Absent, ..met };
            return Settled::Met(met.with_verdict(Verdict::Dropped, &self.kernel));
        }
        Settled::Cleared
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ipvs::{Sight, services::Limits, situation::Severity, state::State};

    const CLIENT: End = (std::net::IpAddr::V4(std::net::Ipv4Addr::new(10, 244, 1, 2)), 40_000);
    const SERVICE: End = (std::net::IpAddr::V4(std::net::Ipv4Addr::new(10, 96, 0, 10)), 80);
    const SERVER: End = (std::net::IpAddr::V4(std::net::Ipv4Addr::new(10, 244, 2, 3)), 8080);

    /// A poll at `at` that has the entry with so much left, and the server with this weight if there is `ip_vs`.
    fn look(at: u64, expires: u32, weight: Option<u32>) -> Look {
        let mut closed = Closed::default();
        let tuple = Tuple { protocol: Protocol::TCP, client: CLIENT, service: SERVICE };
        closed.push(&tuple, Sight { server: SERVER, state: State::TimeWait, expires });
        let services = weight.map(|weight| {
            let mut services = Services::new(Limits::default());
            let server = format!("  -> 0AF40203:1F90      Masq    {weight}      0          1         ");
            let header = ["IP Virtual Server version 1.2.1 (size=4096)", "", ""];
            let lines = header.into_iter().chain(["TCP  0A60000A:0050 rr  ", &server]);
            lines.for_each(|line| services.line(line.as_bytes()));
            services
        });
        let at = Duration::from_secs(at);
        Look { begin: at, end: at, closed, services, ..Look::default() }
    }

    #[test]
    fn an_entry_may_be_its_own_if_it_is_that_young() {
        let look = |expires| {
            let mut look = look(10, expires, Some(1));
            look.end += Duration::from_millis(100);
            look
        };
        for (expires, syn, may_be_own) in [
            // Read before it, or while it was on its way; the last packet came up to a second ago.
            (119, 9_999, None),
            (119, 10_000, Some(true)),
            (119, 10_100, Some(true)),
            (119, 10_101, Some(false)),
            // A second older.
            (118, 10_000, Some(false)),
        ] {
            let key = (CLIENT.into(), SERVICE.into());
            let found = look(expires).in_question(key, Duration::from_millis(syn));
            assert_eq!(found.map(|(_, may_be_own)| may_be_own), may_be_own, "{expires} {syn}");
        }
    }

    #[test]
    fn a_server_stands_as_the_poll_after_the_syn_has_it() {
        let (key, syn) = ((CLIENT.into(), SERVICE.into()), Duration::from_secs(12));
        for (before, after, expected, severity) in [
            (Some(1), Some(0), Standing::Weight(0), Severity::Critical),
            (Some(0), Some(1), Standing::Weight(1), Severity::Info),
            (Some(0), None, Standing::Weight(0), Severity::Critical),
            (None, Some(0), Standing::Weight(0), Severity::Critical),
        ] {
            let (met, _) = look(10, 100, before).in_question(key, syn).unwrap();
            // Its last packet came 2 s before this poll.
            let settled = look(15, 118, after).settle(key, met, syn, syn);
            let Settled::Met(met) = settled else { panic!("{before:?} {after:?}") };
            let told = (met.verdict, met.standing, met.meaning.map(|(_, severity)| severity));
            assert_eq!(told, (Some(Verdict::Reused), expected, Some(severity)), "{before:?} {after:?}");
        }
    }
}
