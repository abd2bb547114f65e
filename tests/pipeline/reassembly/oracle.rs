//! Reassembly against oracles that are obviously right: a byte map, and a conversation of which everything is known.

use std::{collections::BTreeMap, time::Duration};

use pod2pod_user::reassembly::{Chunk, Config, ConnectionToken, Content, Reassembler, Side};
use support::{
    conversation::{Conversation, OwnedSegment, restamp},
    rng::Rng,
};

use super::observe;

/// Random segments over a stream, in random order, all of different bytes: each byte of the stream is that of the first
/// segment that had it.
#[test]
fn first_copy_of_every_byte() {
    for seed in 0..5_000 {
        let mut rng = Rng::new(seed);
        let length = 1 + rng.below(200);
        let isn = if seed % 2 == 0 { u32::MAX - rng.below(200) as u32 } else { rng.next_u64() as u32 };
        let template = Conversation::new().isns(isn, 5).client("x").segments();
        let mut segments: Vec<OwnedSegment> = Vec::new();
        let mut add = |rng: &mut Rng, from: usize, to: usize| {
            let mut segment = template[3].clone();
            segment.sequence = isn.wrapping_add(1 + from as u32);
            segment.payload = (from..to).map(|_| b'!' + rng.below(90) as u8).collect();
            segment.payload_length = (to - from) as u32;
            segments.push(segment);
        };
        let mut at = 0;
        while at < length {
            let to = (at + 1 + rng.below(30)).min(length);
            add(&mut rng, at, to);
            at = to;
        }
        for _ in 0..rng.below(40) {
            let from = rng.below(length);
            let to = (from + 1 + rng.below(60)).min(length);
            add(&mut rng, from, to);
        }
        rng.shuffle(&mut segments);
        let mut first: BTreeMap<u32, u8> = BTreeMap::new();
        for segment in &segments {
            for (index, byte) in segment.payload.iter().enumerate() {
                let place = segment.sequence.wrapping_add(index as u32).wrapping_sub(isn);
                first.entry(place).or_insert(*byte);
            }
        }
        let mut all = [&template[..3], &segments].concat();
        restamp(&mut all, Duration::from_millis(1));
        let outcome = observe(&all);
        let expected: Vec<u8> = first.into_values().collect();
        assert_eq!(outcome.stream(ConnectionToken(0), Side::Originator), expected, "seed {seed}");
        assert_eq!(outcome.stats.bytes_delivered, length as u64, "seed {seed}");
        assert_eq!(outcome.stats.gap_bytes_missing, 0, "seed {seed}");
    }
}

/// A random conversation that loses, repeats and reorders: each side is told as it was said, with exactly the lost
/// bytes missing; and nothing is told before what its segment acknowledged.
#[test]
fn loss_copies_and_disorder_of_a_conversation() {
    for seed in 0..3_000 {
        let mut rng = Rng::new(seed);
        let isns = (rng.next_u64() as u32, rng.next_u64() as u32);
        let mut conversation = Conversation::new().isns(isns.0, isns.1).cut_every(1 + rng.below(9));
        for _ in 0..1 + rng.below(8) {
            let words: Vec<u8> = (0..1 + rng.below(40)).map(|_| b'a' + rng.below(26) as u8).collect();
            conversation =
                if rng.below(2) == 0 { conversation.client(words) } else { conversation.server(words) };
        }
        conversation = conversation.close();
        let mut said = [conversation.client_bytes(), conversation.server_bytes()];
        let mut segments = conversation.segments();
        let mut kept = segments.split_off(3);
        let is_lossy = seed % 2 == 0;
        kept.retain(|segment| {
            let is_lost = is_lossy && !segment.payload.is_empty() && rng.below(8) == 0;
            if is_lost {
                let side = usize::from(segment.source.port() == 80);
                let isn = if side == 0 { isns.0 } else { isns.1 };
                let from = segment.sequence.wrapping_sub(isn).wrapping_sub(1) as usize;
                said[side][from..from + segment.payload.len()].fill(b'?');
            }
            !is_lost
        });
        let copies: Vec<_> = kept.iter().filter(|_| rng.below(5) == 0).cloned().collect();
        kept.extend(copies);
        rng.shuffle(&mut kept);
        segments.extend(kept);
        // All within the time that an acknowledged hole may wait.
        restamp(&mut segments, Duration::from_micros(300));
        let outcome = observe(&segments);
        let token = ConnectionToken(0);
        for (side, said) in [Side::Originator, Side::Responder].into_iter().zip(&mut said) {
            said.push(b'.');
            let told = String::from_utf8(outcome.stream(token, side)).unwrap();
            assert_eq!(told, String::from_utf8_lossy(said), "seed {seed} {side:?}");
        }
        assert!(
            outcome.lines().last().is_some_and(|line| line.ends_with("Finished")) || is_lossy,
            "seed {seed}"
        );
        check_causality(&segments, isns, seed);
    }
}

/// Pushes one by one, and compares each Chunk with what its bytes' first segment acknowledged.
fn check_causality(segments: &[OwnedSegment], isns: (u32, u32), seed: u64) {
    let mut acknowledged: BTreeMap<(bool, u64), u64> = BTreeMap::new();
    for segment in &segments[3..] {
        let is_client = segment.source.port() != 80;
        let (own, other) = if is_client { isns } else { (isns.1, isns.0) };
        let start = u64::from(segment.sequence.wrapping_sub(own));
        let needs = u64::from(segment.acknowledgement.wrapping_sub(other));
        for place in start..start + u64::from(segment.payload_length) {
            acknowledged.entry((is_client, place)).or_insert(needs);
        }
    }
    let mut reached = BTreeMap::from([(true, 1), (false, 1)]);
    let mut reassembler = Reassembler::new(Config::default());
    let mut tell = |chunk: Chunk<'_>| {
        let is_client = chunk.sender == Side::Originator;
        let length = match chunk.content {
            Content::Bytes(bytes) => {
                for place in chunk.offset..chunk.offset + bytes.len() as u64 {
                    let needs = acknowledged[&(is_client, place)];
                    assert!(reached[&!is_client] >= needs, "seed {seed}: {chunk:?} needs {needs}");
                }
                bytes.len() as u64
            }
            Content::Gap { length, .. } => length,
            Content::Finished => 1,
            Content::Closed(_) => 0,
        };
        *reached.get_mut(&is_client).expect("two sides") += length;
    };
    for segment in segments {
        reassembler.push(&segment.borrow(), segment.time, &mut tell);
    }
    reassembler.finish(&mut tell);
}
