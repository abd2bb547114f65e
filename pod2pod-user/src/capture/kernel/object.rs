//! The eBPF objects that are built into this binary. Empty if there were none at build time.

/// The capture's object file, or nothing.
static EMBEDDED: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/pod2pod-ebpf.o"));
/// That of the probes in IPVS, or nothing.
static IPVS: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/pod2pod-ipvs.o"));

/// The capture's object file, if one was built in.
pub(super) fn embedded() -> Option<&'static [u8]> {
    Some(EMBEDDED).filter(|object| !object.is_empty())
}

/// That of the probes in IPVS, if one was built in.
pub(super) fn ipvs() -> Option<&'static [u8]> {
    Some(IPVS).filter(|object| !object.is_empty())
}
