//! The decisions of IPVS, live: finds out whether this kernel can be followed, attaches the probes, reads what they tell.
//!
//! Decides nothing about what is told, and waits for nothing: the caller does. Where it cannot be, the reason is a sentence.

mod machine;
mod unavailable;

use std::{
    fs,
    os::fd::{AsFd, AsRawFd as _, BorrowedFd},
    path::PathBuf,
    time::Duration,
};

use aya::{
    Ebpf, EbpfLoader,
    maps::{MapData, PerCpuArray, RingBuf},
    programs::KProbe,
};
use nix::time::{ClockId, clock_getres};
use pod2pod_common::{decision::DecisionCounterValues, names};

use self::machine::{Machine, Target};
pub use self::unavailable::Unavailable;
use super::{object, open::map, preflight};
use crate::{
    ipvs::exact::{Decision, raw},
    rights::Feature,
};

/// What to follow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DecisionsConfig {
    /// Inode of the network namespace; all of them without it.
    pub namespace: Option<u32>,
    /// Tell every decision, and not only of SYNs that met an old entry or failed.
    pub tells_all: bool,
    /// Where the file systems of the kernel are; `/` but in tests.
    pub root: PathBuf,
}

impl Default for DecisionsConfig {
    fn default() -> Self {
        Self { namespace: None, tells_all: false, root: PathBuf::from("/") }
    }
}

/// The probes, attached. Detaches when dropped.
pub struct Decisions {
    machine: Machine,
    /// Which loading of the module it is.
    module: u64,
    ring: RingBuf<MapData>,
    counters: PerCpuArray<MapData, DecisionCounterValues>,
    tick: Duration,
    malformed: u64,
    instructions: Vec<(&'static str, Option<u32>)>,
    // Holds the programs and their links.
    ebpf: Ebpf,
}

impl Decisions {
    /// Whether the kernel can be followed, as far as can be known without loading anything.
    ///
    /// # Errors
    /// It cannot, for the reason given.
    pub fn check(config: &DecisionsConfig) -> Result<(), Unavailable> {
        preflight::check(Feature::Exact).map_err(Unavailable::from)?;
        object::ipvs().ok_or(Unavailable::NoObject)?;
        Machine::new(config.root.clone()).target().map(|_| ())
    }

    /// Attaches to this kernel.
    ///
    /// # Errors
    /// It cannot be followed, for the reason given.
    pub fn open(config: &DecisionsConfig) -> Result<Self, Unavailable> {
        let machine = Machine::new(config.root.clone());
        let target = machine.target()?;
        preflight::check(Feature::Exact).map_err(Unavailable::from)?;
        let object = object::ipvs().ok_or(Unavailable::NoObject)?;
        let mut ebpf = load(object, config, &target)?;
        let mut instructions = Vec::new();
        for (program, function) in &target.functions {
            instructions.push((*program, attach(&mut ebpf, program, function)?));
        }
        Ok(Self {
            machine,
            module: target.module,
            ring: map(&mut ebpf, names::MAP_DECISIONS)?,
            counters: map(&mut ebpf, names::MAP_DECISION_COUNTERS)?,
            tick: tick(),
            malformed: 0,
            instructions,
            ebpf,
        })
    }

    /// Which loading of the module there is, of this machine; absent if it is not loaded.
    pub fn module() -> Option<u64> {
        Machine::new(DecisionsConfig::default().root).module()
    }

    /// Hands on what was decided, at most `max` decisions; whether there may be more.
    pub fn drain(&mut self, max: usize, deliver: &mut impl FnMut(&Decision)) -> bool {
        for _ in 0..max {
            let Some(item) = self.ring.next() else { return false };
            match raw::record(&item).and_then(|record| Decision::of(&record, self.tick).ok()) {
                Some(decision) => deliver(&decision),
                None => self.malformed += 1,
            }
        }
        true
    }

    /// What was counted since it was opened, of all processors.
    pub fn counters(&self) -> DecisionCounterValues {
        let mut sum = DecisionCounterValues::ZERO;
        if let Ok(values) = self.counters.get(&0, 0) {
            for value in values.iter() {
                for (sum, one) in sum.0.iter_mut().zip(value.0) {
                    *sum = sum.wrapping_add(one);
                }
            }
        }
        sum
    }

    /// Times that the kernel passed over a probe, because an eBPF program was at work on that processor: each may have been a
    /// SYN's. It counts them from Linux 6.7 on.
    pub fn missed(&self) -> u64 {
        let fds = self.ebpf.programs().filter_map(|(_, program)| program.fd().ok());
        fds.filter_map(|fd| misses(fd.as_fd())).sum()
    }

    /// Records that were none.
    pub const fn malformed(&self) -> u64 {
        self.malformed
    }

    /// Whether the module is still the one that was attached to. Probes end with their module, and nobody tells.
    pub fn is_attached(&self) -> bool {
        self.machine.module() == Some(self.module)
    }

    /// Programs, and the instructions that the verifier went through; unknown before Linux 5.16.
    pub fn verified_instructions(&self) -> &[(&'static str, Option<u32>)] {
        &self.instructions
    }
}

impl AsFd for Decisions {
    /// Readable while decisions wait.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.ring.as_fd()
    }
}

fn load(object: &[u8], config: &DecisionsConfig, target: &Target) -> Result<Ebpf, Unavailable> {
    let namespace = config.namespace.unwrap_or(0);
    let tells_all = u32::from(config.tells_all);
    EbpfLoader::new()
        .override_global(names::GLOBAL_LAYOUT, &target.layout, true)
        .override_global(names::GLOBAL_NAMESPACE, &namespace, true)
        .override_global(names::GLOBAL_TELL_ALL, &tells_all, true)
        .load(object)
        .map_err(|cause| Unavailable::Load { cause: Box::new(cause) })
}

/// Loads a program and attaches it; gives the verifier's work.
fn attach(
    ebpf: &mut Ebpf,
    program: &'static str,
    function: &'static str,
) -> Result<Option<u32>, Unavailable> {
    let failed = |cause| Unavailable::Attach { function, cause: Box::new(cause) };
    let found = ebpf.program_mut(program).ok_or(Unavailable::ObjectMismatch { name: program })?;
    let probe: &mut KProbe = found.try_into().map_err(failed)?;
    probe.load().map_err(|cause| Unavailable::of_program(program, cause))?;
    probe.attach(function, 0).map_err(failed)?;
    Ok(probe.info().ok().and_then(|info| info.verified_instruction_count()))
}

/// What the kernel says of a program's descriptor (`bpf_prog_show_fdinfo`, kernel/bpf/syscall.c).
fn misses(program: BorrowedFd<'_>) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/self/fdinfo/{}", program.as_raw_fd())).ok()?;
    parse_misses(&text)
}

fn parse_misses(text: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix("recursion_misses:"))?.trim().parse().ok()
}

/// Length of the kernel's ticks: the resolution of its coarse clock is exactly that.
fn tick() -> Duration {
    const USUAL: Duration = Duration::from_millis(4);
    clock_getres(ClockId::CLOCK_MONOTONIC_COARSE).map_or(USUAL, Duration::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn misses_are_read_where_the_kernel_tells_them() {
        for (text, expected) in [
            ("pos:\t0\nprog_type:\t2\nrecursion_misses:\t17\nverified_insns:\t22\n", Some(17)),
            ("pos:\t0\nprog_type:\t2\n", None),
            ("recursion_misses:\tmany\n", None),
        ] {
            assert_eq!(parse_misses(text), expected, "{text}");
        }
    }
}
