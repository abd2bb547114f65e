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

/// Debug information for BTF, which the linker writes; fields are separated as `CARGO_ENCODED_RUSTFLAGS` wants it. Memory is
/// copied and cleared in place: by a function, each byte would be a round of a loop, for the processor and for the verifier.
const EBPF_RUSTFLAGS: &str =
    "-Cdebuginfo=2\u{1f}-Clink-arg=--btf\u{1f}-Clink-arg=--disable-expand-memcpy-in-order";

/// Builds the kernel side to the place where pod2pod-user's build script looks for it.
///
/// # Errors
/// A step fails; the error is its command.
pub(crate) fn ebpf() -> Result<PathBuf> {
    ebpf_cargo("build").args(["--release"]).run_aside()?;
    let built = cmd::workspace().join(format!("target/ebpf/{}/release/pod2pod-ebpf", toolchain::TARGET));
    let object = toolchain::object();
    let stripped = object.with_extension(format!("o.{}", std::process::id()));
    // DWARF is five sixths of the object and the kernel reads BTF only.
    Cmd::new(toolchain::STRIP)
        .args(["-g".as_ref(), "-o".as_ref(), stripped.as_os_str(), built.as_os_str()])
        .run_aside()?;
    put_if_changed(&stripped, &object)?;
    Ok(object)
}

/// A cargo command for the kernel side alone, in a target directory of its own: other flags would throw away the
/// host's builds.
pub(crate) fn ebpf_cargo(subcommand: &str) -> Cmd {
    Cmd::cargo()
        .env("RUSTC_BOOTSTRAP", "1")
        .env("CARGO_TARGET_DIR", "target/ebpf")
        .env("CARGO_ENCODED_RUSTFLAGS", EBPF_RUSTFLAGS)
        .env("PATH", toolchain::path())
        .args([subcommand, "--locked", "--package", "pod2pod-ebpf", "--target", toolchain::TARGET])
        .args(["-Z", "build-std=core"])
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
    let object = ebpf()?;
    let length = fs::metadata(&object).map_or(0, |metadata| metadata.len());
    if length == 0 {
        bail!("{} is missing or empty: a daemon without it could capture nothing", object.display());
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
