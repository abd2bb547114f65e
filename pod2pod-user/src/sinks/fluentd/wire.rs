//! What fluentd says, as MessagePack: read piece by piece, without believing a length before its bytes are there.

use rmp::Marker;

/// Why there is nothing to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// It goes on behind what is there.
    Short,
    /// It is something else.
    Nonsense,
}

/// What is left to read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reader<'a> {
    pub(super) rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(super) const fn new(rest: &'a [u8]) -> Self {
        Self { rest }
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], Fault> {
        let (taken, rest) = self.rest.split_at_checked(count).ok_or(Fault::Short)?;
        self.rest = rest;
        Ok(taken)
    }

    /// What a value begins with (MessagePack specification, "Formats").
    fn byte(&mut self) -> Result<u8, Fault> {
        self.take(1)?.first().copied().ok_or(Fault::Short)
    }

    /// A number of so many bytes, the highest first.
    fn number(&mut self, bytes: usize) -> Result<usize, Fault> {
        Ok(self.take(bytes)?.iter().fold(0, |number, byte| number << 8 | usize::from(*byte)))
    }

    /// How many items an array has.
    pub(super) fn array(&mut self) -> Result<usize, Fault> {
        match self.byte()? {
            byte @ 0x90..=0x9f => Ok((byte & 0x0f).into()),
            0xdc => self.number(2),
            0xdd => self.number(4),
            _ => Err(Fault::Nonsense),
        }
    }

    /// How many pairs a map has.
    pub(super) fn map(&mut self) -> Result<usize, Fault> {
        match self.byte()? {
            byte @ 0x80..=0x8f => Ok((byte & 0x0f).into()),
            0xde => self.number(2),
            0xdf => self.number(4),
            _ => Err(Fault::Nonsense),
        }
    }

    /// Text or bytes: what is which differs between servers.
    pub(super) fn text(&mut self) -> Result<&'a [u8], Fault> {
        let length = match self.byte()? {
            byte @ 0xa0..=0xbf => (byte & 0x1f).into(),
            0xc4 | 0xd9 => self.number(1)?,
            0xc5 | 0xda => self.number(2)?,
            0xc6 | 0xdb => self.number(4)?,
            _ => return Err(Fault::Nonsense),
        };
        self.take(length)
    }

    pub(super) fn boolean(&mut self) -> Result<bool, Fault> {
        match self.byte()? {
            0xc3 => Ok(true),
            0xc2 => Ok(false),
            _ => Err(Fault::Nonsense),
        }
    }

    /// Anything, with all that is in it: without recursion, however deep.
    pub(super) fn skip(&mut self) -> Result<(), Fault> {
        let mut left: usize = 1;
        while left > 0 {
            left -= 1;
            let (bytes, more) = match Marker::from_u8(self.byte()?) {
                Marker::Null | Marker::True | Marker::False | Marker::FixPos(_) | Marker::FixNeg(_) => (0, 0),
                Marker::U8 | Marker::I8 => (1, 0),
                Marker::U16 | Marker::I16 | Marker::FixExt1 => (2, 0),
                Marker::FixExt2 => (3, 0),
                Marker::U32 | Marker::I32 | Marker::F32 => (4, 0),
                Marker::FixExt4 => (5, 0),
                Marker::U64 | Marker::I64 | Marker::F64 => (8, 0),
                Marker::FixExt8 => (9, 0),
                Marker::FixExt16 => (17, 0),
                Marker::FixStr(length) => (length.into(), 0),
                Marker::Str8 | Marker::Bin8 => (self.number(1)?, 0),
                Marker::Str16 | Marker::Bin16 => (self.number(2)?, 0),
                Marker::Str32 | Marker::Bin32 => (self.number(4)?, 0),
                Marker::Ext8 => (self.number(1)? + 1, 0),
                Marker::Ext16 => (self.number(2)? + 1, 0),
                Marker::Ext32 => (self.number(4)? + 1, 0),
                Marker::FixArray(count) => (0, count.into()),
                Marker::Array16 => (0, self.number(2)?),
                Marker::Array32 => (0, self.number(4)?),
                Marker::FixMap(count) => (0, 2 * usize::from(count)),
                Marker::Map16 => (0, 2 * self.number(2)?),
                Marker::Map32 => (0, 2 * self.number(4)?),
                Marker::Reserved => return Err(Fault::Nonsense),
            };
            self.take(bytes)?;
            left = left.saturating_add(more);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn anything_is_passed_over_and_what_is_cut_is_short() {
        for value in [
            &b"\xc0"[..],
            b"\x01",
            b"\xff",
            b"\xcc\x01",
            b"\xcd\x01\x02",
            b"\xce\x01\x02\x03\x04",
            b"\xcf\x01\x02\x03\x04\x05\x06\x07\x08",
            b"\xca\x01\x02\x03\x04",
            b"\xa1a",
            b"\xd9\x01a",
            b"\xda\0\x01a",
            b"\xdb\0\0\0\x01a",
            b"\xc4\x01a",
            b"\xc5\0\x01a",
            b"\xc6\0\0\0\x01a",
            b"\xd4\x01a",
            b"\xd5\x01ab",
            b"\xd6\x01abcd",
            b"\xd7\x01abcdefgh",
            b"\xd8\x01abcdefghabcdefgh",
            b"\xc7\x01\x01a",
            b"\xc8\0\x01\x01a",
            b"\xc9\0\0\0\x01\x01a",
            b"\x92\x01\xa1a",
            b"\xdc\0\x01\x01",
            b"\xdd\0\0\0\x01\x01",
            b"\x81\x01\x91\xc0",
            b"\xde\0\x01\x01\x02",
            b"\xdf\0\0\0\x01\x01\x02",
        ] {
            let with_more = [value, b"x"].concat();
            let mut reader = Reader::new(&with_more);
            assert_eq!((reader.skip(), reader.rest), (Ok(()), &b"x"[..]), "{value:x?}");
            for end in 0..value.len() {
                assert_eq!(Reader::new(&value[..end]).skip(), Err(Fault::Short), "{value:x?}");
            }
        }
        assert_eq!(Reader::new(b"\xc1").skip(), Err(Fault::Nonsense));
        // As deep as it is long, and as long as it says.
        assert_eq!(Reader::new(&[0x91; 100_000]).skip(), Err(Fault::Short));
        assert_eq!(Reader::new(b"\xdf\xff\xff\xff\xff").skip(), Err(Fault::Short));
        assert_eq!(Reader::new(b"\xdb\xff\xff\xff\xff").text(), Err(Fault::Short));
    }

    #[test]
    fn what_is_something_else_is_nonsense() {
        assert_eq!(Reader::new(b"\xc0").text(), Err(Fault::Nonsense));
        assert_eq!(Reader::new(b"\xc0").map(), Err(Fault::Nonsense));
        assert_eq!(Reader::new(b"\xc0").array(), Err(Fault::Nonsense));
        assert_eq!(Reader::new(b"\xc0").boolean(), Err(Fault::Nonsense));
    }
}
