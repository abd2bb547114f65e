//! Builds the kernel side and the daemon, and runs the daemon. What they need is installed by `setup`.

use std::{
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context as _, Result, bail};

use crate::{
    cmd::{self, Cmd},
    setup, toolchain,
};

/// Debug information for BTF, which the linker writes. Memory is copied and cleared in place: by a function, each byte would be a
/// round of a loop, for the processor and for the verifier.
const EBPF_RUSTFLAGS: [&str; 3] =
    ["-Cdebuginfo=2", "-Clink-arg=--btf", "-Clink-arg=--disable-expand-memcpy-in-order"];

/// With the sink of Kafka, whose library is C and takes minutes to build.
pub(crate) const KAFKA: [&str; 2] = ["--features", "kafka"];

/// Where the kernel side is built: other flags would throw away the host's builds.
const EBPF_FOLDER: &str = "target/ebpf";

/// Builds the kernel side to the places where pod2pod-user's build script looks for it.
///
/// # Errors
/// A step fails; the error is its command.
pub(crate) fn ebpf() -> Result<()> {
    ebpf_cargo("build")?.args(["--release"]).run_aside()?;
    strip(EBPF_FOLDER, toolchain::object)
}

/// Builds the kernel side for machines of another architecture, as Rust calls it, into `folder` of the work tree; which variable names each
/// object to pod2pod-user's build script, and where it is. Probes read registers, and those have other names there.
///
/// # Errors
/// As [`ebpf`].
pub(crate) fn ebpf_for(architecture: &str, folder: &str) -> Result<[(&'static str, PathBuf); 2]> {
    let build = format!("{folder}/ebpf");
    ebpf_cargo("build")?
        .env("AYA_BPF_TARGET_ARCH", architecture)
        .env("CARGO_TARGET_DIR", &build)
        .args(["--release"])
        .run_aside()?;
    let place = |name: &str| cmd::workspace().join(format!("{folder}/{name}.o"));
    strip(&build, place)?;
    let [ebpf, ipvs] = toolchain::OBJECTS.map(place);
    Ok([("POD2POD_EBPF_OBJECT", ebpf), ("POD2POD_IPVS_OBJECT", ipvs)])
}

/// Puts what was built where it belongs. DWARF is five sixths of an object, and the kernel reads BTF only.
fn strip(folder: &str, place: impl Fn(&str) -> PathBuf) -> Result<()> {
    for name in toolchain::OBJECTS {
        let built = cmd::workspace().join(format!("{folder}/{}/release/{name}", toolchain::TARGET));
        let object = place(name);
        let stripped = object.with_extension(format!("o.{}", std::process::id()));
        Cmd::new(toolchain::STRIP)
            .args(["-g".as_ref(), "-o".as_ref(), stripped.as_os_str(), built.as_os_str()])
            .run_aside()?;
        put_if_changed(&stripped, &object)?;
    }
    Ok(())
}

/// A cargo command for the kernel side alone.
///
/// # Errors
/// There is no rustc.
pub(crate) fn ebpf_cargo(subcommand: &str) -> Result<Cmd> {
    // BTF names the file and line of each instruction.
    let mut flags = toolchain::without_places()?;
    flags.extend(EBPF_RUSTFLAGS.map(str::to_owned));
    Ok(Cmd::cargo()
        .env("RUSTC_BOOTSTRAP", "1")
        .env("CARGO_TARGET_DIR", EBPF_FOLDER)
        .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\u{1f}"))
        .env("PATH", toolchain::path())
        .args([subcommand, "--locked", "--package", "pod2pod-ebpf", "--target", toolchain::TARGET])
        .args(["-Z", "build-std=core"]))
}

/// Moves `new` over `old` in one step, or removes it if nothing changed: cargo rebuilds the daemon on a new time stamp.
fn put_if_changed(new: &Path, old: &Path) -> Result<()> {
    let content = fs::read(new).with_context(|| format!("cannot read {}", new.display()))?;
    if content.is_empty() {
        bail!("{} is empty: the linker wrote no object", new.display());
    }
    if fs::read(old).is_ok_and(|before| before == content) {
        return fs::remove_file(new).with_context(|| format!("cannot remove {}", new.display()));
    }
    fs::rename(new, old).with_context(|| format!("cannot rename {} to {}", new.display(), old.display()))
}

/// Builds the kernel side and the release daemon around it.
///
/// # Errors
/// A step fails, or there is no kernel side to embed.
pub(crate) fn daemon() -> Result<PathBuf> {
    ebpf()?;
    for object in toolchain::OBJECTS.map(toolchain::object) {
        if fs::metadata(&object).map_or(0, |metadata| metadata.len()) == 0 {
            bail!("{} is missing or empty: a daemon without it could capture nothing", object.display());
        }
    }
    // The place is named, so that a CARGO_TARGET_DIR of the developer does not hide the binary.
    Cmd::cargo()
        .env("CARGO_TARGET_DIR", "target")
        .args(["build", "--locked", "--release", "--package", "pod2pod-user", "--bin", "pod2pod"])
        .run_aside()?;
    Ok(cmd::workspace().join("target/release/pod2pod"))
}

/// `cargo xtask run [-- ARG…]`: becomes the agent.
///
/// # Errors
/// Set-up or build fails, or the agent cannot be started.
pub(crate) fn run(arguments: &[String]) -> Result<ExitCode> {
    setup::ensure(&["run"])?;
    let binary = daemon()?;
    let arguments = arguments.strip_prefix(&["--".to_owned()]).unwrap_or(arguments);
    cmd::as_root(Cmd::new(binary).args(["agent"]).args(arguments)).become_it().map(|never| match never {})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unchanged_object_keeps_its_time_stamp() {
        let directory = std::env::temp_dir().join(format!("pod2pod-xtask-{}", std::process::id()));
        fs::create_dir_all(&directory).expect("a temporary directory");
        let (new, old) = (directory.join("new"), directory.join("old"));
        fs::write(&new, "object").expect("written");
        put_if_changed(&new, &old).expect("put");
        let before = fs::metadata(&old).expect("there").modified().expect("a time");
        fs::write(&new, "object").expect("written");
        put_if_changed(&new, &old).expect("put");
        assert_eq!(fs::metadata(&old).expect("there").modified().expect("a time"), before);
        assert!(!new.exists());
        fs::write(&new, "").expect("written");
        assert!(put_if_changed(&new, &old).is_err(), "an empty object is refused");
        fs::remove_dir_all(&directory).expect("removed");
    }
}
