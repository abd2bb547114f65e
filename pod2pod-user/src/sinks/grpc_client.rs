//! A client of gRPC for sinks: calls of one message each way, many at once on one connection of HTTP/2, which is made anew when it ends.
//!
//! <https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md>. How long a call may take is for whoever calls: it is reset when nobody
//! waits for it any more.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use base64::{
    Engine as _,
    alphabet::STANDARD,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use bytes::{BufMut as _, Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Request, StatusCode, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{body::Incoming, client::conn::http2::SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use percent_encoding::percent_decode;
use tokio::{sync::Mutex, task::AbortHandle};

use super::{
    coding::Coding,
    http_client::{Access, MAX_HEAD_BYTES, MAX_IDLE},
    own::OwnConnections,
    peer::{Connected, Peer},
};
use crate::{
    delivery::{Trouble, TroubleKind},
    secrets::SecretError,
};

/// While calls are under way a server is asked after this time of silence whether it is still there: a peer that vanished is found out
/// before the attempts of a whole connection have run out of time. gRPC's servers allow one such question in five minutes by default, and
/// count only those without a call under way.
const KEEP_ALIVE: Duration = Duration::from_secs(10);
/// And has this time to say so.
const KEEP_ALIVE_ANSWER: Duration = Duration::from_secs(10);
/// Before a message: whether it is compressed, and its length.
const PREFIX_BYTES: usize = 5;
/// How a message is coded that says that it is.
const ENCODING: &str = "grpc-encoding";
/// Version of HTTP, as TLS calls it.
const VERSION: &str = "h2";

/// What a server said of a call, in a head or a trailer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Status {
    /// Its code.
    pub(super) code: Code,
    /// In words.
    pub(super) message: String,
    /// `google.rpc.Status` as a message, if there is more to say.
    pub(super) details: Vec<u8>,
}

/// A code of gRPC (<https://github.com/grpc/grpc/blob/master/doc/statuscodes.md>).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Code(pub(super) u32);

impl Code {
    pub(super) const OK: Self = Self(0);
    pub(super) const CANCELLED: Self = Self(1);
    pub(super) const DEADLINE_EXCEEDED: Self = Self(4);
    pub(super) const PERMISSION_DENIED: Self = Self(7);
    pub(super) const RESOURCE_EXHAUSTED: Self = Self(8);
    pub(super) const ABORTED: Self = Self(10);
    pub(super) const OUT_OF_RANGE: Self = Self(11);
    pub(super) const UNIMPLEMENTED: Self = Self(12);
    pub(super) const UNAVAILABLE: Self = Self(14);
    pub(super) const DATA_LOSS: Self = Self(15);
    pub(super) const UNAUTHENTICATED: Self = Self(16);

    /// Its name.
    pub(super) const fn name(self) -> &'static str {
        match self.0 {
            0 => "OK",
            1 => "CANCELLED",
            3 => "INVALID_ARGUMENT",
            4 => "DEADLINE_EXCEEDED",
            5 => "NOT_FOUND",
            6 => "ALREADY_EXISTS",
            7 => "PERMISSION_DENIED",
            8 => "RESOURCE_EXHAUSTED",
            9 => "FAILED_PRECONDITION",
            10 => "ABORTED",
            11 => "OUT_OF_RANGE",
            12 => "UNIMPLEMENTED",
            13 => "INTERNAL",
            14 => "UNAVAILABLE",
            15 => "DATA_LOSS",
            16 => "UNAUTHENTICATED",
            // Of a number that nobody knows nothing more is known.
            _ => "UNKNOWN",
        }
    }
}

/// How a call ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Called {
    /// As the protocol says, with the answer's message if there was one.
    Told(Status, Bytes),
    /// Something before the server answered, in the words of HTTP.
    Http(StatusCode, HeaderMap),
}

/// The client of one server, for one thread.
pub(super) struct Client {
    peer: Peer,
    coding: Coding,
    /// Bytes of an answer at most.
    most: usize,
    /// And when a call was last made on it. Whoever finds none makes it, and the others wait.
    connection: Mutex<Option<(Arc<Connection>, Instant)>>,
}

