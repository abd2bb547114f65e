//! The kernel's table of connections: what it holds is counted, and so what it forgot.

use std::{
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
};

use pod2pod_common::counters::Counter;
use pod2pod_user::capture::kernel::{Config, ScopeChoice, Table};
use support::{
    netns::{Cgroup, Namespace},
    scale,
};

use crate::{verdict::connections, watch::Watch};

const REQUEST: &[u8] = b"GET / HTTP/1.1\r\n\r\n";
/// More ends than one look into the table tells (256).
const CONNECTIONS: usize = 300;
const LEAST_CONNECTIONS: usize = 150;

/// One connection after the other, each with a request and an answer, in a table of `max_connections`; returns the table and
/// how many of the connections' ends the kernel still knows when it is asked for each.
fn after_many_connections(watch: &mut Watch, cgroup: &Cgroup) -> (Table, u64) {
    let host = Namespace::new();
    let talk = cgroup.spawn(&host, || {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        for _ in 0..scale::count(CONNECTIONS, LEAST_CONNECTIONS) {
            let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let (mut server, _) = listener.accept().unwrap();
            client.write_all(REQUEST).unwrap();
            server.read_exact(&mut [0; REQUEST.len()]).unwrap();
            server.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").unwrap();
            client.read_exact(&mut [0; 27]).unwrap();
        }
    });
    watch.during(talk);
    watch.capture.begin_census();
    let table = watch.capture.table();
    let known = connections(watch).iter().filter(|known| watch.readers[0].activity(known).is_some()).count();
    (table, known as u64)
}

fn watch(cgroup: &Cgroup, max_connections: u32) -> Watch {
    // By cgroup each end has one entry, and no handshake an entry of its own.
    let scope = ScopeChoice::Cgroup;
    Watch::open(Config { cgroup: Some(cgroup.path().to_owned()), scope, max_connections, ..Watch::config() })
}

#[test]
fn evictions_are_what_was_inserted_and_is_not_there() {
    const MAX_ENTRIES: u32 = 64;
    let ends = 2 * scale::count(CONNECTIONS, LEAST_CONNECTIONS) as u64;
    let cgroup = Cgroup::new();
    let mut watch = watch(&cgroup, MAX_ENTRIES);
    let (table, known) = after_many_connections(&mut watch, &cgroup);
    let inserted = watch.counter(Counter::ConnectionsInserted);
    assert!(inserted >= ends, "{inserted}");
    assert_eq!(table, Table { entries: known, evicted: inserted - known });
    assert!(known > 0 && known <= MAX_ENTRIES.into(), "{known}");
    watch.assert_lossless();
}

#[test]
fn a_table_with_room_evicts_nothing() {
    let ends = 2 * scale::count(CONNECTIONS, LEAST_CONNECTIONS) as u64;
    let cgroup = Cgroup::new();
    let mut watch = watch(&cgroup, Config::default().max_connections);
    let (table, known) = after_many_connections(&mut watch, &cgroup);
    assert_eq!((table, known), (Table { entries: ends, evicted: 0 }, ends));
    watch.assert_lossless();
}
