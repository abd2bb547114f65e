//! A record as a row: what is searched for in columns, and the whole record as `jsonb`. Pure.
//!
//! A row is a line of COPY's text format (PostgreSQL 15, COPY, "Text Format"). What a `text` or `jsonb` cannot hold, which is the
//! character of code zero, becomes U+FFFD.

use std::sync::Arc;

use smallvec::SmallVec;

use crate::{
    record::{Record, fields, json, number::Clock},
    route::of_text,
    sinks::ids::Ids,
};

/// A column beside the id, the time and the record.
struct Column {
    name: &'static str,
    kind: &'static str,
    /// The record's field.
    key: &'static str,
}

const COLUMNS: [Column; 12] = [
    column("kind", "text", "kind"),
    column("outcome", "text", "outcome"),
    column("method", "text", "http.request.method"),
    column("path", "text", "url.path"),
    column("status", "integer", "http.response.status_code"),
    column("duration", "double precision", "duration"),
    column("client_address", "inet", "client.address"),
    column("client_namespace", "text", "client.k8s.namespace.name"),
    column("client_workload", "text", "client.k8s.workload.name"),
    column("server_address", "inet", "server.address"),
    column("server_namespace", "text", "server.k8s.namespace.name"),
    column("server_workload", "text", "server.k8s.workload.name"),
];

const fn column(name: &'static str, kind: &'static str, key: &'static str) -> Column {
    Column { name, kind, key }
}

/// Names of all columns, in the order of a row.
pub(super) fn names() -> String {
    let columns: Vec<_> = COLUMNS.iter().map(|column| column.name).collect();
    format!("id, time, {}, record", columns.join(", "))
}

/// What makes the table, which is called `table`, and an index of its times, which `index` is called.
pub(super) fn create(table: &str, index: &str) -> String {
    let columns: Vec<_> = COLUMNS.iter().map(|column| format!("{} {}", column.name, column.kind)).collect();
    format!(
        "CREATE TABLE IF NOT EXISTS {table} (id uuid PRIMARY KEY, time timestamptz NOT NULL, {}, record jsonb NOT NULL); \
         CREATE INDEX IF NOT EXISTS {index} ON {table} USING brin (time)",
        columns.join(", ")
    )
}

/// Makes items: rows with ids of their own.
#[derive(Clone, Debug)]
pub struct Encoder {
    lines: json::Lines,
    clock: Clock,
    object: Vec<u8>,
    ids: Arc<Ids>,
}

impl Encoder {
    /// Rows with the record as `lines` makes it.
    pub fn new(lines: json::Lines) -> Self {
        Self { lines, clock: Clock::default(), object: Vec::new(), ids: Arc::default() }
    }

    /// Appends the row of `record`.
    pub fn push(&mut self, out: &mut Vec<u8>, record: &Record) {
        self.ids.push(out);
        out.push(b'\t');
        self.clock.push_time(out, record.time);
        Self::push_columns(out, record);
        out.push(b'\t');
        self.object.clear();
        self.lines.push_object(&mut self.object, record);
        push_json(out, &self.object);
        out.push(b'\n');
    }

    fn push_columns(out: &mut Vec<u8>, record: &Record) {
        // What a record has of them, one behind the other.
        let mut text = SmallVec::<[u8; 256]>::new();
        let mut parts: [Option<(usize, usize)>; COLUMNS.len()] = [None; COLUMNS.len()];
        fields::visit(record, |key, value| {
            let place = COLUMNS.iter().position(|column| column.key == key);
            if let Some(part) = place.and_then(|place| parts.get_mut(place))
                && let Some(bytes) = of_text(value)
            {
                let start = text.len();
                text.extend_from_slice(&bytes);
                *part = Some((start, text.len()));
            }
        });
        for part in parts {
            out.push(b'\t');
            match part.and_then(|(start, end)| text.get(start..end)) {
                Some(bytes) => push_text(out, bytes),
                None => out.extend_from_slice(b"\\N"),
            }
        }
    }
}

