//! Each rule of data, FIN and RST on one connection.

use std::time::Duration;

use pod2pod_common::segment::TCP_RST;
use pod2pod_user::reassembly::{CloseCause, Config, Content, Reassembler, Side, config::RESET_GRACE};
use support::{
    conversation::{CLIENT_ISN, Conversation, OwnedSegment, STEP_NS, overlapping, restamp},
    reassembly::{self, Observer},
    rng::Rng,
};

use super::{check, observe};

const MILLISECOND: Duration = Duration::from_millis(1);

/// Two exchanges and an orderly end.
fn two_exchanges() -> Conversation {
    Conversation::new()
        .client("request-1")
        .server("response-1")
        .client("request-2")
        .server("response-2")
        .close()
}

const TWO_EXCHANGES: [&str; 7] = [
    "0 O 1 request-1",
    "0 R 1 response-1",
    "0 O 10 request-2",
    "0 R 11 response-2",
    "0 O 19 Finished",
    "0 R 21 Finished",
    "0 Finished",
];

/// Puts the segment at `from` before the one at `to`, as a capture that is out of order.
fn moved(mut segments: Vec<OwnedSegment>, from: usize, to: usize) -> Vec<OwnedSegment> {
    let segment = segments.remove(from);
    segments.insert(to, segment);
    restamp(&mut segments, MILLISECOND);
    segments
}

fn without(mut segments: Vec<OwnedSegment>, index: usize) -> Vec<OwnedSegment> {
    segments.remove(index);
    segments
}

#[test]
fn in_order_from_every_view_and_at_every_cut() {
    let views = [two_exchanges(), two_exchanges().seen_by_client(), two_exchanges().seen_by_server()];
    for conversation in views {
        check(&conversation.segments(), &TWO_EXCHANGES);
        check(&conversation.clone().with_acks().segments(), &TWO_EXCHANGES);
        for cut in 1..20 {
            check(&conversation.clone().cut_every(cut).segments(), &TWO_EXCHANGES);
            check(&conversation.clone().cut_at(&[cut]).segments(), &TWO_EXCHANGES);
        }
    }
}

#[test]
fn wrapping_sequence_numbers_change_nothing() {
    for back in 0..25 {
        let isn = u32::MAX - back;
        let conversation = two_exchanges().isns(isn, isn.wrapping_add(3));
        check(&conversation.segments(), &TWO_EXCHANGES);
        check(&conversation.cut_every(1).segments(), &TWO_EXCHANGES);
    }
}

#[test]
fn any_order_after_the_handshake_gives_the_same() {
    let segments = two_exchanges().cut_every(4).segments();
    for seed in 0..2_000 {
        let mut shuffled = segments.clone();
        Rng::new(seed).shuffle(&mut shuffled[3..]);
        restamp(&mut shuffled, MILLISECOND);
        let outcome = observe(&shuffled);
        assert_eq!(outcome.lines(), TWO_EXCHANGES, "seed {seed}");
        assert_eq!(outcome.stats.retransmits, 0, "seed {seed}");
    }
}

#[test]
fn a_response_never_overtakes_its_request() {
    let segments = two_exchanges().segments();
    // Response and request swapped, and the end before everything.
    check(&moved(segments.clone(), 4, 3), &TWO_EXCHANGES);
    check(&moved(segments.clone(), 6, 3), &TWO_EXCHANGES);
    check(&moved(moved(segments, 8, 3), 8, 3), &TWO_EXCHANGES);
}

#[test]
fn a_reset_waits_for_what_was_sent_before_it() {
    let segments = Conversation::new().client("request").server("response").server_rst().segments();
    let expected = ["0 O 1 request", "0 R 1 response", "0 Reset(Responder)"];
    check(&segments, &expected);
    check(&moved(segments.clone(), 5, 4), &expected);
    check(&moved(segments, 5, 3), &expected);
}

