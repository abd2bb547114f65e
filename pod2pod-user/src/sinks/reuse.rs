//! A reuse as a line of text for people, and as a few words behind an exchange. Nothing in it is foreign text.

use std::net::{IpAddr, SocketAddr};

use super::text::push_clock;
use crate::record::{IpvsFacts, Record};

/// Appends the line of a record of a reuse.
pub fn push(out: &mut Vec<u8>, record: &Record) {
    push_clock(out, record.time);
    let Some(facts) = record.ipvs.as_deref() else { return out.push(b'\n') };
    let word = |word: Option<&'static str>| word.unwrap_or("-");
    let mut line = String::from(" ");
    if facts.severity.is_some() || facts.reuse.is_some() {
        line += &format!("{:8} {:8} ", word(facts.severity), word(facts.reuse));
    }
    let (client, service) = (shown(record.client), shown(record.server));
    line += &format!("{:11} {} {client} → {service} → ", word(facts.verdict), word(facts.transport));
    push_server(&mut line, facts);
    let left = |seconds: Option<u32>| seconds.map_or_else(|| "-".to_owned(), |seconds| seconds.to_string());
    let before = facts.state_before.map_or_else(String::new, |state| format!("{state} "));
    let (then, state, now) = (left(facts.expires_before), word(facts.state), left(facts.expires));
    line += &format!("  {before}{then} → {state} {now}");
    if let Some(outcome) = record.outcome {
        line += &format!("  exchange: {}", outcome.as_str());
    }
    line.push('\n');
    out.extend_from_slice(line.as_bytes());
}

/// Appends what happened to the connection of an exchange.
pub(super) fn push_short(line: &mut String, facts: &IpvsFacts) {
    *line += &format!("  ipvs {}", facts.reuse.unwrap_or("-"));
    if let Some(verdict) = facts.verdict {
        *line += &format!(" {verdict}");
    }
    *line += " → ";
    push_server(line, facts);
}

fn push_server(line: &mut String, facts: &IpvsFacts) {
    line.push_str(&facts.real_server.map_or_else(|| "-".to_owned(), shown));
    if facts.is_absent {
        line.push_str(" (removed)");
    } else if let Some(weight) = facts.weight {
        *line += &format!(" (weight {weight})");
    }
    if let Some(before) = facts.real_server_before {
        *line += &format!(", before {}", shown(before));
    }
}

fn shown((address, port): (IpAddr, u16)) -> String {
    SocketAddr::new(address, port).to_string()
}
