//! The gate's eye: what a connection's first bytes begin, from a fixed window, without a branch per byte.
//!
//! Cheap and generous: it keeps what could be HTTP by the token grammar (RFC 9110 5.6.2); the parser decides. It never
//! parses a head and keeps nothing between two packets.

use crate::limits::GATE_BYTES;

/// What first bytes begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Beginning {
    /// An HTTP/1 message, a PROXY protocol header, or too few bytes to tell.
    Http,
    /// The HTTP/2 connection preface (RFC 9113 3.4).
    Http2,
    /// A TLS handshake record (RFC 8446 5.1).
    Tls,
    /// Something else.
    Other,
}

/// The first payload bytes of a segment, at most [`GATE_BYTES`] of them.
#[derive(Clone, Copy, Debug)]
pub struct Window {
    low: u64,
    high: u64,
    length: u32,
    classes: Classes,
}

impl Window {
    /// A window of which the first `length` bytes count; the others mean nothing, so one copy of any size fills it.
    #[inline(always)]
    pub fn new(words: [u64; 2], length: u32) -> Self {
        let [low, high] = words.map(u64::from_le);
        let length = if length > GATE_BYTES as u32 { GATE_BYTES as u32 } else { length };
        Self { low, high, length, classes: Classes::of(low, high, length) }
    }

    /// The window onto a payload that is in memory.
    pub fn of(payload: &[u8]) -> Self {
        let mut bytes = [0; GATE_BYTES];
        for (to, from) in bytes.iter_mut().zip(payload) {
            *to = *from;
        }
        let [a, b, c, d, e, f, g, h, rest @ ..] = bytes;
        Self::new(
            [u64::from_ne_bytes([a, b, c, d, e, f, g, h]), u64::from_ne_bytes(rest)],
            payload.len().min(GATE_BYTES) as u32,
        )
    }

    /// What the first bytes that a client sent on a connection begin. Too few bytes to tell are HTTP.
    #[inline(always)]
    pub fn beginning(&self) -> Beginning {
        if self.length == 0 {
            return Beginning::Http;
        }
        let (low, high) = (self.low, self.high);
        if low as u8 == TLS_HANDSHAKE {
            let tls = self.length < 2 || (low >> 8) as u8 == TLS_MAJOR_VERSION;
            return if tls { Beginning::Tls } else { Beginning::Other };
        }
        if self.length >= HTTP2_PREFACE_LENGTH && low == HTTP2_LOW && high & 0xffff_ffff_ffff == HTTP2_HIGH {
            return Beginning::Http2;
        }
        if self.length >= 4 && low & 0xffff_ffff == SSH {
            return Beginning::Other;
        }
        if self.starts_status_line() || self.starts_proxy_v2() || self.starts_request_line() {
            Beginning::Http
        } else {
            Beginning::Other
        }
    }

    /// Whether a server that speaks first begins a status line (a 408 on an idle connection), or may: other protocols
    /// greet first, and their greetings are tokens too.
    #[inline(always)]
    pub fn starts_status_line(&self) -> bool {
        let known = if self.length < STATUS_LENGTH { self.length } else { STATUS_LENGTH };
        (self.low ^ STATUS) & lowest_bytes(known) == 0
    }

    /// Whether bytes from the middle of a connection begin a message, without doubt enough to start there: a status
    /// line, or an upper-case method of three letters or more, a space, and the first byte of a target.
    #[inline(always)]
    pub fn begins_message(&self) -> bool {
        if self.length >= STATUS_LENGTH && self.starts_status_line() {
            return true;
        }
        let classes = &self.classes;
        let method = trailing_ones(classes.upper);
        let space = method.wrapping_add(1);
        method & MIN_METHOD == MIN_METHOD && classes.space & space != 0 && classes.target & (space << 1) != 0
    }

    /// `*( CR / LF ) method SP`, or a beginning of it.
    #[inline(always)]
    fn starts_request_line(&self) -> bool {
        let classes = &self.classes;
        let valid = lowest_bits(self.length);
        let lead = trailing_ones(classes.line_end);
        let run = trailing_ones(lead | classes.token);
        let next = run.wrapping_add(1);
        next & valid == 0 || (run != lead && classes.space & next != 0)
    }

    /// The twelve bytes of the PROXY protocol's binary header (proxy-protocol.txt 2.2), or a beginning of them.
    #[inline(always)]
    fn starts_proxy_v2(&self) -> bool {
        if self.length < 8 {
            return (self.low ^ PROXY_V2_LOW) & lowest_bytes(self.length) == 0;
        }
        let in_high = if self.length - 8 < 4 { self.length - 8 } else { 4 };
        self.low == PROXY_V2_LOW && (self.high ^ PROXY_V2_HIGH) & lowest_bytes(in_high) == 0
    }
}

