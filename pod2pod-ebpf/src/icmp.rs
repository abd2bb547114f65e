//! ICMP errors that quote a SYN: "No route to host" and its like. Told as a record of the SYN, with type and code.
//!
//! Reached only by what is no TCP, so no segment pays for it. Whether anybody waits for that SYN is user space's to know; the
//! sequence number in it is what a forger would have to guess. Errors about anything but a SYN are left to the kernel.

use core::hint::cold_path;

use aya_ebpf::{
    helpers::{bpf_get_socket_cookie, bpf_ktime_get_ns, bpf_skb_cgroup_id},
    programs::SkBuffContext,
};
use pod2pod_common::{
    blur,
    counters::Counter,
    flow::{FlowKey, SCOPE_INTERFACE},
    segment::{
        DIRECTION_EGRESS, DIRECTION_INGRESS, KIND_EGRESS, KIND_LONG_ADDRESSES, KIND_SCOPE_SHIFT,
        KIND_UNREACHABLE, LAYOUT_VERSION, LONG_ADDRESSES, LongAddresses, SIZE_CLASSES, SOURCE_CGROUP,
        SOURCE_TC, SegmentHeader, TCP_ACK, TCP_SYN,
    },
};

use crate::{
    count::Counters,
    emit::last_four,
    headers::{Address, load, mapped},
    maps::SCOPE_KIND,
    ring::Ring,
    segment::{End, address_bytes, shed_level},
};

const PROTOCOL_ICMP: u8 = 1;
const PROTOCOL_ICMP_V6: u8 = 58;
const PROTOCOL_TCP: u8 = 6;
const IPV4_FRAGMENT_OFFSET: u16 = 0x1fff;
const IPV6_HEADER: u32 = 40;
/// RFC 792 and RFC 4443 2.1: type, code, checksum, and four bytes that depend on them.
const ICMP_HEADER: u32 = 8;
/// Destination unreachable and time exceeded (RFC 792).
const ERRORS: [u8; 2] = [3, 11];
/// The same (RFC 4443 3.1 and 3.3).
const ERRORS_V6: [u8; 2] = [1, 3];
/// Fragmentation needed (RFC 1191): a SYN goes again, smaller.
const FRAGMENTATION_NEEDED: u8 = 4;
/// Where flags are in a TCP header.
const TCP_FLAGS: u32 = 13;
/// No packet that is told has its headers further on. Bytes; a mask.
const MAX_OFFSET: u32 = 0xfff;
/// A record without payload.
const CLASS: usize = SIZE_CLASSES[0];

/// What was quoted.
struct Quoted {
    source: Address,
    destination: Address,
    /// Where its TCP header begins in the packet.
    tcp: u32,
    /// Type and code.
    error: [u8; 2],
    is_long: bool,
}

/// Tells the error in a packet that is not TCP, if it is one. Says whether it was: then it is counted too.
#[inline(always)]
pub(crate) fn tell<const DIRECTION: u8, const SOURCE: u8>(
    context: &SkBuffContext,
    offset: u32,
    counters: Counters,
) -> bool {
    cold_path();
    // Ingress at sockets never sees ICMP.
    if SOURCE == SOURCE_CGROUP && DIRECTION == DIRECTION_INGRESS {
        return false;
    }
    let Some(quoted) = quoted(context, offset) else { return false };
    let Ok([source_port, destination_port, high, low]) = load::<[u16; 4]>(context, quoted.tcp) else {
        return false;
    };
    // Some routers quote no more than eight bytes (RFC 792): then the sequence number must do.
    if let Ok(flags) = load::<u8>(context, quoted.tcp + TCP_FLAGS)
        && flags & (TCP_SYN | TCP_ACK) != TCP_SYN
    {
        return false;
    }
    // SAFETY: takes no argument.
    let now = unsafe { bpf_ktime_get_ns() };
    let Some(shed_level) = shed_level(now) else { return false };
    // SAFETY: the helpers take the context that the program was given, whose fields are read.
    let (cookie, cgroup, interface) = unsafe {
        let skb = context.skb.skb;
        (bpf_get_socket_cookie(skb.cast()), bpf_skb_cgroup_id(skb), (*skb).ifindex)
    };
    let scope_kind = if SOURCE == SOURCE_TC { SCOPE_INTERFACE } else { SCOPE_KIND.load() };
    let end = End { now, cookie, cgroup, interface, scope_kind, shed_level };
    // At an interface an error goes the other way than its SYN: what comes to the observed end is of a SYN that it sent. What
    // this kernel sends is of a SYN that a socket here sent, or a forwarded one.
    let by_client = SOURCE == SOURCE_CGROUP || DIRECTION == DIRECTION_INGRESS;
    let (near, far) =
        if by_client { (quoted.source, quoted.destination) } else { (quoted.destination, quoted.source) };
    let ports = [u16::from_be(source_port), u16::from_be(destination_port)];
    let (near_port, far_port) = if by_client { (ports[0], ports[1]) } else { (ports[1], ports[0]) };
    let key = FlowKey {
        scope: end.scope(),
        local_address: address_bytes(near),
        remote_address: address_bytes(far),
        local_port: near_port,
        remote_port: far_port,
        scope_kind,
    };
    counters.bump(Counter::SegmentsMatched);
    counters.bump(Counter::Unreachables);
    let direction = if by_client { DIRECTION_EGRESS } else { DIRECTION_INGRESS };
    let sequence = u32::from(u16::from_be(high)) << 16 | u32::from(u16::from_be(low));
    submit(&Telling { key: &key, end: &end, quoted: &quoted, sequence, direction }, counters);
    true
}