struct Connection {
    sender: SendRequest<Full<Bytes>>,
    /// What drives it, and has its socket: nothing of it stays when it is dropped, whatever the server does.
    driver: AbortHandle,
    /// A call on it had no answer: the next one is made on another.
    is_over: AtomicBool,
}

impl Connection {
    async fn exchange(&self, request: Request<Full<Bytes>>, most: usize) -> Result<Called, Trouble> {
        // Also if nobody waits any more: what answers nothing may never answer.
        let mut unanswered = Unanswered(Some(self));
        let mut sender = self.sender.clone();
        sender.ready().await.map_err(|error| trouble(&error))?;
        let response = sender.send_request(request).await.map_err(|error| trouble(&error))?;
        let called = read(response, most).await?;
        unanswered.0 = None;
        Ok(called)
    }
}

/// A call that has no answer yet.
struct Unanswered<'a>(Option<&'a Connection>);

impl Drop for Unanswered<'_> {
    fn drop(&mut self) {
        if let Some(connection) = self.0 {
            connection.is_over.store(true, Ordering::Relaxed);
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl Client {
    /// Reads the files, and connects when there is something to send.
    ///
    /// # Errors
    /// A file cannot be used.
    pub(super) fn new(
        access: Access,
        own: Arc<OwnConnections>,
        coding: Coding,
        most: usize,
    ) -> Result<Self, SecretError> {
        Ok(Self { peer: Peer::new(access, own, Some(VERSION))?, coding, most, connection: Mutex::default() })
    }

    /// Calls `method`, a path, with one message; again where a connection ended that was there before.
    ///
    /// # Errors
    /// There is no answer, or none of the protocol's.
    pub(super) async fn call(&self, method: &str, message: Bytes) -> Result<Called, Trouble> {
        let message = self.frame(message);
        loop {
            let (connection, is_kept) = self.connection().await?;
            let request = self.request(method, message.clone())?;
            match connection.exchange(request, self.most).await {
                // It ended meanwhile: a server that restarts, or one that lets nobody stay for long, is no trouble.
                Err(trouble) if is_kept && trouble.kind == TroubleKind::Closed => {}
                called => return called,
            }
        }
    }

    /// A message with its prefix.
    fn frame(&self, message: Bytes) -> Bytes {
        let is_coded = self.coding.name().is_some();
        let message = self.coding.encode(message);
        let mut framed = BytesMut::with_capacity(PREFIX_BYTES + message.len());
        framed.put_u8(is_coded.into());
        // A batch has at most some MiB.
        framed.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX));
        framed.extend_from_slice(&message);
        framed.freeze()
    }

    fn request(&self, method: &str, message: Bytes) -> Result<Request<Full<Bytes>>, Trouble> {
        let url = &self.peer.access().url;
        let scheme = if url.is_tls() { "https" } else { "http" };
        let mut request = Request::post(format!("{scheme}://{}{method}", url.authority()))
            .header(header::TE, "trailers")
            .header(header::CONTENT_TYPE, "application/grpc");
        if let Some(coding) = self.coding.name() {
            request = request.header(ENCODING, coding);
        }
        let request = self.peer.dress(request).body(Full::new(message));
        request.map_err(|error| Trouble::new(TroubleKind::Nonsense, error))
    }

    /// One to make a call on, and whether it was there before.
    async fn connection(&self) -> Result<(Arc<Connection>, bool), Trouble> {
        let mut kept = self.connection.lock().await;
        let now = Instant::now();
        if let Some((connection, used)) = &mut *kept {
            // What is between may have forgotten one that nobody used; with a call under way it is asked for.
            let idle = now.saturating_duration_since(std::mem::replace(used, now));
            let is_fresh = Arc::strong_count(connection) > 1 || idle < MAX_IDLE;
            let is_over = connection.is_over.load(Ordering::Relaxed) || connection.sender.is_closed();
            if is_fresh && !is_over {
                return Ok((Arc::clone(connection), true));
            }
        }
        // Calls that are under way on the other one come to their end.
        let connection = Arc::new(begin(self.peer.connect().await?).await?);
        *kept = Some((Arc::clone(&connection), now));
        Ok((connection, false))
    }
}

