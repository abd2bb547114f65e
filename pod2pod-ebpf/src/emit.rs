//! Reserve, fill, submit; count what did not fit. One copy, from the packet into the ring.
//!
//! Fields are written into the record one by one: a header that is built on the stack first is a set of constants to
//! the verifier, and every combination of them another state to walk.

use core::{arch::asm, ptr};

use aya_ebpf::{helpers::bpf_skb_load_bytes, programs::SkBuffContext};
use pod2pod_common::{
    blur,
    counters::Counter,
    flow::{ConnectionState, FlowKey},
    gate::Facts,
    limits::MAX_PIECES,
    portion::Portion,
    segment::{
        HEADER_LENGTH, KIND_GENERATION_KNOWN, KIND_LONG_ADDRESSES, KIND_SCOPE_SHIFT, LAYOUT_VERSION,
        LONG_ADDRESSES, LongAddresses, MARK_CONNECTION_LOST, MARK_CREDIT, MARK_MORE, MAX_RECORD_PAYLOAD,
        RING_WORD, SIZE_CLASSES, SegmentHeader, TCP_FIN, TCP_RST, TCP_SYN,
    },
};

use crate::{atomic::atomic_add, count::Counters, headers::Packet, ring::Ring, segment::End};

/// Payload of a record of the largest class.
const MOST: u32 = MAX_RECORD_PAYLOAD as u32;
/// After so many small records of a CPU it looks how far the ring has filled: at most 8 KiB later than with every record, of
/// the 64 KiB at which the smallest ring wakes its reader.
const RECORDS_PER_LOOK: u64 = 8;
/// Captured payload from which on the ring is looked after at once: the record may be larger than 1 KiB. Bytes.
const LARGE_PAYLOAD: u32 = (1024 - RING_WORD - HEADER_LENGTH - LONG_ADDRESSES) as u32;

/// What became of one record.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Told {
    Sent,
    RingFull,
    Unreadable,
}

/// A reserved record with its payload in it, or without if that could not be read. No `Option`: of what one does not hold the
/// compiler may leave registers unset, which the verifier refuses.
struct Record {
    /// Null if the ring was full.
    base: *mut u8,
    unreadable: bool,
}

/// What differs between the records of one segment.
struct Piece {
    sequence: u32,
    /// Where its payload begins in the packet.
    offset: u32,
    payload_length: u32,
    captured_length: u32,
    flags: u8,
    marks: u8,
    /// The reader is woken.
    wakes: bool,
}

/// Everything that telling a segment needs.
pub(crate) struct Telling<'a> {
    pub(crate) context: &'a SkBuffContext,
    pub(crate) counters: Counters,
    pub(crate) packet: &'a Packet,
    pub(crate) facts: &'a Facts,
    pub(crate) end: &'a End,
    pub(crate) key: &'a FlowKey,
    /// Null if the state table does not hold the connection. No `Option`, see [`Record`].
    pub(crate) state: *mut ConnectionState,
}

