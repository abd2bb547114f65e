//! The paced client: so many requests a second over so many connections, each due at its own time, and how long each
//! took from when it was due. It ends only when everything is answered, so its requests can be counted exactly.

use std::{
    collections::VecDeque,
    fs::File,
    io::{ErrorKind, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    process::Stdio,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use nix::sys::prctl;
use rustix::event::{Timespec, epoll};
use serde::{Deserialize, Serialize};
use support::processes::Process;

use crate::{
    spread,
    stage::{self, SERVER, SMALL, Stage},
};

/// First word of the command line by which the benchmark becomes the client.
pub(crate) const WORD: &str = "paced";
/// How much longer than planned a load may take.
const MAX_OVERTIME: Duration = Duration::from_secs(20);
/// No answer takes longer.
const MAX_WAIT: Timespec = Timespec { tv_sec: 10, tv_nsec: 0 };
/// Events taken at a time.
const EVENTS: usize = 256;
/// Longest response that is read.
const MAX_RESPONSE: usize = 4096;

/// What is asked of the client.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    pub(crate) connections: usize,
    /// Requests a second.
    pub(crate) rate: u64,
    pub(crate) time: Duration,
}

impl Pace {
    /// Requests in all.
    pub(crate) const fn requests(self) -> u64 {
        self.rate * self.time.as_millis() as u64 / 1000
    }
}

/// What the client reports.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
pub(crate) struct Answered {
    pub(crate) requests: u64,
    /// From the first request to the last answer.
    pub(crate) seconds: f64,
    /// Microseconds from when a request was due to its answer.
    pub(crate) p50: f64,
    pub(crate) p99: f64,
}

/// A client at work.
pub(crate) struct Client {
    process: Process,
    said: std::path::PathBuf,
    pace: Pace,
}

/// Starts the client in its namespace.
pub(crate) fn start(stage: &Stage, pace: Pace) -> Result<Client> {
    let said = stage.file("paced");
    let mut command = stage::command(Some(&stage.client), std::env::current_exe()?)?;
    command.args([WORD, &pace.connections.to_string(), &pace.rate.to_string()]);
    command.arg(pace.time.as_millis().to_string()).stdout(File::create(&said)?).stderr(Stdio::inherit());
    Ok(Client { process: Process::start("client", &mut command)?, said, pace })
}

/// Runs the client to its end.
pub(crate) fn run(stage: &Stage, pace: Pace) -> Result<Answered> {
    start(stage, pace)?.finish()
}

impl Client {
    /// Whether it has ended.
    pub(crate) fn ended(&mut self) -> Result<bool> {
        Ok(self.process.ended()?.is_some())
    }

    /// Waits until everything is answered.
    pub(crate) fn finish(self) -> Result<Answered> {
        self.process.finish(self.pace.time + MAX_OVERTIME)?;
        let text = std::fs::read_to_string(&self.said).context("the client's report")?;
        let answered: Answered = serde_json::from_str(&text).context("the client's report")?;
        if answered.requests != self.pace.requests() {
            bail!("{} requests were asked for, {} were answered", self.pace.requests(), answered.requests);
        }
        Ok(answered)
    }
}

/// This process becomes the client.
pub(crate) fn become_client(words: &[String]) -> Result<()> {
    let [connections, rate, milliseconds] = words else { bail!("{WORD} CONNECTIONS RATE MILLISECONDS") };
    let time = Duration::from_millis(milliseconds.parse()?);
    let pace = Pace { connections: connections.parse()?, rate: rate.parse()?, time };
    // Or every wait ends up to 50 µs late.
    prctl::set_timerslack(1)?;
    let answered = Asking::open(SERVER, pace)?.run()?;
    serde_json::to_writer(std::io::stdout(), &answered)?;
    Ok(())
}

struct Connection {
    stream: TcpStream,
    /// When the request that is open was due.
    due: Duration,
    got: usize,
}

struct Asking {
    epoll: rustix::fd::OwnedFd,
    connections: Vec<Connection>,
    idle: VecDeque<usize>,
    request: String,
    /// Bytes of every response: they are all alike.
    response: usize,
    pace: Pace,
    /// Microseconds, one for each answer.
    times: Vec<f64>,
}

impl Asking {
    fn open(server: SocketAddr, pace: Pace) -> Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let request = format!("GET {SMALL} HTTP/1.1\r\nHost: {server}\r\n\r\n");
        let mut connections = Vec::with_capacity(pace.connections);
        for number in 0..pace.connections {
            let stream = TcpStream::connect(server).context("cannot connect")?;
            stream.set_nodelay(true)?;
            stream.set_nonblocking(true)?;
            let data = epoll::EventData::new_u64(number as u64);
            epoll::add(&epoll, &stream, data, epoll::EventFlags::IN | epoll::EventFlags::ET)?;
            connections.push(Connection { stream, due: Duration::ZERO, got: 0 });
        }
        let idle = (0..connections.len()).collect();
        let times = Vec::with_capacity(usize::try_from(pace.requests())?);
        Ok(Self { epoll, connections, idle, request, response: 0, pace, times })
    }

    /// When request `number` is due, after the start.
    fn due(&self, number: u64) -> Duration {
        Duration::from_nanos(number * 1_000_000_000 / self.pace.rate)
    }

    fn run(mut self) -> Result<Answered> {
        let start = Instant::now();
        let mut sent = 0;
        let mut events = Vec::with_capacity(EVENTS);
        while (self.times.len() as u64) < self.pace.requests() {
            let mut wait = MAX_WAIT;
            while sent < self.pace.requests() {
                let (due, now) = (self.due(sent), start.elapsed());
                if due > now {
                    wait = Timespec::try_from(due - now)?;
                    break;
                }
                let Some(free) = self.idle.pop_front() else { break };
                self.ask(free, due)?;
                sent += 1;
            }
            events.clear();
            epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut events), Some(&wait))?;
            if events.is_empty() && wait == MAX_WAIT {
                bail!("no answer within {} s", MAX_WAIT.tv_sec);
            }
            for event in &events {
                let number = usize::try_from(event.data.u64())?;
                if self.read(number)? {
                    let due = self.connections[number].due;
                    self.times.push((start.elapsed() - due).as_secs_f64() * 1e6);
                    self.idle.push_back(number);
                }
            }
        }
        let seconds = start.elapsed().as_secs_f64();
        self.times.sort_by(f64::total_cmp);
        let part = |share| spread::quantile(&self.times, share).context("no request");
        Ok(Answered { requests: self.times.len() as u64, seconds, p50: part(0.5)?, p99: part(0.99)? })
    }

    fn ask(&mut self, number: usize, due: Duration) -> Result<()> {
        let connection = &mut self.connections[number];
        (connection.due, connection.got) = (due, 0);
        // A request fits any send buffer.
        connection.stream.write_all(self.request.as_bytes()).context("cannot send")
    }

    /// Reads what is there; whether the response is whole.
    fn read(&mut self, number: usize) -> Result<bool> {
        let mut buffer = [0; MAX_RESPONSE];
        let connection = &mut self.connections[number];
        loop {
            match connection.stream.read(&mut buffer) {
                Ok(0) => bail!("the server closed a connection"),
                Ok(count) => {
                    if connection.got == 0 && !buffer.starts_with(b"HTTP/1.1 200 ") {
                        bail!("not the answer: {}", String::from_utf8_lossy(&buffer[..count]));
                    }
                    if self.response == 0 {
                        self.response = length(&buffer[..count])?;
                    }
                    connection.got += count;
                    if connection.got > self.response {
                        bail!("an answer of another length");
                    }
                    if connection.got == self.response {
                        return Ok(true);
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error).context("cannot read"),
            }
        }
    }
}

