//! Counters of this CPU, looked up once a packet.

use core::ptr;

use pod2pod_common::counters::{COUNTERS as COUNT, Counter};

use crate::{atomic::atomic_add, maps::COUNTERS};

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
