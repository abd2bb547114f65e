//! What waits is bounded in time, in bytes and in how far back is looked; past each, what was not understood is blank.

use std::time::Duration;

use pod2pod_user::{
    filter::PortRange,
    pcap::{
        DEFAULT_HELD_BYTES,
        comment::MAX_TARGET,
        hold::{self, Hold, MAX_AGE, MAX_COMMENT_BYTES, MAX_LOOK_BACK},
    },
    reassembly::Start,
};
use support::conversation::{Conversation, STEP_NS};

use super::*;

const REQUEST: &str = "GET /plain HTTP/1.1\r\nHost: h\r\n\r\n";

/// Whether the first half of a head is seen if the second half comes `pause` later.
fn sees_after(pause: Duration, held_bytes: usize) -> (bool, u64) {
    let (first, second) = REQUEST.split_at(10);
    let halves =
        Conversation::new().client(first).pause(pause).client(second).server("HTTP/1.1 204 x\r\n\r\n");
    let run = write_segments(config(|config| config.pcap.held_bytes = held_bytes), &halves.segments());
    let seen = readable(&run.file).contains(&first.as_bytes().to_vec());
    assert_eq!((run.records.len(), packets(&run.file).len()), (1, 6));
    (seen, run.held.hurried)
}

#[test]
fn a_head_in_pieces_is_waited_for_only_so_long() {
    let step = Duration::from_nanos(STEP_NS);
    assert_eq!(sees_after(MAX_AGE - 2 * step, DEFAULT_HELD_BYTES), (true, 0));
    assert_eq!(sees_after(MAX_AGE, DEFAULT_HELD_BYTES), (false, 0));
}

#[test]
fn packets_wait_only_while_there_is_room() {
    let rooms: Vec<_> = (0..16_384).step_by(32).map(|room| sees_after(Duration::ZERO, room)).collect();
    assert_eq!((rooms[0].0, rooms[511].0), (false, true));
    assert!(rooms[0].1 > 0);
    assert_eq!(rooms[511].1, 0);
    // One boundary: with more room there is never less to see.
    assert!(rooms.is_sorted_by_key(|(seen, _)| *seen));
    let run = write_segments(
        config(|config| config.pcap.held_bytes = 1),
        &Conversation::new().client(REQUEST).segments(),
    );
    assert_eq!(run.held.hurried, 3, "each but the last, which nothing follows");
}

/// However the room is taken: by payload, by connections of one packet, by what is refused behind a packet that waits.
#[test]
fn what_waits_takes_no_more_than_it_may() {
    const ROOM: usize = 512 << 10;
    let segment = |port: u16, length: usize| {
        let ends = (format!("10.0.0.1:{port}").parse().unwrap(), "10.0.0.2:80".parse().unwrap());
        let talk = Conversation::joined_in_the_middle().addresses(ends.0, ends.1).client("x".repeat(length));
        talk.segments().remove(0)
    };
    let refused = |hold: &mut Hold, port: u16| {
        let mut connection = support::http::connection(1, Start::Middle);
        let sent = segment(port, 1);
        (connection.originator, connection.responder) = (sent.source, sent.destination);
        hold.refuse(&connection);
    };
    for (length, refuse) in [(1, false), (1, true), (1460, false), (60_000, false)] {
        let count = if refuse { 30_000 } else { 8_000 };
        let segments: Vec<_> = (1..count).map(|port| segment(port, length)).collect();
        let fill = || {
            let mut hold = Hold::new(hold::Config { held_bytes: ROOM, is_raw: false, is_judged: false });
            for (port, segment) in (1..).zip(&segments) {
                hold.take(&segment.borrow(), 0);
                while hold.pop(Some(segment.time)).is_some() {}
                if refuse && port > 1 {
                    refused(&mut hold, port);
                }
            }
            assert!(hold.held_bytes() <= ROOM && hold.stats().hurried > 0, "{length} {refuse}");
        };
        let taken = allocation_counter::measure(fill).bytes_max;
        assert!(taken <= ROOM as u64 + 200_000, "{length} {refuse}: {taken}");
    }
}

#[test]
fn a_disclosure_is_looked_for_only_so_far_back() {
    // A head of one byte a segment.
    let sees = |length: usize| {
        let head = format!("GET /{} HTTP/1.1\r\n\r\n", "x".repeat(length - "GET / HTTP/1.1\r\n\r\n".len()));
        let run = write_segments(config(|_| ()), &Conversation::new().client(head).cut_every(1).segments());
        segments(&run.file).iter().any(|segment| segment.payload == b"G")
    };
    assert!(sees(MAX_LOOK_BACK));
    assert!(!sees(MAX_LOOK_BACK + 1));
}

#[test]
fn comments_have_their_limits() {
    let comments = |target: usize, count: usize| {
        let requests = format!("GET /{} HTTP/1.1\r\n\r\n", "x".repeat(target - 1)).repeat(count);
        let responses = "HTTP/1.1 204 x\r\n\r\n".repeat(count);
        let run = write_segments(
            config(|_| ()),
            &Conversation::new().client(requests).server(responses).segments(),
        );
        let packets = packets(&run.file);
        (packets.last().unwrap().comments.clone(), run.held)
    };
    let (at_limit, _) = comments(MAX_TARGET, 1);
    assert!(!String::from_utf8_lossy(&at_limit[0]).contains('…'));
    let (past, _) = comments(MAX_TARGET + 1, 1);
    assert!(String::from_utf8_lossy(&past[0]).contains("x… 204 complete"));
    let fit = MAX_COMMENT_BYTES / at_limit[0].len();
    let (many, held) = comments(MAX_TARGET, fit);
    assert!(many.len() >= fit - 1 && held.comments_lost <= 1, "{} {held:?}", many.len());
    let (most, held) = comments(MAX_TARGET, fit + 5);
    assert!(most.iter().map(Vec::len).sum::<usize>() <= MAX_COMMENT_BYTES);
    assert_eq!(held.comments_lost, (fit + 5 - most.len()) as u64);
    assert!(held.comments_lost >= 5);
}

#[test]
fn what_a_filter_refuses_is_left_out() {
    let to = |port: u16| {
        let ends = ("10.0.0.1:40000".parse().unwrap(), format!("10.0.0.2:{port}").parse().unwrap());
        Conversation::new()
            .addresses(ends.0, ends.1)
            .client(REQUEST)
            .server("HTTP/1.1 204 x\r\n\r\n")
            .close()
            .segments()
    };
    let (wanted, other) = (to(80), to(81));
    let both: Vec<_> =
        wanted.iter().zip(&other).flat_map(|(one, other)| [one.clone(), other.clone()]).collect();
    for redaction in [Redaction::On, Redaction::Off] {
        let config = config(|config| {
            config.filter.ports.extend(PortRange::parse("80"));
            config.enrich.redaction = redaction;
        });
        let run = write_segments(config.clone(), &both);
        assert_eq!(run.records.len(), 1);
        assert_eq!(run.held.left_out, other.len() as u64);
        assert_eq!(run.file, write_segments(config, &wanted).file);
    }
}

#[test]
fn pieces_of_an_unwanted_body_are_in_the_file() {
    let body = "x".repeat(300_000);
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
    let talk = Conversation::new().client(REQUEST).server(head + &body).cut_every(60_000).segments();
    let run = write_segments(config(|_| ()), &talk);
    let bytes: usize = segments(&run.file).iter().map(|segment| segment.payload_length as usize).sum();
    assert_eq!(bytes, talk.iter().map(|segment| segment.payload.len()).sum::<usize>());
}
