//! User space's verdicts: what is not wanted stops, for one generation of one connection.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    os::fd::AsRawFd as _,
    sync::mpsc::{Receiver, SyncSender, sync_channel},
};

use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrStorage, bind, connect, setsockopt, socket,
    sockopt::{Linger, ReuseAddr},
};
use pod2pod_common::{counters::Counter, limits::MAX_VERDICTS};
use pod2pod_user::{
    capture::{Segment, kernel::ScopeChoice},
    reassembly::{self, Connection, Reassembler, Steering, Wanted},
};
use support::netns::{Cgroup, Namespace};

use crate::watch::Watch;

const REQUEST: &str = "GET / HTTP/1.1\r\n\r\n";
/// The client's port: a second connection takes the same tuple.
const CLIENT: &str = "127.0.0.1:40010";

/// The connections that a reassembler makes of what was seen.
pub(crate) fn connections(watch: &Watch) -> Vec<Connection> {
    let mut reassembler = Reassembler::new(reassembly::Config::default());
    let mut connections: Vec<Connection> = Vec::new();
    for seen in &watch.seen {
        let segment: Segment<'_> = seen.segment();
        reassembler.push(&segment, segment.time, &mut |chunk| {
            connections.retain(|known| known.token != chunk.connection.token);
            connections.push(*chunk.connection);
        });
    }
    connections
}

/// Nothing of the connection is wanted.
fn ignore(connection: &Connection) -> Steering {
    Steering { connection: *connection, generation: connection.originator_isn, wanted: Wanted::Nothing }
}

/// Talks twice over the same tuple; each request waits for `go`, each answer is reported by `done`.
fn traffic(go: &Receiver<()>, done: &SyncSender<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    for _ in 0..2 {
        let client = socket(AddressFamily::Inet, SockType::Stream, SockFlag::empty(), None).unwrap();
        setsockopt(&client, ReuseAddr, &true).unwrap();
        let of = |address: SocketAddr| SockaddrStorage::from(address);
        bind(client.as_raw_fd(), &of(CLIENT.parse().unwrap())).unwrap();
        connect(client.as_raw_fd(), &of(listener.local_addr().unwrap())).unwrap();
        let mut client = TcpStream::from(client);
        let (mut server, _) = listener.accept().unwrap();
        for _ in 0..2 {
            go.recv().unwrap();
            client.write_all(REQUEST.as_bytes()).unwrap();
            server.read_exact(&mut [0; REQUEST.len()]).unwrap();
            done.send(()).unwrap();
        }
        // A reset frees the tuple at once.
        setsockopt(&client, Linger, &libc::linger { l_onoff: 1, l_linger: 0 }).unwrap();
    }
}

#[test]
fn an_ignored_connection_is_counted_and_the_next_one_is_told() {
    for scope in [ScopeChoice::Cookie, ScopeChoice::Cgroup] {
        let (cgroup, host) = (Cgroup::new(), Namespace::new());
        let mut watch = Watch::on(&cgroup, scope);
        let (go, wait) = sync_channel(0);
        let (done, answer) = sync_channel(0);
        let talk = cgroup.spawn(&host, move || traffic(&wait, &done));
        let request = || {
            go.send(()).unwrap();
            answer.recv().unwrap();
        };
        request();
        watch.drain();
        let known = connections(&watch);
        assert_eq!(known.len(), 2, "{scope:?}: {known:?}");
        for connection in &known {
            watch.reader().steer(&ignore(connection));
        }
        let told = watch.seen.len();
        request();
        watch.drain();
        // The next connection may be opening already.
        assert!(watch.seen[told..].iter().all(|seen| seen.payload.is_empty()), "{scope:?}");
        assert_eq!(watch.counter(Counter::BytesUnwanted), 2 * REQUEST.len() as u64);
        request();
        request();
        watch.during(talk);
        let payloads: Vec<_> = watch.seen[told..]
            .iter()
            .filter(|seen| !seen.payload.is_empty())
            .map(|seen| &seen.payload)
            .collect();
        assert_eq!(payloads, [REQUEST.as_bytes(); 4], "{scope:?}");
        watch.assert_lossless();
    }
}

#[test]
fn the_table_of_verdicts_never_refuses() {
    let cgroup = Cgroup::new();
    let mut watch = Watch::on(&cgroup, ScopeChoice::Cgroup);
    let mut connection = some_connection();
    for number in 0..=u64::from(MAX_VERDICTS) {
        connection.scope.0 = number;
        watch.reader().steer(&ignore(&connection));
    }
    let stats = *watch.reader().stats();
    assert_eq!((stats.verdicts_written, stats.verdicts_refused), (u64::from(MAX_VERDICTS) + 1, 0));
}

/// A connection as reassembly knows it.
fn some_connection() -> Connection {
    Connection {
        token: reassembly::ConnectionToken(1),
        scope: pod2pod_user::capture::Scope(0),
        originator: CLIENT.parse().unwrap(),
        responder: "127.0.0.1:80".parse().unwrap(),
        local: Some(reassembly::Side::Responder),
        start: reassembly::Start::Handshake,
        originator_isn: Some(1),
        responder_isn: Some(2),
        syn_time: None,
        established_time: None,
        retransmits: 0,
        cgroup_id: 0,
        socket_cookie: 0,
        interface_index: 0,
    }
}
