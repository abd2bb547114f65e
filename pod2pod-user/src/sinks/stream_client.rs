//! A client of servers that take a stream of bytes, over TCP or TLS: one of several, the next after a failure.
//!
//! No protocol is known here. Where a protocol has no answers, [`Client::deliver`] says what TCP can tell: the peer's kernel acknowledged
//! every byte, and neither end had closed. What a process that is killed had not read yet is lost all the same, and nobody is told.
//! A connection that breaks before is followed by all of the bytes on another one, so that some may arrive twice.

use std::{
    cell::RefCell,
    fmt::Display,
    future::poll_fn,
    io,
    net::SocketAddr,
    path::PathBuf,
    pin::Pin,
    sync::Arc,
    task::Poll,
    time::{Duration, Instant},
};

use rustix::net::SendFlags;
use rustls::pki_types::ServerName;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _, ReadBuf},
    time::{sleep, timeout},
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::{
    failover::{Failover, Server},
    http_client::MAX_CONNECT_TIME,
    own::{OwnConnections, OwnSocket},
    own_stream::OwnStream,
    unacknowledged::{is_broken, unacknowledged},
};
use crate::{
    delivery::{Trouble, TroubleKind},
    secrets::{SecretError, Watched, tls},
};

/// A connection that nobody used for so long is not used again: what is between may have forgotten it.
pub const MAX_IDLE: Duration = Duration::from_secs(60);
/// A peer whose kernel has not acknowledged everything after this time is stuck, or gone: six retransmissions, from 200 ms each twice the
/// one before, come in less.
pub const MAX_ACKNOWLEDGE_TIME: Duration = Duration::from_secs(15);
/// How long after the first look it is looked again whether everything is acknowledged, and twice as long each time up to ...
const FIRST_LOOK: Duration = Duration::from_millis(1);
/// ... this: less than what a peer waits before it acknowledges (40 ms, TCP_DELACK_MIN of include/net/tcp.h).
const LAST_LOOK: Duration = Duration::from_millis(16);
/// Of what a server says that nobody asked so much is read and thrown away at once: session tickets take a few hundred bytes.
const MAX_UNASKED_BYTES: usize = 16 * 1024;

/// Where servers are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Access {
    /// One at least; the first is asked as long as it answers.
    pub servers: Vec<Server>,
    /// Over TLS.
    pub tls: Option<Tls>,
}

/// How TLS is spoken.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tls {
    /// Whom we believe, and who we are.
    pub client: tls::Client,
    /// Whose certificate a server should have; its host's if absent.
    pub server_name: Option<ServerName<'static>>,
}

impl Access {
    /// Reads the files, to see whether they can be used; each that cannot be.
    pub fn check_files(&self) -> Vec<SecretError> {
        self.tls.iter().filter_map(|tls| tls.client.connector().err()).collect()
    }
}

/// The client, for one thread.
pub(super) struct Client {
    servers: Vec<Server>,
    tls: Option<(Watched<TlsConnector>, Option<ServerName<'static>>)>,
    own: Arc<OwnConnections>,
    failover: RefCell<Failover>,
    /// Connections that nobody uses.
    idle: RefCell<Vec<Connection>>,
}

struct Connection {
    stream: Stream,
    /// Which of the servers it is to.
    server: usize,
    /// When it was last used.
    used: Instant,
    /// The kernel forgets that the socket is ours when it is closed, and not before.
    _socket: OwnSocket,
}

impl Drop for Connection {
    /// Says that this is the end of what there is to say (RFC 8446, section 6.1; RFC 5425, section 4.4, asks senders to), if there is
    /// room for that: without it a server cannot tell an end from somebody who cut the connection.
    fn drop(&mut self) {
        let Stream::Tls(stream) = &mut self.stream else { return };
        let (socket, session) = stream.get_mut();
        // Behind what is given up there is no end to say.
        if unacknowledged(&*socket).is_ok_and(|bytes| bytes > 0) {
            return;
        }
        socket.let_go();
        session.send_close_notify();
        let mut said = Vec::new();
        while session.wants_write() && session.write_tls(&mut said).is_ok() {}
        // Nobody waits for it.
        let _ = rustix::net::send(socket, &said, SendFlags::DONTWAIT | SendFlags::NOSIGNAL);
    }
}

enum Stream {
    Plain(OwnStream),
    Tls(Box<TlsStream<OwnStream>>),
}

impl Stream {
    fn tcp(&self) -> &OwnStream {
        match self {
            Self::Plain(stream) => stream,
            Self::Tls(stream) => stream.get_ref().0,
        }
    }

