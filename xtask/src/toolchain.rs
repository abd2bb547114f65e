//! The eBPF toolchain, named once: versions, target, places. It installs nothing.

use std::path::PathBuf;

use anyhow::{Context as _, Result};

use crate::cmd::{self, Cmd};

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

/// Packages that check it: some of its dependencies compile C for their target even so.
pub(crate) const OTHER_PACKAGES: [&str; 2] = if cfg!(target_arch = "x86_64") {
    ["gcc-aarch64-linux-gnu", "libc6-dev-arm64-cross"]
} else {
    ["gcc-x86-64-linux-gnu", "libc6-dev-amd64-cross"]
};

/// Whether the Rust standard library is there for `target`.
///
/// # Errors
/// There is no rustc.
pub(crate) fn has_library(target: &str) -> Result<bool> {
    let said = Cmd::new("rustc").args(["--print", "sysroot"]).ask().context("there is no rustc on PATH")?;
    Ok(PathBuf::from(said.trim()).join("lib/rustlib").join(target).join("lib").exists())
}

/// Flags for rustc: what it writes names no path of this machine, so that the same sources make the same program anywhere.
///
/// # Errors
/// There is no rustc, or nobody says where cargo keeps its sources.
pub(crate) fn without_places() -> Result<Vec<String>> {
    let said = Cmd::new("rustc").args(["--print", "sysroot"]).ask().context("there is no rustc on PATH")?;
    let home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cargo")));
    let registry = home.context("neither CARGO_HOME nor HOME is set")?.join("registry/src");
    let places = [
        (cmd::workspace(), "/pod2pod"),
        (registry, "/crates"),
        (PathBuf::from(said.trim()).join("lib/rustlib/src/rust"), "/rust"),
    ];
    Ok(places.map(|(from, to)| format!("--remap-path-prefix={}={to}", from.display())).to_vec())
}

/// Where LLVM is installed.
pub(crate) fn llvm_prefix() -> PathBuf {
    PathBuf::from(format!("/usr/lib/llvm-{LLVM}"))
}

/// The programs of the kernel side, each an object of its own that pod2pod-user's build script embeds.
pub(crate) const OBJECTS: [&str; 2] = ["pod2pod-ebpf", "pod2pod-ipvs"];

/// Where the object called `name` is put.
pub(crate) fn object(name: &str) -> PathBuf {
    cmd::workspace().join(format!("target/{name}.o"))
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
