//! Numbers and times as text, exact: integers, nanoseconds as decimal seconds, RFC 3339. No floating point.

use std::{io::Write as _, net::IpAddr};

const NANOSECONDS: u64 = 1_000_000_000;

/// Appends `value` in decimal.
#[inline]
pub fn push_integer(out: &mut Vec<u8>, value: u64) {
    if value < 10 { out.push(b'0' + value as u8) } else { push_digits(out, value) }
}

fn push_digits(out: &mut Vec<u8>, value: u64) {
    if value >= EIGHT_DIGITS {
        return out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
    }
    let digits = eight(value as u32);
    let zeros = digits.trailing_zeros() / 8;
    let text = (digits | ASCII_ZEROS) >> (8 * zeros);
    push_first(out, text.to_le_bytes(), 8 - zeros as usize);
}

/// Appends the first `count` of `text`: a copy of known length is a few instructions, one of any length a call.
#[inline]
fn push_first<const ROOM: usize>(out: &mut Vec<u8>, text: [u8; ROOM], count: usize) {
    let end = out.len() + count;
    out.extend_from_slice(&text);
    out.truncate(end);
}

/// Appends `nanoseconds` as seconds: an exact decimal number without trailing zeros.
pub fn push_seconds(out: &mut Vec<u8>, nanoseconds: u64) {
    if nanoseconds >= NANOSECONDS {
        push_integer(out, nanoseconds / NANOSECONDS);
    } else {
        out.push(b'0');
    }
    let fraction = (nanoseconds % NANOSECONDS) as u32;
    let first = b'0' + (fraction / EIGHT_DIGITS as u32) as u8;
    let rest = eight(fraction % EIGHT_DIGITS as u32);
    let zeros = rest.leading_zeros() / 8;
    if zeros == 8 && first == b'0' {
        return;
    }
    // Out of registers, piece by piece: what is put together in memory first has to be waited for.
    out.extend_from_slice(&[b'.', first]);
    push_first(out, (rest | ASCII_ZEROS).to_le_bytes(), 8 - zeros as usize);
}

/// Appends `millionths` as a decimal number.
pub fn push_millionths(out: &mut Vec<u8>, millionths: u32) {
    push_seconds(out, u64::from(millionths) * 1000);
}

/// Appends `value` in `DIGITS` lower-case hexadecimal digits, at most 16.
pub fn push_hex<const DIGITS: usize>(out: &mut Vec<u8>, value: u64) {
    let all = digits_of_hex(value);
    out.extend_from_slice(all.last_chunk::<DIGITS>().unwrap_or(&[b'0'; DIGITS]));
}

fn digits_of_hex(value: u64) -> [u8; 16] {
    let mut all = [0; 16];
    for (two, byte) in all.as_chunks_mut::<2>().0.iter_mut().zip(value.to_be_bytes()) {
        *two = HEX_PAIRS.get(usize::from(byte)).copied().unwrap_or_default();
    }
    all
}

/// Writes times, of which most are in the same second as the one before.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    /// After 1970.
    second: u64,
    /// Of that second, with the point behind it.
    text: [u8; 20],
}

impl Default for Clock {
    fn default() -> Self {
        Self { second: 0, text: *b"1970-01-01T00:00:00." }
    }
}

impl Clock {
    /// Appends the UTC time `nanoseconds` after 1970 as in RFC 3339, with all nine digits.
    pub fn push_time(&mut self, out: &mut Vec<u8>, nanoseconds: u64) {
        let second = nanoseconds / NANOSECONDS;
        if second != self.second {
            self.turn(second);
        }
        let fraction = (nanoseconds % NANOSECONDS) as u32;
        let (first, rest) = (fraction / EIGHT_DIGITS as u32, fraction % EIGHT_DIGITS as u32);
        out.extend_from_slice(&self.text);
        out.push(b'0' + first as u8);
        out.extend_from_slice(&(eight(rest) | ASCII_ZEROS).to_le_bytes());
        out.push(b'Z');
    }

    #[cold]
    fn turn(&mut self, second: u64) {
        let (year, month, day) = civil(second / 86_400);
        let date = eight((year % 10_000 * 10_000 + month * 100 + day) as u32) | ASCII_ZEROS;
        let [y1, y2, y3, y4, m1, m2, d1, d2] = date.to_le_bytes();
        let [h1, h2, c1, n1, n2, c2, s1, s2] = clock((second % 86_400) as u32);
        self.second = second;
        self.text = [y1, y2, y3, y4, b'-', m1, m2, b'-', d1, d2, b'T', h1, h2, c1, n1, n2, c2, s1, s2, b'.'];
    }
}

