//! Where the network header is in a packet of a traffic-control hook: behind an Ethernet header and VLAN tags, or at once.
//!
//! The packet does not say what kind of interface it is on, and a raw IP packet can look like an Ethernet frame. But the
//! kernel keeps where the header is, and hands out bytes from there: the place is where they are found again.

use aya_ebpf::{
    bindings::bpf_hdr_start_off::BPF_HDR_START_NET,
    helpers::{bpf_skb_load_bytes, bpf_skb_load_bytes_relative},
    programs::SkBuffContext,
};
use pod2pod_common::{blur, counters::Counter};

/// Destination, source, type (IEEE 802.3 3.1.1).
const ETHERNET_HEADER: u32 = 14;
/// Control information and the next type (IEEE 802.1Q 9.3).
const VLAN_TAG: u32 = 4;
/// Tags of a frame: the customer's and the provider's.
const MAX_TAGS: u32 = 2;
/// Places of the network header: Ethernet with up to two tags, and no link header.
const PLACES: [u32; 4] = [ETHERNET_HEADER, 0, ETHERNET_HEADER + VLAN_TAG, ETHERNET_HEADER + 2 * VLAN_TAG];

/// Types of IEEE 802: in a packet's own byte order, as the kernel keeps them.
const IPV4: u16 = 0x0800_u16.to_be();
const IPV6: u16 = 0x86dd_u16.to_be();
const CUSTOMER_TAG: u16 = 0x8100_u16.to_be();
const SERVICE_TAG: u16 = 0x88a8_u16.to_be();

/// Finds the network header.
#[inline(always)]
pub(crate) fn network_offset(context: &SkBuffContext) -> Result<u32, Counter> {
    // SAFETY: the context that the program was given.
    let protocol = unsafe { (*context.skb.skb).protocol } as u16;
    if !is_ip(protocol) && !is_tag(protocol) {
        return Err(Counter::NotIp);
    }
    let mut header = [0_u64; 2];
    // SAFETY: `header` has as many bytes as are asked for.
    let read = unsafe {
        let length = size_of_val(&header) as u32;
        let to = header.as_mut_ptr().cast();
        bpf_skb_load_bytes_relative(context.skb.skb.cast(), 0, to, length, BPF_HDR_START_NET)
    };
    // What has a tag is an Ethernet frame, and the kernel may take the tag or what is behind it for the network header.
    let found = read == 0 && !is_tag(protocol);
    let mut offset = if found { place_of(context, header)? } else { ETHERNET_HEADER };
    if is_tag(protocol) {
        offset += VLAN_TAG;
        let inner: [u8; 2] = context.load(offset as usize - 2).map_err(|_| Counter::MalformedHeader)?;
        if is_tag(u16::from_ne_bytes(inner)) {
            offset += VLAN_TAG;
        }
    }
    Ok(blur::number(offset) & 0xff)
}

/// Where the network header is behind an Ethernet header at `frame`; fails if it is not IP's.
#[inline(always)]
pub(crate) fn behind_ethernet(context: &SkBuffContext, frame: u32) -> Result<u32, Counter> {
    let mut offset = frame + ETHERNET_HEADER;
    for _ in 0..=MAX_TAGS {
        let kind: [u8; 2] = context.load(offset as usize - 2).map_err(|_| Counter::MalformedHeader)?;
        let kind = u16::from_ne_bytes(kind);
        if is_ip(kind) {
            return Ok(offset);
        }
        if !is_tag(kind) {
            break;
        }
        offset += VLAN_TAG;
    }
    Err(Counter::NotIp)
}

/// Where the packet holds the bytes of its network header.
#[inline(always)]
fn place_of(context: &SkBuffContext, header: [u64; 2]) -> Result<u32, Counter> {
    for place in PLACES {
        let mut found = [0_u64; 2];
        // SAFETY: `found` has as many bytes as are asked for. What cannot be read is not found.
        let read = unsafe {
            let length = size_of_val(&found) as u32;
            bpf_skb_load_bytes(context.skb.skb.cast(), place, found.as_mut_ptr().cast(), length)
        };
        if read == 0 && found[0] == header[0] && found[1] == header[1] {
            return Ok(place);
        }
    }
    Err(Counter::MalformedHeader)
}

/// Whether a type, in a packet's byte order, is that of an IP version.
#[inline(always)]
pub(crate) const fn is_ip(protocol: u16) -> bool {
    protocol == IPV4 || protocol == IPV6
}

#[inline(always)]
const fn is_tag(protocol: u16) -> bool {
    protocol == CUSTOMER_TAG || protocol == SERVICE_TAG
}
