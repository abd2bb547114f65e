//! Bulk: bodies that nobody looks into, of any size, cost little and change nothing, with a ring of the default size.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, mpsc::sync_channel},
    thread,
    time::Duration,
};

use pod2pod_common::limits::CREDIT_BYTES;
use support::{scale, wire::Framing, world::SERVER_POD};

use super::{
    agent::Agent,
    http::{Body, Client, Server},
    seen::{ENDS, End, Exchange, check, misnumbered, of, tell},
    stage::Stage,
};

const MEGABYTE: u64 = 1 << 20;
/// Four times the ring.
const HUGE: u64 = 64 << 20;
/// Where all is slow.
const LEAST_HUGE: u64 = 4 << 20;
/// Large bodies in a row.
const LARGE: usize = 20;
/// Where all is slow.
const LEAST_LARGE: usize = 5;

/// A server and an agent as people run it.
fn play(talk: impl FnOnce(&mut Stage, SocketAddr) -> Vec<Exchange>) -> (Vec<Exchange>, Agent) {
    let mut stage = Stage::new();
    let agent = Agent::start(Some(stage.world.cgroup.path()), &[]);
    let server = Server::start(stage.server.listen(SocketAddr::from((SERVER_POD.v4, 0))));
    let done = talk(&mut stage, server.address);
    (done, agent)
}

#[test]
fn bodies_of_known_length_are_skipped_and_counted_to_the_byte() {
    let huge = scale::bytes(HUGE, LEAST_HUGE);
    let (done, agent) = play(|stage, address| {
        let mut client = Client::connect(&mut stage.client, address);
        for round in 0..scale::count(LARGE, LEAST_LARGE) {
            client.get(&format!("/{round}/length/{MEGABYTE}"));
            client.get(&format!("/{round}/small"));
            client.post(&format!("/{round}/up"), Body::Length, MEGABYTE);
        }
        client.get(&format!("/huge/length/{huge}"));
        client.get("/between");
        client.post("/huge/up", Body::Length, huge);
        client.get("/after");
        client.done
    });
    let told = 2 * done.len() as u64;
    let metrics =
        agent.wait_metrics("every exchange is told", |metrics| metrics.counter("http_complete") == told);
    assert_eq!(metrics.kernel("ring_lost"), 0);
    let large: u64 =
        done.iter().map(|exchange| exchange.request_bytes + exchange.response_bytes.unwrap_or(0)).sum();
    let sent = metrics.kernel("bytes_sent");
    assert!(sent < large, "{sent} bytes were told of two times {large}");
    assert!(metrics.kernel("bytes_skipped") > huge, "{}", metrics.kernel("bytes_skipped"));
    let records = agent.end().records();
    check(&records, &done);
    for end in ENDS {
        tell(&misnumbered(end, &records), records.len());
    }
}

#[test]
fn chunked_bodies_are_told_with_what_was_seen_of_them() {
    let huge = scale::bytes(HUGE, LEAST_HUGE);
    let (done, agent) = play(|stage, address| {
        let mut client = Client::connect(&mut stage.client, address);
        client.get("/before");
        client.get(&format!("/huge/chunked/{huge}"));
        client.get("/between");
        client.post("/up", Body::Chunked, huge);
        client.get("/after");
        client.done
    });
    let metrics =
        agent.wait_metrics("every exchange is told", |metrics| metrics.counter("http_complete") >= 10);
    assert_eq!(metrics.kernel("ring_lost"), 0);
    let records = agent.end().records();
    for end in ENDS {
        let told = of(end, &records);
        assert_eq!(told.len(), done.len(), "{told:?}");
        for (seen, exchange) in told.iter().zip(&done) {
            let bytes = seen.exchange.response_bytes.unwrap();
            assert!(seen.exchange.request_bytes <= exchange.request_bytes, "{seen:?}");
            assert!(bytes <= exchange.response_bytes.unwrap(), "{seen:?}");
            let whole = Exchange {
                request_bytes: exchange.request_bytes,
                response_bytes: exchange.response_bytes,
                ..seen.exchange.clone()
            };
            assert_eq!(whole, *exchange, "all but the sizes");
            if !exchange.target.contains("chunked") {
                assert_eq!(seen.exchange.response_bytes, exchange.response_bytes, "{seen:?}");
            }
        }
        tell(&misnumbered(end, &records), records.len());
    }
}

