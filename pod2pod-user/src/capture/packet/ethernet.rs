//! Ethernet and what it carries: tags, IEEE 802.2 LLC with SNAP, MPLS, and the other headers that an Ethernet type names.

use super::{
    Layer, Step,
    view::{Refusal, View},
};

/// Addresses and type.
const HEADER_BYTES: usize = 14;
/// Largest value of the type field that is a length (IEEE 802.3 3.2.6).
pub const MAX_LENGTH_FIELD: u16 = 1500;

const TYPE_IPV4: u16 = 0x0800;
/// TRILL (RFC 6325): a header with options, then Ethernet.
const TYPE_TRILL: u16 = 0x22f3;
/// Ethernet itself (transparent Ethernet bridging).
const TYPE_ETHERNET: u16 = 0x6558;
const TYPE_VLAN: u16 = 0x8100;
const TYPE_IPV6: u16 = 0x86dd;
const TYPE_PPP: u16 = 0x880b;
const TYPE_MPLS: u16 = 0x8847;
const TYPE_MPLS_MULTICAST: u16 = 0x8848;
const TYPE_PPPOE_SESSION: u16 = 0x8864;
/// LLC in a frame longer than a length field can tell.
const TYPE_JUMBO_LLC: u16 = 0x8870;
const TYPE_PROVIDER_VLAN: u16 = 0x88a8;
/// Provider backbone bridge: a service tag, then Ethernet (IEEE 802.1Q 9.7).
const TYPE_BACKBONE: u16 = 0x88e7;
/// MACsec (IEEE 802.1AE).
const TYPE_MACSEC: u16 = 0x88e5;
/// Cisco MetaData with the security group tag.
const TYPE_CISCO_METADATA: u16 = 0x8909;
/// VN-Tag of virtual network interfaces.
const TYPE_VN_TAG: u16 = 0x8926;
/// High-availability seamless redundancy (IEC 62439-3).
const TYPE_HSR: u16 = 0x892f;
/// E-Tag of port extenders (IEEE 802.1BR 12.4).
const TYPE_E_TAG: u16 = 0x893f;
/// Network service header (RFC 8300).
const TYPE_NSH: u16 = 0x894f;
/// Stacked VLAN tags before they were standardised.
const TYPES_OLD_STACKED_VLAN: [u16; 3] = [0x9100, 0x9200, 0x9300];
/// Redundancy tag (IEEE 802.1CB 7.8).
const TYPE_REDUNDANCY: u16 = 0xf1c1;

/// First octets of the multicast addresses that Cisco ISL frames are sent to; a 26-byte header, then the frame.
const ISL_DESTINATIONS: [[u8; 5]; 2] = [[0x01, 0x00, 0x0c, 0x00, 0x00], [0x03, 0x00, 0x0c, 0x00, 0x00]];
const ISL_HEADER_BYTES: usize = 26;

