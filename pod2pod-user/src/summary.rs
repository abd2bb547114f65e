//! The last line: what was seen, what was delivered, and what was lost where.
//!
//! One "lost" speaks for the whole way from the kernel to the output: it is 0 only if nothing was lost on it.

use std::{fmt, sync::Arc};

use pod2pod_common::counters::{COUNTERS, Counter};

use crate::{delivery::SinkStats, enrich, filter};

/// What a run came to.
#[derive(Clone, Debug)]
pub struct Summary {
    enriched: enrich::Stats,
    sinks: Vec<(Arc<str>, SinkStats)>,
    /// Segments that the kernel side could not hand over, by reason.
    segments: [(u64, &'static str); 2],
    /// Connections that the filter refused.
    refused: u64,
    /// The packet file, if there is one.
    packets: Option<SinkStats>,
}

impl Summary {
    /// Of what enrichment and the sinks counted.
    pub const fn new(enriched: enrich::Stats, sinks: Vec<(Arc<str>, SinkStats)>) -> Self {
        Self { enriched, sinks, segments: [(0, ""); 2], refused: 0, packets: None }
    }

    /// With what the filter counted.
    pub fn with_filter(self, stats: &filter::Stats) -> Self {
        Self { refused: stats.refused(), ..self }
    }

    /// With what became of packets, if they were to be written.
    pub fn with_packets(self, packets: Option<SinkStats>) -> Self {
        Self { packets, ..self }
    }

    /// With what the kernel side counted.
    pub fn with_kernel(self, counters: &[u64; COUNTERS]) -> Self {
        let count = |counter: Counter| counters.get(counter as usize).copied().unwrap_or_default();
        let segments = [
            (count(Counter::SegmentsRingFull), "ring full"),
            (count(Counter::SegmentsUnreadable), "unreadable"),
        ];
        Self { segments, ..self }
    }

    /// A sink took no records although its reader was there.
    pub fn output_failed(&self) -> bool {
        let mut all = self.sinks.iter().map(|(_, stats)| stats).chain(&self.packets);
        all.any(|stats| !stats.reader_gone && stats.dropped_failed + stats.refused.iter().sum::<u64>() > 0)
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let output = self.sinks.first().map(|(_, stats)| *stats).unwrap_or_default();
        let Self { enriched, segments, refused, .. } = self;
        // Whoever finds reuses gives each to every sink.
        let reuses = output.reuses;
        let seen = enriched.exchanges + reuses;
        let losses = [lost("records", &dropped(&output)), lost("segments in the kernel", segments)];
        let losses: Vec<_> = losses.into_iter().flatten().collect();
        let told = if losses.is_empty() { "0".to_owned() } else { losses.join(" and ") };
        write!(formatter, "seen {seen}, delivered {}, lost {told}", output.delivered)?;
        let parts = [
            (enriched.sampled_away, "sampled away"),
            (enriched.ignored, "ignored"),
            (enriched.over_rate, "failed connects past their rate"),
            (enriched.own, "own traffic"),
            (*refused, "connections filtered out"),
            (reuses, "reuses of IPVS entries among them"),
            (enriched.connects.total(), "connection attempts that failed or were slow among them"),
        ];
        for (count, what) in parts.iter().filter(|(count, _)| *count > 0) {
            write!(formatter, ", {count} {what}")?;
        }
        for (name, stats) in self.sinks.iter().skip(1) {
            write!(formatter, "; {name}: delivered {}, lost ", stats.delivered)?;
            formatter.write_str(lost("records", &dropped(stats)).as_deref().unwrap_or("0"))?;
        }
        if let Some(stats) = &self.packets {
            write!(formatter, "; packet file: written {}, lost ", stats.delivered)?;
            formatter.write_str(lost("packets", &dropped(stats)).as_deref().unwrap_or("0"))?;
        }
        Ok(())
    }
}

/// Records that a sink lost, by reason.
fn dropped(stats: &SinkStats) -> [(u64, &'static str); 8] {
    let failed = if stats.reader_gone { "the reader went away" } else { "the target failed" };
    let [full, lost, late, too_large, rejected, spool_full, expired, broken] =
        stats.dropped().map(|(_, count)| count);
    [
        (full, "queue full"),
        (lost, failed),
        (late, "no time left"),
        (too_large, "too large for the target"),
        (rejected, "the target refused them"),
        (spool_full, "spool full"),
        (expired, "too long in the spool"),
        (broken, "spool broken"),
    ]
}

/// How many of `what` were lost and why; nothing if none were.
fn lost(what: &str, reasons: &[(u64, &str)]) -> Option<String> {
    let total: u64 = reasons.iter().map(|(count, _)| count).sum();
    let bitten: Vec<_> = reasons.iter().filter(|(count, _)| *count > 0).collect();
    match bitten[..] {
        [] => None,
        [(_, why)] => Some(format!("{total} {what} ({why})")),
        _ => {
            let whys: Vec<_> = bitten.iter().map(|(count, why)| format!("{count} {why}")).collect();
            Some(format!("{total} {what} ({})", whys.join(", ")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(summary: &Summary, expected: &str) {
        assert_eq!(summary.to_string(), expected);
    }

    fn enriched(exchanges: u64) -> enrich::Stats {
        enrich::Stats { exchanges, ..Default::default() }
    }

    fn delivered(delivered: u64) -> SinkStats {
        SinkStats { received: delivered, delivered, ..Default::default() }
    }

    fn kernel(ring_full: u64, unreadable: u64) -> [u64; COUNTERS] {
        let mut counters = [0; COUNTERS];
        counters[Counter::SegmentsRingFull as usize] = ring_full;
        counters[Counter::SegmentsUnreadable as usize] = unreadable;
        counters
    }

    #[test]
    fn nothing_lost_is_a_zero() {
        let summary = Summary::new(enriched(10), vec![("output".into(), delivered(10))]);
        check(&summary, "seen 10, delivered 10, lost 0");
        check(&summary.with_kernel(&kernel(0, 0)), "seen 10, delivered 10, lost 0");
    }

    #[test]
    fn what_the_kernel_lost_is_lost() {
        let summary = Summary::new(enriched(10), vec![("output".into(), delivered(10))]);
        let one = summary.clone().with_kernel(&kernel(61, 0));
        check(&one, "seen 10, delivered 10, lost 61 segments in the kernel (ring full)");
        let both = summary.with_kernel(&kernel(60, 1));
        check(&both, "seen 10, delivered 10, lost 61 segments in the kernel (60 ring full, 1 unreadable)");
        assert!(!both.output_failed());
    }

    #[test]
    fn records_that_a_queue_lost_are_told_with_their_reasons() {
        let output = SinkStats {
            received: 10,
            delivered: 3,
            dropped_queue_full: 5,
            dropped_shutdown: 2,
            ..Default::default()
        };
        let summary = Summary::new(enriched(10), vec![("output".into(), output)]);
        check(
            &summary.with_kernel(&kernel(4, 0)),
            "seen 10, delivered 3, lost 7 records (5 queue full, 2 no time left) \
             and 4 segments in the kernel (ring full)",
        );
    }

    #[test]
    fn each_further_sink_speaks_for_itself() {
        let failed = SinkStats { received: 7, dropped_failed: 7, ..Default::default() };
        let kept_back = enrich::Stats { sampled_away: 2, ignored: 1, ..enriched(10) };
        let refusals = filter::Stats { refused_port: 1, refused_role: 3, ..Default::default() };
        let summary = Summary::new(kept_back, vec![("output".into(), delivered(7)), ("http".into(), failed)]);
        let summary = summary.with_filter(&refusals);
        check(
            &summary,
            "seen 10, delivered 7, lost 0, 2 sampled away, 1 ignored, 4 connections filtered out; \
             http: delivered 0, lost 7 records (the target failed)",
        );
        assert!(summary.output_failed());
    }

    #[test]
    fn packets_that_were_lost_are_told_and_are_a_failure() {
        let summary = Summary::new(enriched(1), vec![("output".into(), delivered(1))]);
        let whole = summary.clone().with_packets(Some(delivered(5)));
        check(&whole, "seen 1, delivered 1, lost 0; packet file: written 5, lost 0");
        assert!(!whole.output_failed());
        let failed = SinkStats { received: 5, delivered: 3, dropped_failed: 2, ..Default::default() };
        let failed = summary.with_packets(Some(failed));
        check(
            &failed,
            "seen 1, delivered 1, lost 0; packet file: written 3, lost 2 packets (the target failed)",
        );
        assert!(failed.output_failed());
    }

    #[test]
    fn a_reader_that_went_away_is_no_failure() {
        let output = SinkStats {
            received: 10,
            delivered: 4,
            dropped_failed: 6,
            reader_gone: true,
            ..Default::default()
        };
        let summary = Summary::new(enriched(10), vec![("output".into(), output)]);
        check(&summary, "seen 10, delivered 4, lost 6 records (the reader went away)");
        assert!(!summary.output_failed());
    }
}
