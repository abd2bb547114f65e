//! What the kernel leaves out of a connection that it tells: what is skipped, what is beyond the credit, what is shed. To
//! the byte, and never anything of another connection.

use std::{
    collections::BTreeMap,
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    sync::mpsc::sync_channel,
};

use pod2pod_common::{
    control::{SHED_BODIES, SHED_CONNECTIONS, SHED_HEADERS, SHED_NONE},
    counters::Counter,
    limits::{CREDIT_BYTES, SHED_CREDIT_BYTES, SHED_SEGMENT_BYTES},
};
use pod2pod_user::{
    capture::{
        Direction,
        kernel::{Config, MIN_RING_BYTES, ScopeChoice},
    },
    reassembly::{Connection, Course, Side, Steering, Wanted},
};
use support::netns::{Cgroup, Namespace};

use crate::{
    lend::lend,
    talk::{Turn, client, server, talk},
    verdict::connections,
    watch::{Seen, Watch},
};

const HEAD: &str = "HTTP/1.1 200 OK\r\nContent-Length: 1048576\r\n\r\n";
const BODY: usize = 1 << 20;
const NEXT: &str = "HTTP/1.1 204 No Content\r\n\r\n";
const REQUEST: &str = "GET / HTTP/1.1\r\n\r\n";

/// A request with a body of `length` bytes.
fn upload(length: usize) -> Turn {
    let mut bytes = format!("POST / HTTP/1.1\r\nContent-Length: {length}\r\n\r\n").into_bytes();
    bytes.resize(bytes.len() + length, b'x');
    Turn::Client(vec![bytes])
}

fn length(turn: &Turn) -> u64 {
    let (Turn::Client(pieces) | Turn::Server(pieces)) = turn;
    pieces.iter().map(|piece| piece.len() as u64).sum()
}

/// Bytes told and bytes there were, of each direction at each socket end that had any; each once, however often it was
/// sent.
fn volumes(seen: &[Seen]) -> Vec<(u64, u64)> {
    let mut streams: BTreeMap<_, Vec<&Seen>> = BTreeMap::new();
    for seen in seen.iter().filter(|seen| seen.payload_length > 0) {
        streams.entry((seen.socket_cookie, seen.source)).or_default().push(seen);
    }
    let distinct = |stream: &[&Seen], length: fn(&Seen) -> u32| {
        let begin = stream[0].sequence;
        let mut parts: Vec<(u32, u32)> =
            stream.iter().map(|seen| (seen.sequence.wrapping_sub(begin), length(seen))).collect();
        parts.sort_unstable();
        let mut end = 0;
        let add = |total: u64, (offset, length): (u32, u32)| {
            let new = (offset + length).saturating_sub(end.max(offset));
            end = end.max(offset + length);
            total + u64::from(new)
        };
        parts.into_iter().fold(0, add)
    };
    streams
        .into_values()
        .map(|stream| {
            (
                distinct(&stream, |seen| seen.payload.len() as u32),
                distinct(&stream, |seen| seen.payload_length),
            )
        })
        .collect()
}

#[test]
fn a_body_that_nobody_reads_costs_the_credit() {
    let host = Namespace::new();
    let (cgroup, mut watch) = lend(ScopeChoice::Cookie);
    let turn = upload(4 * 1024 * 1024);
    watch.unread(talk(&cgroup, &host, &host, "127.0.0.1", std::slice::from_ref(&turn)));
    watch.drain();
    watch.assert_lossless();
    let total = length(&turn);
    assert_eq!(volumes(&watch.seen), [(u64::from(CREDIT_BYTES), total); 2], "lengths are told all the same");
    assert!(watch.counter(Counter::BytesOverCredit) >= 2 * (total - u64::from(CREDIT_BYTES)));
    assert_eq!(watch.counter(Counter::CreditWakeups), 2, "once at each end");
}

