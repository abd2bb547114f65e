//! The TCP header (RFC 9293 3.1). Options are stepped over, the checksum is not looked at.

use super::view::{Refusal, View};
use crate::capture::TcpFlags;

/// Bytes of a header without options.
const HEADER_BYTES: usize = 20;

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
    let fixed: [u8; HEADER_BYTES] = view.array(0)?;
    let [s0, s1, d0, d1, q0, q1, q2, q3, a0, a1, a2, a3, offset, flags, ..] = fixed;
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
