//! A configuration that is read again: sinks come, go and change while connections go on; one with mistakes changes nothing.

use std::{
    fs,
    io::{self, Read as _},
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    sync::{Arc, Mutex},
};

use nix::sys::signal::Signal;

use super::{
    agent::{AMPLE_RING, Agent, wait_until},
    http::{Client, Server},
    stage::{Place, Stage},
};
use support::{
    stand_in::{Manner, Protocol, StandIn},
    world::SERVER_POD,
};

/// A collector that remembers which paths it was given.
struct Collector {
    address: SocketAddr,
    _server: Server,
    paths: Arc<Mutex<Vec<String>>>,
}

impl Collector {
    fn start(place: &mut Place) -> Self {
        let paths = Arc::<Mutex<Vec<String>>>::default();
        let told = Arc::clone(&paths);
        let server = Server::with(place.listen((Ipv4Addr::LOCALHOST, 0)), move |stream| {
            while let Some(body) = take(&stream)? {
                let records =
                    body.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
                let paths = records.map(|record| record["url.path"].as_str().unwrap_or_default().to_owned());
                told.lock().unwrap().extend(paths);
            }
            Ok::<_, io::Error>(())
        });
        Self { address: server.address, _server: server, paths }
    }

    /// Each once: both ends tell of an exchange.
    fn paths(&self) -> Vec<String> {
        let mut paths = self.paths.lock().unwrap().clone();
        paths.dedup();
        paths
    }
}

/// The body of the next request, which is answered.
fn take(mut stream: &std::net::TcpStream) -> io::Result<Option<String>> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        if stream.read(&mut byte)? == 0 {
            return Ok(None);
        }
        head.push(byte[0]);
    }
    let head = String::from_utf8_lossy(&head).to_ascii_lowercase();
    let length = head.split("content-length: ").nth(1).and_then(|rest| rest.split("\r\n").next()).unwrap();
    let mut body = vec![0; length.parse().unwrap()];
    stream.read_exact(&mut body)?;
    io::Write::write_all(&mut stream, b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")?;
    Ok(Some(String::from_utf8(body).unwrap()))
}

#[test]
fn sinks_come_and_go_and_connections_go_on() {
    let mut stage = Stage::new();
    let mut here = Place::new(Path::new("-"), Path::new("-"));
    let [one, two] = [(); 2].map(|()| Collector::start(&mut here));
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("pod2pod.yaml");
    let write = |text: String| fs::write(&file, text).unwrap();
    let sink = |name: &str, collector: &Collector, more: &str| {
        format!("  {name}:\n    url: http://{}/\n    linger: 10ms\n{more}", collector.address)
    };
    write(format!("sinks:\n{}", sink("one", &one, "")));
    let agent =
        Agent::start_configured(&file, Some(stage.world.cgroup.path()), &[AMPLE_RING, "log.level=info"]);
    let server = Server::start(stage.server.listen((SERVER_POD.v4, 0)));
    let mut client = Client::connect(&mut stage.client, server.address);
    client.get("/first");
    wait_until("it is at the first collector", || one.paths() == ["/first"]);
    // Mistakes change nothing.
    write("sinks:\n  one:\n    url: gopher://x/\n  two:\n    timeout: soon\n".to_owned());
    wait_until("the mistakes are told", || {
        let log = agent.log();
        log.contains("the configuration stays as it was: sinks.one.type") && log.contains("sinks.two.type")
    });
    client.get("/second");
    wait_until("it is at the first collector", || one.paths() == ["/first", "/second"]);
    // One changes its filter, another comes.
    let changed = sink("one", &one, "    filter: path=/only/*\n");
    write(format!("sinks:\n{changed}{}", sink("two", &two, "")));
    let taken = "configuration_reloads_total";
    agent.wait_metrics("it is read again", |metrics| metrics.sum(taken, "result=\"taken\"") == 1);
    agent.wait_metrics("there are two", |metrics| metrics.text().contains("sink=\"two\""));
    client.get("/third");
    client.get("/only/this");
    wait_until("both are at the new one", || two.paths() == ["/third", "/only/this"]);
    wait_until("one is at the other", || one.paths() == ["/first", "/second", "/only/this"]);
    // The first goes, by a signal: what it was given before is with it.
    write(format!("sinks:\n{}", sink("two", &two, "")));
    agent.signal(Signal::SIGHUP);
    agent.wait_metrics("it is gone", |metrics| !metrics.text().contains("sink=\"one\""));
    wait_until("its end is told", || agent.log().contains("the sink has ended"));
    client.get("/fourth");
    wait_until("it is at the one that stays", || two.paths() == ["/third", "/only/this", "/fourth"]);
    // The books are right for sinks that were not there from the start.
    let metrics = agent.wait_metrics("the books balance", |metrics| {
        metrics.sum("ledger_balanced", "") == 1
            && metrics.sum("sink_records_delivered_total", "sink=\"two\"") == 6
    });
    assert_eq!(metrics.sum("ledger_exact", ""), 1, "{}", metrics.text());
    assert_eq!(one.paths(), ["/first", "/second", "/only/this"]);
    let told = agent.end();
    assert_eq!(told.text.lines().count(), 10, "{}", told.text);
    assert!(told.summary.contains("two: delivered 6, lost 0"), "{}", told.summary);
}

