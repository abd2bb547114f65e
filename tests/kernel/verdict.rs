//! User space's verdicts: what is not wanted stops, for one generation of one connection.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    os::fd::AsRawFd as _,
    sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel},
    time::{Duration, Instant},
};

use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrStorage, bind, connect, setsockopt, socket,
    sockopt::{Linger, ReuseAddr},
};
use pod2pod_common::{counters::Counter, limits::MAX_VERDICTS};
use pod2pod_user::{
    capture::{
        Segment,
        kernel::{ScopeChoice, TcWay},
    },
    reassembly::{self, Connection, Reassembler, Steering, Wanted},
};
use support::{
    netns::{Cgroup, Namespace},
    scale,
};

use crate::{
    lend::lend,
    tc::world::Node,
    watch::{PATIENCE, Watch},
};

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
        let host = Namespace::new();
        let (cgroup, mut watch) = lend(scope);
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

/// Pieces that each side sends over a connection that lives long.
const PIECES: usize = 1000;
const LEAST_PIECES: usize = 100;
/// Time between two beats: the programs stop after 2 s without one.
const BEAT: Duration = Duration::from_millis(100);

/// One connection inside a host, see [`long_lived_to`].
fn long_lived(first: &[u8], go: &Receiver<()>, done: &SyncSender<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    long_lived_to(&listener, TcpStream::connect(address).unwrap(), first, go, done);
}

/// One connection: `first` and its answer, then at each `go` many pieces to and fro.
fn long_lived_to(
    listener: &TcpListener,
    mut client: TcpStream,
    first: &[u8],
    go: &Receiver<()>,
    done: &SyncSender<()>,
) {
    let (mut server, _) = listener.accept().unwrap();
    let mut say = |piece: &[u8]| {
        client.write_all(piece).unwrap();
        server.read_exact(&mut vec![0; piece.len()]).unwrap();
        // An answer keeps the next piece from joining this one.
        server.write_all(piece).unwrap();
        client.read_exact(&mut vec![0; piece.len()]).unwrap();
    };
    say(first);
    done.send(()).unwrap();
    while go.recv().is_ok() {
        (0..scale::count(PIECES, LEAST_PIECES)).for_each(|_| say(b"\x01\x02piece"));
        done.send(()).unwrap();
    }
}

/// Waits for `answer`; the programs know that somebody lives.
fn wait_beating(watch: &mut Watch, answer: &Receiver<()>) {
    let start = Instant::now();
    while answer.recv_timeout(BEAT) == Err(RecvTimeoutError::Timeout) {
        assert!(start.elapsed() < PATIENCE, "the traffic of the test hangs");
        watch.capture.beat();
    }
}

/// Segments matched, those of `fate` among them, and records sent.
fn fates(watch: &Watch, fate: Counter) -> [u64; 3] {
    [Counter::SegmentsMatched, fate, Counter::RecordsSent].map(|counter| watch.counter(counter))
}

#[test]
fn a_verdict_is_looked_up_once_however_long_the_connection_lives() {
    for scope in [ScopeChoice::Cookie, ScopeChoice::Cgroup] {
        let host = Namespace::new();
        let (cgroup, mut watch) = lend(scope);
        let (go, wait) = sync_channel(0);
        let (done, answer) = sync_channel(0);
        let talk = cgroup.spawn(&host, move || long_lived(REQUEST.as_bytes(), &wait, &done));
        answer.recv().unwrap();
        watch.drain();
        let known = connections(&watch);
        assert_eq!(known.len(), 2, "{scope:?}: {known:?}");
        known.iter().for_each(|connection| watch.reader().steer(&ignore(connection)));
        let round = |watch: &mut Watch| {
            let before = fates(watch, Counter::SegmentsUnwanted);
            watch.capture.beat();
            go.send(()).unwrap();
            wait_beating(watch, &answer);
            let after = fates(watch, Counter::SegmentsUnwanted);
            let [matched, unwanted, sent] = [0, 1, 2].map(|index| after[index] - before[index]);
            assert!(matched >= 4 * scale::count(PIECES, LEAST_PIECES) as u64, "{scope:?}: {matched}");
            assert_eq!((unwanted, sent), (matched, 0), "{scope:?}");
        };
        round(&mut watch);
        assert_eq!(watch.counter(Counter::GateUnwanted), 2, "one decision an end");
        // The connection's own entry knows: the verdict is not asked for again, and may go.
        let deleted = watch.reader().stats().verdicts_deleted;
        for connection in &known {
            let over = Steering { wanted: Wanted::Over, ..ignore(connection) };
            watch.reader().steer(&over);
        }
        assert_eq!(watch.reader().stats().verdicts_deleted - deleted, 2);
        round(&mut watch);
        assert_eq!(watch.counter(Counter::GateUnwanted), 2, "one decision an end");
        drop(go);
        watch.during(talk);
        watch.assert_lossless();
    }
}

