//! Checksums of segments without payload: a wrong one on a SYN, FIN or RST is how a connection is disturbed for the
//! observer and not for its ends, who discard the segment (RFC 9293 3.1).
//!
//! A wrong checksum alone proves nothing: offloading leaves it unset at the sender, and who edits a capture forgets it.
//! So one is held against a segment only if its source has sent right ones, and never against payload.

use std::{collections::HashSet, net::IpAddr};

use super::{ip::Addresses, view::View};

/// Sources remembered for having sent right checksums. One more: it is not remembered, and nothing of it is refused.
const MAX_SOURCES: usize = 4_096;

/// Where the checksum is in a TCP header.
const CHECKSUM_AT: usize = 16;

const TCP: u8 = 6;

/// Who is known to send right checksums.
#[derive(Debug, Default)]
pub(super) struct Checksums {
    /// Addresses come from foreign packets: the standard hasher has a random key.
    right: HashSet<IpAddr>,
}

impl Checksums {
    /// Whether the ends will have discarded a segment without payload, of which `segment` is everything.
    pub(super) fn is_discarded(&mut self, addresses: Addresses, segment: View<'_>) -> bool {
        let bytes = segment.bytes();
        let Ok(field) = segment.be16(CHECKSUM_AT) else { return false };
        if !segment.is_whole() {
            return false;
        }
        let pseudo = pseudo_header(addresses, bytes.len());
        if fold(pseudo + sum(bytes)) == 0xffff {
            if self.right.len() < MAX_SOURCES {
                self.right.insert(addresses.source);
            }
            return false;
        }
        // Unset, or as the kernel leaves it for the hardware (CHECKSUM_PARTIAL in include/linux/skbuff.h).
        let is_offloaded = field == 0 || field == fold(pseudo);
        !is_offloaded && self.right.contains(&addresses.source)
    }
}

/// Sum of the pseudo-header (RFC 9293 3.1, RFC 8200 8.1). An IPv4-mapped address has the sum of the IPv4 address.
fn pseudo_header(addresses: Addresses, length: usize) -> u64 {
    let address = |address| match address {
        IpAddr::V4(address) => sum(&address.octets()),
        IpAddr::V6(address) => sum(&address.octets()),
    };
    address(addresses.source) + address(addresses.destination) + u64::from(TCP) + length as u64
}

/// Sum of big-endian 16-bit words, the last one filled up with zero (RFC 1071).
pub(crate) fn sum(bytes: &[u8]) -> u64 {
    let (words, rest) = bytes.as_chunks::<2>();
    let rest = rest.first().map_or(0, |&byte| u64::from(byte) << 8);
    words.iter().map(|word| u64::from(u16::from_be_bytes(*word))).sum::<u64>() + rest
}

/// A sum as 16 bits, carries added (RFC 1071).
pub(crate) fn fold(mut sum: u64) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(last: u16) -> Addresses {
        let [high, low] = last.to_be_bytes();
        Addresses { source: [10, 1, high, low].into(), destination: [10, 0, 0, 2].into() }
    }

    /// A bare segment whose checksum is `field`, or the right one.
    fn segment(addresses: Addresses, field: Option<u16>) -> Vec<u8> {
        let mut bytes = vec![0x9c, 0x40, 0, 80, 0, 0, 0, 7, 0, 0, 0, 9, 5 << 4, 0x14, 1, 2, 0, 0, 0, 0];
        let right = !fold(pseudo_header(addresses, bytes.len()) + sum(&bytes));
        bytes[16..18].copy_from_slice(&field.unwrap_or(right).to_be_bytes());
        bytes
    }

    fn discards(checksums: &mut Checksums, addresses: Addresses, field: Option<u16>) -> bool {
        let bytes = segment(addresses, field);
        checksums.is_discarded(addresses, View::new(&bytes, bytes.len()))
    }

    #[test]
    fn a_wrong_checksum_counts_against_who_sends_right_ones() {
        let (mut checksums, source) = (Checksums::default(), addresses(1));
        assert!(!discards(&mut checksums, source, Some(0x1234)));
        assert!(!discards(&mut checksums, source, None));
        assert!(discards(&mut checksums, source, Some(0x1234)));
        assert!(!discards(&mut checksums, addresses(2), Some(0x1234)));
        // What offloading leaves, and what a capture cut, is not wrong.
        assert!(!discards(&mut checksums, source, Some(0)));
        assert!(!discards(&mut checksums, source, Some(fold(pseudo_header(source, 20)))));
        let bytes = segment(source, Some(0x1234));
        assert!(!checksums.is_discarded(source, View::new(&bytes[..18], 20)));
    }

    #[test]
    fn sources_at_their_limit_and_one_past() {
        let mut checksums = Checksums::default();
        let last = MAX_SOURCES as u16;
        (1..=last + 1).for_each(|source| assert!(!discards(&mut checksums, addresses(source), None)));
        assert!(discards(&mut checksums, addresses(last), Some(0x1234)));
        assert!(!discards(&mut checksums, addresses(last + 1), Some(0x1234)));
    }
}
