//! Servers that stand in for what sinks send to: a collector, a node of Elasticsearch, fluentd. They take records or misbehave as told
//! at the moment, and know what they took, and how often.

#![expect(clippy::unwrap_used, reason = "test support: a failure here is the test's failure")]

use std::{
    collections::HashMap,
    io::{self, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Condvar, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use serde::Deserialize;
use serde_json::json;

use crate::{
    msgpack::{self, Packed},
    wire::{Framing, Wire, reset_on_close},
};

/// What tells records apart.
const PATH: &str = "url.path";
/// A slow reader reads again after this time.
const SLOW_PAUSE: Duration = Duration::from_secs(1);

/// What it speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// Lines of JSON in requests of HTTP.
    Http,
    /// `_bulk`.
    Bulk,
    /// The forward protocol, each chunk acknowledged.
    Forward,
    /// Something that does not answer: what it is told is kept, and nothing of it is taken.
    Ear,
}

/// How it behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    /// It takes everything.
    Well,
    /// It takes nothing, and says so if there is a way: 503, or the end of the connection.
    Unavailable,
    /// It reads and answers nothing, like a process that is stopped: connections stay.
    Held,
    /// It reads everything and never answers.
    Mute,
    /// It reads so many bytes a second.
    Slow(usize),
    /// It takes everything, and resets the connection before the answer to every other request.
    Resets,
}

#[derive(Debug)]
struct Shared {
    protocol: Protocol,
    manner: Mutex<Manner>,
    changed: Condvar,
    /// How often each path was in what was taken.
    taken: Mutex<HashMap<String, usize>>,
    more: Condvar,
    /// Requests that were read whole.
    requests: AtomicU64,
    /// Everything that was read, if it is kept.
    heard: Option<Mutex<Vec<u8>>>,
    ends: AtomicBool,
}

/// A server. Its connections end with it.
#[derive(Debug)]
pub struct StandIn {
    pub address: SocketAddr,
    listener: TcpListener,
    shared: Arc<Shared>,
}

impl StandIn {
    /// Of `protocol`, which behaves well, at what listens.
    pub fn start(protocol: Protocol, listener: TcpListener) -> Self {
        Self::with(protocol, listener, None)
    }

    /// At a free port of loopback; keeps every byte that it reads.
    pub fn keeping(protocol: Protocol) -> Self {
        Self::with(protocol, TcpListener::bind("127.0.0.1:0").unwrap(), Some(Mutex::default()))
    }

    fn with(protocol: Protocol, listener: TcpListener, heard: Option<Mutex<Vec<u8>>>) -> Self {
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            protocol,
            manner: Mutex::new(Manner::Well),
            changed: Condvar::new(),
            taken: Mutex::default(),
            more: Condvar::new(),
            requests: AtomicU64::new(0),
            heard,
            ends: AtomicBool::new(false),
        });
        let (accepting, serving) = (listener.try_clone().unwrap(), Arc::clone(&shared));
        thread::spawn(move || {
            while let Ok((stream, _)) = accepting.accept() {
                let shared = Arc::clone(&serving);
                // What goes wrong there is seen by the client.
                thread::spawn(move || drop(shared.serve(stream)));
            }
        });
        Self { address, listener, shared }
    }

    /// At a free port of loopback.
    pub fn local(protocol: Protocol) -> Self {
        Self::start(protocol, TcpListener::bind("127.0.0.1:0").unwrap())
    }

    /// From now on it behaves like this.
    pub fn behave(&self, manner: Manner) {
        *self.shared.manner.lock().unwrap() = manner;
        self.shared.changed.notify_all();
    }

    /// How it behaves.
    pub fn manner(&self) -> Manner {
        *self.shared.manner.lock().unwrap()
    }

    /// How often each path was in what it took.
    pub fn taken(&self) -> HashMap<String, usize> {
        self.shared.taken.lock().unwrap().clone()
    }

    /// How many different ones it took.
    pub fn unique(&self) -> usize {
        self.shared.taken.lock().unwrap().len()
    }

    /// Every byte that it read, if it keeps them.
    pub fn heard(&self) -> Vec<u8> {
        self.shared.heard.as_ref().map(|heard| heard.lock().unwrap().clone()).unwrap_or_default()
    }

    /// Requests that it read whole, whatever it did then.
    pub fn requests(&self) -> u64 {
        self.shared.requests.load(Ordering::SeqCst)
    }

    /// Waits until it took so many different ones, at most until then; whether it did.
    pub fn wait_unique(&self, count: usize, deadline: Instant) -> bool {
        let left = deadline.saturating_duration_since(Instant::now());
        let taken = self.shared.taken.lock().unwrap();
        let few = |taken: &mut HashMap<String, usize>| taken.len() < count;
        !self.shared.more.wait_timeout_while(taken, left, few).unwrap().1.timed_out()
    }
}

impl Drop for StandIn {
    fn drop(&mut self) {
        self.shared.ends.store(true, Ordering::SeqCst);
        self.behave(Manner::Unavailable);
        // Ends the thread's accept.
        let _ = rustix::net::shutdown(&self.listener, rustix::net::Shutdown::Both);
    }
}