/// One bit a byte for each class of bytes; bits past the window's length are 0.
#[derive(Clone, Copy, Debug)]
struct Classes {
    /// tchar (RFC 9110 5.6.2).
    token: u32,
    /// CR or LF.
    line_end: u32,
    /// SP.
    space: u32,
    /// Byte of a registered method's name: upper-case letters, `-` and `_`.
    upper: u32,
    /// First byte of a request target (RFC 9112 3.2): `/`, `*`, or of a scheme or host name.
    target: u32,
}

impl Classes {
    #[inline(always)]
    fn of(first: u64, second: u64, length: u32) -> Self {
        // Looked up, not compared: a branch for each of sixteen bytes would be 2^16 paths for the verifier. One word
        // holds all five masks, spread by the table.
        let mut low = 0_u64;
        let mut high = 0_u64;
        let mut index = 0;
        while index < GATE_BYTES {
            let word = if index < GATE_BYTES / 2 { first } else { second };
            let byte = (word >> (8 * (index % 8))) as u8;
            let class = u64::from(CLASS[byte as usize]);
            low |= (class & 1 | (class >> 1 & 1) << 16 | (class >> 2 & 1) << 32) << index;
            high |= (class >> 3 & 1 | (class >> 4 & 1) << 16) << index;
            index += 1;
        }
        let valid = lowest_bits(length);
        Self {
            token: low as u32 & valid,
            line_end: (low >> 16) as u32 & valid,
            space: (low >> 32) as u32 & valid,
            upper: high as u32 & valid,
            target: (high >> 16) as u32 & valid,
        }
    }
}

/// The run of ones from bit 0 on.
#[inline(always)]
const fn trailing_ones(bits: u32) -> u32 {
    bits & !bits.wrapping_add(1)
}

#[inline(always)]
const fn lowest_bits(count: u32) -> u32 {
    (1 << (count & 31)) - 1
}

/// Mask of the first `count` bytes, at most seven.
#[inline(always)]
const fn lowest_bytes(count: u32) -> u64 {
    (1 << (8 * (count & 7))) - 1
}

const TLS_HANDSHAKE: u8 = 22;
const TLS_MAJOR_VERSION: u8 = 3;
const HTTP2_PREFACE_LENGTH: u32 = 14;
const HTTP2_LOW: u64 = u64::from_le_bytes(*b"PRI * HT");
const HTTP2_HIGH: u64 = u64::from_le_bytes(*b"TP/2.0\0\0");
/// RFC 4253 4.2: a token by its letters, and the one non-HTTP greeting that clients send everywhere.
const SSH: u64 = u64::from_le_bytes(*b"SSH-\0\0\0\0");
const STATUS_LENGTH: u32 = 7;
const STATUS: u64 = u64::from_le_bytes(*b"HTTP/1.\0");
const PROXY_V2_LOW: u64 = u64::from_le_bytes(*b"\r\n\r\n\0\r\nQ");
const PROXY_V2_HIGH: u64 = u64::from_le_bytes(*b"UIT\n\0\0\0\0");
/// GET, PUT, ACL: no registered method is shorter, and shorter words are common in text.
const MIN_METHOD: u32 = 0b111;

static CLASS: [u8; 256] = class_table();

