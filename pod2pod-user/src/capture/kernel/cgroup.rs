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

/// Controllers of resources that container runtimes use.
const CONTROLLERS: [&str; 3] = ["cpu", "memory", "pids"];

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
        ScopeChoice::Auto if !v1_controllers().is_empty() => SCOPE_COOKIE,
        ScopeChoice::Auto => SCOPE_CGROUP,
    }
}

/// Controllers that cgroup v1 has, those of resources: where it does, container runtimes put containers there, and a number of
/// cgroup v2 does not tell them apart. None if it cannot be read.
pub(super) fn v1_controllers() -> Vec<&'static str> {
    fs::read_to_string("/proc/self/cgroup").map(|text| controllers_of_v1(&text)).unwrap_or_default()
}

/// Those in the lines of `/proc/self/cgroup`: it has one for each hierarchy, wherever that is mounted (cgroups(7)). The one whose
/// number is 0 is of version 2, and a named one, as that of systemd, has no controllers.
fn controllers_of_v1(text: &str) -> Vec<&'static str> {
    let of_line = |line: &str| {
        let (number, rest) = line.split_once(':')?;
        let (controllers, _) = rest.split_once(':')?;
        (number != "0").then(|| controllers.to_owned())
    };
    let all: Vec<String> = text.lines().filter_map(of_line).collect();
    let is_there = |controller: &&str| all.iter().any(|line| line.split(',').any(|one| one == *controller));
    CONTROLLERS.into_iter().filter(is_there).collect()
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
    fn a_hybrid_machine_is_told_from_one_with_version_2_only() {
        for (text, expected) in [
            ("0::/user.slice/session-1.scope\n", &[][..]),
            ("1:name=systemd:/user.slice\n0::/user.slice\n", &[]),
            ("4:memory:/user.slice\n1:name=systemd:/user.slice\n0::/user.slice\n", &["memory"]),
            ("3:cpu,cpuacct:/\n2:cpuset:/\n1:pids:/\n", &["cpu", "pids"]),
            ("2:cpuset:/memory:/\nnonsense\n", &[]),
            ("", &[]),
        ] {
            assert_eq!(controllers_of_v1(text), expected, "{text}");
        }
    }

    #[test]
    fn a_named_scope_is_taken_as_it_is() {
        assert_eq!(choose_scope(ScopeChoice::Cgroup), pod2pod_common::flow::SCOPE_CGROUP);
        assert_eq!(choose_scope(ScopeChoice::Cookie), pod2pod_common::flow::SCOPE_COOKIE);
    }
}
