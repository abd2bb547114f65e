//! The servers that records go to, each real: how an agent is told of it, and what is in it at the end.

use serde_json::Value;
use support::{
    collector::Collector,
    fluentd::Forward,
    nginx::Nginx,
    opensearch::Node,
    postgres::{Database, USER, WITHOUT_PASSWORD},
    server::Server,
};

/// A server, and the sink that is for it.
pub(crate) struct Receiver {
    /// Of the sink.
    pub(crate) name: &'static str,
    /// What people call the server.
    pub(crate) product: &'static str,
    /// Keys of `sinks.NAME`, and their values.
    pub(crate) settings: Vec<(&'static str, String)>,
    kind: Kind,
}

enum Kind {
    OpenSearch(Node),
    Postgres(Database),
    Collector(Collector),
    Forward(Forward),
    Nginx(Nginx),
}

/// Starts one of each.
pub(crate) fn start() -> Vec<Receiver> {
    vec![opensearch(), postgres(), collector(), forward(), nginx()]
}

fn opensearch() -> Receiver {
    let node = Node::start("");
    let settings = vec![
        ("type", "elasticsearch".to_owned()),
        ("url", format!("http://127.0.0.1:{}/", node.port)),
        ("install_template", "on".to_owned()),
        ("compression", "gzip".to_owned()),
    ];
    Receiver { name: "search", product: "OpenSearch", settings, kind: Kind::OpenSearch(node) }
}

fn postgres() -> Receiver {
    let database = Database::start(WITHOUT_PASSWORD);
    let settings = vec![
        ("url", format!("postgres://{USER}@127.0.0.1:{}/postgres", database.port)),
        ("tls.mode", "disable".to_owned()),
        ("create_table", "on".to_owned()),
    ];
    Receiver { name: "store", product: "PostgreSQL", settings, kind: Kind::Postgres(database) }
}

fn collector() -> Receiver {
    let collector = Collector::start("");
    let settings = vec![("type", "otlp".to_owned()), ("url", format!("http://127.0.0.1:{}", collector.port))];
    Receiver { name: "logs", product: "OpenTelemetry Collector", settings, kind: Kind::Collector(collector) }
}

fn forward() -> Receiver {
    let forward = Forward::start(&[]);
    let settings =
        vec![("url", format!("fluentd://127.0.0.1:{}", forward.port)), ("compression", "gzip".to_owned())];
    Receiver { name: "forward", product: "FluentServer", settings, kind: Kind::Forward(forward) }
}

fn nginx() -> Receiver {
    let nginx = Nginx::start("", "");
    let settings =
        vec![("url", format!("http://127.0.0.1:{}/", nginx.port)), ("compression", "zstd".to_owned())];
    Receiver { name: "web", product: "nginx", settings, kind: Kind::Nginx(nginx) }
}

impl Receiver {
    /// Its process, to be killed and started again.
    pub(crate) fn server(&mut self) -> &mut Server {
        match &mut self.kind {
            Kind::OpenSearch(node) => &mut node.server,
            Kind::Postgres(database) => &mut database.server,
            Kind::Collector(collector) => &mut collector.server,
            Kind::Forward(forward) => &mut forward.server,
            Kind::Nginx(nginx) => &mut nginx.server,
        }
    }

    /// The paths of all records in it.
    pub(crate) fn paths(&self) -> Vec<String> {
        match &self.kind {
            Kind::OpenSearch(node) => {
                node.ask("POST", "/pod2pod-*/_refresh", &Value::Object(Default::default()));
                node.paths("pod2pod-*")
            }
            Kind::Postgres(database) => {
                let paths = database.ask("SELECT record->>'url.path' FROM pod2pod_records");
                paths.lines().map(str::to_owned).collect()
            }
            Kind::Collector(collector) => collector.paths(),
            Kind::Forward(forward) => forward.paths(),
            Kind::Nginx(nginx) => nginx.paths(),
        }
    }
}
