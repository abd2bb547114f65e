//! Point-to-point links: PPP with and without framing, PPP over Ethernet, Cisco HDLC, frame relay.
//!
//! Header compression (RFC 1144), multilink fragments and encrypted PPP are not undone.

use super::{
    Layer, Step, ethernet,
    view::{Refusal, View},
};

/// Bytes of a frame relay address (Q.922 3.3: two, three or four).
pub const MAX_FRAME_RELAY_ADDRESS_BYTES: usize = 4;

const ALL_STATIONS: u8 = 0xff;
const UNNUMBERED_INFORMATION: u8 = 0x03;

/// A PPP frame, with or without address and control (RFC 1662 3.1), then the protocol in one byte or two.
pub(super) fn ppp(view: View<'_>) -> Result<Step<'_>, Refusal> {
    let view = if view.array(0) == Ok([ALL_STATIONS, UNNUMBERED_INFORMATION]) { view.skip(2)? } else { view };
    // The low bit ends the field: a compressed protocol is one odd byte (RFC 1661 6.5).
    let first = view.u8(0)?;
    let (protocol, length) = if first & 1 == 1 { (u16::from(first), 1) } else { (view.be16(0)?, 2) };
    let rest = view.skip(length)?;
    match protocol {
        0x0021 | 0x0057 | 0x0800 | 0x86dd => Ok(Step::new(Layer::Ip, rest)),
        0x0281 | 0x0283 => Ok(Step::new(Layer::Mpls, rest)),
        0x0031 => bridged(rest),
        0x003d => multilink(rest),
        // Compressed or encrypted datagrams.
        0x0053 | 0x00fd => Err(Refusal::Encrypted),
        _ => Err(Refusal::NotIp),
    }
}

/// A bridged Ethernet frame (RFC 3518 4.2).
fn bridged(view: View<'_>) -> Result<Step<'_>, Refusal> {
    const ETHERNET: u8 = 1;
    match view.u8(1)? {
        ETHERNET => Ok(Step::new(Layer::Ethernet, view.skip(2)?)),
        _ => Err(Refusal::NotIp),
    }
}

/// A multilink packet (RFC 1990 3) that is not fragmented.
fn multilink(view: View<'_>) -> Result<Step<'_>, Refusal> {
    const WHOLE: u8 = 0xc0;
    match view.u8(0)? {
        flags if flags & WHOLE == WHOLE => Ok(Step::new(Layer::Ppp, view.skip(4)?)),
        _ => Err(Refusal::NotIp),
    }
}

/// PPP in HDLC-like framing or Cisco HDLC: the first byte tells.
pub(super) fn hdlc(view: View<'_>) -> Result<Step<'_>, Refusal> {
    const CISCO_UNICAST: u8 = 0x0f;
    const CISCO_MULTICAST: u8 = 0x8f;
    match view.u8(0)? {
        CISCO_UNICAST | CISCO_MULTICAST => cisco_hdlc(view),
        _ => ppp(view),
    }
}

/// Cisco HDLC: address, control, Ethernet type.
pub(super) fn cisco_hdlc(view: View<'_>) -> Result<Step<'_>, Refusal> {
    const ISO: u16 = 0xfefe;
    match view.be16(2)? {
        ISO => ethernet::llc(view.skip(2)?),
        kind => Ok(Step::new(Layer::EtherType(kind), view.skip(4)?)),
    }
}

/// A PPPoE session packet (RFC 2516 4).
pub(super) fn pppoe(view: View<'_>) -> Result<Step<'_>, Refusal> {
    const VERSION_AND_TYPE: u8 = 0x11;
    const SESSION_DATA: u8 = 0;
    let [version, code] = view.array(0)?;
    if version != VERSION_AND_TYPE {
        return Err(Refusal::Malformed);
    }
    if code != SESSION_DATA {
        return Err(Refusal::NotIp);
    }
    let length = view.be16(4)?;
    Ok(Step::new(Layer::Ppp, view.skip(6)?.limit(length.into())))
}

/// A frame relay frame: an address of two to four bytes, then RFC 2427 or Cisco encapsulation.
pub(super) fn frame_relay(view: View<'_>) -> Result<Step<'_>, Refusal> {
    let mut length = 1;
    // The low bit marks the last byte of the address (Q.922 3.3.1).
    while view.u8(length - 1)? & 1 == 0 {
        length += 1;
        if length > MAX_FRAME_RELAY_ADDRESS_BYTES {
            return Err(Refusal::Malformed);
        }
    }
    let rest = view.skip(length)?;
    if rest.u8(0)? != UNNUMBERED_INFORMATION {
        return Ok(Step::new(Layer::EtherType(rest.be16(0)?), rest.skip(2)?));
    }
    let rest = rest.skip(1)?;
    let rest = if rest.u8(0)? == 0 { rest.skip(1)? } else { rest };
    ethernet::network_layer(rest)
}
