//! Every limit: what fits at it, what is done one past it, and who pays.

use std::time::Duration;

use pod2pod_user::{
    capture::KernelInstant,
    reassembly::config::{Config, HELD_OVERHEAD, MAX_HANDSHAKES_PER_TUPLE, PIECE_OVERHEAD},
};
use support::{
    conversation::{Conversation, OwnedSegment, START_NS, restamp},
    reassembly::{Observer, observe},
    rng::Rng,
};

/// A conversation of the client with this port.
fn of_port(port: u16) -> Conversation {
    Conversation::new().addresses(([10, 0, 0, 1], port).into(), ([10, 0, 0, 2], 80).into())
}

/// A handshake, then `count` one-byte segments of which the first never comes.
fn with_hole(port: u16, count: usize) -> Vec<OwnedSegment> {
    let mut segments = of_port(port).client(vec![b'x'; count + 1]).cut_every(1).segments();
    segments.remove(3);
    restamp(&mut segments, Duration::from_micros(1));
    segments
}

#[test]
fn pieces_of_a_direction() {
    let config = Config { max_held_pieces: 5, ..Config::default() };
    let lines = |count| observe(config.clone(), &with_hole(1, count)).lines();
    assert_eq!(lines(5), ["0 O 1 Missing 1 ours", "0 O 2 xxxxx", "0 SourceEnded"]);
    assert_eq!(lines(6), ["0 O 1 Limit 1 ours", "0 O 2 xxxxxx", "0 SourceEnded"]);
    let stats = observe(config, &with_hole(1, 6)).stats;
    assert_eq!((stats.limit_direction, stats.gaps_limit, stats.gap_bytes_limit), (1, 1, 1));
}

#[test]
fn bytes_of_a_direction() {
    let config = Config { max_held_bytes: HELD_OVERHEAD + 5 * (PIECE_OVERHEAD + 1), ..Config::default() };
    let at = observe(config.clone(), &with_hole(1, 5));
    assert_eq!((at.stats.gaps_limit, at.most_held), (0, HELD_OVERHEAD + 5 * (PIECE_OVERHEAD + 1)));
    assert_eq!(observe(config, &with_hole(1, 6)).stats.gaps_limit, 1);
}

#[test]
fn only_as_many_holes_are_given_up_as_needed() {
    let config = Config { max_held_pieces: 3, ..Config::default() };
    // Every second byte is missing.
    let mut segments = Conversation::new().client("abcdefgh").cut_every(1).segments();
    for index in [9, 7, 5, 3] {
        segments.remove(index);
    }
    let lines = observe(config, &segments).lines();
    assert_eq!(lines[..3], ["0 O 1 Limit 1 ours", "0 O 2 b", "0 O 3 Missing 1 ours"]);
}

#[test]
fn all_connections_together_and_the_one_that_waited_longest_pays() {
    let both = 2 * HELD_OVERHEAD + 10 * (PIECE_OVERHEAD + 1);
    let config = Config { max_total_held_bytes: both, ..Config::default() };
    let mut segments = [with_hole(1, 4), with_hole(2, 6)].concat();
    restamp(&mut segments, Duration::from_micros(1));
    let at = observe(config.clone(), &segments);
    assert_eq!((at.stats.limit_total, at.most_held), (0, both));
    segments.extend_from_slice(&with_hole(3, 1));
    restamp(&mut segments, Duration::from_micros(1));
    let past = observe(config, &segments);
    assert_eq!((past.stats.limit_total, past.stats.gaps_limit), (1, 1));
    assert_eq!(past.lines()[..2], ["0 O 1 Limit 1 ours", "0 O 2 xxxx"]);
}

#[test]
fn connections_and_the_least_recently_active_pays() {
    let config = Config { max_connections: 2, ..Config::default() };
    let [one, two, three] = [1, 2, 3].map(|port| of_port(port).client("a").client("b").segments());
    let mut segments = [&one[..4], &two[..4]].concat();
    restamp(&mut segments, Duration::from_secs(2));
    let later = |segment: &OwnedSegment, seconds| {
        let mut segment = segment.clone();
        segment.time = KernelInstant::from_nanos(START_NS).plus(Duration::from_secs(seconds));
        segment
    };
    // The first is active again, so the second has been silent for longer.
    segments.push(later(&one[4], 60));
    let at = observe(config.clone(), &segments);
    assert_eq!((at.stats.closed_evicted, at.most_connections), (0, 2));
    segments.extend(three.iter().map(|segment| later(segment, 61)));
    let past = observe(config, &segments);
    assert_eq!((past.stats.closed_evicted, past.most_connections), (1, 2));
    assert!(past.lines().contains(&"1 Evicted".to_owned()), "{:?}", past.lines());
}

