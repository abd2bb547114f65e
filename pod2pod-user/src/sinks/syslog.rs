//! Records as messages of syslog (RFC 5424): over TCP or TLS by octet counting (RFC 6587 section 3.4.1, RFC 5425) or lines, or in
//! datagrams (RFC 5426). The message is the record's JSON, without the byte order mark of RFC 5424 section 6.4, which readers show.
//!
//! Syslog does not answer: see [`super::transport`] for what is known of what a server has.

use std::{
    fs,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use super::transport::Transport;
use crate::record::{
    Record, json,
    number::{Clock, push_integer},
};

/// Bytes of HOSTNAME at most (RFC 5424, section 6).
pub const MAX_HOSTNAME: usize = 255;
/// Bytes of APP-NAME at most (RFC 5424, section 6).
pub const MAX_APP_NAME: usize = 48;
/// Largest facility (RFC 5424, section 6.2.1).
pub const MAX_FACILITY: u8 = 23;
/// `local0`: of those that nobody else has.
pub const DEFAULT_FACILITY: u8 = 16;
/// Who says it, if nothing else is configured.
pub const DEFAULT_APP_NAME: &str = "pod2pod";
/// A line has at most so many bytes, without its end: what the old forwarder sends, and what servers were set up for.
pub const MAX_LINE_BYTES: usize = 99_990;
/// A datagram has at most so many bytes: what every receiver should take (RFC 5426, section 3.2).
pub const DEFAULT_DATAGRAM_BYTES: usize = 2048;
/// The same of the old forwarder.
pub const OLD_DATAGRAM_BYTES: usize = 1024;
/// More bytes no datagram has over IPv4 (RFC 768, and 28 of heads).
pub const MAX_DATAGRAM_BYTES: usize = 65_507;

/// Severities that are used (RFC 5424, section 6.2.1).
const ERROR: u8 = 3;
const WARNING: u8 = 4;
const INFORMATIONAL: u8 = 6;
/// What the clock writes beyond the six digits that there may be (RFC 5424, section 6): three, and the Z.
const BEYOND_MICROSECONDS: usize = 4;

/// How a message is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Form {
    /// As RFC 5424 has it, with the record's kind as MSGID.
    #[default]
    Rfc5424,
    /// As the old forwarder wrote it: names as they are, of whatever length, and no MSGID.
    Old,
}

/// What tells a message from the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// Its length before it.
    OctetCounting,
    /// A line feed behind it. What is longer than [`MAX_LINE_BYTES`] is cut.
    Lines,
    /// It is a datagram, of at most so many bytes. What is longer is cut.
    Datagrams(usize),
}

/// What messages are like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Style {
    /// How they are written.
    pub form: Form,
    /// What tells them apart.
    pub framing: Framing,
    /// Up to [`MAX_FACILITY`].
    pub facility: u8,
    /// The node; this machine's name if absent.
    pub hostname: Option<String>,
    /// The program.
    pub app_name: String,
}

/// Where to, and how.
///
/// Keys: `url` (`syslog://`, `syslog+tcp://`, `syslog+tls://` or `syslog+udp://`, host and port), `failover`, `framing`,
/// `datagram_bytes`, `format`, `facility`, `hostname`, `app_name`, `tls.*`, `fields`, `without_fields`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// How messages travel.
    pub transport: Transport,
    /// What they are like.
    pub style: Style,
}

/// Makes items: a message each, framed.
#[derive(Clone, Debug)]
pub struct Encoder {
    lines: json::Lines,
    writer: Writer,
    form: Form,
    framing: Framing,
    facility: u8,
    /// A message before it is framed.
    message: Vec<u8>,
    json: Vec<u8>,
    /// Messages that were cut, of all workers.
    cut: Arc<AtomicU64>,
}

impl Encoder {
    /// Messages of this style with the fields that `lines` has.
    pub fn new(lines: json::Lines, style: &Style) -> Self {
        let Style { form, framing, facility, hostname, app_name } = style;
        let hostname = hostname.clone().unwrap_or_else(own_hostname);
        let writer = match form {
            Form::Rfc5424 => Writer::new(&name(&hostname, MAX_HOSTNAME), &name(app_name, MAX_APP_NAME)),
            Form::Old => Writer::new(hostname.as_bytes(), app_name.as_bytes()),
        };
        let facility = (*facility).min(MAX_FACILITY);
        let (message, json, cut) = (Vec::new(), Vec::new(), Arc::default());
        Self { lines, writer, form: *form, framing: *framing, facility, message, json, cut }
    }

    /// Messages that were cut so far, by this one and all its clones.
    pub fn cut(&self) -> u64 {
        self.cut.load(Ordering::Relaxed)
    }

