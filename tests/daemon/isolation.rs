//! Isolation: what one of four sinks is like costs the others nothing.
//!
//! Each run is a replay of the same file to four sinks, and takes until three of them have all of it. Rounds of all runs are interleaved,
//! so that what else the machine does meets all alike. Medians are printed, and what the replay took of processors until then. On a
//! machine that others use too the verdict is of the best of each by [`BUSY_SHARE`], since who waits for another sink waits for seconds,
//! and of processors by [`WORK_SHARE`]; with [`EXACT_VARIABLE`] it is of the medians too, by [`EXACT_SHARE`].

use std::{
    fs,
    time::{Duration, Instant},
};

use support::{
    process::{PATIENCE, Running, command},
    server::Nobody,
    stand_in::{Manner, Protocol, StandIn},
};

use crate::capture;

/// Records of a run.
const RECORDS: usize = 10_000;
/// Runs of each kind.
const ROUNDS: usize = 5;
/// Of the throughput with four that are well, so much has to be left.
const EXACT_SHARE: f64 = 0.95;
/// The same where somebody else may take a core for a whole run.
const BUSY_SHARE: f64 = 0.5;
/// Of the work with four that are well, by the work there is: caches are others' too.
const WORK_SHARE: f64 = 0.8;
/// Asks for the exact verdict, of a machine that does nothing else, after so many rounds.
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

/// What three sinks took for all records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Took {
    time: Duration,
    /// Of processors, all threads of the replay together.
    work: Duration,
}

/// What a process took of processors so far: fields 14 and 15 of its stat (proc_pid_stat(5)), in hundredths of a second.
fn work(process: u32) -> Duration {
    let stat = procfs::process::Process::new(process.cast_signed()).and_then(|process| process.stat());
    let stat = stat.expect("it runs");
    Duration::from_millis(10 * (stat.utime + stat.stime))
}

fn run(input: &str, fourth: Fourth) -> Took {
    let others = [Protocol::Http, Protocol::Bulk, Protocol::Forward].map(StandIn::local);
    let [http, bulk, forward] = &others;
    let odd = StandIn::local(Protocol::Http);
    let nobody = Nobody::new();
    let address = match fourth {
        Fourth::Behaves(manner) => {
            odd.behave(manner);
            odd.address
        }
        Fourth::Dead => nobody.address,
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
    let took = Took { time: begin.elapsed(), work: work(replay.id()) };
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
    let exact = std::env::var(EXACT_VARIABLE).ok();
    let rounds = exact.as_ref().map_or(ROUNDS, |rounds| rounds.parse().expect("a number of rounds"));
    let (mut runs, mut costly) = (FOURTHS.map(|_| Vec::new()), Vec::new());
    for _ in 0..rounds {
        for (fourth, runs) in FOURTHS.iter().zip(&mut runs) {
            runs.push(run(&input, *fourth));
        }
    }
    runs.iter_mut().for_each(|runs| runs.sort_unstable());
    let at = |place: usize| runs.each_ref().map(|runs| runs[place].time.as_secs_f64());
    let (best, medians) = (at(0), at(rounds / 2));
    let work = runs.each_ref().map(|runs| runs.iter().map(|run| run.work.as_secs_f64()).sum::<f64>());
    for (place, fourth) in FOURTHS.iter().enumerate() {
        let shares = [&medians, &best, &work].map(|figures| figures[0] / figures[place]);
        let (rate, work) = (RECORDS as f64 / medians[place], work[place] / rounds as f64);
        eprintln!(
            "{fourth:?}: {rate:.0} records a second, {work:.3} s of processors; of all well {shares:.3?}"
        );
        let least = [if exact.is_some() { EXACT_SHARE } else { 0.0 }, BUSY_SHARE, WORK_SHARE];
        if shares.iter().zip(least).any(|(share, least)| *share < least) {
            costly.push((fourth, shares));
        }
    }
    assert!(costly.is_empty(), "these cost the others, by median, best and processors: {costly:.3?}");
}
