//! W3C Trace Context: trace id and parent id of a valid `traceparent`. `tracestate` is not read.

use bytes::Bytes;

/// Bytes of a version 00 `traceparent`: `00-` 32 `-` 16 `-` 2.
const LENGTH: usize = 55;

/// Trace id and parent id, both lower-case hexadecimal, if `value` is valid (W3C Trace Context 3.2.2).
pub fn parse(value: &Bytes) -> Option<(Bytes, Bytes)> {
    let version = value.get(..2)?;
    let longer = value.get(LENGTH);
    let length_fits = match version {
        b"ff" => false,
        b"00" => value.len() == LENGTH,
        _ => longer.is_none_or(|byte| *byte == b'-'),
    };
    let dashes = [2, 35, 52].iter().all(|position| value.get(*position) == Some(&b'-'));
    let trace = value.get(3..35)?;
    let parent = value.get(36..52)?;
    let flags = value.get(53..LENGTH)?;
    // Without a branch for each digit: the compiler takes several at once.
    let digit = |byte: u8| byte.is_ascii_digit() | matches!(byte, b'a'..=b'f');
    let hex = |bytes: &[u8]| bytes.iter().fold(true, |all, byte| all & digit(*byte));
    let zero = |bytes: &[u8]| bytes.iter().fold(0, |all, byte| all | (byte ^ b'0')) == 0;
    let valid = length_fits && dashes && [version, trace, parent, flags].into_iter().all(hex);
    if valid && !zero(trace) && !zero(parent) {
        Some((value.slice(3..35), value.slice(36..52)))
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn traceparents() {
        let valid = |value: &'static str| parse(&Bytes::from_static(value.as_bytes())).is_some();
        let good = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        assert!(valid(good));
        let (trace, parent) = parse(&Bytes::from_static(good.as_bytes())).unwrap();
        assert_eq!(
            (&trace[..], &parent[..]),
            (&b"4bf92f3577b34da6a3ce929d0e0e4736"[..], &b"00f067aa0ba902b7"[..])
        );
        assert!(valid("cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-later"));
        assert!(valid("cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"));
        for bad in [
            "",
            "00",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-later",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01x",
            "cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01later",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00_4bf92f3577b34da6a3ce929d0e0e4736_00f067aa0ba902b7_01",
            "0g-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        ] {
            assert!(!valid(bad), "{bad}");
        }
    }
}
