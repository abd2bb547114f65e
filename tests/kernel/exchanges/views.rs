//! Both views of an exchange, joined by the real agent: what took long at the server is no time in the network; and the real
//! `pod2pod top` shows it.

use std::{
    collections::BTreeMap,
    net::TcpStream,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;
use support::{
    ending::Ending,
    metrics::Metrics,
    process::{Running, command},
    scale,
    wire::{Framing, Wire, content},
    world::{CLIENT_POD, POD_PORT, SERVER_POD, SERVICE},
};

use super::{
    agent::{AMPLE_RING, Agent},
    http::{Client, DEFAULT_SIZE, Server},
    seen::check,
    stage::{Stage, prepare},
};

/// How long the server thinks about each answer.
const THOUGHT: Duration = Duration::from_millis(50);
/// Of the time at the client, what may be spent on the way at most: packets wait only for the kernel.
const MOST_NETWORK: f64 = 0.2;
/// Exchanges on each connection.
const EXCHANGES: usize = 10;
/// NAT leads the two views of a connection through different workers.
const WORKERS: &str = "capture.workers=4";

/// Answers after a while.
fn answer_slowly(stream: TcpStream) -> std::io::Result<()> {
    prepare(&stream);
    let mut wire = Wire::new(stream)?;
    while let Some(head) = wire.head()? {
        wire.body(head.framing(Framing::Length(0)), &mut 0)?;
        let begin = Instant::now();
        while begin.elapsed() < THOUGHT {
            thread::park_timeout(THOUGHT.saturating_sub(begin.elapsed()));
        }
        let body = content(DEFAULT_SIZE);
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
        wire.write(&[head.as_bytes(), &body].concat())?;
    }
    Ok(())
}

/// All rows of `name` together.
fn sum(metrics: &Metrics, name: &str) -> f64 {
    let rows = metrics.text().lines().filter(|line| line.starts_with(name));
    rows.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok()).sum()
}

/// The records of each exchange; the network's time as it is told must be the difference of the two durations.
fn check_network(lines: &str) {
    let mut exchanges = BTreeMap::<(String, u64), Vec<Value>>::new();
    for line in lines.lines() {
        let record: Value = serde_json::from_str(line).unwrap();
        if record["kind"] == "http" {
            let id = record["connection.id"].as_str().unwrap().to_owned();
            exchanges.entry((id, record["exchange.offset"].as_u64().unwrap())).or_default().push(record);
        }
    }
    for records in exchanges.values() {
        let told: Vec<f64> =
            records.iter().filter_map(|record| record.get("network.duration")?.as_f64()).collect();
        let of = |end| records.iter().find(|record| record["observed_at"] == end);
        let duration = |end| of(end).unwrap()["duration"].as_f64().unwrap();
        let network = duration("client") - duration("server");
        assert!(told.len() == 1 && (told[0] - network.max(0.0)).abs() < 2e-9, "{records:#?}");
    }
}

#[test]
fn what_takes_long_at_the_server_is_no_time_in_the_network() {
    let mut stage = Stage::new();
    let agent = Agent::start(Some(stage.world.cgroup.path()), &[AMPLE_RING, WORKERS]);
    let server = Server::with(stage.server.listen((SERVER_POD.v4, POD_PORT)), answer_slowly);
    let count = scale::count(EXCHANGES, 2);
    let mut clients = [("pod", server.address), ("service", SERVICE), ("again", SERVICE), ("more", SERVICE)]
        .map(|(name, to)| (name, Client::connect(&mut stage.client, to)));
    thread::scope(|scope| {
        for (name, client) in &mut clients {
            scope.spawn(move || (0..count).for_each(|number| client.get(&format!("/{name}/{number}"))));
        }
    });
    let done = clients.map(|(_, client)| client.done).concat();
    let all = done.len() as f64;
    let metrics =
        agent.wait_metrics("all are joined", |metrics| metrics.counter("views_joined") as f64 >= all);
    assert_eq!(
        (metrics.counter("views_seen"), metrics.counter("views_joined")),
        (2 * done.len() as u64, done.len() as u64)
    );
    let joined = |what| sum(&metrics, &format!("pod2pod_workload_joined_{what}_total"));
    assert_eq!((joined("requests"), metrics.counter("workload_requests") as f64), (all, 2.0 * all));
    let (client, network) = (joined("client_seconds"), joined("network_seconds"));
    assert!(client >= all * THOUGHT.as_secs_f64(), "{client} s of {all}");
    assert!(network < client * MOST_NETWORK, "{network} of {client} s");
    let told = agent.end();
    check(&told.records(), &done);
    check_network(&told.text);
}

#[test]
fn one_view_is_joined_with_none() {
    let mut stage = Stage::new();
    let agent = Agent::start(Some(stage.world.cgroup.path()), &[AMPLE_RING, "roles=server"]);
    let server = Server::start(stage.server.listen((SERVER_POD.v4, 0)));
    let mut client = Client::connect(&mut stage.client, server.address);
    let count = scale::count(EXCHANGES, 1);
    (0..count).for_each(|number| client.get(&format!("/{number}")));
    let metrics = agent.wait_metrics("all are seen", |metrics| metrics.counter("views_seen") >= count as u64);
    assert_eq!((metrics.counter("views_seen"), metrics.counter("views_joined")), (count as u64, 0));
    assert!(!metrics.text().contains("pod2pod_workload_joined_"), "{}", metrics.text());
    assert!(!agent.end().text.contains("network.duration"));
}

#[test]
fn top_shows_what_the_agent_counts() {
    let mut stage = Stage::new();
    let agent = Agent::start(Some(stage.world.cgroup.path()), &[AMPLE_RING]);
    let server = Server::with(stage.server.listen((SERVER_POD.v4, 0)), answer_slowly);
    let mut client = Client::connect(&mut stage.client, server.address);
    let is_over = AtomicBool::new(false);
    let finished = thread::scope(|scope| {
        scope.spawn(|| {
            for number in 0.. {
                if is_over.load(Ordering::Relaxed) {
                    break;
                }
                client.get(&format!("/{number}"));
            }
        });
        let _ending = Ending(&is_over);
        let url = agent.address().to_string();
        Running::start(command(["top", "--json", "--interval", "3s", "--url", &url])).finish()
    });
    assert_eq!(finished.code, Some(0), "{finished:?}");
    let told: Value = serde_json::from_str(&finished.stdout).unwrap();
    assert_eq!(told["pairs"].as_array().unwrap().len(), 1, "both views are one row: {told}");
    let pair = &told["pairs"][0];
    let ends = [CLIENT_POD.v4.to_string(), server.address.to_string()];
    assert_eq!([&pair["client_workload"], &pair["server_workload"]], ends.each_ref().map(String::as_str));
    assert_eq!(pair["reporter"], "server");
    let figure = |key: &str| pair[key].as_f64().unwrap_or_else(|| panic!("{key} in {pair}"));
    let least = THOUGHT.as_secs_f64();
    assert!(figure("requests") > 0.0 && figure("requests_per_second") < 1.0 / least + 1.0, "{pair}");
    // The bucket is exact: the next bound below is that of 50 ms.
    assert!(figure("p50") >= least && figure("error_share") == 0.0, "{pair}");
    assert!(figure("joined_requests") > 0.0 && figure("network_share") < MOST_NETWORK, "{pair}");
    agent.end();
}