    async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Plain(stream) => stream.write_all(bytes).await,
            Self::Tls(stream) => {
                stream.write_all(bytes).await?;
                stream.flush().await
            }
        }
    }

    /// Reads what is there and was not asked for, so that it is not what a close finds unread: that would be a reset, which may overtake
    /// what was written. False if the connection has an end.
    async fn drain(&mut self) -> bool {
        let mut room = [0; 512];
        for _ in 0..MAX_UNASKED_BYTES / room.len() {
            let mut read = ReadBuf::new(&mut room);
            let polled = poll_fn(|context| {
                Poll::Ready(match self {
                    Self::Plain(stream) => Pin::new(stream).poll_read(context, &mut read),
                    Self::Tls(stream) => Pin::new(&mut **stream).poll_read(context, &mut read),
                })
            });
            match polled.await {
                Poll::Pending => return true,
                Poll::Ready(Ok(())) if !read.filled().is_empty() => {}
                Poll::Ready(_) => return false,
            }
        }
        true
    }
}

/// A connection that somebody uses. Its server has failed if it is not given back.
pub(super) struct Lent<'a> {
    connection: Connection,
    attempt: Attempt<'a>,
    /// Nobody has used it before.
    pub(super) is_fresh: bool,
}

struct Attempt<'a> {
    client: &'a Client,
    server: usize,
    is_good: bool,
}

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        if !self.is_good {
            self.client.failover.borrow_mut().failed(self.server, Instant::now());
        }
    }
}

impl Client {
    /// Reads the files, and connects when there is something to send.
    ///
    /// # Errors
    /// A file cannot be used.
    pub(super) fn new(access: Access, own: Arc<OwnConnections>) -> Result<Self, SecretError> {
        let Access { servers, tls } = access;
        let tls = tls.map(|Tls { client, server_name }| {
            let connector = Watched::new(client.files(), move |_: &[PathBuf]| client.connector())?;
            Ok((connector, server_name))
        });
        let failover = RefCell::new(Failover::new(servers.len()));
        Ok(Self { servers, tls: tls.transpose()?, own, failover, idle: RefCell::default() })
    }

    /// Writes `bytes` to a server and waits until its kernel has acknowledged them.
    ///
    /// # Errors
    /// There is no connection, or it broke: nobody knows what of the bytes was read.
    pub(super) async fn deliver(&self, bytes: &[u8]) -> Result<(), Trouble> {
        let mut lent = self.lend().await?;
        lent.write(bytes).await?;
        lent.wait_acknowledged().await?;
        lent.keep();
        Ok(())
    }

