//! What a scenario gets: a namespace, a port, seeded numbers, and servers and clients to start. Compares nothing.

use std::{
    fs::{self, Permissions},
    io::{self, Write},
    net::{Shutdown, SocketAddr, TcpStream},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    sync::Mutex,
    thread,
    time::Duration,
};

use anyhow::{Context, Result, anyhow};
use nix::sys::signal::Signal;
use support::rng::Rng;

use crate::{
    programs::{DEADLINE, Program, run},
    recording::{Recording, in_namespace, wait_for_listener},
    scenarios::Scenario,
};

/// Where the servers' and clients' sources are.
const SERVERS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/servers");

/// Where Debian puts what Apache httpd loads.
const APACHE_MODULES: &str = "/usr/lib/apache2/modules";

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
    /// The scenario's own directory.
    pub(crate) directory: PathBuf,
}

/// The running scenario.
pub(crate) struct Stage {
    /// Seeded numbers: sizes, pauses.
    pub(crate) rng: Rng,
    /// The server's port.
    pub(crate) port: u16,
    /// A directory of its own, served by nginx as `www`.
    pub(crate) directory: PathBuf,
    /// The one on the port is the last.
    servers: Vec<Program>,
}

/// Plays `scenario` with `seed` and records it below `directory`; `port` if it must be a certain one.
pub(crate) fn play(scenario: &Scenario, seed: u64, port: Option<u16>, directory: &Path) -> Result<Capture> {
    let directory = directory.join(scenario.name);
    fs::create_dir_all(&directory)?;
    let file = directory.join("recording.pcap");
    let mut rng = Rng::new(seed);
    let drawn = LOWEST_PORT + u16::try_from(rng.below(PORTS))?;
    let mut stage =
        Stage { rng, port: port.unwrap_or(drawn), directory: directory.clone(), servers: Vec::new() };
    in_namespace(&directory, || {
        (scenario.server)(&mut stage).context("server")?;
        let port = stage.port;
        if let Some(server) = stage.servers.last_mut() {
            wait_for_listener(server, port)?;
        }
        let recording = Recording::start(&file, stage.port, &stage.directory)?;
        (scenario.client)(&mut stage).context("client")?;
        // A server that ends closes what is still open, so every connection's end is recorded.
        for server in stage.servers.iter_mut().rev() {
            server.stop(Signal::SIGTERM)?;
        }
        recording.finish()
    })
    .with_context(|| format!("scenario {} with seed {seed}", scenario.name))?;
    Ok(Capture { file, port: stage.port, directory })
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
        self.servers.push(Program::start(program, arguments, &self.directory)?);
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

    /// Starts Apache httpd on the port, serving the same, with files for what nginx answers by itself.
    pub(crate) fn apache(&mut self) -> Result<()> {
        let directory = self.directory.display().to_string();
        fs::create_dir_all(self.directory.join("www"))?;
        for name in ["text", "closing"] {
            self.publish(name, 20)?;
        }
        // It serves as a user who is nobody here.
        for open in [self.directory.parent(), Some(&self.directory)].into_iter().flatten() {
            fs::set_permissions(open, Permissions::from_mode(0o711))?;
        }
        let settings = fs::read_to_string(format!("{SERVERS}/apache.conf"))?;
        let settings = settings.replace("DIRECTORY", &directory).replace("MODULES", APACHE_MODULES);
        fs::write(self.directory.join("apache.conf"), settings.replace("PORT", &self.port.to_string()))?;
        self.serve("apache2", &["-D", "FOREGROUND", "-f", &format!("{directory}/apache.conf")])
    }

    /// Starts the Node server behind HAProxy on the port.
    pub(crate) fn haproxy(&mut self) -> Result<()> {
        let (port, backend) = (self.port.to_string(), self.port + 1);
        self.serve("node", &[&format!("{SERVERS}/server.mjs"), &backend.to_string()])?;
        if let Some(node) = self.servers.last_mut() {
            wait_for_listener(node, backend)?;
        }
        let settings = fs::read_to_string(format!("{SERVERS}/haproxy.cfg"))?;
        let settings = settings.replace("PORT", &port).replace("BACKEND", &backend.to_string());
        fs::write(self.directory.join("haproxy.cfg"), settings)?;
        self.serve("haproxy", &["-db", "-q", "-f", "haproxy.cfg"])
    }

    /// Starts the JDK's server.
    pub(crate) fn java_server(&mut self) -> Result<()> {
        let port = self.port.to_string();
        let small = ["-Xmx64m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"];
        self.serve("java", &[&small[..], &[&format!("{SERVERS}/Server.java"), &port]].concat())
    }

    /// Puts a file of `size` bytes where nginx and Apache serve it.
    pub(crate) fn publish(&self, name: &str, size: usize) -> Result<()> {
        let text: Vec<u8> = (0..size).map(|at| b'a' + (at % 26) as u8).collect();
        fs::write(self.directory.join("www").join(name), text).context("publish a file")
    }

    /// Starts the Node server.
    pub(crate) fn node_server(&mut self) -> Result<()> {
        let port = self.port.to_string();
        self.serve("node", &[&format!("{SERVERS}/server.mjs"), &port])
    }

    /// Starts the Go server.
    pub(crate) fn go_server(&mut self) -> Result<()> {
        let (program, port) = (self.go("server")?, self.port.to_string());
        self.serve(&program, &[&port])
    }

    /// Starts the Python server of `kind`: threads, wsgi or asyncio.
    pub(crate) fn python_server(&mut self, kind: &str) -> Result<()> {
        let port = self.port.to_string();
        self.serve("python3", &[&format!("{SERVERS}/server.py"), &port, kind])
    }

    /// Writes a file `upload` of `size` bytes for clients to send.
    pub(crate) fn publish_upload(&self, size: usize) -> Result<()> {
        fs::write(self.directory.join("upload"), vec![b'u'; size]).context("write the upload")
    }

    /// Runs a client to its end; its output is dropped.
    pub(crate) fn client(&self, program: &str, arguments: &[&str]) -> Result<()> {
        run(program, arguments, &self.directory, &[0]).map(drop)
    }

    /// Runs the Node client's `case`.
    pub(crate) fn node_client(&self, case: &str) -> Result<()> {
        self.client("node", &[&format!("{SERVERS}/client.mjs"), &self.port.to_string(), case])
    }

    /// Runs the Go client's `case`.
    pub(crate) fn go_client(&self, case: &str) -> Result<()> {
        self.client(&self.go("client")?, &[&self.port.to_string(), case])
    }

    /// Runs the Python client's `case`.
    pub(crate) fn python_client(&self, case: &str, arguments: &[&str]) -> Result<()> {
        let (script, port) = (format!("{SERVERS}/client.py"), self.port.to_string());
        self.client("python3", &[&[script.as_str(), &port, case], arguments].concat())
    }

    /// Runs wrk with the pipelining script: `batches` of `depth` requests each over `connections`.
    pub(crate) fn wrk(
        &self,
        connections: usize,
        batches: usize,
        depth: usize,
        targets: &[&str],
    ) -> Result<()> {
        let (connections, batches, depth) =
            (format!("-c{connections}"), batches.to_string(), depth.to_string());
        let (script, url) = (format!("{SERVERS}/pipeline.lua"), self.url("/"));
        let arguments = ["-t1", &connections, "-d1s", "-s", &script, &url, "--", &batches, &depth];
        self.client("wrk", &[&arguments[..], targets].concat())
    }

    /// Runs curl, quietly, on `arguments`, of which those that begin with `/` are targets on the server.
    pub(crate) fn curl(&self, arguments: &[&str]) -> Result<()> {
        self.curl_that_may_end_with(&[0], arguments)
    }

    /// Runs curl like [`Stage::curl`] and accepts any of `exits` (curl(1), EXIT CODES).
    pub(crate) fn curl_that_may_end_with(&self, exits: &[i32], arguments: &[&str]) -> Result<()> {
        let mut all = vec!["--silent".to_owned(), "--show-error".to_owned(), "--globoff".to_owned()];
        for argument in arguments {
            if argument.starts_with('/') {
                all.extend([self.url(argument), "--output".to_owned(), "/dev/null".to_owned()]);
            } else {
                all.push((*argument).to_owned());
            }
        }
        run("curl", &all, &self.directory, exits).map(drop)
    }

    /// Sends `pieces` in writes of their own, finishes, and reads until the server closes.
    pub(crate) fn raw(&mut self, pieces: &[&[u8]]) -> Result<()> {
        let mut socket = TcpStream::connect(self.address())?;
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(DEADLINE))?;
        for piece in pieces {
            self.pause(3);
            // A server that refuses may have closed: what it answered is what counts.
            if socket.write_all(piece).is_err() {
                break;
            }
        }
        let _ = socket.shutdown(Shutdown::Write);
        let _ = io::copy(&mut socket, &mut io::sink());
        Ok(())
    }

    /// Builds a Go program once per test run and gives its file.
    fn go(&self, name: &str) -> Result<String> {
        static BUILDING: Mutex<()> = Mutex::new(());
        let _one_at_a_time = BUILDING.lock().map_err(|_| anyhow!("an earlier Go build panicked"))?;
        let (source, program) =
            (format!("{SERVERS}/{name}.go"), format!("{}/go-{name}", env!("CARGO_TARGET_TMPDIR")));
        run("go", &["build", "-o", &program, &source], &self.directory, &[0])?;
        Ok(program)
    }
}
