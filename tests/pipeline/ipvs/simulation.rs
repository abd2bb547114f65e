//! The detector against a simulated kernel whose table changes while it is read. Whatever it calls certain happened, and
//! what two whole readings show is found.

mod join;

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use pod2pod_user::ipvs::{
    Confidence, Detector, Reuse, Verdict, detect,
    kernel::Kernel,
    parse::{Connections, Lines},
    services::{Services, Standing},
    state::State,
};
use support::{
    ipvs::HEADER,
    simulation::{Entry, FIRST_PORT, Fact, Setting, Simulation},
};

/// A table is read for so long, milliseconds.
const READING: u64 = 30;

/// An entry may be away for so long and be the same, milliseconds.
const RESENT: u64 = 3000;

/// A reading of a table that changes meanwhile: of what is there at both ends of it one row or both, of some none. Says
/// which clients' rows were untouched by that.
fn reading(simulation: &mut Simulation, torn: bool) -> (String, HashMap<usize, Entry>) {
    let first = simulation.rows();
    let entries: Vec<Entry> = simulation.entries.clone();
    let at = simulation.now;
    simulation.run_until(at + READING);
    let mut second: BTreeMap<u32, String> = simulation.rows().into_iter().collect();
    let mut rows = Vec::new();
    let mut clear: HashMap<usize, Entry> = HashMap::new();
    for ((id, before), entry) in first.into_iter().zip(&entries) {
        let after = second.remove(&id);
        let is_alone = entries.iter().filter(|other| other.client == entry.client).count() == 1;
        let is_calm = entry.dying.is_none()
            && is_alone
            && simulation
                .entries
                .iter()
                .any(|own| own.id == id && (own.state, own.dying) == (entry.state, None));
        match (simulation.rng.below(if torn { 40 } else { 1 }), after) {
            (1, _) => {}
            (2, Some(after)) => rows.extend([before, after]),
            (choice, Some(after)) => {
                rows.push(if choice % 2 == 0 { before } else { after });
                if is_calm {
                    clear.insert(entry.client, *entry);
                }
            }
            (_, None) => rows.push(before),
        }
    }
    // In front of their chains: a reader that is past them does not see them.
    rows.extend(second.into_values().filter(|_| simulation.rng.below(2) == 0));
    (HEADER.to_owned() + &rows.concat(), clear)
}

fn poll(detector: &mut Detector, text: &str, at: u64, services: &Services, kernel: &Kernel) -> Vec<Reuse> {
    detector.begin(Duration::from_millis(at));
    let mut connections = Connections::default();
    Lines::default().push(text.as_bytes(), &mut |line| {
        if let Some(row) = connections.line(line) {
            detector.push(&row);
        }
    });
    assert_eq!(connections.damage.lines, 0, "{text}");
    detector.finish(Duration::from_millis(READING), Some(services), kernel)
}

#[derive(Debug, Default)]
struct Found {
    certain: usize,
    probable: usize,
    rescheduled: usize,
    expected: usize,
}

fn number(reuse: &Reuse) -> (usize, usize) {
    let std::net::IpAddr::V4(server) = reuse.now.server.0 else { panic!("{reuse:?}") };
    (usize::from(reuse.tuple.client.1) - FIRST_PORT, server.to_bits() as usize - 0x0AF4_0202)
}

