//! What is in the program, as CycloneDX 1.6 has it: every crate that is linked in, with licence and checksum, and the C parts.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

/// What is no crate.
pub(super) struct Part {
    pub(super) name: &'static str,
    pub(super) version: String,
    pub(super) licence: &'static str,
}

/// The bill of materials. `linked` has the packages that count, each with what `cargo metadata` says for its target; `lock` is the content
/// of Cargo.lock, which has the checksums.
///
/// # Errors
/// One of them is not what cargo writes.
pub(super) fn bill(
    linked: &[(&str, Value)],
    lock: &str,
    version: &str,
    time: &str,
    parts: &[Part],
) -> Result<Value> {
    let sums = checksums(lock);
    let (mut components, mut dependencies) = (BTreeMap::new(), BTreeMap::<String, BTreeSet<String>>::new());
    for (root, metadata) in linked {
        let packages = by_id(&metadata["packages"]).context("cargo metadata: no packages")?;
        let nodes = by_id(&metadata["resolve"]["nodes"]).context("cargo metadata: no nodes")?;
        let root = packages.iter().find(|(_, package)| package["name"] == **root);
        let mut found = BTreeMap::new();
        collect(root.context("cargo metadata: a root is missing")?.0, &packages, &nodes, &mut found);
        for (id, on) in found {
            let package = packages.get(id).context("cargo metadata: a package is missing")?;
            components.insert(short(id, &packages), component(package, &sums));
            dependencies
                .entry(short(id, &packages))
                .or_default()
                .extend(on.iter().map(|id| short(id, &packages)));
        }
    }
    let mut components: Vec<Value> = components.into_values().collect();
    components.extend(parts.iter().map(|part| {
        json!({
            "type": "library", "bom-ref": part.name, "name": part.name, "version": part.version,
            "licenses": [{"license": {"id": part.licence}}],
        })
    }));
    let dependencies: Vec<Value> =
        dependencies.into_iter().map(|(of, on)| json!({"ref": of, "dependsOn": on})).collect();
    Ok(json!({
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {
            "timestamp": time,
            "component": {
                "type": "application", "bom-ref": "pod2pod", "name": "pod2pod", "version": version,
                "licenses": [{"expression": "Apache-2.0"}],
            },
        },
        "components": components,
        "dependencies": dependencies,
    }))
}

fn by_id(list: &Value) -> Option<BTreeMap<&str, &Value>> {
    let list = list.as_array()?.iter();
    Some(list.filter_map(|item| Some((item["id"].as_str()?, item))).collect())
}

/// Adds a package and what is linked with it: not what only runs while the program is built or tested.
fn collect<'a>(
    id: &'a str,
    packages: &BTreeMap<&str, &'a Value>,
    nodes: &BTreeMap<&str, &'a Value>,
    linked: &mut BTreeMap<&'a str, Vec<&'a str>>,
) {
    let is_macro = |id: &str| {
        let targets = packages.get(id).and_then(|package| package["targets"].as_array());
        targets.into_iter().flatten().any(|target| target["kind"][0] == "proc-macro")
    };
    if linked.contains_key(id) {
        return;
    }
    let deps = nodes.get(id).and_then(|node| node["deps"].as_array()).into_iter().flatten();
    let is_normal = |dep: &&Value| {
        dep["dep_kinds"].as_array().is_some_and(|kinds| kinds.iter().any(|kind| kind["kind"].is_null()))
    };
    let on: Vec<&str> =
        deps.filter(is_normal).filter_map(|dep| dep["pkg"].as_str()).filter(|id| !is_macro(id)).collect();
    linked.insert(id, on.clone());
    for id in on {
        collect(id, packages, nodes, linked);
    }
}

