//! Connection attempts that are not as they usually are: what is told of each, from every place that sees it.

use std::time::Duration;

use pod2pod_user::{
    capture::{KernelInstant, TcpFlags},
    reassembly::config::SYN_SIGHTING_WINDOW,
};
use support::conversation::{CLIENT_ISN, Conversation, OwnedSegment, SERVER_ISN};

use super::attempts::{HOST_UNREACHABLE, at_client, check, handshake, later, quoted, refusal, told};

const SYN: u8 = 0x02;
const ACK: u8 = 0x10;
const UNREACHABLE: &str = "Unreachable(Unreachable { kind: 3, code: 1, by_this_kernel: false })";

fn at_server() -> Conversation {
    Conversation::new().seen_by_server()
}

/// Every place.
fn views() -> [Conversation; 3] {
    [Conversation::new(), at_client(), at_server()]
}

fn sooner(segment: &OwnedSegment, by: Duration) -> OwnedSegment {
    let time = KernelInstant::from_nanos(segment.time.as_nanos() - by.as_nanos() as u64);
    OwnedSegment { time, ..segment.clone() }
}

/// `segments`, each seen a second time `apart` later, as at a veth and at the bridge that it is on.
fn seen_twice(segments: &[OwnedSegment], apart: Duration) -> Vec<OwnedSegment> {
    let second = |segment: &OwnedSegment| OwnedSegment { time: segment.time.plus(apart), ..segment.clone() };
    let mut all: Vec<_> = segments.iter().flat_map(|segment| [segment.clone(), second(segment)]).collect();
    all.sort_by_key(|segment| segment.time);
    all
}

#[test]
fn a_syn_at_two_interfaces_was_sent_once() {
    let window = SYN_SIGHTING_WINDOW;
    for view in views() {
        let [syn, answer, ack, data] = handshake(view);
        let port = syn.source.port();
        for apart in [Duration::ZERO, Duration::from_micros(1), Duration::from_millis(7), window] {
            // Of every copy, before the answer and after it.
            let copies = [&syn, &later(&syn, 1000), &later(&syn, 3000)].map(Clone::clone);
            let answered = [&copies[..], &[later(&answer, 3000), later(&syn, 7000), later(&answer, 7000)]];
            let outcome = told(&seen_twice(&answered.concat(), apart));
            assert_eq!(outcome.attempt_lines(), [format!("{port} Answered 3001 ms +2")], "{apart:?}");
            let refused = [&copies[..], &[refusal(&answer, &syn, 3200)]].concat();
            let mut refused = seen_twice(&refused, apart);
            // This kernel's own is seen once.
            refused.pop();
            check(&refused, &[&format!("{port} Refused 3200 ms +2")]);
            check(&seen_twice(&copies, apart), &[&format!("{port} Timeout 10000 ms +2")]);
        }
        let whole = [&syn, &answer, &ack, &data, &later(&syn, 1000), &later(&data, 1100)].map(Clone::clone);
        for (apart, copies) in [(window, 1), (window + Duration::from_millis(1), 3)] {
            let outcome = told(&seen_twice(&whole[..], apart));
            let facts = outcome.facts.values().next().unwrap();
            assert_eq!(facts.syn_retransmits, copies, "{apart:?} from {:?}", syn.direction);
        }
    }
}

#[test]
fn an_answer_that_comes_twice_is_one() {
    for view in views() {
        let [syn, answer, ack, data] = handshake(view);
        let port = syn.source.port();
        // The client's acknowledgement was lost: the server sends its answer again.
        let again = [&answer, &ack, &data].map(|segment| later(segment, 1000));
        let outcome = told(&[&[syn.clone(), answer.clone()], &again[..]].concat());
        assert_eq!(outcome.attempt_lines(), Vec::<String>::new());
        assert_eq!((outcome.stats.attempts_answered, outcome.stats.opened_handshake), (1, 1));
        // Before it is known that it was lost, the client sends its SYN again. What is slow is what came before the answer.
        let crossed = [&[syn.clone(), answer.clone(), later(&syn, 1000)], &again[..]].concat();
        let outcome = told(&crossed);
        assert_eq!(outcome.attempt_lines(), Vec::<String>::new());
        let facts = outcome.facts.values().next().unwrap();
        assert_eq!((facts.syn_retransmits, facts.syn_time), (1, Some(syn.time)));
        // The answer to a copy: the first one's answer was lost before it was seen.
        check(
            &[syn.clone(), later(&syn, 1000), later(&answer, 1000), later(&answer, 1001)],
            &[&format!("{port} Answered 1001 ms +1")],
        );
    }
}

