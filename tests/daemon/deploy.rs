//! What is in `deploy` for Prometheus and Grafana: alert rules and dashboards, by promtool's judgement, and by the metrics that the
//! code has.

use std::{
    collections::BTreeSet,
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use pod2pod_common::counters::{COUNTERS, CounterValues};
use pod2pod_user::{
    capture::kernel::{self, Snapshot, Table, Unread},
    delivery::SinkStats,
    enrich, filter, http,
    ipvs::{detect, drain::Drains, join, series::Series},
    metrics::{Counted, Ledger, counters, ipvs, ledger, stages},
    named, reassembly,
    rights::RIGHTS,
};
use serde_json::Value;

use support::process::{command, run};

use crate::{capture, endpoints::Server};

/// Where the chart has the rules and the dashboards, which the other ways of installing take from there.
const RULES: &str = "helm/pod2pod/files/prometheus";
const DASHBOARDS: &str = "helm/pod2pod/files/grafana";

fn deploy(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy").join(path)
}

fn promtool(arguments: &[&str], folder: &Path) {
    let output = Command::new("promtool").args(arguments).current_dir(folder).output();
    let output = output.expect("promtool is there: cargo xtask setup daemon");
    let told = [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
    assert!(output.status.success(), "{}{}", told[0], told[1]);
}

/// Names of our metrics in a text, and of those that every process has; those that rules make have a colon.
fn names(text: &str) -> BTreeSet<String> {
    let of_a_name = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    let words = text.split(|c| !of_a_name(c));
    let is_ours = |word: &&str| OURS.iter().any(|start| word.starts_with(start)) && !word.contains(':');
    words.filter(is_ours).map(str::to_owned).collect()
}

/// How names of our metrics begin.
const OURS: [&str; 4] = ["pod2pod_", "http_server_", "http_client_", "process_"];

/// Files in a folder of `deploy` whose names end so.
fn files(folder: &str, end: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(deploy(folder)).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<PathBuf> = entries.filter(|path| path.to_str().unwrap().ends_with(end)).collect();
    files.sort();
    assert!(files.len() >= 3, "{files:?}");
    files
}

/// The queries of every panel, and those of variables, with the dashboard's name.
fn queries() -> Vec<(String, String)> {
    let mut queries = Vec::new();
    for file in files(DASHBOARDS, ".json") {
        let name = file.file_stem().unwrap().to_str().unwrap().to_owned();
        let dashboard: Value = serde_json::from_str(&fs::read_to_string(&file).unwrap()).unwrap();
        assert_eq!(dashboard["uid"], format!("pod2pod-{name}"));
        let panels = dashboard["panels"].as_array().unwrap();
        let targets = panels.iter().flat_map(|panel| panel["targets"].as_array().unwrap());
        queries.extend(targets.map(|target| (name.clone(), target["expr"].as_str().unwrap().to_owned())));
        let mut ids: Vec<i64> = panels.iter().map(|panel| panel["id"].as_i64().unwrap()).collect();
        ids.dedup();
        assert_eq!(ids.len(), panels.len(), "{name}: panels with one id");
        let variables = dashboard["templating"]["list"].as_array().unwrap().iter();
        for variable in variables.filter(|variable| variable["type"] == "query") {
            let query = variable["query"].as_str().unwrap();
            let series = query.strip_prefix("label_values(").and_then(|rest| rest.rsplit_once(", "));
            queries.push((name.clone(), series.expect("label_values(SERIES, LABEL)").0.to_owned()));
        }
    }
    queries
}

/// A query as the dashboard fills its variables in.
fn filled_in(query: &str) -> String {
    let query = query.replace("$__rate_interval", "1m").replace("$__range", "1h");
    let words: Vec<&str> = query.split('$').collect();
    let (first, rest) = words.split_first().unwrap();
    let mut filled = (*first).to_owned();
    for word in rest {
        filled.push_str(".*");
        filled.push_str(word.trim_start_matches(|c: char| c.is_ascii_alphabetic() || c == '_'));
    }
    filled
}

#[test]
fn rules_are_what_promtool_takes_and_fire_when_they_should() {
    let folder = deploy(RULES);
    for file in files(RULES, ".rules.yaml") {
        let name = file.file_name().unwrap().to_str().unwrap();
        let test = name.replace(".rules.yaml", ".rules.test.yaml");
        promtool(&["check", "rules", name], &folder);
        promtool(&["test", "rules", &test], &folder);
        let rules = fs::read_to_string(&file).unwrap();
        let tests = fs::read_to_string(folder.join(test)).unwrap();
        for alert in rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")) {
            assert!(tests.contains(&format!("alertname: {alert}\n")), "{alert} has no test");
        }
        let parts = fs::read_to_string(folder.join("kustomization.yaml")).unwrap();
        assert!(parts.contains(name), "{name} is not in the kustomization");
    }
    let parts = fs::read_to_string(deploy(DASHBOARDS).join("kustomization.yaml")).unwrap();
    for file in files(DASHBOARDS, ".json") {
        let name = file.file_name().unwrap().to_str().unwrap().to_owned();
        assert!(parts.contains(&name), "{name} is not in the kustomization");
    }
}

#[test]
fn queries_of_the_dashboards_are_what_promtool_takes() {
    let mut rules = "groups:\n  - name: dashboards\n    rules:\n".to_owned();
    for (number, (_, query)) in queries().iter().enumerate() {
        let query = Value::from(filled_in(query));
        writeln!(rules, "      - record: panel:query:{number}\n        expr: {query}").unwrap();
    }
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("dashboards.yaml"), rules).unwrap();
    promtool(&["check", "rules", "dashboards.yaml"], folder.path());
}

