//! `cargo xtask image`: an image for both architectures, from nothing but the program, its bill of materials and CA certificates.
//! Built without a container engine; the same commit makes the same archive.

use std::{
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};

mod layout;
mod sbom;
mod tar;
pub(crate) mod tools;

use self::{
    layout::{Entry, Image, Variant},
    sbom::Part,
};
use crate::{
    build,
    cmd::{self, Cmd, say},
    pcap, setup, toolchain,
};

/// What the image runs on.
pub(crate) struct Platform {
    /// As Rust calls it.
    target: &'static str,
    /// As Go, and with it OCI, calls it.
    architecture: &'static str,
    /// Largest pages that kernels of this architecture have, as a power of two: the allocator must know it.
    largest_page: &'static str,
}

pub(crate) const PLATFORMS: [Platform; 2] = [
    Platform { target: "x86_64-unknown-linux-musl", architecture: "amd64", largest_page: "12" },
    Platform { target: "aarch64-unknown-linux-musl", architecture: "arm64", largest_page: "16" },
];

/// What is built here, and where cargo builds.
const FOLDER: &str = "target/image";
/// Where Debian has the certificates of Mozilla's list, without those that somebody added to this machine.
const CERTIFICATES: &str = "/usr/share/ca-certificates/mozilla";
/// Where they are in the image; rustls looks there.
const BUNDLE: &str = "etc/ssl/certs/ca-certificates.crt";
const PROGRAM: &str = "usr/bin/pod2pod";
const SOURCE: &str = "https://github.com/pod2pod/pod2pod";

/// `cargo xtask image`.
///
/// # Errors
/// Set-up or a step of the build fails; the error is the command.
pub(crate) fn command() -> Result<ExitCode> {
    setup::ensure(&["run", "image"])?;
    let archive = make()?;
    let size = fs::metadata(&archive)?.len();
    say(&format!("{} ({:.1} MB)", archive.display(), size as f64 / 1e6));
    Ok(ExitCode::SUCCESS)
}

/// Builds everything, and gives the archive.
///
/// # Errors
/// As [`command`].
pub(crate) fn make() -> Result<PathBuf> {
    let folder = cmd::workspace().join(FOLDER);
    let (epoch, revision) = (epoch()?, revision()?);
    let version = env!("CARGO_PKG_VERSION");
    let image = Image {
        tag: version.to_owned(),
        time: (epoch, rfc3339(epoch)?),
        entrypoint: format!("/{PROGRAM}"),
        command: "agent".to_owned(),
        environment: vec!["PATH=/usr/bin".to_owned(), format!("SSL_CERT_FILE=/{BUNDLE}")],
        labels: json!({
            "org.opencontainers.image.title": "pod2pod",
            "org.opencontainers.image.description": "Who talks HTTP to whom, how fast, and what failed, watched with eBPF.",
            "org.opencontainers.image.version": version,
            "org.opencontainers.image.revision": revision,
            "org.opencontainers.image.created": rfc3339(epoch)?,
            "org.opencontainers.image.source": SOURCE,
            "org.opencontainers.image.documentation": SOURCE,
            "org.opencontainers.image.licenses": "Apache-2.0",
        }),
    };
    let certificates = certificates(Path::new(CERTIFICATES))?;
    let mut variants = Vec::new();
    for platform in &PLATFORMS {
        let program = compile(platform, epoch)?;
        let bill = serde_json::to_vec_pretty(&bill(platform, &image)?)?;
        let beside = folder.join(format!("pod2pod-{version}-{}.cdx.json", platform.architecture));
        fs::write(&beside, &bill).with_context(|| format!("cannot write {}", beside.display()))?;
        let entry = |path: &str, mode, content| Entry { path: path.to_owned(), mode, content };
        variants.push(Variant {
            architecture: platform.architecture,
            entries: vec![
                entry(BUNDLE, 0o644, certificates.clone()),
                entry(PROGRAM, 0o755, program),
                entry("usr/share/sbom/pod2pod.cdx.json", 0o644, bill),
            ],
        });
    }
    let archive = folder.join(format!("pod2pod-{version}.tar"));
    image.write(&variants, &folder.join("blobs"), &archive)?;
    Ok(archive)
}

/// Where cargo puts the program for a platform.
fn program(platform: &Platform) -> PathBuf {
    cmd::workspace().join(FOLDER).join(platform.target).join("release/pod2pod")
}

/// The image's program that runs here, built if need be.
///
/// # Errors
/// There is none for this machine, or a step of the build fails.
pub(crate) fn program_of_this_machine() -> Result<PathBuf> {
    let architecture = format!("{}-", std::env::consts::ARCH);
    let platform = PLATFORMS.iter().find(|platform| platform.target.starts_with(&architecture));
    let platform = platform.context("the image is not for machines such as this one")?;
    compile(platform, epoch()?)?;
    Ok(program(platform))
}