/// Appends `HH:MM:SS` of a second of the day.
pub fn push_clock(out: &mut Vec<u8>, second_of_day: u64) {
    out.extend_from_slice(&clock(second_of_day as u32));
}

fn clock(second_of_day: u32) -> [u8; 8] {
    let (hour, minute, second) = (second_of_day / 3600, second_of_day / 60 % 60, second_of_day % 60);
    let [.., h1, h2, m1, m2, s1, s2] =
        (eight(hour * 10_000 + minute * 100 + second) | ASCII_ZEROS).to_le_bytes();
    [h1, h2, b':', m1, m2, b':', s1, s2]
}

/// Appends `value` with leading zeros to `WIDTH` digits; higher digits are left out.
pub fn push_padded<const WIDTH: usize>(out: &mut Vec<u8>, value: u64) {
    out.extend_from_slice(&digits::<WIDTH>(value));
}

/// Appends an IP address as people write it (RFC 5952 for IPv6).
pub fn push_address(out: &mut Vec<u8>, address: IpAddr) {
    match address {
        IpAddr::V4(address) => push_ipv4(out, address.octets()),
        IpAddr::V6(address) => {
            // A Vec takes every write.
            let _ = write!(out, "{address}");
        }
    }
}

fn push_ipv4(out: &mut Vec<u8>, octets: [u8; 4]) {
    for octet in octets {
        let (digits, count) = OCTETS.get(usize::from(octet)).copied().unwrap_or_default();
        push_first(out, digits, usize::from(count) + 1);
    }
    // The last dot.
    out.pop();
}

/// The octet in decimal with a dot behind it, and how many digits it has.
static OCTETS: [([u8; 4], u8); 256] = {
    let mut octets = [([b'.'; 4], 0); 256];
    let mut octet = 0;
    while octet < 256 {
        let (hundreds, tens, ones) = (octet / 100, octet / 10 % 10, octet % 10);
        let [hundreds, tens, ones] = [b'0' + hundreds as u8, b'0' + tens as u8, b'0' + ones as u8];
        octets[octet] = match octet {
            0..=9 => ([ones, b'.', b'.', b'.'], 1),
            10..=99 => ([tens, ones, b'.', b'.'], 2),
            _ => ([hundreds, tens, ones, b'.'], 3),
        };
        octet += 1;
    }
    octets
};

/// The two hexadecimal digits of a byte.
static HEX_PAIRS: [[u8; 2]; 256] = {
    let mut pairs = [[0; 2]; 256];
    let mut byte = 0;
    while byte < 256 {
        pairs[byte] = [hex_digit((byte / 16) as u8), hex_digit((byte % 16) as u8)];
        byte += 1;
    }
    pairs
};

/// One more than the largest number of eight digits.
const EIGHT_DIGITS: u64 = 100_000_000;
/// Eight zeros in ASCII.
const ASCII_ZEROS: u64 = 0x3030_3030_3030_3030;

/// The eight decimal digits of a number below [`EIGHT_DIGITS`] as numbers, the first in the lowest byte: by arithmetic on
/// two halves, four pairs and eight digits at once, each in its part of the word. The factors are reciprocals, exact for as
/// many digits as they are used on.
const fn eight(number: u32) -> u64 {
    let halves = (number / 10_000) as u64 | ((number % 10_000) as u64) << 32;
    let hundreds = ((halves * 5243) >> 19) & 0x7f_0000_007f;
    let pairs = hundreds | (halves - 100 * hundreds) << 16;
    let tens = ((pairs * 103) >> 10) & 0x000f_000f_000f_000f;
    tens | (pairs - 10 * tens) << 8
}

