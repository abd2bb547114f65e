//! Figures of services for metrics: entries by state, reuses by verdict and severity, each service under a name of its own as long
//! as there are few. Keeps counts; what they are called elsewhere is not known here.

use std::collections::BTreeMap;

use hashbrown::HashMap;

use super::{
    End, Tuple, Verdict,
    parse::{Protocol, Row, services::Matches},
    services::Services,
    situation::Severity,
    state::State,
};

/// Services that have figures of their own; what comes later is counted together. A service has a dozen rows of 300 bytes, in
/// memory and in two pages.
pub const MAX_SERIES: usize = 100;
/// Virtual addresses whose service is remembered, where nobody asks for fewer; of more than these, each is counted with the rest.
pub const MAX_KNOWN: usize = 4096;
/// What one of them takes at most, in a table that is being made larger. Bytes.
pub const KNOWN_BYTES: usize = 96;

/// Whose figures.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Id(u16);

/// The services that have no figures of their own.
const REST: Id = Id(MAX_SERIES as u16);

/// Entries by state, as [`State`] numbers them.
type Entries = [u64; State::ALL.len()];

/// Figures of all services.
#[derive(Debug)]
pub struct Series {
    max_known: usize,
    /// In the order of their numbers.
    services: Vec<Matches>,
    known: HashMap<(Protocol, End), Id, foldhash::fast::RandomState>,
    last: Option<((Protocol, End), Id)>,
    /// Of the poll that is under way, or was last; the rest's are behind all others.
    entries: HashMap<Id, Entries, foldhash::fast::RandomState>,
    reuses: BTreeMap<(Id, Verdict, Severity), u64>,
    /// Addresses that are known to be counted with the rest, and those of the poll past [`MAX_KNOWN`].
    known_rest: u64,
    unknown: u64,
}

impl Default for Series {
    fn default() -> Self {
        Self::with_room(MAX_KNOWN)
    }
}

impl Series {
    /// None yet, and room for so many virtual addresses.
    pub fn with_room(max_known: usize) -> Self {
        Self {
            max_known,
            services: Vec::new(),
            known: HashMap::default(),
            last: None,
            entries: HashMap::default(),
            reuses: BTreeMap::new(),
            known_rest: 0,
            unknown: 0,
        }
    }

    /// A poll begins.
    pub fn begin(&mut self) {
        self.entries.clear();
        self.unknown = 0;
        // Its service may be listed by now.
        self.last = None;
    }

    /// Counts an entry of the poll.
    #[inline]
    pub fn row(&mut self, row: &Row<'_>, services: Option<&Services>) {
        if row.is_template() {
            return;
        }
        let key = (row.tuple.protocol, row.tuple.service);
        let id = match self.last {
            Some((last, id)) if last == key => id,
            _ => self.id(key, row, services),
        };
        self.last = Some((key, id));
        let entries = self.entries.entry(id).or_insert([0; State::ALL.len()]);
        if let Some(count) = entries.get_mut(row.state as usize) {
            *count += 1;
        }
    }

    /// Counts a reuse.
    pub fn reuse(&mut self, tuple: &Tuple, verdict: Verdict, severity: Severity) {
        let key = (tuple.protocol, tuple.service);
        // A reuse is of an entry of some poll: its service is known, unless there was no room.
        let id = self.known.get(&key).copied().unwrap_or(REST);
        *self.reuses.entry((id, verdict, severity)).or_default() += 1;
    }

    /// Virtual addresses that are counted with the rest for want of room, as far as the last poll shows. Past [`MAX_KNOWN`], one whose
    /// entries are apart from each other is as many.
    pub const fn overflowed(&self) -> u64 {
        self.known_rest + self.unknown
    }

    /// Its service; absent of all that have no figures of their own.
    pub fn service(&self, id: Id) -> Option<&Matches> {
        self.services.get(usize::from(id.0))
    }

    /// Entries of the last poll, those that there are, in order.
    pub fn entries(&self) -> Vec<(Id, State, u64)> {
        let mut told: Vec<_> = self
            .entries
            .iter()
            .flat_map(|(id, entries)| {
                State::ALL.iter().zip(entries).map(|(state, count)| (*id, *state, *count))
            })
            .filter(|(_, _, count)| *count > 0)
            .collect();
        told.sort_unstable();
        told
    }

    /// Reuses so far.
    pub fn reuses(&self) -> impl Iterator<Item = (Id, Verdict, Severity, u64)> {
        self.reuses.iter().map(|((id, verdict, severity), count)| (*id, *verdict, *severity, *count))
    }

