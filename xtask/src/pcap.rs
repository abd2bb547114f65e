//! libpcap, from Debian's source package, for pod2pod-user to link statically: its compiler of filter expressions and
//! nothing that would need another library or a capture device. Kept outside the clone; `setup` decides when it is built.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};

use crate::{
    cmd::{self, Cmd, say},
    toolchain,
};

/// Programs that the build needs, and their packages: the parser is generated.
pub(crate) const BUILD_TOOLS: [(&str, &str); 4] =
    [("flex", "flex"), ("bison", "bison"), ("make", "make"), ("cc", "gcc")];

/// No live capture, and so nothing of what it could capture from.
const CONFIGURE: [&str; 12] = [
    "--with-pcap=null",
    "--disable-shared",
    "--disable-remote",
    "--disable-dbus",
    "--disable-bluetooth",
    "--disable-usb",
    "--disable-rdma",
    "--disable-netmap",
    "--without-libnl",
    "--without-dpdk",
    "--without-dag",
    "CFLAGS=-O2 -fPIC",
];

/// Whether the library is there as we want it.
pub(crate) fn is_there() -> bool {
    cached().is_file() && fs::read_to_string(stamp_file()).is_ok_and(|text| text == stamp())
}

/// Builds the library, if it is not there, and puts it where pod2pod-user's build script looks for it.
///
/// # Errors
/// The source cannot be had, or does not build; the error is the command.
pub(crate) fn ensure() -> Result<()> {
    if !is_there() {
        say(&format!("setup: libpcap into {} (compiles filter expressions)", cached().display()));
        build().context("libpcap comes from the source package of the same name")?;
    }
    let place = cmd::workspace().join("target/libpcap.a");
    let library = fs::read(cached()).with_context(|| format!("cannot read {}", cached().display()))?;
    // On a new time stamp cargo would build pod2pod-user anew.
    if fs::read(&place).is_ok_and(|old| old == library) {
        return Ok(());
    }
    replace(&place, &library)
}

/// Another target than this machine, and what compiles for it.
pub(crate) struct Other {
    /// As Rust calls it.
    pub(crate) target: &'static str,
    /// As `configure` calls it.
    pub(crate) host: String,
    pub(crate) compiler: String,
    pub(crate) archiver: String,
    pub(crate) indexer: String,
    /// Tells releases of the compiler apart.
    pub(crate) made_with: &'static str,
    /// What the compiler keeps.
    pub(crate) cache: PathBuf,
}

impl Other {
    fn place(&self) -> PathBuf {
        toolchain::tools().join("lib").join(self.target).join("libpcap.a")
    }

    fn stamp(&self) -> String {
        format!("libpcap {} {}\n{}", self.host, CONFIGURE.join(" "), self.made_with)
    }
}

/// Builds the library for another target, if it is not there, and says where it is.
///
/// # Errors
/// As [`ensure`].
pub(crate) fn ensure_for(other: &Other) -> Result<PathBuf> {
    let place = other.place();
    let stamp = place.with_extension("stamp");
    if !place.is_file() || fs::read_to_string(&stamp).map_or(true, |text| text != other.stamp()) {
        say(&format!("setup: libpcap into {} (compiles filter expressions)", place.display()));
        build_for(other).context("libpcap comes from the source package of the same name")?;
        replace(&stamp, other.stamp().as_bytes())?;
    }
    Ok(place)
}

/// Its release.
///
/// # Errors
/// It was not built.
pub(crate) fn version_for(other: &Other) -> Result<String> {
    let place = other.place().with_extension("version");
    fs::read_to_string(&place).with_context(|| format!("cannot read {}", place.display()))
}

fn build_for(other: &Other) -> Result<()> {
    let make = ["--quiet", "libpcap.a"].map(str::to_owned);
    let tools = [format!("AR={}", other.archiver), format!("RANLIB={}", other.indexer)];
    let compiler = [format!("--host={}", other.host), format!("CC={}", other.compiler)];
    let directory = unpacked(other.target)?;
    let source = directory.join("source");
    let in_source = |cmd: Cmd| cmd.inside(&source).env("ZIG_GLOBAL_CACHE_DIR", &other.cache);
    let configure = Cmd::new("sh").args(["configure", "--quiet"]).args(CONFIGURE).args(compiler).args(&tools);
    in_source(configure).run_aside()?;
    in_source(Cmd::new("make").args(make).args(tools)).run_aside()?;
    let version = source.join("VERSION");
    let version =
        fs::read_to_string(&version).with_context(|| format!("cannot read {}", version.display()))?;
    replace(&other.place().with_extension("version"), version.trim().as_bytes())?;
    take(&source, &other.place())?;
    fs::remove_dir_all(&directory).with_context(|| format!("cannot remove {}", directory.display()))
}

fn build() -> Result<()> {
    let directory = unpacked(std::env::consts::ARCH)?;
    let source = directory.join("source");
    let in_source = |cmd: Cmd| cmd.inside(&source);
    in_source(Cmd::new("sh").args(["configure", "--quiet"]).args(CONFIGURE)).run_aside()?;
    in_source(Cmd::new("make").args(["--quiet", "libpcap.a"])).run_aside()?;
    take(&source, &cached())?;
    replace(&stamp_file(), stamp().as_bytes())?;
    fs::remove_dir_all(&directory).with_context(|| format!("cannot remove {}", directory.display()))
}

