//! The record of kubernetes-pod2pod-log: its fields in its order and with its types, as one JSON line. What it had no record of is left
//! out: connections, IPVS, reports of progress, late responses, and responses to no request.

use std::fs;

use crate::record::{
    Kind, ObservedAt, Outcome, Record,
    number::{push_address, push_integer},
    text::push_string,
};

/// What it gives as the status of a request that nothing answered, as a number; every other status is a string.
const TIMED_OUT: u64 = 408;
/// Its clock had milliseconds. Nanoseconds.
const MILLISECOND: u64 = 1_000_000;

/// Writes such lines.
#[derive(Clone, Debug)]
pub struct OldLines {
    /// `HOSTNAME`, where the pod is not known.
    host: Vec<u8>,
    /// `headers` is written.
    with_headers: bool,
}

/// `resCode`.
enum Code {
    Status(u16),
    TimedOut,
}

impl OldLines {
    /// Lines of this machine, as its UTS namespace calls it; with what was captured of the request's headers if that is asked for.
    pub fn of_host(with_headers: bool) -> Self {
        let host = fs::read("/proc/sys/kernel/hostname").unwrap_or_default();
        Self::new(host.trim_ascii(), with_headers)
    }

    /// Lines of `host`.
    pub fn new(host: &[u8], with_headers: bool) -> Self {
        Self { host: host.to_vec(), with_headers }
    }

    /// Appends the line of `record`, if there is one.
    pub fn push(&self, out: &mut Vec<u8>, record: &Record) {
        let (Some(code), Some(method)) = (code(record), &record.method) else { return };
        let seen = match code {
            Code::Status(_) => record.time_to_first_byte.unwrap_or(record.duration),
            Code::TimedOut => record.duration,
        };
        out.extend_from_slice(b"{\"resTime\":");
        push_seconds(out, seen);
        out.extend_from_slice(b",\"type\":");
        // What was only seen to pass, it took for what it sent itself.
        let direction = if record.observed_at == ObservedAt::Server { "income" } else { "outgo" };
        push_string(out, direction.as_bytes());
        let client = record.network_peer.unwrap_or(record.client);
        for (name, (address, port)) in [("src", client), ("dst", record.server)] {
            out.extend_from_slice(format!(",\"{name}IP\":\"").as_bytes());
            push_address(out, address);
            out.extend_from_slice(format!("\",\"{name}Port\":").as_bytes());
            push_integer(out, port.into());
        }
        if let Some(host) = record.host.first() {
            let word = host.split(u8::is_ascii_whitespace).next().unwrap_or_default();
            push_text(out, "host", word);
        }
        let target = target(record);
        push_text(out, "url", &target);
        push_text(out, "method", method);
        if self.with_headers {
            push_text(out, "headers", &headers(record, method, &target));
        }
        out.extend_from_slice(b",\"resCode\":");
        match code {
            Code::Status(status) => push_string(out, status.to_string().as_bytes()),
            Code::TimedOut => push_integer(out, TIMED_OUT),
        }
        push_text(out, "HOSTNAME", observed_pod(record).unwrap_or(&self.host));
        out.extend_from_slice(b"}\n");
    }
}

/// Name of the pod whose socket was observed: a sidecar's host name.
fn observed_pod(record: &Record) -> Option<&[u8]> {
    let party = match record.observed_at {
        ObservedAt::Client => record.client_party.as_ref()?,
        ObservedAt::Server => record.server_party.as_ref()?,
        ObservedAt::Path => return None,
    };
    party.identity.pod.as_ref().map(|pod| pod.name.as_bytes())
}

/// What it would have told of the response; absent if it would have told nothing. A request that was not answered, for whatever
/// reason, it told when its time was over.
fn code(record: &Record) -> Option<Code> {
    if record.kind != Kind::Http || record.in_progress || record.late {
        return None;
    }
    match (record.status, record.outcome) {
        (Some(status), _) => Some(Code::Status(status)),
        (None, Some(Outcome::Timeout | Outcome::Reset | Outcome::Closed)) => Some(Code::TimedOut),
        (None, _) => None,
    }
}

