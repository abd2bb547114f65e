//! The packet's headers, read by copy: payload and sometimes headers are in page fragments, out of direct reach, and
//! pulling them in would change the packet.
//!
//! Stops at the TCP header; never reads payload.

use core::{arch::asm, hint::cold_path};

use aya_ebpf::programs::SkBuffContext;
use pod2pod_common::{blur, counters::Counter, limits::MAX_EXTENSION_HEADERS};

/// An address as in the packet, in words, which are copied as such.
pub(crate) type Address = [u64; 2];

/// A TCP segment's headers.
#[derive(Clone, Copy)]
pub(crate) struct Packet {
    /// Source address, IPv4-mapped for IPv4.
    pub(crate) source: Address,
    /// Destination address, IPv4-mapped for IPv4.
    pub(crate) destination: Address,
    pub(crate) source_port: u16,
    pub(crate) destination_port: u16,
    pub(crate) sequence: u32,
    pub(crate) acknowledgement: u32,
    pub(crate) tcp_flags: u8,
    /// 4 or 6.
    pub(crate) ip_version: u8,
    /// Where the payload begins in the packet.
    pub(crate) payload_offset: u32,
    pub(crate) payload_length: u32,
}

/// What an IP header says about its payload.
struct Network {
    source: Address,
    destination: Address,
    ip_version: u8,
    /// Where the TCP header begins in the packet.
    transport_offset: u32,
    /// Where the IP packet ends, by its own length; absent if it says none (BIG TCP, jumbograms).
    end: Option<u32>,
}

const PROTOCOL_TCP: u8 = 6;
const IPV4_HEADER_MIN: u32 = 20;
const IPV4_FRAGMENT_OFFSET: u16 = 0x1fff;
const IPV6_HEADER: u32 = 40;
const IPV6_FRAGMENT_OFFSET: u16 = 0xfff8;
const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const AUTHENTICATION: u8 = 51;
const DESTINATION_OPTIONS: u8 = 60;
const TCP_HEADER_MIN: u32 = 20;
/// More than a tunnel's headers with the link headers outside and inside: at most 60 + 8 + 260 and two times 22. Bytes; a mask.
pub(crate) const MAX_NETWORK_OFFSET: u32 = 0x7ff;
/// More than that, an IPv6 header and the longest extension headers together, and little enough for the verifier to allow
/// direct access there (include/linux/bpf_verifier.h, MAX_PACKET_OFF). Bytes; a mask.
const MAX_TRANSPORT_OFFSET: u32 = 0x3fff;
const _: () = assert!(
    MAX_NETWORK_OFFSET + IPV6_HEADER + MAX_EXTENSION_HEADERS as u32 * 256 * 8 <= MAX_TRANSPORT_OFFSET
);

/// Reads the headers, or says which counter the packet belongs to.
#[inline(always)]
pub(crate) fn parse(context: &SkBuffContext, network_offset: u32) -> Result<Packet, Counter> {
    let base: [u32; 5] = peek(context, network_offset)?;
    let network = match base[0] >> 28 {
        4 => ipv4(base, network_offset)?,
        6 => ipv6(context, base, network_offset)?,
        _ => return Err(Counter::NotIp),
    };
    // The verifier would walk everything that follows once for each number of extension headers: the payload's length
    // comes from the offset, so every offset is another state (819,000 instructions instead of 46,000).
    let transport_offset = blur::number(network.transport_offset) & MAX_TRANSPORT_OFFSET;
    let [ports, sequence, acknowledgement, control, _]: [u32; 5] = peek(context, transport_offset)?;
    let header_length = (control >> 28) * 4;
    if header_length < TCP_HEADER_MIN {
        return Err(Counter::MalformedHeader);
    }
    let payload_offset = transport_offset + header_length;
    // What follows the IP packet is the link's padding.
    let end = match network.end {
        Some(end) if end < context.len() => end,
        _ => context.len(),
    };
    if end < payload_offset {
        return Err(Counter::MalformedHeader);
    }
    Ok(Packet {
        source: network.source,
        destination: network.destination,
        source_port: (ports >> 16) as u16,
        destination_port: ports as u16,
        sequence,
        acknowledgement,
        tcp_flags: (control >> 16) as u8,
        ip_version: network.ip_version,
        payload_offset,
        payload_length: blur::number(end - payload_offset),
    })
}

