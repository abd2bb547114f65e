//! Connection attempts: refused, unreachable, timed out, slow, and what is told of each and when.

use std::time::Duration;

use pod2pod_user::{
    capture::{Direction, KernelInstant, Scope, TcpFlags, Unreachable},
    reassembly::{
        Config, Reassembler, Side,
        config::{DEFAULT_ATTEMPT_TIMEOUT, DEFAULT_SLOW_ATTEMPT, MAX_ATTEMPTS_QUEUED},
    },
};
use support::{
    capture_file::{ACK, RST},
    conversation::{CLIENT_ISN, Conversation, OwnedSegment, SERVER_ISN},
    reassembly::{Observer, Outcome, observe},
    rng::Rng,
};

const MS: u64 = 1_000_000;
pub(super) const HOST_UNREACHABLE: Unreachable = Unreachable { kind: 3, code: 1, by_this_kernel: false };

/// SYN, SYN-ACK and the first bytes, as seen by the client unless said otherwise.
pub(super) fn handshake(conversation: Conversation) -> [OwnedSegment; 4] {
    let mut segments = conversation.client("x").segments();
    segments.truncate(4);
    segments.try_into().unwrap()
}

pub(super) fn at_client() -> Conversation {
    Conversation::new().seen_by_client()
}

pub(super) fn later(segment: &OwnedSegment, milliseconds: u64) -> OwnedSegment {
    let time = segment.time.plus(Duration::from_millis(milliseconds));
    OwnedSegment { time, ..segment.clone() }
}

/// The reset that answers `syn`, `milliseconds` later.
pub(super) fn refusal(answer: &OwnedSegment, syn: &OwnedSegment, milliseconds: u64) -> OwnedSegment {
    let time = syn.time.plus(Duration::from_millis(milliseconds));
    OwnedSegment { time, sequence: 0, flags: TcpFlags(RST | ACK), ..answer.clone() }
}

pub(super) fn quoted(syn: &OwnedSegment, milliseconds: u64) -> OwnedSegment {
    OwnedSegment { unreachable: Some(HOST_UNREACHABLE), ..later(syn, milliseconds) }
}

/// Attempts that are told of `segments` if nothing follows for two minutes.
pub(super) fn told(segments: &[OwnedSegment]) -> Outcome {
    told_with(Config::default(), segments)
}

fn told_with(config: Config, segments: &[OwnedSegment]) -> Outcome {
    let mut observer = Observer::new(config);
    segments.iter().for_each(|segment| observer.push(segment));
    let end = segments.iter().map(|segment| segment.time).max().unwrap();
    for seconds in 1..120 {
        observer.expire(end.plus(Duration::from_secs(seconds)));
    }
    observer.finish()
}

#[track_caller]
pub(super) fn check(segments: &[OwnedSegment], expected: &[&str]) {
    assert_eq!(told(segments).attempt_lines(), expected);
}

#[test]
fn an_attempt_that_is_answered_at_once_is_no_news() {
    let [syn, answer, ack, data] = handshake(at_client());
    let port = syn.source.port();
    check(&[syn.clone(), answer.clone(), ack.clone(), data.clone()], &[]);
    let all = Config { tell_every_attempt: true, ..Config::default() };
    let outcome = told_with(all, &[syn, answer, ack, data]);
    assert_eq!(outcome.attempt_lines(), [format!("{port} Answered 1 ms +0")]);
    assert_eq!(
        outcome.attempts[0].connection,
        outcome
            .facts
            .values()
            .next()
            .map(|last| { pod2pod_user::reassembly::Connection { retransmits: 0, ..*last } })
            .unwrap()
    );
}

#[test]
fn what_was_refused_is_told_at_once() {
    for view in [Conversation::new(), at_client(), Conversation::new().seen_by_server()] {
        let [syn, answer, ..] = handshake(view);
        let reset = refusal(&answer, &syn, 3);
        let port = syn.source.port();
        check(&[syn.clone(), reset.clone()], &[&format!("{port} Refused 3 ms +0")]);
        let again = later(&syn, 1000);
        check(&[syn.clone(), again, later(&reset, 1000)], &[&format!("{port} Refused 1003 ms +1")]);
        // A reset that answers another number was not meant, or is forged.
        let forged = OwnedSegment { acknowledgement: reset.acknowledgement + 1, ..reset.clone() };
        let outcome = told(&[syn, forged]);
        // What this kernel sends answers another SYN.
        let is_true = u64::from(reset.direction == Direction::Egress);
        assert_eq!(outcome.stats.attempts_refused, is_true, "{:?}", outcome.attempt_lines());
    }
}

