//! The loss ledger: seen = delivered + ignored{why} + lost{where, why} + in flight, for packets, bytes and exchanges.
//!
//! Every number is measured where it stands: what is in flight is counted in the ring, in reassembly, in the HTTP stage
//! and in the queues, never computed as what is missing. So the sum can fail, and [`Ledger::check`] says on which line.
//! Knows the stages' counters only; reads nothing itself.

use std::{fmt, sync::Arc};

use pod2pod_common::{
    counters::{Counter, CounterValues},
    limits::MAX_PIECES,
    segment::MAX_RECORD_PAYLOAD,
};

use super::Counted;
use crate::{
    capture::kernel::{self, IN_PROGRAM_PER_CPU, Snapshot},
    delivery::SinkStats,
    enrich, filter, http, named, reassembly,
};

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Packets that entered the kernel side.
    Packets,
    /// Payload bytes of the TCP segments among them that have something to say.
    Bytes,
    /// Exchanges that the HTTP stage began, connection attempts, and what was told of them more than once.
    Exchanges,
}

impl Unit {
    const fn word(self) -> &'static str {
        match self {
            Self::Packets => "packets",
            Self::Bytes => "bytes",
            Self::Exchanges => "exchanges",
        }
    }
}

/// How many went a certain way, and why.
pub type Part = (&'static str, u64);

/// One place on the way: what came in is what went on, and what did not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Its name.
    pub name: &'static str,
    /// What came in.
    pub entered: u64,
    /// Not wanted, by reason.
    pub ignored: Vec<Part>,
    /// Wanted and lost, by reason.
    pub lost: Vec<Part>,
    /// What is there now; none where nothing can stay.
    pub in_flight: Option<u64>,
    /// Handed on, as the next place counted it.
    pub handed_on: u64,
    /// What may be under way inside programs that run at this instant, either way.
    pub slack: u64,
}

impl Place {
    fn parts(&self) -> u64 {
        let sum = |parts: &[Part]| parts.iter().map(|(_, count)| count).sum::<u64>();
        sum(&self.ignored) + sum(&self.lost) + self.in_flight.unwrap_or_default() + self.handed_on
    }
}

/// The way of one unit, for one of its ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// What is counted.
    pub unit: Unit,
    /// The sink that it ends in; none where the way ends before sinks.
    pub sink: Option<Arc<str>>,
    /// From the first place to the last; each hands on to the next.
    pub places: Vec<Place>,
}

/// A line that does not add up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Imbalance {
    /// What is counted.
    pub unit: Unit,
    /// The sink, if the way ends in one.
    pub sink: Option<Arc<str>>,
    /// The place.
    pub place: &'static str,
    /// What came in.
    pub entered: u64,
    /// What became of it, all together.
    pub accounted: u64,
    /// How far apart they might be.
    pub slack: u64,
}

impl fmt::Display for Imbalance {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { unit, sink, place, entered, accounted, slack } = self;
        let unit = unit.word();
        let of = sink.as_ref().map_or_else(String::new, |sink| format!(" for {sink}"));
        write!(
            formatter,
            "{unit}{of}: {entered} came to {place}, {accounted} are accounted for ({slack} may be under way)"
        )
    }
}

/// All accounts at one instant.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ledger {
    /// One of each unit, of exchanges one for each sink.
    pub accounts: Vec<Account>,
    /// Everything was read at one instant. If not, packets and bytes on their way from the kernel may be in two places or
    /// in none.
    pub exact: bool,
}

