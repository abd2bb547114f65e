//! The watch over IPVS inside the agent, with a table that the test writes: it comes, changes, goes and comes back. No kernel
//! with IPVS is needed for it.

use std::{fs, io::Write as _, net::SocketAddr, path::PathBuf};

use serde_json::Value;
use support::{
    ipvs::{HEADER, entry as row, updated_services},
    world::{CLIENT_POD, POD_PORT, SERVER_POD, SERVICE},
};

use super::{
    agent::{AMPLE_RING, Agent, wait_until},
    http::{Client, Server, answer_all},
    stage::Stage,
};

/// A folder where a table may be.
struct Tables {
    folder: tempfile::TempDir,
}

impl Tables {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("ip_vs"), updated_services()).unwrap();
        fs::write(folder.path().join("conn_reuse_mode"), "0\n").unwrap();
        fs::write(folder.path().join("expire_nodest_conn"), "0\n").unwrap();
        Self { folder }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("ip_vs_conn")
    }

    /// A whole table, at once.
    fn write(&self, rows: &str) {
        let fresh = self.folder.path().join("fresh");
        fs::write(&fresh, format!("{HEADER}{rows}")).unwrap();
        fs::rename(&fresh, self.path()).unwrap();
    }

    /// The same, there until a poll has begun and ended with it.
    fn put(&self, agent: &Agent, rows: &str) {
        self.write(rows);
        let polls = agent.metrics().counter("ipvs_polls");
        agent.wait_metrics("two more polls", |metrics| metrics.counter("ipvs_polls") >= polls + 2);
    }
}

#[test]
fn the_agent_watches_ipvs_where_it_is() {
    let stage = Stage::new();
    let tables = Tables::new();
    let path = format!("ipvs.path={}", tables.path().display());
    let settings = [AMPLE_RING, &path, "ipvs.interval=100ms", "log.level=info"];
    let agent = Agent::start(Some(stage.world.cgroup.path()), &settings);
    wait_until("it is said that there is none", || agent.log().contains("no IPVS here"));
    tables.put(&agent, &[row(1, "TIME_WAIT", 119), row(2, "ESTABLISHED", 900)].concat());
    wait_until("it is watched", || agent.log().contains("IPVS is watched"));
    tables.put(&agent, &[row(1, "SYN_RECV", 59), row(2, "ESTABLISHED", 900)].concat());
    let metrics = agent.wait_metrics("the reuse is counted", |metrics| {
        metrics.text().contains("pod2pod_ipvs_reuses_total{") && metrics.balance().is_ok()
    });
    for row in [
        "pod2pod_ipvs_reuses_total{service=\"10.96.0.10:80/tcp\",verdict=\"reused\",severity=\"critical\"} 1",
        "pod2pod_ipvs_entries{service=\"10.96.0.10:80/tcp\",state=\"SYN_RECV\"} 1",
        "pod2pod_ipvs_entries{service=\"10.96.0.10:80/tcp\",state=\"ESTABLISHED\"} 1",
        "pod2pod_ipvs_real_servers{weight=\"zero\"} 1",
        "pod2pod_ipvs_real_servers_draining{draining=\"draining\"} 1",
        "pod2pod_ipvs_present 1",
        "pod2pod_ledger_balanced 1",
    ] {
        assert!(metrics.text().lines().any(|line| line == row), "{row} in\n{}", metrics.text());
    }
    fs::remove_file(tables.path()).unwrap();
    agent.wait_metrics("it is gone", |metrics| metrics.text().contains("pod2pod_ipvs_present 0"));
    assert_eq!(agent.log().matches("no IPVS here").count(), 2, "{}", agent.log());
    let told = agent.end();
    let records: Vec<Value> = told.text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let [reuse] = &records[..] else { panic!("{}", told.text) };
    for (key, value) in [
        ("kind", "ipvs_reuse"),
        ("ipvs.reuse", "certain"),
        ("ipvs.situation", "draining_server_mode_off"),
        ("client.address", "10.244.1.2"),
        ("ipvs.service.address", "10.96.0.10"),
    ] {
        assert_eq!(reuse[key], value, "{key} in {reuse}");
    }
    assert!(told.summary.contains("delivered 1"), "{}", told.summary);
}

#[test]
fn more_entries_than_there_is_memory_for_are_told() {
    let stage = Stage::new();
    let tables = Tables::new();
    let rows: String = (1..=40_000).map(|port| row(port, "TIME_WAIT", 100)).collect();
    fs::write(tables.path(), format!("{HEADER}{rows}")).unwrap();
    let path = format!("ipvs.path={}", tables.path().display());
    let settings = [&path, "limits.memory=64MiB", "output.queue_bytes=1MiB", "ipvs.interval=100ms"];
    let agent = Agent::start(Some(stage.world.cgroup.path()), &settings);
    let metrics = agent.wait_metrics("some are left out", |metrics| {
        metrics.text().contains("pod2pod_ipvs_poll_age_seconds ")
    });
    let polls = metrics.counter("ipvs_polls");
    let left_out = metrics.counter("ipvs_rows_untracked");
    assert!(left_out >= 10_000 * polls && left_out < 40_000 * polls, "{left_out} in {polls} polls");
    assert_eq!(metrics.sum("shed_level", ""), 0, "{}", metrics.text());
    wait_until("it is said", || agent.log().matches("more of IPVS than there is memory for").count() == 1);
    agent.end();
}

