//! A client of servers that take datagrams: one of several, the next after a failure.
//!
//! Nobody says what has arrived. What this machine or the server's refuses is a failure, and all of it is sent again: some may arrive
//! twice. What a network or a full buffer of the server drops is lost, and nobody is told.

use std::{
    cell::RefCell,
    fmt::Display,
    io,
    sync::Arc,
    time::{Duration, Instant},
};

use rustix::io::Errno;
use tokio::net::UdpSocket;

use super::{
    failover::{Failover, Server},
    own::{OwnConnections, OwnSocket},
};
use crate::delivery::{Answer, Parcel, Refusal, RefusalKind, Trouble, TroubleKind, Verdict};

/// A socket is used so long: then its server's name is asked for again, which may be another machine's by now.
pub const MAX_SOCKET_AGE: Duration = Duration::from_secs(60);

/// The client, for one thread.
pub(super) struct Client {
    servers: Vec<Server>,
    own: Arc<OwnConnections>,
    failover: RefCell<Failover>,
    /// A socket that nobody uses.
    idle: RefCell<Option<Socket>>,
}

struct Socket {
    socket: UdpSocket,
    server: usize,
    opened: Instant,
    _own: OwnSocket,
}

impl Socket {
    fn is_fit(&self, server: usize, now: Instant) -> bool {
        self.server == server && now.saturating_duration_since(self.opened) < MAX_SOCKET_AGE
    }
}

impl Client {
    /// Asks for names and opens sockets when there is something to send.
    pub(super) fn new(servers: Vec<Server>, own: Arc<OwnConnections>) -> Self {
        let failover = RefCell::new(Failover::new(servers.len()));
        Self { servers, own, failover, idle: RefCell::default() }
    }

    /// Sends each item as a datagram.
    pub(super) async fn deliver(&self, parcel: &Parcel) -> Answer {
        let server = self.failover.borrow_mut().current(Instant::now());
        let sent = match self.socket(server).await {
            Ok(socket) => {
                let sent = send(&socket.socket, parcel).await;
                if sent.is_ok() {
                    *self.idle.borrow_mut() = Some(socket);
                }
                sent
            }
            Err(trouble) => Err(trouble),
        };
        sent.unwrap_or_else(|trouble| {
            self.failover.borrow_mut().failed(server, Instant::now());
            Answer::Later(trouble)
        })
    }

    /// Whether the server that is asked now has an address.
    pub(super) async fn probe(&self) -> Result<(), Trouble> {
        let server = self.failover.borrow_mut().current(Instant::now());
        self.socket(server).await.map(drop)
    }

    async fn socket(&self, server: usize) -> Result<Socket, Trouble> {
        let kept = self.idle.borrow_mut().take();
        let now = Instant::now();
        if let Some(kept) = kept.filter(|kept| kept.is_fit(server, now)) {
            return Ok(kept);
        }
        let trouble = |error: &dyn Display| Trouble::new(TroubleKind::Connect, error);
        let to = self.servers.get(server).ok_or_else(|| trouble(&"no server is named"))?;
        let addresses = tokio::net::lookup_host((to.host(), to.port())).await;
        let addresses = addresses.map_err(|error| trouble(&format_args!("{}: {error}", to.host())))?;
        let mut last = trouble(&format_args!("{} has no address", to.host()));
        for address in addresses {
            match OwnSocket::connect_datagrams(address, &self.own).await {
                Ok((socket, _own)) => return Ok(Socket { socket, server, opened: now, _own }),
                Err(error) => last = trouble(&format_args!("{address}: {error}")),
            }
        }
        Err(last)
    }
}

