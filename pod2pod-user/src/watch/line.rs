//! ipvs-logger's line, and when something was. Writes to memory only.

use std::{
    path::Path,
    time::{SystemTime, UNIX_EPOCH},
};

use super::object::shown;
use crate::{
    ipvs::{Reuse, legacy},
    record::number::Clock,
};

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

/// Nanoseconds since 1970.
pub(crate) fn wall_clock() -> u64 {
    nanoseconds(SystemTime::now())
}

/// When a saved file was written; now if that cannot be told.
pub(super) fn wall_time(path: &Path) -> u64 {
    let modified = path.metadata().and_then(|metadata| metadata.modified());
    nanoseconds(modified.unwrap_or_else(|_| SystemTime::now()))
}

fn nanoseconds(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
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