/// Names of everything that IPVS makes.
fn of_ipvs() -> Vec<Counted> {
    let mut series = Series::default();
    let row = pod2pod_user::ipvs::parse::Row::parse(
        b"TCP 0AF40102 C351 0A60000A 0050 0AF40203 1F90 TIME_WAIT        60",
        false,
    );
    series.row(&row.unwrap(), None);
    let drains = Drains::default();
    let mut rows = ipvs::rows(&ipvs::Polls::default(), &detect::Stats::default(), &series, None, &drains);
    rows.extend([ipvs::age(Duration::ZERO), ipvs::present(true)]);
    rows.extend(ipvs::decided(&ipvs::Decided::default()));
    rows.extend(counters::join(&join::Stats::default()));
    rows
}

/// What replay does not have: of the kernel side, and of the ledger.
fn of_the_agent() -> Vec<Counted> {
    let sinks = [("output".into(), SinkStats::default())];
    let snapshot =
        Snapshot { counters: CounterValues([0; COUNTERS]), cpus: 1, unread: Unread::default(), exact: true };
    let ledger = Ledger::of(&ledger::Sources {
        kernel: &snapshot,
        reader: &kernel::Stats::default(),
        reassembly: &reassembly::Stats::default(),
        http: &http::Stats::default(),
        open: 0,
        filter: &filter::Stats::default(),
        enrich: &enrich::Stats::default(),
        waiting: 0,
        names: named::Stats::default(),
        sinks: &sinks,
    });
    let mut rows = ledger.rows();
    rows.extend(stages::kernel(&[0; COUNTERS], 0));
    rows.extend(stages::table(Table::default()));
    rows.extend(stages::went_first([0].into_iter(), &sinks));
    rows.push(stages::pairs_overflowed(0));
    rows.extend(counters::names(&named::Stats::default()));
    rows
}

/// Sources that make names by themselves: how those begin, and where the rest of a name is.
const IN_SOURCES: [(&str, &str); 4] = [
    ("pod2pod_workload_", "metrics/pairs.rs"),
    ("pod2pod_kubernetes_", "metrics/kubernetes.rs"),
    ("pod2pod_", "agent/limits.rs"),
    ("pod2pod_unwatched", "agent/unwatched.rs"),
];

