//! Columns and what is in them: words, numbers, addresses. Absent is what is not as the kernel writes it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The columns of a line.
#[derive(Clone, Copy, Debug)]
pub(super) struct Words<'a> {
    rest: &'a [u8],
}

impl<'a> Words<'a> {
    pub(super) const fn new(line: &'a [u8]) -> Self {
        Self { rest: line }
    }

    /// The next column; empty behind the last one.
    #[inline]
    pub(super) fn next(&mut self) -> &'a [u8] {
        let start = self.rest.iter().position(|byte| !byte.is_ascii_whitespace()).unwrap_or(self.rest.len());
        let (_, rest) = self.rest.split_at(start);
        let end = rest.iter().position(u8::is_ascii_whitespace).unwrap_or(rest.len());
        let (word, rest) = rest.split_at(end);
        self.rest = rest;
        word
    }

    /// The next column as an address.
    #[inline]
    pub(super) fn address(&mut self) -> Option<IpAddr> {
        match self.take::<8>() {
            Some(bits) => Some(IpAddr::V4(Ipv4Addr::from_bits(bits as u32))),
            None => address(self.next()),
        }
    }

    /// The next column as a port.
    #[inline]
    pub(super) fn port(&mut self) -> Option<u16> {
        match self.take::<4>() {
            Some(port) => Some(port as u16),
            None => port(self.next()),
        }
    }

    /// The short way for what most columns are: so many digits and a space. Takes nothing if the next bytes are otherwise.
    #[inline]
    fn take<const DIGITS: usize>(&mut self) -> Option<u64> {
        let (digits, behind) = self.rest.split_first_chunk::<DIGITS>()?;
        let (space, behind) = behind.split_first()?;
        let number = hexadecimal(digits).filter(|_| *space == b' ')?;
        self.rest = behind;
        Some(number)
    }

    /// What follows, without the white space around it.
    pub(super) const fn rest(&self) -> &'a [u8] {
        self.rest.trim_ascii()
    }
}

/// A decimal number; what is too large for 64 bits is the largest of them.
pub(super) fn decimal(word: &[u8]) -> Option<u64> {
    let digit = |byte: &u8| byte.is_ascii_digit().then(|| u64::from(byte - b'0'));
    let first = digit(word.first()?)?;
    word.iter().skip(1).try_fold(first, |number, byte| {
        let digit = digit(byte)?;
        Some(number.checked_mul(10).and_then(|number| number.checked_add(digit)).unwrap_or(u64::MAX))
    })
}

/// Values of hexadecimal digits; [`NO_DIGIT`] for the rest.
static HEX: [u8; 256] = {
    let mut table = [NO_DIGIT; 256];
    let mut value = 0;
    while value < 16 {
        table[b"0123456789abcdef"[value] as usize] = value as u8;
        table[b"0123456789ABCDEF"[value] as usize] = value as u8;
        value += 1;
    }
    table
};
const NO_DIGIT: u8 = 0xff;

/// Hexadecimal digits, at least one and at most 16, of either case.
#[inline]
pub(super) fn hexadecimal(word: &[u8]) -> Option<u64> {
    if word.is_empty() || word.len() > 16 {
        return None;
    }
    let mut number = 0;
    let mut all = 0;
    for byte in word {
        let digit = HEX.get(usize::from(*byte)).copied().unwrap_or(NO_DIGIT);
        all |= digit;
        number = number << 4 | u64::from(digit & 0xf);
    }
    (all < 16).then_some(number)
}

/// Exactly `DIGITS` hexadecimal digits.
#[inline]
fn digits<const DIGITS: usize>(word: &[u8]) -> Option<u64> {
    hexadecimal(word.as_array::<DIGITS>()?)
}

/// A port: four digits.
#[inline]
pub(super) fn port(word: &[u8]) -> Option<u16> {
    digits::<4>(word)?.try_into().ok()
}

/// An address: 8 digits of IPv4, or eight groups of 4 digits of IPv6.
#[inline]
pub(super) fn address(word: &[u8]) -> Option<IpAddr> {
    match digits::<8>(word) {
        Some(bits) => Some(IpAddr::V4(Ipv4Addr::from_bits(bits.try_into().ok()?))),
        None => address6(word).map(IpAddr::V6),
    }
}

