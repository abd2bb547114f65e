//! Finds the cgroup to attach to: the root of cgroup v2, proved to be the host's, or a named slice below it.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use nix::mount::{MntFlags, MsFlags, mount, umount2};

use super::loader::OpenError;

/// Inode of the root of a cgroup hierarchy (kernfs); another one is a cgroup namespace's view.
const ROOT_INODE: u64 = 1;

/// The cgroup to attach to, and what kind of host this is.
#[derive(Debug)]
pub(super) struct Cgroup {
    /// Open directory.
    pub(super) directory: File,
    /// Its path, for messages; of a private mount only the part below it.
    pub(super) path: PathBuf,
    /// cgroup v1 controllers are mounted beside v2: container runtimes then use v1, and v2 ids tell nothing apart.
    pub(super) is_hybrid: bool,
}

/// Opens `slice` (relative to the root, or an absolute path), or the root.
pub(super) fn open(slice: Option<&Path>) -> Result<Cgroup, OpenError> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").map_err(OpenError::Mounts)?;
    let mounts = Mounts::parse(&mounts);
    if let Some(path) = slice.filter(|path| path.is_absolute()) {
        return directory(path, mounts.is_hybrid);
    }
    match mounts.cgroup2 {
        Some(root) => below(&root, slice, mounts.is_hybrid),
        None => private(slice, mounts.is_hybrid),
    }
}

fn below(root: &Path, slice: Option<&Path>, is_hybrid: bool) -> Result<Cgroup, OpenError> {
    let inode = fs::metadata(root).map_err(|source| cannot_open(root, source))?.ino();
    if inode != ROOT_INODE {
        return Err(OpenError::CgroupNamespace { path: root.to_owned(), inode });
    }
    match slice {
        Some(slice) => directory(&root.join(slice), is_hybrid),
        None => directory(root, is_hybrid),
    }
}

fn directory(path: &Path, is_hybrid: bool) -> Result<Cgroup, OpenError> {
    let directory = File::open(path).map_err(|source| cannot_open(path, source))?;
    Ok(Cgroup { directory, path: path.to_owned(), is_hybrid })
}

fn cannot_open(path: &Path, source: io::Error) -> OpenError {
    OpenError::Cgroup { path: path.to_owned(), source }
}

/// Mounts cgroup v2 where nobody else sees it, opens what is asked for, and unmounts: the open directory keeps it alive.
fn private(slice: Option<&Path>, is_hybrid: bool) -> Result<Cgroup, OpenError> {
    let point = std::env::temp_dir().join(format!("pod2pod-cgroup2-{}", std::process::id()));
    fs::create_dir(&point).map_err(OpenError::NoCgroup2)?;
    let none: Option<&str> = None;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    let result = mount(Some("pod2pod"), &point, Some("cgroup2"), flags, none)
        .map_err(|error| OpenError::NoCgroup2(error.into()))
        .and_then(|()| {
            let result = below(&point, slice, is_hybrid);
            // A lazy unmount cannot fail for what was just mounted; if it did, the mount would only stay behind.
            let _ = umount2(&point, MntFlags::MNT_DETACH);
            result
        });
    let _ = fs::remove_dir(&point);
    result
}

/// What /proc/self/mountinfo says of cgroups (proc_pid_mountinfo(5)).
#[derive(Debug, Default, PartialEq, Eq)]
struct Mounts {
    cgroup2: Option<PathBuf>,
    is_hybrid: bool,
}

impl Mounts {
    fn parse(text: &str) -> Self {
        let mut mounts = Self::default();
        for line in text.lines() {
            let Some((fields, after)) = line.split_once(" - ") else { continue };
            let mut fields = fields.split(' ').skip(3);
            let (Some(root), Some(point)) = (fields.next(), fields.next()) else { continue };
            let mut after = after.split(' ');
            match after.next() {
                // A bind mount of a part of the hierarchy has another root than "/".
                Some("cgroup2") if root == "/" && mounts.cgroup2.is_none() => {
                    mounts.cgroup2 = Some(PathBuf::from(unescape(point)));
                }
                // A v1 mount without controllers (systemd's own) does not make containers use v1.
                Some("cgroup") if !line.contains("name=") => mounts.is_hybrid = true,
                _ => {}
            }
        }
        mounts
    }
}

/// Undoes the octal escapes of mountinfo.
fn unescape(point: &str) -> String {
    point.replace("\\040", " ").replace("\\011", "\t").replace("\\012", "\n").replace("\\134", "\\")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, cgroup2: Option<&str>, is_hybrid: bool) {
        assert_eq!(Mounts::parse(text), Mounts { cgroup2: cgroup2.map(PathBuf::from), is_hybrid });
    }

    #[test]
    fn cgroup_mounts_are_found() {
        check(
            "31 24 0:26 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw\n",
            Some("/sys/fs/cgroup"),
            false,
        );
        check(
            "31 24 0:26 / /sys/fs/cgroup ro - tmpfs tmpfs ro\n32 31 0:27 / /sys/fs/cgroup/unified rw - cgroup2 c rw\n\
             33 31 0:28 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n",
            Some("/sys/fs/cgroup/unified"),
            true,
        );
        check("33 31 0:28 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd\n", None, false);
        check("31 24 0:26 /kubepods /mnt/part rw - cgroup2 cgroup2 rw\n", None, false);
        check("31 24 0:26 / /mnt/a\\040b rw - cgroup2 cgroup2 rw\n", Some("/mnt/a b"), false);
        check("nonsense\n\n", None, false);
    }
}
