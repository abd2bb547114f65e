//! A node of OpenSearch: all documents there, each once, with their fields' types; outages, pipelines, what it refuses.

use std::{fs, path::Path, process::Command};

use serde_json::{Value, json};
use support::{
    keeper,
    server::{Server, ask, free_port, installed, listens},
};

use crate::{RECORDS, Replay, outage, until};

/// A node, and where it listens.
struct Node {
    server: Server,
    port: u16,
}

impl Node {
    fn start(more: &'static str) -> Self {
        let (port, transport) = (free_port(), free_port());
        let prepare = move |folder: &Path| {
            let settings = format!(
                "cluster.name: test\nnode.name: n1\nnode.roles: [cluster_manager, data, ingest]\ndiscovery.type: single-node\n\
                 network.host: 127.0.0.1\nhttp.port: {port}\ntransport.port: {transport}\n\
                 cluster.routing.allocation.disk.threshold_enabled: false\n{more}"
            );
            fs::write(folder.join("os.yml"), settings).unwrap();
        };
        let server = Server::start("opensearch", prepare, java, move || {
            listens(port) && health(port).is_some_and(|health| health["initializing_shards"] == 0)
        });
        Self { server, port }
    }

    fn ask(&self, method: &str, path: &str, body: &Value) -> Value {
        let answer = ask(self.port, method, path, body.to_string().as_bytes());
        let (status, body) = answer.unwrap_or_else(|error| panic!("{method} {path}: {error}"));
        assert!(status < 300, "{method} {path}: {status} {body}");
        serde_json::from_str(&body).unwrap()
    }

    /// Documents in `index`, of all that were made.
    fn count(&self, index: &str) -> u64 {
        self.ask("POST", &format!("/{index}/_refresh"), &json!({}));
        self.ask("GET", &format!("/{index}/_count"), &json!({ "query": { "match_all": {} } }))["count"]
            .as_u64()
            .unwrap()
    }

    /// The paths of all documents, in order.
    fn paths(&self, index: &str) -> Vec<String> {
        const PAGE: usize = 10_000;
        let (mut paths, mut after) = (Vec::new(), Value::Null);
        loop {
            let mut query = json!({ "size": PAGE, "_source": ["url.path"], "sort": ["url.path"] });
            if !after.is_null() {
                query["search_after"] = after;
            }
            let told = self.ask("GET", &format!("/{index}/_search"), &query);
            let hits = told["hits"]["hits"].as_array().unwrap();
            // The sort's value is the field's.
            paths.extend(hits.iter().map(|hit| hit["sort"][0].as_str().unwrap().to_owned()));
            match hits.last() {
                Some(last) if hits.len() == PAGE => after = last["sort"].clone(),
                Some(_) | None => return paths,
            }
        }
    }

    fn settings(&self, more: &[&str]) -> Vec<String> {
        let own = [
            "sinks.es.type=elasticsearch".to_owned(),
            format!("sinks.es.url=http://127.0.0.1:{}/", self.port),
            "sinks.es.install_template=on".to_owned(),
        ];
        own.into_iter().chain(more.iter().map(|setting| (*setting).to_owned())).collect()
    }

    fn replay(&self, records: usize, more: &[&str]) -> Replay {
        let settings = self.settings(more);
        Replay::start(records, &settings.iter().map(String::as_str).collect::<Vec<_>>())
    }
}

fn java(_: &Path) -> Command {
    let jars = installed("opensearch");
    let path = format!("{0}/classes:{0}/lib/*", jars.display());
    let mut command = keeper::command(Path::new("java"));
    command.args(["-Xms256m", "-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-cp", &path]);
    command.args(["Node", "os.yml", "data"]);
    command
}

fn health(port: u16) -> Option<Value> {
    let (status, body) = ask(port, "GET", "/_cluster/health", b"").ok()?;
    (status == 200).then(|| serde_json::from_str(&body).ok())?
}

#[test]
fn all_documents_are_there_once_with_their_types_through_an_outage_and_a_kill() {
    let mut node = Node::start("");
    let replay = node.replay(RECORDS, &["sinks.es.compression=gzip", "sinks.es.timeout=10s"]);
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
    let replay = node.replay(RECORDS, &["sinks.es.pipeline=choosy", "sinks.es.compression=gzip", &data_dir]);
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
    let replay = node.replay(RECORDS, &settings);
    until("bulks are refused for now", || replay.said().contains("throttled"));
    node.ask("PUT", "/blocked/_settings", &json!({ "index.blocks.read_only_allow_delete": null }));
    let summary = replay.finish();
    assert!(summary.contains(&format!("es: delivered {RECORDS}, lost 0")), "{summary}");
    assert_eq!(node.count("blocked"), RECORDS as u64);
    assert!(!folder.path().join("dead-letters/es.jsonl").exists());
}
