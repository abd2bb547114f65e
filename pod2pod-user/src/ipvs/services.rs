//! Virtual services and their real servers, as one reading of `ip_vs` had them, to be asked about single entries.

use std::collections::BTreeMap;

use super::{
    End, Tuple,
    parse::services::{Forward, Line, Matches, ServerLine, ServiceTable},
};

/// How a real server stands in its service.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Standing {
    /// It is there, with this weight; 0 takes no new connections.
    Weight(u32),
    /// The service does not have it, or is not there any more.
    Absent,
    /// There was no `ip_vs` to ask.
    #[default]
    Unknown,
}

/// Services that are kept at most: kube-proxy has a few for each Service and address, 10,000 Services have 100,000 at most.
pub const MAX_SERVICES: usize = 200_000;
/// Real servers that are kept at most, those of all services together.
pub const MAX_SERVERS: usize = 1_000_000;

/// A service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// Scheduler.
    pub scheduler: String,
    /// `ops`, `persistent` and the like, as written.
    pub flags: String,
    /// Its real servers, in the kernel's order.
    pub servers: Vec<ServerLine>,
}

/// How many are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Services at most.
    pub services: usize,
    /// Real servers at most.
    pub servers: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { services: MAX_SERVICES, servers: MAX_SERVERS }
    }
}

/// What a service costs, with its two words and its part of the tree. Bytes.
pub const SERVICE_BYTES: usize = 256;
/// What a real server costs at most, in a list that is being made twice as large. Bytes.
pub const SERVER_BYTES: usize = 3 * size_of::<ServerLine>();

/// All services.
#[derive(Clone, Debug, Default)]
pub struct Services {
    limits: Limits,
    services: BTreeMap<Matches, Service>,
    last: Option<Matches>,
    servers: usize,
    /// Lines for which there was no room, or which stand below no service.
    pub left_out: u64,
    table: ServiceTable,
}

impl Services {
    /// Without any, and with room for so many.
    pub fn new(limits: Limits) -> Self {
        Self { limits, ..Self::default() }
    }

    /// The next line of the file.
    pub fn line(&mut self, line: &[u8]) {
        match self.table.line(line) {
            Some(Line::Service(service)) => {
                let has_room = self.services.len() < self.limits.services;
                self.last = has_room.then_some(service.matches);
                if !has_room {
                    self.left_out += 1;
                    return;
                }
                let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
                let (scheduler, flags) = (text(service.scheduler), text(service.flags));
                self.services.insert(service.matches, Service { scheduler, flags, servers: Vec::new() });
            }
            Some(Line::Server(server)) => {
                let service = self.last.and_then(|last| self.services.get_mut(&last));
                match service.filter(|_| self.servers < self.limits.servers) {
                    Some(service) => {
                        service.servers.push(server);
                        self.servers += 1;
                    }
                    None => self.left_out += 1,
                }
            }
            None => {}
        }
    }

    /// A service that is known otherwise than by its lines, if there is room for it.
    pub fn add(&mut self, matches: Matches, scheduler: String, flags: String, servers: Vec<ServerLine>) {
        if self.services.len() >= self.limits.services || self.servers + servers.len() > self.limits.servers {
            self.left_out += 1;
            return;
        }
        self.servers += servers.len();
        self.services.insert(matches, Service { scheduler, flags, servers });
    }

    /// Services for which there is room left.
    pub fn room(&self) -> usize {
        self.limits.services.saturating_sub(self.services.len())
    }

    /// Whether there is a service for this.
    pub fn has(&self, matches: &Matches) -> bool {
        self.services.contains_key(matches)
    }

    /// What the lines were like.
    pub const fn table(&self) -> &ServiceTable {
        &self.table
    }

    /// The services, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&Matches, &Service)> {
        self.services.iter()
    }

    /// The service that an entry belongs to, and its real server there. An entry does not tell the service: it is the one of its
    /// virtual address and port, that of all ports there, or one of a firewall mark, whichever has the server.
    pub fn find(&self, tuple: &Tuple, server: End) -> (Option<&Matches>, Option<&ServerLine>) {
        let (address, port) = tuple.service;
        let by_address =
            |port| self.services.get_key_value(&Matches::Address(tuple.protocol, (address, port)));
        let of_address = by_address(port).into_iter().chain(if port == 0 { None } else { by_address(0) });
        let is_it = |line: &&ServerLine| {
            let (own, own_port) = line.end;
            own == server.0 && (own_port == server.1 || (own_port == 0 && server.1 == port))
        };
        let all = of_address.clone().chain(self.services.range(Matches::Mark(0)..));
        for (matches, service) in all {
            if let Some(found) = service.servers.iter().find(is_it) {
                return (Some(matches), Some(found));
            }
        }
        (of_address.map(|(matches, _)| matches).next(), None)
    }

    /// How `server` stands in the service of an entry.
    pub fn standing(&self, tuple: &Tuple, server: End) -> Standing {
        self.find(tuple, server).1.map_or(Standing::Absent, |server| Standing::Weight(server.weight))
    }

    /// Whether the director does not see what `server` replies.
    pub fn replies_unseen(&self, tuple: &Tuple, server: End) -> bool {
        let found = self.find(tuple, server).1;
        found.is_some_and(|server| matches!(server.forward, Forward::Tunnel | Forward::Route))
    }
}

