//! The first and only file system of a test machine: a shell, modules, the programs of the tests with their libraries, and
//! the command. It exists as a file without a name, so that nothing is left however this process ends.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::{self, BufWriter, Write as _},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};

use super::{cpio::Archive, fetch::Kernel};
use crate::cmd::{self, Cmd};

/// First process of the machine.
const INIT: &str = "tests/vm/init";
/// Modules to take along.
const MODULES: &str = "tests/vm/modules";
/// What the first process runs.
const COMMAND: &str = "/command";
/// Lists that modprobe reads.
const MODULE_LISTS: [&str; 6] = [
    "modules.dep",
    "modules.alias",
    "modules.symbols",
    "modules.softdep",
    "modules.builtin",
    "modules.builtin.modinfo",
];
/// A loader of shared libraries finds it by name only when a thread ends, so no list of libraries shows it.
const THREAD_END_LIBRARY: &str = "libgcc_s.so.1";

/// What a machine gets besides its kernel.
pub(super) struct Content<'a> {
    /// Programs by name, to be found on `PATH`.
    pub(super) programs: &'a [&'a str],
    /// Files that keep their place; programs among them bring their libraries.
    pub(super) files: &'a [PathBuf],
    /// The script that the machine runs.
    pub(super) command: &'a str,
}

/// Writes it, and gives the file.
///
/// # Errors
/// Something that belongs in is missing, or the disk is full.
pub(super) fn build(kernel: &Kernel, content: &Content<'_>) -> Result<File> {
    let path = cmd::workspace().join(format!("target/vm-{}-{}", std::process::id(), kernel.version));
    let file = File::options().create_new(true).read(true).write(true).open(&path);
    let file = file.with_context(|| format!("cannot make {}", path.display()))?;
    fs::remove_file(&path).with_context(|| format!("cannot remove {}", path.display()))?;
    let mut archive = Archive::new(BufWriter::new(file));
    base(&mut archive)?;
    modules(&mut archive, kernel)?;
    programs(&mut archive, content)?;
    archive.file(COMMAND, content.command.as_bytes(), true)?;
    let mut writer = archive.end()?;
    writer.flush()?;
    writer.into_inner().map_err(|error| error.into_error()).context("cannot write the file system")
}

type Writer = Archive<BufWriter<File>>;

fn base(archive: &mut Writer) -> Result<()> {
    let busybox = cmd::find("busybox").context("there is no busybox")?;
    archive.file("/bin/busybox", &read(&busybox)?, true)?;
    archive.file("/init", &read(&cmd::workspace().join(INIT))?, true)?;
    for directory in ["/dev", "/proc", "/sys", "/root", "/etc", "/tmp", "/run"] {
        archive.directory(directory)?;
    }
    // The kernel starts it by this name. Of busybox nothing else has a name: it would hide the tests' own programs.
    archive.link("/sbin/modprobe", "/bin/busybox")?;
    archive.file(
        "/etc/passwd",
        b"root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534::/:/bin/false\n\
          www-data:x:33:33::/:/bin/false\n",
        false,
    )?;
    archive.file("/etc/group", b"root:x:0:\nnogroup:x:65534:\nwww-data:x:33:\n", false)?;
    archive.file("/etc/hosts", b"127.0.0.1 localhost\n::1 localhost\n", false)?;
    Ok(())
}

fn modules(archive: &mut Writer, kernel: &Kernel) -> Result<()> {
    let patterns = String::from_utf8(read(&cmd::workspace().join(MODULES))?)?;
    let dependencies = String::from_utf8(read(&kernel.path(&format!("{}/modules.dep", kernel.modules())))?)?;
    let wanted = wanted_modules(&patterns, &dependencies);
    for name in wanted.iter().map(String::as_str).chain(MODULE_LISTS) {
        let relative = format!("{}/{name}", kernel.modules());
        let path = kernel.path(&relative);
        if path.exists() {
            archive.file(&relative, &read(&path)?, false)?;
        }
    }
    Ok(())
}

/// Paths of the modules that `patterns` name, with what they depend on, from a modules.dep (modules.dep(5)).
fn wanted_modules(patterns: &str, dependencies: &str) -> BTreeSet<String> {
    let patterns: Vec<&str> =
        patterns.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).collect();
    let is_wanted = |path: &str| {
        let name = path.rsplit('/').next().unwrap_or(path).split('.').next().unwrap_or_default();
        let name = name.replace('-', "_");
        patterns.iter().any(|pattern| match pattern.strip_suffix('*') {
            Some(beginning) => name.starts_with(beginning),
            None => name == *pattern,
        })
    };
    let rows = dependencies.lines().filter_map(|line| line.split_once(':'));
    rows.filter(|(path, _)| is_wanted(path))
        .flat_map(|(path, needed)| std::iter::once(path).chain(needed.split_whitespace()))
        .map(str::to_owned)
        .collect()
}

fn programs(archive: &mut Writer, content: &Content<'_>) -> Result<()> {
    let mut libraries = BTreeSet::new();
    for name in content.programs {
        let path = cmd::find(name).with_context(|| format!("there is no {name}"))?;
        archive.file(&format!("/usr/bin/{name}"), &read(&path)?, true)?;
        libraries.extend(libraries_of(&path));
    }
    archive.link("/bin/sh", "/usr/bin/sh")?;
    for path in content.files {
        archive.file(&path.to_string_lossy(), &read(path)?, true)?;
        libraries.extend(libraries_of(path));
    }
    let beside = |path: &PathBuf| path.parent().map(|parent| parent.join(THREAD_END_LIBRARY));
    let more: Vec<PathBuf> = libraries.iter().filter_map(beside).filter(|path| path.exists()).collect();
    libraries.extend(more);
    for path in libraries {
        archive.file(&path.to_string_lossy(), &read(&path)?, true)?;
    }
    Ok(())
}

/// Shared libraries and the loader of a program, in the words of ldd(1); none of one that is static.
fn libraries_of(program: &Path) -> Vec<PathBuf> {
    let said = Cmd::new("ldd").args([program]).ask().unwrap_or_default();
    said.split_whitespace().filter(|word| word.starts_with('/')).map(PathBuf::from).collect()
}

/// Follows links: what is copied is the content.
fn read(path: &Path) -> Result<Vec<u8>> {
    let content: io::Result<Vec<u8>> = fs::read(path);
    content.with_context(|| format!("cannot read {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modules_come_with_what_they_need() {
        let dependencies = "kernel/net/a/nf-nat.ko: kernel/lib/crc.ko kernel/net/nf_base.ko\n\
                            kernel/lib/crc.ko:\nkernel/net/nf_base.ko:\nkernel/net/veth.ko.xz:\nkernel/net/veths.ko:\n";
        let wanted = wanted_modules("# comment\n\nnf_*\nveth\n", dependencies);
        let wanted: Vec<&str> = wanted.iter().map(String::as_str).collect();
        assert_eq!(
            wanted,
            ["kernel/lib/crc.ko", "kernel/net/a/nf-nat.ko", "kernel/net/nf_base.ko", "kernel/net/veth.ko.xz"]
        );
    }
}
