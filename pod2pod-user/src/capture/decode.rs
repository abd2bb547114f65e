//! Ring record → [`Segment`]: safe code over bytes, any bytes.
//!
//! Trusts no field: the kernel wrote the record, but perhaps another version of it. Never copies the payload.

use std::{
    mem::offset_of,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use pod2pod_common::{
    flow::SCOPE_COOKIE,
    segment::{
        DIRECTION_EGRESS, DIRECTION_INGRESS, HEADER_LENGTH, LAYOUT_VERSION, MARK_CONNECTION_LOST, MARK_MORE,
        MARK_SKIPPED, SegmentHeader,
    },
};

use super::segment::{Direction, KernelInstant, Scope, Segment, TcpFlags};

/// Why bytes are no record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Shorter than a header, or than the header says.
    #[error("the record is shorter than it says")]
    Truncated,
    /// Written by a kernel side of another version.
    #[error("the record has layout version {0}, this program reads {LAYOUT_VERSION}")]
    Version(u8),
    /// A field has no meaning, or two contradict each other.
    #[error("the record contradicts itself")]
    Malformed,
}

/// A number of the header, by the contract's name and type for it.
macro_rules! field {
    ($header:expr, $name:ident: $type:ty) => {
        <$type>::from_ne_bytes(bytes_at($header, offset_of!(SegmentHeader, $name)))
    };
}
/// Decodes one record. What follows the captured payload is waste of the record's size class.
#[inline]
pub fn decode(record: &[u8]) -> Result<Segment<'_>, DecodeError> {
    let (header, payload) = record.split_first_chunk::<HEADER_LENGTH>().ok_or(DecodeError::Truncated)?;
    let version = field!(header, version: u8);
    if version != LAYOUT_VERSION {
        return Err(DecodeError::Version(version));
    }
    let (payload_length, captured_length) =
        (field!(header, payload_length: u32), field!(header, captured_length: u32));
    if captured_length > payload_length {
        return Err(DecodeError::Malformed);
    }
    let payload = payload.get(..captured_length as usize).ok_or(DecodeError::Truncated)?;
    let (direction, source, destination) = match field!(header, direction: u8) {
        DIRECTION_INGRESS => (Direction::Ingress, REMOTE, LOCAL),
        DIRECTION_EGRESS => (Direction::Egress, LOCAL, REMOTE),
        _ => return Err(DecodeError::Malformed),
    };
    let marks = field!(header, marks: u8);
    let generation = field!(header, generation: u32);
    Ok(Segment {
        time: KernelInstant::from_nanos(field!(header, time_ns: u64)),
        scope: Scope(field!(header, scope: u64)),
        direction,
        source: source.of(header),
        destination: destination.of(header),
        sequence: field!(header, sequence: u32),
        acknowledgement: field!(header, acknowledgement: u32),
        flags: TcpFlags(field!(header, tcp_flags: u8)),
        payload_length,
        payload,
        lost_before: marks & MARK_CONNECTION_LOST != 0,
        skipped_before: marks & MARK_SKIPPED != 0,
        generation: (field!(header, generation_known: u8) != 0).then_some(generation),
        cgroup_id: field!(header, cgroup_id: u64),
        socket_cookie: field!(header, socket_cookie: u64),
        interface_index: field!(header, interface_index: u32),
        scope_is_cookie: field!(header, scope_kind: u32) == SCOPE_COOKIE,
    })
}

/// What the ledger has to know of a record, also of one that [`decode`] refuses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outline {
    /// Captured payload bytes, as the record says.
    pub captured: u32,
    /// It is the last record of its packet.
    pub ends_packet: bool,
}

/// Reads no more of `record` than two fields, whatever it holds.
#[inline]
pub fn outline(record: &[u8]) -> Outline {
    let captured = record.get(offset_of!(SegmentHeader, captured_length)..);
    let captured =
        captured.and_then(|field| field.first_chunk()).map_or(0, |field| u32::from_ne_bytes(*field));
    let marks = record.get(offset_of!(SegmentHeader, marks)).copied().unwrap_or_default();
    Outline { captured, ends_packet: marks & MARK_MORE == 0 }
}