#[test]
fn the_message_after_a_body_that_nobody_reads_is_told() {
    let host = Namespace::new();
    let (cgroup, mut watch) = lend(ScopeChoice::Cookie);
    let turns = [upload(4 * 1024 * 1024), server(NEXT), client(REQUEST), server(NEXT)];
    watch.unread(talk(&cgroup, &host, &host, "127.0.0.1", &turns));
    watch.drain();
    watch.assert_lossless();
    let told = watch.seen.iter().filter(|seen| seen.payload == REQUEST.as_bytes());
    assert_eq!(told.count(), 2, "at both ends");
}

#[test]
fn half_of_the_credit_wakes_the_reader() {
    let host = Namespace::new();
    let (cgroup, mut watch) = lend(ScopeChoice::Cookie);
    let head = length(&upload(0)) as usize + "13107".len();
    for (extra, wakeups) in [(0, 0), (1, 2)] {
        let body = CREDIT_BYTES as usize / 2 - head - 1 + extra;
        assert_eq!(length(&upload(body)), u64::from(CREDIT_BYTES / 2) - 1 + extra as u64);
        watch.unread(talk(&cgroup, &host, &host, "127.0.0.1", &[upload(body)]));
        assert_eq!(watch.counter(Counter::CreditWakeups), wakeups);
    }
}

#[test]
fn in_a_ring_that_is_half_full_the_second_half_of_the_credit_yields() {
    /// Uploads of a whole credit, told at both ends, that fill half of the ring, however well their records fill their classes.
    const UPLOADS: u32 = 4;
    /// What one packet carries: the one that crosses the half of the credit is told whole.
    const MAX_SEGMENT: u64 = 65_536;
    let (cgroup, host) = (Cgroup::new(), Namespace::new());
    // From Linux 6.10 on a packet has two segments at least (net/ipv4/tcp_output.c, tcp_grow_skb): twice as much, were they
    // as large as loopback has them.
    host.run("ip link set lo mtu 1500");
    let cgroup_path = Some(cgroup.path().to_owned());
    let ring_bytes = 2 * UPLOADS * 2 * CREDIT_BYTES;
    let mut watch = Watch::open(Config { cgroup: cgroup_path, ring_bytes, ..Watch::config() });
    let bulk = upload(CREDIT_BYTES as usize);
    for _ in 0..UPLOADS {
        if watch.counter(Counter::CreditYields) == 0 {
            watch.unread(talk(&cgroup, &host, &host, "127.0.0.1", std::slice::from_ref(&bulk)));
        }
    }
    let before = watch.counter(Counter::BytesOverCredit);
    let yields = watch.counter(Counter::CreditYields);
    let turns = [bulk, server(NEXT), client(REQUEST), server(NEXT)];
    watch.unread(talk(&cgroup, &host, &host, "127.0.0.1", &turns));
    assert!(watch.counter(Counter::CreditYields) >= yields + 2, "at each end");
    let left_out = watch.counter(Counter::BytesOverCredit) - before;
    assert!(left_out >= 2 * (u64::from(CREDIT_BYTES / 2) - MAX_SEGMENT), "{left_out}");
    watch.drain();
    watch.assert_lossless();
    let whole = |text: &str| watch.seen.iter().filter(|seen| seen.payload == text.as_bytes()).count();
    assert_eq!((whole(REQUEST), whole(NEXT)), (2, 4), "what follows the body is told at both ends");
}

