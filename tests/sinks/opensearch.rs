//! A node of OpenSearch: all documents there, each once, with their fields' types; outages, pipelines, what it refuses.

use std::fs;

use serde_json::{Value, json};
use support::{
    opensearch::Node,
    server::{ask, until},
};

use crate::{RECORDS, Replay, outage};

fn play(node: &Node, records: usize, more: &[&str]) -> Replay {
    let url = format!("sinks.es.url=http://127.0.0.1:{}/", node.port);
    let own = ["sinks.es.type=elasticsearch", &url, "sinks.es.install_template=on"];
    Replay::start(records, &[&own, more].concat())
}

#[test]
fn all_documents_are_there_once_with_their_types_through_an_outage_and_a_kill() {
    let mut node = Node::start("");
    let replay = play(&node, RECORDS, &["sinks.es.compression=gzip", "sinks.es.timeout=10s"]);
    until("documents come", || {
        ask(node.port, "GET", "/pod2pod-*/_count", b"").is_ok_and(|(_, body)| {
            serde_json::from_str::<Value>(&body).is_ok_and(|told| told["count"].as_u64() > Some(0))
        })
    });
    node.server.kill();
    outage();
    node.server.start_again();
    let summary = replay.finish();
    assert!(summary.contains(&format!("es: delivered {RECORDS}, lost 0")), "{summary}");
    assert_eq!(node.count("pod2pod-*"), RECORDS as u64);
    let mut expected: Vec<_> = (0..RECORDS).map(|item| format!("/item/{item}")).collect();
    expected.sort();
    assert_eq!(node.paths("pod2pod-*"), expected);
    let mappings = node.ask("GET", "/pod2pod-*/_mapping", &json!({}));
    let (_, of_day) = mappings.as_object().unwrap().iter().next().unwrap();
    let status =
        &of_day["mappings"]["properties"]["http"]["properties"]["response"]["properties"]["status_code"];
    assert_eq!(status["type"], "long");
}

#[test]
fn what_a_node_refuses_is_kept_and_what_is_too_much_at_once_is_divided() {
    const RECORDS: usize = 2000;
    let node = Node::start("http.max_content_length: 40kb\n");
    let of = |last: &str| format!("ctx['url.path'] != null && ctx['url.path'].endsWith('{last}')");
    // Those that end in 13 are refused, those in 14 are dropped, and answers come in another order than requests.
    let fail = json!({ "fail": { "if": of("13"), "message": "not this one" } });
    let drop = json!({ "drop": { "if": of("14") } });
    node.ask("PUT", "/_ingest/pipeline/choosy", &json!({ "processors": [fail, drop] }));
    let folder = tempfile::tempdir().unwrap();
    let data_dir = format!("data_dir={}", folder.path().display());
    let replay = play(&node, RECORDS, &["sinks.es.pipeline=choosy", "sinks.es.compression=gzip", &data_dir]);
    let summary = replay.finish();
    let (refused, dropped) = (RECORDS / 100, RECORDS / 100);
    assert!(
        summary.contains(&format!("es: delivered {}, lost {refused} records", RECORDS - refused)),
        "{summary}"
    );
    assert_eq!(node.count("pod2pod-*"), (RECORDS - refused - dropped) as u64);
    let letters = fs::read_to_string(folder.path().join("dead-letters/es.jsonl")).unwrap();
    assert_eq!(letters.lines().count(), refused);
    for letter in letters.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()) {
        assert_eq!(letter["detail"], "500 fail_processor_exception: not this one");
        let item = letter["item"].as_str().unwrap().lines().nth(1).unwrap();
        let document: Value = serde_json::from_str(item).unwrap();
        assert!(document["url.path"].as_str().unwrap().ends_with("13"), "{document}");
    }
}

#[test]
fn a_blocked_index_is_waited_for() {
    const RECORDS: usize = 3000;
    let node = Node::start("");
    node.ask("PUT", "/blocked", &json!({ "settings": { "index.blocks.read_only_allow_delete": true } }));
    let folder = tempfile::tempdir().unwrap();
    let data_dir = format!("data_dir={}", folder.path().display());
    let settings =
        ["sinks.es.index=blocked", "sinks.es.install_template=off", "sinks.es.queue_bytes=256KiB", &data_dir];
    let replay = play(&node, RECORDS, &settings);
    until("bulks are refused for now", || replay.said().contains("throttled"));
    node.ask("PUT", "/blocked/_settings", &json!({ "index.blocks.read_only_allow_delete": null }));
    let summary = replay.finish();
    assert!(summary.contains(&format!("es: delivered {RECORDS}, lost 0")), "{summary}");
    assert_eq!(node.count("blocked"), RECORDS as u64);
    assert!(!folder.path().join("dead-letters/es.jsonl").exists());
}
