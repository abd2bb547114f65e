//! How connections begin: handshakes seen whole or in part, forged ones, new generations, the middle, listeners.

use std::time::Duration;

use pod2pod_user::{
    capture::{Direction, TcpFlags},
    reassembly::{
        Config, Connection, Side, Start,
        config::{JOIN_GRACE, JOIN_REACH},
    },
};
use support::{
    conversation::{CLIENT_ISN, Conversation, OwnedSegment, SERVER_ISN, restamp, shuffle_from},
    reassembly::{Observer, Outcome},
    rng::Rng,
};

use super::{check, observe};

const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const ACK: u8 = 0x10;

fn exchange() -> Conversation {
    Conversation::new().client("request").server("response")
}

const EXCHANGE: [&str; 3] = ["0 O 1 request", "0 R 1 response", "0 SourceEnded"];

fn first(outcome: &Outcome) -> Connection {
    *outcome.facts.values().next().expect("a connection was told")
}

fn without(mut segments: Vec<OwnedSegment>, indices: &[usize]) -> Vec<OwnedSegment> {
    for index in indices.iter().rev() {
        segments.remove(*index);
    }
    segments
}

/// `segments` one after the other, in one run of time.
fn joined(parts: &[&[OwnedSegment]]) -> Vec<OwnedSegment> {
    let mut segments = parts.concat();
    restamp(&mut segments, Duration::from_millis(1));
    segments
}

/// One more segment like `like`, with other flags and numbers and no payload.
fn forged(like: &OwnedSegment, flags: u8, sequence: u32, acknowledgement: u32) -> OwnedSegment {
    let mut segment = like.clone();
    segment.flags = TcpFlags(flags);
    (segment.sequence, segment.acknowledgement) = (sequence, acknowledgement);
    segment.payload.clear();
    segment.payload_length = 0;
    segment
}

#[test]
fn facts_are_those_of_the_end_that_saw_it() {
    let millis = |connection: &Connection| {
        let established = connection.established_time.zip(connection.syn_time);
        established.map(|(established, syn)| established.since(syn).as_millis())
    };
    for (conversation, local, established) in [
        (exchange(), None, 2),
        (exchange().seen_by_client(), Some(Side::Originator), 1),
        (exchange().seen_by_server(), Some(Side::Responder), 2),
    ] {
        let conversation = conversation.scope(5).cookie(6).interface(7);
        let connection = first(&check(&conversation.segments(), &EXCHANGE));
        assert_eq!(connection.start, Start::Handshake);
        assert_eq!(connection.local, local);
        assert_eq!((connection.originator.port(), connection.responder.port()), (40_000, 80));
        assert_eq!(connection.originator_isn.zip(connection.responder_isn), Some((CLIENT_ISN, SERVER_ISN)));
        assert_eq!(millis(&connection), Some(established));
        assert_eq!((connection.scope.0, connection.socket_cookie, connection.interface_index), (5, 6, 7));
    }
}

#[test]
fn a_handshake_seen_in_part_is_one() {
    // Indices: 0 SYN, 1 SYN-ACK, 2 ACK. Every part that still has a SYN, in every order.
    for missing in [&[][..], &[0], &[1], &[2], &[0, 2], &[1, 2]] {
        for view in [exchange(), exchange().seen_by_client(), exchange().seen_by_server()] {
            let segments = without(view.segments(), missing);
            let connection = first(&check(&segments, &EXCHANGE));
            assert_eq!(connection.start, Start::Handshake, "without {missing:?}");
            let isns = connection.originator_isn.zip(connection.responder_isn);
            assert_eq!(isns, Some((CLIENT_ISN, SERVER_ISN)), "without {missing:?}");
            assert_eq!(connection.syn_time.is_some(), !missing.contains(&0));
        }
    }
}

#[test]
fn a_handshake_out_of_order_is_one() {
    for order in [[1, 0, 2], [0, 2, 1], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
        let segments = exchange().segments();
        let mut changed: Vec<_> = order.iter().map(|index| segments[*index].clone()).collect();
        changed.extend_from_slice(&segments[3..]);
        let connection = first(&check(&joined(&[&changed]), &EXCHANGE));
        assert_eq!(connection.originator_isn.zip(connection.responder_isn), Some((CLIENT_ISN, SERVER_ISN)));
        assert!(connection.syn_time.is_some() && connection.established_time.is_some(), "{order:?}");
    }
}

