//! Makes the verifier forget what it knows of a number, so that it walks what follows once and not once for every way
//! that led there.
//!
//! Changes no value, and does nothing but in a program. Without it the programs are past the limit of a million instructions.

#[cfg(target_arch = "bpf")]
use core::ptr;

// The half that is taken out is the upper one.
#[cfg(all(target_arch = "bpf", target_endian = "big"))]
compile_error!("blurring is written for processors with the lower half of a number first");

/// `value`, of which the verifier knows nothing but the number of its bits: it follows numbers into memory whole only, and this
/// takes half of one out again. It follows a zero too, but the whole is none.
#[cfg(target_arch = "bpf")]
#[inline(always)]
pub fn number(value: u32) -> u32 {
    let mut cell = 0_u64;
    // SAFETY: the cell, and half of it.
    unsafe {
        ptr::write_volatile(&raw mut cell, u64::from(value) << 32 | 1);
        ptr::read_volatile((&raw const cell).cast::<u32>().add(1))
    }
}

/// `value`: only the verifier forgets.
#[cfg(not(target_arch = "bpf"))]
#[inline(always)]
pub const fn number(value: u32) -> u32 {
    value
}

/// The same for a condition.
#[inline(always)]
pub fn flag(value: bool) -> bool {
    number(u32::from(value)) != 0
}
