//! One segment into the ring: reserve the smallest class that fits, load the payload straight into it, submit without
//! waking anybody unless the ring is filling up.

use core::ptr;

use aya_ebpf::{
    bindings::{BPF_RB_AVAIL_DATA, BPF_RB_CONS_POS, BPF_RB_FORCE_WAKEUP, BPF_RB_NO_WAKEUP},
    helpers::generated::{bpf_ringbuf_discard, bpf_ringbuf_reserve, bpf_ringbuf_submit, bpf_skb_load_bytes},
    programs::sk_buff::SkBuff,
};
use pod2pod_common::{
    counters::Counter,
    limits::MAX_PIECES,
    segment::{
        HEADER_LENGTH, MARK_CONNECTION_LOST, MARK_MORE, MAX_RECORD_PAYLOAD, SIZE_CLASSES, SegmentHeader,
        TCP_FIN,
    },
};

use crate::{
    count::{add, atomic_add, count},
    maps::{RING_LOST, RING_WOKEN, SEGMENTS, WAKE_THRESHOLD},
    packet::bounded,
};

/// Sends `header` with `length` payload bytes at `offset`; in several records, each a segment of its own, if one does
/// not hold them.
///
/// # Errors
/// Something of the segment was lost; it is counted.
#[inline(always)]
pub(crate) fn emit(skb: &SkBuff, header: &mut SegmentHeader, offset: u32, length: u32) -> Result<(), ()> {
    let flags = header.tcp_flags;
    let mut left = length;
    let mut piece = 0;
    while piece < MAX_PIECES {
        let last = left <= MAX_RECORD_PAYLOAD as u32;
        let size = if last { left } else { MAX_RECORD_PAYLOAD as u32 };
        header.payload_length = size;
        header.tcp_flags = if last { flags } else { flags & !TCP_FIN };
        if !last {
            header.marks |= MARK_MORE;
        }
        if let Err(reason) = emit_record(skb, header, offset + (length - left), size) {
            return lose(reason, left);
        }
        if last {
            count(Counter::SegmentsSent);
            return Ok(());
        }
        left -= size;
        header.sequence = header.sequence.wrapping_add(size);
        header.marks &= !(MARK_CONNECTION_LOST | MARK_MORE);
        piece += 1;
    }
    // Larger than any packet the kernel builds.
    count(Counter::SegmentsSent);
    add(Counter::BytesTruncated, u64::from(left));
    Err(())
}

/// Counts a segment whose last `bytes` payload bytes were lost.
#[inline(always)]
fn lose(reason: Counter, bytes: u32) -> Result<(), ()> {
    count(reason);
    let of_bytes = if reason as u32 == Counter::SegmentsRingFull as u32 {
        Counter::BytesRingFull
    } else {
        Counter::BytesUnreadable
    };
    add(of_bytes, u64::from(bytes));
    Err(())
}

#[inline(always)]
fn emit_record(skb: &SkBuff, header: &mut SegmentHeader, offset: u32, length: u32) -> Result<(), Counter> {
    header.captured_length = length;
    header.ring_lost = RING_LOST.get(u32::from(header.ring)).copied().unwrap_or(0);
    let size = length as usize + HEADER_LENGTH;
    if size <= SIZE_CLASSES[0] {
        emit_class::<{ SIZE_CLASSES[0] }>(skb, header, offset, length)
    } else if size <= SIZE_CLASSES[1] {
        emit_class::<{ SIZE_CLASSES[1] }>(skb, header, offset, length)
    } else if size <= SIZE_CLASSES[2] {
        emit_class::<{ SIZE_CLASSES[2] }>(skb, header, offset, length)
    } else if size <= SIZE_CLASSES[3] {
        emit_class::<{ SIZE_CLASSES[3] }>(skb, header, offset, length)
    } else if size <= SIZE_CLASSES[4] {
        emit_class::<{ SIZE_CLASSES[4] }>(skb, header, offset, length)
    } else if size <= SIZE_CLASSES[5] {
        emit_class::<{ SIZE_CLASSES[5] }>(skb, header, offset, length)
    } else {
        emit_class::<{ SIZE_CLASSES[6] }>(skb, header, offset, length)
    }
}

#[inline(always)]
fn emit_class<const SIZE: usize>(
    skb: &SkBuff,
    header: &SegmentHeader,
    offset: u32,
    length: u32,
) -> Result<(), Counter> {
    let ring = ptr::from_ref(&SEGMENTS).cast_mut().cast();
    // SAFETY: `ring` is a ring-buffer map and SIZE a constant.
    let record = unsafe { bpf_ringbuf_reserve(ring, SIZE as u64, 0) }.cast::<u8>();
    if record.is_null() {
        if let Some(lost) = RING_LOST.get_ptr_mut(u32::from(header.ring)) {
            atomic_add(lost, 1);
        }
        return Err(Counter::SegmentsRingFull);
    }
    // SAFETY: the reservation has SIZE >= HEADER_LENGTH bytes and is aligned to 8.
    unsafe { ptr::write(record.cast::<SegmentHeader>(), *header) };
    if length > 0 {
        let bytes = bounded(length, (SIZE - HEADER_LENGTH) as u32);
        // SAFETY: `bytes` is at most SIZE - HEADER_LENGTH, which is what is left behind the header.
        let result =
            unsafe { bpf_skb_load_bytes(skb.skb.cast(), offset, record.add(HEADER_LENGTH).cast(), bytes) };
        if result != 0 {
            // SAFETY: `record` is a live reservation, not used after this.
            unsafe { bpf_ringbuf_discard(record.cast(), u64::from(BPF_RB_NO_WAKEUP)) };
            return Err(Counter::SegmentsUnreadable);
        }
    }
    let flags = wakeup_flags(header.ring);
    // SAFETY: `record` is a live reservation, not used after this.
    unsafe { bpf_ringbuf_submit(record.cast(), flags) };
    count(Counter::RecordsSent);
    add(Counter::BytesSent, u64::from(length));
    Ok(())
}

/// Wakes the reader once per crossing of the threshold: while it is behind, a further wake-up is worth its price only
/// after it has read half a threshold more.
#[inline(always)]
fn wakeup_flags(ring: u8) -> u64 {
    let threshold = WAKE_THRESHOLD.load();
    if SEGMENTS.query(u64::from(BPF_RB_AVAIL_DATA)) < threshold {
        return u64::from(BPF_RB_NO_WAKEUP);
    }
    let read = SEGMENTS.query(u64::from(BPF_RB_CONS_POS));
    let Some(woken) = RING_WOKEN.get_ptr_mut(u32::from(ring)) else {
        return u64::from(BPF_RB_NO_WAKEUP);
    };
    // SAFETY: a map value, alive for the program's run; a lost race costs one wake-up more or one less.
    let last = unsafe { *woken };
    if last != 0 && read.wrapping_sub(last - 1) < threshold / 2 {
        return u64::from(BPF_RB_NO_WAKEUP);
    }
    // SAFETY: as above.
    unsafe { *woken = read + 1 };
    count(Counter::RingWakeups);
    u64::from(BPF_RB_FORCE_WAKEUP)
}
