//! `limits.cpu`, by the real agent: what it sheds, in which order, and that the watched program does not notice.

use std::{
    io::{Read as _, Write as _},
    net::{Ipv4Addr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use support::{
    metrics::Metrics,
    netns::{Cgroup, Namespace},
    scale,
};

use super::{agent::Agent, restraint::check_ledger, stage::prepare};
use crate::machine;

/// Thousandths of a core: with nothing to do the agent takes a fifth of it, under load many times as much.
/// Ten times as much where every instruction takes longer.
const BUDGET: usize = 25;
/// More than what the kernel tells of a segment while headers are shed (`SHED_SEGMENT_BYTES`).
const REQUEST_HEAD: usize = 1500;
/// More than what it runs ahead while bodies are shed (`SHED_CREDIT_BYTES`), within one window of the receiver.
const BODY: usize = 40_000;
/// Exchanges of a connection, the first of them with that body: new ones come all the time.
const EXCHANGES: usize = 10;
const SMALL_BODY: usize = 100;
/// Time between two looks at the count of answers.
const LOOK: Duration = Duration::from_millis(1);
/// Time between two looks at the metrics, which are published once a second: to look costs processor time too.
const PAUSE: Duration = Duration::from_millis(400);
/// Each level takes a second at least, and one is taken back after five; a machine that is busy is slower.
const PATIENCE: Duration = Duration::from_secs(120);

fn request(target: &str) -> Vec<u8> {
    let head = format!("GET {target} HTTP/1.1\r\nHost: budget\r\nX-Padding: ");
    let padding = "p".repeat(REQUEST_HEAD - head.len() - 4);
    format!("{head}{padding}\r\n\r\n").into_bytes()
}

fn response(body: usize) -> Vec<u8> {
    format!("HTTP/1.1 200 OK\r\nContent-Length: {body}\r\n\r\n{}", "b".repeat(body)).into_bytes()
}

/// One connection after the other until `stop`; every request is answered whole. Counts the answers.
fn load(stop: &AtomicBool, answered: &AtomicU64, target: &str) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    let request = request(target);
    let responses: Vec<_> =
        (0..EXCHANGES).map(|number| response(if number == 0 { BODY } else { SMALL_BODY })).collect();
    while !stop.load(Ordering::Relaxed) {
        let mut client = TcpStream::connect(address).unwrap();
        let mut server = listener.accept().unwrap().0;
        prepare(&client);
        prepare(&server);
        thread::scope(|scope| {
            scope.spawn(|| {
                let mut asked = vec![0; request.len()];
                for response in &responses {
                    server.read_exact(&mut asked).unwrap();
                    assert!(asked == request, "another request than was sent");
                    server.write_all(response).unwrap();
                }
            });
            for response in &responses {
                client.write_all(&request).unwrap();
                let mut answer = vec![0; response.len()];
                client.read_exact(&mut answer).unwrap();
                assert!(answer == *response, "another answer than was sent");
                answered.fetch_add(1, Ordering::Relaxed);
            }
        });
    }
}

/// What was shed so far: bytes of bodies, bytes of headers, connections.
fn shed(metrics: &Metrics) -> [u64; 3] {
    ["bytes_shed_bodies", "bytes_shed_headers", "connections_shed"].map(|name| metrics.kernel(name))
}

/// Looks until `wanted`; nothing may ever have been shed before what is to be shed first.
fn wait(agent: &Agent, what: &str, wanted: impl Fn(&Metrics) -> bool) -> Metrics {
    let start = Instant::now();
    loop {
        let metrics = agent.metrics();
        let [bodies, headers, connections] = shed(&metrics);
        assert!(headers == 0 || bodies > 0, "headers before bodies");
        assert!(connections == 0 || headers > 0, "connections before headers");
        if wanted(&metrics) {
            return metrics;
        }
        let level = metrics.sum("shed_level", "");
        assert!(start.elapsed() < PATIENCE, "still not: {what}; level {level}, {:?}", shed(&metrics));
        thread::park_timeout(PAUSE);
    }
}

#[test]
fn over_its_budget_of_time_the_agent_sheds_in_order_and_takes_it_back() {
    machine::take_whole();
    let (cgroup, host) = (Cgroup::new(), Namespace::new());
    let budget = BUDGET * 10 / scale::count(10, 1);
    let agent = Agent::start(Some(cgroup.path()), &[&format!("limits.cpu=0.{budget:03}")]);
    let (stop, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let [told, count] = [Arc::clone(&answered), Arc::clone(&answered)];
    let end = Arc::clone(&stop);
    let busy = cgroup.spawn(&host, move || load(&end, &told, "/busy"));
    wait(&agent, "connections are shed", |metrics| shed(metrics)[2] > 0);
    // The programs that are watched go on as before.
    let before = count.load(Ordering::Relaxed);
    wait(&agent, "requests are answered", |_| count.load(Ordering::Relaxed) > before + 100);
    stop.store(true, Ordering::Relaxed);
    busy.join().unwrap();
    let metrics = wait(&agent, "nothing is shed any more, and all is read", |metrics| {
        metrics.sum("shed_level", "") == 0
            && metrics.sum("ledger_packets_in_flight", "") == 0
            && metrics.balance().is_ok()
    });
    check_ledger(&metrics, 0);
    assert!(metrics.kernel("segments_shed_connections") > 0);
    // One more connection is told whole.
    let stop = AtomicBool::new(false);
    let (target, told) = ("/after", Arc::new(AtomicU64::new(0)));
    cgroup
        .spawn(&host, move || {
            thread::scope(|scope| {
                let loading = scope.spawn(|| load(&stop, &told, target));
                while told.load(Ordering::Relaxed) == 0 && !loading.is_finished() {
                    thread::park_timeout(scale::pause(LOOK));
                }
                stop.store(true, Ordering::Relaxed);
            });
        })
        .join()
        .unwrap();
    let records = agent.end().records();
    let after = records.iter().filter(|seen| seen.exchange.target == target);
    let sizes: Vec<_> = after.map(|seen| seen.exchange.response_bytes.unwrap()).collect();
    let of = |body| sizes.iter().filter(|size| **size == body as u64).count();
    assert!(of(BODY) >= 2 && of(BODY) * EXCHANGES == sizes.len(), "{sizes:?}");
    assert_eq!(of(SMALL_BODY), of(BODY) * (EXCHANGES - 1), "{sizes:?}");
    // What was shed is no record; of the rest both ends told.
    let busy = records.iter().filter(|seen| seen.exchange.target == "/busy").count() as u64;
    assert!(busy > 0 && busy < 2 * answered.load(Ordering::Relaxed), "{busy}");
}