#[test]
fn a_bulk_connection_takes_nothing_from_others() {
    let (cgroup, host) = (Cgroup::new(), Namespace::new());
    let mut watch = Watch::open(Config {
        cgroup: Some(cgroup.path().to_owned()),
        ring_bytes: MIN_RING_BYTES,
        scope: ScopeChoice::Cookie,
        ..Config::default()
    });
    let (go, wait) = sync_channel::<()>(0);
    let (done, sent) = sync_channel::<()>(0);
    let piece = 16 * 1024;
    let bulk = cgroup.spawn(&host, move || {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut server, _) = listener.accept().unwrap();
        let mut buffer = vec![b'x'; piece];
        client.write_all(b"POST / HTTP/1.1\r\nContent-Length: 8388608\r\n\r\n").unwrap();
        server.read_exact(&mut [0; 44]).unwrap();
        for burst in [1; CREDIT_BYTES as usize / (16 * 1024)].into_iter().chain([256]) {
            wait.recv().unwrap();
            for _ in 0..burst {
                client.write_all(&buffer).unwrap();
                server.read_exact(&mut buffer).unwrap();
            }
            done.send(()).unwrap();
        }
    });
    // The credit is used up while the ring is read.
    for _ in 0..CREDIT_BYTES as usize / piece {
        go.send(()).unwrap();
        sent.recv().unwrap();
        watch.drain();
    }
    let told = watch.seen.len();
    // Sixteen times the ring, and small exchanges before and after, unread.
    let small = [client(REQUEST), server(NEXT)];
    for _ in 0..20 {
        watch.unread(talk(&cgroup, &host, &host, "127.0.0.1", &small));
    }
    go.send(()).unwrap();
    sent.recv().unwrap();
    for _ in 0..20 {
        watch.unread(talk(&cgroup, &host, &host, "127.0.0.1", &small));
    }
    bulk.join().unwrap();
    watch.drain();
    watch.assert_lossless();
    let exchanges = volumes(&watch.seen[told..]);
    let of = |text: &str| {
        exchanges.iter().filter(|volume| **volume == (text.len() as u64, text.len() as u64)).count()
    };
    assert_eq!((of(REQUEST), of(NEXT)), (80, 80), "both ends of every small exchange");
}

/// How a connection stands for the test: the responder's bytes are wanted from `until` on.
fn skip(connection: &Connection, until: u32) -> Steering {
    let courses = [Course::default(), Course { read: None, until: Some(until) }];
    Steering { connection: *connection, generation: connection.originator_isn, wanted: Wanted::Both(courses) }
}

/// A server that tells a response, one step at a time: its head; then, once `go` came, what `rest` is.
fn respond(
    cgroup: &Cgroup,
    host: &Namespace,
    rest: Vec<u8>,
) -> (std::sync::mpsc::SyncSender<()>, std::sync::mpsc::Receiver<()>, std::thread::JoinHandle<()>) {
    let (go, wait) = sync_channel::<()>(0);
    let (done, sent) = sync_channel::<()>(0);
    let traffic = cgroup.spawn(host, move || {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut server, _) = listener.accept().unwrap();
        client.write_all(REQUEST.as_bytes()).unwrap();
        server.read_exact(&mut [0; REQUEST.len()]).unwrap();
        server.write_all(HEAD.as_bytes()).unwrap();
        client.read_exact(&mut [0; HEAD.len()]).unwrap();
        done.send(()).unwrap();
        wait.recv().unwrap();
        let reader = std::thread::spawn(move || {
            let mut all = Vec::new();
            client.read_to_end(&mut all).unwrap();
            all.len()
        });
        server.write_all(&rest).unwrap();
        drop(server);
        assert_eq!(reader.join().unwrap(), rest.len());
    });
    (go, sent, traffic)
}

#[test]
fn what_follows_a_skipped_body_is_told_to_the_byte() {
    let host = Namespace::new();
    let (cgroup, mut watch) = lend(ScopeChoice::Cookie);
    let mut rest = vec![b'x'; BODY];
    rest.extend_from_slice(NEXT.as_bytes());
    let (go, sent, traffic) = respond(&cgroup, &host, rest);
    sent.recv().unwrap();
    watch.drain();
    let known = connections(&watch);
    assert_eq!(known.len(), 2, "{known:?}");
    let until = known[0].responder_isn.unwrap().wrapping_add(1 + (HEAD.len() + BODY) as u32);
    for connection in &known {
        watch.reader().steer(&skip(connection, until));
    }
    let told = watch.seen.len();
    go.send(()).unwrap();
    watch.during(traffic);
    watch.assert_lossless();
    for connection in &known {
        let responder = connection.address(Side::Responder);
        let direction =
            if connection.local == Some(Side::Responder) { Direction::Egress } else { Direction::Ingress };
        let after: Vec<&Seen> = watch.seen[told..]
            .iter()
            .filter(|seen| seen.source == responder && seen.direction == direction)
            .collect();
        assert_eq!((after[0].sequence, after[0].skipped_before), (until, true), "{after:?}");
        let bytes: Vec<u8> = after.iter().flat_map(|seen| seen.payload.clone()).collect();
        assert_eq!(bytes, NEXT.as_bytes());
        assert!(after[1..].iter().all(|seen| !seen.skipped_before));
        assert!(after.iter().any(|seen| seen.flags.fin()), "the end is told");
    }
    assert!(watch.counter(Counter::BytesSkipped) >= 2 * BODY as u64, "and what was sent again");
}