#[inline(always)]
fn ipv4(header: [u32; 5], network_offset: u32) -> Result<Network, Counter> {
    let [first, fragment, protocol, source, destination] = header;
    if (protocol >> 16) as u8 != PROTOCOL_TCP {
        return Err(Counter::NotTcp);
    }
    let header_length = (first >> 24 & 0x0f) * 4;
    if header_length < IPV4_HEADER_MIN {
        return Err(Counter::MalformedHeader);
    }
    if fragment as u16 & IPV4_FRAGMENT_OFFSET != 0 {
        return Err(Counter::Fragment);
    }
    let total = first & 0xffff;
    Ok(Network {
        source: mapped(source),
        destination: mapped(destination),
        ip_version: 4,
        transport_offset: network_offset + header_length,
        end: if total == 0 { None } else { Some(network_offset + total) },
    })
}

#[inline(always)]
fn ipv6(context: &SkBuffContext, header: [u32; 5], network_offset: u32) -> Result<Network, Counter> {
    cold_path();
    let payload = header[1] >> 16;
    let mut next = (header[1] >> 8) as u8;
    let mut offset = network_offset + IPV6_HEADER;
    let mut walked = 0;
    while next != PROTOCOL_TCP {
        if !matches!(next, HOP_BY_HOP | ROUTING | FRAGMENT | AUTHENTICATION | DESTINATION_OPTIONS) {
            return Err(Counter::NotTcp);
        }
        if walked == MAX_EXTENSION_HEADERS {
            return Err(Counter::TooManyExtensionHeaders);
        }
        walked += 1;
        let extension: [u8; 4] = load(context, offset)?;
        if next == FRAGMENT && u16::from_be_bytes([extension[2], extension[3]]) & IPV6_FRAGMENT_OFFSET != 0 {
            return Err(Counter::Fragment);
        }
        offset += match next {
            FRAGMENT => 8,
            AUTHENTICATION => (u32::from(extension[1]) + 2) * 4,
            _ => (u32::from(extension[1]) + 1) * 8,
        };
        next = extension[0];
    }
    Ok(Network {
        source: load(context, network_offset + 8)?,
        destination: load(context, network_offset + 24)?,
        ip_version: 6,
        transport_offset: offset,
        end: if payload == 0 { None } else { Some(network_offset + IPV6_HEADER + payload) },
    })
}

/// RFC 4291 2.5.5.2.
#[inline(always)]
pub(crate) fn mapped(address: u32) -> Address {
    [0, (0xffff_0000_0000 | u64::from(address)).to_be()]
}

/// Words of a header, as numbers. Without a call if they are in the packet's linear part, where headers nearly always are.
#[inline(always)]
fn peek(context: &SkBuffContext, offset: u32) -> Result<[u32; 5], Counter> {
    let skb = context.skb.skb;
    // SAFETY: the context that the program was given.
    let (data, end) = unsafe { ((*skb).data as usize, (*skb).data_end as usize) };
    let mut at = data + offset as usize;
    // Holds it in one register: the verifier knows how much is behind the one that was compared, not behind its equal.
    // SAFETY: moves a register to itself.
    unsafe { asm!("{0} = {0}", inout(reg) at) };
    if at + size_of::<[u32; 5]>() <= end {
        // SAFETY: within the linear part, as just checked.
        let words = unsafe { [word::<0>(at), word::<4>(at), word::<8>(at), word::<12>(at), word::<16>(at)] };
        return Ok(words.map(u32::from_be));
    }
    cold_path();
    let words: [u32; 5] = load(context, offset)?;
    Ok(words.map(u32::from_be))
}

/// Four bytes at once at any address: the processors that programs run on can, but the compiler knows of the target only
/// that it could not, and would put them together one by one.
///
/// # Safety
/// `at` and the bytes at `OFFSET` from it are in the packet's linear part.
#[inline(always)]
unsafe fn word<const OFFSET: i16>(at: usize) -> u32 {
    let value: u64;
    // SAFETY: the caller's promise; nothing is written.
    unsafe {
        asm!("{0} = *(u32 *)({1} + {2})", out(reg) value, in(reg) at, const OFFSET, options(readonly, nostack))
    };
    value as u32
}

#[inline(always)]
pub(crate) fn load<T>(context: &SkBuffContext, offset: u32) -> Result<T, Counter> {
    context.load(offset as usize).map_err(|_| Counter::MalformedHeader)
}