#[test]
fn a_refusal_that_comes_late_is_told_a_second_time() {
    for view in views() {
        let [syn, answer, ..] = handshake(view);
        let port = syn.source.port();
        let silence = format!("{port} Timeout 10000 ms +2");
        let copies = [0, 1000, 3000].map(|ms| later(&syn, ms));
        let after = |last: &[OwnedSegment]| [&copies[..], last].concat();
        let reset = refusal(&answer, &syn, 12_000);
        let refused = format!("{port} Refused 12000 ms +2 late");
        check(&after(std::slice::from_ref(&reset)), &[&silence, &refused]);
        let unreachable = format!("{port} {UNREACHABLE} 12000 ms +2 late");
        check(&after(&[quoted(&syn, 12_000)]), &[&silence, &unreachable]);
        // Once, however often it comes.
        check(&after(&[quoted(&syn, 12_000), quoted(&syn, 13_000)]), &[&silence, &unreachable]);
        check(&after(&[quoted(&syn, 12_000), later(&reset, 1000)]), &[&silence, &unreachable]);
        // A client that goes on, and is taken in the end.
        let taken = after(&[quoted(&syn, 12_000), later(&syn, 15_000), later(&answer, 15_000)]);
        check(&taken, &[&silence, &unreachable, &format!("{port} Answered 15001 ms +3 late")]);
        // Its sender takes it back: that is no answer.
        let withdrawn =
            OwnedSegment { sequence: CLIENT_ISN + 1, flags: TcpFlags(0x04), ..later(&syn, 12_000) };
        check(&after(&[withdrawn]), &[&silence]);
        // Nobody remembers it any more.
        let outcome = told(&after(&[later(&reset, 40_000)]));
        let alone = format!("{port} Refused 0 ms +0");
        let is_own = reset.direction == pod2pod_user::capture::Direction::Egress;
        let told_alone = if is_own { vec![silence.clone(), alone] } else { vec![silence.clone()] };
        assert_eq!(outcome.attempt_lines(), told_alone);
        // Of a connection that has begun, a reset says nothing about the attempt.
        let reset = OwnedSegment { sequence: SERVER_ISN.wrapping_add(1), ..reset };
        check(&[syn.clone(), answer.clone(), reset], &[]);
    }
}

#[test]
fn an_icmp_error_is_about_the_syn_that_it_quotes() {
    for view in views() {
        let [old, ..] = handshake(view.clone());
        let [new, answer, ack, data] = handshake(view.isns(CLIENT_ISN.wrapping_add(1 << 24), SERVER_ISN));
        let port = old.source.port();
        // The client came back with its port after 2 s, and the error is about its first attempt.
        let new = later(&new, 2000);
        let rest = [answer, ack, data].map(|segment| later(&segment, 2000));
        let first = format!("{port} {UNREACHABLE} 3000 ms +0");
        let both = [old.clone(), new.clone(), quoted(&old, 3000)];
        let outcome = told(
            &[&both[..], &[later(&new, 1500)], &rest.each_ref().map(|segment| later(segment, 1500))].concat(),
        );
        assert_eq!(outcome.attempt_lines(), [first.clone(), format!("{port} Answered 1501 ms +1")]);
        assert_eq!(outcome.lines()[0], "0 O 1 x");
        let second = format!("{port} {UNREACHABLE} 1000 ms +0");
        check(&[&both[..], &[quoted(&new, 1000)]].concat(), &[&first, &second]);
        // The connection that is open by then goes on.
        let open = [&both[..2], &rest, &[quoted(&old, 3000)]].concat();
        let outcome = told(&open);
        assert_eq!((outcome.attempt_lines(), outcome.stats.opened_handshake), (vec![first], 1));
        // Nobody remembers it any more.
        let outcome = told(&[old.clone(), later(&old, 1000), quoted(&old, 60_000)]);
        assert_eq!(outcome.attempt_lines(), [format!("{port} Timeout 10000 ms +1")]);
        assert_eq!(outcome.stats.unreachables_ignored, 1, "{HOST_UNREACHABLE:?}");
    }
}