/// The last `WIDTH` decimal digits of `value`.
fn digits<const WIDTH: usize>(value: u64) -> [u8; WIDTH] {
    let mut digits = [b'0'; WIDTH];
    let mut rest = value;
    for digit in digits.iter_mut().rev() {
        *digit = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
    digits
}

const fn hex_digit(digit: u8) -> u8 {
    if digit < 10 { b'0' + digit } else { b'a' + digit - 10 }
}

/// Year, month and day of the `days`-th day after 1970-01-01, proleptic Gregorian. Counts in eras of 400 years that
/// begin in March, so that the leap day is the last of its year.
const fn civil(days: u64) -> (u64, u64, u64) {
    const DAYS_OF_ERA: u64 = 146_097;
    const DAYS_BEFORE_1970: u64 = 719_468;
    let days = days + DAYS_BEFORE_1970;
    let era = days / DAYS_OF_ERA;
    let day_of_era = days % DAYS_OF_ERA;
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era * 400 + if month <= 2 { 1 } else { 0 };
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(write: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        write(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn seconds_are_exact() {
        let check = |nanoseconds, expected: &str| {
            assert_eq!(written(|out| push_seconds(out, nanoseconds)), expected);
        };
        check(0, "0");
        check(1, "0.000000001");
        check(41_000, "0.000041");
        check(1_834_000, "0.001834");
        check(999_999_999, "0.999999999");
        check(1_000_000_000, "1");
        check(10_000_000_000, "10");
        check(1_500_000_000, "1.5");
        check(u64::MAX, "18446744073.709551615");
    }

    #[test]
    fn times_are_rfc3339() {
        let mut clock = Clock::default();
        let mut check = |seconds: u64, nanoseconds: u64, expected: &str| {
            for clock in [&mut Clock::default(), &mut clock] {
                let write = |out: &mut _| clock.push_time(out, seconds * NANOSECONDS + nanoseconds);
                assert_eq!(written(write), expected);
            }
        };
        check(0, 0, "1970-01-01T00:00:00.000000000Z");
        check(0, 999_999_999, "1970-01-01T00:00:00.999999999Z");
        check(1, 100_000_000, "1970-01-01T00:00:01.100000000Z");
        check(1, 99_999_999, "1970-01-01T00:00:01.099999999Z");
        check(951_782_400, 0, "2000-02-29T00:00:00.000000000Z");
        check(951_868_799, 999_999_999, "2000-02-29T23:59:59.999999999Z");
        check(951_868_800, 0, "2000-03-01T00:00:00.000000000Z");
        check(4_107_542_400, 1, "2100-03-01T00:00:00.000000001Z");
        check(1_795_248_930, 123_456_789, "2026-11-21T08:15:30.123456789Z");
    }

    #[test]
    fn every_day_of_four_centuries_follows_the_day_before() {
        let mut previous = civil(0);
        for day in 1..=146_097 {
            let this = civil(day);
            let next_day = this == (previous.0, previous.1, previous.2 + 1);
            let next_month = this == (previous.0, previous.1 + 1, 1) && previous.2 >= 28;
            let next_year = this == (previous.0 + 1, 1, 1) && (previous.1, previous.2) == (12, 31);
            assert!(next_day || next_month || next_year, "{previous:?} then {this:?}");
            previous = this;
        }
        assert_eq!(previous, (2370, 1, 1));
    }

    #[test]
    fn integers_are_as_the_standard_library_has_them() {
        let mut value = 1_u64;
        while value < u64::MAX / 3 {
            for near in [value - 1, value, value + 1] {
                assert_eq!(written(|out| push_integer(out, near)), near.to_string());
            }
            value = if value < 12_000 { value + 1 } else { value * 3 };
        }
    }

    #[test]
    fn eight_digits_are_those_of_the_number() {
        let check = |number: u32| {
            let text = (eight(number) | ASCII_ZEROS).to_le_bytes();
            assert_eq!(str::from_utf8(&text).unwrap(), format!("{number:08}"));
        };
        (0..10_000).for_each(check);
        (0..10_000).for_each(|high| check(high * 10_000 + 9999));
    }

    #[test]
    fn rates_and_ids() {
        assert_eq!(written(|out| push_millionths(out, 100_000)), "0.1");
        assert_eq!(written(|out| push_millionths(out, 1_000_000)), "1");
        assert_eq!(written(|out| push_millionths(out, 1)), "0.000001");
        assert_eq!(written(|out| push_hex::<16>(out, 0x9f0c)), "0000000000009f0c");
    }

    #[test]
    fn addresses_are_as_the_standard_library_has_them() {
        let octets = [0, 1, 9, 10, 99, 100, 199, 255];
        for (index, first) in octets.into_iter().enumerate() {
            for last in octets {
                let address = IpAddr::from([first, last, octets[7 - index], 7]);
                assert_eq!(written(|out| push_address(out, address)), address.to_string());
            }
        }
        for address in ["::", "::1", "fd00::1:0:0:2", "2001:db8::ffff"] {
            let address: IpAddr = address.parse().unwrap();
            assert_eq!(written(|out| push_address(out, address)), address.to_string());
        }
    }
}
