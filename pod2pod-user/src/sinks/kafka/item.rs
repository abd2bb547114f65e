//! A record as an item: a line with topic, time in milliseconds and key, and what the message says. Whoever has the item alone can send it.

use crate::{
    record::{Record, json, number::push_integer},
    route::{Filler, Template},
};

/// Bytes of a topic's name at most (Kafka, `org.apache.kafka.common.internals.Topic`).
pub const MAX_TOPIC_BYTES: usize = 249;
/// Bytes of a key at most: it is to spread records among partitions, and what is in it may be of anybody's choice.
pub const MAX_KEY_BYTES: usize = 1024;
/// Between the parts of an item's first line; none of them holds it.
const SEPARATOR: u8 = b'\t';

/// Makes items.
#[derive(Clone, Debug)]
pub struct Encoder {
    lines: json::Lines,
    topic: Template,
    default_topic: String,
    key: Option<Template>,
    filler: Filler,
}

impl Encoder {
    /// Messages as `lines` makes them, in topics as `topic` says, or else in `default_topic`.
    pub fn new(lines: json::Lines, topic: Template, default_topic: String, key: Option<Template>) -> Self {
        Self { lines, topic, default_topic, key, filler: Filler::default() }
    }

    /// Appends the item of `record`.
    pub fn push(&mut self, out: &mut Vec<u8>, record: &Record) {
        let start = out.len();
        let is_named = self.topic.fill(&mut self.filler, record, out, clean);
        out.truncate(start + MAX_TOPIC_BYTES);
        if !is_named || !out.get(start..).is_some_and(is_topic) {
            out.truncate(start);
            out.extend_from_slice(self.default_topic.as_bytes());
        }
        out.push(SEPARATOR);
        push_integer(out, record.time / 1_000_000);
        out.push(SEPARATOR);
        if let Some(key) = &self.key {
            let start = out.len();
            key.fill(&mut self.filler, record, out, |byte| (!byte.is_ascii_control()).then_some(byte));
            out.truncate(start + MAX_KEY_BYTES);
        }
        out.push(b'\n');
        self.lines.push(out, record);
    }
}

/// An item's parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Item<'a> {
    /// Which topic.
    pub topic: &'a str,
    /// Milliseconds since 1970.
    pub time: i64,
    /// What it is put into a partition by; any if absent.
    pub key: Option<&'a [u8]>,
    /// What the message says.
    pub value: &'a [u8],
}

impl<'a> Item<'a> {
    /// Takes an item apart; absent if it is none.
    pub fn parse(item: &'a [u8]) -> Option<Self> {
        let end = memchr::memchr(b'\n', item)?;
        let (line, value) = item.split_at_checked(end)?;
        let mut parts = line.splitn(3, |byte| *byte == SEPARATOR);
        let topic = str::from_utf8(parts.next()?).ok()?;
        let time = str::from_utf8(parts.next()?).ok()?.parse().ok()?;
        let key = Some(parts.next()?).filter(|key| !key.is_empty());
        Some(Self { topic, time, key, value: value.trim_ascii() })
    }
}

