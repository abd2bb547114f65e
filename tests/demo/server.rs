//! The server of the demo: does what the request's path asks for, also the rude things, and writes down what it
//! served. It ends when its standard input does.

use std::{
    io::{self, Read as _, Write as _},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    path::Path,
    sync::{Arc, Condvar, Mutex, PoisonError},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use support::wire::{self, Framing, Head, Wire};

use crate::list::{End, Entry, List};

/// How long `/slow` takes: long beside everything else in the demo, short for the person who waits.
const SLOW: Duration = Duration::from_millis(400);

/// Bytes that `/cut` and `/reset` send of those they promise.
pub(crate) const SENT_OF_PROMISED: (u64, u64) = (4000, 100_000);

/// Serves on `port` until standard input ends, and writes `list`.
pub(crate) fn run(port: u16, list: &Path) -> Result<()> {
    let list = Arc::new(List::create(list)?);
    let open = Arc::new(Open::default());
    let listener =
        TcpListener::bind(("0.0.0.0", port)).with_context(|| format!("cannot listen on {port}"))?;
    writeln!(io::stdout(), "ready")?;
    let accepted = Arc::clone(&open);
    thread::spawn(move || {
        for stream in listener.incoming() {
            let (list, open) = (Arc::clone(&list), Arc::clone(&accepted));
            open.change(1);
            thread::spawn(move || {
                // A connection that breaks in a way nobody asked for lacks its line, and the comparison shows it.
                let _ = stream.and_then(|stream| Connection::new(stream, list)?.serve());
                open.change(-1);
            });
        }
    });
    // Nobody writes to us: this returns when the demo closes the pipe, after the client has ended.
    io::stdin().read_to_end(&mut Vec::new())?;
    if open.wait_for_none() {
        Ok(())
    } else {
        bail!("connections are still open though the client has ended")
    }
}

/// How many connections are being served.
#[derive(Default)]
struct Open {
    count: Mutex<isize>,
    changed: Condvar,
}

impl Open {
    fn change(&self, by: isize) {
        *self.count.lock().unwrap_or_else(PoisonError::into_inner) += by;
        self.changed.notify_all();
    }

    /// Waits until there is none; `false` if that takes too long.
    fn wait_for_none(&self) -> bool {
        let count = self.count.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.changed.wait_timeout_while(count, wire::MAX_WAIT, |count| *count > 0);
        !waited.unwrap_or_else(PoisonError::into_inner).1.timed_out()
    }
}

/// What a request is answered with.
enum Act {
    /// A whole response.
    Reply { status: u16, framing: Framing, size: u64, wait: Duration },
    /// 101 or the 200 to CONNECT; then whatever comes is sent back.
    Tunnel(u16),
    /// The promised length is not kept.
    Cut(Cut),
    /// 103 and then nothing, until the peer gives up.
    Hang,
    /// The end of the connection instead of a response.
    Drop { reset: bool },
}

/// What ends a response early.
enum Cut {
    Fin,
    /// A reset, once the client has closed its half: it has the bytes that were sent.
    ResetAfterFin,
    /// A reset, once the next request is there: it has none of its answer.
    ResetAfterNext,
}

impl Act {
    fn of(method: &str, target: &str, request_bytes: u64) -> Self {
        if method == "CONNECT" {
            return Self::Tunnel(200);
        }
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let size = query.strip_prefix("size=").and_then(|size| size.parse().ok()).unwrap_or(12);
        let words: Vec<&str> = path.split('/').skip(1).collect();
        let reply = |status, framing, size| Self::Reply { status, framing, size, wait: Duration::ZERO };
        match words[..] {
            ["status", status, ..] => reply(status.parse().unwrap_or(500), Framing::Length(size), size),
            ["echo", ..] => reply(200, Framing::Length(request_bytes), request_bytes),
            ["chunked", ..] => reply(200, Framing::Chunked, size),
            ["until-close", ..] => reply(200, Framing::UntilClose, size),
            ["slow", ..] => Self::Reply { status: 200, framing: Framing::Length(size), size, wait: SLOW },
            ["upgrade", ..] => Self::Tunnel(101),
            ["cut", ..] => Self::Cut(Cut::Fin),
            ["reset", "after-fin", ..] => Self::Cut(Cut::ResetAfterFin),
            ["reset", "after-next", ..] => Self::Cut(Cut::ResetAfterNext),
            ["reset", ..] => Self::Drop { reset: true },
            ["drop", ..] => Self::Drop { reset: false },
            ["hang", ..] => Self::Hang,
            _ => reply(200, Framing::Length(size), size),
        }
    }
}

/// The request as served so far.
struct Served {
    method: String,
    target: String,
    request_bytes: u64,
}

struct Connection {
    wire: Wire,
    list: Arc<List>,
    // As accepted: a reset takes the peer's address with it.
    client: SocketAddr,
    server: SocketAddr,
    index: usize,
}

impl Connection {
    fn new(stream: TcpStream, list: Arc<List>) -> io::Result<Self> {
        let (client, server) = (stream.peer_addr()?, stream.local_addr()?);
        Ok(Self { wire: Wire::new(stream)?, list, client, server, index: 0 })
    }

    fn serve(mut self) -> io::Result<()> {
        while let Some(head) = self.wire.head()? {
            let served = self.request(&head)?;
            match Act::of(&served.method, &served.target, served.request_bytes) {
                Act::Reply { status, framing, size, wait } => {
                    thread::sleep(wait);
                    self.reply(&served, status, framing, size)?;
                    if framing == Framing::UntilClose {
                        return self.close();
                    }
                }
                Act::Tunnel(status) => return self.tunnel(&served, status),
                Act::Cut(cut) => return self.cut(&served, cut),
                Act::Hang => return self.hang(&served),
                Act::Drop { reset } => return self.end(&served, reset),
            }
        }
        Ok(())
    }

    /// Reads the rest of a request.
    fn request(&mut self, head: &Head) -> io::Result<Served> {
        if head.field("expect").is_some() {
            self.wire.write(b"HTTP/1.1 100 Continue\r\n\r\n")?;
        }
        let mut request_bytes = 0;
        self.wire.body(head.framing(Framing::Length(0)), &mut request_bytes)?;
        Ok(Served { method: head.word(0).to_owned(), target: head.word(1).to_owned(), request_bytes })
    }

    /// Writes the line of an exchange.
    fn note(&mut self, served: &Served, status: Option<u16>, bytes: u64, outcome: &str) -> io::Result<()> {
        let entry = Entry {
            end: End::Server,
            client: self.client,
            server: self.server,
            index: self.index,
            method: served.method.clone(),
            target: served.target.clone(),
            status,
            request_bytes: served.request_bytes,
            response_bytes: bytes,
            outcome: outcome.to_owned(),
        };
        self.index += 1;
        self.list.push(&entry)
    }

    fn reply(&mut self, served: &Served, status: u16, framing: Framing, size: u64) -> io::Result<()> {
        let has_body = served.method != "HEAD" && status != 204 && status != 304;
        let mut bytes = format!("HTTP/1.1 {status} Demo\r\n").into_bytes();
        match framing {
            Framing::Length(_) if status == 204 => {}
            Framing::Length(length) => bytes.extend(format!("Content-Length: {length}\r\n").bytes()),
            Framing::Chunked => bytes.extend(b"Transfer-Encoding: chunked\r\nTrailer: X-Trailer\r\n"),
            Framing::UntilClose => bytes.extend(b"Connection: close\r\n"),
        }
        bytes.extend(b"\r\n");
        if has_body {
            let content = wire::content(size);
            bytes.extend(if framing == Framing::Chunked { wire::chunked(&content) } else { content });
        }
        // Written first: the client may close, and with it the demo may end, as soon as it has the last byte.
        self.note(served, Some(status), if has_body { size } else { 0 }, "complete")?;
        self.wire.write(&bytes)
    }

    fn tunnel(mut self, served: &Served, status: u16) -> io::Result<()> {
        self.note(served, Some(status), 0, "upgraded")?;
        let upgrade = if status == 101 { "Connection: Upgrade\r\nUpgrade: demo\r\n" } else { "" };
        self.wire.write(format!("HTTP/1.1 {status} Demo\r\n{upgrade}\r\n").as_bytes())?;
        // What looks like a request in here is none.
        self.wire.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")?;
        self.wire.body(Framing::UntilClose, &mut 0)?;
        self.close()
    }

    fn cut(mut self, served: &Served, cut: Cut) -> io::Result<()> {
        let (sent, promised) = SENT_OF_PROMISED;
        let outcome = if matches!(cut, Cut::Fin) { "closed" } else { "reset" };
        self.note(served, Some(200), sent, outcome)?;
        self.wire.write(format!("HTTP/1.1 200 OK\r\nContent-Length: {promised}\r\n\r\n").as_bytes())?;
        self.wire.write(&wire::content(sent))?;
        match cut {
            Cut::Fin => return self.close(),
            Cut::ResetAfterFin => self.wire.body(Framing::UntilClose, &mut 0)?,
            Cut::ResetAfterNext => {
                let head = self.wire.head()?.ok_or(io::ErrorKind::UnexpectedEof)?;
                let next = self.request(&head)?;
                self.note(&next, None, 0, "reset")?;
            }
        }
        self.wire.reset()
    }

    fn hang(mut self, served: &Served) -> io::Result<()> {
        self.wire.write(b"HTTP/1.1 103 Early Hints\r\nLink: </style.css>\r\n\r\n")?;
        let error = match self.wire.body(Framing::UntilClose, &mut 0) {
            Ok(()) => io::ErrorKind::UnexpectedEof.into(),
            Err(error) => error,
        };
        self.note(served, None, 0, wire::outcome(&error)?)
    }

    fn end(mut self, served: &Served, reset: bool) -> io::Result<()> {
        self.note(served, None, 0, if reset { "reset" } else { "closed" })?;
        if reset { self.wire.reset() } else { self.close() }
    }

    /// FIN, then everything that the client still says, so that closing does not turn into a reset.
    fn close(mut self) -> io::Result<()> {
        self.wire.stream().shutdown(Shutdown::Write)?;
        self.wire.body(Framing::UntilClose, &mut 0)
    }
}
