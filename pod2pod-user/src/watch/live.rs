//! The live table: services, real servers, weights, entries by state, who drains and who never will, reuses a second; below it the
//! last reuses. On a terminal each poll draws it anew; elsewhere one follows the other. Writes to memory only.

use std::{collections::VecDeque, fmt::Write as _, time::Duration};

use super::overview::Overview;
use crate::{
    ipvs::{
        Reuse,
        drain::{Draining, Drains},
        parse::Row,
        selection::Pattern,
        services::Services,
    },
    terminal::REDRAW,
};

/// Lines about the last reuses that are shown: a handful below a table.
const MAX_RECENT: usize = 8;

/// The table.
#[derive(Debug)]
pub(super) struct Live {
    is_terminal: bool,
    drains: Drains,
    overview: Overview,
    recent: VecDeque<Vec<u8>>,
    /// When the last poll was, and how many reuses had been told by then.
    last: Option<(Duration, u64)>,
}

impl Live {
    /// Nothing was seen yet.
    pub(super) fn new(is_terminal: bool) -> Self {
        let (drains, overview) = (Drains::default(), Overview::default());
        Self { is_terminal, drains, overview, recent: VecDeque::new(), last: None }
    }

    /// An entry of the poll.
    pub(super) fn row(&mut self, row: &Row<'_>, services: Option<&Services>) {
        self.overview.push(row, services);
        self.drains.row(row, services);
    }

    /// The poll is over, it was `at`, and proved these reuses; so many were told so far. `out` has their lines, and gets the table
    /// instead.
    pub(super) fn draw(
        &mut self,
        at: Duration,
        (reuses, told): (&[Reuse], u64),
        services: Option<&Services>,
        patterns: &[Pattern],
        out: &mut Vec<u8>,
    ) {
        self.drains.finish(at, reuses, services);
        let lines = out.split_inclusive(|byte| *byte == b'\n').map(<[u8]>::to_vec);
        self.recent.extend(lines);
        let over = self.recent.len().saturating_sub(MAX_RECENT);
        self.recent.drain(..over);
        out.clear();
        if self.is_terminal {
            out.extend_from_slice(REDRAW);
        }
        let (last, before) = self.last.replace((at, told)).unzip();
        let apart = last.map(|last| at.saturating_sub(last).as_secs_f64()).filter(|apart| *apart > 0.0);
        let mut head = format!("{} s", at.as_secs());
        if let Some(apart) = apart {
            let _ = write!(
                head,
                ", {:.1} reuses a second",
                told.saturating_sub(before.unwrap_or(told)) as f64 / apart
            );
        }
        let [draining, never] = [Draining::Yes, Draining::Never].map(|word| self.drains.count(word));
        let _ = writeln!(head, ", {draining} real servers draining, {never} never draining\n");
        out.extend_from_slice(head.as_bytes());
        let overview = std::mem::take(&mut self.overview);
        overview.push_text(out, services, patterns, Some(&self.drains));
        out.push(b'\n');
        self.recent.iter().for_each(|line| out.extend_from_slice(line));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SERVICES: &str = "\
IP Virtual Server version 1.2.1 (size=4096)
Prot LocalAddress:Port Scheduler Flags
  -> RemoteAddress:Port Forward Weight ActiveConn InActConn
TCP  0A60000A:0050 rr  
  -> 0AF40203:1F90      Masq    0      0          1         
  -> 0AF40202:1F90      Masq    1      1          0         
";

    fn drawn(live: &mut Live, at: u64, lines: &str) -> String {
        let mut services = Services::default();
        SERVICES.lines().for_each(|line| services.line(line.as_bytes()));
        for row in [
            "TCP 0AF40102 C351 0A60000A 0050 0AF40203 1F90 TIME_WAIT        60",
            "TCP 0AF40102 C352 0A60000A 0050 0AF40202 1F90 ESTABLISHED     890",
        ] {
            live.row(&Row::parse(row.as_bytes(), false).unwrap(), Some(&services));
        }
        let mut out = lines.as_bytes().to_vec();
        live.draw(Duration::from_secs(at), (&[], at * 2), Some(&services), &[], &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn each_poll_draws_the_table_anew() {
        let mut live = Live::new(true);
        let first = drawn(&mut live, 0, "");
        assert!(
            first.starts_with("\x1b[H\x1b[J0 s, 1 real servers draining, 0 never draining\n\nSERVICE"),
            "{first}"
        );
        let has = |text: &str, words: &str| {
            text.lines().any(|line| line.split_whitespace().collect::<Vec<_>>().join(" ") == words)
        };
        assert!(has(&first, "tcp 10.96.0.10:80 10.244.2.3:8080 masq 0 0 1 draining 1 TIME_WAIT"), "{first}");
        assert!(has(&first, "tcp 10.96.0.10:80 10.244.2.2:8080 masq 1 1 0 1 ESTABLISHED"), "{first}");
        let lines: String = (0..=MAX_RECENT).map(|number| format!("reuse {number}\n")).collect();
        let second = drawn(&mut live, 5, &lines);
        assert!(second.contains("5 s, 2.0 reuses a second") && second.ends_with(&lines[8..]), "{second}");
        assert!(
            !second.contains("reuse 0\n")
                && has(&second, "tcp 10.96.0.10:80 10.244.2.2:8080 masq 1 1 0 1 ESTABLISHED"),
            "{second}"
        );
    }

    #[test]
    fn elsewhere_nothing_moves_a_cursor() {
        assert!(!drawn(&mut Live::new(false), 0, "").contains('\x1b'));
    }
}