#[test]
fn a_copy_is_a_retransmission() {
    let mut segments = two_exchanges().segments();
    let mut copy = segments[3].clone();
    copy.time = segments[8].time;
    segments.insert(5, copy);
    let outcome = check(&segments, &TWO_EXCHANGES);
    assert_eq!(outcome.stats.retransmits, 1);
    assert_eq!(outcome.facts.values().next().map(|facts| facts.retransmits), Some(1));
}

#[test]
fn a_packet_sighted_twice_on_a_path_is_no_retransmission() {
    for (micros, retransmits) in [(1, 0), (200, 0), (201, 1)] {
        let mut segments = two_exchanges().segments();
        let mut copy = segments[3].clone();
        copy.time = copy.time.plus(Duration::from_micros(micros));
        segments.insert(4, copy);
        let outcome = check(&segments, &TWO_EXCHANGES);
        assert_eq!((outcome.stats.retransmits, outcome.stats.sighted_twice), (retransmits, 1 - retransmits));
    }
    let mut segments = two_exchanges().seen_by_server().segments();
    segments.insert(4, segments[3].clone());
    assert_eq!(check(&segments, &TWO_EXCHANGES).stats.retransmits, 1);
}

#[test]
fn keep_alive_probes_are_neither_data_nor_retransmissions() {
    let conversation = Conversation::new()
        .client("request-1")
        .client_keep_alive()
        .server("response-1")
        .server_keep_alive()
        .client("request-2")
        .server("response-2")
        .client_keep_alive()
        .close();
    let outcome = check(&conversation.segments(), &TWO_EXCHANGES);
    assert_eq!((outcome.stats.keep_alives, outcome.stats.retransmits), (3, 0));
}

#[test]
fn the_first_copy_of_a_byte_wins() {
    let segments = two_exchanges().segments();
    // After delivery: an old part that differs, and new bytes behind it.
    let mut late = segments.clone();
    late[5] = overlapping(&late[5], 9, b'X');
    let outcome = check(&late, &TWO_EXCHANGES);
    assert_eq!(outcome.stats.overlapped_bytes, 9);
    // Between held pieces: the second copy of what waits for a hole differs.
    let mut pieces = Conversation::new().client("abcdef").cut_every(2).segments();
    let mut other = overlapping(&pieces[5], 2, b'X');
    other.payload = b"XXXX".to_vec();
    pieces.swap(3, 5);
    pieces.insert(4, other);
    restamp(&mut pieces, MILLISECOND);
    check(&pieces, &["0 O 1 abXXef", "0 SourceEnded"]);
}

#[test]
fn a_half_closed_connection_goes_on() {
    let conversation =
        Conversation::new().client("request").client_fin().server("a long ").server("response").server_fin();
    check(
        &conversation.segments(),
        &["0 O 1 request", "0 O 8 Finished", "0 R 1 a long response", "0 R 16 Finished", "0 Finished"],
    );
}

#[test]
fn a_fin_counts_only_in_its_place() {
    let mut segments = Conversation::new().client("abc").client("def").client_fin().server("x").segments();
    segments.swap(3, 5);
    restamp(&mut segments, MILLISECOND);
    let expected = ["0 O 1 abcdef", "0 O 7 Finished", "0 R 1 x", "0 SourceEnded"];
    check(&segments, &expected);
    // Data after it is no data.
    let mut after = Conversation::new().client("abc").client_fin().server("x").segments();
    let mut more = after[3].clone();
    more.sequence = CLIENT_ISN + 4;
    after.insert(5, more.clone());
    let outcome = check(&after, &["0 O 1 abc", "0 O 4 Finished", "0 R 1 x", "0 SourceEnded"]);
    assert_eq!(outcome.stats.bytes_after_finish, 3);
    // Nor is a FIN where data came first.
    after.swap(3, 5);
    let outcome = check(&after, &["0 O 1 abcabc", "0 R 1 x", "0 SourceEnded"]);
    assert_eq!(outcome.stats.finishes_ignored, 1);
}

