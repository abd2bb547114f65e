//! A small server and client: they do what the target says, and say what they did.

use std::{
    io,
    net::{SocketAddr, TcpListener, TcpStream},
    thread,
};

use support::wire::{Framing, Wire, chunked, content};

use super::{
    seen::Exchange,
    stage::{Place, prepare},
};

/// Content of a response to a request that asks for none.
pub(crate) const DEFAULT_SIZE: u64 = 12;

/// How a body is framed and cut into writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Body {
    Length,
    Chunked,
}

/// Serves every connection in a thread of its own; takes no more when it is dropped.
pub(crate) struct Server {
    listener: TcpListener,
    pub(crate) address: SocketAddr,
}

impl Server {
    pub(crate) fn start(listener: TcpListener) -> Self {
        Self::with(listener, answer_all)
    }

    /// With another way to serve.
    pub(crate) fn with<T: 'static>(
        listener: TcpListener,
        serve: impl Fn(TcpStream) -> T + Clone + Send + 'static,
    ) -> Self {
        let address = listener.local_addr().unwrap();
        let accepting = listener.try_clone().unwrap();
        thread::spawn(move || {
            while let Ok((stream, _)) = accepting.accept() {
                let serve = serve.clone();
                // What goes wrong there is seen by the client.
                thread::spawn(move || drop(serve(stream)));
            }
        });
        Self { listener, address }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Ends the thread's accept; a socket that is not open any more needs no end.
        let _ = rustix::net::shutdown(&self.listener, rustix::net::Shutdown::Both);
    }
}

/// Answers requests until the peer closes.
pub(crate) fn answer_all(stream: TcpStream) -> io::Result<()> {
    prepare(&stream);
    let mut wire = Wire::new(stream)?;
    while answer(&mut wire)? {}
    Ok(())
}

/// Answers one request: `/…/length/SIZE` and `/…/chunked/SIZE` ask for a body, `/bytes/…` for every byte on its own.
/// Whether there was one.
pub(crate) fn answer(wire: &mut Wire) -> io::Result<bool> {
    let Some(head) = wire.head()? else { return Ok(false) };
    wire.body(head.framing(Framing::Length(0)), &mut 0)?;
    let (body, size) = asked(head.word(1));
    send(wire, "HTTP/1.1 200 OK\r\n", body, size, head.word(1).starts_with("/bytes/"))?;
    Ok(true)
}

fn asked(target: &str) -> (Body, u64) {
    let words: Vec<&str> = target.split('/').collect();
    let size = words.last().and_then(|size| size.parse().ok());
    match (words.iter().rev().nth(1), size) {
        (Some(&"chunked"), Some(size)) => (Body::Chunked, size),
        (Some(&"length"), Some(size)) => (Body::Length, size),
        _ => (Body::Length, DEFAULT_SIZE),
    }
}

fn send(wire: &mut Wire, start: &str, body: Body, size: u64, by_byte: bool) -> io::Result<()> {
    let content = content(size);
    let (field, body) = match body {
        Body::Length => (format!("Content-Length: {size}"), content),
        Body::Chunked => ("Transfer-Encoding: chunked".to_owned(), chunked(&content)),
    };
    let bytes = [format!("{start}{field}\r\n\r\n").into_bytes(), body].concat();
    if by_byte { bytes.iter().try_for_each(|byte| wire.write(&[*byte])) } else { wire.write(&bytes) }
}

/// A client's keep-alive connection.
pub(crate) struct Client {
    wire: Wire,
    /// What it did so far.
    pub(crate) done: Vec<Exchange>,
}

impl Client {
    pub(crate) fn connect(place: &mut Place, to: SocketAddr) -> Self {
        Self::new(place.connect(to))
    }

    pub(crate) fn new(stream: TcpStream) -> Self {
        Self { wire: Wire::new(stream).unwrap(), done: Vec::new() }
    }

    pub(crate) fn wire(&mut self) -> &mut Wire {
        &mut self.wire
    }

    /// GET and its whole response.
    pub(crate) fn get(&mut self, target: &str) {
        self.post(target, Body::Length, 0);
    }

    /// A request with a body, and its whole response.
    pub(crate) fn post(&mut self, target: &str, body: Body, size: u64) {
        let start = format!("POST {target} HTTP/1.1\r\nHost: kernel.test\r\n");
        send(&mut self.wire, &start, body, size, target.starts_with("/bytes/")).unwrap();
        self.receive(target, size, asked(target).1);
    }

    /// GET and its response of `expected` bytes, whatever the target says.
    pub(crate) fn fetch(&mut self, target: &str, expected: u64) {
        self.request(target);
        self.receive(target, 0, expected);
    }

    fn receive(&mut self, target: &str, size: u64, expected: u64) {
        let head = self.wire.head().unwrap().expect("a response");
        assert_eq!(head.word(1), "200");
        let mut read = 0;
        self.wire.body(head.framing(Framing::UntilClose), &mut read).unwrap();
        assert_eq!(read, expected, "the server sends what it is asked for");
        self.done.push(Exchange::complete(target, size, read));
    }

    /// A request only.
    pub(crate) fn request(&mut self, target: &str) {
        self.wire.write(format!("GET {target} HTTP/1.1\r\nHost: kernel.test\r\n\r\n").as_bytes()).unwrap();
    }
}
