//! Real servers that take no new connections and still have entries: which of them drain, and which never will. Time is an argument.
//!
//! A server that drains is left by its last entry within the longest time-out. One whose closed entries are met by new connections
//! again and again keeps them for as long as its clients come back: that one never drains.

use std::{collections::BTreeMap, time::Duration};

use hashbrown::HashSet;

use super::{
    End, Reuse, Tuple, Verdict,
    parse::{Protocol, Row, services::Matches},
    services::{Services, Standing},
};

/// A closed entry lives two minutes at most. A server that was to drain so long ago and had entries ever since, some of which new
/// connections met, does not.
pub const NEVER_DRAINS: Duration = Duration::from_secs(180);

/// Servers that are followed at most, where nobody asks for fewer: those that drain are few.
pub const MAX_DRAINING: usize = 4096;
/// What one of them takes at most, of the poll under way and of the one before. Bytes.
pub const DRAINING_BYTES: usize = 240;

/// Whether a server drains.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Draining {
    /// It takes new connections.
    No,
    /// Its entries run out.
    Yes,
    /// New connections keep its entries alive.
    Never,
}

impl Draining {
    /// The word in metrics and tables.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::No => "no",
            Self::Yes => "draining",
            Self::Never => "never draining",
        }
    }
}

/// What is known of a server that should drain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Known {
    /// First poll that had it with weight 0, or without its service, and with entries; and since then in every one.
    pub since: Duration,
    /// Last poll that found a new connection at one of its old entries.
    pub refreshed: Option<Duration>,
}

/// Whether a server of which `known` is known drains, at `now`.
pub fn judge(known: Known, now: Duration) -> Draining {
    let is_old = now.saturating_sub(known.since) >= NEVER_DRAINS;
    let is_refreshed = known.refreshed.is_some_and(|refreshed| now.saturating_sub(refreshed) < NEVER_DRAINS);
    if is_old && is_refreshed { Draining::Never } else { Draining::Yes }
}

/// A service, and the address of one of its real servers.
pub type Place = (Matches, End);

/// Servers of a poll that are looked up once, where nobody asks for fewer; of more than these, with each of their entries.
pub const MAX_LOOKED_UP: usize = 16_384;
/// What one of them takes at most, in a table that is being made larger. Bytes.
pub const LOOKED_UP_BYTES: usize = 152;

/// How much is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Servers of a poll that are looked up once.
    pub looked_up: usize,
    /// Servers that are followed.
    pub draining: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { looked_up: MAX_LOOKED_UP, draining: MAX_DRAINING }
    }
}

/// All servers that should drain.
#[derive(Debug, Default)]
pub struct Drains {
    limits: Limits,
    /// Servers of the poll that is under way whose standing is known.
    looked_up: HashSet<(Protocol, End, End), foldhash::fast::RandomState>,
    known: BTreeMap<Place, Known>,
    /// Those of the poll that is under way.
    seen: BTreeMap<Place, ()>,
    now: Duration,
    /// Servers that there was no room for.
    pub left_out: u64,
}

impl Drains {
    /// None yet, and room for so many.
    pub fn with_room(limits: Limits) -> Self {
        Self { limits, ..Self::default() }
    }

    /// There are none any more.
    pub fn clear(&mut self) {
        *self = Self { left_out: self.left_out, ..Self::with_room(self.limits) };
    }

    /// An entry of a poll.
    pub fn row(&mut self, row: &Row<'_>, services: Option<&Services>) {
        let key = (row.tuple.protocol, row.tuple.service, row.server);
        if row.is_template() || self.looked_up.contains(&key) {
            return;
        }
        if self.looked_up.len() < self.limits.looked_up {
            self.looked_up.insert(key);
        }
        let Some(place) = services.and_then(|services| place(services, &row.tuple, row.server)) else {
            return;
        };
        if self.seen.len() < self.limits.draining {
            self.seen.insert(place, ());
        } else if !self.seen.contains_key(&place) {
            self.left_out += 1;
        }
    }

    /// The poll is over: it was at `now`, and proves `reuses`.
    pub fn finish(&mut self, now: Duration, reuses: &[Reuse], services: Option<&Services>) {
        let Self { known, seen, .. } = self;
        self.now = now;
        self.looked_up.clear();
        known.retain(|place, _| seen.contains_key(place));
        for place in std::mem::take(seen).into_keys() {
            known.entry(place).or_insert(Known { since: now, refreshed: None });
        }
        let met = reuses.iter().filter(|reuse| reuse.verdict == Verdict::Reused);
        for reuse in met {
            let place = services.and_then(|services| place(services, &reuse.tuple, reuse.now.server));
            if let Some(known) = place.and_then(|place| known.get_mut(&place)) {
                known.refreshed = Some(now);
            }
        }
    }

    /// Whether a server drains, at the last poll.
    pub fn of(&self, place: &Place) -> Draining {
        self.known.get(place).map_or(Draining::No, |known| judge(*known, self.now))
    }

