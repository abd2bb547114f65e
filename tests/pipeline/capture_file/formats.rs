//! The file formats: byte orders, units, versions, sections, interfaces, block kinds, and streams that come in pieces.

use std::{
    collections::VecDeque,
    io::{self, Read},
};

use pod2pod_user::capture::file::{BATCH_RECORDS, CaptureFile, Config, MAX_INTERFACES, Progress};
use support::capture_file::{ETHERNET, Order, Pcap, PcapNg, Tcp, Unit};

use super::{Seen, read};

const TIME: u64 = 1_700_000_000_123_456_000;

fn packet(sequence: u32) -> Vec<u8> {
    Tcp::data(sequence, b"GET / HTTP/1.1\r\n").ethernet()
}

fn whole(name: &str, bytes: &[u8]) -> Vec<Seen> {
    let (seen, _, result) = read(bytes);
    assert!(result.is_ok(), "{name}: {result:?}");
    seen
}

fn times(name: &str, bytes: &[u8]) -> Vec<u64> {
    whole(name, bytes).iter().map(|segment| segment.time).collect()
}

#[test]
fn pcap_in_every_byte_order_and_unit() {
    for order in Order::BOTH {
        for unit in [Unit::Micro, Unit::Nano, Unit::Modified] {
            let mut file = Pcap::new(order, unit, ETHERNET);
            file.packet(TIME, &packet(1)).packet(TIME + 1000, &packet(17));
            let seen = whole(&format!("{order:?} {unit:?}"), &file.bytes);
            assert_eq!(seen.len(), 2, "{order:?} {unit:?}");
            assert_eq!(seen[0].payload, b"GET / HTTP/1.1\r\n");
            assert_eq!((seen[0].time, seen[1].time), (TIME, TIME + 1000), "{order:?} {unit:?}");
            assert_eq!(seen[1].sequence, 17);
        }
    }
}

#[test]
fn nanoseconds_are_kept() {
    let mut file = Pcap::new(Order::Little, Unit::Nano, ETHERNET);
    file.packet(TIME + 789, &packet(1));
    assert_eq!(times("ns", &file.bytes), [TIME + 789]);
}

#[test]
fn odd_times_break_nothing() {
    let mut file = Pcap::new(Order::Little, Unit::Micro, ETHERNET);
    for (seconds, fraction) in [(5, 0), (0, 0), (u32::MAX, u32::MAX), (1, 1_500_000)] {
        file.record(seconds, fraction, packet(1).len() as u32, packet(1).len() as u32);
        file.bytes.extend(packet(1));
    }
    let last = u64::from(u32::MAX) * 1_000_000_000 + u64::from(u32::MAX) * 1000;
    assert_eq!(times("odd", &file.bytes), [5_000_000_000, 0, last, 2_500_000_000]);
}

#[test]
fn old_versions_have_the_lengths_the_other_way_round() {
    let whole_packet = packet(1);
    let (captured, original) = (whole_packet.len() as u32 - 4, whole_packet.len() as u32);
    for (minor, first, second) in
        [(2, original, captured), (3, original, captured), (3, captured, original), (4, captured, original)]
    {
        let mut file = Pcap::with_version(Order::Little, Unit::Micro, ETHERNET, minor);
        file.record(1, 0, first, second);
        file.bytes.extend(&whole_packet[..captured as usize]);
        file.packet(0, &[]);
        let seen = whole("old", &file.bytes);
        assert_eq!((seen[0].payload_length, seen[0].payload.len()), (16, 12), "2.{minor}");
    }
}

#[test]
fn link_type_has_other_things_above_it() {
    let mut file = Pcap::new(Order::Little, Unit::Micro, ETHERNET | 0xf400_0000);
    file.packet(TIME, &packet(1));
    assert_eq!(whole("check sequence length", &file.bytes).len(), 1);
}

#[test]
fn cut_packets_say_how_long_they_were() {
    let packet = packet(1);
    // Ethernet, IPv4, and TCP up to the flags.
    let enough = 14 + 20 + 14;
    for kept in enough..packet.len() {
        let mut file = Pcap::new(Order::Little, Unit::Micro, ETHERNET);
        file.cut_packet(TIME, &packet[..kept], packet.len());
        let seen = whole("cut", &file.bytes);
        assert_eq!((seen[0].payload_length, seen[0].payload.len()), (16, kept.saturating_sub(54)));
    }
    for kept in 0..enough {
        let mut file = Pcap::new(Order::Little, Unit::Micro, ETHERNET);
        file.cut_packet(TIME, &packet[..kept], packet.len());
        let (seen, stats, _) = read(&file.bytes);
        assert_eq!((seen.len(), stats.packets.truncated_header), (0, 1), "{kept} bytes");
    }
}

#[test]
fn offloaded_packets_have_no_length_of_their_own() {
    let mut packet = packet(1);
    packet[16..18].copy_from_slice(&[0, 0]);
    let mut file = Pcap::new(Order::Little, Unit::Micro, ETHERNET);
    file.packet(TIME, &packet);
    assert_eq!(whole("total length 0", &file.bytes)[0].payload_length, 16);
}

