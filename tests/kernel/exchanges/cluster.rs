//! An API server that knows some pods and a Service, in the namespace of a node; nothing ever changes.

use std::{
    fs,
    io::{BufRead as _, BufReader, Write as _},
    net::{IpAddr, Ipv4Addr, TcpListener},
    thread,
};

use serde_json::{Value, json};
use support::netns::Namespace;

use super::agent::{AMPLE_RING, Agent};

/// The API server, and the file that says where it is.
pub(crate) struct Cluster {
    folder: tempfile::TempDir,
}

/// A pod's name and addresses.
pub(crate) type Pod = (&'static str, Vec<IpAddr>);

impl Cluster {
    /// In the network of `node`: these pods, and the Service `cart` with its own addresses, port 8080.
    pub(crate) fn start(node: &Namespace, pods: Vec<Pod>, service: Vec<IpAddr>) -> Self {
        let listener = node.within(|| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap());
        let server = format!("http://{}", listener.local_addr().unwrap());
        thread::spawn(move || {
            // Those of watches stay open.
            let mut open = Vec::new();
            for stream in listener.incoming() {
                let Ok(mut stream) = stream else { return };
                let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
                let Some(Ok(request)) = lines.next() else { continue };
                while lines.next().is_some_and(|line| line.is_ok_and(|line| !line.is_empty())) {}
                let is_watch = request.contains("watch=1");
                let body = if is_watch { String::new() } else { list(&request, &pods, &service).to_string() };
                let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n\r\n";
                // Whoever had enough of it is gone.
                let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body.as_bytes()));
                if is_watch {
                    open.push(stream);
                }
            }
        });
        let folder = tempfile::tempdir().unwrap();
        let config = json!({
            "clusters": [{"name": "a", "cluster": {"server": server}}],
            "users": [{"name": "a", "user": {}}],
            "contexts": [{"name": "a", "context": {"cluster": "a", "user": "a"}}],
            "current-context": "a",
        });
        fs::write(folder.path().join("kubeconfig"), config.to_string()).unwrap();
        Self { folder }
    }

    /// An agent in the node's namespace, at these interfaces. Returns when what it knows is certain.
    pub(crate) fn watch(&self, node: &Namespace, interfaces: &str, more: &[&str]) -> Agent {
        let kubeconfig = format!("kubernetes.kubeconfig={}", self.folder.path().join("kubeconfig").display());
        let interfaces = format!("capture.interfaces={interfaces}");
        let settings = [AMPLE_RING, &kubeconfig, &interfaces, "kubernetes.node=node-a"];
        let agent = Agent::start_in(node, &[&settings, more].concat());
        agent.wait_metrics("in contact", |metrics| {
            let mut silence =
                metrics.text().lines().filter(|line| line.starts_with("pod2pod_kubernetes_silence"));
            silence.next().is_some_and(|line| line.ends_with(" 0"))
                && silence.all(|line| line.ends_with(" 0"))
        });
        agent
    }
}

/// What is listed.
fn list(request: &str, pods: &[Pod], service: &[IpAddr]) -> Value {
    let pod = |(number, (name, addresses)): (usize, &Pod)| {
        let uid = format!("00000000-0000-4000-8000-{number:012}");
        let addresses: Vec<Value> = addresses.iter().map(|address| json!({"ip": address})).collect();
        json!({
            "metadata": {"name": name, "namespace": "shop", "uid": uid},
            "spec": {"nodeName": "node-b", "restartPolicy": "Always"},
            "status": {"phase": "Running", "podIPs": addresses},
        })
    };
    let items = if request.contains("/pods") {
        pods.iter().enumerate().map(pod).collect()
    } else if request.contains("/services") {
        vec![json!({
            "metadata": {"name": "cart", "namespace": "shop", "uid": "x"},
            "spec": {"clusterIPs": service, "ports": [{"port": 8080}]},
        })]
    } else {
        Vec::new()
    };
    json!({"metadata": {"resourceVersion": "7"}, "items": items})
}
