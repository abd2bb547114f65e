//! What `deploy` has is taken by a real API server, as `kubectl apply` sends it; and what is wrong in it is not.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use serde_json::json;
use support::{
    kubernetes::{
        client::Request,
        objects,
        server::{ApiServer, workspace},
    },
    process::Finished,
};

/// Kinds of the Prometheus operator, which a cluster has only with it: here they are whatever they say.
const MONITORS: [(&str, &str); 3] = [
    ("PodMonitor", "podmonitors"),
    ("ServiceMonitor", "servicemonitors"),
    ("PrometheusRule", "prometheusrules"),
];

/// Every folder below `folder` that has a file of this name.
fn folders_with(folder: &Path, name: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut waiting = vec![folder.to_owned()];
    while let Some(folder) = waiting.pop() {
        for entry in fs::read_dir(&folder).expect("a folder").flatten() {
            let path = entry.path();
            if path.is_dir() {
                waiting.push(path);
            } else if entry.file_name() == name {
                found.push(folder.clone());
            }
        }
    }
    found.sort();
    found
}

/// Makes the namespaces that objects are in, as they are described, if they are: a dry run makes none.
fn add_namespaces(server: &ApiServer, rendered: &str) {
    let described: Vec<&str> = rendered
        .split("\n---\n")
        .filter(|object| object.lines().any(|line| line == "kind: Namespace"))
        .collect();
    let names: BTreeSet<&str> =
        rendered.lines().filter_map(|line| line.trim().strip_prefix("namespace: ")).collect();
    let is_described =
        |name: &str| described.iter().any(|object| object.contains(&format!("name: {name}\n")));
    let plain = names.iter().filter(|name| !is_described(name));
    let plain = plain.map(|name| objects::namespace(name).to_string());
    let all: Vec<String> = described.iter().map(|object| (*object).to_owned()).chain(plain).collect();
    if !all.is_empty() {
        let made = server.kubectl(&["apply", "--filename", "-"], &all.join("\n---\n"));
        assert_eq!(made.code, Some(0), "{}", made.stderr);
    }
}

fn add_monitors(server: &ApiServer) {
    for (kind, plural) in MONITORS {
        let group = "monitoring.coreos.com";
        let definition = json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
            "metadata": {"name": format!("{plural}.{group}")},
            "spec": {"group": group, "scope": "Namespaced", "names": {"kind": kind, "plural": plural},
                "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema":
                    {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}}]}});
        let path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
        server.admin().ask(&Request::create(path, definition));
    }
    for (_, plural) in MONITORS {
        let path = format!("/apis/monitoring.coreos.com/v1/{plural}");
        crate::until(|| server.admin().status(&Request::get(path.clone())) == 200);
    }
}

/// Has the server look at it, and keep nothing.
fn dry_run(server: &ApiServer, rendered: &str) -> Finished {
    server.kubectl(&["apply", "--dry-run=server", "--filename", "-"], rendered)
}

/// What kustomize makes of a folder.
fn rendered(server: &ApiServer, folder: &Path) -> Result<String, String> {
    let kustomize = server.kubectl(&["kustomize", folder.to_str().expect("UTF-8")], "");
    if kustomize.code == Some(0) { Ok(kustomize.stdout) } else { Err(kustomize.stderr) }
}

/// The server takes all of it without a warning, and would not take it misspelt.
fn check(server: &ApiServer, what: &str, rendered: &str) {
    add_namespaces(server, rendered);
    let taken = dry_run(server, rendered);
    assert_eq!((taken.code, taken.stderr.as_str()), (Some(0), ""), "{what}: {}", taken.stdout);
    let count = rendered.lines().filter(|line| line.starts_with("kind: ")).count();
    assert_eq!(taken.stdout.matches("(server dry run)").count(), count, "{what}: {}", taken.stdout);
    if let Some((before, after)) = rendered.split_once("mountPath:") {
        let refused = dry_run(server, &format!("{before}mountPth:{after}"));
        assert_eq!(refused.code, Some(1), "{what}");
        assert!(refused.stderr.contains("mountPth"), "{what}: {}", refused.stderr);
    }
}