    /// Appends the item of `record`.
    pub fn push(&mut self, out: &mut Vec<u8>, record: &Record) {
        self.json.clear();
        self.lines.push_object(&mut self.json, record);
        let kind = match self.form {
            Form::Rfc5424 => record.kind.as_str(),
            Form::Old => "-",
        };
        let priority = self.facility * 8 + severity(record);
        self.message.clear();
        self.writer.push(&mut self.message, priority, record.time, kind, &self.json);
        match self.framing {
            Framing::OctetCounting => {
                push_integer(out, self.message.len() as u64);
                out.push(b' ');
                out.extend_from_slice(&self.message);
            }
            Framing::Lines => {
                self.cut_to(MAX_LINE_BYTES);
                out.extend_from_slice(&self.message);
                out.push(b'\n');
            }
            Framing::Datagrams(most) => {
                self.cut_to(most);
                out.extend_from_slice(&self.message);
            }
        }
    }

    fn cut_to(&mut self, most: usize) {
        if self.message.len() > most {
            cut(&mut self.message, most);
            self.cut.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// This machine's, or nothing.
fn own_hostname() -> String {
    fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default().trim().to_owned()
}

/// What is worse than usual, by what became of the exchange.
fn severity(record: &Record) -> u8 {
    match (record.error_type(), record.status) {
        (Some(_), _) => ERROR,
        (None, Some(400..=499)) => WARNING,
        (None, _) => INFORMATIONAL,
    }
}

/// As much as `most` bytes of it, without part of a character at its end.
fn cut(message: &mut Vec<u8>, most: usize) {
    let is_inside = |byte: &u8| byte & 0b1100_0000 == 0b1000_0000;
    let mut end = most;
    while end > 0 && message.get(end).is_some_and(is_inside) {
        end -= 1;
    }
    message.truncate(end);
}

/// PRINTUSASCII of at most `most` bytes, or NILVALUE (RFC 5424, section 6).
fn name(text: &str, most: usize) -> Vec<u8> {
    let name: Vec<u8> = text.bytes().filter(u8::is_ascii_graphic).take(most).collect();
    if name.is_empty() { b"-".to_vec() } else { name }
}

/// Writes messages, of which most are in the same second as the one before.
#[derive(Clone, Debug)]
struct Writer {
    clock: Clock,
    /// Both names with blanks around.
    names: Box<[u8]>,
}

impl Writer {
    fn new(hostname: &[u8], app_name: &[u8]) -> Self {
        let names = [b" ", hostname, b" ", app_name, b" - "].concat().into();
        Self { clock: Clock::default(), names }
    }

    /// `<PRI>1 TIMESTAMP HOSTNAME APP-NAME - MSGID - MSG`: without what ends a line.
    fn push(&mut self, out: &mut Vec<u8>, priority: u8, time: u64, id: &str, message: &[u8]) {
        out.push(b'<');
        push_integer(out, priority.into());
        out.extend_from_slice(b">1 ");
        self.push_time(out, time);
        out.extend_from_slice(&self.names);
        out.extend_from_slice(id.as_bytes());
        out.extend_from_slice(b" - ");
        let start = out.len();
        out.extend_from_slice(message);
        for byte in out.iter_mut().skip(start).filter(|byte| matches!(byte, b'\n' | b'\r' | 0)) {
            *byte = b' ';
        }
    }

    /// With as many digits of a second as it has, at most six.
    fn push_time(&mut self, out: &mut Vec<u8>, time: u64) {
        self.clock.push_time(out, time);
        out.truncate(out.len() - BEYOND_MICROSECONDS);
        while out.last() == Some(&b'0') {
            out.pop();
        }
        if out.last() == Some(&b'.') {
            out.pop();
        }
        out.push(b'Z');
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::record::{Kind, Outcome, selected::Fields};

    fn style(form: Form, framing: Framing) -> Style {
        let (hostname, app_name) = (Some("node-1".to_owned()), DEFAULT_APP_NAME.to_owned());
        Style { form, framing, facility: DEFAULT_FACILITY, hostname, app_name }
    }

    fn encoder(style: &Style) -> Encoder {
        let fields = Fields::parse(&["url.path"], &[] as &[&str]).unwrap();
        Encoder::new(json::Lines::of(Some(fields.into())), style)
    }

    fn record(path: &str) -> Record {
        let path = Some(Bytes::from(path.to_owned()));
        Record { time: 1_795_249_530_120_000_999, path, ..Record::blank() }
    }

    fn item(style: &Style, record: &Record) -> String {
        let mut out = Vec::new();
        encoder(style).push(&mut out, record);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn the_old_forwarder_s_lines() {
        // The old forwarder's own tests; the second has a time of another zone there.
        let check = |host: &str, tag: &str, priority, time, message: &[u8], expected: &str| {
            let mut out = Vec::new();
            Writer::new(host.as_bytes(), tag.as_bytes()).push(&mut out, priority, time, "-", message);
            assert_eq!(String::from_utf8(out).unwrap(), expected);
        };
        check(
            "mymachine.example.com",
            "su",
            4 * 8 + 2,
            1_065_910_455_003_000_000,
            b"'su root' failed for lonvick on /dev/pts/8",
            "<34>1 2003-10-11T22:14:15.003Z mymachine.example.com su - - - 'su root' failed for lonvick on /dev/pts/8",
        );
        check(
            "192.0.2.1",
            "myproc",
            20 * 8 + 5,
            1_061_727_255_000_003_999,
            b"%% It's time to make the do-nuts.",
            "<165>1 2003-08-24T12:14:15.000003Z 192.0.2.1 myproc - - - %% It's time to make the do-nuts.",
        );
        check("", "", 0, 0, b"a\nb\rc\0d\n", "<0>1 1970-01-01T00:00:00Z   - - - a b c d ");
    }

    #[test]
    fn messages_are_framed() {
        let plain = "<134>1 2026-11-21T08:25:30.12Z node-1 pod2pod - http - {\"url.path\":\"/é\"}";
        for (framing, expected) in [
            (Framing::OctetCounting, format!("{} {plain}", plain.len())),
            (Framing::Lines, format!("{plain}\n")),
            (Framing::Datagrams(DEFAULT_DATAGRAM_BYTES), plain.to_owned()),
        ] {
            assert_eq!(item(&style(Form::Rfc5424, framing), &record("/é")), expected);
        }
        let old = item(&style(Form::Old, Framing::Lines), &record("/"));
        assert_eq!(old, "<134>1 2026-11-21T08:25:30.12Z node-1 pod2pod - - - {\"url.path\":\"/\"}\n");
    }

    #[test]
    fn messages_are_as_long_as_allowed() {
        let old = style(Form::Old, Framing::Lines);
        let head = item(&old, &record("")).len() - 1;
        for (framing, most, end) in [
            (Framing::Lines, MAX_LINE_BYTES, 1),
            (Framing::Datagrams(OLD_DATAGRAM_BYTES), OLD_DATAGRAM_BYTES, 0),
            (Framing::Datagrams(MAX_DATAGRAM_BYTES), MAX_DATAGRAM_BYTES, 0),
        ] {
            let mut encoder = encoder(&style(Form::Old, framing));
            for (path, length, cut) in [
                ("x".repeat(most - head), most, 0),
                ("x".repeat(most - head + 1), most, 1),
                // What is left ends in the middle of one, which goes; its quote and brace are gone too.
                (format!("{}é", "x".repeat(most - head + 1)), most - 1, 2),
            ] {
                let mut out = Vec::new();
                encoder.push(&mut out, &record(&path));
                assert_eq!((out.len() - end, encoder.cut()), (length, cut), "{framing:?}");
                assert!(str::from_utf8(&out).is_ok());
            }
            assert_eq!(encoder.clone().cut(), 2);
        }
        let counted =
            item(&style(Form::Rfc5424, Framing::OctetCounting), &record(&"x".repeat(MAX_LINE_BYTES)));
        let (length, message) = counted.split_once(' ').unwrap();
        assert_eq!(length.parse(), Ok(message.len()));
    }

    #[test]
    fn names_are_as_they_may_be() {
        let check = |text: &str, most, expected: &str| assert_eq!(name(text, most), expected.as_bytes());
        for most in [MAX_HOSTNAME, MAX_APP_NAME] {
            let fits = "a".repeat(most);
            check(&fits, most, &fits);
            check(&format!("{fits}b"), most, &fits);
        }
        check("a b\tü~", MAX_APP_NAME, "ab~");
        check(" ", MAX_APP_NAME, "-");
        let priority = |facility| {
            let style = Style { facility, ..style(Form::Rfc5424, Framing::Lines) };
            item(&style, &record("")).split_once('>').unwrap().0.to_owned()
        };
        assert_eq!([priority(MAX_FACILITY), priority(MAX_FACILITY + 1)], ["<190", "<190"]);
    }

    #[test]
    fn severities() {
        let of = |status, outcome, kind| severity(&Record { status, outcome, kind, ..Record::blank() });
        assert_eq!(of(Some(200), Some(Outcome::Complete), Kind::Http), INFORMATIONAL);
        assert_eq!(of(Some(404), Some(Outcome::Complete), Kind::Http), WARNING);
        assert_eq!(of(Some(500), Some(Outcome::Complete), Kind::Http), ERROR);
        assert_eq!(of(None, Some(Outcome::Refused), Kind::Connect), ERROR);
        assert_eq!(of(Some(404), Some(Outcome::Reset), Kind::Http), ERROR);
        assert_eq!(of(None, None, Kind::IpvsReuse), INFORMATIONAL);
    }
}