/// What is told of a poll happened since the poll before the last one, or while a SYN may be sent again.
fn check_told(simulation: &Simulation, reuse: &Reuse, polls: &[u64], found: &mut Found, context: &str) {
    let (client, server) = number(reuse);
    let [from, last] = [2, 1].map(|back| polls[polls.len().saturating_sub(back)]);
    let from = from.min(simulation.now.saturating_sub(RESENT + 2 * READING));
    let facts: Vec<Fact> = simulation.facts(client, from, simulation.now).collect();
    let came = |wanted: &dyn Fn(usize, bool) -> bool| {
        facts.iter().any(|fact| matches!(fact, Fact::Syn { server, made } if wanted(*server, *made)))
    };
    let is_true = match reuse.verdict {
        Verdict::Reused => came(&|own, _| own == server),
        Verdict::Rescheduled => came(&|own, made| own == server && made),
        Verdict::Dropped => false,
    };
    assert!(is_true, "{context}: {reuse:?} of {facts:?}");
    if !reuse.may_have_expired {
        let ran_out = simulation.facts(client, last, simulation.now).any(|fact| fact == Fact::RanOut);
        assert!(!ran_out, "{context}: {reuse:?} of {facts:?}");
    }
    let own = simulation.servers[server];
    let standing = if own.present { Standing::Weight(own.weight) } else { Standing::Absent };
    assert_eq!(reuse.standing, standing, "{context}");
    match (reuse.confidence, reuse.verdict) {
        (Confidence::Probable, _) => found.probable += 1,
        (Confidence::Certain, Verdict::Reused) => found.certain += 1,
        (Confidence::Certain, Verdict::Rescheduled | Verdict::Dropped) => found.rescheduled += 1,
    }
}

/// What two whole readings of a client's entry show has to be told.
fn check_missing(before: &Entry, now: &Entry, told: &[Reuse], found: &mut Found, context: &str) {
    use State::{Close, CloseWait, Established, FinWait, SynRecv, TimeWait};
    let shows_syn = matches!(
        (before.state, now.state),
        (TimeWait | Close | CloseWait | FinWait, SynRecv | Established)
            | (TimeWait | Close, CloseWait | FinWait)
            | (Established, SynRecv)
            | (Close, TimeWait)
    );
    let expected = if before.server != now.server {
        Verdict::Rescheduled
    } else if shows_syn {
        Verdict::Reused
    } else {
        return;
    };
    found.expected += 1;
    let is_it = |reuse: &&Reuse| number(reuse) == (now.client, now.server) && reuse.verdict == expected;
    let own = told.iter().find(is_it).unwrap_or_else(|| panic!("{context}: {before:?} {now:?}: {told:?}"));
    assert_eq!(own.confidence, Confidence::Certain, "{context}");
}

fn simulate(seed: u64, setting: Setting, interval: u64, torn: bool) -> Found {
    let context = format!("seed {seed} {setting:?} interval {interval} torn {torn}");
    let mut simulation = Simulation::new(seed, setting);
    let mut detector = Detector::new(detect::Config::default());
    let kernel = Kernel { sloppy_tcp: Some(0), ..Kernel::default() };
    let mut found = Found::default();
    let mut polls = vec![0];
    let mut last = HashMap::new();
    for at in (interval..300_000).step_by(interval as usize) {
        simulation.run_until(at);
        let (text, clear) = reading(&mut simulation, torn);
        let told = poll(&mut detector, &text, at, &simulation.services(), &kernel);
        for reuse in &told {
            check_told(&simulation, reuse, &polls, &mut found, &context);
        }
        for (client, now) in &clear {
            if let Some(before) = last.get(client) {
                check_missing(before, now, &told, &mut found, &context);
            }
        }
        polls.push(at);
        last = clear;
    }
    found
}

/// Every setting with every kind of forwarding, at intervals short and long.
#[test]
fn what_is_certain_happened_and_what_two_readings_show_is_told() {
    let base = 0x6970_7673;
    let mut all = Found::default();
    for round in 0..96u64 {
        let setting = Setting {
            reuse_mode: u32::from(round & 1 != 0),
            expire_nodest: round & 2 != 0,
            conntrack: round & 4 != 0,
            direct: round & 8 != 0,
        };
        let interval = [250, 1000, 5000, 16_000][round as usize % 4];
        let found = simulate(base + round, setting, interval, round & 16 != 0);
        all.certain += found.certain;
        all.probable += found.probable;
        all.rescheduled += found.rescheduled;
        all.expected += found.expected;
    }
    // A simulation in which nothing happens proves nothing.
    assert!(
        all.certain > 500 && all.probable > 50 && all.rescheduled > 500 && all.expected > 1000,
        "{all:?}"
    );
}