impl Telling<'_> {
    /// Tells a segment with the portion of its payload that is sent, in as many records as it takes.
    #[inline(always)]
    pub(crate) fn tell(&self, portion: &Portion) {
        let Some(ring) = Ring::of(self.key) else {
            self.count_left_out(portion);
            self.lose(portion.captured);
            self.count_segment(Told::RingFull);
            return;
        };
        let mut portion = *portion;
        if blur::flag(portion.yields) && ring.is_half_full() {
            self.counters.bump(Counter::CreditYields);
            portion = portion.yielded();
        }
        let portion = &Portion {
            captured: blur::number(portion.captured),
            marks: blur::number(u32::from(portion.marks)) as u8,
            ..portion
        };
        self.count_left_out(portion);
        let marks = portion.marks;
        let mut sequence = self.facts.sequence.wrapping_add(portion.skipped);
        let mut offset = self.packet.payload_offset + portion.skipped;
        let mut remaining = self.facts.payload_length - portion.skipped;
        let mut captured = portion.captured;
        let mut syn = TCP_SYN;
        for _ in 1..MAX_PIECES {
            if captured <= MOST {
                break;
            }
            let piece = Piece {
                sequence,
                offset,
                payload_length: MOST,
                captured_length: MOST,
                flags: self.facts.flags & !(TCP_FIN | TCP_RST | TCP_SYN) | self.facts.flags & syn,
                marks: marks & !MARK_CREDIT | MARK_MORE,
                wakes: false,
            };
            let record = self.reserve::<{ SIZE_CLASSES[SIZE_CLASSES.len() - 1] }>(&piece, ring);
            self.tell_record(record, &piece, ring);
            sequence = sequence.wrapping_add(MOST).wrapping_add(u32::from(self.facts.flags & syn != 0));
            syn = 0;
            offset += MOST;
            remaining -= MOST;
            captured -= MOST;
        }
        let captured_length = if captured > MOST { MOST } else { captured };
        let flags = self.facts.flags & !TCP_SYN | self.facts.flags & syn;
        let wakes = portion.wakes;
        let piece =
            Piece { sequence, offset, payload_length: remaining, captured_length, flags, marks, wakes };
        if captured > MOST {
            self.counters.add(Counter::BytesTruncated, u64::from(captured - captured_length));
        }
        // The last piece stands for the packet: the reader counts those. What others lost is counted in bytes.
        self.count_segment(self.tell_record(self.reserve_sized(&piece, ring), &piece, ring));
    }

    /// Counts the payload that is left out on purpose.
    #[inline(always)]
    fn count_left_out(&self, portion: &Portion) {
        if portion.marks == 0 {
            return;
        }
        self.counters.add(Counter::BytesSkipped, u64::from(portion.skipped));
        self.counters.add(Counter::BytesOverCredit, u64::from(portion.over_credit));
        self.counters.add(Counter::BytesShedBodies, u64::from(portion.shed_bodies));
        self.counters.add(Counter::BytesShedHeaders, u64::from(portion.shed_headers));
    }

    /// Counts a segment by what became of it.
    #[inline(always)]
    fn count_segment(&self, outcome: Told) {
        self.counters.bump(match outcome {
            Told::Sent => Counter::SegmentsSent,
            Told::RingFull => Counter::SegmentsRingFull,
            Told::Unreadable => Counter::SegmentsUnreadable,
        });
    }

    /// A record of the smallest class that fits, with the payload in it.
    #[inline(always)]
    fn reserve_sized(&self, piece: &Piece, ring: Ring) -> Record {
        let addresses = if self.is_long() { LONG_ADDRESSES } else { 0 };
        let size = piece.captured_length as usize + HEADER_LENGTH + addresses;
        macro_rules! smallest {
            ($($class:literal)+) => {
                $(if size <= SIZE_CLASSES[$class] {
                    return self.reserve::<{ SIZE_CLASSES[$class] }>(piece, ring);
                })+
            };
        }
        smallest!(0 1 2 3 4 5 6 7 8 9 10 11 12);
        self.reserve::<{ SIZE_CLASSES[13] }>(piece, ring)
    }

    /// A record of `CLASS` bytes with what its place depends on. Only this is there once for every class: the rest is written
    /// by one piece of code, of which less has to be fetched.
    #[inline(always)]
    fn reserve<const CLASS: usize>(&self, piece: &Piece, ring: Ring) -> Record {
        let base = ring.reserve::<CLASS>();
        if base.is_null() {
            return Record { base, unreadable: false };
        }
        if self.is_long() {
            // SAFETY: the last bytes of the record, which is aligned to 8 as its size is.
            unsafe {
                let addresses: *mut LongAddresses = base.add(CLASS - LONG_ADDRESSES).cast();
                (*addresses).local = self.key.local_address;
                (*addresses).remote = self.key.remote_address;
            }
        }
        let mut unreadable = false;
        if piece.captured_length != 0 {
            let length = within(piece.captured_length, (CLASS - HEADER_LENGTH) as u32);
            // SAFETY: the record has CLASS bytes, of which HEADER_LENGTH + length are within.
            let read = unsafe {
                let to = base.add(HEADER_LENGTH).cast();
                bpf_skb_load_bytes(self.context.skb.skb.cast(), piece.offset, to, length)
            };
            unreadable = read != 0;
        }
        Record { base, unreadable }
    }

    /// Whether the addresses do not fit the header.
    #[inline(always)]
    fn is_long(&self) -> bool {
        self.packet.ip_version == 6
    }

    #[inline(always)]
    fn tell_record(&self, record: Record, piece: &Piece, ring: Ring) -> Told {
        if record.base.is_null() {
            self.lose(piece.captured_length);
            return Told::RingFull;
        }
        let captured = if record.unreadable { 0 } else { piece.captured_length };
        let looks = piece.captured_length >= LARGE_PAYLOAD
            || self.counters.of(Counter::RecordsSent).is_multiple_of(RECORDS_PER_LOOK);
        // SAFETY: the record is at least HEADER_LENGTH bytes and aligned, and is not used after it is submitted.
        unsafe {
            self.write(record.base.cast(), piece, captured);
            ring.submit(record.base, looks, piece.wakes, self.counters);
        }
        self.counters.bump(Counter::RecordsSent);
        self.counters.add(Counter::BytesSent, u64::from(captured));
        if record.unreadable {
            self.counters.add(Counter::BytesUnreadable, u64::from(piece.captured_length));
            return Told::Unreadable;
        }
        Told::Sent
    }

    /// # Safety
    /// `header` points to an aligned record that can hold one.
    #[inline(always)]
    unsafe fn write(&self, header: *mut SegmentHeader, piece: &Piece, captured: u32) {
        // SAFETY: the caller's promise; state is an element of the map, see `ConnectionState`.
        unsafe {
            let mut marks = piece.marks;
            let mut kind = self.facts.direction | (self.end.scope_kind << KIND_SCOPE_SHIFT) as u8;
            let mut generation = 0;
            if !self.state.is_null() {
                let state = self.state;
                let lost = ptr::read_volatile(&raw const (*state).lost);
                if lost != ptr::read_volatile(&raw const (*state).told) {
                    marks |= MARK_CONNECTION_LOST;
                    ptr::write_volatile(&raw mut (*state).told, lost);
                }
                generation = (*state).generation;
                kind |= (*state).generation_known * KIND_GENERATION_KNOWN;
            }
            (*header).time_ns = self.end.now;
            (*header).cgroup_id = self.end.cgroup;
            (*header).socket_cookie = self.end.cookie;
            if self.is_long() {
                kind |= KIND_LONG_ADDRESSES;
            }
            (*header).local_address = last_four(&self.key.local_address);
            (*header).remote_address = last_four(&self.key.remote_address);
            (*header).local_port = self.key.local_port;
            (*header).remote_port = self.key.remote_port;
            (*header).sequence = piece.sequence;
            (*header).acknowledgement = self.facts.acknowledgement;
            (*header).payload_length = piece.payload_length;
            (*header).captured_length = captured;
            (*header).generation = generation;
            (*header).interface_index = self.end.interface;
            (*header).tcp_flags = piece.flags;
            (*header).kind = kind;
            (*header).marks = marks;
            (*header).version = LAYOUT_VERSION;
        }
    }

    /// Counts a failed reservation where it will be told; the ring itself has done so.
    #[inline(always)]
    fn lose(&self, captured: u32) {
        self.counters.add(Counter::BytesRingFull, u64::from(captured));
        if !self.state.is_null() {
            // SAFETY: an element of the map, aligned, written by atomic adds only.
            unsafe { atomic_add(&raw mut (*self.state).lost, 1) };
        }
    }
}

/// The IPv4 address that is mapped, if one is.
#[inline(always)]
pub(crate) fn last_four(address: &[u8; 16]) -> [u8; 4] {
    let [.., a, b, c, d] = *address;
    [a, b, c, d]
}

/// `length`, which is not 0, kept to `most` in a way that every verifier from 5.10 on can follow.
#[inline(always)]
pub(crate) fn within(length: u32, most: u32) -> u32 {
    let mut last = u64::from(length) - 1;
    // Hides from the compiler what it knows: it would fold the test into one of another register, and the verifier
    // would see no bound on this one. An empty template would give line info that the kernel refuses.
    // SAFETY: moves a register to itself.
    unsafe { asm!("{0} = {0}", inout(reg) last) };
    if last > u64::from(most) - 1 {
        last = u64::from(most) - 1;
    }
    last as u32 + 1
}
