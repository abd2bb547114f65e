//! What exact mode adds to a packet through IPVS, and to a connection: the same work with it and without it, in turn.
//!
//! Time in an emulated machine goes by instructions, two nanoseconds each, so that a difference is what the probes take and not
//! what the host did meanwhile.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    time::{Duration, Instant},
};

use nix::sys::socket::{setsockopt, sockopt::Linger};
use pod2pod_common::decision::DecisionCounter;
use support::{
    director::{Family, Settings},
    fact, scale,
};

use super::followed::{Follower, Served, World};

/// Requests and answers of a byte on one connection, each a packet.
const TURNS: usize = 4000;
const LEAST_TURNS: usize = 400;
/// Connections that are opened and reset.
const CONNECTIONS: usize = 1000;
const LEAST_CONNECTIONS: usize = 100;
/// Rounds with it and without it; the fastest of each counts.
const ROUNDS: usize = 3;
/// Share of a packet's whole way, sockets and all, that it may add at most; of a connection's likewise.
const MOST: f64 = 0.5;

/// Request and answer on one thread: what the kernel does with a packet is done when it is sent.
fn talk(served: &mut Served, turns: usize) -> Duration {
    let begin = Instant::now();
    for _ in 0..turns {
        for [from, to] in [[&served.client, &served.accepted], [&served.accepted, &served.client]] {
            let (mut from, mut to): (&TcpStream, &TcpStream) = (from, to);
            from.write_all(b"x").unwrap();
            to.read_exact(&mut [0]).unwrap();
        }
    }
    begin.elapsed() / (2 * turns) as u32
}

fn connect(world: &mut World, connections: usize) -> Duration {
    let begin = Instant::now();
    for _ in 0..connections {
        let from = world.client(Family::V4);
        let Served { client, .. } = world.served(world.dial(from));
        setsockopt(&client, Linger, &libc::linger { l_onoff: 1, l_linger: 0 }).unwrap();
    }
    begin.elapsed() / connections as u32
}

#[test]
fn what_it_adds_to_a_packet_and_to_a_connection() {
    let Some(mut world) = World::unfollowed(Settings::default()) else { return };
    let turns = scale::count(TURNS, LEAST_TURNS);
    let connections = scale::count(CONNECTIONS, LEAST_CONNECTIONS);
    let from = world.client(Family::V4);
    let mut served = world.served(world.dial(from));
    // Both ends answer at once, and whatever is looked up for the first time is there.
    [&served.client, &served.accepted].into_iter().for_each(|end| end.set_nodelay(true).unwrap());
    talk(&mut served, turns);
    let [mut without, mut with] = [[Duration::MAX; 2]; 2];
    for _ in 0..ROUNDS {
        let mut round = |world: &mut World, best: &mut [Duration; 2]| {
            let times = [talk(&mut served, turns), connect(world, connections)];
            best.iter_mut().zip(times).for_each(|(best, time)| *best = time.min(*best));
        };
        round(&mut world, &mut without);
        let Some(follower) = Follower::new(&world.director.node, false) else { return };
        round(&mut world, &mut with);
        assert_eq!(follower.count(DecisionCounter::New), connections as u64);
        follower.is_complete();
    }
    for (what, without, with) in [("packet", without[0], with[0]), ("connection", without[1], with[1])] {
        fact::cost(what, without, with);
        assert!(with.as_secs_f64() < without.as_secs_f64() * (1.0 + MOST), "{what}: {without:?} {with:?}");
    }
}
