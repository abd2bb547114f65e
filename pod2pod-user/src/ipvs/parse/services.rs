//! `/proc/net/ip_vs`: virtual services, and below each its real servers. Which server belongs to which service is the order
//! of the lines; keeping them is the job of `services`.

use super::{super::End, Damage, Protocol, words};

/// What packets a service is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Matches {
    /// A protocol, a virtual address, and a port; port 0 is every port without a service of its own.
    Address(Protocol, End),
    /// A firewall mark.
    Mark(u32),
}

/// A service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServiceLine<'a> {
    /// What it is for.
    pub matches: Matches,
    /// Scheduler.
    pub scheduler: &'a [u8],
    /// What follows: `ops`, and `persistent`, its time-out in jiffies and its netmask.
    pub flags: &'a [u8],
}

/// How packets get to a real server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forward {
    /// Addresses are rewritten; replies come back through the director.
    Masquerading,
    /// The director is the server.
    Local,
    /// In a tunnel; replies do not come back.
    Tunnel,
    /// By its link address; replies do not come back.
    Route,
    /// To where it was going anyway.
    Bypass,
    /// None of these.
    Other,
}

impl Forward {
    /// The word that people know it by.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Masquerading => "masq",
            Self::Local => "local",
            Self::Tunnel => "tunnel",
            Self::Route => "route",
            Self::Bypass => "bypass",
            Self::Other => "other",
        }
    }

    fn parse(word: &[u8]) -> Self {
        match word {
            b"Masq" => Self::Masquerading,
            b"Local" => Self::Local,
            b"Tunnel" => Self::Tunnel,
            b"Route" => Self::Route,
            b"Bypass" => Self::Bypass,
            _ => Self::Other,
        }
    }
}

/// A real server of the service above it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServerLine {
    /// Its address and port; port 0 is the port that the client asked for.
    pub end: End,
    /// How packets get there.
    pub forward: Forward,
    /// 0: takes no new connections.
    pub weight: u32,
    /// Entries in an open state.
    pub active: u32,
    /// All others.
    pub inactive: u32,
}

/// A line of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Line<'a> {
    /// A service.
    Service(ServiceLine<'a>),
    /// A real server of the last service.
    Server(ServerLine),
}

/// Lines before the first service.
const HEADER_LINES: u32 = 3;

/// Reads the lines of that file.
#[derive(Clone, Debug, Default)]
pub struct ServiceTable {
    header: u32,
    is_foreign: bool,
    /// Lines that were not understood.
    pub damage: Damage,
}

impl ServiceTable {
    /// The next line; absent if it says nothing of a service or a server.
    pub fn line<'a>(&mut self, line: &'a [u8]) -> Option<Line<'a>> {
        if self.header < HEADER_LINES {
            self.is_foreign |= self.header == 0 && !line.starts_with(b"IP Virtual Server version ");
            self.header += 1;
            return None;
        }
        if self.is_foreign {
            return None;
        }
        let parsed = match line.strip_prefix(b"  -> ") {
            Some(server) => server_line(server).map(Line::Server),
            None => service_line(line).map(Line::Service),
        };
        if parsed.is_none() && !line.trim_ascii().is_empty() {
            self.damage.count(line);
        }
        parsed
    }

    /// Whether the file began as such a table does.
    pub const fn is_table(&self) -> bool {
        self.header > 0 && !self.is_foreign
    }
}

fn service_line(line: &[u8]) -> Option<ServiceLine<'_>> {
    let mut words = words::Words::new(line);
    let protocol = words.next();
    let matches = if protocol == b"FWM" {
        Matches::Mark(words::hexadecimal(words.next())?.try_into().ok()?)
    } else {
        Matches::Address(Protocol::parse(protocol)?, words::end(words.next())?)
    };
    let scheduler = words.next();
    (!scheduler.is_empty()).then(|| ServiceLine { matches, scheduler, flags: words.rest() })
}

fn server_line(line: &[u8]) -> Option<ServerLine> {
    let mut words = words::Words::new(line);
    let end = words::end(words.next())?;
    let forward = Forward::parse(words.next());
    let mut number = || words::decimal(words.next())?.try_into().ok();
    Some(ServerLine { end, forward, weight: number()?, active: number()?, inactive: number()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: [&str; 3] = [
        "IP Virtual Server version 1.2.1 (size=4096)",
        "Prot LocalAddress:Port Scheduler Flags",
        "  -> RemoteAddress:Port Forward Weight ActiveConn InActConn",
    ];

    fn table() -> ServiceTable {
        let mut table = ServiceTable::default();
        for line in HEADER {
            assert!(table.line(line.as_bytes()).is_none());
        }
        table
    }

    #[test]
    fn services() {
        let mut table = table();
        for (line, matches, scheduler, flags) in [
            (
                "TCP  0A60000A:0050 rr  ",
                Matches::Address(Protocol::TCP, ("10.96.0.10".parse().unwrap(), 80)),
                "rr",
                "",
            ),
            (
                "UDP  [fd00:0096:0000:0000:0000:0000:0000:0010]:13C4 rr persistent 15000 80000000",
                Matches::Address(Protocol::UDP, ("fd00:96::10".parse().unwrap(), 5060)),
                "rr",
                "persistent 15000 80000000",
            ),
            ("FWM  00000102 wlc ops ", Matches::Mark(258), "wlc", "ops"),
        ] {
            let expected = ServiceLine { matches, scheduler: scheduler.as_bytes(), flags: flags.as_bytes() };
            assert_eq!(table.line(line.as_bytes()), Some(Line::Service(expected)), "{line}");
        }
        assert_eq!(table.damage, Damage::default());
    }

    #[test]
    fn servers() {
        let mut table = table();
        let line = b"  -> 0AF40203:1F90      Masq    1      8          2         ";
        let end = ("10.244.2.3".parse().unwrap(), 8080);
        let expected = ServerLine { end, forward: Forward::Masquerading, weight: 1, active: 8, inactive: 2 };
        assert_eq!(table.line(line), Some(Line::Server(expected)));
        for (word, forward) in [
            ("Tunnel", "tunnel"),
            ("Route", "route"),
            ("Local", "local"),
            ("Bypass", "bypass"),
            ("New", "other"),
        ] {
            let line = format!(
                "  -> [fd00:0244:0002:0000:0000:0000:0000:0002]:1F90      {word}  0      2          0         "
            );
            let Some(Line::Server(server)) = table.line(line.as_bytes()) else { panic!("{line}") };
            assert_eq!((server.forward.as_str(), server.weight), (forward, 0));
        }
    }

    #[test]
    fn damage_is_counted_and_foreign_files_have_no_services() {
        let mut damaged = table();
        for line in [
            "TCP  0A60000A rr",
            "TCP  0A60000A:0050",
            "  -> 0AF40203:1F90 Masq 1 8",
            "XYZ 1 2",
            "FWM 123456789 rr",
        ] {
            assert!(damaged.line(line.as_bytes()).is_none(), "{line}");
        }
        assert_eq!((damaged.damage.lines, damaged.is_table()), (5, true));
        let mut foreign = ServiceTable::default();
        for line in ["root:x:0:0", "", "", "TCP  0A60000A:0050 rr  "] {
            assert!(foreign.line(line.as_bytes()).is_none());
        }
        assert!(!foreign.is_table() && !ServiceTable::default().is_table());
    }
}