#[test]
fn a_reset_of_a_server_that_had_accepted_refuses_nothing() {
    // The SYN-ACK passed unseen, and the server closes with SO_LINGER 0: its reset is where its stream stands.
    let views = [(Conversation::new().seen_by_server(), 0), (Conversation::new(), 1), (at_client(), 1)];
    for (view, refused) in views {
        let [syn, answer, ..] = handshake(view);
        let port = syn.source.port();
        let reset = OwnedSegment { sequence: SERVER_ISN + 1, ..refusal(&answer, &syn, 3) };
        let outcome = told(&[syn.clone(), reset.clone()]);
        let counted = (outcome.stats.attempts_refused, outcome.stats.attempts_answered);
        assert_eq!(counted, (refused, 1 - refused), "{:?}", syn.direction);
        assert_eq!(outcome.attempt_lines().len() as u64, refused);
        // When it was answered is not known: not before the last SYN.
        let outcome = told(&[syn.clone(), later(&syn, 1000), later(&reset, 5000)]);
        let fate = if refused == 1 { "Refused 5003" } else { "Answered 1000" };
        assert_eq!(outcome.attempt_lines(), [format!("{port} {fate} ms +1")]);
    }
}

#[test]
fn a_syn_that_its_sender_takes_back_was_no_failure() {
    let [syn, ..] = handshake(at_client());
    let reset = OwnedSegment { sequence: CLIENT_ISN + 1, flags: TcpFlags(RST), ..later(&syn, 2) };
    let outcome = told(&[syn, reset]);
    assert_eq!((outcome.attempt_lines().len(), outcome.stats.attempts_withdrawn), (0, 1));
}

#[test]
fn silence_is_told_when_it_has_lasted() {
    // Who sees it, at interfaces or not, and how many SYNs are proof: every answer comes to the client's socket, and to
    // nobody else for sure.
    let views = [
        (at_client(), false, 1),
        (at_client(), true, 2),
        (Conversation::new().seen_by_server(), false, 2),
        (Conversation::new(), false, 2),
    ];
    for (view, at_interfaces, enough) in views {
        let config = Config { at_interfaces, ..Config::default() };
        let told = |segments: &[OwnedSegment]| told_with(config.clone(), segments);
        let [syn, ..] = handshake(view);
        let port = syn.source.port();
        // As Linux sends them: however many come, it is one attempt.
        let copies = [0, 1000, 3000, 7000, 15_000, 31_000, 63_000].map(|ms| later(&syn, ms));
        for (count, again) in [(1, 0), (2, 1), (3, 2), (4, 3), (5, 3), (7, 3)] {
            let outcome = told(&copies[..count]);
            let expected = (count >= enough).then(|| format!("{port} Timeout 10000 ms +{again}"));
            assert_eq!(
                outcome.attempt_lines(),
                Vec::from_iter(expected),
                "{count} seen as {:?}",
                syn.direction
            );
            let unanswered = u64::from(count < enough);
            assert_eq!((outcome.stats.attempts_begun, outcome.stats.attempts_unanswered), (1, unanswered));
        }
        // Sent again after its time, it has waited long enough before.
        assert_eq!(told(&[syn.clone(), later(&syn, 15_000)]).stats.attempts_timed_out, 1);
        let mut observer = Observer::new(config.clone());
        copies[..enough].iter().for_each(|syn| observer.push(syn));
        let last = syn.time.plus(Duration::from_secs(10));
        observer.expire(KernelInstant::from_nanos(last.as_nanos() - 1));
        assert_eq!(observer.reassembler().stats().attempts_timed_out, 0);
        assert_eq!(observer.reassembler().open_attempts(), 1);
        observer.expire(last);
        assert_eq!(observer.reassembler().stats().attempts_timed_out, 1);
        assert_eq!(observer.reassembler().open_attempts(), 0);
    }
}