/// Its target is down, and the next one takes what was for it: all of it, in its order.
#[test]
fn a_sink_with_a_spool_is_changed_and_nothing_is_lost() {
    let mut stage = Stage::new();
    let mut here = Place::new(Path::new("-"), Path::new("-"));
    let down = StandIn::start(Protocol::Http, here.listen((Ipv4Addr::LOCALHOST, 0)));
    down.behave(Manner::Unavailable);
    let next = Collector::start(&mut here);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("pod2pod.yaml");
    let write = |target: SocketAddr, more: &str| {
        let sink =
            format!("sinks:\n  one:\n    url: http://{target}/\n    linger: 10ms\n    concurrency: 1\n");
        fs::write(&file, format!("data_dir: {}\nroles: [server]\n{sink}{more}", folder.path().display()))
            .unwrap();
    };
    write(down.address, "");
    let agent =
        Agent::start_configured(&file, Some(stage.world.cgroup.path()), &[AMPLE_RING, "log.level=info"]);
    let server = Server::start(stage.server.listen((SERVER_POD.v4, 0)));
    let mut client = Client::connect(&mut stage.client, server.address);
    let mut paths: Vec<_> = (0..200).map(|number| format!("/before/{number}")).collect();
    for path in &paths {
        client.get(path);
    }
    agent
        .wait_metrics("they are on disk", |metrics| metrics.sum("sink_spool_records", "sink=\"one\"") == 200);
    let taken = "configuration_reloads_total";
    // A sink of another type has a spool of its own: what is in this one is not for it.
    write(next.address, "    type: otlp\n");
    agent.wait_metrics("it is of another type", |metrics| metrics.sum(taken, "result=\"taken\"") == 1);
    write(next.address, "");
    agent.wait_metrics("it is read again", |metrics| metrics.sum(taken, "result=\"taken\"") == 2);
    for number in 0..200 {
        let path = format!("/after/{number}");
        client.get(&path);
        paths.push(path);
    }
    wait_until("all are at the next one", || next.paths().len() >= paths.len());
    assert_eq!(next.paths(), paths);
    assert_eq!(down.unique(), 0);
    agent.wait_metrics("the books balance", |metrics| metrics.sum("ledger_balanced", "") == 1);
    let told = agent.end();
    assert!(told.summary.contains("one: delivered 400, lost 0"), "{}", told.summary);
}

/// Which connections are wanted changes both ways while they are there: each is told from then on, or not.
#[test]
fn the_filter_is_changed_and_connections_that_are_there_are_judged_by_it() {
    let mut stage = Stage::new();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("pod2pod.yaml");
    let servers = [(); 3].map(|()| Server::start(stage.server.listen((SERVER_POD.v4, 0))));
    let [one, two, three] = servers.each_ref().map(|server| server.address.port());
    let write = |ports: &[u16], more: &str| {
        fs::write(&file, format!("filter:\n  ports: {ports:?}\n{more}")).unwrap();
    };
    write(&[one, three], "roles: [server]\n");
    let agent =
        Agent::start_configured(&file, Some(stage.world.cgroup.path()), &[AMPLE_RING, "log.level=info"]);
    let taken = |times: u64| {
        agent.wait_metrics("it is read again", |metrics| {
            metrics.sum("configuration_reloads_total", "result=\"taken\"") == times
        });
    };
    let mut clients = servers.each_ref().map(|server| Client::connect(&mut stage.client, server.address));
    let mut get = |path: &str| clients.iter_mut().for_each(|client| client.get(path));
    get("/first");
    agent.wait_metrics("both ends are refused", |metrics| metrics.counter("filter_refused_port") == 2);
    get("/again");
    agent.wait_metrics("they are left alone", |metrics| metrics.kernel("segments_unwanted") > 0);
    write(&[two, three], "roles: [server]\n");
    taken(1);
    get("/second");
    agent.wait_metrics("the other one is refused now", |metrics| {
        metrics.counter("filter_refused_exchanges") == 1 && metrics.balance().is_ok()
    });
    write(&[one, two, three], "roles: [server]\n");
    taken(2);
    get("/third");
    // Labels are for the next start, which is told; both ends are told from here on, and all have cgroups with names.
    write(&[one, two, three], "  labels: app=web\n  cgroups: [\"/**\"]\n");
    taken(3);
    get("/fourth");
    let log = agent.log();
    assert!(log.contains("filter.labels") && !log.contains("filter.ports"), "{log}");
    let told = agent.end();
    let records = told.text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    let mut seen: Vec<_> = records
        .map(|record| {
            let (port, path) = (&record["server.port"], &record["url.path"]);
            (port.as_u64().unwrap() as u16, path.as_str().unwrap().to_owned())
        })
        .collect();
    let mut expected = Vec::new();
    for (port, paths) in [
        (one, &["/first", "/again", "/third", "/fourth", "/fourth"][..]),
        (two, &["/second", "/third", "/fourth", "/fourth"]),
        (three, &["/first", "/again", "/second", "/third", "/fourth", "/fourth"]),
    ] {
        expected.extend(paths.iter().map(|path| (port, (*path).to_owned())));
    }
    seen.sort();
    expected.sort();
    assert_eq!(seen, expected);
}