/// Bytes of the header; zeros if they are not in it, which the contract's offsets are.
#[inline(always)]
fn bytes_at<const N: usize>(header: &[u8; HEADER_LENGTH], offset: usize) -> [u8; N] {
    header.get(offset..).and_then(|field| field.first_chunk()).copied().unwrap_or([0; N])
}

/// Where the address and the port of an end are.
#[derive(Clone, Copy)]
struct End {
    address: usize,
    port: usize,
}

const LOCAL: End =
    End { address: offset_of!(SegmentHeader, local_address), port: offset_of!(SegmentHeader, local_port) };
const REMOTE: End =
    End { address: offset_of!(SegmentHeader, remote_address), port: offset_of!(SegmentHeader, remote_port) };

impl End {
    /// IPv4-mapped addresses (RFC 4291 2.5.5.2) become IPv4, also those of IPv4 traffic on an IPv6 socket.
    #[inline(always)]
    fn of(self, header: &[u8; HEADER_LENGTH]) -> SocketAddr {
        // As a number: taken byte by byte, an address costs more than the rest of the header.
        let number = u128::from_be_bytes(bytes_at(header, self.address));
        let address = match number >> 32 {
            0xffff => IpAddr::V4(Ipv4Addr::from_bits(number as u32)),
            _ => IpAddr::V6(Ipv6Addr::from_bits(number)),
        };
        SocketAddr::new(address, u16::from_ne_bytes(bytes_at(header, self.port)))
    }
}

#[cfg(test)]
mod tests {
    use pod2pod_common::segment::{SegmentHeader, TCP_ACK, TCP_PSH};

    use super::*;

    const PAYLOAD: &[u8] = b"GET / HTTP/1.1\r\n\r\n";

    /// A record as the kernel would write it, field by field at the contract's offsets.
    fn record() -> Vec<u8> {
        let mut bytes = vec![0; 256];
        let mut put =
            |offset: usize, field: &[u8]| bytes[offset..offset + field.len()].copy_from_slice(field);
        put(offset_of!(SegmentHeader, time_ns), &1_000_000_007_u64.to_ne_bytes());
        put(offset_of!(SegmentHeader, scope), &11_u64.to_ne_bytes());
        put(offset_of!(SegmentHeader, cgroup_id), &12_u64.to_ne_bytes());
        put(offset_of!(SegmentHeader, socket_cookie), &13_u64.to_ne_bytes());
        put(offset_of!(SegmentHeader, local_address), &[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 255, 255, 10, 0, 0, 1]);
        put(
            offset_of!(SegmentHeader, remote_address),
            &[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 255, 255, 10, 0, 0, 2],
        );
        put(offset_of!(SegmentHeader, local_port), &8080_u16.to_ne_bytes());
        put(offset_of!(SegmentHeader, remote_port), &40_000_u16.to_ne_bytes());
        put(offset_of!(SegmentHeader, sequence), &0xdead_beef_u32.to_ne_bytes());
        put(offset_of!(SegmentHeader, acknowledgement), &77_u32.to_ne_bytes());
        put(offset_of!(SegmentHeader, payload_length), &(PAYLOAD.len() as u32 + 5).to_ne_bytes());
        put(offset_of!(SegmentHeader, captured_length), &(PAYLOAD.len() as u32).to_ne_bytes());
        put(offset_of!(SegmentHeader, interface_index), &3_u32.to_ne_bytes());
        put(offset_of!(SegmentHeader, tcp_flags), &[TCP_ACK | TCP_PSH]);
        put(offset_of!(SegmentHeader, direction), &[DIRECTION_INGRESS]);
        put(offset_of!(SegmentHeader, marks), &[MARK_CONNECTION_LOST | MARK_SKIPPED]);
        put(offset_of!(SegmentHeader, generation), &99_u32.to_ne_bytes());
        put(offset_of!(SegmentHeader, generation_known), &[1]);
        put(offset_of!(SegmentHeader, version), &[LAYOUT_VERSION]);
        put(offset_of!(SegmentHeader, scope_kind), &SCOPE_COOKIE.to_ne_bytes());
        put(HEADER_LENGTH, PAYLOAD);
        bytes
    }