async fn begin(Connected { stream, socket }: Connected) -> Result<Connection, Trouble> {
    let mut builder = hyper::client::conn::http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .max_header_list_size(u32::try_from(MAX_HEAD_BYTES).unwrap_or(u32::MAX))
        .keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE_ANSWER);
    let (sender, driver) = builder.handshake(TokioIo::new(stream)).await.map_err(|error| trouble(&error))?;
    let driver = tokio::spawn(async move {
        // What goes wrong here shows in the calls that wait for it.
        let _ = driver.await;
        // The kernel forgets that the socket is ours when it is closed, and not before.
        drop(socket);
    });
    Ok(Connection { sender, driver: driver.abort_handle(), is_over: AtomicBool::new(false) })
}

/// Reads an answer to its end.
async fn read(response: http::Response<Incoming>, most: usize) -> Result<Called, Trouble> {
    let (head, body) = response.into_parts();
    let nonsense = |detail: &str| Trouble::new(TroubleKind::Nonsense, detail);
    // A head alone, where there is nothing to say but that it failed.
    if let Some(status) = status(&head.headers) {
        return Ok(Called::Told(status, Bytes::new()));
    }
    if head.status != StatusCode::OK {
        return Ok(Called::Http(head.status, head.headers));
    }
    let is_ours = |value: &HeaderValue| value.as_bytes().starts_with(b"application/grpc");
    if !head.headers.get(header::CONTENT_TYPE).is_some_and(is_ours) {
        return Err(nonsense("the answer is not of gRPC"));
    }
    // Absent is none (gRPC over HTTP/2, "Message-Encoding").
    let coding = Coding::named(head.headers.get(ENCODING).map_or(&b"identity"[..], HeaderValue::as_bytes));
    let body = Limited::new(body, most).collect().await;
    let body = body.map_err(|error| match error.downcast::<hyper::Error>() {
        Ok(error) => trouble(&error),
        Err(_) => Trouble::new(TroubleKind::Nonsense, format!("the answer has more than {most} bytes")),
    })?;
    let status = body.trailers().and_then(status).ok_or_else(|| nonsense("the answer has no status"))?;
    let message =
        unframe(body.to_bytes(), coding, most).ok_or_else(|| nonsense("the answer is no message"))?;
    Ok(Called::Told(status, message))
}

/// The message of an answer; empty if there is none, as where a call failed. Servers code it as ours was, whatever we say that we take.
fn unframe(mut framed: Bytes, coding: Option<Coding>, most: usize) -> Option<Bytes> {
    if framed.is_empty() {
        return Some(framed);
    }
    let [is_coded, length @ ..] = *framed.first_chunk::<PREFIX_BYTES>()?;
    let message = framed.split_off(PREFIX_BYTES);
    if u32::from_be_bytes(length) as usize != message.len() {
        return None;
    }
    match is_coded {
        0 => Some(message),
        1 => coding.filter(|coding| coding.name().is_some())?.decode(&message, most).map(Bytes::from),
        _ => None,
    }
}

/// What headers say of the end of a call.
fn status(headers: &HeaderMap) -> Option<Status> {
    let text = |name: &str| headers.get(name).map(HeaderValue::as_bytes);
    let code = str::from_utf8(text("grpc-status")?).ok()?.parse().ok()?;
    let message = percent_decode(text("grpc-message").unwrap_or_default()).decode_utf8_lossy().into_owned();
    // Of bytes that are none of base64 there is nothing more to say.
    let config = GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
    let base64 = GeneralPurpose::new(&STANDARD, config);
    let details = base64.decode(text("grpc-status-details-bin").unwrap_or_default()).unwrap_or_default();
    Some(Status { code: Code(code), message, details })
}