/// What may be in a topic's name: other bytes are left out.
fn clean(byte: u8) -> Option<u8> {
    (byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.')).then_some(byte)
}

/// Whether a topic may be called so. Those that begin with two underscores are the cluster's own.
pub fn is_topic(name: &[u8]) -> bool {
    !name.is_empty()
        && name.len() <= MAX_TOPIC_BYTES
        && name.iter().all(|byte| clean(*byte).is_some())
        && !matches!(name, b"." | b"..")
        && !name.starts_with(b"__")
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::record::{CapturedHeader, MessageFacts};

    fn with_header(value: &str) -> Record {
        let header =
            CapturedHeader { name: Bytes::from("x-tenant"), value: Bytes::copy_from_slice(value.as_bytes()) };
        Record {
            time: 1_795_249_530_123_456_789,
            connection_id: 7,
            request: MessageFacts { headers: vec![header], ..Default::default() },
            ..Record::blank()
        }
    }

    fn item(topic: &str, key: Option<&str>, record: &Record) -> Vec<u8> {
        let template = |text| Template::parse(text).unwrap();
        let fields = crate::record::selected::Fields::parse(&["kind"], &[] as &[&str]).unwrap();
        let lines = json::Lines::of(Some(fields.into()));
        let mut out = Vec::new();
        Encoder::new(lines, template(topic), "_unrouted".into(), key.map(template)).push(&mut out, record);
        out
    }

    fn topic(template: &str, value: &str) -> String {
        let item = item(template, None, &with_header(value));
        Item::parse(&item).unwrap().topic.to_owned()
    }

    #[test]
    fn an_item_says_where_it_goes_when_it_was_and_what_it_is() {
        let bytes = item(
            "logs-{http.request.header.x-tenant}",
            Some("{http.request.header.x-tenant}"),
            &with_header("Shop\t1"),
        );
        assert_eq!(bytes, b"logs-Shop1\t1795249530123\tShop1\n{\"kind\":\"http\"}\n");
        let parsed = Item::parse(&bytes).unwrap();
        let expected = Item {
            topic: "logs-Shop1",
            time: 1_795_249_530_123,
            key: Some(b"Shop1"),
            value: b"{\"kind\":\"http\"}",
        };
        assert_eq!(parsed, expected);
        let bytes = item("a", None, &Record::blank());
        assert_eq!(Item::parse(&bytes).unwrap().key, None);
        let bytes = item("a", Some("{connection.id}"), &with_header(""));
        assert_eq!(Item::parse(&bytes).unwrap().key, Some(&b"0000000000000007"[..]));
    }

    #[test]
    fn what_names_no_topic_goes_to_the_default() {
        let header = "{http.request.header.x-tenant}";
        for (template, value, expected) in [
            ("{namespace}", "", "_unrouted"),
            ("{namespace}-logs", "", "_unrouted"),
            (header, "", "_unrouted"),
            (header, "\u{e4}/", "_unrouted"),
            (header, ".", "_unrouted"),
            (header, "..", "_unrouted"),
            (header, "...", "..."),
            (header, "__consumer_offsets", "_unrouted"),
            (header, "_a", "_a"),
            (header, "../../etc", "....etc"),
        ] {
            assert_eq!(topic(template, value), expected, "{template} {value:?}");
        }
    }

    #[test]
    fn names_and_keys_have_their_limits() {
        let header = "{http.request.header.x-tenant}";
        for (length, expected) in [(MAX_TOPIC_BYTES, MAX_TOPIC_BYTES), (MAX_TOPIC_BYTES + 1, MAX_TOPIC_BYTES)]
        {
            assert_eq!(topic(header, &"a".repeat(length)).len(), expected);
        }
        assert!(is_topic(&[b'a'; MAX_TOPIC_BYTES]) && !is_topic(&[b'a'; MAX_TOPIC_BYTES + 1]));
        for (length, expected) in [(MAX_KEY_BYTES, MAX_KEY_BYTES), (MAX_KEY_BYTES + 1, MAX_KEY_BYTES)] {
            let item = item("a", Some(header), &with_header(&"k".repeat(length)));
            assert_eq!(Item::parse(&item).unwrap().key.unwrap().len(), expected);
        }
    }

    #[test]
    fn what_is_no_item_is_none() {
        for bytes in [&b""[..], b"a", b"a\n{}", b"a\t1\n{}", b"a\tx\t\n{}", b"\xff\t1\t\n{}"] {
            assert_eq!(Item::parse(bytes), None, "{bytes:?}");
        }
        assert_eq!(Item::parse(b"a\t1\tk\tl\n{}\n").unwrap().key, Some(&b"k\tl"[..]));
    }
}
