//! Isolation: what one of four sinks is like costs the others nothing.
//!
//! Each run is a replay of the same file to four sinks, and takes until three of them have all of it. Rounds of all runs are interleaved and
//! medians compared, so that what else the machine does meets all alike. How much is lost is printed; on a machine that others use too
//! the verdict is of [`BUSY_SHARE`], and of [`EXACT_SHARE`] with [`EXACT_VARIABLE`].

use std::{
    fs,
    net::TcpListener,
    time::{Duration, Instant},
};

use support::{
    process::{PATIENCE, Running, command},
    stand_in::{Manner, Protocol, StandIn},
};

use crate::capture;

/// Records of a run.
const RECORDS: usize = 10_000;
/// Runs of each kind.
const ROUNDS: usize = 3;
/// Of the throughput with four that are well, so much has to be left.
const EXACT_SHARE: f64 = 0.95;
/// The same where somebody else may take a core for a whole run.
const BUSY_SHARE: f64 = 0.7;
/// Asks for the exact verdict, of a machine that does nothing else.
const EXACT_VARIABLE: &str = "POD2POD_TEST_EXACT";

/// The fourth sink.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fourth {
    /// Its server behaves like this.
    Behaves(Manner),
    /// Nobody is there.
    Dead,
}

const FOURTHS: [Fourth; 5] = [
    Fourth::Behaves(Manner::Well),
    Fourth::Dead,
    Fourth::Behaves(Manner::Slow(1)),
    Fourth::Behaves(Manner::Mute),
    Fourth::Behaves(Manner::Held),
];

/// How long three sinks took for all records.
fn run(input: &str, fourth: Fourth) -> Duration {
    let others = [Protocol::Http, Protocol::Bulk, Protocol::Forward].map(StandIn::local);
    let [http, bulk, forward] = &others;
    let odd = StandIn::local(Protocol::Http);
    let address = match fourth {
        Fourth::Behaves(manner) => {
            odd.behave(manner);
            odd.address
        }
        Fourth::Dead => TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap(),
    };
    let settings = [
        "output.file=/dev/null".to_owned(),
        format!("sinks.http.url=http://{}/", http.address),
        "sinks.bulk.type=elasticsearch".to_owned(),
        format!("sinks.bulk.url=http://{}/", bulk.address),
        format!("sinks.forward.url=fluentd://{}", forward.address),
        format!("sinks.odd.url=http://{address}/"),
        // A replay waits for a queue that is full: there is room for all.
        "sinks.odd.queue_bytes=64MiB".to_owned(),
        "limits.memory=256MiB".to_owned(),
    ];
    let mut replay = command(["replay", input]);
    settings.iter().for_each(|setting| {
        replay.args(["--set", setting]);
    });
    let begin = Instant::now();
    let replay = Running::start(replay);
    let deadline = begin + PATIENCE;
    for (server, name) in others.iter().zip(["http", "bulk", "forward"]) {
        let has_all = server.wait_unique(RECORDS, deadline);
        assert!(has_all, "{name} has {} beside {fourth:?}\n{}", server.unique(), replay.stderr());
    }
    let took = begin.elapsed();
    for server in &others {
        assert!(server.taken().values().all(|times| *times == 1), "once each");
    }
    if fourth != Fourth::Behaves(Manner::Well) {
        assert_eq!(odd.unique(), 0, "{fourth:?}");
    }
    took
}

#[test]
fn one_of_four_sinks_costs_the_others_nothing_whatever_it_is_like() {
    let folder = tempfile::tempdir().unwrap();
    let input = folder.path().join("capture");
    fs::write(&input, capture(RECORDS)).unwrap();
    let input = input.display().to_string();
    let mut times = FOURTHS.map(|_| Vec::new());
    for _ in 0..ROUNDS {
        for (fourth, times) in FOURTHS.iter().zip(&mut times) {
            times.push(run(&input, *fourth));
        }
    }
    let medians = times.map(|mut times| {
        times.sort_unstable();
        times[ROUNDS / 2].as_secs_f64()
    });
    let least = if std::env::var_os(EXACT_VARIABLE).is_some() { EXACT_SHARE } else { BUSY_SHARE };
    for (fourth, median) in FOURTHS.iter().zip(medians) {
        let share = medians[0] / median;
        eprintln!("{fourth:?}: {:.0} records a second, {share:.3} of all well", RECORDS as f64 / median);
    }
    for (fourth, median) in FOURTHS.iter().zip(medians) {
        assert!(
            medians[0] / median >= least,
            "{fourth:?} costs the others: {median} s, not {} s",
            medians[0]
        );
    }
}
