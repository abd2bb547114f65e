//! IPv4 (RFC 791) and IPv6 (RFC 8200) headers with extension headers: which protocol follows, and where it ends.
//!
//! Checksums are not looked at, options mean nothing here, and encrypted payloads stay closed.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::{
    Layer, Step,
    fragments::{Fragment, Key},
    icmp, tunnel,
    view::{Refusal, View},
};

const IPV4_HEADER_BYTES: usize = 20;
const IPV6_HEADER_BYTES: usize = 40;

/// Source and destination of an IP header; IPv4-mapped addresses as IPv4.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Addresses {
    pub(super) source: IpAddr,
    pub(super) destination: IpAddr,
}

impl Addresses {
    pub(super) fn v4(source: [u8; 4], destination: [u8; 4]) -> Self {
        Self { source: Ipv4Addr::from(source).into(), destination: Ipv4Addr::from(destination).into() }
    }

    pub(super) fn v6(source: [u8; 16], destination: [u8; 16]) -> Self {
        Self {
            source: Ipv6Addr::from(source).to_canonical(),
            destination: Ipv6Addr::from(destination).to_canonical(),
        }
    }

    const fn key(self) -> Key {
        Key { source: self.source, destination: self.destination, identification: 0, protocol: 0 }
    }

    /// Both ends of a connection.
    pub(super) const fn with_ports(self, source: u16, destination: u16) -> (SocketAddr, SocketAddr) {
        (SocketAddr::new(self.source, source), SocketAddr::new(self.destination, destination))
    }
}

/// Which IP version begins.
pub(super) fn version(view: View<'_>) -> Result<Layer, Refusal> {
    match view.u8(0)? >> 4 {
        4 => Ok(Layer::Ipv4),
        6 => Ok(Layer::Ipv6),
        _ => Err(Refusal::NotIp),
    }
}