    /// A connection to the server that is asked now, or to one behind it.
    ///
    /// # Errors
    /// No server gives one: what the last of them said.
    pub(super) async fn lend(&self) -> Result<Lent<'_>, Trouble> {
        let mut last = Trouble::new(TroubleKind::Connect, "no server is named");
        for _ in 0..self.servers.len() {
            let server = self.failover.borrow_mut().current(Instant::now());
            // Whoever drops this while it is connecting has waited long enough.
            let attempt = Attempt { client: self, server, is_good: false };
            while let Some(mut connection) = self.keep_one(server) {
                if connection.stream.drain().await && !is_broken(connection.stream.tcp()) {
                    return Ok(Lent { connection, attempt, is_fresh: false });
                }
            }
            match self.connect(server).await {
                Ok(connection) => return Ok(Lent { connection, attempt, is_fresh: true }),
                Err(trouble) => last = trouble,
            }
        }
        Err(last)
    }

    /// A connection to `server` that nobody uses.
    fn keep_one(&self, server: usize) -> Option<Connection> {
        let mut idle = self.idle.borrow_mut();
        let now = Instant::now();
        idle.retain(|kept| kept.server == server && now.saturating_duration_since(kept.used) < MAX_IDLE);
        idle.pop()
    }

    async fn connect(&self, server: usize) -> Result<Connection, Trouble> {
        let trouble = |error: &dyn Display| Trouble::new(TroubleKind::Connect, error);
        let Some(to) = self.servers.get(server) else {
            return Err(trouble(&"no such server"));
        };
        let host = to.host();
        let addresses = tokio::net::lookup_host((host, to.port())).await;
        let addresses = addresses.map_err(|error| trouble(&format_args!("{host}: {error}")))?;
        let mut last = trouble(&format_args!("{host} has no address"));
        for address in addresses {
            // One that swallows everything does not hide the next.
            match timeout(MAX_CONNECT_TIME, self.connect_to(address, to.name())).await {
                Ok(Ok((stream, socket))) => {
                    return Ok(Connection { stream, server, used: Instant::now(), _socket: socket });
                }
                Ok(Err(error)) => last = Trouble { detail: format!("{address}: {}", error.detail), ..error },
                Err(_) => last = trouble(&format_args!("{address}: no connection in {MAX_CONNECT_TIME:?}")),
            }
        }
        Err(last)
    }

    async fn connect_to(
        &self,
        address: SocketAddr,
        name: &ServerName<'static>,
    ) -> Result<(Stream, OwnSocket), Trouble> {
        let trouble = |error| Trouble::new(TroubleKind::Connect, error);
        let (stream, socket) = OwnSocket::connect(address, &self.own).await.map_err(trouble)?;
        let stream = match &self.tls {
            None => Stream::Plain(stream),
            Some((connector, other)) => {
                let name = other.as_ref().unwrap_or(name).clone();
                let stream = connector.current().connect(name, stream).await;
                Stream::Tls(Box::new(stream.map_err(|error| Trouble::new(TroubleKind::Tls, error))?))
            }
        };
        Ok((stream, socket))
    }
}

impl Lent<'_> {
    /// Writes all of `bytes`.
    ///
    /// # Errors
    /// The connection broke.
    pub(super) async fn write(&mut self, bytes: &[u8]) -> Result<(), Trouble> {
        let written = self.connection.stream.write(bytes).await;
        written.map_err(|error| Trouble::new(TroubleKind::Closed, error))
    }

    /// Appends what comes next to `answer`.
    ///
    /// # Errors
    /// The connection broke, or ended.
    pub(super) async fn read(&mut self, answer: &mut Vec<u8>) -> Result<(), Trouble> {
        let read = match &mut self.connection.stream {
            Stream::Plain(stream) => stream.read_buf(answer).await,
            Stream::Tls(stream) => stream.read_buf(answer).await,
        };
        match read {
            Ok(0) => Err(Trouble::new(TroubleKind::Closed, "the server closed the connection")),
            Ok(_) => Ok(()),
            Err(error) => Err(Trouble::new(TroubleKind::Closed, error)),
        }
    }

    /// Waits until the peer's kernel has all that was written.
    ///
    /// # Errors
    /// It takes too long, or the connection broke.
    pub(super) async fn wait_acknowledged(&mut self) -> Result<(), Trouble> {
        let mut wait = FIRST_LOOK;
        let all = async {
            loop {
                let left = unacknowledged(self.connection.stream.tcp());
                let left = left.map_err(|error| Trouble::new(TroubleKind::Closed, error))?;
                // In this order: a reset empties the queue.
                if is_broken(self.connection.stream.tcp()) || !self.connection.stream.drain().await {
                    return Err(Trouble::new(TroubleKind::Closed, "the server closed the connection"));
                }
                if left == 0 {
                    return Ok(());
                }
                sleep(wait).await;
                wait = (wait * 2).min(LAST_LOOK);
            }
        };
        let late = |_| {
            let detail = format_args!("not all was acknowledged in {MAX_ACKNOWLEDGE_TIME:?}");
            Trouble::new(TroubleKind::Timeout, detail)
        };
        timeout(MAX_ACKNOWLEDGE_TIME, all).await.map_err(late)?
    }

    /// Gives it back.
    pub(super) fn keep(self) {
        let Self { mut connection, mut attempt, .. } = self;
        attempt.is_good = true;
        connection.used = Instant::now();
        attempt.client.idle.borrow_mut().push(connection);
    }
}

