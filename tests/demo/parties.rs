//! The client and the server as processes in their pods. What they say to each other is theirs.

use std::{
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use support::{
    processes::{self, Process},
    wire,
    world::{self, World},
};

use crate::{client, server};

/// How long the whole load may take.
const MAX_LOAD: Duration = Duration::from_secs(60);

/// Runs the server and the client to their ends.
pub(crate) fn load(world: &World, lists: &[PathBuf; 2]) -> Result<()> {
    let start = |name: &'static str, namespace: &world::Namespace, list: &Path| {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["party", name]).arg(namespace.path()).arg(world.cgroup.part(name)?).arg(list);
        Process::start(name, command.stdin(Stdio::piped()).stdout(Stdio::piped()))
    };
    let mut server = start("server", &world.server, &lists[1])?;
    let mut ready = String::new();
    let output = server.child.stdout.take().context("the server has a standard output")?;
    BufReader::new(output).read_line(&mut ready)?;
    if ready.trim() != "ready" {
        bail!("the server did not start");
    }
    start("client", &world.client, &lists[0])?.finish(MAX_LOAD)?;
    drop(server.child.stdin.take());
    server.finish(wire::MAX_WAIT * 2)
}

/// This process becomes a party: first into its pod, then at work.
pub(crate) fn become_party(role: &str, namespace: &str, cgroup: &str, list: &str) -> Result<ExitCode> {
    processes::die_with_parent()?;
    world::enter(Path::new(namespace))?;
    world::join(Path::new(cgroup))?;
    match role {
        "client" => client::run(world::SERVICE, Path::new(list))?,
        "server" => server::run(world::POD_PORT, Path::new(list))?,
        other => bail!("there is no party called {other}"),
    }
    Ok(ExitCode::SUCCESS)
}
