//! `cargo xtask demo ipvs`: a rolling update behind IPVS, once as it goes wrong and once cured. Clients speak HTTP through the
//! virtual service while a pod is ended; which requests failed is what the clients lived, why is what the agent wrote.

use std::{
    fmt,
    io::{self, Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    path::Path,
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use nix::sys::signal::Signal;
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, connect, socket_with, sockopt};
use serde_json::Value;
use support::{
    director::{CLIENT, Director, Family, SERVERS, Service, Settings, has_ipvs},
    process::{PATIENCE, Running, command},
    processes::PAUSE,
};

const SERVICE: Service = Service { is_tcp: true, family: Family::V4, port: 80, server_port: 8080 };
/// Ports of the clients: a busy client has used up all others.
const PORTS: std::ops::Range<u16> = 40_000..40_008;
/// The pods, in the order of [`SERVERS`].
const PODS: [&str; 2] = ["old pod", "new pod"];
/// Where the agent's metrics are, in its own network namespace.
const METRICS: &str = "127.0.0.1:9464";
/// How the agent polls: the table of its own network namespace, and so often that the story is short.
const SETTINGS: [&str; 3] = ["ipvs.mode=on", "ipvs.path=/proc/net/ip_vs_conn", "ipvs.interval=500ms"];

/// What became of a request, as its client had it.
#[derive(Clone, Debug)]
struct Request {
    port: u16,
    /// The pod that answered, or why none did.
    answer: Result<usize, String>,
    took: Duration,
}

/// A run of the update.
struct Run {
    requests: Vec<Request>,
    records: Vec<Value>,
}

/// Tells it; successful if the requests that failed were explained, and none failed with the cure.
pub(crate) fn story() -> Result<ExitCode> {
    if !has_ipvs() {
        bail!("this kernel has no IPVS; `cargo xtask demo ipvs` boots one that has");
    }
    let settings = Settings { conn_reuse_mode: 0, expire_nodest_conn: 0, conntrack: 1 };
    let sysctls = format!(
        "conn_reuse_mode={} expire_nodest_conn={}",
        settings.conn_reuse_mode, settings.expire_nodest_conn
    );
    tell(format_args!("\n== A rolling update behind IPVS; net.ipv4.vs: {sysctls} ==\n"))?;
    let bad = run(settings, None)?;
    tell("\nThe requests that failed, and what the agent wrote of each:")?;
    let failed: Vec<&Request> = bad.requests.iter().filter(|request| request.answer.is_err()).collect();
    let mut is_explained = !failed.is_empty();
    for request in &failed {
        is_explained &= explain(request, &bad.records)?;
    }
    let record = failed.iter().find_map(|request| own_record(request, &bad.records));
    let record = record.context("the agent wrote nothing of the requests that failed")?;
    tell("\nOne of these records, but for its times and ids:")?;
    show(record)?;
    let explanation = record["ipvs.explanation"].as_str().context("the agent explained nothing")?;
    let (name, value) = cure(explanation).context("the agent named no cure")?;
    tell(format_args!(
        "\n== The same update with the first cure that it names: net.ipv4.vs.{name}={value} ==\n"
    ))?;
    let cured = run(settings, Some((name, value)))?;
    let failures = cured.requests.iter().filter(|request| request.answer.is_err()).count();
    let rescheduled =
        of_kind(&cured.records, "ipvs_reuse").filter(|record| record["ipvs.verdict"] == "rescheduled");
    tell(format_args!(
        "\n{} of {} requests failed before, {failures} of {} with the cure; {} connections were scheduled anew.",
        failed.len(),
        bad.requests.len(),
        cured.requests.len(),
        rescheduled.count(),
    ))?;
    Ok(if is_explained && failures == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn run(settings: Settings, cure: Option<(&str, u32)>) -> Result<Run> {
    let director = Director::new(settings);
    if let Some((name, value)) = cure {
        director.set(name, value);
    }
    director.serve(SERVICE, "");
    let directory = tempfile::tempdir().context("cannot make a temporary directory")?;
    let file = directory.path().join("records");
    let agent = Agent::start(&director, &file)?;
    let [old, new] = [0, 1].map(|pod| Pod::start(&director, pod));
    let mut requests = Vec::new();
    agent.look()?;
    requests.extend(round(&director, "Both pods serve.")?);
    agent.look()?;
    director.weigh(SERVICE, 0, 0);
    requests
        .extend(round(&director, "The old pod is to end: its weight is 0, no new connection should come.")?);
    agent.look()?;
    old.end();
    director.servers[0].run(&format!("ip address delete {}/24 dev eth0", SERVERS[0].v4));
    director.node.run(&format!("ip neighbour flush to {}", SERVERS[0].v4));
    requests.extend(round(&director, "The old pod is gone.")?);
    agent.look()?;
    new.end();
    agent.end()?;
    let text = std::fs::read_to_string(&file).context("cannot read the agent's records")?;
    let records = text.lines().map(|line| serde_json::from_str(line).with_context(|| line.to_owned()));
    let records = records.collect::<Result<Vec<Value>>>()?;
    let [http, connect, reuse] =
        ["http", "connect", "ipvs_reuse"].map(|kind| of_kind(&records, kind).count());
    tell(format_args!("The agent wrote {http} exchanges, {connect} connection attempts, {reuse} reuses."))?;
    let at_client = |record: &&Value| record["observed_at"] == "client";
    let astray =
        of_kind(&records, "http").filter(at_client).filter(|record| record["ipvs.severity"] == "critical");
    tell(format_args!(
        "Of the requests that were answered, {} came to a pod with weight 0, and their records say so.",
        astray.count()
    ))?;
    Ok(Run { requests, records })
}

/// Every client asks once, all at the same time.
fn round(director: &Director, what: &str) -> Result<Vec<Request>> {
    let mut requests: Vec<Request> = thread::scope(|scope| {
        let asking: Vec<_> =
            PORTS.map(|port| scope.spawn(move || director.client.within(|| ask(port)))).collect();
        asking.into_iter().filter_map(|asking| asking.join().ok()).collect()
    });
    requests.sort_by_key(|request| request.port);
    let by =
        |pod| requests.iter().filter(|request| request.answer.as_ref().is_ok_and(|own| *own == pod)).count();
    let failed = requests.iter().filter(|request| request.answer.is_err()).count();
    tell(format_args!(
        "{what}\n  {} answered by the {}, {} by the {}, {failed} failed",
        by(0),
        PODS[0],
        by(1),
        PODS[1]
    ))?;
    Ok(requests)
}

/// One request from a port that was used before.
fn ask(port: u16) -> Request {
    let begin = Instant::now();
    let speak = || -> io::Result<usize> {
        let socket = socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
        sockopt::set_socket_reuseaddr(&socket, true)?;
        bind(&socket, &SocketAddr::from((CLIENT.v4, port)))?;
        connect(&socket, &SERVICE.address())?;
        let mut stream = TcpStream::from(socket);
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(b"GET /cart HTTP/1.1\r\nHost: shop\r\nConnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let pod = PODS.iter().position(|name| answer.ends_with(name));
        pod.ok_or_else(|| io::Error::other(format!("answered {answer:?}")))
    };
    let answer = speak().map_err(|error| error.to_string());
    Request { port, answer, took: begin.elapsed() }
}

/// A pod that answers every request with its name.
struct Pod {
    is_over: Arc<AtomicBool>,
    serving: thread::JoinHandle<()>,
}

impl Pod {
    fn start(director: &Director, pod: usize) -> Self {
        let listener =
            director.servers[pod].within(|| TcpListener::bind(SERVICE.server(pod)).expect("a free port"));
        listener.set_nonblocking(true).expect("a socket");
        let is_over = Arc::new(AtomicBool::new(false));
        let over = Arc::clone(&is_over);
        let serving = thread::spawn(move || {
            while !over.load(Ordering::Relaxed) {
                match listener.accept() {
                    // A client that is gone is not served, and shows in its own list.
                    Ok((stream, _)) => drop(serve(stream, PODS[pod])),
                    Err(_) => thread::sleep(PAUSE),
                }
            }
        });
        Self { is_over, serving }
    }

    fn end(self) {
        self.is_over.store(true, Ordering::Relaxed);
        let _ = self.serving.join();
    }
}

fn serve(mut stream: TcpStream, name: &str) -> io::Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    write!(stream, "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{name}", name.len())
}

/// The agent where IPVS is.
struct Agent<'a> {
    director: &'a Director,
    running: Running,
}

impl<'a> Agent<'a> {
    fn start(director: &'a Director, records: &Path) -> Result<Self> {
        let output = format!("output.file={}", records.display());
        let settings = SETTINGS.into_iter().chain([output.as_str()]);
        let command = command(["agent"].into_iter().chain(settings.flat_map(|setting| ["--set", setting])));
        let agent = Self { director, running: director.node.within(|| Running::start(command)) };
        agent.look()?;
        Ok(agent)
    }

    /// Waits until it has looked at the table as it is now.
    fn look(&self) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        let before = self.polls().unwrap_or(0);
        // The first of them may have begun before.
        while self.polls().is_none_or(|polls| polls < before + 2) {
            if Instant::now() > deadline {
                bail!("the agent does not look at IPVS: {}", self.running.stderr());
            }
            thread::sleep(PAUSE);
        }
        Ok(())
    }

    fn polls(&self) -> Option<u64> {
        let page = self.director.node.within(|| -> io::Result<String> {
            let mut stream = TcpStream::connect(METRICS)?;
            stream.set_read_timeout(Some(PATIENCE))?;
            stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
            let mut page = String::new();
            stream.read_to_string(&mut page)?;
            Ok(page)
        });
        let page = page.ok()?;
        page.lines().find_map(|line| line.strip_prefix("pod2pod_ipvs_polls_total "))?.parse().ok()
    }

    fn end(self) -> Result<()> {
        self.running.signal(Signal::SIGTERM);
        let finished = self.running.finish();
        if finished.code == Some(0) { Ok(()) } else { bail!("the agent failed: {}", finished.stderr) }
    }
}

/// What the agent wrote of a failed request; whether that names the reuse, and calls it critical.
fn explain(request: &Request, records: &[Value]) -> Result<bool> {
    let Request { port, answer, took } = request;
    let error = answer.as_ref().err().map_or("", String::as_str);
    tell(format_args!("  from port {port}: {error}, after {:.1} s", took.as_secs_f64()))?;
    let Some(record) = own_record(request, records) else {
        tell("    the agent wrote nothing")?;
        return Ok(false);
    };
    let (kind, outcome) = (text(record, "kind"), text(record, "outcome"));
    if record["ipvs.reuse"].is_null() {
        tell(format_args!("    {kind} {outcome}, nothing of IPVS"))?;
        return Ok(false);
    }
    tell(format_args!(
        "    {kind} {outcome}; ipvs: {} {} ({}), by the entry that a connection left {} s before, at {}",
        text(record, "ipvs.reuse"),
        text(record, "ipvs.verdict"),
        text(record, "ipvs.severity"),
        record["ipvs.idle"].as_f64().map_or("some".to_owned(), |idle| format!("{idle:.1}")),
        server(record),
    ))?;
    Ok(record["ipvs.severity"] == "critical")
}

/// The record of a request that failed, at its client.
fn own_record<'a>(request: &Request, records: &'a [Value]) -> Option<&'a Value> {
    let is_own = |record: &&Value| {
        let has_failed = !record["outcome"].is_null() && record["outcome"] != "complete";
        has_failed && record["observed_at"] == "client" && record["client.port"] == request.port
    };
    records.iter().rfind(is_own)
}

