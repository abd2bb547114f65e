//! What `cargo bench` measured of the stages, as rows: criterion's samples and the counted allocations. Measures nothing.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use serde::Deserialize;

use crate::{
    Plan,
    report::{Report, Row},
    spread::Spread,
};

/// Allocations of each stage, as the stages' benchmark writes them beside the other results.
const ALLOCATIONS: &str = "allocations.json";
/// Where criterion puts the group, from the results' directory.
const SAMPLES: &str = "../criterion/parts";

/// Criterion's samples: how often each ran the work, and how long that took in nanoseconds.
#[derive(Deserialize)]
struct Samples {
    iters: Vec<f64>,
    times: Vec<f64>,
}

/// Makes the rows.
pub(crate) fn run(plan: &Plan, report: &mut Report) -> Result<()> {
    let counted: BTreeMap<String, f64> = read(&plan.out.join(ALLOCATIONS))?;
    for name in ORDER {
        let allocations = counted.get(name).with_context(|| format!("nothing was counted of `{name}`"))?;
        let place: PathBuf = plan.out.join(SAMPLES).join(name).join("new");
        let samples: Samples = read(&place.join("sample.json"))?;
        let benchmark: serde_json::Value = read(&place.join("benchmark.json"))?;
        let elements = benchmark.pointer("/throughput/Elements").and_then(serde_json::Value::as_f64);
        let each = each(&samples, elements.context("criterion was told no throughput")?);
        let (stage, unit) = name.split_once(", ").unwrap_or((name, ""));
        let row = Row::measured(&format!("stage: {stage}"), "pod2pod", "ns", Spread::of(&each));
        report.push(row.note(format!("of {unit}; {allocations:.2} allocations")));
    }
    Ok(())
}

/// The stages in their order, as the benchmark names them.
const ORDER: [&str; 10] = [
    "decode, a ring record",
    "packet, a frame",
    "reassembly, a segment",
    "http, a message",
    "enrich, an exchange",
    "record, a line",
    "all stages, an exchange",
    "ipvs, a row",
    "kubernetes, both ends of an exchange",
    "naming, both ends of an exchange",
];

/// Nanoseconds of one element, by sample.
fn each(samples: &Samples, elements: f64) -> Vec<f64> {
    samples.iters.iter().zip(&samples.times).map(|(runs, time)| time / runs / elements).collect()
}

fn read<T: for<'a> Deserialize<'a>>(file: &Path) -> Result<T> {
    let text = fs::read_to_string(file)
        .with_context(|| format!("cannot read {}; `cargo xtask bench parts` makes it", file.display()))?;
    serde_json::from_str(&text).with_context(|| format!("cannot understand {}", file.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_is_divided_by_its_runs_and_elements() {
        let samples = Samples { iters: vec![1.0, 2.0], times: vec![1000.0, 3000.0] };
        assert_eq!(each(&samples, 100.0), [10.0, 15.0]);
    }

    #[test]
    fn the_names_are_those_of_the_stages_benchmark() {
        let sources = [
            include_str!("../../pod2pod-user/benches/parts/main.rs"),
            include_str!("../../pod2pod-user/benches/parts/ipvs.rs"),
            include_str!("../../pod2pod-user/benches/parts/kubernetes.rs"),
        ];
        for name in ORDER {
            assert!(sources.concat().contains(&format!("\"{name}\"")), "{name}");
        }
    }
}
