//! A director whose every SYN is followed by exact mode, with a service of each family, and clients that come back with their
//! ports. What is expected of a decision is in the tests.

use std::{
    io::Read as _,
    net::{IpAddr, SocketAddr, TcpListener, TcpStream},
    os::{fd::OwnedFd, unix::fs::MetadataExt as _},
    thread,
    time::{Duration, Instant},
};

use nix::sys::socket::{setsockopt, sockopt::Linger, sockopt::TcpRepair};
use pod2pod_common::decision::DecisionCounter;
use pod2pod_user::{
    capture::kernel::{Decisions, DecisionsConfig, Unavailable},
    ipvs::{
        exact::{Decision, Outcome},
        services::Standing,
        state::State,
    },
};
use rustix::{
    io::Errno,
    net::{AddressFamily, SocketFlags, SocketType, bind, connect, socket_with, sockopt},
};
use support::{
    director::{CLIENT, Director, Family, SERVERS, Service, Settings},
    fact,
    netns::Namespace,
    process::PATIENCE,
};

use super::director::has_ipvs;
use crate::machine;

/// Between two looks at the ring.
const PAUSE: Duration = Duration::from_millis(10);

/// Follows all decisions of one network namespace.
pub(crate) struct Follower {
    pub(crate) decisions: Decisions,
    pub(crate) seen: Vec<Decision>,
}

impl Follower {
    /// Absent where the kernel cannot be followed; that is told. `tells_all`: new connections too, which are only counted otherwise.
    pub(crate) fn new(node: &Namespace, tells_all: bool) -> Option<Self> {
        let namespace = std::fs::metadata(node.path()).unwrap().ino();
        let namespace = Some(u32::try_from(namespace).unwrap());
        let config = DecisionsConfig { namespace, tells_all, ..DecisionsConfig::default() };
        match Decisions::open(&config) {
            Ok(decisions) => Some(Self { decisions, seen: Vec::new() }),
            Err(error @ (Unavailable::NoModuleTypes | Unavailable::NoProbes)) => {
                fact::lacks(&error.to_string());
                None
            }
            Err(error) => panic!("{error}"),
        }
    }

    /// Reads what there is.
    pub(crate) fn read(&mut self) {
        while self.decisions.drain(64, &mut |decision| self.seen.push(*decision)) {}
    }

    /// The next decision on a SYN that was not sent before: on a busy machine some are sent again.
    pub(crate) fn next(&mut self) -> Decision {
        let mut told = None;
        until("a decision", || {
            self.read();
            while told.is_none() && !self.seen.is_empty() {
                told = Some(self.seen.remove(0)).filter(|decision| decision.is_repeated != Some(true));
            }
            told.is_some()
        });
        told.unwrap()
    }

    pub(crate) fn count(&self, counter: DecisionCounter) -> u64 {
        self.decisions.counters().of(counter)
    }

    /// Nothing was lost, and every SYN has its outcome; so many were decided on.
    pub(crate) fn is_complete(&self) -> u64 {
        use DecisionCounter::{
            Dropped, Lost, New, NotOurs, PassedOn, Repeated, Rescheduled, Reused, RingFull, Syns, Unreadable,
        };
        let counters = self.decisions.counters();
        let decided = [NotOurs, New, Reused, Rescheduled, Dropped, PassedOn, Repeated];
        let sum: u64 = decided.iter().map(|counter| counters.of(*counter)).sum();
        let shown: Vec<_> =
            DecisionCounter::ALL.iter().map(|counter| (counter.name(), counters.of(*counter))).collect();
        assert_eq!([Lost, RingFull, Unreadable].map(|counter| counters.of(counter)), [0; 3], "{shown:?}");
        assert_eq!(sum, counters.of(Syns), "{shown:?}");
        assert_eq!(self.decisions.malformed(), 0);
        sum
    }
}

/// Waits until `condition`.
pub(crate) fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "still not: {what}");
        thread::park_timeout(PAUSE);
    }
}

/// A director that is followed, with a service of each family.
pub(crate) struct World {
    pub(crate) director: Director,
    /// Absent if it is not wanted.
    follower: Option<Follower>,
    listeners: [TcpListener; 4],
    /// Of the next client.
    port: u16,
}

/// A connection: its server, and both ends.
pub(crate) struct Served {
    pub(crate) server: usize,
    pub(crate) client: TcpStream,
    pub(crate) accepted: TcpStream,
}

/// A client: its family and port.
pub(crate) type From = (Family, u16);

pub(crate) const BOTH: [Family; 2] = [Family::V4, Family::V6];

pub(crate) const fn service(family: Family) -> Service {
    Service { is_tcp: true, family, port: 80, server_port: 8080 }
}

/// A real server of the service.
pub(crate) fn end(family: Family, server: usize) -> (IpAddr, u16) {
    (SERVERS[server].of_family(family), service(family).server_port)
}

impl World {
    pub(crate) fn new(settings: Settings, flags: &str) -> Option<Self> {
        if !has_ipvs() {
            return None;
        }
        machine::share();
        let director = Director::new(settings);
        let follower = Some(Follower::new(&director.node, true)?);
        Some(Self::of(director, follower, flags))
    }

    /// One that the test does not follow.
    pub(crate) fn unfollowed(settings: Settings) -> Option<Self> {
        machine::share();
        has_ipvs().then(|| Self::of(Director::new(settings), None, ""))
    }