#[test]
fn what_was_not_proved_is_no_news_once_it_is_answered() {
    // Where answers pass unseen, data of the client says that there was one, and that it was not waited for.
    for view in [Conversation::new(), Conversation::new().seen_by_server()] {
        let [syn, _, _, data] = handshake(view);
        let outcome = told(&[syn.clone(), later(&data, 20_000)]);
        assert_eq!((outcome.attempt_lines().len(), outcome.stats.attempts_answered), (0, 1));
        assert_eq!(outcome.stats.opened_handshake, 1);
    }
}

#[test]
fn where_the_source_lost_something_meanwhile_nobody_is_blamed() {
    let [syn, ..] = handshake(at_client());
    let port = syn.source.port();
    // The loss is noticed so long after the SYN, ns.
    for (noticed, fate) in [(-1, "Timeout"), (0, "Unknown"), (9_999_999_999, "Unknown")] {
        let mut observer = Observer::new(Config::default());
        observer.push(&syn);
        let at = syn.time.as_nanos().checked_add_signed(noticed).unwrap();
        observer.note_loss(KernelInstant::from_nanos(at));
        observer.expire(syn.time.plus(Duration::from_secs(10)));
        assert_eq!(observer.finish().attempt_lines(), [format!("{port} {fate} 10000 ms +0")], "{noticed}");
    }
}

#[test]
fn a_late_answer_is_told_a_second_time() {
    let [syn, answer, _, data] = handshake(at_client());
    let port = syn.source.port();
    let copies = [0, 1000, 3000, 7000, 15_000].map(|ms| later(&syn, ms));
    assert_eq!((DEFAULT_SLOW_ATTEMPT.as_millis(), DEFAULT_ATTEMPT_TIMEOUT.as_millis()), (1000, 10_000));
    for (delay, expected) in
        [(999, vec![]), (1000, vec!["Answered 1000 ms +0"]), (9999, vec!["Answered 9999 ms +0"])]
    {
        let delayed = OwnedSegment { time: syn.time, ..answer.clone() };
        let expected: Vec<_> = expected.iter().map(|line| format!("{port} {line}")).collect();
        let outcome = told(&[syn.clone(), later(&delayed, delay)]);
        assert_eq!(outcome.attempt_lines(), expected, "{delay}");
    }
    let sooner = later(&OwnedSegment { time: syn.time, ..answer.clone() }, 15_002);
    let expected = [format!("{port} Timeout 10000 ms +3"), format!("{port} Answered 15002 ms +4 late")];
    let segments = [&copies[..], &[sooner, later(&data, 15_005)]].concat();
    let outcome = told(&segments);
    assert_eq!(outcome.attempt_lines(), expected);
    // The connection knows all of it.
    let connection = outcome.facts.values().next().unwrap();
    assert_eq!((connection.syn_time, connection.syn_retransmits), (Some(syn.time), 4));
}

#[test]
fn a_syn_that_was_sent_again_is_slow_however_soon_it_was_answered() {
    let [syn, answer, ..] = handshake(at_client());
    let port = syn.source.port();
    let segments = [syn.clone(), later(&syn, 200), later(&answer, 200)];
    check(&segments, &[&format!("{port} Answered 201 ms +1")]);
    // One packet at two interfaces was not sent twice.
    let twice =
        OwnedSegment { time: KernelInstant::from_nanos(syn.time.as_nanos() + MS / 10), ..syn.clone() };
    check(&[syn.clone(), twice.clone(), answer.clone()], &[]);
    // Also the copy of a copy.
    let copies = [&syn, &twice].map(|syn| later(syn, 1000));
    let outcome = told(&[&[syn], &copies[..], &[later(&answer, 1000)]].concat());
    assert_eq!(outcome.attempt_lines(), [format!("{port} Answered 1001 ms +1")]);
}

