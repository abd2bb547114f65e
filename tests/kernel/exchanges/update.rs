//! One agent takes the place of another while traffic goes on, as in a rolling update of a DaemonSet: nothing is left of the first
//! one, nothing is lost but what nobody watched, nothing is told twice, and the time in between is counted.

use std::{
    collections::HashMap,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

use support::{ending::Ending, world::SERVER_POD};

use super::{
    agent::{AMPLE_RING, Agent, wait_until},
    detach::loaded,
    http::{Client, Server},
    seen::{ENDS, End, Exchange, Seen, tell},
    stage::{Place, Stage},
};

/// Records of each agent, at least, of requests that it has watched from their begin to their end: of many connections, and of one
/// that goes on all the time.
const ENOUGH: usize = 200;
/// Every so many requests one has a connection of its own.
const SHORT: u64 = 4;
/// Pace of the traffic.
const BREATH: Duration = Duration::from_millis(1);

/// What was done, and when.
struct Done {
    exchange: Exchange,
    begin: Instant,
    end: Instant,
}

/// Requests one after the other until it is enough; `current` is the number of the one that goes on, those below it are done.
fn talk(place: &mut Place, server: &Server, current: &AtomicU64, stop: &AtomicBool) -> Vec<Done> {
    let mut long = Client::connect(place, server.address);
    let mut done = Vec::new();
    for number in 0.. {
        if stop.load(Ordering::SeqCst) {
            break;
        }
        current.store(number, Ordering::SeqCst);
        let begin = Instant::now();
        let target = format!("/update/{number}/length/100");
        let mut short = (number % SHORT == 0).then(|| Client::connect(place, server.address));
        let client = short.as_mut().unwrap_or(&mut long);
        client.get(&target);
        let end = Instant::now();
        let exchange = client.done.pop().unwrap();
        done.push(Done { exchange, begin, end });
        thread::park_timeout(BREATH);
    }
    done
}

/// Number of the request that a record tells; absent of a response whose request nobody watched.
fn number(seen: &Seen) -> Option<u64> {
    seen.exchange.target.strip_prefix("/update/")?.split('/').next()?.parse().ok()
}

/// Records by their end and target.
fn count(records: &[Seen]) -> HashMap<(End, &str), Vec<&Seen>> {
    let mut counted: HashMap<_, Vec<_>> = HashMap::new();
    for seen in records {
        counted.entry((seen.end, seen.exchange.target.as_str())).or_default().push(seen);
    }
    counted
}

/// What of `done` is not in `records` once at each end, as it was.
fn missing(records: &[Seen], done: &[&Done]) -> Vec<String> {
    let counted = count(records);
    let ends = ENDS.iter().flat_map(|end| done.iter().map(move |done| (*end, *done)));
    let is_told = |(end, done): &(End, &Done)| {
        let found = counted.get(&(*end, done.exchange.target.as_str()));
        found.is_some_and(|found| found.len() == 1 && found[0].exchange == done.exchange)
    };
    ends.filter(|one| !is_told(one)).map(|(end, done)| format!("{end:?}: {:?}", done.exchange)).collect()
}

#[test]
fn an_agent_that_takes_over_loses_what_nobody_watched_and_counts_the_time() {
    let mut stage = Stage::new();
    let server = Server::start(stage.server.listen((SERVER_POD.v4, 0)));
    let cgroup = stage.world.cgroup.path().to_owned();
    let folder = tempfile::tempdir().unwrap();
    let data = format!("data_dir={}", folder.path().display());
    let start = || Agent::start(Some(&cgroup), &[AMPLE_RING, &data]);
    let (current, stop) = (AtomicU64::new(0), AtomicBool::new(false));
    let (place, server, current, stop) = (&mut stage.client, &server, &current, &stop);
    let (done, told, times) = thread::scope(|scope| {
        let first = start();
        let enough = Ending(stop);
        let talking = scope.spawn(move || talk(place, server, current, stop));
        first.wait_records("traffic is told", |records| {
            let done = current.load(Ordering::SeqCst);
            records.iter().filter_map(number).filter(|number| *number < done).count() >= ENOUGH
        });
        let programs = first.programs();
        let signalled = Instant::now();
        let first = first.end();
        let ended = Instant::now();
        wait_until("its programs are gone", || programs.is_disjoint(&loaded()));
        let begun = Instant::now();
        let second = start();
        let ready = Instant::now();
        let last_before = current.load(Ordering::SeqCst);
        second.wait_records("traffic is told again", |records| {
            records.iter().filter_map(number).filter(|number| *number > last_before).count() >= ENOUGH
        });
        let metrics = second.metrics();
        drop(enough);
        let done = talking.join().unwrap();
        assert_eq!((metrics.counter("unwatched_gaps"), metrics.counter("unwatched_write_errors")), (1, 0));
        let row =
            metrics.text().lines().find_map(|line| line.strip_prefix("pod2pod_unwatched_seconds_total "));
        let unwatched: f64 = row.unwrap().parse().unwrap();
        let (least, most) = ((begun - ended).as_secs_f64(), (ready - signalled).as_secs_f64());
        assert!(least < unwatched && unwatched < most, "{least} < {unwatched} < {most}");
        (done, [first.records(), second.end().records()], (signalled, ready))
    });
    let (signalled, ready) = times;
    let [first, second] = told;
    let before: Vec<_> = done.iter().filter(|done| done.end < signalled).collect();
    let after: Vec<_> = done.iter().filter(|done| done.begin > ready).collect();
    let gap = done.iter().filter(|done| done.begin > signalled && done.end < ready).count();
    assert!(gap > 0, "nobody spoke while nobody watched");
    assert!(before.len() * 2 >= ENOUGH && after.len() * 2 >= ENOUGH, "{} {}", before.len(), after.len());
    let mut differences = missing(&first, &before);
    differences.extend(missing(&second, &after));
    let all = [first.as_slice(), second.as_slice()].concat();
    let complete: Vec<_> = all.iter().filter(|seen| seen.exchange.outcome == "complete").cloned().collect();
    let twice = count(&complete);
    differences.extend(twice.values().filter(|seen| seen.len() > 1).map(|seen| format!("twice: {seen:?}")));
    tell(&differences, all.len());
    // The connection that went on is one that the second agent joined late; others are not.
    let late = second.iter().filter(|seen| seen.joined_late).map(|seen| seen.client);
    let late: std::collections::HashSet<_> = late.collect();
    assert!(!late.is_empty() && late.len() <= 2, "{late:?}");
}