/// Why there is no answer.
fn trouble(error: &hyper::Error) -> Trouble {
    // Its own words are few: the cause has the reason.
    let cause = std::error::Error::source(error).map(|cause| format!(": {cause}")).unwrap_or_default();
    let kind = if error.is_parse() { TroubleKind::Nonsense } else { TroubleKind::Closed };
    Trouble::new(kind, format!("{error}{cause}"))
}

#[cfg(test)]
mod tests {
    use std::{cell::RefCell, convert::Infallible, net::SocketAddr, rc::Rc};

    use futures_util::{future::join_all, stream};
    use http_body_util::{StreamBody, combinators::BoxBody};
    use hyper::{body::Frame, server::conn::http2, service::service_fn};
    use tokio::{net::TcpListener, task::LocalSet, time::timeout};

    use super::*;
    use crate::{secrets::tls, sinks::http_client::Url};

    const MOST: usize = 100;
    const PATIENCE: Duration = Duration::from_secs(10);

    type Body = BoxBody<Bytes, std::io::Error>;

    /// A server of one thread with the test: what it got, and how many connections there were.
    #[derive(Default)]
    struct Got {
        heads: RefCell<Vec<HeaderMap>>,
        messages: RefCell<Vec<Bytes>>,
        connections: std::cell::Cell<usize>,
    }

    fn trailers(status: &str) -> HeaderMap {
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", status.parse().unwrap());
        trailers
    }

    fn body(parts: Vec<Result<Frame<Bytes>, std::io::Error>>) -> Body {
        BoxBody::new(StreamBody::new(stream::iter(parts)))
    }

    fn data(bytes: &[u8]) -> Result<Frame<Bytes>, std::io::Error> {
        Ok(Frame::data(Bytes::copy_from_slice(bytes)))
    }

    fn end() -> Result<Frame<Bytes>, std::io::Error> {
        Ok(Frame::trailers(trailers("0")))
    }

    /// What is answered to a path.
    async fn answer(path: &str) -> http::Response<Body> {
        let answer = http::Response::builder().header(header::CONTENT_TYPE, "application/grpc+proto");
        let long = [&[0, 0, 0, 0, 96][..], &[b'x'; 96]].concat();
        match path {
            "/ok" => answer.body(body(vec![data(b"\0\0\0"), data(b"\0\x05hello"), end()])),
            "/empty" => answer.body(body(vec![end()])),
            "/alone" => answer
                .header("grpc-status", "14")
                .header("grpc-message", "later%20%E2%82%AC")
                .header("grpc-status-details-bin", "CA4")
                .body(body(Vec::new())),
            "/503" => answer.status(503).header("retry-after", "7").body(body(Vec::new())),
            "/html" => {
                http::Response::builder().header(header::CONTENT_TYPE, "text/html").body(body(Vec::new()))
            }
            "/no-status" => answer.body(body(vec![data(b"\0\0\0\0\x05hello")])),
            "/at-limit" => answer.body(body(vec![data(&long[..4]), data(&[95]), data(&[b'x'; 95]), end()])),
            "/past-limit" => answer.body(body(vec![data(&long), end()])),
            "/half" => answer.body(body(vec![data(b"\0\0\0\0\x05hel"), end()])),
            "/coded" => answer.body(body(vec![data(b"\x01\0\0\0\x05hello"), end()])),
            "/gzip" => {
                let coded = Coding::Gzip.encode(Bytes::from_static(b"hello"));
                let prefix = [1, 0, 0, 0, u8::try_from(coded.len()).unwrap()];
                answer.header(ENCODING, "gzip").body(body(vec![data(&prefix), data(&coded), end()]))
            }
            "/br" => answer.header(ENCODING, "br").body(body(vec![data(b"\x01\0\0\0\0"), end()])),
            "/cut" => answer.body(body(vec![data(b"\0\0\0\0\x05h"), Err(std::io::ErrorKind::Other.into())])),
            "/never" => std::future::pending().await,
            other => panic!("{other}"),
        }
        .unwrap()
    }

