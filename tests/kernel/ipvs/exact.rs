//! Exact mode in the running kernel: each SYN that IPVS gets is told once, with what became of it. Where the kernel cannot be
//! followed, it is said why.

use std::{
    net::{TcpListener, TcpStream},
    time::Duration,
};

use nix::sys::socket::{setsockopt, sockopt::Linger};
use pod2pod_common::decision::DecisionCounter;
use pod2pod_user::ipvs::{
    exact::{Cause, Decision, Met, Outcome},
    services::Standing,
    state::State,
};
use support::{
    director::{Family, Settings},
    fact,
    process::PATIENCE,
    scale,
};

use super::followed::{BOTH, From, World, end, service, until};

const MODE_OFF: Settings = Settings { conn_reuse_mode: 0, expire_nodest_conn: 0, conntrack: 0 };

/// What is known of the entry that was met: it is the first connection's, and its last packet was just now.
fn assert_met(told: &Decision, family: Family, server: usize, state: State, standing: Standing) -> Met {
    let met = told.met.unwrap();
    assert_eq!((met.server, met.state, met.standing), (end(family, server), state, standing));
    let timeout = Duration::from_secs(state.timeout().unwrap().into());
    assert_eq!(met.left + met.idle, timeout, "{met:?}");
    assert!(met.idle < PATIENCE.min(timeout), "{met:?}");
    met
}

#[test]
fn an_old_entry_takes_a_connection_in_mode_0() {
    let Some(mut world) = World::new(MODE_OFF, "") else { return };
    for family in BOTH {
        for state in [State::TimeWait, State::FinWait, State::Close, State::Established] {
            let from = world.client(family);
            let server = world.ended_in(state, from);
            let dialed = world.dial(from);
            let told = world.told(from);
            assert_eq!((told.outcome, told.made), (Outcome::Reused, None), "{family:?} {state:?}");
            assert_met(&told, family, server, state, Standing::Weight(1));
            let after = if state == State::Established { state } else { State::SynRecv };
            assert_eq!(told.after.unwrap().0, after, "{state:?}");
            assert_eq!(world.served(dialed).server, server, "{state:?}");
        }
    }
    world.follower().is_complete();
    assert_eq!(world.follower().count(DecisionCounter::Reused), 8);
}

#[test]
fn a_connection_is_scheduled_anew_in_mode_1() {
    for conntrack in [0, 1] {
        let Some(mut world) = World::new(Settings { conntrack, ..Settings::default() }, "") else { return };
        for (family, state) in
            [(Family::V4, State::TimeWait), (Family::V4, State::Close), (Family::V6, State::TimeWait)]
        {
            let from = world.client(family);
            let server = world.ended_in(state, from);
            let dialed = world.dial(from);
            let told = world.told(from);
            assert_eq!(told.outcome, Outcome::Rescheduled, "{family:?} {state:?}");
            assert_met(&told, family, server, state, Standing::Weight(1));
            let other = 1 - server;
            assert_eq!(told.made, Some((end(family, other), Standing::Weight(1))), "they take turns");
            assert_eq!(told.after.unwrap().0, State::SynRecv);
            assert_eq!(world.served(dialed).server, other, "{state:?}");
        }
        world.follower().is_complete();
    }
}

#[test]
fn a_server_that_drains_keeps_its_clients_or_loses_them() {
    for (nodest, expected) in [(0, Outcome::Reused), (1, Outcome::Rescheduled)] {
        let settings = Settings { expire_nodest_conn: nodest, ..MODE_OFF };
        let Some(mut world) = World::new(settings, "") else { return };
        let from = world.client(Family::V4);
        let server = world.ended_in(State::TimeWait, from);
        world.director.weigh(service(Family::V4), server, 0);
        let dialed = world.dial(from);
        let told = world.told(from);
        assert_eq!(told.outcome, expected);
        assert_met(&told, Family::V4, server, State::TimeWait, Standing::Weight(0));
        let to = if nodest == 0 { server } else { 1 - server };
        assert_eq!((world.served(dialed).server, told.server()), (to, Some(end(Family::V4, to))));
        world.follower().is_complete();
    }
}

