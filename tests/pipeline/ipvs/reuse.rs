//! Every recorded scenario in which a client came back with the same port: what the tables before and after prove, and what
//! that is called.

use std::{fs, time::Duration};

use pod2pod_user::ipvs::{
    Confidence, Detector, Verdict, detect, kernel::Kernel, services::Standing, situation::Severity,
};
use support::ipvs::{HEADER, compared, folder, poll, service_table, services};

const CLIENT: &str = "0AF40102 C351";
const SERVICE: &str = "0A60000A 0050";

fn server(name: &str) -> &'static str {
    match name {
        "s1" => "0AF40202",
        "s2" => "0AF40203",
        other => panic!("{other} is no server"),
    }
}

/// `s2/TIME_WAIT/119,…` as a table.
fn table(entries: &str) -> String {
    let mut table = HEADER.to_owned();
    for entry in entries.split(',') {
        let mut parts = entry.split('/');
        let (name, state, left) = (parts.next().unwrap(), parts.next().unwrap(), parts.next().unwrap());
        table += &format!("TCP {CLIENT} {SERVICE} {} 1F90 {state:11} {left:>7}\n", server(name));
    }
    table
}

/// The services after `event` happened to the server of the first connection.
fn after_event(event: &str, first: &str) -> String {
    let servers = ["s1", "s2"].into_iter().filter_map(|name| {
        let weight = match event.trim_end_matches("+dead") {
            "weight0" if name == first => 0,
            "deleted" if name == first => return None,
            _ => 1,
        };
        Some((format!("{}:1F90", server(name)), "Masq", weight, 1))
    });
    service_table(servers)
}

/// A row of `reuse/table-KERNEL.tsv`.
struct Case<'a>(Vec<&'a str>);

impl Case<'_> {
    fn kernel(&self) -> Kernel {
        let number = |column: usize| Some(self.0[column].parse().unwrap());
        Kernel {
            release: Some(self.0[0].to_owned()),
            conntrack: number(3),
            conn_reuse_mode: number(4),
            expire_nodest_conn: number(5),
            sloppy_tcp: Some(0),
            ..Kernel::default()
        }
    }

    /// Verdict, severity and situation that the outcome asks for; absent where two tables cannot show anything: the entry is as it
    /// was, or a SYN met an entry in ESTABLISHED, whose state it does not change.
    fn expected(&self) -> Option<(Verdict, Severity)> {
        let (prior, event, outcome) = (self.0[1], self.0[2].trim_end_matches("+dead"), self.0[8]);
        let milliseconds: u32 = self.0[9].parse().unwrap();
        match (outcome, prior, event) {
            ("other", ..) if milliseconds >= 1000 => Some((Verdict::Rescheduled, Severity::Warning)),
            ("other", ..) => Some((Verdict::Rescheduled, Severity::Info)),
            ("same", "TIME_WAIT", "none") => Some((Verdict::Reused, Severity::Info)),
            ("same" | "timeout", "TIME_WAIT", "weight0") => Some((Verdict::Reused, Severity::Critical)),
            ("same" | "timeout", "ESTABLISHED", _) | ("timeout", _, "deleted") => None,
            other => panic!("no such outcome: {other:?}"),
        }
    }
}

#[test]
fn the_outcomes_of_four_kernels() {
    let mut at_once = 0;
    for kernel in ["5.10", "6.1", "6.12", "7.2"] {
        let path = folder().join(format!("reuse/table-{kernel}.tsv"));
        let text = fs::read_to_string(&path).unwrap();
        let cases: Vec<Case<'_>> =
            text.lines().skip(1).map(|line| Case(line.split('\t').collect())).collect();
        assert_eq!(cases.len(), 56, "{}", path.display());
        for case in cases {
            let what = case.0.join(" ");
            let services = services(after_event(case.0[2], case.0[6]).as_bytes());
            let (before, after) = (table(case.0[7]), table(case.0[10]));
            let milliseconds: u64 = case.0[9].parse().unwrap();
            let apart = Duration::from_millis(milliseconds);
            let found = compared(before.as_bytes(), after.as_bytes(), apart, Some(&services), &case.kernel());
            let found: Vec<_> =
                found.iter().map(|reuse| (reuse.verdict, reuse.confidence, reuse.severity)).collect();
            let expected: Vec<_> = case
                .expected()
                .map(|(verdict, severity)| (verdict, Confidence::Certain, severity))
                .into_iter()
                .collect();
            if found == [(Verdict::Rescheduled, Confidence::Certain, Severity::Warning)] && expected != found
            {
                // The kernel flushes entries of a deleted server by delayed work, which may come before the SYN.
                assert_eq!((case.0[2], case.0[5]), ("deleted", "1"), "{what}");
                at_once += 1;
                continue;
            }
            assert_eq!(found, expected, "{what}");
        }
    }
    assert!(at_once <= 8, "{at_once} that were flushed at once");
}

