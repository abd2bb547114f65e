//! How the watch's memory is divided: so much for services, servers, entries, decisions, and connections in question. Takes numbers and
//! gives numbers.

use crate::{
    ipvs::{
        detect, drain,
        exact::settle::{MAX_TOLD, TOLD_BYTES},
        join, series, services,
    },
    watch::{
        board::{self, Board},
        config::Config,
    },
};

use super::telling::HELD_BYTES;

/// What an IPv4 entry costs: in the detector's table, which may be growing, and in two lists of closed entries. Bytes.
const ENTRY_BYTES: usize = 176;

/// Share of the watch's memory that is for services, for real servers, for connections that are in question, for records that
/// wait, for figures and news, and for decisions if they are followed: one of this many each. The rest is for entries.
const SHARE: usize = 12;
/// Of what is for figures and news: servers of a poll, virtual addresses, servers that drain, decisions and failed exchanges of two polls
/// on the board take one of this many each, and the last two of them.
const FIGURES_SHARE: usize = 6;
/// Of what is for decisions, those that are told and wait to name their exchange take one of this many; the rest is for those that
/// polling may find again.
const HELD_SHARE: usize = 4;
/// Records that wait at most, whatever room there is.
const MAX_WAITING: usize = 4096;
/// Reuses that wait to name their exchange, whatever room there is: those of one interval.
const MAX_HELD: usize = 8192;

/// What the watch may keep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shares {
    pub(super) services: services::Limits,
    pub(super) entries: detect::Config,
    /// Virtual addresses with figures.
    pub(super) known: usize,
    pub(super) drains: drain::Limits,
    /// Decisions that polling may find again.
    pub(super) told: usize,
    /// Reuses that wait to name their exchange.
    pub(super) held: usize,
}

impl Shares {
    /// Of the memory in `config`.
    pub(super) fn of(config: &Config) -> Self {
        let bytes = usize::try_from(config.memory).unwrap_or(usize::MAX);
        let part = bytes / SHARE;
        let services = services::Limits {
            services: (part / services::SERVICE_BYTES).min(services::MAX_SERVICES),
            servers: (part / services::SERVER_BYTES).min(services::MAX_SERVERS),
        };
        let piece = part / FIGURES_SHARE;
        let drains = drain::Limits {
            looked_up: (piece / drain::LOOKED_UP_BYTES).min(drain::MAX_LOOKED_UP),
            draining: (piece / drain::DRAINING_BYTES).min(drain::MAX_DRAINING),
        };
        let of_exact = if config.follows() { part } else { 0 };
        let of_held = of_exact / HELD_SHARE;
        let max_entries = (bytes - 5 * part - of_exact) / ENTRY_BYTES;
        Self {
            services,
            entries: detect::Config { max_entries: max_entries.min(detect::DEFAULT_MAX_ENTRIES) },
            known: (piece / series::KNOWN_BYTES).min(series::MAX_KNOWN),
            drains,
            told: ((of_exact - of_held) / TOLD_BYTES).min(MAX_TOLD),
            held: (of_held / HELD_BYTES).min(MAX_HELD),
        }
    }
}

/// The board, with its part of the memory.
pub(in crate::agent) fn board(config: &Config) -> Board {
    let piece = usize::try_from(config.memory).unwrap_or(usize::MAX) / SHARE / FIGURES_SHARE;
    Board::with_room(board::Limits {
        decisions: (piece / board::DECISION_BYTES).min(board::MAX_DECISIONS),
        failed_bytes: piece.min(board::MAX_FAILED_BYTES),
    })
}

/// What each of `workers` may keep of connections, if IPVS is watched as `config` says.
pub(in crate::agent) fn join_config(config: &Config, workers: usize) -> join::Config {
    let part = usize::try_from(config.memory).unwrap_or(usize::MAX) / SHARE / workers.max(1);
    let max_suspects = part / join::SUSPECT_BYTES;
    join::Config { max_suspects, max_waiting: MAX_WAITING, max_waiting_bytes: part }
}

#[cfg(test)]
mod tests {
    use std::{
        net::{IpAddr, Ipv4Addr},
        time::Duration,
    };

