//! Which services are watched: addresses, networks, or an address and a port. Knows no names.

use std::net::{IpAddr, SocketAddr};

use super::End;
use crate::filter::Network;

/// What is allowed, as it is told.
pub const ALLOWED: &str = "an address, a network, or an address and a port such as 10.96.0.10, fd00:96::/64, 10.96.0.10:80, [fd00:96::10]:80";

/// One service, or several.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pattern {
    /// Every port of these addresses.
    Network(Network),
    /// One port of one address.
    End(IpAddr, u16),
}

impl Pattern {
    /// As [`ALLOWED`] says; absent if it is none of them.
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        match text.parse::<SocketAddr>() {
            Ok(end) => Some(Self::End(end.ip(), end.port())),
            Err(_) => Network::parse(text).map(Self::Network),
        }
    }

    fn holds(self, (address, port): End) -> bool {
        match self {
            Self::Network(network) => network.holds(address),
            Self::End(own, own_port) => own == address && own_port == port,
        }
    }
}

/// Whether `service` is among those selected; all are, if there is no pattern.
pub fn selects(patterns: &[Pattern], service: End) -> bool {
    patterns.is_empty() || patterns.iter().any(|pattern| pattern.holds(service))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns() {
        let end = |text: &str| text.parse().map(|end: SocketAddr| (end.ip(), end.port())).unwrap();
        for (pattern, service, expected) in [
            ("10.96.0.10", "10.96.0.10:80", true),
            ("10.96.0.10", "10.96.0.11:80", false),
            ("10.96.0.0/24", "10.96.0.11:80", true),
            ("10.96.0.10:80", "10.96.0.10:80", true),
            ("10.96.0.10:80", "10.96.0.10:81", false),
            ("fd00:96::/64", "[fd00:96::10]:80", true),
            ("[fd00:96::10]:80", "[fd00:96::10]:80", true),
            ("fd00:96::10", "10.96.0.10:80", false),
        ] {
            let parsed = Pattern::parse(pattern).unwrap();
            assert_eq!(selects(&[parsed], end(service)), expected, "{pattern} {service}");
        }
        for text in ["", "web", "10.96.0.10:", "10.96.0.10:99999", "10.96.0.1/24", "fd00:96::10:80x", ":80"] {
            assert_eq!(Pattern::parse(text), None, "{text}");
        }
        assert!(selects(&[], end("10.96.0.10:80")));
    }
}
