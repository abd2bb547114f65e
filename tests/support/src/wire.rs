//! The little HTTP that clients and servers of the tests and the demo speak, over std sockets. It shares nothing with the program
//! under test: an error in one would hide an error in the other.

use std::{
    io::{self, BufRead as _, BufReader, Read, Write},
    net::TcpStream,
    os::fd::AsFd as _,
    time::Duration,
};

/// No party waits longer for the other: what hangs must fail.
pub const MAX_WAIT: Duration = Duration::from_secs(20);

/// How a body ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    Length(u64),
    Chunked,
    UntilClose,
}

/// The lines of a message's head; the first is the request or status line.
#[derive(Clone, Debug)]
pub struct Head(Vec<String>);

impl Head {
    /// Word `number` of the first line.
    pub fn word(&self, number: usize) -> &str {
        self.0.first().and_then(|line| line.split(' ').nth(number)).unwrap_or_default()
    }

    /// Value of a field, by its lower-case name.
    pub fn field(&self, name: &str) -> Option<&str> {
        self.0.iter().skip(1).find_map(|line| {
            let (field, value) = line.split_once(':')?;
            field.eq_ignore_ascii_case(name).then_some(value.trim())
        })
    }

    /// How the body ends, `or` without any field that says it.
    pub fn framing(&self, or: Framing) -> Framing {
        if self.field("transfer-encoding").is_some() {
            return Framing::Chunked;
        }
        self.field("content-length").and_then(|value| value.parse().ok()).map_or(or, Framing::Length)
    }
}

/// One connection.
pub struct Wire<S = TcpStream> {
    reader: BufReader<S>,
}

impl Wire {
    pub fn new(stream: TcpStream) -> io::Result<Self> {
        stream.set_read_timeout(Some(MAX_WAIT))?;
        stream.set_write_timeout(Some(MAX_WAIT))?;
        stream.set_nodelay(true)?;
        Ok(Self { reader: BufReader::new(stream) })
    }

    pub fn stream(&self) -> &TcpStream {
        self.reader.get_ref()
    }

    /// Ends the connection by a reset instead of a FIN.
    pub fn reset(self) -> io::Result<()> {
        reset_on_close(self.stream())
    }
}

impl<S: Read + Write> Wire<S> {
    /// Over something that has limits of its own.
    pub fn over(stream: S) -> Self {
        Self { reader: BufReader::new(stream) }
    }

    /// What it goes over.
    pub fn carrier(&self) -> &S {
        self.reader.get_ref()
    }

    pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.reader.get_mut().write_all(bytes)
    }

    /// Reads a head; `None` if the peer closed before its first byte.
    pub fn head(&mut self) -> io::Result<Option<Head>> {
        let mut lines = Vec::new();
        loop {
            let line = self.line()?;
            match line {
                None if lines.is_empty() => return Ok(None),
                None => return Err(io::ErrorKind::UnexpectedEof.into()),
                Some(line) if line.is_empty() => return Ok(Some(Head(lines))),
                Some(line) => lines.push(line),
            }
        }
    }

    /// Reads a body to its end. `read` counts its content bytes, also those before an error.
    pub fn body(&mut self, framing: Framing, read: &mut u64) -> io::Result<()> {
        match framing {
            Framing::Length(length) => self.exactly(length, read),
            Framing::UntilClose => self.exactly(u64::MAX, read).or_else(|error| {
                if error.kind() == io::ErrorKind::UnexpectedEof { Ok(()) } else { Err(error) }
            }),
            Framing::Chunked => loop {
                let line = self.line()?.ok_or(io::ErrorKind::UnexpectedEof)?;
                let size = line.split(';').next().unwrap_or_default().trim();
                let size = u64::from_str_radix(size, 16).map_err(|_| io::ErrorKind::InvalidData)?;
                if size == 0 {
                    // Trailers, up to the empty line.
                    while !self.line()?.ok_or(io::ErrorKind::UnexpectedEof)?.is_empty() {}
                    return Ok(());
                }
                self.exactly(size, read)?;
                self.line()?;
            },
        }
    }

    /// Reads a body of a length that is known.
    pub fn content(&mut self, length: u64) -> io::Result<Vec<u8>> {
        let mut body = Vec::new();
        let read = self.reader.by_ref().take(length).read_to_end(&mut body)?;
        if read as u64 == length { Ok(body) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
    }

    /// Reads `length` bytes and throws them away.
    fn exactly(&mut self, length: u64, read: &mut u64) -> io::Result<()> {
        let mut left = length;
        let mut buffer = [0; 16 * 1024];
        while left > 0 {
            let most = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            let count = self.reader.read(&mut buffer[..most])? as u64;
            if count == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            left -= count;
            *read += count;
        }
        Ok(())
    }

    /// A line without its end; `None` at the end of the stream.
    fn line(&mut self) -> io::Result<Option<String>> {
        let mut line = String::new();
        if self.reader.read_line(&mut line)? == 0 {
            return Ok(None);
        }
        Ok(Some(line.trim_end_matches(['\r', '\n']).to_owned()))
    }
}

