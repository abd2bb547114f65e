//! Reserve, fill, submit; count what did not fit. One copy, from the packet into the ring.
//!
//! Fields are written into the record one by one: a header that is built on the stack first is a set of constants to
//! the verifier, and every combination of them another state to walk.

use core::{arch::asm, ptr};

use aya_ebpf::{helpers::bpf_skb_load_bytes, programs::SkBuffContext};
use pod2pod_common::{
    counters::Counter,
    flow::{ConnectionState, FlowKey},
    gate::Facts,
    limits::MAX_PIECES,
    portion::Portion,
    segment::{
        HEADER_LENGTH, LAYOUT_VERSION, MARK_CONNECTION_LOST, MARK_CREDIT, MARK_MORE, MAX_RECORD_PAYLOAD,
        SIZE_CLASSES, SegmentHeader, TCP_FIN, TCP_RST, TCP_SYN,
    },
};

use crate::{
    count::{Counters, atomic_add},
    headers::Packet,
    ring::Ring,
    segment::End,
};

/// Payload of a record of the largest class.
const MOST: u32 = MAX_RECORD_PAYLOAD as u32;

/// What became of one record.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Told {
    Sent,
    RingFull,
    Unreadable,
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
    /// Absent if the state table does not hold the connection.
    pub(crate) state: Option<*mut ConnectionState>,
}

impl Telling<'_> {
    /// Tells a segment without its payload.
    #[inline(always)]
    pub(crate) fn tell_length(&self) -> Told {
        let Some(ring) = Ring::of(self.key) else { return Told::RingFull };
        let piece = Piece {
            sequence: self.facts.sequence,
            offset: self.packet.payload_offset,
            payload_length: self.facts.payload_length,
            captured_length: 0,
            flags: self.facts.flags,
            marks: 0,
            wakes: false,
        };
        self.tell_record::<{ SIZE_CLASSES[0] }>(&piece, ring)
    }

    /// Tells a segment with the portion of its payload that is sent, in as many records as it takes.
    #[inline(always)]
    pub(crate) fn tell(&self, portion: &Portion) {
        self.count_left_out(portion);
        let Some(ring) = Ring::of(self.key) else { return };
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
            self.tell_record::<{ SIZE_CLASSES[SIZE_CLASSES.len() - 1] }>(&piece, ring);
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
        self.counters.add(Counter::BytesTruncated, u64::from(captured - captured_length));
        // The last piece stands for the packet: the reader counts those. What others lost is counted in bytes.
        self.count_segment(self.tell_sized(&piece, ring));
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
    pub(crate) fn count_segment(&self, outcome: Told) {
        self.counters.bump(match outcome {
            Told::Sent => Counter::SegmentsSent,
            Told::RingFull => Counter::SegmentsRingFull,
            Told::Unreadable => Counter::SegmentsUnreadable,
        });
    }

    /// Tells one record in the smallest class that fits.
    #[inline(always)]
    fn tell_sized(&self, piece: &Piece, ring: Ring) -> Told {
        let size = piece.captured_length as usize + HEADER_LENGTH;
        macro_rules! smallest {
            ($($class:literal)+) => {
                $(if size <= SIZE_CLASSES[$class] {
                    return self.tell_record::<{ SIZE_CLASSES[$class] }>(piece, ring);
                })+
            };
        }
        smallest!(0 1 2 3 4 5 6 7 8);
        self.tell_record::<{ SIZE_CLASSES[9] }>(piece, ring)
    }

    #[inline(always)]
    fn tell_record<const CLASS: usize>(&self, piece: &Piece, ring: Ring) -> Told {
        let ring_lost = ring.lost();
        let Some(base) = ring.reserve::<CLASS>() else {
            self.lose(piece.captured_length);
            return Told::RingFull;
        };
        let mut captured = piece.captured_length;
        let mut told = Told::Sent;
        if captured != 0 {
            let length = within(captured, (CLASS - HEADER_LENGTH) as u32);
            // SAFETY: the record has CLASS bytes, of which HEADER_LENGTH + length are within.
            let read = unsafe {
                let to = base.add(HEADER_LENGTH).cast();
                bpf_skb_load_bytes(self.context.skb.skb.cast(), piece.offset, to, length)
            };
            if read != 0 {
                captured = 0;
                told = Told::Unreadable;
            }
        }
        // SAFETY: the record is at least HEADER_LENGTH bytes and aligned, and is not used after it is submitted.
        unsafe {
            self.write(base.cast(), piece, captured, ring_lost, ring.index());
            ring.submit::<CLASS>(base, piece.wakes, self.counters);
        }
        self.counters.bump(Counter::RecordsSent);
        self.counters.add(Counter::BytesSent, u64::from(captured));
        if told == Told::Unreadable {
            self.counters.add(Counter::BytesUnreadable, u64::from(piece.captured_length));
        }
        told
    }

    /// # Safety
    /// `header` points to an aligned record that can hold one.
    #[inline(always)]
    unsafe fn write(
        &self,
        header: *mut SegmentHeader,
        piece: &Piece,
        captured: u32,
        ring_lost: u64,
        ring: u8,
    ) {
        // SAFETY: the caller's promise; state is an element of the map, see `ConnectionState`.
        unsafe {
            let mut marks = piece.marks;
            (*header).generation = 0;
            (*header).generation_known = 0;
            if let Some(state) = self.state {
                let lost = ptr::read_volatile(&raw const (*state).lost);
                if lost != ptr::read_volatile(&raw const (*state).told) {
                    marks |= MARK_CONNECTION_LOST;
                }
                ptr::write_volatile(&raw mut (*state).told, lost);
                (*header).generation = (*state).generation;
                (*header).generation_known = (*state).generation_known;
            }
            (*header).time_ns = self.end.now;
            (*header).scope = self.end.scope();
            (*header).cgroup_id = self.end.cgroup;
            (*header).socket_cookie = self.end.cookie;
            (*header).ring_lost = ring_lost;
            (*header).local_address = self.key.local_address;
            (*header).remote_address = self.key.remote_address;
            (*header).local_port = self.key.local_port;
            (*header).remote_port = self.key.remote_port;
            (*header).sequence = piece.sequence;
            (*header).acknowledgement = self.facts.acknowledgement;
            (*header).payload_length = piece.payload_length;
            (*header).captured_length = captured;
            (*header).interface_index = self.end.interface;
            (*header).tcp_flags = piece.flags;
            (*header).direction = self.facts.direction;
            (*header).source = self.end.source;
            (*header).marks = marks;
            (*header).version = LAYOUT_VERSION;
            (*header).ip_version = self.packet.ip_version;
            (*header).ring = ring;
            (*header).scope_kind = self.end.scope_kind;
        }
    }

    /// Counts a failed reservation where it will be told; the ring itself has done so.
    #[inline(always)]
    fn lose(&self, captured: u32) {
        self.counters.add(Counter::BytesRingFull, u64::from(captured));
        if let Some(state) = self.state {
            // SAFETY: an element of the map, aligned, written by atomic adds only.
            unsafe { atomic_add(&raw mut (*state).lost, 1) };
        }
    }
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
