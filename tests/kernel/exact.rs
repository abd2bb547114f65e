//! Every byte of HTTP connections arrives, at both ends, wherever they run.

use std::collections::{HashMap, HashSet};

use pod2pod_common::{counters::Counter, limits::CREDIT_BYTES, segment::MAX_RECORD_PAYLOAD};
use pod2pod_user::capture::{
    Direction,
    kernel::{Config, ScopeChoice, Workers},
};
use support::netns::{Cgroup, Namespace};

use crate::{
    lend::lend,
    talk::{Ends, Turn, client, server, talk},
    watch::Watch,
};

const REQUEST: &str = "GET /index HTTP/1.1\r\nHost: a\r\n\r\n";
const RESPONSE: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi";
/// More than a record of the largest size, and twice that with its heads within the credit: nobody here tells the kernel how
/// far it was read, and the agent's own bodies, of any size, are in `exchanges::bodies`.
const BODY: usize = CREDIT_BYTES as usize / 2 - 4096;

/// Whether the hook where packets leave sees a SYN-ACK.
#[derive(Clone, Copy, PartialEq, Eq)]
enum SynAck {
    /// As it sees all others; before Linux 6.6 not over IPv6.
    Ordinary,
    /// With a SYN cookie it is no socket's packet (TCP_SYNACK_COOKIE in tcp_make_synack, net/ipv4/tcp_output.c).
    Cookie,
}

/// Both ends saw both streams whole, SYN and FIN of both sides among them.
fn assert_whole(watch: &mut Watch, ends: Ends, turns: &[Turn], syn_ack: SynAck) {
    watch.assert_lossless();
    let mut sent = [Vec::new(), Vec::new()];
    for turn in turns {
        match turn {
            Turn::Client(pieces) => sent[0].extend(pieces.concat()),
            Turn::Server(pieces) => sent[1].extend(pieces.concat()),
        }
    }
    for (source, sent) in [(ends.client, &sent[0]), (ends.server, &sent[1])] {
        for direction in [Direction::Egress, Direction::Ingress] {
            assert!(watch.stream(direction, source) == *sent, "{direction:?} from {source} differs");
            let seen = |test: fn(&crate::watch::Seen) -> bool| {
                watch.distinct(|s| s.source == source && s.direction == direction && test(s))
            };
            let syns = seen(|segment| segment.flags.syn());
            let may_hide = source.is_ipv6() || syn_ack == SynAck::Cookie;
            let unseen = source == ends.server && may_hide && direction == Direction::Egress;
            assert!(syns == 1 || (unseen && syns == 0), "{syns} SYN, {direction:?} from {source}");
            assert_eq!(seen(|segment| segment.flags.fin()), 1, "FIN, {direction:?} from {source}");
        }
    }
    for seen in &watch.seen {
        assert!([ends.client, ends.server].contains(&seen.source), "a stranger: {seen:?}");
        assert!([ends.client, ends.server].contains(&seen.destination), "a stranger: {seen:?}");
        assert_eq!(seen.payload_length as usize, seen.payload.len());
        assert!(!seen.lost_before);
    }
}

/// Talks, compares, and says how long the longest record's payload was.
fn check(from: &Namespace, at: &Namespace, address: &str, turns: &[Turn]) -> usize {
    check_with(SynAck::Ordinary, from, at, address, turns)
}

fn check_with(syn_ack: SynAck, from: &Namespace, at: &Namespace, address: &str, turns: &[Turn]) -> usize {
    let mut longest = 0;
    for scope in [ScopeChoice::Cookie, ScopeChoice::Cgroup] {
        let (cgroup, mut watch) = lend(scope);
        let ends = watch.during(talk(&cgroup, from, at, address, turns));
        assert_whole(&mut watch, ends, turns, syn_ack);
        assert_eq!(watch.counter(Counter::GateHttp), 2, "one decision an end");
        longest = longest.max(watch.seen.iter().map(|seen| seen.payload.len()).max().unwrap_or(0));
    }
    longest
}

fn two_hosts() -> (Namespace, Namespace) {
    let (one, two) = (Namespace::new(), Namespace::new());
    one.wire("eth0", &["10.9.0.1/24", "fd09::1/64"], &two, "eth0", &["10.9.0.2/24", "fd09::2/64"]);
    (one, two)
}

#[test]
fn over_loopback() {
    let host = Namespace::new();
    check(&host, &host, "127.0.0.1", &[client(REQUEST), server(RESPONSE)]);
    check(&host, &host, "[::1]", &[client(REQUEST), server(RESPONSE)]);
}

