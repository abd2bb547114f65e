//! The wire form of Protocol Buffers, as far as OTLP has it: writing fields, and finding them in an answer. Pure.
//!
//! <https://protobuf.dev/programming-guides/encoding/>

/// How a field's value is written.
const VARINT: u64 = 0;
const FIXED64: u64 = 1;
const LENGTH: u64 = 2;
const FIXED32: u64 = 5;
/// Bits of a varint's byte that are the number's.
const BITS: u32 = 7;

/// Appends a field with a number.
pub(super) fn number(out: &mut Vec<u8>, field: u64, value: u64) {
    varint(out, field << 3 | VARINT);
    varint(out, value);
}

/// Appends a field with a number of eight bytes.
pub(super) fn fixed(out: &mut Vec<u8>, field: u64, value: u64) {
    varint(out, field << 3 | FIXED64);
    out.extend_from_slice(&value.to_le_bytes());
}

/// Appends a field with bytes.
pub(super) fn bytes(out: &mut Vec<u8>, field: u64, value: &[u8]) {
    varint(out, field << 3 | LENGTH);
    varint(out, value.len() as u64);
    out.extend_from_slice(value);
}

/// Appends a field with text: bytes that are no UTF-8 are ISO 8859-1, as in the record's JSON.
pub(super) fn text(out: &mut Vec<u8>, field: u64, value: &[u8]) {
    if str::from_utf8(value).is_ok() {
        return bytes(out, field, value);
    }
    let latin: String = value.iter().copied().map(char::from).collect();
    bytes(out, field, latin.as_bytes());
}

/// Appends a field with the message that `write` appends.
pub(super) fn message(out: &mut Vec<u8>, field: u64, write: impl FnOnce(&mut Vec<u8>)) {
    varint(out, field << 3 | LENGTH);
    // Most are so short that their length is one byte.
    let place = out.len();
    out.push(0);
    write(out);
    let length = (out.len() - place - 1) as u64;
    if let (Some(first), true) = (out.get_mut(place), length < 1 << BITS) {
        *first = length.to_le_bytes()[0];
        return;
    }
    let mut prefix = Vec::with_capacity(5);
    varint(&mut prefix, length);
    out.splice(place..=place, prefix);
}

fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 1 << BITS {
        out.push(value.to_le_bytes()[0] | 1 << BITS);
        value >>= BITS;
    }
    out.push(value.to_le_bytes()[0]);
}

/// What a field of an answer holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Content<'a> {
    /// A number.
    Number(u64),
    /// Bytes, text or a message.
    Bytes(&'a [u8]),
}

/// Takes the next field off `message`: its number and content; absent at the end, and where it is no message.
pub(super) fn take<'a>(message: &mut &'a [u8]) -> Option<(u64, Content<'a>)> {
    let tag = take_varint(message)?;
    let content = match tag & 7 {
        VARINT => Content::Number(take_varint(message)?),
        FIXED64 => Content::Bytes(message.split_off(..8)?),
        FIXED32 => Content::Bytes(message.split_off(..4)?),
        LENGTH => {
            let length = usize::try_from(take_varint(message)?).ok()?;
            Content::Bytes(message.split_off(..length)?)
        }
        _ => return None,
    };
    Some((tag >> 3, content))
}

fn take_varint(message: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..u64::BITS).step_by(BITS as usize) {
        let byte = *message.split_off_first()?;
        value |= u64::from(byte & !(1 << BITS)) << shift;
        if byte < 1 << BITS {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read() {
        for length in [0, 1, 127, 128, 300, 16_383, 16_384] {
            let mut out = Vec::new();
            number(&mut out, 1, length as u64);
            message(&mut out, 2, |out| {
                fixed(out, 3, u64::MAX);
                bytes(out, 200, &vec![7; length]);
            });
            text(&mut out, 4, b"a\xff");
            let mut rest = &out[..];
            assert_eq!(take(&mut rest), Some((1, Content::Number(length as u64))));
            let Some((2, Content::Bytes(mut inner))) = take(&mut rest) else { panic!("{rest:?}") };
            assert_eq!(take(&mut inner), Some((3, Content::Bytes(&[0xff; 8]))));
            assert_eq!(take(&mut inner), Some((200, Content::Bytes(&vec![7; length]))));
            assert_eq!((take(&mut inner), inner.len()), (None, 0));
            assert_eq!(take(&mut rest), Some((4, Content::Bytes("a\u{ff}".as_bytes()))));
            assert!(rest.is_empty());
        }
    }

    /// The examples of the encoding's own document.
    #[test]
    fn as_others_write_it() {
        let mut out = Vec::new();
        number(&mut out, 1, 150);
        assert_eq!(out, [0x08, 0x96, 0x01]);
        out.clear();
        text(&mut out, 2, b"testing");
        assert_eq!(out, b"\x12\x07testing");
        out.clear();
        message(&mut out, 3, |out| number(out, 1, 150));
        assert_eq!(out, [0x1a, 0x03, 0x08, 0x96, 0x01]);
    }

    #[test]
    fn nonsense_is_no_field() {
        for nonsense in [&b""[..], b"\x08", b"\x0a\x05abcd", b"\x0b", b"\x09\x01", &[0xff; 11]] {
            assert_eq!(take(&mut &*nonsense), None, "{nonsense:?}");
        }
    }
}
