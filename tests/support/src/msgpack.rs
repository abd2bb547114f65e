//! MessagePack as fluentd's clients speak it, read from a stream. It shares nothing with the program under test.

use std::io::{self, Read};

use serde_json::{Map, Value};

/// Deeper than any message is.
const MAX_DEPTH: usize = 16;

/// A value that was read: what JSON has none of is there as it is.
#[derive(Clone, Debug, PartialEq)]
pub enum Packed {
    /// Numbers, truth, nothing, text, and maps of these by text.
    Plain(Value),
    /// Bytes.
    Bytes(Vec<u8>),
    /// One after the other.
    List(Vec<Packed>),
    /// A type, and its bytes.
    Extension(u8, Vec<u8>),
}

impl Packed {
    /// Plain, or of something else nothing.
    pub fn plain(self) -> Value {
        match self {
            Self::Plain(value) => value,
            Self::List(items) => items.into_iter().map(Self::plain).collect(),
            Self::Bytes(_) | Self::Extension(..) => Value::Null,
        }
    }
}

/// Reads one value.
///
/// # Errors
/// The stream ends or fails, or it is no such value.
pub fn read(from: &mut impl Read) -> io::Result<Packed> {
    value(from, 0)
}

fn value(from: &mut impl Read, depth: usize) -> io::Result<Packed> {
    if depth > MAX_DEPTH {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let marker = number(from, 1)? as u8;
    let plain = |value: Value| Ok(Packed::Plain(value));
    match marker {
        0x00..=0x7f => plain(marker.into()),
        0x80..=0x8f => map(from, u64::from(marker & 0x0f), depth),
        0x90..=0x9f => list(from, u64::from(marker & 0x0f), depth),
        0xa0..=0xbf => text(from, u64::from(marker & 0x1f)),
        0xc0 => plain(Value::Null),
        0xc2 | 0xc3 => plain((marker == 0xc3).into()),
        0xc4..=0xc6 => {
            let length = number(from, 1 << (marker - 0xc4))?;
            bytes(from, length).map(Packed::Bytes)
        }
        0xca => plain(f32::from_bits(number(from, 4)? as u32).into()),
        0xcb => plain(f64::from_bits(number(from, 8)?).into()),
        0xcc..=0xcf => plain(number(from, 1 << (marker - 0xcc))?.into()),
        0xd0..=0xd3 => {
            let width = 1 << (marker - 0xd0);
            let unused = 64 - 8 * width as u32;
            plain(((number(from, width)? << unused).cast_signed() >> unused).into())
        }
        0xd4..=0xd8 => {
            let kind = number(from, 1)? as u8;
            bytes(from, 1 << (marker - 0xd4)).map(|bytes| Packed::Extension(kind, bytes))
        }
        0xd9..=0xdb => {
            let length = number(from, 1 << (marker - 0xd9))?;
            text(from, length)
        }
        0xdc | 0xdd => {
            let count = number(from, 2 << (marker - 0xdc))?;
            list(from, count, depth)
        }
        0xde | 0xdf => {
            let count = number(from, 2 << (marker - 0xde))?;
            map(from, count, depth)
        }
        0xe0..=0xff => plain(i64::from(marker.cast_signed()).into()),
        0xc1 | 0xc7..=0xc9 => Err(io::ErrorKind::InvalidData.into()),
    }
}

/// A number of so many bytes, the highest first.
fn number(from: &mut impl Read, width: usize) -> io::Result<u64> {
    let mut bytes = [0; 8];
    from.read_exact(&mut bytes[8 - width..])?;
    Ok(u64::from_be_bytes(bytes))
}

fn bytes(from: &mut impl Read, length: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let read = from.take(length).read_to_end(&mut bytes)?;
    if read as u64 == length { Ok(bytes) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}

fn text(from: &mut impl Read, length: u64) -> io::Result<Packed> {
    let bytes = bytes(from, length)?;
    let text = String::from_utf8(bytes).map_err(|_| io::ErrorKind::InvalidData)?;
    Ok(Packed::Plain(text.into()))
}

fn list(from: &mut impl Read, count: u64, depth: usize) -> io::Result<Packed> {
    (0..count).map(|_| value(from, depth + 1)).collect::<io::Result<_>>().map(Packed::List)
}

fn map(from: &mut impl Read, count: u64, depth: usize) -> io::Result<Packed> {
    let mut map = Map::new();
    for _ in 0..count {
        let key = value(from, depth + 1)?.plain();
        let key = key.as_str().ok_or(io::ErrorKind::InvalidData)?.to_owned();
        map.insert(key, value(from, depth + 1)?.plain());
    }
    Ok(Packed::Plain(map.into()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn values_are_as_the_specification_has_them() {
        for (bytes, expected) in [
            (&[0x07][..], json!(7)),
            (&[0xff], json!(-1)),
            (&[0xcd, 0x01, 0x00], json!(256)),
            (&[0xd1, 0xff, 0x00], json!(-256)),
            (&[0xd3, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xfe], json!(-2)),
            (&[0xcb, 0x3f, 0xf8, 0, 0, 0, 0, 0, 0], json!(1.5)),
            (&[0xa1, b'a'], json!("a")),
            (&[0xd9, 1, b'a'], json!("a")),
            (&[0xc3], json!(true)),
            (&[0x81, 0xa1, b'a', 0x92, 0xc0, 0xc2], json!({ "a": [null, false] })),
            (&[0xdc, 0, 1, 0x01], json!([1])),
        ] {
            assert_eq!(read(&mut &bytes[..]).ok().map(Packed::plain), Some(expected), "{bytes:?}");
            assert!(read(&mut &bytes[..bytes.len() - 1]).is_err(), "{bytes:?}");
        }
        assert_eq!(read(&mut &[0xc4, 2, 1, 2][..]).ok(), Some(Packed::Bytes(vec![1, 2])));
        assert_eq!(read(&mut &[0xd4, 5, 9][..]).ok(), Some(Packed::Extension(5, vec![9])));
        assert!(read(&mut &[0x91; MAX_DEPTH + 2][..]).is_err());
        assert!(read(&mut &[0xc1][..]).is_err());
    }
}