/// Puts what was built in its place.
fn take(source: &Path, place: &Path) -> Result<()> {
    let built = source.join("libpcap.a");
    let library = fs::read(&built).with_context(|| format!("cannot read {}", built.display()))?;
    replace(place, &library)
}

/// A new directory with the sources in its folder `source`.
fn unpacked(name: &str) -> Result<PathBuf> {
    let directory = toolchain::tools().join(format!("libpcap-build.{name}"));
    match fs::remove_dir_all(&directory) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(error).with_context(|| format!("cannot remove {}", directory.display()));
        }
        Ok(()) | Err(_) => {}
    }
    let source = directory.join("source");
    fs::create_dir_all(&source).with_context(|| format!("cannot make {}", source.display()))?;
    let archive = download(&directory)?;
    Cmd::new("tar")
        .args(["--extract", "--strip-components=1", "--file"])
        .args([archive])
        .inside(&source)
        .run_aside()?;
    Ok(directory)
}

/// Has apt fetch and verify the source package, with lists of its own: the system's need not know source packages, and
/// are left as they are.
fn download(directory: &Path) -> Result<PathBuf> {
    let sources = directory.join("apt/sources");
    for part in ["sources", "lists/partial", "cache/archives/partial"] {
        let part = directory.join("apt").join(part);
        fs::create_dir_all(&part).with_context(|| format!("cannot make {}", part.display()))?;
    }
    write_sources(&sources)?;
    let option = |key: &str, path: &str| format!("-o{key}={}", directory.join(path).display());
    let options = [
        "-oDir::Etc::SourceList=/dev/null".to_owned(),
        option("Dir::Etc::SourceParts", "apt/sources"),
        option("Dir::State::Lists", "apt/lists"),
        option("Dir::Cache", "apt/cache"),
        // What is downloaded here need not be readable by apt's own user.
        "-oAPT::Sandbox::User=root".to_owned(),
    ];
    let apt = || Cmd::new("apt-get").args(&options).inside(directory);
    apt().args(["update", "--quiet"]).run_aside()?;
    apt().args(["source", "--download-only", "--quiet", "libpcap"]).run_aside()?;
    let is_upstream = |path: &PathBuf| {
        path.file_name().is_some_and(|name| {
            let name = name.to_string_lossy();
            name.starts_with("libpcap_") && name.contains(".orig.tar") && !name.ends_with(".asc")
        })
    };
    let files = fs::read_dir(directory).with_context(|| format!("cannot read {}", directory.display()))?;
    let archive = files.filter_map(|file| Some(file.ok()?.path())).find(is_upstream);
    archive.context("apt-get fetched no upstream archive")
}

/// The system's repositories, as repositories of sources.
fn write_sources(directory: &Path) -> Result<()> {
    let mut files = vec![PathBuf::from("/etc/apt/sources.list")];
    if let Ok(parts) = fs::read_dir("/etc/apt/sources.list.d") {
        files.extend(parts.filter_map(|part| Some(part.ok()?.path())));
    }
    let mut written = 0;
    for file in files {
        let (Ok(text), Some(name)) = (fs::read_to_string(&file), file.file_name()) else { continue };
        let place = directory.join(name);
        fs::write(&place, of_sources(&text)).with_context(|| format!("cannot write {}", place.display()))?;
        written += 1;
    }
    if written == 0 {
        bail!("there is no /etc/apt/sources.list, nor anything in /etc/apt/sources.list.d");
    }
    Ok(())
}

/// A list of repositories, in either of apt's formats, with sources in the place of packages.
fn of_sources(text: &str) -> String {
    let line = |line: &str| match line.split_once(char::is_whitespace) {
        Some(("deb", rest)) => format!("deb-src {rest}\n"),
        Some(("Types:", _)) => "Types: deb-src\n".to_owned(),
        _ => format!("{line}\n"),
    };
    text.lines().map(line).collect()
}

/// Writes a file in one step: one that is half written is never found.
fn replace(place: &Path, content: &[u8]) -> Result<()> {
    let new = place.with_extension(format!("new.{}", std::process::id()));
    if let Some(directory) = place.parent() {
        fs::create_dir_all(directory).with_context(|| format!("cannot make {}", directory.display()))?;
    }
    fs::write(&new, content).with_context(|| format!("cannot write {}", new.display()))?;
    fs::rename(&new, place).with_context(|| format!("cannot rename {} to {}", new.display(), place.display()))
}

fn cached() -> PathBuf {
    toolchain::tools().join("lib/libpcap.a")
}

/// What the stamp beside the library says when it is the one we want.
fn stamp() -> String {
    format!("libpcap {} {}\n", std::env::consts::ARCH, CONFIGURE.join(" "))
}

fn stamp_file() -> PathBuf {
    toolchain::tools().join("libpcap.stamp")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_packages_become_lists_of_sources() {
        let check = |text: &str, expected: &str| assert_eq!(of_sources(text), expected);
        check("deb http://a stable main\n# deb b\n", "deb-src http://a stable main\n# deb b\n");
        check("deb [signed-by=/k] http://a ./\n", "deb-src [signed-by=/k] http://a ./\n");
        check("Types: deb deb-src\nURIs: http://a\n", "Types: deb-src\nURIs: http://a\n");
    }
}
