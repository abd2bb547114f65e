//! What the machine must offer before anything is loaded: kernel, rights, locked memory. Changes nothing but a limit of
//! this process.

use aya::util::KernelVersion;
use nix::sys::resource::{RLIM_INFINITY, Resource, setrlimit};

use super::OpenError;
use crate::rights::{self, Capability, Feature, RIGHTS, Set};

/// Oldest kernel whose verifier, ring buffer and cgroup links the programs are made for.
const OLDEST_KERNEL: (u8, u8) = (5, 10);
/// From here on map memory is charged to the cgroup, not to the process's locked memory.
const KERNEL_WITHOUT_MEMLOCK: (u8, u8) = (5, 11);

/// How a capability is come by.
pub(super) const HOW_TO_GET: &str = "run as root, or give these capabilities to the binary (setcap) or to the container \
                                     (securityContext.capabilities.add)";

/// Finds everything that is known to be missing to the calling thread for a feature that loads programs.
///
/// # Errors
/// The first thing that makes loading hopeless.
pub(super) fn check(feature: Feature) -> Result<(), OpenError> {
    kernel()?;
    if locks_memory() {
        // Refused without CAP_SYS_RESOURCE; creating the maps then says that memory is short.
        let _ = setrlimit(Resource::RLIMIT_MEMLOCK, RLIM_INFINITY, RLIM_INFINITY);
    }
    let missing = missing(rights::effective(), feature);
    if missing.is_empty() { Ok(()) } else { Err(OpenError::MissingPrivilege { missing }) }
}

/// Whether the kernel is new enough. An unknown version is no reason to give up: the kernel itself will refuse.
///
/// # Errors
/// It is not.
pub(super) fn kernel() -> Result<(), OpenError> {
    match KernelVersion::current() {
        Ok(kernel) if kernel < version(OLDEST_KERNEL) => {
            Err(OpenError::KernelTooOld { release: kernel.to_string() })
        }
        Ok(_) | Err(_) => Ok(()),
    }
}

/// Whether map memory counts as locked memory.
pub fn locks_memory() -> bool {
    KernelVersion::current().is_ok_and(|kernel| kernel < version(KERNEL_WITHOUT_MEMLOCK))
}

const fn version((major, minor): (u8, u8)) -> KernelVersion {
    KernelVersion::new(major, minor, 0)
}

/// What a feature needs that is not in a set of effective capabilities.
pub(super) fn missing(effective: Set, feature: Feature) -> Vec<Capability> {
    let needed = RIGHTS.iter().filter(|right| right.feature == feature).map(|right| right.capability);
    needed.filter(|capability| !effective.allows(*capability)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_and_the_three_capabilities_suffice() {
        use Capability::{Bpf, NetAdmin, Perfmon};
        let cases: [(u64, &[Capability]); 6] = [
            (u64::MAX, &[]),
            (0x1ff_ffff_ffff, &[]),
            (1 << 39 | 1 << 12 | 1 << 38, &[]),
            (1 << 21 | 1 << 12, &[]),
            (1 << 39, &[NetAdmin, Perfmon]),
            (0, &[Bpf, NetAdmin, Perfmon]),
        ];
        for (effective, expected) in cases {
            assert_eq!(missing(Set(effective), Feature::Capture), expected, "{effective:#x}");
        }
        assert_eq!(missing(Set(1 << 39), Feature::Exact), [Perfmon]);
    }
}
