//! A spool: an agent that is killed while its collector takes nothing has kept every record for the next one.

use std::{
    collections::HashMap,
    fs,
    io::{self, Read as _, Write as _},
    net::{Ipv4Addr, TcpStream},
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
};

use nix::sys::signal::Signal;

use super::{
    agent::{AMPLE_RING, Agent, wait_until},
    http::{Client, Server},
    stage::{Place, Stage},
};
use support::world::SERVER_POD;

/// Exchanges before the agent is killed.
const EXCHANGES: usize = 1000;
/// Records of a batch, and so duplicates at most.
const BATCH: usize = 50;

#[derive(Default)]
struct Collector {
    takes: AtomicBool,
    /// How often each path came in a request that was answered 200.
    paths: Mutex<HashMap<String, usize>>,
    refused: Mutex<usize>,
}

impl Collector {
    /// Answers requests until the connection ends.
    fn serve(&self, mut stream: TcpStream) -> io::Result<()> {
        loop {
            let mut head = Vec::new();
            let mut byte = [0];
            while !head.ends_with(b"\r\n\r\n") {
                if stream.read(&mut byte)? == 0 {
                    return Ok(());
                }
                head.push(byte[0]);
            }
            let head = String::from_utf8_lossy(&head).to_ascii_lowercase();
            let length = head.split("content-length: ").nth(1).and_then(|rest| rest.split("\r\n").next());
            let mut body = vec![0; length.unwrap().parse().unwrap()];
            stream.read_exact(&mut body)?;
            let status = if self.takes.load(Ordering::SeqCst) {
                let body = String::from_utf8(body).unwrap();
                let mut paths = self.paths.lock().unwrap();
                for line in body.lines() {
                    let record: serde_json::Value = serde_json::from_str(line).unwrap();
                    *paths.entry(record["url.path"].as_str().unwrap().to_owned()).or_default() += 1;
                }
                "200 OK"
            } else {
                *self.refused.lock().unwrap() += 1;
                "503 Service Unavailable"
            };
            stream.write_all(format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n").as_bytes())?;
        }
    }
}

#[test]
fn nothing_is_lost_when_the_agent_is_killed_while_its_collector_takes_nothing() {
    let mut stage = Stage::new();
    let mut here = Place::new(Path::new("-"), Path::new("-"));
    let collector = Arc::<Collector>::default();
    let serving = Arc::clone(&collector);
    let listening = Server::with(here.listen((Ipv4Addr::LOCALHOST, 0)), move |stream| serving.serve(stream));
    let folder = tempfile::tempdir().unwrap();
    let settings = [
        AMPLE_RING.to_owned(),
        "roles=server".to_owned(),
        format!("data_dir={}", folder.path().display()),
        format!("sinks.kept.url=http://{}/", listening.address),
        format!("sinks.kept.batch_records={BATCH}"),
        "sinks.kept.concurrency=1".to_owned(),
        "sinks.kept.linger=50ms".to_owned(),
    ];
    let settings: Vec<&str> = settings.iter().map(String::as_str).collect();
    let server = Server::start(stage.server.listen((SERVER_POD.v4, 0)));
    let cgroup = stage.world.cgroup.path().to_owned();
    let agent = Agent::start(Some(&cgroup), &settings);
    let mut client = Client::connect(&mut stage.client, server.address);
    for number in 0..EXCHANGES {
        client.get(&format!("/{number}"));
    }
    let metrics = agent.wait_metrics("all wait, and the collector was asked", |metrics| {
        metrics.sum("sink_records_received_total", "sink=\"kept\"") == EXCHANGES as u64
            && *collector.refused.lock().unwrap() > 0
            && spooled(folder.path()) > EXCHANGES as u64 * 300
    });
    assert_eq!(metrics.sum("sink_records_delivered_total", "sink=\"kept\""), 0);
    agent.signal(Signal::SIGKILL);
    drop(agent);
    collector.takes.store(true, Ordering::SeqCst);
    let agent = Agent::start(Some(&cgroup), &settings);
    wait_until("all are there", || collector.paths.lock().unwrap().len() == EXCHANGES);
    let metrics = agent.wait_metrics("its books balance", |metrics| {
        metrics.sum("sink_records_delivered_total", "sink=\"kept\"") >= EXCHANGES as u64
            && metrics.sum("ledger_balanced", "") == 1
    });
    assert_eq!(metrics.sum("sink_spool_records_recovered_total", "sink=\"kept\""), EXCHANGES as u64);
    let paths = collector.paths.lock().unwrap();
    let twice = paths.values().map(|times| times - 1).sum::<usize>();
    assert!(twice <= BATCH, "{twice}");
    let expected = |number: usize| paths.contains_key(&format!("/{number}"));
    assert!((0..EXCHANGES).all(expected), "{paths:?}");
    drop(paths);
    let told = agent.end();
    assert!(told.summary.contains("lost 0"), "{}", told.summary);
}

/// Bytes of entries in the spool of the sink.
fn spooled(data_dir: &Path) -> u64 {
    let files = fs::read_dir(data_dir.join("spool/kept")).into_iter().flatten().flatten();
    files.filter_map(|file| file.metadata().ok()).map(|metadata| metadata.len()).sum()
}
