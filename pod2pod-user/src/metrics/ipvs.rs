//! What the watch over IPVS counted, as rows. Services are told by their virtual address, as many as have figures of their own.

use std::{net::SocketAddr, time::Duration};

use pod2pod_common::decision::DecisionCounter;

use super::{Counted, Kind};
use crate::{
    ipvs::{
        detect,
        drain::{Draining, Drains},
        exact::settle,
        parse::services::Matches,
        series::{Id, Series},
        services::Services,
    },
    watch::exact::Counts,
};

/// The service of all that have no figures of their own.
const OTHER: &str = "_OTHER";

/// What is told of polls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Polls {
    /// So many.
    pub count: u64,
    /// Of these, the table could not be read.
    pub failed: u64,
    /// Rows that could not be parsed.
    pub damaged: u64,
    /// How long the last one took.
    pub took: Duration,
}

/// All rows of a poll but its age.
pub fn rows(
    polls: &Polls,
    stats: &detect::Stats,
    series: &Series,
    services: Option<&Services>,
    drains: &Drains,
) -> Vec<Counted> {
    let seconds = |name: &str, help, value: Duration| Counted {
        name: format!("pod2pod_ipvs_{name}_seconds"),
        help,
        kind: Kind::Gauge,
        labels: Vec::new(),
        value: value.as_secs_f64(),
    };
    let mut rows = vec![
        counter("polls", "Polls of the IPVS table.", polls.count),
        counter("polls_failed", "Polls in which the table could not be read.", polls.failed),
        counter("rows", "Rows of all polls.", stats.rows),
        counter("rows_unparsable", "Rows that could not be parsed.", polls.damaged),
        counter("rows_untracked", "Rows of entries that there was no room for.", stats.untracked),
        counter(
            "ports_returned",
            "Entries that came back within their time-out after they had expired.",
            stats.returned,
        ),
        Counted::gauge(
            "ipvs_services_overflowed",
            "Virtual addresses told as _OTHER for want of room, at the last poll.",
            series.overflowed(),
        ),
        seconds("poll_duration", "How long the last poll took.", polls.took),
    ];
    rows.extend(series.reuses().map(|(id, verdict, severity, count)| {
        counter("reuses", "New connections that met the entry of an old one.", count)
            .with("service", &name(series, id))
            .with("verdict", verdict.as_str())
            .with("severity", severity.as_str())
    }));
    rows.extend(series.entries().into_iter().map(|(id, state, count)| {
        Counted::gauge("ipvs_entries", "Entries in the table, at the last poll.", count)
            .with("service", &name(series, id))
            .with("state", state.as_str())
    }));
    rows.extend(servers(services, drains));
    rows
}

/// What is told of the kernel's decisions, and of what was made of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Decided {
    /// Whether they are followed.
    pub is_followed: bool,
    /// What the kernel side counted.
    pub counts: Counts,
    /// What became of polling's reuses beside them.
    pub settled: settle::Stats,
    /// Reuses by who found them.
    pub found: [(&'static str, u64); 2],
    /// Reuses that left before their exchange could fail, for want of room.
    pub hurried: u64,
    /// Decisions that workers had not read when they had to go.
    pub unread: u64,
}

/// Counters of SYNs by what became of them.
const OUTCOMES: [DecisionCounter; 7] = [
    DecisionCounter::NotOurs,
    DecisionCounter::New,
    DecisionCounter::Reused,
    DecisionCounter::Rescheduled,
    DecisionCounter::Dropped,
    DecisionCounter::PassedOn,
    DecisionCounter::Repeated,
];

/// All rows of exact mode.
pub fn decided(decided: &Decided) -> Vec<Counted> {
    let Decided { is_followed, counts, settled, found, hurried, unread } = decided;
    let is_on = "1 while every SYN that IPVS decides on is followed (exact mode).";
    let mut rows = vec![Counted::gauge("ipvs_exact", is_on, u64::from(*is_followed))];
    rows.extend(OUTCOMES.iter().map(|outcome| {
        counter(
            "decisions",
            "SYNs by what IPVS did with them, while they are followed.",
            counts.kernel.of(*outcome),
        )
        .with("outcome", outcome.name())
    }));
    let lost = [
        ("unseen", counts.kernel.of(DecisionCounter::Lost)),
        ("ring_full", counts.kernel.of(DecisionCounter::RingFull)),
        ("unreadable", counts.kernel.of(DecisionCounter::Unreadable)),
        ("probe_missed", counts.missed),
    ];
    rows.extend(lost.map(|(reason, count)| {
        counter("decisions_lost", "Decisions that were not seen or not told, or may not have been.", count)
            .with("reason", reason)
    }));
    rows.extend(found.map(|(detector, count)| {
        counter("reuses_found", "Reuses by who found them, each told once.", count).with("detector", detector)
    }));
    let results =
        [("told", settled.told), ("disproved", settled.disproved), ("unexplained", settled.unexplained)];
    rows.extend(results.map(|(result, count)| {
        let help = "What polling found while decisions were followed: told with its decision, no new connection, or explained by none.";
        counter("reuses_settled", help, count).with("result", result)
    }));
    let forgotten = "Decisions that polling may find once more, for want of room.";
    rows.push(counter("decisions_forgotten", forgotten, settled.forgotten));
    let unread_help = "Decisions that a worker had not read when they had to go; the next poll has them.";
    rows.push(counter("decisions_unread", unread_help, *unread));
    let hurried_help = "Reuses told before their exchange could fail, for want of room.";
    rows.push(counter("reuses_hurried", hurried_help, *hurried));
    rows
}

/// How long ago the last poll was.
pub fn age(age: Duration) -> Counted {
    Counted {
        name: "pod2pod_ipvs_poll_age_seconds".to_owned(),
        help: "How long ago the table was last read.",
        kind: Kind::Gauge,
        labels: Vec::new(),
        value: age.as_secs_f64(),
    }
}

/// Whether there is a table.
pub fn present(is_present: bool) -> Counted {
    Counted::gauge("ipvs_present", "1 while there is an IPVS table that can be read.", is_present.into())
}

fn counter(name: &str, help: &'static str, value: u64) -> Counted {
    Counted::counter(&format!("ipvs_{name}"), help, value)
}

fn servers(services: Option<&Services>, drains: &Drains) -> Vec<Counted> {
    let weights = services.into_iter().flat_map(Services::iter).flat_map(|(_, service)| &service.servers);
    let (mut zero, mut positive) = (0, 0);
    weights.for_each(|server| *(if server.weight == 0 { &mut zero } else { &mut positive }) += 1);
    let help = "Real servers by weight: one with weight zero takes no new connections.";
    let of_weight = |weight, count| Counted::gauge("ipvs_real_servers", help, count).with("weight", weight);
    let help = "Real servers with weight zero, or removed, that entries are left of.";
    let draining = |word: Draining| {
        Counted::gauge("ipvs_real_servers_draining", help, drains.count(word)).with("draining", word.as_str())
    };
    vec![
        of_weight("zero", zero),
        of_weight("positive", positive),
        draining(Draining::Yes),
        draining(Draining::Never),
    ]
}

fn name(series: &Series, id: Id) -> String {
    match series.service(id) {
        Some(Matches::Address(protocol, (address, port))) => {
            let protocol = protocol.to_string().to_ascii_lowercase();
            format!("{}/{protocol}", SocketAddr::new(*address, *port))
        }
        Some(Matches::Mark(mark)) => format!("mark {mark}"),
        None => OTHER.to_owned(),
    }
}
