//! The client of the demo: the load, connection by connection, and what became of each request as the client saw it.

use std::{
    io,
    net::{Shutdown, SocketAddr, TcpStream},
    path::Path,
    thread,
};

use anyhow::{Context as _, Result, bail};
use support::wire::{self, Framing, Wire};

use crate::{
    list::{End, Entry, List},
    server::SENT_OF_PROMISED,
};

/// Clients that send keep-alive requests as fast as they can, beside the scripts.
const FAST_CLIENTS: usize = 4;
/// Requests of each.
const FAST_REQUESTS: usize = 20;

/// A request and how it is sent.
struct Request<'a> {
    method: &'a str,
    target: String,
    headers: &'a str,
    body: Vec<u8>,
    request_bytes: u64,
}

fn request<'a>(method: &'a str, target: &str) -> Request<'a> {
    Request { method, target: target.to_owned(), headers: "", body: Vec::new(), request_bytes: 0 }
}

fn post(target: &str, size: u64, chunked: bool) -> Request<'static> {
    let content = wire::content(size);
    let headers = if chunked { "Transfer-Encoding: chunked\r\n" } else { "" };
    let body = if chunked { wire::chunked(&content) } else { content };
    Request { method: "POST", target: target.to_owned(), headers, body, request_bytes: size }
}

impl Request<'_> {
    fn head(&self) -> Vec<u8> {
        let Self { method, target, headers, .. } = self;
        let length = match self.body.len() {
            0 => String::new(),
            _ if headers.contains("chunked") => String::new(),
            length => format!("Content-Length: {length}\r\n"),
        };
        let host = "Host: service.demo\r\nUser-Agent: pod2pod-demo\r\n";
        format!("{method} {target} HTTP/1.1\r\n{host}{headers}{length}\r\n").into_bytes()
    }

    fn bytes(&self) -> Vec<u8> {
        [self.head(), self.body.clone()].concat()
    }
}

/// A script of one connection.
type Script = fn(&mut Connection<'_>) -> io::Result<()>;

/// One connection each, in this order.
const SCRIPTS: [(&str, Script); 13] = [
    ("statuses", statuses),
    ("bodies", bodies),
    ("pipelined", pipelined),
    ("byte by byte", byte_by_byte),
    ("slow", |connection| connection.get("/slow/0")),
    ("until close", |connection| connection.get("/until-close/0?size=70000")),
    ("upgrade", |connection| {
        connection.tunnel("GET", "/upgrade/0", "Connection: Upgrade\r\nUpgrade: demo\r\n")
    }),
    ("connect", |connection| connection.tunnel("CONNECT", "far.demo:443", "")),
    ("cut", |connection| connection.get("/cut/0")),
    ("drop", |connection| connection.get("/drop/0")),
    ("reset", |connection| connection.get("/reset/at-once/0")),
    ("reset after FIN", reset_after_fin),
    ("reset after the next", reset_after_next),
];

/// Sends the whole load to `service` and writes `list`.
pub(crate) fn run(service: SocketAddr, list: &Path) -> Result<()> {
    let list = List::create(list)?;
    let fast = |number: usize| -> Result<()> {
        let mut connection = Connection::open(service, &list)?;
        for request in 0..FAST_REQUESTS {
            connection.get(&format!("/fast/{number}/{request}?size={}", request * 100))?;
        }
        Ok(())
    };
    thread::scope(|scope| {
        let threads: Vec<_> = (0..FAST_CLIENTS).map(|number| scope.spawn(move || fast(number))).collect();
        for (name, script) in SCRIPTS {
            let mut connection = Connection::open(service, &list)?;
            script(&mut connection).with_context(|| format!("the script {name:?} failed"))?;
        }
        Connection::open(service, &list)?.give_up().context("the script \"give up\" failed")?;
        for thread in threads {
            match thread.join() {
                Ok(result) => result.context("a fast client failed")?,
                Err(_) => bail!("a fast client panicked"),
            }
        }
        Ok(())
    })
}

fn statuses(connection: &mut Connection<'_>) -> io::Result<()> {
    for status in [200, 404, 500, 503, 302] {
        connection.get(&format!("/status/{status}/get"))?;
    }
    for status in [204, 304] {
        connection.get(&format!("/status/{status}/without-body"))?;
    }
    connection.exchange(&request("HEAD", "/status/200/head?size=5000"))?;
    connection.exchange(&request("OPTIONS", "*"))?;
    connection.exchange(&request("PURGE", "/status/200/purge"))?;
    connection.get("/status/500/last?size=0")
}

fn bodies(connection: &mut Connection<'_>) -> io::Result<()> {
    for size in [1, 1000, 65_536, 1_000_000] {
        connection.exchange(&post(&format!("/echo/length/{size}"), size, false))?;
        connection.exchange(&post(&format!("/echo/chunked/{size}"), size, true))?;
        connection.get(&format!("/chunked/{size}?size={size}"))?;
    }
    let mut expecting = post("/echo/expect", 5000, false);
    expecting.headers = "Expect: 100-continue\r\n";
    connection.wire.write(&expecting.head())?;
    connection.interim(100)?;
    connection.wire.write(&expecting.body)?;
    connection.receive(&expecting)?;
    connection.get("/large?size=10485760")
}

fn pipelined(connection: &mut Connection<'_>) -> io::Result<()> {
    let mut requests: Vec<Request<'_>> =
        (0..10).map(|number| request("GET", &format!("/pipelined/{number}?size={}", number * 777))).collect();
    requests.insert(3, request("HEAD", "/pipelined/head?size=9"));
    requests.insert(5, post("/echo/pipelined", 3000, true));
    requests.insert(7, request("GET", "/chunked/pipelined?size=3000"));
    let bytes: Vec<u8> = requests.iter().flat_map(Request::bytes).collect();
    connection.wire.write(&bytes)?;
    requests.iter().try_for_each(|request| connection.receive(request))
}

fn byte_by_byte(connection: &mut Connection<'_>) -> io::Result<()> {
    let request = post("/echo/byte-by-byte", 20, false);
    request.bytes().iter().try_for_each(|byte| connection.wire.write(&[*byte]))?;
    connection.receive(&request)
}

fn reset_after_fin(connection: &mut Connection<'_>) -> io::Result<()> {
    let request = request("GET", "/reset/after-fin/0");
    connection.wire.write(&request.bytes())?;
    let mut bytes = 0;
    let status = connection.partial(&mut bytes)?;
    connection.wire.stream().shutdown(Shutdown::Write)?;
    connection.end_of_response(&request, status, bytes)
}

fn reset_after_next(connection: &mut Connection<'_>) -> io::Result<()> {
    let cut = request("GET", "/reset/after-next/0");
    connection.wire.write(&cut.bytes())?;
    let mut bytes = 0;
    let status = connection.partial(&mut bytes)?;
    let next = request("GET", "/reset/unanswered/1");
    connection.wire.write(&next.bytes())?;
    connection.end_of_response(&cut, status, bytes)?;
    connection.note(&next, None, 0, "reset")
}

struct Connection<'a> {
    wire: Wire,
    list: &'a List,
    client: SocketAddr,
    server: SocketAddr,
    index: usize,
}

