//! Records to Logstash: a line of JSON each over TCP or TLS (codec `json_lines`), or a datagram (codec `json`).
//!
//! Logstash does not answer: see [`super::transport`] for what is known of what it has.

use super::{objects::Objects, transport::Transport};
use crate::record::{Record, number::Clock};

/// Where to, and how.
///
/// Keys: `url` (`logstash://`, `logstash+tcp://`, `logstash+tls://` or `logstash+udp://`, host and port), `failover`, `tls.*`, `format`,
/// `fields`, `without_fields`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// How events travel.
    pub transport: Transport,
}

/// Makes items: the record as an event of Logstash.
#[derive(Clone, Debug)]
pub struct Encoder {
    objects: Objects,
    clock: Clock,
    /// Each has a line of its own.
    is_line: bool,
}

impl Encoder {
    /// Events with the members that `objects` have, for this transport.
    pub fn new(objects: Objects, transport: &Transport) -> Self {
        Self { objects, clock: Clock::default(), is_line: transport.is_stream() }
    }

    /// Appends the item of `record`, if its format has one.
    pub fn push(&mut self, out: &mut Vec<u8>, record: &Record) {
        let begin = out.len();
        out.extend_from_slice(b"{\"@timestamp\":\"");
        self.clock.push_time(out, record.time);
        out.extend_from_slice(b"\",\"@version\":\"1\"");
        if !self.objects.push_rest(out, record) {
            return out.truncate(begin);
        }
        if self.is_line {
            out.push(b'\n');
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::{
        record::{Kind, json::Lines, selected::Fields},
        sinks::{Format, loopback},
    };

    #[test]
    fn an_item_is_an_event() {
        let record = Record { time: 1_795_249_530_000_000_000, status: Some(200), ..Record::blank() };
        let some = Fields::parse(&["http.response.status_code"], &[] as &[&str]).unwrap();
        let server = loopback::nobody();
        for (transport, is_line) in [
            (Transport::Stream(loopback::plain(&[&server])), true),
            (Transport::Datagrams(vec![server.clone()]), false),
        ] {
            let mut out = Vec::new();
            let objects = Objects::of(Format::Json, Some(some.clone().into()));
            Encoder::new(objects, &transport).push(&mut out, &record);
            assert_eq!(out.ends_with(b"\n"), is_line);
            let expected = json!({
                "@timestamp": "2026-11-21T08:25:30.000000000Z",
                "@version": "1",
                "http.response.status_code": 200,
            });
            assert_eq!(serde_json::from_slice::<Value>(&out).unwrap(), expected);
        }
    }

    #[test]
    fn an_event_has_all_of_the_record() {
        let record = Record { status: Some(200), ..Record::blank() };
        let (mut line, mut event) = (Vec::new(), Vec::new());
        Lines::default().push(&mut line, &record);
        let transport = Transport::Datagrams(Vec::new());
        Encoder::new(Objects::of(Format::Json, None), &transport).push(&mut event, &record);
        let mut event: serde_json::Map<String, Value> = serde_json::from_slice(&event).unwrap();
        assert!(event.remove("@timestamp").is_some() && event.remove("@version").is_some());
        assert_eq!(serde_json::from_slice::<serde_json::Map<_, _>>(&line).unwrap(), event);
    }

    #[test]
    fn what_the_old_record_has_not_is_no_event() {
        let mut encoder =
            Encoder::new(Objects::of(Format::Pod2podLog, None), &Transport::Datagrams(Vec::new()));
        let mut out = b"before".to_vec();
        encoder.push(&mut out, &Record { kind: Kind::Connect, ..Record::blank() });
        assert_eq!(out, b"before");
        encoder.push(&mut out, &Record { method: Some("GET".into()), status: Some(200), ..Record::blank() });
        let event: Value = serde_json::from_slice(&out[b"before".len()..]).unwrap();
        assert_eq!(
            (&event["@version"], &event["resCode"], &event["method"]),
            (&json!("1"), &json!("200"), &json!("GET"))
        );
    }
}
