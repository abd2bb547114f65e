//! Tunnels inside IP: GRE and what it carries, and those over UDP, known by port and by a header that agrees.
//!
//! Conservative: a header that contradicts itself is no tunnel but some other datagram.

use super::{
    Layer, Step, ethernet,
    view::{Refusal, View},
    wireless,
};

/// Source route entries of one GRE header (RFC 1701 2), the empty one that ends them included. Nobody sends them any more.
pub const MAX_SOURCE_ROUTES: usize = 16;
/// Extension headers of one GTP-U packet; 3GPP TS 29.281 5.2 defines fewer kinds.
pub const MAX_GTP_EXTENSIONS: usize = 8;
/// Tags of one TZSP packet, padding and the end tag included. Sniffers send fewer than ten.
pub const MAX_TZSP_TAGS: usize = 64;

const TYPE_IPV4: u16 = 0x0800;
const TYPE_ETHERNET: u16 = 0x6558;

/// GRE (RFC 2784, RFC 2890) and its version 1 for PPTP (RFC 2637).
pub(super) fn gre(view: View<'_>) -> Result<Step<'_>, Refusal> {
    const CHECKSUM: u16 = 0x8000;
    const ROUTING: u16 = 0x4000;
    const KEY: u16 = 0x2000;
    const SEQUENCE: u16 = 0x1000;
    const ACKNOWLEDGEMENT: u16 = 0x0080;
    const VERSION: u16 = 0x0007;
    const ERSPAN: u16 = 0x88be;
    const ERSPAN_3: u16 = 0x22eb;
    const WCCP: u16 = 0x883e;
    const FRAME_RELAY: u16 = 0x6559;
    let flags = view.be16(0)?;
    let kind = view.be16(2)?;
    let mut length = 4;
    for (present, bytes) in [(CHECKSUM | ROUTING, 4), (KEY, 4), (SEQUENCE, 4)] {
        length += if flags & present == 0 { 0 } else { bytes };
    }
    match flags & VERSION {
        0 => {}
        1 => length += if flags & ACKNOWLEDGEMENT == 0 { 0 } else { 4 },
        _ => return Err(Refusal::NotTcp),
    }
    let mut rest = view.skip(length)?;
    if flags & ROUTING != 0 {
        rest = source_routes(rest)?;
    }
    match kind {
        ERSPAN if flags & SEQUENCE == 0 => Ok(Step::new(Layer::Ethernet, rest)),
        ERSPAN => Ok(Step::new(Layer::Ethernet, rest.skip(8)?)),
        ERSPAN_3 => erspan_3(rest),
        // Version 2 of the redirection protocol puts four bytes before the packet.
        WCCP if rest.u8(0)? >> 4 == 4 => Ok(Step::new(Layer::Ipv4, rest)),
        WCCP => Ok(Step::new(Layer::Ip, rest.skip(4)?)),
        FRAME_RELAY => Ok(Step::new(Layer::Link(107), rest)),
        kind => ethernet::ether_type(kind, rest),
    }
}

/// Source route entries (RFC 1701 2): family, offset and length each; the last one is all zero.
fn source_routes(mut view: View<'_>) -> Result<View<'_>, Refusal> {
    for _ in 0..MAX_SOURCE_ROUTES {
        let [family0, family1, _, length] = view.array(0)?;
        view = view.skip(4 + usize::from(length))?;
        if [family0, family1, length] == [0; 3] {
            return Ok(view);
        }
    }
    Err(Refusal::Nesting)
}

/// ERSPAN type III (draft-foschiano-erspan 4.3): the frame type says what was mirrored.
fn erspan_3(view: View<'_>) -> Result<Step<'_>, Refusal> {
    const PLATFORM_HEADER: u16 = 0x0001;
    let last = view.be16(10)?;
    let rest = view.skip(if last & PLATFORM_HEADER == 0 { 12 } else { 20 })?;
    match last >> 10 & 0x1f {
        0 => Ok(Step::new(Layer::Ethernet, rest)),
        2 => Ok(Step::new(Layer::Ip, rest)),
        _ => Err(Refusal::NotIp),
    }
}

/// UDP (RFC 768): a tunnel if either port is that of one.
pub(super) fn udp(view: View<'_>) -> Result<Step<'_>, Refusal> {
    let [a, b, c, d, ..] = view.array::<8>(0)?;
    let (source, destination) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
    let open = opener(destination).or_else(|| opener(source)).ok_or(Refusal::NotTcp)?;
    let length = usize::from(view.be16(4)?);
    let payload = if length < 8 { view } else { view.limit(length) };
    open(payload.skip(8)?).map_err(|refusal| {
        let other_datagram = matches!(refusal, Refusal::Malformed | Refusal::NotIp);
        if other_datagram { Refusal::NotTcp } else { refusal }
    })
}

type Open = fn(View<'_>) -> Result<Step<'_>, Refusal>;

/// Who opens datagrams of a port (IANA's assignments; 8472 is Linux's port for VXLAN).
fn opener(port: u16) -> Option<Open> {
    match port {
        1701 => Some(l2tp),
        2152 => Some(gtp_user),
        3544 => Some(teredo),
        4341 => Some(lisp),
        4754 => Some(gre),
        4789 | 8472 => Some(vxlan),
        4790 => Some(vxlan_gpe),
        5072 => Some(ayiya),
        5247 => Some(capwap),
        6081 => Some(geneve),
        6635 => Some(ethernet::mpls),
        37_008 => Some(tzsp),
        _ => None,
    }
}

/// VXLAN (RFC 7348 5). The bit that says that the identifier is valid must be set; some senders forget it, so a frame
/// that looks like one will do.
fn vxlan(view: View<'_>) -> Result<Step<'_>, Refusal> {
    const VALID: u8 = 0x08;
    let frame = view.skip(8)?;
    if (view.u8(0)? & VALID == 0 || view.u8(7)? != 0) && !ethernet::is_ethernet(frame) {
        return Err(Refusal::NotTcp);
    }
    Ok(Step::new(Layer::Ethernet, frame))
}

/// VXLAN with a next-protocol field (draft-ietf-nvo3-vxlan-gpe).
fn vxlan_gpe(view: View<'_>) -> Result<Step<'_>, Refusal> {
    const VALID: u8 = 0x08;
    const NEXT_PROTOCOL: u8 = 0x04;
    match view.u8(0)? & (VALID | NEXT_PROTOCOL) {
        0x0c => ethernet::next_protocol(view.u8(3)?, view.skip(8)?),
        VALID => Ok(Step::new(Layer::Ethernet, view.skip(8)?)),
        _ => Err(Refusal::NotTcp),
    }
}

/// Geneve (RFC 8926 3.4), version 0; frames of its own control are left alone.
fn geneve(view: View<'_>) -> Result<Step<'_>, Refusal> {
    const CONTROL: u8 = 0x80;
    let [first, flags] = view.array(0)?;
    if first >> 6 != 0 || flags & CONTROL != 0 {
        return Err(Refusal::NotTcp);
    }
    let options = usize::from(first & 0x3f) * 4;
    match view.be16(2)? {
        TYPE_ETHERNET => Ok(Step::new(Layer::Ethernet, view.skip(8 + options)?)),
        kind if kind >= TYPE_IPV4 => ethernet::ether_type(kind, view.skip(8 + options)?),
        _ => Err(Refusal::NotTcp),
    }
}

/// GTP-U (3GPP TS 29.281 5.1): a user packet and its extension headers.
fn gtp_user(view: View<'_>) -> Result<Step<'_>, Refusal> {
    const VERSION_1: u8 = 0x30;
    const USER_PACKET: u8 = 0xff;
    let [flags, message] = view.array(0)?;
    if flags & 0xf0 != VERSION_1 || message != USER_PACKET {
        return Err(Refusal::NotTcp);
    }
    let mut rest = view.skip(8)?.limit(view.be16(2)?.into());
    if flags & 0x07 != 0 {
        let mut next = rest.u8(3)?;
        rest = rest.skip(4)?;
        let mut extensions = 0;
        while flags & 0x04 != 0 && next != 0 {
            extensions += 1;
            if extensions > MAX_GTP_EXTENSIONS {
                return Err(Refusal::Nesting);
            }
            let length = usize::from(rest.u8(0)?) * 4;
            next = rest.u8(length.checked_sub(1).ok_or(Refusal::Malformed)?)?;
            rest = rest.skip(length)?;
        }
    }
    match rest.u8(0)? >> 4 {
        4 | 6 => Ok(Step::new(Layer::Ip, rest)),
        _ => Ok(Step::new(Layer::Ppp, rest)),
    }
}

/// Teredo (RFC 4380 5.1.1): authentication and origin indications, then an IPv6 packet.
fn teredo(view: View<'_>) -> Result<Step<'_>, Refusal> {
    const AUTHENTICATION: [u8; 2] = [0, 1];
    const ORIGIN: [u8; 2] = [0, 0];
    let mut rest = view;
    if rest.array(0) == Ok(AUTHENTICATION) {
        let [identifier, value] = rest.array(2)?;
        rest = rest.skip(13 + usize::from(identifier) + usize::from(value))?;
    }
    if rest.array(0) == Ok(ORIGIN) {
        rest = rest.skip(8)?;
    }
    match rest.u8(0)? >> 4 {
        6 => Ok(Step::new(Layer::Ipv6, rest)),
        _ => Err(Refusal::NotTcp),
    }
}

/// L2TP (RFC 2661 3.1): data messages of version 2 carry PPP.
fn l2tp(view: View<'_>) -> Result<Step<'_>, Refusal> {
    const CONTROL: u16 = 0x8000;
    const LENGTH: u16 = 0x4000;
    const SEQUENCE: u16 = 0x0800;
    const OFFSET: u16 = 0x0200;
    const VERSION: u16 = 0x000f;
    let flags = view.be16(0)?;
    match flags & VERSION {
        _ if flags & CONTROL != 0 => return Err(Refusal::NotTcp),
        2 => {}
        3 => return l2tp_3(view.skip(4)?),
        _ => return Err(Refusal::NotTcp),
    }
    let mut rest = view.skip(2)?;
    if flags & LENGTH != 0 {
        rest = view.limit(rest.be16(0)?.into()).skip(4)?;
    }
    rest = rest.skip(4)?;
    if flags & SEQUENCE != 0 {
        rest = rest.skip(4)?;
    }
    if flags & OFFSET != 0 {
        rest = rest.skip(2 + usize::from(rest.be16(0)?))?;
    }
    Ok(Step::new(Layer::Ppp, rest))
}

/// L2TP version 3 data (RFC 3931 4.1) from the session on. What was negotiated decides whether a cookie and a sublayer
/// follow and what they lead to, so it is opened only where an Ethernet frame shows.
pub(super) fn l2tp_3(view: View<'_>) -> Result<Step<'_>, Refusal> {
    const SESSION_BYTES: usize = 4;
    // No cookie or one of four or eight bytes, each without or with four bytes of sublayer.
    for extra in [0, 4, 8, 12] {
        let rest = view.skip(SESSION_BYTES + extra)?;
        if ethernet::is_ethernet(rest) {
            return Ok(Step::new(Layer::Ethernet, rest));
        }
    }
    Err(Refusal::NotTcp)
}

/// CAPWAP data (RFC 5415 4.3): an Ethernet or wireless frame, if it is neither encrypted nor a fragment.
fn capwap(view: View<'_>) -> Result<Step<'_>, Refusal> {
    const WIRELESS: u8 = 0x01;
    const FRAGMENT: u8 = 0x80;
    const KEEP_ALIVE: u8 = 0x08;
    let [preamble, length, kind, flags] = view.array(0)?;
    if preamble != 0 || flags & KEEP_ALIVE != 0 {
        return Err(Refusal::NotTcp);
    }
    if flags & FRAGMENT != 0 {
        return Err(Refusal::LinkFragment);
    }
    let rest = view.skip(usize::from(length >> 3) * 4)?;
    if kind & WIRELESS == 0 {
        return Ok(Step::new(Layer::Ethernet, rest));
    }
    wireless::swapped_frame(rest)
}

/// AYIYA (draft-massar-v6ops-ayiya): a forwarded packet after an identity and a signature of the lengths it names.
fn ayiya(view: View<'_>) -> Result<Step<'_>, Refusal> {
    const FORWARD: u8 = 1;
    let [identity, signature, operation, next] = view.array(0)?;
    if operation & 0x0f != FORWARD {
        return Err(Refusal::NotTcp);
    }
    let length = 8 + (1_usize << (identity >> 4)) + usize::from(signature >> 4) * 4;
    let rest = view.skip(length)?;
    match next {
        4 => Ok(Step::new(Layer::Ipv4, rest)),
        41 => Ok(Step::new(Layer::Ipv6, rest)),
        _ => Err(Refusal::NotTcp),
    }
}

/// LISP data (RFC 9300 5.1): eight bytes, then an IP packet.
fn lisp(view: View<'_>) -> Result<Step<'_>, Refusal> {
    Ok(Step::new(Layer::Ip, view.skip(8)?))
}

/// TZSP, in which wireless sniffers send frames: tags up to an end tag, then the frame.
fn tzsp(view: View<'_>) -> Result<Step<'_>, Refusal> {
    const VERSION: u8 = 1;
    const TAG_PADDING: u8 = 0;
    const TAG_END: u8 = 1;
    let [version, kind] = view.array(0)?;
    if version != VERSION || kind > 1 {
        return Err(Refusal::NotTcp);
    }
    let layer = match view.be16(2)? {
        1 => Layer::Ethernet,
        0x12 => Layer::Link(105),
        0x77 => Layer::Link(119),
        0x7f => Layer::Link(163),
        _ => return Err(Refusal::NotTcp),
    };
    let mut rest = view.skip(4)?;
    for _ in 0..MAX_TZSP_TAGS {
        rest = match rest.u8(0)? {
            TAG_END => return Ok(Step::new(layer, rest.skip(1)?)),
            TAG_PADDING => rest.skip(1)?,
            _ => rest.skip(2 + usize::from(rest.u8(1)?))?,
        };
    }
    Err(Refusal::Nesting)
}
