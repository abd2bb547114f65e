//! The gate: what a connection's first bytes begin. Shared by the kernel side and capture files.
//!
//! Cheap and generous: it keeps what could be HTTP by the token grammar (RFC 9110 5.6.2); the parser decides.

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

/// `HTTP/` begins a status line (RFC 9112 4).
const STATUS_LINE: [u8; 5] = *b"HTTP/";
/// `PRI * HTTP/2.0` begins the client connection preface (RFC 9113 3.4).
const HTTP2_PREFACE: [u8; GATE_BYTES] = *b"PRI * HTTP/2.0\r\n";
/// The PROXY protocol's binary signature (proxy-protocol.txt 2.2).
const PROXY_V2: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
/// ContentType handshake, first byte of a TLS record (RFC 8446 5.1).
const TLS_HANDSHAKE: u8 = 22;
/// Major part of every TLS record version (RFC 8446 5.1).
const TLS_MAJOR: u8 = 3;

/// The first payload bytes, as many as there are up to [`GATE_BYTES`].
#[derive(Clone, Copy, Debug)]
pub struct FirstBytes {
    /// The bytes; those from `length` on are zero.
    pub bytes: [u8; GATE_BYTES],
    /// How many are meant.
    pub length: usize,
}

impl FirstBytes {
    /// The first bytes of `payload`.
    pub fn of(payload: &[u8]) -> Self {
        let mut bytes = [0; GATE_BYTES];
        let mut length = 0;
        for (to, from) in bytes.iter_mut().zip(payload) {
            *to = *from;
            length += 1;
        }
        Self { bytes, length }
    }

    /// What a client's very first bytes begin. Too few bytes to tell are [`Beginning::Http`].
    #[inline(always)]
    pub fn of_client(&self) -> Beginning {
        if self.bytes[0] == TLS_HANDSHAKE && (self.length < 2 || self.bytes[1] == TLS_MAJOR) {
            return Beginning::Tls;
        }
        if self.agrees_with(&HTTP2_PREFACE) {
            // "PRI * H" and less may still become a method of that name.
            return if self.length > 8 { Beginning::Http2 } else { Beginning::Http };
        }
        if self.agrees_with(&PROXY_V2) || self.begins_request() { Beginning::Http } else { Beginning::Other }
    }

    /// What a server's very first bytes begin.
    #[inline(always)]
    pub fn of_server(&self) -> Beginning {
        if self.agrees_with(&STATUS_LINE) { Beginning::Http } else { Beginning::Other }
    }

    /// What bytes from the middle of a connection begin: stricter, because any body byte may stand here.
    #[inline(always)]
    pub fn of_middle(&self) -> Beginning {
        if self.length >= STATUS_LINE.len() && self.agrees_with(&STATUS_LINE) {
            return Beginning::Http;
        }
        if self.begins_known_shape() { Beginning::Http } else { Beginning::Other }
    }

    /// Whether no byte differs from `pattern`, as far as both go.
    #[inline(always)]
    fn agrees_with<const N: usize>(&self, pattern: &[u8; N]) -> bool {
        let mut index = 0;
        while index < N && index < GATE_BYTES {
            if index < self.length && self.bytes[index] != pattern[index] {
                return false;
            }
            index += 1;
        }
        true
    }

    /// Empty lines (RFC 9112 2.2), then a token that a space ends or that is not over yet.
    #[inline(always)]
    fn begins_request(&self) -> bool {
        let mut in_method = false;
        let mut index = 0;
        while index < GATE_BYTES {
            if index >= self.length {
                return true;
            }
            let byte = self.bytes[index];
            if in_method && byte == b' ' {
                return true;
            }
            if is_token_byte(byte) {
                in_method = true;
            } else if in_method || (byte != b'\r' && byte != b'\n') {
                return false;
            }
            index += 1;
        }
        true
    }

