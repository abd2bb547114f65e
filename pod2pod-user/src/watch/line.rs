//! A reuse as a line: JSON, text for people, or ipvs-logger's. Writes to memory only.

use std::{fmt::Write as _, net::IpAddr};

use crate::{
    ipvs::{
        End, Reuse, kernel::Kernel, legacy, parse::Protocol, services::Standing, situation::Situation,
        state::State,
    },
    record::{
        number::{Clock, push_address, push_integer, push_seconds},
        text::push_string,
    },
};

/// Writes one JSON object, key by key.
pub(super) struct Object<'a>(&'a mut Vec<u8>);

impl<'a> Object<'a> {
    /// Begins it, with its time in nanoseconds since 1970 and its kind.
    pub(super) fn new(out: &'a mut Vec<u8>, time: u64, kind: &str) -> Self {
        out.extend_from_slice(b"{\"time\":\"");
        Clock::default().push_time(out, time);
        out.push(b'"');
        let mut object = Self(out);
        object.text("kind", kind);
        object
    }

    fn key(&mut self, key: &str) -> &mut Vec<u8> {
        self.0.push(b',');
        push_string(self.0, key.as_bytes());
        self.0.push(b':');
        self.0
    }

    pub(super) fn text(&mut self, key: &str, text: &str) {
        push_string(self.key(key), text.as_bytes());
    }

    pub(super) fn integer(&mut self, key: &str, value: u64) {
        push_integer(self.key(key), value);
    }

    pub(super) fn setting(&mut self, key: &str, value: Option<u32>) {
        if let Some(value) = value {
            self.integer(key, value.into());
        }
    }

    pub(super) fn mark(&mut self, key: &str, is_set: bool) {
        if is_set {
            self.key(key).extend_from_slice(b"true");
        }
    }

    pub(super) fn seconds(&mut self, key: &str, nanoseconds: u64) {
        push_seconds(self.key(key), nanoseconds);
    }

    pub(super) fn end(&mut self, key: &str, (address, port): End) {
        self.address(key, address);
        self.integer(&format!("{key}.port"), port.into());
    }

    fn address(&mut self, key: &str, address: IpAddr) {
        let out = self.key(&format!("{key}.address"));
        out.push(b'"');
        push_address(out, address);
        out.push(b'"');
    }

    /// Whose, and which virtual address.
    pub(super) fn protocol(&mut self, protocol: Protocol) {
        self.text("network.transport", &transport(protocol));
    }

    pub(super) fn finish(self) {
        self.0.extend_from_slice(b"}\n");
    }
}

/// A protocol as OpenTelemetry has it: in lower case.
pub(super) fn transport(protocol: Protocol) -> String {
    protocol.to_string().to_ascii_lowercase()
}

/// A reuse as a JSON object; `time` in nanoseconds since 1970.
pub(super) fn push_json(out: &mut Vec<u8>, reuse: &Reuse, kernel: &Kernel, time: u64) {
    let Reuse { tuple, before, now, .. } = reuse;
    let mut object = Object::new(out, time, "ipvs_reuse");
    object.text("ipvs.verdict", reuse.verdict.as_str());
    object.text("ipvs.confidence", reuse.confidence.as_str());
    object.text("ipvs.severity", reuse.severity.as_str());
    object.text("ipvs.situation", reuse.situation.as_str());
    object.protocol(tuple.protocol);
    object.end("client", tuple.client);
    object.end("server", tuple.service);
    object.end("ipvs.real_server", now.server);
    match reuse.standing {
        Standing::Weight(weight) => object.integer("ipvs.real_server.weight", weight.into()),
        Standing::Absent => object.mark("ipvs.real_server.absent", true),
        Standing::Unknown => {}
    }
    if before.server != now.server {
        object.end("ipvs.real_server.before", before.server);
    }
    object.text("ipvs.state.before", before.state.as_str());
    object.text("ipvs.state", now.state.as_str());
    object.integer("ipvs.expires.before", before.expires.into());
    object.integer("ipvs.expires", now.expires.into());
    if let Some(idle) = reuse.idle {
        object.seconds("ipvs.idle", u64::try_from(idle.as_nanos()).unwrap_or(u64::MAX));
    }
    object.mark("ipvs.entry.may_have_expired", reuse.may_have_expired);
    push_kernel(&mut object, kernel);
    object.text("ipvs.explanation", reuse.situation.sentence());
    object.finish();
}

/// What the kernel is set to.
pub(super) fn push_kernel(object: &mut Object<'_>, kernel: &Kernel) {
    if let Some(release) = &kernel.release {
        object.text("os.version", release);
    }
    object.setting("ipvs.conn_reuse_mode", kernel.conn_reuse_mode);
    object.setting("ipvs.expire_nodest_conn", kernel.expire_nodest_conn);
    object.setting("ipvs.conntrack", kernel.conntrack);
}

/// A finding of the old rule as a JSON object: what it knows.
pub(super) fn push_finding(out: &mut Vec<u8>, finding: &legacy::Finding, time: u64) {
    let mut object = Object::new(out, time, "ipvs_reuse");
    object.text("ipvs.verdict", "legacy");
    let end = |end: legacy::End| (IpAddr::from(end.address), u16::try_from(end.port).unwrap_or(0));
    object.protocol(Protocol::TCP);
    object.end("client", end(finding.client));
    object.end("server", end(finding.service));
    object.end("ipvs.real_server", end(finding.server));
    object.text("ipvs.state", State::parse(&finding.state).as_str());
    object.integer("ipvs.expires.before", u64::try_from(finding.previous).unwrap_or(0));
    object.integer("ipvs.expires", u64::try_from(finding.current).unwrap_or(0));
    object.finish();
}

