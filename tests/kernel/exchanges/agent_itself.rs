//! The agent beside those that it watches: its own requests and answers are no exchanges of the machine.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use super::{
    agent::{AMPLE_RING, Agent, get, wait_until},
    http::{self, Client, Server},
    seen::check,
    stage::{Stage, party},
};
use support::{scale, wire::Wire};

use crate::machine;

/// A loop would add records with each turn. The file is named to begin early: the other tests fit beside this wait.
const WATCHED: Duration = Duration::from_secs(60);
/// Enough turns of such a loop, where time is short.
const LEAST_WATCHED: Duration = Duration::from_secs(10);
/// Time between two scrapes.
const SCRAPE_PERIOD: Duration = Duration::from_secs(1);

#[test]
fn it_never_tells_of_itself() {
    let mut stage = Stage::new();
    let Stage { client, world, .. } = &mut stage;
    let admin = SocketAddr::from((Ipv4Addr::LOCALHOST, 9464));
    let posts = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&posts);
    let collector = Server::with(client.listen((Ipv4Addr::LOCALHOST, 0)), move |stream| {
        let mut wire = Wire::new(stream)?;
        while http::answer(&mut wire)? {
            counted.fetch_add(1, Ordering::SeqCst);
        }
        Ok::<_, std::io::Error>(())
    });
    let url = format!("sinks.http.url=http://{}/in", collector.address);
    let agent = Agent::launch(
        party(&world.client.path(), &world.cgroup.part("agent").unwrap()),
        Some(world.cgroup.path()),
        admin,
        &[AMPLE_RING, &url, "sinks.http.batch_records=1"],
    );
    wait_until("ready", || {
        client.try_connect(None, admin).is_ok_and(|stream| get(stream, "/ready").starts_with("HTTP/1.1 200"))
    });
    let server = Server::start(client.listen((Ipv4Addr::LOCALHOST, 0)));
    let mut seed = Client::connect(client, server.address);
    seed.get("/seed");
    // This test's own attempts to reach it before it listened are exchanges of the machine as any other's.
    let wanted = || 2 + refused(&agent, admin);
    wait_until("its records are posted", || posts.load(Ordering::SeqCst) == wanted());
    // Others need not wait for a test that waits.
    machine::give_back();
    let end = Instant::now() + scale::time(WATCHED, LEAST_WATCHED);
    while Instant::now() < end {
        let metrics = client.try_connect(None, admin).map(|stream| get(stream, "/metrics")).unwrap();
        assert!(metrics.contains("pod2pod_kernel_packets_seen_total"), "{metrics}");
        thread::park_timeout(SCRAPE_PERIOD);
    }
    let lines = agent.lines();
    assert_eq!((posts.load(Ordering::SeqCst), lines.lines().count()), (wanted(), wanted()), "{lines}");
    check(&agent.end().records(), &seed.done);
}

/// Records so far of attempts to connect to `port` that were refused.
fn refused(agent: &Agent, port: SocketAddr) -> usize {
    let port = format!("\"server.port\":{},", port.port());
    let is_refused = |line: &&str| {
        ["\"kind\":\"connect\"", "\"outcome\":\"refused\"", &port].iter().all(|word| line.contains(word))
    };
    agent.lines().lines().filter(is_refused).count()
}