/// What the ledger is made of.
#[derive(Clone, Copy, Debug)]
pub struct Sources<'a> {
    /// The kernel side, and the ring.
    pub kernel: &'a Snapshot,
    /// The reader.
    pub reader: &'a kernel::Stats,
    /// Reassembly, for connection attempts.
    pub reassembly: &'a reassembly::Stats,
    /// The HTTP stage.
    pub http: &'a http::Stats,
    /// Exchanges and connection attempts open there now.
    pub open: u64,
    /// The filter.
    pub filter: &'a filter::Stats,
    /// Enrichment.
    pub enrich: &'a enrich::Stats,
    /// Records that wait until it is known what IPVS did with their connection, or who its ends are.
    pub waiting: u64,
    /// What names came to.
    pub names: named::Stats,
    /// The sinks.
    pub sinks: &'a [(Arc<str>, SinkStats)],
}

impl Ledger {
    /// The ledger of these counters.
    pub fn of(sources: &Sources<'_>) -> Self {
        let mut accounts = vec![packets(sources), bytes(sources)];
        accounts.extend(sources.sinks.iter().map(|(name, stats)| exchanges(sources, name, stats)));
        Self { accounts, exact: sources.kernel.exact }
    }

    /// Whether everything adds up: every place within its slack, where one was read at an instant.
    ///
    /// # Errors
    /// The first line that does not.
    pub fn check(&self) -> Result<(), Imbalance> {
        for account in &self.accounts {
            for place in &account.places {
                let accounted = place.parts();
                if place.entered.abs_diff(accounted) > place.slack {
                    return Err(Imbalance {
                        unit: account.unit,
                        sink: account.sink.clone(),
                        place: place.name,
                        entered: place.entered,
                        accounted,
                        slack: place.slack,
                    });
                }
            }
        }
        Ok(())
    }

    /// The rows of one family a unit.
    pub fn rows(&self) -> Vec<Counted> {
        let mut rows = Vec::new();
        for unit in [Unit::Packets, Unit::Bytes, Unit::Exchanges] {
            let accounts: Vec<&Account> =
                self.accounts.iter().filter(|account| account.unit == unit).collect();
            rows.extend(accounts.iter().flat_map(|account| account.counters()));
            rows.extend(accounts.iter().flat_map(|account| account.gauges()));
        }
        let exact = "1 if the ledger was read at one instant.";
        rows.push(Counted::gauge("ledger_exact", exact, u64::from(self.exact)));
        let balanced = "1 if every line of the ledger adds up.";
        rows.push(Counted::gauge("ledger_balanced", balanced, u64::from(self.check().is_ok())));
        rows
    }
}

impl Account {
    fn row(&self, is_in_flight: bool, fate: &str, place: &str, reason: &str, count: u64) -> Counted {
        let help = match (self.unit, is_in_flight) {
            (Unit::Packets, false) => "Packets by fate: seen = delivered + ignored + lost + in flight.",
            (Unit::Packets, true) => "Packets in flight, counted where they are.",
            (Unit::Bytes, false) => "Payload bytes by fate: seen = delivered + ignored + lost + in flight.",
            (Unit::Bytes, true) => "Payload bytes in flight, counted where they are.",
            (Unit::Exchanges, false) => {
                "Exchanges and connection attempts by fate, for each sink: seen = delivered + ignored + lost + in flight."
            }
            (Unit::Exchanges, true) => "Exchanges in flight, counted where they are.",
        };
        let unit = self.unit.word();
        let row = if is_in_flight {
            Counted::gauge(&format!("ledger_{unit}_in_flight"), help, count).with("where", place)
        } else {
            let row = Counted::counter(&format!("ledger_{unit}"), help, count).with("fate", fate);
            row.with("where", place).with("reason", reason)
        };
        self.sink.iter().fold(row, |row, sink| row.with("sink", sink))
    }

    fn counters(&self) -> Vec<Counted> {
        let first = self.places.first().map(|place| (place.name, place.entered));
        let last = self.places.last().map(|place| (place.name, place.handed_on));
        let ends = [("seen", first), ("delivered", last)];
        let mut rows: Vec<_> = ends
            .into_iter()
            .filter_map(|(fate, end)| end.map(|(place, count)| self.row(false, fate, place, "", count)))
            .collect();
        for place in &self.places {
            for (fate, parts) in [("ignored", &place.ignored), ("lost", &place.lost)] {
                rows.extend(parts.iter().map(|(why, count)| self.row(false, fate, place.name, why, *count)));
            }
        }
        rows
    }

