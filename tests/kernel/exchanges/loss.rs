//! A ring that overflows: what is told stays true and joins, what is lost is counted.

use std::{
    collections::{HashMap, HashSet},
    thread,
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;
use pod2pod_common::limits::HEARTBEAT_TIMEOUT_NS;
use support::world::SERVER_POD;

use super::{
    agent::{AMPLE_RING, Agent},
    http::{Client, Server},
    seen::{End, Seen, check_end, of, tell},
    stage::Stage,
};

const CONNECTIONS: usize = 8;
/// Exchanges of each connection that nothing disturbs, before and after.
const CALM: usize = 5;
/// Exchanges of each while the reader stands still: several times what the ring holds, and less than the kernel sends of a
/// connection ahead of its reader.
const STORM: usize = 10;
/// Further ones, which the ring has no room for either.
const STORM_LATER: usize = 4;
/// Content of a response in the storm: the ring fills before the dead man's switch ends it, however slow the machine.
const STORM_SIZE: usize = 16 * 1024;
/// The smallest there is.
const TINY_RING: &str = "capture.ring_bytes=256KiB";

fn talk(clients: &mut [Client], phase: &str, rounds: usize, size: usize) {
    for round in 0..rounds {
        for (number, client) in clients.iter_mut().enumerate() {
            client.get(&format!("/{phase}/{number}/{round}/length/{}", size + round % 50));
        }
    }
}

fn is_of(seen: &Seen, phase: &str) -> bool {
    seen.exchange.target.starts_with(&format!("/{phase}/"))
}

#[test]
fn what_is_left_of_one_end_joins_the_other_and_is_never_called_a_failure() {
    what_is_left_joins(Duration::ZERO);
}

#[test]
fn behind_what_nobody_watched_exchanges_are_told_again() {
    // The dead man's switch is off for the second half of the storm.
    what_is_left_joins(Duration::from_nanos(HEARTBEAT_TIMEOUT_NS));
}

/// Both ends of the same exchanges; the server's agent stands still during a storm, of which the second half comes `later`.
fn what_is_left_joins(later: Duration) {
    let mut stage = Stage::new();
    let part = |name| stage.world.cgroup.part(name).unwrap();
    let at_client = Agent::start(Some(&part("client")), &[AMPLE_RING]);
    let at_server = Agent::start(Some(&part("server")), &[TINY_RING]);
    let server = Server::start(stage.server.listen((SERVER_POD.v4, 0)));
    let connect = |_| Client::connect(&mut stage.client, server.address);
    let mut clients: Vec<Client> = (0..CONNECTIONS).map(connect).collect();
    talk(&mut clients, "before", CALM, 0);
    at_server.wait_records("those before are told", |records| records.len() == CONNECTIONS * CALM);
    at_server.signal(Signal::SIGSTOP);
    talk(&mut clients, "storm", STORM, STORM_SIZE);
    let until = Instant::now() + later;
    while Instant::now() < until {
        thread::park_timeout(until.saturating_duration_since(Instant::now()));
    }
    talk(&mut clients, "late", STORM_LATER, STORM_SIZE);
    at_server.signal(Signal::SIGCONT);
    at_server.wait_metrics("it has read what is left, and knows what is not", |metrics| {
        let lost = ["ring_lost", "segments_ring_full", "bytes_ring_full"];
        lost.iter().all(|name| metrics.kernel(name) > 0) && metrics.balance().is_ok()
    });
    assert!(later.is_zero() || at_server.metrics().kernel("heartbeat_stale") > 0);
    talk(&mut clients, "after", CALM, 0);
    let done: Vec<_> = clients.into_iter().flat_map(|client| client.done).collect();
    let (client_told, server_told) = (at_client.end(), at_server.end());
    assert!(server_told.summary.contains("segments in the kernel (ring full)"), "{}", server_told.summary);

    let (whole, rest) = (client_told.records(), server_told.records());
    check_end(End::Client, &whole, &done);
    let calm = |phase| {
        let told = of(End::Server, &rest).into_iter().filter(|seen| is_of(seen, phase));
        told.map(|seen| &seen.exchange).collect::<Vec<_>>()
    };
    for phase in ["before", "after"] {
        assert_eq!(calm(phase).len(), CONNECTIONS * CALM, "{phase}: {:?}", calm(phase));
    }
    let by_id: HashMap<_, _> = whole.iter().map(|seen| ((&seen.id, seen.offset), seen)).collect();
    let mut differences = Vec::new();
    let mut told = HashSet::new();
    // Of each connection the first response behind the storm: what it answers may be among what was lost.
    let mut unasked = HashSet::new();
    for seen in &rest {
        if seen.exchange.target.is_empty() && seen.exchange.outcome == "gap" && unasked.insert(&seen.id) {
            continue;
        }
        let other = by_id.get(&(&seen.id, seen.offset));
        let joins = other.is_some_and(|other| other.exchange.target == seen.exchange.target);
        let whole = other.is_some_and(|other| other.exchange == seen.exchange);
        let outcome = seen.exchange.outcome.as_str();
        if !joins || !(whole || outcome == "gap") || !told.insert((&seen.id, seen.offset)) {
            differences.push(format!("{seen:?} beside {other:?}"));
        }
    }
    tell(&differences, rest.len());
    let complete = rest.iter().filter(|seen| seen.exchange.outcome == "complete").count();
    assert!(complete < done.len(), "nothing was lost");
}