#[test]
fn a_verdict_holds_on_a_path_where_neither_end_is() {
    let node = Node::bridged();
    node.node.run("ip address add 10.8.0.1/16 dev cni0");
    let mut watch = node.watch(TcWay::Newest, &["cni0"]);
    let (go, wait) = sync_channel(0);
    let (done, answer) = sync_channel(0);
    let (client, server) = (node.node.clone(), node.two.clone());
    let talk = std::thread::spawn(move || {
        server.enter();
        let listener = TcpListener::bind("10.8.0.3:0").unwrap();
        client.enter();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        long_lived_to(&listener, client, REQUEST.as_bytes(), &wait, &done);
    });
    wait_beating(&mut watch, &answer);
    watch.drain();
    let known = connections(&watch);
    assert_eq!((known.len(), known[0].local), (1, None), "{known:?}");
    // User space does not know by which end the kernel has filed it, and tells of both.
    watch.reader().steer(&ignore(&known[0]));
    let before = fates(&watch, Counter::SegmentsUnwanted);
    watch.capture.beat();
    go.send(()).unwrap();
    wait_beating(&mut watch, &answer);
    let after = fates(&watch, Counter::SegmentsUnwanted);
    let [matched, unwanted, sent] = [0, 1, 2].map(|index| after[index] - before[index]);
    assert!(matched >= 2 * scale::count(PIECES, LEAST_PIECES) as u64, "{matched}");
    assert_eq!((unwanted, sent), (matched, 0));
    assert_eq!(watch.counter(Counter::GateUnwanted), 1, "it is seen once");
    drop(go);
    watch.during(talk);
    watch.assert_lossless();
}

#[test]
fn what_is_not_http_is_never_told_however_long_it_lives() {
    let host = Namespace::new();
    let (cgroup, mut watch) = lend(ScopeChoice::Cgroup);
    let (go, wait) = sync_channel(0);
    let (done, answer) = sync_channel(0);
    let talk = cgroup.spawn(&host, move || long_lived(b"\x00\x00\x00\x08binary", &wait, &done));
    answer.recv().unwrap();
    let before = fates(&watch, Counter::SegmentsNotHttp);
    watch.capture.beat();
    go.send(()).unwrap();
    wait_beating(&mut watch, &answer);
    let after = fates(&watch, Counter::SegmentsNotHttp);
    let [matched, not_http, sent] = [0, 1, 2].map(|index| after[index] - before[index]);
    assert!(matched >= 4 * scale::count(PIECES, LEAST_PIECES) as u64, "{matched}");
    assert_eq!((not_http, sent), (matched, 0));
    assert_eq!(watch.counter(Counter::GateIgnored), 2, "one decision an end");
    drop(go);
    watch.during(talk);
    // The handshake and the end of the connection, and nothing else.
    assert!(watch.seen.iter().all(|seen| seen.payload.is_empty()), "{:?}", watch.seen);
    watch.assert_lossless();
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
        behind_loss: false,
        originator_isn: Some(1),
        responder_isn: Some(2),
        syn_time: None,
        established_time: None,
        retransmits: 0,
        syn_retransmits: 0,
        cgroup_id: 0,
        socket_cookie: 0,
        interface_index: 0,
    }
}