impl Shared {
    /// Waits as long as it is held; how it behaves then.
    fn manner(&self) -> io::Result<Manner> {
        let manner = self.manner.lock().unwrap();
        let manner = self.changed.wait_while(manner, |manner| *manner == Manner::Held).unwrap();
        if self.ends.load(Ordering::SeqCst) {
            Err(io::ErrorKind::ConnectionAborted.into())
        } else {
            Ok(*manner)
        }
    }

    /// Waits for the time of a slow reader, or until it behaves otherwise.
    fn pause(&self) {
        let manner = self.manner.lock().unwrap();
        let is_slow = |manner: &mut Manner| matches!(manner, Manner::Slow(_));
        drop(self.changed.wait_timeout_while(manner, SLOW_PAUSE, is_slow).unwrap());
    }

    fn serve(self: Arc<Self>, stream: TcpStream) -> io::Result<()> {
        match self.protocol {
            Protocol::Http | Protocol::Bulk => self.serve_http(stream),
            Protocol::Forward => self.serve_forward(stream),
            Protocol::Ear => {
                io::copy(&mut Paced { stream, shared: self }, &mut io::sink())?;
                Ok(())
            }
        }
    }

    fn serve_http(self: Arc<Self>, stream: TcpStream) -> io::Result<()> {
        let mut wire = Wire::over(Paced { stream, shared: Arc::clone(&self) });
        while let Some(head) = wire.head()? {
            let Framing::Length(length) = head.framing(Framing::Length(0)) else {
                return Err(io::ErrorKind::InvalidData.into());
            };
            let body = wire.content(length)?;
            let lines = body.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
            let paths = lines.filter_map(|line| serde_json::from_slice::<Named>(line).ok()?.path);
            match self.take(paths)? {
                Take::All => {}
                Take::None => {
                    wire.write(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n")?;
                    continue;
                }
                Take::Silently => continue,
                Take::AndReset => return reset_on_close(&wire.carrier().stream),
            }
            let answer = match self.protocol {
                Protocol::Bulk => json!({ "errors": false, "items": [] }).to_string(),
                Protocol::Http | Protocol::Forward | Protocol::Ear => String::new(),
            };
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", answer.len());
            wire.write([head, answer].concat().as_bytes())?;
        }
        Ok(())
    }

    fn serve_forward(self: Arc<Self>, stream: TcpStream) -> io::Result<()> {
        let mut reader = BufReader::new(Paced { stream, shared: Arc::clone(&self) });
        loop {
            let Packed::List(message) = msgpack::read(&mut reader)? else {
                return Err(io::ErrorKind::InvalidData.into());
            };
            let [_, Packed::Bytes(events), Packed::Plain(options)] = &message[..] else {
                return Err(io::ErrorKind::InvalidData.into());
            };
            let mut rest = &events[..];
            let mut paths = Vec::new();
            while !rest.is_empty() {
                let event = msgpack::read(&mut rest)?.plain();
                paths.extend(event[1][PATH].as_str().map(str::to_owned));
            }
            match self.take(paths.into_iter())? {
                Take::All => {}
                Take::None => return Ok(()),
                Take::Silently => continue,
                Take::AndReset => return reset_on_close(&reader.get_ref().stream),
            }
            let chunk = options["chunk"].as_str().unwrap_or_default();
            let mut answer = vec![0x81, 0xa3];
            answer.extend(b"ack");
            answer.extend([0xd9, u8::try_from(chunk.len()).map_err(|_| io::ErrorKind::InvalidData)?]);
            answer.extend(chunk.as_bytes());
            reader.get_mut().stream.write_all(&answer)?;
        }
    }

    /// What becomes of what came.
    fn take(&self, paths: impl Iterator<Item = String>) -> io::Result<Take> {
        let number = self.requests.fetch_add(1, Ordering::SeqCst);
        let take = match self.manner()? {
            Manner::Unavailable => return Ok(Take::None),
            Manner::Mute => return Ok(Take::Silently),
            Manner::Resets if number.is_multiple_of(2) => Take::AndReset,
            Manner::Well | Manner::Held | Manner::Slow(_) | Manner::Resets => Take::All,
        };
        let mut taken = self.taken.lock().unwrap();
        paths.for_each(|path| *taken.entry(path).or_default() += 1);
        self.more.notify_all();
        Ok(take)
    }
}

/// As much of a record as is looked at; a line that says what is to be done has none.
#[derive(Deserialize)]
struct Named {
    #[serde(rename = "url.path")]
    path: Option<String>,
}

/// What a server does with what it read.
enum Take {
    /// Takes it, and says so.
    All,
    /// Takes it not, and says so.
    None,
    /// Says nothing.
    Silently,
    /// Takes it, and resets the connection instead of an answer.
    AndReset,
}

/// A stream that is read as fast as its server behaves.
struct Paced {
    stream: TcpStream,
    shared: Arc<Shared>,
}

impl Read for Paced {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut room = buffer.len();
        if let Manner::Slow(bytes) = self.shared.manner()? {
            room = room.min(bytes);
            self.shared.pause();
        }
        let read = self.stream.read(&mut buffer[..room])?;
        if let Some(heard) = &self.shared.heard {
            heard.lock().unwrap().extend_from_slice(&buffer[..read]);
        }
        // What came while it was held is read when it is not.
        self.shared.manner()?;
        Ok(read)
    }
}

impl Write for Paced {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.stream.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}
