//! Records as a test looks at them, and the comparison with what was done: every difference is told.

use std::{
    collections::{BTreeMap, HashMap},
    net::{IpAddr, SocketAddr},
};

use serde_json::Value;

/// Differences that a failure prints.
const MAX_TOLD: usize = 30;

/// Which end of a connection told it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum End {
    Client,
    Server,
}

/// Both.
pub(crate) const ENDS: [End; 2] = [End::Client, End::Server];

/// What an exchange was, as both parties know it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Exchange {
    /// Different for each exchange of a test.
    pub(crate) target: String,
    pub(crate) status: Option<u64>,
    pub(crate) request_bytes: u64,
    /// None without a response.
    pub(crate) response_bytes: Option<u64>,
    pub(crate) outcome: String,
}

impl Exchange {
    pub(crate) fn complete(target: impl Into<String>, request_bytes: u64, response_bytes: u64) -> Self {
        let (status, response_bytes) = (Some(200), Some(response_bytes));
        let outcome = "complete".to_owned();
        Self { target: target.into(), status, request_bytes, response_bytes, outcome }
    }

    /// One that got no response.
    pub(crate) fn unanswered(target: impl Into<String>, outcome: &str) -> Self {
        let outcome = outcome.to_owned();
        Self { target: target.into(), status: None, request_bytes: 0, response_bytes: None, outcome }
    }
}

/// A record.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Seen {
    pub(crate) end: End,
    pub(crate) exchange: Exchange,
    pub(crate) id: String,
    pub(crate) offset: u64,
    pub(crate) index: Option<u64>,
    pub(crate) client: SocketAddr,
    pub(crate) server: SocketAddr,
    pub(crate) joined_late: bool,
    /// In progress or late: the exchange has another record.
    pub(crate) extra: bool,
}

impl Seen {
    /// The records of exchanges in JSON lines: of a busy machine connection attempts are told too.
    pub(crate) fn parse(lines: &str) -> Vec<Self> {
        lines
            .lines()
            .filter(|line| !line.contains(r#""kind":"connect""#))
            .map(|line| Self::of(line).unwrap_or_else(|| panic!("not as expected: {line}")))
            .collect()
    }

    fn of(line: &str) -> Option<Self> {
        let record: Value = serde_json::from_str(line).ok()?;
        let text = |key: &str| record.get(key).and_then(Value::as_str).map(str::to_owned);
        let number = |key: &str| record.get(key).and_then(Value::as_u64);
        let mark = |key: &str| record.get(key).is_some();
        let address = |whose: &str| {
            let port = u16::try_from(number(&format!("{whose}.port"))?).ok()?;
            Some(SocketAddr::new(text(&format!("{whose}.address"))?.parse::<IpAddr>().ok()?, port))
        };
        let exchange = Exchange {
            target: text("url.path").unwrap_or_default(),
            status: number("http.response.status_code"),
            request_bytes: number("http.request.body.size").unwrap_or_default(),
            response_bytes: number("http.response.body.size"),
            outcome: text("outcome").unwrap_or_default(),
        };
        Some(Self {
            end: if text("observed_at")? == "server" { End::Server } else { End::Client },
            exchange,
            id: text("connection.id")?,
            offset: number("exchange.offset")?,
            index: number("exchange.index"),
            client: address("client")?,
            server: address("server")?,
            joined_late: mark("connection.joined_late"),
            extra: mark("late") || mark("exchange.in_progress"),
        })
    }

    fn target(&self) -> &str {
        &self.exchange.target
    }
}

/// The records of one end, in order.
pub(crate) fn of(end: End, records: &[Seen]) -> Vec<&Seen> {
    records.iter().filter(|seen| seen.end == end).collect()
}

/// Holds both ends against what was done: all of it, once, nothing else, and joined one to one.
pub(crate) fn check(records: &[Seen], done: &[Exchange]) {
    let mut differences = Vec::new();
    for end in ENDS {
        differences.extend(against(end, records, done));
    }
    differences.extend(unjoined(records));
    tell(&differences, records.len());
}

/// The same at one end.
pub(crate) fn check_end(end: End, records: &[Seen], done: &[Exchange]) {
    tell(&against(end, records, done), records.len());
}

/// Panics if there are `differences`.
pub(crate) fn tell(differences: &[String], records: usize) {
    let told = differences.iter().take(MAX_TOLD).map(|line| format!("\n  {line}")).collect::<String>();
    assert!(differences.is_empty(), "{} differences in {records} records:{told}", differences.len());
}

fn against(end: End, records: &[Seen], done: &[Exchange]) -> Vec<String> {
    let mut differences = Vec::new();
    let mut seen: HashMap<&str, Vec<&Seen>> = HashMap::new();
    for record in of(end, records) {
        seen.entry(record.target()).or_default().push(record);
    }
    for exchange in done {
        match seen.remove(exchange.target.as_str()).unwrap_or_default()[..] {
            [] => differences.push(format!("{end:?}: done and not seen: {exchange:?}")),
            [one] if one.exchange == *exchange && !one.extra => {}
            [one] => differences.push(format!("{end:?}: done {exchange:?}, seen {one:?}")),
            ref many => differences.push(format!("{end:?}: seen more than once: {many:?}")),
        }
    }
    differences.extend(seen.values().flatten().map(|record| format!("not done: {record:?}")));
    differences
}

/// What does not join: an id and offset has one record of each end, and both are of one exchange.
pub(crate) fn unjoined(records: &[Seen]) -> Vec<String> {
    let mut joined: BTreeMap<(&str, u64), Vec<&Seen>> = BTreeMap::new();
    for record in records {
        joined.entry((&record.id, record.offset)).or_default().push(record);
    }
    let fits = |group: &[&Seen]| match group {
        [one, other] => one.end != other.end && one.target() == other.target(),
        _ => false,
    };
    joined.values().filter(|group| !fits(group)).map(|group| format!("not joined: {group:?}")).collect()
}

/// What is not numbered from 0, without a hole, in the order of offsets, on each connection.
pub(crate) fn misnumbered(end: End, records: &[Seen]) -> Vec<String> {
    let mut connections: BTreeMap<&str, Vec<&Seen>> = BTreeMap::new();
    for record in of(end, records) {
        connections.entry(&record.id).or_default().push(record);
    }
    let mut differences = Vec::new();
    for records in connections.values_mut() {
        records.sort_by_key(|record| record.offset);
        for (index, record) in (0..).zip(records) {
            if record.index != Some(index) {
                differences.push(format!("{end:?}: should be number {index}: {record:?}"));
            }
        }
    }
    differences
}