/// Pieces of half a credit, twice the credit in all.
const STEP: usize = CREDIT_BYTES as usize / 2;
const STEPS: usize = 4;

#[test]
fn a_chunked_body_that_is_read_in_time_is_told_whole() {
    let mut stage = Stage::new();
    let agent = Agent::start(Some(stage.world.cgroup.path()), &[]);
    let (go, wait) = sync_channel::<()>(1);
    let wait = Arc::new(Mutex::new(wait));
    let server = Server::with(stage.server.listen(SocketAddr::from((SERVER_POD.v4, 0))), move |stream| {
        let mut wire = support::wire::Wire::new(stream).unwrap();
        while wire.head().unwrap().is_some() {
            wire.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").unwrap();
            for _ in 0..STEPS {
                wait.lock().unwrap().recv().unwrap();
                let size = format!("{STEP:x}\r\n");
                wire.write(&[size.as_bytes(), &[b'x'; STEP], b"\r\n"].concat()).unwrap();
            }
            wire.write(b"0\r\n\r\n").unwrap();
        }
    });
    let mut client = Client::connect(&mut stage.client, server.address);
    let done = thread::scope(|scope| {
        let fetching = scope.spawn(|| {
            client.fetch("/steps", (STEPS * STEP) as u64);
            client.done
        });
        for step in 0..STEPS as u64 {
            let read = ENDS.len() as u64 * step * STEP as u64;
            agent.wait_metrics("what was sent is read", |metrics| {
                metrics.counter("reassembly_bytes_delivered") >= read
            });
            // What was read had been allowed: there is room.
            go.try_send(()).unwrap();
        }
        fetching.join().unwrap()
    });
    check(&agent.end().records(), &done);
}

/// Longer than the time limit of the test's agent.
const PAUSE: Duration = Duration::from_millis(1500);
const TIMEOUT: &str = "http.timeout=500ms";

#[test]
fn a_slow_body_that_is_skipped_is_no_timeout() {
    let mut stage = Stage::new();
    let agent = Agent::start(Some(stage.world.cgroup.path()), &[TIMEOUT]);
    let listener = stage.server.listen(SocketAddr::from((SERVER_POD.v4, 0)));
    let address = listener.local_addr().unwrap();
    let server = Server::with(listener, |stream| {
        let mut wire = support::wire::Wire::new(stream).unwrap();
        while let Some(head) = wire.head().unwrap() {
            wire.body(head.framing(Framing::Length(0)), &mut 0).unwrap();
            let body = vec![b'x'; MEGABYTE as usize];
            wire.write(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", 3 * MEGABYTE).as_bytes())
                .unwrap();
            for pause in [Duration::ZERO, PAUSE, PAUSE] {
                thread::park_timeout(pause);
                wire.write(&body).unwrap();
            }
        }
    });
    let mut client = Client::connect(&mut stage.client, server.address);
    assert_eq!(server.address, address);
    client.fetch("/slow", 3 * MEGABYTE);
    client.fetch("/again", 3 * MEGABYTE);
    let metrics =
        agent.wait_metrics("every exchange is told", |metrics| metrics.counter("http_complete") == 4);
    assert!(metrics.kernel("bytes_skipped") > 4 * MEGABYTE);
    assert_eq!((metrics.counter("http_timeout"), metrics.counter("http_late")), (0, 0));
    let records = agent.end().records();
    assert_eq!(of(End::Client, &records).len(), 2);
    check(&records, &client.done);
}