    fn gauges(&self) -> Vec<Counted> {
        let holding = self.places.iter().filter_map(|place| Some((place.name, place.in_flight?)));
        holding.map(|(place, count)| self.row(true, "", place, "", count)).collect()
    }
}

/// Packets: what the kernel side let go by, what it lost, what is in the ring, what the reader understood.
fn packets(sources: &Sources<'_>) -> Account {
    use Counter as C;
    let (counters, reader) = (&sources.kernel.counters, sources.reader);
    let slack = IN_PROGRAM_PER_CPU * sources.kernel.cpus;
    let told = sum(counters, TOLD);
    let kernel = Place {
        name: "kernel",
        entered: counters.of(C::PacketsSeen),
        ignored: parts(counters, PACKETS_IGNORED),
        lost: parts(counters, PACKETS_LOST),
        in_flight: None,
        handed_on: told,
        slack,
    };
    let ring = Place {
        name: "ring",
        entered: told,
        ignored: Vec::new(),
        lost: vec![("not_understood", reader.refused_packets)],
        in_flight: Some(sources.kernel.unread.packets),
        handed_on: reader.packets,
        slack,
    };
    Account { unit: Unit::Packets, sink: None, places: vec![kernel, ring] }
}

/// Payload bytes: as packets.
fn bytes(sources: &Sources<'_>) -> Account {
    use Counter as C;
    let (counters, reader) = (&sources.kernel.counters, sources.reader);
    let slack = IN_PROGRAM_PER_CPU * sources.kernel.cpus * MAX_PACKET_BYTES;
    let told = counters.of(C::BytesSent);
    let kernel = Place {
        name: "kernel",
        entered: counters.of(C::BytesMatched),
        ignored: parts(counters, BYTES_IGNORED),
        lost: parts(counters, BYTES_LOST),
        in_flight: None,
        handed_on: told,
        slack,
    };
    let ring = Place {
        name: "ring",
        entered: told,
        ignored: Vec::new(),
        lost: vec![("not_understood", reader.refused_bytes)],
        in_flight: Some(sources.kernel.unread.bytes),
        handed_on: reader.payload_bytes,
        slack,
    };
    Account { unit: Unit::Bytes, sink: None, places: vec![kernel, ring] }
}

/// Exchanges on their way to one sink.
fn exchanges(sources: &Sources<'_>, name: &Arc<str>, sink: &SinkStats) -> Account {
    let (tries, http, enrich) = (sources.reassembly, sources.http, sources.enrich);
    let tracked = Place {
        name: "http",
        // What is told a second time, or in between, is a record of its own.
        // A reuse is found in a table, not told by this stage.
        entered: http.begun
            + http.late
            + http.progress
            + tries.attempts_begun
            + tries.attempts_late
            + sink.reuses,
        ignored: vec![
            ("filter", sources.filter.refused_exchanges + sources.filter.refused_attempts),
            ("connected", tries.attempts_answered - tries.attempts_answered_told),
            ("connect_withdrawn", tries.attempts_withdrawn),
            ("connect_unanswered", tries.attempts_unanswered),
            ("connect_cut_off", tries.attempts_cut_off),
        ],
        lost: vec![("connect_forgotten", tries.attempts_forgotten)],
        in_flight: Some(sources.open),
        handed_on: enrich.exchanges + sink.reuses,
        slack: 0,
    };
    let enriched = Place {
        name: "enrich",
        entered: enrich.exchanges + sink.reuses,
        ignored: vec![
            ("sampled_away", enrich.sampled_away),
            ("ignored", enrich.ignored),
            ("over_rate", enrich.over_rate),
            ("own", enrich.own),
            ("selection", sources.names.refused),
            ("sampled_by_pod", sources.names.sampled_away),
        ],
        lost: Vec::new(),
        in_flight: Some(sources.waiting),
        // What the spool had at the start an earlier program's stages handed on.
        handed_on: sink.received + sink.unwanted - sink.spool.map_or(0, |spool| spool.recovered),
        slack: 0,
    };
    let delivered = Place {
        name: "sink",
        entered: sink.received + sink.unwanted,
        ignored: vec![("route", sink.unwanted)],
        lost: sink.dropped().to_vec(),
        // At the end it is what is kept.
        in_flight: Some(sink.in_flight + sink.kept),
        handed_on: sink.delivered,
        slack: 0,
    };
    Account {
        unit: Unit::Exchanges,
        sink: Some(Arc::clone(name)),
        places: vec![tracked, enriched, delivered],
    }
}

