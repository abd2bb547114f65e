//! From a packet to the facts of its TCP segment. Reads by helper, never through packet pointers: payload sits in page
//! fragments, headers may too.

use core::mem::MaybeUninit;

use aya_ebpf::{helpers::generated::bpf_skb_load_bytes, programs::sk_buff::SkBuff};
use pod2pod_common::{counters::Counter, limits::MAX_EXTENSION_HEADERS};

/// Minimum IPv4 header (RFC 791 3.1).
const IPV4_HEADER: u32 = 20;
/// IPv6 header (RFC 8200 3).
const IPV6_HEADER: u32 = 40;
/// Minimum TCP header (RFC 9293 3.1).
const TCP_HEADER: u32 = 20;
/// IP protocol number of TCP.
const PROTOCOL_TCP: u8 = 6;

/// A TCP segment as its headers tell it.
#[derive(Clone, Copy)]
pub(crate) struct Packet {
    pub(crate) source_address: [u8; 16],
    pub(crate) destination_address: [u8; 16],
    pub(crate) source_port: u16,
    pub(crate) destination_port: u16,
    pub(crate) sequence: u32,
    pub(crate) acknowledgement: u32,
    pub(crate) flags: u8,
    pub(crate) ip_version: u8,
    /// Offset of the payload in the packet.
    pub(crate) payload_offset: u32,
    pub(crate) payload_length: u32,
}

/// Reads `N` bytes at `offset`.
#[inline(always)]
fn load<const N: usize>(skb: &SkBuff, offset: u32) -> Result<[u8; N], Counter> {
    let mut bytes = MaybeUninit::<[u8; N]>::uninit();
    // SAFETY: the helper writes exactly N bytes to a buffer of N bytes, or fails.
    let result = unsafe { bpf_skb_load_bytes(skb.skb.cast(), offset, bytes.as_mut_ptr().cast(), N as u32) };
    if result == 0 {
        // SAFETY: the helper succeeded, so all N bytes are written.
        Ok(unsafe { bytes.assume_init() })
    } else {
        Err(Counter::MalformedHeader)
    }
}

/// Reads the first `length` (1–16) bytes at `offset`; the rest of the window is zero.
#[inline(always)]
pub(crate) fn load_window(skb: &SkBuff, offset: u32, length: u32) -> Result<[u8; 16], Counter> {
    let mut window = [0_u64; 2];
    let length = bounded(length, 16);
    // SAFETY: `length` is 1 to 16 and the window has 16 bytes.
    let result = unsafe { bpf_skb_load_bytes(skb.skb.cast(), offset, window.as_mut_ptr().cast(), length) };
    if result != 0 {
        return Err(Counter::SegmentsUnreadable);
    }
    // SAFETY: two u64 are 16 bytes, and any bytes are a value.
    Ok(unsafe { core::mem::transmute::<[u64; 2], [u8; 16]>(window) })
}

/// `length` within 1 and `limit`, in a form in which the verifier keeps the bounds of the very register that is used.
#[inline(always)]
pub(crate) fn bounded(length: u32, limit: u32) -> u32 {
    let mut last = u64::from(length).wrapping_sub(1);
    // SAFETY: moves a register onto itself; it only hides the value from the optimiser, which would otherwise test
    // another register than the one used (an empty template breaks line info on older kernels).
    unsafe { core::arch::asm!("{0} = {0}", inout(reg) last) };
    if last > u64::from(limit - 1) {
        last = u64::from(limit - 1);
    }
    last as u32 + 1
}

/// Reads the headers of the packet whose network header is at `network_header`.
///
/// # Errors
/// The counter that says why this is no TCP segment to look at.
#[inline(always)]
pub(crate) fn read(skb: &SkBuff, network_header: u32) -> Result<Packet, Counter> {
    let head: [u8; 20] = load(skb, network_header).map_err(|_| Counter::NotIp)?;
    let available = skb.len().wrapping_sub(network_header);
    match head[0] >> 4 {
        4 => read_ipv4(skb, network_header, &head, available),
        6 => read_ipv6(skb, network_header, &head, available),
        _ => Err(Counter::NotIp),
    }
}

