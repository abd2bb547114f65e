//! Which of several servers is asked: the first, after a failure the next, and after a while the first again. Pure.

use std::time::{Duration, Instant};

use rustls::pki_types::ServerName;

/// The first server is asked again this long after it failed: a restart takes less, and each look at one that is still down costs an
/// attempt.
pub const BACK_TO_FIRST: Duration = Duration::from_secs(60);

/// Where a server is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    host: String,
    port: u16,
    name: ServerName<'static>,
}

impl Server {
    /// Reads `host:port`, or `host` where a port is usual; absent if it is none of them. An IPv6 address stands in brackets.
    pub fn parse(text: &str, usual_port: Option<u16>) -> Option<Self> {
        let bracketed = text.strip_prefix('[').and_then(|text| text.split_once(']'));
        let (host, rest) = match bracketed {
            Some((host, rest)) => (host, rest),
            None => text.split_at(text.find(':').unwrap_or(text.len())),
        };
        let port = match rest.strip_prefix(':') {
            Some(port) => port.parse().ok().filter(|port| *port != 0)?,
            None if rest.is_empty() => usual_port?,
            None => return None,
        };
        let name = ServerName::try_from(host.to_owned()).ok()?;
        if bracketed.is_some() && !matches!(name, ServerName::IpAddress(_)) {
            return None;
        }
        Some(Self { host: host.to_owned(), port, name })
    }

    /// A name or an address.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Never 0.
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// Whose certificate it should have.
    pub const fn name(&self) -> &ServerName<'static> {
        &self.name
    }
}

/// Which server is asked.
#[derive(Debug)]
pub(super) struct Failover {
    servers: usize,
    current: usize,
    /// When the first one failed, if another one is asked.
    left_first: Option<Instant>,
}

impl Failover {
    /// The first of so many.
    pub(super) const fn new(servers: usize) -> Self {
        Self { servers, current: 0, left_first: None }
    }

    /// Which one is asked at `now`.
    pub(super) fn current(&mut self, now: Instant) -> usize {
        if self.left_first.is_some_and(|then| now.saturating_duration_since(then) >= BACK_TO_FIRST) {
            self.current = 0;
            self.left_first = None;
        }
        self.current
    }

    /// This one failed at `now`. What failed while another one was asked already says nothing about that.
    pub(super) fn failed(&mut self, server: usize, now: Instant) {
        if server != self.current {
            return;
        }
        self.current = (server + 1) % self.servers.max(1);
        self.left_first = if self.current == 0 { None } else { Some(self.left_first.unwrap_or(now)) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers() {
        let check = |text: &str, expected: Option<(&str, u16)>| {
            let server = Server::parse(text, Some(514));
            assert_eq!(server.as_ref().map(|server| (server.host(), server.port())), expected, "{text}");
        };
        check("logs.shop", Some(("logs.shop", 514)));
        check("logs.shop:6514", Some(("logs.shop", 6514)));
        check("10.0.0.7:1", Some(("10.0.0.7", 1)));
        check("[2001:db8::1]:601", Some(("2001:db8::1", 601)));
        check("[2001:db8::1]", Some(("2001:db8::1", 514)));
        for text in [
            "", ":514", "a:", "a:0", "a:65536", "a:b", "a b:1", "[::1", "[::1]x", "[a]:1", "::1", "u@a:1",
            "a/b",
        ] {
            check(text, None);
        }
        assert_eq!(Server::parse("a", None), None);
    }

    #[test]
    fn the_next_after_a_failure_and_the_first_after_a_while() {
        let start = Instant::now();
        let mut failover = Failover::new(3);
        assert_eq!(failover.current(start), 0);
        failover.failed(0, start);
        // Of what was under way.
        failover.failed(0, start);
        assert_eq!(failover.current(start), 1);
        let later = start + Duration::from_secs(1);
        failover.failed(1, later);
        assert_eq!(failover.current(start + BACK_TO_FIRST - Duration::from_nanos(1)), 2);
        assert_eq!(failover.current(start + BACK_TO_FIRST), 0);
        for server in 0..3 {
            assert_eq!(failover.current(later), server);
            failover.failed(server, later);
        }
        assert_eq!(failover.current(later), 0);
        assert_eq!(failover.left_first, None);
    }

    #[test]
    fn a_server_alone_stays() {
        let now = Instant::now();
        let mut failover = Failover::new(1);
        failover.failed(0, now);
        assert_eq!((failover.current(now), failover.left_first), (0, None));
    }
}
