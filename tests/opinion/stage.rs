//! What a scenario gets: a namespace, a port, seeded numbers, and servers and clients to start. Compares nothing.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use anyhow::{Context, Result};
use nix::sys::signal::Signal;
use support::rng::Rng;

use crate::{
    programs::{Program, run},
    recording::{Recording, in_namespace, wait_for_listener},
    scenarios::Scenario,
};

/// Where the servers' and clients' sources are.
const SERVERS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/servers");

/// Lowest port a scenario picks: below it are ports that tshark knows as something else.
const LOWEST_PORT: u16 = 20_000;

/// Ports a scenario picks from; below the range of client ports (32768 and up).
const PORTS: usize = 10_000;

/// A finished recording.
#[derive(Debug)]
pub(crate) struct Capture {
    /// The pcap file.
    pub(crate) file: PathBuf,
    /// The server's port.
    pub(crate) port: u16,
}

/// The running scenario.
pub(crate) struct Stage {
    /// Seeded numbers: sizes, pauses.
    pub(crate) rng: Rng,
    /// The server's port.
    pub(crate) port: u16,
    /// A directory of its own, served by nginx as `www`.
    pub(crate) directory: PathBuf,
    server: Option<Program>,
}

/// Plays `scenario` with `seed` and records it below `directory`; `port` if it must be a certain one.
pub(crate) fn play(scenario: &Scenario, seed: u64, port: Option<u16>, directory: &Path) -> Result<Capture> {
    let directory = directory.join(scenario.name);
    fs::create_dir_all(&directory)?;
    let file = directory.join("recording.pcap");
    let mut rng = Rng::new(seed);
    let drawn = LOWEST_PORT + u16::try_from(rng.below(PORTS))?;
    let mut stage = Stage { rng, port: port.unwrap_or(drawn), directory: directory.clone(), server: None };
    in_namespace(&directory, || {
        (scenario.server)(&mut stage).context("server")?;
        if let Some(server) = &mut stage.server {
            wait_for_listener(server, stage.port)?;
        }
        let recording = Recording::start(&file, stage.port, &stage.directory)?;
        (scenario.client)(&mut stage).context("client")?;
        // A server that ends closes what is still open, so every connection's end is recorded.
        if let Some(server) = &mut stage.server {
            server.stop(Signal::SIGTERM)?;
        }
        recording.finish()
    })
    .with_context(|| format!("scenario {} with seed {seed}", scenario.name))?;
    Ok(Capture { file, port: stage.port })
}

impl Stage {
    /// A number in `from..=to`.
    pub(crate) fn number(&mut self, from: usize, to: usize) -> usize {
        from + self.rng.below(to - from + 1)
    }

    /// Waits a random time of at most `milliseconds`: timing is part of what is tried.
    pub(crate) fn pause(&mut self, milliseconds: usize) {
        let pause = self.rng.below(milliseconds * 1000);
        thread::sleep(Duration::from_micros(pause as u64));
    }

    /// The server's address.
    pub(crate) fn address(&self) -> SocketAddr {
        ([127, 0, 0, 1], self.port).into()
    }

    /// A URL on the server.
    pub(crate) fn url(&self, target: &str) -> String {
        format!("http://{}{target}", self.address())
    }

    /// Starts `program` as the scenario's server.
    pub(crate) fn serve(&mut self, program: &str, arguments: &[&str]) -> Result<()> {
        self.server = Some(Program::start(program, arguments, &self.directory)?);
        Ok(())
    }

    /// Starts nginx on the port, serving `www` below the scenario's directory.
    pub(crate) fn nginx(&mut self) -> Result<()> {
        let directory = self.directory.display().to_string();
        fs::create_dir_all(self.directory.join("www"))?;
        let settings = fs::read_to_string(format!("{SERVERS}/nginx.conf"))?;
        let settings = settings.replace("DIRECTORY", &directory).replace("PORT", &self.port.to_string());
        fs::write(self.directory.join("nginx.conf"), settings)?;
        self.serve("nginx", &["-e", "stderr", "-p", &directory, "-c", "nginx.conf"])
    }

    /// Puts a file of `size` bytes where nginx serves it.
    pub(crate) fn publish(&self, name: &str, size: usize) -> Result<()> {
        let text: Vec<u8> = (0..size).map(|at| b'a' + (at % 26) as u8).collect();
        fs::write(self.directory.join("www").join(name), text).context("publish a file")
    }

    /// Runs a client to its end; its output is dropped.
    pub(crate) fn client(&self, program: &str, arguments: &[&str]) -> Result<()> {
        run(program, arguments, &self.directory, &[0]).map(drop)
    }

    /// Runs curl, quietly, on `arguments`, of which those that begin with `/` are targets on the server.
    pub(crate) fn curl(&self, arguments: &[&str]) -> Result<()> {
        let mut all = vec!["--silent".to_owned(), "--show-error".to_owned(), "--globoff".to_owned()];
        for argument in arguments {
            match argument.strip_prefix('/') {
                Some(_) => all.extend([self.url(argument), "--output".to_owned(), "/dev/null".to_owned()]),
                None => all.push((*argument).to_owned()),
            }
        }
        run("curl", &all, &self.directory, &[0]).map(drop)
    }
}
