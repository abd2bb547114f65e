//! The one atomic operation that counters are added with, in every object.

use core::arch::asm;

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
