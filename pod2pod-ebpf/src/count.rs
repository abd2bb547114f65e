//! Counters. An atomic add without result: a plain one loses counts between process and interrupt context, and one
//! with a result is refused by 5.10.

use pod2pod_common::counters::Counter;

use crate::maps::COUNTERS;

/// Adds 1 to `counter`.
#[inline(always)]
pub(crate) fn count(counter: Counter) {
    add(counter, 1);
}

/// Adds `amount` to `counter`.
#[inline(always)]
pub(crate) fn add(counter: Counter, amount: u64) {
    if let Some(slot) = COUNTERS.get_ptr_mut(counter as u32) {
        atomic_add(slot, amount);
    }
}

/// Adds to a map value that others may be adding to.
#[inline(always)]
pub(crate) fn atomic_add(slot: *mut u64, amount: u64) {
    // SAFETY: `slot` is a map value: aligned to 8, alive for the program's run. The instruction is BPF_ATOMIC | BPF_ADD
    // without BPF_FETCH; core has no fetch_add for this target.
    unsafe { core::arch::asm!("lock *(u64 *)({0} + 0) += {1}", in(reg) slot, in(reg) amount) };
}
