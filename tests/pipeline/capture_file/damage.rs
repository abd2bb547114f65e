//! Damaged files: everything before the damage, then an error that names file, offset and cause; and files that are no
//! captures at all.

use pod2pod_user::capture::file::{CaptureFile, Config, Damage, FileError, MAX_RECORD_BYTES, NotACapture};
use support::{
    capture_file::{ETHERNET, Order, Pcap, PcapNg, Tcp, Unit},
    rng::Rng,
};

use super::{REQUEST, read};

fn packet(sequence: u32) -> Vec<u8> {
    Tcp::data(sequence, REQUEST).ethernet()
}

/// A file with three packets, and where each record ends.
fn pcap() -> (Vec<u8>, Vec<usize>) {
    let mut file = Pcap::new(Order::Little, Unit::Micro, ETHERNET);
    let mut ends = vec![file.bytes.len()];
    for sequence in 1..4 {
        ends.push(file.packet(0, &packet(sequence)).bytes.len());
    }
    (file.bytes, ends)
}

fn pcapng() -> (Vec<u8>, Vec<usize>) {
    let mut file = PcapNg::new(Order::Big);
    file.interface(1, 0, &[]);
    let mut ends = vec![file.bytes.len()];
    for sequence in 1..4 {
        ends.push(file.packet(0, 0, &packet(sequence)).bytes.len());
    }
    (file.bytes, ends)
}

#[test]
fn a_cut_file_gives_all_records_before_the_cut() {
    for (name, (bytes, ends)) in [("pcap", pcap()), ("pcapng", pcapng())] {
        for length in ends[0]..=bytes.len() {
            let (seen, _, result) = read(&bytes[..length]);
            let whole = ends.iter().filter(|&&end| end <= length).count() - 1;
            assert_eq!(seen.len(), whole, "{name} cut at {length}");
            if ends.contains(&length) {
                assert!(result.is_ok(), "{name} cut at {length}: {result:?}");
                continue;
            }
            match result {
                Err(FileError::Damaged { path, offset, cause: Damage::CutShort { present, .. } }) => {
                    assert_eq!(
                        (path.as_str(), offset),
                        ("test", ends[whole] as u64),
                        "{name} cut at {length}"
                    );
                    assert_eq!(present, (length - ends[whole]) as u64, "{name} cut at {length}");
                }
                other => panic!("{name} cut at {length}: {other:?}"),
            }
        }
    }
}

#[test]
fn errors_are_sentences() {
    let (bytes, ends) = pcap();
    let error = read(&bytes[..ends[2] + 20]).2.expect_err("a cut file");
    assert_eq!(
        error.to_string(),
        format!(
            "test: damaged at byte {}: the file ends inside a record: 20 of {} bytes are there; everything before it \
             was read",
            ends[2],
            16 + packet(1).len()
        )
    );
}

#[test]
fn what_is_no_capture_file() {
    let check = |bytes: &[u8], expected: NotACapture| match read(bytes) {
        (seen, _, Err(FileError::NotACapture { reason, .. })) => {
            assert!(seen.is_empty());
            assert_eq!(reason, expected);
        }
        other => panic!("{bytes:02x?}: {other:?}"),
    };
    check(b"", NotACapture::Empty);
    check(b"\xd4\xc3", NotACapture::TooShort);
    check(b"\xd4\xc3\xb2\xa1\x02\x00", NotACapture::TooShort);
    check(b"\x0a\x0d\x0d\x0a\x1c\x00", NotACapture::TooShort);
    check(b"GET / HTTP/1.1\r\n", NotACapture::Unknown(*b"GET "));
    check(b"\x28\xb5\x2f\xfd\x00", NotACapture::Compressed("zstd", "zstd -d"));
    check(b"snoop\0\0\0", NotACapture::OtherFormat("snoop"));
    check(b"GMBU\0\0\0\0", NotACapture::OtherFormat("Microsoft Network Monitor"));
    check(b"XCP\0\0\0", NotACapture::OtherFormat("Sniffer"));
    let mut other = Pcap::new(Order::Big, Unit::Micro, ETHERNET).bytes;
    other[5] = 3;
    check(&other, NotACapture::Version(3, 4));
    let mut other = PcapNg::new(Order::Big).bytes;
    other[8] = 0;
    check(&other, NotACapture::Header);
}

#[test]
fn a_file_that_cannot_be_opened_is_named() {
    let error = CaptureFile::open("/nowhere/at.all".as_ref(), &Config::default()).expect_err("no such file");
    assert!(error.to_string().starts_with("/nowhere/at.all: "), "{error}");
}

#[test]
fn records_are_limited_in_size() {
    let largest = MAX_RECORD_BYTES - 16;
    for (size, whole) in [(largest, true), (largest + 1, false)] {
        let mut file = Pcap::new(Order::Little, Unit::Micro, ETHERNET);
        file.packet(0, &packet(1)).packet(0, &vec![0; size]);
        let (seen, _, result) = read(&file.bytes);
        assert_eq!(seen.len(), 1);
        match result {
            Ok(()) => assert!(whole),
            Err(FileError::Damaged { cause, .. }) => {
                assert_eq!((whole, cause), (false, Damage::TooLarge(size as u64)));
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn impossible_blocks_are_damage() {
    let check = |mutate: &dyn Fn(&mut PcapNg), expected: Damage| {
        let mut file = PcapNg::new(Order::Little);
        file.interface(1, 0, &[]).packet(0, 0, &packet(1));
        mutate(&mut file);
        let (seen, _, result) = read(&file.bytes);
        assert_eq!(seen.len(), 1, "{expected:?}");
        match result {
            Err(FileError::Damaged { cause, .. }) => assert_eq!(cause, expected),
            other => panic!("{expected:?}: {other:?}"),
        }
    };
    check(&|file| file.bytes.extend([6, 0, 0, 0, 8, 0, 0, 0]), Damage::BlockLength(8));
    check(&|file| file.bytes.extend([9, 0, 0, 0, 0, 0, 0, 0]), Damage::BlockLength(0));
    check(
        &|file| {
            file.block(6, &[0; 8]);
        },
        Damage::Block(6),
    );
    check(
        &|file| {
            file.packet(1, 0, &packet(2));
        },
        Damage::Interface(1),
    );
    check(
        &|file| {
            file.block(0x0a0d_0d0a, &[0; 16]);
        },
        Damage::Section,
    );
}

/// Neither a panic nor an endless loop nor more segments than packets, whatever the bytes.
#[test]
fn random_damage_is_survived() {
    for (name, (bytes, _)) in [("pcap", pcap()), ("pcapng", pcapng())] {
        for seed in 0..2000 {
            let mut rng = Rng::new(seed);
            let mut damaged = bytes.clone();
            for _ in 0..=rng.below(6) {
                let at = rng.below(damaged.len());
                damaged[at] = rng.next_u64() as u8;
            }
            let (seen, stats, _) = read(&damaged);
            assert!(seen.len() <= 3 && stats.records <= 3, "{name}, seed {seed}");
        }
    }
}
