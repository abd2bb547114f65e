//! ICMP errors: a SYN that one quotes is told as such, and nothing else of ICMP is.

use std::net::IpAddr;

use pod2pod_user::capture::{
    Direction, KernelInstant, Unreachable,
    packet::{Frame, PacketDecoder},
};
use support::capture_file::{ACK, ETHERNET, RST, SYN, Tcp, ethernet, ip, udp};

const SEQUENCE: u32 = 0xfedc_ba98;

fn addresses(version: u8) -> [IpAddr; 3] {
    let addresses = match version {
        4 => ["10.0.0.1", "10.0.0.2", "10.0.0.254"],
        _ => ["fd00::1", "fd00::2", "fd00::fe"],
    };
    addresses.map(|address| address.parse().unwrap())
}

fn quoted(version: u8, flags: u8) -> Vec<u8> {
    let [client, server, _] = addresses(version);
    let (source, destination) = ((client, 40_000).into(), (server, 80).into());
    Tcp { source, destination, flags, ..Tcp::data(SEQUENCE, &[]) }.ip()
}

/// The frame of an ICMP message from a router to the client.
fn message(version: u8, kind: u8, code: u8, quote: &[u8]) -> Vec<u8> {
    let [client, _, router] = addresses(version);
    let icmp = [&[kind, code, 0, 0, 0, 0, 0, 0], quote].concat();
    let (protocol, ether_type) = if version == 4 { (1, 0x0800) } else { (58, 0x86dd) };
    ethernet(ether_type, &ip(router, client, protocol, &icmp))
}

/// What is told of a frame: source, destination, sequence number, type and code.
fn told(frame: &[u8]) -> Vec<(String, String, u32, Unreachable)> {
    let mut decoder = PacketDecoder::new();
    let mut told = Vec::new();
    let time = KernelInstant::from_nanos(7);
    let original_length = frame.len() as u32;
    let frame = Frame { link_type: ETHERNET, bytes: frame, original_length, time, interface: 3 };
    decoder.decode(&frame, &mut |segment| {
        assert!(segment.flags.syn() && !segment.flags.ack() && segment.payload_length == 0);
        assert_eq!((segment.direction, segment.time, segment.interface_index), (Direction::Path, time, 3));
        let ends = (segment.source.to_string(), segment.destination.to_string());
        told.push((ends.0, ends.1, segment.sequence, segment.unreachable.unwrap()));
    });
    let stats = decoder.stats();
    assert_eq!((stats.segments, stats.unreachables), (0, told.len() as u64));
    let left = stats.not_tcp + stats.malformed + stats.truncated_header;
    assert_eq!(left, u64::from(told.is_empty()), "{stats:?}");
    told
}

#[test]
fn a_quoted_syn_is_told_with_type_and_code() {
    let check = |version, kind, code| {
        let expected = match version {
            4 => ("10.0.0.1:40000", "10.0.0.2:80"),
            _ => ("[fd00::1]:40000", "[fd00::2]:80"),
        };
        let error = Unreachable { kind, code, by_this_kernel: false };
        let expected = (expected.0.to_owned(), expected.1.to_owned(), SEQUENCE, error);
        assert_eq!(told(&message(version, kind, code, &quoted(version, SYN))), [expected]);
    };
    for code in [0, 1, 2, 3, 5, 9, 10, 13] {
        check(4, 3, code);
    }
    check(4, 11, 0);
    for code in 0..=6 {
        check(6, 1, code);
    }
    check(6, 3, 0);
}

#[test]
fn other_messages_and_other_quotes_are_not_told() {
    for (version, kind, code) in [
        (4, 3, 4),
        (4, 0, 0),
        (4, 8, 0),
        (4, 5, 1),
        (4, 12, 0),
        (6, 2, 0),
        (6, 4, 0),
        (6, 128, 0),
        (6, 135, 0),
    ] {
        assert_eq!(told(&message(version, kind, code, &quoted(version, SYN))), [], "{version} {kind}");
    }
    for (version, kind) in [(4, 3), (6, 1)] {
        for flags in [ACK, SYN | ACK, RST, ACK | 0x08] {
            assert_eq!(told(&message(version, kind, 1, &quoted(version, flags))), [], "{flags:#x}");
        }
        let [client, server, _] = addresses(version);
        assert_eq!(told(&message(version, kind, 1, &ip(client, server, 17, &udp(1, 2, b"x")))), []);
    }
    // Of a fragment that is not the first the quote has no ports.
    let mut fragment = quoted(4, SYN);
    fragment[7] = 1;
    assert_eq!(told(&message(4, 3, 1, &fragment)), []);
}

/// A router may quote the IP header and eight bytes (RFC 792), and a capture may end anywhere.
#[test]
fn a_quote_is_enough_from_its_sequence_number_on() {
    for (version, kind, ip_header) in [(4, 3, 20), (6, 1, 40)] {
        let whole = quoted(version, SYN);
        for length in 0..whole.len() {
            let expected = usize::from(length >= ip_header + 8);
            assert_eq!(
                told(&message(version, kind, 1, &whole[..length])).len(),
                expected,
                "{version} {length}"
            );
        }
    }
}