/// Bytes of a response with a Content-Length, whose whole head is in `bytes`.
fn length(bytes: &[u8]) -> Result<usize> {
    let text = String::from_utf8_lossy(bytes);
    let (head, _) = text.split_once("\r\n\r\n").context("a head in two pieces")?;
    let field = head.lines().find_map(|line| line.strip_prefix("Content-Length: "));
    let body: usize = field.context("no Content-Length")?.parse()?;
    Ok(head.len() + 4 + body)
}

#[cfg(test)]
mod tests {
    use std::{io::Write as _, net::TcpListener, thread};

    use super::*;

    #[test]
    fn a_response_is_as_long_as_its_head_says() {
        let text = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc";
        assert_eq!(length(text).expect("a head"), text.len());
        assert!(length(b"HTTP/1.1 200 OK\r\nContent-Le").is_err());
    }

    #[test]
    fn every_request_is_sent_and_answered_at_its_pace() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let server = listener.local_addr().expect("an address");
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                thread::spawn(move || answer(stream));
            }
        });
        let pace = Pace { connections: 3, rate: 1000, time: Duration::from_millis(50) };
        let answered = Asking::open(server, pace).expect("connections").run().expect("answers");
        assert_eq!(answered.requests, 50);
        assert!(answered.seconds >= 0.049, "the last request is due after 49 ms: {answered:?}");
        assert!(answered.p50 > 0.0 && answered.p50 <= answered.p99, "{answered:?}");
    }

    fn answer(mut stream: TcpStream) {
        let mut buffer = [0; MAX_RESPONSE];
        while stream.read(&mut buffer).is_ok_and(|count| count > 0) {
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").expect("written");
        }
    }
}
