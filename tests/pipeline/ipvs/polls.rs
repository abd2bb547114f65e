//! The detector over several polls: what is missed, doubled, gone and back, too much, or none of its business.

use std::time::Duration;

use pod2pod_user::ipvs::{
    Confidence, Detector, Reuse, Verdict,
    detect::{Config, DEFAULT_MAX_ENTRIES},
    kernel::Kernel,
};
use support::ipvs::{HEADER, compared, poll};

fn row(port: u16, server: &str, state: &str, left: u32) -> String {
    format!("TCP 0AF40102 {port:04X} 0A60000A 0050 {server} 1F90 {state:11} {left:>7}\n")
}

const ONE: &str = "0AF40202";
const TWO: &str = "0AF40203";

/// Polls five seconds apart; what each told.
fn polls(detector: &mut Detector, tables: &[String]) -> Vec<Vec<Reuse>> {
    let poll = |(index, rows): (usize, &String)| {
        let at = Duration::from_secs(5 * index as u64);
        poll(detector, format!("{HEADER}{rows}").as_bytes(), at, None, &Kernel::default())
    };
    tables.iter().enumerate().map(poll).collect()
}

fn told(tables: &[String]) -> Vec<usize> {
    let mut detector = Detector::new(Config::default());
    polls(&mut detector, tables).iter().map(Vec::len).collect()
}

#[test]
fn an_entry_that_one_poll_misses_is_still_known() {
    let (before, after) = (row(1, ONE, "TIME_WAIT", 110), row(1, ONE, "SYN_RECV", 59));
    let none = String::new();
    assert_eq!(told(&[before.clone(), none.clone(), after.clone()]), [0, 0, 1]);
    let mut detector = Detector::new(Config::default());
    let tables = [before.clone(), none.clone(), none.clone(), after.clone(), row(1, ONE, "ESTABLISHED", 899)];
    let counts: Vec<usize> = polls(&mut detector, &tables).iter().map(Vec::len).collect();
    assert_eq!((counts, detector.stats().returned), (vec![0; 5], 1), "it came back after it had expired");
    // 24 polls are 120 s: by then it is forgotten.
    for (missed, returned) in [(23, 1), (24, 0)] {
        let mut detector = Detector::new(Config::default());
        let mut tables = vec![before.clone()];
        tables.resize(missed + 1, none.clone());
        tables.push(after.clone());
        polls(&mut detector, &tables);
        assert_eq!((detector.stats().returned, detector.entries()), (returned, 1), "{missed}");
    }
}

/// The kernel expires an entry and drops the SYN; the client sends it again after a second. Polls may be more than one in it.
#[test]
fn an_entry_that_is_away_while_a_syn_is_sent_again_is_still_known() {
    let (before, after) = (row(1, ONE, "ESTABLISHED", 890), row(1, TWO, "SYN_RECV", 59));
    let table = |rows: &str| format!("{HEADER}{rows}").into_bytes();
    for (milliseconds, count, returned) in [(1000, 1, 0), (3000, 1, 0), (3001, 0, 1), (10_000, 0, 1)] {
        let mut detector = Detector::new(Config::default());
        let kernel = Kernel::default();
        let mut found = Vec::new();
        let tables = [before.as_str(), "", "", "", &after].map(table);
        for (index, table) in tables.iter().enumerate() {
            let at = Duration::from_millis(milliseconds * index as u64 / 4);
            found.extend(poll(&mut detector, table, at, None, &kernel));
        }
        let verdicts: Vec<Verdict> = found.iter().map(|reuse| reuse.verdict).collect();
        assert_eq!(verdicts, vec![Verdict::Rescheduled; count], "{milliseconds}");
        assert_eq!(detector.stats().returned, returned, "{milliseconds}");
    }
}

#[test]
fn a_dying_entry_beside_its_successor_is_told_once() {
    let (old, dying) = (row(1, ONE, "TIME_WAIT", 110), row(1, ONE, "TIME_WAIT", 0));
    let new = row(1, TWO, "ESTABLISHED", 900);
    for both in [[dying.clone(), new.clone()].concat(), [new.clone(), dying.clone()].concat()] {
        for first in [old.clone(), String::new()] {
            let later = row(1, TWO, "ESTABLISHED", 895);
            assert_eq!(told(&[first, both.clone(), later]), [0, 1, 0], "{both}");
        }
    }
    // The same server again: the state tells.
    let same = [row(1, ONE, "ESTABLISHED", 900), dying].concat();
    let mut detector = Detector::new(Config::default());
    let found = polls(&mut detector, &[same, row(1, ONE, "ESTABLISHED", 895)]).concat();
    let [reuse] = &found[..] else { panic!("{found:?}") };
    assert_eq!((reuse.verdict, reuse.confidence), (Verdict::Reused, Confidence::Certain));
    assert_eq!(detector.stats().doubles, 1);
}

