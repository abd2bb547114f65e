//! A client of HTTP/1.1 for sinks: connections that are kept, TLS, headers from files, trouble by its kind.
//!
//! Connections come from [`super::peer`].

use std::{
    cell::RefCell,
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{HeaderName, HeaderValue, response::Parts};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{Method, Request, StatusCode, Uri, client::conn::http1::SendRequest, header};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::{task::AbortHandle, time::timeout};

use super::{
    own::OwnConnections,
    peer::{Connected, Peer},
};
use crate::{
    delivery::{Trouble, TroubleKind},
    record::text::push_base64,
    secrets::{SecretError, small_file, tls},
};

/// A head of an answer that is longer is nonsense: servers send some hundred bytes.
pub const MAX_HEAD_BYTES: usize = 64 * 1024;
/// An answer's body that is not there after this time is not waited for, where what became of the records is in the head.
pub const MAX_BODY_TIME: Duration = Duration::from_secs(1);
/// An address that gives no connection in this time is left for the next one.
pub const MAX_CONNECT_TIME: Duration = Duration::from_secs(5);
/// A connection that nobody used for so long is not used again: what is between may have forgotten it.
pub const MAX_IDLE: Duration = Duration::from_secs(30);
/// A file with a header's value has at most so many bytes: servers take some thousand.
pub const MAX_HEADER_BYTES: usize = 8192;

/// A header of every request. What it says may be a secret.
#[derive(Clone, PartialEq, Eq)]
pub struct Header {
    /// Its name.
    pub name: HeaderName,
    /// Its value.
    pub value: HeaderValue,
}

impl Header {
    /// Reads `Name: value`; absent if it is none, or one that the request has anyway.
    pub fn parse(text: &str) -> Option<Self> {
        let (name, value) = text.split_once(':')?;
        let value = HeaderValue::from_str(value.trim()).ok().filter(|value| !value.is_empty())?;
        Some(Self { name: header_name(name)?, value })
    }
}

/// Not its value.
impl fmt::Debug for Header {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("Header").field(&self.name).finish()
    }
}

/// A header whose value is in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeaderFile {
    /// Its name.
    pub name: HeaderName,
    /// Where its value is.
    pub file: PathBuf,
}

impl HeaderFile {
    /// Reads `Name: path`; absent if it is none, or a header that the request has anyway.
    pub fn parse(text: &str) -> Option<Self> {
        let (name, path) = text.split_once(':')?;
        let file = Some(path.trim()).filter(|path| !path.is_empty())?.into();
        Some(Self { name: header_name(name)?, file })
    }
}

/// Not those of a connection (RFC 9110, section 7.6.1), of how a message is sent or of how its answer is, nor those of gRPC's own.
fn header_name(text: &str) -> Option<HeaderName> {
    let name: HeaderName = text.trim().parse().ok()?;
    let own = [
        header::ACCEPT_ENCODING,
        header::EXPECT,
        header::TE,
        header::TRAILER,
        header::UPGRADE,
        HeaderName::from_static("keep-alive"),
        HeaderName::from_static("proxy-connection"),
        header::HOST,
        header::USER_AGENT,
        header::CONTENT_TYPE,
        header::CONTENT_LENGTH,
        header::CONTENT_ENCODING,
        header::TRANSFER_ENCODING,
        header::CONNECTION,
    ];
    (!own.contains(&name) && !name.as_str().starts_with("grpc-")).then_some(name)
}

/// What is said of us in `Authorization` (RFC 9110, section 11.6.2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Authorization {
    /// A name and a password (RFC 7617).
    Basic(String, Secret),
    /// A token (RFC 6750).
    Bearer(Secret),
    /// Elasticsearch's: base64 of an id, a colon and a key.
    ApiKey(Secret),
}

/// What nobody is to be told.
#[derive(Clone, PartialEq, Eq)]
pub enum Secret {
    /// In a file, which is read again when it changes.
    File(PathBuf),
    /// As it was written.
    Given(String),
}

/// Not what it is.
impl fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => formatter.debug_tuple("File").field(path).finish(),
            Self::Given(_) => formatter.write_str("Given"),
        }
    }
}

impl Secret {
    /// What it is now.
    pub(super) fn read(&self) -> Result<Vec<u8>, SecretError> {
        match self {
            Self::File(path) => Ok(small_file(path, MAX_HEADER_BYTES)?.trim_ascii().to_vec()),
            Self::Given(text) => Ok(text.clone().into_bytes()),
        }
    }
}

