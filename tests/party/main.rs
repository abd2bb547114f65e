//! `pod2pod-party`: a process in a network namespace and a cgroup of a test. It makes sockets there for the test, which
//! speaks through them itself, or becomes another program. It dies with the test.
//!
//! A socket belongs to the namespace and the cgroup of the process that made it, whoever holds it later.

use std::{
    io::{self, BufRead as _, Write as _},
    os::{fd::AsRawFd, unix::process::CommandExt as _},
    path::Path,
    process::{Command, ExitCode},
};

use anyhow::{Context as _, Result, bail};
use nix::sys::{
    prctl,
    signal::Signal,
    socket::{AddressFamily, SockFlag, SockType, socket},
};
use support::world::{enter, join};

const USAGE: &str = "usage: pod2pod-party NAMESPACE CGROUP [PROGRAM [ARGUMENT…]]; - for ours";

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "pod2pod-party: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    prctl::set_pdeathsig(Signal::SIGKILL).context("cannot ask for a signal at the parent's death")?;
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [namespace, cgroup, program @ ..] = &arguments[..] else { bail!(USAGE) };
    if namespace != "-" {
        enter(Path::new(namespace))?;
    }
    if cgroup != "-" {
        join(Path::new(cgroup))?;
    }
    if let [program, arguments @ ..] = program {
        let error = Command::new(program).args(arguments).exec();
        return Err(error).with_context(|| format!("cannot start {program}"));
    }
    // A line with 4 or 6 asks for a TCP socket over that IP version, and the answer is its descriptor here; any other
    // says that it was taken: two holders could not close it.
    let mut made = None;
    for line in io::stdin().lock().lines() {
        let family = match line?.as_str() {
            "4" => Some(AddressFamily::Inet),
            "6" => Some(AddressFamily::Inet6),
            _ => None,
        };
        made = match family {
            Some(family) => Some(socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?),
            None => None,
        };
        writeln!(io::stdout(), "{}", made.as_ref().map_or(-1, AsRawFd::as_raw_fd))?;
    }
    drop(made);
    Ok(())
}
