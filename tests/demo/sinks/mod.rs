//! `cargo xtask demo sinks`: one agent, real servers, traffic between two pods; one of the servers is killed and revived meanwhile.
//! At the end what was sent is put beside what is in each of them.

use std::{
    fs,
    path::Path,
    process::ExitCode,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use support::{
    processes::{self, PAUSE},
    world::World,
};

mod receivers;
mod table;
pub(crate) mod traffic;

use self::{receivers::Receiver, table::Row, traffic::Traffic};
use crate::{
    agent::Agent,
    k8s::{pass, tell},
};

/// The demo's cgroup is called this and its process id.
const CGROUP_PREFIX: &str = "pod2pod-demo-sinks";
/// How long items are asked for.
const TRAFFIC: Duration = Duration::from_secs(30);
/// After so long one server is killed.
const KILLED_AFTER: Duration = Duration::from_secs(5);
/// And revived after so long.
const GONE: Duration = Duration::from_secs(10);
/// How long what is left may take to arrive: a wait between two attempts is half a minute at most.
const MAX_ARRIVAL: Duration = Duration::from_secs(90);

/// Tells it; successful if nothing is lost.
pub(crate) fn story(agent: &str) -> Result<ExitCode> {
    processes::watch_signals()?;
    let directory = tempfile::tempdir().context("cannot make a temporary directory")?;
    let file = |name: &str| directory.path().join(name);
    tell("== Servers are started ==")?;
    let begin = Instant::now();
    let mut receivers = receivers::start();
    let names: Vec<_> = receivers.iter().map(|receiver| receiver.product).collect();
    tell(format_args!("{} are ready after {:.1} s.\n", names.join(", "), begin.elapsed().as_secs_f64()))?;
    let world = World::build(CGROUP_PREFIX)?;
    fs::create_dir(file("data")).context("cannot make the agent's directory")?;
    let settings = settings(&receivers, &file("data"));
    let agent = Agent::start(agent, world.cgroup.name(), &settings, [&file("records"), &file("log")])?;
    tell("== An agent watches two pods, and sends each record to all of them ==")?;
    let traffic = Traffic::start(&world, TRAFFIC, &file("count"))?;
    pass(KILLED_AFTER)?;
    let victim = receivers.first_mut().context("there is a server")?;
    let product = victim.product;
    tell(format_args!("{product} is killed."))?;
    victim.server().kill();
    pass(GONE)?;
    tell(format_args!("{product} is started again, after {} s.", GONE.as_secs()))?;
    victim.server().start_again();
    tell("It is ready; traffic goes on.")?;
    let sent = traffic.finish(&file("count"))?;
    tell(format_args!("{sent} exchanges were made.\n"))?;
    let begin = Instant::now();
    let retried = arrived(&agent, &receivers, sent)?;
    tell(format_args!(
        "{:.1} s after the last exchange all servers have said that they have its record.\n",
        begin.elapsed().as_secs_f64()
    ))?;
    let said = agent.end()?;
    let rows: Vec<_> = receivers
        .iter()
        .zip(retried)
        .map(|(receiver, retried)| {
            let fate = if receiver.product == product { "killed and revived" } else { "" };
            Row::compare((receiver.name, receiver.product, fate), sent, &receiver.paths(), retried)
        })
        .collect();
    tell(table::render(&rows))?;
    let is_whole = table::is_whole(&rows);
    tell(if is_whole { "NOTHING IS LOST" } else { "SOMETHING IS LOST" })?;
    if !is_whole {
        tell(said)?;
    }
    Ok(if is_whole { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Of the agent's configuration: the sinks, their spools, and the server's end alone, so that an exchange is one record.
fn settings(receivers: &[Receiver], data_dir: &Path) -> String {
    let mut text = format!("roles: [server]\ndata_dir: {}\nsinks:\n", data_dir.display());
    for Receiver { name, settings, .. } in receivers {
        text.push_str(&format!("  {name}:\n"));
        for (key, value) in settings {
            text.push_str(&format!("    {key}: {value}\n"));
        }
    }
    text
}

/// Waits until all have said that they have all; how many records each was sent again.
fn arrived(agent: &Agent, receivers: &[Receiver], sent: u64) -> Result<Vec<u64>> {
    let deadline = Instant::now() + MAX_ARRIVAL;
    loop {
        let page = agent.page()?;
        let of = |metric: &str| -> Vec<u64> {
            let count = |receiver: &Receiver| value(&page, metric, receiver.name).unwrap_or_default();
            receivers.iter().map(count).collect()
        };
        let delivered = of("pod2pod_sink_records_delivered_total");
        if delivered.iter().all(|delivered| *delivered >= sent) {
            return Ok(of("pod2pod_sink_records_retried_total"));
        }
        if processes::interrupted() || Instant::now() > deadline {
            bail!("{sent} records were sent, and {delivered:?} are delivered");
        }
        thread::sleep(PAUSE * 20);
    }
}

/// A sink's value on a metrics page.
fn value(page: &str, metric: &str, sink: &str) -> Option<u64> {
    let row = format!("{metric}{{sink=\"{sink}\"}} ");
    page.lines().find_map(|line| line.strip_prefix(&row)?.parse().ok())
}
