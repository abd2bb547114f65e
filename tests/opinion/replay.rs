//! Our own decoder: runs the real `pod2pod replay` and takes the list of exchanges out of its JSON lines. Links nothing
//! of the product, so that what is compared is what a user gets.

use std::{
    collections::BTreeMap,
    env,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};
use serde_json::{Map, Value};

use crate::{
    listing::{Ends, Line, Listing},
    programs::run,
};

/// What `pod2pod replay` says of `capture`; `accepted` are its expected exit codes.
pub(crate) fn replay(capture: &Path, directory: &Path, accepted: &[i32]) -> Result<Listing> {
    run_replay(capture, directory, &[], accepted)
}

/// The same with more arguments.
pub(crate) fn replay_with(capture: &Path, directory: &Path, arguments: &[&str]) -> Result<Listing> {
    run_replay(capture, directory, arguments, &[0])
}

fn run_replay(capture: &Path, directory: &Path, arguments: &[&str], accepted: &[i32]) -> Result<Listing> {
    let program = binary()?;
    let capture = capture.display().to_string();
    let arguments = [&["replay", "--redact", "off", &capture], arguments].concat();
    let lines = run(&program.display().to_string(), &arguments, directory, accepted)?;
    let lines = String::from_utf8(lines).context("replay's output is not UTF-8")?;
    list(&lines).with_context(|| format!("replay of {capture}"))
}

/// The binary of the same build: `target/PROFILE/pod2pod`, two levels above the test's own file.
pub(crate) fn binary() -> Result<PathBuf> {
    let own = env::current_exe()?;
    let profile = own.ancestors().nth(2).context("the test is not in a target directory")?;
    let binary = profile.join("pod2pod");
    ensure!(
        binary.is_file(),
        "there is no {}: build it first, `cargo build -p pod2pod-user` (`cargo xtask test opinion` does)",
        binary.display()
    );
    Ok(binary)
}

/// Exchanges of one connection.
#[derive(Default)]
struct Told {
    /// Ordinal of the connection's first record in the output.
    first: usize,
    /// Exchanges by the place of their request; responses without a request come last.
    lines: BTreeMap<(bool, u64), Line>,
}

/// Orders the records by connection and place on it.
fn list(records: &str) -> Result<Listing> {
    let mut told: BTreeMap<(Ends, String), Told> = BTreeMap::new();
    for (ordinal, text) in records.lines().enumerate() {
        let record: Map<String, Value> =
            serde_json::from_str(text).with_context(|| format!("not a record: {text}"))?;
        if text_of(&record, "kind").as_deref() != Some("http") || record.contains_key("exchange.in_progress")
        {
            continue;
        }
        let ends = Ends { client: end(&record, "client")?, server: end(&record, "server")? };
        let id = text_of(&record, "connection.id").context("no connection.id")?;
        let offset = number(&record, "exchange.offset").context("no exchange.offset")?;
        let line = line(&record)?;
        let connection = told.entry((ends, id)).or_insert_with(|| Told { first: ordinal, ..Told::default() });
        // A late record tells the same exchange again, now with its response.
        connection.lines.insert((line.method.is_none(), offset), line);
    }
    let mut connections: Vec<((Ends, String), Told)> = told.into_iter().collect();
    connections.sort_by_key(|((ends, _), told)| (*ends, told.first));
    let mut listing = Listing::new();
    for ((ends, _), told) in connections {
        listing.entry(ends).or_default().extend(told.lines.into_values());
    }
    Ok(listing)
}

/// The facts of one record that tshark can be asked about.
fn line(record: &Map<String, Value>) -> Result<Line> {
    let status = number(record, "http.response.status_code").map(u16::try_from).transpose()?;
    Ok(Line {
        method: text_of(record, "http.request.method"),
        target: target(record),
        request_body: number(record, "http.request.body.size"),
        status,
        response_body: number(record, "http.response.body.size"),
    })
}

/// The target as sent: given whole where path and query do not rebuild it.
fn target(record: &Map<String, Value>) -> Option<String> {
    text_of(record, "url.original").or_else(|| {
        let path = text_of(record, "url.path")?;
        Some(text_of(record, "url.query").map_or_else(|| path.clone(), |query| format!("{path}?{query}")))
    })
}

/// Address and port of `side`; of the socket where a PROXY header gave another client.
fn end(record: &Map<String, Value>, side: &str) -> Result<SocketAddr> {
    let peer = (side == "client" && record.contains_key("network.peer.address")).then_some("network.peer");
    let side = peer.unwrap_or(side);
    let address =
        text_of(record, &format!("{side}.address")).with_context(|| format!("no {side}.address"))?;
    let port = number(record, &format!("{side}.port")).with_context(|| format!("no {side}.port"))?;
    let address: IpAddr = address.parse().with_context(|| format!("not an address: {address}"))?;
    Ok(SocketAddr::new(address, u16::try_from(port)?))
}

/// A text field.
fn text_of(record: &Map<String, Value>, key: &str) -> Option<String> {
    record.get(key)?.as_str().map(str::to_owned)
}

/// A whole number.
fn number(record: &Map<String, Value>, key: &str) -> Option<u64> {
    record.get(key)?.as_u64()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(id: &str, offset: u64, more: &str) -> String {
        format!(
            r#"{{"kind":"http","client.address":"10.0.0.1","client.port":9,"server.address":"::1","server.port":80,"connection.id":"{id}","exchange.offset":{offset}{more}}}"#
        )
    }

    /// Records in, lines as text out.
    fn check(records: &[String], expected: &[&str]) {
        let listing = list(&records.join("\n")).unwrap();
        let lines: Vec<String> = listing.into_values().flatten().map(|line| line.to_string()).collect();
        assert_eq!(lines, expected);
    }

    const GET: &str = r#","http.request.method":"GET","url.path":"/a","http.request.body.size":0"#;
    const ANSWER: &str = r#","http.response.status_code":200,"http.response.body.size":5"#;

    #[test]
    fn exchanges_are_ordered_by_their_place_on_the_connection() {
        let second = record("x", 70, &format!("{GET}{ANSWER},\"url.query\":\"b\""));
        check(&[second, record("x", 1, GET)], &["GET /a 0 - -", "GET /a?b 0 200 5"]);
    }

    #[test]
    fn a_late_record_replaces_the_timeout() {
        check(&[record("x", 1, GET), record("x", 1, &format!("{GET}{ANSWER}"))], &["GET /a 0 200 5"]);
    }

    #[test]
    fn a_progress_report_is_no_exchange() {
        check(&[record("x", 1, &format!("{GET},\"exchange.in_progress\":true"))], &[]);
    }

    #[test]
    fn a_response_without_a_request_comes_last() {
        check(&[record("x", 1, ANSWER), record("x", 50, GET)], &["GET /a 0 - -", "- - - 200 5"]);
    }

    #[test]
    fn connections_of_one_tuple_follow_each_other() {
        let later = format!("{GET},\"url.original\":\"/?\"");
        check(&[record("z", 1, GET), record("a", 1, &later)], &["GET /a 0 - -", "GET /? 0 - -"]);
    }
}
