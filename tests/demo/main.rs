//! `cargo xtask demo`: a client in one pod, a server in another, a service address between them that NAT translates.
//! Both parties write down what they sent and served; then the agent's records are put beside it. Exit 0 only if
//! they are equal at both ends.

use std::{
    fs,
    io::{self, Write as _},
    process::ExitCode,
};

use anyhow::{Context as _, Result, bail};

mod agent;
mod client;
mod compare;
mod ipvs;
mod k8s;
mod list;
mod observed;
mod parties;
mod server;
mod sinks;
mod table;
mod verdict;

use support::{processes, world::World};
use verdict::Tamper;

/// The demo's cgroup is called this and its process id.
const CGROUP_PREFIX: &str = "pod2pod-demo";
const USAGE: &str = "usage: pod2pod-demo AGENT [ipvs | k8s | sinks | --tamper sent|observed]";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let result = match words[..] {
        // The demo starts itself again for its parties and in front of the agent.
        ["party", role, namespace, cgroup, list] => parties::become_party(role, namespace, cgroup, list),
        ["become", program, ..] => {
            processes::become_program(program, &arguments[2..]).map(|never| match never {})
        }
        ["pod", role, namespace, cgroup, notes, peer] => {
            k8s::party::become_pod(role, namespace, cgroup, notes, peer)
        }
        [_, "ipvs"] => ipvs::story(),
        [sinks::traffic::WORD, ..] => sinks::traffic::become_one(&arguments[1..]).map(|()| ExitCode::SUCCESS),
        [agent, "k8s"] => k8s::story(agent),
        [agent, "sinks"] => sinks::story(agent),
        [agent] => demo(agent, None),
        [agent, "--tamper", "sent"] => demo(agent, Some(Tamper::Sent)),
        [agent, "--tamper", "observed"] => demo(agent, Some(Tamper::Observed)),
        _ => Err(anyhow::anyhow!(USAGE)),
    };
    result.unwrap_or_else(|error| {
        let _ = writeln!(io::stderr(), "pod2pod-demo: {error:#}");
        ExitCode::FAILURE
    })
}

fn demo(agent: &str, tamper: Option<Tamper>) -> Result<ExitCode> {
    processes::watch_signals()?;
    let directory = tempfile::tempdir().context("cannot make a temporary directory")?;
    let file = |name: &str| directory.path().join(name);
    let world = World::build(CGROUP_PREFIX)?;
    let agent = agent::Agent::start(agent, world.cgroup.name(), "", [&file("records"), &file("log")])?;
    let lists = [file("sent-by-client"), file("served-by-server")];
    parties::load(&world, &lists)?;
    // The parties have written and ended before the agent's output is read.
    let sent = [list::read(&lists[0])?, list::read(&lists[1])?].concat();
    let summary = agent.end()?;
    let records = fs::read_to_string(file("records")).context("cannot read the agent's records")?;
    let observed = observed::parse(&records)?;
    let verdict = verdict::judge(sent.clone(), observed.clone(), tamper);
    let mut out = io::stdout().lock();
    writeln!(out, "{}\n{summary}\n{}", verdict.table, verdict.sentence)?;
    // A comparison that cannot fail proves nothing: try it on these very lists.
    for tamper in [Tamper::Sent, Tamper::Observed] {
        if verdict::judge(sent.clone(), observed.clone(), Some(tamper)).equal {
            bail!("the comparison does not see that a line is missing ({tamper:?})");
        }
    }
    Ok(if verdict.equal { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
