//! `cargo xtask demo k8s`: a small shop with a real API server. Two nodes, an agent on each, HTTP between pods through Services;
//! then a deployment is rolled while requests go on, and a new pod takes the address of an old one. At the end what the pods noted
//! is put beside what the records say.

use std::{
    collections::BTreeMap,
    fmt, fs,
    io::{self, Write as _},
    path::{Path, PathBuf},
    process::{Command, ExitCode},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;
use support::{
    kubernetes::{population, server::ApiServer},
    processes::{self, PAUSE},
    world::Cgroup,
};

pub(crate) mod judge;
pub(crate) mod party;
mod shop;

use self::{
    judge::{Exchange, Naming, Row, Verdict},
    shop::{NODES, Place, RunningNotes, Shop},
};
use crate::agent::Agent;

/// The demo's cgroup is called this and its process id.
const CGROUP_PREFIX: &str = "pod2pod-demo-k8s";
/// The user that agents are.
const USER: &str = "pod2pod-agent";
/// Agents that follow for so long know that nobody had an address before whom they have not heard of.
const KNOWN: Duration = Duration::from_secs(6);
/// Requests go on for so long between two steps: past it, who had an address before is out of the question.
const WHILE: Duration = Duration::from_secs(6);
/// Between a pod's end being told and its going, as a rolling update leaves it; who still asks then is answered.
const LEAVING: Duration = Duration::from_millis(800);
/// Share of records that must have both names: the others are of moments in which nobody can know.
const LEAST_RIGHT: f64 = 0.999;
/// Wrong records that are shown.
const MAX_SHOWN: usize = 5;

/// The pods at the start.
const PODS: [Place; 5] = [
    Place { app: "db", node: 1, host: 9 },
    Place { app: "cart", node: 0, host: 5 },
    Place { app: "cart", node: 1, host: 6 },
    Place { app: "web", node: 0, host: 3 },
    Place { app: "web", node: 1, host: 4 },
];
/// The cart's next version: the second one gets the address that the first of the old ones had.
const NEXT: [Place; 2] = [Place { app: "cart", node: 1, host: 7 }, Place { app: "cart", node: 0, host: 5 }];

/// Tells it; successful if no record has a wrong name, and nearly all have both.
pub(crate) fn story(agent: &str) -> Result<ExitCode> {
    processes::watch_signals()?;
    let directory = tempfile::tempdir().context("cannot make a temporary directory")?;
    let begin = Instant::now();
    let mut server = ApiServer::start();
    server.add_user(USER, "");
    server.restart();
    let rules = population::reading_rules();
    population::role(&server.admin(), USER, &rules, &population::user(USER));
    tell(format_args!(
        "== A Kubernetes API server at {}, ready after {:.1} s ==\n",
        server.address(),
        begin.elapsed().as_secs_f64()
    ))?;
    let mut shop = Shop::open(server, Cgroup::new(CGROUP_PREFIX)?, directory.path())?;
    let mut agents = NODES.map(|(node, ..)| start_agent(agent, &shop, node, directory.path()));
    for (agent, _) in agents.iter_mut().flatten() {
        agent.wait_until_known()?;
    }
    tell("An agent on each node follows it, by one list and one watch of each kind.")?;
    pass(KNOWN)?;
    let mut records = Vec::new();
    let addresses: Vec<String> =
        agents.iter().flatten().map(|(agent, _)| agent.address().to_string()).collect();
    let mut notes = run(&mut shop, &|| show_top(agent, &addresses))?;
    for (started, (node, ..)) in agents.into_iter().zip(NODES) {
        let (agent, file) = started?;
        let summary = agent.end()?;
        let text = fs::read_to_string(&file).context("cannot read the agent's records")?;
        for line in text.lines() {
            records.push(serde_json::from_str(line).with_context(|| line.to_owned())?);
        }
        tell(format_args!("{node}: {summary}"))?;
    }
    notes.sort_by(|a, b| a.truth.pod.cmp(&b.truth.pod));
    conclude(&notes, &records)
}

fn start_agent(binary: &str, shop: &Shop, node: &str, folder: &Path) -> Result<(Agent, PathBuf)> {
    let file = |name: &str| folder.join(format!("{name}-{node}"));
    let kubeconfig = shop.server.kubeconfig(USER);
    let more = format!(
        "kubernetes:\n  kubeconfig: {}\n  node: {node}\nadmin:\n  listen: off\n",
        kubeconfig.display()
    );
    let cgroup = format!("{}/{node}", shop.cgroup.name());
    let records = file("records");
    let agent = Agent::start(binary, &cgroup, &more, [&records, &file("log")])?;
    Ok((agent, records))
}

/// What `pod2pod top` shows of all agents together.
fn show_top(binary: &str, addresses: &[String]) -> Result<()> {
    let mut command = Command::new(binary);
    command.args(["top", "--once", "--interval", "3s"]);
    command.args(addresses.iter().flat_map(|address| ["--url", address]));
    let output = command.output().context("cannot run pod2pod top")?;
    let table = String::from_utf8_lossy(&output.stdout);
    // Each pair of apps once, whoever saw it.
    if !output.status.success() || table.lines().count() < 3 {
        bail!("pod2pod top: {}{table}", String::from_utf8_lossy(&output.stderr));
    }
    tell(format_args!("pod2pod top, of both nodes:\n\n{table}"))?;
    tell(
        "Where a Service is the server its pod is on the other node, and which one is known to conntrack of this one. On a node the \
         agent asks it; here nodes are namespaces, and the agents outside of them.",
    )
}

/// The shop opens, is rolled, and closes; what its pods noted. Once it runs, `look` is done.
fn run(shop: &mut Shop, look: &dyn Fn() -> Result<()>) -> Result<Vec<RunningNotes>> {
    let owners = ["web", "cart", "db"].map(|app| (app, shop.deployment(app)));
    for place in PODS {
        let (_, owner) = owners.iter().find(|(app, _)| *app == place.app).context("an owner")?;
        if place.app == "web" {
            // Who asks comes last: before, nobody is there to answer.
            shop.lead(&[]);
        }
        shop.start(place, owner)?;
    }
    tell("web, cart and db run on two nodes; every web asks a cart, every cart asks the db.")?;
    pass(WHILE)?;
    look()?;
    let mut notes = Vec::new();
    let next = shop.next_version("cart", "7c9d8f6b5a");
    let old: Vec<String> =
        shop.pods.iter().filter(|pod| pod.place.app == "cart").map(|pod| pod.truth.pod.clone()).collect();
    tell("\n== The deployment cart is rolled ==\n")?;
    for (place, old) in NEXT.into_iter().zip(&old) {
        shop.start(place, &next)?;
        shop.lead(&[]);
        pass(LEAVING)?;
        shop.mark(old)?;
        shop.lead(std::slice::from_ref(old));
        pass(LEAVING)?;
        notes.push(shop.end(old)?);
        let new = shop.pods.last().context("a pod was started")?;
        tell(format_args!("{old} has made way for {}", new.truth.pod))?;
        pass(WHILE)?;
    }
    tell("The second of them has the address that the first of the old ones had.\n")?;
    // Who asks ends first.
    let order = ["web", "cart", "db"];
    for app in order {
        let pods: Vec<String> =
            shop.pods.iter().filter(|pod| pod.place.app == app).map(|pod| pod.truth.pod.clone()).collect();
        for pod in pods {
            notes.push(shop.end(&pod)?);
        }
    }
    Ok(notes)
}

/// Lets time pass while requests go on: this paces the demonstration, and nothing is expected to have happened by its end.
pub(crate) fn pass(time: Duration) -> Result<()> {
    let end = Instant::now() + time;
    while Instant::now() < end {
        if processes::interrupted() {
            bail!("interrupted");
        }
        thread::sleep(PAUSE);
    }
    Ok(())
}

fn conclude(notes: &[RunningNotes], records: &[Value]) -> Result<ExitCode> {
    let mut exchanges = BTreeMap::new();
    for RunningNotes { truth, notes } in notes {
        let text = fs::read_to_string(notes).context("cannot read a pod's notes")?;
        judge::read(&text, truth, &mut exchanges)?;
    }
    show_one_address(notes, &exchanges, records)?;
    let Verdict { rows, wrong } = judge::judge(&exchanges, records)?;
    tell(format_args!(
        "{:<14}{:<8}{:>10}{:>13}{:>10}{:>13}",
        "", "seen at", "exchanges", "named right", "unnamed", "named wrong"
    ))?;
    let mut total = Row::default();
    for ((pair, end), row) in &rows {
        let Row { made, right, unnamed, wrong } = *row;
        tell(format_args!("{pair:<14}{end:<8}{made:>10}{right:>13}{unnamed:>10}{wrong:>13}"))?;
        total = Row {
            made: total.made + made,
            right: total.right + right,
            unnamed: total.unnamed + unnamed,
            wrong: total.wrong + wrong,
        };
    }
    for record in wrong.iter().take(MAX_SHOWN) {
        tell(format_args!("wrong: {record}"))?;
    }
    let failed = exchanges.values().filter(|exchange| !exchange.is_ok).count();
    let share = total.right as f64 / total.made.max(1) as f64;
    tell(format_args!(
        "\n{} exchanges, each seen at both ends; {:.2} % of the records name both ends, {} name a wrong one. {failed} failed.",
        total.made / 2,
        share * 100.0,
        wrong.len()
    ))?;
    // A comparison that cannot fail proves nothing: who asked is taken for another.
    let mut other = exchanges.clone();
    for exchange in other.values_mut() {
        exchange.client = exchange.server.clone();
    }
    if judge::judge(&other, records)?.wrong.len() < total.right {
        bail!("the comparison does not see a wrong name");
    }
    let is_good = wrong.is_empty() && total.made > 0 && share >= LEAST_RIGHT;
    tell(if is_good { "NAMED RIGHT" } else { "NOT NAMED RIGHT" })?;
    Ok(if is_good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// A record of each pod that had the one address.
fn show_one_address(
    notes: &[RunningNotes],
    exchanges: &BTreeMap<String, Exchange>,
    records: &[Value],
) -> Result<()> {
    tell("One address, two pods, as their records have it:\n")?;
    for RunningNotes { truth, .. } in notes.iter().filter(|notes| notes.truth.app == "cart") {
        let is_its = |record: &&Value| {
            let id = record["url.query"].as_str().and_then(|query| query.strip_prefix("id="));
            let exchange = id.and_then(|id| exchanges.get(id));
            record["observed_at"] == "server"
                && record["server.address"] == format!("10.244.1.{}", NEXT[1].host)
                && exchange.is_some_and(|exchange| {
                    exchange.server.as_ref() == Some(truth)
                        && judge::naming(exchange, record) == Naming::Right
                })
        };
        if let Some(record) = records.iter().rfind(is_its) {
            show(record)?;
        }
    }
    Ok(())
}

/// What a record says of its ends, a key a line.
fn show(record: &Value) -> Result<()> {
    for (key, value) in record.as_object().into_iter().flatten() {
        let is_shown = ["time", "url.path", "http.response.status_code"].contains(&key.as_str())
            || ["client.", "server."].iter().any(|beginning| key.starts_with(beginning));
        if is_shown {
            tell(format_args!("  {key:<30} {}", value.as_str().map_or(value.to_string(), str::to_owned)))?;
        }
    }
    tell("")
}

pub(crate) fn tell(text: impl fmt::Display) -> Result<()> {
    Ok(writeln!(io::stdout(), "{text}")?)
}