#[test]
fn late_copies_of_an_ended_connection_are_no_new_one() {
    let mut segments = two_exchanges().segments();
    let copies: Vec<_> = segments[3..].to_vec();
    segments.extend(copies);
    restamp(&mut segments, MILLISECOND);
    let outcome = check(&segments, &TWO_EXCHANGES);
    assert_eq!(outcome.stats.after_close, 7 + 1);
}

#[test]
fn a_reset_counts_only_at_the_expected_number() {
    let base = Conversation::new().client("request").server("response").client_rst().segments();
    for (distance, is_valid) in [(0, true), (1, false), (u32::MAX, false), (70_000, false), (1 << 31, false)]
    {
        let mut segments = base.clone();
        segments[5].sequence = segments[5].sequence.wrapping_add(distance);
        let end = if is_valid { "0 Reset(Originator)" } else { "0 SourceEnded" };
        let mut later = segments[4].clone();
        later.time = later.time.plus(Duration::from_secs(1));
        segments.push(later);
        let outcome = check(&segments, &["0 O 1 request", "0 R 1 response", end]);
        assert_eq!(outcome.stats.resets_ignored, u64::from(!is_valid), "distance {distance}");
    }
}

#[test]
fn a_reset_on_a_path_is_void_once_its_sender_goes_on() {
    let base = Conversation::new().client("request").server("response").client("again").segments();
    let check_reset = |place: usize, of: usize, expected: &[&str], contradicted: u64| {
        let mut segments = base.clone();
        let mut reset = base[of].clone();
        reset.flags.0 = TCP_RST;
        reset.payload.clear();
        reset.payload_length = 0;
        segments.insert(place, reset);
        let outcome = check(&segments, expected);
        assert_eq!(outcome.stats.resets_contradicted, contradicted);
    };
    // Forged in the name of the server before it answers, and of the client before its second request.
    check_reset(4, 4, &["0 O 1 request", "0 R 1 response", "0 O 8 again", "0 SourceEnded"], 1);
    check_reset(5, 5, &["0 O 1 request", "0 R 1 response", "0 O 8 again", "0 SourceEnded"], 1);
    // The server's answer was on its way when the client reset: that contradicts nothing.
    let mut segments = base.clone();
    segments.truncate(5);
    let mut reset = base[5].clone();
    reset.flags.0 = TCP_RST;
    reset.payload.clear();
    reset.payload_length = 0;
    segments.insert(4, reset);
    let outcome = check(&segments, &["0 O 1 request", "0 R 1 response", "0 Reset(Originator)"]);
    assert_eq!((outcome.stats.resets_contradicted, outcome.stats.closed_reset), (0, 1));
}

#[test]
fn a_reset_is_told_when_nobody_has_contradicted_it_in_time() {
    for (wait, contradicted) in [(RESET_GRACE - MILLISECOND, 1), (RESET_GRACE, 0)] {
        let mut segments = Conversation::new().client("request").client_rst().client("again").segments();
        let reset = segments[4].time;
        segments[5].time = reset.plus(wait);
        let outcome = observe(&segments);
        assert_eq!(outcome.stats.resets_contradicted, contradicted, "{wait:?}");
        assert_eq!(outcome.stats.closed_reset, 1 - contradicted, "{wait:?}");
    }
}

#[test]
fn a_reset_at_a_socket_end_is_told_at_once() {
    let segments = Conversation::new().client("request").client_rst().seen_by_server().segments();
    let mut reassembler = Reassembler::new(Config::default());
    let mut closed = Vec::new();
    for segment in &segments {
        reassembler.push(&segment.borrow(), segment.time, &mut |chunk| {
            if let Content::Closed(cause) = chunk.content {
                closed.push(cause);
            }
        });
    }
    assert_eq!(closed, [CloseCause::Reset(Side::Originator)]);
}

