//! Embeds the eBPF object that `cargo xtask build-ebpf` built, or an empty stub: a machine without the eBPF toolchain
//! builds and tests everything else.

use std::{
    env, fs,
    fs::File,
    io,
    path::{Path, PathBuf},
    time::SystemTime,
};

/// Names another object than the workspace's.
const OBJECT_VARIABLE: &str = "POD2POD_EBPF_OBJECT";
/// Where xtask puts the object, from the workspace's root on.
const OBJECT_PATH: &str = "target/pod2pod-ebpf.o";

fn main() -> io::Result<()> {
    println!("cargo::rerun-if-env-changed={OBJECT_VARIABLE}");
    let object = match env::var_os(OBJECT_VARIABLE).filter(|path| !path.is_empty()) {
        Some(path) => PathBuf::from(path),
        None => {
            let workspace = directory("CARGO_MANIFEST_DIR")?.join("..");
            let object = workspace.join(OBJECT_PATH);
            ensure_exists(&object)?;
            object
        }
    };
    println!("cargo::rerun-if-changed={}", object.display());
    let embedded = directory("OUT_DIR")?.join("pod2pod-ebpf.o");
    fs::copy(&object, &embedded)
        .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", object.display())))?;
    Ok(())
}

/// Leaves an empty file where the object will be. Cargo takes a missing file for a changed one, and would build this
/// crate anew each time; an old and empty one it sees replaced.
fn ensure_exists(object: &Path) -> io::Result<()> {
    if object.exists() {
        return Ok(());
    }
    if let Some(directory) = object.parent() {
        fs::create_dir_all(directory)?;
    }
    File::create(object)?.set_modified(SystemTime::UNIX_EPOCH)
}

fn directory(variable: &str) -> io::Result<PathBuf> {
    env::var_os(variable)
        .map(PathBuf::from)
        .ok_or_else(|| io::Error::other(format!("cargo did not set {variable}")))
}