fn is_in_sources(name: &str) -> bool {
    IN_SOURCES.iter().any(|(start, file)| {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../pod2pod-user/src").join(file);
        let source = fs::read_to_string(source).unwrap();
        let Some(rest) = name.strip_prefix(start) else { return false };
        // With and without what the kind of metric adds, in whole and in part.
        let own = |name: &str| {
            ["_total", "_bucket"].iter().find_map(|end| name.strip_suffix(end)).map(str::to_owned)
        };
        let forms = [name, name.trim_start_matches("pod2pod_"), rest];
        forms.iter().any(|form| {
            source.contains(&format!("\"{form}\""))
                || own(form).is_some_and(|form| source.contains(&format!("\"{form}\"")))
        })
    })
}

#[test]
fn every_metric_that_is_asked_for_is_one_of_ours() {
    let page = Server::start().page_of_three();
    let mut known = names(&page);
    known.extend(of_ipvs().into_iter().chain(of_the_agent()).map(|row| row.name));
    // It is there with the first reuse.
    known.insert("pod2pod_ipvs_reuses_total".to_owned());
    let rules = files(RULES, ".rules.yaml").into_iter().map(|file| fs::read_to_string(file).unwrap());
    // What is said to people may name commands and files.
    let asked_by_rules = rules.flat_map(|text| {
        let lines: Vec<String> = text.lines().map(str::to_owned).collect();
        lines.into_iter().filter(|line| !line.trim_start().starts_with('#'))
    });
    let mut asked = names(&asked_by_rules.collect::<Vec<_>>().join("\n"));
    asked.extend(queries().iter().flat_map(|(_, query)| names(query)));
    let unknown: Vec<_> = asked.difference(&known).filter(|name| !is_in_sources(name)).collect();
    assert!(asked.len() > 30 && unknown.is_empty(), "{unknown:?} of {asked:?}");
}

/// The table of rights in the code is the truth.
#[test]
fn manifests_add_the_capabilities_that_are_needed_and_no_other() {
    let given = RIGHTS.iter().filter(|right| right.in_manifest);
    let expected: BTreeSet<_> =
        given.map(|right| right.capability.name().trim_start_matches("CAP_").to_owned()).collect();
    let is_name = |text: &&str| !text.is_empty() && text.chars().all(|c| c.is_ascii_uppercase() || c == '_');
    let kustomize = fs::read_to_string(deploy("flavours/capabilities/daemonset.yaml")).unwrap();
    let items = kustomize.lines().filter_map(|line| line.trim().strip_prefix("- "));
    let added: BTreeSet<_> = items.filter(is_name).map(str::to_owned).collect();
    assert_eq!(added, expected, "kustomize");
    let chart = fs::read_to_string(deploy("helm/pod2pod/templates/daemonset.yaml")).unwrap();
    let (_, list) = chart.split_once("concat (list ").unwrap();
    let added: BTreeSet<_> =
        list.split_once(')').unwrap().0.split('"').filter(is_name).map(str::to_owned).collect();
    assert_eq!(added, expected, "the chart");
    for text in [&kustomize, &chart] {
        assert!(text.contains("drop: [ALL]"), "{text}");
    }
}

#[test]
fn the_configuration_is_one_that_the_agent_takes() {
    let file = deploy("base/pod2pod.yaml");
    let mut replay = command(["replay", "-", "--listen", "127.0.0.1:0", "--config"]);
    replay.arg(&file);
    let finished = run(replay, &capture(1));
    assert_eq!((finished.code, finished.stdout.lines().count()), (Some(0), 1), "{}", finished.stderr);
    // One with a misspelt key is not.
    let folder = tempfile::tempdir().unwrap();
    let wrong = folder.path().join("pod2pod.yaml");
    fs::write(&wrong, fs::read_to_string(file).unwrap().replace("listen:", "lissen:")).unwrap();
    let mut replay = command(["replay", "-", "--config"]);
    replay.arg(wrong);
    assert_eq!(run(replay, &capture(1)).code, Some(64));
}
