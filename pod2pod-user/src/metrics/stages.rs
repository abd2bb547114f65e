//! What stages counted, as rows of the text exposition format.

use std::{io::Write as _, sync::Arc};

use pod2pod_common::counters::{COUNTERS, Counter};

use super::counters;
use crate::{
    capture::kernel::Table,
    delivery::{CircuitState, LATENCY_BOUNDS, Latency, Loss, SinkStats, SpoolStats, TroubleKind},
    enrich, pcap,
    pipeline::Stats,
    sinks::tail::TailStats,
};

/// Kind of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
    /// A row of a histogram, whose name ends in `_bucket`, `_sum` or `_count`.
    Histogram,
}

/// One row: a name, an optional label of a closed set, a value.
#[derive(Clone, Debug, PartialEq)]
pub struct Counted {
    /// Full metric name.
    pub name: String,
    /// One sentence.
    pub help: &'static str,
    /// Counter or gauge.
    pub kind: Kind,
    /// Labels; values are fixed words.
    pub labels: Vec<(&'static str, String)>,
    /// The value.
    pub value: f64,
}

impl Counted {
    /// A counter; `name` without `pod2pod_` and `_total`.
    pub fn counter(name: &str, help: &'static str, value: u64) -> Self {
        Self {
            name: format!("pod2pod_{name}_total"),
            help,
            kind: Kind::Counter,
            labels: Vec::new(),
            value: value as f64,
        }
    }

    /// A gauge; `name` without `pod2pod_`.
    pub fn gauge(name: &str, help: &'static str, value: u64) -> Self {
        Self {
            name: format!("pod2pod_{name}"),
            help,
            kind: Kind::Gauge,
            labels: Vec::new(),
            value: value as f64,
        }
    }