fn address6(word: &[u8]) -> Option<Ipv6Addr> {
    if word.len() != 39 {
        return None;
    }
    let mut bits = 0;
    for (index, group) in word.chunks(5).enumerate() {
        let (group, colon) = group.split_at_checked(4)?;
        if colon != if index == 7 { b"".as_slice() } else { b":" } {
            return None;
        }
        bits = bits << 16 | u128::from(digits::<4>(group)?);
    }
    Some(Ipv6Addr::from_bits(bits))
}

/// As `ip_vs` has ends: `0A60000A:0050` or `[fd00:…]:0050`.
pub(super) fn end(word: &[u8]) -> Option<(IpAddr, u16)> {
    let (before, behind) = word.split_at_checked(word.len().checked_sub(5)?)?;
    let address = match before.strip_prefix(b"[") {
        Some(inside) => IpAddr::V6(address6(inside.strip_suffix(b"]")?)?),
        None => address(before).filter(IpAddr::is_ipv4)?,
    };
    Some((address, port(behind.strip_prefix(b":")?)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_split_on_white_space() {
        let mut words = Words::new(b"  a  bc\td \r");
        assert_eq!([words.next(), words.next()], [b"a".as_slice(), b"bc"]);
        assert_eq!(words.rest(), b"d");
        assert_eq!([words.next(), words.next(), words.next()], [b"d".as_slice(), b"", b""]);
    }

    #[test]
    fn the_short_way_gives_what_the_long_one_gives() {
        for line in [
            "0AF40102 1F90 rest",
            " 0AF40102  1F90",
            "0AF40102\t1F90 ",
            "0AF40102",
            "0AF4010 1F90",
            "0AF401022 1F9",
            "0AF4010x 1F90x",
            "0AF4 0102",
        ] {
            let (mut short, mut long) = (Words::new(line.as_bytes()), Words::new(line.as_bytes()));
            assert_eq!(short.address(), address(long.next()), "{line}");
            assert_eq!(short.rest(), long.rest(), "{line}");
            assert_eq!(short.port(), port(long.next()), "{line}");
            assert_eq!(short.rest(), long.rest(), "{line}");
        }
    }

    #[test]
    fn numbers() {
        for (word, number) in [("0", Some(0)), ("0042", Some(42)), ("18446744073709551615", Some(u64::MAX))] {
            assert_eq!(decimal(word.as_bytes()), number, "{word}");
        }
        assert_eq!(decimal(b"99999999999999999999999999"), Some(u64::MAX), "as much as there is room for");
        for word in ["", "-1", "+1", "1a", " 1"] {
            assert_eq!(decimal(word.as_bytes()), None, "{word}");
        }
        assert_eq!(hexadecimal(b"2DDA"), Some(0x2dda));
        assert_eq!(hexadecimal(b"ffffffffffffffff"), Some(u64::MAX));
        for word in ["", "g", "0x1", "-1", "11111111111111111"] {
            assert_eq!(hexadecimal(word.as_bytes()), None, "{word}");
        }
        assert_eq!((port(b"1F90"), port(b"1F9"), port(b"01F90")), (Some(8080), None, None));
    }

    #[test]
    fn addresses() {
        for (word, text) in [
            ("0AF40102", "10.244.1.2"),
            ("0a60000a", "10.96.0.10"),
            ("fd00:0096:0000:0000:0000:0000:0000:0010", "fd00:96::10"),
            ("0000:0102:0000:0000:0000:0000:0000:0000", "0:102::"),
        ] {
            assert_eq!(address(word.as_bytes()), text.parse().ok(), "{word}");
        }
        for word in [
            "",
            "0AF4010",
            "0AF401022",
            "0AF4010G",
            "fd00::10",
            "[fd00:0096:0000:0000:0000:0000:0000:0010]",
            "fd00:0096:0000:0000:0000:0000:0000:001g",
            "fd00:0096:0000:0000:0000:0000:0000;0010",
            "fd00:0096:0000:0000:0000:0000:0000:0010:",
        ] {
            assert_eq!(address(word.as_bytes()), None, "{word}");
        }
    }

    #[test]
    fn ends() {
        assert_eq!(end(b"0A60000A:0050"), Some(("10.96.0.10".parse().unwrap(), 80)));
        let six = end(b"[fd00:0096:0000:0000:0000:0000:0000:0010]:0050");
        assert_eq!(six, Some(("fd00:96::10".parse().unwrap(), 80)));
        for word in ["", ":0050", "0A60000A", "0A60000A.0050", "fd00:0096:0000:0000:0000:0000:0000:0010:0050"]
        {
            assert_eq!(end(word.as_bytes()), None, "{word}");
        }
    }
}
