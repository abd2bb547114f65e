//! The ring of a connection: reservation, wake-up, and what it lost. Knows nothing of what is in a record.

use core::ptr;

use aya_ebpf::{
    bindings::{BPF_RB_AVAIL_DATA, BPF_RB_FORCE_WAKEUP, BPF_RB_NO_WAKEUP},
    cty::c_void,
    helpers::{bpf_ringbuf_query, bpf_ringbuf_reserve, bpf_ringbuf_submit},
};
use pod2pod_common::{counters::Counter, flow::FlowKey, segment::RingState};

use crate::{
    count::{Counters, atomic_add},
    maps::{RING_COUNT, RINGS, SEGMENTS, WAKE_THRESHOLD},
};

/// After so many small records of a CPU it looks how far the ring has filled: at most 8 KiB later than with every record, of
/// the 64 KiB at which the smallest ring wakes its reader.
const RECORDS_PER_LOOK: u64 = 8;
/// A record that is looked after at once. Bytes.
const LARGE_RECORD: usize = 2048;

/// A ring buffer and the kernel side's state of it.
#[derive(Clone, Copy)]
pub(crate) struct Ring {
    buffer: *mut c_void,
    state: *mut RingState,
    index: u8,
}

impl Ring {
    /// The ring that carries a connection; absent only if user space put none in.
    #[inline(always)]
    pub(crate) fn of(key: &FlowKey) -> Option<Self> {
        let index = key.ring(RING_COUNT.load());
        let state = RINGS.get_ptr_mut(index)?;
        let buffer = ptr::from_ref(SEGMENTS.get(index)?).cast_mut().cast();
        Some(Self { buffer, state, index: index as u8 })
    }

    /// Which of the rings it is.
    #[inline(always)]
    pub(crate) const fn index(&self) -> u8 {
        self.index
    }

    /// Failed reservations since load.
    #[inline(always)]
    pub(crate) fn lost(&self) -> u64 {
        // SAFETY: an element of the map; the kernel adds to it, nobody else writes.
        unsafe { ptr::read_volatile(&raw const (*self.state).lost) }
    }

    /// Reserves a record of `CLASS` bytes, aligned to 8 (kernel/bpf/ringbuf.c); what comes of it is to be submitted. A
    /// failure is counted.
    #[inline(always)]
    pub(crate) fn reserve<const CLASS: usize>(&self) -> Option<*mut u8> {
        // SAFETY: the buffer is a ring buffer map.
        let record = unsafe { bpf_ringbuf_reserve(self.buffer, CLASS as u64, 0) };
        if record.is_null() {
            // SAFETY: an element of the map, aligned, written by atomic adds only.
            unsafe { atomic_add(&raw mut (*self.state).lost, 1) };
            return None;
        }
        Some(record.cast())
    }

    /// Hands on a record, and wakes the reader if the ring fills, or if `wakes` says so.
    ///
    /// # Safety
    /// `record` comes from [`Self::reserve`] and is not used again.
    #[inline(always)]
    pub(crate) unsafe fn submit<const CLASS: usize>(&self, record: *mut u8, wakes: bool, counters: Counters) {
        let mut flags = u64::from(BPF_RB_NO_WAKEUP);
        if CLASS >= LARGE_RECORD || counters.of(Counter::RecordsSent).is_multiple_of(RECORDS_PER_LOOK) {
            flags = self.wake_up(counters);
        }
        if wakes {
            counters.bump(Counter::CreditWakeups);
            flags = u64::from(BPF_RB_FORCE_WAKEUP);
        }
        // SAFETY: the caller's promise.
        unsafe { bpf_ringbuf_submit(record.cast(), flags) };
    }

    /// No wake-up, but one when the ring has filled to the threshold.
    #[inline(always)]
    fn wake_up(&self, counters: Counters) -> u64 {
        // SAFETY: the buffer is a ring buffer map.
        let unread = unsafe { bpf_ringbuf_query(self.buffer, u64::from(BPF_RB_AVAIL_DATA)) };
        let filling = u64::from(unread >= WAKE_THRESHOLD.load());
        // SAFETY: an element of the map. Two CPUs may both see the crossing: then the reader is woken twice.
        unsafe {
            let woken = &raw mut (*self.state).woken;
            if ptr::read_volatile(woken) != filling {
                ptr::write_volatile(woken, filling);
                if filling != 0 {
                    counters.bump(Counter::RingWakeups);
                    return u64::from(BPF_RB_FORCE_WAKEUP);
                }
            }
        }
        u64::from(BPF_RB_NO_WAKEUP)
    }
}