#[test]
fn an_icmp_error_tells_why() {
    for view in [Conversation::new(), at_client(), Conversation::new().seen_by_server()] {
        let [syn, answer, ..] = handshake(view);
        let port = syn.source.port();
        let line =
            format!("{port} Unreachable(Unreachable {{ kind: 3, code: 1, by_this_kernel: false }}) 5 ms +0");
        check(&[syn.clone(), quoted(&syn, 5)], &[&line]);
        // It is told once, though later copies are answered so too.
        let again = [syn.clone(), quoted(&syn, 5), later(&syn, 1000), quoted(&syn, 1005)];
        check(&again, &[&line]);
        // A client that goes on all the same gets its connection.
        let outcome = told(&[syn.clone(), quoted(&syn, 5), later(&syn, 1000), later(&answer, 1002)]);
        let second = format!("{port} Answered 1003 ms +1 late");
        assert_eq!(outcome.attempt_lines(), [line, second]);
        assert_eq!(outcome.stats.opened_handshake, 1);
    }
}

#[test]
fn a_forged_icmp_error_ends_nothing() {
    for view in [Conversation::new(), at_client(), Conversation::new().seen_by_server()] {
        let [syn, answer, ack, data] = handshake(view);
        for change in [1, u32::MAX, 1 << 31] {
            let forged = OwnedSegment { sequence: syn.sequence.wrapping_add(change), ..quoted(&syn, 0) };
            let segments = [syn.clone(), forged.clone(), answer.clone(), ack.clone(), data.clone()];
            let outcome = told(&segments);
            assert_eq!((outcome.attempt_lines().len(), outcome.stats.unreachables_ignored), (0, 1));
            assert_eq!(outcome.lines()[0], "0 O 1 x");
            // Nor once the connection is open, with the right number.
            let outcome = told(&[syn.clone(), answer.clone(), quoted(&syn, 2), ack.clone(), data.clone()]);
            assert_eq!((outcome.attempt_lines().len(), outcome.lines()[0].as_str()), (0, "0 O 1 x"));
        }
    }
}

#[test]
fn what_this_kernel_sends_by_itself_is_found_in_any_network_world() {
    // Its sockets for ICMP and for resets are in the root's cgroup, the client and the listener are not.
    let [syn, answer, ..] = handshake(at_client().scope(7));
    let port = syn.source.port();
    let error = Unreachable { by_this_kernel: true, ..HOST_UNREACHABLE };
    let quote = OwnedSegment { scope: Scope(1), unreachable: Some(error), ..later(&syn, 4) };
    let line = format!("{port} Unreachable({error:?}) 4 ms +0");
    check(&[syn.clone(), quote.clone()], &[&line]);
    let [at_server, ..] = handshake(Conversation::new().seen_by_server().scope(8));
    let reset = OwnedSegment { scope: Scope(1), direction: Direction::Egress, ..refusal(&answer, &syn, 2) };
    check(&[at_server, reset.clone()], &[&format!("{port} Refused 2 ms +0")]);
    // Without their SYN they speak for themselves.
    let alone = told(std::slice::from_ref(&reset));
    assert_eq!(alone.attempt_lines(), [format!("{port} Refused 0 ms +0")]);
    assert_eq!(alone.attempts[0].connection.local, Some(Side::Responder));
    assert_eq!(alone.attempts[0].connection.originator_isn, Some(CLIENT_ISN));
    let alone = told(std::slice::from_ref(&quote));
    assert_eq!(alone.attempt_lines(), [format!("{port} Unreachable({error:?}) 0 ms +0")]);
    assert_eq!((alone.attempts[0].connection.local, alone.stats.unreachables_ignored), (None, 0));
    // What others send does not.
    for stranger in [quoted(&syn, 4), OwnedSegment { direction: Direction::Ingress, ..reset.clone() }] {
        assert_eq!(told(&[stranger]).attempt_lines().len(), 0);
    }
    // Nor does any other reset.
    assert_eq!(told(&[OwnedSegment { sequence: 1, ..reset }]).attempt_lines().len(), 0);
}

#[test]
fn at_the_end_of_the_source_nobody_is_blamed() {
    let [syn, ..] = handshake(at_client());
    let port = syn.source.port();
    let outcome = observe(Config::default(), std::slice::from_ref(&syn));
    assert_eq!((outcome.attempt_lines().len(), outcome.stats.attempts_cut_off), (0, 1));
    let outcome = observe(Config::default(), &[syn.clone(), later(&syn, 1000)]);
    assert_eq!(outcome.attempt_lines(), [format!("{port} Unknown 1000 ms +1")]);
}

