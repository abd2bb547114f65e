//! What is lost is counted to the byte, told on the connection, and the dead man's switch.

use std::{net::UdpSocket, time::Duration};

use pod2pod_common::{
    counters::Counter,
    limits::{CREDIT_BYTES, DEFAULT_WAKE_THRESHOLD_BYTES},
    segment::{HEADER_LENGTH, RING_WORD, SIZE_CLASSES},
};
use pod2pod_user::capture::kernel::{Config, MIN_RING_BYTES, ScopeChoice, Wake, Woken};
use support::netns::{Cgroup, Namespace};

use crate::{
    lend::lend,
    talk::{Turn, client, server, talk},
    watch::{PATIENCE, Watch},
};

#[test]
fn a_full_ring_loses_nothing_silently() {
    let (cgroup, host) = (Cgroup::new(), Namespace::new());
    let mut watch = Watch::open(Config {
        cgroup: Some(cgroup.path().to_owned()),
        ring_bytes: MIN_RING_BYTES,
        scope: ScopeChoice::Cookie,
        ..Config::default()
    });
    let mut body = b"POST / HTTP/1.1\r\nContent-Length: 4194304\r\n\r\n".to_vec();
    body.resize(body.len() + 4 * 1024 * 1024, b'x');
    // The ring is not read while the body passes.
    let first = talk(&cgroup, &host, &host, "127.0.0.1", &[Turn::Client(vec![body])]);
    watch.unread(first);
    watch.drain();
    watch.assert_adds_up();
    assert!(watch.capture.ring_lost() > 0, "the body fits the ring");
    assert!(watch.counter(Counter::BytesRingFull) > 0);
    assert!(watch.counter(Counter::RingWakeups) >= 1, "a filling ring wakes its reader");
    assert!(watch.counter(Counter::RingWakeups) <= 2, "once");
}

#[test]
fn the_reader_is_woken_once_when_the_ring_fills_past_the_threshold() {
    let (cgroup, host) = (Cgroup::new(), Namespace::new());
    let mut watch = Watch::on(&cgroup, ScopeChoice::Cookie);
    // A socket that nobody sends to never says stop.
    let stop = UdpSocket::bind("127.0.0.1:0").unwrap();
    let wake = Wake::new(&*watch.reader(), &stop).unwrap();
    let shortest = Duration::from_millis(1);
    // Each piece and its answer are told at both ends, in records of the classes that fit and a word of the ring's own.
    let piece = SIZE_CLASSES[8] - HEADER_LENGTH;
    let of_two = 2 * (SIZE_CLASSES[8] + RING_WORD + SIZE_CLASSES[0] + RING_WORD);
    let below = DEFAULT_WAKE_THRESHOLD_BYTES as usize / of_two - 10;
    let mut pieces = vec![vec![b'x'; piece]; below];
    // Over many connections: one alone wakes the reader at half of its credit.
    let of_each = CREDIT_BYTES as usize / 2 / piece;
    pieces.iter_mut().step_by(of_each).for_each(|first| first[..7].copy_from_slice(b"POST / "));
    let talk_below = |watch: &mut Watch| {
        for pieces in pieces.chunks(of_each) {
            // The answer keeps the next piece from joining this one.
            let echo = pieces.iter().flat_map(|piece| [Turn::Client(vec![piece.clone()]), server("x")]);
            let turns: Vec<Turn> = echo.collect();
            watch.unread(talk(&cgroup, &host, &host, "127.0.0.1", &turns));
        }
    };
    talk_below(&mut watch);
    assert_eq!(watch.counter(Counter::RingWakeups), 0);
    assert_eq!(wake.wait(shortest), Woken::ByTime, "what the ring holds is no reason to wake");
    talk_below(&mut watch);
    assert_eq!(watch.counter(Counter::RingWakeups), 1);
    assert_eq!(wake.wait(PATIENCE), Woken::ByRing);
    assert_eq!(wake.wait(shortest), Woken::ByTime, "one crossing ends one wait");
}

