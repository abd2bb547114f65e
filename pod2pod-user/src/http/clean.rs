//! Clean heads, as nearly all are: read and checked in one go, from a piece of the stream that holds them whole.
//!
//! Refuses whatever is the least bit odd, and everything that is not there to its end: `reader` and `head` read that, and
//! would read a clean head as this does. Keeps nothing, marks nothing.

use super::{
    exchange::Anomalies,
    head::Visitor,
    lanes::{self, LANES},
    start_line::{MAX_METHOD, RequestLine, StatusLine, is_token},
};

/// A request head that `bytes` begin with, and its length.
pub(super) fn request<'a>(bytes: &'a [u8], visitor: &mut impl Visitor) -> Option<(RequestLine<'a>, usize)> {
    let mut lines = Lines::new(bytes);
    let line = bytes.get(..lines.end()?)?;
    let (method, rest) = line.split_at(token_length(line)?);
    if method.len() > MAX_METHOD || method == b"PRI" || method == b"ICY" {
        return None;
    }
    let (target, version) = rest.split_last_chunk::<9>()?;
    let minor_version = minor_version(version.strip_prefix(b" ")?)?;
    let target = target.strip_prefix(b" ")?;
    if target.is_empty() || !target.iter().fold(true, |visible, byte| visible & byte.is_ascii_graphic()) {
        return None;
    }
    let length = fields(bytes, line.len(), lines, visitor)?;
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
    let mut lines = Lines::new(bytes);
    let line_end = lines.end()?;
    let length = fields(bytes, line_end, lines, visitor)?;
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
#[inline]
fn fields(bytes: &[u8], line_end: usize, mut lines: Lines<'_>, visitor: &mut impl Visitor) -> Option<usize> {
    let mut at = line_end + LINE_END;
    loop {
        let end = lines.end()?;
        if end == at {
            return Some(end + LINE_END);
        }
        let rest = bytes.get(at..)?;
        let name = name_length(rest)?;
        let (name, value) = rest.get(..end - at)?.split_at_checked(name)?;
        visitor.clean_field(name, value.strip_prefix(b":")?);
        at = end + LINE_END;
    }
}

/// Bytes of CR and LF.
const LINE_END: usize = 2;

/// Where lines end. Meets every control character on its way: what it passed over has none but TAB.
struct Lines<'a> {
    bytes: &'a [u8],
    /// Where the next block is.
    next: usize,
    /// Control characters that were not met yet of the block before `next`.
    controls: u64,
}

/// Bytes that are looked at before the first line end in them is.
const BLOCK: usize = 4 * LANES;

impl<'a> Lines<'a> {
    const fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, next: 0, controls: 0 }
    }

    /// Where the line ends that begins behind the end told last; absent if it does not, or has another control character.
    #[inline(always)]
    fn end(&mut self) -> Option<usize> {
        let end = loop {
            let at = self.control()?;
            match self.bytes.get(at) {
                Some(b'\t') => {}
                Some(b'\r') => break at,
                _ => return None,
            }
        };
        (self.control()? == end + 1 && self.bytes.get(end + 1) == Some(&b'\n')).then_some(end)
    }

    /// The next control character.
    #[inline(always)]
    fn control(&mut self) -> Option<usize> {
        while self.controls == 0 {
            self.controls = controls_of_block(self.bytes.get(self.next..)?)?;
            self.next += BLOCK;
        }
        let place = self.controls.trailing_zeros() as usize;
        self.controls &= self.controls - 1;
        Some(self.next - BLOCK + place)
    }
}

/// As [`lanes::controls`], of all lanes that `rest` begins with; absent if it is empty.
#[inline]
fn controls_of_block(rest: &[u8]) -> Option<u64> {
    if let Some(block) = rest.first_chunk::<BLOCK>() {
        return Some(controls_of(block));
    }
    let mut last = [b' '; BLOCK];
    last.get_mut(..rest.len())?.copy_from_slice(rest);
    (!rest.is_empty()).then(|| controls_of(&last))
}

#[inline(always)]
fn controls_of(block: &[u8; BLOCK]) -> u64 {
    let (all, _) = block.as_chunks::<LANES>();
    all.iter().rev().fold(0, |controls, lanes| controls << LANES | u64::from(lanes::controls(lanes)))
}

/// As [`token_length`], mostly at one go.
#[inline(always)]
fn name_length(bytes: &[u8]) -> Option<usize> {
    let length = bytes.first_chunk().map_or(0, |chunk| lanes::name_bytes(chunk).trailing_ones() as usize);
    if length > 0 && bytes.get(length) == Some(&b':') { Some(length) } else { token_length(bytes) }
}

/// How many bytes of a token come first, at least one, with something behind it.
fn token_length(bytes: &[u8]) -> Option<usize> {
    let is_token = |byte: u8| TOKEN.get(usize::from(byte)).copied().unwrap_or_default();
    let length = bytes.iter().position(|byte| !is_token(*byte))?;
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
    fn heads_of_any_length_are_read() {
        for padding in 0..100 {
            for name in ["Host", "A-name-of-sixteen", "A_name.with-other_marks", "X"] {
                let bytes = format!("GET / HTTP/1.1\r\n{name}: {}\r\n\r\n", "a".repeat(padding * padding));
                assert!(is_read(bytes.as_bytes()), "{bytes:?}");
            }
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