    /// At least three upper-case letters (or `-`, `_`), a space, and what a request target begins with (RFC 9112 3.2).
    #[inline(always)]
    fn begins_known_shape(&self) -> bool {
        let mut index = 0;
        while index + 1 < GATE_BYTES {
            if index + 1 >= self.length {
                return false;
            }
            let byte = self.bytes[index];
            if byte == b' ' {
                let next = self.bytes[index + 1];
                return index >= 3 && (next == b'/' || next == b'*' || next.is_ascii_alphanumeric());
            }
            if !byte.is_ascii_uppercase() && byte != b'-' && byte != b'_' {
                return false;
            }
            index += 1;
        }
        false
    }
}

/// Whether `byte` is a tchar (RFC 9110 5.6.2).
#[inline(always)]
pub const fn is_token_byte(byte: u8) -> bool {
    // Two 64-bit sets instead of a table: the kernel side has no read-only section to look it up in.
    const LOW: u64 = set(b"!#$%&'*+-.0123456789");
    const HIGH: u64 = set(b"ABCDEFGHIJKLMNOPQRSTUVWXYZ^_`abcdefghijklmnopqrstuvwxyz|~");
    let bits = if byte < 64 { LOW } else { HIGH };
    byte < 128 && bits >> (byte & 63) & 1 == 1
}

const fn set(bytes: &[u8]) -> u64 {
    let mut bits = 0;
    let mut index = 0;
    while index < bytes.len() {
        bits |= 1 << (bytes[index] & 63);
        index += 1;
    }
    bits
}

#[cfg(test)]
mod tests {
    use super::{Beginning, FirstBytes, is_token_byte};

    #[test]
    fn first_bytes_of_a_client() {
        let check = |payload: &[u8], expected: Beginning| {
            assert_eq!(
                FirstBytes::of(payload).of_client(),
                expected,
                "{:?}",
                payload.escape_ascii().to_string()
            );
        };
        extern crate std;
        use std::string::ToString as _;
        check(b"GET / HTTP/1.1\r\n", Beginning::Http);
        check(b"G", Beginning::Http);
        check(b"\r\n\r\nGET /", Beginning::Http);
        check(b"BASELINE-CONTROL-OF /", Beginning::Http);
        check(b"PROXY TCP4 1.2.3.4", Beginning::Http);
        check(b"\r\n\r\n\0\r\nQUIT\n\x21\x11", Beginning::Http);
        check(b"\r\n\r\n\0", Beginning::Http);
        check(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", Beginning::Http2);
        check(b"PRI * HT", Beginning::Http);
        check(b"PRI * HTT", Beginning::Http2);
        check(b"\x16\x03\x01\x02\x00", Beginning::Tls);
        check(b"\x16", Beginning::Tls);
        check(b"\x16\x02", Beginning::Other);
        check(b"*3\r\n$3\r\nSET\r\n", Beginning::Other);
        check(b"\x00\x00\x00\x17", Beginning::Other);
        check(b" GET / HTTP/1.1", Beginning::Other);
    }

    #[test]
    fn first_bytes_of_a_server() {
        let check = |payload: &[u8], expected: Beginning| {
            assert_eq!(FirstBytes::of(payload).of_server(), expected, "{payload:?}");
        };
        check(b"HTTP/1.1 408 Request Timeout\r\n", Beginning::Http);
        check(b"HT", Beginning::Http);
        check(b"220 mail.example ESMTP\r\n", Beginning::Other);
    }

    #[test]
    fn bytes_from_the_middle() {
        let check = |payload: &[u8], expected: Beginning| {
            assert_eq!(FirstBytes::of(payload).of_middle(), expected, "{payload:?}");
        };
        check(b"GET /a HTTP/1.1\r\n", Beginning::Http);
        check(b"OPTIONS * HTTP/1.1\r\n", Beginning::Http);
        check(b"CONNECT a:443 HT", Beginning::Http);
        check(b"HTTP/1.1 200 OK\r\n", Beginning::Http);
        check(b"HTTP", Beginning::Other);
        check(b"GET", Beginning::Other);
        check(b"it is / was", Beginning::Other);
        check(b"A /", Beginning::Other);
    }

    #[test]
    fn token_bytes_are_those_of_the_grammar() {
        for byte in 0..=255_u8 {
            let expected = byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
            assert_eq!(is_token_byte(byte), expected, "{byte}");
        }
    }
}
