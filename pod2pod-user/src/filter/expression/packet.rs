//! Packets that stand for a connection: Ethernet, IP and TCP headers with its addresses and ports. The rest means nothing,
//! and no expression that could tell is let through.

use std::net::{IpAddr, SocketAddr};

/// EtherType of IPv4 (IEEE 802 numbers, IANA).
pub(super) const ETHER_IPV4: u16 = 0x0800;
/// EtherType of IPv6.
pub(super) const ETHER_IPV6: u16 = 0x86dd;
/// Protocol number of TCP.
pub(super) const TCP: u8 = 6;
/// Bytes of an Ethernet header.
pub(super) const ETHERNET: usize = 14;
/// Bytes of a TCP header without options.
pub(super) const TCP_HEADER: usize = 20;

/// A packet from `source` to `destination`.
pub(super) fn of(source: SocketAddr, destination: SocketAddr) -> Vec<u8> {
    let mut packet = vec![0; ETHERNET - 2];
    match (source.ip(), destination.ip()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            packet.extend(ETHER_IPV4.to_be_bytes());
            // Version and header length, and total length (RFC 791 3.1).
            packet.extend([0x45, 0, 0, 40, 0, 0, 0, 0, 64, TCP, 0, 0]);
            packet.extend(from.octets());
            packet.extend(to.octets());
        }
        (from, to) => {
            packet.extend(ETHER_IPV6.to_be_bytes());
            // Version, payload length, next header, hop limit (RFC 8200 3).
            packet.extend([0x60, 0, 0, 0, 0, 20, TCP, 64]);
            packet.extend(sixteen(from));
            packet.extend(sixteen(to));
        }
    }
    packet.extend(source.port().to_be_bytes());
    packet.extend(destination.port().to_be_bytes());
    // Sequence and acknowledgement number, header length, ACK, window (RFC 9293 3.1).
    packet.extend([0, 0, 0, 1, 0, 0, 0, 1, 0x50, 0x10, 0xff, 0xff, 0, 0, 0, 0]);
    packet
}

const fn sixteen(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
        IpAddr::V6(address) => address.octets(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_whole() {
        let check = |source: &str, destination: &str, length: usize| {
            let packet = of(source.parse().unwrap(), destination.parse().unwrap());
            assert_eq!(packet.len(), length);
        };
        check("10.0.0.1:1", "10.0.0.2:2", ETHERNET + 20 + TCP_HEADER);
        check("[::1]:1", "[::2]:2", ETHERNET + 40 + TCP_HEADER);
    }
}
