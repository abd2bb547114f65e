//! IP fragments: any order and overlap gives the same segment, and every limit holds.

use pod2pod_user::capture::packet::{
    MAX_DATAGRAM_BYTES, MAX_DATAGRAMS, MAX_FRAGMENT_AGE, MAX_FRAGMENT_BYTES, MAX_RANGES, Stats,
};
use support::{
    capture_file::{Order, Pcap, Tcp, Unit, ipv4},
    rng::Rng,
};

use super::{Seen, read};

const MORE: u16 = 0x2000;
const SOURCE: [u8; 4] = [10, 0, 0, 1];
const DESTINATION: [u8; 4] = [10, 0, 0, 2];

/// A fragment from `offset` on, which is in bytes.
fn fragment(identification: u16, offset: usize, more: bool, bytes: &[u8]) -> Vec<u8> {
    let field = (offset / 8) as u16 | if more { MORE } else { 0 };
    ipv4(SOURCE, DESTINATION, 6, identification, field, bytes)
}

fn segment() -> Vec<u8> {
    let payload: Vec<u8> = (0..200).collect();
    Tcp { payload: &payload, ..Tcp::data(7, b"") }.bytes()
}

fn run(packets: &[Vec<u8>]) -> (Vec<Seen>, Stats) {
    let timed: Vec<_> = packets.iter().map(|packet| (0, packet.clone())).collect();
    run_at(&timed)
}

fn run_at(packets: &[(u64, Vec<u8>)]) -> (Vec<Seen>, Stats) {
    let mut file = Pcap::new(Order::Little, Unit::Nano, 101);
    for (time, packet) in packets {
        file.packet(*time, packet);
    }
    let (seen, stats, result) = read(&file.bytes);
    assert!(result.is_ok(), "{result:?}");
    (seen, stats.packets)
}

fn pieces(identification: u16, bytes: &[u8], size: usize) -> Vec<Vec<u8>> {
    let last = bytes.len().div_ceil(size) - 1;
    let piece = |(index, piece)| fragment(identification, index * size, index != last, piece);
    bytes.chunks(size).enumerate().map(piece).collect()
}

#[test]
fn any_order_and_duplication_gives_the_segment_once() {
    let whole = segment();
    for seed in 0..200 {
        let mut rng = Rng::new(seed);
        let mut packets = pieces(5, &whole, 8 * (1 + rng.below(10)));
        // The copy of a last fragment after completion begins a datagram that stays incomplete.
        let copies: Vec<_> = packets.iter().take(rng.below(packets.len())).cloned().collect();
        packets.extend(copies);
        rng.shuffle(&mut packets);
        let (seen, stats) = run(&packets);
        assert_eq!(stats.fragments.fragments, packets.len() as u64, "seed {seed}");
        assert_eq!(seen.len(), 1, "seed {seed}: {stats:?}");
        assert_eq!(seen[0].payload, &whole[20..], "seed {seed}");
    }
}

#[test]
fn first_copy_of_a_byte_wins() {
    let whole = segment();
    let wrong = vec![0xee; whole.len()];
    for seed in 0..300 {
        let mut rng = Rng::new(seed);
        // Every byte comes first from a true fragment; false ones overlap what is there already.
        let mut packets = Vec::new();
        let true_pieces = pieces(5, &whole, 24);
        for (index, piece) in true_pieces.iter().enumerate() {
            packets.push(piece.clone());
            let covered = ((index + 1) * 24).min(whole.len()) / 8 * 8;
            let from = 8 * rng.below(covered / 8);
            let to = from + 8 + 8 * rng.below((covered - from) / 8);
            if index + 1 < true_pieces.len() && to > from {
                packets.push(fragment(5, from, true, &wrong[from..to.min(covered)]));
            }
        }
        let (seen, stats) = run(&packets);
        assert_eq!(seen.len(), 1, "seed {seed}: {stats:?}");
        assert_eq!(seen[0].payload, &whole[20..], "seed {seed}");
    }
}

#[test]
fn datagrams_are_told_apart() {
    let whole = segment();
    let (one, other) = (pieces(5, &whole, 104), pieces(6, &whole, 104));
    let mixed: Vec<_> =
        one.iter().zip(&other).flat_map(|(one, other)| [one.clone(), other.clone()]).collect();
    assert_eq!(run(&mixed).0.len(), 2);
    let mut other_host = one.clone();
    other_host[1] = ipv4([10, 0, 0, 3], DESTINATION, 6, 5, (104 / 8) | MORE, &whole[104..208]);
    assert_eq!(run(&other_host).0.len(), 0);
}

#[test]
fn ipv6_fragments() {
    let ends = ["[2001:db8::1]:40000", "[2001:db8::2]:80"].map(|end| end.parse().expect("an address"));
    let payload: Vec<u8> = (0..200).collect();
    let tcp = Tcp { source: ends[0], destination: ends[1], payload: &payload, ..Tcp::data(7, b"") };
    let bytes = tcp.bytes();
    let piece = |offset: usize, more: bool, part: &[u8]| {
        let mut body = vec![6, 0];
        body.extend((offset as u16 | u16::from(more)).to_be_bytes());
        body.extend(99_u32.to_be_bytes());
        body.extend(part);
        support::capture_file::ip(ends[0].ip(), ends[1].ip(), 44, &body)
    };
    let (seen, stats) = run(&[piece(104, false, &bytes[104..]), piece(0, true, &bytes[..104])]);
    assert_eq!(seen.len(), 1, "{stats:?}");
    assert_eq!(seen[0].payload, payload);
}

