//! Foreign bytes as JSON strings. One rule for what is not UTF-8: byte by byte as ISO-8859-1.

use super::number::push_hex;

/// Appends `bytes` as a JSON string.
///
/// Bytes that are valid UTF-8 are that text. A value that is not valid UTF-8 is given byte by byte as ISO-8859-1, each byte
/// as the character of the same number (RFC 9110 5.5: field values were historically ISO-8859-1): nothing is lost, and a
/// reader that wants the bytes encodes the string as ISO-8859-1 again.
pub fn push_string(out: &mut Vec<u8>, bytes: &[u8]) {
    out.push(b'"');
    push_content(out, bytes);
    out.push(b'"');
}

/// Appends what stands between the quotes of a JSON string.
#[inline]
pub fn push_content(out: &mut Vec<u8>, bytes: &[u8]) {
    if is_plain(bytes) {
        out.extend_from_slice(bytes);
    } else {
        push_odd(out, bytes);
    }
}

/// As [`push_content`], of bytes that do not all stand for themselves.
#[cold]
fn push_odd(out: &mut Vec<u8>, bytes: &[u8]) {
    if std::str::from_utf8(bytes).is_ok() {
        push_escaped(out, bytes);
    } else {
        for &byte in bytes {
            if byte < 0x80 {
                push_escaped(out, &[byte]);
            } else {
                push_latin1(out, byte);
            }
        }
    }
}

/// Appends text for a terminal: nothing in it can move the cursor, change colours or hide other text.
///
/// Control characters (C0, DEL, C1), and the characters that reorder or hide text (bidirectional controls, zero width),
/// are written as `\xNN` or `\u{NNNN}`; bytes that are not UTF-8 as `\xNN`.
pub fn push_printable(out: &mut String, bytes: &[u8]) {
    use std::fmt::Write as _;
    for chunk in bytes.utf8_chunks() {
        for character in chunk.valid().chars() {
            let code = character as u32;
            if code < 0x100 && character.is_control() {
                let _ = write!(out, "\\x{code:02x}");
            } else if hides_text(character) {
                let _ = write!(out, "\\u{{{code:x}}}");
            } else {
                out.push(character);
            }
        }
        for byte in chunk.invalid() {
            let _ = write!(out, "\\x{byte:02x}");
        }
    }
}

const fn hides_text(character: char) -> bool {
    matches!(character,
        '\u{ad}' | '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
        | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e0fff}')
}

/// Bytes that must not stand in a JSON string as they are (RFC 8259 7), and DEL, which terminals act on.
const fn needs_escape(byte: u8) -> bool {
    byte < 0x20 || byte == b'"' || byte == b'\\' || byte == 0x7f
}

/// Whether every byte stands for itself: ASCII that needs no escape. Looks at several bytes at once, at some of them twice.
fn is_plain(bytes: &[u8]) -> bool {
    if let Some(last) = bytes.last_chunk::<16>() {
        let (chunks, _) = bytes.as_chunks::<16>();
        let mut odd = [0; 16];
        for chunk in chunks.iter().chain([last]) {
            // Without a branch: the compiler takes all of a chunk at once.
            for (odd, byte) in odd.iter_mut().zip(chunk) {
                let is_mark = (*byte == b'"') | (*byte == b'\\');
                *odd |= u8::from((*byte < b' ') | (*byte >= 0x7f) | is_mark);
            }
        }
        return odd.iter().fold(0, |all, odd| all | odd) == 0;
    }
    if let Some(last) = bytes.last_chunk::<8>() {
        let (words, _) = bytes.as_chunks::<8>();
        let marks = words.iter().fold(odd_marks(*last), |marks, word| marks | odd_marks(*word));
        return marks & HIGH_BITS == 0;
    }
    let mut word = [b' '; 8];
    if let (Some(first), Some(last)) = (bytes.first_chunk::<4>(), bytes.last_chunk::<4>()) {
        let [low, high] = word.as_chunks_mut::<4>().0 else { return false };
        (*low, *high) = (*first, *last);
    } else if let (Some(first), Some(last)) = (bytes.first(), bytes.last()) {
        // At most three: the first, the last, and the one between.
        let between = bytes.get(bytes.len() / 2).unwrap_or(last);
        word = [*first, *between, *last, b' ', b' ', b' ', b' ', b' '];
    }
    odd_marks(word) & HIGH_BITS == 0
}

/// The highest bit of every byte of a word.
const HIGH_BITS: u64 = 0x8080_8080_8080_8080;

/// Sets the highest bit of some byte if, and only if, one of the bytes may not be copied as it is: a byte below 0x80 gets
/// it by a subtraction that goes below zero, its own or that of another such byte.
fn odd_marks(bytes: [u8; 8]) -> u64 {
    const EACH: u64 = 0x0101_0101_0101_0101;
    let word = u64::from_le_bytes(bytes);
    let is = |byte: u8| (word ^ (EACH * u64::from(byte))).wrapping_sub(EACH);
    word | word.wrapping_sub(EACH * 0x20) | is(b'"') | is(b'\\') | is(0x7f)
}

fn push_escaped(out: &mut Vec<u8>, mut bytes: &[u8]) {
    while let Some(position) = bytes.iter().position(|byte| needs_escape(*byte)) {
        let (plain, rest) = bytes.split_at(position);
        out.extend_from_slice(plain);
        let Some((&byte, rest)) = rest.split_first() else { return };
        match byte {
            b'"' => out.extend_from_slice(b"\\\""),
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            other => {
                out.extend_from_slice(b"\\u");
                push_hex::<4>(out, u64::from(other));
            }
        }
        bytes = rest;
    }
    out.extend_from_slice(bytes);
}