/// What it says of its ends and of IPVS, a key a line.
fn show(record: &Value) -> Result<()> {
    for (key, value) in record.as_object().into_iter().flatten() {
        let is_shown = ["kind", "outcome", "observed_at", "url.path"].contains(&key.as_str())
            || ["client.", "server.", "icmp.", "ipvs."].iter().any(|beginning| key.starts_with(beginning));
        if is_shown {
            tell(format_args!("  {key:<30} {}", value.as_str().map_or(value.to_string(), str::to_owned)))?;
        }
    }
    Ok(())
}

fn of_kind<'a>(records: &'a [Value], kind: &'a str) -> impl DoubleEndedIterator<Item = &'a Value> {
    records.iter().filter(move |record| record["kind"] == kind)
}

fn text<'a>(record: &'a Value, key: &str) -> &'a str {
    record[key].as_str().unwrap_or("-")
}

fn server(record: &Value) -> String {
    let weight = record["ipvs.real_server.weight"]
        .as_u64()
        .map_or(String::new(), |weight| format!(", weight {weight}"));
    format!("{}:{}{weight}", text(record, "ipvs.real_server.address"), record["ipvs.real_server.port"])
}

/// The first setting that an explanation names as a cure.
fn cure(explanation: &str) -> Option<(&str, u32)> {
    let (_, cures) = explanation.split_once("Cure: net.ipv4.vs.")?;
    let (name, rest) = cures.split_once('=')?;
    let digits = rest.find(|character: char| !character.is_ascii_digit()).unwrap_or(rest.len());
    Some((name, rest.get(..digits)?.parse().ok()?))
}

fn tell(text: impl fmt::Display) -> Result<()> {
    Ok(writeln!(io::stdout(), "{text}")?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cure_is_the_first_setting_that_is_named() {
        for (text, expected) in [
            (
                "… Cure: net.ipv4.vs.expire_nodest_conn=1 (Linux 5.16), or net.ipv4.vs.x=0.",
                Some(("expire_nodest_conn", 1)),
            ),
            ("… Cure: net.ipv4.vs.expire_nodest_conn=1.", Some(("expire_nodest_conn", 1))),
            ("… Cure: Linux 5.9 or later.", None),
            ("net.ipv4.vs.conn_reuse_mode=0", None),
        ] {
            assert_eq!(cure(text), expected, "{text}");
        }
    }
}