/// What follows an Ethernet header.
pub(super) fn frame(view: View<'_>) -> Result<Step<'_>, Refusal> {
    let kind = view.be16(12)?;
    let rest = view.skip(HEADER_BYTES)?;
    if kind > MAX_LENGTH_FIELD {
        return Ok(Step::new(Layer::EtherType(kind), rest));
    }
    if ISL_DESTINATIONS.contains(&view.array(0)?) {
        return match view.u8(5)? >> 4 {
            0 => Ok(Step::new(Layer::Ethernet, view.skip(ISL_HEADER_BYTES)?)),
            _ => Err(Refusal::NotIp),
        };
    }
    Ok(Step::new(Layer::Llc, rest.limit(kind.into())))
}

/// What an Ethernet type names.
pub(super) fn ether_type(kind: u16, view: View<'_>) -> Result<Step<'_>, Refusal> {
    match kind {
        // The version is read again: a type that lies is not an IP packet.
        TYPE_IPV4 | TYPE_IPV6 => Ok(Step::new(Layer::Ip, view)),
        TYPE_VLAN | TYPE_PROVIDER_VLAN => tag(view, 2, 4),
        old if TYPES_OLD_STACKED_VLAN.contains(&old) => tag(view, 2, 4),
        TYPE_VN_TAG | TYPE_HSR | TYPE_REDUNDANCY => tag(view, 4, 6),
        TYPE_E_TAG | TYPE_CISCO_METADATA => tag(view, 6, 8),
        TYPE_ETHERNET => Ok(Step::new(Layer::Ethernet, view)),
        TYPE_BACKBONE => Ok(Step::new(Layer::Ethernet, view.skip(4)?)),
        TYPE_TRILL => {
            // Five bits of the first 16 are the options' length in 32-bit words.
            let options = usize::from(view.be16(0)? >> 6 & 0x1f) * 4;
            Ok(Step::new(Layer::Ethernet, view.skip(6 + options)?))
        }
        TYPE_MPLS | TYPE_MPLS_MULTICAST => Ok(Step::new(Layer::Mpls, view)),
        TYPE_PPPOE_SESSION => Ok(Step::new(Layer::Pppoe, view)),
        TYPE_PPP => Ok(Step::new(Layer::Ppp, view)),
        TYPE_JUMBO_LLC => Ok(Step::new(Layer::Llc, view)),
        TYPE_NSH => Ok(Step::new(Layer::Nsh, view)),
        TYPE_MACSEC => macsec(view),
        length if length <= MAX_LENGTH_FIELD => Ok(Step::new(Layer::Llc, view.limit(length.into()))),
        _ => Err(Refusal::NotIp),
    }
}

/// A tag that ends with the type of what follows.
fn tag(view: View<'_>, type_at: usize, length: usize) -> Result<Step<'_>, Refusal> {
    Ok(Step::new(Layer::EtherType(view.be16(type_at)?), view.skip(length)?))
}

/// MACsec: readable if it is authenticated only (IEEE 802.1AE 9.3).
fn macsec(view: View<'_>) -> Result<Step<'_>, Refusal> {
    const ENCRYPTED: u8 = 0x08;
    const CHANGED_TEXT: u8 = 0x04;
    const CHANNEL_PRESENT: u8 = 0x20;
    let control = view.u8(0)?;
    if control & (ENCRYPTED | CHANGED_TEXT) != 0 {
        return Err(Refusal::Encrypted);
    }
    let length = if control & CHANNEL_PRESENT == 0 { 6 } else { 14 };
    tag(view, length, length + 2)
}

/// IEEE 802.2 LLC: IP directly, or through SNAP.
pub(super) fn llc(view: View<'_>) -> Result<Step<'_>, Refusal> {
    const UNNUMBERED_INFORMATION: u8 = 0x03;
    const IP: u8 = 0x06;
    const SNAP: u8 = 0xaa;
    const NETWORK_LAYER: u8 = 0xfe;
    let [destination, source, control] = view.array(0)?;
    if control != UNNUMBERED_INFORMATION {
        return Err(Refusal::NotIp);
    }
    match (destination & 0xfe, source & 0xfe) {
        (SNAP, SNAP) => snap(view.skip(3)?),
        (IP, IP) => Ok(Step::new(Layer::Ip, view.skip(3)?)),
        (NETWORK_LAYER, NETWORK_LAYER) => network_layer(view.skip(3)?),
        _ => Err(Refusal::NotIp),
    }
}

/// SNAP: organisation and protocol (RFC 1042, RFC 2684 for bridged frames).
pub(super) fn snap(view: View<'_>) -> Result<Step<'_>, Refusal> {
    const ENCAPSULATED_ETHERNET: [u8; 3] = [0, 0, 0];
    const BRIDGED_TUNNEL: [u8; 3] = [0, 0, 0xf8];
    const IEEE_802_1: [u8; 3] = [0, 0x80, 0xc2];
    let organisation: [u8; 3] = view.array(0)?;
    let protocol = view.be16(3)?;
    let rest = view.skip(5)?;
    match (organisation, protocol) {
        (ENCAPSULATED_ETHERNET | BRIDGED_TUNNEL, protocol) => Ok(Step::new(Layer::EtherType(protocol), rest)),
        // Bridged Ethernet with and without its check sequence. Over ATM two bytes of padding come first.
        (IEEE_802_1, 1 | 7) if is_ethernet(rest) => Ok(Step::new(Layer::Ethernet, rest)),
        (IEEE_802_1, 1 | 7) => Ok(Step::new(Layer::Ethernet, rest.skip(2)?)),
        _ => Err(Refusal::NotIp),
    }
}

/// A network-layer protocol identifier (ISO/IEC TR 9577, RFC 2427).
pub(super) fn network_layer(view: View<'_>) -> Result<Step<'_>, Refusal> {
    let rest = view.skip(1)?;
    match view.u8(0)? {
        0xcc | 0x8e => Ok(Step::new(Layer::Ip, rest)),
        0x80 => snap(rest),
        0xcf => Ok(Step::new(Layer::Ppp, rest)),
        _ => Err(Refusal::NotIp),
    }
}

/// One MPLS label (RFC 3032 2.1); below the last one nothing names what follows, so it has to look like it.
pub(super) fn mpls(view: View<'_>) -> Result<Step<'_>, Refusal> {
    const BOTTOM_OF_STACK: u8 = 0x01;
    let rest = view.skip(4)?;
    if view.u8(2)? & BOTTOM_OF_STACK == 0 {
        return Ok(Step::new(Layer::Mpls, rest));
    }
    if is_ethernet(rest) {
        return Ok(Step::new(Layer::Ethernet, rest));
    }
    match rest.u8(0)? >> 4 {
        4 | 6 => Ok(Step::new(Layer::Ip, rest)),
        // A pseudowire's control word (RFC 4448 4.6).
        0 => {
            let rest = rest.skip(4)?;
            if is_ethernet(rest) { Ok(Step::new(Layer::Ethernet, rest)) } else { Err(Refusal::NotIp) }
        }
        _ => Err(Refusal::NotIp),
    }
}

/// Network service header (RFC 8300 2.2): its length in words, then what follows.
pub(super) fn nsh(view: View<'_>) -> Result<Step<'_>, Refusal> {
    let words = usize::from(view.u8(1)? & 0x3f);
    if words < 2 {
        return Err(Refusal::Malformed);
    }
    next_protocol(view.u8(3)?, view.skip(words * 4)?)
}

/// What a next-protocol number names (RFC 8300 2.2, also VXLAN-GPE).
pub(super) fn next_protocol(protocol: u8, view: View<'_>) -> Result<Step<'_>, Refusal> {
    match protocol {
        1 | 2 => Ok(Step::new(Layer::Ip, view)),
        3 => Ok(Step::new(Layer::Ethernet, view)),
        4 => Ok(Step::new(Layer::Nsh, view)),
        5 => Ok(Step::new(Layer::Mpls, view)),
        _ => Err(Refusal::NotIp),
    }
}

/// An Ethernet header that carries something we know, with an IP version that agrees: for places where nothing says so.
pub(super) fn is_ethernet(view: View<'_>) -> bool {
    match view.be16(12) {
        Ok(TYPE_IPV4) => view.u8(HEADER_BYTES).is_ok_and(|first| first >> 4 == 4),
        Ok(TYPE_IPV6) => view.u8(HEADER_BYTES).is_ok_and(|first| first >> 4 == 6),
        Ok(TYPE_VLAN | TYPE_PROVIDER_VLAN) => {
            matches!(view.be16(16), Ok(TYPE_IPV4 | TYPE_IPV6 | TYPE_VLAN | TYPE_PPPOE_SESSION))
        }
        Ok(TYPE_PPPOE_SESSION) => view.u8(HEADER_BYTES).is_ok_and(|first| first == 0x11),
        _ => false,
    }
}