    /// How many do.
    pub fn count(&self, draining: Draining) -> u64 {
        self.known.values().filter(|known| judge(**known, self.now) == draining).count() as u64
    }
}

/// Where an entry belongs, if its server should drain.
fn place(services: &Services, tuple: &Tuple, server: End) -> Option<Place> {
    match services.standing(tuple, server) {
        Standing::Weight(0) | Standing::Absent => {
            let own = Matches::Address(tuple.protocol, tuple.service);
            Some((services.find(tuple, server).0.copied().unwrap_or(own), server))
        }
        Standing::Weight(_) | Standing::Unknown => None,
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::{Confidence, Sight, kernel::Kernel, situation, state::State},
        *,
    };

    #[test]
    fn a_server_never_drains_if_its_entries_are_met_again_for_three_minutes() {
        let second = Duration::from_secs;
        for (since, refreshed, now, expected) in [
            (0, None, 1000, Draining::Yes),
            (0, Some(179), 179, Draining::Yes),
            (0, Some(100), 180, Draining::Never),
            (0, Some(0), 179, Draining::Yes),
            (0, Some(0), 180, Draining::Yes),
            (0, Some(1), 180, Draining::Never),
            (0, Some(1), 181, Draining::Yes),
            (100, Some(250), 279, Draining::Yes),
            (100, Some(250), 280, Draining::Never),
        ] {
            let known = Known { since: second(since), refreshed: refreshed.map(second) };
            assert_eq!(judge(known, second(now)), expected, "{known:?} {now}");
        }
    }

    const SERVICES: &str = "\
IP Virtual Server version 1.2.1 (size=4096)
Prot LocalAddress:Port Scheduler Flags
  -> RemoteAddress:Port Forward Weight ActiveConn InActConn
TCP  0A60000A:0050 rr  
  -> 0AF40203:1F90      Masq    1      8          2         
  -> 0AF40202:1F90      Masq    0      2          2         
";

    fn row(server: u8, client: u16) -> Row<'static> {
        let tuple = Tuple {
            protocol: Protocol::TCP,
            client: ([10, 244, 1, 2].into(), client),
            service: ([10, 96, 0, 10].into(), 80),
        };
        let server = ([10, 244, 2, server].into(), 8080);
        Row { tuple, server, state: State::TimeWait, state_text: b"", origin: None, expires: 60, rest: b"" }
    }

    fn reuse(row: &Row<'_>) -> Reuse {
        let sight = Sight { server: row.server, state: row.state, expires: row.expires };
        let (verdict, standing) = (Verdict::Reused, Standing::Weight(0));
        let (situation, severity) = situation::of(verdict, row.state, standing, &Kernel::default());
        Reuse {
            tuple: row.tuple,
            before: sight,
            now: sight,
            verdict,
            confidence: Confidence::Certain,
            may_have_expired: false,
            idle: None,
            standing,
            severity,
            situation,
        }
    }

    #[test]
    fn servers_are_followed_from_poll_to_poll() {
        let mut services = Services::default();
        SERVICES.lines().for_each(|line| services.line(line.as_bytes()));
        let services = Some(&services);
        let mut drains = Drains::default();
        let place = |server: u8| {
            (
                Matches::Address(Protocol::TCP, ([10, 96, 0, 10].into(), 80)),
                ([10, 244, 2, server].into(), 8080),
            )
        };
        let mut poll = |at: u64, rows: &[Row<'_>], met: &[Row<'_>]| {
            rows.iter().for_each(|row| drains.row(row, services));
            let reuses: Vec<Reuse> = met.iter().map(reuse).collect();
            drains.finish(Duration::from_secs(at), &reuses, services);
            [2, 3, 4].map(|server| drains.of(&place(server)))
        };
        use Draining::{Never, No, Yes};
        let all = [row(2, 1), row(3, 1), row(4, 1)];
        assert_eq!(poll(0, &all, &[]), [Yes, No, Yes], "weight 0, weight 1, removed");
        assert_eq!(poll(100, &all, &all[..1]), [Yes, No, Yes]);
        assert_eq!(poll(180, &all, &[]), [Never, No, Yes]);
        assert_eq!(poll(279, &all[1..], &[]), [No, No, Yes], "it has drained");
        assert_eq!(poll(280, &all, &all), [Yes, No, Never]);
        assert_eq!((drains.count(Yes), drains.count(Never)), (1, 1));
    }

    #[test]
    fn there_is_room_for_so_many() {
        let mut drains = Drains::default();
        let services = Services::default();
        for server in 0..=MAX_DRAINING as u32 {
            let server = (std::net::Ipv4Addr::from_bits(server).into(), 80);
            drains.row(&Row { server, ..row(2, 1) }, Some(&services));
        }
        assert_eq!((drains.seen.len(), drains.left_out), (MAX_DRAINING, 1));
        for server in 0..=MAX_LOOKED_UP as u32 {
            let server = (std::net::Ipv4Addr::from_bits(server).into(), 81);
            drains.row(&Row { server, ..row(2, 1) }, None);
        }
        assert_eq!(drains.looked_up.len(), MAX_LOOKED_UP);
    }
}
