//! GET /metrics, /live, /ready, on a thread and a runtime of its own: a slow scraper delays nothing.

use std::{
    convert::Infallible,
    io,
    net::{SocketAddr, TcpListener},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use bytes::Bytes;
use http_body_util::Full;
use hyper::{
    Method, Request, Response, StatusCode, body::Incoming, header, server::conn::http1, service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::sync::Semaphore;

use crate::{metrics::Metrics, sinks::OwnConnections};

/// Where metrics are served: the port OpenTelemetry's Prometheus exporters use, on loopback, since nothing asks who asks.
pub const DEFAULT_LISTEN: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 9464);
/// Connections served at once; a scraper needs one, further ones wait to be accepted.
pub const MAX_CONNECTIONS: usize = 16;
/// A request head must be complete by then.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);
/// A connection is closed by then, whatever it does.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(60);
/// Pause after a failed accept: it fails at once again when descriptors are used up.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Where to listen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Listen {
    /// Nobody said: the agent at [`DEFAULT_LISTEN`], replay not at all.
    #[default]
    Unsaid,
    /// Not at all.
    Off,
    /// Here.
    At(SocketAddr),
}

/// The endpoint's configuration.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Config {
    /// Where to listen.
    pub listen: Listen,
}

/// Why there is no endpoint.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The address.
    #[error("metrics.listen: cannot listen on {address}: {source}")]
    Listen {
        /// Which.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// The thread or its runtime.
    #[error("cannot start the admin thread: {0}")]
    Thread(io::Error),
}

/// What requests are answered from.
#[derive(Debug)]
struct Shared {
    metrics: Arc<Metrics>,
    ready: Arc<AtomicBool>,
    own: Arc<OwnConnections>,
}

/// Starts serving. `ready` is what `/ready` tells.
///
/// # Errors
/// The address is taken or not ours, or no thread can be started.
pub fn start(
    address: SocketAddr,
    metrics: Arc<Metrics>,
    ready: Arc<AtomicBool>,
    own: Arc<OwnConnections>,
) -> Result<(), StartError> {
    let failed = |source| StartError::Listen { address, source };
    let listener = TcpListener::bind(address).map_err(failed)?;
    listener.set_nonblocking(true).map_err(failed)?;
    let bound = listener.local_addr().map_err(failed)?;
    // The kernel knows a connection by its listener from the SYN on; by its own socket only once it is accepted.
    if let Ok(cookie) = rustix::net::sockopt::socket_cookie(&listener) {
        own.opened(cookie);
    }
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(StartError::Thread)?;
    let shared = Arc::new(Shared { metrics, ready, own });
    thread::Builder::new()
        .name("admin".to_owned())
        .spawn(move || runtime.block_on(serve(listener, shared)))
        .map_err(StartError::Thread)?;
    tracing::info!(address = %bound, "serving /metrics, /live and /ready");
    Ok(())
}

async fn serve(listener: TcpListener, shared: Arc<Shared>) {
    let listener = match tokio::net::TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => return tracing::error!(%error, "the admin endpoint is not served"),
    };
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        let Ok((stream, peer)) = listener.accept().await else {
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        let shared = Arc::clone(&shared);
        tokio::spawn(async move {
            serve_connection(stream, peer, shared).await;
            drop(place);
        });
    }
}

async fn serve_connection(stream: tokio::net::TcpStream, peer: SocketAddr, shared: Arc<Shared>) {
    let cookie = rustix::net::sockopt::socket_cookie(&stream).ok();
    if let Some(cookie) = cookie {
        shared.own.opened(cookie);
    }
    if let Ok(local) = stream.local_addr() {
        shared.own.connected(peer, local);
    }
    let service = service_fn(|request| {
        let response = answer(&request, &shared);
        async move { Ok::<_, Infallible>(response) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .serve_connection(TokioIo::new(stream), service);
    // A client that misbehaves concerns nobody but itself.
    let _ = tokio::time::timeout(CONNECTION_TIMEOUT, connection).await;
    if let Some(cookie) = cookie {
        shared.own.closed(cookie);
    }
}

fn answer(request: &Request<Incoming>, shared: &Shared) -> Response<Full<Bytes>> {
    let known = matches!(request.uri().path(), "/metrics" | "/live" | "/ready");
    if !known {
        return text(StatusCode::NOT_FOUND, "there are /metrics, /live and /ready\n");
    }
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let mut response = text(StatusCode::METHOD_NOT_ALLOWED, "GET or HEAD\n");
        response.headers_mut().insert(header::ALLOW, header::HeaderValue::from_static("GET, HEAD"));
        return response;
    }
    match request.uri().path() {
        "/metrics" => {
            let mut response = text(StatusCode::OK, shared.metrics.page());
            let format = header::HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
            response.headers_mut().insert(header::CONTENT_TYPE, format);
            response
        }
        "/ready" if !shared.ready.load(Ordering::Relaxed) => {
            text(StatusCode::SERVICE_UNAVAILABLE, "capture is not attached\n")
        }
        _ => text(StatusCode::OK, "ok\n"),
    }
}

fn text(status: StatusCode, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, header::HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}
