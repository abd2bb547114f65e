//! A Record as one line of JSON, written straight into a buffer: no tree in between.

use super::{
    CapturedHeader, Record,
    field::{Lead, Value},
    fields::{self, Taker},
    number::{self, Clock},
    text,
};

/// Room that a usual line takes, bytes: asked for once, so that hardly any of its fields has to.
const USUAL_LINE: usize = 1024;

/// Writes lines, one after the other.
#[derive(Clone, Debug, Default)]
pub struct Lines {
    clock: Clock,
}

impl Lines {
    /// Appends `record` and a line feed.
    pub fn push(&mut self, out: &mut Vec<u8>, record: &Record) {
        out.reserve(USUAL_LINE);
        let start = out.len();
        fields::each(record, &mut Line(out, &mut self.clock));
        // Every key comes with a comma before it: the first one's is where the object begins.
        if let Some(first) = out.get_mut(start) {
            *first = b'{';
        }
        out.extend_from_slice(b"}\n");
    }
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
