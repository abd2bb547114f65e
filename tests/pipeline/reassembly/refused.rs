//! A connection that is refused: nothing of it is told or held any more, whatever comes; a new generation is judged anew.

use std::time::Duration;

use pod2pod_user::reassembly::config::{Config, DEFAULT_LINGER};
use support::{conversation::Conversation, reassembly::Observer};

#[test]
fn nothing_more_is_told_or_held() {
    let mut observer = Observer::new(Config::default());
    let mut segments = Conversation::new().client("abcdef").cut_every(1).server("ghi").close().segments();
    // A hole, so that something is held when the refusal comes.
    let late = segments.remove(5);
    let (before, after) = segments.split_at(7);
    before.iter().for_each(|segment| observer.push(segment));
    assert_eq!(observer.lines(), ["0 O 1 ab"]);
    assert!(observer.reassembler().held_bytes() > 0);
    observer.refuse();
    assert_eq!(observer.reassembler().held_bytes(), 0);
    assert_eq!(observer.reassembler().connections(), 0);
    for segment in after.iter().chain([&late]) {
        observer.push(segment);
    }
    assert_eq!(observer.reassembler().held_bytes(), 0);
    let outcome = observer.finish();
    assert_eq!(outcome.lines(), ["0 O 1 ab"]);
    let bytes: u32 = after.iter().chain([&late]).map(|segment| segment.payload_length).sum();
    assert_eq!(outcome.stats.refused_segments, after.len() as u64 + 1);
    assert_eq!(outcome.stats.refused_bytes, u64::from(bytes));
    assert_eq!((outcome.stats.opened_handshake, outcome.stats.opened_middle), (1, 0));
}

#[test]
fn a_new_generation_is_told() {
    let mut observer = Observer::new(Config::default());
    for segment in Conversation::new().client("ab").segments() {
        observer.push(&segment);
    }
    observer.refuse();
    let pause = Duration::from_secs(1);
    let next = Conversation::new().isns(77, 78).pause(pause).client("cd").segments();
    let last = next.last().unwrap().time;
    next.iter().for_each(|segment| observer.push(segment));
    assert_eq!(observer.lines(), ["0 O 1 ab", "1 O 1 cd"]);
    observer.expire(last.plus(DEFAULT_LINGER * 2));
    assert_eq!(observer.finish().stats.refused_segments, 0);
}

#[test]
fn it_is_known_as_long_as_it_speaks() {
    let near = DEFAULT_LINGER - Duration::from_secs(1);
    let far = DEFAULT_LINGER + Duration::from_secs(1);
    let said = Conversation::new().client("a").pause(near).client("b").pause(near).client("c").pause(far);
    let mut observer = Observer::new(Config::default());
    for segment in said.client("d").segments() {
        observer.push(&segment);
        if observer.lines().len() == 1 && observer.reassembler().stats().closed_refused == 0 {
            observer.refuse();
        }
    }
    let outcome = observer.finish();
    let lines = outcome.lines();
    // After so long a silence it is a new connection, joined in its middle.
    assert_eq!(lines[0], "0 O 1 a");
    assert!(lines[1].starts_with("1 O") && lines[1].ends_with(" d"), "{lines:?}");
    assert_eq!(outcome.stats.refused_segments, 2);
}

#[test]
fn there_are_at_most_as_many_as_may_linger() {
    let config = Config { max_lingering: 2, ..Config::default() };
    let mut observer = Observer::new(config);
    let of_port = |port: u16| {
        Conversation::new()
            .addresses(([10, 0, 0, 1], port).into(), ([10, 0, 0, 2], 80).into())
            .client("a")
            .client("b")
    };
    for port in 1..=3 {
        of_port(port).segments().iter().take(4).for_each(|segment| observer.push(segment));
        observer.refuse();
    }
    assert_eq!(observer.reassembler().stats().limit_lingering, 1);
    for port in 1..=3 {
        of_port(port).segments().iter().skip(4).for_each(|segment| observer.push(segment));
    }
    let stats = observer.finish().stats;
    // The one that was forgotten is a new connection, joined in its middle, and can be refused again.
    assert_eq!((stats.refused_segments, stats.opened_middle), (2, 1));
}

#[test]
fn what_was_refused_and_is_forgotten_is_joined_in_its_middle() {
    let segments = Conversation::new().client("a").client("b").client("c").close().segments();
    let is_of = |text: &str, at: usize| segments[at].payload == text.as_bytes();
    let places = ["b", "c"].map(|text| (0..segments.len()).find(|at| is_of(text, *at)).unwrap());
    let mut observer = Observer::new(Config::default());
    segments[..places[0]].iter().for_each(|segment| observer.push(segment));
    observer.refuse();
    segments[places[0]..places[1]].iter().for_each(|segment| observer.push(segment));
    observer.forget_refused();
    segments[places[1]..].iter().for_each(|segment| observer.push(segment));
    let outcome = observer.finish();
    let lines = outcome.lines();
    assert_eq!((lines[0].as_str(), outcome.stats.closed_refused), ("0 O 1 a", 1));
    assert!(lines[1].starts_with("1 O") && lines[1].ends_with(" c"), "{lines:?}");
    assert_eq!((outcome.stats.opened_handshake, outcome.stats.opened_middle), (1, 1));
}
