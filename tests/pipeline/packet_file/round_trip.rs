//! The written file read again gives the same records, and with redaction off the same segments.

use std::time::Duration;

use pod2pod_common::segment::TCP_FIN;
use support::{
    conversation::{Conversation, OwnedSegment},
    rng::Rng,
};

use super::{structures::talk, *};

/// Without the mark of values that hold what no value may: where the value is covered, that is too.
fn without_covered_marks(records: &[String]) -> Vec<String> {
    records.iter().map(|line| line.replace(",\"http.anomalies\":[\"invalid_header\"]", "")).collect()
}

/// Of the connection of `crafted-segments` that is joined in a body: when the message behind it began is judged by what the rest of
/// the body looks like, which is covered.
const JUDGED_BY_WHAT_IS_COVERED: &str = "\"client.port\":20153,";

/// Asserts that the same records were told, and shows those that were not.
fn same(name: &str, first: &[String], second: &[String]) {
    let (first, second) = (without_covered_marks(first), without_covered_marks(second));
    let only_in = |one: &[String], other: &[String]| -> Vec<String> {
        let lines =
            one.iter().filter(|line| !other.contains(line) && !line.contains(JUDGED_BY_WHAT_IS_COVERED));
        lines.cloned().collect()
    };
    let (missing, other) = (only_in(&first, &second), only_in(&second, &first));
    assert_eq!(missing, other, "{name}");
    assert_eq!(first.len(), second.len(), "{name}");
}

/// Segments with what a capture file can tell of them.
fn told(segments: &[OwnedSegment]) -> Vec<OwnedSegment> {
    let strip = |segment: &OwnedSegment| OwnedSegment { interface_index: 0, ..segment.clone() };
    segments.iter().map(strip).collect()
}

#[test]
fn every_capture_says_the_same_with_redaction_and_without() {
    for (name, bytes) in captures() {
        for config in [config(|_| ()), raw()] {
            let first = write_file(config.clone(), bytes.clone());
            check_checksums(&first.file);
            let second = write_file(config.clone(), first.file.clone());
            same(&format!("{name} {:?}", config.enrich.redaction), &first.records, &second.records);
            assert_eq!(first.written.delivered, first.written.received, "{name}");
            // What was covered once is as it was.
            assert_eq!(segments(&first.file), segments(&second.file), "{name}");
        }
    }
}

#[test]
fn without_redaction_segments_are_as_they_were() {
    for (name, bytes) in captures() {
        let run = write_file(raw(), bytes.clone());
        let original = {
            let mut segments = Vec::new();
            let mut file = CaptureFile::from_reader(
                "capture",
                Box::new(io::Cursor::new(bytes)),
                &file::Config::default(),
            );
            let _ = file.as_mut().unwrap().read(&mut |segment| segments.push(OwnedSegment::of(segment)));
            segments
        };
        assert_eq!(told(&segments(&run.file)), told(&original), "{name}");
    }
}

fn plain() -> Conversation {
    Conversation::new()
        .client("GET /a?x=1 HTTP/1.1\r\nHost: h\r\nUser-Agent: me\r\n\r\n")
        .server("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello")
}

#[test]
fn the_packet_that_completes_an_exchange_names_it() {
    let run = write_segments(config(|_| ()), &plain().close().segments());
    let named: Vec<_> = packets(&run.file)
        .iter()
        .enumerate()
        .flat_map(|(index, packet)| packet.comments.iter().map(move |comment| (index, comment.clone())))
        .map(|(index, comment)| (index, String::from_utf8(comment).unwrap()))
        .collect();
    let id = run.records[0].split_once("\"connection.id\":\"").unwrap().1.get(..16).unwrap();
    let expected =
        format!("GET /a?x=1 200 complete; connection.id {id}, exchange.offset 1, exchange.index 0");
    // The handshake, the request, the response.
    assert_eq!(named, [(4, expected)]);
    assert_eq!((run.held.comments, run.held.comments_lost), (1, 0));
}

#[test]
fn an_exchange_that_timed_out_is_named_at_its_request() {
    let late =
        Conversation::new().client("GET /slow HTTP/1.1\r\nHost: h\r\n\r\n").pause(Duration::from_secs(11));
    let run = write_segments(config(|_| ()), &late.close().segments());
    let packets = packets(&run.file);
    let comment = String::from_utf8(packets[3].comments[0].clone()).unwrap();
    assert!(comment.starts_with("GET /slow timeout; connection.id "), "{comment}");
}

#[test]
fn a_packet_says_which_way_it_went() {
    let ways = |conversation: Conversation| -> Vec<_> {
        let run = write_segments(config(|_| ()), &conversation.segments());
        packets(&run.file).iter().map(|packet| packet.flags).collect()
    };
    assert_eq!(ways(plain()), [None; 5]);
    let (inward, outward) = (Some(1), Some(2));
    assert_eq!(ways(plain().seen_by_server()), [inward, outward, inward, inward, outward]);
    assert_eq!(ways(plain().seen_by_client()), [outward, inward, outward, outward, inward]);
}

fn check(name: &str, segments: &[OwnedSegment]) {
    let first = write_segments(config(|_| ()), segments);
    check_checksums(&first.file);
    for bytes in readable(&first.file) {
        assert!(!bytes.contains(&b'~'), "{name}: {:?}", String::from_utf8_lossy(&bytes));
    }
    let second = write_file(config(|_| ()), first.file);
    same(name, &first.records, &second.records);
}

#[test]
fn every_structure_says_the_same_whole() {
    for (name, conversation) in talk() {
        check(name, &conversation.segments());
    }
}

#[test]
fn every_structure_says_the_same_cut_anywhere() {
    for (name, conversation) in talk() {
        check(&format!("{name}, byte by byte"), &conversation.clone().cut_every(1).segments());
        let longest = conversation.client_bytes().len().max(conversation.server_bytes().len());
        for at in 1..longest {
            check(&format!("{name} at {at}"), &conversation.clone().cut_at(&[at]).segments());
        }
    }
}

#[test]
fn a_disturbed_path_says_the_same() {
    let seed = 20_261_121;
    println!("seed {seed}");
    let mut rng = Rng::new(seed);
    for (name, conversation) in talk() {
        for round in 0..8 {
            let mut segments = conversation.clone().cut_every(1 + rng.below(40)).segments();
            support::conversation::duplicate(&mut segments, 20, &mut rng);
            if round % 2 == 0 {
                let lost = rng.below(segments.len());
                segments.remove(lost);
            }
            let first = write_segments(config(|_| ()), &segments);
            for bytes in readable(&first.file) {
                assert!(!bytes.contains(&b'~'), "{name} {round}: {:?}", String::from_utf8_lossy(&bytes));
            }
            let whole = segments.iter().filter(|segment| segment.flags.0 & TCP_FIN == 0).count();
            assert!(packets(&first.file).len() >= whole, "{name} {round}");
        }
    }
}
