//! Records as aligned, coloured columns for a terminal. Foreign bytes cannot act on the terminal.

use std::{fs::File, io::IsTerminal as _, os::fd::AsFd as _};

use super::reuse;
use crate::record::{Kind, ObservedAt, Outcome, Record, number, text};

/// Columns of a terminal that does not say its size.
const DEFAULT_WIDTH: usize = 120;
/// The path gets at least this much, and lines wrap if need be.
const MIN_PATH: usize = 20;
/// `255.255.255.255:65535`.
const IPV4_END: usize = 21;
/// `[ffff:…]:65535`, full length.
const IPV6_END: usize = 47;
/// Methods are cut at this: the longest registered with IANA has 17 characters, common ones seven.
const MAX_METHOD: usize = 17;
/// Everything but ends, method and path: time 12, at 6, status 6, duration 9, sizes 2 × 10, outcome 8, and the spaces.
const FIXED: usize = 12 + 6 + 6 + 9 + 20 + 8 + 12;

const RESET: &str = "\x1b[0m";
const BOLD: &str = "\x1b[1m";
const DIM: &str = "\x1b[2m";
const RED: &str = "\x1b[31m";
const GREEN: &str = "\x1b[32m";
const YELLOW: &str = "\x1b[33m";
const CYAN: &str = "\x1b[36m";

/// Writes lines whose columns stand below each other; columns grow to what they met.
#[derive(Clone, Debug)]
pub struct Columns {
    width: usize,
    colour: bool,
    end_width: usize,
    method_width: usize,
    header_told: bool,
    line: String,
}

impl Columns {
    /// Columns of a terminal `width` wide.
    pub const fn new(width: usize, colour: bool) -> Self {
        Self { width, colour, end_width: IPV4_END, method_width: 7, header_told: false, line: String::new() }
    }

    /// Columns as `file` is: its width and, on a terminal without `NO_COLOR`, colours.
    pub fn for_file(file: &File) -> Self {
        let no_colour = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let width = rustix::termios::tcgetwinsize(file.as_fd()).ok().map(|size| usize::from(size.ws_col));
        Self::new(width.filter(|width| *width > 0).unwrap_or(DEFAULT_WIDTH), file.is_terminal() && !no_colour)
    }

    /// Appends the header line, once; it comes with the first record at the latest.
    pub fn push_header(&mut self, out: &mut Vec<u8>) {
        if std::mem::replace(&mut self.header_told, true) {
            return;
        }
        self.line.clear();
        self.paint(BOLD);
        let (ends, method, path) = (self.end_width, self.method_width, self.path_width());
        pad(&mut self.line, "TIME (UTC)", 12);
        pad(&mut self.line, "AT", 6);
        pad(&mut self.line, "CLIENT", ends);
        self.line.push_str("→ ");
        pad(&mut self.line, "SERVER", ends);
        pad(&mut self.line, "METHOD", method);
        pad(&mut self.line, "PATH", path);
        for (title, width) in [("STATUS", 6), ("DURATION", 9), ("REQUEST", 10), ("RESPONSE", 10)] {
            pad_left(&mut self.line, title, width);
        }
        self.line.push_str("OUTCOME");
        self.paint(RESET);
        self.line.push('\n');
        out.extend_from_slice(self.line.as_bytes());
    }

    /// Appends the line of `record`.
    pub fn push_line(&mut self, out: &mut Vec<u8>, record: &Record) {
        if record.kind == Kind::IpvsReuse {
            reuse::push(out, record);
            return;
        }
        self.push_header(out);
        self.line.clear();
        let mut clock = Vec::with_capacity(12);
        push_clock(&mut clock, record.time);
        self.paint(DIM);
        pad(&mut self.line, &String::from_utf8_lossy(&clock), 12);
        pad(&mut self.line, record.observed_at.as_str(), 6);
        self.paint(RESET);
        self.push_ends(record);
        self.push_request(record);
        self.push_response(record);
        self.line.push('\n');
        out.extend_from_slice(self.line.as_bytes());
    }

    fn push_ends(&mut self, record: &Record) {
        let client = std::net::SocketAddr::from(record.client).to_string();
        let server = std::net::SocketAddr::from(record.server).to_string();
        self.end_width = self.end_width.max(client.len()).max(server.len()).min(IPV6_END);
        let watched = |end| if record.observed_at == end { BOLD } else { "" };
        for (end, address, after) in [(ObservedAt::Client, client, "→ "), (ObservedAt::Server, server, "")]
        {
            self.paint(watched(end));
            pad(&mut self.line, &address, self.end_width);
            self.paint(RESET);
            self.line.push_str(after);
        }
    }