impl Authorization {
    const fn secret(&self) -> &Secret {
        match self {
            Self::Basic(_, secret) | Self::Bearer(secret) | Self::ApiKey(secret) => secret,
        }
    }

    pub(super) fn files(&self) -> Vec<PathBuf> {
        match self.secret() {
            Secret::File(path) => vec![path.clone()],
            Secret::Given(_) => Vec::new(),
        }
    }

    pub(super) fn value(&self) -> Result<HeaderValue, SecretError> {
        let secret = self.secret().read()?;
        let mut value = Vec::new();
        match self {
            Self::Basic(user, _) => {
                value.extend_from_slice(b"Basic ");
                push_base64(&mut value, &[user.as_bytes(), b":", &secret].concat());
            }
            Self::Bearer(_) => value = [b"Bearer ", &secret[..]].concat(),
            Self::ApiKey(_) => value = [b"ApiKey ", &secret[..]].concat(),
        }
        let file = || self.files().pop().unwrap_or_default();
        let value = HeaderValue::from_bytes(&value).ok().filter(|_| !secret.is_empty());
        value.ok_or_else(|| SecretError::HeaderValue(file()))
    }
}

/// An `http:` or `https:` URL, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Url {
    /// Whom to expect there, if it is `https:`.
    tls: Option<ServerName<'static>>,
    authority: String,
    host: String,
    port: u16,
    path: String,
}

impl Url {
    /// Reads `text`; absent if it is no such URL, or has user information.
    pub fn parse(text: &str) -> Option<Self> {
        let uri: Uri = text.parse().ok()?;
        let authority = uri.authority()?;
        let is_tls = match uri.scheme_str()? {
            "http" => false,
            "https" => true,
            _ => return None,
        };
        if authority.as_str().contains('@') {
            return None;
        }
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        let tls = if is_tls { Some(ServerName::try_from(host.clone()).ok()?) } else { None };
        let path = uri.path_and_query().map_or("/", |path| path.as_str()).to_owned();
        let host_only = authority.as_str().len() == authority.host().len();
        if !host_only && uri.port_u16().is_none() {
            return None;
        }
        let port = uri.port_u16().unwrap_or(if is_tls { 443 } else { 80 });
        Some(Self { tls, authority: authority.as_str().to_owned(), host, port, path })
    }

    /// Whether it is `https:`.
    pub const fn is_tls(&self) -> bool {
        self.tls.is_some()
    }

    /// Whom to expect there, if it is `https:`.
    pub const fn server_name(&self) -> Option<&ServerName<'static>> {
        self.tls.as_ref()
    }

    /// Host and port, as they were written.
    pub fn authority(&self) -> &str {
        &self.authority
    }

    /// A name or an address.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// 80 or 443 if none was written.
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// With its query.
    pub fn path(&self) -> &str {
        &self.path
    }
}

/// Where a server is, and who we are to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Access {
    /// `http://host[:port]/path` or `https://`.
    pub url: Url,
    /// Headers beside those of every request.
    pub headers: Vec<Header>,
    /// The same, with values from files.
    pub header_files: Vec<HeaderFile>,
    /// Who we are, if that is asked.
    pub authorization: Option<Authorization>,
    /// For `https://`.
    pub tls: tls::Client,
    /// Whose certificate it should be; the URL's host's if absent.
    pub server_name: Option<ServerName<'static>>,
}

impl Access {
    /// Reads the files, to see whether they can be used; each that cannot be.
    pub fn check_files(&self) -> Vec<SecretError> {
        let tls = self.url.is_tls().then(|| self.tls.connector().err()).flatten();
        let headers = self.header_files.iter().filter_map(|header| header_value(&header.file).err());
        let authorization = self.authorization.as_ref().and_then(|authorization| authorization.value().err());
        tls.into_iter().chain(headers).chain(authorization).collect()
    }
}

pub(super) fn header_value(file: &Path) -> Result<HeaderValue, SecretError> {
    let bytes = small_file(file, MAX_HEADER_BYTES)?;
    let value = HeaderValue::from_bytes(bytes.trim_ascii()).ok().filter(|value| !value.is_empty());
    value.ok_or_else(|| SecretError::HeaderValue(file.to_owned()))
}

