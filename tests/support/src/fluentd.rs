//! A server of the forward protocol on loopback, `FluentServer` of `@fluent-org/logger`, that keeps its entries in a file.

#![expect(clippy::unwrap_used, reason = "test support: a failure here is the test's failure")]

use std::{
    fs,
    path::{Path, PathBuf},
};

use serde_json::Value;

use crate::{
    keeper,
    server::{Server, free_port, installed, listens, tls_file},
};

/// A server, and where it listens.
#[derive(Debug)]
pub struct Forward {
    /// Its process.
    pub server: Server,
    /// Of loopback.
    pub port: u16,
}

/// An event as the server read it.
#[derive(Debug)]
pub struct Entry {
    /// Its tag.
    pub tag: String,
    /// Seconds since 1970, and nanoseconds.
    pub time: (u64, u64),
    /// Its fields.
    pub record: Value,
}

impl Forward {
    /// Starts one with `arguments` beside its port (the shared key, a certificate, the certificate's key), and waits until it listens.
    pub fn start(arguments: &[&str]) -> Self {
        let port = free_port();
        let arguments: Vec<_> = arguments.iter().map(|argument| (*argument).to_owned()).collect();
        let start = move |_: &Path| {
            let mut command = keeper::command(Path::new("node"));
            command.arg(installed("fluentd").join("server.mjs")).arg(port.to_string()).args(&arguments);
            command
        };
        Self { server: Server::start("fluentd", |_| (), start, move || listens(port)), port }
    }

    /// Starts one that asks for `shared_key`, and has a certificate that vouches for itself.
    pub fn start_with_tls(shared_key: &str) -> Self {
        Self::start(&[shared_key, &tls_file("certificate.pem"), &tls_file("key.pem")])
    }

    /// Whether it has taken an entry yet.
    pub fn has_entries(&self) -> bool {
        fs::metadata(self.file()).is_ok_and(|file| file.len() > 0)
    }

    /// Its entries, in order of arrival. A line that a kill cut off was not acknowledged, and is none.
    pub fn entries(&self) -> Vec<Entry> {
        let text = fs::read_to_string(self.file()).unwrap();
        let (whole, _) = text.rsplit_once('\n').unwrap_or_default();
        whole.lines().map(entry).collect()
    }

    /// The paths of all entries, in order of arrival.
    pub fn paths(&self) -> Vec<String> {
        self.entries().iter().map(|entry| entry.record["url.path"].as_str().unwrap().to_owned()).collect()
    }

    fn file(&self) -> PathBuf {
        self.server.folder().join("entries")
    }
}

fn entry(line: &str) -> Entry {
    let mut entry: Value = serde_json::from_str(line).unwrap();
    let time = (entry["time"][0].as_u64().unwrap(), entry["time"][1].as_u64().unwrap());
    Entry { tag: entry["tag"].as_str().unwrap().to_owned(), time, record: entry["record"].take() }
}
