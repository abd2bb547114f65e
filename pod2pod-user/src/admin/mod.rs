//! Two listeners, on a thread and a runtime of their own, so that a slow reader delays nothing: /metrics, /live and /ready, which
//! hold no payload; and /config and /tail, which are for loopback, or for who has a token over TLS.
//!
//! A listener has a bounded number of connections, each a bounded head, no request body, and an end.

mod guard;
mod health;
mod pages;
mod places;
mod tail;

use std::{
    convert::Infallible,
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener},
    path::PathBuf,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use http_body_util::Either;
use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};

use self::{guard::Guard, pages::Pages, places::Places};
pub use self::{
    guard::{MAX_TOKEN_BYTES, MIN_TOKEN_BYTES},
    health::{Health, Lists, MAX_LISTS_WAIT, MAX_SILENCE, Readiness, Troubled},
    places::{MAX_CONNECTIONS, MAX_LOCAL_CONNECTIONS},
    tail::{MAX_TIME, MAX_WIDTH},
};
use crate::{
    metrics::Metrics,
    rights::{self, Part},
    secrets::SecretError,
    sinks::{OwnConnections, Tail},
};

/// Where metrics are served: the port OpenTelemetry's Prometheus exporters use, on loopback, since nothing asks who asks.
pub const DEFAULT_LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9464);
/// Where settings are served: beside it, on loopback.
pub const DEFAULT_ADMIN_LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9465);
/// Bytes of a request's head at most; longer ones are answered with 431. Scrapers send some hundred.
pub const MAX_HEAD_BYTES: usize = 16 * 1024;
/// A TLS handshake, and each request's head, must be complete by then.
pub const HEAD_TIMEOUT: Duration = Duration::from_secs(5);
/// A connection is closed by then, whatever it does.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(60);
/// Pause after a failed accept: it fails at once again when descriptors are used up.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Where to listen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Listen {
    /// Nobody said: the agent at its default, replay not at all.
    #[default]
    Unsaid,
    /// Not at all.
    Off,
    /// Here.
    At(SocketAddr),
}

impl Listen {
    /// Where, if `default` is where nobody said.
    pub const fn or(self, default: SocketAddr) -> Option<SocketAddr> {
        match self {
            Self::Unsaid => Some(default),
            Self::Off => None,
            Self::At(address) => Some(address),
        }
    }
}

/// The listener of metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Config {
    /// Where to listen.
    pub listen: Listen,
}

/// The listener of settings, and of whatever shows payload.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AdminConfig {
    /// Where to listen.
    pub listen: Listen,
    /// Certificate chain, PEM; without it there is no TLS.
    pub tls_certificate: Option<PathBuf>,
    /// Its key, PEM.
    pub tls_key: Option<PathBuf>,
    /// The token that is asked for; nothing is without it.
    pub token_file: Option<PathBuf>,
}

impl AdminConfig {
    /// What is wrong with it, if anything: what shows settings is for this machine, or behind TLS and a token.
    pub fn contradiction(&self) -> Option<&'static str> {
        let has_tls = self.tls_certificate.is_some() && self.tls_key.is_some();
        if self.tls_certificate.is_some() != self.tls_key.is_some() {
            return Some("admin.tls_certificate and admin.tls_key: one is of no use without the other");
        }
        match self.listen {
            Listen::Off if *self != Self { listen: Listen::Off, ..Self::default() } => {
                Some("admin: values are given, but admin.listen is off")
            }
            Listen::At(address)
                if !(address.ip().to_canonical().is_loopback() || has_tls && self.token_file.is_some()) =>
            {
                Some(
                    "admin.listen is no loopback address: what it serves needs admin.tls_certificate, admin.tls_key and \
                     admin.token_file there",
                )
            }
            Listen::Unsaid | Listen::Off | Listen::At(_) => None,
        }
    }

    /// Reads the files, to see whether they can be used.
    ///
    /// # Errors
    /// Each that cannot be.
    pub fn check_files(&self) -> Vec<SecretError> {
        guard::check(self)
    }
}

