//! Makes the verifier forget what it knows of a number, so that it walks what follows once and not once for every way
//! that led there.
//!
//! Changes no value. Without it the programs are past the limit of a million instructions.

use core::ptr;

/// `value`, of which the verifier knows nothing but the number of its bits: it follows numbers into memory whole only, and
/// this takes half of one out again.
#[inline(always)]
pub(crate) fn number(value: u32) -> u32 {
    let mut cell = 0_u64;
    // SAFETY: the cell, and half of it.
    unsafe {
        ptr::write_volatile(&raw mut cell, u64::from(value) << 32 | u64::from(value));
        ptr::read_volatile((&raw const cell).cast::<u32>().add(1))
    }
}

/// The same for a condition.
#[inline(always)]
pub(crate) fn flag(value: bool) -> bool {
    number(u32::from(value)) != 0
}
