//! What pod2pod may do: which capability is needed for what, what is lost without it, and which thread keeps it once everything
//! is open. The table is the truth for the agent, for `pod2pod check` and for what is in `deploy`.
//!
//! Capabilities belong to a thread: each gives up its own ([`keep`]). What the kernel does with them is in `process`.

mod process;

use std::fmt;

pub use self::process::{begin, calls_need_a_right, effective, keep, probes_need_a_right, state};

/// A capability of capabilities(7), of those that matter here. The number is the kernel's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Capability {
    /// Files whatever their owner.
    DacOverride = 1,
    /// Packets, filters at interfaces, questions about IPVS and to conntrack.
    NetAdmin = 12,
    /// What belongs to other processes.
    SysPtrace = 19,
    /// Much; also what `Bpf` and `Perfmon` were split from.
    SysAdmin = 21,
    /// Going first.
    SysNice = 23,
    /// Limits of the process.
    SysResource = 24,
    /// Programs that see memory, and probes.
    Perfmon = 38,
    /// Programs and maps.
    Bpf = 39,
}

impl Capability {
    /// Its name as capabilities(7) has it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::DacOverride => "CAP_DAC_OVERRIDE",
            Self::NetAdmin => "CAP_NET_ADMIN",
            Self::SysPtrace => "CAP_SYS_PTRACE",
            Self::SysAdmin => "CAP_SYS_ADMIN",
            Self::SysNice => "CAP_SYS_NICE",
            Self::SysResource => "CAP_SYS_RESOURCE",
            Self::Perfmon => "CAP_PERFMON",
            Self::Bpf => "CAP_BPF",
        }
    }

    const fn bit(self) -> u64 {
        1 << self as u32
    }
}

/// A set of capabilities, as the kernel writes it in hexadecimal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Set(pub u64);

impl Set {
    /// Whether the kernel takes the set for having it: CAP_SYS_ADMIN stands for what was split from it.
    pub const fn allows(self, capability: Capability) -> bool {
        let is_split_off = matches!(capability, Capability::Bpf | Capability::Perfmon);
        self.has(capability) || is_split_off && self.has(Capability::SysAdmin)
    }

    /// Whether it is in the set itself.
    pub const fn has(self, capability: Capability) -> bool {
        self.0 & capability.bit() != 0
    }

    /// What of this is to be kept so that `wanted` stays allowed.
    fn least_for(self, wanted: impl Iterator<Item = Capability>) -> Self {
        let kept = wanted.filter(|capability| self.allows(*capability)).map(|capability| {
            if self.has(capability) { capability.bit() } else { Capability::SysAdmin.bit() }
        });
        Self(kept.fold(0, |kept, bit| kept | bit))
    }
}

/// What a capability is needed for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Feature {
    /// Anything live.
    Capture,
    /// Map memory before Linux 5.11.
    LockedMemory,
    /// Cgroup v2 where nobody mounted it.
    OwnMount,
    /// Any call about a map, where the kernel asks for a right to it.
    MapCalls,
    /// Interfaces that come after the start.
    LaterInterfaces,
    /// Filters that a killed agent left, before Linux 6.6.
    StaleFilters,
    /// The kernel's decisions about IPVS, also where its module comes after the start.
    Exact,
    /// The same, where the kernel is set to let nobody else count its events.
    ExactWhereClosed,
    /// What the kernel tells of IPVS by netlink only.
    IpvsAsked,
    /// Where conntrack led connections to Services.
    Conntrack,
    /// IPVS of the host, from another network namespace.
    HostNamespace,
    /// Keeping up on a busy machine.
    GoFirst,
    /// Packet files in a folder of another user.
    PacketFile,
}

/// A thread of pod2pod, by its work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Waits for signals.
    Signals,
    /// Reads rings; one of them beats and counts.
    Worker,
    /// Follows interfaces, until what killed agents left is taken away.
    InterfacesAtFirst,
    /// Follows interfaces.
    Interfaces,
    /// Watches IPVS.
    Ipvs,
    /// Writes records.
    Output,
    /// Sends records.
    Sinks,
    /// Keeps records on disk.
    Spools,
    /// Writes packets.
    Packets,
    /// Answers requests.
    Admin,
    /// Asks the Kubernetes API.
    Kubernetes,
}

impl Part {
    /// Its name for people.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Signals => "signals",
            Self::Worker => "workers",
            Self::InterfacesAtFirst => "interfaces, for 11 s",
            Self::Interfaces => "interfaces",
            Self::Ipvs => "ipvs",
            Self::Output => "output",
            Self::Sinks => "sinks",
            Self::Spools => "spools",
            Self::Packets => "pcap",
            Self::Admin => "admin",
            Self::Kubernetes => "kubernetes",
        }
    }
}

