//! Clean heads, as nearly all are: read and checked in one go, from a piece of the stream that holds them whole.
//!
//! Refuses whatever is the least bit odd, and everything that is not there to its end: `reader` and `head` read that, and
//! would read a clean head as this does. Keeps nothing, marks nothing.

use super::{
    exchange::Anomalies,
    head::Visitor,
    start_line::{MAX_METHOD, RequestLine, StatusLine, is_token},
};

/// A request head that `bytes` begin with, and its length.
pub(super) fn request<'a>(bytes: &'a [u8], visitor: &mut impl Visitor) -> Option<(RequestLine<'a>, usize)> {
    let (method, rest) = bytes.split_at(token_length(bytes)?);
    if method.len() > MAX_METHOD || method == b"PRI" || method == b"ICY" {
        return None;
    }
    let line = line(rest)?;
    let (target, version) = line.split_last_chunk::<9>()?;
    let minor_version = minor_version(version.strip_prefix(b" ")?)?;
    let target = target.strip_prefix(b" ")?;
    if target.is_empty() || !target.iter().fold(true, |visible, byte| visible & byte.is_ascii_graphic()) {
        return None;
    }
    let length = fields(bytes, method.len() + line.len(), visitor)?;
    Some((RequestLine { method, target, minor_version, anomalies: Anomalies::NONE }, length))
}

/// A response head that `bytes` begin with, and its length.
pub(super) fn response(bytes: &[u8], visitor: &mut impl Visitor) -> Option<(StatusLine, usize)> {
    let (version, rest) = bytes.split_first_chunk::<8>()?;
    let minor_version = minor_version(version)?;
    let [b' ', hundreds @ b'1'..=b'9', tens @ b'0'..=b'9', ones @ b'0'..=b'9', b' ' | b'\r', ..] = rest
    else {
        return None;
    };
    let status =
        [hundreds, tens, ones].iter().fold(0, |status, digit| status * 10 + u16::from(**digit - b'0'));
    let length = fields(bytes, version.len() + line(rest)?.len(), visitor)?;
    Some((StatusLine { status, minor_version, anomalies: Anomalies::NONE }, length))
}

fn minor_version(version: &[u8]) -> Option<u8> {
    match version {
        b"HTTP/1.1" => Some(1),
        b"HTTP/1.0" => Some(0),
        _ => None,
    }
}

/// Reads the lines behind the one that ends at `line_end`, up to and with the empty one: the length of the whole.
fn fields(bytes: &[u8], line_end: usize, visitor: &mut impl Visitor) -> Option<usize> {
    let mut at = line_end + 2;
    let mut lines = 2;
    loop {
        let rest = bytes.get(at..)?;
        if rest.starts_with(b"\r\n") {
            at += 2;
            break;
        }
        let (name, rest) = rest.split_at(token_length(rest)?);
        let value = rest.strip_prefix(b":")?;
        let value = line(value)?;
        visitor.field(name, value);
        at += name.len() + 1 + value.len() + 2;
        lines += 1;
    }
    // Each line has a CR and a LF, and nothing else that counts.
    (controls(bytes.get(..at)?) == Some(2 * lines)).then_some(at)
}

/// What comes before a line end.
fn line(bytes: &[u8]) -> Option<&[u8]> {
    let (line, end) = bytes.split_at(memchr::memchr(b'\r', bytes)?);
    (end.get(1) == Some(&b'\n')).then_some(line)
}

/// How many bytes of a token come first, at least one, with something behind it.
fn token_length(bytes: &[u8]) -> Option<usize> {
    let is_token = |byte: u8| TOKEN.get(usize::from(byte)).copied().unwrap_or_default();
    let (fours, _) = bytes.as_chunks::<4>();
    let whole =
        fours.iter().take_while(|[a, b, c, d]| is_token(*a) & is_token(*b) & is_token(*c) & is_token(*d));
    let from = 4 * whole.count();
    let length = from + bytes.get(from..)?.iter().position(|byte| !is_token(*byte))?;
    (length > 0).then_some(length)
}

/// By byte, whether it may be in a token.
static TOKEN: [bool; 256] = {
    let mut token = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        token[byte] = is_token(byte as u8);
        byte += 1;
    }
    token
};

/// Bytes that are looked at together.
const LANES: usize = 16;

/// How many control characters are in `head`, TAB apart. Absent for very long ones, since each lane counts in a byte.
fn controls(head: &[u8]) -> Option<usize> {
    let (chunks, rest) = head.as_chunks::<LANES>();
    if chunks.len() >= usize::from(u8::MAX) {
        return None;
    }
    let mut last = [b' '; LANES];
    last.get_mut(..rest.len())?.copy_from_slice(rest);
    let mut counts = [0; LANES];
    for chunk in chunks.iter().chain([&last]) {
        // Without a branch: the compiler takes all lanes at once.
        for (count, byte) in counts.iter_mut().zip(chunk) {
            *count += u8::from((*byte < b' ') & (*byte != b'\t')) | u8::from(*byte == 0x7f);
        }
    }
    Some(counts.iter().map(|count| usize::from(*count)).sum())
}