#[test]
fn an_end_inside_a_skipped_body_is_told_where_it_is() {
    let host = Namespace::new();
    let (cgroup, mut watch) = lend(ScopeChoice::Cookie);
    let part = BODY / 2 + 3;
    let (go, sent, traffic) = respond(&cgroup, &host, vec![b'x'; part]);
    sent.recv().unwrap();
    watch.drain();
    let known = connections(&watch);
    let begin = known[0].responder_isn.unwrap().wrapping_add(1 + HEAD.len() as u32);
    for connection in &known {
        watch.reader().steer(&skip(connection, begin.wrapping_add(BODY as u32)));
    }
    let told = watch.seen.len();
    go.send(()).unwrap();
    watch.during(traffic);
    watch.assert_lossless();
    let responder = known[0].address(Side::Responder);
    let after: Vec<&Seen> = watch.seen[told..].iter().filter(|seen| seen.source == responder).collect();
    let at_end = |direction| after.iter().any(|seen| seen.direction == direction);
    assert!(at_end(Direction::Egress) && at_end(Direction::Ingress), "the FIN at each end: {after:?}");
    // Where all is slow it may be sent again, as itself.
    for fin in after {
        assert!(fin.flags.fin() && fin.skipped_before);
        assert_eq!((fin.sequence, fin.payload_length), (begin.wrapping_add(part as u32), 0));
    }
    assert!(watch.counter(Counter::BytesSkipped) >= 2 * part as u64, "and what was sent again");
}

#[test]
fn under_overload_bodies_go_first_then_headers_then_connections() {
    let host = Namespace::new();
    let (cgroup, mut watch) = lend(ScopeChoice::Cookie);
    let body = 100_000;
    let turn = upload(body);
    let total = length(&turn);
    let mut told = 0;
    let mut pass = |watch: &mut Watch, level| {
        watch.capture.shed(level);
        watch.unread(talk(&cgroup, &host, &host, "127.0.0.1", std::slice::from_ref(&turn)));
        watch.drain();
        watch.assert_lossless();
        let volumes = volumes(&watch.seen[told..]);
        told = watch.seen.len();
        volumes
    };
    assert_eq!(pass(&mut watch, SHED_NONE), [(total, total); 2]);
    assert_eq!(pass(&mut watch, SHED_BODIES), [(u64::from(SHED_CREDIT_BYTES), total); 2]);
    // What was sent again is withheld again.
    let withheld = |seen: &Seen| u64::from(seen.payload_length) - seen.payload.len() as u64;
    let withheld: u64 = watch.seen.iter().map(withheld).sum();
    assert!(withheld >= 2 * (total - u64::from(SHED_CREDIT_BYTES)));
    assert_eq!(watch.counter(Counter::BytesShedBodies), withheld);
    for (captured, whole) in pass(&mut watch, SHED_HEADERS) {
        assert_eq!(whole, total);
        assert!(
            (u64::from(SHED_SEGMENT_BYTES)..u64::from(SHED_CREDIT_BYTES)).contains(&captured),
            "{captured}"
        );
    }
    assert!(watch.counter(Counter::BytesShedHeaders) > 0);
    let before = watch.seen.len();
    assert_eq!(pass(&mut watch, SHED_CONNECTIONS), []);
    assert_eq!(watch.seen.len(), before, "not even its end is told");
    assert!(watch.counter(Counter::BytesShedConnections) >= 2 * total, "and what was sent again");
    // Where scope is the cookie the handshake and the connection are two entries of the server's.
    assert_eq!(watch.counter(Counter::ConnectionsShed), 2);
    assert_eq!(pass(&mut watch, SHED_NONE), [(total, total); 2]);
}
