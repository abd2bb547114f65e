//! A Record as one line of JSON, written straight into a buffer: no tree in between.

use std::{net::IpAddr, sync::Arc};

use super::{
    CapturedHeader, Record, Role,
    field::{Lead, Value},
    fields::{self, Taker},
    number::{self, Clock},
    party,
    selected::Fields,
    text,
};

/// Room that a usual line takes, bytes: asked for once, so that hardly any of its fields has to.
const USUAL_LINE: usize = 1024;

/// Writes lines, one after the other.
#[derive(Clone, Debug, Default)]
pub struct Lines {
    clock: Clock,
    ends: KnownEnds,
    /// All are written if absent.
    fields: Option<Arc<Fields>>,
}

/// Connections whose ends are known as text: those that are busy at the same time, and the other end's view of each.
pub const KNOWN_ENDS: usize = 64;

/// Longest text of a connection's ends that is kept, bytes: usual ones have 116 to 130, with two long IPv6 addresses 190.
pub const MAX_KNOWN_ENDS: usize = 192;

/// Between whom a connection is.
type Ends = [(IpAddr, u16); 2];

/// Texts of connections' ends, each at a place of its ports.
#[derive(Clone, Debug, Default)]
struct KnownEnds {
    /// Empty before the first.
    places: Vec<Option<KnownText>>,
}

#[derive(Clone, Copy, Debug)]
struct KnownText {
    ends: Ends,
    length: usize,
    text: [u8; MAX_KNOWN_ENDS],
}

impl KnownEnds {
    fn place([(_, client), (_, server)]: &Ends) -> usize {
        usize::from(client ^ server) % KNOWN_ENDS
    }

    fn find(&self, ends: &Ends) -> Option<&[u8]> {
        let known = self.places.get(Self::place(ends))?.as_ref().filter(|known| known.ends == *ends)?;
        known.text.get(..known.length)
    }

    fn keep(&mut self, ends: Ends, text: &[u8]) {
        let mut known = KnownText { ends, length: text.len(), text: [0; MAX_KNOWN_ENDS] };
        if let Some(room) = known.text.get_mut(..text.len()) {
            room.copy_from_slice(text);
            self.places.resize(KNOWN_ENDS, None);
            if let Some(place) = self.places.get_mut(Self::place(&ends)) {
                *place = Some(known);
            }
        }
    }
}

impl Lines {
    /// Lines that have these fields only; all if absent.
    pub fn of(fields: Option<Arc<Fields>>) -> Self {
        Self { fields, ..Self::default() }
    }

    /// Appends `record` and a line feed.
    pub fn push(&mut self, out: &mut Vec<u8>, record: &Record) {
        self.push_object(out, record);
        out.push(b'\n');
    }

    /// Appends `record` as an object.
    pub fn push_object(&mut self, out: &mut Vec<u8>, record: &Record) {
        out.reserve(USUAL_LINE);
        let start = out.len();
        self.push_fields(out, record);
        if out.len() == start {
            out.push(b'{');
        }
        // Every key comes with a comma before it: the first one's is where the object begins.
        if let Some(first) = out.get_mut(start) {
            *first = b'{';
        }
        out.push(b'}');
    }

    /// Appends the fields of `record`, and the end, to an object that has one already.
    pub fn push_rest(&mut self, out: &mut Vec<u8>, record: &Record) {
        out.reserve(USUAL_LINE);
        self.push_fields(out, record);
        out.push(b'}');
    }

    fn push_fields(&mut self, out: &mut Vec<u8>, record: &Record) {
        if let Some(fields) = self.fields.clone() {
            let mut line = Line(out, &mut self.clock);
            fields::everything(record, &mut Chosen { fields: &fields, line: &mut line });
        } else {
            fields::before_ends(record, &mut Line(out, &mut self.clock));
            self.push_ends(out, record);
            self.push_parties(out, record);
            fields::behind_ends(record, &mut Line(out, &mut self.clock));
            if record.ipvs.is_some() {
                self.push_ipvs(out, record);
            }
        }
    }

