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
use tokio::net::TcpStream;

use crate::sinks::{OwnConnections, own::OwnSocket};

/// A connection that takes longer has failed.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Makes them.
#[derive(Clone, Debug)]
pub(super) struct Connector {
    pub(super) own: Arc<OwnConnections>,
}

/// One of them.
#[derive(Debug)]
pub(super) struct Stream {
    stream: TokioIo<TcpStream>,
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
                // A hint: requests are small.
                let _ = stream.set_nodelay(true);
                return Ok(Stream { stream: TokioIo::new(stream), _socket: socket });
            }
            Err(error) => last = error,
        }
    }
    Err(last)
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
