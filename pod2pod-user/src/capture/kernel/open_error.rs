//! Why the capture cannot start: what is missing and what to do. Nothing here is about traffic.

use std::{
    fmt, io,
    path::{Path, PathBuf},
};

use aya::{EbpfError, maps::MapError, programs::ProgramError};

use super::{findings::unforeseen, preflight::HOW_TO_GET};
use crate::{finding::Finding, rights::Capability};

/// Exit code of a program that lacks a privilege or a kernel that it needs.
const EXIT_PRIVILEGE_OR_KERNEL: u8 = 77;
/// Exit code of any other failure.
const EXIT_FAILURE: u8 = 1;

/// Capture cannot start.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The build script found no object.
    #[error("{}", no_object())]
    NoObject,
    /// Older than the programs are made for.
    #[error("{}", kernel_too_old(release))]
    KernelTooOld {
        /// As the kernel names itself.
        release: String,
    },
    /// Capabilities.
    #[error("{}", missing_privilege(missing))]
    MissingPrivilege {
        /// The missing capabilities.
        missing: Vec<Capability>,
    },
    /// There is no hierarchy and none could be mounted.
    #[error("{}", no_cgroup2(cause))]
    NoCgroup2 {
        /// Why the private mount failed.
        #[source]
        cause: io::Error,
    },
    /// A cgroup namespace hides the root.
    #[error("{}", not_the_root(path, *inode))]
    NotTheRootCgroup {
        /// Mount point that was found.
        path: PathBuf,
        /// Its inode.
        inode: u64,
    },
    /// The configured cgroup.
    #[error("{}", cgroup_not_found(path, cause))]
    CgroupNotFound {
        /// What was opened.
        path: PathBuf,
        /// Why not.
        #[source]
        cause: io::Error,
    },
    /// The kernel, or a container's seccomp profile, refused a map or the object is damaged.
    #[error("{}", forbidden("bpf", cause))]
    Load {
        /// What aya says.
        #[source]
        cause: Box<EbpfError>,
    },
    /// The verifier.
    #[error(
        "this kernel refuses the program {program}: {summary}; please report this with the output of `uname -a`"
    )]
    Verifier {
        /// Program name.
        program: &'static str,
        /// The error and the last lines of the verifier's log.
        summary: String,
    },
    /// The attach.
    #[error(
        "cannot attach to the cgroup ({}): another program may hold it exclusively (bpftool cgroup tree shows it), or a \
         security module forbids it",
        chain(cause)
    )]
    Attach {
        /// What aya says.
        #[source]
        cause: Box<ProgramError>,
    },
    /// The interfaces.
    #[error("{}", no_interfaces(cause))]
    Interfaces {
        /// What the kernel says.
        #[source]
        cause: io::Error,
    },
    /// The embedded object does not hold what this program expects.
    #[error("the embedded eBPF object has no {name}: rebuild with `cargo xtask build`")]
    ObjectMismatch {
        /// Program or map.
        name: &'static str,
    },
    /// A map cannot be used.
    #[error("the map {name} cannot be used: {cause}")]
    Map {
        /// Map name.
        name: &'static str,
        /// What aya says.
        #[source]
        cause: MapError,
    },
    /// A ring's memory is not mapped.
    #[error("cannot map a ring buffer: {cause}")]
    Ring {
        /// Why.
        cause: io::Error,
    },
}

impl OpenError {
    /// What the process should exit with.
    pub const fn exit_code(&self) -> u8 {
        match self {
            Self::KernelTooOld { .. }
            | Self::MissingPrivilege { .. }
            | Self::NoCgroup2 { .. }
            | Self::NotTheRootCgroup { .. }
            | Self::CgroupNotFound { .. }
            | Self::Load { .. }
            | Self::Verifier { .. }
            | Self::Attach { .. }
            | Self::Interfaces { .. } => EXIT_PRIVILEGE_OR_KERNEL,
            Self::NoObject | Self::ObjectMismatch { .. } | Self::Map { .. } | Self::Ring { .. } => {
                EXIT_FAILURE
            }
        }
    }

