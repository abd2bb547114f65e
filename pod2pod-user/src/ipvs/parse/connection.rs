//! `/proc/net/ip_vs_conn` and `ip_vs_conn_sync`: header, then a row for every entry, in hash order. Remembers no row.
//!
//! The header says which of the two it is (the second has the column `Origin`). Columns behind the known ones are handed
//! over as they are: a persistence engine's name and data, or whatever a later kernel adds.

use super::{
    super::{End, Sight, Tuple, state::State},
    Damage, MAX_LINE, Protocol, words,
};

/// Largest time that an entry can have left, seconds: 31 days, the longest persistence that ipvsadm takes. Old kernels print
/// a huge number for an entry that ran out.
pub const MAX_EXPIRES: u32 = 31 * 86_400;

/// Who made an entry; a column of `ip_vs_conn_sync`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Packets that this director saw.
    Local,
    /// Another director told of it.
    Synced,
}

/// One row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row<'a> {
    /// Protocol, client and virtual address. Port 0 of the client: a template, or data whose port is not known yet.
    pub tuple: Tuple,
    /// Real server; its address family may be another one.
    pub server: End,
    /// State, if it is a known one.
    pub state: State,
    /// State, as written.
    pub state_text: &'a [u8],
    /// Who made it; absent in `ip_vs_conn`.
    pub origin: Option<Origin>,
    /// Seconds left, rounded down; 0 of what is more than [`MAX_EXPIRES`].
    pub expires: u32,
    /// Columns behind.
    pub rest: &'a [u8],
}

impl<'a> Row<'a> {
    /// A row of a file with or without the column `Origin`; absent if a column is not as the kernel writes it.
    #[inline]
    pub fn parse(line: &'a [u8], has_origin: bool) -> Option<Self> {
        let mut words = words::Words::new(line);
        let protocol = Protocol::parse(words.next())?;
        let client = (words.address()?, words.port()?);
        let service = (words.address()?, words.port()?);
        let server = (words.address()?, words.port()?);
        let state_text = words.next();
        let origin = match has_origin.then(|| words.next()) {
            None => None,
            Some(b"LOCAL") => Some(Origin::Local),
            Some(b"SYNC") => Some(Origin::Synced),
            Some(_) => return None,
        };
        let expires = words::decimal(words.next())?;
        let expires = u32::try_from(expires).ok().filter(|seconds| *seconds <= MAX_EXPIRES).unwrap_or(0);
        let tuple = Tuple { protocol, client, service };
        let state = State::parse(state_text);
        Some(Self { tuple, server, state, state_text, origin, expires, rest: words.rest() })
    }

    /// What of it may change.
    #[inline]
    pub const fn sight(&self) -> Sight {
        Sight { server: self.server, state: self.state, expires: self.expires }
    }

    /// Whether it is no connection: a persistence template, or an entry whose client port is not known yet.
    pub const fn is_template(&self) -> bool {
        self.tuple.client.1 == 0
    }
}

/// Reads the lines of one such file.
#[derive(Clone, Debug, Default)]
pub struct Connections {
    kind: Kind,
    /// Rows that were understood.
    pub rows: u64,
    /// Rows that were not.
    pub damage: Damage,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Kind {
    /// No line yet.
    #[default]
    Unknown,
    /// The first line was no header.
    Foreign,
    Connections,
    Synced,
}

impl Connections {
    /// The next line; a row, unless it is the header, empty, damaged, or the file is none of these two.
    #[inline]
    pub fn line<'a>(&mut self, line: &'a [u8]) -> Option<Row<'a>> {
        if matches!(self.kind, Kind::Unknown | Kind::Foreign) {
            if self.kind == Kind::Unknown {
                self.kind = kind(line);
            }
            return None;
        }
        let is_whole = line.len() <= MAX_LINE;
        let row = if is_whole { Row::parse(line, self.kind == Kind::Synced) } else { None };
        match row {
            Some(_) => self.rows += 1,
            None if line.trim_ascii().is_empty() => {}
            None => self.damage.count(line),
        }
        row
    }

    /// Whether the file began with the header of such a table.
    pub fn is_table(&self) -> bool {
        matches!(self.kind, Kind::Connections | Kind::Synced)
    }

    /// Whether the file began otherwise.
    pub fn is_foreign(&self) -> bool {
        self.kind == Kind::Foreign
    }
}