/// Appends a column's text: bytes that are no UTF-8 are ISO 8859-1, as in the record's JSON.
fn push_text(out: &mut Vec<u8>, bytes: &[u8]) {
    let is_text = str::from_utf8(bytes).is_ok();
    for &byte in bytes {
        match byte {
            0 => out.extend_from_slice(INSTEAD.as_bytes()),
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'\t' => out.extend_from_slice(b"\\t"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            byte if is_text || byte.is_ascii() => out.push(byte),
            byte => out.extend_from_slice(char::from(byte).encode_utf8(&mut [0; 2]).as_bytes()),
        }
    }
}

/// Appends JSON, which has backslashes and nothing else that COPY would take for something.
fn push_json(out: &mut Vec<u8>, mut json: &[u8]) {
    while let Some(place) = memchr::memchr(b'\\', json) {
        let (plain, escape) = json.split_at(place);
        out.extend_from_slice(plain);
        json = if let Some(rest) = escape.strip_prefix(b"\\u0000") {
            out.extend_from_slice(INSTEAD.as_bytes());
            rest
        } else if let Some(rest) = escape.strip_prefix(b"\\\\") {
            out.extend_from_slice(br"\\\\");
            rest
        } else {
            out.extend_from_slice(br"\\");
            escape.get(1..).unwrap_or_default()
        };
    }
    out.extend_from_slice(json);
}

/// What stands for the character of code zero.
const INSTEAD: &str = "\u{fffd}";

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn row(record: &Record) -> Vec<String> {
        let mut out = Vec::new();
        Encoder::new(json::Lines::default()).push(&mut out, record);
        let text = String::from_utf8(out).unwrap();
        let line = text.strip_suffix('\n').unwrap();
        assert!(!line.contains(['\n', '\r', '\0']), "{line}");
        line.split('\t').map(str::to_owned).collect()
    }

    #[test]
    fn a_row_has_its_columns() {
        let record = Record {
            time: 1_795_249_530_000_000_000,
            path: Some(Bytes::from_static(b"/a\t\\b\0c\xff\n")),
            status: Some(503),
            duration: 1_500_000_000,
            ..Record::blank()
        };
        let row = row(&record);
        assert_eq!(row.len(), COLUMNS.len() + 3);
        assert_eq!(row.len(), names().split(", ").count());
        assert!(row[0].len() == 32 && row[0].bytes().all(|byte| byte.is_ascii_hexdigit()), "{row:?}");
        assert_eq!(row[1], "2026-11-21T08:25:30.000000000Z");
        let of = |name: &str| &row[names().split(", ").position(|column| column == name).unwrap()];
        assert_eq!((&**of("kind"), &**of("status"), &**of("duration")), ("http", "503", "1.5"));
        assert_eq!((&**of("path"), &**of("server_namespace")), ("/a\\t\\\\b\u{fffd}c\u{ff}\\n", "\\N"));
        // What COPY makes of it is the record.
        let object = of("record").replace("\\\\", "\\");
        let object: serde_json::Value = serde_json::from_str(&object).unwrap();
        assert_eq!(object["url.path"], "/a\t\\b\u{fffd}c\u{ff}\n");
    }

    #[test]
    fn json_is_as_it_was_behind_copy() {
        for (json, expected) in [
            (r#""a""#, r#""a""#),
            (r#""\n\"""#, r#""\\n\\"""#),
            (r#""\u0000""#, "\"\u{fffd}\""),
            (r#""\u0001""#, r#""\\u0001""#),
            // A backslash, and five letters.
            (r#""\\u0000""#, r#""\\\\u0000""#),
            (r#""\\\u0000""#, "\"\\\\\\\\\u{fffd}\""),
        ] {
            let mut out = Vec::new();
            push_json(&mut out, json.as_bytes());
            assert_eq!(String::from_utf8(out).unwrap(), expected, "{json}");
        }
    }

    #[test]
    fn fields_of_columns_are_the_records() {
        for column in COLUMNS {
            assert!(fields::all().any(|field| field.key == column.key), "{}", column.key);
        }
    }
}