#[cfg(test)]
mod tests {
    use super::{super::parse::Protocol, *};

    const TEXT: &str = "\
IP Virtual Server version 1.2.1 (size=4096)
Prot LocalAddress:Port Scheduler Flags
  -> RemoteAddress:Port Forward Weight ActiveConn InActConn
TCP  0A60000A:0050 rr  
  -> 0AF40203:1F90      Masq    1      8          2         
  -> 0AF40202:1F90      Masq    0      2          2         
TCP  0A60000A:0000 rr  persistent 15000 FFFFFFFF
  -> 0AF40202:0000      Route   3      1          0         
FWM  00000007 rr persistent 30000 FFFFFFFF
  -> 0AF40204:0000      Masq    5      1          0         
";

    fn services(text: &str) -> Services {
        let mut services = Services::default();
        text.lines().for_each(|line| services.line(line.as_bytes()));
        services
    }

    fn tuple(service: &str) -> Tuple {
        let service: std::net::SocketAddr = service.parse().unwrap();
        let client = ("10.244.1.2".parse().unwrap(), 41_001);
        Tuple { protocol: Protocol::TCP, client, service: (service.ip(), service.port()) }
    }

    fn server(last: u8, port: u16) -> End {
        ([10, 244, 2, last].into(), port)
    }

    #[test]
    fn servers_stand_as_their_service_has_them() {
        let services = services(TEXT);
        assert_eq!((services.iter().count(), services.left_out), (3, 0));
        for (service, server, standing) in [
            ("10.96.0.10:80", server(3, 8080), Standing::Weight(1)),
            ("10.96.0.10:80", server(2, 8080), Standing::Weight(0)),
            ("10.96.0.10:80", server(2, 8081), Standing::Absent),
            ("10.96.0.10:80", server(4, 8080), Standing::Absent),
            ("10.96.0.10:9090", server(2, 9090), Standing::Weight(3)),
            ("10.96.0.10:9090", server(2, 9091), Standing::Absent),
            ("10.96.0.10:8080", server(4, 8080), Standing::Weight(5)),
            ("10.96.0.11:8080", server(4, 8080), Standing::Weight(5)),
            ("10.96.0.11:8080", server(2, 8080), Standing::Absent),
        ] {
            assert_eq!(services.standing(&tuple(service), server), standing, "{service} {server:?}");
        }
        assert!(services.replies_unseen(&tuple("10.96.0.10:9090"), server(2, 9090)));
        assert!(!services.replies_unseen(&tuple("10.96.0.10:80"), server(3, 8080)));
    }

    #[test]
    fn there_is_room_for_so_many() {
        let header: Vec<&str> = TEXT.lines().take(3).collect();
        let mut services = services(&header.join("\n"));
        for index in 0..=MAX_SERVICES {
            services.line(format!("FWM  {index:08X} rr").as_bytes());
        }
        assert_eq!((services.iter().count(), services.left_out), (MAX_SERVICES, 1));
        let server = b"  -> 0AF40203:1F90      Masq    1      8          2         ";
        services.line(server);
        assert_eq!(services.left_out, 2, "of a service for which there was no room");
        services.services.pop_last();
        services.line(b"FWM  00000001 rr");
        for _ in 0..=MAX_SERVERS {
            services.line(server);
        }
        assert_eq!((services.servers, services.left_out), (MAX_SERVERS, 3));
        let add = |services: &mut Services, mark, count| {
            let one = services.iter().find_map(|(_, service)| service.servers.first().copied());
            let servers = vec![one.unwrap(); count];
            services.add(Matches::Mark(mark), "rr".to_owned(), String::new(), servers);
        };
        add(&mut services, u32::MAX, 1);
        assert_eq!((services.servers, services.left_out), (MAX_SERVERS, 4), "no server more");
        add(&mut services, u32::MAX, 0);
        add(&mut services, u32::MAX - 1, 0);
        assert_eq!((services.iter().count(), services.left_out), (MAX_SERVICES, 5), "no service more");
        assert!(services.has(&Matches::Mark(u32::MAX)) && !services.has(&Matches::Mark(u32::MAX - 1)));
    }
}
