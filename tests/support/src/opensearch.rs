//! A node of OpenSearch, alone on loopback.

#![expect(clippy::unwrap_used, clippy::panic, reason = "test support: a failure here is the test's failure")]

use std::{fs, path::Path, process::Command};

use serde_json::{Value, json};

use crate::{
    keeper,
    server::{Server, ask, free_port, installed, listens},
};

/// A node, and where it listens.
#[derive(Debug)]
pub struct Node {
    /// Its process.
    pub server: Server,
    /// Of loopback.
    pub port: u16,
}

impl Node {
    /// Starts one with `more` settings, and waits until it can take documents.
    pub fn start(more: &'static str) -> Self {
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

    /// Asks it; its answer has to be good.
    pub fn ask(&self, method: &str, path: &str, body: &Value) -> Value {
        let answer = ask(self.port, method, path, body.to_string().as_bytes());
        let (status, body) = answer.unwrap_or_else(|error| panic!("{method} {path}: {error}"));
        assert!(status < 300, "{method} {path}: {status} {body}");
        serde_json::from_str(&body).unwrap()
    }

    /// Documents in `index`, of all that were made.
    pub fn count(&self, index: &str) -> u64 {
        self.ask("POST", &format!("/{index}/_refresh"), &json!({}));
        self.ask("GET", &format!("/{index}/_count"), &json!({ "query": { "match_all": {} } }))["count"]
            .as_u64()
            .unwrap()
    }

    /// The paths of all documents, in order.
    pub fn paths(&self, index: &str) -> Vec<String> {
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