fn kind(header: &[u8]) -> Kind {
    let mut words = words::Words::new(header);
    for expected in ["Pro", "FromIP", "FPrt", "ToIP", "TPrt", "DestIP", "DPrt", "State"] {
        if words.next() != expected.as_bytes() {
            return Kind::Foreign;
        }
    }
    match (words.next(), words.next()) {
        (b"Expires", _) => Kind::Connections,
        (b"Origin", b"Expires") => Kind::Synced,
        _ => Kind::Foreign,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: &[u8] = b"Pro FromIP   FPrt ToIP     TPrt DestIP   DPrt State       Expires PEName PEData";
    const SYNC_HEADER: &[u8] = b"Pro FromIP   FPrt ToIP     TPrt DestIP   DPrt State       Origin Expires";

    fn end(address: &str, port: u16) -> End {
        (address.parse().unwrap(), port)
    }

    #[test]
    fn a_row() {
        let line = b"TCP D921C71D 901E 51143165 01BB 0A756A0C 01BB TIME_WAIT       115";
        let row = Row::parse(line, false).unwrap();
        let tuple = Tuple {
            protocol: Protocol::TCP,
            client: end("217.33.199.29", 36_894),
            service: end("81.20.49.101", 443),
        };
        assert_eq!((row.tuple, row.server), (tuple, end("10.117.106.12", 443)));
        assert_eq!((row.state, row.state_text), (State::TimeWait, b"TIME_WAIT".as_slice()));
        assert_eq!(
            (row.origin, row.expires, row.rest, row.is_template()),
            (None, 115, b"".as_slice(), false)
        );
    }

    #[test]
    fn what_follows_the_known_columns_and_unknown_states_are_kept() {
        let line = b"IP_50 0AF40102 0000 0A60000A 13C4 fd00:0244:0002:0000:0000:0000:0000:0003 13C4 NEW_STATE 57 sip call-0@example.net 7 ";
        let row = Row::parse(line, false).unwrap();
        assert_eq!((row.state, row.state_text), (State::Other, b"NEW_STATE".as_slice()));
        assert_eq!((row.rest, row.is_template()), (b"sip call-0@example.net 7".as_slice(), true));
        assert_eq!(row.server, end("fd00:244:2::3", 5060));
    }

    #[test]
    fn the_header_says_which_file_it_is() {
        let mut file = Connections::default();
        assert!(file.line(HEADER).is_none() && file.is_table());
        assert!(file.line(b"UDP 0AF40102 BB82 0A60000A 13C4 0AF40202 13C4 UDP             297").is_some());
        let mut file = Connections::default();
        assert!(file.line(SYNC_HEADER).is_none() && file.is_table());
        for (word, origin) in [("LOCAL", Origin::Local), ("SYNC ", Origin::Synced)] {
            let line = format!("UDP 0AF40102 BB82 0A60000A 13C4 0AF40202 13C4 UDP         {word}      297");
            assert_eq!(file.line(line.as_bytes()).unwrap().origin, Some(origin));
        }
        for foreign in
            ["", "root:x:0:0:root:/root:/bin/bash", "Pro FromIP   FPrt ToIP     TPrt DestIP   DPrt State"]
        {
            let mut file = Connections::default();
            assert!(
                file.line(foreign.as_bytes()).is_none() && file.is_foreign() && !file.is_table(),
                "{foreign}"
            );
            assert!(file.line(b"UDP 0AF40102 BB82 0A60000A 13C4 0AF40202 13C4 UDP 297").is_none());
        }
    }

    #[test]
    fn damaged_rows_are_counted() {
        let good = "TCP 0AF40102 A02A 0A60000A 0050 0AF40202 1F90 ESTABLISHED     884";
        let mut file = Connections::default();
        file.line(HEADER);
        assert!(file.line(good.as_bytes()).is_some() && file.line(b"  ").is_none());
        let bad = [
            good.replace("TCP", "XYZ"),
            good.replace("0AF40102", "0AF4010"),
            good.replace("A02A", "A02"),
            good.replace("884", "-1"),
            good.replace("884", "LOCAL 884"),
            good.replace("884", ""),
        ];
        for line in &bad {
            assert!(file.line(line.as_bytes()).is_none(), "{line}");
        }
        assert_eq!((file.rows, file.damage.lines, file.damage.first), (1, 6, bad[0].clone().into_bytes()));
    }

    #[test]
    fn a_line_that_was_cut_is_no_row() {
        let row = "UDP 0AF40102 0000 0A60000A 13C4 0AF40203 13C4 ASSURED 57 sip ";
        for (length, rows) in [(MAX_LINE, 1), (MAX_LINE + 1, 0)] {
            let mut file = Connections::default();
            file.line(HEADER);
            let line = format!("{row:x<length$}");
            assert_eq!(file.line(line.as_bytes()).is_some(), rows == 1, "{length}");
            assert_eq!((file.rows, file.damage.lines), (rows, 1 - rows));
        }
    }

    #[test]
    fn a_time_past_the_largest_is_that_of_an_entry_that_ran_out() {
        for (left, expected) in [
            (u64::from(MAX_EXPIRES), MAX_EXPIRES),
            (u64::from(MAX_EXPIRES) + 1, 0),
            (u64::MAX / 250, 0),
            (u64::MAX, 0),
        ] {
            let line = format!("TCP 0AF40102 A02A 0A60000A 0050 0AF40202 1F90 TIME_WAIT {left}");
            assert_eq!(Row::parse(line.as_bytes(), false).unwrap().expires, expected);
        }
    }
}
