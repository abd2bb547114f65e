//! A Record as a map of MessagePack, written straight into a buffer. Its keys and values are those of the JSON object: text where that
//! has a string, an integer or a double where it has a number.

use std::{fmt::Display, io::Write as _, sync::Arc};

use rmp::encode;

use super::{
    CapturedHeader, Record,
    field::{Lead, Value},
    fields::{self, Taker},
    number::{self, Clock},
    selected::Fields,
    text,
};

/// Room that a usual map takes, bytes: asked for once, so that hardly any of its fields has to.
const USUAL_MAP: usize = 1024;
const NANOSECONDS: f64 = 1e9;
const MILLIONTHS: f64 = 1e6;

/// Writes maps, one after the other.
#[derive(Clone, Debug, Default)]
pub struct Maps {
    clock: Clock,
    /// All are written if absent.
    fields: Option<Arc<Fields>>,
}

impl Maps {
    /// Maps that have these fields only; all if absent.
    pub fn of(fields: Option<Arc<Fields>>) -> Self {
        Self { fields, ..Self::default() }
    }

    /// Appends `record`.
    pub fn push(&mut self, out: &mut Vec<u8>, record: &Record) {
        out.reserve(USUAL_MAP);
        let start = out.len();
        // How many there are is known at the end; a map of 32 bits of length has room for any number.
        out.extend_from_slice(&[rmp::Marker::Map32.to_u8(), 0, 0, 0, 0]);
        let mut map = Map { out, clock: &mut self.clock, fields: self.fields.as_deref(), entries: 0 };
        fields::everything(record, &mut map);
        let entries = map.entries;
        if let Some(room) = out.get_mut(start + 1..start + 5) {
            room.copy_from_slice(&entries.to_be_bytes());
        }
    }
}

/// A map that is being written.
struct Map<'a> {
    out: &'a mut Vec<u8>,
    clock: &'a mut Clock,
    fields: Option<&'a Fields>,
    entries: u32,
}

impl Map<'_> {
    fn key(&mut self, key: &str) {
        self.entries += 1;
        push_text(self.out, key.as_bytes());
    }

    /// An entry whose value is text that `push` writes, of less than 256 bytes.
    fn short(&mut self, key: &str, push: impl FnOnce(&mut Vec<u8>)) {
        self.key(key);
        self.out.extend_from_slice(&[rmp::Marker::Str8.to_u8(), 0]);
        let start = self.out.len();
        push(self.out);
        let length = u8::try_from(self.out.len() - start).unwrap_or(u8::MAX);
        if let Some(room) = self.out.get_mut(start - 1) {
            *room = length;
        }
    }

    fn shown(&mut self, key: &str, value: impl Display) {
        self.short(key, |out| {
            // A Vec takes every write.
            let _ = write!(out, "{value}");
        });
    }

    fn texts<'a>(&mut self, key: &str, texts: impl ExactSizeIterator<Item = &'a [u8]>) {
        self.key(key);
        push_texts(self.out, texts);
    }

    fn integer(&mut self, key: &str, value: u64) {
        self.key(key);
        // A Vec takes every write.
        let _ = encode::write_uint(self.out, value);
    }

    /// The quotient of two exact numbers is the double that is nearest to it, which is what a reader of the JSON number has.
    fn number(&mut self, key: &str, value: f64) {
        self.key(key);
        let _ = encode::write_f64(self.out, value);
    }

    /// One key for each name, its value the array of the values. Headers come grouped by name.
    fn headers(&mut self, prefix: &str, headers: &[CapturedHeader]) {
        for group in headers.chunk_by(|a, b| a.name == b.name) {
            let Some(first) = group.first() else { continue };
            self.entries += 1;
            push_joined(self.out, prefix, &first.name);
            push_texts(self.out, group.iter().map(|header| &header.value[..]));
        }
    }

    fn pairs(&mut self, prefix: &str, pairs: &[(Arc<str>, Arc<str>)]) {
        for (key, value) in pairs {
            self.entries += 1;
            push_joined(self.out, prefix, key.as_bytes());
            push_text(self.out, value.as_bytes());
        }
    }
}

