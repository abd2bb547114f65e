//! A server of HTTP for sinks, whichever version it speaks: who we are to it, and connections to it, with TLS where the URL says so.
//!
//! Sockets are told to the kernel before they connect, and requests name us: the agent never observes itself.

use std::{
    fmt,
    net::SocketAddr,
    path::{Path, PathBuf},
    pin::Pin,
    sync::Arc,
};

use http::{HeaderName, HeaderValue, request::Builder};
use hyper::header;
use rustls::pki_types::ServerName;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::timeout,
};
use tokio_rustls::TlsConnector;

use super::{
    http_client::{Access, Header, HeaderFile, MAX_CONNECT_TIME, header_value},
    own::{OwnConnections, OwnSocket},
};
use crate::{
    delivery::{Trouble, TroubleKind},
    secrets::{SecretError, Watched},
};

/// Bytes both ways.
pub(super) trait Stream: AsyncRead + AsyncWrite + Send {}

impl<T: AsyncRead + AsyncWrite + Send> Stream for T {}

/// A connection before anything was said on it.
pub(super) struct Connected {
    /// What it carries.
    pub(super) stream: Pin<Box<dyn Stream>>,
    /// The kernel forgets that it is ours when this is dropped: not before it is closed.
    pub(super) socket: OwnSocket,
}

/// The server.
pub(super) struct Peer {
    access: Access,
    tls: Option<(Watched<TlsConnector>, ServerName<'static>)>,
    headers: Vec<(HeaderName, Watched<HeaderValue>)>,
    own: Arc<OwnConnections>,
    /// By its name for TLS (RFC 7301), where it is no matter of course.
    version: Option<&'static str>,
}

impl Peer {
    /// Reads the files. Where there is TLS, the server is to choose `version`, if one is given.
    ///
    /// # Errors
    /// A file cannot be used.
    pub(super) fn new(
        access: Access,
        own: Arc<OwnConnections>,
        version: Option<&'static str>,
    ) -> Result<Self, SecretError> {
        let client = access.tls.clone();
        let name = access.url.server_name().cloned();
        let name = name.map(|host| access.server_name.clone().unwrap_or(host));
        let tls = name.map(|name| {
            let connector = Watched::new(client.files(), move |_: &[PathBuf]| client.connector());
            connector.map(|connector| (connector, name))
        });
        let headers = access.header_files.iter().map(|HeaderFile { name, file }| {
            let read =
                |files: &[PathBuf]| header_value(files.first().map_or(Path::new(""), PathBuf::as_path));
            Ok((name.clone(), Watched::new(vec![file.clone()], read)?))
        });
        let mut headers = headers.collect::<Result<Vec<_>, SecretError>>()?;
        if let Some(authorization) = access.authorization.clone() {
            let value = Watched::new(authorization.files(), move |_: &[PathBuf]| authorization.value())?;
            headers.push((header::AUTHORIZATION, value));
        }
        Ok(Self { tls: tls.transpose()?, headers, access, own, version })
    }

    /// Where it is, and who we are to it.
    pub(super) const fn access(&self) -> &Access {
        &self.access
    }

    /// `request` with what all of ours have.
    pub(super) fn dress(&self, request: Builder) -> Builder {
        let mut request = request.header(header::USER_AGENT, crate::OWN_USER_AGENT);
        for Header { name, value } in &self.access.headers {
            request = request.header(name, value);
        }
        for (name, value) in &self.headers {
            request = request.header(name, value.current());
        }
        request
    }

    /// Connects to the first address that lets us.
    ///
    /// # Errors
    /// None does; the last one's trouble.
    pub(super) async fn connect(&self) -> Result<Connected, Trouble> {
        let trouble = |error: &dyn fmt::Display| Trouble::new(TroubleKind::Connect, error);
        let (host, port) = (self.access.url.host(), self.access.url.port());
        let addresses = tokio::net::lookup_host((host, port)).await.map_err(|error| trouble(&error))?;
        let mut last = trouble(&format_args!("{host} has no address"));
        for address in addresses {
            // One that swallows everything does not hide the next.
            match timeout(MAX_CONNECT_TIME, self.connect_to(address)).await {
                Ok(Ok(connection)) => return Ok(connection),
                Ok(Err(error)) => last = Trouble { detail: format!("{address}: {}", error.detail), ..error },
                Err(_) => last = trouble(&format_args!("{address}: no connection in {MAX_CONNECT_TIME:?}")),
            }
        }
        Err(last)
    }

    async fn connect_to(&self, address: SocketAddr) -> Result<Connected, Trouble> {
        let trouble = |error| Trouble::new(TroubleKind::Connect, error);
        let (stream, socket) = OwnSocket::connect(address, &self.own).await.map_err(trouble)?;
        let Some((connector, name)) = &self.tls else {
            return Ok(Connected { stream: Box::pin(stream), socket });
        };
        let connector = connector.current();
        let versions = self.version.iter().map(|version| version.as_bytes().to_vec()).collect();
        let stream = connector.with_alpn(versions).connect(name.clone(), stream).await;
        let stream = stream.map_err(|error| Trouble::new(TroubleKind::Tls, error))?;
        if let Some(version) = self.version
            && stream.get_ref().1.alpn_protocol() != Some(version.as_bytes())
        {
            let detail = format!("the server does not speak {version} (ALPN, RFC 7301)");
            return Err(Trouble::new(TroubleKind::Tls, detail));
        }
        Ok(Connected { stream: Box::pin(stream), socket })
    }
}