#[test]
fn every_manifest_is_taken() {
    let server = ApiServer::start();
    add_monitors(&server);
    let deploy = workspace().join("deploy");
    let is_component = |folder: &PathBuf| {
        let text = fs::read_to_string(folder.join("kustomization.yaml")).expect("readable");
        text.contains("kind: Component\n")
    };
    let (components, whole): (Vec<PathBuf>, Vec<PathBuf>) =
        folders_with(&deploy, "kustomization.yaml").into_iter().partition(is_component);
    assert!(!whole.is_empty());
    for folder in &whole {
        check(
            &server,
            &folder.display().to_string(),
            &rendered(&server, folder).expect("it can be rendered"),
        );
    }
    // Each part that can be added, alone: an overlay as a user writes it. Not every flavour has what a part changes.
    for component in &components {
        let combined = whole.iter().map(|folder| rendered(&server, &Overlay::new(folder, component).0));
        let (taken, refused): (Vec<_>, Vec<_>) = combined.partition(Result::is_ok);
        assert!(!taken.is_empty(), "{}: {refused:?}", component.display());
        for text in taken.into_iter().flatten() {
            check(&server, &component.display().to_string(), &text);
        }
    }
}

/// What is made of the chart's files where everything is wanted: a dashboard, and groups of rules.
const EXTRAS: [&str; 3] = ["-dashboard-workloads\n", "\"title\": \"pod2pod: ", "kind: PrometheusRule\n"];

/// Where the charts' objects go.
const RELEASE: &str = "pod2pod-chart";

#[test]
fn every_chart_is_taken() {
    let server = ApiServer::start();
    add_monitors(&server);
    for chart in folders_with(&workspace().join("deploy"), "Chart.yaml") {
        let path = chart.to_str().expect("UTF-8");
        // As it is, and with each file of values that it has for this.
        let values = fs::read_dir(chart.join("ci")).into_iter().flatten().flatten();
        let values: Vec<String> = values.map(|entry| entry.path().display().to_string()).collect();
        let files = std::iter::once(None).chain(values.iter().map(Some));
        for file in files {
            let with: Vec<&str> = file.iter().flat_map(|file| ["--values", file.as_str()]).collect();
            let lint = server.helm(&[&["lint", "--strict", path], &with[..]].concat());
            assert_eq!(lint.code, Some(0), "{path} {with:?}: {}{}", lint.stdout, lint.stderr);
            let template = ["template", "pod2pod", path, "--namespace", RELEASE];
            let made = server.helm(&[&template, &with[..]].concat());
            assert_eq!(made.code, Some(0), "{path} {with:?}: {}", made.stderr);
            assert!(made.stdout.contains("kind: DaemonSet\n"), "{path} {with:?}: {}", made.stdout);
            if file.is_some_and(|file| file.ends_with("everything.yaml")) {
                for part in EXTRAS {
                    assert!(made.stdout.contains(part), "{path}: {part} is not there: {}", made.stdout);
                }
            }
            check(&server, &format!("{path} {with:?}"), &made.stdout);
        }
        let unknown = server.helm(&["template", "pod2pod", path, "--set", "misspelt.value=1"]);
        assert_ne!(unknown.code, Some(0), "{path}: its schema knows its values");
    }
}

/// A kustomization of another and a component, in a folder of its own as long as this lives.
struct Overlay(PathBuf);

impl Overlay {
    fn new(resource: &Path, component: &Path) -> Self {
        let folder = workspace().join(format!("target/overlay-{}", std::process::id()));
        fs::create_dir_all(&folder).expect("made");
        let overlay = Self(folder);
        // kustomize wants relative paths.
        let relative = |path: &Path| {
            let inside = path.strip_prefix(workspace()).expect("in the work tree");
            format!("../../{}", inside.display())
        };
        let text = format!("resources: [{}]\ncomponents: [{}]\n", relative(resource), relative(component));
        fs::write(overlay.0.join("kustomization.yaml"), text).expect("written");
        overlay
    }
}

impl Drop for Overlay {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