    fn push_request(&mut self, record: &Record) {
        let mut method = String::new();
        match (&record.method, record.kind) {
            (Some(bytes), _) => text::push_printable(&mut method, bytes),
            (None, Kind::Http2) => method.push_str("HTTP/2"),
            (None, Kind::Connect) => method.push_str("(SYN)"),
            (None, Kind::Http | Kind::IpvsReuse) => method.push('-'),
        }
        cut(&mut method, MAX_METHOD);
        self.method_width = self.method_width.max(method.chars().count());
        pad(&mut self.line, &method, self.method_width);
        let mut path = String::new();
        match (&record.original, &record.path) {
            (Some(original), _) => text::push_printable(&mut path, original),
            (None, Some(bytes)) => {
                text::push_printable(&mut path, bytes);
                if let Some(query) = &record.query {
                    path.push('?');
                    text::push_printable(&mut path, query);
                }
            }
            (None, None) => path.push('-'),
        }
        let width = self.path_width();
        cut(&mut path, width);
        pad(&mut self.line, &path, width);
    }

    fn push_response(&mut self, record: &Record) {
        let status = record.status.map_or_else(|| "-".to_owned(), |status| status.to_string());
        self.paint(match record.status {
            Some(500..) => RED,
            Some(400..) => YELLOW,
            Some(300..) => CYAN,
            Some(_) => GREEN,
            None => "",
        });
        pad_left(&mut self.line, &status, 6);
        self.paint(RESET);
        pad_left(&mut self.line, &human_duration(record.duration), 9);
        for size in [record.request.body_size, record.response.body_size] {
            pad_left(&mut self.line, &size.map_or_else(|| "-".to_owned(), |size| size.to_string()), 10);
        }
        let (colour, word) = match record.outcome {
            Some(Outcome::Complete) => ("", Outcome::Complete.as_str()),
            Some(outcome @ (Outcome::Upgraded | Outcome::Gap)) => (CYAN, outcome.as_str()),
            Some(
                outcome @ (Outcome::Timeout
                | Outcome::Reset
                | Outcome::Closed
                | Outcome::Refused
                | Outcome::Unreachable),
            ) => (RED, outcome.as_str()),
            None => (CYAN, "open"),
        };
        self.paint(colour);
        self.line.push_str(word);
        if record.late {
            self.line.push_str(" (late)");
        }
        self.push_connect(record);
        self.paint(RESET);
        if let Some(ipvs) = &record.ipvs {
            reuse::push_short(&mut self.line, ipvs);
        }
    }

    /// What a connect was like that was not as it should be.
    fn push_connect(&mut self, record: &Record) {
        if record.kind != Kind::Connect {
            return;
        }
        if let Some((kind, code)) = record.icmp {
            let version = if record.server.0.is_ipv4() { "" } else { "v6" };
            self.line.push_str(&format!(", ICMP{version} {kind}/{code}"));
        }
        match record.connect_retransmits {
            0 => {}
            1 => self.line.push_str(", SYN sent twice"),
            times => self.line.push_str(&format!(", SYN sent {} times", u16::from(times) + 1)),
        }
    }

    fn path_width(&self) -> usize {
        self.width.saturating_sub(FIXED + 2 * self.end_width + self.method_width).max(MIN_PATH)
    }

    fn paint(&mut self, code: &str) {
        if self.colour {
            self.line.push_str(code);
        }
    }
}

/// The time of day, UTC, to the millisecond.
pub(super) fn push_clock(out: &mut Vec<u8>, time: u64) {
    number::push_clock(out, time / 1_000_000_000 % 86_400);
    out.push(b'.');
    number::push_padded::<3>(out, time / 1_000_000);
}

fn pad(line: &mut String, text: &str, width: usize) {
    line.push_str(text);
    let spaces = width.saturating_sub(text.chars().count()) + 1;
    line.extend(std::iter::repeat_n(' ', spaces));
}

fn pad_left(line: &mut String, text: &str, width: usize) {
    line.extend(std::iter::repeat_n(' ', width.saturating_sub(text.chars().count())));
    line.push_str(text);
    line.push(' ');
}

fn cut(text: &mut String, width: usize) {
    if text.chars().count() > width {
        let end = text.char_indices().nth(width.saturating_sub(1)).map_or(text.len(), |(index, _)| index);
        text.truncate(end);
        text.push('…');
    }
}

/// Three significant digits and a unit.
fn human_duration(nanoseconds: u64) -> String {
    let (unit, divisor) = match nanoseconds {
        0..1_000_000 => ("µs", 1_000),
        1_000_000..1_000_000_000 => ("ms", 1_000_000),
        _ => ("s", 1_000_000_000),
    };
    let whole = nanoseconds / divisor;
    let tenths = nanoseconds % divisor * 100 / divisor;
    match whole {
        0..10 => format!("{whole}.{tenths:02} {unit}"),
        10..100 => format!("{whole}.{} {unit}", tenths / 10),
        _ => format!("{whole} {unit}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        let check = |nanoseconds, expected| assert_eq!(human_duration(nanoseconds), expected);
        check(0, "0.00 µs");
        check(41_000, "41.0 µs");
        check(1_834_000, "1.83 ms");
        check(999_999_999, "999 ms");
        check(61_000_000_000, "61.0 s");
        check(u64::MAX, "18446744073 s");
    }

    #[test]
    fn cutting_counts_characters() {
        let check = |text: &str, width, expected: &str| {
            let mut text = text.to_owned();
            cut(&mut text, width);
            assert_eq!(text, expected);
        };
        check("/path", 5, "/path");
        check("/paths", 5, "/pat…");
        check("éééé", 3, "éé…");
    }
}
