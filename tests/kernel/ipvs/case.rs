//! One client that comes back with its port: how its first connection ended, what became of the real server meanwhile, and
//! what happened to the second one. Knows sockets, not the watch.

use std::{
    io::{self, Read as _},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket},
    os::fd::OwnedFd,
};

use nix::sys::socket::{setsockopt, sockopt::Linger, sockopt::TcpRepair};
use rustix::{
    io::Errno,
    net::{AddressFamily, SocketFlags, SocketType, bind, connect, socket_with, sockopt},
};
use support::{
    director::{CLIENT, Director, Family, Service},
    process::PATIENCE,
};

/// From the port of a service to that of its client.
const CLIENT_PORTS: u16 = 20_000;

/// In which state the entry of the first connection is when the second one comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Prior {
    /// The server closed first, then the client.
    TimeWait,
    /// The server closed; then both were gone without a word.
    FinWait,
    /// The client closed; then both were gone without a word.
    CloseWait,
    /// The client reset.
    Close,
    /// Both were gone without a word.
    Established,
    /// The client was gone without a word; the server still has the connection.
    HalfOpen,
    /// Datagrams, which have no such states.
    Udp,
}

impl Prior {
    /// As the table has it.
    pub(crate) const fn state(self) -> &'static str {
        match self {
            Self::TimeWait => "TIME_WAIT",
            Self::FinWait => "FIN_WAIT",
            Self::CloseWait => "CLOSE_WAIT",
            Self::Close => "CLOSE",
            Self::Established | Self::HalfOpen => "ESTABLISHED",
            Self::Udp => "UDP",
        }
    }
}

/// What happens to the first connection's server before the second one comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Event {
    Nothing,
    /// Its weight becomes 0, as of a pod that is being ended.
    Drained,
    /// The same, and nobody listens there any more.
    DrainedAndRefusing,
    /// The same, and it does not answer any more.
    DrainedAndSilent,
    /// It is removed from the service, and still runs.
    Removed,
}

/// What became of the second connection, as its client had it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// This server took it.
    Served(usize),
    Refused,
    TimedOut,
    Other(Errno),
}

/// What is tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Plan {
    pub(crate) family: Family,
    /// The service sends a client to where it was before, by a template.
    pub(crate) is_persistent: bool,
    pub(crate) prior: Prior,
    pub(crate) event: Event,
}

/// An end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Client,
    Server(usize),
}

/// A plan being carried out, with a service of its own.
pub(crate) struct Case {
    pub(crate) plan: Plan,
    pub(crate) service: Service,
    pub(crate) client: SocketAddr,
    /// The server of the first connection.
    pub(crate) first: Option<usize>,
    /// The service does not have that server any more.
    pub(crate) is_removed: bool,
    pub(crate) outcome: Option<Outcome>,
    servers: [Listening; 2],
    /// The client's socket while it connects.
    connecting: Option<OwnedFd>,
    /// Client's and server's ends of a connection.
    ends: Option<[TcpStream; 2]>,
    /// A server's end whose client is gone.
    left: Option<TcpStream>,
    /// The client's socket of datagrams, which stays the same.
    datagrams: Option<UdpSocket>,
}

/// A real server's socket.
enum Listening {
    Tcp(TcpListener),
    Udp(UdpSocket),
    /// It was closed.
    Not,
}

impl Listening {
    /// The calling thread is where the server is.
    fn at(service: Service, server: usize) -> Self {
        let address = service.server(server);
        if service.is_tcp {
            let listener = TcpListener::bind(address).unwrap();
            listener.set_nonblocking(true).unwrap();
            Self::Tcp(listener)
        } else {
            let socket = UdpSocket::bind(address).unwrap();
            socket.set_nonblocking(true).unwrap();
            Self::Udp(socket)
        }
    }
}

impl Case {
    /// Cases for all of `plans`, with numbers from `number` on that no other case of this director has.
    pub(crate) fn all(director: &Director, plans: &[Plan], number: u16) -> Vec<Self> {
        let services: Vec<Service> = (number..)
            .zip(plans)
            .map(|(number, plan)| Service {
                is_tcp: plan.prior != Prior::Udp,
                family: plan.family,
                port: 10_000 + number,
                server_port: 20_000 + number,
            })
            .collect();
        let [first, second] = [0, 1].map(|server| {
            director.servers[server]
                .within(|| services.iter().map(|service| Listening::at(*service, server)).collect::<Vec<_>>())
        });
        let cases = plans.iter().zip(services).zip(first.into_iter().zip(second));
        cases.map(|((plan, service), (first, second))| Self::new(*plan, service, [first, second])).collect()
    }

    fn new(plan: Plan, service: Service, servers: [Listening; 2]) -> Self {
        Self {
            plan,
            service,
            client: (CLIENT.of_family(plan.family), service.port + CLIENT_PORTS).into(),
            first: None,
            is_removed: false,
            outcome: None,
            servers,
            connecting: None,
            ends: None,
            left: None,
            datagrams: None,
        }
    }

    /// Lines of `ipvsadm` that make its service.
    pub(crate) fn rules(&self) -> String {
        let Self { service, .. } = self;
        let persistent = if self.plan.is_persistent { " -p 300" } else { "" };
        let servers = [0, 1].map(|server| format!("-a {service} -r {} -m -w 1\n", service.server(server)));
        format!("-A {service} -s rr{persistent}\n{}", servers.concat())
    }