/// The program for a platform, statically linked.
fn compile(platform: &Platform, epoch: u64) -> Result<Vec<u8>> {
    let library = pcap::ensure_for(&tools::libpcap(platform))?;
    let (processor, _) = platform.target.split_once('-').context("a target begins with its processor")?;
    let [ebpf, ipvs] = build::ebpf_for(processor, &format!("{FOLDER}/kernel-{processor}"))?;
    let cargo = Cmd::cargo()
        .env("CARGO_TARGET_DIR", FOLDER)
        .env("CARGO_ENCODED_RUSTFLAGS", toolchain::without_places()?.join("\u{1f}"))
        // Names in backtraces are worth less than a third of the image.
        .env("CARGO_PROFILE_RELEASE_DEBUG", "none")
        .env("CARGO_PROFILE_RELEASE_STRIP", "symbols")
        .env("JEMALLOC_SYS_WITH_LG_PAGE", platform.largest_page)
        .env("POD2POD_LIBPCAP", library)
        .env(ebpf.0, ebpf.1)
        .env(ipvs.0, ipvs.1)
        // C has its own way to tell when it was compiled.
        .env("SOURCE_DATE_EPOCH", epoch.to_string())
        .args(["zigbuild", "--locked", "--release", "--target", platform.target])
        .args(["--package", "pod2pod-user", "--bin", "pod2pod"]);
    tools::with_compiler(cargo).run_aside()?;
    let program = program(platform);
    fs::read(&program).with_context(|| format!("cannot read {}", program.display()))
}

fn bill(platform: &Platform, image: &Image) -> Result<Value> {
    let metadata = |target: &str| -> Result<Value> {
        let arguments = ["metadata", "--locked", "--format-version", "1", "--filter-platform", target];
        let said = Cmd::cargo().args(arguments).ask().context("cargo metadata failed")?;
        Ok(serde_json::from_str(&said)?)
    };
    // The daemon, and the kernel side that is embedded in it.
    let linked =
        [("pod2pod-user", metadata(platform.target)?), ("pod2pod-ebpf", metadata(toolchain::TARGET)?)];
    let lock = cmd::workspace().join("Cargo.lock");
    let lock = fs::read_to_string(&lock).with_context(|| format!("cannot read {}", lock.display()))?;
    let certificates =
        Cmd::new("dpkg-query").args(["--show", "--showformat=${Version}", "ca-certificates"]).ask();
    let parts = [
        Part {
            name: "libpcap",
            version: pcap::version_for(&tools::libpcap(platform))?,
            licence: "BSD-3-Clause",
        },
        Part { name: "musl", version: tools::MUSL.to_owned(), licence: "MIT" },
        Part { name: "ca-certificates", version: certificates.unwrap_or_default(), licence: "MPL-2.0" },
    ];
    sbom::bill(&linked, &lock, &image.tag, &image.time.1, &parts)
}

/// All certificates, one after the other, in the order of their names.
fn certificates(folder: &Path) -> Result<Vec<u8>> {
    let files = fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    let mut files = files.map(|file| Ok(file?.path())).collect::<Result<Vec<_>>>()?;
    files.retain(|file| file.extension().is_some_and(|extension| extension == "crt"));
    files.sort();
    let mut all = Vec::new();
    for file in &files {
        all.extend(fs::read(file).with_context(|| format!("cannot read {}", file.display()))?);
        if !all.ends_with(b"\n") {
            all.push(b'\n');
        }
    }
    if all.is_empty() {
        bail!("{} has no certificates", folder.display());
    }
    Ok(all)
}

/// The time of everything in the image, in seconds since 1970: what `SOURCE_DATE_EPOCH` says, or that of the commit.
fn epoch() -> Result<u64> {
    let text = match std::env::var("SOURCE_DATE_EPOCH") {
        Ok(text) => text,
        Err(_) => git(&["log", "-1", "--format=%ct"])?,
    };
    text.trim().parse().with_context(|| format!("SOURCE_DATE_EPOCH is no number of seconds: {text}"))
}

/// The commit, and whether the tree is another.
fn revision() -> Result<String> {
    let changed = if git(&["status", "--porcelain"])?.is_empty() { "" } else { "-changed" };
    Ok(format!("{}{changed}", git(&["rev-parse", "HEAD"])?.trim()))
}

fn git(arguments: &[&str]) -> Result<String> {
    Cmd::new("git").args(arguments).ask().context("git failed: the image names the commit that it is made of")
}

fn rfc3339(epoch: u64) -> Result<String> {
    let said = Cmd::new("date").args(["--utc", "--date", &format!("@{epoch}"), "+%Y-%m-%dT%H:%M:%SZ"]).ask();
    Ok(said.context("date, of coreutils, failed")?.trim().to_owned())
}
