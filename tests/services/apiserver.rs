//! The server of these tests does what is expected of it. Nothing of ours is tested here.

use std::{net::IpAddr, time::Duration};

use serde_json::{Value, json};
use support::kubernetes::{
    client::Request,
    objects::{self, Pod},
    population,
    server::ApiServer,
};

const NODE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 168, 7, 1));
/// Pods that are made at once.
const PODS: u32 = 1_000;

/// The events of a watch of pods from `version` on, until the server ends it.
fn watched(server: &ApiServer, user: &str, version: &str) -> Vec<Value> {
    let path = format!("/api/v1/pods?watch=1&resourceVersion={version}&timeoutSeconds=1");
    let text = server.client(user).text(&Request::get(path)).expect("a watch");
    text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

fn pod(number: u32) -> (Pod, IpAddr) {
    let address = IpAddr::from((0x0a01_0000 + number).to_be_bytes());
    (Pod::new("shop", &format!("web-{number}"), "node-a"), address)
}

#[test]
fn a_server_is_stopped_restarted_compacted_and_held() {
    let mut server = ApiServer::start();
    let admin = server.admin();
    population::namespaces(&admin, &["shop"]);
    population::nodes(&admin, &[("node-a", "zone-1", NODE)]);
    let old = admin.ask(&Request::get("/api/v1/pods"))["metadata"]["resourceVersion"].to_string();
    let old = old.trim_matches('"');
    // One after the other: many at a time are made in no order.
    let uids = [pod(1), pod(2)].map(|pod| population::running_pods(&admin, NODE, &[pod]).remove(0));
    let events = watched(&server, "admin", old);
    assert_eq!(events.len(), 4, "two made and told to run: {events:?}");
    let last = &events[3];
    let told = [&last["type"], &last["object"]["status"]["podIP"], &last["object"]["metadata"]["uid"]];
    assert_eq!(told, [&json!("MODIFIED"), &json!("10.1.0.2"), &json!(uids[1])]);

    server.compact();
    server.stop();
    assert!(admin.text(&Request::get("/readyz")).is_err(), "it is stopped");
    server.start_again();
    let events = watched(&server, "admin", old);
    assert_eq!(events.len(), 1, "{events:?}");
    assert_eq!([&events[0]["type"], &events[0]["object"]["code"]], [&json!("ERROR"), &json!(410)]);
    let pods = admin.ask(&Request::get("/api/v1/pods"));
    assert_eq!(pods["items"].as_array().map(Vec::len), Some(2), "etcd has kept them");

    // What is marked as deleted stays, until kubelet removes it.
    admin.ask(&Request::delete(pod(1).0.path()));
    assert!(admin.ask(&Request::get(pod(1).0.path()))["metadata"]["deletionTimestamp"].is_string());
    admin.ask(&Request::remove(pod(1).0.path()));
    assert_eq!(admin.status(&Request::get(pod(1).0.path())), 404);

    server.hold();
    let asking = std::thread::spawn(move || admin.ask(&Request::get("/version")));
    let was_silent = !is_finished(&asking, Duration::from_millis(300));
    server.go_on();
    assert!(was_silent, "it is held");
    assert_eq!(asking.join().expect("an answer")["minor"], "35");
}

/// Whether a thread ends within this time.
fn is_finished<T>(thread: &std::thread::JoinHandle<T>, within: Duration) -> bool {
    let deadline = std::time::Instant::now() + within;
    while !thread.is_finished() && std::time::Instant::now() < deadline {
        std::thread::park_timeout(Duration::from_millis(10));
    }
    thread.is_finished()
}

#[test]
fn users_may_do_what_they_are_given_and_are_heard() {
    let mut server = ApiServer::start();
    server.add_user("agent", "");
    server.restart();
    let admin = server.admin();
    population::namespaces(&admin, &["shop"]);
    let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "agent"}});
    admin.ask(&Request::create("/api/v1/namespaces/shop/serviceaccounts", account));
    let pods = Request::get("/api/v1/pods");
    let agent = server.client("agent");
    assert_eq!(agent.status(&pods), 403);
    let rules = json!([{"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list", "watch"]}]);
    population::role(&admin, "reads-pods", &rules, &population::user("agent"));
    crate::until(|| agent.status(&pods) == 200);
    assert_eq!(agent.status(&Request::get("/api/v1/secrets")), 403);
    watched(&server, "agent", "0");
    admin.ask(&Request::remove(population::binding("reads-pods")));
    crate::until(|| agent.status(&pods) == 403);
    let asked = server.asked();
    assert!(asked.iter().all(|asked| asked.user == "agent"), "only who has limited rights: {asked:?}");
    let count = |verb, resource| {
        asked.iter().filter(|asked| asked.verb == verb && asked.resource == resource).count()
    };
    assert_eq!((count("watch", "pods"), count("list", "secrets")), (1, 1), "{asked:?}");

    // The token of a service account, and what becomes of it.
    let token = server.token("shop", "agent");
    let file = server.kubeconfig("account");
    std::fs::write(&file, server.kubeconfig_with(&token)).expect("written");
    assert_eq!(server.client("account").status(&pods), 403, "known, and allowed nothing");
    server.forget_tokens();
    server.restart();
    assert_eq!(server.client("account").status(&pods), 401);
    server.add_user("agent", "");
    server.restart();
    assert_eq!(server.client("agent").status(&pods), 403, "its new token");
    std::fs::write(&file, server.kubeconfig_with("agent-token-1")).expect("written");
    assert_eq!(server.client("account").status(&pods), 401, "its old one");
}

#[test]
fn a_cluster_is_filled_quickly() {
    let server = ApiServer::start();
    let admin = server.admin();
    population::namespaces(&admin, &["shop"]);
    population::nodes(&admin, &[("node-a", "zone-1", NODE)]);
    let owners = population::deployments(&admin, "shop", &["web".to_owned()]);
    let pods: Vec<(Pod, IpAddr)> =
        (0..PODS).map(pod).map(|(pod, address)| (pod.owned(&owners[0]), address)).collect();
    let begin = std::time::Instant::now();
    let uids = population::running_pods(&admin, NODE, &pods);
    let endpoint = |((pod, address), uid): (&(Pod, IpAddr), &String)| objects::Endpoint {
        address: *address,
        node: "node-a".to_owned(),
        pod: pod.name.clone(),
        uid: uid.clone(),
    };
    let service = ("web".to_owned(), 80, 8080, pods.iter().zip(&uids).take(3).map(endpoint).collect());
    let addresses = population::services(&admin, "shop", &[service]);
    let took = begin.elapsed();
    assert!(matches!(addresses[..], [IpAddr::V4(address)] if address.octets()[0] == 10), "{addresses:?}");
    let list = admin.ask(&Request::get("/api/v1/pods"));
    let items = list["items"].as_array().expect("a list");
    assert_eq!(items.len(), PODS as usize);
    let is_whole = |pod: &Value| {
        pod["status"]["phase"] == "Running"
            && pod["status"]["podIPs"][0]["ip"].is_string()
            && pod["status"]["containerStatuses"][0]["containerID"]
                .as_str()
                .is_some_and(|id| id.len() == objects::container_id(0).len())
            && pod["metadata"]["ownerReferences"][0]["name"] == "web-6b8d7c9f5d"
    };
    assert!(items.iter().all(is_whole), "{}", items[0]);
    assert!(took < crate::PATIENCE, "{PODS} pods took {took:?}");
}