/// An entry of a client's port, by the address that stands for the server, at the server.
fn entry(port: u16, state: &str, left: u32) -> String {
    let SocketAddr::V4(service) = SERVICE else { panic!("{SERVICE}") };
    let ends = [(CLIENT_POD.v4, port), (*service.ip(), service.port()), (SERVER_POD.v4, POD_PORT)];
    let ends = ends.map(|(address, port)| format!("{:08X} {port:04X}", address.to_bits())).join(" ");
    format!("TCP {ends} {state:11} {left:>7}\n")
}

/// Behind a translated address, as behind IPVS: both ends' records of a connection that met an old entry say so, those of
/// others leave at once, and the reuse names the exchange that failed.
#[test]
fn exchanges_carry_the_reuse_of_their_connection() {
    const HANGS_UP: &str = "/hangs-up";
    let mut stage = Stage::new();
    let tables = Tables::new();
    let services = updated_services()
        .replace("0AF40203:1F90", &format!("{:08X}:{POD_PORT:04X}", SERVER_POD.v4.to_bits()));
    fs::write(tables.folder.path().join("ip_vs"), services).unwrap();
    let path = format!("ipvs.path={}", tables.path().display());
    let ports = [40_001, 40_002, 40_003];
    let closed: String = ports[..2].iter().map(|port| entry(*port, "TIME_WAIT", 100)).collect();
    tables.write(&closed);
    // Two polls: one at the start, and one when all is done that they are about.
    let settings = [AMPLE_RING, &path, "ipvs.interval=12s"];
    let agent = Agent::start(Some(stage.world.cgroup.path()), &settings);
    agent.wait_metrics("the first poll", |metrics| metrics.text().contains("pod2pod_ipvs_present 1"));
    let _server = Server::with(stage.server.listen((SERVER_POD.v4, POD_PORT)), |stream| {
        let mut first = [0; 64];
        let length = stream.peek(&mut first).unwrap_or(0);
        if !String::from_utf8_lossy(&first[..length]).contains(HANGS_UP) {
            // What goes wrong here is seen by the client.
            let _ = answer_all(stream);
        }
    });
    let mut open = |port: u16| {
        let from = SocketAddr::from((CLIENT_POD.v4, port));
        stage.client.try_connect(Some(from), SERVICE).unwrap()
    };
    let [met, failing, other] = ports.map(&mut open);
    let mut wire = Client::new(met);
    wire.get("/met");
    let mut alone = Client::new(other);
    alone.get("/alone");
    (&failing).write_all(format!("GET {HANGS_UP} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes()).unwrap();
    wait_until("it hung up", || failing.peek(&mut [0]).is_ok_and(|length| length == 0));
    agent.wait_metrics("the others wait", |metrics| metrics.counter("ipvs_join_waited") == 4);
    let opened: String = ports[..2].iter().map(|port| entry(*port, "SYN_RECV", 59)).collect();
    tables.write(&opened);
    agent.wait_metrics("all is told", |metrics| metrics.sum("ledger_exchanges_in_flight", "enrich") == 0);
    let told = agent.end();
    let records: Vec<Value> = told.text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let of = |kind: &str, target: &str| -> Vec<&Value> {
        records.iter().filter(|record| record["kind"] == kind && record["url.path"] == target).collect()
    };
    for (target, carries) in [("/met", true), (HANGS_UP, true), ("/alone", false)] {
        let found = of("http", target);
        assert_eq!(found.len(), 2, "both ends of {target}: {}", told.text);
        for record in found {
            let has: Vec<_> =
                record.as_object().unwrap().keys().filter(|key| key.starts_with("ipvs.")).collect();
            if !carries {
                assert!(has.is_empty(), "{record}");
                continue;
            }
            check_reused(record, &told.text);
        }
    }
    let ([reuse], failed) = (&of("ipvs_reuse", HANGS_UP)[..], of("http", HANGS_UP)[0]) else {
        panic!("{}", told.text)
    };
    for key in ["connection.id", "outcome", "http.request.method", "client.port"] {
        assert_eq!(reuse[key], failed[key], "{key}");
    }
    assert!(["closed", "reset"].contains(&reuse["outcome"].as_str().unwrap()), "{reuse}");
    assert_eq!(told.text.matches("\"ipvs_reuse\"").count(), 2, "the other one is harmless: {}", told.text);
}

fn check_reused(record: &Value, all: &str) {
    assert_eq!(
        (&record["ipvs.reuse"], &record["ipvs.verdict"]),
        (&"certain".into(), &"reused".into()),
        "{record} of {all}"
    );
    assert_eq!(record["ipvs.service.address"], SERVICE.ip().to_string(), "{record}");
    assert_eq!(record["ipvs.real_server.address"], SERVER_POD.v4.to_string(), "{record}");
    assert_eq!(record["ipvs.real_server.weight"], 0, "{record}");
    let idle = record["ipvs.idle"].as_f64().unwrap();
    assert!((20.0..60.0).contains(&idle), "20 s before the poll: {record}");
}