    /// The same as a finding.
    pub fn finding(&self) -> Finding {
        match self {
            Self::NoObject => no_object(),
            Self::KernelTooOld { release } => kernel_too_old(release),
            Self::MissingPrivilege { missing } => missing_privilege(missing),
            Self::NoCgroup2 { cause } => no_cgroup2(cause),
            Self::NotTheRootCgroup { path, inode } => not_the_root(path, *inode),
            Self::CgroupNotFound { path, cause } => cgroup_not_found(path, cause),
            Self::Load { cause } => forbidden("bpf", cause),
            Self::Interfaces { cause } => no_interfaces(cause),
            Self::Verifier { .. }
            | Self::Attach { .. }
            | Self::ObjectMismatch { .. }
            | Self::Map { .. }
            | Self::Ring { .. } => unforeseen(self),
        }
    }

    /// Whether another place than a cgroup may do.
    pub(super) const fn is_of_cgroup(&self) -> bool {
        matches!(
            self,
            Self::NoCgroup2 { .. }
                | Self::NotTheRootCgroup { .. }
                | Self::CgroupNotFound { .. }
                | Self::Attach { .. }
        )
    }

    /// Sorts what aya says of a program that was not loaded.
    pub(super) fn of_program(program: &'static str, cause: ProgramError) -> Self {
        let summary = if let ProgramError::LoadError { io_error, verifier_log } = &cause {
            format!("{io_error}; {}", last_lines(&verifier_log.to_string()))
        } else {
            chain(&cause)
        };
        Self::Verifier { program, summary }
    }
}

/// Lost without anything that all of capture needs.
const ALL: &str = "nothing can be watched; `pod2pod replay` runs anywhere";
const CGROUP: &str = "cgroup v2";
const ROOT: &str = "the root of cgroup v2, to see every socket of the machine";
const SOCKETS: &str = "sockets cannot be watched, only network interfaces";
/// The oldest kernel, as a finding has it.
pub(super) const OLDEST_KERNEL_TEXT: &str = "Linux 5.10";

fn no_object() -> Finding {
    Finding::missing("programs", "this binary was built without the eBPF object").with(
        "the programs, to watch this host",
        ALL,
        "run `cargo xtask setup` once, then `cargo xtask build`",
    )
}

fn kernel_too_old(release: &str) -> Finding {
    Finding::missing("kernel", format!("Linux {release} is too old")).with(
        OLDEST_KERNEL_TEXT,
        ALL,
        "pod2pod watches a host from Linux 5.10 on; `pod2pod replay` runs anywhere",
    )
}

fn missing_privilege(missing: &[Capability]) -> Finding {
    let names = missing.iter().map(|one| one.name()).collect::<Vec<_>>().join(" and ");
    let found = format!("no right to load eBPF programs, {names} missing");
    Finding::missing("capabilities", found).with("the right to load eBPF programs", ALL, HOW_TO_GET)
}

fn no_cgroup2(cause: &io::Error) -> Finding {
    let found = format!("cgroup v2 is not mounted and cannot be mounted here ({cause})");
    Finding::missing(CGROUP, found).with(
        ROOT,
        SOCKETS,
        "mount it (mount -t cgroup2 none /sys/fs/cgroup/unified), or in a container mount the host's with a hostPath \
         volume of /sys/fs/cgroup",
    )
}

fn not_the_root(path: &Path, inode: u64) -> Finding {
    let path = path.display();
    let found = format!("{path} is not the root of cgroup v2 (inode {inode} instead of 1)");
    Finding::missing(CGROUP, found).with(
        ROOT,
        SOCKETS,
        "inside a container only its own cgroup would be watched; mount the host's /sys/fs/cgroup with a hostPath \
         volume, or name a cgroup by its absolute path",
    )
}

fn cgroup_not_found(path: &Path, cause: &io::Error) -> Finding {
    let found = format!("cannot open the cgroup {} ({cause})", path.display());
    Finding::missing(CGROUP, found).with(
        "the cgroup that is to be watched",
        SOCKETS,
        "capture.cgroup is a directory of the cgroup v2 hierarchy, such as kubepods.slice",
    )
}

