//! What this machine and this process have of what capture needs. The words are those of [`OpenError`]. Attaches nothing; it makes
//! a map and a program to see whether that is allowed, and a mount of cgroup v2 where there is none, for as long as it looks.

use std::{fs, path::Path};

use aya::{
    maps::MapType,
    programs::ProgramType,
    sys::{is_map_supported, is_program_supported},
    util::KernelVersion,
};

use super::{
    Config, Decisions, DecisionsConfig, OpenError, SourceChoice, cgroup,
    interfaces::Selection,
    interfaces_socket::Questions,
    object,
    open_error::{OLDEST_KERNEL_TEXT, chain, forbidden},
    preflight,
};
use crate::{
    finding::Finding,
    rights::{self, Feature},
};

/// From here on programs go in front of all others at an interface, and leave with their process.
const KERNEL_WITH_TCX: (u8, u8) = (6, 6);
/// The types of the kernel itself.
const TYPES: &str = "/sys/kernel/btf/vmlinux";

/// The kernel's release.
pub fn kernel() -> Finding {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    match preflight::kernel() {
        Err(error) => error.finding(),
        Ok(()) => Finding::ok("kernel", format!("Linux {}", release.trim())).with(OLDEST_KERNEL_TEXT, "", ""),
    }
}

/// The programs in this binary.
pub fn programs() -> Finding {
    match object::embedded() {
        None => OpenError::NoObject.finding(),
        Some(object) => {
            Finding::ok("programs", format!("{} bytes of eBPF programs are built in", object.len()))
        }
    }
}

/// Whether bpf(2) may be called, for what capture calls it.
pub fn bpf() -> Finding {
    const NAME: &str = "bpf";
    let kinds = [ProgramType::CgroupSkb, ProgramType::SchedClassifier];
    for kind in kinds {
        match is_program_supported(kind) {
            Ok(true) => {}
            Ok(false) => {
                return Finding::missing(NAME, format!("this kernel has no programs of the kind {kind:?}"))
                    .with(
                        "CONFIG_BPF_SYSCALL, CONFIG_CGROUP_BPF, CONFIG_NET_CLS_ACT",
                        "nothing can be watched",
                        "run a kernel with them, as all distributions have",
                    );
            }
            Err(error) => return forbidden(NAME, &error),
        }
    }
    Finding::ok(NAME, format!("programs can be loaded{}", settings()))
}

/// Settings that forbid some of it to some.
fn settings() -> String {
    let read = |path: &str| fs::read_to_string(path).ok().map(|text| text.trim().to_owned());
    let unprivileged = read("/proc/sys/kernel/unprivileged_bpf_disabled")
        .map(|value| format!("; kernel.unprivileged_bpf_disabled is {value}"));
    // The one that holds is in brackets: none, integrity, confidentiality.
    let lockdown = read("/sys/kernel/security/lockdown").and_then(|text| {
        let (_, rest) = text.split_once('[')?;
        Some(format!("; lockdown is {}", rest.split_once(']')?.0))
    });
    unprivileged.into_iter().chain(lockdown).collect()
}

/// The kind of map by which records come.
pub fn ring() -> Finding {
    const NAME: &str = "ring buffer";
    match is_map_supported(MapType::RingBuf) {
        Ok(true) => Finding::ok(NAME, "there"),
        Ok(false) => Finding::missing(NAME, "this kernel has no ring buffers").with(
            "Linux 5.8",
            "nothing can be watched",
            "run a newer kernel",
        ),
        Err(error) => forbidden(NAME, &error),
    }
}

/// The types of the kernel: only what follows its own functions needs them.
pub fn types(follows: bool) -> Finding {
    const NAME: &str = "kernel types";
    if Path::new(TYPES).exists() {
        return Finding::ok(NAME, TYPES);
    }
    let finding = Finding::missing(NAME, format!("no {TYPES}")).with(
        "CONFIG_DEBUG_INFO_BTF, to follow the decisions of IPVS",
        "IPVS is polled, not followed",
        "run a kernel with it, or set ipvs.detector: polling",
    );
    if follows { finding.limits() } else { Finding::ok(NAME, format!("no {TYPES}; they are not needed")) }
}

/// The root of cgroup v2, or the configured cgroup, and what tells containers apart there.
pub fn cgroup(config: &Config) -> Finding {
    const NAME: &str = "cgroup v2";
    if config.watches_interfaces() {
        return Finding::ok(NAME, "not needed: interfaces are watched");
    }
    match cgroup::open(config.cgroup.as_deref()) {
        Err(error) => {
            let finding = error.finding();
            // Then interfaces are.
            let may_do_without = config.source == SourceChoice::Auto && config.cgroup.is_none();
            if may_do_without { finding.limits() } else { finding }
        }
        Ok((_, path)) => {
            let controllers = cgroup::v1_controllers();
            if controllers.is_empty() {
                return Finding::ok(NAME, format!("its root is at {}", path.display()));
            }
            let found =
                format!("the root is at {}, but cgroup v1 has {}", path.display(), controllers.join(", "));
            Finding::missing(NAME, found)
                .with(
                    "cgroup v2 alone, to tell containers by their cgroup",
                    "the local end's pod is told by its address only: on the host's network and on loopback it is unknown",
                    "boot with systemd.unified_cgroup_hierarchy=1",
                )
                .limits()
        }
    }
}