#[test]
fn two_syns_that_cross_are_answered_both() {
    // RFC 9293 3.5, figure 7: each end sends its SYN again, with an acknowledgement of the other's.
    for view in views() {
        let [syn, answer, ..] = handshake(view);
        let port = syn.source.port();
        let crossing = OwnedSegment { flags: TcpFlags(SYN), acknowledgement: 0, ..later(&answer, 0) };
        let own = OwnedSegment {
            flags: TcpFlags(SYN | ACK),
            acknowledgement: SERVER_ISN.wrapping_add(1),
            ..later(&syn, 2)
        };
        let all = [syn.clone(), crossing.clone(), own.clone(), later(&answer, 3)];
        let outcome = told(&all);
        assert_eq!(outcome.attempt_lines(), Vec::<String>::new());
        assert_eq!((outcome.stats.attempts_begun, outcome.stats.attempts_answered), (2, 2));
        // Both are lost beyond the place that sees them, and sent again: each is an attempt, whose client is its sender.
        let lost = [syn.clone(), crossing.clone(), later(&syn, 1000), later(&crossing, 1000)];
        let other = crossing.source.port();
        let lines = [port, other].map(|port| format!("{port} Timeout 10000 ms +1"));
        check(&lost, &lines.each_ref().map(|line| &line[..]));
    }
}

/// A SYN with data (TCP Fast Open, RFC 7413).
fn with_data(syn: &OwnedSegment) -> OwnedSegment {
    OwnedSegment { payload: b"abc".to_vec(), payload_length: 3, ..syn.clone() }
}

#[test]
fn data_in_a_syn_changes_nothing_about_the_attempt() {
    for view in views() {
        let [syn, answer, ..] = handshake(view);
        let port = syn.source.port();
        let open = with_data(&syn);
        for taken in [0, 3] {
            let acknowledgement = answer.acknowledgement + taken;
            let accepted = OwnedSegment { acknowledgement, ..answer.clone() };
            check(&[open.clone(), accepted.clone()], &[]);
            // Linux sends the SYN again without it (RFC 7413 4.1.3).
            let late = [open.clone(), later(&syn, 1000), later(&accepted, 1000)];
            check(&late, &[&format!("{port} Answered 1001 ms +1")]);
            let reset = OwnedSegment { acknowledgement, ..refusal(&answer, &syn, 3) };
            check(&[open.clone(), reset], &[&format!("{port} Refused 3 ms +0")]);
        }
        check(&[open.clone(), quoted(&syn, 5)], &[&format!("{port} {UNREACHABLE} 5 ms +0")]);
        check(&[open.clone(), later(&syn, 1000)], &[&format!("{port} Timeout 10000 ms +1")]);
    }
}

#[test]
fn an_answer_that_passed_unseen_has_no_time() {
    // SYN cookies: the server's socket does not see its SYN-ACK; on a path it goes another way.
    for view in [Conversation::new(), at_server()] {
        let [syn, _, ack, data] = handshake(view);
        let port = syn.source.port();
        let sent_again = [0, 1000, 3000].map(|ms| later(&syn, ms));
        for (wait, thinks) in [(0, 5), (0, 9000), (0, 30_000), (2, 5), (2, 6000)] {
            let last = &sent_again[wait];
            // The client has nothing to say for a while.
            let first = sooner(&later(&data, thinks), Duration::ZERO);
            let first = OwnedSegment { time: last.time.plus(first.time.since(syn.time)), ..first };
            let segments = [&sent_again[..=wait], &[first]].concat();
            let lines = (wait > 0).then(|| format!("{port} Answered 3000 ms +2"));
            assert_eq!(told(&segments).attempt_lines(), Vec::from_iter(lines), "{wait} {thinks}");
        }
        // The third packet tells it, where it is seen.
        let third = later(&ack, 1500);
        check(&[syn.clone(), third], &[&format!("{port} Answered 1502 ms +0")]);
        // What was told as a timeout is corrected.
        let late = [&sent_again[..], &[later(&data, 20_000)]].concat();
        let lines = ["Timeout 10000 ms +2", "Answered 3000 ms +2 late"].map(|line| format!("{port} {line}"));
        check(&late, &lines.each_ref().map(|line| &line[..]));
    }
    // To the client itself every answer comes.
    let [syn, answer, _, data] = handshake(at_client());
    check(&[syn, answer, later(&data, 30_000)], &[]);
}
