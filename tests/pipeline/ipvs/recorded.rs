//! Every recorded table, every row of it, against the text itself and against what ipvsadm printed at the same moment.

use std::{collections::BTreeMap, fs, net::SocketAddr, path::Path};

use pod2pod_user::ipvs::{
    parse::{
        Connections,
        services::Matches,
        stats::{self, Figures},
    },
    services::Services,
    state::State,
};
use support::{
    ipvs::{read, recorded, services, tables},
    rng::Rng,
};

/// Files of this name that were recorded.
fn files(name: &str, count: usize) -> Vec<(String, Vec<u8>)> {
    let found = recorded(name);
    assert_eq!(found.len(), count, "{name}");
    found.iter().map(|path| (path.display().to_string(), fs::read(path).unwrap())).collect()
}

#[test]
fn every_row_of_every_table_is_understood_and_written_again() {
    for (name, count) in
        [("ip_vs_conn", 39), ("ip_vs_conn_sync", 39), ("ip_vs_conn.before", 14), ("ip_vs_conn.after", 14)]
    {
        for (path, text) in files(name, count) {
            let read = read([text.as_slice()]);
            let rows: Vec<&[u8]> =
                text.split(|byte| *byte == b'\n').skip(1).filter(|line| !line.is_empty()).collect();
            assert_eq!((read.damage.lines, read.rows.len()), (0, rows.len()), "{path}");
            for (ours, theirs) in read.rows.iter().zip(rows) {
                assert_eq!(String::from_utf8_lossy(ours), String::from_utf8_lossy(theirs), "{path}");
            }
        }
    }
}

#[test]
fn no_state_and_no_forwarding_method_is_unknown() {
    for (path, text) in files("ip_vs_conn", 39) {
        let mut connections = Connections::default();
        for line in text.split(|byte| *byte == b'\n') {
            let state = connections.line(line).map(|row| row.state);
            assert_ne!(state, Some(State::Other), "{path}: {}", String::from_utf8_lossy(line));
        }
    }
    for (path, text) in files("ip_vs", 39) {
        let services = services(&text);
        let of = |start: &str| {
            text.split(|byte| *byte == b'\n').filter(|line| line.starts_with(start.as_bytes())).count()
        };
        let servers: Vec<_> = services.iter().flat_map(|(_, service)| &service.servers).collect();
        let expected = of("TCP ") + of("UDP ") + of("SCTP ") + of("FWM ");
        assert_eq!((services.iter().count(), servers.len()), (expected, of("  -> ") - 1), "{path}");
        assert_eq!((services.table().damage.lines, services.left_out), (0, 0), "{path}");
        assert!(servers.iter().all(|server| server.forward.as_str() != "other"), "{path}");
    }
}

/// `10.244.2.2:8080`, or `0.0.0.7:0` for a mark.
fn end(text: &str) -> SocketAddr {
    text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
}

/// Each line of `ipvsadm -Lnc` and each row of the table at the same moment, as protocol, state and ends.
#[test]
fn entries_are_those_that_ipvsadm_shows() {
    for (path, listing) in files("ipvsadm-Lnc", 12) {
        let listing = String::from_utf8(listing).unwrap();
        let mut theirs: Vec<(String, String, [SocketAddr; 3])> = listing
            .lines()
            .skip(2)
            .map(|line| {
                let columns: Vec<&str> = line.split_whitespace().collect();
                (
                    columns[0].to_owned(),
                    columns[2].to_owned(),
                    [end(columns[3]), end(columns[4]), end(columns[5])],
                )
            })
            .collect();
        let table = fs::read(Path::new(&path).with_file_name("ip_vs_conn")).unwrap();
        let mut connections = Connections::default();
        let mut ours: Vec<_> = table
            .split(|byte| *byte == b'\n')
            .filter_map(|line| {
                let row = connections.line(line)?;
                let ends = [row.tuple.client, row.tuple.service, row.server].map(SocketAddr::from);
                let state = String::from_utf8(row.state_text.to_vec()).unwrap();
                Some((row.tuple.protocol.to_string(), state, ends))
            })
            .collect();
        theirs.sort();
        ours.sort();
        assert_eq!(ours, theirs, "{path}");
    }
}

/// A service as `ipvsadm -Ln` names it, and what it says of each real server.
type Listed = BTreeMap<String, BTreeMap<SocketAddr, (String, [u32; 3])>>;

fn listed(listing: &str) -> Listed {
    let mut listed = Listed::new();
    let mut service = String::new();
    for line in listing.lines().skip(3) {
        let columns: Vec<&str> = line.split_whitespace().collect();
        if columns[0] == "->" {
            let numbers = [3, 4, 5].map(|column| columns[column].parse().unwrap());
            let server = (columns[2].to_ascii_lowercase(), numbers);
            listed.get_mut(&service).unwrap().insert(end(columns[1]), server);
        } else {
            let columns: Vec<&str> = columns.into_iter().filter(|column| *column != "IPv6").collect();
            service = columns[..3].join(" ");
            listed.insert(service.clone(), BTreeMap::new());
        }
    }
    listed
}