/// Why there is no listener.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The address.
    #[error("{key}: cannot listen on {address}: {source}")]
    Listen {
        /// Of which key.
        key: &'static str,
        /// Which.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// The thread or its runtime.
    #[error("cannot start the admin thread: {0}")]
    Thread(io::Error),
    /// Certificate, key or token.
    #[error(transparent)]
    Secret(#[from] SecretError),
}

/// The key of the listener of metrics.
pub const METRICS_KEY: &str = "metrics.listen";
/// The key of the listener of settings.
pub const ADMIN_KEY: &str = "admin.listen";

/// What requests are answered from.
#[derive(Debug)]
pub struct Shown {
    /// The metrics.
    pub metrics: Arc<Metrics>,
    /// Whether it works.
    pub health: Arc<Health>,
    /// The effective settings, as JSON, without secrets.
    pub settings: String,
    /// Where records are seen as they come.
    pub tail: Arc<Tail>,
}

/// A listener, and who may see what there.
struct Listener {
    socket: TcpListener,
    pages: Pages,
    guard: Guard,
}

/// Everything that serves.
struct Served {
    shown: Shown,
    own: Arc<OwnConnections>,
}

/// Starts serving what is to be served: metrics at `metrics`, settings as `admin` says.
///
/// # Errors
/// An address that was asked for is taken or not ours, a file cannot be used, or no thread can be started.
pub fn start(
    metrics: Option<SocketAddr>,
    (admin, listen): (&AdminConfig, Option<SocketAddr>),
    shown: Shown,
    own: Arc<OwnConnections>,
) -> Result<(), StartError> {
    let mut listeners = Vec::new();
    if let Some(address) = metrics {
        let socket = bind(METRICS_KEY, address)?;
        listeners.push(Listener { socket, pages: Pages::Plain, guard: Guard::open() });
    }
    if let Some(address) = listen {
        let guard = Guard::new(admin)?;
        match bind(ADMIN_KEY, address) {
            Ok(socket) => listeners.push(Listener { socket, pages: Pages::Settings, guard }),
            // Nobody asked for it: it stops nothing.
            Err(error) if admin.listen == Listen::Unsaid => tracing::warn!(%error, "settings are not served"),
            Err(error) => return Err(error),
        }
    }
    if listeners.is_empty() {
        return Ok(());
    }
    for Listener { socket, pages, .. } in &listeners {
        // The kernel knows a connection by its listener from the SYN on; by its own socket only once it is accepted.
        if let Ok(cookie) = rustix::net::sockopt::socket_cookie(socket) {
            own.opened(cookie);
        }
        if let Ok(address) = socket.local_addr() {
            tracing::info!(%address, "serving {}", pages.names());
        }
    }
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(StartError::Thread)?;
    let served = Arc::new(Served { shown, own });
    thread::Builder::new()
        .name("admin".to_owned())
        .spawn(move || {
            // What is refused stays.
            let _ = rights::keep(Part::Admin, |_| true);
            let mut tasks = tokio::task::JoinSet::new();
            for listener in listeners {
                tasks.spawn_on(serve(listener, Arc::clone(&served)), runtime.handle());
            }
            runtime.block_on(async { while tasks.join_next().await.is_some() {} });
        })
        .map_err(StartError::Thread)?;
    Ok(())
}

/// Listens on the address that is said by `key`.
///
/// # Errors
/// The address is taken or not ours.
pub fn bind(key: &'static str, address: SocketAddr) -> Result<TcpListener, StartError> {
    let failed = |source| StartError::Listen { key, address, source };
    let socket = TcpListener::bind(address).map_err(failed)?;
    socket.set_nonblocking(true).map_err(failed)?;
    Ok(socket)
}

async fn serve(listener: Listener, served: Arc<Served>) {
    let Listener { socket, pages, guard } = listener;
    let socket = match tokio::net::TcpListener::from_std(socket) {
        Ok(socket) => socket,
        Err(error) => return tracing::error!(%error, "{} are not served", pages.names()),
    };
    let (places, guard) = (Places::default(), Arc::new(guard));
    loop {
        let Ok((stream, peer)) = socket.accept().await else {
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        // One that there is no place for is closed: only who was accepted says where it comes from.
        let Ok(own) = stream.local_addr() else { continue };
        let Some(place) = places.take(peer.ip(), own.ip()) else { continue };
        let (served, guard) = (Arc::clone(&served), Arc::clone(&guard));
        tokio::spawn(async move {
            serve_connection(stream, peer, (pages, &guard), &served).await;
            drop(place);
        });
    }
}

async fn serve_connection(
    stream: tokio::net::TcpStream,
    peer: SocketAddr,
    (pages, guard): (Pages, &Guard),
    served: &Served,
) {
    let cookie = rustix::net::sockopt::socket_cookie(&stream).ok();
    if let Some(cookie) = cookie {
        served.own.opened(cookie);
    }
    if let Ok(local) = stream.local_addr() {
        served.own.connected(peer, local);
    }
    let looks_on = Arc::<AtomicBool>::default();
    let mut spoken = pin!(async {
        match guard.acceptor() {
            None => speak(stream, (pages, guard, peer), served, &looks_on).await,
            Some(acceptor) => {
                if let Ok(Ok(stream)) = tokio::time::timeout(HEAD_TIMEOUT, acceptor.accept(stream)).await {
                    speak(stream, (pages, guard, peer), served, &looks_on).await;
                }
            }
        }
    });
    // A client that misbehaves concerns nobody but itself; who looks on has no end, but for being stuck.
    while tokio::time::timeout(CONNECTION_TIMEOUT, &mut spoken).await.is_err()
        && looks_on.load(Ordering::Relaxed)
    {}
    if let Some(cookie) = cookie {
        served.own.closed(cookie);
    }
}

async fn speak(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send,
    (pages, guard, peer): (Pages, &Guard, SocketAddr),
    served: &Served,
    looks_on: &Arc<AtomicBool>,
) {
    let service = service_fn(|request| {
        let response = match guard.refuses(&request).or_else(|| pages.refuses(&request)) {
            Some(refusal) => refusal.map(Either::Left),
            None if request.uri().path() == tail::PATH => {
                tail::answer(&request, peer, &served.shown.tail, looks_on)
            }
            None => pages.answer(&request, &served.shown).map(Either::Left),
        };
        async move { Ok::<_, Infallible>(response) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(MAX_HEAD_BYTES)
        .serve_connection(TokioIo::new(stream), service);
    let _ = connection.await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_for_this_machine_or_behind_tls_and_a_token() {
        let file = || Some(PathBuf::from("/x"));
        let config = |listen: &str, tls: bool, token: bool| AdminConfig {
            listen: Listen::At(listen.parse().unwrap()),
            tls_certificate: file().filter(|_| tls),
            tls_key: file().filter(|_| tls),
            token_file: file().filter(|_| token),
        };
        for (listen, tls, token, is_fine) in [
            ("127.0.0.1:1", false, false, true),
            ("127.8.9.10:1", false, true, true),
            ("[::1]:1", true, false, true),
            ("[::ffff:127.0.0.1]:1", false, false, true),
            ("0.0.0.0:1", false, false, false),
            ("[::]:1", false, false, false),
            ("10.0.0.1:1", true, false, false),
            ("10.0.0.1:1", false, true, false),
            ("10.0.0.1:1", true, true, true),
        ] {
            assert_eq!(
                config(listen, tls, token).contradiction().is_none(),
                is_fine,
                "{listen} {tls} {token}"
            );
        }
        let half = AdminConfig { tls_key: file(), ..AdminConfig::default() };
        assert!(half.contradiction().is_some());
        let off = AdminConfig { listen: Listen::Off, ..AdminConfig::default() };
        assert!(off.contradiction().is_none());
        assert!(AdminConfig { token_file: file(), ..off }.contradiction().is_some());
    }

    #[test]
    fn an_address_that_nobody_asked_for_may_be_taken() {
        let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = taken.local_addr().unwrap();
        let begin = |config: &AdminConfig| {
            let (metrics, _) = Metrics::new(&Default::default(), 1).unwrap();
            let health = Arc::new(Health::new(std::time::Instant::now(), None));
            let shown =
                Shown { metrics: Arc::new(metrics), health, settings: String::new(), tail: Arc::default() };
            start(None, (config, Some(address)), shown, Arc::default())
        };
        assert!(begin(&AdminConfig::default()).is_ok());
        let asked = AdminConfig { listen: Listen::At(address), ..AdminConfig::default() };
        let error = begin(&asked).unwrap_err().to_string();
        assert!(error.starts_with(&format!("admin.listen: cannot listen on {address}: ")), "{error}");
    }

    #[test]
    fn an_address_is_where_it_is_said_or_the_default() {
        assert_eq!(Listen::Unsaid.or(DEFAULT_ADMIN_LISTEN), Some(DEFAULT_ADMIN_LISTEN));
        assert_eq!(Listen::Off.or(DEFAULT_LISTEN), None);
        assert!(DEFAULT_LISTEN.ip().is_loopback() && DEFAULT_ADMIN_LISTEN.ip().is_loopback());
    }
}
