//! Reads of kernel memory: a field of a structure, at the offset that this kernel's BTF gave. What cannot be read is zero.

use core::{mem::size_of, ptr};

use aya_ebpf::{cty::c_void, helpers::generated::bpf_probe_read_kernel};
use pod2pod_common::decision::Field;

use crate::maps::LAYOUT;

/// linux/socket.h.
pub(crate) const IPV4: u16 = 2;

/// Numbers that may be read: any bits are one of them.
pub(crate) trait Number: Copy + Default {}
impl Number for u16 {}
impl Number for u32 {}
impl Number for u64 {}

/// Where a field of the structure at `base` is.
#[inline(always)]
pub(crate) fn place(base: u64, field: Field) -> u64 {
    // SAFETY: the global holds an offset for each field; each is loaded by itself, so that only that one is.
    let offset = unsafe { ptr::read_volatile((&raw const LAYOUT).cast::<u32>().add(field as usize)) };
    base.wrapping_add(u64::from(offset))
}

/// A field of the structure at `base`.
#[inline(always)]
pub(crate) fn number<T: Number>(base: u64, field: Field) -> T {
    let mut value = T::default();
    // SAFETY: the helper writes as many bytes as the value has, zeros if there are none to read.
    unsafe {
        bpf_probe_read_kernel(
            (&raw mut value).cast::<c_void>(),
            size_of::<T>() as u32,
            place(base, field) as *const c_void,
        )
    };
    value
}

/// `N` bytes at `address`.
#[inline(always)]
pub(crate) fn bytes<const N: usize>(address: u64, to: &mut [u8; N]) {
    // SAFETY: the helper writes N bytes, zeros if there are none to read.
    unsafe { bpf_probe_read_kernel(to.as_mut_ptr().cast(), N as u32, address as *const c_void) };
}

/// An address of `family` in a `union nf_inet_addr`, as records have it: IPv4 mapped into IPv6.
#[inline(always)]
pub(crate) fn address(from: u64, family: u16, to: &mut [u8; 16]) {
    if family == IPV4 {
        let mut own = [0; 4];
        bytes(from, &mut own);
        *to = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, own[0], own[1], own[2], own[3]];
    } else {
        bytes(from, to);
    }
}