/// A row of the table.
#[derive(Clone, Copy, Debug)]
pub struct Right {
    /// The capability.
    pub capability: Capability,
    /// What for.
    pub feature: Feature,
    /// What it is needed for, for people.
    pub why: &'static str,
    /// What is lost without it.
    pub lost: &'static str,
    /// Who keeps it once everything is open.
    pub kept_by: &'static [Part],
    /// It is among those that the manifests of the flavour `capabilities` add.
    pub in_manifest: bool,
}

/// Threads that call the kernel about maps once all is open.
const CALLS_ABOUT_MAPS: &[Part] = &[
    Part::Worker,
    Part::InterfacesAtFirst,
    Part::Interfaces,
    Part::Ipvs,
    Part::Admin,
    Part::Sinks,
    Part::Kubernetes,
];
const FOLLOWS_INTERFACES: &[Part] = &[Part::InterfacesAtFirst, Part::Interfaces];
const NOTHING: &str = "nothing can be watched";

/// The table: every capability that is ever used, and no other.
pub const RIGHTS: &[Right] = &[
    right(
        Capability::Bpf,
        Feature::Capture,
        "loads the eBPF programs and makes their maps",
        NOTHING,
        &[],
        true,
    ),
    right(
        Capability::NetAdmin,
        Feature::Capture,
        "loads and attaches programs that see packets",
        NOTHING,
        &[],
        true,
    ),
    right(
        Capability::Perfmon,
        Feature::Capture,
        "the verifier lets programs read packets as ours do",
        NOTHING,
        &[],
        true,
    ),
    right(
        Capability::SysResource,
        Feature::LockedMemory,
        "before Linux 5.11 maps count as locked memory, whose limit is raised",
        "maps may not fit the limit of locked memory, and the start fails",
        &[],
        true,
    ),
    right(
        Capability::SysAdmin,
        Feature::OwnMount,
        "mounts cgroup v2 for itself where it is not mounted",
        "sockets cannot be watched there, only network interfaces",
        &[],
        false,
    ),
    right(
        Capability::Bpf,
        Feature::MapCalls,
        "before Linux 5.19 each call about a map needs it, if kernel.unprivileged_bpf_disabled is set",
        NOTHING,
        CALLS_ABOUT_MAPS,
        true,
    ),
    right(
        Capability::NetAdmin,
        Feature::LaterInterfaces,
        "attaches to interfaces that come later",
        "pods that start after the agent are not seen at their interfaces",
        FOLLOWS_INTERFACES,
        true,
    ),
    right(
        Capability::Bpf,
        Feature::LaterInterfaces,
        "attaches to interfaces that come later",
        "pods that start after the agent are not seen at their interfaces",
        FOLLOWS_INTERFACES,
        true,
    ),
    right(
        Capability::SysAdmin,
        Feature::StaleFilters,
        "before Linux 6.6 finds out which filters a killed agent left",
        "filters that a killed agent left stay at their interfaces, where they do nothing",
        &[Part::InterfacesAtFirst],
        false,
    ),
    right(
        Capability::Bpf,
        Feature::Exact,
        "follows the decisions of IPVS, whose module may come later",
        "IPVS is polled, which misses what comes and goes between two polls",
        &[Part::Ipvs],
        true,
    ),
    right(
        Capability::Perfmon,
        Feature::Exact,
        "puts probes on functions of IPVS, whose module may come later",
        "IPVS is polled, which misses what comes and goes between two polls",
        &[Part::Ipvs],
        true,
    ),
    right(
        Capability::SysAdmin,
        Feature::ExactWhereClosed,
        "puts probes on functions of IPVS where kernel.perf_event_paranoid is above 2, as Debian and Ubuntu have it",
        "IPVS is polled there, which misses what comes and goes between two polls",
        &[Part::Ipvs],
        false,
    ),
    right(
        Capability::NetAdmin,
        Feature::IpvsAsked,
        "asks for time-outs of IPVS, and for services that its file leaves out",
        "time-outs are taken as the kernel's own, and some services may seem removed",
        &[Part::Ipvs],
        true,
    ),
    right(
        Capability::NetAdmin,
        Feature::Conntrack,
        "in a cluster asks conntrack which pod a connection to a Service was led to",
        "records of such connections name the Service only, unless the pod's own end is seen too",
        &[Part::Worker],
        true,
    ),
    right(
        Capability::SysPtrace,
        Feature::HostNamespace,
        "sees which network namespace process 1 is in, without hostNetwork",
        "IPVS of the host is polled, not followed",
        &[Part::Ipvs],
        false,
    ),
    right(
        Capability::SysNice,
        Feature::GoFirst,
        "goes before others while a ring or a queue is about to overflow",
        "on a busy machine more records are lost",
        &[Part::Worker],
        true,
    ),
    right(
        Capability::DacOverride,
        Feature::PacketFile,
        "begins the next packet file in a folder of another user",
        "packets past the first file are lost, and counted",
        &[Part::Packets],
        false,
    ),
];