/// The client of one server, for one thread.
pub(super) struct Client {
    peer: Peer,
    /// Connections that nobody uses.
    idle: RefCell<Vec<Connection>>,
    reading: Reading,
}

/// How much of an answer is read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reading {
    /// Bytes at most.
    pub(super) most: usize,
    /// How long its body is waited for, once its head is there.
    pub(super) time: Duration,
}

struct Connection {
    sender: SendRequest<Full<Bytes>>,
    /// What drives it, and has its socket: nothing of it stays when it is dropped, whatever the server does.
    driver: AbortHandle,
    /// When it was last used.
    used: Instant,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

/// What a server answered: its head, and its body if that is not too long.
pub(super) type Answered = (Parts, Option<Bytes>);

impl Client {
    /// Reads the files, and connects when there is something to send.
    ///
    /// # Errors
    /// A file cannot be used.
    pub(super) fn new(
        access: Access,
        own: Arc<OwnConnections>,
        reading: Reading,
    ) -> Result<Self, SecretError> {
        Ok(Self { peer: Peer::new(access, own, None)?, idle: RefCell::default(), reading })
    }

    /// A request to the server's URL, without what depends on the body.
    pub(super) fn request(&self, method: &Method) -> http::request::Builder {
        self.request_at(method, self.peer.access().url.path())
    }

    /// A request to another path of the server.
    pub(super) fn request_at(&self, method: &Method, path: &str) -> http::request::Builder {
        let request = Request::builder().method(method).uri(path);
        self.peer.dress(request.header(header::HOST, self.peer.access().url.authority()))
    }

    /// Sends a request and waits for the answer; again where a connection was closed that nobody used.
    ///
    /// # Errors
    /// There is none.
    pub(super) async fn send(&self, request: Request<Full<Bytes>>) -> Result<Answered, Trouble> {
        loop {
            let kept = self.keep_one();
            let is_kept = kept.is_some();
            let mut connection = match kept {
                Some(connection) => connection,
                None => begin(self.peer.connect().await?).await?,
            };
            // A server that answers before it has read a request may never read the rest.
            let answer = match timeout(MAX_BODY_TIME, connection.sender.ready()).await {
                Ok(Ok(())) => connection.sender.send_request(request.clone()).await,
                Ok(Err(error)) => Err(error),
                Err(_) => continue,
            };
            match answer {
                Ok(response) => {
                    let (head, body) = response.into_parts();
                    // It is read to its end so that the connection can be used again; what it says is in the head.
                    let body = Limited::new(body, self.reading.most).collect();
                    let body = timeout(self.reading.time, body).await.ok().and_then(Result::ok);
                    if body.is_some() {
                        connection.used = Instant::now();
                        self.idle.borrow_mut().push(connection);
                    }
                    return Ok((head, body.map(http_body_util::Collected::to_bytes)));
                }
                // The server closed what was idle, which is no trouble; the others have most likely gone with it.
                Err(error) if is_kept && !error.is_parse() => self.idle.borrow_mut().clear(),
                Err(error) if error.is_parse() => return Err(Trouble::new(TroubleKind::Nonsense, error)),
                Err(error) => return Err(Trouble::new(TroubleKind::Closed, error)),
            }
        }
    }

    /// A connection that nobody uses.
    fn keep_one(&self) -> Option<Connection> {
        let mut idle = self.idle.borrow_mut();
        let now = Instant::now();
        idle.retain(|kept| !kept.sender.is_closed() && now.saturating_duration_since(kept.used) < MAX_IDLE);
        idle.pop()
    }

