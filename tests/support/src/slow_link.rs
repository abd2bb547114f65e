//! A slow way to a server on loopback: what goes there takes its time, what comes back does not.

#![expect(clippy::unwrap_used, reason = "test support: a failure here is the test's failure")]

use std::{
    io::{self, Read as _, Write as _},
    net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};

use rustix::net::sockopt::set_socket_recv_buffer_size;

/// What it takes at a time.
const PIECE_BYTES: usize = 4096;
/// What waits in its sockets is little, or all would be in there at once.
const BUFFER_BYTES: usize = 16 * 1024;

/// A way; its threads end with its connections.
#[derive(Debug)]
pub struct SlowLink {
    /// Of loopback.
    pub port: u16,
}

/// When the next byte may go: all connections share it.
type Pace = Arc<Mutex<Instant>>;

impl SlowLink {
    /// A way to `port` that takes so many bytes a second.
    pub fn start(port: u16, bytes_per_second: u32) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        // Accepted connections have it from the one that listens.
        set_socket_recv_buffer_size(&listener, BUFFER_BYTES).unwrap();
        let own = listener.local_addr().unwrap().port();
        let pace = Arc::new(Mutex::new(Instant::now()));
        thread::spawn(move || {
            for near in listener.incoming().flatten() {
                let Ok(far) = TcpStream::connect(SocketAddr::from((Ipv4Addr::LOCALHOST, port))) else {
                    continue;
                };
                let (from, to, pace) =
                    (near.try_clone().unwrap(), far.try_clone().unwrap(), Arc::clone(&pace));
                thread::spawn(move || carry(from, to, Some((&pace, bytes_per_second))));
                thread::spawn(move || carry(far, near, None));
            }
        });
        Self { port: own }
    }
}

/// Carries what is said until its end, or that of who listens.
fn carry(mut from: TcpStream, mut to: TcpStream, pace: Option<(&Pace, u32)>) {
    let mut piece = [0; PIECE_BYTES];
    let mut step = || -> io::Result<usize> {
        let bytes = from.read(&mut piece)?;
        if let Some((pace, bytes_per_second)) = pace {
            let then = {
                let mut next = pace.lock().unwrap();
                *next = (*next).max(Instant::now()) + Duration::from_secs(bytes as u64) / bytes_per_second;
                *next
            };
            while let Some(left) = then.checked_duration_since(Instant::now()) {
                thread::park_timeout(left);
            }
        }
        to.write_all(&piece[..bytes])?;
        Ok(bytes)
    };
    while step().is_ok_and(|bytes| bytes > 0) {}
    // Either may be gone.
    let _ = (to.shutdown(Shutdown::Write), from.shutdown(Shutdown::Read));
}