/// How programs get to interfaces, and to how many of those that are there.
pub fn interfaces(config: &Config) -> Finding {
    const NAME: &str = "interfaces";
    let has_tcx = KernelVersion::current()
        .is_ok_and(|kernel| kernel >= KernelVersion::new(KERNEL_WITH_TCX.0, KERNEL_WITH_TCX.1, 0));
    let way = if has_tcx { "tcx" } else { "filters of clsact, as before Linux 6.6" };
    let present = Questions::open().and_then(|mut questions| questions.interfaces());
    match present {
        Err(cause) => {
            let finding = OpenError::Interfaces { cause }.finding();
            if config.watches_interfaces() { finding } else { finding.limits() }
        }
        Ok(present) if config.watches_interfaces() => {
            let selection = Selection::new(&config.interfaces, &present);
            let count = present.iter().filter(|interface| selection.wants(interface)).count();
            Finding::ok(NAME, format!("{count} of {} are watched ({selection}), by {way}", present.len()))
        }
        Ok(present) => {
            Finding::ok(NAME, format!("{} here; sockets are watched; there is {way}", present.len()))
        }
    }
}

/// Whether the decisions of IPVS can be followed.
pub fn exact(follows: bool) -> Finding {
    const NAME: &str = "ipvs, exact mode";
    if !follows {
        return Finding::ok(NAME, "not asked for");
    }
    match Decisions::check(&DecisionsConfig::default()) {
        Ok(()) => Finding::ok(NAME, "the kernel's decisions can be followed"),
        Err(reason) if reason.may_come() => Finding::ok(NAME, format!("{reason}; it is tried when it comes")),
        Err(reason) => Finding::missing(NAME, reason.to_string())
            .with(
                "Linux 5.11 with BTF of the module ip_vs, kprobes, CAP_BPF and CAP_PERFMON",
                "IPVS is polled, which misses what comes and goes between two polls",
                "give it what is missing, or set ipvs.detector: polling",
            )
            .limits(),
    }
}

/// Each capability of the table that this thread lacks and something needs, or that all are there. `is_used` says which features
/// are.
pub fn capabilities(is_used: impl Fn(Feature) -> bool) -> Vec<Finding> {
    lacking(rights::effective(), is_used)
}

fn lacking(have: rights::Set, is_used: impl Fn(Feature) -> bool) -> Vec<Finding> {
    let needed: Vec<_> = rights::RIGHTS.iter().filter(|right| is_used(right.feature)).collect();
    let mut found: Vec<Finding> = Vec::new();
    for right in needed.iter().filter(|right| !have.allows(right.capability)) {
        let name = right.capability.name();
        // The first row is of what matters most.
        if found.iter().any(|finding| finding.name == name) {
            continue;
        }
        let rows = needed.iter().filter(|row| row.capability == right.capability);
        let whys: Vec<&str> = rows.map(|row| row.why).collect();
        let finding = Finding::missing(name, format!("{name} is missing")).with(
            whys.join("; "),
            right.lost,
            preflight::HOW_TO_GET,
        );
        found.push(if right.feature == Feature::Capture { finding } else { finding.limits() });
    }
    if found.is_empty() {
        let mut names: Vec<&str> = needed.iter().map(|right| right.capability.name()).collect();
        names.sort_unstable();
        names.dedup();
        found.push(Finding::ok("capabilities", format!("{} are there", names.join(", "))));
    }
    found
}

/// An error of a start that nobody foresaw, with its causes.
pub(super) fn unforeseen(error: &OpenError) -> Finding {
    Finding::missing("capture", chain(error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{finding::Status, rights::Set};

    #[test]
    fn each_missing_capability_is_told_once_with_the_worst_loss() {
        let all = |_| true;
        let told: Vec<_> = lacking(Set(0), all)
            .into_iter()
            .map(|one| (one.name.into_owned(), one.status, one.lost))
            .collect();
        let nothing = "nothing can be watched".to_owned();
        assert_eq!(told[0], ("CAP_BPF".to_owned(), Status::Missing, nothing.clone()));
        assert_eq!(told[1], ("CAP_NET_ADMIN".to_owned(), Status::Missing, nothing.clone()));
        assert_eq!(told[2], ("CAP_PERFMON".to_owned(), Status::Missing, nothing));
        let names: Vec<_> = told.iter().map(|(name, ..)| name.as_str()).collect();
        assert_eq!(
            names[3..],
            ["CAP_SYS_RESOURCE", "CAP_SYS_ADMIN", "CAP_SYS_PTRACE", "CAP_SYS_NICE", "CAP_DAC_OVERRIDE"]
        );
        assert!(told[3..].iter().all(|(_, status, _)| *status == Status::Limited), "{told:?}");
        let [fine] = &lacking(Set(u64::MAX), |feature| feature == Feature::Capture)[..] else { panic!() };
        assert_eq!(
            (fine.status, fine.found.as_str()),
            (Status::Ok, "CAP_BPF, CAP_NET_ADMIN, CAP_PERFMON are there")
        );
    }
}