    use super::*;
    use crate::{
        capture::kernel::Workers,
        enrich::reuse::Failed,
        ipvs::{
            Detector, Tuple,
            drain::Drains,
            exact::{Decision, Outcome, settle::Settle},
            kernel::Kernel,
            parse::{Protocol, Row},
            series::Series,
            services::Services,
            state::State,
        },
        mode::Mode,
        record::Record,
        restraint::budget::IPVS_LATER_BYTES,
    };

    #[test]
    fn the_shares_are_within_the_memory() {
        for memory in [0, 512 << 10, 4 << 20, 1 << 30] {
            for exact in [false, true] {
                let config = Config { memory, exact, ..Config::default() };
                let shares = Shares::of(&config);
                let own = shares.services.services * services::SERVICE_BYTES
                    + shares.services.servers * services::SERVER_BYTES
                    + shares.entries.max_entries * ENTRY_BYTES
                    + shares.known * series::KNOWN_BYTES
                    + shares.drains.looked_up * drain::LOOKED_UP_BYTES
                    + shares.drains.draining * drain::DRAINING_BYTES
                    + (memory as usize / SHARE / FIGURES_SHARE) * 3
                    + shares.told * TOLD_BYTES
                    + shares.held * HELD_BYTES;
                assert_eq!((shares.told > 0, shares.held > 0), (exact && memory > 0, exact && memory > 0));
                for workers in [1, 4] {
                    let join = join_config(&config, workers);
                    let all = workers * (join.max_suspects * join::SUSPECT_BYTES + join.max_waiting_bytes);
                    assert!((own + all) as u64 <= memory, "{memory} {workers} {shares:?} {join:?}");
                    assert_eq!(join.max_waiting, MAX_WAITING);
                }
            }
        }
        let most = Shares::of(&Config { memory: 1 << 40, exact: true, ..Config::default() });
        assert_eq!((most.told, most.held), (MAX_TOLD, MAX_HELD));
    }

    /// Sizes just past those at which tables become larger, and one between.
    const COUNTS: [usize; 4] = [449, 1793, 3585, 5000];
    /// What is there whatever the count is. Bytes.
    const BASE: usize = 32 << 10;

    fn peak(what: &str, of_each: usize, count: usize, work: impl FnOnce()) {
        let most = allocation_counter::measure(work).bytes_max;
        let expected = (count * of_each + BASE) as u64;
        assert!(most <= expected, "{what}: {count} take {most}, not {of_each} each");
        assert!(4 * most >= expected, "{what}: {count} take {most} only, not {of_each} each");
    }

    fn tuple(number: usize) -> Tuple {
        let client = (IpAddr::from([10, 244, 1, 2]), 40_001);
        let service = (IpAddr::V4(Ipv4Addr::from_bits(0x0a60_0000 + number as u32)), 80);
        Tuple { protocol: Protocol::TCP, client, service }
    }