#[test]
fn repeated_handshake_segments_are_counted() {
    let segments = exchange().segments();
    let repeated = joined(&[&segments[..1], &segments[..2], &segments[..2], &segments[1..]]);
    let outcome = check(&repeated, &EXCHANGE);
    assert_eq!((outcome.stats.handshake_retransmits, outcome.stats.retransmits), (4, 0));
    assert_eq!(outcome.stats.opened_handshake, 1);
}

#[test]
fn data_in_a_syn_is_delivered_if_it_was_accepted() {
    for (accepted, resent) in [(3, ""), (2, "c"), (0, "abc")] {
        let mut segments = Conversation::new().client("def").segments();
        segments[0].payload = b"abc".to_vec();
        segments[0].payload_length = 3;
        segments[1].acknowledgement += accepted;
        segments[3].sequence += accepted;
        segments[3].payload = format!("{resent}def").into_bytes();
        segments[3].payload_length = 3 + resent.len() as u32;
        let outcome = check(&segments, &["0 O 1 abcdef", "0 SourceEnded"]);
        assert_eq!(outcome.stats.syn_bytes_dropped, u64::from(3 - accepted));
        // Also if the answer itself was not seen, except that half an acceptance cannot be told then.
        if accepted != 2 {
            check(&without(segments, &[1, 2]), &["0 O 1 abcdef", "0 SourceEnded"]);
        }
    }
}

/// The SYN of a conversation, with data in it.
fn syn_with(data: &str, conversation: Conversation) -> OwnedSegment {
    let mut syn = conversation.segments().swap_remove(0);
    syn.payload = data.as_bytes().to_vec();
    syn.payload_length = data.len() as u32;
    syn
}

#[test]
fn data_in_a_syn_that_nothing_answered_is_told_on_a_path() {
    let syn = syn_with("request", exchange());
    // Also with bytes that the capture cut, and once however often it was repeated.
    check(&[syn.clone(), syn.clone()], &["0 O 1 request", "0 SourceEnded"]);
    check(&[syn.clone().cut_to(3)], &["0 O 1 req", "0 O 4 Cut 4 ours", "0 SourceEnded"]);
    let other = syn_with("later", exchange().isns(0, 1));
    check(&[syn.clone(), other.clone()], &["0 O 1 request", "0 SourceEnded", "1 O 1 later", "1 SourceEnded"]);
    // An end knows that there was no answer.
    check(&[syn_with("request", exchange().seen_by_client())], &[]);
    // Its time comes, as that of any handshake.
    let mut observer = Observer::new(Config::default());
    observer.push(&syn);
    observer.expire(syn.time.plus(Config::default().handshake_timeout));
    assert_eq!(observer.lines(), ["0 O 1 request", "0 Idle"]);
    // One too many of its tuple.
    let syns: Vec<_> = (0..5).map(|index| syn_with("x", exchange().isns(index * 9_999_999, 1))).collect();
    let outcome = observe(&syns);
    assert_eq!((outcome.stats.closed_evicted, outcome.stats.closed_source_ended), (1, 4));
}

#[test]
fn data_in_two_syns_that_crossed_is_one_connection() {
    let syn = syn_with("request", exchange());
    let mut answer = OwnedSegment { time: syn.time.plus(Duration::from_millis(1)), ..syn.clone() };
    std::mem::swap(&mut answer.source, &mut answer.destination);
    (answer.sequence, answer.payload, answer.payload_length) = (SERVER_ISN, b"response".to_vec(), 8);
    check(&[syn, answer], &["0 O 1 request", "0 R 1 response", "0 SourceEnded"]);
}

#[test]
fn data_in_an_unanswered_syn_does_not_disturb_the_connection_of_its_tuple() {
    let segments = exchange().segments();
    let forged = syn_with("forged", exchange().isns(77, 1));
    let expected = [&EXCHANGE[..], &["1 O 1 forged", "1 SourceEnded"]].concat();
    check(&joined(&[&segments[..4], &[forged], &segments[4..]]), &expected);
}

