//! Link layers by their number in capture files (tcpdump.org/linktypes.html): what follows the link-layer header.
//!
//! Numbers that operating systems use beside the registered ones are understood too.

use super::{
    Layer, Step, ethernet, serial,
    view::{Refusal, View},
    wireless::{self, Padding},
};

/// Attributes walked in a netfilter log message to the packet; the kernel puts fewer than 20 there
/// (include/uapi/linux/netfilter/nfnetlink_log.h).
pub const MAX_LOG_ATTRIBUTES: usize = 64;
/// Extension headers of one ERF record; cards write three at most.
pub const MAX_ENDACE_EXTENSIONS: usize = 16;

/// What follows the header of a link layer.
pub(super) fn step(link_type: u32, view: View<'_>) -> Result<Step<'_>, Refusal> {
    let to = |layer, length: usize| Ok(Step::new(layer, view.skip(length)?));
    match link_type {
        1 => to(Layer::Ethernet, 0),
        12 | 14 | 101 => to(Layer::Ip, 0),
        228 => to(Layer::Ipv4, 0),
        229 => to(Layer::Ipv6, 0),
        0 | 108 => loopback(view),
        113 => cooked(view),
        276 => cooked_2(view),
        13 | 109 => to(Layer::Ip, 12),
        17 | 117 => packet_filter(view),
        239 => netfilter_log(view),
        258 | 149 => pktap(view),
        // PPP: plain, in HDLC-like framing, after a direction byte, pppd's with a direction in place of the address.
        9 => to(Layer::Ppp, 0),
        50 => serial::hdlc(view),
        51 => to(Layer::Pppoe, 0),
        204 => to(Layer::Ppp, 1),
        166 => to(Layer::Ppp, if view.u8(1)? == 0x03 { 2 } else { 1 }),
        104 | 112 => serial::cisco_hdlc(view),
        205 => serial::cisco_hdlc(view.skip(1)?),
        107 => serial::frame_relay(view),
        206 => serial::frame_relay(view.skip(1)?),
        105 => wireless::frame(view, Padding::None),
        119 => wireless::prism(view),
        127 => wireless::radiotap(view),
        163 => wireless::avs(view),
        192 => wireless::per_packet_information(view),
        6 => token_ring(view),
        7 | 129 => arcnet(link_type, view),
        10 => fddi(view),
        11 | 19 | 100 | 106 => atm(view),
        123 => sun_atm(view),
        // IP over Fibre Channel (RFC 2625), over IEEE 1394, over InfiniBand after its global route header.
        122 => to(Layer::Llc, 16),
        138 => Ok(Step::new(Layer::EtherType(view.be16(16)?), view.skip(18)?)),
        242 => Ok(Step::new(Layer::EtherType(view.be16(40)?), view.skip(44)?)),
        99 => symantec_firewall(view),
        143 => docsis(view),
        197 => endace(view),
        219 => to(Layer::Mpls, 0),
        226 => to(Layer::Ip, 24),
        // netANALYZER, and the two kinds of preamble before an Ethernet frame.
        240 => to(Layer::Ethernet, 4),
        241 => to(Layer::Ethernet, 12),
        259 | 274 => to(Layer::Ethernet, 8),
        178..=181 => juniper(link_type, view),
        // Distributed switch architecture: a tag between the addresses and the type, or before the frame.
        281 | 284 => Ok(Step::new(Layer::EtherType(view.be16(16)?), view.skip(18)?)),
        282 => to(Layer::Ethernet, 4),
        285 => Ok(Step::new(Layer::EtherType(view.be16(20)?), view.skip(22)?)),
        other => Err(Refusal::Link(other)),
    }
}

/// BSD loopback: an address family in the byte order of the machine that captured, 2 everywhere for IPv4 and one of
/// several for IPv6. Some writers put an Ethernet type or a PPP frame there.
fn loopback(view: View<'_>) -> Result<Step<'_>, Refusal> {
    const PPP: [u8; 2] = [0xff, 0x03];
    const FAMILIES: [u32; 6] = [2, 10, 24, 26, 28, 30];
    let family: [u8; 4] = view.array(0)?;
    if family.starts_with(&PPP) {
        return Ok(Step::new(Layer::Ppp, view));
    }
    let rest = view.skip(4)?;
    let family = u32::from_be_bytes(family).min(u32::from_le_bytes(family));
    match u16::try_from(family) {
        Ok(_) if FAMILIES.contains(&family) => Ok(Step::new(Layer::Ip, rest)),
        Ok(kind) => Ok(Step::new(Layer::EtherType(kind), rest)),
        Err(_) => Err(Refusal::NotIp),
    }
}

/// Linux cooked capture: the hardware type says what the protocol field means.
fn cooked(view: View<'_>) -> Result<Step<'_>, Refusal> {
    cooked_payload(view.be16(2)?, view.be16(14)?, view.skip(16)?)
}

/// Linux cooked capture, version 2.
fn cooked_2(view: View<'_>) -> Result<Step<'_>, Refusal> {
    cooked_payload(view.be16(8)?, view.be16(0)?, view.skip(20)?)
}

fn cooked_payload(hardware: u16, protocol: u16, view: View<'_>) -> Result<Step<'_>, Refusal> {
    const FRAME_RELAY: u16 = 770;
    const IEEE_802_11: u16 = 801;
    const PRISM: u16 = 802;
    const RADIOTAP: u16 = 803;
    const NETLINK: u16 = 824;
    match (hardware, protocol) {
        (FRAME_RELAY, _) => Ok(Step::new(Layer::Link(107), view)),
        (IEEE_802_11, _) => Ok(Step::new(Layer::Link(105), view)),
        (PRISM, _) => Ok(Step::new(Layer::Link(119), view)),
        (RADIOTAP, _) => Ok(Step::new(Layer::Link(127), view)),
        (NETLINK, _) => Err(Refusal::NotIp),
        // ETH_P_802_3, ETH_P_ALL, ETH_P_802_2, ETH_P_PPP_MP and the like (include/uapi/linux/if_ether.h).
        (_, 0x0003) => Ok(Step::new(Layer::Ethernet, view)),
        (_, 0x0004) => Ok(Step::new(Layer::Llc, view)),
        (_, 0x0007) => Ok(Step::new(Layer::Ppp, view)),
        (_, 0x0000..=0x05ff) => Err(Refusal::NotIp),
        (_, kind) => Ok(Step::new(Layer::EtherType(kind), view)),
    }
}

/// OpenBSD's packet filter log: begins with its length without padding, then the address family.
fn packet_filter(view: View<'_>) -> Result<Step<'_>, Refusal> {
    const OLD_HEADER_BYTES: usize = 28;
    let length = usize::from(view.u8(0)?);
    if length == 0 {
        // The header before OpenBSD 3.4 begins with the family as a 32-bit number.
        return Ok(Step::new(Layer::Ip, view.skip(OLD_HEADER_BYTES)?));
    }
    Ok(Step::new(Layer::Ip, view.skip(length.next_multiple_of(4))?))
}

/// Linux netfilter log: attributes in the byte order of the machine that captured, one of them the packet.
fn netfilter_log(view: View<'_>) -> Result<Step<'_>, Refusal> {
    const HEADER_BYTES: usize = 4;
    const ATTRIBUTE_HEADER_BYTES: usize = 4;
    const PAYLOAD: [u8; 2] = [0, 9];
    let mut rest = view.skip(HEADER_BYTES)?;
    for _ in 0..MAX_LOG_ATTRIBUTES {
        let [length @ .., high, low] = rest.array::<ATTRIBUTE_HEADER_BYTES>(0)?;
        // Types are small numbers, so the byte order shows; kernels set the top bits for flags.
        let little = u16::from_le_bytes([high, low]) & 0x3fff < u16::from_be_bytes([high, low]) & 0x3fff;
        let (length, kind) = if little {
            (u16::from_le_bytes(length), [low, high])
        } else {
            (u16::from_be_bytes(length), [high, low])
        };
        let length = usize::from(length);
        if length < ATTRIBUTE_HEADER_BYTES {
            return Err(Refusal::Malformed);
        }
        if kind == PAYLOAD {
            return Ok(Step::new(Layer::Ip, rest.limit(length).skip(ATTRIBUTE_HEADER_BYTES)?));
        }
        rest = rest.skip(length.next_multiple_of(4))?;
    }
    Err(Refusal::Nesting)
}

/// Apple's pktap: a little-endian header that names its length and the link type that follows.
fn pktap(view: View<'_>) -> Result<Step<'_>, Refusal> {
    const MIN_HEADER_BYTES: usize = 12;
    let length = view.le32(0)? as usize;
    if length < MIN_HEADER_BYTES {
        return Err(Refusal::Malformed);
    }
    Ok(Step::new(Layer::Link(view.le32(8)?), view.skip(length)?))
}

/// IEEE 802.5: a set top bit of the source address says that a route follows, whose length is in its first byte.
fn token_ring(view: View<'_>) -> Result<Step<'_>, Refusal> {
    const LLC_FRAME: u8 = 0x40;
    if view.u8(1)? & 0xc0 != LLC_FRAME {
        return Err(Refusal::NotIp);
    }
    let routed = view.u8(8)? & 0x80 != 0;
    let rest = view.skip(14)?;
    let route = if routed { usize::from(rest.u8(0)? & 0x1f) } else { 0 };
    Ok(Step::new(Layer::Llc, rest.skip(route)?))
}

/// ARCNET as BSD (source, destination, type) and Linux (a 16-bit offset before the type) capture it.
fn arcnet(link_type: u32, view: View<'_>) -> Result<Step<'_>, Refusal> {
    const LINUX: u32 = 129;
    const IP_RFC_1051: u8 = 240;
    const IP_RFC_1201: u8 = 212;
    const EXCEPTION: u8 = 0xff;
    let rest = view.skip(if link_type == LINUX { 4 } else { 2 })?;
    match (rest.u8(0)?, link_type) {
        (IP_RFC_1051, _) => Ok(Step::new(Layer::Ip, rest.skip(1)?)),
        (IP_RFC_1201, _) => match rest.u8(1)? {
            0 => Ok(Step::new(Layer::Ip, rest.skip(4)?)),
            EXCEPTION => Ok(Step::new(Layer::Ip, rest.skip(8)?)),
            _ => Err(Refusal::LinkFragment),
        },
        _ => Err(Refusal::NotIp),
    }
}

/// FDDI: only asynchronous and synchronous LLC frames carry data.
fn fddi(view: View<'_>) -> Result<Step<'_>, Refusal> {
    match view.u8(0)? & 0x70 {
        0x50 => Ok(Step::new(Layer::Llc, view.skip(13)?)),
        _ => Err(Refusal::NotIp),
    }
}

/// ATM with RFC 2684 encapsulation, or IP without any.
fn atm(view: View<'_>) -> Result<Step<'_>, Refusal> {
    match view.u8(0)? >> 4 {
        4 | 6 => Ok(Step::new(Layer::Ip, view)),
        _ => Ok(Step::new(Layer::Llc, view)),
    }
}

/// SunATM: the kind of traffic, path and channel, then the frame.
fn sun_atm(view: View<'_>) -> Result<Step<'_>, Refusal> {
    match view.u8(0)? & 0x0f {
        2 => Ok(Step::new(Layer::Llc, view.skip(4)?)),
        _ => Err(Refusal::NotIp),
    }
}

/// Symantec Enterprise Firewall: two versions that differ in where the type is.
fn symantec_firewall(view: View<'_>) -> Result<Step<'_>, Refusal> {
    match view.be16(6)? {
        0 => Ok(Step::new(Layer::EtherType(view.be16(22)?), view.skip(56)?)),
        kind => Ok(Step::new(Layer::EtherType(kind), view.skip(44)?)),
    }
}

/// DOCSIS: a packet with Ethernet in it, without encryption.
fn docsis(view: View<'_>) -> Result<Step<'_>, Refusal> {
    const KIND_MASK: u8 = 0xfe;
    const EXTENDED: u8 = 0x01;
    let control = view.u8(0)?;
    if control & KIND_MASK != 0 {
        return Err(Refusal::NotIp);
    }
    let extended = if control & EXTENDED == 0 { 0 } else { usize::from(view.u8(1)?) };
    Ok(Step::new(Layer::Ethernet, view.skip(6 + extended)?))
}

/// Endace ERF records inside a capture file.
fn endace(view: View<'_>) -> Result<Step<'_>, Refusal> {
    const HEADER_BYTES: usize = 16;
    const EXTENSION_BYTES: usize = 8;
    const MORE_EXTENSIONS: u8 = 0x80;
    let kind = view.u8(8)?;
    let mut more = kind & MORE_EXTENSIONS != 0;
    let mut rest = view.skip(HEADER_BYTES)?;
    let mut extensions = 0;
    while more {
        extensions += 1;
        if extensions > MAX_ENDACE_EXTENSIONS {
            return Err(Refusal::Nesting);
        }
        more = rest.u8(0)? & MORE_EXTENSIONS != 0;
        rest = rest.skip(EXTENSION_BYTES)?;
    }
    match kind & 0x7f {
        1 | 10 | 14 => serial::hdlc(rest),
        2 | 11 | 16 => Ok(Step::new(Layer::Ethernet, rest.skip(2)?)),
        22 | 23 => Ok(Step::new(Layer::Ip, rest)),
        _ => Err(Refusal::NotIp),
    }
}

/// Juniper's capture header, where the frame of the named link layer follows it.
fn juniper(link_type: u32, view: View<'_>) -> Result<Step<'_>, Refusal> {
    const MAGIC: [u8; 3] = [b'M', b'G', b'C'];
    const EXTENSIONS: u8 = 0x80;
    const NO_LINK_HEADER: u8 = 0x02;
    let [m, g, c, flags] = view.array(0)?;
    if [m, g, c] != MAGIC {
        return Err(Refusal::Malformed);
    }
    let mut rest = view.skip(4)?;
    if flags & EXTENSIONS != 0 {
        rest = rest.skip(2 + usize::from(rest.be16(0)?))?;
    }
    if flags & NO_LINK_HEADER != 0 {
        // A protocol number of Juniper's own in four bytes, then the packet.
        return Ok(Step::new(Layer::Ip, rest.skip(4)?));
    }
    match link_type {
        178 => Ok(Step::new(Layer::Ethernet, rest)),
        179 => Ok(Step::new(Layer::Ppp, rest)),
        180 => serial::frame_relay(rest),
        _ => serial::cisco_hdlc(rest),
    }
}

/// The frame of an aggregate's subframe.
pub(super) fn subframe(view: View<'_>) -> Step<'_> {
    let layer = if ethernet::is_ethernet(view) { Layer::Ethernet } else { Layer::Llc };
    Step::new(layer, view)
}