#[test]
fn the_next_record_of_a_connection_tells_its_loss() {
    use std::{
        io::{Read as _, Write as _},
        net::{TcpListener, TcpStream},
        sync::mpsc::sync_channel,
    };

    let (cgroup, host) = (Cgroup::new(), Namespace::new());
    let mut watch = Watch::open(Config {
        cgroup: Some(cgroup.path().to_owned()),
        ring_bytes: MIN_RING_BYTES,
        scope: ScopeChoice::Cookie,
        ..Config::default()
    });
    let (go, wait) = sync_channel::<()>(0);
    let (done, filled) = sync_channel::<()>(0);
    let talk = cgroup.spawn(&host, move || {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut server, _) = listener.accept().unwrap();
        // Each takes a record of 16 KiB.
        let piece = [b'x'; 8_500];
        client.write_all(b"POST / HTTP/1.1\r\nContent-Length: 127500\r\n\r\n").unwrap();
        server.read_exact(&mut [0; 43]).unwrap();
        // Within the first half of the credit: what is beyond it is told in records so small that the next one fits again.
        for _ in 0..15 {
            client.write_all(&piece).unwrap();
            server.read_exact(&mut [0; 8_500]).unwrap();
        }
        done.send(()).unwrap();
        wait.recv().unwrap();
        server.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").unwrap();
        client.read_exact(&mut [0; 27]).unwrap();
    });
    filled.recv().unwrap();
    watch.drain();
    assert!(watch.seen.iter().all(|seen| !seen.lost_before));
    assert!(watch.capture.ring_lost() > 0);
    let before = watch.seen.len();
    go.send(()).unwrap();
    watch.during(talk);
    let after = &watch.seen[before..];
    assert!(!after.is_empty());
    for cookie in [after[0].socket_cookie, after[1].socket_cookie] {
        let told: Vec<bool> =
            after.iter().filter(|seen| seen.socket_cookie == cookie).map(|seen| seen.lost_before).collect();
        assert!(told[0], "the first record after a loss tells it");
        assert!(told[1..].iter().all(|lost| !lost), "and only the first");
    }
    watch.assert_adds_up();
}

#[test]
fn without_a_heartbeat_the_programs_return_at_once() {
    let host = Namespace::new();
    let (cgroup, mut watch) = lend(ScopeChoice::Cookie);
    let turns = [client("GET / HTTP/1.1\r\n\r\n"), server("HTTP/1.1 204 N\r\n\r\n")];
    watch.during(talk(&cgroup, &host, &host, "127.0.0.1", &turns));
    let records = watch.counter(Counter::RecordsSent);
    assert_eq!(watch.counter(Counter::HeartbeatStale), 0);
    let deadline = std::time::Instant::now() + PATIENCE;
    while watch.counter(Counter::HeartbeatStale) == 0 {
        assert!(std::time::Instant::now() < deadline, "the programs still work");
        talk(&cgroup, &host, &host, "127.0.0.1", &turns).join().unwrap();
    }
    // From here on no packet is looked at.
    let (stale, matched, records_then) = (
        watch.counter(Counter::HeartbeatStale),
        watch.counter(Counter::SegmentsMatched),
        watch.counter(Counter::RecordsSent),
    );
    assert!(records_then >= records);
    talk(&cgroup, &host, &host, "127.0.0.1", &turns).join().unwrap();
    assert!(watch.counter(Counter::HeartbeatStale) >= stale + 12);
    assert_eq!(watch.counter(Counter::SegmentsMatched), matched);
    watch.drain();
    let told = watch.counter(Counter::RecordsSent);
    watch.during(talk(&cgroup, &host, &host, "127.0.0.1", &turns));
    assert!(watch.counter(Counter::RecordsSent) > told, "the next heartbeat starts them again");
}
