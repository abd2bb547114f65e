//! A segment as an Ethernet frame with right checksums.

use std::net::IpAddr;

use super::OwnedSegment;

pub(super) fn packet(segment: &OwnedSegment) -> Vec<u8> {
    let mut tcp = Vec::with_capacity(20 + segment.payload.len());
    tcp.extend_from_slice(&segment.source.port().to_be_bytes());
    tcp.extend_from_slice(&segment.destination.port().to_be_bytes());
    tcp.extend_from_slice(&segment.sequence.to_be_bytes());
    tcp.extend_from_slice(&segment.acknowledgement.to_be_bytes());
    tcp.extend_from_slice(&[5 << 4, segment.flags.0, 0xff, 0xff, 0, 0, 0, 0]);
    tcp.extend_from_slice(&segment.payload);
    let mut frame = vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1];
    match (segment.source.ip(), segment.destination.ip()) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            let pseudo = [&source.octets()[..], &destination.octets(), &[0, 6]].concat();
            put_tcp_checksum(&mut tcp, &pseudo);
            frame.extend_from_slice(&[8, 0]);
            frame.extend_from_slice(&ipv4_header(source.octets(), destination.octets(), tcp.len()));
        }
        (source, destination) => {
            let (source, destination) = (as_v6(source), as_v6(destination));
            put_tcp_checksum(&mut tcp, &[&source[..], &destination, &[0, 6]].concat());
            frame.extend_from_slice(&[0x86, 0xdd, 0x60, 0, 0, 0]);
            frame.extend_from_slice(&(tcp.len() as u16).to_be_bytes());
            frame.extend_from_slice(&[6, 64]);
            frame.extend_from_slice(&source);
            frame.extend_from_slice(&destination);
        }
    }
    frame.extend_from_slice(&tcp);
    frame
}

fn as_v6(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
        IpAddr::V6(address) => address.octets(),
    }
}

fn ipv4_header(source: [u8; 4], destination: [u8; 4], tcp_length: usize) -> Vec<u8> {
    let mut header = vec![0x45, 0];
    header.extend_from_slice(&((20 + tcp_length) as u16).to_be_bytes());
    header.extend_from_slice(&[0, 0, 0x40, 0, 64, 6, 0, 0]);
    header.extend_from_slice(&source);
    header.extend_from_slice(&destination);
    let sum = checksum(&[&header]);
    header[10..12].copy_from_slice(&sum.to_be_bytes());
    header
}

fn put_tcp_checksum(tcp: &mut [u8], pseudo: &[u8]) {
    let length = (tcp.len() as u16).to_be_bytes();
    let sum = checksum(&[pseudo, &length, tcp]);
    tcp[16..18].copy_from_slice(&sum.to_be_bytes());
}

/// The Internet checksum (RFC 1071); every part but the last has an even length.
fn checksum(parts: &[&[u8]]) -> u16 {
    let words = parts.iter().flat_map(|part| part.chunks(2));
    let mut sum: u32 =
        words.map(|word| u32::from(word[0]) << 8 | u32::from(*word.get(1).unwrap_or(&0))).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

#[cfg(test)]
mod tests {
    use super::{super::Conversation, *};

    #[test]
    fn packets_have_right_checksums() {
        for (client, server) in [("10.1.2.3:4", "10.1.2.4:80"), ("[fd00::1]:4", "[fd00::2]:80")] {
            let (client, server) = (client.parse().unwrap(), server.parse().unwrap());
            let conversation = Conversation::new().addresses(client, server).client(b"odd");
            for (_, frame) in conversation.to_packets() {
                let (ip, addresses) =
                    if frame[12] == 8 { (20, &frame[26..34]) } else { (40, &frame[22..54]) };
                let tcp = &frame[14 + ip..];
                let length = (tcp.len() as u16).to_be_bytes();
                assert_eq!(checksum(&[addresses, &[0, 6], &length, tcp]), 0);
            }
        }
    }
}