async fn send(socket: &UdpSocket, parcel: &Parcel) -> Result<Answer, Trouble> {
    let mut verdicts = Vec::with_capacity(parcel.len());
    for item in parcel.items() {
        verdicts.push(match socket.send(item).await {
            Ok(_) => Verdict::Delivered,
            Err(error) if is_too_large(&error) => {
                let detail = format_args!("{} bytes are more than a datagram has", item.len());
                Verdict::Never(Refusal::new(RefusalKind::TooLarge, detail))
            }
            // Of this datagram, or what one of those before was answered.
            Err(error) => return Err(refused(&error)),
        });
    }
    match socket.take_error() {
        Ok(None) => {}
        Ok(Some(error)) | Err(error) => return Err(refused(&error)),
    }
    let all = verdicts.iter().all(|verdict| *verdict == Verdict::Delivered);
    Ok(if all { Answer::Delivered } else { Answer::Judged(verdicts) })
}

fn is_too_large(error: &io::Error) -> bool {
    Errno::from_io_error(error) == Some(Errno::MSGSIZE)
}

fn refused(error: &io::Error) -> Trouble {
    Trouble::new(TroubleKind::Connect, error)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sinks::loopback::{self, PATIENCE, parcel, run};

    fn receiver() -> (std::net::UdpSocket, Server) {
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        let server = loopback::server(socket.local_addr().unwrap());
        (socket, server)
    }

    fn datagram(socket: &std::net::UdpSocket) -> Vec<u8> {
        let mut room = vec![0; 65536];
        let length = socket.recv(&mut room).unwrap();
        room[..length].to_vec()
    }

    /// Bytes that one has at most (RFC 768, and 20 of IPv4 beside 8 of its own).
    const MAX_DATAGRAM: usize = 65535 - 28;

    #[test]
    fn an_item_is_a_datagram_up_to_its_size() {
        let (socket, server) = receiver();
        let client = Client::new(vec![server], Arc::default());
        let fits = vec![b'x'; MAX_DATAGRAM];
        let long = [&fits[..], b"x"].concat();
        let (first, second) = run(async {
            let first = client.deliver(&parcel(&[b"a", &b"bb"[..], &fits])).await;
            (first, client.deliver(&parcel(&[b"a", &long[..], b"c"])).await)
        });
        assert_eq!(first, Answer::Delivered);
        assert_eq!([datagram(&socket), datagram(&socket)], [&b"a"[..], b"bb"]);
        assert_eq!(datagram(&socket).len(), MAX_DATAGRAM);
        let Answer::Judged(verdicts) = second else { panic!() };
        let [Verdict::Delivered, Verdict::Never(refusal), Verdict::Delivered] = &verdicts[..] else {
            panic!("{verdicts:?}")
        };
        assert_eq!(refusal.kind, RefusalKind::TooLarge);
        assert_eq!([datagram(&socket), datagram(&socket)], [b"a", b"c"]);
    }

    #[test]
    fn what_is_refused_goes_to_the_next_server() {
        let (socket, server) = receiver();
        let closed = receiver().1;
        for items in [&["alone"][..], &["one", "two", "three"]] {
            let items = parcel(items);
            let client = Client::new(vec![closed.clone(), server.clone()], Arc::default());
            let (first, second) = run(async { (client.deliver(&items).await, client.deliver(&items).await) });
            let Answer::Later(trouble) = first else { panic!() };
            assert_eq!((trouble.kind, second), (TroubleKind::Connect, Answer::Delivered));
            items.items().for_each(|item| assert_eq!(datagram(&socket), item));
        }
    }

    #[test]
    fn a_socket_is_used_up_to_its_age() {
        run(async {
            let client = Client::new(vec![receiver().1], Arc::default());
            let socket = client.socket(0).await.unwrap();
            let age = |age| socket.is_fit(0, socket.opened + age);
            assert!(age(MAX_SOCKET_AGE - Duration::from_nanos(1)) && !age(MAX_SOCKET_AGE));
            assert!(!socket.is_fit(1, socket.opened));
        });
    }

    #[test]
    fn a_name_that_nobody_has_is_trouble() {
        let client = Client::new(vec![Server::parse("nowhere.invalid:1", None).unwrap()], Arc::default());
        assert!(matches!(run(client.deliver(&parcel(&["a"]))), Answer::Later(_)));
    }
}
