//! A Record as one line of JSON, written straight into a buffer: no tree in between.

use super::{CapturedHeader, Record, field::Value, fields::FIELDS, number, text};

/// Appends `record` and a line feed.
pub fn push_line(out: &mut Vec<u8>, record: &Record) {
    let start = out.len();
    for field in FIELDS {
        let value = (field.value)(record);
        if let Value::Headers(headers) = value {
            push_headers(out, field.key, headers);
        } else if !matches!(value, Value::Absent) {
            field.lead.push(out);
            push_value(out, &value);
        }
    }
    // Every key comes with a comma before it: the first one's is where the object begins.
    if let Some(first) = out.get_mut(start) {
        *first = b'{';
    }
    out.extend_from_slice(b"}\n");
}

fn push_value(out: &mut Vec<u8>, value: &Value<'_>) {
    match value {
        Value::Absent | Value::Headers(_) => {}
        Value::Word(word) => {
            out.push(b'"');
            out.extend_from_slice(word.as_bytes());
            out.push(b'"');
        }
        Value::Text(bytes) => text::push_string(out, bytes),
        Value::Texts(texts) => push_list(out, texts.iter(), |out, bytes| text::push_string(out, bytes)),
        Value::Words(words) => {
            push_list(out, words.iter(), |out, word| text::push_string(out, word.as_bytes()))
        }
        Value::Base64(bytes) => {
            out.push(b'"');
            text::push_base64(out, bytes);
            out.push(b'"');
        }
        Value::Address(address) => {
            out.push(b'"');
            number::push_address(out, *address);
            out.push(b'"');
        }
        Value::Id(id) => {
            out.push(b'"');
            number::push_hex::<16>(out, *id);
            out.push(b'"');
        }
        Value::Time(nanoseconds) => {
            out.push(b'"');
            number::push_time(out, *nanoseconds);
            out.push(b'"');
        }
        Value::StatusText(status) => {
            out.push(b'"');
            number::push_integer(out, u64::from(*status));
            out.push(b'"');
        }
        Value::Integer(integer) => number::push_integer(out, *integer),
        Value::Seconds(nanoseconds) => number::push_seconds(out, *nanoseconds),
        Value::Millionths(millionths) => number::push_millionths(out, *millionths),
        Value::True => out.extend_from_slice(b"true"),
    }
}

fn push_list<T>(out: &mut Vec<u8>, items: impl Iterator<Item = T>, mut push: impl FnMut(&mut Vec<u8>, T)) {
    out.push(b'[');
    for (index, item) in items.enumerate() {
        if index > 0 {
            out.push(b',');
        }
        push(out, item);
    }
    out.push(b']');
}

/// One key per name, its value the array of the values, as OpenTelemetry has it. Headers come grouped by name.
fn push_headers(out: &mut Vec<u8>, prefix: &str, headers: &[CapturedHeader]) {
    for group in headers.chunk_by(|a, b| a.name == b.name) {
        let Some(first) = group.first() else { continue };
        out.extend_from_slice(b",\"");
        out.extend_from_slice(prefix.as_bytes());
        text::push_content(out, &first.name);
        out.extend_from_slice(b"\":");
        push_list(out, group.iter(), |out, header| text::push_string(out, &header.value));
    }
}
