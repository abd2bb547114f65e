//! What the kernel knows of a connection beyond its stream: bytes that the peer's kernel has not acknowledged, and whether it still is one.

use std::{io, os::fd::AsFd};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
    ioctl::{Getter, Opcode, ioctl},
};

/// Asks for bytes in the send queue (tcp(7), where the same number has another name).
const SIOCOUTQ: Opcode = libc::TIOCOUTQ as Opcode;

/// Bytes that were written to a TCP socket and not acknowledged, sent or not.
///
/// # Errors
/// It is no such socket.
pub(super) fn unacknowledged(socket: impl AsFd) -> io::Result<u64> {
    // SAFETY: of a TCP socket SIOCOUTQ writes one int (tcp(7)), for which the getter has room.
    let bytes = unsafe { ioctl(socket, Getter::<SIOCOUTQ, libc::c_int>::new()) }?;
    Ok(u64::try_from(bytes).unwrap_or_default())
}

/// Whether the peer has closed its side or reset the connection, whatever there still is to read.
pub(super) fn is_broken(socket: &impl AsFd) -> bool {
    let broken = PollFlags::RDHUP | PollFlags::HUP | PollFlags::ERR | PollFlags::NVAL;
    let mut asked = [PollFd::new(socket, PollFlags::RDHUP)];
    loop {
        match poll(&mut asked, Some(&Timespec::default())) {
            Ok(_) => return asked.iter().any(|socket| socket.revents().intersects(broken)),
            Err(Errno::INTR) => {}
            Err(_) => return true,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read as _, Write as _},
        net::{Shutdown, TcpListener, TcpStream},
        time::{Duration, Instant},
    };

    use super::*;

    fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (client, listener.accept().unwrap().0)
    }

    /// Until it is so; the kernel answers in its own time.
    fn comes(mut is_so: impl FnMut() -> bool) -> bool {
        let end = Instant::now() + Duration::from_secs(20);
        while !is_so() {
            if Instant::now() > end {
                return false;
            }
            std::thread::yield_now();
        }
        true
    }

    #[test]
    fn what_nobody_has_room_for_is_not_acknowledged_until_it_is_read() {
        let (mut client, mut server) = pair();
        client.set_nonblocking(true).unwrap();
        let mut written = 0;
        while let Ok(count) = client.write(&[0; 65536]) {
            written += count;
        }
        assert!(unacknowledged(&client).unwrap() > 0 && !is_broken(&client));
        server.read_exact(&mut vec![0; written]).unwrap();
        assert!(comes(|| unacknowledged(&client).unwrap() == 0));
    }

    #[test]
    fn an_end_and_a_reset_are_seen_behind_what_was_not_read() {
        let (client, mut server) = pair();
        assert!(!is_broken(&client));
        server.write_all(b"unread").unwrap();
        assert!(!is_broken(&client));
        server.shutdown(Shutdown::Write).unwrap();
        assert!(comes(|| is_broken(&client)));

        let (mut client, server) = pair();
        client.write_all(b"unread").unwrap();
        // What is closed with something unread is reset.
        drop(server);
        assert!(comes(|| is_broken(&client)));
    }

    #[test]
    fn what_is_no_such_socket_is_an_error() {
        assert!(unacknowledged(std::fs::File::open("/dev/null").unwrap()).is_err());
    }
}