    /// Each party's text was mostly made for an earlier record.
    #[inline]
    fn push_parties(&mut self, out: &mut Vec<u8>, record: &Record) {
        let clock = &mut self.clock;
        if let Some(party) = &record.client_party {
            let text =
                party.text(Role::Client, || made(|out| party::take_client(record, &mut Line(out, clock))));
            out.extend_from_slice(text);
        }
        if let Some(party) = &record.server_party {
            let text =
                party.text(Role::Server, || made(|out| party::take_server(record, &mut Line(out, clock))));
            out.extend_from_slice(text);
        }
    }

    /// Hardly any record has it.
    #[cold]
    fn push_ipvs(&mut self, out: &mut Vec<u8>, record: &Record) {
        fields::of_ipvs(record, &mut Line(out, &mut self.clock));
    }

    /// Most connections have several exchanges, and both ends are often seen.
    #[inline]
    fn push_ends(&mut self, out: &mut Vec<u8>, record: &Record) {
        let ends = [record.client, record.server];
        let known = if record.network_peer.is_none() { self.ends.find(&ends) } else { None };
        match known {
            Some(text) => out.extend_from_slice(text),
            None => self.push_unknown_ends(out, record),
        }
    }

    #[cold]
    fn push_unknown_ends(&mut self, out: &mut Vec<u8>, record: &Record) {
        let start = out.len();
        fields::ends(record, &mut Line(out, &mut self.clock));
        if record.network_peer.is_none() {
            self.ends.keep([record.client, record.server], out.get(start..).unwrap_or_default());
        }
    }
}

#[cold]
fn made(push: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut text = Vec::new();
    push(&mut text);
    text
}

/// A line that is being written.
struct Line<'a>(&'a mut Vec<u8>, &'a mut Clock);

impl Line<'_> {
    /// What is between quotes.
    #[inline(always)]
    fn quoted(&mut self, lead: Lead, push: impl FnOnce(&mut Vec<u8>)) {
        self.0.extend_from_slice(lead.quoted.as_bytes());
        push(self.0);
        self.0.push(b'"');
    }

    #[inline(always)]
    fn bare(&mut self, lead: Lead, push: impl FnOnce(&mut Vec<u8>)) {
        self.0.extend_from_slice(lead.bare.as_bytes());
        push(self.0);
    }
}

impl Taker for Line<'_> {
    #[inline(always)]
    fn take(&mut self, lead: Lead, value: Value<'_>) {
        match value {
            Value::Absent => {}
            Value::Headers(headers) => push_headers(self.0, lead.key, headers),
            // A party's text is made once.
            Value::PodUid(uid) => self.quoted(lead, |out| out.extend_from_slice(uid.to_string().as_bytes())),
            Value::ContainerId(id) => {
                self.quoted(lead, |out| out.extend_from_slice(id.to_string().as_bytes()))
            }
            Value::Pairs(pairs) => push_pairs(self.0, lead.key, pairs),
            Value::Word(word) => self.quoted(lead, |out| out.extend_from_slice(word.as_bytes())),
            Value::Text(bytes) => self.quoted(lead, |out| text::push_content(out, bytes)),
            Value::Texts(texts) => {
                self.bare(lead, |out| push_strings(out, texts.iter().map(|text| &text[..])))
            }
            Value::Words(words) => {
                self.bare(lead, |out| push_strings(out, words.iter().map(|word| word.as_bytes())));
            }
            Value::Base64(bytes) => self.quoted(lead, |out| text::push_base64(out, bytes)),
            Value::Address(address) => self.quoted(lead, |out| number::push_address(out, address)),
            Value::Id(id) => self.quoted(lead, |out| number::push_hex::<16>(out, id)),
            Value::Time(nanoseconds) => {
                self.0.extend_from_slice(lead.quoted.as_bytes());
                self.1.push_time(self.0, nanoseconds);
                self.0.push(b'"');
            }
            Value::StatusText(status) => {
                self.quoted(lead, |out| number::push_integer(out, u64::from(status)));
            }
            Value::Integer(integer) => self.bare(lead, |out| number::push_integer(out, integer)),
            Value::Seconds(nanoseconds) => self.bare(lead, |out| number::push_seconds(out, nanoseconds)),
            Value::Millionths(millionths) => {
                self.bare(lead, |out| number::push_millionths(out, millionths));
            }
            Value::True => self.bare(lead, |out| out.extend_from_slice(b"true")),
        }
    }
}

/// A line of some fields only.
struct Chosen<'a, 'b> {
    fields: &'a Fields,
    line: &'a mut Line<'b>,
}