#[test]
fn joined_in_the_middle_of_disorder_nothing_is_lost() {
    let conversation = Conversation::joined_in_the_middle().client("request").server("response").cut_every(3);
    let segments = conversation.segments();
    let expected = observe(&segments).lines();
    for seed in 0..100 {
        let mut disorder = segments.clone();
        shuffle_from(&mut disorder, 0, &mut Rng::new(seed));
        let outcome = observe(&disorder);
        let token = first(&outcome).token;
        let mut streams = [Side::Originator, Side::Responder].map(|side| outcome.stream(token, side));
        streams.sort();
        assert_eq!(streams, [b"request".to_vec(), b"response".to_vec()], "seed {seed}");
    }
    // In order, the first bytes are told no later than the grace, and where they were seen.
    assert_eq!(expected[0], "0 O 1001 request");
}

#[test]
fn bytes_before_where_a_connection_was_joined_are_taken_within_limits() {
    let with = |reach: u32, pause: Duration| {
        let mut segments = exchange().segments().split_off(3);
        let mut early = segments[0].clone();
        early.sequence = early.sequence.wrapping_sub(reach);
        early.payload = b"early".to_vec();
        early.payload_length = 5;
        early.time = early.time.plus(pause);
        observe(&[segments.swap_remove(0), early]).stats.bytes_delivered
    };
    let shortly = JOIN_GRACE - Duration::from_nanos(1);
    assert_eq!([with(5, shortly), with(5, JOIN_GRACE)], [12, 7]);
    let isn = exchange().isns(1 << 20, 1);
    let reach = |reach: u32| {
        let mut segments = isn.segments().split_off(3);
        segments.truncate(1);
        let mut early = segments[0].clone();
        early.sequence -= reach;
        (early.payload, early.payload_length) = (b"x".to_vec(), 1);
        segments.push(early);
        observe(&segments).stats.bytes_delivered
    };
    assert_eq!([reach(JOIN_REACH), reach(JOIN_REACH + 1)], [8, 7]);
}

#[test]
fn a_garbled_acknowledgement_does_not_number_the_other_end() {
    for acknowledgement in [0, SERVER_ISN.wrapping_add(0x7000_0000)] {
        let mut segments = exchange().segments().split_off(3);
        segments[0].acknowledgement = acknowledgement;
        let outcome = observe(&segments);
        assert_eq!(outcome.stats.far_segments, 0);
        let lines = outcome.lines();
        assert_eq!(lines.len(), 3, "{lines:?}");
        assert!(lines[0].ends_with("request") && lines[1].ends_with("response"), "{lines:?}");
    }
}

#[test]
fn a_refused_syn_opens_nothing() {
    let syn = exchange().segments().remove(0);
    let mut refusal = forged(&syn, RST | ACK, 0, CLIENT_ISN + 1);
    std::mem::swap(&mut refusal.source, &mut refusal.destination);
    let outcome = check(&[syn, refusal], &[]);
    assert_eq!((outcome.stats.handshakes_refused, outcome.stats.handshakes_expired), (1, 0));
}

#[test]
fn a_forged_syn_ends_nothing() {
    let segments = Conversation::new().client("abc").server("x").client("def").server("y").segments();
    let expected = ["0 O 1 abc", "0 R 1 x", "0 O 4 def", "0 R 2 y", "0 SourceEnded"];
    for isn in [0, CLIENT_ISN + 2, CLIENT_ISN + 3, CLIENT_ISN + 4, 900_000_000] {
        let syn = forged(&segments[3], SYN, isn, 0);
        // Alone, and refused by the true peer's reset.
        let mut refusal = forged(&segments[4], RST | ACK, 0, isn.wrapping_add(1));
        refusal.flags = TcpFlags(RST | ACK);
        check(&joined(&[&segments[..5], std::slice::from_ref(&syn), &segments[5..]]), &expected);
        let outcome = check(&joined(&[&segments[..5], &[syn, refusal], &segments[5..]]), &expected);
        assert_eq!(outcome.stats.handshakes_refused, 1);
    }
}