/// What an IP header leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next<'a> {
    Step(Step<'a>),
    Fragment(Fragment<'a>),
}

/// What follows an IPv4 header.
pub(super) fn v4(view: View<'_>) -> Result<Next<'_>, Refusal> {
    const MORE_FRAGMENTS: u16 = 0x2000;
    const OFFSET: u16 = 0x1fff;
    let fixed: [u8; IPV4_HEADER_BYTES] = view.array(0)?;
    let [version, _, length0, length1, id0, id1, offset0, offset1, _, protocol, ..] = fixed;
    let header_bytes = usize::from(version & 0x0f) * 4;
    if version >> 4 != 4 || header_bytes < IPV4_HEADER_BYTES {
        return Err(Refusal::Malformed);
    }
    // Zero is what a sender with segmentation offload leaves for the hardware: the frame's length counts.
    let total = match usize::from(u16::from_be_bytes([length0, length1])) {
        0 => view.wire(),
        total if total < header_bytes => return Err(Refusal::Malformed),
        total => total,
    };
    let addresses = Addresses::v4(view.array(12)?, view.array(16)?);
    let payload = view.limit(total).skip(header_bytes)?;
    let offset = u16::from_be_bytes([offset0, offset1]);
    if offset & (MORE_FRAGMENTS | OFFSET) == 0 {
        return Ok(Next::Step(Step::new(Layer::Protocol(protocol, addresses), payload)));
    }
    let identification = u16::from_be_bytes([id0, id1]).into();
    let key = Key { identification, protocol, ..addresses.key() };
    if total > view.wire() {
        // The frame ends before its fragment does: what is missing would be taken for complete.
        return cut_fragment(payload, key, protocol, offset & OFFSET);
    }
    fragment(payload, key, protocol, offset & OFFSET, offset & MORE_FRAGMENTS != 0)
}

/// What follows an IPv6 header.
pub(super) fn v6(view: View<'_>) -> Result<Next<'_>, Refusal> {
    let addresses = Addresses::v6(view.array(8)?, view.array(24)?);
    if view.u8(0)? >> 4 != 6 {
        return Err(Refusal::Malformed);
    }
    let protocol = view.u8(6)?;
    let rest = view.skip(IPV6_HEADER_BYTES)?;
    // Zero: a jumbogram (RFC 2675), or segmentation offload as in IPv4.
    let payload = match usize::from(view.be16(4)?) {
        0 => rest,
        length => rest.limit(length),
    };
    Ok(Next::Step(Step::new(Layer::Protocol(protocol, addresses), payload)))
}

/// What follows in an IP packet: extension headers are stepped over, tunnels opened.
pub(super) fn protocol(protocol: u8, addresses: Addresses, view: View<'_>) -> Result<Next<'_>, Refusal> {
    let step = |layer, view| Ok(Next::Step(Step::new(layer, view)));
    match protocol {
        6 => step(Layer::Tcp(addresses), view),
        17 => tunnel::udp(view).map(Next::Step),
        4 | 94 => step(Layer::Ipv4, view),
        41 => step(Layer::Ipv6, view),
        47 => tunnel::gre(view).map(Next::Step),
        115 => tunnel::l2tp_3(view).map(Next::Step),
        // EtherIP (RFC 3378), MPLS (RFC 4023), Ethernet (RFC 8986).
        97 if view.u8(0)? >> 4 == 3 => step(Layer::Ethernet, view.skip(2)?),
        137 => step(Layer::Mpls, view),
        143 => step(Layer::Ethernet, view),
        // Hop-by-hop, routing, destination, mobility, HIP, Shim6: length in eights, the first not counted (RFC 6564).
        0 | 43 | 60 | 135 | 139 | 140 => {
            let length = (usize::from(view.u8(1)?) + 1) * 8;
            step(Layer::Protocol(view.u8(0)?, addresses), view.skip(length)?)
        }
        // Authentication header: length in fours, two not counted (RFC 4302 2.2).
        51 => {
            let length = (usize::from(view.u8(1)?) + 2) * 4;
            step(Layer::Protocol(view.u8(0)?, addresses), view.skip(length)?)
        }
        44 => v6_fragment(addresses, view),
        1 => icmp::v4(view),
        58 => icmp::v6(view),
        50 => Err(Refusal::Encrypted),
        _ => Err(Refusal::NotTcp),
    }
}

/// The fragment header (RFC 8200 4.5). An atomic fragment (RFC 6946) is a whole datagram.
fn v6_fragment(addresses: Addresses, view: View<'_>) -> Result<Next<'_>, Refusal> {
    const HEADER_BYTES: usize = 8;
    const MORE_FRAGMENTS: u16 = 0x0001;
    let next = view.u8(0)?;
    let offset = view.be16(2)?;
    let identification = view.be32(4)?;
    let payload = view.skip(HEADER_BYTES)?;
    if offset & !0x0006 == 0 {
        return Ok(Next::Step(Step::new(Layer::Protocol(next, addresses), payload)));
    }
    let key = Key { identification, ..addresses.key() };
    fragment(payload, key, next, offset >> 3, offset & MORE_FRAGMENTS != 0)
}

fn fragment(payload: View<'_>, key: Key, protocol: u8, offset: u16, more: bool) -> Result<Next<'_>, Refusal> {
    if !payload.is_whole() {
        return cut_fragment(payload, key, protocol, offset);
    }
    let offset = usize::from(offset) * 8;
    Ok(Next::Fragment(Fragment { key, protocol, offset, more, bytes: payload.bytes() }))
}

/// A fragment that cannot be put together with others; the first one still has the TCP header.
fn cut_fragment(payload: View<'_>, key: Key, protocol: u8, offset: u16) -> Result<Next<'_>, Refusal> {
    let addresses = Addresses { source: key.source, destination: key.destination };
    match offset {
        0 => Ok(Next::Step(Step::new(Layer::Protocol(protocol, addresses), payload))),
        _ => Err(Refusal::CutFragment),
    }
}
