//! The rule of ipvs-logger 0.0.1, exactly: a row whose time left grew while everything else stayed. For comparison.
//!
//! Only TCP rows of exactly nine columns and less than 120 s left; IPv6 addresses come out as the four bytes that their first
//! eight characters make; a state is part of what must stay. The one difference: what ended that program is left out, and counted.

use std::{collections::HashMap, fmt};

use smallvec::SmallVec;

use super::parse::Damage;

/// Rows with so much time left are not looked at, seconds.
const TOO_FRESH: i64 = 120;

/// Rows that are kept at most: those of one poll.
pub const MAX_ROWS: usize = 1_800_000;

/// Address and port as that program understood them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct End {
    /// Four bytes.
    pub address: [u8; 4],
    /// Port.
    pub port: i64,
}

impl fmt::Display for End {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d] = self.address;
        write!(formatter, "{a}.{b}.{c}.{d}:{}", self.port)
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Key {
    client: End,
    service: End,
    server: End,
    state: SmallVec<[u8; 16]>,
}

/// What that program calls a reuse.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The client.
    pub client: End,
    /// The virtual address.
    pub service: End,
    /// The real server.
    pub server: End,
    /// State, as written.
    pub state: SmallVec<[u8; 16]>,
    /// Seconds left in the poll before.
    pub previous: i64,
    /// Seconds left in this one.
    pub current: i64,
}

/// The rule, and the last poll that it was asked about.
#[derive(Clone, Debug, Default)]
pub struct Rule {
    before: HashMap<Key, i64>,
    now: HashMap<Key, i64>,
    /// Rows that would have ended that program.
    pub damage: Damage,
    /// Rows for which there was no room.
    pub left_out: u64,
}

impl Rule {
    /// A poll begins.
    pub fn begin(&mut self) {
        self.before = std::mem::take(&mut self.now);
    }

    /// A line of this poll; `is_wanted` is asked about the virtual address.
    pub fn line(&mut self, line: &[u8], is_wanted: impl Fn(End) -> bool) -> Option<Finding> {
        let (key, current) = match row(line) {
            Some(Ok(row)) => row,
            Some(Err(())) => {
                self.damage.count(line);
                return None;
            }
            None => return None,
        };
        if !is_wanted(key.service) || current >= TOO_FRESH {
            return None;
        }
        let previous = self.before.get(&key).copied();
        let (client, service, server, state) = (key.client, key.service, key.server, key.state.clone());
        if self.now.len() < MAX_ROWS || self.now.contains_key(&key) {
            self.now.insert(key, current);
        } else {
            self.left_out += 1;
        }
        let previous = previous.filter(|previous| *previous < current)?;
        Some(Finding { client, service, server, state, previous, current })
    }
}

/// A row, or that it would have ended the program; absent if it is none of its business.
fn row(line: &[u8]) -> Option<Result<(Key, i64), ()>> {
    let mut words = line.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty());
    let mut columns = [b"".as_slice(); 9];
    for column in &mut columns {
        *column = words.next()?;
    }
    let [protocol, client, client_port, service, service_port, server, server_port, state, expires] = columns;
    if words.next().is_some() || protocol != b"TCP" {
        return None;
    }
    let end = |address: &[u8], port: &[u8]| {
        Some(End { address: four_bytes(address)?, port: number(port, 16).unwrap_or(0) })
    };
    let key = || {
        let (client, service) = (end(client, client_port)?, end(service, service_port)?);
        Some(Key { client, service, server: end(server, server_port)?, state: SmallVec::from_slice(state) })
    };
    Some(key().zip(number(expires, 10)).ok_or(()))
}

/// The first eight characters, two by two; what are no two digits is 0. Absent if there are not as many.
fn four_bytes(word: &[u8]) -> Option<[u8; 4]> {
    let (pairs, _) = word.as_chunks::<2>();
    let mut bytes = [0; 4];
    for (index, byte) in bytes.iter_mut().enumerate() {
        let pair = pairs.get(index)?;
        let digit = |byte: u8| char::from(byte).to_digit(16);
        if let [Some(high), Some(low)] = pair.map(digit) {
            *byte = (high * 16 + low) as u8;
        }
    }
    Some(bytes)
}