/// The largest packet that is told.
const MAX_PACKET_BYTES: u64 = (MAX_PIECES * MAX_RECORD_PAYLOAD) as u64;

/// Counters of packets that were handed to the ring, with their payload or without.
const TOLD: &[Counter] = &[Counter::SegmentsSent, Counter::SegmentsUnreadable];
/// Counters of packets that nobody wants.
const PACKETS_IGNORED: &[(&str, Counter)] = &[
    ("not_ip", Counter::NotIp),
    ("not_tcp", Counter::NotTcp),
    ("bare_ack", Counter::BareAck),
    ("own", Counter::OwnTraffic),
    ("not_http", Counter::SegmentsNotHttp),
    ("unwanted", Counter::SegmentsUnwanted),
    ("skipped", Counter::SegmentsSkipped),
];
/// Counters of packets that may have been wanted.
const PACKETS_LOST: &[(&str, Counter)] = &[
    ("heartbeat_stale", Counter::HeartbeatStale),
    ("fragment", Counter::Fragment),
    ("too_many_extension_headers", Counter::TooManyExtensionHeaders),
    ("malformed_header", Counter::MalformedHeader),
    ("shed_connection", Counter::SegmentsShedConnections),
    ("ring_full", Counter::SegmentsRingFull),
];
/// Counters of payload that nobody wants.
const BYTES_IGNORED: &[(&str, Counter)] = &[
    ("not_http", Counter::BytesNotHttp),
    ("unwanted", Counter::BytesUnwanted),
    ("skipped", Counter::BytesSkipped),
    ("over_credit", Counter::BytesOverCredit),
];
/// Counters of payload that may have been wanted.
const BYTES_LOST: &[(&str, Counter)] = &[
    ("shed_body", Counter::BytesShedBodies),
    ("shed_header", Counter::BytesShedHeaders),
    ("shed_connection", Counter::BytesShedConnections),
    ("ring_full", Counter::BytesRingFull),
    ("unreadable", Counter::BytesUnreadable),
    ("truncated", Counter::BytesTruncated),
];

fn sum(counters: &CounterValues, which: &[Counter]) -> u64 {
    which.iter().map(|counter| counters.of(*counter)).sum()
}

