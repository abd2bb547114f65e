//! Ring record → [`Segment`]: safe code over bytes, any bytes.
//!
//! Trusts no field: the kernel wrote the record, but perhaps another version of it. Never copies the payload.

use std::{
    mem::offset_of,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use pod2pod_common::{
    flow::{SCOPE_CGROUP, SCOPE_COOKIE, SCOPE_INTERFACE},
    segment::{
        HEADER_LENGTH, KIND_EGRESS, KIND_GENERATION_KNOWN, KIND_LONG_ADDRESSES, KIND_SCOPE_SHIFT,
        KIND_UNREACHABLE, LAYOUT_VERSION, LONG_ADDRESSES, LongAddresses, MARK_CONNECTION_LOST, MARK_MORE,
        MARK_SKIPPED, SegmentHeader,
    },
};

use super::segment::{Direction, KernelInstant, Scope, Segment, TcpFlags, Unreachable};

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
    let (header, rest) = record.split_first_chunk::<HEADER_LENGTH>().ok_or(DecodeError::Truncated)?;
    let version = field!(header, version: u8);
    if version != LAYOUT_VERSION {
        return Err(DecodeError::Version(version));
    }
    let kind = field!(header, kind: u8);
    let (payload_length, captured_length) =
        (field!(header, payload_length: u32), field!(header, captured_length: u32));
    if captured_length > payload_length {
        return Err(DecodeError::Malformed);
    }
    let payload = rest.get(..captured_length as usize).ok_or(DecodeError::Truncated)?;
    let (local, remote) = if kind & KIND_LONG_ADDRESSES == 0 {
        let short = |offset| IpAddr::V4(Ipv4Addr::from(bytes_at::<4, _>(header, offset)));
        (short(offset_of!(SegmentHeader, local_address)), short(offset_of!(SegmentHeader, remote_address)))
    } else {
        let behind = rest.get(payload.len()..).and_then(|rest| rest.last_chunk::<LONG_ADDRESSES>());
        let addresses = behind.ok_or(DecodeError::Truncated)?;
        let long = |offset| long_address(bytes_at(addresses, offset));
        (long(offset_of!(LongAddresses, local)), long(offset_of!(LongAddresses, remote)))
    };
    let local = SocketAddr::new(local, field!(header, local_port: u16));
    let remote = SocketAddr::new(remote, field!(header, remote_port: u16));
    let (direction, source, destination) = match kind & KIND_EGRESS {
        0 => (Direction::Ingress, remote, local),
        _ => (Direction::Egress, local, remote),
    };
    let (cgroup_id, socket_cookie) = (field!(header, cgroup_id: u64), field!(header, socket_cookie: u64));
    let interface_index = field!(header, interface_index: u32);
    let (scope, scope_is_cookie) = match u32::from(kind >> KIND_SCOPE_SHIFT) {
        SCOPE_CGROUP => (cgroup_id, false),
        SCOPE_INTERFACE => (u64::from(interface_index), false),
        SCOPE_COOKIE => (socket_cookie, true),
        _ => return Err(DecodeError::Malformed),
    };
    let acknowledgement = field!(header, acknowledgement: u32);
    let unreachable = match kind & KIND_UNREACHABLE {
        0 => None,
        _ => Some(Unreachable {
            kind: (acknowledgement >> 8) as u8,
            code: acknowledgement as u8,
            // Where sockets are watched, what others send is not seen.
            by_this_kernel: u32::from(kind >> KIND_SCOPE_SHIFT) != SCOPE_INTERFACE,
        }),
    };
    let marks = field!(header, marks: u8);
    let generation = field!(header, generation: u32);
    Ok(Segment {
        time: KernelInstant::from_nanos(field!(header, time_ns: u64)),
        scope: Scope(scope),
        direction,
        source,
        destination,
        sequence: field!(header, sequence: u32),
        acknowledgement,
        flags: TcpFlags(field!(header, tcp_flags: u8)),
        payload_length,
        payload,
        lost_before: marks & MARK_CONNECTION_LOST != 0,
        skipped_before: marks & MARK_SKIPPED != 0,
        generation: (kind & KIND_GENERATION_KNOWN != 0).then_some(generation),
        cgroup_id,
        socket_cookie,
        interface_index,
        unreachable,
        scope_is_cookie,
    })
}