/// What a record is made of.
struct Telling<'a> {
    key: &'a FlowKey,
    end: &'a End,
    quoted: &'a Quoted,
    sequence: u32,
    /// `DIRECTION_*` of the SYN.
    direction: u8,
}

/// Hands the record to the ring of its connection, and counts what came of it.
#[inline(always)]
fn submit(telling: &Telling<'_>, counters: Counters) {
    let Telling { key, end, quoted, sequence, direction } = *telling;
    let Some(ring) = Ring::of(key) else {
        counters.bump(Counter::SegmentsRingFull);
        return;
    };
    let record = ring.reserve::<CLASS>();
    if record.is_null() {
        counters.bump(Counter::SegmentsRingFull);
        return;
    }
    let mut kind = (end.scope_kind << KIND_SCOPE_SHIFT) as u8 | KIND_UNREACHABLE | direction;
    // SAFETY: the record has CLASS bytes, which hold a header and the addresses, is aligned to 8, and is not used once it is
    // submitted.
    unsafe {
        if quoted.is_long {
            kind |= KIND_LONG_ADDRESSES;
            let addresses: *mut LongAddresses = record.add(CLASS - LONG_ADDRESSES).cast();
            (*addresses).local = key.local_address;
            (*addresses).remote = key.remote_address;
        }
        let header: *mut SegmentHeader = record.cast();
        (*header).time_ns = end.now;
        (*header).cgroup_id = end.cgroup;
        (*header).socket_cookie = end.cookie;
        (*header).local_address = last_four(&key.local_address);
        (*header).remote_address = last_four(&key.remote_address);
        (*header).local_port = key.local_port;
        (*header).remote_port = key.remote_port;
        (*header).sequence = sequence;
        (*header).acknowledgement = u32::from(quoted.error[0]) << 8 | u32::from(quoted.error[1]);
        (*header).payload_length = 0;
        (*header).captured_length = 0;
        (*header).generation = 0;
        (*header).interface_index = end.interface;
        (*header).tcp_flags = TCP_SYN;
        (*header).kind = kind;
        (*header).marks = 0;
        (*header).version = LAYOUT_VERSION;
        ring.submit(record, true, false, counters);
    }
    counters.bump(Counter::SegmentsSent);
    counters.bump(Counter::RecordsSent);
}

/// What an ICMP error quotes, if the packet is one and that is a TCP segment's beginning.
#[inline(always)]
fn quoted(context: &SkBuffContext, offset: u32) -> Option<Quoted> {
    let outer: [u8; 20] = load(context, offset).ok()?;
    match outer[0] >> 4 {
        4 if outer[9] == PROTOCOL_ICMP
            && u16::from_be_bytes([outer[6], outer[7]]) & IPV4_FRAGMENT_OFFSET == 0 =>
        {
            let icmp = blur::number(offset + u32::from(outer[0] & 0x0f) * 4) & MAX_OFFSET;
            let error: [u8; 2] = load(context, icmp).ok()?;
            let unwanted = error[0] == ERRORS[0] && error[1] == FRAGMENTATION_NEEDED;
            if !ERRORS.contains(&error[0]) || unwanted {
                return None;
            }
            let inner: [u8; 20] = load(context, icmp + ICMP_HEADER).ok()?;
            let is_first = u16::from_be_bytes([inner[6], inner[7]]) & IPV4_FRAGMENT_OFFSET == 0;
            if inner[9] != PROTOCOL_TCP || !is_first {
                return None;
            }
            let address = |at: usize| {
                mapped(u32::from_be_bytes([inner[at], inner[at + 1], inner[at + 2], inner[at + 3]]))
            };
            let tcp =
                blur::number(icmp + ICMP_HEADER + u32::from(inner[0] & 0x0f) * 4) & (2 * MAX_OFFSET + 1);
            Some(Quoted { source: address(12), destination: address(16), tcp, error, is_long: false })
        }
        6 if outer[6] == PROTOCOL_ICMP_V6 => {
            let icmp = blur::number(offset + IPV6_HEADER) & MAX_OFFSET;
            let error: [u8; 2] = load(context, icmp).ok()?;
            let inner = icmp + ICMP_HEADER;
            let next: u8 = load(context, inner + 6).ok()?;
            if !ERRORS_V6.contains(&error[0]) || next != PROTOCOL_TCP {
                return None;
            }
            let source: Address = load(context, inner + 8).ok()?;
            let destination: Address = load(context, inner + 24).ok()?;
            Some(Quoted { source, destination, tcp: inner + IPV6_HEADER, error, is_long: true })
        }
        _ => None,
    }
}

const _: () = assert!(KIND_EGRESS == DIRECTION_EGRESS);