/// The request target as it was sent.
fn target(record: &Record) -> Vec<u8> {
    if let Some(original) = &record.original {
        return original.to_vec();
    }
    let mut target = record.path.as_deref().unwrap_or_default().to_vec();
    if let Some(query) = &record.query {
        target.push(b'?');
        target.extend_from_slice(query);
    }
    target
}

/// A JSON array of the request's lines, which is given as a string: the request line, and what was captured.
fn headers(record: &Record, method: &[u8], target: &[u8]) -> Vec<u8> {
    let version = record.protocol_version.unwrap_or("1.1").as_bytes();
    let mut lines = vec![[method, b" ", target, b" HTTP/", version].concat()];
    let line = |name: &[u8], value: &[u8]| [name, b": ", value].concat();
    lines.extend(record.host.iter().map(|value| line(b"host", value)));
    lines.extend(record.user_agent.iter().map(|value| line(b"user-agent", value)));
    lines.extend(record.request.headers.iter().map(|header| line(&header.name, &header.value)));
    let mut array = vec![b'['];
    for (index, line) in lines.iter().enumerate() {
        if index > 0 {
            array.push(b',');
        }
        push_string(&mut array, line);
    }
    array.push(b']');
    array
}

fn push_text(out: &mut Vec<u8>, key: &str, value: &[u8]) {
    out.extend_from_slice(format!(",\"{key}\":").as_bytes());
    push_string(out, value);
}