    /// The same with a label.
    pub fn with(mut self, label: &'static str, value: &str) -> Self {
        self.labels.push((label, value.to_owned()));
        self
    }
}

/// The kernel's counters, and what its ring refused.
pub fn kernel(counters: &[u64; COUNTERS], ring_lost: u64) -> Vec<Counted> {
    let rows = Counter::ALL.iter().zip(counters);
    let rows = rows.map(|(counter, value)| {
        Counted::counter(&format!("kernel_{}", counter.name()), counter.help(), *value)
    });
    let lost = Counted::counter(
        "kernel_ring_lost",
        "Reservations that the ring refused because it was full.",
        ring_lost,
    );
    rows.chain([lost]).collect()
}

/// Exchanges for whose pair there was no room, where pairs are counted.
pub fn pairs_overflowed(count: u64) -> Counted {
    let help = "Exchanges counted without who their ends are: too many pairs.";
    Counted::counter("workload_pairs_overflowed", help, count)
}

/// When everything was counted, ns since 1970.
pub fn published(nanoseconds: u64) -> Counted {
    let help = "When what is here was counted, seconds since 1970: once a second.";
    let row = Counted::gauge("metrics_counted_timestamp_seconds", help, 0);
    Counted { value: nanoseconds as f64 / 1e9, ..row }
}

/// What the kernel's table of connections holds, and what it forgot.
pub fn table(table: Table) -> Vec<Counted> {
    let entries = "Socket ends in the kernel's table, as last counted: at most once a minute.";
    let evicted = "Socket ends that the kernel's table forgot to make room, at least, as last counted.";
    vec![
        Counted::gauge("kernel_connections_entries", entries, table.entries),
        Counted::counter("kernel_connections_evicted", evicted, table.evicted),
    ]
}

/// What the stages behind capture counted.
pub fn pipeline(stats: &Stats<'_>) -> Vec<Counted> {
    let mut rows = counters::reassembly(stats.reassembly);
    rows.extend(counters::filter(stats.filter));
    rows.extend(counters::http(stats.http));
    rows.extend(counters::routes(&stats.routes));
    rows.extend(enrich(&stats.enrich, stats.label_overflows));
    rows.extend(counters::views(&stats.views));
    rows.extend(stats.pairs_overflowed.map(pairs_overflowed));
    rows
}

fn enrich(stats: &enrich::Stats, label_overflows: u64) -> Vec<Counted> {
    let counter = |name: &str, help, value| Counted::counter(&format!("enrich_{name}"), help, value);
    let fate = |word, value| {
        counter("exchanges", "Exchanges and connection attempts by what became of their record.", value)
            .with("fate", word)
    };
    let as_sent = |reason, value| {
        counter("bodies_as_sent", "Captured bodies whose content codings could not be removed.", value)
            .with("reason", reason)
    };
    let connects = stats.connects.all().map(|(outcome, place, count)| {
        let help = "Connection attempts that failed, or were answered slowly, whether a record tells of them or not.";
        let row = Counted::counter("connects", help, count).with("outcome", outcome);
        row.with("observed_at", place.as_str())
    });
    let mut rows = vec![
        fate("kept", stats.kept),
        fate("sampled_away", stats.sampled_away),
        fate("ignored", stats.ignored),
        fate("over_rate", stats.over_rate),
        fate("own", stats.own),
        counter(
            "bodies_decoded",
            "Captured bodies whose content codings were removed.",
            stats.bodies_decoded,
        ),
        counter("bodies_capped", "Of these, given in part: more than the limit.", stats.bodies_capped),
        as_sent("unknown_coding", stats.bodies_unknown_coding),
        as_sent("damaged", stats.bodies_damaged),
        as_sent("window", stats.bodies_over_window),
        counter("redacted_values", "Secrets replaced.", stats.redacted),
        counter("responses_without_request", "Responses that answer no request.", stats.without_request),
        counter("http2_connections", "HTTP/2 connections, recognised and not decoded.", stats.http2),
        Counted::counter(
            "metrics_label_sets_overflowed",
            "Exchanges counted without labels: too many label sets.",
            label_overflows,
        ),
    ];
    rows.extend(connects);
    rows
}

/// One of a sink's figures.
type Figure = fn(&SinkStats) -> u64;

/// What the sinks counted: received = delivered + dropped + in flight.
pub fn sinks(stats: &[(Arc<str>, SinkStats)]) -> Vec<Counted> {
    let mut rows = Vec::new();
    let all = |name: &str, help, value: Figure| {
        let rows =
            stats.iter().map(|(sink, stats)| Counted::counter(name, help, value(stats)).with("sink", sink));
        rows.collect::<Vec<_>>()
    };
    rows.extend(all("sink_records_received", "Records given to a sink.", |stats| stats.received));
    rows.extend(all(
        "sink_records_unwanted",
        "Records that a sink was not given: they do not fit its filter, are not of its share, or its format has no line for them.",
        |stats| stats.unwanted,
    ));
    rows.extend(all("sink_records_delivered", "Records that the target took.", |stats| stats.delivered));
    for (sink, stats) in stats {
        let is_of_spool = |reason: &str| Loss::ALL.iter().any(|loss| loss.as_str() == reason);
        let told = stats.dropped().into_iter();
        let told = told.filter(|(reason, _)| stats.spool.is_some() || !is_of_spool(reason));
        rows.extend(told.map(|(reason, count)| {
            let row = Counted::counter("sink_records_dropped", "Records that the target did not get.", count);
            row.with("sink", sink).with("reason", reason)
        }));
    }
    rows.extend(all(
        "sink_waits",
        "Times that a worker gave a sink's thread a turn to make room.",
        |stats| stats.waits,
    ));
    rows.extend(stats.iter().map(|(sink, stats)| {
        Counted::gauge("sink_queue_bytes", "Bytes queued for a sink.", stats.queued_bytes).with("sink", sink)
    }));
    let help = "How long the oldest record in flight has waited for its target, in its queue, to be sent again, or on disk.";
    rows.extend(stats.iter().map(|(sink, stats)| {
        Counted::gauge("sink_oldest_seconds", help, stats.oldest_seconds).with("sink", sink)
    }));
    rows.extend(attempts(stats));
    rows.extend(spools(stats));
    rows
}

/// How sinks' spools stand, of those that have one.
fn spools(stats: &[(Arc<str>, SinkStats)]) -> Vec<Counted> {
    type Figure = fn(&SpoolStats) -> u64;
    let gauges: [(&str, &str, Figure); 4] = [
        (
            "sink_spool_records",
            "Records on disk that are not dealt with: a later start finds them, whatever ends this one.",
            |spool| spool.records,
        ),
        ("sink_spool_bytes", "Bytes on disk, of a sink's spool.", |spool| spool.bytes),
        ("sink_spool_segments", "Files of a sink's spool.", |spool| spool.segments),
        ("sink_spool_oldest_seconds", "How long the oldest record on disk has been there.", |spool| {
            spool.oldest_seconds
        }),
    ];
    let counters: [(&str, &str, Figure); 5] = [
        (
            "sink_spool_records_recovered",
            "Records that were on disk at the start; they count as received.",
            |spool| spool.recovered,
        ),
        (
            "sink_spool_records_unwritten",
            "Records that went on from memory because the disk took nothing.",
            |spool| spool.unwritten,
        ),
        ("sink_spool_broken_bytes", "Bytes on disk that were no records.", |spool| spool.broken_bytes),
        ("sink_spool_syncs", "How often what was written was synced.", |spool| spool.synced),
        ("sink_spool_failures", "Writes, syncs and readings of a spool that failed.", |spool| spool.failed),
    ];
    let spools: Vec<_> = stats.iter().filter_map(|(sink, stats)| Some((&**sink, stats.spool?))).collect();
    let mut rows = Vec::new();
    for (name, help, figure) in gauges {
        let row = |(sink, spool): &(&str, _)| Counted::gauge(name, help, figure(spool)).with("sink", sink);
        rows.extend(spools.iter().map(row));
    }
    for (name, help, figure) in counters {
        let row = |(sink, spool): &(&str, _)| Counted::counter(name, help, figure(spool)).with("sink", sink);
        rows.extend(spools.iter().map(row));
    }
    rows
}

/// How often the configuration was read again, and had mistakes.
pub fn reloads(taken: u64, refused: u64) -> [Counted; 2] {
    let help = "Times that the configuration was read again, by what became of it; one with mistakes changes nothing.";
    let row = |result, value| Counted::counter("configuration_reloads", help, value).with("result", result);
    [row("taken", taken), row("refused", refused)]
}

/// Who looks on, and what they lost.
pub fn tail(stats: TailStats) -> Vec<Counted> {
    let TailStats { readers, refused, shown, lost } = stats;
    vec![
        Counted::gauge("tail_readers", "Who looks on at /tail.", readers),
        Counted::counter("tail_readers_refused", "Who was refused: too many look on.", refused),
        Counted::counter(
            "tail_records_shown",
            "Records shown at /tail, each as often as somebody was.",
            shown,
        ),
        Counted::counter("tail_records_lost", "Records lost to somebody who was slow to read them.", lost),
    ]
}

/// How attempts at targets that answer went.
fn attempts(stats: &[(Arc<str>, SinkStats)]) -> Vec<Counted> {
    let answering: Vec<_> =
        stats.iter().filter_map(|(sink, stats)| Some((&**sink, stats, stats.circuit?))).collect();
    let mut rows = Vec::new();
    for (sink, stats, _) in &answering {
        let help = "Records sent again, each as often as it was.";
        rows.push(Counted::counter("sink_records_retried", help, stats.retried).with("sink", sink));
    }
    for (sink, stats, _) in &answering {
        let help = "Records that the target had already, of an attempt whose answer was lost; they count as delivered.";
        rows.push(Counted::counter("sink_records_duplicate", help, stats.duplicates).with("sink", sink));
    }
    let dead = || answering.iter().filter_map(|(sink, stats, _)| Some((*sink, stats.dead?)));
    for (sink, dead) in dead() {
        let help = "Records that the target refused and that are kept as dead letters.";
        rows.push(Counted::counter("sink_dead_letters", help, dead.written).with("sink", sink));
    }
    for (sink, dead) in dead() {
        let help = "Records that the target refused and that are not kept: older dead letters, and those that could not be written.";
        for (reason, count) in [("gave_way", dead.gave_way), ("failed", dead.failed)] {
            let row = Counted::counter("sink_dead_letters_lost", help, count);
            rows.push(row.with("sink", sink).with("reason", reason));
        }
    }
    for (sink, stats, _) in &answering {
        rows.extend(TroubleKind::ALL.iter().zip(stats.troubles).map(|(kind, count)| {
            let help = "Attempts that failed and may succeed later.";
            let row = Counted::counter("sink_attempts_failed", help, count);
            row.with("sink", sink).with("reason", kind.as_str())
        }));
    }
    for (sink, _, circuit) in &answering {
        rows.extend(CircuitState::ALL.map(|state| {
            let help = "Whether the target is asked: 1 for what its circuit is.";
            let row = Counted::gauge("sink_circuit", help, u64::from(state == *circuit));
            row.with("sink", sink).with("state", state.as_str())
        }));
    }
    for (sink, stats, _) in &answering {
        let help = "Batches that may be under way at once.";
        rows.push(Counted::gauge("sink_concurrency", help, stats.concurrency).with("sink", sink));
    }
    for (sink, stats, _) in &answering {
        rows.extend(latency(sink, &stats.latency));
    }
    rows
}

/// A histogram, row by row.
fn latency(sink: &str, latency: &Latency) -> Vec<Counted> {
    let row = |part: &str, value| Counted {
        name: format!("pod2pod_sink_answer_seconds{part}"),
        help: "How long the target took to answer an attempt.",
        kind: Kind::Histogram,
        labels: vec![("sink", sink.to_owned())],
        value,
    };
    let bounds = LATENCY_BOUNDS.iter().map(f64::to_string).chain(["+Inf".to_owned()]);
    let mut count = 0;
    let mut rows: Vec<_> = bounds
        .zip(latency.counts)
        .map(|(bound, more)| {
            count += more;
            row("_bucket", count as f64).with("le", &bound)
        })
        .collect();
    rows.push(row("_sum", latency.seconds));
    rows.push(row("_count", count as f64));
    rows
}

/// How often threads were made to go first: each worker's, in their order, and those of sinks.
pub fn went_first(workers: impl Iterator<Item = u64>, sinks: &[(Arc<str>, SinkStats)]) -> Vec<Counted> {
    let help = "Times that a thread was made to go before the programs watched, since the buffer that it empties filled.";
    let row = |thread: &str, times| Counted::counter("thread_went_first", help, times).with("thread", thread);
    let workers = workers.enumerate().map(|(number, times)| row(&format!("worker-{number}"), times));
    let sinks = sinks.iter().filter_map(|(sink, stats)| Some(row(sink, stats.went_first?)));
    workers.chain(sinks).collect()
}

/// What became of segments that were to be written, and of the packets made of them: received = delivered + dropped + in
/// flight.
pub fn packets(stats: &pcap::Stats, written: &SinkStats) -> Vec<Counted> {
    let counter = |name: &str, help, value| Counted::counter(&format!("pcap_{name}"), help, value);
    let dropped = |reason, value| {
        counter("packets_dropped", "Packets that are not in a file.", value).with("reason", reason)
    };
    vec![
        counter("segments", "Segments taken to be written.", stats.packets),
        counter("segments_left_out", "Of these, of connections that a filter refuses.", stats.left_out),
        counter(
            "segments_hurried",
            "Of these, written before they were understood for want of room.",
            stats.hurried,
        ),
        counter("comments", "Exchanges named at a packet.", stats.comments),
        counter("comments_lost", "Exchanges without a packet to name them at.", stats.comments_lost),
        counter("packets_received", "Packets made of segments.", written.received),
        counter("packets_delivered", "Packets that are in a file.", written.delivered),
        dropped("queue_full", written.dropped_queue_full),
        dropped("failed", written.dropped_failed),
        dropped("shutdown", written.dropped_shutdown),
        Counted::gauge("pcap_queue_bytes", "Bytes queued for the packet file.", written.queued_bytes),
    ]
}

/// Appends `rows`; those of one name stand together.
pub fn render(out: &mut Vec<u8>, rows: &[Counted]) {
    let mut told = "";
    for row in rows {
        let (kind, name) = match row.kind {
            Kind::Counter => ("counter", row.name.as_str()),
            Kind::Gauge => ("gauge", row.name.as_str()),
            Kind::Histogram => ("histogram", row.name.rsplit_once('_').map_or("", |(name, _)| name)),
        };
        // A Vec takes every write.
        if name != told {
            let _ = writeln!(out, "# HELP {name} {}\n# TYPE {name} {kind}", row.help);
            told = name;
        }
        let labels: Vec<_> = row.labels.iter().map(|(label, value)| format!("{label}=\"{value}\"")).collect();
        let labels = if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
        let _ = writeln!(out, "{}{labels} {}", row.name, row.value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_that_ever_go_first_are_told() {
        let stats = |went_first| SinkStats { went_first, ..Default::default() };
        let mut out = Vec::new();
        let sinks = [("output".into(), stats(Some(2))), ("http".into(), stats(None))];
        render(&mut out, &went_first([0, 3].into_iter(), &sinks));
        let text = String::from_utf8(out).unwrap();
        let rows: Vec<_> = text.lines().filter(|line| !line.starts_with('#')).collect();
        let expected = ["{thread=\"worker-0\"} 0", "{thread=\"worker-1\"} 3", "{thread=\"output\"} 2"];
        assert_eq!(rows, expected.map(|row| format!("pod2pod_thread_went_first_total{row}")));
    }

    #[test]
    fn how_attempts_went_is_told_of_targets_that_answer() {
        let mut latency = Latency::default();
        latency.observe(std::time::Duration::from_millis(2));
        let http = SinkStats { retried: 3, circuit: Some(CircuitState::Open), latency, ..Default::default() };
        let mut out = Vec::new();
        render(&mut out, &attempts(&[("output".into(), SinkStats::default()), ("http".into(), http)]));
        let text = String::from_utf8(out).unwrap();
        assert!(!text.contains("sink=\"output\""), "{text}");
        for row in [
            "pod2pod_sink_records_retried_total{sink=\"http\"} 3",
            "pod2pod_sink_circuit{sink=\"http\",state=\"closed\"} 0",
            "pod2pod_sink_circuit{sink=\"http\",state=\"open\"} 1",
            "# TYPE pod2pod_sink_answer_seconds histogram",
            "pod2pod_sink_answer_seconds_bucket{sink=\"http\",le=\"0.001\"} 0",
            "pod2pod_sink_answer_seconds_bucket{sink=\"http\",le=\"0.005\"} 1",
            "pod2pod_sink_answer_seconds_bucket{sink=\"http\",le=\"+Inf\"} 1",
            "pod2pod_sink_answer_seconds_sum{sink=\"http\"} 0.002",
            "pod2pod_sink_answer_seconds_count{sink=\"http\"} 1",
        ] {
            assert_eq!(text.lines().filter(|line| *line == row).count(), 1, "{row}:\n{text}");
        }
    }

    #[test]
    fn rows() {
        let mut out = Vec::new();
        let dropped = |reason, value| Counted::counter("x", "X.", value).with("reason", reason);
        render(&mut out, &[dropped("a", 1), dropped("b", 2), Counted::gauge("y", "Y.", 3)]);
        let expected = "# HELP pod2pod_x_total X.\n# TYPE pod2pod_x_total counter\npod2pod_x_total{reason=\"a\"} 1\n\
            pod2pod_x_total{reason=\"b\"} 2\n# HELP pod2pod_y Y.\n# TYPE pod2pod_y gauge\npod2pod_y 3\n";
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }

    #[test]
    fn only_sinks_with_a_spool_have_its_rows() {
        let spool = SpoolStats { bytes: 7, segments: 1, recovered: 9, ..Default::default() };
        let http = SinkStats { spool: Some(spool), dropped_spool: [1, 2, 3], ..Default::default() };
        let mut out = Vec::new();
        render(&mut out, &sinks(&[("output".into(), SinkStats::default()), ("http".into(), http)]));
        let text = String::from_utf8(out).unwrap();
        assert!(text.lines().filter(|line| line.contains("spool")).all(|line| !line.contains("\"output\"")));
        for row in [
            "pod2pod_sink_spool_bytes{sink=\"http\"} 7",
            "pod2pod_sink_spool_records_recovered_total{sink=\"http\"} 9",
            "pod2pod_sink_records_dropped_total{sink=\"http\",reason=\"spool_broken\"} 3",
        ] {
            assert!(text.lines().any(|line| line == row), "{row}: {text}");
        }
    }
}
