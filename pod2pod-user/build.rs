//! Embeds the eBPF objects that `cargo xtask build-ebpf` built, or empty stubs, and links the libpcap that `cargo xtask
//! setup` built, or none: a machine without the eBPF toolchain and libpcap builds and tests everything else.

use std::{
    env, fs,
    fs::File,
    io,
    path::{Path, PathBuf},
    time::SystemTime,
};

/// Objects: what names another one than the workspace's, and the name under which xtask puts it into `target`.
const OBJECTS: [(&str, &str); 2] =
    [("POD2POD_EBPF_OBJECT", "pod2pod-ebpf.o"), ("POD2POD_IPVS_OBJECT", "pod2pod-ipvs.o")];

/// Names another libpcap than the workspace's; needed when the target is not this machine.
const LIBPCAP_VARIABLE: &str = "POD2POD_LIBPCAP";
/// Where xtask puts the library, from the workspace's root on.
const LIBPCAP_PATH: &str = "target/libpcap.a";

fn main() -> io::Result<()> {
    for (variable, name) in OBJECTS {
        let object = input(variable, &format!("target/{name}"))?;
        copy(&object, &directory("OUT_DIR")?.join(name))?;
    }
    link_libpcap()
}

/// Links libpcap and sets `cfg(pcap)`, if it is there and for this target.
fn link_libpcap() -> io::Result<()> {
    println!("cargo::rustc-check-cfg=cfg(pcap)");
    let library = input(LIBPCAP_VARIABLE, LIBPCAP_PATH)?;
    let is_named = env::var_os(LIBPCAP_VARIABLE).is_some_and(|path| !path.is_empty());
    let is_native = env::var_os("TARGET") == env::var_os("HOST");
    if (is_named || is_native) && fs::metadata(&library)?.len() > 0 {
        let out = directory("OUT_DIR")?;
        copy(&library, &out.join("libpcap.a"))?;
        println!("cargo::rustc-link-search=native={}", out.display());
        println!("cargo::rustc-link-lib=static=pcap");
        println!("cargo::rustc-cfg=pcap");
    }
    Ok(())
}

/// A file that xtask builds: what the environment names, or what is at its place in the workspace, empty if it was not
/// built. Its changes are this crate's.
fn input(variable: &str, place: &str) -> io::Result<PathBuf> {
    println!("cargo::rerun-if-env-changed={variable}");
    let file = match env::var_os(variable).filter(|path| !path.is_empty()) {
        Some(path) => PathBuf::from(path),
        None => {
            let file = directory("CARGO_MANIFEST_DIR")?.join("..").join(place);
            ensure_exists(&file)?;
            file
        }
    };
    println!("cargo::rerun-if-changed={}", file.display());
    Ok(file)
}

fn copy(from: &Path, to: &Path) -> io::Result<()> {
    fs::copy(from, to)
        .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", from.display())))?;
    Ok(())
}

/// Leaves an empty file where the file will be. Cargo takes a missing file for a changed one, and would build this
/// crate anew each time; an old and empty one it sees replaced.
fn ensure_exists(file: &Path) -> io::Result<()> {
    if file.exists() {
        return Ok(());
    }
    if let Some(directory) = file.parent() {
        fs::create_dir_all(directory)?;
    }
    File::create(file)?.set_modified(SystemTime::UNIX_EPOCH)
}

fn directory(variable: &str) -> io::Result<PathBuf> {
    env::var_os(variable)
        .map(PathBuf::from)
        .ok_or_else(|| io::Error::other(format!("cargo did not set {variable}")))
}