#[test]
fn over_a_wire() {
    let (one, two) = two_hosts();
    check(&one, &two, "10.9.0.2", &[client(REQUEST), server(RESPONSE), client(REQUEST), server(RESPONSE)]);
    check(&one, &two, "[fd09::2]", &[client(REQUEST), server(RESPONSE)]);
}

/// SYN cookies that the namespace has sent (`TcpExt` of proc_net_netstat: a line of names, then one of values).
fn cookies_sent(host: &Namespace) -> u64 {
    let host = host.clone();
    let read = std::thread::spawn(move || {
        host.enter();
        std::fs::read_to_string("/proc/thread-self/net/netstat").unwrap()
    });
    let told = read.join().unwrap();
    let mut rows = told.lines().filter(|line| line.starts_with("TcpExt:")).map(str::split_whitespace);
    let (names, values) = (rows.next().unwrap(), rows.next().unwrap());
    let sent = names.zip(values).find(|(name, _)| *name == "SyncookiesSent");
    sent.unwrap().1.parse().unwrap()
}

#[test]
fn with_syn_cookies() {
    let host = Namespace::new();
    // Always, not only when the queue of half-open connections is full (Documentation/networking/ip-sysctl.rst).
    host.run_with("tee /proc/sys/net/ipv4/tcp_syncookies", "2");
    for address in ["127.0.0.1", "[::1]"] {
        check_with(SynAck::Cookie, &host, &host, address, &[client(REQUEST), server(RESPONSE)]);
    }
    assert!(cookies_sent(&host) >= 4, "one for each of four connections");
}

#[test]
fn to_a_closed_port() {
    let host = Namespace::new();
    for address in ["127.0.0.1:9", "[::1]:9"] {
        let (cgroup, mut watch) = lend(ScopeChoice::Cookie);
        let refused = watch.during(cgroup.spawn(&host, move || std::net::TcpStream::connect(address)));
        assert_eq!(refused.unwrap_err().kind(), std::io::ErrorKind::ConnectionRefused);
        // Only the client has a socket: its SYN leaves, and the answer arrives.
        let told: Vec<_> = watch.seen.iter().map(|seen| (seen.direction, seen.flags)).collect();
        assert!(
            matches!(told[..], [(Direction::Egress, syn), (Direction::Ingress, rst)]
                if syn.syn() && !syn.ack() && rst.rst()),
            "{told:?}"
        );
        watch.assert_lossless();
    }
}

#[test]
fn every_byte_a_segment() {
    let host = Namespace::new();
    let bytes = |text: &str| text.bytes().map(|byte| vec![byte]).collect();
    let turns = [Turn::Client(bytes(REQUEST)), Turn::Server(bytes(RESPONSE))];
    check(&host, &host, "127.0.0.1", &turns);
}

#[test]
fn large_bodies_both_ways() {
    let (one, two) = two_hosts();
    // Packets are made for a millisecond of the pace (tcp_tso_autosize): where all is slow, the pace is.
    for phase in ["ss", "ca"] {
        one.run_with(&format!("tee /proc/sys/net/ipv4/tcp_pacing_{phase}_ratio"), "1000");
    }
    // And never for more than half of the largest window so far (tcp_bound_to_half_wnd), which begins at 64 KiB; with this
    // much room it has grown past that by the second body, however slow the reader.
    one.run_with("tee /proc/sys/net/ipv4/tcp_rmem", "4096 2097152 6291456");
    let mut body = format!("POST /up HTTP/1.1\r\nContent-Length: {BODY}\r\n\r\n").into_bytes();
    body.extend((0..BODY).map(|index| (index * 7 + index / 251) as u8));
    let turns = [Turn::Client(vec![body.clone()]), Turn::Server(vec![body])];
    let turns = [turns.clone(), turns].concat();
    check(&one, &two, "10.9.0.2", &turns);
    let longest = check(&one, &one, "127.0.0.1", &turns);
    assert_eq!(longest, MAX_RECORD_PAYLOAD, "packets of the loopback are too long for one record");
}

