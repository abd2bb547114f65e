//! What one ring-buffer record is: a fixed header, then the captured payload. Decoding is in user space.

use core::mem::size_of;

/// Version of [`SegmentHeader`] and what follows it; changed with every change of layout or meaning.
pub const LAYOUT_VERSION: u8 = 4;

/// The local socket received the packet.
pub const DIRECTION_INGRESS: u8 = 0;
/// The local socket sent the packet.
pub const DIRECTION_EGRESS: u8 = 1;

/// A program on the cgroup_skb hook.
pub const SOURCE_CGROUP: u8 = 0;
/// A program on a traffic-control hook (tcx or clsact).
pub const SOURCE_TC: u8 = 1;

/// TCP flag bits as in the header's 13th octet (RFC 9293 3.1).
pub const TCP_FIN: u8 = 0x01;
/// Synchronise sequence numbers.
pub const TCP_SYN: u8 = 0x02;
/// Reset the connection.
pub const TCP_RST: u8 = 0x04;
/// Push function.
pub const TCP_PSH: u8 = 0x08;
/// The acknowledgement field is significant.
pub const TCP_ACK: u8 = 0x10;

/// A record of this socket end was lost since the last one that arrived.
pub const MARK_CONNECTION_LOST: u8 = 0x01;
/// The gate has not decided yet: the payload may turn out not to be HTTP.
pub const MARK_UNDECIDED: u8 = 0x02;
/// The first bytes are a TLS record (RFC 8446 5.1): the only payload of this connection that is sent.
pub const MARK_TLS: u8 = 0x04;
/// The first bytes are the HTTP/2 connection preface (RFC 9113 3.4): the only payload that is sent.
pub const MARK_HTTP2: u8 = 0x08;
/// Another piece of the same packet follows in the next record of this connection.
pub const MARK_MORE: u8 = 0x10;
/// User space did not want the payload before this record ([`crate::verdict::ACTION_SKIP`]): the record begins where the
/// wanted bytes do, or where the segment ends.
pub const MARK_SKIPPED: u8 = 0x20;
/// The payload that is missing (`captured_length` < `payload_length`) was left out on purpose: it is beyond the credit, or
/// shed. User space counts it as read, or the credit would never move on.
pub const MARK_CREDIT: u8 = 0x40;

/// Bit of `kind`: the local socket sent the packet ([`DIRECTION_EGRESS`]).
pub const KIND_EGRESS: u8 = 0x01;
/// Bit of `kind`: `generation` is the client's initial sequence number.
pub const KIND_GENERATION_KNOWN: u8 = 0x02;
/// Bit of `kind`: the packet is IPv6's, and [`LongAddresses`] end the record.
pub const KIND_LONG_ADDRESSES: u8 = 0x04;
/// Bit of `kind`: the segment, a SYN, was not seen; an ICMP error quotes it, whose type and code are the two lower bytes of
/// `acknowledgement`. [`KIND_EGRESS`] says which way the SYN went, all that is not quoted is of the error's packet.
pub const KIND_UNREACHABLE: u8 = 0x08;
/// From this bit of `kind` on, two: what the flow key's scope is, `SCOPE_*` of [`crate::flow`].
pub const KIND_SCOPE_SHIFT: u32 = 4;