#[test]
fn impossible_fragments_are_counted() {
    // The last place that an offset in eights can name.
    let last = MAX_DATAGRAM_BYTES / 8 * 8;
    for (end, dropped) in [(MAX_DATAGRAM_BYTES, 0), (MAX_DATAGRAM_BYTES + 1, 1)] {
        let (_, stats) = run(&[fragment(5, last, false, &vec![0; end - last])]);
        assert_eq!(stats.fragments.impossible, dropped, "{end} bytes");
    }
    let (_, stats) = run(&[fragment(5, 8, true, &[])]);
    assert_eq!(stats.fragments.impossible, 1, "empty");
    let (_, stats) = run(&[fragment(5, 16, false, &[0; 8]), fragment(5, 24, true, &[0; 8])]);
    assert_eq!(stats.fragments.impossible, 1, "past the last");
    let (_, stats) = run(&[fragment(5, 24, true, &[0; 8]), fragment(5, 8, false, &[0; 8])]);
    assert_eq!(stats.fragments.impossible, 1, "a last one before others");
}

#[test]
fn a_cut_fragment_is_not_put_together() {
    let packets = pieces(5, &segment(), 104);
    let whole = packets[0].len();
    // The first has the TCP header, so it counts for itself.
    let mut file = Pcap::new(Order::Little, Unit::Nano, 101);
    file.cut_packet(0, &packets[0][..60], whole).packet(0, &packets[1]).packet(0, &packets[2]);
    let (seen, stats, _) = read(&file.bytes);
    assert_eq!((seen.len(), stats.packets.fragments.cut), (1, 0));
    assert_eq!((seen[0].payload_length, seen[0].payload.len()), (84, 20));
    let mut file = Pcap::new(Order::Little, Unit::Nano, 101);
    file.packet(0, &packets[0]).cut_packet(0, &packets[1][..60], whole).packet(0, &packets[2]);
    let (seen, stats, _) = read(&file.bytes);
    assert_eq!((seen.len(), stats.packets.fragments.cut), (0, 1));
}

#[test]
fn a_fragment_shorter_than_it_says_is_not_put_together() {
    let mut packets = pieces(5, &segment(), 112);
    let shorter = packets[1].len() - 16;
    packets[1].truncate(shorter);
    let (seen, stats) = run(&packets);
    assert_eq!((seen.len(), stats.fragments.cut), (0, 1));
}

#[test]
fn datagrams_are_limited_in_number() {
    let whole = segment();
    for (others, expected) in [(MAX_DATAGRAMS - 1, 1), (MAX_DATAGRAMS, 0)] {
        let first = pieces(0, &whole, 112);
        let mut packets = vec![first[0].clone()];
        packets.extend((1..=others).map(|id| fragment(id as u16, 0, true, &[0; 8])));
        packets.push(first[1].clone());
        let (seen, stats) = run(&packets);
        assert_eq!(seen.len(), expected, "{others} others: {stats:?}");
        assert_eq!(stats.fragments.too_many > 0, expected == 0);
    }
}

#[test]
fn datagrams_are_limited_in_bytes() {
    let whole = segment();
    let first = pieces(0, &whole, 112);
    let large = 60_000;
    let fitting = (MAX_FRAGMENT_BYTES - 112) / large;
    for (others, expected) in [(fitting, 1), (fitting + 1, 0)] {
        let mut packets = vec![first[0].clone()];
        packets.extend((1..=others).map(|id| fragment(id as u16, large - 8, true, &[0; 8])));
        packets.push(first[1].clone());
        let (seen, stats) = run(&packets);
        assert_eq!(seen.len(), expected, "{others} others: {stats:?}");
        assert_eq!(stats.fragments.too_many_bytes > 0, expected == 0);
    }
}

#[test]
fn ranges_are_limited() {
    for (ranges, dropped) in [(MAX_RANGES, 0), (MAX_RANGES + 1, 1)] {
        let packets: Vec<_> = (0..ranges).map(|index| fragment(5, index * 16, true, &[0; 8])).collect();
        assert_eq!(run(&packets).1.fragments.too_many_ranges, dropped, "{ranges} ranges");
    }
}

#[test]
fn datagrams_are_limited_in_age() {
    let packets = pieces(5, &segment(), 112);
    let age = MAX_FRAGMENT_AGE.as_nanos() as u64;
    for (late, expected) in [(age, 1), (age + 1, 0)] {
        let (seen, stats) = run_at(&[(1000, packets[0].clone()), (1000 + late, packets[1].clone())]);
        assert_eq!((seen.len(), stats.fragments.too_old), (expected, 1 - expected as u64), "{late} ns");
    }
    let (seen, _) = run_at(&[(age * 9, packets[0].clone()), (0, packets[1].clone())]);
    assert_eq!(seen.len(), 1, "a clock that was set back");
}
