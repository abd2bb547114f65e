//! Records as objects behind which a sink has something of its own: as they are, or as kubernetes-pod2pod-log had them.

use std::sync::Arc;

use rmp::encode;
use serde_json::{Map, Number, Value};

use super::{Format, pod2pod_log::OldLines};
use crate::record::{
    Record,
    json::Lines,
    msgpack::{Maps, push_text},
    selected::Fields,
};

/// Objects of JSON.
#[derive(Clone, Debug)]
pub enum Objects {
    /// The record as it is.
    New(Lines),
    /// The old one.
    Old(OldLine),
}

/// Maps of MessagePack.
#[derive(Clone, Debug)]
pub enum Entries {
    /// The record as it is.
    New(Maps),
    /// The old one.
    Old(OldLine),
}

/// Writes old records, a line each.
#[derive(Clone, Debug)]
pub struct OldLine {
    lines: OldLines,
    line: Vec<u8>,
}

impl OldLine {
    fn of_host() -> Self {
        Self { lines: OldLines::of_host(false), line: Vec::new() }
    }

    /// What is between the braces; absent if it had no record of this.
    fn inside(&mut self, record: &Record) -> Option<&[u8]> {
        self.line.clear();
        self.lines.push(&mut self.line, record);
        self.line.strip_prefix(b"{")?.strip_suffix(b"}\n")
    }
}

impl Objects {
    /// In this format. The old one has its own fields, whatever `fields` are.
    pub(super) fn of(format: Format, fields: Option<Arc<Fields>>) -> Self {
        match format {
            Format::Pod2podLog => Self::Old(OldLine::of_host()),
            Format::Auto | Format::Json | Format::Text => Self::New(Lines::of(fields)),
        }
    }

    /// Appends the members of an object that has some already, and its end; false, and nothing, if the format has none of this record.
    pub(super) fn push_rest(&mut self, out: &mut Vec<u8>, record: &Record) -> bool {
        match self {
            Self::New(lines) => lines.push_rest(out, record),
            Self::Old(line) => {
                let Some(inside) = line.inside(record) else { return false };
                out.push(b',');
                out.extend_from_slice(inside);
                out.push(b'}');
            }
        }
        true
    }
}

impl Entries {
    /// In this format. The old one has its own fields, whatever `fields` are.
    pub(super) fn of(format: Format, fields: Option<Arc<Fields>>) -> Self {
        match format {
            Format::Pod2podLog => Self::Old(OldLine::of_host()),
            Format::Auto | Format::Json | Format::Text => Self::New(Maps::of(fields)),
        }
    }

    /// Appends a map; false, and nothing, if the format has none of this record.
    pub(super) fn push(&mut self, out: &mut Vec<u8>, record: &Record) -> bool {
        match self {
            Self::New(maps) => maps.push(out, record),
            Self::Old(line) => {
                if line.inside(record).is_none() {
                    return false;
                }
                // What we wrote is what we read.
                let Ok(map) = serde_json::from_slice::<Map<String, Value>>(&line.line) else { return false };
                push_map(out, &map);
            }
        }
        true
    }
}

/// The old record is flat: text, and numbers.
fn push_map(out: &mut Vec<u8>, map: &Map<String, Value>) {
    // A Vec takes every write.
    let _ = encode::write_map_len(out, u32::try_from(map.len()).unwrap_or(u32::MAX));
    for (key, value) in map {
        push_text(out, key.as_bytes());
        match value {
            Value::String(text) => push_text(out, text.as_bytes()),
            Value::Number(number) => push_number(out, number),
            Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => {
                let _ = encode::write_nil(out);
            }
        }
    }
}

fn push_number(out: &mut Vec<u8>, number: &Number) {
    let _ = match number.as_u64() {
        Some(integer) => encode::write_uint(out, integer).map(drop),
        None => encode::write_f64(out, number.as_f64().unwrap_or_default()),
    };
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{Kind, msgpack::decoded};

    fn record() -> Record {
        Record {
            kind: Kind::Http,
            method: Some("GET".into()),
            status: Some(200),
            duration: 1_500_000,
            ..Record::blank()
        }
    }

    fn old_line(record: &Record) -> Option<Value> {
        let mut line = Vec::new();
        OldLines::of_host(false).push(&mut line, record);
        serde_json::from_slice(&line).ok()
    }

    #[test]
    fn the_old_record_is_the_same_in_all_forms() {
        let record = record();
        let old = old_line(&record).unwrap();
        let mut object = b"{\"@version\":\"1\"".to_vec();
        assert!(Objects::of(Format::Pod2podLog, None).push_rest(&mut object, &record));
        let mut object: Value = serde_json::from_slice(&object).unwrap();
        assert_eq!(object.as_object_mut().unwrap().remove("@version"), Some("1".into()));
        assert_eq!(object, old);
        let mut map = Vec::new();
        assert!(Entries::of(Format::Pod2podLog, None).push(&mut map, &record));
        let mut rest = &map[..];
        assert_eq!((decoded(&mut rest), rest.len()), (old.clone(), 0));
        assert_eq!((&old["resCode"], &old["srcPort"]), (&Value::from("200"), &Value::from(0)));
        assert!(old["resTime"].is_f64(), "{old}");
    }

    #[test]
    fn of_what_it_had_no_record_there_is_nothing() {
        let connect = Record { kind: Kind::Connect, ..record() };
        assert_eq!(old_line(&connect), None);
        let mut out = b"{".to_vec();
        assert!(!Objects::of(Format::Pod2podLog, None).push_rest(&mut out, &connect));
        assert!(!Entries::of(Format::Pod2podLog, None).push(&mut out, &connect));
        assert_eq!(out, b"{");
        assert!(Objects::of(Format::Json, None).push_rest(&mut out, &connect));
    }
}