#[test]
fn an_answered_syn_opens_a_new_generation() {
    let old = Conversation::new().client("abc").server("x").segments();
    let new = Conversation::new().isns(CLIENT_ISN + 100_000, SERVER_ISN + 100_000).client("def").server("y");
    let new = new.segments();
    let expected = ["0 O 1 abc", "0 R 1 x", "0 Replaced", "1 O 1 def", "1 R 1 y", "1 SourceEnded"];
    for missing in [&[][..], &[0], &[1], &[2], &[1, 2], &[0, 2]] {
        let outcome = check(&joined(&[&old, &without(new.clone(), missing)]), &expected);
        assert!(outcome.facts.values().all(|facts| facts.start == Start::Handshake), "without {missing:?}");
    }
    // The old one lives until then.
    let late = forged(&old[3], ACK, CLIENT_ISN + 4, SERVER_ISN + 2);
    let late = OwnedSegment { payload: b"late".to_vec(), payload_length: 4, ..late };
    check(
        &joined(&[&old, &new[..1], &[late], &new[1..]]),
        &["0 O 1 abc", "0 R 1 x", "0 O 4 late", "0 Replaced", "1 O 1 def", "1 R 1 y", "1 SourceEnded"],
    );
}

#[test]
fn a_whole_connection_seen_again_shortly_after_is_the_same() {
    let once = exchange().close().segments();
    let mut twice = once.clone();
    let pause = Config::default().linger - Duration::from_secs(1);
    twice.extend(
        once.iter().cloned().map(|segment| OwnedSegment { time: segment.time.plus(pause), ..segment }),
    );
    let outcome = observe(&twice);
    assert_eq!(outcome.lines(), observe(&once).lines());
    assert_eq!(outcome.stats.handshake_retransmits, 2);
}

#[test]
fn a_port_used_again_after_the_end_is_a_new_connection() {
    let old = exchange().close().segments();
    let new = exchange().isns(CLIENT_ISN + 70_000, SERVER_ISN + 70_000).segments();
    let expected = [
        "0 O 1 request",
        "0 R 1 response",
        "0 O 8 Finished",
        "0 R 9 Finished",
        "0 Finished",
        "1 O 1 request",
        "1 R 1 response",
        "1 SourceEnded",
    ];
    check(&joined(&[&old, &new]), &expected);
    // Late copies of the old one in between belong to nobody.
    let outcome =
        check(&joined(&[&old, &new[..1], &old[3..5], &new[1..2], &old[3..5], &new[2..]]), &expected);
    assert_eq!(outcome.stats.after_close, 1 + 2);
    // Without its SYN, and far from the old one: joined in the middle.
    let far = exchange().isns(CLIENT_ISN + 9_000_000, SERVER_ISN + 9_000_000).segments();
    assert_eq!(observe(&joined(&[&old, &far[3..]])).stats.opened_middle, 1);
    assert_eq!(observe(&joined(&[&old, &new[3..]])).stats.opened_middle, 0);
}

#[test]
fn joined_in_the_middle_offsets_are_sequence_numbers() {
    let conversation = Conversation::joined_in_the_middle().client("abc").server("de").client("f");
    let outcome =
        check(&conversation.segments(), &["0 O 1001 abc", "0 R 7000001 de", "0 O 1004 f", "0 SourceEnded"]);
    let connection = first(&outcome);
    assert_eq!(
        (connection.start, connection.originator_isn, connection.responder_isn),
        (Start::Middle, None, None)
    );
    // The server was seen first: it is the originator, and what it acknowledged is where the client goes on.
    check(&conversation.segments()[1..], &["0 O 7000001 de", "0 R 1004 f", "0 SourceEnded"]);
    // Bare segments open nothing.
    let bare = Conversation::joined_in_the_middle().client_ack().server_ack().client_fin().server_rst();
    assert_eq!(check(&bare.segments(), &[]).stats.unknown_bare, 4);
}

#[test]
fn a_handshake_that_comes_after_its_data_opens_nothing() {
    let segments = exchange().segments();
    let outcome = observe(&joined(&[&segments[3..], &segments[..3]]));
    assert_eq!((outcome.stats.opened_middle, outcome.stats.opened_handshake), (1, 0));
}

#[test]
fn one_tuple_in_two_worlds_or_at_both_ends_is_two_connections() {
    let [client, server] = [exchange().seen_by_client().segments(), exchange().seen_by_server().segments()];
    let both: Vec<_> = client.iter().zip(&server).flat_map(|(c, s)| [c.clone(), s.clone()]).collect();
    let outcome = observe(&both);
    assert_eq!(outcome.stats.opened_handshake, 2);
    assert_eq!((outcome.stats.retransmits, outcome.stats.bytes_delivered), (0, 30));
    let other = exchange().seen_by_client().scope(9).segments();
    let outcome = observe(&[client, other].concat());
    assert_eq!((outcome.stats.opened_handshake, outcome.stats.bytes_delivered), (2, 30));
}

