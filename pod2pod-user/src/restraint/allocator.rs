//! What the process keeps and does not need: what the allocator was given back, and program text that only the start ran.
//! A burst must not look like need for ever after.

use procfs::process::{MMPermissions, MMapPath, Process};

/// That of the program in the image. The GNU C library's will do elsewhere.
#[cfg(target_env = "musl")]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Its settings, as near to what the GNU C library does as they come: few threads allocate at a time, and what they give back goes
/// to the kernel within a second.
#[cfg(target_env = "musl")]
#[used]
// SAFETY: the allocator declares it as a pointer to text that ends in a zero byte, and nothing else has that name.
#[unsafe(export_name = "_rjem_malloc_conf")]
static SETTINGS: &[u8; 47] = b"narenas:2,dirty_decay_ms:1000,muzzy_decay_ms:0\0";

/// Gives unused pages of the heap back to the kernel. Walks the heap: milliseconds, so not for every second.
pub fn trim() {
    // SAFETY: malloc_trim(3) may be called at any time, by any thread.
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::malloc_trim(0);
    }
    // SAFETY: mallctl(3) may be called at any time, by any thread; this asks for nothing and sets nothing.
    #[cfg(target_env = "musl")]
    unsafe {
        use std::ptr::null_mut;
        tikv_jemalloc_sys::mallctl(ALL_ARENAS_PURGE.as_ptr(), null_mut(), null_mut(), null_mut(), 0);
    }
}

/// In the words of jemalloc(3): `arena.<MALLCTL_ARENAS_ALL>.purge`.
#[cfg(target_env = "musl")]
const ALL_ARENAS_PURGE: &std::ffi::CStr = c"arena.4096.purge";

/// Unmaps the pages of program text; whatever runs on maps its own again from the page cache, sixteen pages a fault. Most
/// of what a start runs (settings, the object, its types) never runs again. Returns the bytes of the mappings.
///
/// # Errors
/// `/proc/self/maps` cannot be read.
pub fn forget_text() -> procfs::ProcResult<u64> {
    let mut bytes = 0;
    for map in Process::myself()?.maps()? {
        // Nothing writes to what may run and not be written, not even the loader when it relocates: the file has all of it.
        let is_text =
            map.perms.contains(MMPermissions::READ | MMPermissions::EXECUTE | MMPermissions::PRIVATE)
                && !map.perms.contains(MMPermissions::WRITE);
        if is_text && matches!(map.pathname, MMapPath::Path(_)) {
            let (start, end) = map.address;
            // SAFETY: a private mapping of a file that was never written to reads the same afterwards (madvise(2)); a mapping
            // that is gone by now is an error that changes nothing.
            if unsafe {
                libc::madvise(start as *mut libc::c_void, (end - start) as usize, libc::MADV_DONTNEED)
            } == 0
            {
                bytes += end - start;
            }
        }
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::restraint::memory;

    #[test]
    fn the_program_runs_on_without_its_text_and_is_smaller() {
        let before = memory::resident(0);
        let text = forget_text().unwrap();
        let after = memory::resident(0);
        assert!(text > 0 && after < before, "{text} bytes of text: {before} before, {after} after");
    }
}