#[test]
fn a_reset_beyond_our_own_hole_counts_at_the_highest_number() {
    let mut segments = Conversation::new().client("abc").client("def").client("ghi").client_rst().segments();
    segments.remove(4);
    let outcome = check(&segments, &["0 O 1 abc", "0 O 4 Missing 3 ours", "0 O 7 ghi", "0 SourceEnded"]);
    assert_eq!(outcome.stats.closed_reset, 0);
    // Once packet time has gone on, it is known that the hole stays.
    let mut later = Conversation::new().isns(1, 2).interface(9).segments();
    later.iter_mut().for_each(|segment| {
        segment.source.set_port(1);
        segment.time = segment.time.plus(Duration::from_secs(1));
    });
    segments.push(later[0].clone());
    check(&segments, &["0 O 1 abc", "0 O 4 Missing 3 ours", "0 O 7 ghi", "0 Reset(Originator)"]);
}

#[test]
fn far_sequence_numbers_are_ignored() {
    let window = 1_u32 << 30;
    for (distance, far) in [(window, 0), (window + 1, 1), (1 << 31, 1)] {
        let mut segments = Conversation::new().client("abc").client("def").segments();
        let mut forged = segments[4].clone();
        forged.sequence = CLIENT_ISN.wrapping_add(4).wrapping_add(distance);
        segments.insert(4, forged);
        let outcome = observe(&segments);
        assert_eq!(outcome.stats.far_segments, far, "{distance}");
        assert_eq!(outcome.lines()[0], "0 O 1 abcdef");
    }
}

#[test]
fn an_acknowledged_hole_becomes_a_gap_soon_and_ours() {
    let segments = without(two_exchanges().segments(), 3);
    // The response acknowledges the request that is missing; packet time goes on by 100 ms.
    let mut slow = segments.clone();
    restamp(&mut slow, Duration::from_millis(50));
    let expected = [
        "0 O 1 Missing 9 ours",
        "0 R 1 response-1",
        "0 O 10 request-2",
        "0 R 11 response-2",
        "0 O 19 Finished",
        "0 R 21 Finished",
        "0 Finished",
    ];
    assert_eq!(check(&slow, &expected).stats.gaps_missing, 1);
    check(&segments, &[&expected[..6], &["0 SourceEnded"]].concat());
}

#[test]
fn a_hole_that_nobody_acknowledged_waits_for_its_retransmission() {
    let mut segments = Conversation::new().client("abc").client("def").client("ghi").segments();
    let lost = segments.remove(4);
    let retransmitted = |seconds| {
        let mut segments = segments.clone();
        let mut late = lost.clone();
        late.time = late.time.plus(Duration::from_millis(seconds));
        segments.push(late);
        segments
    };
    check(&retransmitted(120_000), &["0 O 1 abcdefghi", "0 SourceEnded"]);
    let outcome =
        check(&retransmitted(120_002), &["0 O 1 abc", "0 O 4 Missing 3 ours", "0 O 7 ghi", "0 SourceEnded"]);
    assert_eq!((outcome.stats.late_bytes, outcome.stats.retransmits), (3, 0));
}

#[test]
fn our_own_loss_is_known_at_once() {
    let mut segments = without(two_exchanges().seen_by_server().segments(), 3);
    segments[3].lost_before = true;
    check(
        &segments,
        &[
            "0 O 1 Missing 9 ours",
            "0 R 1 response-1",
            "0 O 10 request-2",
            "0 R 11 response-2",
            "0 O 19 Finished",
            "0 R 21 Finished",
            "0 Finished",
        ],
    );
}

#[test]
fn what_never_reached_the_local_end_is_not_our_loss() {
    let conversation = Conversation::new().client("abc").client("def").client_rst();
    for (conversation, whose) in
        [(conversation.clone().seen_by_server(), "theirs"), (conversation.seen_by_client(), "ours")]
    {
        let segments = without(conversation.segments(), 3);
        check(&segments, &[&format!("0 O 1 Missing 3 {whose}"), "0 O 4 def", "0 SourceEnded"]);
    }
}

