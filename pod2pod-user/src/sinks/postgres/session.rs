//! A session with a PostgreSQL server: connecting, TLS, and what its errors mean.

use std::{
    fmt, io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use futures_util::SinkExt as _;
use rustls::pki_types::ServerName;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    task::AbortHandle,
    time::timeout,
};
use tokio_postgres::{
    Client, Error, NoTls, SimpleQueryMessage, Statement,
    config::SslMode,
    tls::{ChannelBinding, TlsConnect, TlsStream},
};
use tokio_rustls::TlsConnector;

use super::Config;
use crate::{
    delivery::{Trouble, TroubleKind},
    secrets::SecretError,
    sinks::{
        http_client::MAX_CONNECT_TIME,
        own::{OwnConnections, OwnSocket},
        own_stream::OwnStream,
    },
};

/// A session that is ready for rows.
pub(super) struct Session {
    client: Client,
    /// COPY into the table.
    copy: Statement,
    /// What drives it, and has its socket.
    driver: AbortHandle,
}

impl Drop for Session {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl Session {
    /// Connects, and says who we are; makes the table if that is asked.
    pub(super) async fn open(
        config: &Config,
        connector: Option<TlsConnector>,
        own: &Arc<OwnConnections>,
    ) -> Result<Self, Trouble> {
        let (client, driver) = connect(config, connector, own).await?;
        let ready = async {
            if config.create {
                client.batch_execute(&config.create_table()).await?;
            }
            client.prepare(&config.copy_into(&config.table.quoted())).await
        };
        match ready.await {
            Ok(copy) => Ok(Self { client, copy, driver }),
            Err(error) => {
                driver.abort();
                Err(trouble(&error))
            }
        }
    }

    /// Stores all of `rows`, or none.
    pub(super) async fn copy(&self, rows: &Bytes) -> Result<(), Error> {
        copy(&self.client, &self.copy, rows).await
    }

    /// Stores those of `rows` whose ids are not there yet, or none: ids of those that were stored, as PostgreSQL writes them.
    pub(super) async fn copy_new(&self, config: &Config, rows: &Bytes) -> Result<Vec<String>, Error> {
        let Self { client, .. } = self;
        let (table, columns) = (config.table.quoted(), super::row::names());
        client
            .batch_execute(&format!(
                "BEGIN; CREATE TEMPORARY TABLE pod2pod_batch ON COMMIT DROP AS SELECT {columns} FROM {table} WITH NO DATA"
            ))
            .await?;
        let statement = client.prepare(&config.copy_into("pod2pod_batch")).await?;
        copy(client, &statement, rows).await?;
        let stored = client
            .simple_query(&format!(
                "INSERT INTO {table} ({columns}) SELECT {columns} FROM pod2pod_batch ON CONFLICT DO NOTHING RETURNING id"
            ))
            .await?;
        client.batch_execute("COMMIT").await?;
        let ids = stored.iter().filter_map(|message| {
            let SimpleQueryMessage::Row(row) = message else { return None };
            row.get(0).map(str::to_owned)
        });
        Ok(ids.collect())
    }

    /// Whether it has ended.
    pub(super) fn is_closed(&self) -> bool {
        self.client.is_closed()
    }

