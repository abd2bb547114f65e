//! Stock Debian kernels, fetched with apt's own checks of signatures and unpacked beside our other tools. Nothing is
//! installed, and no version is named: a suite's newest one is taken, as older ones leave the mirror.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};

use crate::{
    cmd::{Cmd, say},
    toolchain,
};

/// Small, boots fast, and has everything but file systems of hosts.
const FLAVOUR: &str = "cloud-amd64";
/// Signs all suites.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";
/// Where Debian's security updates are, if this machine's own apt does not know a nearer place.
const MIRROR: &str = "http://deb.debian.org/debian-security/";
/// Written when a kernel is complete; holds its version.
const STAMP: &str = "version";

/// An unpacked kernel.
#[derive(Clone)]
pub(super) struct Kernel {
    /// As `uname -r` gives it.
    pub(super) version: String,
    directory: PathBuf,
}

impl Kernel {
    /// The image that a machine boots.
    pub(super) fn image(&self) -> PathBuf {
        self.directory.join("vmlinuz")
    }

    /// Where modules and their lists are; relative to the root of a file system.
    pub(super) fn modules(&self) -> String {
        format!("lib/modules/{}", self.version)
    }

    /// A file of it on this machine.
    pub(super) fn path(&self, relative: &str) -> PathBuf {
        self.directory.join(relative)
    }
}

/// The kernel of `suite`: the one that is there, or the newest one of the mirror.
///
/// # Errors
/// The mirror or its signature fails, or its packages are not as expected.
pub(super) fn kernel(suite: &str) -> Result<Kernel> {
    let kernels = toolchain::cache().join("kernels");
    let directory = kernels.join(suite);
    if let Ok(version) = fs::read_to_string(directory.join(STAMP)) {
        return Ok(Kernel { version: version.trim().to_owned(), directory });
    }
    let work = kernels.join(format!("{suite}.{}", std::process::id()));
    let fetched = fetch(suite, &work, &directory);
    let removed = fs::remove_dir_all(&work);
    let version = fetched.with_context(|| format!("cannot fetch the kernel of {suite}"))?;
    removed.with_context(|| format!("cannot remove {}", work.display()))?;
    Ok(Kernel { version, directory })
}

fn fetch(suite: &str, work: &Path, directory: &Path) -> Result<String> {
    let apt = Apt::set_up(suite, &work.join("apt"))?;
    apt.get("update", &[])?;
    let of_flavour = apt.dependencies(&format!("linux-image-{FLAVOUR}"))?;
    let image = of_flavour.iter().find(|name| name.starts_with("linux-image-"));
    let image = image.with_context(|| format!("{suite} has no linux-image-{FLAVOUR}"))?;
    let version = image.trim_start_matches("linux-image-");
    say(&format!("setup: kernel {version} into {} (the tests run on it)", directory.display()));
    // Newer packages are split: the image then depends on its other parts.
    let mut parts = vec![image.clone()];
    parts.extend(
        apt.dependencies(image)?
            .into_iter()
            .filter(|name| name.ends_with(&format!("-{version}")) && !name.contains("-headers-")),
    );
    let packages = work.join("packages");
    fs::create_dir_all(&packages)?;
    apt.download(&packages, &parts)?;
    let unpacked = work.join("unpacked");
    for package in fs::read_dir(&packages)? {
        Cmd::new("dpkg-deb")
            .args(["-x".as_ref(), package?.path().as_os_str(), unpacked.as_os_str()])
            .run()?;
    }
    let kernel = work.join("kernel");
    arrange(&unpacked, &kernel, version)?;
    // A kernel without its stamp is none.
    if directory.exists() {
        fs::remove_dir_all(directory)?;
    }
    fs::rename(&kernel, directory)?;
    Ok(version.to_owned())
}