#[test]
fn unanswered_handshakes() {
    let config = Config { max_handshakes: 4, ..Config::default() };
    let syns: Vec<_> = (1..=5).map(|port| of_port(port).segments().swap_remove(0)).collect();
    let at = observe(config.clone(), &syns[..4]);
    assert_eq!((at.stats.handshakes_forgotten, at.stats.handshakes_expired), (0, 4));
    let past = observe(config, &syns);
    assert_eq!((past.stats.handshakes_forgotten, past.stats.handshakes_expired), (1, 4));
}

#[test]
fn unanswered_handshakes_of_one_tuple() {
    let with = |count: u32| {
        let syns =
            (0..count).map(|index| Conversation::new().isns(index * 9_999_999, 1).segments().swap_remove(0));
        observe(Config::default(), &syns.collect::<Vec<_>>()).stats
    };
    let limit = MAX_HANDSHAKES_PER_TUPLE as u32;
    assert_eq!((with(limit).handshakes_forgotten, with(limit).handshakes_expired), (0, u64::from(limit)));
    assert_eq!(
        (with(limit + 1).handshakes_forgotten, with(limit + 1).handshakes_expired),
        (1, u64::from(limit))
    );
}

#[test]
fn times_of_handshakes_and_of_ended_connections() {
    let config = Config::default();
    let mut observer = Observer::new(config.clone());
    assert_eq!(observer.reassembler().next_deadline(), None, "nothing is awaited");
    let syn = of_port(1).segments().swap_remove(0);
    observer.push(&syn);
    let waited = syn.time.plus(config.attempt_timeout);
    assert_eq!(observer.reassembler().next_deadline(), Some(waited));
    observer.expire(waited);
    let deadline = syn.time.plus(config.handshake_timeout);
    assert_eq!(observer.reassembler().next_deadline(), Some(deadline));
    observer.expire(KernelInstant::from_nanos(deadline.as_nanos() - 1));
    assert_eq!(observer.reassembler().stats().handshakes_expired, 0);
    observer.expire(deadline);
    assert_eq!(observer.reassembler().stats().handshakes_expired, 1);

    for (linger, after_close) in [(1, 1), (0, 0)] {
        let mut segments = of_port(2).client("abc").close().segments();
        let mut late = segments[3].clone();
        let end = segments[5].time.plus(config.linger);
        late.time = KernelInstant::from_nanos(end.as_nanos() - linger);
        segments.push(late);
        let stats = observe(config.clone(), &segments).stats;
        // One more is the last acknowledgement, which comes after both sides have finished.
        assert_eq!((stats.after_close, stats.opened_middle), (1 + after_close, 1 - after_close));
    }
}

#[test]
fn ended_connections() {
    let config = Config { max_lingering: 2, ..Config::default() };
    let with = |count: u16| {
        let all = (1..=count).flat_map(|port| of_port(port).client("abc").close().segments());
        observe(config.clone(), &all.collect::<Vec<_>>()).stats.limit_lingering
    };
    assert_eq!((with(2), with(3)), (0, 1));
}

#[test]
fn data_of_syns_counts_into_the_total() {
    let config = Config { max_total_held_bytes: 100, ..Config::default() };
    let mut syns: Vec<_> = (1..=2).map(|port| of_port(port).segments().swap_remove(0)).collect();
    for (syn, length) in syns.iter_mut().zip([100, 1]) {
        syn.payload = vec![b'x'; length];
        syn.payload_length = length as u32;
    }
    assert_eq!(observe(config, &syns).most_held, 100);
}

/// The memory that the limits promise, under floods of what they bound.
#[test]
fn floods_stay_within_the_limits() {
    let config = Config {
        max_connections: 50,
        max_handshakes: 40,
        max_lingering: 30,
        max_held_bytes: 10_000,
        max_held_pieces: 20,
        max_total_held_bytes: 100_000,
        ..Config::default()
    };
    let mut rng = Rng::new(4);
    let mut flood = Vec::new();
    for round in 0..30_000_u32 {
        let conversation = of_port((round % 5_000) as u16 + 1).client(vec![b'f'; 1 + rng.below(2_000)]);
        let mut segments = conversation.isns(rng.next_u64() as u32, 7).segments();
        match rng.below(4) {
            // A SYN, with data or without.
            0 => {
                segments.truncate(1);
                segments[0].payload = vec![b's'; rng.below(1_400)];
                segments[0].payload_length = segments[0].payload.len() as u32;
            }
            // A single segment out of nowhere.
            1 => drop(segments.drain(..3)),
            // A connection whose bytes wait for what never comes.
            2 => segments[3].sequence = segments[3].sequence.wrapping_add(1 + rng.below(90_000) as u32),
            _ => segments.truncate(2),
        }
        flood.extend(segments);
    }
    restamp(&mut flood, Duration::from_micros(1));
    let outcome = observe(config, &flood);
    assert!(outcome.most_connections <= 50 && outcome.most_held <= 100_000);
    assert!(outcome.stats.handshakes_forgotten > 0 && outcome.stats.closed_evicted > 0);
    assert_eq!(outcome.stats.segments, flood.len() as u64);
}
