//! A spool: an agent that is killed while its collector takes nothing has kept every record for the next one, and so has one that is
//! killed while records go out.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{Ipv4Addr, TcpStream},
    path::Path,
    sync::atomic::{AtomicUsize, Ordering},
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;
use support::{
    scale,
    stand_in::{Manner, Protocol, StandIn},
    world::SERVER_POD,
};

use super::{
    agent::{AMPLE_RING, Agent},
    http::{Client, DEFAULT_SIZE, Server},
    stage::{Place, Stage},
};

/// Exchanges before the agent is killed, where the machine is fast enough for them.
const EXCHANGES: usize = 100_000;
/// Where all is slow.
const LEAST_EXCHANGES: usize = 1000;
/// Records of a batch, and so duplicates of a kill at most.
const BATCH: usize = 50;
/// Requests on their way at once: the server's answers fit into its socket.
const PIPELINED: usize = 100;
/// For all records to go out.
const MAX_WAIT: Duration = Duration::from_secs(120);
/// Whose metrics.
const KEPT: &str = "sink=\"kept\"";

/// So many exchanges on one connection, each with its path; how many are done is told meanwhile.
pub(super) fn talk(
    mut stream: TcpStream,
    exchanges: usize,
    path: &impl Fn(usize) -> String,
    done: &AtomicUsize,
) {
    let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\n".len() + DEFAULT_SIZE as usize;
    for first in (0..exchanges).step_by(PIPELINED) {
        let numbers = first..exchanges.min(first + PIPELINED);
        let mut answers = vec![0; answer * numbers.len()];
        let requests =
            numbers.map(|number| format!("GET {} HTTP/1.1\r\nHost: kernel.test\r\n\r\n", path(number)));
        stream.write_all(requests.collect::<String>().as_bytes()).unwrap();
        stream.read_exact(&mut answers).unwrap();
        done.fetch_add(answers.len() / answer, Ordering::SeqCst);
    }
}

#[test]
fn nothing_is_lost_when_the_agent_is_killed_while_its_collector_takes_nothing() {
    let exchanges = scale::count(EXCHANGES, LEAST_EXCHANGES);
    let mut stage = Stage::new();
    let mut here = Place::new(Path::new("-"), Path::new("-"));
    let collector = StandIn::start(Protocol::Http, here.listen((Ipv4Addr::LOCALHOST, 0)));
    collector.behave(Manner::Unavailable);
    let folder = tempfile::tempdir().unwrap();
    let settings = [
        AMPLE_RING.to_owned(),
        "roles=server".to_owned(),
        format!("data_dir={}", folder.path().display()),
        format!("sinks.kept.url=http://{}/", collector.address),
        format!("sinks.kept.batch_records={BATCH}"),
        "sinks.kept.concurrency=1".to_owned(),
        "sinks.kept.linger=50ms".to_owned(),
        // They come as fast as they can, and a disk may be busy for a second: there is room for all of them.
        "sinks.kept.queue_bytes=96MiB".to_owned(),
    ];
    let settings: Vec<&str> = settings.iter().map(String::as_str).collect();
    let server = Server::start(stage.server.listen((SERVER_POD.v4, 0)));
    let cgroup = stage.world.cgroup.path().to_owned();
    let agent = Agent::start(Some(&cgroup), &settings);
    let path = |number: usize| format!("/{number}");
    talk(stage.client.connect(server.address), exchanges, &path, &AtomicUsize::new(0));
    let all = exchanges as u64;
    let metrics = agent.wait_metrics("all wait on disk, and the collector was asked", |metrics| {
        metrics.sum("sink_records_received_total", KEPT) == all
            && metrics.sum("sink_spool_records", KEPT) == all
            && collector.requests() > 0
    });
    assert_eq!(metrics.sum("sink_records_delivered_total", KEPT), 0);
    agent.signal(Signal::SIGKILL);
    drop(agent);
    collector.behave(Manner::Well);
    // Once more, while they go out.
    let agent = Agent::start(Some(&cgroup), &settings);
    let deadline = Instant::now() + MAX_WAIT;
    assert!(collector.wait_unique(exchanges / 2, deadline), "half of them: {}", collector.unique());
    agent.signal(Signal::SIGKILL);
    drop(agent);
    let agent = Agent::start(Some(&cgroup), &settings);
    assert!(collector.wait_unique(exchanges, deadline), "all of them: {}", collector.unique());
    let metrics = agent.wait_metrics("its books balance, and nothing waits", |metrics| {
        let recovered = metrics.sum("sink_spool_records_recovered_total", KEPT);
        recovered > 0
            && metrics.sum("sink_records_delivered_total", KEPT) == recovered
            && metrics.sum("sink_spool_records", KEPT) == 0
            && metrics.sum("ledger_balanced", "") == 1
    });
    let recovered = metrics.sum("sink_spool_records_recovered_total", KEPT);
    assert_eq!(metrics.sum("sink_records_dropped_total", KEPT), 0);
    let taken = collector.taken();
    let twice = taken.values().map(|times| times - 1).sum::<usize>();
    eprintln!("{exchanges} unique, {twice} duplicates; {recovered} found at the last start");
    assert!(twice <= BATCH, "{twice} of {recovered} that the last agent found");
    assert!((0..exchanges).all(|number| taken.contains_key(&path(number))), "others than were made");
    let told = agent.end();
    assert!(told.summary.contains("lost 0"), "{}", told.summary);
}

/// In traffic, wherever a secret has a place; and our own.
const CANARIES: [&str; 2] = ["canary4711", "canary0815"];

#[test]
fn what_is_on_disk_has_no_secret() {
    let mut stage = Stage::new();
    let collector = StandIn::local(Protocol::Http);
    collector.behave(Manner::Unavailable);
    let folder = tempfile::tempdir().unwrap();
    let [canary, own] = CANARIES;
    let (data, secret) = (folder.path().join("data"), folder.path().join("secret"));
    fs::create_dir(&data).unwrap();
    fs::write(&secret, own).unwrap();
    let settings = [
        "roles=server".to_owned(),
        "http.request_headers=authorization,cookie".to_owned(),
        format!("data_dir={}", data.display()),
        format!("sinks.kept.url=http://{}/?token={own}", collector.address),
        format!("sinks.kept.header_files=Authorization: {}", secret.display()),
        "sinks.kept.linger=50ms".to_owned(),
    ];
    let settings: Vec<&str> = settings.iter().map(String::as_str).collect();
    let server = Server::start(stage.server.listen((SERVER_POD.v4, 0)));
    let agent = Agent::start(Some(stage.world.cgroup.path()), &settings);
    let mut client = Client::connect(&mut stage.client, server.address);
    let fields = format!("Authorization: Bearer {canary}\r\nCookie: session={canary}");
    let request =
        format!("GET /item?access_token={canary} HTTP/1.1\r\nHost: kernel.test\r\n{fields}\r\n\r\n");
    client.wire().write(request.as_bytes()).unwrap();
    client.wire().head().unwrap().unwrap();
    agent.wait_metrics("it is on disk", |metrics| metrics.sum("sink_spool_records", KEPT) == 1);
    let files = fs::read_dir(data.join("spool/kept.http")).unwrap().flatten();
    let bytes: Vec<u8> = files.flat_map(|file| fs::read(file.path()).unwrap()).collect();
    let has = |word: &str| memchr::memmem::find(&bytes, word.as_bytes()).is_some();
    assert!(has("/item") && has("REDACTED"), "it is there");
    assert!(!CANARIES.into_iter().any(has), "{}", String::from_utf8_lossy(&bytes));
}