/// Brings what older and newer packages have in several places to one, with modules ready to be loaded.
fn arrange(unpacked: &Path, kernel: &Path, version: &str) -> Result<()> {
    let there = |places: &[String]| {
        let found = places.iter().map(|place| unpacked.join(place)).find(|path| path.exists());
        found.with_context(|| format!("the packages have none of {}", places.join(", ")))
    };
    let modules = format!("lib/modules/{version}");
    let to = kernel.join(&modules);
    fs::create_dir_all(to.parent().unwrap_or(kernel))?;
    let image = there(&[format!("boot/vmlinuz-{version}"), format!("usr/{modules}/vmlinuz")])?;
    fs::copy(image, kernel.join("vmlinuz"))?;
    fs::rename(there(&[format!("usr/{modules}"), modules])?, &to)?;
    let compressed = ["-name", "*.ko.xz", "-exec", "xz", "--decompress", "{}", "+"];
    Cmd::new("find").args([&to]).args(compressed).run()?;
    Cmd::new(crate::cmd::find("depmod").context("there is no depmod")?)
        .args(["-b".as_ref(), kernel.as_os_str(), version.as_ref()])
        .run()?;
    fs::write(kernel.join(STAMP), version)?;
    Ok(())
}

/// An apt with its own lists, sources and cache: it changes nothing of this machine's, and needs no root.
struct Apt {
    configuration: PathBuf,
}

impl Apt {
    fn set_up(suite: &str, directory: &Path) -> Result<Self> {
        if !Path::new(KEYRING).exists() {
            bail!("{KEYRING} is missing: install the package debian-archive-keyring");
        }
        fs::create_dir_all(directory.join("lists/partial"))?;
        fs::create_dir_all(directory.join("cache/archives/partial"))?;
        let sources = directory.join("sources.list");
        let mirror = nearest_mirror();
        fs::write(&sources, format!("deb [signed-by={KEYRING} arch=amd64] {mirror} {suite} main\n"))?;
        let directory = directory.display();
        let configuration = format!(
            "Dir::State::lists \"{directory}/lists\";\nDir::State::status \"/dev/null\";\n\
             Dir::Cache \"{directory}/cache\";\nDir::Etc::sourcelist \"{}\";\n\
             Dir::Etc::sourceparts \"/dev/null\";\nAPT::Architecture \"amd64\";\n\
             APT::Architectures {{ \"amd64\"; }};\nAPT::Sandbox::User \"root\";\nAcquire::Languages \"none\";\n",
            sources.display()
        );
        let file = PathBuf::from(format!("{directory}/apt.conf"));
        fs::write(&file, configuration)?;
        Ok(Self { configuration: file })
    }

    fn command(&self, program: &str) -> Cmd {
        Cmd::new(program).env("APT_CONFIG", &self.configuration)
    }

    fn get(&self, what: &str, names: &[String]) -> Result<()> {
        self.command("apt-get").args(["-qq", what]).args(names).run_aside()
    }

    /// apt-get downloads to where it stands.
    fn download(&self, to: &Path, names: &[String]) -> Result<()> {
        let apt = ["apt-get", "-qq", "download"];
        self.command("env").args(["-C".as_ref(), to.as_os_str()]).args(apt).args(names).run_aside()
    }

    fn dependencies(&self, package: &str) -> Result<Vec<String>> {
        let cache = self.command("apt-cache").args(["depends", "--important", package]);
        Ok(names(&cache.ask().with_context(|| format!("this command failed:\n  {cache}"))?))
    }
}

/// The mirror of security updates that this machine's own apt uses.
fn nearest_mirror() -> String {
    let known = Cmd::new("apt-get")
        .args(["indextargets", "--format", "$(REPO_URI)", "Identifier: Packages"])
        .ask()
        .unwrap_or_default();
    let nearest = known.lines().find(|line| line.trim_end_matches('/').ends_with("/debian-security"));
    nearest.unwrap_or(MIRROR).to_owned()
}

/// What a package depends on, in the words of `apt-cache depends`; virtual ones are in angle brackets.
fn names(text: &str) -> Vec<String> {
    let dependencies = text.lines().filter_map(|line| line.trim().strip_prefix("Depends: "));
    dependencies.filter(|name| !name.starts_with('<')).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dependencies_are_read_as_apt_writes_them() {
        let text =
            "linux-image-cloud-amd64\n  Depends: linux-image-6.1.0-56-cloud-amd64\n  Depends: <virtual>\n";
        assert_eq!(names(text), ["linux-image-6.1.0-56-cloud-amd64"]);
    }
}