#[cfg(test)]
mod tests {
    use std::{io::Read as _, net::TcpStream as Peer};

    use super::*;
    use crate::sinks::loopback::{
        accept_tls, everything, exactly, listen, nobody, over_tls, plain, run, say, serve,
    };

    fn client(access: Access) -> Client {
        Client::new(access, Arc::default()).unwrap()
    }

    fn kind(result: Result<(), Trouble>) -> TroubleKind {
        result.unwrap_err().kind
    }

    #[test]
    fn one_connection_is_used_again_and_is_our_own() {
        let (listener, server) = listen();
        let server_thread = serve(listener, vec![Box::new(everything)]);
        let own = Arc::<OwnConnections>::default();
        let client = Client::new(plain(&[&server]), Arc::clone(&own)).unwrap();
        run(async {
            client.deliver(b"first ").await.unwrap();
            client.deliver(b"second").await.unwrap();
        });
        assert!(own.tuples().iter().any(|(_, to)| to.port() == server.port()));
        drop(client);
        assert_eq!(server_thread.join().unwrap(), [b"first second"]);
    }

    #[test]
    fn what_was_closed_meanwhile_is_not_written_to() {
        let (listener, server) = listen();
        // Says something before it goes: that is not what counts.
        let goes = |mut stream: Peer| {
            let bytes = exactly(&mut stream, 3);
            say(&mut stream, b"bye");
            bytes
        };
        let server_thread = serve(listener, vec![Box::new(goes), Box::new(goes), Box::new(everything)]);
        let client = client(plain(&[&server]));
        run(async {
            for bytes in [b"one", b"two", b"six"] {
                // Its end may come before the answer is known, or after.
                if let Err(trouble) = client.deliver(bytes).await {
                    assert_eq!(trouble.kind, TroubleKind::Closed);
                }
                let gone = || {
                    let idle = client.idle.borrow();
                    idle.iter().all(|kept| is_broken(kept.stream.tcp()))
                };
                while bytes != b"six" && !gone() {
                    tokio::task::yield_now().await;
                }
            }
        });
        drop(client);
        assert_eq!(server_thread.join().unwrap(), [b"one", b"two", b"six"]);
    }

    #[test]
    fn the_next_server_is_asked_when_one_refuses() {
        let (listener, server) = listen();
        let server_thread = serve(listener, vec![Box::new(everything)]);
        let client = client(plain(&[&nobody(), &nobody(), &server]));
        run(client.deliver(b"all")).unwrap();
        assert_eq!(client.failover.borrow_mut().current(Instant::now()), 2);
        drop(client);
        assert_eq!(server_thread.join().unwrap(), [b"all"]);
    }

    #[test]
    fn the_next_server_is_asked_when_one_breaks_off_or_its_time_is_over() {
        for is_mute in [false, true] {
            let (first, second) = (listen(), listen());
            let (ended, end) = std::sync::mpsc::sync_channel::<()>(1);
            let breaks = move |stream: Peer| {
                // Unread: what is written is refused from here on.
                if is_mute {
                    let _ = end.recv();
                }
                drop(stream);
                Vec::<u8>::new()
            };
            let first_thread = serve(first.0, vec![Box::new(breaks)]);
            let second_thread = serve(second.0, vec![Box::new(everything)]);
            let client = client(plain(&[&first.1, &second.1]));
            let bytes = vec![b'x'; 32 << 20];
            run(async {
                let attempt = client.deliver(&bytes);
                let short = Duration::from_millis(if is_mute { 200 } else { 20_000 });
                match timeout(short, attempt).await {
                    Ok(answer) => assert_eq!(kind(answer), TroubleKind::Closed),
                    Err(_) => assert!(is_mute),
                }
                client.deliver(&bytes).await.unwrap();
            });
            drop((client, ended));
            assert_eq!(first_thread.join().unwrap(), [b""]);
            assert!(second_thread.join().unwrap() == [bytes]);
        }
    }