/// IPv4-mapped addresses (RFC 4291 2.5.5.2) become IPv4.
#[inline(always)]
fn long_address(bytes: [u8; 16]) -> IpAddr {
    // As a number: taken byte by byte, an address costs more than the rest of the header.
    let number = u128::from_be_bytes(bytes);
    match number >> 32 {
        0xffff => IpAddr::V4(Ipv4Addr::from_bits(number as u32)),
        _ => IpAddr::V6(Ipv6Addr::from_bits(number)),
    }
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

/// Bytes at a place; zeros if they are not there, which those of the contract's offsets are.
#[inline(always)]
fn bytes_at<const N: usize, const M: usize>(from: &[u8; M], offset: usize) -> [u8; N] {
    from.get(offset..).and_then(|field| field.first_chunk()).copied().unwrap_or([0; N])
}

#[cfg(test)]
mod tests {
    use pod2pod_common::segment::{TCP_ACK, TCP_PSH};

    use super::*;

    const PAYLOAD: &[u8] = b"GET / HTTP/1.1\r\n\r\n";
    const KIND: usize = offset_of!(SegmentHeader, kind);

    const fn scope(kind: u32) -> u8 {
        (kind << KIND_SCOPE_SHIFT) as u8
    }

    /// A record as the kernel would write it, field by field at the contract's offsets.
    fn record() -> Vec<u8> {
        let mut bytes = vec![0; 248];
        let mut put =
            |offset: usize, field: &[u8]| bytes[offset..offset + field.len()].copy_from_slice(field);
        put(offset_of!(SegmentHeader, time_ns), &1_000_000_007_u64.to_ne_bytes());
        put(offset_of!(SegmentHeader, cgroup_id), &12_u64.to_ne_bytes());
        put(offset_of!(SegmentHeader, socket_cookie), &13_u64.to_ne_bytes());
        put(offset_of!(SegmentHeader, local_address), &[10, 0, 0, 1]);
        put(offset_of!(SegmentHeader, remote_address), &[10, 0, 0, 2]);
        put(offset_of!(SegmentHeader, local_port), &8080_u16.to_ne_bytes());
        put(offset_of!(SegmentHeader, remote_port), &40_000_u16.to_ne_bytes());
        put(offset_of!(SegmentHeader, sequence), &0xdead_beef_u32.to_ne_bytes());
        put(offset_of!(SegmentHeader, acknowledgement), &77_u32.to_ne_bytes());
        put(offset_of!(SegmentHeader, payload_length), &(PAYLOAD.len() as u32 + 5).to_ne_bytes());
        put(offset_of!(SegmentHeader, captured_length), &(PAYLOAD.len() as u32).to_ne_bytes());
        put(offset_of!(SegmentHeader, interface_index), &3_u32.to_ne_bytes());
        put(offset_of!(SegmentHeader, tcp_flags), &[TCP_ACK | TCP_PSH]);
        put(KIND, &[KIND_GENERATION_KNOWN | scope(SCOPE_COOKIE)]);
        put(offset_of!(SegmentHeader, marks), &[MARK_CONNECTION_LOST | MARK_SKIPPED]);
        put(offset_of!(SegmentHeader, generation), &99_u32.to_ne_bytes());
        put(offset_of!(SegmentHeader, version), &[LAYOUT_VERSION]);
        put(HEADER_LENGTH, PAYLOAD);
        bytes
    }

    /// The same of an IPv6 packet that was sent.
    fn long_record(local: Ipv6Addr, remote: Ipv6Addr) -> Vec<u8> {
        let mut bytes = record();
        bytes[KIND] |= KIND_LONG_ADDRESSES | KIND_EGRESS;
        let mut put =
            |offset: usize, field: &[u8]| bytes[offset..offset + field.len()].copy_from_slice(field);
        let addresses = 248 - LONG_ADDRESSES;
        put(addresses + offset_of!(LongAddresses, local), &local.octets());
        put(addresses + offset_of!(LongAddresses, remote), &remote.octets());
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
            scope: Scope(13),
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
            unreachable: None,
            scope_is_cookie: true,
        };
        assert_eq!(decode(&record()), Ok(expected));
        assert_eq!(decode(&changed(KIND, &[scope(SCOPE_COOKIE)])).unwrap().generation, None);
    }

    #[test]
    fn the_scope_is_the_field_that_it_is_said_to_be() {
        for (kind, expected) in [(SCOPE_CGROUP, 12), (SCOPE_INTERFACE, 3), (SCOPE_COOKIE, 13)] {
            let bytes = changed(KIND, &[scope(kind)]);
            let segment = decode(&bytes).unwrap();
            assert_eq!((segment.scope, segment.scope_is_cookie), (Scope(expected), kind == SCOPE_COOKIE));
        }
    }

    #[test]
    fn egress_is_sent_by_the_local_end_and_ipv6_stays() {
        let local = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 1);
        let mapped = Ipv4Addr::new(10, 0, 0, 2).to_ipv6_mapped();
        let bytes = long_record(local, mapped);
        let segment = decode(&bytes).unwrap();
        assert_eq!(segment.direction, Direction::Egress);
        assert_eq!(segment.source, SocketAddr::new(local.into(), 8080));
        assert_eq!(segment.destination, "10.0.0.2:40000".parse().unwrap());
        assert_eq!(segment.payload, PAYLOAD);
    }

    #[test]
    fn a_quoted_syn_says_type_code_and_whose_word_that_is() {
        for (scope_kind, by_this_kernel) in
            [(SCOPE_CGROUP, true), (SCOPE_COOKIE, true), (SCOPE_INTERFACE, false)]
        {
            let mut bytes = changed(KIND, &[KIND_UNREACHABLE | KIND_EGRESS | scope(scope_kind)]);
            let at = offset_of!(SegmentHeader, acknowledgement);
            bytes[at..at + 4].copy_from_slice(&0x030d_u32.to_ne_bytes());
            let expected = Unreachable { kind: 3, code: 13, by_this_kernel };
            assert_eq!(decode(&bytes).unwrap().unreachable, Some(expected));
        }
        assert_eq!(decode(&record()).unwrap().unreachable, None);
    }

    #[test]
    fn foreign_bytes_are_refused() {
        let length = offset_of!(SegmentHeader, captured_length);
        let long = long_record(Ipv6Addr::LOCALHOST, Ipv6Addr::LOCALHOST);
        let cases = [
            (Vec::new(), DecodeError::Truncated),
            (record()[..HEADER_LENGTH - 1].to_vec(), DecodeError::Truncated),
            (record()[..HEADER_LENGTH + PAYLOAD.len() - 1].to_vec(), DecodeError::Truncated),
            (long[..HEADER_LENGTH + PAYLOAD.len() + LONG_ADDRESSES - 1].to_vec(), DecodeError::Truncated),
            (
                changed(offset_of!(SegmentHeader, version), &[LAYOUT_VERSION + 1]),
                DecodeError::Version(LAYOUT_VERSION + 1),
            ),
            (changed(KIND, &[scope(3)]), DecodeError::Malformed),
            (changed(KIND, &[scope(SCOPE_CGROUP) | 0x80]), DecodeError::Malformed),
            (changed(length, &u32::MAX.to_ne_bytes()), DecodeError::Malformed),
        ];
        for (bytes, expected) in cases {
            assert_eq!(decode(&bytes), Err(expected), "{bytes:?}");
        }
        assert!(decode(&record()[..HEADER_LENGTH + PAYLOAD.len()]).is_ok());
        assert!(decode(&long[..HEADER_LENGTH + PAYLOAD.len() + LONG_ADDRESSES]).is_ok());
    }
}
