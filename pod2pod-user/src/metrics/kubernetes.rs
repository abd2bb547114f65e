//! What is known of the cluster, and how it came to be known, as rows.

use super::{Counted, Kind};
use crate::{
    directory::Directory,
    kubernetes::{cluster::Ignored, objects},
    kubernetes_api::{shared::Told, trouble::Cause},
};

/// All rows; those of asking only where somebody is asked.
pub fn rows(directory: &Directory) -> Vec<Counted> {
    let shared = directory.cluster();
    let (told, stats) = shared.told();
    let mut rows = Vec::new();
    let each = || objects::Kind::ALL.into_iter().zip(&told);
    rows.extend(each().map(|(kind, told)| {
        let help = "Objects that are known, of the API server's news.";
        Counted::gauge("kubernetes_objects", help, told.objects).with("kind", kind.as_str())
    }));
    if shared.has_server() {
        rows.extend(asked(&told, shared.is_ready()));
    }
    rows.extend(each().map(|(kind, told)| {
        let help = "Objects and news that could not be read.";
        counter("unreadable", help, told.unreadable).with("kind", kind.as_str())
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
        counter(
            "cgroups_forgotten",
            "Times that all cgroups whose pod was waited for were forgotten because there were too many.",
            directory.forgotten(),
        ),
    ]);
    rows
}

fn counter(name: &str, help: &'static str, value: u64) -> Counted {
    Counted::counter(&format!("kubernetes_{name}"), help, value)
}

/// Lists, watches, and whether there is contact.
fn asked(told: &[Told], is_ready: bool) -> Vec<Counted> {
    let mut rows = Vec::new();
    let each = || objects::Kind::ALL.into_iter().zip(told);
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
        Counted {
            name: "pod2pod_kubernetes_silence_seconds".to_owned(),
            help: "How long there has been no contact with the API server; zero while there is.",
            kind: Kind::Gauge,
            labels: Vec::new(),
            value: told.silence.as_secs_f64(),
        }
        .with("kind", kind.as_str())
    }));
    let help = "1 when each kind's first list is complete, or has failed once.";
    rows.push(Counted::gauge("kubernetes_ready", help, is_ready.into()));
    rows
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, time::Duration};

    use super::*;
    use crate::{
        directory::Cgroups,
        kubernetes::cluster::Cluster,
        kubernetes_api::{self, Shared},
    };

    #[test]
    fn nothing_is_told_of_asking_where_nobody_is_asked() {
        let names = |cluster: Shared| -> BTreeSet<String> {
            let directory = Directory::new(cluster, Cgroups::default(), None, Default::default());
            rows(&directory).into_iter().map(|row| row.name).collect()
        };
        let clock = || Duration::from_secs(1000);
        let alone = names(kubernetes_api::without_server(&Default::default(), clock));
        let asking = names(Shared::new(Cluster::new(Default::default()), clock));
        let more: Vec<&str> = asking.difference(&alone).map(String::as_str).collect();
        let expected = ["lists_total", "ready", "silence_seconds", "watches_total"]
            .map(|name| format!("pod2pod_kubernetes_{name}"));
        assert_eq!(more, expected);
        assert!(alone.is_subset(&asking) && alone.contains("pod2pod_kubernetes_objects"));
    }
}