    /// Asks for nothing but an answer; any will do that does not refuse who we are.
    ///
    /// # Errors
    /// There is none, or it does.
    pub(super) async fn probe(&self) -> Result<String, Trouble> {
        let request = self.request(&Method::HEAD).body(Full::new(Bytes::new()));
        let request = request.map_err(|error| Trouble::new(TroubleKind::Nonsense, error))?;
        let (head, _) = self.send(request).await?;
        let_in(head.status)?;
        Ok(format!("answers HEAD with {}", head.status))
    }
}

/// Whether a status says nothing against who we are (RFC 9110, sections 15.5.2, 15.5.4 and 15.5.8).
///
/// # Errors
/// It does.
pub(super) fn let_in(status: StatusCode) -> Result<(), Trouble> {
    match status.as_u16() {
        401 | 403 | 407 => Err(Trouble::new(TroubleKind::Unauthorized, status)),
        _ => Ok(()),
    }
}

/// Begins to speak HTTP/1.1.
async fn begin(Connected { stream, socket }: Connected) -> Result<Connection, Trouble> {
    let mut builder = hyper::client::conn::http1::Builder::new();
    builder.max_buf_size(MAX_HEAD_BYTES);
    let connection = builder.handshake(TokioIo::new(stream)).await;
    let (sender, driver) = connection.map_err(|error| Trouble::new(TroubleKind::Closed, error))?;
    let driver = tokio::spawn(async move {
        // What goes wrong here shows in the request that waits for it.
        let _ = driver.await;
        // The kernel forgets that the socket is ours when it is closed, and not before.
        drop(socket);
    });
    Ok(Connection { sender, driver: driver.abort_handle(), used: Instant::now() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls() {
        let check = |text: &str, expected: Option<(&str, u16, &str)>| {
            let url = Url::parse(text);
            let parts = url.as_ref().map(|url| (url.host.as_str(), url.port, url.path.as_str()));
            assert_eq!(parts, expected, "{text}");
        };
        check("http://collector", Some(("collector", 80, "/")));
        check("http://[::1]:8080/in?x=1", Some(("::1", 8080, "/in?x=1")));
        check("https://collector/", Some(("collector", 443, "/")));
        check("https://10.0.0.1:8443", Some(("10.0.0.1", 8443, "/")));
        check("https://not_a_name:1:2/", None);
        check("ftp://collector/", None);
        check("http://collector:99999/", None);
        check("http://collector:/", None);
        check("http://u:p@collector/", None);
        check("collector:80", None);
        check("", None);
    }

    #[test]
    fn who_we_are() {
        let given = |text: &str| Secret::Given(text.to_owned());
        for (authorization, expected) in [
            (Authorization::Basic("user".to_owned(), given("pass")), "Basic dXNlcjpwYXNz"),
            (Authorization::Bearer(given("pass")), "Bearer pass"),
            (Authorization::ApiKey(given("dXNlcjpwYXNz")), "ApiKey dXNlcjpwYXNz"),
        ] {
            assert_eq!(authorization.value().unwrap(), expected);
            assert!(!format!("{authorization:?}").contains("pass"));
        }
        assert!(Authorization::Bearer(given("")).value().is_err());
        assert!(Authorization::Bearer(given("a\nb")).value().is_err());
    }

    #[test]
    fn headers() {
        let check = |text: &str, expected: Option<(&str, &str)>| {
            let header = Header::parse(text);
            let parts = header.as_ref().map(|header| (header.name.as_str(), header.value.to_str().unwrap()));
            assert_eq!(parts, expected, "{text}");
        };
        check("X-Scope-OrgID: shop", Some(("x-scope-orgid", "shop")));
        check("Authorization:Bearer a:b", Some(("authorization", "Bearer a:b")));
        check("Host: elsewhere", None);
        check("Content-Length: 7", None);
        check("TE: trailers", None);
        check("Keep-Alive: timeout=5", None);
        check("Accept-Encoding: gzip", None);
        check("gRPC-Timeout: 1S", None);
        check("Grpcish: 1", Some(("grpcish", "1")));
        check("no colon", None);
        check("X: ", None);
        check("X: a\nY: b", None);
        let told = format!("{:?}", Header::parse("Authorization: Bearer secret"));
        assert!(told.contains("authorization") && !told.contains("secret"), "{told}");
        let file = HeaderFile::parse("Authorization: /run/token").unwrap();
        assert_eq!((file.name, file.file), (header::AUTHORIZATION, PathBuf::from("/run/token")));
        assert!(HeaderFile::parse("Authorization: ").is_none() && HeaderFile::parse("Host: /x").is_none());
    }

    #[test]
    fn a_header_in_a_file_at_its_limit_and_one_past() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let value = |text: &str| {
            std::fs::write(file.path(), text).unwrap();
            header_value(file.path())
        };
        assert_eq!(value(" Bearer a\n").unwrap(), "Bearer a");
        let most = "x".repeat(MAX_HEADER_BYTES);
        assert_eq!(value(&most).unwrap().len(), MAX_HEADER_BYTES);
        assert!(matches!(value(&(most + "x")), Err(SecretError::TooLong { .. })));
        assert!(matches!(value("\n"), Err(SecretError::HeaderValue(_))));
        assert!(matches!(value("a\nb"), Err(SecretError::HeaderValue(_))));
    }
}