#[test]
fn the_same_loopback_tuple_in_two_namespaces_at_once() {
    use std::io::{Read as _, Write as _};
    use std::net::{SocketAddr, TcpListener, TcpStream};

    const TUPLE: [&str; 2] = ["127.0.0.1:40001", "127.0.0.1:8080"];
    let (cgroup, mut watch) = lend(ScopeChoice::Cookie);
    let barrier = std::sync::Arc::new(std::sync::Barrier::new(2));
    let talks: Vec<_> = ["/one", "/another"]
        .into_iter()
        .map(|path| {
            let barrier = std::sync::Arc::clone(&barrier);
            cgroup.spawn(&Namespace::new(), move || {
                let [near, far] = TUPLE.map(|address| address.parse::<SocketAddr>().unwrap());
                let listener = TcpListener::bind(far).unwrap();
                let socket = nix::sys::socket::socket(
                    nix::sys::socket::AddressFamily::Inet,
                    nix::sys::socket::SockType::Stream,
                    nix::sys::socket::SockFlag::empty(),
                    None,
                )
                .unwrap();
                use std::os::fd::AsRawFd as _;
                let bind = |address: SocketAddr| nix::sys::socket::SockaddrStorage::from(address);
                nix::sys::socket::bind(socket.as_raw_fd(), &bind(near)).unwrap();
                barrier.wait();
                nix::sys::socket::connect(socket.as_raw_fd(), &bind(far)).unwrap();
                let mut client = TcpStream::from(socket);
                let (mut server, _) = listener.accept().unwrap();
                barrier.wait();
                for _ in 0..20 {
                    write!(client, "{}", format_args!("GET {path} HTTP/1.1\r\n\r\n")).unwrap();
                    let mut request = vec![0; path.len() + 17];
                    server.read_exact(&mut request).unwrap();
                    server.write_all(RESPONSE.as_bytes()).unwrap();
                    client.read_exact(&mut [0; RESPONSE.len()]).unwrap();
                }
                [client, server]
                    .map(|socket| pod2pod_user::capture::kernel::own_sockets::cookie(&socket).unwrap())
            })
        })
        .collect();
    let cookies: Vec<_> = talks.into_iter().map(|talk| watch.during(talk)).collect();
    for (cookies, path) in cookies.iter().zip(["/one", "/another"]) {
        let requests = format!("GET {path} HTTP/1.1\r\n\r\n").repeat(20);
        for (cookie, direction) in cookies.iter().zip([Direction::Egress, Direction::Ingress]) {
            let told: Vec<u8> = watch
                .seen
                .iter()
                .filter(|seen| seen.scope.0 == *cookie && seen.direction == direction)
                .flat_map(|seen| seen.payload.clone())
                .collect();
            assert_eq!(told.escape_ascii().to_string(), requests.as_bytes().escape_ascii().to_string());
        }
    }
    watch.assert_lossless();
}

#[test]
fn a_connection_is_in_one_ring_with_both_directions_of_both_ends() {
    const CONNECTIONS: usize = 24;
    const RINGS: u32 = 3;
    let (cgroup, host) = (Cgroup::new(), Namespace::new());
    let config = Config {
        cgroup: Some(cgroup.path().to_owned()),
        workers: Workers::Exactly(RINGS),
        scope: ScopeChoice::Cookie,
        ..Config::default()
    };
    let mut watch = Watch::open(config);
    for _ in 0..CONNECTIONS {
        let talking = talk(&cgroup, &host, &host, "127.0.0.1", &[client(REQUEST), server(RESPONSE)]);
        // Not read yet: which ring told what is looked at below.
        watch.unread(talking);
    }
    let mut rings_of = HashMap::<[u16; 2], HashSet<usize>>::new();
    let mut records_of = HashMap::<[u16; 2], usize>::new();
    let mut server_ends = HashSet::new();
    for (ring, reader) in watch.readers.iter_mut().enumerate() {
        let drained = reader.drain(usize::MAX, &mut |segment| {
            let (source, destination) = (segment.source.port(), segment.destination.port());
            // The client sends the SYN alone.
            if segment.flags.syn() && !segment.flags.ack() {
                server_ends.insert(destination);
            }
            // A client's port may be that of an earlier one: each has a server of its own.
            let ends =
                if server_ends.contains(&source) { [destination, source] } else { [source, destination] };
            rings_of.entry(ends).or_default().insert(ring);
            *records_of.entry(ends).or_default() += 1;
        });
        assert!(drained.records > 0, "ring {ring} carries nothing");
    }
    assert_eq!(rings_of.len(), CONNECTIONS);
    assert!(rings_of.values().all(|rings| rings.len() == 1), "{rings_of:?}");
    // SYN, SYN-ACK, request, response and two FINs, at each end.
    assert!(records_of.values().all(|records| *records >= 12), "{records_of:?}");
    assert_eq!(watch.capture.ring_lost(), 0);
}