fn number(word: &[u8], radix: u32) -> Option<i64> {
    i64::from_str_radix(std::str::from_utf8(word).ok()?, radix).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROW: &str = "TCP 0AF40102 A02B 0A60000A 0050 0AF40203 1F90 TIME_WAIT       ";

    /// Findings of the last of these polls.
    fn findings(polls: &[&[String]]) -> Vec<Finding> {
        let mut rule = Rule::default();
        let mut found = Vec::new();
        for poll in polls {
            rule.begin();
            found = poll.iter().filter_map(|line| rule.line(line.as_bytes(), |_| true)).collect();
        }
        found
    }

    #[test]
    fn a_row_whose_time_grew() {
        let row = |left: u32| format!("{ROW}{left}");
        let found = findings(&[&[row(28)], &[row(114)]]);
        let [finding] = found.as_slice() else { panic!("{found:?}") };
        assert_eq!((finding.previous, finding.current), (28, 114));
        let ends = [finding.client, finding.service, finding.server].map(|end| end.to_string());
        assert_eq!(ends, ["10.244.1.2:41003", "10.96.0.10:80", "10.244.2.3:8080"]);
        for (first, second) in [(114, 28), (28, 28), (28, 120), (120, 119)] {
            assert_eq!(findings(&[&[row(first)], &[row(second)]]), [], "{first} {second}");
        }
        assert_eq!(findings(&[&[row(28)], &[], &[row(114)]]), [], "only the poll just before counts");
        let other = |from: &str, to: &str| findings(&[&[row(28)], &[row(114).replace(from, to)]]);
        for (from, to) in
            [("TIME_WAIT", "CLOSE"), ("0AF40203", "0AF40202"), ("TCP", "UDP"), ("114", "114 sip x")]
        {
            assert_eq!(other(from, to), [], "{to}");
        }
    }

    #[test]
    fn ipv6_is_misunderstood_as_it_was() {
        let row = |left: u32| {
            format!(
                "TCP fd00:0244:0001:0000:0000:0000:0000:0002 A034 fd00:0096:0000:0000:0000:0000:0000:0010 0050 fd00:0244:0002:0000:0000:0000:0000:0002 1F90 TIME_WAIT {left}"
            )
        };
        let found = findings(&[&[row(28)], &[row(114)]]);
        // "fd", "00", ":0", "24"
        assert_eq!(found[0].client.to_string(), "253.0.0.36:41012");
        // "fd", "00", ":0", "09"
        assert_eq!(found[0].service.to_string(), "253.0.0.9:80");
    }

    #[test]
    fn what_ended_the_old_program_is_counted() {
        let mut rule = Rule::default();
        for line in [
            "TCP 0AF4 A02B 0A60000A 0050 0AF40203 1F90 TIME_WAIT 3",
            "TCP 0AF40102 A02B 0A60000A 0050 0AF40203 1F90 TIME_WAIT x",
        ] {
            assert_eq!(rule.line(line.as_bytes(), |_| true), None);
        }
        assert_eq!(rule.damage.lines, 2);
        rule.line(b"UDP a b c d e f g h", |_| true);
        assert_eq!(rule.damage.lines, 2);
    }

    #[test]
    fn there_is_room_for_so_many_rows() {
        let mut rule = Rule::default();
        let end = |port| End { address: [10, 0, 0, 1], port };
        for port in 0..MAX_ROWS as i64 - 1 {
            let key = Key { client: end(port), service: end(0), server: end(0), state: SmallVec::new() };
            rule.now.insert(key, 1);
        }
        for (line, left_out) in
            [(format!("{ROW}5"), 0), (format!("{ROW}6"), 0), (ROW.replace("A02B", "A02C") + "5", 1)]
        {
            rule.line(line.as_bytes(), |_| true);
            assert_eq!(rule.left_out, left_out, "{line}");
        }
    }
}