    /// What is to happen to the first connection's server happens, but for lines of `ipvsadm`, which it gives.
    pub(crate) fn happen(&mut self) -> String {
        let first = self.first.expect("its first connection had a server");
        let (service, server) = (self.service, self.service.server(first));
        if self.plan.event == Event::DrainedAndRefusing {
            self.servers[first] = Listening::Not;
        }
        self.is_removed = self.plan.event == Event::Removed;
        match self.plan.event {
            Event::Nothing => String::new(),
            Event::Removed => format!("-d {service} -r {server}\n"),
            Event::Drained | Event::DrainedAndRefusing | Event::DrainedAndSilent => {
                format!("-e {service} -r {server} -m -w 0\n")
            }
        }
    }

    /// The client sends its SYN, or its datagram. The calling thread is where the client is.
    pub(crate) fn begin(&mut self) {
        if !self.service.is_tcp {
            let socket = self.datagrams.get_or_insert_with(|| UdpSocket::bind(self.client).unwrap());
            socket.send_to(b"to whom it may concern", self.service.address()).unwrap();
            return;
        }
        let family = if self.client.is_ipv6() { AddressFamily::INET6 } else { AddressFamily::INET };
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let socket = socket_with(family, SocketType::STREAM, flags, None).unwrap();
        sockopt::set_socket_reuseaddr(&socket, true).unwrap();
        bind(&socket, &self.client)
            .unwrap_or_else(|error| panic!("{:?} {}: {error}", self.plan, self.client));
        match connect(&socket, &self.service.address()) {
            Ok(()) | Err(Errno::INPROGRESS) => self.connecting = Some(socket),
            Err(error) => self.outcome = Some(Outcome::Other(error)),
        }
    }

    /// Looks at the servers' sockets and the client's; says who took what [`Self::begin`] sent, once it is known.
    pub(crate) fn look(&mut self) -> Option<Outcome> {
        if self.outcome.is_some() {
            return self.outcome;
        }
        for (number, server) in self.servers.iter().enumerate() {
            match server {
                Listening::Tcp(listener) => match listener.accept() {
                    // Somebody else cannot be there, but the connection of a client that gave up can.
                    Ok((accepted, from)) if from == self.client => {
                        let client = self.connecting.take().expect("a connection begins with a client");
                        let streams = [TcpStream::from(client), accepted];
                        streams.iter().for_each(|stream| stream.set_nonblocking(false).unwrap());
                        self.ends = Some(streams);
                        self.outcome = Some(Outcome::Served(number));
                    }
                    Ok((_, from)) => panic!("{from} at {:?}", self.service),
                    Err(error) => assert_eq!(error.kind(), io::ErrorKind::WouldBlock, "{error}"),
                },
                Listening::Udp(socket) => match socket.recv_from(&mut [0; 100]) {
                    Ok((_, from)) => {
                        assert_eq!(from, self.client);
                        self.outcome = Some(Outcome::Served(number));
                    }
                    Err(error) => assert_eq!(error.kind(), io::ErrorKind::WouldBlock, "{error}"),
                },
                Listening::Not => {}
            }
        }
        if let Some(error) =
            self.connecting.as_ref().and_then(|socket| sockopt::socket_error(socket).unwrap().err())
        {
            self.outcome = Some(match error {
                Errno::CONNREFUSED => Outcome::Refused,
                Errno::TIMEDOUT => Outcome::TimedOut,
                other => Outcome::Other(other),
            });
        }
        self.outcome
    }

    /// Closes the first connection as planned; the outcome is free for the second.
    pub(crate) fn close_first(&mut self) {
        let Some(Outcome::Served(first)) = self.outcome.take() else {
            panic!("{:?}: {:?}", self.plan, self.outcome)
        };
        self.first = Some(first);
        let Some([client, server]) = self.ends.take() else { return };
        match self.plan.prior {
            Prior::TimeWait => return close_in_order(client, server),
            Prior::Close => return reset(client),
            Prior::FinWait => {
                server.shutdown(Shutdown::Write).unwrap();
                wait_for_end(&client);
            }
            Prior::CloseWait => {
                client.shutdown(Shutdown::Write).unwrap();
                wait_for_end(&server);
            }
            Prior::Established | Prior::HalfOpen | Prior::Udp => {}
        }
        self.ends = Some([client, server]);
    }

    /// Which end closed its half, of a connection whose ends are to be gone: it was told so when it is in FIN-WAIT-2.
    pub(crate) fn closed_half(&self) -> Option<(End, u16)> {
        let server = || End::Server(self.first.expect("it had a first connection"));
        match self.plan.prior {
            Prior::FinWait => Some((server(), self.service.server_port)),
            Prior::CloseWait => Some((End::Client, self.client.port())),
            _ => None,
        }
    }

    /// The ends that are planned to be gone are, without a word.
    pub(crate) fn vanish(&mut self) {
        let Some([client, server]) = self.ends.take() else { return };
        vanish(client);
        if self.plan.prior == Prior::HalfOpen {
            self.left = Some(server);
        } else {
            vanish(server);
        }
    }

    /// Ends the second connection in order, if there is one.
    pub(crate) fn end_second(&mut self) {
        if let Some([client, server]) = self.ends.take() {
            close_in_order(client, server);
        }
    }
}

/// Server first, so that nothing of the connection is left at the client.
fn close_in_order(client: TcpStream, server: TcpStream) {
    drop(server);
    wait_for_end(&client);
}

fn wait_for_end(mut end: &TcpStream) {
    end.set_read_timeout(Some(PATIENCE)).unwrap();
    assert_eq!(end.read(&mut [0]).unwrap(), 0);
}

/// Its last word is a RST.
fn reset(end: TcpStream) {
    setsockopt(&end, Linger, &libc::linger { l_onoff: 1, l_linger: 0 }).unwrap();
}

/// Without a word, as if its host were gone.
fn vanish(end: TcpStream) {
    setsockopt(&end, TcpRepair, &1).unwrap();
}
