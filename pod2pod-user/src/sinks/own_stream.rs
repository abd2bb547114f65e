//! A stream of the agent's own, of which little waits in the kernel: what is given up midway does not go on its way, or a slow way would
//! carry each attempt to its end, one after the other, and the target would have each.

use std::{
    io::{self, IoSlice},
    os::fd::{AsFd, BorrowedFd},
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use rustix::net::sockopt::set_socket_linger;
use socket2::SockRef;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};

use super::unacknowledged::unacknowledged;

/// So much of what was written and not sent yet waits in the kernel (tcp(7), `TCP_NOTSENT_LOWAT`; what is on its way is not counted): a
/// write of more waits, and goes on when half of it has left. Enough that nobody wakes up for a packet.
pub const MAX_UNSENT_BYTES: u32 = 64 * 1024;

/// A stream that was connected.
#[derive(Debug)]
pub struct OwnStream {
    stream: TcpStream,
    /// Its end was said, or is to be: what waits goes out.
    is_ended: bool,
}

impl OwnStream {
    /// Takes it over.
    pub(super) fn new(stream: TcpStream) -> Self {
        // Where it is not known, more waits.
        let _ = limit_unsent(&stream);
        Self { stream, is_ended: false }
    }

    /// What waits goes out though the stream is dropped.
    pub(super) const fn let_go(&mut self) {
        self.is_ended = true;
    }
}

impl Drop for OwnStream {
    fn drop(&mut self) {
        if !self.is_ended {
            give_up(&self.stream);
        }
    }
}

/// Sets [`MAX_UNSENT_BYTES`].
///
/// # Errors
/// It is no such socket, or the kernel is older than 3.12.
pub(super) fn limit_unsent(socket: &impl AsFd) -> io::Result<()> {
    SockRef::from(socket).set_tcp_notsent_lowat(MAX_UNSENT_BYTES)
}

/// Before a socket is closed: if the peer has not acknowledged all, the rest is not sent, and the peer is told (RFC 9293, section 3.10.4,
/// ABORT).
pub(super) fn give_up(socket: &impl AsFd) {
    if unacknowledged(socket).is_ok_and(|bytes| bytes > 0) {
        // Otherwise the rest is sent, as far as it goes.
        let _ = set_socket_linger(socket, Some(Duration::ZERO));
    }
}

impl AsFd for OwnStream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

impl AsyncRead for OwnStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for OwnStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.is_ended = true;
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{ErrorKind, Read as _},
        net::TcpListener,
    };

    use tokio::io::AsyncWriteExt as _;

    use super::*;

    /// Far more than what the kernels' buffers take.
    const MUCH: usize = 64 * 1024 * 1024;

    /// A stream whose peer reads nothing, to which much was written until it took no more, and that was dropped, `ended` before or not;
    /// what the peer then reads, and how that ends.
    fn dropped(ended: bool) -> (usize, Result<(), ErrorKind>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let (mut peer, written) = runtime.block_on(async {
            let mut stream = OwnStream::new(TcpStream::connect(address).await.unwrap());
            let (peer, _) = listener.accept().unwrap();
            let (much, mut written) = (vec![0; MUCH], 0);
            // It waits for room that never comes.
            while let Ok(bytes) = tokio::time::timeout(Duration::from_millis(300), stream.write(&much)).await
            {
                written += bytes.unwrap();
            }
            assert!(written < MUCH, "there was room for all of it");
            if ended {
                stream.let_go();
            }
            (peer, written)
        });
        let (mut read, mut part) = (0, vec![0; 1 << 20]);
        let end = loop {
            match peer.read(&mut part) {
                Ok(0) => break Ok(()),
                Ok(bytes) => read += bytes,
                Err(error) => break Err(error.kind()),
            }
        };
        assert!(read <= written);
        (written - read, end)
    }

    #[test]
    fn what_is_given_up_is_not_sent_and_what_was_ended_is() {
        let (left, end) = dropped(false);
        assert!(left > 0 && end == Err(ErrorKind::ConnectionReset), "{left} {end:?}");
        assert_eq!(dropped(true), (0, Ok(())));
    }

    #[test]
    fn little_waits_in_the_kernel() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let _inside = runtime.enter();
        let stream = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        stream.set_nonblocking(true).unwrap();
        let stream = OwnStream::new(TcpStream::from_std(stream).unwrap());
        assert_eq!(SockRef::from(&stream).tcp_notsent_lowat().unwrap(), MAX_UNSENT_BYTES);
        // Nothing was written: an ordinary end.
        let (mut peer, _) = listener.accept().unwrap();
        drop(stream);
        assert_eq!(peer.read(&mut [0]).unwrap(), 0);
    }
}
