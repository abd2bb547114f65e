//! Keys of sinks whose servers take a stream or datagrams: where they are.

use super::{SinkKey as Key, Web, Wrong, drain::Query};
use crate::{
    config::keys::{all, put},
    sinks::{
        failover::Server,
        stream_client::{Access, Tls},
        transport::Transport,
    },
};

pub(super) static KEYS: &[Key] = &[Key {
    path: "failover",
    allowed: "a list of hosts with ports",
    default: "",
    sentence: "Servers that are asked one after the other when the one before fails; after a minute the URL's is again.",
    set: |sink, given| put(&mut sink.streams.failover, all(given, |server| Server::parse(server, None))),
}];

/// What is below.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Carriage {
    /// A stream.
    Tcp,
    /// A stream that nobody else reads.
    Tls,
    /// Datagrams.
    Udp,
}

/// `TYPE+CARRIAGE://host:port`.
#[derive(Clone, Debug)]
pub(super) struct Url {
    pub(super) carriage: Carriage,
    server: Server,
    /// Why options in it are refused: it has none.
    refused: Vec<String>,
}

impl Url {
    /// Reads `text`, whose scheme begins with `word`; absent if it is no such URL, or says more than where to but options.
    pub(super) fn parse(
        text: &str,
        word: &str,
        usual: Carriage,
        usual_port: fn(Carriage) -> Option<u16>,
    ) -> Option<Self> {
        let query = Query::take_all(text);
        let (scheme, rest) = query.url.split_once("://")?;
        let scheme = scheme.to_ascii_lowercase();
        let carriage = match scheme.strip_prefix(word)? {
            "" => usual,
            "+tcp" => Carriage::Tcp,
            "+tls" => Carriage::Tls,
            "+udp" => Carriage::Udp,
            _ => return None,
        };
        let server = Server::parse(rest.strip_suffix('/').unwrap_or(rest), usual_port(carriage))?;
        Some(Self { carriage, server, refused: query.refused(&[]) })
    }
}

/// Where servers are, as written.
#[derive(Clone, Debug, Default)]
pub(super) struct Streams {
    /// The first.
    pub(super) url: Option<Url>,
    failover: Vec<Server>,
}

impl Streams {
    /// The same where only a stream will do.
    pub(super) fn access(&self, web: &Web, wrong: &mut Vec<Wrong>) -> Option<Access> {
        match self.transport(web, wrong)? {
            Transport::Stream(access) => Some(access),
            Transport::Datagrams(_) => None,
        }
    }

    /// How they are reached; adds what is wrong.
    pub(super) fn transport(&self, web: &Web, wrong: &mut Vec<Wrong>) -> Option<Transport> {
        let Some(Url { carriage, server, refused }) = self.url.clone() else {
            wrong.push(("url", "it is missing: say where the server is".to_owned()));
            return None;
        };
        wrong.extend(refused.into_iter().map(|why| ("url", why)));
        web.check(carriage == Carriage::Tls, wrong);
        let servers = [server].into_iter().chain(self.failover.iter().cloned()).collect();
        let tls = || Tls { client: web.tls_client(), server_name: web.server_name.clone() };
        Some(match carriage {
            Carriage::Tcp => Transport::Stream(Access { servers, tls: None }),
            Carriage::Tls => Transport::Stream(Access { servers, tls: Some(tls()) }),
            Carriage::Udp => Transport::Datagrams(servers),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls() {
        let check = |text: &str, expected: Option<(Carriage, &str, u16)>| {
            let port = |carriage| (carriage == Carriage::Tls).then_some(6514);
            let url = Url::parse(text, "syslog", Carriage::Udp, port);
            let parts = url.as_ref().map(|url| (url.carriage, url.server.host(), url.server.port()));
            assert_eq!(parts, expected, "{text}");
        };
        check("syslog://a:1", Some((Carriage::Udp, "a", 1)));
        check("SYSLOG+TCP://a:1/", Some((Carriage::Tcp, "a", 1)));
        check("syslog+tls://[::1]", Some((Carriage::Tls, "::1", 6514)));
        for text in [
            "syslog+tcp://a",
            "syslog+quic://a:1",
            "a:1",
            "logstash://a:1",
            "syslog://u:p@a:1",
            "syslog://a:1/b",
        ] {
            check(text, None);
        }
    }
}
