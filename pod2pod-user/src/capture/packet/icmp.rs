//! ICMP errors (RFC 792, RFC 4443): which SYN could not be delivered, and why.
//!
//! Only destination unreachable and time exceeded, and only about a SYN. What was quoted is walked no further than its TCP
//! header, extension headers and tunnels in it not at all. Checksums are not looked at: whoever forges an error computes one.

use pod2pod_common::segment::{TCP_ACK, TCP_SYN};

use super::{
    Layer, Step,
    ip::{Addresses, Next},
    view::{Refusal, View},
};
use crate::capture::Unreachable;

/// Type, code, checksum, and four bytes that depend on them.
const HEADER_BYTES: usize = 8;
const IPV6_HEADER_BYTES: usize = 40;
const TCP: u8 = 6;
/// Destination unreachable and time exceeded.
const ERRORS: [u8; 2] = [3, 11];
/// The same of ICMPv6.
const ERRORS_V6: [u8; 2] = [1, 3];
/// Fragmentation needed (RFC 1191): a SYN goes again, smaller.
const FRAGMENTATION_NEEDED: u8 = 4;
/// Where flags are in a TCP header.
const FLAGS_AT: usize = 13;

/// A SYN that an error quotes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Quoted {
    pub(super) addresses: Addresses,
    pub(super) source_port: u16,
    pub(super) destination_port: u16,
    pub(super) sequence: u32,
    pub(super) error: Unreachable,
}

/// An ICMP message.
pub(super) fn v4(view: View<'_>) -> Result<Next<'_>, Refusal> {
    const FRAGMENT_OFFSET: u16 = 0x1fff;
    let error = Unreachable { kind: view.u8(0)?, code: view.u8(1)?, by_this_kernel: false };
    if !ERRORS.contains(&error.kind) || error.kind == ERRORS[0] && error.code == FRAGMENTATION_NEEDED {
        return Err(Refusal::NotTcp);
    }
    let inner = view.skip(HEADER_BYTES)?;
    let header_bytes = usize::from(inner.u8(0)? & 0x0f) * 4;
    if inner.u8(9)? != TCP || inner.be16(6)? & FRAGMENT_OFFSET != 0 {
        return Err(Refusal::NotTcp);
    }
    quoted(view, Addresses::v4(inner.array(12)?, inner.array(16)?), inner.skip(header_bytes)?, error)
}

/// An ICMPv6 message.
pub(super) fn v6(view: View<'_>) -> Result<Next<'_>, Refusal> {
    let error = Unreachable { kind: view.u8(0)?, code: view.u8(1)?, by_this_kernel: false };
    if !ERRORS_V6.contains(&error.kind) {
        return Err(Refusal::NotTcp);
    }
    let inner = view.skip(HEADER_BYTES)?;
    if inner.u8(6)? != TCP {
        return Err(Refusal::NotTcp);
    }
    quoted(view, Addresses::v6(inner.array(8)?, inner.array(24)?), inner.skip(IPV6_HEADER_BYTES)?, error)
}

fn quoted<'a>(
    message: View<'a>,
    addresses: Addresses,
    tcp: View<'a>,
    error: Unreachable,
) -> Result<Next<'a>, Refusal> {
    // Some routers quote no more than eight bytes (RFC 792): then the sequence number must do.
    if let Ok(flags) = tcp.u8(FLAGS_AT)
        && flags & (TCP_SYN | TCP_ACK) != TCP_SYN
    {
        return Err(Refusal::NotTcp);
    }
    let (source_port, destination_port) = (tcp.be16(0)?, tcp.be16(2)?);
    let quoted = Quoted { addresses, source_port, destination_port, sequence: tcp.be32(4)?, error };
    Ok(Next::Step(Step::new(Layer::Quoted(quoted), message)))
}
