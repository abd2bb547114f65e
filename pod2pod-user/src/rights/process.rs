//! What the kernel lets this process and its threads do: read, and given up. Nothing here is ever gained.

use std::{fs, io};

use aya::util::KernelVersion;
use nix::sys::resource::{Resource, setrlimit};
use rustix::{
    process::{DumpableBehavior, dumpable_behavior, set_dumpable_behavior},
    thread::{
        CapabilitySet, CapabilitySets, capabilities, capability_is_in_bounding_set, no_new_privs,
        remove_capability_from_bounding_set, set_capabilities, set_no_new_privs,
    },
};

use super::{Feature, Part, Set, kept_by};

/// From here on calls about maps that one holds need no right (c8644cd0efe7).
const KERNEL_WITH_FREE_MAP_CALLS: (u8, u8) = (5, 19);

/// Capabilities are numbers below this one (capget(2): two words of 32 bits).
const CAPABILITIES: u32 = 64;

/// What can be given up at once, before any other thread starts: what a program could gain that this one becomes, and core
/// dumps, which hold what was captured. What cannot be is left as it is; [`state`] tells.
pub fn begin() {
    // Each may be refused: without CAP_SETPCAP the bounding set stays as the container runtime made it.
    let _ = set_no_new_privs(true);
    let _ = setrlimit(Resource::RLIMIT_CORE, 0, 0);
    // The limit does not hold for a core_pattern that is a pipe.
    let _ = set_dumpable_behavior(DumpableBehavior::NotDumpable);
    if !sees_itself() {
        let _ = set_dumpable_behavior(DumpableBehavior::Dumpable);
    }
    for capability in (0..CAPABILITIES).map(|bit| CapabilitySet::from_bits_retain(1 << bit)) {
        let _ = remove_capability_from_bounding_set(capability);
    }
    if let Ok(sets) = capabilities(None) {
        // What is not inheritable cannot be ambient either.
        let _ = set_capabilities(None, CapabilitySets { inheritable: CapabilitySet::empty(), ..sets });
    }
}

/// Whether this process may look at its own descriptors, by which it counts what its maps take. Before Linux 5.14 that is for
/// their owner only, which is root where a process is not dumpable.
fn sees_itself() -> bool {
    let Ok(mut entries) = fs::read_dir("/proc/self/fdinfo") else { return false };
    entries.next().is_none_or(|entry| entry.is_ok_and(|entry| fs::read(entry.path()).is_ok()))
}

/// What the calling thread may do.
pub fn effective() -> Set {
    Set(capabilities(None).map_or(0, |sets| sets.effective.bits()))
}

/// The calling thread gives up all that `part` does not need any more; what it is used for says `is_used`, but for what the
/// kernel decides.
///
/// # Errors
/// The kernel refuses, which it does not for what one has.
pub fn keep(part: Part, is_used: impl Fn(Feature) -> bool) -> io::Result<()> {
    let permitted = Set(capabilities(None)?.permitted.bits());
    let is_used =
        |feature| if feature == Feature::MapCalls { calls_need_a_right() } else { is_used(feature) };
    let kept = CapabilitySet::from_bits_retain(permitted.least_for(kept_by(part, is_used)).0);
    let sets = CapabilitySets { effective: kept, permitted: kept, inheritable: CapabilitySet::empty() };
    Ok(set_capabilities(None, sets)?)
}

/// Whether the kernel asks for a right with each call about a map.
pub fn calls_need_a_right() -> bool {
    let (major, minor) = KERNEL_WITH_FREE_MAP_CALLS;
    let is_free = KernelVersion::current().is_ok_and(|kernel| kernel >= KernelVersion::new(major, minor, 0));
    // Where the setting is not to be seen, it is taken as set.
    let setting = fs::read_to_string("/proc/sys/kernel/unprivileged_bpf_disabled");
    !is_free && setting.map_or(true, |text| text.trim() != "0")
}

/// Whether probes need more than CAP_PERFMON: distributions' own kernels know a level of `kernel.perf_event_paranoid` above 2, the
/// highest of Linux itself, from which on CAP_SYS_ADMIN is asked for.
pub fn probes_need_a_right() -> bool {
    let setting = fs::read_to_string("/proc/sys/kernel/perf_event_paranoid");
    setting.is_ok_and(|text| text.trim().parse::<i32>().is_ok_and(|level| level > 2))
}

/// What [`begin`] came to, for people.
pub fn state() -> String {
    let bounding = (0..CAPABILITIES).map(|bit| CapabilitySet::from_bits_retain(1 << bit));
    let left = bounding.filter(|one| capability_is_in_bounding_set(*one) == Ok(true)).count();
    let is_off = matches!(dumpable_behavior(), Ok(DumpableBehavior::NotDumpable));
    format!(
        "no_new_privs {}, core dumps {}, bounding set {}",
        if no_new_privs() == Ok(true) { "set" } else { "refused" },
        if is_off { "off" } else { "limited to 0 bytes" },
        if left == 0 { "empty".to_owned() } else { format!("of {left} (no CAP_SETPCAP)") },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_gives_up_what_it_has_and_no_other_does() {
        let before = effective();
        let after = std::thread::spawn(|| {
            keep(Part::Output, |_| true).unwrap();
            (effective(), capabilities(None).unwrap().permitted.bits())
        });
        assert_eq!(after.join().unwrap(), (Set::default(), 0));
        assert_eq!(effective(), before);
        // What is not there is not gained.
        let none = std::thread::spawn(|| {
            keep(Part::Output, |_| true).unwrap();
            keep(Part::Ipvs, |_| true).unwrap();
            effective()
        });
        assert_eq!(none.join().unwrap(), Set::default());
    }
}