const fn class_table() -> [u8; 256] {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let character = byte as u8;
        let token = character.is_ascii_alphanumeric()
            || matches!(
                character,
                b'!' | b'#'
                    | b'$'
                    | b'%'
                    | b'&'
                    | b'\''
                    | b'*'
                    | b'+'
                    | b'-'
                    | b'.'
                    | b'^'
                    | b'_'
                    | b'`'
                    | b'|'
                    | b'~'
            );
        let line_end = matches!(character, b'\r' | b'\n');
        let upper = character.is_ascii_uppercase() || matches!(character, b'-' | b'_');
        let target = character.is_ascii_alphanumeric() || matches!(character, b'/' | b'*' | b'[');
        table[byte] = token as u8
            | (line_end as u8) << 1
            | ((character == b' ') as u8) << 2
            | (upper as u8) << 3
            | (target as u8) << 4;
        byte += 1;
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_bytes_are_told_apart() {
        let cases: &[(&[u8], Beginning)] = &[
            (b"", Beginning::Http),
            (b"G", Beginning::Http),
            (b"GET / HTTP/1.1\r\n\r\n", Beginning::Http),
            (b"get /", Beginning::Http),
            (b"M-SEARCH * HTTP/1.1", Beginning::Http),
            (b"BASELINE-CONTROL /x", Beginning::Http),
            (b"UPDATEREDIRECTREF /x", Beginning::Http),
            (b"!#$%&'*+-.^_`|~ ", Beginning::Http),
            (b"\r", Beginning::Http),
            (b"\r\n\r\nGET /", Beginning::Http),
            (b"\n\nPOST /", Beginning::Http),
            (b"\r\n\r\n\r\n\r\n\r\n\r\n\r\n\r\n", Beginning::Http),
            (b"\r\n /", Beginning::Other),
            (b"PROXY TCP4 1.2.3", Beginning::Http),
            (b"\r\n\r\n\0\r\nQUIT\n\x21\x11", Beginning::Http),
            (b"\r\n\r\n\0\r\nQ", Beginning::Http),
            (b"\r\n\r\n\0\r\nQUIX\n", Beginning::Other),
            (b"HTTP/1.1 408 ", Beginning::Http),
            (b"HTT", Beginning::Http),
            (b"HTTP/", Beginning::Http),
            (b"HTTP/2", Beginning::Other),
            (b"PRI", Beginning::Http),
            (b"PRI * HTTP/2.0\r\n", Beginning::Http2),
            (b"PRI * HTTP/2.0", Beginning::Http2),
            (b"PRI * HTTP/2", Beginning::Http),
            (b"PRI * HTTP/1.1\r\n", Beginning::Http),
            (b"\x16", Beginning::Tls),
            (b"\x16\x03\x01\x02\x00\x01", Beginning::Tls),
            (b"\x16\x04", Beginning::Other),
            (b"\x17\x03\x03", Beginning::Other),
            (b"SSH-2.0-OpenSSH_9", Beginning::Other),
            (b" GET /", Beginning::Other),
            (b"GET\t/", Beginning::Other),
            (b"*3\r\n$3\r\nSET", Beginning::Other),
            (b"\0\0\0\x2f", Beginning::Other),
            (b"\xff\xfe", Beginning::Other),
            (b"{\"a\":1}", Beginning::Other),
        ];
        for (bytes, expected) in cases {
            assert_eq!(Window::of(bytes).beginning(), *expected, "{}", bytes.escape_ascii());
        }
    }

    #[test]
    fn bytes_past_the_length_mean_nothing() {
        for rest in [0, b' ', b'G', b'\r', 0xff, 0x16] {
            for length in 0..=4 {
                let mut bytes = [rest; GATE_BYTES];
                bytes[..4].copy_from_slice(b"GET ");
                let mut window = Window::of(&bytes);
                window = Window::new([window.low.to_le(), window.high.to_le()], length);
                let beginning = window.beginning();
                assert_eq!(beginning, Beginning::Http, "{length} bytes, then {rest:#x}");
            }
        }
        assert_eq!(Window::new([u64::from_ne_bytes(*b"GET / HT"); 2], 99).beginning(), Beginning::Http);
    }

    #[test]
    fn every_prefix_of_a_beginning_is_kept() {
        let heads: &[&[u8]] = &[
            b"GET / HTTP/1.1\r\nHost: x\r\n",
            b"\r\n\r\nDELETE /",
            b"HTTP/1.1 200 OK",
            b"\r\n\r\n\0\r\nQUIT\nxxxx",
            b"PROXY UNKNOWN\r\n",
        ];
        for head in heads {
            for length in 0..=head.len() {
                let window = Window::of(&head[..length]);
                assert_eq!(window.beginning(), Beginning::Http, "{}", head[..length].escape_ascii());
            }
        }
    }

    #[test]
    fn only_a_status_line_lets_a_server_speak_first() {
        let cases: &[(&[u8], bool)] = &[
            (b"", true),
            (b"H", true),
            (b"HTTP/1.1 408 Request Timeout", true),
            (b"HTTP/1.", true),
            (b"HTTP/2", false),
            (b"220 mail.example ESMTP", false),
            (b"SSH-2.0-x", false),
            (b"\x4a\0\0\0\x0a8.0", false),
        ];
        for (bytes, expected) in cases {
            assert_eq!(Window::of(bytes).starts_status_line(), *expected, "{}", bytes.escape_ascii());
        }
    }

    #[test]
    fn a_message_in_the_middle_needs_its_known_shape() {
        let cases: &[(&[u8], bool)] = &[
            (b"", false),
            (b"GET", false),
            (b"GET ", false),
            (b"GET /", true),
            (b"OPTIONS * HTTP/1", true),
            (b"CONNECT example", true),
            (b"GET http://x/", true),
            (b"VERSION-CONTROL ", false),
            (b"M-SEARCH * HTTP/", true),
            (b"HTTP/1.", true),
            (b"HTTP/1", false),
            (b"HTTP/2.0 200", false),
            (b"get /", false),
            (b"I am a text", false),
            (b"GET  /", false),
            (b"GET \r", false),
            (b"\x16\x03\x01", false),
        ];
        for (bytes, expected) in cases {
            assert_eq!(Window::of(bytes).begins_message(), *expected, "{}", bytes.escape_ascii());
        }
    }
}
