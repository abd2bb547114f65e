//! Many exchanges at once: each is told by both ends, once, whole, in its place, and nothing else is.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    thread,
};

use support::{scale, world::SERVER_POD};

use super::{
    agent::{AMPLE_RING, Agent},
    seen::{ENDS, Exchange, check, misnumbered, tell},
    stage::{Stage, prepare},
};
use crate::machine;

const CONNECTIONS: usize = 100;
/// Requests of each connection, where the machine is fast enough for them.
const REQUESTS: usize = 1000;
/// Threads of each party; each has its share of the connections.
const THREADS: usize = 4;
/// A whole response, the same for all.
const RESPONSE: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\nabcdefghijkl";
const RESPONSE_BYTES: u64 = 12;

fn target(connection: usize, request: usize) -> String {
    format!("/{connection:03}/{request:04}")
}

/// All of one length, so that the server need not look for their ends.
fn request(connection: usize, request: usize) -> String {
    format!("GET {} HTTP/1.1\r\nHost: kernel.test\r\n\r\n", target(connection, request))
}

/// One request on each connection, then all their responses, and again.
fn ask(first: usize, connections: &mut [TcpStream], requests: usize) {
    let mut response = [0; RESPONSE.len()];
    for round in 0..requests {
        for (number, connection) in (first..).zip(connections.iter_mut()) {
            connection.write_all(request(number, round).as_bytes()).unwrap();
        }
        for connection in connections.iter_mut() {
            connection.read_exact(&mut response).unwrap();
            assert_eq!(response, RESPONSE);
        }
    }
}

fn answer(connections: &mut [TcpStream], requests: usize) {
    let mut asked = vec![0; request(0, 0).len()];
    for _ in 0..requests {
        for connection in connections.iter_mut() {
            connection.read_exact(&mut asked).unwrap();
            connection.write_all(RESPONSE).unwrap();
        }
    }
}

#[test]
fn a_hundred_thousand_exchanges_are_told_by_both_ends_and_nothing_else() {
    check_load(&[AMPLE_RING, "capture.workers=1"], scale::count(REQUESTS, 1));
}

#[test]
fn three_workers_tell_every_exchange_once() {
    check_load(&["capture.workers=3"], scale::count(REQUESTS / 10, 1));
}

/// So many requests on each connection: each exchange is told by both ends, and nothing else is.
fn check_load(settings: &[&str], requests: usize) {
    machine::take_whole();
    let mut stage = Stage::new();
    let agent = Agent::start(Some(stage.world.cgroup.path()), settings);
    let listener = stage.server.listen((SERVER_POD.v4, 0));
    let address = listener.local_addr().unwrap();
    let pair = |_| {
        let client = stage.client.connect(address);
        let server = listener.accept().unwrap().0;
        prepare(&server);
        (client, server)
    };
    let (mut clients, mut servers): (Vec<_>, Vec<_>) = (0..CONNECTIONS).map(pair).unzip();
    let share = CONNECTIONS / THREADS;
    thread::scope(|scope| {
        for servers in servers.chunks_mut(share) {
            scope.spawn(move || answer(servers, requests));
        }
        for (number, clients) in clients.chunks_mut(share).enumerate() {
            scope.spawn(move || ask(number * share, clients, requests));
        }
    });
    drop((clients, servers));
    let done = (0..CONNECTIONS).flat_map(|connection| {
        (0..requests).map(move |request| Exchange::complete(target(connection, request), 0, RESPONSE_BYTES))
    });
    let done: Vec<Exchange> = done.collect();
    let told = 2 * done.len() as u64;
    let metrics = agent.wait_metrics("every record is read, and the books balance", |metrics| {
        metrics.balance().is_ok() && metrics.counter("http_complete") == told
    });
    assert_eq!(metrics.kernel("ring_lost"), 0);
    for withheld in ["segments_not_http", "segments_unwanted", "segments_unreadable", "heartbeat_stale"] {
        assert_eq!(metrics.kernel(withheld), 0, "{withheld}");
    }
    let ended = agent.end();
    let records = ended.records();
    check(&records, &done);
    for end in ENDS {
        tell(&misnumbered(end, &records), records.len());
    }
    assert_eq!(ended.summary, format!("pod2pod: seen {told}, delivered {told}, lost 0"));
}
