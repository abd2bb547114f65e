//! The ring of a connection: reservation, wake-up, and what it lost. Knows nothing of what is in a record.

use core::ptr;

use aya_ebpf::{
    bindings::{BPF_RB_AVAIL_DATA, BPF_RB_FORCE_WAKEUP, BPF_RB_NO_WAKEUP, BPF_RB_RING_SIZE},
    cty::c_void,
    helpers::{bpf_ringbuf_query, bpf_ringbuf_reserve, bpf_ringbuf_submit},
};
use pod2pod_common::{counters::Counter, flow::FlowKey, segment::RingState};

use crate::{
    atomic::atomic_add,
    count::Counters,
    maps::{RING_COUNT, RINGS, SEGMENTS, WAKE_THRESHOLD},
};

/// A ring buffer, and which of them it is.
#[derive(Clone, Copy)]
pub(crate) struct Ring {
    buffer: *mut c_void,
    index: u32,
}

impl Ring {
    /// The ring that carries a connection; absent only if user space put none in.
    #[inline(always)]
    pub(crate) fn of(key: &FlowKey) -> Option<Self> {
        let index = key.ring(RING_COUNT.load());
        let buffer = ptr::from_ref(SEGMENTS.get(index)?).cast_mut().cast();
        Some(Self { buffer, index })
    }

    /// What the kernel side keeps of it: looked up where it is needed, which is seldom.
    #[inline(always)]
    fn state(&self) -> Option<*mut RingState> {
        RINGS.get_ptr_mut(self.index)
    }

    /// Reserves a record of `CLASS` bytes, aligned to 8 (kernel/bpf/ringbuf.c); what comes of it is to be submitted. A
    /// failure is counted and gives null.
    #[inline(always)]
    pub(crate) fn reserve<const CLASS: usize>(&self) -> *mut u8 {
        // SAFETY: the buffer is a ring buffer map.
        let record = unsafe { bpf_ringbuf_reserve(self.buffer, CLASS as u64, 0) };
        if record.is_null()
            && let Some(state) = self.state()
        {
            // SAFETY: an element of the map, aligned, written by atomic adds only.
            unsafe { atomic_add(&raw mut (*state).lost, 1) };
        }
        record.cast()
    }

    /// Whether half of it is unread.
    #[inline(always)]
    pub(crate) fn is_half_full(&self) -> bool {
        // SAFETY: the buffer is a ring buffer map.
        let (unread, size) = unsafe {
            (
                bpf_ringbuf_query(self.buffer, u64::from(BPF_RB_AVAIL_DATA)),
                bpf_ringbuf_query(self.buffer, u64::from(BPF_RB_RING_SIZE)),
            )
        };
        unread >= size / 2
    }

    /// Hands on a record, and wakes the reader if `looks` finds that the ring fills, or if `wakes` says so.
    ///
    /// # Safety
    /// `record` comes from [`Self::reserve`] and is not used again.
    #[inline(always)]
    pub(crate) unsafe fn submit(&self, record: *mut u8, looks: bool, wakes: bool, counters: Counters) {
        let mut flags = u64::from(BPF_RB_NO_WAKEUP);
        if looks {
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
        let Some(state) = self.state() else { return u64::from(BPF_RB_NO_WAKEUP) };
        // SAFETY: an element of the map. Two CPUs may both see the crossing: then the reader is woken twice.
        unsafe {
            let woken = &raw mut (*state).woken;
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