#[test]
fn what_is_for_a_removed_server_is_dropped() {
    let Some(mut world) = World::new(MODE_OFF, "") else { return };
    for family in BOTH {
        let from = world.client(family);
        let server = world.ended_in(State::TimeWait, from);
        world.director.remove(service(family), server);
        let dialed = world.dial(from);
        let told = world.told(from);
        assert_eq!(told.outcome, Outcome::Dropped(Cause::RemovedServer), "{told:?}");
        assert_met(&told, family, server, State::TimeWait, Standing::Absent);
        assert_eq!(told.server(), None);
        let again = world.again();
        assert_eq!((again.outcome, again.is_repeated), (told.outcome, Some(true)));
        assert_eq!((again.isn, again.tuple), (told.isn, told.tuple));
        drop(dialed);
    }
    world.follower().is_complete();
}

#[test]
fn a_service_without_servers_drops() {
    let Some(mut world) = World::new(Settings::default(), "") else { return };
    let family = Family::V4;
    world.director.weigh(service(family), 0, 0);
    world.director.weigh(service(family), 1, 0);
    let from = world.client(family);
    let _dialed = world.dial(from);
    let told = world.told(from);
    assert_eq!((told.outcome, told.met, told.made), (Outcome::Dropped(Cause::NoServer), None, None));
    // Nor is there one for a connection whose old entry was given up.
    world.director.weigh(service(family), 0, 1);
    let from = world.client(family);
    let server = world.ended_in(State::TimeWait, from);
    world.director.weigh(service(family), 0, 0);
    let _dialed = world.dial(from);
    let told = world.told(from);
    assert_eq!((told.outcome, server), (Outcome::Dropped(Cause::NoServer), 0));
    assert_met(&told, family, 0, State::TimeWait, Standing::Weight(0));
    world.follower().is_complete();
}

/// netfilter tracks the old connection: the SYN is dropped once, and a second later it is scheduled.
#[test]
fn a_tracked_connection_costs_a_second() {
    let settings = Settings { conntrack: 1, expire_nodest_conn: 1, ..MODE_OFF };
    let Some(mut world) = World::new(settings, "") else { return };
    let from = world.client(Family::V4);
    let server = world.ended_in(State::Established, from);
    world.director.weigh(service(Family::V4), server, 0);
    let dialed = world.dial(from);
    let told = world.told(from);
    assert_eq!(told.outcome, Outcome::Dropped(Cause::Tracked), "{told:?}");
    assert!(
        assert_met(&told, Family::V4, server, State::Established, Standing::Weight(0)).is_tracked(),
        "{told:?}"
    );
    assert_eq!(world.served(dialed).server, 1 - server);
    let again = world.again();
    assert_eq!((again.outcome, again.is_repeated, again.isn), (Outcome::New, Some(true), told.isn));
    assert!(again.at - told.at > Duration::from_millis(900), "{told:?} {again:?}");
    world.follower().is_complete();
}

#[test]
fn a_syn_that_is_sent_again_is_no_new_connection() {
    const SILENT: &str =
        "table inet t { chain i { type filter hook input priority 0; tcp dport 8080 drop; }; }";
    let Some(mut world) = World::new(MODE_OFF, "") else { return };
    for server in &world.director.servers {
        server.run_with("nft -f -", SILENT);
    }
    let from = world.client(Family::V4);
    let dialed = world.dial(from);
    let told = world.told(from);
    assert_eq!(told.outcome, Outcome::New);
    let again = world.again();
    assert_eq!((again.outcome, again.is_repeated), (Outcome::Repeated, Some(true)));
    assert_eq!((again.isn, again.met.unwrap().state), (told.isn, State::SynRecv));
    assert_eq!(again.met.unwrap().server, told.made.unwrap().0);
    // The client gives up and comes back: that is a new connection, and it meets the entry of the one that never was.
    drop(dialed);
    let _dialed = world.dial(from);
    let other = world.told(from);
    assert_eq!((other.outcome, other.is_repeated), (Outcome::Reused, Some(false)), "{other:?}");
    assert_eq!(other.met.unwrap().state, State::SynRecv);
    assert_ne!(other.isn, told.isn);
    world.follower().is_complete();
}

