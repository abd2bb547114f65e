//! Which stack a probe fired on, and how deep: what tells one packet's way through the kernel from another's.
//!
//! Of the functions that a hook calls, each is deeper on the stack than the hook itself. A packet that comes by an interrupt
//! meanwhile is on another stack, or deeper on this one, and it is done first.
//!
//! A stack is known by its part of the memory. Tasks' stacks begin where such a part does. Those of interrupts begin at some page
//! (`map_irq_stack`, arch/x86/kernel/irq_64.c), so one may lie in two parts: a look-up that is more than a page deep there may be in
//! another part than its hook, which then does not find it, and two of them may share a part. So no note is taken for one's own
//! unless its depth fits too; one that nobody comes back to is counted as lost with the next look-up there.

use aya_ebpf::bindings::pt_regs;

/// Stacks of the kernel begin at a multiple of this many bytes, as a power of two, on every architecture that is built for (`THREAD_SIZE`).
const STACK_SHIFT: u32 = 14;

/// Bytes that the frame of IPVS's hook has at most, with room to spare.
const MAX_FRAME: u64 = 4096;

/// Bytes between the stack at a function's entry and at its return, at most: the return address, and what a kernel's trampoline adds.
const MAX_RETURN: u64 = 64;

/// A place on a stack.
#[derive(Clone, Copy)]
pub(crate) struct Place(u64);

impl Place {
    /// Where the stack is in the registers of a probe.
    #[inline(always)]
    pub(crate) fn of(registers: *const pt_regs) -> Self {
        // SAFETY: the context of a probe is the registers.
        Self(unsafe { stack_pointer(registers) })
    }

    /// What it is noted as.
    #[inline(always)]
    pub(crate) const fn address(self) -> u64 {
        self.0
    }

    /// Which stack it is on.
    #[inline(always)]
    pub(crate) const fn stack(self) -> u64 {
        self.0 >> STACK_SHIFT
    }

    /// Whether a function that was entered at `entry` of this stack is over: another is as deep, or less.
    #[inline(always)]
    pub(crate) const fn is_past(self, entry: u64) -> bool {
        self.0 >= entry
    }

    /// Whether this is the return of the function that was entered at `entry`.
    #[inline(always)]
    pub(crate) const fn is_return_of(self, entry: u64) -> bool {
        self.0 >= entry && self.0 - entry <= MAX_RETURN
    }

    /// Whether this is the return of the function that called the one entered at `entry`. What that one called is deeper.
    #[inline(always)]
    pub(crate) const fn is_return_of_caller(self, entry: u64) -> bool {
        self.0 > entry && self.0 - entry <= MAX_FRAME
    }
}

#[cfg(bpf_target_arch = "x86_64")]
#[inline(always)]
unsafe fn stack_pointer(registers: *const pt_regs) -> u64 {
    // SAFETY: the caller's promise.
    unsafe { (*registers).rsp }
}

#[cfg(bpf_target_arch = "aarch64")]
#[inline(always)]
unsafe fn stack_pointer(registers: *const pt_regs) -> u64 {
    // SAFETY: the caller's promise.
    unsafe { (*registers).sp }
}
