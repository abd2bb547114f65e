//! Ring-buffer record bytes → [`Segment`]. Safe code over byte slices; trusts no length. Pure.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use pod2pod_common::segment::{
    DIRECTION_EGRESS, DIRECTION_INGRESS, HEADER_LENGTH, LAYOUT_VERSION, MARK_CONNECTION_LOST, SegmentHeader,
};

use super::{Direction, KernelInstant, Scope, Segment, TcpFlags};

/// Why a record is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DecodeError {
    /// Shorter than its header, or than its header says.
    Short,
    /// Of a layout version that this program does not know.
    Version(u8),
    /// A field has a value that the contract does not know.
    Field,
}

/// A decoded record: the segment, and what the header tells of the ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decoded<'a> {
    /// The segment.
    pub segment: Segment<'a>,
    /// Failed reservations of the ring since load.
    pub ring_lost: u64,
}

macro_rules! field {
    ($record:expr, $name:ident) => {{
        const OFFSET: usize = std::mem::offset_of!(SegmentHeader, $name);
        bytes_at::<OFFSET, _>($record)
    }};
}

/// The `N` bytes at `OFFSET`; zeros past the end, which the caller has excluded.
fn bytes_at<const OFFSET: usize, const N: usize>(record: &[u8]) -> [u8; N] {
    record.get(OFFSET..OFFSET + N).and_then(|bytes| bytes.try_into().ok()).unwrap_or([0; N])
}

/// Decodes a record; the payload is borrowed from it.
///
/// # Errors
/// The record does not keep the contract.
pub fn decode(record: &[u8], scope_is_cookie: bool) -> Result<Decoded<'_>, DecodeError> {
    if record.len() < HEADER_LENGTH {
        return Err(DecodeError::Short);
    }
    let [version] = field!(record, version);
    if version != LAYOUT_VERSION {
        return Err(DecodeError::Version(version));
    }
    let captured = u32::from_ne_bytes(field!(record, captured_length)) as usize;
    let payload_length = u32::from_ne_bytes(field!(record, payload_length));
    let payload = record.get(HEADER_LENGTH..HEADER_LENGTH + captured).ok_or(DecodeError::Short)?;
    if captured > payload_length as usize {
        return Err(DecodeError::Field);
    }
    let local = address(field!(record, local_address), field!(record, local_port));
    let remote = address(field!(record, remote_address), field!(record, remote_port));
    let [direction] = field!(record, direction);
    let (direction, source, destination) = match direction {
        DIRECTION_EGRESS => (Direction::Egress, local, remote),
        DIRECTION_INGRESS => (Direction::Ingress, remote, local),
        _ => return Err(DecodeError::Field),
    };
    let [flags] = field!(record, tcp_flags);
    let [marks] = field!(record, marks);
    let segment = Segment {
        time: KernelInstant::from_nanos(u64::from_ne_bytes(field!(record, time_ns))),
        scope: Scope(u64::from_ne_bytes(field!(record, scope))),
        direction,
        source,
        destination,
        sequence: u32::from_ne_bytes(field!(record, sequence)),
        acknowledgement: u32::from_ne_bytes(field!(record, acknowledgement)),
        flags: TcpFlags(flags),
        payload_length,
        payload,
        lost_before: marks & MARK_CONNECTION_LOST != 0,
        cgroup_id: u64::from_ne_bytes(field!(record, cgroup_id)),
        socket_cookie: u64::from_ne_bytes(field!(record, socket_cookie)),
        interface_index: u32::from_ne_bytes(field!(record, interface_index)),
        scope_is_cookie,
    };
    Ok(Decoded { segment, ring_lost: u64::from_ne_bytes(field!(record, ring_lost)) })
}

fn address(octets: [u8; 16], port: [u8; 2]) -> SocketAddr {
    let address = Ipv6Addr::from(octets);
    let address = address.to_ipv4_mapped().map_or(IpAddr::V6(address), IpAddr::V4);
    SocketAddr::new(address, u16::from_ne_bytes(port))
}

#[cfg(test)]
mod tests {
    use std::mem::offset_of;

    use super::*;

    fn record(payload: &[u8]) -> Vec<u8> {
        let mut record = vec![0; HEADER_LENGTH];
        let mut set =
            |offset: usize, bytes: &[u8]| record[offset..offset + bytes.len()].copy_from_slice(bytes);
        set(offset_of!(SegmentHeader, time_ns), &7_u64.to_ne_bytes());
        set(offset_of!(SegmentHeader, scope), &8_u64.to_ne_bytes());
        set(offset_of!(SegmentHeader, ring_lost), &9_u64.to_ne_bytes());
        set(
            offset_of!(SegmentHeader, local_address),
            &"::ffff:10.0.0.1".parse::<Ipv6Addr>().unwrap().octets(),
        );
        set(offset_of!(SegmentHeader, remote_address), &"fd00::2".parse::<Ipv6Addr>().unwrap().octets());
        set(offset_of!(SegmentHeader, local_port), &80_u16.to_ne_bytes());
        set(offset_of!(SegmentHeader, remote_port), &4000_u16.to_ne_bytes());
        set(offset_of!(SegmentHeader, sequence), &100_u32.to_ne_bytes());
        set(offset_of!(SegmentHeader, payload_length), &(payload.len() as u32).to_ne_bytes());
        set(offset_of!(SegmentHeader, captured_length), &(payload.len() as u32).to_ne_bytes());
        set(offset_of!(SegmentHeader, tcp_flags), &[0x18]);
        set(offset_of!(SegmentHeader, direction), &[DIRECTION_INGRESS]);
        set(offset_of!(SegmentHeader, marks), &[MARK_CONNECTION_LOST]);
        set(offset_of!(SegmentHeader, version), &[LAYOUT_VERSION]);
        record.extend_from_slice(payload);
        record
    }

    #[test]
    fn a_record_is_read_back() {
        let record = record(b"GET /");
        let decoded = decode(&record, true).unwrap();
        assert_eq!(decoded.ring_lost, 9);
        let segment = decoded.segment;
        assert_eq!(segment.payload, b"GET /");
        assert_eq!(segment.payload_length, 5);
        assert_eq!(segment.source, "[fd00::2]:4000".parse().unwrap());
        assert_eq!(segment.destination, "10.0.0.1:80".parse().unwrap());
        assert_eq!((segment.time.as_nanos(), segment.scope.0, segment.sequence), (7, 8, 100));
        assert!(segment.lost_before && segment.scope_is_cookie && segment.flags.ack());
    }

    #[test]
    fn a_record_cut_anywhere_is_short() {
        let record = record(b"GET /");
        for length in 0..record.len() {
            assert_eq!(decode(&record[..length], false), Err(DecodeError::Short), "cut at {length}");
        }
    }

    #[test]
    fn what_breaks_the_contract_is_refused() {
        let check = |offset: usize, bytes: &[u8], expected: DecodeError| {
            let mut record = record(b"GET /");
            record[offset..offset + bytes.len()].copy_from_slice(bytes);
            assert_eq!(decode(&record, false), Err(expected));
        };
        check(
            offset_of!(SegmentHeader, version),
            &[LAYOUT_VERSION + 1],
            DecodeError::Version(LAYOUT_VERSION + 1),
        );
        check(offset_of!(SegmentHeader, direction), &[2], DecodeError::Field);
        check(offset_of!(SegmentHeader, payload_length), &4_u32.to_ne_bytes(), DecodeError::Field);
        check(offset_of!(SegmentHeader, captured_length), &u32::MAX.to_ne_bytes(), DecodeError::Short);
    }
}
