//! The eBPF object that is built into this binary. Empty if there was none at build time.

/// The object file, or nothing.
static EMBEDDED: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/pod2pod-ebpf.o"));

/// The object file, if one was built in.
pub(super) fn embedded() -> Option<&'static [u8]> {
    if EMBEDDED.is_empty() { None } else { Some(EMBEDDED) }
}