    fn row(number: usize, server: usize) -> Row<'static> {
        let server = (IpAddr::V4(Ipv4Addr::from_bits(0x0af4_0000 + server as u32)), 8080);
        let (tuple, state) = (tuple(number), State::TimeWait);
        Row { tuple, server, state, state_text: b"", origin: None, expires: 60, rest: b"" }
    }

    fn decision(number: usize) -> Decision {
        let (at, outcome) = (Duration::ZERO, Outcome::New);
        let tuple = tuple(number);
        Decision { at, tuple, outcome, is_repeated: None, met: None, made: None, after: None, isn: 1 }
    }

    #[test]
    fn nothing_takes_more_than_is_said() {
        for count in COUNTS {
            peak("addresses", series::KNOWN_BYTES, count, || {
                let mut series = Series::with_room(count);
                (0..2 * count).for_each(|number| series.row(&row(number, 1), None));
            });
            let servers = |limits, services: Option<&Services>| {
                let mut drains = Drains::with_room(limits);
                for poll in 0..3 {
                    (0..2 * count).for_each(|number| drains.row(&row(1, number), services));
                    drains.finish(Duration::from_secs(poll), &[], services);
                }
            };
            peak("servers", drain::LOOKED_UP_BYTES, count, || {
                servers(drain::Limits { looked_up: count, draining: 0 }, None);
            });
            let none = Services::default();
            peak("draining servers", drain::DRAINING_BYTES, count, || {
                servers(drain::Limits { looked_up: 0, draining: count }, Some(&none));
            });
            peak("decisions told", TOLD_BYTES, count, || {
                let mut settle = Settle::with_room(count);
                (0..2 * count).for_each(|number| settle.decision(&decision(number), Duration::ZERO));
            });
            peak("decisions on the board", board::DECISION_BYTES, count, || {
                let board = Board::with_room(board::Limits { decisions: count, failed_bytes: 0 });
                (0..2 * count).for_each(|number| board.put_decisions(&[decision(number)]));
            });
            peak("failed exchanges", 2 * board::FAILED_BYTES, count, || {
                let failed_bytes = count * board::FAILED_BYTES;
                let board = Board::with_room(board::Limits { decisions: 0, failed_bytes });
                for number in 0..4 * count {
                    let tuple = tuple(number);
                    let failed = Failed::of(&Record::blank(), 1);
                    board.put_failed(tuple.client.into(), tuple.service.into(), failed);
                    if number == 2 * count {
                        board.turn();
                    }
                }
            });
            peak("entries", ENTRY_BYTES, count, || {
                let mut detector = Detector::new(detect::Config { max_entries: count });
                let mut looks = Vec::new();
                for poll in 1..=4 {
                    detector.begin(Duration::from_secs(poll));
                    (0..count * poll as usize / 3).for_each(|number| detector.push(&row(number, 1)));
                    detector.finish(Duration::ZERO, None, &Kernel::default());
                    looks.push(detector.closed());
                    looks.truncate(2);
                    looks.rotate_right(1);
                }
            });
        }
    }

    #[test]
    fn services_take_no_more_than_is_said() {
        let lines = |services: usize, servers: usize| {
            let mut list = Services::new(services::Limits { services, servers });
            let header = "IP Virtual Server version 1.2.1 (size=4096)\nProt LocalAddress:Port Scheduler Flags\n  \
                -> RemoteAddress:Port Forward Weight ActiveConn InActConn";
            header.lines().for_each(|line| list.line(line.as_bytes()));
            for number in 0..services {
                list.line(format!("TCP  0A60{number:04X}:0050 rr persistent 15000 FFFFFFFF").as_bytes());
                for server in 0..servers / services {
                    let server =
                        format!("  -> 0AF4{server:04X}:1F90      Masq    1      8          2         ");
                    list.line(server.as_bytes());
                }
            }
            assert_eq!((list.room(), list.left_out), (0, 0));
        };
        for count in COUNTS {
            peak("services", services::SERVICE_BYTES, count, || lines(count, 0));
            peak("servers of one service", services::SERVER_BYTES, count, || lines(1, count));
        }
    }

    #[test]
    fn the_readme_says_what_there_is_room_for() {
        let told = |memory: u64, workers| {
            let config = Config { memory, exact: true, ..Config::default() };
            let Shares { services, entries, .. } = Shares::of(&config);
            let rounded = |count: usize| {
                let count = count - count % if count >= 1000 { 100 } else { 10 };
                if count < 1000 { count.to_string() } else { format!("{},{:03}", count / 1000, count % 1000) }
            };
            let [entries, of_services, servers] =
                [entries.max_entries, services.services, services.servers].map(rounded);
            assert!(join_config(&config, workers).max_suspects > 0);
            format!("{entries} entries, {of_services} services and {servers} real servers")
        };
        let mut config = crate::config::Config::default();
        config.ipvs.mode = Mode::On;
        config.capture.workers = Workers::Exactly(1);
        config.divide_memory().unwrap();
        assert!(config.ipvs.follows());
        let readme = include_str!("../../../../README.md");
        for told in [told(config.ipvs.memory, 1), told(IPVS_LATER_BYTES, 1)] {
            assert!(readme.contains(&told), "README.md should say: {told}");
        }
    }
}