impl Taker for Map<'_> {
    fn take(&mut self, lead: Lead, value: Value<'_>) {
        let key = lead.key;
        if value == Value::Absent || self.fields.is_some_and(|fields| !fields.has(key)) {
            return;
        }
        match value {
            Value::Absent => {}
            Value::Word(word) => {
                self.key(key);
                push_text(self.out, word.as_bytes());
            }
            Value::Text(bytes) => {
                self.key(key);
                push_text(self.out, bytes);
            }
            Value::Texts(texts) => self.texts(key, texts.iter().map(|text| &text[..])),
            Value::Words(words) => self.texts(key, words.iter().map(|word| word.as_bytes())),
            Value::Base64(bytes) => {
                self.key(key);
                push_length(self.out, bytes.len().div_ceil(3) * 4);
                text::push_base64(self.out, bytes);
            }
            Value::Address(address) => self.short(key, |out| number::push_address(out, address)),
            Value::Id(id) => self.short(key, |out| number::push_hex::<16>(out, id)),
            Value::Time(nanoseconds) => {
                let mut clock = *self.clock;
                self.short(key, |out| clock.push_time(out, nanoseconds));
                *self.clock = clock;
            }
            Value::StatusText(status) => self.short(key, |out| number::push_integer(out, status.into())),
            Value::Integer(integer) => self.integer(key, integer),
            Value::Seconds(nanoseconds) => self.number(key, nanoseconds as f64 / NANOSECONDS),
            Value::Millionths(millionths) => self.number(key, f64::from(millionths) / MILLIONTHS),
            Value::True => {
                self.key(key);
                self.out.push(rmp::Marker::True.to_u8());
            }
            Value::Headers(headers) => self.headers(key, headers),
            Value::PodUid(uid) => self.shown(key, uid),
            Value::ContainerId(id) => self.shown(key, id),
            Value::Pairs(pairs) => self.pairs(key, pairs),
        }
    }
}

fn push_length(out: &mut Vec<u8>, length: usize) {
    // A Vec takes every write; no text of a record is as long as that of 32 bits.
    let _ = encode::write_str_len(out, u32::try_from(length).unwrap_or(u32::MAX));
}

/// Appends foreign bytes as text: as they are if they are, else byte by byte as ISO-8859-1, as in JSON.
pub fn push_text(out: &mut Vec<u8>, bytes: &[u8]) {
    push_length(out, text_length(bytes));
    push_bytes(out, bytes);
}

/// Two of them as one.
fn push_joined(out: &mut Vec<u8>, prefix: &str, bytes: &[u8]) {
    push_length(out, prefix.len() + text_length(bytes));
    out.extend_from_slice(prefix.as_bytes());
    push_bytes(out, bytes);
}

fn push_texts<'a>(out: &mut Vec<u8>, texts: impl ExactSizeIterator<Item = &'a [u8]>) {
    let _ = encode::write_array_len(out, u32::try_from(texts.len()).unwrap_or(u32::MAX));
    texts.for_each(|text| push_text(out, text));
}

fn text_length(bytes: &[u8]) -> usize {
    if str::from_utf8(bytes).is_ok() {
        bytes.len()
    } else {
        bytes.len() + bytes.iter().filter(|byte| **byte >= 0x80).count()
    }
}

fn push_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    if str::from_utf8(bytes).is_ok() {
        return out.extend_from_slice(bytes);
    }
    for byte in bytes {
        let mut character = [0; 2];
        out.extend_from_slice(char::from(*byte).encode_utf8(&mut character).as_bytes());
    }
}

