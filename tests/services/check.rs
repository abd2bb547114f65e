//! `pod2pod check` against a real API server: what may be read there, which rule is missing, and whether our node is known.

use std::path::Path;

use pod2pod_user::kubernetes::objects::Kind;
use serde_json::{Value, json};
use support::{
    kubernetes::{
        client::Request,
        population,
        server::{ApiServer, workspace},
    },
    process::{command, run},
};

const USER: &str = "agent";
const NODE: &str = "node-a";

/// What is found of `name`: how it stands, and what is said.
fn check(kubeconfig: &Path, settings: &[&str], name: &str) -> Vec<Value> {
    let kubeconfig = format!("kubernetes.kubeconfig={}", kubeconfig.display());
    let set = |setting| ["--set", setting];
    let settings = settings.iter().copied().chain([kubeconfig.as_str()]).flat_map(set);
    let finished = run(command(["check", "--json"].into_iter().chain(settings)), b"");
    let told: Value = serde_json::from_str(&finished.stdout).expect("JSON");
    let found = told["findings"].as_array().expect("findings");
    let found: Vec<_> = found.iter().filter(|one| one["name"] == name).cloned().collect();
    assert!(!found.is_empty(), "{told:#}");
    found
}

fn statuses(findings: &[Value]) -> Vec<&str> {
    findings.iter().filter_map(|finding| finding["status"].as_str()).collect()
}

#[test]
fn what_the_api_server_allows_is_asked_of_itself() {
    let mut server = ApiServer::start();
    server.add_user(USER, "");
    server.restart();
    let admin = server.admin();
    population::nodes(&admin, &[(NODE, "zone-1", [192, 168, 7, 1].into())]);
    let kubeconfig = server.kubeconfig(USER);
    let node = format!("kubernetes.node={NODE}");

    // Nothing is allowed: each kind with the rule that it takes.
    let nothing = check(&kubeconfig, &[&node], "kubernetes api");
    assert_eq!(nothing.len(), Kind::ALL.len(), "{nothing:#?}");
    for (kind, finding) in Kind::ALL.iter().zip(&nothing) {
        assert_eq!(finding["status"], "limited", "{finding:#}");
        let needed = pod2pod_user::kubernetes_api::trouble::rule(*kind);
        assert_eq!(finding["needed"], needed, "{finding:#}");
        let lost = finding["lost"].as_str().expect("a sentence");
        assert!(!lost.is_empty() && finding["found"].as_str().expect("a sentence").contains(kind.as_str()));
    }

    // All rules, but that one kind may be listed only.
    let mut rules = population::reading_rules();
    population::role(&admin, USER, &rules, &population::user(USER));
    let listed =
        rules.as_array_mut().expect("rules").iter_mut().find(|rule| rule["resources"][0] == "services");
    listed.expect("a rule for Services")["verbs"] = json!(["list"]);
    let role = format!("/apis/rbac.authorization.k8s.io/v1/clusterroles/{USER}");
    admin.ask(&Request::patch(role.clone(), json!({"rules": rules})));
    crate::until(|| check(&kubeconfig, &[&node], "kubernetes api").len() == 1);
    let one = check(&kubeconfig, &[&node], "kubernetes api");
    assert_eq!(one[0]["found"], "services may not be watched", "{one:#?}");

    // Those that are shipped, for the account that is shipped.
    let base = workspace().join("deploy/base");
    for file in ["namespace.yaml", "rbac.yaml"] {
        let file = base.join(file);
        let applied = server.kubectl(&["-n", "pod2pod", "apply", "-f", &file.to_string_lossy()], "");
        assert_eq!(applied.code, Some(0), "{applied:?}");
    }
    let folder = tempfile::tempdir().expect("a folder");
    let with_token = |name: &str, token: &str| {
        let place = folder.path().join(name);
        std::fs::write(&place, server.kubeconfig_with(token)).expect("a file");
        place
    };
    let shipped = with_token("shipped", &server.token("pod2pod", "pod2pod"));
    crate::until(|| statuses(&check(&shipped, &[&node], "kubernetes api")) == ["ok"]);
    let kubeconfig = shipped;
    assert_eq!(statuses(&check(&kubeconfig, &[&node], "node name")), ["ok"]);
    let stranger = check(&kubeconfig, &["kubernetes.node=node-z"], "node name");
    assert_eq!(statuses(&stranger), ["limited"]);
    assert!(stranger[0]["cure"].as_str().expect("a sentence").contains("NODE_NAME"), "{stranger:#?}");

    // A token that is worth nothing, a file that is none, and a server that is gone.
    let worthless = with_token("worthless", "worthless");
    let none = folder.path().join("none");
    for kubeconfig in [&worthless, &none] {
        assert_eq!(statuses(&check(kubeconfig, &[&node], "kubernetes api")), ["limited"]);
    }
    server.stop();
    assert_eq!(statuses(&check(&kubeconfig, &[&node], "kubernetes api")), ["limited"]);
}