#[test]
fn a_cut_is_told_at_once() {
    let mut segments = two_exchanges().segments();
    segments[4] = segments[4].clone().cut_to(8);
    segments[5] = segments[5].clone().cut_to(0);
    let expected = [
        "0 O 1 request-1",
        "0 R 1 response",
        "0 R 9 Cut 2 ours",
        "0 O 10 Cut 9 ours",
        "0 R 11 response-2",
        "0 O 19 Finished",
        "0 R 21 Finished",
        "0 Finished",
    ];
    let outcome = check(&segments, &expected);
    assert_eq!((outcome.stats.gaps_cut, outcome.stats.gap_bytes_cut), (2, 11));
    // Held before their turn, the same.
    check(&moved(segments, 3, 5), &expected);
}

#[test]
fn what_was_left_out_on_purpose_is_not_waited_for() {
    // The response's body is left out from its third byte on; what comes next shows it: data, acknowledgement, FIN.
    for (rest, expected) in [
        (&["the last of it"][..], &["0 R 3 Cut 1000000 ours", "0 R 1000003 the last of it"][..]),
        (&[], &["0 R 3 Cut 1000000 ours"]),
    ] {
        for conversation in [Conversation::new(), Conversation::new().seen_by_client()] {
            let mut said = conversation.client("request").server("re").server(vec![b'x'; 1_000_000]);
            for text in rest {
                said = said.server(text);
            }
            let segments = without(said.client("next").segments(), 5);
            let mut observer = Observer::new(Config::default());
            for segment in &segments[..5] {
                observer.push(segment);
            }
            observer.expect_cut(Side::Responder, 1_000_003);
            for segment in &segments[5..] {
                observer.push(segment);
            }
            let told = observer.lines();
            assert_eq!(told, [&["0 O 1 request", "0 R 1 re"], expected, &["0 O 8 next"]].concat());
            assert_eq!(observer.finish().stats.gaps_cut, 1);
        }
    }
}

#[test]
fn streams_pass_four_gibibytes() {
    let mut segments = Conversation::new().client("x").segments();
    let piece = 1_u32 << 29;
    let mut segment = segments[3].clone();
    for _ in 0..20 {
        segment.sequence = segment.sequence.wrapping_add(segment.payload_length);
        segment.payload_length = piece;
        segment.payload.clear();
        segments.push(segment.clone());
    }
    segment.sequence = segment.sequence.wrapping_add(piece);
    segment.payload = b"end".to_vec();
    segment.payload_length = 3;
    segments.push(segment);
    restamp(&mut segments, MILLISECOND);
    let lines = observe(&segments).lines();
    let end = 2 + 20 * u64::from(piece);
    assert_eq!(lines[lines.len() - 2..], [format!("0 O {end} end"), "0 SourceEnded".to_owned()]);
}

#[test]
fn silence_ends_a_connection() {
    let config = Config { idle_timeout: Duration::from_secs(60), ..Config::default() };
    let mut segments = Conversation::new().client("a").client("b").segments();
    segments[4].time = segments[3].time.plus(Duration::from_secs(70));
    let outcome = reassembly::observe(config, &segments);
    let isn = u64::from(CLIENT_ISN);
    let middle = format!("1 O {} b", isn + 2);
    assert_eq!(outcome.lines(), ["0 O 1 a", "0 Idle", &middle, "1 SourceEnded"]);
}

#[test]
fn the_time_of_a_chunk_is_that_of_its_first_copy() {
    let conversation = Conversation::new().client("abc").client("def");
    let mut segments = conversation.segments();
    segments.swap(3, 4);
    restamp(&mut segments, MILLISECOND);
    let outcome = check(&segments, &["0 O 1 abcdef", "0 SourceEnded"]);
    assert_eq!(outcome.told[0].time.since(segments[0].time).as_nanos() as u64, 4 * STEP_NS);
}
