//! An HTTP/1.1 server that takes whatever comes, or nothing until it is told to; counts the lines of all bodies. What its threads use is
//! known, so that it can be taken off what the process used.

use std::{
    io::{self, BufRead as _, BufReader, Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use flate2::read::GzDecoder;
use nix::time::{ClockId, clock_gettime};
use ruzstd::decoding::StreamingDecoder;

/// What was counted of all connections.
#[derive(Debug, Default)]
struct Counted {
    takes: AtomicBool,
    records: AtomicU64,
    /// Nanoseconds.
    used: AtomicU64,
}

/// The server, whose threads end with the process.
#[derive(Debug)]
pub(crate) struct Receiver {
    address: SocketAddr,
    counted: Arc<Counted>,
}

impl Receiver {
    /// Listens on loopback; refuses what comes unless it `takes`.
    ///
    /// # Errors
    /// There is no port.
    pub(crate) fn start(takes: bool) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = listener.local_addr()?;
        let counted = Arc::new(Counted { takes: takes.into(), ..Counted::default() });
        let shared = Arc::clone(&counted);
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let counted = Arc::clone(&shared);
                // A client that went away is no fault: the records say what came.
                thread::spawn(move || drop(serve(&stream, &counted)));
            }
        });
        Ok(Self { address, counted })
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}/", self.address)
    }

    /// Takes what comes from now on.
    pub(crate) fn take(&self) {
        self.counted.takes.store(true, Ordering::Relaxed);
    }

    /// Records that were taken.
    pub(crate) fn records(&self) -> u64 {
        self.counted.records.load(Ordering::Relaxed)
    }

    /// CPU time of its threads.
    pub(crate) fn used(&self) -> Duration {
        Duration::from_nanos(self.counted.used.load(Ordering::Relaxed))
    }
}

fn serve(stream: &TcpStream, counted: &Counted) -> io::Result<()> {
    let mut reader = BufReader::with_capacity(256 * 1024, stream);
    let (mut body, mut used) = (Vec::new(), 0);
    while let Some((length, coding)) = head(&mut reader)? {
        body.clear();
        reader.by_ref().take(length).read_to_end(&mut body)?;
        let takes = counted.takes.load(Ordering::Relaxed);
        if takes {
            counted.records.fetch_add(lines(&body, coding)?, Ordering::Relaxed);
        }
        // Before the answer: who hears it may ask what was used.
        let now = thread_time()?;
        counted.used.fetch_add(now - used, Ordering::Relaxed);
        used = now;
        let status = if takes { "200 OK" } else { "503 Service Unavailable" };
        (&mut &*stream).write_all(format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n").as_bytes())?;
    }
    Ok(())
}

/// How a body comes.
#[derive(Clone, Copy, Debug)]
enum Coding {
    Identity,
    Gzip,
    Zstd,
}

/// Length of the body, and how it is coded; absent at the end.
fn head(reader: &mut impl io::BufRead) -> io::Result<Option<(u64, Coding)>> {
    let (mut length, mut coding, mut line) = (0, Coding::Identity, String::new());
    loop {
        line.clear();
        if reader.read_line(&mut line)? == 0 {
            return Ok(None);
        }
        let line = line.trim_end().to_ascii_lowercase();
        if line.is_empty() {
            return Ok(Some((length, coding)));
        }
        if let Some(value) = line.strip_prefix("content-length: ") {
            length = value.parse().map_err(io::Error::other)?;
        }
        coding = match &*line {
            "content-encoding: gzip" => Coding::Gzip,
            "content-encoding: zstd" => Coding::Zstd,
            _ => coding,
        };
    }
}

fn lines(body: &[u8], coding: Coding) -> io::Result<u64> {
    let count = |bytes: &[u8]| memchr::memchr_iter(b'\n', bytes).count() as u64;
    let decoder: Box<dyn io::Read + '_> = match coding {
        Coding::Identity => return Ok(count(body)),
        Coding::Gzip => Box::new(GzDecoder::new(body)),
        Coding::Zstd => Box::new(StreamingDecoder::new(body).map_err(io::Error::other)?),
    };
    let (mut reader, mut all) = (BufReader::with_capacity(64 * 1024, decoder), 0);
    loop {
        let piece = reader.fill_buf()?;
        let length = piece.len();
        if length == 0 {
            return Ok(all);
        }
        all += count(piece);
        reader.consume(length);
    }
}

/// Nanoseconds that this thread used.
fn thread_time() -> io::Result<u64> {
    let time = Duration::from(clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID)?);
    Ok(time.as_nanos() as u64)
}

#[cfg(test)]
mod tests {
    use flate2::{Compression, write::GzEncoder};

    use super::*;

    #[test]
    fn lines_are_counted_compressed_or_not() {
        let body = b"{}\n".repeat(100_000);
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(&body).expect("a Vec takes it");
        let compressed = encoder.finish().expect("a Vec takes it");
        let frame = ruzstd::encoding::compress_to_vec(&body[..], ruzstd::encoding::CompressionLevel::Fastest);
        for (body, coding) in [(&body, Coding::Identity), (&compressed, Coding::Gzip), (&frame, Coding::Zstd)]
        {
            assert_eq!(lines(body, coding).expect("lines"), 100_000);
        }
        assert!(lines(b"{}\n", Coding::Gzip).is_err() && lines(b"{}\n", Coding::Zstd).is_err());
    }

    #[test]
    fn nothing_is_taken_until_it_is_told_to() {
        let receiver = Receiver::start(false).expect("a port");
        let send = || {
            let mut stream = TcpStream::connect(receiver.address).expect("it listens");
            stream.write_all(b"POST / HTTP/1.1\r\nContent-Length: 6\r\n\r\n{}\n{}\n").expect("it reads");
            let mut answer = [0; 12];
            stream.read_exact(&mut answer).expect("it answers");
            answer
        };
        assert_eq!((&send(), receiver.records()), (b"HTTP/1.1 503", 0));
        receiver.take();
        assert_eq!((&send(), receiver.records()), (b"HTTP/1.1 200", 2));
        assert!(receiver.used() > Duration::ZERO);
    }
}