    fn changed(offset: usize, field: &[u8]) -> Vec<u8> {
        let mut bytes = record();
        bytes[offset..offset + field.len()].copy_from_slice(field);
        bytes
    }

    #[test]
    fn an_outline_is_two_fields_of_any_bytes() {
        let (captured, more) = (offset_of!(SegmentHeader, captured_length), offset_of!(SegmentHeader, marks));
        let whole = Outline { captured: PAYLOAD.len() as u32, ends_packet: true };
        assert_eq!(outline(&record()), whole);
        assert_eq!(outline(&changed(more, &[MARK_MORE])), Outline { ends_packet: false, ..whole });
        assert_eq!(outline(&record()[..captured + 3]), Outline { captured: 0, ends_packet: true });
        assert_eq!(outline(&[]), Outline { captured: 0, ends_packet: true });
    }

    #[test]
    fn every_field_arrives() {
        let expected = Segment {
            time: KernelInstant::from_nanos(1_000_000_007),
            scope: Scope(11),
            direction: Direction::Ingress,
            source: "10.0.0.2:40000".parse().unwrap(),
            destination: "10.0.0.1:8080".parse().unwrap(),
            sequence: 0xdead_beef,
            acknowledgement: 77,
            flags: TcpFlags(TCP_ACK | TCP_PSH),
            payload_length: PAYLOAD.len() as u32 + 5,
            payload: PAYLOAD,
            lost_before: true,
            skipped_before: true,
            generation: Some(99),
            cgroup_id: 12,
            socket_cookie: 13,
            interface_index: 3,
            scope_is_cookie: true,
        };
        assert_eq!(decode(&record()), Ok(expected));
    }

    #[test]
    fn egress_is_sent_by_the_local_end_and_ipv6_stays() {
        let mut bytes = changed(offset_of!(SegmentHeader, direction), &[DIRECTION_EGRESS]);
        let local = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 1);
        let offset = offset_of!(SegmentHeader, local_address);
        bytes[offset..offset + 16].copy_from_slice(&local.octets());
        let segment = decode(&bytes).unwrap();
        assert_eq!(segment.direction, Direction::Egress);
        assert_eq!(segment.source, SocketAddr::new(local.into(), 8080));
        assert_eq!(segment.destination, "10.0.0.2:40000".parse().unwrap());
    }

    #[test]
    fn foreign_bytes_are_refused() {
        let length = offset_of!(SegmentHeader, captured_length);
        let cases = [
            (Vec::new(), DecodeError::Truncated),
            (record()[..HEADER_LENGTH - 1].to_vec(), DecodeError::Truncated),
            (record()[..HEADER_LENGTH + PAYLOAD.len() - 1].to_vec(), DecodeError::Truncated),
            (
                changed(offset_of!(SegmentHeader, version), &[LAYOUT_VERSION + 1]),
                DecodeError::Version(LAYOUT_VERSION + 1),
            ),
            (changed(offset_of!(SegmentHeader, direction), &[9]), DecodeError::Malformed),
            (changed(length, &u32::MAX.to_ne_bytes()), DecodeError::Malformed),
        ];
        for (bytes, expected) in cases {
            assert_eq!(decode(&bytes), Err(expected), "{bytes:?}");
        }
        assert!(decode(&record()[..HEADER_LENGTH + PAYLOAD.len()]).is_ok());
    }
}
