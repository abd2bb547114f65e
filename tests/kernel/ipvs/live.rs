//! A live table of some thousand entries: all of it is read, and what changes while it is read is taken for nothing that it is not.
//!
//! The kernel writes such a file page by page, and finds the place to go on by counting entries from the start: what is removed in
//! front of it makes it skip as many, what is added makes it repeat them (`ip_vs_conn_array`).

use std::{
    collections::BTreeSet,
    fs,
    net::{SocketAddr, UdpSocket},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use rustix::{
    io::Errno,
    net::{AddressFamily, SocketFlags, SocketType, bind, connect, socket_with, sockopt},
};
use support::{
    director::{CLIENT, Director, Family, Service, Settings},
    ending::Ending,
    fact, scale,
};

use super::{arrivals::Arrivals, director::has_ipvs, poller::Poller};
use crate::{machine, watch::PATIENCE};

const DATAGRAMS: Service = Service { is_tcp: false, family: Family::V4, port: 53, server_port: 5353 };
const REFUSED: Service = Service { is_tcp: true, family: Family::V4, port: 80, server_port: 8080 };
/// Entries of the tables that are read: where the tests do all that they can, and where all is slow a step more each time.
const SIZES: [usize; 4] = [1000, 5000, 10_000, 20_000];
const LEAST: usize = 750;
/// First port of the clients whose entries stay as they are.
const STABLE_PORTS: u16 = 2000;
/// Ports of clients whose entries live a second.
const SHORT_PORTS: std::ops::Range<u16> = 25_000..55_000;
/// Ports of clients that come back all the time, and are refused each time. Of an odd number each comes to the servers in turn.
const BUSY_PORTS: std::ops::Range<u16> = 60_000..60_015;
/// Polls that change something in the midst of them is to be seen by, at least.
const POLLS: usize = 8;

/// A client sends a datagram, and is gone. The calling thread is where clients are.
fn send(port: u16) {
    let socket = UdpSocket::bind((CLIENT.v4, port)).unwrap();
    socket.send_to(b"to whom it may concern", DATAGRAMS.address()).unwrap();
}

/// A client connects, and is refused.
fn be_refused(port: u16) {
    let socket = socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::CLOEXEC, None).unwrap();
    sockopt::set_socket_reuseaddr(&socket, true).unwrap();
    bind(&socket, &SocketAddr::from((CLIENT.v4, port))).unwrap();
    assert_eq!(connect(&socket, &REFUSED.address()), Err(Errno::CONNREFUSED));
}

/// A director with sockets that take datagrams, and nothing that takes connections.
fn world() -> (Director, [UdpSocket; 2]) {
    let director = Director::new(Settings::default());
    director.serve(DATAGRAMS, "");
    director.serve(REFUSED, "");
    let sockets = [0, 1]
        .map(|server| director.servers[server].within(|| UdpSocket::bind(DATAGRAMS.server(server)).unwrap()));
    (director, sockets)
}

#[test]
fn what_changes_while_it_is_read_is_no_reuse() {
    if !has_ipvs() {
        return;
    }
    machine::share();
    let (director, _sockets) = world();
    let stable = fill(&director);
    let poller = Poller::start(&director, &["--interval", "250ms"]);
    poller.look();
    assert_eq!(poller.last("rows"), stable, "all entries, each once");
    director.node.run("ipvsadm --set 0 0 1");
    let mut arrivals = [0, 1].map(|server| Arrivals::at(&director.servers[server]));
    let (is_over, start) = (AtomicBool::new(false), Instant::now());
    let churn = || {
        director.client.enter();
        for ports in SHORT_PORTS.collect::<Vec<_>>().chunks(BUSY_PORTS.len()) {
            for (short, busy) in ports.iter().zip(BUSY_PORTS) {
                send(*short);
                be_refused(busy);
            }
            if is_over.load(Ordering::Relaxed) {
                return;
            }
        }
    };
    thread::scope(|scope| {
        let _ending = Ending(&is_over);
        let churning = scope.spawn(churn);
        poller.wait_polls(POLLS);
        // Otherwise nothing was tested.
        while poller.last("missed") == 0 || poller.last("doubles") == 0 {
            assert!(start.elapsed() < PATIENCE && !churning.is_finished(), "no reading was disturbed");
            poller.wait_polls(1);
        }
    });
    poller.look();
    let told = poller.told();
    let is_certain = told.iter().filter(|told| told.is_certain).count();
    assert!(is_certain > 0, "clients that came back were missed: {told:?}");
    for told in &told {
        assert_eq!(told.service, REFUSED.address(), "no datagram's entry was met by a new one: {told:?}");
        let servers: BTreeSet<SocketAddr> = arrivals
            .iter_mut()
            .flat_map(|arrivals| arrivals.seen().to_vec())
            .filter(|arrival| arrival.from == told.client)
            .map(|arrival| arrival.to)
            .collect();
        assert!(servers.contains(&told.server), "{told:?} of {servers:?}");
        assert!(told.verdict == "reused" || servers.len() == 2, "{told:?} of {servers:?}");
    }
}

/// Makes entries that stay as they are, and reads the table at some sizes on the way; how many entries there are then.
fn fill(director: &Director) -> u64 {
    let mut made = 0;
    for (index, size) in SIZES.into_iter().enumerate() {
        let size = scale::count(size, LEAST * (index + 1));
        director.client.within(|| (made..size).for_each(|client| send(STABLE_PORTS + client as u16)));
        let (rows, took) = director.node.within(read);
        assert_eq!(rows, size, "all of it, whatever its size");
        fact::read(size as u64, took);
        made = size;
    }
    made as u64
}

/// Reads the table of the calling thread's namespace as it comes; its entries, and the time of the fastest of three readings.
fn read() -> (usize, Duration) {
    let readings = [(); 3].map(|()| {
        let start = Instant::now();
        let table = fs::read("/proc/thread-self/net/ip_vs_conn").unwrap();
        (table.iter().filter(|byte| **byte == b'\n').count() - 1, start.elapsed())
    });
    let [(rows, _), ..] = readings;
    assert!(readings.iter().all(|(own, _)| *own == rows), "{readings:?}");
    (rows, readings.into_iter().map(|(_, took)| took).min().unwrap_or_default())
}
