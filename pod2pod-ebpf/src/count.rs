//! Counters of this CPU, looked up once a packet, and the atomic addition that all counts are made with.

use core::{arch::asm, ptr};

use pod2pod_common::counters::{COUNTERS as COUNT, Counter};

use crate::maps::COUNTERS;

/// The counters of the CPU that runs the program.
#[derive(Clone, Copy)]
pub(crate) struct Counters(*mut u64);

impl Counters {
    /// Looks them up; absent only if the map were too small.
    #[inline(always)]
    pub(crate) fn of_this_cpu() -> Option<Self> {
        COUNTERS.get_ptr_mut(0).map(|values| Self(values.cast()))
    }

    /// Adds one.
    #[inline(always)]
    pub(crate) fn bump(self, counter: Counter) {
        self.add(counter, 1);
    }

    /// What a counter has come to.
    #[inline(always)]
    pub(crate) fn of(self, counter: Counter) -> u64 {
        let index = counter as usize;
        // SAFETY: the map's value holds COUNT words, and index is below that.
        if index < COUNT { unsafe { ptr::read_volatile(self.0.add(index)) } } else { 0 }
    }

    /// Adds `amount`, atomically: an interrupt may add to the same counter between our load and store.
    #[inline(always)]
    pub(crate) fn add(self, counter: Counter, amount: u64) {
        let index = counter as usize;
        if index < COUNT {
            // SAFETY: the map's value holds COUNT words, and index is below that.
            unsafe { atomic_add(self.0.add(index), amount) };
        }
    }
}

/// Adds without a result: `BPF_ATOMIC | BPF_ADD`, the only atomic operation that Linux 5.10 knows. `core` offers none for
/// this target.
///
/// # Safety
/// `value` is an aligned word of a map element.
#[inline(always)]
pub(crate) unsafe fn atomic_add(value: *mut u64, amount: u64) {
    // SAFETY: the caller's promise; nothing but that word is written.
    unsafe { asm!("lock *(u64 *)({0} + 0) += {1}", in(reg) value, in(reg) amount) };
}
