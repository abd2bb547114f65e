//! A segment as IP packets: headers made of what is known of it, checksums right. What the wire had beside that (options,
//! windows, identifications) is not known and not made up.
//!
//! Pure: facts in, bytes out. Knows no file format.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use pod2pod_common::segment as contract;

use crate::capture::{
    TcpFlags,
    packet::checksum::{fold, sum},
};

const TCP: u8 = 6;
const IPV4_HEADER: usize = 20;
const IPV6_HEADER: usize = 40;
const TCP_HEADER: usize = 20;
/// Payload of one packet at most, bytes: what the 16-bit length of IPv4 leaves. A segment that offloading has not cut yet may
/// be longer, and is given as several packets.
pub const MAX_PIECE: usize = 0xffff - IPV4_HEADER - TCP_HEADER;
/// Payload that is told of one segment at most, bytes, if less was captured: twice what Linux hands on at once (BIG TCP has
/// 512 KiB). A longer one is told as this long, which only composed files have.
pub const MAX_TOLD: usize = 1 << 20;

/// What is known of a segment beside its payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Facts {
    /// Sender.
    pub source: SocketAddr,
    /// Receiver.
    pub destination: SocketAddr,
    /// As in the header.
    pub sequence: u32,
    /// As in the header.
    pub acknowledgement: u32,
    /// Flags.
    pub flags: TcpFlags,
    /// Payload bytes on the wire.
    pub payload_length: u32,
}

impl Facts {
    /// Sequence number of the first payload byte.
    pub const fn first_byte(&self) -> u32 {
        self.sequence.wrapping_add(self.flags.syn() as u32)
    }
}

/// Makes the packets of a segment of which `payload` was captured; `take` gets each with its length on the wire.
pub fn make(facts: &Facts, payload: &[u8], take: &mut impl FnMut(&[u8], u32)) {
    let length = (facts.payload_length as usize).min(MAX_TOLD).max(payload.len());
    let mut packet = Vec::with_capacity(IPV6_HEADER + TCP_HEADER + payload.len().min(MAX_PIECE));
    let mut start = 0;
    loop {
        let piece = (length - start).min(MAX_PIECE);
        let is_last = start + piece == length;
        let captured = payload.get(start..payload.len().min(start + piece)).unwrap_or_default();
        packet.clear();
        let original = push(&mut packet, &header_of(facts, start, is_last), facts, captured, piece);
        take(&packet, original);
        start += piece;
        if is_last {
            return;
        }
    }
}

/// What differs between the pieces of a segment.
struct Piece {
    sequence: u32,
    flags: u8,
}

fn header_of(facts: &Facts, start: usize, is_last: bool) -> Piece {
    let mut flags = facts.flags.0;
    let mut sequence = facts.sequence;
    if start > 0 {
        flags &= !contract::TCP_SYN;
        sequence = facts.first_byte().wrapping_add(start as u32);
    }
    if !is_last {
        flags &= !(contract::TCP_FIN | contract::TCP_RST);
    }
    Piece { sequence, flags }
}

/// Appends a packet of which `captured` of `length` payload bytes are there; its length on the wire.
fn push(out: &mut Vec<u8>, piece: &Piece, facts: &Facts, captured: &[u8], length: usize) -> u32 {
    let segment = TCP_HEADER + length;
    let header = match (facts.source.ip(), facts.destination.ip()) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            let total = ((IPV4_HEADER + segment) as u16).to_be_bytes();
            let at = out.len();
            // Version and header length; Don't Fragment, as every stack sets it for TCP; a usual TTL.
            out.extend([0x45, 0, total[0], total[1], 0, 0, 0x40, 0, 64, TCP, 0, 0]);
            out.extend(source.octets());
            out.extend(destination.octets());
            let checksum = !fold(sum(out.get(at..).unwrap_or_default()));
            put(out, at + 10, checksum.to_be_bytes());
            IPV4_HEADER
        }
        (source, destination) => {
            let payload = (segment as u16).to_be_bytes();
            out.extend([0x60, 0, 0, 0, payload[0], payload[1], TCP, 64]);
            out.extend(as_ipv6(source).octets());
            out.extend(as_ipv6(destination).octets());
            IPV6_HEADER
        }
    };
    push_tcp(out, piece, facts, captured, segment);
    (header + segment) as u32
}

