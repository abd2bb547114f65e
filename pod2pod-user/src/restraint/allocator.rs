//! What the allocator keeps of what was given back: a burst must not look like need for ever after.

/// Gives unused pages of the heap back to the kernel. Walks the heap: milliseconds, so not for every second.
pub fn trim() {
    // SAFETY: malloc_trim(3) may be called at any time, by any thread.
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::malloc_trim(0);
    }
}
