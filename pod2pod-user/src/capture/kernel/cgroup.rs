//! Which cgroup to attach to, and what tells containers apart on this host. Attaches nothing.

use std::{
    fs::{self, DirBuilder, File},
    io,
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _},
    path::{Path, PathBuf},
};

use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    sys::statfs::{CGROUP2_SUPER_MAGIC, fstatfs},
};
use procfs::process::{MountInfo, Process};

use super::{OpenError, ScopeChoice};

/// Inode of the root of the cgroup v2 hierarchy, whatever it is mounted on. Inside a cgroup namespace the mount's root
/// is another cgroup: an attach there succeeds and sees nothing.
const ROOT_INODE: u64 = 1;

/// Opens the directory of the cgroup to attach to: `named` from the root on, an absolute path, or the root. Its path is
/// for people; that of a private mount is gone.
///
/// # Errors
/// There is no cgroup v2 and none can be mounted, its root is not visible, or the named cgroup does not exist.
pub(super) fn open(named: Option<&Path>) -> Result<(File, PathBuf), OpenError> {
    if let Some(path) = named.filter(|path| path.is_absolute()) {
        return open_directory(path);
    }
    let inside = named.unwrap_or(Path::new(""));
    let mut refused = None;
    for mount in mounts().into_iter().filter(|mount| mount.fs_type == "cgroup2") {
        match require_root(&mount.mount_point) {
            Ok(()) => return open_directory(&mount.mount_point.join(inside)),
            Err(error) => refused = Some(error),
        }
    }
    refused.map_or_else(|| open_private(inside), Err)
}

/// Decides what network worlds are told apart by.
///
/// cgroup ids tell containers apart only where the container runtime puts them into cgroup v2. On a host that keeps
/// resource controllers in v1 it does not: there the socket cookie does.
pub(super) fn choose_scope(choice: ScopeChoice) -> u32 {
    use pod2pod_common::flow::{SCOPE_CGROUP, SCOPE_COOKIE};

    match choice {
        ScopeChoice::Cgroup => SCOPE_CGROUP,
        ScopeChoice::Cookie => SCOPE_COOKIE,
        ScopeChoice::Auto if mounts().iter().any(has_v1_controller) => SCOPE_COOKIE,
        ScopeChoice::Auto => SCOPE_CGROUP,
    }
}

fn has_v1_controller(mount: &MountInfo) -> bool {
    mount.fs_type == "cgroup"
        && ["cpu", "memory", "pids"].iter().any(|controller| mount.super_options.contains_key(*controller))
}

/// Every mount of this mount namespace; none if they cannot be read.
fn mounts() -> Vec<MountInfo> {
    Process::myself().and_then(|process| process.mountinfo()).map(|mounts| mounts.0).unwrap_or_default()
}

fn require_root(mount_point: &Path) -> Result<(), OpenError> {
    let inode = fs::metadata(mount_point)
        .map_err(|cause| OpenError::CgroupNotFound { path: mount_point.to_owned(), cause })?
        .ino();
    if inode == ROOT_INODE {
        Ok(())
    } else {
        Err(OpenError::NotTheRootCgroup { path: mount_point.to_owned(), inode })
    }
}

fn open_directory(path: &Path) -> Result<(File, PathBuf), OpenError> {
    let failed = |cause| OpenError::CgroupNotFound { path: path.to_owned(), cause };
    let directory = File::open(path).map_err(failed)?;
    let kind = fstatfs(&directory).map_err(|errno| failed(errno.into()))?.filesystem_type();
    if kind != CGROUP2_SUPER_MAGIC {
        return Err(failed(io::Error::new(
            io::ErrorKind::InvalidInput,
            "it is not in the cgroup v2 hierarchy",
        )));
    }
    Ok((directory, path.to_owned()))
}

/// Mounts cgroup v2 for as long as it takes to open it: the open directory keeps it.
fn open_private(inside: &Path) -> Result<(File, PathBuf), OpenError> {
    let mount_point = private_directory().map_err(|cause| OpenError::NoCgroup2 { cause })?;
    let mounted = mount(
        Some("pod2pod"),
        &mount_point,
        Some("cgroup2"),
        MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC,
        None::<&str>,
    );
    let opened = match mounted {
        Ok(()) => {
            let opened = require_root(&mount_point).and_then(|()| open_directory(&mount_point.join(inside)));
            // Failure leaves a mount that only root sees; the attach does not depend on it.
            let _ = umount2(&mount_point, MntFlags::MNT_DETACH);
            opened
        }
        Err(errno) => Err(OpenError::NoCgroup2 { cause: errno.into() }),
    };
    let _ = fs::remove_dir(&mount_point);
    opened
}

fn private_directory() -> io::Result<PathBuf> {
    let directory = std::env::temp_dir().join(format!("pod2pod-cgroup2-{}", std::process::id()));
    DirBuilder::new().mode(0o700).create(&directory)?;
    Ok(directory)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_elsewhere_is_no_cgroup() {
        for path in ["/", "/no/such/cgroup"] {
            assert!(matches!(open(Some(Path::new(path))), Err(OpenError::CgroupNotFound { .. })), "{path}");
        }
    }

    #[test]
    fn a_named_scope_is_taken_as_it_is() {
        assert_eq!(choose_scope(ScopeChoice::Cgroup), pod2pod_common::flow::SCOPE_CGROUP);
        assert_eq!(choose_scope(ScopeChoice::Cookie), pod2pod_common::flow::SCOPE_COOKIE);
    }
}