/// The head of a ring record. A packet whose payload does not fit one record is told in several: each is a segment of
/// its own with its own sequence number, all but the last carry [`MARK_MORE`], FIN is on the last only.
///
/// Short: the kernel waits for every cache line of a record that another processor has, and user space for each again. So
/// what follows from other fields is not in it: the flow key's scope is one of cgroup, interface and cookie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct SegmentHeader {
    /// `bpf_ktime_get_ns`: nanoseconds of CLOCK_MONOTONIC.
    pub time_ns: u64,
    /// cgroup v2 id of the socket, 0 if unknown.
    pub cgroup_id: u64,
    /// Socket cookie, 0 if unknown. During a handshake the listener's.
    pub socket_cookie: u64,
    /// IPv4 address of the local end; meaningless with [`KIND_LONG_ADDRESSES`].
    pub local_address: [u8; 4],
    /// IPv4 address of the remote end; meaningless with [`KIND_LONG_ADDRESSES`].
    pub remote_address: [u8; 4],
    /// Port of the local end.
    pub local_port: u16,
    /// Port of the remote end.
    pub remote_port: u16,
    /// Sequence number of the first payload byte (of the SYN itself on a SYN).
    pub sequence: u32,
    /// Acknowledgement number.
    pub acknowledgement: u32,
    /// Payload bytes of the packet piece that this record stands for.
    pub payload_length: u32,
    /// Payload bytes that follow this header; less than `payload_length` if cut.
    pub captured_length: u32,
    /// Initial sequence number of the client as the kernel's state has it, so on a SYN that arrives perhaps still that of
    /// the generation before; meaningless without [`KIND_GENERATION_KNOWN`].
    pub generation: u32,
    /// Interface index of the packet.
    pub interface_index: u32,
    /// TCP flags, the `TCP_*` bits.
    pub tcp_flags: u8,
    /// `KIND_*` bits.
    pub kind: u8,
    /// `MARK_*` bits.
    pub marks: u8,
    /// [`LAYOUT_VERSION`].
    pub version: u8,
}

/// The addresses of an IPv6 packet: the last bytes of its record, so that payload begins at the same place in all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct LongAddresses {
    /// Address of the local end.
    pub local: [u8; 16],
    /// Address of the remote end.
    pub remote: [u8; 16],
}

/// Bytes of [`SegmentHeader`], behind which the payload begins.
pub const HEADER_LENGTH: usize = size_of::<SegmentHeader>();
/// Bytes of [`LongAddresses`].
pub const LONG_ADDRESSES: usize = size_of::<LongAddresses>();

const _: () = assert!(KIND_EGRESS == DIRECTION_EGRESS);
const _: () = assert!(HEADER_LENGTH == 64);
const _: () = assert!(align_of::<SegmentHeader>() == 8);
const _: () =
    assert!(3 * size_of::<u64>() + 2 * 4 + 2 * size_of::<u16>() + 6 * size_of::<u32>() + 4 == HEADER_LENGTH);
const _: () = assert!(LONG_ADDRESSES == 32);

/// Bytes that the ring itself puts before a record (kernel/bpf/ringbuf.c, BPF_RINGBUF_HDR_SZ).
pub const RING_WORD: usize = 8;

/// Record sizes, header included, smallest first: the kernel reserves the smallest that fits. Small ones are close together,
/// so that what is written is nearly all of the ring, which processors then fetch ahead. With the ring's own word they are
/// whole cache lines: no record shares one with the next, which one processor writes while another reads this one.
pub const SIZE_CLASSES: [usize; 14] = [
    128 - RING_WORD,
    192 - RING_WORD,
    256 - RING_WORD,
    384 - RING_WORD,
    512 - RING_WORD,
    768 - RING_WORD,
    1024 - RING_WORD,
    1536 - RING_WORD,
    2048 - RING_WORD,
    4096 - RING_WORD,
    8192 - RING_WORD,
    16_384 - RING_WORD,
    32_768 - RING_WORD,
    65_536 - RING_WORD,
];

/// Most payload bytes that one record can carry, whatever its addresses.
pub const MAX_RECORD_PAYLOAD: usize = SIZE_CLASSES[SIZE_CLASSES.len() - 1] - HEADER_LENGTH - LONG_ADDRESSES;

/// What the kernel keeps of one ring. Written by the kernel only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct RingState {
    /// Reservations that failed since load.
    pub lost: u64,
    /// 1 from the wake-up of a filling ring until the ring is seen below the threshold again.
    pub woken: u64,
}

const _: () = assert!(size_of::<RingState>() == 16);
