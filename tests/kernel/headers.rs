//! Headers that no ordinary socket writes: raw packets, counted where they leave.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrStorage, sendto, socket,
};
use pod2pod_common::{counters::Counter, limits::MAX_EXTENSION_HEADERS};
use pod2pod_user::capture::{Direction, kernel::ScopeChoice};
use support::netns::Namespace;

use crate::{lend::lend, watch::Seen};

const TCP: u8 = 6;
const DESTINATION_OPTIONS: u8 = 60;
const FRAGMENT: u8 = 44;
/// A SYN with payload to a closed port: told whatever it is.
const PAYLOAD: &[u8] = b"GET / HTTP/1.1\r\n\r\n";
/// Sequence number of the SYN.
const ISN: u32 = 0x1122_3344;

/// TCP header with `options`, and the payload.
fn tcp(options: &[u8]) -> Vec<u8> {
    let mut segment = vec![0x9c, 0x41, 0x9c, 0x42];
    segment.extend(ISN.to_be_bytes());
    segment.extend([0; 4]);
    segment.extend([((20 + options.len()) / 4 * 16) as u8, 0x02, 0xff, 0xff, 0, 0, 0, 0]);
    segment.extend(options);
    segment.extend(PAYLOAD);
    segment
}

fn ipv4(options: &[u8], fragment: u16, protocol: u8, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x40 | (5 + options.len() / 4) as u8, 0];
    // The kernel writes the length, the identification and the checksum of a raw packet itself (raw(7)).
    packet.extend([0; 4]);
    packet.extend(fragment.to_be_bytes());
    packet.extend([64, protocol, 0, 0]);
    packet.extend(Ipv4Addr::LOCALHOST.octets());
    packet.extend(Ipv4Addr::LOCALHOST.octets());
    packet.extend(options);
    packet.extend(payload);
    packet
}

/// `headers` are extension headers of eight bytes, each by its protocol number and its bytes from the third on.
fn ipv6(headers: &[(u8, [u8; 6])], payload: &[u8]) -> Vec<u8> {
    let first = headers.first().map_or(TCP, |header| header.0);
    let mut packet = vec![0x60, 0, 0, 0];
    packet.extend(((8 * headers.len() + payload.len()) as u16).to_be_bytes());
    packet.extend([first, 64]);
    packet.extend(Ipv6Addr::LOCALHOST.octets());
    packet.extend(Ipv6Addr::LOCALHOST.octets());
    for (index, (_, rest)) in headers.iter().enumerate() {
        packet.push(headers.get(index + 1).map_or(TCP, |next| next.0));
        packet.push(0);
        packet.extend(rest);
    }
    packet.extend(payload);
    packet
}

/// A destination options header that holds padding only (PadN of 4, RFC 8200 4.2).
const PADDING: (u8, [u8; 6]) = (DESTINATION_OPTIONS, [1, 4, 0, 0, 0, 0]);

/// Sends a raw packet and says what was told of it at egress, and by how much `counter` grew there.
fn send(packet: &[u8], counter: Counter) -> (Vec<Seen>, u64) {
    let host = Namespace::new();
    let (cgroup, mut watch) = lend(ScopeChoice::Cookie);
    let packet = packet.to_vec();
    watch.during(cgroup.spawn(&host, move || {
        let (family, to): (_, SocketAddr) = if packet[0] >> 4 == 6 {
            (AddressFamily::Inet6, "[::1]:0".parse().unwrap())
        } else {
            (AddressFamily::Inet, "127.0.0.1:0".parse().unwrap())
        };
        let raw = socket(family, SockType::Raw, SockFlag::empty(), SockProtocol::Raw).unwrap();
        use std::os::fd::AsRawFd as _;
        sendto(raw.as_raw_fd(), &packet, &SockaddrStorage::from(to), MsgFlags::empty()).unwrap();
    }));
    watch.assert_lossless();
    assert_eq!(watch.counter(Counter::PacketsSeen), 1);
    (watch.seen.clone(), watch.counter(counter))
}

fn is_told(packet: &[u8]) {
    let (told, matched) = send(packet, Counter::SegmentsMatched);
    assert_eq!((told.len(), matched), (1, 1));
    assert_eq!(told[0].payload, PAYLOAD);
    assert_eq!((told[0].sequence, told[0].direction), (ISN, Direction::Egress));
    assert_eq!((told[0].source.port(), told[0].destination.port()), (40001, 40002));
}

fn is_counted(packet: &[u8], counter: Counter) {
    let (told, counted) = send(packet, counter);
    assert_eq!((told.len(), counted), (0, 1), "{counter:?}");
}

#[test]
fn options_do_not_hide_the_payload() {
    let options = [1_u8; 40];
    is_told(&ipv4(&[], 0, TCP, &tcp(&[])));
    is_told(&ipv4(&options, 0, TCP, &tcp(&options)));
    is_told(&ipv6(&[], &tcp(&options)));
}

#[test]
fn extension_headers_are_walked_up_to_a_limit() {
    is_told(&ipv6(&[PADDING], &tcp(&[])));
    is_told(&ipv6(&[PADDING; MAX_EXTENSION_HEADERS], &tcp(&[])));
    is_counted(&ipv6(&[PADDING; MAX_EXTENSION_HEADERS + 1], &tcp(&[])), Counter::TooManyExtensionHeaders);
}

#[test]
fn of_fragments_only_the_first_has_ports() {
    const MORE: u16 = 0x2000;
    is_told(&ipv4(&[], MORE, TCP, &tcp(&[])));
    is_counted(&ipv4(&[], MORE | 3, TCP, &tcp(&[])), Counter::Fragment);
    is_told(&ipv6(&[(FRAGMENT, [0, 1, 0, 0, 0, 9])], &tcp(&[])));
    is_counted(&ipv6(&[(FRAGMENT, [0, 8, 0, 0, 0, 9])], &tcp(&[])), Counter::Fragment);
}

#[test]
fn what_is_no_tcp_segment_is_counted_as_what_it_is() {
    is_counted(&ipv4(&[], 0, 17, &[0; 20]), Counter::NotTcp);
    is_counted(&ipv6(&[(58, [0; 6])], &[]), Counter::NotTcp);
    is_counted(&ipv4(&[], 0, TCP, &[0; 10]), Counter::MalformedHeader);
    let mut short = tcp(&[]);
    short[12] = 0x40;
    is_counted(&ipv4(&[], 0, TCP, &short), Counter::MalformedHeader);
    short[12] = 0xf0;
    is_counted(&ipv4(&[], 0, TCP, &short), Counter::MalformedHeader);
}