    #[test]
    fn without_a_server_there_is_trouble() {
        assert_eq!(kind(run(client(plain(&[&nobody()])).deliver(b"x"))), TroubleKind::Connect);
        assert_eq!(kind(run(client(plain(&[])).deliver(b"x"))), TroubleKind::Connect);
        let nowhere = Server::parse("nowhere.invalid:1", None).unwrap();
        assert_eq!(kind(run(client(plain(&[&nowhere])).deliver(b"x"))), TroubleKind::Connect);
    }

    #[test]
    fn what_is_not_acknowledged_is_not_delivered() {
        let (listener, server) = listen();
        // A small window, which stays full.
        rustix::net::sockopt::set_socket_recv_buffer_size(&listener, 4096).unwrap();
        let client = client(plain(&[&server]));
        run(async {
            let mut lent = client.lend().await.unwrap();
            lent.write(&[0; 64 * 1024]).await.unwrap();
            tokio::time::pause();
            let begin = tokio::time::Instant::now();
            assert_eq!(kind(lent.wait_acknowledged().await), TroubleKind::Timeout);
            assert!(begin.elapsed() >= MAX_ACKNOWLEDGE_TIME);
        });
    }

    #[test]
    fn tls_is_spoken_with_whom_it_should_be() {
        let (listener, server) = listen();
        let refused = |stream| {
            everything(accept_tls(stream));
            Vec::new()
        };
        let nonsense = |mut stream: Peer| {
            say(&mut stream, b"220 ready\r\n");
            everything(stream);
            Vec::new()
        };
        // It hears that this is the end: otherwise to read there is an error.
        let taken = |stream| {
            let mut bytes = Vec::new();
            accept_tls(stream).read_to_end(&mut bytes).unwrap();
            bytes
        };
        let server_thread = serve(listener, vec![Box::new(refused), Box::new(nonsense), Box::new(taken)]);
        let other = client(over_tls(&server, Some("collector.other")));
        assert_eq!(kind(run(other.deliver(b"a secret"))), TroubleKind::Tls);
        let right = client(over_tls(&server, None));
        assert_eq!(kind(run(right.deliver(b"a secret"))), TroubleKind::Tls);
        run(async {
            right.deliver(b"taken ").await.unwrap();
            right.deliver(b"twice").await.unwrap();
        });
        drop(right);
        assert_eq!(server_thread.join().unwrap(), [&b""[..], b"", b"taken twice"]);
    }

    #[test]
    fn what_nobody_asked_for_is_read_up_to_its_limit() {
        let (listener, server) = listen();
        run(async {
            let stream = tokio::net::TcpStream::connect((server.host(), server.port())).await.unwrap();
            let mut peer = listener.accept().unwrap().0;
            say(&mut peer, &[b'x'; MAX_UNASKED_BYTES + 1]);
            let left = |stream: &OwnStream| rustix::io::ioctl_fionread(stream).unwrap();
            stream.readable().await.unwrap();
            let stream = OwnStream::new(stream);
            while left(&stream) <= MAX_UNASKED_BYTES as u64 {
                tokio::task::yield_now().await;
            }
            let mut stream = Stream::Plain(stream);
            assert!(stream.drain().await);
            assert_eq!(left(stream.tcp()), 1);
            assert!(stream.drain().await);
            assert_eq!(left(stream.tcp()), 0);
            drop(peer);
            while stream.drain().await {
                tokio::task::yield_now().await;
            }
        });
    }

    #[test]
    fn a_server_that_never_begins_tls_has_its_time() {
        let (_listener, server) = listen();
        let client = client(over_tls(&server, None));
        run(async {
            tokio::time::pause();
            assert_eq!(kind(client.deliver(b"x").await), TroubleKind::Connect);
        });
    }
}