/// The kernel ends an entry at once for a SYN that meets it: a poll may see it with nothing left, alone or beside its successor.
#[test]
fn an_entry_that_is_dying_has_the_age_that_it_had() {
    let (old, dying) = (row(1, ONE, "TIME_WAIT", 110), row(1, ONE, "TIME_WAIT", 0));
    let next = |left: u32| row(1, TWO, "TIME_WAIT", left);
    // Polls are five seconds apart: 10 s old, then 15; the new connection's last packet is 1 s old.
    for (tables, left, idle) in [
        (vec![old.clone(), dying.clone(), next(119)], 105, 19),
        (vec![old.clone(), [dying.clone(), next(119)].concat()], 110, 14),
        (vec![old.clone(), [next(119), dying.clone()].concat()], 110, 14),
        // Its time was over.
        (vec![row(1, ONE, "TIME_WAIT", 6), dying.clone(), next(119)], 0, 124),
    ] {
        let found = polls(&mut Detector::new(Config::default()), &tables).concat();
        let [reuse] = &found[..] else { panic!("{tables:?}: {found:?}") };
        assert_eq!((reuse.verdict, reuse.before.expires), (Verdict::Rescheduled, left), "{tables:?}");
        assert_eq!(reuse.idle, Some(Duration::from_secs(idle)), "{tables:?}");
        assert_eq!(reuse.may_have_expired, left == 0, "{tables:?}");
    }
}

/// An entry that controls others is not expired: it stays beside its successor, in poll after poll.
#[test]
fn an_old_entry_that_stays_beside_its_successor_is_told_once() {
    let both = |left: u32| [row(1, TWO, "ESTABLISHED", 900), row(1, ONE, "TIME_WAIT", left)].concat();
    let tables = [row(1, ONE, "TIME_WAIT", 110), both(105), both(100), both(95)];
    assert_eq!(told(&tables), [0, 1, 0, 0]);
}

#[test]
fn what_is_no_connection_of_this_director_is_not_watched() {
    let template = |server: &str| row(0, server, "ASSURED", 100);
    let mark = "IP  0AF40102 0000 00000007 0000 0AF40203 0000 ASSURED         106\n".to_owned();
    let other = "ICMP 0AF40102 0001 0A60000A 0050 0AF40203 1F90 NONE 100\n".to_owned();
    let mut detector = Detector::new(Config::default());
    let found = polls(&mut detector, &[[template(ONE), mark, other].concat(), template(TWO)]).concat();
    let stats = detector.stats();
    assert_eq!((found.len(), stats.rows, stats.templates, stats.other_protocols), (0, 4, 3, 1));
    let header = "Pro FromIP   FPrt ToIP     TPrt DestIP   DPrt State       Origin Expires\n";
    let synced = |origin: &str, state: &str| {
        format!("{header}TCP 0AF40102 0001 0A60000A 0050 0AF40203 1F90 {state} {origin} 50\n")
    };
    for (origin, count) in [("LOCAL", 1), ("SYNC", 0)] {
        let (before, after) = (synced(origin, "TIME_WAIT"), synced(origin, "SYN_RECV"));
        let found =
            compared(before.as_bytes(), after.as_bytes(), Duration::from_secs(5), None, &Kernel::default());
        assert_eq!(found.len(), count, "{origin}");
    }
}

#[test]
fn every_family_and_protocol() {
    let six = |server: &str, state: &str| {
        format!(
            "{HEADER}TCP fd00:0244:0001:0000:0000:0000:0000:0002 A034 fd00:0096:0000:0000:0000:0000:0000:0010 0050 {server} 1F90 {state} 50\n"
        )
    };
    let (own, mapped) = ("fd00:0244:0002:0000:0000:0000:0000:0002", TWO);
    let udp = |server: &str| format!("{HEADER}UDP 0AF40102 A411 0A60000A 0035 {server} 14E9 UDP 285\n");
    for (before, after, verdict) in [
        (six(own, "TIME_WAIT"), six(own, "SYN_RECV"), Some(Verdict::Reused)),
        (six(own, "TIME_WAIT"), six(mapped, "SYN_RECV"), Some(Verdict::Rescheduled)),
        (udp(ONE), udp(TWO), Some(Verdict::Rescheduled)),
        (udp(ONE), udp(ONE), None),
    ] {
        let found =
            compared(before.as_bytes(), after.as_bytes(), Duration::from_secs(5), None, &Kernel::default());
        assert_eq!(
            found.iter().map(|reuse| reuse.verdict).collect::<Vec<_>>(),
            Vec::from_iter(verdict),
            "{after}"
        );
        for reuse in found {
            assert_eq!(reuse.now.server.0.is_ipv4(), after.contains(TWO), "{after}");
        }
    }
}