    fn of(director: Director, follower: Option<Follower>, flags: &str) -> Self {
        let listen = |family: Family, server: usize| {
            director.servers[server].within(|| {
                let listener = TcpListener::bind(service(family).server(server)).unwrap();
                listener.set_nonblocking(true).unwrap();
                listener
            })
        };
        let [v4, v6] = BOTH;
        let listeners = [listen(v4, 0), listen(v4, 1), listen(v6, 0), listen(v6, 1)];
        BOTH.into_iter().for_each(|family| director.serve(service(family), flags));
        Self { director, follower, listeners, port: 40_000 }
    }

    pub(crate) fn follower(&mut self) -> &mut Follower {
        self.follower.as_mut().unwrap()
    }

    /// A client that was not there before.
    pub(crate) fn client(&mut self, family: Family) -> From {
        self.port += 1;
        (family, self.port)
    }

    /// Sends a SYN from this port to the service, or to another of its ports.
    pub(crate) fn dial_to(&self, (family, port): From, service_port: u16) -> OwnedFd {
        let kind = if family == Family::V6 { AddressFamily::INET6 } else { AddressFamily::INET };
        let mut to = service(family).address();
        to.set_port(service_port);
        self.director.client.within(|| {
            let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
            let mut dialed = None;
            // The last acknowledgement of the connection before may still be on its way.
            until("the port is free", || {
                let socket = socket_with(kind, SocketType::STREAM, flags, None).unwrap();
                sockopt::set_socket_reuseaddr(&socket, true).unwrap();
                bind(&socket, &SocketAddr::new(CLIENT.of_family(family), port)).unwrap();
                match connect(&socket, &to) {
                    Err(Errno::INPROGRESS) => dialed = Some(socket),
                    Err(Errno::ADDRNOTAVAIL) => {}
                    other => panic!("{other:?}"),
                }
                dialed.is_some()
            });
            dialed.unwrap()
        })
    }

    pub(crate) fn dial(&self, from: From) -> OwnedFd {
        self.dial_to(from, service(from.0).port)
    }

    /// Waits until a server takes the connection.
    pub(crate) fn served(&self, client: OwnedFd) -> Served {
        let mut taken = None;
        until("served", || {
            let accepted = self.listeners.iter().enumerate().find_map(|(listener_number, listener)| {
                listener.accept().ok().map(|(accepted, _)| (listener_number % 2, accepted))
            });
            taken = taken.take().or(accepted);
            taken.is_some()
        });
        let (server, accepted) = taken.unwrap();
        let client = TcpStream::from(client);
        for end in [&client, &accepted] {
            end.set_nonblocking(false).unwrap();
            end.set_read_timeout(Some(PATIENCE)).unwrap();
        }
        Served { server, client, accepted }
    }

    /// The decision on what this client sent.
    pub(crate) fn told(&mut self, from: From) -> Decision {
        let told = self.follower().next();
        let service = service(from.0).address();
        assert_eq!(told.tuple.client, (CLIENT.of_family(from.0), from.1));
        assert_eq!(told.tuple.service, (service.ip(), service.port()));
        told
    }

    /// A first connection, which is told as new if anything is told.
    pub(crate) fn first(&mut self, from: From) -> Served {
        let served = self.served(self.dial(from));
        if self.follower.is_none() {
            return served;
        }
        let told = self.told(from);
        assert_eq!((told.outcome, told.met), (Outcome::New, None));
        assert_eq!(told.made, Some((end(from.0, served.server), Standing::Weight(1))));
        served
    }

    /// A connection of a client, whose entry then is in `state`; gives its server.
    pub(crate) fn ended_in(&mut self, state: State, from: From) -> usize {
        let Served { server, client, accepted } = self.first(from);
        match state {
            State::TimeWait => {
                drop(accepted);
                assert_eq!((&client).read(&mut [0]).unwrap(), 0);
                drop(client);
            }
            State::FinWait => {
                accepted.shutdown(std::net::Shutdown::Write).unwrap();
                assert_eq!((&client).read(&mut [0]).unwrap(), 0);
                self.wait_for(from.1, state);
                [client, accepted].into_iter().for_each(vanish);
            }
            State::Close => {
                setsockopt(&client, Linger, &libc::linger { l_onoff: 1, l_linger: 0 }).unwrap();
                drop(client);
            }
            _ => [client, accepted].into_iter().for_each(vanish),
        }
        self.wait_for(from.1, state);
        server
    }

    /// Waits until the entry of a client's port is in this state.
    pub(crate) fn wait_for(&self, port: u16, state: State) {
        let (port, state) = (format!(" {port:04X} "), format!(" {} ", state.as_str()));
        until("in its state", || {
            let table = self.director.read("ip_vs_conn");
            table.lines().any(|line| line.contains(&port) && line.contains(&state))
        });
    }

    /// The same SYN is sent again, and decided on again.
    pub(crate) fn again(&mut self) -> Decision {
        until("sent again", || {
            self.follower().read();
            !self.follower().seen.is_empty()
        });
        self.follower().seen.remove(0)
    }
}

/// It is gone without a word.
fn vanish(end: TcpStream) {
    setsockopt(&end, TcpRepair, &1).unwrap();
}