const fn right(
    capability: Capability,
    feature: Feature,
    why: &'static str,
    lost: &'static str,
    kept_by: &'static [Part],
    in_manifest: bool,
) -> Right {
    Right { capability, feature, why, lost, kept_by, in_manifest }
}

/// What a thread needs from here on, if `is_used` of what it is needed for.
fn kept_by(part: Part, is_used: impl Fn(Feature) -> bool) -> impl Iterator<Item = Capability> {
    RIGHTS
        .iter()
        .filter(move |right| right.kept_by.contains(&part) && is_used(right.feature))
        .map(|right| right.capability)
}

/// What stays, and for what, of `have`: for a line in the log. `is_used` says which features are.
pub fn kept(have: Set, is_used: impl Fn(Feature) -> bool) -> String {
    let rows = RIGHTS.iter().filter(|right| !right.kept_by.is_empty() && is_used(right.feature));
    let rows = rows.filter(|right| have.allows(right.capability));
    let told: Vec<String> = rows.map(|right| format!("{}: {}", right.capability, right.why)).collect();
    if told.is_empty() { "none".to_owned() } else { told.join("; ") }
}

impl fmt::Display for Capability {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: Set = Set(u64::MAX);

    fn least(have: Set, part: Part) -> Set {
        have.least_for(kept_by(part, |_| true))
    }

    #[test]
    fn a_thread_keeps_what_it_needs_and_nothing_else() {
        let of = |capabilities: &[Capability]| Set(capabilities.iter().map(|one| one.bit()).sum());
        use Capability::{Bpf, DacOverride, NetAdmin, Perfmon, SysAdmin, SysNice, SysPtrace};
        for (part, expected) in [
            (Part::Signals, &[][..]),
            (Part::Output, &[]),
            (Part::Kubernetes, &[Bpf]),
            (Part::Worker, &[Bpf, NetAdmin, SysNice]),
            (Part::Admin, &[Bpf]),
            (Part::Sinks, &[Bpf]),
            (Part::Packets, &[DacOverride]),
            (Part::Interfaces, &[Bpf, NetAdmin]),
            (Part::InterfacesAtFirst, &[Bpf, NetAdmin, SysAdmin]),
            (Part::Ipvs, &[Bpf, NetAdmin, Perfmon, SysAdmin, SysPtrace]),
        ] {
            assert_eq!(least(ALL, part), of(expected), "{part:?}");
            assert_eq!(least(Set::default(), part), Set::default(), "{part:?}");
        }
        let worker = ALL.least_for(kept_by(Part::Worker, |feature| feature == Feature::GoFirst));
        assert_eq!(worker, of(&[SysNice]));
        let ipvs = ALL.least_for(kept_by(Part::Ipvs, |feature| feature != Feature::ExactWhereClosed));
        assert_eq!(ipvs, of(&[Bpf, NetAdmin, Perfmon, SysPtrace]));
    }

    #[test]
    fn the_old_right_stands_in_only_where_the_new_ones_are_missing() {
        let old = Set(Capability::SysAdmin.bit() | Capability::NetAdmin.bit());
        assert!(old.allows(Capability::Bpf) && old.allows(Capability::Perfmon) && !old.has(Capability::Bpf));
        assert!(!Set(Capability::SysAdmin.bit()).allows(Capability::NetAdmin));
        assert_eq!(least(old, Part::Ipvs), old);
        assert_eq!(least(old, Part::Output), Set::default());
    }

    #[test]
    fn what_is_kept_is_told_with_its_reason() {
        let have = Set(Capability::SysNice.bit() | Capability::NetAdmin.bit());
        assert_eq!(
            kept(have, |feature| feature == Feature::GoFirst || feature == Feature::Exact),
            "CAP_SYS_NICE: goes before others while a ring or a queue is about to overflow"
        );
        assert_eq!(kept(Set::default(), |_| true), "none");
    }
}
