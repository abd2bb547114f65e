//! What is known of the cluster, and how it came to be known, as rows.

use super::{Counted, Kind};
use crate::{
    directory::Directory,
    kubernetes::{cluster::Ignored, objects},
    kubernetes_api::trouble::Cause,
};

/// All rows.
pub fn rows(directory: &Directory) -> Vec<Counted> {
    let shared = directory.cluster();
    let (told, stats) = shared.told();
    let counter = |name: &str, help, value| Counted::counter(&format!("kubernetes_{name}"), help, value);
    let mut rows = Vec::new();
    let each = || objects::Kind::ALL.into_iter().zip(&told);
    rows.extend(each().map(|(kind, told)| {
        let help = "Objects that are known, of the API server's news.";
        Counted::gauge("kubernetes_objects", help, told.objects).with("kind", kind.as_str())
    }));
    rows.extend(
        each()
            .map(|(kind, told)| counter("lists", "Lists asked for.", told.lists).with("kind", kind.as_str())),
    );
    rows.extend(
        each().map(|(kind, told)| {
            counter("watches", "Watches begun.", told.watches).with("kind", kind.as_str())
        }),
    );
    rows.extend(each().map(|(kind, told)| {
        let help = "Objects and news that could not be read.";
        counter("unreadable", help, told.unreadable).with("kind", kind.as_str())
    }));
    rows.extend(each().map(|(kind, told)| {
        Counted {
            name: "pod2pod_kubernetes_silence_seconds".to_owned(),
            help: "How long there has been no contact with the API server; zero while there is.",
            kind: Kind::Gauge,
            labels: Vec::new(),
            value: told.silence.as_secs_f64(),
        }
        .with("kind", kind.as_str())
    }));
    let happened = each().flat_map(|(kind, told)| {
        let failures = Cause::ALL.into_iter().zip(told.failures);
        failures.filter(|(_, count)| *count > 0).map(move |(cause, count)| (kind, cause, count))
    });
    rows.extend(happened.map(|(kind, cause, count)| {
        let row = counter("failures", "Lists and watches that failed.", count);
        row.with("kind", kind.as_str()).with("cause", cause.as_str())
    }));
    rows.extend(Ignored::ALL.into_iter().zip(stats.ignored).map(|(reason, count)| {
        counter("ignored", "News of objects that were not taken in.", count).with("reason", reason.as_str())
    }));
    rows.extend([
        counter("holders_forgotten", "Holders of addresses forgotten before their time.", stats.forgotten),
        counter("values_left_out", "Values of annotations that were too long to keep.", stats.long_values),
        Counted::gauge("kubernetes_bytes", "Memory that what is known takes, nearly.", stats.bytes),
        Counted::gauge(
            "kubernetes_ready",
            "1 when each kind's first list is complete, or has failed once.",
            shared.is_ready().into(),
        ),
        counter(
            "cgroups_forgotten",
            "Times that all cgroups whose pod was waited for were forgotten because there were too many.",
            directory.forgotten(),
        ),
    ]);
    rows
}