impl<'a> Connection<'a> {
    fn open(service: SocketAddr, list: &'a List) -> Result<Self> {
        let stream = TcpStream::connect(service).with_context(|| format!("cannot connect to {service}"))?;
        let (client, server) = (stream.local_addr()?, stream.peer_addr()?);
        Ok(Self { wire: Wire::new(stream)?, list, client, server, index: 0 })
    }

    fn get(&mut self, target: &str) -> io::Result<()> {
        self.exchange(&request("GET", target))
    }

    fn exchange(&mut self, request: &Request<'_>) -> io::Result<()> {
        self.wire.write(&request.bytes())?;
        self.receive(request)
    }

    /// Reads the response to `request`, whatever becomes of it, and writes its line.
    fn receive(&mut self, request: &Request<'_>) -> io::Result<()> {
        let head = match self.wire.head() {
            Ok(Some(head)) => head,
            Ok(None) => return self.note(request, None, 0, "closed"),
            Err(error) => return self.note(request, None, 0, wire::outcome(&error)?),
        };
        let status = number(head.word(1))?;
        let bodiless = request.method == "HEAD" || status == 204 || status == 304;
        let framing = if bodiless { Framing::Length(0) } else { head.framing(Framing::UntilClose) };
        let mut bytes = 0;
        let outcome = match self.wire.body(framing, &mut bytes) {
            Ok(()) => "complete",
            Err(error) => wire::outcome(&error)?,
        };
        self.note(request, Some(status), bytes, outcome)
    }

    /// Reads an interim response.
    fn interim(&mut self, status: u16) -> io::Result<()> {
        let head = self.wire.head()?.ok_or(io::ErrorKind::UnexpectedEof)?;
        if number(head.word(1))? == status { Ok(()) } else { Err(io::ErrorKind::InvalidData.into()) }
    }

    /// Reads a response as far as the server sends it, and its status.
    fn partial(&mut self, bytes: &mut u64) -> io::Result<u16> {
        let head = self.wire.head()?.ok_or(io::ErrorKind::UnexpectedEof)?;
        self.wire.body(Framing::Length(SENT_OF_PROMISED.0), bytes)?;
        number(head.word(1))
    }

    /// Reads on to the end that the server gives to a partial response.
    fn end_of_response(&mut self, request: &Request<'_>, status: u16, mut bytes: u64) -> io::Result<()> {
        let outcome = match self.wire.body(Framing::Length(SENT_OF_PROMISED.1 - bytes), &mut bytes) {
            Ok(()) => "complete",
            Err(error) => wire::outcome(&error)?,
        };
        self.note(request, Some(status), bytes, outcome)
    }

    /// Asks for another protocol and speaks something that only looks like HTTP.
    fn tunnel(&mut self, method: &str, target: &str, headers: &str) -> io::Result<()> {
        let mut request = request(method, target);
        request.headers = headers;
        self.wire.write(&request.bytes())?;
        let head = self.wire.head()?.ok_or(io::ErrorKind::UnexpectedEof)?;
        self.note(&request, Some(number(head.word(1))?), 0, "upgraded")?;
        self.wire.write(b"GET /not-a-request HTTP/1.1\r\nHost: tunnel\r\n\r\n")?;
        self.wire.stream().shutdown(Shutdown::Write)?;
        self.wire.body(Framing::UntilClose, &mut 0)
    }

    /// Waits until the server has the request, and resets the connection.
    fn give_up(mut self) -> io::Result<()> {
        let request = request("GET", "/hang/0");
        self.wire.write(&request.bytes())?;
        self.interim(103)?;
        self.note(&request, None, 0, "reset")?;
        self.wire.reset()
    }

    fn note(
        &mut self,
        request: &Request<'_>,
        status: Option<u16>,
        bytes: u64,
        outcome: &str,
    ) -> io::Result<()> {
        let entry = Entry {
            end: End::Client,
            client: self.client,
            server: self.server,
            index: self.index,
            method: request.method.to_owned(),
            target: request.target.clone(),
            status,
            request_bytes: request.request_bytes,
            response_bytes: bytes,
            outcome: outcome.to_owned(),
        };
        self.index += 1;
        self.list.push(&entry)
    }
}

fn number(word: &str) -> io::Result<u16> {
    word.parse().map_err(|_| io::ErrorKind::InvalidData.into())
}