#[test]
fn contradictory_flags_open_nothing() {
    let segments = exchange().segments();
    let odd = [forged(&segments[0], SYN | RST, 5, 0), forged(&segments[0], SYN | 0x01, 6, 0)];
    assert_eq!(check(&joined(&[&odd, &segments]), &EXCHANGE).stats.contradictory_flags, 2);
}

/// Scopes are cookies; SYN to third packet carry the listener's, from index `child` on the child's.
fn with_cookies(conversation: &Conversation, listener: u64, child: (usize, u64)) -> Vec<OwnedSegment> {
    let mut segments = conversation.segments();
    for (index, segment) in segments.iter_mut().enumerate() {
        let cookie = if index < child.0 { listener } else { child.1 };
        segment.scope.0 = cookie;
        segment.socket_cookie = cookie;
        segment.scope_is_cookie = true;
    }
    segments
}

#[test]
fn a_child_is_linked_to_its_listeners_handshake() {
    let conversation = exchange().client("again").seen_by_server();
    let expected = ["0 O 1 request", "0 R 1 response", "0 O 8 again", "0 SourceEnded"];
    // The child's cookie begins after the SYN-ACK, the ACK, the request, the response.
    for child in 2..=5 {
        for missing in [&[][..], &[1], &[2], &[1, 2]] {
            let segments = without(with_cookies(&conversation, 77, (child, 78)), missing);
            let connection = first(&check(&segments, &expected));
            assert_eq!(connection.start, Start::Handshake);
            assert_eq!(connection.socket_cookie, 78);
            assert_eq!(
                connection.originator_isn.zip(connection.responder_isn),
                Some((CLIENT_ISN, SERVER_ISN))
            );
        }
    }
}

#[test]
fn equal_tuples_of_two_pods_are_told_apart_by_their_numbers() {
    let one = with_cookies(&exchange().seen_by_server(), 1, (3, 11));
    let two = with_cookies(&exchange().isns(500_000_000, 600_000_000).seen_by_server(), 2, (3, 12));
    // Wherever the one is interrupted by the other: at 3 both are open, and neither has a segment of its child.
    for cut in 1..=3 {
        for [first, second] in [[&one, &two], [&two, &one]] {
            let outcome = observe(&joined(&[&one[..cut], &two[..cut], &first[cut..], &second[cut..]]));
            assert_eq!((outcome.stats.opened_handshake, outcome.stats.opened_middle), (2, 0), "cut at {cut}");
            assert_eq!((outcome.stats.bytes_delivered, outcome.stats.gaps_missing), (30, 0), "cut at {cut}");
        }
    }
    // And the client's end beside the server's.
    let client = with_cookies(&exchange().seen_by_client(), 5, (0, 5));
    let both: Vec<_> = client.iter().zip(&one).flat_map(|(c, s)| [c.clone(), s.clone()]).collect();
    let outcome = observe(&both);
    assert_eq!((outcome.stats.opened_handshake, outcome.stats.bytes_delivered), (2, 30));
}

#[test]
fn a_nat_changes_neither_numbers_nor_roles() {
    let behind = exchange().addresses("10.9.9.9:1".parse().unwrap(), "10.8.8.8:8080".parse().unwrap());
    let [client, server] = [exchange().seen_by_client(), behind.seen_by_server()].map(|conversation| {
        assert!(conversation.segments().iter().all(|segment| segment.direction != Direction::Path));
        first(&check(&conversation.segments(), &EXCHANGE))
    });
    assert_eq!((client.originator_isn, client.responder_isn), (server.originator_isn, server.responder_isn));
}

#[test]
fn a_syn_ack_with_data_says_it() {
    let mut segments = Conversation::new().server("hello").segments();
    let data = segments.remove(3);
    segments[1].payload = data.payload;
    segments[1].payload_length = data.payload_length;
    check(&segments, &["0 R 1 hello", "0 SourceEnded"]);
}