#[inline(always)]
fn read_ipv4(skb: &SkBuff, start: u32, head: &[u8; 20], available: u32) -> Result<Packet, Counter> {
    if head[9] != PROTOCOL_TCP {
        return Err(Counter::NotTcp);
    }
    if u16::from_be_bytes([head[6], head[7]]) & 0x1fff != 0 {
        return Err(Counter::Fragment);
    }
    let header = u32::from(head[0] & 0x0f) * 4;
    if header < IPV4_HEADER {
        return Err(Counter::MalformedHeader);
    }
    let total = u32::from(u16::from_be_bytes([head[2], head[3]]));
    // 0 in BIG TCP packets (net/ipv4/ip_output.c, iph_set_totlen); padding makes the packet longer than the datagram.
    let length = if total == 0 || total > available { available } else { total };
    let mut addresses = [[0_u8; 16]; 2];
    let mut index = 0;
    while index < 2 {
        addresses[index][10] = 0xff;
        addresses[index][11] = 0xff;
        addresses[index][12] = head[12 + 4 * index];
        addresses[index][13] = head[13 + 4 * index];
        addresses[index][14] = head[14 + 4 * index];
        addresses[index][15] = head[15 + 4 * index];
        index += 1;
    }
    read_tcp(skb, start, header, length, 4, addresses)
}

#[inline(always)]
fn read_ipv6(skb: &SkBuff, start: u32, head: &[u8; 20], available: u32) -> Result<Packet, Counter> {
    let payload = u32::from(u16::from_be_bytes([head[4], head[5]]));
    // 0 in jumbograms and BIG TCP packets (RFC 2675 3).
    let length =
        if payload == 0 || payload + IPV6_HEADER > available { available } else { payload + IPV6_HEADER };
    let mut next = head[6];
    let mut offset = IPV6_HEADER;
    let mut walked = 0;
    while next != PROTOCOL_TCP {
        if walked == MAX_EXTENSION_HEADERS {
            return Err(Counter::TooManyExtensionHeaders);
        }
        walked += 1;
        // Hop-by-hop, routing, fragment, AH, destination, mobility, HIP, shim6 (IANA protocol numbers).
        if !matches!(next, 0 | 43 | 44 | 51 | 60 | 135 | 139 | 140) {
            return Err(Counter::NotTcp);
        }
        let extension: [u8; 4] = load(skb, start + offset)?;
        if next == 44 && u16::from_be_bytes([extension[2], extension[3]]) & 0xfff8 != 0 {
            return Err(Counter::Fragment);
        }
        offset += match next {
            44 => 8,
            51 => (u32::from(extension[1]) + 2) * 4,
            _ => (u32::from(extension[1]) + 1) * 8,
        };
        next = extension[0];
    }
    let source: [u8; 16] = load(skb, start + 8)?;
    let destination: [u8; 16] = load(skb, start + 24)?;
    read_tcp(skb, start, offset, length, 6, [source, destination])
}

#[inline(always)]
fn read_tcp(
    skb: &SkBuff,
    start: u32,
    ip_header: u32,
    ip_length: u32,
    ip_version: u8,
    addresses: [[u8; 16]; 2],
) -> Result<Packet, Counter> {
    let tcp: [u8; TCP_HEADER as usize] = load(skb, start + ip_header)?;
    let header = u32::from(tcp[12] >> 4) * 4;
    let headers = ip_header + header;
    if header < TCP_HEADER || headers > ip_length {
        return Err(Counter::MalformedHeader);
    }
    Ok(Packet {
        source_address: addresses[0],
        destination_address: addresses[1],
        source_port: u16::from_be_bytes([tcp[0], tcp[1]]),
        destination_port: u16::from_be_bytes([tcp[2], tcp[3]]),
        sequence: u32::from_be_bytes([tcp[4], tcp[5], tcp[6], tcp[7]]),
        acknowledgement: u32::from_be_bytes([tcp[8], tcp[9], tcp[10], tcp[11]]),
        flags: tcp[13],
        ip_version,
        payload_offset: start + headers,
        payload_length: ip_length - headers,
    })
}
