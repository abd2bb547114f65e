//! The object loads everywhere it is meant to, holds what the contract names, and fits its memory.

use std::{collections::BTreeSet, fs::File, iter, thread};

use aya::{
    EbpfLoader, VerifierLogLevel,
    programs::{Program, ProgramError},
};
use nix::sched::{CloneFlags, unshare};
use pod2pod_common::{flow::SCOPE_COOKIE, names};
use pod2pod_user::capture::kernel::{Capture, Config, Pattern, ScopeChoice, SourceChoice, Workers};
use support::{
    fact,
    netns::{Cgroup, Namespace},
};

/// The verifier stops at a million, but each start of the agent waits for it. Twice what it goes through: other kernels walk
/// more of the same program.
const MAX_VERIFIED_INSTRUCTIONS: u32 = 150_000;
/// As on a machine with two processors.
const RINGS: u32 = 2;
/// aya-log's levels (aya_log_common::Level).
const LOG_OFF: u8 = 0;
const LOG_DEBUG: u8 = 4;

#[test]
fn the_verifier_accepts_all_programs_with_room_to_spare() {
    let host = Namespace::new();
    host.enter();
    let (of_cgroups, of_interfaces) = names::PROGRAMS.split_at(2);
    for (source, programs) in [(SourceChoice::Cgroup, of_cgroups), (SourceChoice::Tc, of_interfaces)] {
        for debug_log in [false, true] {
            let cgroup = Cgroup::new();
            let interfaces = vec![Pattern::parse("lo").unwrap()];
            let cgroup = Some(cgroup.path().to_owned());
            let (scope, workers) = (ScopeChoice::Cookie, Workers::Exactly(RINGS));
            let config =
                Config { source, interfaces, cgroup, scope, workers, debug_log, ..Config::default() };
            let capture = Capture::open(&config).unwrap_or_else(|error| panic!("{error}"));
            for (program, count) in programs.iter().zip(capture.verified_instructions()) {
                let count = count.unwrap_or_else(|| verified_by_the_log(program, debug_log));
                if !debug_log {
                    fact::verified(program, count);
                }
                assert!(count < MAX_VERIFIED_INSTRUCTIONS, "{program}: {count} with debug_log {debug_log}");
            }
        }
    }
}

/// Instructions that the verifier goes through for `program`, where the kernel does not keep their count (before Linux 5.16):
/// its log has it. aya hands on the log of a load that fails only; this one fails behind the verifier, since its thread
/// has no descriptor left for the program.
fn verified_by_the_log(program: &'static str, debug_log: bool) -> u32 {
    let counted = thread::spawn(move || {
        // The other tests keep theirs.
        unshare(CloneFlags::CLONE_FILES).unwrap();
        let log_level = if debug_log { LOG_DEBUG } else { LOG_OFF };
        let mut ebpf = EbpfLoader::new()
            .verifier_log_level(VerifierLogLevel::STATS)
            .override_global(names::GLOBAL_SCOPE_KIND, &SCOPE_COOKIE, true)
            .override_global(names::GLOBAL_RING_COUNT, &RINGS, true)
            .override_global(names::GLOBAL_LOG_LEVEL, &log_level, true)
            .load(&object("pod2pod-ebpf"))
            .unwrap();
        let null = File::open("/dev/null").unwrap();
        let all: Vec<File> = iter::from_fn(|| null.try_clone().ok()).collect();
        let loaded = match ebpf.program_mut(program).unwrap() {
            Program::CgroupSkb(program) => program.load(),
            Program::SchedClassifier(program) => program.load(),
            other => panic!("{other:?}"),
        };
        drop(all);
        let Err(ProgramError::LoadError { verifier_log, .. }) = loaded else { panic!("{loaded:?}") };
        let log = verifier_log.to_string();
        let rest = log.split_once("processed ").unwrap_or_else(|| panic!("{log}")).1;
        rest.split(' ').next().unwrap().parse().unwrap()
    });
    counted.join().unwrap()
}

fn object(name: &str) -> Vec<u8> {
    let path = format!("{}/../target/{name}.o", env!("CARGO_MANIFEST_DIR"));
    std::fs::read(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

#[test]
fn the_root_cgroup_can_be_watched() {
    let capture = Capture::open(&Config::default()).unwrap_or_else(|error| panic!("{error}"));
    assert!(capture.description().contains(" by "), "{}", capture.description());
}

#[test]
fn the_objects_hold_what_the_contract_names() {
    let capture = [&names::PROGRAMS[..], &names::MAPS, &names::GLOBALS].concat();
    let ipvs = [&names::IPVS_PROGRAMS[..], &names::IPVS_MAPS, &names::IPVS_GLOBALS].concat();
    for (object_name, held) in [("pod2pod-ebpf", capture), ("pod2pod-ipvs", ipvs)] {
        let symbols = symbols(&object(object_name));
        for name in held {
            assert!(symbols.contains(name), "{object_name} has no {name}");
        }
    }
}

/// Names in the symbol table of a 64-bit ELF object (elf(5)).
fn symbols(object: &[u8]) -> BTreeSet<String> {
    let u16_at = |at: usize| usize::from(u16::from_ne_bytes(object[at..at + 2].try_into().unwrap()));
    let u32_at = |at: usize| u32::from_ne_bytes(object[at..at + 4].try_into().unwrap()) as usize;
    let u64_at = |at: usize| u64::from_ne_bytes(object[at..at + 8].try_into().unwrap()) as usize;
    const SYMBOL_TABLE: usize = 2;
    let sections: Vec<usize> = (0..u16_at(60)).map(|index| u64_at(40) + index * u16_at(58)).collect();
    let table = *sections.iter().find(|section| u32_at(**section + 4) == SYMBOL_TABLE).unwrap();
    let names = u64_at(sections[u32_at(table + 40)] + 24);
    let (begin, size) = (u64_at(table + 24), u64_at(table + 32));
    (begin..begin + size)
        .step_by(24)
        .map(|symbol| {
            let name = &object[names + u32_at(symbol)..];
            String::from_utf8_lossy(&name[..name.iter().position(|byte| *byte == 0).unwrap()]).into_owned()
        })
        .collect()
}
