//! Into a VXLAN or Geneve packet: overlays between nodes put the pods' packets into UDP. For traffic-control hooks only: a
//! socket's hook never sees the outside.
//!
//! One level, as the replay decoder opens it. What contradicts itself is no tunnel but some other datagram.

use aya_ebpf::programs::SkBuffContext;
use pod2pod_common::{blur, counters::Counter};

use crate::{count::Counters, headers::MAX_NETWORK_OFFSET, link};

const PROTOCOL_UDP: u8 = 17;
const IPV4_FRAGMENT: u16 = 0x3fff;
const IPV6_HEADER: u32 = 40;
const UDP_HEADER: u32 = 8;
/// Of both tunnels, without options.
const TUNNEL_HEADER: u32 = 8;
/// IANA's port, and Linux's own (drivers/net/vxlan).
const VXLAN_PORTS: [u16; 2] = [4789, 8472];
/// RFC 8926 3.3.
const GENEVE_PORT: u16 = 6081;
/// RFC 7348 5: the identifier is valid.
const VXLAN_VALID: u8 = 0x08;
/// RFC 8926 3.4: a frame of Geneve's own control.
const GENEVE_CONTROL: u8 = 0x80;
/// Transparent Ethernet bridging.
const TYPE_ETHERNET: u16 = 0x6558;

/// The network header that counts: the inner one of a tunnel, or the one at `offset`.
#[inline(always)]
pub(crate) fn innermost(context: &SkBuffContext, offset: u32, counters: Counters) -> Result<u32, Counter> {
    let Some(carried) = carried(context, offset) else { return Ok(offset) };
    counters.bump(Counter::TunnelPackets);
    let inner = match carried {
        Carried::Frame(frame) => link::behind_ethernet(context, frame)?,
        Carried::Packet(packet) => packet,
    };
    // Different ways lead here, and every number behind comes from the offset.
    Ok(blur::number(inner) & MAX_NETWORK_OFFSET)
}

/// What a tunnel carries, and where it is in the packet.
enum Carried {
    Frame(u32),
    Packet(u32),
}

#[inline(always)]
fn carried(context: &SkBuffContext, offset: u32) -> Option<Carried> {
    let network: [u8; 20] = context.load(offset as usize).ok()?;
    let udp = match network[0] >> 4 {
        4 if network[9] == PROTOCOL_UDP
            && u16::from_be_bytes([network[6], network[7]]) & IPV4_FRAGMENT == 0 =>
        {
            offset + u32::from(network[0] & 0x0f) * 4
        }
        6 if network[6] == PROTOCOL_UDP => offset + IPV6_HEADER,
        _ => return None,
    };
    let udp = blur::number(udp) & 0xffff;
    let ports: [u8; 4] = context.load(udp as usize).ok()?;
    let header: [u8; 4] = context.load((udp + UDP_HEADER) as usize).ok()?;
    let carried = udp + UDP_HEADER + TUNNEL_HEADER;
    let port = u16::from_be_bytes([ports[2], ports[3]]);
    if VXLAN_PORTS.contains(&port) {
        return if header[0] & VXLAN_VALID != 0 { Some(Carried::Frame(carried)) } else { None };
    }
    if port != GENEVE_PORT || header[0] >> 6 != 0 || header[1] & GENEVE_CONTROL != 0 {
        return None;
    }
    let carried = carried + u32::from(header[0] & 0x3f) * 4;
    match u16::from_be_bytes([header[2], header[3]]) {
        TYPE_ETHERNET => Some(Carried::Frame(carried)),
        kind if link::is_ip(kind.to_be()) => Some(Carried::Packet(carried)),
        _ => None,
    }
}