/// Seconds, in whole milliseconds, as JavaScript writes such a number.
fn push_seconds(out: &mut Vec<u8>, nanoseconds: u64) {
    let milliseconds = nanoseconds.saturating_add(MILLISECOND / 2) / MILLISECOND;
    push_integer(out, milliseconds / 1000);
    let rest = milliseconds % 1000;
    if rest > 0 {
        out.extend_from_slice(format!(".{rest:03}").trim_end_matches('0').as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::Bytes;
    use smallvec::smallvec;

    use super::*;
    use crate::{
        kubernetes::{
            cgroup::PodUid,
            identity::{Identity, Pod},
        },
        record::{CapturedHeader, Party},
    };

    fn record() -> Record {
        Record {
            outcome: Some(Outcome::Complete),
            observed_at: ObservedAt::Server,
            method: Some(Bytes::from_static(b"GET")),
            path: Some(Bytes::from_static(b"/cart")),
            query: Some(Bytes::from_static(b"id=7")),
            status: Some(200),
            duration: 900 * MILLISECOND,
            time_to_first_byte: Some(5 * MILLISECOND + 400_000),
            client: ([10, 0, 0, 1].into(), 40_000),
            server: ([10, 0, 0, 2].into(), 8080),
            host: smallvec![Bytes::from_static(b"shop:8080")],
            protocol_version: Some("1.1"),
            ..Record::blank()
        }
    }

    fn line(record: &Record) -> String {
        let mut out = Vec::new();
        OldLines::new(b"cart-7f9c", false).push(&mut out, record);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn the_old_record_field_by_field() {
        assert_eq!(
            line(&record()),
            "{\"resTime\":0.005,\"type\":\"income\",\"srcIP\":\"10.0.0.1\",\"srcPort\":40000,\"dstIP\":\"10.0.0.2\",\
             \"dstPort\":8080,\"host\":\"shop:8080\",\"url\":\"/cart?id=7\",\"method\":\"GET\",\"resCode\":\"200\",\
             \"HOSTNAME\":\"cart-7f9c\"}\n"
        );
        let silent = Record {
            outcome: Some(Outcome::Timeout),
            observed_at: ObservedAt::Client,
            status: None,
            time_to_first_byte: None,
            duration: 10_000 * MILLISECOND,
            host: smallvec![],
            ..record()
        };
        assert_eq!(
            line(&silent),
            "{\"resTime\":10,\"type\":\"outgo\",\"srcIP\":\"10.0.0.1\",\"srcPort\":40000,\"dstIP\":\"10.0.0.2\",\
             \"dstPort\":8080,\"url\":\"/cart?id=7\",\"method\":\"GET\",\"resCode\":408,\"HOSTNAME\":\"cart-7f9c\"}\n"
        );
    }

    #[test]
    fn the_observed_pod_is_the_host() {
        let party = |name: &str| {
            let pod = Pod {
                namespace: "shop".into(),
                name: name.into(),
                uid: PodUid::parse("0123456789abcdef0123456789abcdef").unwrap(),
                node: None,
                zone: None,
                workload: None,
                labels: Box::default(),
                annotations: Box::default(),
            };
            let identity = Identity { pod: Some(Arc::new(pod)), ..Identity::default() };
            Some(Arc::new(Party::new(identity, false, |_, _| false)))
        };
        for (observed_at, expected) in
            [(ObservedAt::Server, "db-0"), (ObservedAt::Client, "cart-1"), (ObservedAt::Path, "cart-7f9c")]
        {
            let (client_party, server_party) = (party("cart-1"), party("db-0"));
            let record = Record { observed_at, client_party, server_party, ..record() };
            assert!(line(&record).ends_with(&format!("\"HOSTNAME\":\"{expected}\"}}\n")), "{observed_at:?}");
        }
    }

    #[test]
    fn a_real_408_is_a_string_and_an_unanswered_request_is_none() {
        assert!(line(&Record { status: Some(408), ..record() }).contains("\"resCode\":\"408\""));
        for outcome in [Outcome::Reset, Outcome::Closed, Outcome::Timeout] {
            let record = Record { outcome: Some(outcome), status: None, ..record() };
            assert!(line(&record).contains("\"resCode\":408,"), "{outcome:?}");
        }
        // It was a response that began: that is when it was told.
        let begun = Record { outcome: Some(Outcome::Timeout), ..record() };
        assert!(line(&begun).contains("\"resCode\":\"200\""));
    }

    #[test]
    fn what_it_had_no_record_of_is_left_out() {
        for record in [
            Record { kind: Kind::Connect, ..record() },
            Record { kind: Kind::Http2, ..record() },
            Record { kind: Kind::IpvsReuse, ..record() },
            Record { in_progress: true, outcome: None, ..record() },
            Record { late: true, ..record() },
            Record { method: None, ..record() },
            Record { outcome: Some(Outcome::Gap), status: None, ..record() },
        ] {
            assert_eq!(line(&record), "", "{record:?}");
        }
    }

    #[test]
    fn headers_are_a_string_with_an_array() {
        let mut record = record();
        record.user_agent = Some(Bytes::from_static(b"curl/8"));
        let (name, value) = (Bytes::from_static(b"x-a"), Bytes::from_static(b"say \"hi\""));
        record.request.headers.push(CapturedHeader { name, value });
        let mut out = Vec::new();
        OldLines::new(b"h", true).push(&mut out, &record);
        let told: serde_json::Value = serde_json::from_slice(&out).unwrap();
        let keys: Vec<_> = told.as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(keys[keys.len() - 3..], ["headers", "resCode", "HOSTNAME"]);
        let lines: Vec<String> = serde_json::from_str(told["headers"].as_str().unwrap()).unwrap();
        assert_eq!(
            lines,
            ["GET /cart?id=7 HTTP/1.1", "host: shop:8080", "user-agent: curl/8", "x-a: say \"hi\""]
        );
    }

    #[test]
    fn ends_hosts_targets_and_times_as_it_wrote_them() {
        let peer = Record { network_peer: Some(([10, 9, 9, 9].into(), 1)), ..record() };
        assert!(line(&peer).contains("\"srcIP\":\"10.9.9.9\",\"srcPort\":1,"));
        let host = Record { host: smallvec![Bytes::from_static(b"a b")], ..record() };
        assert!(line(&host).contains("\"host\":\"a\","));
        let whole = Record { original: Some(Bytes::from_static(b"*")), path: None, query: None, ..record() };
        assert!(line(&whole).contains("\"url\":\"*\","));
        for (nanoseconds, expected) in [
            (0, "0"),
            (499_999, "0"),
            (500_000, "0.001"),
            (20 * MILLISECOND, "0.02"),
            (1_500 * MILLISECOND, "1.5"),
            (10_001 * MILLISECOND, "10.001"),
        ] {
            let mut out = Vec::new();
            push_seconds(&mut out, nanoseconds);
            assert_eq!(String::from_utf8(out).unwrap(), expected);
        }
    }
}