fn push_tcp(out: &mut Vec<u8>, piece: &Piece, facts: &Facts, captured: &[u8], length: usize) {
    let at = out.len();
    out.extend(facts.source.port().to_be_bytes());
    out.extend(facts.destination.port().to_be_bytes());
    out.extend(piece.sequence.to_be_bytes());
    out.extend(facts.acknowledgement.to_be_bytes());
    // No options; the window is not known: the largest without scaling, so that no reader takes it for a closed one.
    out.extend([(TCP_HEADER as u8 / 4) << 4, piece.flags, 0xff, 0xff, 0, 0, 0, 0]);
    out.extend_from_slice(captured);
    let addresses = [facts.source.ip(), facts.destination.ip()];
    let pseudo: u64 = addresses.into_iter().map(sum_of_address).sum::<u64>() + u64::from(TCP) + length as u64;
    // Bytes that were not captured count as zero: nobody can check them.
    let checksum = !fold(pseudo + sum(out.get(at..).unwrap_or_default()));
    put(out, at + 16, checksum.to_be_bytes());
}

/// An IPv4-mapped address has the sum of the IPv4 address and `ffff`, which counts as nothing.
fn sum_of_address(address: IpAddr) -> u64 {
    match address {
        IpAddr::V4(address) => sum(&address.octets()),
        IpAddr::V6(address) => sum(&address.octets()),
    }
}

fn as_ipv6(address: IpAddr) -> Ipv6Addr {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped(),
        IpAddr::V6(address) => address,
    }
}

fn put(out: &mut [u8], at: usize, bytes: [u8; 2]) {
    if let Some(place) = out.get_mut(at..at + 2) {
        place.copy_from_slice(&bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(addresses: [&str; 2], length: usize, flags: u8) -> Facts {
        let [source, destination] = addresses.map(|address| address.parse().unwrap());
        Facts {
            source,
            destination,
            sequence: u32::MAX - 1,
            acknowledgement: 9,
            flags: TcpFlags(flags),
            payload_length: length as u32,
        }
    }

    const V4: [&str; 2] = ["10.0.0.1:40000", "10.0.0.2:80"];
    const V6: [&str; 2] = ["[fd00::1]:40000", "[fd00::2]:80"];

    /// Packets of a segment: captured bytes, length on the wire, and the TCP header's sequence and flags.
    fn made(facts: &Facts, payload: &[u8]) -> Vec<(Vec<u8>, u32)> {
        let mut packets = Vec::new();
        make(facts, payload, &mut |packet, original| packets.push((packet.to_vec(), original)));
        packets
    }

    /// Sums over header and pseudo-header are all ones where checksums are right (RFC 1071).
    fn check_sums(packet: &[u8]) {
        let (header, addresses) = match packet[0] >> 4 {
            4 => {
                assert_eq!(fold(sum(&packet[..20])), 0xffff, "IPv4 header");
                (20, &packet[12..20])
            }
            _ => (40, &packet[8..40]),
        };
        let segment = &packet[header..];
        assert_eq!(fold(sum(addresses) + 6 + segment.len() as u64 + sum(segment)), 0xffff, "TCP");
    }

    #[test]
    fn checksums_are_right_for_any_length() {
        for addresses in [V4, V6] {
            for length in [0, 1, 2, 7, 1460, MAX_PIECE] {
                let payload: Vec<u8> = (0..length).map(|index| (index * 7) as u8).collect();
                let packets = made(&facts(addresses, length, contract::TCP_ACK), &payload);
                let [(packet, original)] = &packets[..] else { panic!("{} packets", packets.len()) };
                assert_eq!(packet.len(), *original as usize);
                assert!(packet.ends_with(&payload));
                check_sums(packet);
            }
        }
    }

    #[test]
    fn a_piece_at_its_limit_and_one_past() {
        let all = contract::TCP_SYN | contract::TCP_ACK | contract::TCP_FIN;
        for addresses in [V4, V6] {
            let payload = vec![7; MAX_PIECE + 1];
            let packets = made(&facts(addresses, payload.len(), all), &payload);
            assert_eq!(packets.len(), 2);
            packets.iter().for_each(|(packet, _)| check_sums(packet));
            let header = if addresses == V4 { 20 } else { 40 };
            let told: Vec<_> = packets
                .iter()
                .map(|(packet, _)| {
                    let sequence = packet[header + 4..header + 8].try_into().unwrap();
                    (u32::from_be_bytes(sequence), packet[header + 13])
                })
                .collect();
            let second = u32::MAX.wrapping_add(MAX_PIECE as u32);
            let (first_flags, last_flags) = (all & !contract::TCP_FIN, all & !contract::TCP_SYN);
            assert_eq!(told, [(u32::MAX - 1, first_flags), (second, last_flags)]);
        }
    }

    #[test]
    fn what_was_not_captured_is_told_by_its_length() {
        let packets = made(&facts(V4, 1000, contract::TCP_ACK), b"abc");
        assert_eq!((packets[0].0.len(), packets[0].1), (43, 1040));
        let told =
            |length| made(&facts(V4, length, 0), b"").iter().map(|(_, length)| length - 40).sum::<u32>();
        assert_eq!((told(MAX_TOLD), told(MAX_TOLD + 1)), (MAX_TOLD as u32, MAX_TOLD as u32));
    }
}