fn component(package: &Value, sums: &BTreeMap<(&str, &str), &str>) -> Value {
    let text = |key: &str| package[key].as_str().unwrap_or_default();
    let (name, version) = (text("name"), text("version"));
    let purl = format!("pkg:cargo/{name}@{version}");
    let mut component =
        json!({"type": "library", "bom-ref": purl, "name": name, "version": version, "purl": purl});
    if !text("license").is_empty() {
        component["licenses"] = json!([{"expression": text("license").replace('/', " OR ")}]);
    }
    if let Some(sum) = sums.get(&(name, version)) {
        component["hashes"] = json!([{"alg": "SHA-256", "content": sum}]);
    }
    component
}

/// A package by name and version, without the place where it is.
fn short(id: &str, packages: &BTreeMap<&str, &Value>) -> String {
    let text = |key: &str| packages.get(id).and_then(|package| package[key].as_str()).unwrap_or_default();
    format!("pkg:cargo/{}@{}", text("name"), text("version"))
}

/// Checksums by name and version.
fn checksums(lock: &str) -> BTreeMap<(&str, &str), &str> {
    lock.split("[[package]]")
        .filter_map(|block| {
            Some(((field(block, "name")?, field(block, "version")?), field(block, "checksum")?))
        })
        .collect()
}

fn field<'a>(block: &'a str, key: &str) -> Option<&'a str> {
    let (_, rest) = block.split_once(&format!("\n{key} = \""))?;
    Some(rest.split_once('"')?.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn package(id: &str, kind: &str) -> Value {
        json!({"id": id, "name": id, "version": "1.0.0", "license": "MIT/Apache-2.0", "targets": [{"kind": [kind]}]})
    }

    fn node(id: &str, deps: &[(&str, Option<&str>)]) -> Value {
        let deps = deps.iter().map(|(id, kind)| json!({"pkg": id, "dep_kinds": [{"kind": kind}]}));
        json!({"id": id, "deps": deps.collect::<Vec<_>>()})
    }

    #[test]
    fn what_is_linked_is_in_it_and_nothing_else() {
        let packages = [
            package("pod2pod-user", "bin"),
            package("pod2pod-ebpf", "bin"),
            package("linked", "lib"),
            package("below", "lib"),
            package("derives", "proc-macro"),
            package("of-a-macro", "lib"),
            package("builds", "lib"),
            package("tests", "lib"),
        ];
        let nodes = [
            node(
                "pod2pod-user",
                &[("linked", None), ("derives", None), ("builds", Some("build")), ("tests", Some("dev"))],
            ),
            node("pod2pod-ebpf", &[("below", None)]),
            node("linked", &[("below", None)]),
            node("below", &[]),
            node("derives", &[("of-a-macro", None)]),
            node("of-a-macro", &[]),
            node("builds", &[]),
            node("tests", &[]),
        ];
        let metadata = json!({"packages": packages, "resolve": {"nodes": nodes}});
        let linked = [("pod2pod-user", metadata.clone()), ("pod2pod-ebpf", metadata)];
        let lock = "[[package]]\nname = \"below\"\nversion = \"1.0.0\"\nchecksum = \"abc\"\n\n[[package]]\nname = \"linked\"\nversion = \"2.0.0\"\n";
        let part = Part { name: "libpcap", version: "1.10".to_owned(), licence: "BSD-3-Clause" };
        let bill = bill(&linked, lock, "0.1.0", "2023-11-14T22:13:20Z", &[part]).expect("a bill");
        let components = bill["components"].as_array().expect("a list");
        let names: Vec<&str> = components.iter().filter_map(|component| component["name"].as_str()).collect();
        assert_eq!(names, ["below", "linked", "pod2pod-ebpf", "pod2pod-user", "libpcap"]);
        assert_eq!(components[0]["hashes"][0]["content"], "abc");
        assert_eq!(components[1]["licenses"][0]["expression"], "MIT OR Apache-2.0");
        assert_eq!(components[1]["hashes"], Value::Null);
        assert_eq!(
            bill["dependencies"][1],
            json!({"ref": "pkg:cargo/linked@1.0.0", "dependsOn": ["pkg:cargo/below@1.0.0"]})
        );
    }
}