/// A value as JSON, and the rest: an extension as text of its type and bytes, bytes as characters of their numbers.
#[cfg(test)]
pub(crate) fn decoded(bytes: &mut &[u8]) -> serde_json::Value {
    use serde_json::{Map, Value};

    fn take<'a>(bytes: &mut &'a [u8], count: usize) -> &'a [u8] {
        let (taken, rest) = bytes.split_at(count);
        *bytes = rest;
        taken
    }
    fn number(bytes: &mut &[u8], count: usize) -> u64 {
        take(bytes, count).iter().fold(0, |number, byte| number << 8 | u64::from(*byte))
    }
    fn text(bytes: &mut &[u8], count: u64) -> Value {
        str::from_utf8(take(bytes, count as usize)).unwrap().into()
    }
    let array = |bytes: &mut &[u8], count| (0..count).map(|_| decoded(bytes)).collect();
    let map = |bytes: &mut &[u8], count: u64| {
        let pairs = (0..count).map(|_| (decoded(bytes).as_str().unwrap().to_owned(), decoded(bytes)));
        let map = pairs.collect::<Map<_, _>>();
        assert_eq!(map.len() as u64, count, "a key stands there twice");
        Value::Object(map)
    };
    match take(bytes, 1)[0] {
        0xc3 => Value::Bool(true),
        small @ 0..=0x7f => small.into(),
        size @ 0xcc..=0xcf => number(bytes, 1 << (size - 0xcc)).into(),
        0xcb => f64::from_bits(number(bytes, 8)).into(),
        short @ 0xa0..=0xbf => text(bytes, (short & 0x1f).into()),
        size @ 0xd9..=0xdb => {
            let count = number(bytes, 1 << (size - 0xd9));
            text(bytes, count)
        }
        size @ 0xc4..=0xc6 => {
            let count = number(bytes, 1 << (size - 0xc4)) as usize;
            take(bytes, count).iter().map(|byte| char::from(*byte)).collect::<String>().into()
        }
        0xd7 => {
            let kind = take(bytes, 1)[0];
            format!("{kind}:{:016x}", number(bytes, 8)).into()
        }
        short @ 0x90..=0x9f => array(bytes, (short & 0x0f).into()),
        size @ 0xdc..=0xdd => {
            let count = number(bytes, 2 << (size - 0xdc));
            array(bytes, count)
        }
        short @ 0x80..=0x8f => map(bytes, (short & 0x0f).into()),
        0xdf => {
            let count = number(bytes, 4);
            map(bytes, count)
        }
        other => panic!("{other:#x}"),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use bytes::Bytes;
    use serde_json::{Map, Value};

    use super::*;
    use crate::{
        kubernetes::{
            cgroup::{ContainerId, Place, PodUid},
            identity::{Identity, Pod},
        },
        record::{IpvsFacts, Kind, MessageFacts, Outcome, Party, json},
    };

    fn message(body: &'static [u8]) -> MessageFacts {
        let header = |name: &'static str, value: &'static [u8]| CapturedHeader {
            name: Bytes::from(name),
            value: Bytes::from(value),
        };
        MessageFacts {
            headers: vec![header("x-a", b"1"), header("x-a", b"\xff\"\x01"), header("x-b", "ü".as_bytes())],
            body_size: Some(70_000),
            body_cut: true,
            body: Bytes::from(body),
            decoded: vec!["gzip", "br"],
        }
    }

    /// With nearly every field.
    fn full() -> Record {
        let pair = |key: &str, value: &str| (Arc::from(key), Arc::from(value));
        let pod = Pod {
            namespace: "shop".into(),
            name: "web-1".into(),
            uid: PodUid::parse("0f1e2d3c-4b5a-6978-8796-a5b4c3d2e1f0").unwrap(),
            node: Some("node-1".into()),
            zone: Some("z".into()),
            workload: None,
            labels: [pair("app", "web")].into(),
            annotations: [pair("a/b", "c\nd")].into(),
        };
        let place = Place { pod: pod.uid, container: ContainerId::parse(&"ab".repeat(32)) };
        let identity = Identity { place: Some(place), pod: Some(Arc::new(pod)), ..Identity::default() };
        let party = Some(Arc::new(Party::new(identity, true, |_, _| true)));
        let text = |text: &'static str| Some(Bytes::from(text));
        Record {
            time: 1_795_249_530_123_456_789,
            outcome: Some(Outcome::Complete),
            in_progress: true,
            late: true,
            method: text("GET"),
            path: Some(Bytes::from_static(b"/caf\xe9")),
            query: text("a=\u{7f}"),
            original: text("/é?"),
            scheme: text("http"),
            status: Some(503),
            duration: 1_500_000_001,
            time_to_first_byte: Some(1),
            request_duration: Some(2_000_000_000),
            network_duration: Some(0),
            client: ("10.0.0.7".parse().unwrap(), 40000),
            server: ("2001:db8:1111:2222:3333:4444:5555:6666".parse().unwrap(), 80),
            network_peer: Some(("::1".parse().unwrap(), 1)),
            client_party: party.clone(),
            server_party: party,
            host: [Bytes::from("a"), Bytes::from("b")].into_iter().collect(),
            user_agent: text("curl"),
            protocol_version: Some("1.1"),
            request: message(b"hello"),
            response: message(b"\x00\x01"),
            interim_responses: 1,
            connection_id: 0x0123_4567_89ab_cdef,
            joined_late: true,
            offset: Some(u64::from(u32::MAX) + 1),
            index: Some(300),
            trace_id: text("4bf92f3577b34da6a3ce929d0e0e4736"),
            trace_parent_id: text("00f067aa0ba902b7"),
            retransmits: Some(3),
            connect_duration: Some(123_456_789),
            connect_retransmits: 2,
            icmp: Some((3, 1)),
            anomalies: vec!["one", "two"],
            sample_rate_millionths: Some(100_000),
            ..Record::blank()
        }
    }

    fn as_json(record: &Record) -> Map<String, Value> {
        let mut line = Vec::new();
        json::Lines::default().push(&mut line, record);
        serde_json::from_slice(&line).unwrap()
    }

    fn as_map(maps: &mut Maps, record: &Record) -> Map<String, Value> {
        let mut bytes = Vec::new();
        maps.push(&mut bytes, record);
        let mut rest = &bytes[..];
        let Value::Object(map) = decoded(&mut rest) else { panic!() };
        assert!(rest.is_empty());
        map
    }

    #[test]
    fn a_map_is_what_the_line_is() {
        let reuse = Record { kind: Kind::IpvsReuse, ipvs: Some(Box::new(IpvsFacts::default())), ..full() };
        for record in [Record::blank(), full(), reuse] {
            let (mut line, map) = (as_json(&record), as_map(&mut Maps::default(), &record));
            // A double is one, whatever its value.
            for (key, value) in &mut line {
                if map.get(key).is_some_and(Value::is_f64) {
                    *value = value.as_f64().unwrap().into();
                }
            }
            assert_eq!(map, line);
            assert!(map.keys().eq(line.keys()), "their order is the same");
        }
        let keys: BTreeSet<_> = as_json(&full()).keys().cloned().collect();
        assert!(keys.len() > 70, "{}", keys.len());
    }

    #[test]
    fn texts_of_every_length_come_back() {
        for length in [0, 31, 32, 255, 256, 65535, 65536] {
            let record = Record { path: Some(Bytes::from("x".repeat(length))), ..Record::blank() };
            assert_eq!(as_map(&mut Maps::default(), &record)["url.path"].as_str().unwrap().len(), length);
        }
    }

    #[test]
    fn some_fields_only() {
        let fields = Fields::parse(&["kind", "client.port"], &[] as &[&str]).unwrap();
        let map = as_map(&mut Maps::of(Some(fields.into())), &full());
        assert!(map.keys().eq(["kind", "client.port"]), "{map:?}");
    }
}
