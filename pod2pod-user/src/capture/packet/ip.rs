//! IPv4 (RFC 791) and IPv6 (RFC 8200) headers with extension headers: which protocol follows, and where it ends.
//!
//! Checksums are not looked at.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::{
    Layer, Step,
    view::{Refusal, View},
};

const PROTOCOL_HOP_BY_HOP: u8 = 0;
const PROTOCOL_IPV4: u8 = 4;
const PROTOCOL_TCP: u8 = 6;
const PROTOCOL_IPV6: u8 = 41;
const PROTOCOL_ROUTING: u8 = 43;
const PROTOCOL_FRAGMENT: u8 = 44;
const PROTOCOL_AUTHENTICATION: u8 = 51;
const PROTOCOL_DESTINATION: u8 = 60;

const IPV4_HEADER_BYTES: usize = 20;
const IPV6_HEADER_BYTES: usize = 40;

/// Source and destination of an IP header; IPv4-mapped addresses as IPv4.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Addresses {
    pub(super) source: IpAddr,
    pub(super) destination: IpAddr,
}

impl Addresses {
    fn v4(source: [u8; 4], destination: [u8; 4]) -> Self {
        Self { source: Ipv4Addr::from(source).into(), destination: Ipv4Addr::from(destination).into() }
    }

    fn v6(source: [u8; 16], destination: [u8; 16]) -> Self {
        Self {
            source: Ipv6Addr::from(source).to_canonical(),
            destination: Ipv6Addr::from(destination).to_canonical(),
        }
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

/// What follows an IPv4 header.
pub(super) fn v4(view: View<'_>) -> Result<Step<'_>, Refusal> {
    let fixed: [u8; IPV4_HEADER_BYTES] = view.array(0)?;
    let [version, _, length0, length1, _, _, offset0, offset1, _, protocol, ..] = fixed;
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
    if u16::from_be_bytes([offset0, offset1]) & 0x3fff != 0 {
        return Err(Refusal::Fragment);
    }
    let addresses = Addresses::v4(view.array(12)?, view.array(16)?);
    transport(protocol, addresses, view.limit(total).skip(header_bytes)?)
}

/// What follows an IPv6 header and its extension headers.
pub(super) fn v6(view: View<'_>) -> Result<Step<'_>, Refusal> {
    let addresses = Addresses::v6(view.array(8)?, view.array(24)?);
    if view.u8(0)? >> 4 != 6 {
        return Err(Refusal::Malformed);
    }
    let mut protocol = view.u8(6)?;
    let mut rest = view.skip(IPV6_HEADER_BYTES)?;
    let payload = usize::from(view.be16(4)?);
    if payload != 0 {
        rest = rest.limit(payload);
    }
    loop {
        let length = match protocol {
            PROTOCOL_HOP_BY_HOP | PROTOCOL_ROUTING | PROTOCOL_DESTINATION => {
                (usize::from(rest.u8(1)?) + 1) * 8
            }
            PROTOCOL_FRAGMENT => return Err(Refusal::Fragment),
            _ => return transport(protocol, addresses, rest),
        };
        protocol = rest.u8(0)?;
        rest = rest.skip(length)?;
    }
}

fn transport(protocol: u8, addresses: Addresses, view: View<'_>) -> Result<Step<'_>, Refusal> {
    match protocol {
        PROTOCOL_TCP => Ok(Step::new(Layer::Tcp(addresses), view)),
        PROTOCOL_IPV4 => Ok(Step::new(Layer::Ipv4, view)),
        PROTOCOL_IPV6 => Ok(Step::new(Layer::Ipv6, view)),
        PROTOCOL_AUTHENTICATION => {
            let length = (usize::from(view.u8(1)?) + 2) * 4;
            transport(view.u8(0)?, addresses, view.skip(length)?)
        }
        _ => Err(Refusal::NotTcp),
    }
}