    fn id(&mut self, key: (Protocol, End), row: &Row<'_>, services: Option<&Services>) -> Id {
        if let Some(id) = self.known.get(&key) {
            return *id;
        }
        let own = Matches::Address(key.0, key.1);
        // An address that no service has, or none any more, is what some client chose: it gets no name.
        let matches = match services {
            Some(services) => services.find(&row.tuple, row.server).0.copied(),
            None => Some(own),
        };
        let place = matches.and_then(|matches| {
            let known = self.services.iter().position(|service| *service == matches);
            let has_room = self.services.len() < MAX_SERIES;
            known.or_else(|| {
                has_room.then(|| {
                    self.services.push(matches);
                    self.services.len() - 1
                })
            })
        });
        let id = place.and_then(|place| u16::try_from(place).ok()).map_or(REST, Id);
        // Whose address no service has may have one the next time.
        if matches.is_some() {
            let is_rest = u64::from(id == REST);
            if self.known.len() < self.max_known {
                self.known.insert(key, id);
                self.known_rest += is_rest;
            } else {
                self.unknown += is_rest;
            }
        }
        id
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn row(service: u32, state: State) -> Row<'static> {
        let client = ([10, 244, 1, 2].into(), 41_001);
        let service = (Ipv4Addr::from_bits(service).into(), 80);
        let tuple = Tuple { protocol: Protocol::TCP, client, service };
        let server = ([10, 244, 2, 2].into(), 8080);
        Row { tuple, server, state, state_text: b"", origin: None, expires: 0, rest: b"" }
    }

    #[test]
    fn a_service_that_is_listed_later_has_its_figures_from_then_on() {
        let listed = |text: &str| {
            let mut services = Services::default();
            text.lines().for_each(|line| services.line(line.as_bytes()));
            services
        };
        let mut series = Series::default();
        series.begin();
        series.row(&row(0x0a60_000a, State::Established), Some(&listed("")));
        let only = |series: &Series| match series.entries()[..] {
            [(id, ..)] => series.service(id).copied(),
            ref other => panic!("{other:?}"),
        };
        assert_eq!(only(&series), None, "no service has the address");
        series.begin();
        let text = "IP Virtual Server version 1.2.1 (size=4096)\nProt LocalAddress:Port Scheduler Flags\n  \
            -> RemoteAddress:Port Forward Weight ActiveConn InActConn\nTCP  0A60000A:0050 rr\n";
        series.row(&row(0x0a60_000a, State::Established), Some(&listed(text)));
        assert_eq!(only(&series), Some(Matches::Address(Protocol::TCP, ([10, 96, 0, 10].into(), 80))));
    }

    #[test]
    fn each_service_has_its_figures_up_to_the_limit() {
        let mut series = Series::default();
        for poll in 0..2 {
            series.begin();
            for service in 1..=MAX_SERIES as u32 + 2 {
                series.row(&row(service, State::TimeWait), None);
                series.row(&row(service, State::Established), None);
                series.row(&row(service, State::Established), None);
            }
            let told = series.entries();
            assert_eq!(told.len(), 2 * (MAX_SERIES + 1), "{poll}");
            assert_eq!(told[0], (Id(0), State::Established, 2));
            assert_eq!(told[2 * MAX_SERIES..], [(REST, State::Established, 4), (REST, State::TimeWait, 2)]);
            assert_eq!((series.service(Id(99)).is_some(), series.service(REST)), (true, None));
            assert_eq!(series.overflowed(), 2, "{poll}");
        }
    }

    #[test]
    fn addresses_are_remembered_up_to_the_limit() {
        let mut series = Series::default();
        for poll in 0..2 {
            series.begin();
            for service in 1..=MAX_KNOWN as u32 + 1 {
                series.row(&row(service, State::TimeWait), None);
            }
            assert_eq!((series.known.len(), series.services.len()), (MAX_KNOWN, MAX_SERIES));
            assert_eq!(series.overflowed(), (MAX_KNOWN - MAX_SERIES) as u64 + 1, "{poll}: it does not grow");
        }
    }

    #[test]
    fn an_address_that_no_service_has_gets_no_name() {
        let mut series = Series::default();
        series.row(&row(1, State::TimeWait), Some(&Services::default()));
        assert_eq!(series.entries(), [(REST, State::TimeWait, 1)]);
        assert_eq!((series.services.len(), series.known.len(), series.overflowed()), (0, 0, 0));
    }
}