/// What ipvs-logger printed once: 16 s apart, 18 to 83 s left before and 104 to 117 after, in TIME_WAIT.
#[test]
fn a_connection_between_two_polls_is_probable() {
    for (before, after, idle) in [(28, 114, 102), (18, 111, 109), (83, 115, 48), (72, 104, 48)] {
        let (first, second) = (row(1, ONE, "TIME_WAIT", before), row(1, ONE, "TIME_WAIT", after));
        let text = |rows: String| format!("{HEADER}{rows}").into_bytes();
        let apart = Duration::from_secs(16);
        let found = compared(&text(first), &text(second), apart, None, &Kernel::default());
        let [reuse] = &found[..] else { panic!("{found:?}") };
        assert_eq!((reuse.verdict, reuse.confidence), (Verdict::Reused, Confidence::Probable));
        assert_eq!(reuse.idle, Some(Duration::from_secs(idle)));
    }
}

#[test]
fn there_is_room_for_so_many_entries() {
    let max_entries = 3;
    let mut detector = Detector::new(Config { max_entries });
    let rows = |ports: std::ops::RangeInclusive<u16>, state: &str| -> String {
        ports.map(|port| row(port, ONE, state, 50)).collect()
    };
    let found = polls(&mut detector, &[rows(1..=3, "TIME_WAIT"), rows(1..=4, "SYN_RECV")]).concat();
    assert_eq!((found.len(), detector.entries(), detector.stats().untracked), (3, 3, 1));
    // One of IPv6 takes the room of two.
    let six = |port: u16| {
        let [client, service, server] =
            ["1", "2", "3"].map(|last| format!("fd00:{}000{last}", "0000:".repeat(6)));
        format!("TCP {client} {port:04X} {service} 0050 {server} 1F90 TIME_WAIT        50\n")
    };
    for (rows, kept) in [
        ([row(1, ONE, "TIME_WAIT", 50), six(1), six(2)], 2),
        ([six(1), row(1, ONE, "TIME_WAIT", 50), row(2, ONE, "TIME_WAIT", 50)], 2),
        ([row(1, ONE, "TIME_WAIT", 50), row(2, ONE, "TIME_WAIT", 50), six(1)], 2),
    ] {
        let mut detector = Detector::new(Config { max_entries });
        polls(&mut detector, &[rows.concat()]);
        assert_eq!((detector.entries(), detector.stats().untracked), (kept, 1), "{rows:?}");
    }
    assert_eq!(Config::default().max_entries, DEFAULT_MAX_ENTRIES);
}

/// At the largest table that is promised to fit: bytes, and nothing allocated for a row.
#[test]
fn a_table_of_100_000_rows_takes_24_mib() {
    const ROWS: u32 = 100_000;
    const MIB: u64 = 1 << 20;
    let table = |state: &str, left: u32| {
        let row = |index: u32| {
            let (client, port) = (0x0AF4_0100 + index / 25_000, 10_000 + index % 25_000);
            format!("TCP {client:08X} {port:04X} 0A60000A 0050 0AF40203 1F90 {state:11} {left:>7}\n")
        };
        HEADER.to_owned() + &(0..ROWS).map(row).collect::<String>()
    };
    let (before, after) = (table("TIME_WAIT", 100), table("TIME_WAIT", 95));
    let mut detector = None;
    let kernel = Kernel::default();
    let first = allocation_counter::measure(|| {
        let mut new = Detector::new(Config::default());
        poll(&mut new, before.as_bytes(), Duration::ZERO, None, &kernel);
        detector = Some(new);
    });
    let mut detector = detector.unwrap();
    let second = allocation_counter::measure(|| {
        assert!(poll(&mut detector, after.as_bytes(), Duration::from_secs(5), None, &kernel).is_empty());
    });
    assert_eq!(detector.entries(), ROWS as usize);
    assert!(first.bytes_max <= 24 * MIB, "{first:?}");
    assert!(second.count_total <= 10 && second.bytes_max <= MIB, "{second:?}");
}
