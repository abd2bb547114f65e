//! What the machine must offer before anything is loaded: kernel, rights, locked memory. Changes nothing but a limit of
//! this process.

use aya::util::KernelVersion;
use nix::sys::resource::{RLIM_INFINITY, Resource, setrlimit};
use procfs::process::Process;

use super::OpenError;

/// Oldest kernel whose verifier, ring buffer and cgroup links the programs are made for.
const OLDEST_KERNEL: (u8, u8) = (5, 10);
/// From here on map memory is charged to the cgroup, not to the process's locked memory.
const KERNEL_WITHOUT_MEMLOCK: (u8, u8) = (5, 11);

/// linux/capability.h.
const CAP_NET_ADMIN: Capability = Capability { bit: 12, name: "CAP_NET_ADMIN" };
const CAP_SYS_ADMIN: Capability = Capability { bit: 21, name: "CAP_SYS_ADMIN" };
const CAP_PERFMON: Capability = Capability { bit: 38, name: "CAP_PERFMON" };
const CAP_BPF: Capability = Capability { bit: 39, name: "CAP_BPF" };

struct Capability {
    bit: u32,
    name: &'static str,
}

impl Capability {
    const fn is_in(&self, set: u64) -> bool {
        set >> self.bit & 1 != 0
    }
}

/// Finds everything that is known to be missing.
///
/// # Errors
/// The first thing that makes loading hopeless.
pub(super) fn check() -> Result<(), OpenError> {
    // An unknown version is no reason to give up: the kernel itself will refuse.
    if let Ok(kernel) = KernelVersion::current() {
        if kernel < KernelVersion::new(OLDEST_KERNEL.0, OLDEST_KERNEL.1, 0) {
            return Err(OpenError::KernelTooOld { release: kernel.to_string() });
        }
        if kernel < KernelVersion::new(KERNEL_WITHOUT_MEMLOCK.0, KERNEL_WITHOUT_MEMLOCK.1, 0) {
            // Refused without CAP_SYS_RESOURCE; creating the maps then says that memory is short.
            let _ = setrlimit(Resource::RLIMIT_MEMLOCK, RLIM_INFINITY, RLIM_INFINITY);
        }
    }
    let effective = Process::myself().and_then(|process| process.status()).map(|status| status.capeff);
    match effective.map(missing) {
        Ok(missing) if !missing.is_empty() => Err(OpenError::MissingPrivilege { missing }),
        Ok(_) | Err(_) => Ok(()),
    }
}

/// Names what is missing from a set of effective capabilities.
fn missing(effective: u64) -> Vec<&'static str> {
    if CAP_SYS_ADMIN.is_in(effective) && CAP_NET_ADMIN.is_in(effective) {
        return Vec::new();
    }
    [CAP_BPF, CAP_NET_ADMIN, CAP_PERFMON]
        .iter()
        .filter(|capability| !capability.is_in(effective))
        .map(|capability| capability.name)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_and_the_three_capabilities_suffice() {
        let cases: [(u64, &[&str]); 5] = [
            (u64::MAX, &[]),
            (0x1ff_ffff_ffff, &[]),
            (1 << 39 | 1 << 12 | 1 << 38, &[]),
            (1 << 39, &["CAP_NET_ADMIN", "CAP_PERFMON"]),
            (0, &["CAP_BPF", "CAP_NET_ADMIN", "CAP_PERFMON"]),
        ];
        for (effective, expected) in cases {
            assert_eq!(missing(effective), expected, "{effective:#x}");
        }
    }
}
