//! The eBPF toolchain, named once: versions, target, places. It runs and installs nothing.

use std::path::PathBuf;

use crate::cmd;

/// LLVM that the BPF linker is built against: the major version of rustc's own, or bitcode is not understood.
pub(crate) const LLVM: &str = "22";
/// Version of bpf-linker.
pub(crate) const BPF_LINKER: &str = "0.13.0";
/// Removes DWARF from the object and leaves BTF; older ones remove both.
pub(crate) const STRIP: &str = "llvm-strip-22";
/// The package that has it, and with it the libLLVM that a built linker needs.
pub(crate) const STRIP_PACKAGE: &str = "llvm-22";
/// Packages that building the linker needs besides.
pub(crate) const BUILD_PACKAGES: [&str; 3] = ["llvm-22-dev", "libzstd-dev", "libpolly-22-dev"];

/// The BPF target with the byte order of this machine.
pub(crate) const TARGET: &str =
    if cfg!(target_endian = "big") { "bpfeb-unknown-none" } else { "bpfel-unknown-none" };

/// The daemon's other target: it is checked, not built, as building would need that target's linker.
pub(crate) const OTHER_TARGET: &str =
    if cfg!(target_arch = "x86_64") { "aarch64-unknown-linux-gnu" } else { "x86_64-unknown-linux-gnu" };

/// Where LLVM is installed.
pub(crate) fn llvm_prefix() -> PathBuf {
    PathBuf::from(format!("/usr/lib/llvm-{LLVM}"))
}

/// The object that pod2pod-user's build script embeds.
pub(crate) fn object() -> PathBuf {
    cmd::workspace().join("target/pod2pod-ebpf.o")
}

/// What is fetched or built once a machine, outside the clone so that it survives it.
pub(crate) fn cache() -> PathBuf {
    let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    variable("POD2POD_CACHE")
        .or_else(|| variable("XDG_CACHE_HOME").map(|cache| cache.join("pod2pod")))
        .or_else(|| variable("HOME").map(|home| home.join(".cache/pod2pod")))
        .unwrap_or_else(|| cmd::workspace().join("target/cache"))
}

/// Tools of our own.
pub(crate) fn tools() -> PathBuf {
    cache().join("tools")
}

/// `PATH` with our tools first.
pub(crate) fn path() -> std::ffi::OsString {
    let mut path = tools().join("bin").into_os_string();
    path.push(":");
    path.push(std::env::var_os("PATH").unwrap_or_default());
    path
}
