//! Connections to the API server that are known as our own from before their first packet on.

use std::{
    future::Future,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use http::Uri;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::{
    client::legacy::connect::{Connected, Connection},
    rt::TokioIo,
};
use rustix::net::sockopt;

use crate::{
    kubernetes::addresses::MAX_LATENESS,
    sinks::{OwnConnections, own::OwnSocket, own_stream::OwnStream},
};

/// A connection that takes longer has failed.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// A connection that says nothing is asked whether its path carries anything after this time.
const PROBE_AFTER: Duration = Duration::from_secs(2);
/// And again after this one.
const PROBE_INTERVAL: Duration = Duration::from_secs(1);
/// A path that carried nothing for so long is given up: two probes, or what was sent meanwhile.
const PATH_TIMEOUT: Duration = Duration::from_secs(4);
/// By then it is known that it was: the kernel's timers come late by a fraction. Names are told as certain up to then, as they are for
/// as long as news may be late.
pub(super) const MAX_PATH_SILENCE: Duration = MAX_LATENESS;
const _: () = assert!(PATH_TIMEOUT.as_secs() + PROBE_INTERVAL.as_secs() <= MAX_PATH_SILENCE.as_secs());

/// Makes them.
#[derive(Clone, Debug)]
pub(super) struct Connector {
    pub(super) own: Arc<OwnConnections>,
}

/// One of them.
#[derive(Debug)]
pub(super) struct Stream {
    stream: TokioIo<OwnStream>,
    _socket: OwnSocket,
}

impl tower::Service<Uri> for Connector {
    type Response = Stream;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Stream>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let own = Arc::clone(&self.own);
        Box::pin(async move {
            tokio::time::timeout(CONNECT_TIMEOUT, connect(&uri, &own))
                .await
                .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
        })
    }
}

async fn connect(uri: &Uri, own: &Arc<OwnConnections>) -> io::Result<Stream> {
    let host = uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
    let port = uri.port_u16().unwrap_or(if uri.scheme_str() == Some("http") { 80 } else { 443 });
    let mut last = io::Error::other(format!("{host} has no address"));
    for address in tokio::net::lookup_host((host, port)).await? {
        match OwnSocket::connect(address, own).await {
            Ok((stream, socket)) => {
                watch_path(&stream)?;
                return Ok(Stream { stream: TokioIo::new(stream), _socket: socket });
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// Has the kernel end the connection if its path carries nothing: of a watch that nobody writes to nothing else would tell.
fn watch_path(stream: &OwnStream) -> io::Result<()> {
    sockopt::set_tcp_keepidle(stream, PROBE_AFTER)?;
    sockopt::set_tcp_keepintvl(stream, PROBE_INTERVAL)?;
    // Also instead of a number of probes (Linux, net/ipv4/tcp_timer.c, tcp_keepalive_timer).
    sockopt::set_tcp_user_timeout(stream, PATH_TIMEOUT.as_millis() as u32)?;
    sockopt::set_socket_keepalive(stream, true)?;
    Ok(())
}

impl Connection for Stream {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

impl Read for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl Write for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_silent_path_is_asked_whether_it_carries_anything() {
        let server = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let uri = format!("http://{}", server.local_addr().unwrap()).parse().unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let stream = runtime.block_on(connect(&uri, &Arc::default())).unwrap().stream.into_inner();
        assert!(sockopt::socket_keepalive(&stream).unwrap());
        assert_eq!(sockopt::tcp_keepidle(&stream).unwrap(), PROBE_AFTER);
        assert_eq!(sockopt::tcp_keepintvl(&stream).unwrap(), PROBE_INTERVAL);
        assert_eq!(u128::from(sockopt::tcp_user_timeout(&stream).unwrap()), PATH_TIMEOUT.as_millis());
    }
}
