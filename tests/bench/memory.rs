//! Memory of the agent as it counts: what is resident, each ring once although it is mapped twice, and the kernel's maps.

use std::{
    collections::BTreeMap,
    fs, thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use nix::unistd::Pid;

use crate::{
    Plan,
    checks::{self, Checks},
    live,
    observers::Observer,
    paced::{self, Pace},
    report::{Report, Row},
    say,
    spread::Spread,
    stage::{SMALL, Stage},
};

/// How the kernel names a mapping of a BPF map (kernel/bpf/syscall.c, `bpf_map_new_fd`).
const MAP_NAME: &str = "anon_inode:bpf-map";
/// BPF_MAP_TYPE_RINGBUF.
const RING_TYPE: u64 = 27;
const MIB: f64 = 1024.0 * 1024.0;

/// Memory in MiB.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Memory {
    /// Resident, each ring once.
    pub(crate) resident: f64,
    /// Resident, without rings.
    pub(crate) without_rings: f64,
    /// The kernel's maps that are no rings.
    maps: f64,
}

/// The memory rows.
const IDLE: &str = "memory when idle, without the ring";
const LOADED: &str = "memory at 10 000 requests/s over 10 000 connections, ring counted once";
const LOAD_CONNECTIONS: usize = 10_000;
const LOAD_RATE: u64 = 10_000;
/// The load goes on so many times as long as a round of anything else: every connection has spoken.
const LOAD_ROUND: u32 = 3;
/// Between two looks.
const LOOK: Duration = Duration::from_millis(100);
/// How long an idle agent is looked at.
const IDLE_TIME: Duration = Duration::from_secs(2);
/// Rounds: memory hardly differs from one to the next.
const MAX_ROUNDS: usize = 3;

/// Measures the memory rows.
pub(crate) fn run(plan: &Plan, report: &mut Report) -> Result<()> {
    let stage = Stage::build()?;
    let pace = Pace { connections: LOAD_CONNECTIONS, rate: LOAD_RATE, time: plan.round * LOAD_ROUND };
    let (mut idle, mut loaded, mut checks) = (Vec::new(), Vec::new(), Checks::default());
    let rounds = plan.rounds.min(MAX_ROUNDS);
    for round in 1..=rounds {
        say(&format!("memory, round {round} of {rounds}"));
        let watching = live::agent(plan, &stage)?;
        let pid = watching.pid().context("the agent is a process")?;
        let deadline = Instant::now() + IDLE_TIME;
        idle.push(most(pid, || Ok(Instant::now() > deadline))?);
        let mut client = paced::start(&stage, pace)?;
        loaded.push(most(pid, || client.ended())?);
        let answered = client.finish()?;
        checks.add(checks::both_ends(answered.requests, 0, &watching.end(SMALL)?));
    }
    let row = |figure: &str, seen: &[Memory], part: fn(&Memory) -> f64| {
        let spread = |part: fn(&Memory) -> f64| Spread::of(&seen.iter().map(part).collect::<Vec<_>>());
        let maps = spread(|memory| memory.maps).map_or(0.0, |spread| spread.median);
        let row = Row::measured(figure, Observer::Pod2pod.name(), "MiB", spread(part));
        row.note(format!("peak of a round; beside it the kernel's maps without the ring: {maps:.1} MiB"))
    };
    report.push(row(IDLE, &idle, |memory| memory.without_rings).at_most(12.0));
    report.push(row(LOADED, &loaded, |memory| memory.resident).at_most(32.0).checked(&checks));
    Ok(())
}

/// The most of each that `pid` has until `done`.
pub(crate) fn most(pid: Pid, mut done: impl FnMut() -> Result<bool>) -> Result<Memory> {
    let mut most = of(pid)?;
    while !done()? {
        thread::sleep(LOOK);
        let Memory { resident, without_rings, maps } = of(pid)?;
        most = Memory {
            resident: most.resident.max(resident),
            without_rings: most.without_rings.max(without_rings),
            maps: most.maps.max(maps),
        };
    }
    Ok(most)
}

/// What `pid` has now.
fn of(pid: Pid) -> Result<Memory> {
    let smaps = fs::read_to_string(format!("/proc/{pid}/smaps")).context("cannot read smaps")?;
    let (resident, mapped) = resident(&smaps);
    let mut maps = BTreeMap::new();
    for entry in fs::read_dir(format!("/proc/{pid}/fdinfo")).context("cannot read fdinfo")? {
        // The process opens and closes files meanwhile.
        let Ok(text) = fs::read_to_string(entry?.path()) else { continue };
        maps.extend(map(&text));
    }
    let maps: u64 = maps.values().sum();
    Ok(Memory {
        resident: (resident - mapped / 2) as f64 / MIB,
        without_rings: (resident - mapped) as f64 / MIB,
        maps: maps as f64 / MIB,
    })
}

/// Resident bytes of all mappings, and of those that are rings: their pages are mapped twice, one after the other
/// (kernel/bpf/ringbuf.c).
fn resident(smaps: &str) -> (u64, u64) {
    let (mut all, mut rings, mut is_ring) = (0, 0, false);
    for line in smaps.lines() {
        let mut words = line.split_whitespace();
        match (words.next(), words.next()) {
            (Some("Rss:"), Some(kib)) => {
                let bytes = kib.parse::<u64>().unwrap_or_default() * 1024;
                all += bytes;
                rings += if is_ring { bytes } else { 0 };
            }
            (Some(range), Some(_)) if range.contains('-') => is_ring = line.contains(MAP_NAME),
            _ => {}
        }
    }
    (all, rings)
}

/// Id and bytes of the map that a file is, unless it is a ring, from its fdinfo (kernel/bpf/syscall.c,
/// `bpf_map_show_fdinfo`).
fn map(fdinfo: &str) -> Option<(u64, u64)> {
    let field = |name: &str| {
        let line = fdinfo.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.and_then(|value| value.trim().parse::<u64>().ok())
    };
    let (kind, id, bytes) = (field("map_type")?, field("map_id")?, field("memlock")?);
    (kind != RING_TYPE).then_some((id, bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rings_are_told_from_the_rest() {
        let smaps = "7f00-7f10 rw-p 00000000 00:00 0 [heap]\nSize: 100 kB\nRss:                 100 kB\nVmFlags: rd\n\
            7f20-7f30 r--s 00001000 00:0e 15 anon_inode:bpf-map\nRss:                  64 kB\nPss: 32 kB\n\
            7f30-7f40 r-xp 00000000 00:0e 15 /usr/lib/libc.so.6\nRss:                   8 kB\n";
        assert_eq!(resident(smaps), (172 * 1024, 64 * 1024));
    }

    #[test]
    fn maps_are_known_by_their_files() {
        assert_eq!(map("map_type:\t9\nmax_entries:\t5\nmemlock:\t4096\nmap_id:\t3\n"), Some((3, 4096)));
        assert_eq!(
            map("map_type:\t27\nmemlock:\t4096\nmap_id:\t3\n"),
            None,
            "a ring is counted where it is mapped"
        );
        assert_eq!(map("prog_type:\t8\nmemlock:\t4096\n"), None);
    }
}