/// Closing `stream` sends a reset instead of a FIN.
pub fn reset_on_close(stream: &TcpStream) -> io::Result<()> {
    // RFC 9293 3.10.4, ABORT: a linger time of zero makes close() send RST.
    let linger = libc::linger { l_onoff: 1, l_linger: 0 };
    nix::sys::socket::setsockopt(&stream.as_fd(), nix::sys::socket::sockopt::Linger, &linger)?;
    Ok(())
}

/// How an exchange ended for a party that got `error` on the way.
pub fn outcome(error: &io::Error) -> io::Result<&'static str> {
    let kind = error.kind();
    if [io::ErrorKind::ConnectionReset, io::ErrorKind::BrokenPipe].contains(&kind) {
        return Ok("reset");
    }
    if kind == io::ErrorKind::UnexpectedEof { Ok("closed") } else { Err(kind.into()) }
}

/// `length` bytes to send as content.
pub fn content(length: u64) -> Vec<u8> {
    (0..length).map(|number| b'a' + (number % 26) as u8).collect()
}

/// `content` in chunks of several sizes, with an extension and a trailer.
pub fn chunked(content: &[u8]) -> Vec<u8> {
    let mut wire = Vec::new();
    let mut rest = content;
    for size in [1, 10, 1000, 16_384].into_iter().cycle() {
        let (chunk, after) = rest.split_at(size.min(rest.len()));
        if chunk.is_empty() {
            break;
        }
        wire.extend_from_slice(format!("{:x};size={}\r\n", chunk.len(), chunk.len()).as_bytes());
        wire.extend_from_slice(chunk);
        wire.extend_from_slice(b"\r\n");
        rest = after;
    }
    wire.extend_from_slice(b"0\r\nX-Trailer: end\r\n\r\n");
    wire
}

#[cfg(test)]
mod tests {
    use std::net::{Shutdown, TcpListener};

    use super::*;

    /// A reader of `bytes`, then of the end.
    fn wire_with(bytes: &[u8]) -> Wire {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let mut sender = TcpStream::connect(listener.local_addr().expect("bound")).expect("connected");
        sender.write_all(bytes).expect("sent");
        sender.shutdown(Shutdown::Write).expect("ended");
        Wire::new(listener.accept().expect("accepted").0).expect("a wire")
    }

    #[test]
    fn a_chunked_body_is_counted_by_its_content() {
        for length in [0, 1, 11, 12, 5000, 40_000] {
            let mut bytes = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
            bytes.extend(chunked(&content(length)));
            bytes.extend(b"next");
            let mut wire = wire_with(&bytes);
            let head = wire.head().expect("read").expect("a head");
            let mut read = 0;
            wire.body(head.framing(Framing::UntilClose), &mut read).expect("a body");
            assert_eq!(read, length);
            assert_eq!(wire.line().expect("read"), Some("next".to_owned()));
        }
    }

    #[test]
    fn a_body_that_ends_early_is_closed_with_its_count() {
        let mut wire = wire_with(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc");
        let head = wire.head().expect("read").expect("a head");
        let mut read = 0;
        let error = wire.body(head.framing(Framing::UntilClose), &mut read).expect_err("it ends early");
        assert_eq!((outcome(&error).expect("known"), read), ("closed", 3));
    }

    #[test]
    fn no_head_is_no_error() {
        assert!(wire_with(b"").head().expect("read").is_none());
        assert!(wire_with(b"GET").head().is_err());
    }
}
