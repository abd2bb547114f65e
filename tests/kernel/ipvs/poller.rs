//! The real `pod2pod ipvs` over a director's live table: what it told, and when it has looked again.

use std::{
    net::{IpAddr, SocketAddr},
    process::{Command, Stdio},
};

use nix::sys::signal::Signal;
use serde_json::Value;
use support::{
    director::Director,
    process::{BINARY_VARIABLE, Running, binary},
    scale::SCALE_VARIABLE,
};

/// Said after each poll, behind what it told of it.
const POLLED: &str = " polled ";

/// A running watch.
pub(crate) struct Poller(Running);

/// A reuse as it was told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Told {
    pub(crate) client: SocketAddr,
    pub(crate) service: SocketAddr,
    pub(crate) server: SocketAddr,
    /// `reused` or `rescheduled`.
    pub(crate) verdict: String,
    pub(crate) is_certain: bool,
    pub(crate) severity: String,
    pub(crate) situation: String,
}

impl Poller {
    /// Starts it, with these arguments besides, and waits for its first poll.
    pub(crate) fn start(director: &Director, arguments: &[&str]) -> Self {
        let mut command = Command::new("sh");
        // One stream for what it tells and what it logs: then their order is known.
        command.args(["-c", r#"exec "$0" "$@" 2>&1"#]).arg(binary());
        command
            .args(["ipvs", "--mode", "polling", "--format", "json", "--log-level", "debug"])
            .args(arguments);
        command.env_remove(BINARY_VARIABLE).env_remove(SCALE_VARIABLE);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let poller = Self(director.node.within(|| Running::start(command)));
        poller.wait_polls(1);
        poller
    }

    /// Waits until it has polled so often from now on. The first of those may have begun before.
    pub(crate) fn wait_polls(&self, count: usize) {
        let wanted = polls(&self.0.stdout()) + count;
        self.0.wait_stdout(|text| polls(text) >= wanted);
    }

    /// Waits until what is in the table now has been seen, and told.
    pub(crate) fn look(&self) {
        self.wait_polls(2);
    }

    /// A number that it said of its last poll: `rows`, or `missed` and `doubles`, which are those of all polls.
    pub(crate) fn last(&self, name: &str) -> u64 {
        let text = self.0.stdout();
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        let line = whole.lines().rfind(|line| line.contains(POLLED)).expect("it has polled");
        let key = format!(" {name}=");
        let (_, value) = line.split_once(&key).unwrap_or_else(|| panic!("no {name} in {line}"));
        value.split(' ').next().unwrap().parse().unwrap()
    }

    /// Sends it a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        self.0.signal(signal);
    }

    /// What it told so far.
    pub(crate) fn told(&self) -> Vec<Told> {
        told(&self.0.stdout())
    }
}

fn polls(text: &str) -> usize {
    text.lines().filter(|line| line.contains(POLLED)).count()
}

fn told(text: &str) -> Vec<Told> {
    let whole = text.rfind('\n').map_or("", |end| text.get(..end).unwrap_or_default());
    let values = whole.lines().filter(|line| line.starts_with('{'));
    values
        .map(|line| one(&serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))))
        .collect()
}

fn one(value: &Value) -> Told {
    let text = |key: &str| value[key].as_str().unwrap_or_else(|| panic!("no {key} in {value}")).to_owned();
    let end = |key: &str| {
        let address: IpAddr = text(&format!("{key}.address")).parse().unwrap();
        let port = value[format!("{key}.port")].as_u64().unwrap();
        SocketAddr::new(address, u16::try_from(port).unwrap())
    };
    assert_eq!(value["kind"], "ipvs_reuse", "{value}");
    Told {
        client: end("client"),
        service: end("server"),
        server: end("ipvs.real_server"),
        verdict: text("ipvs.verdict"),
        is_certain: text("ipvs.reuse") == "certain",
        severity: text("ipvs.severity"),
        situation: text("ipvs.situation"),
    }
}
