//! What the image is built with, beside rustc: a C compiler and linker for each target with musl in it (zig, from PyPI, through
//! cargo-zigbuild), Rust's library for the targets, libpcap. Fetched and built once a machine, kept outside the clone.

use std::{
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};

use super::Platform;
use crate::{
    cmd::{Cmd, say},
    pcap, toolchain,
};

/// What pip installs, and nothing else: for both architectures on which the image may be built.
const REQUIREMENTS: &str = "\
ziglang==0.16.0 \
--hash=sha256:9fcda73f62b851dd72a54b710ad40a209896db14cfb13649e62191243556342b \
--hash=sha256:e27d409812b11e0fb89ed0200cf2e55b6464d43f9461553104e4a4f9a94a1fd5
cargo-zigbuild==0.24.0 \
--hash=sha256:484412e39e4c6039474535ce97ee75a22bab22d58233056f8ec8a8f9034bb957 \
--hash=sha256:6942e4320f7b05d8fb29e0a8ce5670bcbb3d254275100b85b5b7c86552f9a744
";

/// The C library in that release of zig.
pub(super) const MUSL: &str = "1.2.5";

/// Debian packages that are missing, each with its reason.
pub(crate) fn packages() -> Vec<(&'static str, String)> {
    let mut packages = Vec::new();
    if !is_there() && Cmd::new("python3").args(["-c", "import ensurepip, venv"]).ask().is_none() {
        packages.push(("python3-venv", "python3: installs the image's compiler".to_owned()));
    }
    if !Path::new(super::CERTIFICATES).is_dir() {
        packages.push(("ca-certificates", "certificates for the image".to_owned()));
    }
    packages
}

/// Installs what is missing.
///
/// # Errors
/// Something cannot be fetched or built; the error is the command.
pub(crate) fn ensure() -> Result<()> {
    if !is_there() {
        say(&format!(
            "setup: zig and cargo-zigbuild into {} (compile and link the image's programs)",
            home().display()
        ));
        install().context("they come from PyPI")?;
    }
    for platform in &super::PLATFORMS {
        let target = platform.target;
        if !toolchain::has_library(target)? {
            say(&format!("setup: rustup target {target} (the image's programs)"));
            Cmd::new("rustup")
                .args(["target", "add", target])
                .run_aside()
                .with_context(|| format!("install the Rust standard library for {target}"))?;
        }
        pcap::ensure_for(&libpcap(platform))?;
    }
    Ok(())
}

fn install() -> Result<()> {
    let home = home();
    if home.exists() {
        fs::remove_dir_all(&home).with_context(|| format!("cannot remove {}", home.display()))?;
    }
    Cmd::new("python3").args(["-m", "venv"]).args([&home]).run_aside()?;
    let requirements = home.join("requirements.txt");
    fs::write(&requirements, REQUIREMENTS)
        .with_context(|| format!("cannot write {}", requirements.display()))?;
    Cmd::new(home.join("bin/pip"))
        .args(["install", "--quiet", "--disable-pip-version-check", "--no-deps", "--only-binary=:all:"])
        .args(["--require-hashes", "--requirement"])
        .args([&requirements])
        .run_aside()?;
    fs::write(stamp_file(), REQUIREMENTS).context("cannot write a stamp")
}

fn is_there() -> bool {
    fs::read_to_string(stamp_file()).is_ok_and(|text| text == REQUIREMENTS)
        && Cmd::new(python()).args(["-m", "ziglang", "version"]).ask().is_some()
}

fn home() -> PathBuf {
    toolchain::tools().join("zig")
}

fn stamp_file() -> PathBuf {
    home().join("stamp")
}

fn python() -> PathBuf {
    home().join("bin/python")
}

/// A command with the compiler on its `PATH`, and with what it keeps in our own cache.
pub(super) fn with_compiler(command: Cmd) -> Cmd {
    let mut path = OsString::from(home().join("bin"));
    path.push(":");
    path.push(std::env::var_os("PATH").unwrap_or_default());
    command.env("PATH", path).env("ZIG_GLOBAL_CACHE_DIR", home().join("cache"))
}

/// libpcap for a platform.
pub(super) fn libpcap(platform: &Platform) -> pcap::Other {
    let zig = |words: &str| format!("{} -m ziglang {words}", python().display());
    let target = platform.target.replace("-unknown", "");
    pcap::Other {
        target: platform.target,
        host: target.clone(),
        compiler: zig(&format!("cc -target {target}")),
        archiver: zig("ar"),
        indexer: zig("ranlib"),
        made_with: REQUIREMENTS,
        cache: home().join("cache"),
    }
}