impl Taker for Chosen<'_, '_> {
    fn take(&mut self, lead: Lead, value: Value<'_>) {
        if value != Value::Absent && self.fields.has(lead.key) {
            self.line.take(lead, value);
        }
    }
}

#[inline(never)]
fn push_strings<'a>(out: &mut Vec<u8>, items: impl Iterator<Item = &'a [u8]>) {
    out.push(b'[');
    for (index, item) in items.enumerate() {
        if index > 0 {
            out.push(b',');
        }
        text::push_string(out, item);
    }
    out.push(b']');
}

/// One key per name, its value the array of the values, as OpenTelemetry has it. Headers come grouped by name.
#[inline(never)]
fn push_headers(out: &mut Vec<u8>, prefix: &str, headers: &[CapturedHeader]) {
    for group in headers.chunk_by(|a, b| a.name == b.name) {
        let Some(first) = group.first() else { continue };
        out.extend_from_slice(b",\"");
        out.extend_from_slice(prefix.as_bytes());
        text::push_content(out, &first.name);
        out.extend_from_slice(b"\":");
        push_strings(out, group.iter().map(|header| &header.value[..]));
    }
}

/// One key per pair.
fn push_pairs(out: &mut Vec<u8>, prefix: &str, pairs: &[(Arc<str>, Arc<str>)]) {
    for (key, value) in pairs {
        out.extend_from_slice(b",\"");
        out.extend_from_slice(prefix.as_bytes());
        text::push_content(out, key.as_bytes());
        out.extend_from_slice(b"\":");
        text::push_string(out, value.as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(lines: &mut Lines, record: &Record) -> String {
        let mut out = Vec::new();
        lines.push(&mut out, record);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn lines_are_the_same_whether_their_ends_are_known_or_not() {
        let addresses =
            ["10.0.0.1", "10.0.0.2", "255.255.255.255", "::1", "2001:db8:1111:2222:3333:4444:5555:6666"];
        let addresses = addresses.map(|address| address.parse::<IpAddr>().unwrap());
        let mut lines = Lines::default();
        for first in [1, KNOWN_ENDS as u16 - 1] {
            for client in addresses {
                for server in addresses {
                    // Two of one place, and one of another.
                    for port in [first, first + KNOWN_ENDS as u16, first + 1, first] {
                        let ends = Record { client: (client, port), server: (server, 80), ..Record::blank() };
                        let behind_proxy = Record { network_peer: Some((server, 7)), ..ends.clone() };
                        for record in [&ends, &behind_proxy, &ends] {
                            assert_eq!(line(&mut lines, record), line(&mut Lines::default(), record));
                        }
                    }
                }
            }
        }
        assert!(lines.ends.places.len() <= KNOWN_ENDS);
    }

    #[test]
    fn some_fields_stand_in_the_order_of_all() {
        let record = Record { status: Some(200), ..Record::blank() };
        let check = |only: &[&str], without: &[&str], expected: &str| {
            let fields = Fields::parse(only, without).unwrap();
            let mut lines = Lines::of(Some(Arc::new(fields)));
            assert_eq!(line(&mut lines, &record), format!("{expected}\n"));
            let mut rest = b"{\"a\":1".to_vec();
            lines.push_rest(&mut rest, &record);
            let rest: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(&rest).unwrap();
            let mut whole: serde_json::Map<_, _> = serde_json::from_str(expected).unwrap();
            whole.insert("a".to_owned(), 1.into());
            assert_eq!(rest, whole);
        };
        check(
            &["client.port", "http.response.*", "kind"],
            &[],
            r#"{"kind":"http","http.response.status_code":200,"client.port":0}"#,
        );
        check(&["server.*"], &["*.port"], r#"{"server.address":"0.0.0.0"}"#);
        check(&["url.path"], &[], "{}");
    }

    #[test]
    fn ends_are_known_up_to_their_length_limit() {
        let ends = [(IpAddr::from([10, 0, 0, 1]), 1), (IpAddr::from([10, 0, 0, 2]), 2)];
        for (length, expected) in [(MAX_KNOWN_ENDS, true), (MAX_KNOWN_ENDS + 1, false)] {
            let mut known = KnownEnds::default();
            let text = vec![b'x'; length];
            known.keep(ends, &text);
            assert_eq!(known.find(&ends), expected.then_some(&text[..]));
        }
    }
}