#[test]
fn pcapng_in_both_byte_orders() {
    for order in Order::BOTH {
        let mut file = PcapNg::new(order);
        file.interface(1, 0, &[]).packet(0, TIME / 1000, &packet(1));
        assert_eq!(times("plain", &file.bytes), [TIME], "{order:?}");
    }
}

#[test]
fn resolutions_and_offsets() {
    for order in Order::BOTH {
        for (resolution, units, nanoseconds) in [
            (0, 5, 5_000_000_000),
            (3, 1_500, 1_500_000_000),
            (6, 1_500_000, 1_500_000_000),
            (9, TIME + 7, TIME + 7),
            (12, 1_500_000_000_123, 1_500_000_000),
            (38, u64::MAX, 0),
            (0x80, 5, 5_000_000_000),
            (0x81, 3, 1_500_000_000),
            (0x8a, 1536, 1_500_000_000),
            (0xa0, 3 << 31, 1_500_000_000),
            (0xbf, 3 << 62, 1_500_000_000),
            (0xff, 1, 0),
        ] {
            let mut file = PcapNg::new(order);
            let mut options = file.option(2, b"eth0");
            options.extend(file.option(9, &[resolution]));
            options.extend(file.option(0, b""));
            file.interface(1, 0, &options).packet(0, units, &packet(1));
            assert_eq!(times("resolution", &file.bytes), [nanoseconds], "{order:?} {resolution:#x}");
        }
        for (offset, nanoseconds) in
            [(10, 15_000_000_000), (-3, 2_000_000_000), (-9, 0), (i64::MAX, u64::MAX - 1)]
        {
            let mut file = PcapNg::new(order);
            let options = file.time_offset(offset);
            file.interface(1, 0, &options).packet(0, 5_000_000, &packet(1));
            assert_eq!(times("offset", &file.bytes), [nanoseconds], "{order:?} {offset}");
        }
    }
}

#[test]
fn interfaces_have_their_own_link_type_and_clock() {
    let mut file = PcapNg::new(Order::Little);
    let nanoseconds = file.option(9, &[9]);
    file.interface(1, 0, &[]).interface(101, 0, &nanoseconds);
    file.packet(1, 2_000_000_000, &Tcp::data(2, b"raw").ip());
    file.packet(0, 1_000_000, &packet(1));
    let seen: Vec<_> = whole("two", &file.bytes)
        .iter()
        .map(|segment| (segment.interface, segment.sequence, segment.time))
        .collect();
    assert_eq!(seen, [(1, 2, 2_000_000_000), (0, 1, 1_000_000_000)]);
}

#[test]
fn sections_begin_anew() {
    let mut file = PcapNg::new(Order::Little);
    file.interface(101, 0, &[]).packet(0, 1_000_000, &Tcp::data(1, b"a").ip());
    file.section(Order::Big).interface(1, 0, &[]).packet(0, 2_000_000, &packet(2));
    file.section(Order::Little).interface(101, 0, &[]).packet(0, 3_000_000, &Tcp::data(3, b"c").ip());
    assert_eq!(times("sections", &file.bytes), [1_000_000_000, 2_000_000_000, 3_000_000_000]);
}

#[test]
fn every_kind_of_packet_block_and_no_other() {
    for order in Order::BOTH {
        let mut file = PcapNg::new(order);
        file.interface(1, 0, &[]);
        // Name resolution, statistics, journal, secrets, process, custom, never assigned; one longer than the buffer.
        for kind in [4, 5, 9, 10, 0x8000_0001, 0xbad, 0x4000_0bad, 0x7fff_ffff] {
            file.block(kind, &[0xff; 44]);
        }
        file.block(0x7fff_fffe, &vec![0xff; 3 * 1024 * 1024]);
        file.simple_packet(&packet(1), packet(1).len());
        file.obsolete_packet(0, TIME / 1000, &packet(2));
        let comment = file.option(1, b"a comment");
        file.packet_with(0, TIME / 1000, &packet(3), packet(3).len(), &comment);
        let (seen, stats, result) = read(&file.bytes);
        assert!(result.is_ok(), "{result:?}");
        let sequences: Vec<_> = seen.iter().map(|segment| (segment.sequence, segment.time)).collect();
        assert_eq!(sequences, [(1, 0), (2, TIME), (3, TIME)]);
        assert_eq!((stats.records, stats.other_blocks), (3, 9));
    }
}

#[test]
fn a_simple_packet_is_cut_at_the_snap_length() {
    let mut file = PcapNg::new(Order::Little);
    // Padding makes the block longer than what was captured.
    file.interface(1, 65, &[]).simple_packet(&packet(1)[..65], packet(1).len());
    let seen = whole("simple", &file.bytes);
    assert_eq!((seen[0].payload_length, seen[0].payload.len()), (16, 11));
}

