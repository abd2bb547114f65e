//! Link layers by their number in capture files (tcpdump.org/linktypes.html): what follows the link-layer header.

use super::{
    Layer, Step,
    view::{Refusal, View},
};

const LINK_NULL: u32 = 0;
const LINK_ETHERNET: u32 = 1;
const LINK_RAW_BSD: u32 = 12;
const LINK_RAW_OPENBSD: u32 = 14;
const LINK_RAW: u32 = 101;
const LINK_LOOP: u32 = 108;
const LINK_SLL: u32 = 113;
const LINK_IPV4: u32 = 228;
const LINK_IPV6: u32 = 229;
const LINK_SLL2: u32 = 276;

const ETHER_TYPE_IPV4: u16 = 0x0800;
const ETHER_TYPE_IPV6: u16 = 0x86dd;

/// What follows the header of a link layer.
pub(super) fn step(link_type: u32, view: View<'_>) -> Result<Step<'_>, Refusal> {
    match link_type {
        LINK_ETHERNET => Ok(Step::new(Layer::EtherType(view.be16(12)?), view.skip(14)?)),
        LINK_SLL => Ok(Step::new(Layer::EtherType(view.be16(14)?), view.skip(16)?)),
        LINK_SLL2 => Ok(Step::new(Layer::EtherType(view.be16(0)?), view.skip(20)?)),
        LINK_NULL | LINK_LOOP => Ok(Step::new(Layer::Ip, view.skip(4)?)),
        LINK_RAW_BSD | LINK_RAW_OPENBSD | LINK_RAW => Ok(Step::new(Layer::Ip, view)),
        LINK_IPV4 => Ok(Step::new(Layer::Ipv4, view)),
        LINK_IPV6 => Ok(Step::new(Layer::Ipv6, view)),
        other => Err(Refusal::Link(other)),
    }
}

/// What an Ethernet type names.
pub(super) fn ether_type(ether_type: u16, view: View<'_>) -> Result<Step<'_>, Refusal> {
    match ether_type {
        // The version is read again: a type that lies is not an IP packet.
        ETHER_TYPE_IPV4 | ETHER_TYPE_IPV6 => Ok(Step::new(Layer::Ip, view)),
        0x8100 | 0x88a8 | 0x9100 | 0x9200 => Ok(Step::new(Layer::EtherType(view.be16(2)?), view.skip(4)?)),
        _ => Err(Refusal::NotIp),
    }
}