/// SYNs of so many clients.
fn syns(count: usize) -> Vec<OwnedSegment> {
    let one = |port| {
        let ends = (([10, 0, 0, 1], port).into(), ([10, 0, 0, 2], 80).into());
        handshake(at_client().addresses(ends.0, ends.1))[0].clone()
    };
    (1..=u16::try_from(count).unwrap()).map(one).collect()
}

#[test]
fn more_than_may_wait_are_told_in_turns() {
    type End = fn(&mut Reassembler, KernelInstant);
    let expired: End = |reassembler, now| reassembler.expire(now, &mut |_| ());
    let finished: End = |reassembler, _| reassembler.finish(&mut |_| ());
    const MOST: usize = MAX_ATTEMPTS_QUEUED;
    for (end, repeats) in [(expired, 1), (finished, 2)] {
        // How many there are, and how many the first and the second turn tell.
        for (count, turns, pauses) in [
            (MOST - 1, [MOST - 1, 0], 0),
            (MOST, [MOST, 0], 0),
            (MOST + 1, [MOST, 1], 1),
            (2 * MOST, [MOST, MOST], 1),
            (2 * MOST + 1, [MOST, MOST], 2),
        ] {
            let mut observer = Observer::new(Config::default());
            let first = syns(count);
            for time in [0, 1000].iter().take(repeats) {
                first.iter().for_each(|syn| observer.push(&later(syn, *time)));
            }
            let mut reassembler = observer.into_reassembler();
            for expected in turns {
                end(&mut reassembler, first[0].time.plus(Duration::from_secs(11)));
                assert_eq!(reassembler.attempts_are_full(), expected == MOST, "{count}");
                let told = std::iter::from_fn(|| reassembler.pop_attempt()).count();
                assert_eq!(told, expected, "{count}");
            }
            assert_eq!(reassembler.open_attempts(), count - turns[0] - turns[1], "{count}");
            assert_eq!(reassembler.stats().attempts_paused, pauses, "{count}");
        }
    }
    assert_eq!(told(&syns(2 * MOST + 1)).attempts.len(), 2 * MOST + 1);
}

#[test]
fn what_is_forgotten_is_counted() {
    let config = Config { max_handshakes: 8, ..Config::default() };
    let syns = syns(10);
    assert_eq!(told_with(config.clone(), &syns[..8]).stats.attempts_forgotten, 0);
    let past = told_with(config, &syns);
    assert_eq!((past.stats.attempts_forgotten, past.stats.attempts_timed_out), (2, 8));
}

/// Whatever happens to SYNs, each attempt comes to one end, and what was told agrees with what was counted: the observer
/// checks that at its end.
#[test]
fn any_order_of_any_segments_gives_each_attempt_one_end() {
    let seed = 0x5eed_0c0d;
    println!("seed {seed}");
    let mut rng = Rng::new(seed);
    for round in 0..400 {
        let mut segments = Vec::new();
        for port in 1..6 {
            let view = match rng.next_u64() % 3 {
                0 => Conversation::new(),
                1 => at_client(),
                _ => Conversation::new().seen_by_server(),
            };
            let view = if round % 2 == 0 { view.cookie(7) } else { view };
            let conversation = view.addresses(([10, 0, 0, 1], port).into(), ([10, 0, 0, 2], 80).into());
            let [syn, answer, ack, data] = handshake(conversation);
            let all = [syn.clone(), refusal(&answer, &syn, 1), quoted(&syn, 1), answer, ack, data, syn];
            for segment in all {
                for _ in 0..rng.next_u64() % 3 {
                    segments.push(later(&segment, rng.next_u64() % 80_000));
                }
            }
        }
        segments.sort_by_key(|segment| segment.time);
        let config = Config {
            max_handshakes: 1 + (rng.next_u64() % 12) as usize,
            tell_every_attempt: round % 3 == 0,
            ..Config::default()
        };
        if !segments.is_empty() {
            told_with(config, &segments);
        }
    }
}
