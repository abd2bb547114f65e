//! Embeds the eBPF object that `cargo xtask build-ebpf` made, or an empty stub, so that a plain `cargo check` or
//! `cargo test` needs no eBPF toolchain. Builds nothing itself.

use std::{env, fs, path::PathBuf};

/// Overrides where the object is looked for.
const OBJECT_VARIABLE: &str = "POD2POD_EBPF_OBJECT";

fn main() {
    println!("cargo::rerun-if-env-changed={OBJECT_VARIABLE}");
    let object = env::var_os(OBJECT_VARIABLE).map_or_else(
        || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../target/pod2pod-ebpf.o"),
        PathBuf::from,
    );
    // Cargo also runs this again when a named file appears.
    println!("cargo::rerun-if-changed={}", object.display());
    let bytes = fs::read(&object).unwrap_or_default();
    let out = PathBuf::from(env::var_os("OUT_DIR").unwrap_or_default()).join("pod2pod-ebpf.o");
    if let Err(error) = fs::write(&out, bytes) {
        println!("cargo::error=cannot write {}: {error}", out.display());
    }
}
