//! The TCP header (RFC 9293 3.1). Options are stepped over; the checksum is `checksum`'s.

use super::view::{Refusal, View};
use crate::capture::TcpFlags;

/// Bytes of a header without options.
const HEADER_BYTES: usize = 20;
/// Bytes up to the flags: what a capture with a short snap length still has. Window, checksum and urgent pointer say
/// nothing here.
const NEEDED_BYTES: usize = 14;

/// What a segment's header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header<'a> {
    pub(super) source_port: u16,
    pub(super) destination_port: u16,
    pub(super) sequence: u32,
    pub(super) acknowledgement: u32,
    pub(super) flags: TcpFlags,
    pub(super) payload: View<'a>,
}

/// Reads the header at the start of `view`, which ends where the IP datagram ends.
pub(super) fn header(view: View<'_>) -> Result<Header<'_>, Refusal> {
    let needed: [u8; NEEDED_BYTES] = view.array(0)?;
    let [s0, s1, d0, d1, q0, q1, q2, q3, a0, a1, a2, a3, offset, flags] = needed;
    let header_bytes = usize::from(offset >> 4) * 4;
    if header_bytes < HEADER_BYTES {
        return Err(Refusal::Malformed);
    }
    Ok(Header {
        source_port: u16::from_be_bytes([s0, s1]),
        destination_port: u16::from_be_bytes([d0, d1]),
        sequence: u32::from_be_bytes([q0, q1, q2, q3]),
        acknowledgement: u32::from_be_bytes([a0, a1, a2, a3]),
        flags: TcpFlags(flags),
        // A capture may end inside the options: the length of the payload is known all the same.
        payload: view.skip_cut(header_bytes)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segment(words: u8, length: usize) -> Vec<u8> {
        let mut bytes = vec![0x9c, 0x40, 0, 80, 0, 0, 0, 7, 0, 0, 0, 9, words << 4, 0x18];
        bytes.resize(length, 0);
        bytes
    }

    #[test]
    fn fields_are_read() {
        let bytes = segment(5, 23);
        let header = header(View::new(&bytes, 23)).expect("a header");
        assert_eq!((header.source_port, header.destination_port), (40_000, 80));
        assert_eq!((header.sequence, header.acknowledgement, header.flags.0), (7, 9, 0x18));
        assert_eq!((header.payload.bytes().len(), header.payload.wire()), (3, 3));
    }

    #[test]
    fn header_length_is_checked() {
        let check = |words, captured: usize, wire, expected: Result<(usize, usize), Refusal>| {
            let bytes = segment(words, captured);
            let payload = header(View::new(&bytes, wire)).map(|header| header.payload);
            let lengths = payload.map(|payload| (payload.bytes().len(), payload.wire()));
            assert_eq!(lengths, expected, "{words} words, {captured} of {wire} bytes");
        };
        check(4, 30, 30, Err(Refusal::Malformed));
        check(5, 20, 20, Ok((0, 0)));
        check(5, 19, 19, Err(Refusal::Malformed));
        check(5, 13, 20, Err(Refusal::Truncated));
        check(5, 14, 25, Ok((0, 5)));
        check(15, 60, 64, Ok((0, 4)));
        check(15, 59, 59, Err(Refusal::Malformed));
        // Cut inside the options: the payload's length is known all the same.
        check(15, 40, 64, Ok((0, 4)));
    }
}
