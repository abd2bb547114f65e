//! What is watched: one pod asks another for numbered items, at a pace, for a while. Both are processes of their own.

use std::{
    fs,
    io::{BufRead as _, BufReader, Write as _},
    net::{Ipv6Addr, SocketAddr, TcpListener, TcpStream},
    path::Path,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use support::{
    processes::{self, Process},
    world::{self, World},
};

/// First word of the command line by which the demo becomes one of them.
pub(crate) const WORD: &str = "items";
/// Requests a second.
const RATE: u32 = 500;
/// A connection ends after so many, as those of clients do.
const A_CONNECTION: u64 = 1000;
/// How much longer than planned it may take.
const MAX_OVERTIME: Duration = Duration::from_secs(20);

/// Both, while they run.
pub(crate) struct Traffic {
    client: Process,
    server: Process,
    time: Duration,
}

impl Traffic {
    /// Starts it; it goes on for `time`.
    pub(crate) fn start(world: &World, time: Duration, count: &Path) -> Result<Self> {
        let start = |name: &'static str, namespace: &world::Namespace| {
            let mut command = Command::new(std::env::current_exe()?);
            command.args([WORD, name]).arg(namespace.path()).arg(world.cgroup.part(name)?);
            command.arg(time.as_secs().to_string()).arg(count);
            Process::start(name, command.stdin(Stdio::null()).stdout(Stdio::piped()))
        };
        let mut server = start("server", &world.server)?;
        let output = server.child.stdout.take().context("the server has a standard output")?;
        let mut ready = String::new();
        BufReader::new(output).read_line(&mut ready)?;
        if ready.trim() != "ready" {
            bail!("the server did not start");
        }
        Ok(Self { client: start("client", &world.client)?, server, time })
    }

    /// Waits for its end; how many items were asked for, and came.
    pub(crate) fn finish(self, count: &Path) -> Result<u64> {
        self.client.finish(self.time + MAX_OVERTIME)?;
        drop(self.server);
        Ok(fs::read_to_string(count)?.trim().parse()?)
    }
}

/// This process becomes one of them: first into its pod, then at work.
pub(crate) fn become_one(words: &[String]) -> Result<()> {
    let [role, namespace, cgroup, seconds, count] = words else {
        bail!("{WORD} ROLE NAMESPACE CGROUP SECONDS COUNT")
    };
    processes::die_with_parent()?;
    world::enter(Path::new(namespace))?;
    world::join(Path::new(cgroup))?;
    match role.as_str() {
        "client" => {
            let asked = ask(world::SERVICE, Duration::from_secs(seconds.parse()?))?;
            Ok(fs::write(count, asked.to_string())?)
        }
        "server" => {
            let listener = TcpListener::bind((Ipv6Addr::UNSPECIFIED, world::POD_PORT))?;
            writeln!(std::io::stdout(), "ready")?;
            serve(&listener)
        }
        other => bail!("there is no {other} here"),
    }
}

fn ask(service: SocketAddr, time: Duration) -> Result<u64> {
    let (begin, mut asked) = (Instant::now(), 0_u64);
    while begin.elapsed() < time {
        let stream = TcpStream::connect(service)?;
        let mut answers = BufReader::new(&stream);
        for _ in 0..A_CONNECTION {
            // At its moment, or at once if that is over.
            let due = Duration::from_secs(1) * u32::try_from(asked)? / RATE;
            thread::sleep(due.saturating_sub(begin.elapsed()));
            (&stream).write_all(format!("GET /item/{asked} HTTP/1.1\r\nHost: shop\r\n\r\n").as_bytes())?;
            read_head(&mut answers)?;
            asked += 1;
            if begin.elapsed() >= time {
                break;
            }
        }
    }
    Ok(asked)
}

fn serve(listener: &TcpListener) -> Result<()> {
    for stream in listener.incoming() {
        let stream = stream?;
        let mut requests = BufReader::new(&stream);
        while read_head(&mut requests)? {
            (&stream).write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")?;
        }
    }
    Ok(())
}

/// Whether there was one.
fn read_head(reader: &mut impl std::io::BufRead) -> Result<bool> {
    let mut line = String::new();
    loop {
        line.clear();
        if reader.read_line(&mut line)? == 0 {
            return Ok(false);
        }
        if line == "\r\n" {
            return Ok(true);
        }
    }
}
