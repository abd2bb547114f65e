//! What kustomize and the chart make of a flavour means the same, and asks for nothing but what the flavour says. No server is asked.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    process::{Command, Stdio},
};

use pod2pod_user::rights::RIGHTS;
use serde_json::{Map, Value, json};
use support::{
    kubernetes::server::{program, workspace},
    process,
};

/// Each with its folder in `deploy` and the chart's value.
const FLAVOURS: [&str; 2] = ["capabilities", "privileged"];
const CHART: &str = "deploy/helm/pod2pod";
/// What only helm writes.
const OF_HELM: [&str; 5] = [
    "app.kubernetes.io/instance",
    "app.kubernetes.io/version",
    "app.kubernetes.io/managed-by",
    "helm.sh/chart",
    "checksum/config",
];

fn said(mut command: Command) -> String {
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let finished = process::run(command, b"");
    assert_eq!(finished.code, Some(0), "{}", finished.stderr);
    finished.stdout
}

fn kustomized(folder: &Path) -> String {
    let mut kubectl = Command::new(program("kubectl"));
    kubectl.arg("kustomize").arg(folder);
    said(kubectl)
}

fn charted(settings: &[&str]) -> String {
    let home = tempfile::tempdir().unwrap();
    let mut helm = Command::new(program("helm"));
    for name in ["HELM_CACHE_HOME", "HELM_CONFIG_HOME", "HELM_DATA_HOME"] {
        helm.env(name, home.path());
    }
    helm.args(["template", "pod2pod", CHART, "--namespace", "pod2pod"]).current_dir(workspace());
    helm.args(settings.iter().flat_map(|setting| ["--set", setting]));
    said(helm)
}

/// Objects by kind and name, without what the ways of installing have of their own.
fn objects(rendered: &str) -> BTreeMap<(String, String), Value> {
    let documents = rendered.split("\n---\n").map(|text| text.trim_start_matches("---\n"));
    let objects =
        documents.map(|text| serde_saphyr::from_str::<Value>(text).unwrap()).filter(Value::is_object);
    let objects = objects.map(|mut object| {
        plain(&mut object);
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        ((text(&object["kind"]), text(&object["metadata"]["name"])), object)
    });
    objects.filter(|((kind, _), _)| kind != "Namespace").collect()
}

/// Removes helm's own words, what is empty then, and the sum in the name of the configuration.
fn plain(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|name, _| !OF_HELM.contains(&name.as_str()));
            fields.values_mut().for_each(plain);
            fields.retain(|_, value| *value != Value::Object(Map::new()));
        }
        Value::Array(items) => items.iter_mut().for_each(plain),
        Value::String(text) => {
            let sum = text.strip_prefix("pod2pod-").filter(|sum| sum.len() == 10);
            if sum.is_some_and(|sum| sum.bytes().all(|byte| byte.is_ascii_alphanumeric())) {
                "pod2pod".clone_into(text);
            }
            // The configuration: as it is read.
            if let Ok(read @ Value::Object(_)) = serde_saphyr::from_str::<Value>(text) {
                *value = read;
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

#[test]
fn the_chart_and_kustomize_mean_the_same() {
    for flavour in FLAVOURS {
        let kustomized = objects(&kustomized(&workspace().join("deploy/flavours").join(flavour)));
        let charted = objects(&charted(&[&format!("flavour={flavour}")]));
        assert!(kustomized.len() >= 6, "{:?}", kustomized.keys());
        assert_eq!(kustomized.keys().collect::<Vec<_>>(), charted.keys().collect::<Vec<_>>(), "{flavour}");
        for (name, object) in &kustomized {
            assert_eq!(*object, charted[name], "{flavour}: {name:?}");
        }
    }
    let whole = kustomized(&workspace().join("deploy"));
    assert_eq!(whole, kustomized(&workspace().join("deploy/flavours/capabilities")), "the one to take");
}

fn container(rendered: &str) -> Value {
    let daemonset = objects(rendered).remove(&("DaemonSet".to_owned(), "pod2pod".to_owned())).unwrap();
    daemonset["spec"]["template"]["spec"]["containers"][0].clone()
}

#[test]
fn a_flavour_asks_for_nothing_else() {
    let all = charted(&[]);
    let rights = RIGHTS.iter().filter(|right| right.in_manifest);
    let names: BTreeSet<&str> =
        rights.map(|right| right.capability.name().trim_start_matches("CAP_")).collect();
    let expected = json!({
        "runAsUser": 0,
        "readOnlyRootFilesystem": true,
        "allowPrivilegeEscalation": false,
        "capabilities": {"drop": ["ALL"], "add": names},
        "seccompProfile": {"type": "RuntimeDefault"},
        "seLinuxOptions": {"type": "spc_t"},
    });
    assert_eq!(container(&all)["securityContext"], expected);
    assert!(!all.contains("hostPID") && !all.contains("hostIPC"));
    for mount in container(&all)["volumeMounts"].as_array().unwrap() {
        // Until when somebody watched outlives the pod.
        assert_eq!(mount["readOnly"] == true, mount["name"] != "data", "{mount}");
    }
    let nothing_left = charted(&["config.data_dir=null"]);
    assert!(all.contains("DirectoryOrCreate") && !nothing_left.contains("DirectoryOrCreate"));
    // Nothing is written, and no secret is read.
    let role = &objects(&all)[&("ClusterRole".to_owned(), "pod2pod".to_owned())];
    for rule in role["rules"].as_array().unwrap() {
        assert_eq!(rule["verbs"], json!(["list", "watch"]), "{rule}");
        assert!(!rule["resources"].as_array().unwrap().contains(&json!("secrets")), "{rule}");
    }
    let more = container(&charted(&["extraCapabilities={SYS_PTRACE}"]));
    let added = more["securityContext"]["capabilities"]["add"].as_array().unwrap().clone();
    assert_eq!(added.last(), Some(&json!("SYS_PTRACE")));
    let privileged = json!({"runAsUser": 0, "readOnlyRootFilesystem": true, "privileged": true});
    assert_eq!(container(&charted(&["flavour=privileged"]))["securityContext"], privileged);
}

#[test]
fn the_port_of_the_configuration_is_that_of_the_probes() {
    let other = container(&charted(&["config.metrics.listen=[::]:9500"]));
    assert_eq!(other["ports"][0]["containerPort"], 9500);
    assert_eq!(other["livenessProbe"]["httpGet"]["port"], "metrics");
}