fn no_interfaces(cause: &io::Error) -> Finding {
    Finding::missing("interfaces", format!("cannot watch network interfaces ({cause})")).with(
        "netlink, to list interfaces and to attach to them",
        "network interfaces cannot be watched",
        "run as root or with CAP_NET_ADMIN, and allow netlink sockets (seccomp, security modules)",
    )
}

/// A program or a map that the kernel does not take.
pub(super) fn forbidden(name: &'static str, cause: &(dyn std::error::Error + 'static)) -> Finding {
    let found = format!("the eBPF object cannot be loaded ({})", chain(cause));
    Finding::missing(name, found).with("bpf(2), to load programs and make maps", ALL, advice(cause))
}

/// Lines of a verifier log that say why, from its end: what precedes is megabytes of states.
const VERIFIER_LINES: usize = 4;

fn last_lines(log: &str) -> String {
    let mut lines: Vec<&str> =
        log.lines().rev().filter(|line| !line.trim().is_empty()).take(VERIFIER_LINES).collect();
    lines.reverse();
    lines.join(" | ")
}

/// An error with its causes, on one line.
pub(super) fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    use fmt::Write as _;

    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        // Writing to a String does not fail.
        let _ = write!(text, ": {cause}");
        source = cause.source();
    }
    text
}

fn advice(cause: &(dyn std::error::Error + 'static)) -> &'static str {
    let mut source = Some(cause);
    while let Some(error) = source {
        match error.downcast_ref::<io::Error>().and_then(io::Error::raw_os_error) {
            Some(libc::EPERM | libc::EACCES) => {
                return "the rights suffice but bpf(2) is forbidden; look for a seccomp profile, kernel lockdown or a \
                        user namespace";
            }
            Some(libc::ENOMEM) => return "give it more memory, or raise the locked-memory limit (ulimit -l)",
            Some(_) | None => source = error.source(),
        }
    }
    "rebuild with `cargo xtask build`"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_message_says_what_to_do() {
        let errno = || io::Error::from_raw_os_error(libc::EPERM);
        let cases = [
            (OpenError::NoObject, "cargo xtask build", EXIT_FAILURE),
            (OpenError::KernelTooOld { release: "4.19.0".into() }, "5.10", EXIT_PRIVILEGE_OR_KERNEL),
            (
                OpenError::MissingPrivilege { missing: vec![Capability::Bpf, Capability::NetAdmin] },
                "CAP_BPF and CAP_NET_ADMIN missing: run as root",
                EXIT_PRIVILEGE_OR_KERNEL,
            ),
            (OpenError::NoCgroup2 { cause: errno() }, "hostPath volume", EXIT_PRIVILEGE_OR_KERNEL),
            (
                OpenError::NotTheRootCgroup { path: "/sys/fs/cgroup".into(), inode: 4711 },
                "hostPath volume",
                EXIT_PRIVILEGE_OR_KERNEL,
            ),
            (
                OpenError::CgroupNotFound { path: "/x".into(), cause: errno() },
                "kubepods.slice",
                EXIT_PRIVILEGE_OR_KERNEL,
            ),
            (
                OpenError::Attach { cause: Box::new(ProgramError::AlreadyAttached) },
                "bpftool cgroup tree",
                EXIT_PRIVILEGE_OR_KERNEL,
            ),
            (OpenError::Interfaces { cause: errno() }, "CAP_NET_ADMIN", EXIT_PRIVILEGE_OR_KERNEL),
        ];
        for (error, expected, code) in cases {
            assert!(error.to_string().contains(expected), "{error}");
            assert_eq!(error.exit_code(), code, "{error}");
        }
    }

    #[test]
    fn a_verifier_log_is_told_by_its_end() {
        assert_eq!(last_lines("a\nb\n\nc\nd\ne\n"), "b | c | d | e");
        assert_eq!(last_lines(""), "");
    }
}