/// An end for people.
pub(super) fn shown((address, port): End) -> String {
    std::net::SocketAddr::new(address, port).to_string()
}

/// A reuse as text.
pub(super) fn push_text(out: &mut Vec<u8>, reuse: &Reuse, time: u64) {
    let Reuse { tuple, before, now, .. } = reuse;
    let mut line = clock(time);
    let standing = match reuse.standing {
        Standing::Weight(weight) => format!(" (weight {weight})"),
        Standing::Absent => " (removed)".to_owned(),
        Standing::Unknown => String::new(),
    };
    let from = if before.server == now.server {
        String::new()
    } else {
        format!(", before {}", shown(before.server))
    };
    let _ = writeln!(
        line,
        " {:8} {:8} {:11} {} {} → {} → {}{standing}{from}  {} {} → {} {}",
        reuse.severity.as_str(),
        reuse.confidence.as_str(),
        reuse.verdict.as_str(),
        transport(tuple.protocol),
        shown(tuple.client),
        shown(tuple.service),
        shown(now.server),
        before.state.as_str(),
        before.expires,
        now.state.as_str(),
        now.expires,
    );
    out.extend_from_slice(line.as_bytes());
}

/// What a situation means, below its first line.
pub(super) fn push_explanation(out: &mut Vec<u8>, situation: Situation) {
    out.extend_from_slice(format!("             {}\n", situation.sentence()).as_bytes());
}

/// A finding of the old rule as text.
pub(super) fn push_finding_text(out: &mut Vec<u8>, finding: &legacy::Finding, time: u64) {
    let mut line = clock(time);
    let legacy::Finding { client, service, server, previous, current, .. } = finding;
    let state = State::parse(&finding.state).as_str();
    let _ = writeln!(line, " legacy   tcp {client} → {service} → {server}  {state} {previous} → {current}");
    out.extend_from_slice(line.as_bytes());
}

/// The time of day, UTC, to the millisecond.
fn clock(nanoseconds: u64) -> String {
    let (seconds, milliseconds) = (nanoseconds / 1_000_000_000 % 86_400, nanoseconds / 1_000_000 % 1000);
    format!("{:02}:{:02}:{:02}.{milliseconds:03}", seconds / 3600, seconds / 60 % 60, seconds % 60)
}

/// When something was found, as ipvs-logger prints it: Go's form of a wall time with the time since the start.
#[derive(Clone, Copy, Debug)]
pub(super) struct GoTime {
    /// Nanoseconds since 1970.
    pub(super) wall: u64,
    /// Nanoseconds since the start of the program.
    pub(super) since_start: u64,
}

/// ipvs-logger's line: Go's time, then who, to what, by whom, and the seconds left then and before.
pub(super) fn push_legacy(out: &mut Vec<u8>, time: GoTime, finding: &legacy::Finding) {
    push_go_time(out, time);
    let legacy::Finding { client, service, server, previous, current, .. } = finding;
    let line = format!(" - from: {client} - to {service}, dest: {server} {previous}-{current}\n");
    out.extend_from_slice(line.as_bytes());
}

/// The same line of a reuse. Of IPv6, which that program has no form for, addresses are in brackets.
pub(super) fn push_legacy_reuse(out: &mut Vec<u8>, time: GoTime, reuse: &Reuse) {
    push_go_time(out, time);
    let Reuse { tuple, before, now, .. } = reuse;
    let (client, service, server) = (shown(tuple.client), shown(tuple.service), shown(now.server));
    let (previous, current) = (before.expires, now.expires);
    let line = format!(" - from: {client} - to {service}, dest: {server} {previous}-{current}\n");
    out.extend_from_slice(line.as_bytes());
}

/// `2006-01-02 15:04:05.999999999 -0700 MST m=+0.000000000`: of the fraction no trailing zeros, in UTC.
fn push_go_time(out: &mut Vec<u8>, time: GoTime) {
    let mut text = Vec::new();
    Clock::default().push_time(&mut text, time.wall);
    // 2026-11-21T10:20:19.124000000Z
    let text = String::from_utf8_lossy(&text).replace('T', " ");
    let text = text.trim_end_matches('Z').trim_end_matches('0').trim_end_matches('.');
    let (seconds, nanoseconds) = (time.since_start / 1_000_000_000, time.since_start % 1_000_000_000);
    out.extend_from_slice(format!("{text} +0000 UTC m=+{seconds}.{nanoseconds:09}").as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_legacy_line_is_that_of_the_old_tool() {
        let end = |address, port| legacy::End { address, port };
        let finding = legacy::Finding {
            client: end([100, 119, 69, 137], 55_012),
            service: end([100, 70, 132, 168], 53),
            server: end([100, 122, 82, 114], 53),
            state: b"TIME_WAIT".as_slice().into(),
            previous: 28,
            current: 114,
        };
        for (wall, shown) in [
            (1_606_000_000_123_456_789, "2020-11-21 23:06:40.123456789 +0000 UTC"),
            (1_606_000_000_120_000_000, "2020-11-21 23:06:40.12 +0000 UTC"),
            (1_606_000_000_000_000_000, "2020-11-21 23:06:40 +0000 UTC"),
        ] {
            let mut out = Vec::new();
            push_legacy(&mut out, GoTime { wall, since_start: 16_000_012_345 }, &finding);
            let expected = format!(
                "{shown} m=+16.000012345 - from: 100.119.69.137:55012 - to 100.70.132.168:53, dest: 100.122.82.114:53 28-114\n"
            );
            assert_eq!(String::from_utf8(out).unwrap(), expected);
        }
    }
}