/// The whole tables of some cases: among other entries, with the dying one beside its successor.
#[test]
fn the_tables_before_and_after() {
    use Verdict::{Rescheduled, Reused};
    let cases = [
        ("6.1-ESTABLISHED-deleted-ct0-reuse1-nodest0", None),
        ("6.1-ESTABLISHED-none-ct0-reuse0-nodest0", None),
        ("6.1-ESTABLISHED-none-ct0-reuse1-nodest0", Some((0xc376, Rescheduled))),
        ("6.1-ESTABLISHED-weight0-ct1-reuse1-nodest1", Some((0xc380, Rescheduled))),
        ("6.1-TIME_WAIT-deleted-ct0-reuse0-nodest0", None),
        ("6.1-TIME_WAIT-deleted-ct0-reuse0-nodest1", Some((0xc366, Rescheduled))),
        ("6.1-TIME_WAIT-deleted-ct0-reuse1-nodest0", Some((0xc367, Rescheduled))),
        ("6.1-TIME_WAIT-none-ct0-reuse0-nodest0", Some((0xc351, Reused))),
        ("6.1-TIME_WAIT-none-ct0-reuse1-nodest0", Some((0xc352, Rescheduled))),
        ("6.1-TIME_WAIT-weight0+dead-ct0-reuse0-nodest0", Some((0xc35d, Reused))),
        ("6.1-TIME_WAIT-weight0+dead-ct0-reuse1-nodest1", Some((0xc360, Rescheduled))),
        ("6.1-TIME_WAIT-weight0-ct0-reuse0-nodest0", Some((0xc355, Reused))),
        ("6.1-TIME_WAIT-weight0-ct0-reuse0-nodest1", Some((0xc356, Rescheduled))),
        ("6.1-TIME_WAIT-weight0-ct0-reuse1-nodest0", Some((0xc357, Rescheduled))),
    ];
    let folders = fs::read_dir(folder().join("reuse")).unwrap();
    let folders = folders.filter(|entry| entry.as_ref().unwrap().path().is_dir()).count();
    assert_eq!(folders, cases.len(), "every folder is a case");
    for (name, expected) in cases {
        let text = |which: &str| fs::read(folder().join("reuse").join(name).join(which)).unwrap();
        let (before, after) = (text("ip_vs_conn.before"), text("ip_vs_conn.after"));
        for order in ["as read", "reversed"] {
            let after = if order == "reversed" { reversed(&after) } else { after.clone() };
            let found = compared(&before, &after, Duration::from_secs(1), None, &Kernel::default());
            let told: Vec<_> = found.iter().map(|reuse| (reuse.tuple.client.1, reuse.verdict)).collect();
            assert_eq!(told, expected.into_iter().collect::<Vec<_>>(), "{name} {order}");
            for reuse in &found {
                assert_eq!(
                    (reuse.confidence, reuse.standing),
                    (Confidence::Certain, Standing::Unknown),
                    "{name}"
                );
                assert_eq!(reuse.before.server == reuse.now.server, reuse.verdict == Reused, "{name}");
                assert!(reuse.now.expires > 0, "{name}: the one that lives");
            }
        }
    }
}

/// Stage after stage of each recorded run no port came back: nothing is told, though entries close, expire and lose their server.
#[test]
fn stages_without_a_reuse_have_none() {
    for kernel in ["5.10", "6.1", "6.12"] {
        let stages = fs::read_dir(folder().join(kernel)).unwrap().map(|entry| entry.unwrap().path());
        let mut stages: Vec<_> =
            stages.filter(|path| path.is_dir() && !path.ends_with("07-sync-backup")).collect();
        stages.sort();
        assert_eq!(stages.len(), 12, "{kernel}");
        let mut detector = Detector::new(detect::Config::default());
        let mut rows = 0;
        for (index, stage) in stages.iter().enumerate() {
            let services = services(&fs::read(stage.join("ip_vs")).unwrap());
            let table = fs::read(stage.join("ip_vs_conn")).unwrap();
            let at = Duration::from_secs(2 * index as u64);
            let told = poll(&mut detector, &table, at, Some(&services), &Kernel::default());
            assert_eq!(told, [], "{}", stage.display());
            rows += table.iter().filter(|byte| **byte == b'\n').count() - 1;
        }
        assert_eq!(detector.stats().rows, rows as u64, "{kernel}");
        assert!(rows > 250, "{kernel}: {rows}");
    }
}

/// The same rows the other way round: hash order is any order.
fn reversed(table: &[u8]) -> Vec<u8> {
    let text = String::from_utf8(table.to_vec()).unwrap();
    let mut lines: Vec<&str> = text.lines().skip(1).collect();
    lines.reverse();
    format!("{HEADER}{}\n", lines.join("\n")).into_bytes()
}