#[cfg(test)]
mod tests {
    use super::{super::head, *};

    #[derive(Debug, Default, PartialEq, Eq)]
    struct Seen(Vec<(Vec<u8>, Vec<u8>)>);

    impl Visitor for Seen {
        fn field(&mut self, name: &[u8], value: &[u8]) {
            self.0.push((name.to_vec(), value.trim_ascii().to_vec()));
        }
    }

    /// Whether `bytes` are read as clean; if so, `head` reads the same of as many bytes.
    fn is_read(bytes: &[u8]) -> bool {
        let (mut seen, mut expected) = (Seen::default(), Seen::default());
        let case = String::from_utf8_lossy(bytes);
        if let Some((line, length)) = request(bytes, &mut seen) {
            assert_eq!(head::LineState::Inside.find_end(bytes), Ok(length), "{case:?}");
            assert_eq!(head::read_request(&bytes[..length], &mut expected), Some(line), "{case:?}");
        } else if let Some((line, length)) = response(bytes, &mut seen) {
            assert_eq!(head::LineState::Inside.find_end(bytes), Ok(length), "{case:?}");
            assert_eq!(head::read_response(&bytes[..length], &mut expected), Some(line), "{case:?}");
        } else {
            return false;
        }
        assert_eq!(seen, expected, "{case:?}");
        true
    }

    const CLEAN: [&[u8]; 6] = [
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET /a?b=c HTTP/1.0\r\nHost:  a.b:80 \r\nEmpty:\r\nX_y: \tz\xe9\r\n\r\nbody",
        b"M-SEARCH * HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nGET / HTTP/1.1\r\n",
        b"HTTP/1.1 200 OK\r\nServer: nginx\r\nDate: Sat, 21 Nov 2026 12:00:00 GMT\r\n\r\nbody\r\n\r\n",
        b"HTTP/1.0 999\r\nA: b\r\n\r\n",
        b"HTTP/1.1 404 Not\tFound \xe9\r\nA: b\r\n\r\n",
    ];

    #[test]
    fn clean_heads_are_read_and_their_parts_are_not() {
        for bytes in CLEAN {
            assert!(is_read(bytes), "{:?}", String::from_utf8_lossy(bytes));
            let end = head::LineState::Inside.find_end(bytes).unwrap();
            for cut in 0..end {
                assert!(!is_read(&bytes[..cut]), "{:?}", String::from_utf8_lossy(&bytes[..cut]));
            }
        }
    }

    #[test]
    fn odd_heads_are_left_to_others() {
        for bytes in [
            "\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
            " GET / HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET  / HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET /a b HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET /\u{e9} HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET / HTTP/1.2\r\nHost: a\r\n\r\n",
            "GET / HTTP/1.1\nHost: a\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\n\nb: c\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\rb\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\n b\r\n\r\n",
            "GET / HTTP/1.1\r\nHost : a\r\n\r\n",
            "GET / HTTP/1.1\r\nHost\r\n\r\n",
            "GET / HTTP/1.1\r\n: a\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\u{0}\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\u{7f}\r\n\r\n",
            "PRI * HTTP/1.1\r\nHost: a\r\n\r\n",
            "ICY / HTTP/1.1\r\nHost: a\r\n\r\n",
            "HTTP/1.1 099 OK\r\nA: b\r\n\r\n",
            "HTTP/1.1 2000 OK\r\nA: b\r\n\r\n",
            "HTTP/1.1  200 OK\r\nA: b\r\n\r\n",
            "http/1.1 200 OK\r\nA: b\r\n\r\n",
        ] {
            assert!(!is_read(bytes.as_bytes()), "{bytes:?}");
        }
    }

    #[test]
    fn whatever_is_changed_in_a_head_it_is_read_the_same_or_not_at_all() {
        for bytes in CLEAN {
            for place in 0..bytes.len() {
                let mut changed = bytes.to_vec();
                for byte in 0..=255 {
                    changed[place] = byte;
                    is_read(&changed);
                }
                changed.remove(place);
                is_read(&changed);
                changed.insert(place, b'\n');
                changed.insert(place, b'\n');
                is_read(&changed);
            }
        }
    }

    #[test]
    fn very_long_heads_are_left_to_others() {
        for (padding, expected) in [(4000, true), (5000, false)] {
            let bytes = format!("GET / HTTP/1.1\r\nHost: {}\r\n\r\n", "a".repeat(padding));
            assert_eq!(is_read(bytes.as_bytes()), expected, "{padding} bytes");
        }
    }

    #[test]
    fn a_method_is_as_long_as_it_may_be() {
        for (length, expected) in [(MAX_METHOD, true), (MAX_METHOD + 1, false)] {
            let bytes = format!("{} / HTTP/1.1\r\nHost: a\r\n\r\n", "A".repeat(length));
            assert_eq!(is_read(bytes.as_bytes()), expected, "{length} bytes");
        }
    }
}