#[test]
fn interfaces_are_limited() {
    let mut file = PcapNg::new(Order::Little);
    for _ in 0..=MAX_INTERFACES {
        file.interface(1, 0, &[]);
    }
    file.packet(MAX_INTERFACES as u32 - 1, 0, &packet(1)).packet(MAX_INTERFACES as u32, 0, &packet(2));
    let (seen, stats, result) = read(&file.bytes);
    assert!(result.is_ok(), "{result:?}");
    assert_eq!((seen.len(), stats.interfaces_over_limit), (1, 1));
}

#[test]
fn batches_end_where_the_file_ends() {
    for count in [0, 1, BATCH_RECORDS - 1, BATCH_RECORDS, BATCH_RECORDS + 1] {
        let mut file = Pcap::new(Order::Little, Unit::Micro, ETHERNET);
        for index in 0..count {
            file.packet(index as u64 * 1000, &packet(index as u32));
        }
        let reader = Box::new(io::Cursor::new(file.bytes));
        let mut file = CaptureFile::from_reader("test", reader, &Config::default()).expect("a capture");
        let mut batches = Vec::new();
        loop {
            let mut seen = 0;
            let progress = file.next_batch(&mut |_| seen += 1).expect("a whole file");
            batches.push(seen);
            if progress == Progress::Ended {
                break;
            }
        }
        assert_eq!(batches.iter().sum::<usize>(), count);
        assert!(batches.iter().all(|&seen| seen <= BATCH_RECORDS));
        assert_eq!(file.latest().as_nanos(), (count as u64).saturating_sub(1) * 1000);
        assert_eq!(
            file.next_batch(&mut |_| {}).expect("still whole"),
            Progress::Ended,
            "again after the end"
        );
    }
}

/// Gives one byte at a time, and interruptions in between, as pipes may.
struct Trickle(Vec<u8>, bool);

impl Read for Trickle {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.1 = !self.1;
        if self.1 {
            return Err(io::ErrorKind::Interrupted.into());
        }
        match (self.0.is_empty(), buffer.first_mut()) {
            (false, Some(place)) => {
                *place = self.0.remove(0);
                Ok(1)
            }
            _ => Ok(0),
        }
    }
}

#[test]
fn a_stream_may_come_in_pieces() {
    let mut classic = Pcap::new(Order::Little, Unit::Micro, ETHERNET);
    classic.packet(TIME, &packet(1)).packet(TIME, &packet(2));
    let mut next_generation = PcapNg::new(Order::Little);
    next_generation.interface(1, 0, &[]).block(99, &[0; 600]).packet(0, TIME, &packet(1)).packet(
        0,
        TIME,
        &packet(2),
    );
    for bytes in [classic.bytes, next_generation.bytes] {
        for buffer_bytes in [1, 64, 4096] {
            let reader = Box::new(Trickle(bytes.clone(), false));
            let mut file =
                CaptureFile::from_reader("test", reader, &Config { buffer_bytes }).expect("a capture");
            let mut sequences = Vec::new();
            file.read(&mut |segment| sequences.push(segment.sequence)).expect("a whole file");
            assert_eq!(sequences, [1, 2], "{buffer_bytes}");
        }
    }
}

#[test]
fn a_live_stream_is_not_waited_for_with_packets_in_hand() {
    /// Gives one piece a read, as a pipe does whose writer flushes after every packet.
    struct Live(VecDeque<Vec<u8>>);
    impl Read for Live {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let piece = self.0.pop_front().unwrap_or_default();
            buffer[..piece.len()].copy_from_slice(&piece);
            Ok(piece.len())
        }
    }
    let mut file = Pcap::new(Order::Little, Unit::Micro, ETHERNET);
    let mut pieces = VecDeque::from([file.bytes.clone()]);
    for sequence in 1..4 {
        file.bytes.clear();
        pieces.push_back(file.packet(TIME, &packet(sequence)).bytes.clone());
    }
    let mut file =
        CaptureFile::from_reader("test", Box::new(Live(pieces)), &Config::default()).expect("a capture");
    for sequence in 1..4 {
        let mut seen = Vec::new();
        let progress = file.next_batch(&mut |segment| seen.push(segment.sequence)).expect("a packet");
        assert_eq!((progress, seen), (Progress::More, vec![sequence]));
    }
    assert_eq!(file.next_batch(&mut |_| {}).expect("the end"), Progress::Ended);
}

#[test]
fn a_read_error_is_told() {
    struct Broken(io::Cursor<Vec<u8>>);
    impl Read for Broken {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            match self.0.read(buffer)? {
                0 => Err(io::Error::other("the disk is gone")),
                count => Ok(count),
            }
        }
    }
    let mut file = Pcap::new(Order::Little, Unit::Micro, ETHERNET);
    file.packet(TIME, &packet(1));
    let reader = Box::new(Broken(io::Cursor::new(file.bytes.clone())));
    let mut file = CaptureFile::from_reader("test", reader, &Config::default()).expect("a capture");
    let mut seen = 0;
    let error = file.read(&mut |_| seen += 1).expect_err("a broken disk");
    assert_eq!((seen, error.to_string().as_str()), (1, "test: the disk is gone"));
}
