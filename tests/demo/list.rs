//! The list that each party of the demo writes: one line an exchange, as that party lived it. It does not know the
//! agent.

use std::{
    fmt,
    fs::File,
    io::{self, Write as _},
    net::SocketAddr,
    path::Path,
    str::FromStr,
    sync::Mutex,
};

use anyhow::{Context as _, Result, bail};

/// Which end of the connection speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum End {
    Client,
    Server,
}

impl End {
    /// As in `observed_at`.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Server => "server",
        }
    }
}

/// One exchange at one end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) end: End,
    /// The client's address; NAT of the demo's kind leaves it alone.
    pub(crate) client: SocketAddr,
    /// The server's address as this end knows it: the service's for the client, the pod's for the server.
    pub(crate) server: SocketAddr,
    /// Ordinal of the exchange on its connection, from 0.
    pub(crate) index: usize,
    pub(crate) method: String,
    pub(crate) target: String,
    /// Status of the final response, if one came.
    pub(crate) status: Option<u16>,
    /// Content bytes of the request.
    pub(crate) request_bytes: u64,
    /// Content bytes of the response; 0 without one.
    pub(crate) response_bytes: u64,
    pub(crate) outcome: String,
}

impl fmt::Display for Entry {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let status = self.status.map_or_else(|| "-".to_owned(), |status| status.to_string());
        write!(
            formatter,
            "{} {} {} {} {} {} {status} {} {} {}",
            self.end.name(),
            self.client,
            self.server,
            self.index,
            self.method,
            self.target,
            self.request_bytes,
            self.response_bytes,
            self.outcome
        )
    }
}

impl FromStr for Entry {
    type Err = anyhow::Error;

    fn from_str(line: &str) -> Result<Self> {
        let words: Vec<&str> = line.split(' ').collect();
        let [end, client, server, index, method, target, status, request, response, outcome] = words[..]
        else {
            bail!("a line has 10 words: {line:?}");
        };
        let end = match end {
            "client" => End::Client,
            "server" => End::Server,
            other => bail!("there is no end called {other:?}"),
        };
        Ok(Self {
            end,
            client: client.parse()?,
            server: server.parse()?,
            index: index.parse()?,
            method: method.to_owned(),
            target: target.to_owned(),
            status: if status == "-" { None } else { Some(status.parse()?) },
            request_bytes: request.parse()?,
            response_bytes: response.parse()?,
            outcome: outcome.to_owned(),
        })
    }
}

/// A list being written; threads share it.
pub(crate) struct List(Mutex<File>);

impl List {
    pub(crate) fn create(path: &Path) -> Result<Self> {
        let file = File::create(path).with_context(|| format!("cannot create {}", path.display()))?;
        Ok(Self(Mutex::new(file)))
    }

    /// Appends a line at once: what was written stands, whatever happens to the writer.
    pub(crate) fn push(&self, entry: &Entry) -> io::Result<()> {
        let mut file = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        file.write_all(format!("{entry}\n").as_bytes())
    }
}

/// Reads a list back.
pub(crate) fn read(path: &Path) -> Result<Vec<Entry>> {
    let text =
        std::fs::read_to_string(path).with_context(|| format!("cannot read the list {}", path.display()))?;
    text.lines().map(str::parse).collect::<Result<_>>().with_context(|| format!("in {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_reads_back_as_it_was_written() {
        for line in [
            "client 10.244.1.2:40000 10.96.0.10:80 3 GET /ok/3?size=9 200 0 9 complete",
            "server [fd00::2]:40000 [fd00::3]:8080 0 POST /reset/now/0 - 12 0 reset",
        ] {
            assert_eq!(line.parse::<Entry>().expect("a line").to_string(), line);
        }
    }

    #[test]
    fn a_damaged_line_is_an_error() {
        for line in ["", "client", "middle 1.1.1.1:1 1.1.1.1:1 0 GET / 200 0 0 complete"] {
            assert!(line.parse::<Entry>().is_err(), "{line:?}");
        }
    }
}
