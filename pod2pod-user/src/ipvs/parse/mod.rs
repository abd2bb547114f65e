//! The kernel's text, line by line: rows that borrow from it, whatever the bytes are. Keeps no table and opens no file.
//!
//! Formats are those of `ip_vs_conn.c` and `ip_vs_ctl.c`, columns split on white space and never on offsets: protocol names
//! and address families shift them.

pub mod connection;
mod lines;
pub mod services;
pub mod stats;
mod words;

use std::fmt;

pub use connection::{Connections, Row};
pub use lines::{Lines, MAX_LINE};

/// A protocol by its number, as IPVS spells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Protocol(pub u8);

impl Protocol {
    /// 0: a template of a firewall mark.
    pub const IP: Self = Self(0);
    /// TCP.
    pub const TCP: Self = Self(6);
    /// UDP.
    pub const UDP: Self = Self(17);
    /// SCTP.
    pub const SCTP: Self = Self(132);

    /// Names of `ip_vs_proto_name`; the rest is `IP_` and the number.
    const NAMES: [(Self, &'static str); 6] = [
        (Self::TCP, "TCP"),
        (Self::UDP, "UDP"),
        (Self::SCTP, "SCTP"),
        (Self::IP, "IP"),
        (Self(1), "ICMP"),
        (Self(58), "ICMPv6"),
    ];

    /// From a column; absent if it is no protocol.
    pub fn parse(word: &[u8]) -> Option<Self> {
        match Self::NAMES.iter().find(|(_, name)| name.as_bytes() == word) {
            Some((protocol, _)) => Some(*protocol),
            None => words::decimal(word.strip_prefix(b"IP_")?)?.try_into().ok().map(Self),
        }
    }

    /// Its name, if it has one.
    pub fn name(self) -> Option<&'static str> {
        Self::NAMES.iter().find(|(protocol, _)| *protocol == self).map(|(_, name)| *name)
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => formatter.pad(name),
            None => formatter.pad(&format!("IP_{}", self.0)),
        }
    }
}

/// What was not understood: how often, and the first of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Damage {
    /// Lines that were not understood.
    pub lines: u64,
    /// The first one, its beginning.
    pub first: Vec<u8>,
}

/// Bytes of the first unparsable line that are kept for the log: an IPv6 row has 158.
pub const MAX_QUOTED: usize = 200;

impl Damage {
    /// Counts `line`.
    pub fn count(&mut self, line: &[u8]) {
        if self.lines == 0 {
            self.first = line.get(..MAX_QUOTED).unwrap_or(line).to_vec();
        }
        self.lines += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn protocols_are_what_the_kernel_calls_them() {
        for (word, number) in
            [("TCP", 6), ("UDP", 17), ("SCTP", 132), ("ICMP", 1), ("ICMPv6", 58), ("IP", 0), ("IP_50", 50)]
        {
            assert_eq!(Protocol::parse(word.as_bytes()), Some(Protocol(number)), "{word}");
            assert_eq!(Protocol(number).to_string(), word);
        }
        for word in ["", "tcp", "IP_", "IP_256", "IP_x", "TCP6"] {
            assert_eq!(Protocol::parse(word.as_bytes()), None, "{word}");
        }
    }

    #[test]
    fn the_first_damage_is_kept_up_to_its_limit() {
        let mut damage = Damage::default();
        damage.count(&[b'a'; MAX_QUOTED + 1]);
        damage.count(b"second");
        assert_eq!((damage.lines, damage.first), (2, vec![b'a'; MAX_QUOTED]));
        let mut damage = Damage::default();
        damage.count(&[b'a'; MAX_QUOTED]);
        assert_eq!(damage.first.len(), MAX_QUOTED);
    }
}