    /// Serves; ends connections after so many calls on each, if any number is given.
    async fn serve(listener: TcpListener, got: Rc<Got>, calls: Option<usize>) {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            got.connections.set(got.connections.get() + 1);
            let (got, left) = (Rc::clone(&got), Rc::new(std::cell::Cell::new(calls)));
            let ended = Rc::new(tokio::sync::Notify::new());
            let ending = Rc::clone(&ended);
            let service = service_fn(move |request: Request<Incoming>| {
                let (got, left, ended) = (Rc::clone(&got), Rc::clone(&left), Rc::clone(&ending));
                async move {
                    let (head, content) = request.into_parts();
                    got.heads.borrow_mut().push(head.headers);
                    let message = content.collect().await.unwrap().to_bytes();
                    got.messages.borrow_mut().push(message);
                    left.set(left.get().map(|left| left - 1));
                    if left.get() == Some(0) {
                        ended.notify_one();
                    }
                    Ok::<_, Infallible>(answer(head.uri.path()).await)
                }
            });
            tokio::task::spawn_local(async move {
                let serving =
                    http2::Builder::new(LocalExecutor).serve_connection(TokioIo::new(stream), service);
                let mut serving = std::pin::pin!(serving);
                tokio::select! {
                    _ = &mut serving => return,
                    () = ended.notified() => serving.as_mut().graceful_shutdown(),
                }
                let _ = serving.await;
            });
        }
    }

    #[derive(Clone, Copy)]
    struct LocalExecutor;

    impl<F: Future<Output: 'static> + 'static> hyper::rt::Executor<F> for LocalExecutor {
        fn execute(&self, future: F) {
            tokio::task::spawn_local(future);
        }
    }

    fn client(address: SocketAddr, coding: Coding) -> Client {
        let access = Access {
            url: Url::parse(&format!("http://{address}")).unwrap(),
            headers: Vec::new(),
            header_files: Vec::new(),
            authorization: None,
            tls: tls::Client::default(),
            server_name: None,
        };
        Client::new(access, Arc::default(), coding, MOST).unwrap()
    }

    /// Runs `test` beside a server.
    fn beside<T: AsyncFnOnce(SocketAddr, Rc<Got>)>(calls: Option<usize>, test: T) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let tasks = LocalSet::new();
        tasks.block_on(&runtime, async {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let (address, got) = (listener.local_addr().unwrap(), Rc::<Got>::default());
            tokio::task::spawn_local(serve(listener, Rc::clone(&got), calls));
            timeout(PATIENCE, test(address, got)).await.expect("it ends");
        });
    }

    fn told(called: Result<Called, Trouble>) -> (u32, String, Bytes) {
        match called {
            Ok(Called::Told(status, message)) => (status.code.0, status.message, message),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_call_says_and_hears_what_the_protocol_has() {
        beside(None, async |address, got| {
            let hello = (0, String::new(), Bytes::from_static(b"hello"));
            for (coding, name) in
                [(Coding::Identity, None), (Coding::Gzip, Some("gzip")), (Coding::Zstd, Some("zstd"))]
            {
                let called = client(address, coding).call("/ok", Bytes::from_static(b"lines")).await;
                assert_eq!(told(called), hello);
                let head = got.heads.borrow_mut().pop().unwrap();
                let text = |name: &str| head.get(name).map(|value| value.to_str().unwrap().to_owned());
                assert_eq!(text("te").as_deref(), Some("trailers"));
                assert_eq!(text("content-type").as_deref(), Some("application/grpc"));
                assert_eq!(text("user-agent").as_deref(), Some(crate::OWN_USER_AGENT));
                assert_eq!(text("grpc-encoding").as_deref(), name);
                let message = got.messages.borrow_mut().pop().unwrap();
                let (prefix, rest) = message.split_at(PREFIX_BYTES);
                assert_eq!(prefix[0], u8::from(name.is_some()));
                assert_eq!(u32::from_be_bytes(prefix[1..].try_into().unwrap()) as usize, rest.len());
                let back = coding.decode(rest, MOST);
                assert_eq!(back.as_deref(), Some(&b"lines"[..]));
            }
        });
    }

    #[test]
    fn answers_of_all_kinds() {
        beside(None, async |address, got| {
            let client = client(address, Coding::Identity);
            let call = async |path: &str| client.call(path, Bytes::new()).await;
            assert_eq!(told(call("/empty").await), (0, String::new(), Bytes::new()));
            assert_eq!(told(call("/gzip").await), (0, String::new(), Bytes::from_static(b"hello")));
            let Ok(Called::Told(status, _)) = call("/alone").await else { panic!() };
            assert_eq!((status.code, &*status.message), (Code::UNAVAILABLE, "later €"));
            assert_eq!(status.details, [8, 14]);
            let Ok(Called::Http(status, headers)) = call("/503").await else { panic!() };
            assert_eq!((status.as_u16(), &headers["retry-after"]), (503, &HeaderValue::from_static("7")));
            assert_eq!(told(call("/at-limit").await).2.len() + PREFIX_BYTES, MOST);
            assert_eq!(got.connections.get(), 1);
            for (path, kind, detail) in [
                ("/html", TroubleKind::Nonsense, "the answer is not of gRPC"),
                ("/no-status", TroubleKind::Nonsense, "the answer has no status"),
                ("/past-limit", TroubleKind::Nonsense, "the answer has more than 100 bytes"),
                ("/half", TroubleKind::Nonsense, "the answer is no message"),
                ("/coded", TroubleKind::Nonsense, "the answer is no message"),
                ("/br", TroubleKind::Nonsense, "the answer is no message"),
            ] {
                let trouble = call(path).await.unwrap_err();
                assert_eq!((trouble.kind, &*trouble.detail), (kind, detail), "{path}");
            }
            let trouble = call("/cut").await.unwrap_err();
            assert_eq!(trouble.kind, TroubleKind::Closed, "{trouble:?}");
        });
    }

    #[test]
    fn calls_share_a_connection_and_one_that_is_over_is_made_anew() {
        beside(None, async |address, got| {
            let client = client(address, Coding::Identity);
            let calls = join_all((0..20).map(|_| client.call("/ok", Bytes::new()))).await;
            assert!(calls.into_iter().all(|called| told(called).0 == 0));
            assert_eq!(got.connections.get(), 1);
            // Nobody waits for it any more: what answered nothing is left, and who was at it comes to its end.
            let (late, other) = tokio::join!(
                timeout(Duration::from_millis(20), client.call("/never", Bytes::new())),
                client.call("/ok", Bytes::new())
            );
            assert!(late.is_err() && told(other).0 == 0);
            assert_eq!(told(client.call("/ok", Bytes::new()).await).0, 0);
            assert_eq!(got.connections.get(), 2);
        });
    }

    /// As servers do that are about to end, or spread their clients.
    #[test]
    fn a_server_that_ends_connections_is_no_trouble() {
        beside(Some(3), async |address, got| {
            let client = client(address, Coding::Identity);
            for _ in 0..12 {
                assert_eq!(told(client.call("/ok", Bytes::new()).await).0, 0);
            }
            assert!((4..=12).contains(&got.connections.get()), "{}", got.connections.get());
        });
    }

    #[test]
    fn who_is_not_there_or_says_something_else_is_trouble() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap();
            let client = client(address, Coding::Identity);
            let (called, ()) = tokio::join!(client.call("/ok", Bytes::new()), async {
                let (mut stream, _) = listener.accept().await.unwrap();
                let hello = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n";
                tokio::io::AsyncWriteExt::write_all(&mut stream, hello).await.unwrap();
            });
            assert!(matches!(called.unwrap_err().kind, TroubleKind::Closed | TroubleKind::Nonsense));
            drop(listener);
            let trouble = client.call("/ok", Bytes::new()).await.unwrap_err();
            assert_eq!(trouble.kind, TroubleKind::Connect, "{trouble:?}");
        });
    }
}