fn push_latin1(out: &mut Vec<u8>, byte: u8) {
    let mut buffer = [0; 4];
    out.extend_from_slice(char::from(byte).encode_utf8(&mut buffer).as_bytes());
}

/// Appends `bytes` in base64 with padding (RFC 4648 4).
pub fn push_base64(out: &mut Vec<u8>, bytes: &[u8]) {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let digit = |value: u32| ALPHABET.get((value & 63) as usize).copied().unwrap_or(b'=');
    for group in bytes.chunks(3) {
        let mut padded = [0; 3];
        for (to, from) in padded.iter_mut().zip(group) {
            *to = *from;
        }
        let bits = u32::from_be_bytes([0, padded[0], padded[1], padded[2]]);
        out.push(digit(bits >> 18));
        out.push(digit(bits >> 12));
        out.push(if group.len() > 1 { digit(bits >> 6) } else { b'=' });
        out.push(if group.len() > 2 { digit(bits) } else { b'=' });
    }
}

/// Content that is fit to be read as text: UTF-8 without control characters other than white space. A character that the
/// end of the prefix cut in two is left out. Absent if the content is not text.
pub fn readable(content: &[u8]) -> Option<&[u8]> {
    let text = match std::str::from_utf8(content) {
        Ok(text) => text,
        Err(error) if error.error_len().is_none() => {
            std::str::from_utf8(content.get(..error.valid_up_to())?).ok()?
        }
        Err(_) => return None,
    };
    let odd = |byte: &u8| *byte < 0x20 && !matches!(byte, b'\t' | b'\n' | b'\r') || *byte == 0x7f;
    if text.as_bytes().iter().any(odd) { None } else { Some(text.as_bytes()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings() {
        let check = |bytes: &[u8], expected: &str| {
            let mut out = Vec::new();
            push_string(&mut out, bytes);
            let out = String::from_utf8(out).unwrap();
            assert_eq!(out, expected);
            let _: String = serde_json::from_str(&out).unwrap();
        };
        check(b"", r#""""#);
        check(b"/cart", r#""/cart""#);
        check(br#"a"b\c"#, r#""a\"b\\c""#);
        check(b"\n\r\t\x00\x1b\x7f", r#""\n\r\t\u0000\u001b\u007f""#);
        check("/café".as_bytes(), "\"/café\"");
        check(b"/caf\xe9", "\"/café\"");
        check(b"\xff\"\x80", "\"ÿ\\\"\u{80}\"");
    }

    #[test]
    fn an_odd_byte_is_found_at_every_place_of_every_length() {
        for length in 0..70 {
            let mut bytes = vec![b'a'; length];
            assert!(is_plain(&bytes), "{length}");
            for place in 0..length {
                for odd in [0, 0x1f, b'"', b'\\', 0x7f, 0x80, 0xff] {
                    bytes[place] = odd;
                    assert!(!is_plain(&bytes), "{odd:#x} at {place} of {length}");
                }
                for plain in [b' ', b'!', b'#', b'[', b']', b'~'] {
                    bytes[place] = plain;
                    assert!(is_plain(&bytes), "{plain:#x} at {place} of {length}");
                }
                bytes[place] = b'a';
            }
        }
    }

    #[test]
    fn every_byte_comes_back() {
        for byte in 0..=255u8 {
            let bytes = [b'/', byte, 0xff];
            let mut out = Vec::new();
            push_string(&mut out, &bytes);
            let text: String = serde_json::from_slice(&out).unwrap();
            let back: Vec<u8> = text.chars().map(|c| u8::try_from(c as u32).unwrap()).collect();
            assert_eq!(back, bytes);
        }
    }

    #[test]
    fn terminals_are_safe() {
        let check = |bytes: &[u8], expected: &str| {
            let mut out = String::new();
            push_printable(&mut out, bytes);
            assert_eq!(out, expected);
        };
        check(b"/\x1b[2J", "/\\x1b[2J");
        check("/\u{9b}31m".as_bytes(), "/\\x9b31m");
        check(b"\r\n\x7f\x00", "\\x0d\\x0a\\x7f\\x00");
        check(b"/caf\xe9", "/caf\\xe9");
        check("/\u{202e}gpj".as_bytes(), "/\\u{202e}gpj");
        check("/é日本".as_bytes(), "/é日本");
    }

    #[test]
    fn base64() {
        let check = |bytes: &[u8], expected: &str| {
            let mut out = Vec::new();
            push_base64(&mut out, bytes);
            assert_eq!(out, expected.as_bytes());
        };
        // RFC 4648 10.
        check(b"", "");
        check(b"f", "Zg==");
        check(b"fo", "Zm8=");
        check(b"foo", "Zm9v");
        check(b"foob", "Zm9vYg==");
        check(b"fooba", "Zm9vYmE=");
        check(b"foobar", "Zm9vYmFy");
        check(&[0xff, 0xfe, 0xfb], "//77");
    }

    #[test]
    fn text_or_not() {
        assert_eq!(readable(b"a\tb\n"), Some(b"a\tb\n".as_slice()));
        assert_eq!(readable("é".as_bytes()), Some("é".as_bytes()));
        assert_eq!(readable(b"a\xc3"), Some(b"a".as_slice()));
        assert_eq!(readable(b"a\xc3b"), None);
        assert_eq!(readable(b"\x1f\x8b"), None);
        assert_eq!(readable(b"\x00"), None);
    }
}