#[test]
fn a_persistent_client_keeps_its_entry_in_mode_1() {
    let Some(mut world) = World::new(Settings::default(), "-p 300") else { return };
    let from = world.client(Family::V4);
    let server = world.ended_in(State::TimeWait, from);
    let dialed = world.dial(from);
    let told = world.told(from);
    assert_eq!(told.outcome, Outcome::Reused);
    let met = assert_met(&told, Family::V4, server, State::TimeWait, Standing::Weight(1));
    assert!(met.is_controlled);
    assert_eq!(world.served(dialed).server, server);
    // Its template sends another port of it to the same server, by an entry of its own.
    let other = world.client(Family::V4);
    assert_eq!(world.first(other).server, server);
    world.follower().is_complete();
}

#[test]
fn what_is_no_service_of_ipvs_is_counted_only() {
    let Some(mut world) = World::new(Settings::default(), "") else { return };
    let from = world.client(Family::V4);
    let _refused = world.dial_to(from, 81);
    let node = world.director.node.clone();
    // The node's own connections pass the hook too, going out and coming in.
    let here = node.within(|| TcpListener::bind("127.0.0.1:0").unwrap());
    let own = node.within(|| TcpStream::connect(here.local_addr().unwrap()).unwrap());
    let from = world.client(Family::V4);
    let served = world.first(from);
    until("counted", || world.follower().count(DecisionCounter::NotOurs) >= 3);
    drop((own, served));
    // A client on the node itself is balanced as others are.
    let _own = node.within(|| TcpStream::connect(service(Family::V4).address()).unwrap());
    assert_eq!(world.follower().next().outcome, Outcome::New);
    world.follower().is_complete();
}

/// Every one of many SYNs has its decision, and each is told.
#[test]
fn no_decision_of_many_is_missed() {
    const MANY: usize = 2000;
    const LEAST: usize = 200;
    let count = scale::count(MANY, LEAST) as u16;
    let Some(mut world) = World::new(MODE_OFF, "") else { return };
    let mut reused = 0;
    for round in 0..2 {
        let clients: Vec<From> = (0..count).map(|number| (Family::V4, 10_000 + number)).collect();
        for from in &clients {
            let served = world.served(world.dial(*from));
            setsockopt(&served.client, Linger, &libc::linger { l_onoff: 1, l_linger: 0 }).unwrap();
        }
        for from in &clients {
            let told = world.told(*from);
            // CLOSE lasts ten seconds: some have run out.
            reused += u64::from(told.outcome == Outcome::Reused);
            assert!(
                told.outcome == Outcome::New || round == 1 && told.outcome == Outcome::Reused,
                "{told:?}"
            );
        }
    }
    assert!(reused > 0);
    assert_eq!(world.follower().count(DecisionCounter::Reused), reused);
    assert!(world.follower().is_complete() >= 2 * u64::from(count));
}

/// Each program is small; the verifier's work on the largest is told.
#[test]
fn the_verifier_accepts_the_probes() {
    const MOST: u32 = 2000;
    let Some(mut world) = World::new(MODE_OFF, "") else { return };
    let known = world.follower().decisions.verified_instructions().iter();
    let largest = known.filter_map(|(program, count)| count.map(|count| (count, *program))).max();
    if let Some((count, program)) = largest {
        fact::verified(program, count);
        assert!(count < MOST, "{program}: {count}");
    }
}