fn parts(counters: &CounterValues, which: &[(&'static str, Counter)]) -> Vec<Part> {
    which.iter().map(|(reason, counter)| (*reason, counters.of(*counter))).collect()
}

#[cfg(test)]
mod tests {
    use pod2pod_common::counters::COUNTERS;

    use super::*;
    use crate::capture::kernel::Unread;

    /// Everything at once, in balance.
    struct Books {
        kernel: Snapshot,
        reader: kernel::Stats,
        reassembly: reassembly::Stats,
        http: http::Stats,
        enrich: enrich::Stats,
        waiting: u64,
        names: named::Stats,
        sink: SinkStats,
    }

    impl Books {
        fn balanced() -> Self {
            let mut counters = CounterValues([0; COUNTERS]);
            // A number of its own for each counter, sums for those that are sums.
            let fates = [PACKETS_IGNORED, PACKETS_LOST, BYTES_IGNORED, BYTES_LOST].concat();
            for (number, (_, counter)) in fates.iter().enumerate() {
                counters.0[*counter as usize] = 1 << number;
            }
            counters.0[Counter::SegmentsSent as usize] = 1000;
            counters.0[Counter::BytesSent as usize] = 5000;
            let total = |which: &[(&str, Counter)]| -> u64 {
                which.iter().map(|(_, counter)| counters.of(*counter)).sum()
            };
            let packets = total(PACKETS_IGNORED) + total(PACKETS_LOST) + 1000;
            let bytes = total(BYTES_IGNORED) + total(BYTES_LOST) + 5000;
            counters.0[Counter::PacketsSeen as usize] = packets;
            counters.0[Counter::BytesMatched as usize] = bytes;
            let unread = Unread { records: 20, packets: 10, bytes: 500 };
            Self {
                kernel: Snapshot { counters, cpus: 2, unread, exact: true },
                reader: kernel::Stats {
                    packets: 988,
                    refused_packets: 2,
                    payload_bytes: 4400,
                    refused_bytes: 100,
                    ..Default::default()
                },
                reassembly: reassembly::Stats {
                    attempts_begun: 108,
                    attempts_late: 1,
                    attempts_answered: 80,
                    attempts_answered_told: 4,
                    attempts_withdrawn: 3,
                    attempts_unanswered: 2,
                    attempts_cut_off: 5,
                    attempts_forgotten: 6,
                    ..Default::default()
                },
                http: http::Stats { begun: 70, late: 2, progress: 3, ..Default::default() },
                enrich: enrich::Stats {
                    exchanges: 82,
                    kept: 63,
                    over_rate: 8,
                    sampled_away: 5,
                    ignored: 4,
                    own: 2,
                    ..Default::default()
                },
                waiting: 0,
                names: named::Stats::default(),
                sink: SinkStats {
                    received: 63,
                    delivered: 53,
                    dropped_failed: 3,
                    in_flight: 7,
                    ..Default::default()
                },
            }
        }

        fn ledger(&self) -> Ledger {
            Ledger::of(&Sources {
                kernel: &self.kernel,
                reader: &self.reader,
                reassembly: &self.reassembly,
                http: &self.http,
                open: 7,
                filter: &filter::Stats { refused_exchanges: 1, refused_attempts: 2, ..Default::default() },
                enrich: &self.enrich,
                waiting: self.waiting,
                names: self.names,
                sinks: &[("output".into(), self.sink)],
            })
        }

        fn imbalance(&self) -> Option<String> {
            self.ledger().check().err().map(|imbalance| imbalance.to_string())
        }
    }

    #[test]
    fn what_adds_up_is_found_to() {
        assert_eq!(Books::balanced().imbalance(), None);
    }

    #[test]
    fn what_does_not_add_up_is_named() {
        let check = |change: fn(&mut Books), expected: &str| {
            let mut books = Books::balanced();
            change(&mut books);
            assert_eq!(books.imbalance().as_deref(), Some(expected));
        };
        check(
            |books| books.kernel.unread.packets += 5,
            "packets: 1000 came to ring, 1005 are accounted for (4 may be under way)",
        );
        check(
            |books| books.kernel.counters.0[Counter::SegmentsRingFull as usize] -= 5,
            "packets: 9191 came to kernel, 9186 are accounted for (4 may be under way)",
        );
        check(
            |books| books.http.begun += 1,
            "exchanges for output: 185 came to http, 184 are accounted for (0 may be under way)",
        );
        check(
            |books| books.reassembly.attempts_withdrawn += 1,
            "exchanges for output: 184 came to http, 185 are accounted for (0 may be under way)",
        );
        check(
            |books| books.enrich.own -= 1,
            "exchanges for output: 82 came to enrich, 81 are accounted for (0 may be under way)",
        );
        check(
            |books| books.sink.in_flight -= 1,
            "exchanges for output: 63 came to sink, 62 are accounted for (0 may be under way)",
        );
    }

    #[test]
    fn reuses_come_to_the_sinks_and_records_wait_before_them() {
        let mut books = Books::balanced();
        (books.sink.reuses, books.waiting) = (9, 5);
        assert!(books.imbalance().is_some());
        books.sink.received += 4;
        books.sink.delivered += 4;
        assert_eq!(books.imbalance(), None);
        books.waiting -= 1;
        assert!(books.imbalance().is_some());
    }

    #[test]
    fn a_few_packets_a_cpu_may_be_inside_the_programs() {
        let mut books = Books::balanced();
        let seen = &mut books.kernel.counters.0[Counter::PacketsSeen as usize];
        *seen += IN_PROGRAM_PER_CPU * 2;
        assert_eq!(books.imbalance(), None);
        books.kernel.counters.0[Counter::PacketsSeen as usize] += 1;
        assert!(books.imbalance().is_some());
        let mut books = Books::balanced();
        books.kernel.counters.0[Counter::BytesMatched as usize] += IN_PROGRAM_PER_CPU * 2 * MAX_PACKET_BYTES;
        assert_eq!(books.imbalance(), None);
        books.kernel.counters.0[Counter::BytesMatched as usize] += 1;
        assert!(books.imbalance().is_some());
    }

    #[test]
    fn every_counter_of_a_fate_is_in_one_line() {
        let named = [PACKETS_IGNORED, PACKETS_LOST, BYTES_IGNORED, BYTES_LOST].concat();
        let named: Vec<Counter> =
            named.into_iter().map(|(_, counter)| counter).chain(TOLD.to_vec()).collect();
        for counter in Counter::ALL {
            let count = named.iter().filter(|other| *other == counter).count();
            assert_eq!(count, usize::from(!NO_FATE.contains(counter)), "{}", counter.name());
        }
    }

    /// Sums of fates, and what is counted beside them.
    const NO_FATE: &[Counter] = &[
        Counter::PacketsSeen,
        Counter::BytesSeen,
        Counter::SegmentsMatched,
        Counter::BytesMatched,
        Counter::BytesSent,
        Counter::RecordsSent,
        Counter::ConnectionsInserted,
        Counter::ConnectionsRefused,
        Counter::DataWithoutEntry,
        Counter::GateHttp,
        Counter::GateIgnored,
        Counter::GateTls,
        Counter::GateHttp2,
        Counter::RingWakeups,
        Counter::ConnectionsShed,
        Counter::GateUnwanted,
        Counter::TunnelPackets,
        Counter::CreditWakeups,
        Counter::CreditYields,
        Counter::Unreachables,
    ];

    #[test]
    fn rows_of_a_name_stand_together() {
        let rows = Books::balanced().ledger().rows();
        let mut names: Vec<_> = rows.iter().map(|row| row.name.as_str()).collect();
        names.dedup();
        let once: std::collections::BTreeSet<_> = names.iter().collect();
        assert_eq!(names.len(), once.len(), "{names:?}");
        let sum = |name: &str, fate: fn(&str) -> bool| -> f64 {
            let of = |row: &&Counted| {
                row.name == name && row.labels.iter().all(|(label, value)| *label != "fate" || fate(value))
            };
            rows.iter().filter(of).map(|row| row.value).sum()
        };
        for unit in ["packets", "bytes", "exchanges"] {
            let (total, flying) =
                (format!("pod2pod_ledger_{unit}_total"), format!("pod2pod_ledger_{unit}_in_flight"));
            let seen = sum(&total, |fate| fate == "seen");
            let fates = sum(&total, |fate| fate != "seen") + sum(&flying, |_| true);
            assert!(seen == fates && seen > 0.0, "{unit}: {seen} {fates}");
        }
    }
}