    /// Ends a transaction that failed.
    pub(super) async fn roll_back(&self) -> Result<(), Error> {
        self.client.batch_execute("ROLLBACK").await
    }
}

async fn copy(client: &Client, statement: &Statement, rows: &Bytes) -> Result<(), Error> {
    let mut sink = Box::pin(client.copy_in(statement).await?);
    // An answer that comes before all is sent is told at the end.
    let sent = sink.send(rows.clone()).await;
    sink.as_mut().finish().await?;
    sent
}

async fn connect(
    config: &Config,
    connector: Option<TlsConnector>,
    own: &Arc<OwnConnections>,
) -> Result<(Client, AbortHandle), Trouble> {
    let trouble = |error: &dyn fmt::Display| Trouble::new(TroubleKind::Connect, error);
    let (host, port) = (config.url.host(), config.url.port);
    let addresses = tokio::net::lookup_host((host, port)).await.map_err(|error| trouble(&error))?;
    let mut last = trouble(&format_args!("{host} has no address"));
    for address in addresses {
        match timeout(MAX_CONNECT_TIME, connect_to(address, config, connector.clone(), own)).await {
            Ok(Ok(connected)) => return Ok(connected),
            Ok(Err(error)) => last = Trouble { detail: format!("{address}: {}", error.detail), ..error },
            Err(_) => last = trouble(&format_args!("{address}: no connection in {MAX_CONNECT_TIME:?}")),
        }
    }
    Err(last)
}

async fn connect_to(
    address: SocketAddr,
    config: &Config,
    connector: Option<TlsConnector>,
    own: &Arc<OwnConnections>,
) -> Result<(Client, AbortHandle), Trouble> {
    let unconnected = |error| Trouble::new(TroubleKind::Connect, error);
    let unknown = |error: SecretError| Trouble::new(TroubleKind::Unauthorized, error);
    let (stream, socket) = OwnSocket::connect(address, own).await.map_err(unconnected)?;
    let mut session = tokio_postgres::Config::new();
    session.user(&config.user).dbname(&config.url.database).application_name("pod2pod");
    if let Some(password) = config.password.as_ref() {
        session.password(password.read().map_err(unknown)?);
    }
    match (&config.tls, connector) {
        (Some((_, name)), Some(connector)) => {
            let tls = Tls { connector, name: name.clone() };
            session.ssl_mode(SslMode::Require);
            let (client, driver) = session.connect_raw(stream, tls).await.map_err(|error| trouble(&error))?;
            Ok((client, drive(driver, socket)))
        }
        (None, _) | (_, None) => {
            session.ssl_mode(SslMode::Disable);
            let (client, driver) =
                session.connect_raw(stream, NoTls).await.map_err(|error| trouble(&error))?;
            Ok((client, drive(driver, socket)))
        }
    }
}

fn drive(driver: impl Future<Output = Result<(), Error>> + Send + 'static, socket: OwnSocket) -> AbortHandle {
    let task = tokio::spawn(async move {
        // What goes wrong here shows in the request that waits for it.
        let _ = driver.await;
        // The kernel forgets that the socket is ours when it is closed, and not before.
        drop(socket);
    });
    task.abort_handle()
}

/// What an error comes to whose rows may be taken later.
pub(super) fn trouble(error: &Error) -> Trouble {
    let Some(told) = error.as_db_error() else {
        // The only word that there is of it.
        let kind = if error.to_string().contains("TLS") {
            TroubleKind::Tls
        } else if error.is_closed() || causes(error).any(|cause| cause.is::<io::Error>()) {
            TroubleKind::Closed
        } else {
            TroubleKind::Nonsense
        };
        return Trouble::new(kind, Told(error));
    };
    let code = told.code().code();
    Trouble::new(kind(code), format_args!("{code}: {}", told.message()))
}

/// Of an error's code, its class (PostgreSQL 15, appendix A).
fn kind(code: &str) -> TroubleKind {
    match (code.get(..2).unwrap_or_default(), code) {
        // Who we are not, and what we may not.
        ("28", _) | (_, "42501") => TroubleKind::Unauthorized,
        (_, "53300") => TroubleKind::Throttled,
        _ => TroubleKind::Unavailable,
    }
}

/// Whether an error is of a row, and not of how the server is: data, constraints, its own limits, a trigger's word.
pub(super) fn is_of_a_row(error: &Error) -> bool {
    let class = error.code().and_then(|code| code.code().get(..2));
    matches!(class, Some("22" | "23" | "44" | "54" | "P0"))
}

fn causes(error: &Error) -> impl Iterator<Item = &(dyn std::error::Error + 'static)> {
    std::iter::successors(std::error::Error::source(error), |error| error.source())
}

/// An error with what it comes from.
struct Told<'a>(&'a Error);

impl fmt::Display for Told<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}", self.0)?;
        match causes(self.0).last() {
            Some(cause) => write!(formatter, ": {cause}"),
            None => Ok(()),
        }
    }
}

/// TLS by our own means.
struct Tls {
    connector: TlsConnector,
    name: ServerName<'static>,
}

impl TlsConnect<OwnStream> for Tls {
    type Stream = Secured;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Secured>> + Send>>;

    fn connect(self, stream: OwnStream) -> Self::Future {
        Box::pin(async move { self.connector.connect(self.name, stream).await.map(Secured) })
    }
}

struct Secured(tokio_rustls::client::TlsStream<OwnStream>);

impl TlsStream for Secured {
    /// The server's certificate is verified, and its name: there is nobody between.
    fn channel_binding(&self) -> ChannelBinding {
        ChannelBinding::none()
    }
}

impl AsyncRead for Secured {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(context, buffer)
    }
}

impl AsyncWrite for Secured {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}