fn ours(services: &Services) -> Listed {
    let mut listed = Listed::new();
    for (matches, service) in services.iter() {
        let matches = match matches {
            Matches::Address(protocol, end) => format!("{protocol} {}", SocketAddr::from(*end)),
            Matches::Mark(mark) => format!("FWM {mark}"),
        };
        let servers = service.servers.iter().map(|server| {
            let numbers = [server.weight, server.active, server.inactive];
            (server.end.into(), (server.forward.as_str().to_owned(), numbers))
        });
        listed.insert(format!("{matches} {}", service.scheduler), servers.collect());
    }
    listed
}

#[test]
fn services_are_those_that_ipvsadm_shows() {
    for (path, listing) in files("ipvsadm-Ln", 12) {
        let table = fs::read(Path::new(&path).with_file_name("ip_vs")).unwrap();
        assert_eq!(ours(&services(&table)), listed(&String::from_utf8(listing).unwrap()), "{path}");
    }
}

/// Totals of every processor together.
fn sums(cpus: &[(u64, Figures)]) -> [u64; 5] {
    let sum = |value: fn(&Figures) -> u64| cpus.iter().map(|(_, figures)| value(figures)).sum::<u64>();
    [
        sum(|f| f.connections),
        sum(|f| f.packets_in),
        sum(|f| f.packets_out),
        sum(|f| f.bytes_in),
        sum(|f| f.bytes_out),
    ]
}

/// The kernel adds processors up every two seconds: the totals are those of a moment before.
#[test]
fn totals_are_the_sums_of_processors() {
    let mut alike = 0;
    for (path, text) in files("ip_vs_stats_percpu", 36) {
        let (totals, cpus) = stats::parse(&text).unwrap();
        let Figures { connections, packets_in, packets_out, bytes_in, bytes_out } = totals.total;
        let total = [connections, packets_in, packets_out, bytes_in, bytes_out];
        assert!(total.iter().zip(sums(&cpus)).all(|(total, sum)| *total <= sum), "{path}");
        alike += usize::from(total == sums(&cpus));
        let all = fs::read(Path::new(&path).with_file_name("ip_vs_stats")).unwrap();
        let (all, none) = stats::parse(&all).unwrap();
        assert!(none.is_empty() && all.rate.is_some() && totals.rate.is_some(), "{path}");
        assert_eq!(all.total, totals.total, "{path}");
    }
    assert!(alike >= 12, "{alike} in which no packet came meanwhile");
}

/// What `ipvsadm -Ln --stats` shows of all services together is what the processors counted, at most two seconds before.
#[test]
fn processors_counted_what_ipvsadm_shows() {
    let mut alike = 0;
    for (path, listing) in files("ipvsadm-Ln-stats", 12) {
        let listing = String::from_utf8(listing).unwrap();
        let mut shown = [0; 2];
        for line in listing.lines().skip(3).filter(|line| !line.starts_with("  ->")) {
            let columns: Vec<&str> = line.split_whitespace().filter(|column| *column != "IPv6").collect();
            for (shown, column) in shown.iter_mut().zip(&columns[2..]) {
                *shown += column.parse::<u64>().unwrap();
            }
        }
        let text = fs::read(Path::new(&path).with_file_name("ip_vs_stats_percpu")).unwrap();
        let [connections, packets, ..] = sums(&stats::parse(&text).unwrap().1);
        assert!(shown <= [connections, packets], "{path}: {shown:?} of {connections}, {packets}");
        alike += usize::from(shown == [connections, packets]);
    }
    assert!(alike >= 4, "{alike} in which no packet came meanwhile");
}

/// Recorded tables with bytes changed, cut out and doubled: never a panic, and every property of whole ones.
#[test]
fn damaged_tables_keep_the_properties() {
    let originals: Vec<Vec<u8>> =
        ["ip_vs_conn", "ip_vs_conn_sync", "ip_vs", "ip_vs_stats_percpu", "ip_vs_conn.after"]
            .iter()
            .flat_map(|name| recorded(name))
            .map(|path| fs::read(path).unwrap())
            .collect();
    for seed in 0..600 {
        let mut rng = Rng::new(seed);
        let mut text = originals[rng.below(originals.len())].clone();
        for _ in 0..=rng.below(8) {
            let place = rng.below(text.len());
            let length = rng.below(80).min(text.len() - place);
            match rng.below(4) {
                0 => text[place] = rng.next_u64() as u8,
                1 => text[place] = b" \n:0F9ag-"[rng.below(9)],
                2 => drop(text.drain(place..place + length)),
                _ => text.extend_from_within(place..place + length),
            }
            if text.is_empty() {
                break;
            }
        }
        let held = std::panic::catch_unwind(|| tables(&text));
        assert!(held.is_ok(), "seed {seed}: {}", String::from_utf8_lossy(&text));
    }
}
