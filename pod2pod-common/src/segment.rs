//! What one ring-buffer record is: a fixed header, then the captured payload. Decoding is in user space.

use core::mem::size_of;

/// Version of [`SegmentHeader`]; changed with every change of layout or meaning.
pub const LAYOUT_VERSION: u8 = 2;

/// The local socket received the packet.
pub const DIRECTION_INGRESS: u8 = 0;
/// The local socket sent the packet.
pub const DIRECTION_EGRESS: u8 = 1;

/// The record came through the cgroup_skb hook.
pub const SOURCE_CGROUP: u8 = 0;
/// The record came through a traffic-control hook (tcx or clsact).
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

/// The head of a ring record. A packet whose payload does not fit one record is told in several: each is a segment of
/// its own with its own sequence number, all but the last carry [`MARK_MORE`], FIN is on the last only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct SegmentHeader {
    /// `bpf_ktime_get_ns`: nanoseconds of CLOCK_MONOTONIC.
    pub time_ns: u64,
    /// Scope of the flow key: cgroup id, interface index or socket cookie, see [`crate::flow::FlowKey::scope`].
    pub scope: u64,
    /// cgroup v2 id of the socket, 0 if unknown.
    pub cgroup_id: u64,
    /// Socket cookie, 0 if unknown. During a handshake the listener's.
    pub socket_cookie: u64,
    /// Failed reservations of this ring since load, as read just before this record was reserved.
    pub ring_lost: u64,
    /// Address of the local end.
    pub local_address: [u8; 16],
    /// Address of the remote end.
    pub remote_address: [u8; 16],
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
    /// the generation before; meaningless with `generation_known` 0.
    pub generation: u32,
    /// Interface index of the packet.
    pub interface_index: u32,
    /// TCP flags, the `TCP_*` bits.
    pub tcp_flags: u8,
    /// `DIRECTION_*`.
    pub direction: u8,
    /// `SOURCE_*`.
    pub source: u8,
    /// `MARK_*` bits.
    pub marks: u8,
    /// [`LAYOUT_VERSION`].
    pub version: u8,
    /// IP version of the packet, 4 or 6.
    pub ip_version: u8,
    /// 1 if `generation` is the client's initial sequence number.
    pub generation_known: u8,
    /// Ring that carries the record.
    pub ring: u8,
    /// What `scope` is: `SCOPE_*` of [`crate::flow`].
    pub scope_kind: u32,
}

/// Bytes of [`SegmentHeader`].
pub const HEADER_LENGTH: usize = size_of::<SegmentHeader>();

const _: () = assert!(HEADER_LENGTH == 112);
const _: () = assert!(align_of::<SegmentHeader>() == 8);
const _: () =
    assert!(5 * size_of::<u64>() + 2 * 16 + 2 * size_of::<u16>() + 7 * size_of::<u32>() + 8 == HEADER_LENGTH);

/// Record sizes, header included, smallest first: the kernel reserves the smallest that fits, so at most half a record
/// is waste.
pub const SIZE_CLASSES: [usize; 10] = [128, 256, 512, 1024, 2048, 4096, 8192, 16_384, 32_768, 65_536];

/// Most payload bytes that one record can carry.
pub const MAX_RECORD_PAYLOAD: usize = SIZE_CLASSES[SIZE_CLASSES.len() - 1] - HEADER_LENGTH;

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
