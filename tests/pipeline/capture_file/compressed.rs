//! Captures compressed with gzip: read as they are, from a file or a stream, up to the damage if there is any.

use std::io::Write as _;

use flate2::{Compression, write::GzEncoder};
use pod2pod_user::capture::file::{Damage, FileError, NotACapture};
use support::capture_file::{ETHERNET, Order, Pcap, PcapNg, Tcp, Unit};

use super::{REQUEST, read};

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).expect("memory takes bytes");
    encoder.finish().expect("memory takes bytes")
}

/// A file of `count` packets, each unlike the others so that they do not compress to nothing.
fn pcap(count: u32) -> Vec<u8> {
    let mut file = Pcap::new(Order::Little, Unit::Micro, ETHERNET);
    for sequence in 0..count {
        file.packet(0, &Tcp::data(sequence.wrapping_mul(2_654_435_761), REQUEST).ethernet());
    }
    file.bytes
}

#[test]
fn a_compressed_file_is_read_like_the_file_in_it() {
    let mut next_generation = PcapNg::new(Order::Big);
    next_generation.interface(1, 0, &[]).packet(0, 0, &Tcp::data(1, REQUEST).ethernet());
    for plain in [pcap(0), pcap(3), pcap(5_000), next_generation.bytes] {
        let (expected, ..) = read(&plain);
        let (one, two) = plain.split_at(plain.len() / 2);
        for compressed in [gzip(&plain), [gzip(one), gzip(two)].concat(), [gzip(b""), gzip(&plain)].concat()]
        {
            let (seen, _, result) = read(&compressed);
            assert!(result.is_ok(), "{result:?}");
            assert_eq!(seen, expected);
        }
    }
}

#[test]
fn a_cut_stream_gives_the_records_before_the_cut() {
    let plain = pcap(500);
    let (expected, ..) = read(&plain);
    let compressed = gzip(&plain);
    let mut before = 0;
    for length in (20..compressed.len()).step_by(7) {
        let (seen, _, result) = read(&compressed[..length]);
        assert!(matches!(result, Err(FileError::Damaged { cause: Damage::Compression, .. })), "{result:?}");
        assert_eq!(seen, expected[..seen.len()], "cut at {length}");
        assert!(seen.len() >= before, "cut at {length}");
        before = seen.len();
    }
    assert!(before > 490, "only {before} records of 500 before a cut at the end");
}

#[test]
fn a_damaged_stream_gives_the_records_before_the_damage() {
    let plain = pcap(5_000);
    let (expected, ..) = read(&plain);
    let whole = gzip(&plain);
    for at in (1_000..whole.len()).step_by(whole.len() / 50) {
        let mut compressed = whole.clone();
        compressed[at..(at + 8).min(whole.len())].fill(0xff);
        let (seen, _, result) = read(&compressed);
        let same = seen.iter().zip(&expected).take_while(|(seen, expected)| seen == expected).count();
        // Of what 512 compressed bytes expand to, some may be lost.
        let share = (at.saturating_sub(1_024)) * expected.len() / whole.len();
        assert!(same >= share.saturating_sub(600), "damage at {at}: {same} of {share} records");
        assert!(result.is_err(), "damage at {at} was not noticed");
    }
}

#[test]
fn what_is_in_a_compressed_file_is_named() {
    let check = |bytes: &[u8], expected: NotACapture| match read(bytes).2 {
        Err(FileError::NotACapture { reason, .. }) => assert_eq!(reason, expected),
        other => panic!("{other:?}"),
    };
    check(&gzip(b""), NotACapture::Empty);
    check(&gzip(b"GET / HTTP/1.1\r\n"), NotACapture::Unknown(*b"GET "));
    check(&gzip(&gzip(&pcap(1))), NotACapture::Compressed("gzip twice", "gunzip"));
    let error = read(b"\x1f\x8b\x08\x00\x00").2.expect_err("a cut header");
    assert_eq!(
        error.to_string(),
        "test: damaged at byte 0: the gzip stream is damaged or cut short (the byte is counted in what it expands to); \
         everything before it was read"
    );
}
