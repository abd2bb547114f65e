//! Sixteen bytes at once: for a question about each of them, one bit for each answer, the first byte's the lowest.

/// Bytes that are looked at together.
pub(super) const LANES: usize = 16;

/// Which are control characters, TAB among them.
#[inline(always)]
pub(super) fn controls(bytes: &[u8; LANES]) -> u32 {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: SSE2 is a part of every processor of this architecture, and of its ABI.
    unsafe {
        sse2::controls(bytes)
    }
    #[cfg(not(target_arch = "x86_64"))]
    portable::controls(bytes)
}

/// Which are letters of ASCII, digits or hyphens, of which nearly all field names are.
#[inline(always)]
pub(super) fn name_bytes(bytes: &[u8; LANES]) -> u32 {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: as above.
    unsafe {
        sse2::name_bytes(bytes)
    }
    #[cfg(not(target_arch = "x86_64"))]
    portable::name_bytes(bytes)
}

/// A few instructions, where the compiler makes a hundred of [`portable`]. Reads and writes no memory by pointers.
#[cfg(target_arch = "x86_64")]
mod sse2 {
    use std::arch::x86_64::{
        __m128i, _mm_cmpeq_epi8, _mm_min_epu8, _mm_movemask_epi8, _mm_or_si128, _mm_set_epi64x,
        _mm_set1_epi8, _mm_sub_epi8,
    };

    /// The compiler makes it one load.
    #[inline]
    #[target_feature(enable = "sse2")]
    fn load(bytes: &[u8; 16]) -> __m128i {
        let number = u128::from_le_bytes(*bytes);
        _mm_set_epi64x((number >> 64) as i64, number as i64)
    }

    #[inline]
    #[target_feature(enable = "sse2")]
    fn all(byte: u8) -> __m128i {
        _mm_set1_epi8(byte as i8)
    }

    #[inline]
    #[target_feature(enable = "sse2")]
    fn is(bytes: __m128i, byte: u8) -> __m128i {
        _mm_cmpeq_epi8(bytes, all(byte))
    }

    /// Whether each is from `first` on one of `count`.
    #[inline]
    #[target_feature(enable = "sse2")]
    fn is_among(bytes: __m128i, first: u8, count: u8) -> __m128i {
        let from = _mm_sub_epi8(bytes, all(first));
        _mm_cmpeq_epi8(_mm_min_epu8(from, all(count - 1)), from)
    }

    #[inline]
    #[target_feature(enable = "sse2")]
    pub(super) fn controls(bytes: &[u8; 16]) -> u32 {
        let bytes = load(bytes);
        _mm_movemask_epi8(_mm_or_si128(is_among(bytes, 0, b' '), is(bytes, 0x7f))) as u32
    }

    #[inline]
    #[target_feature(enable = "sse2")]
    pub(super) fn name_bytes(bytes: &[u8; 16]) -> u32 {
        let bytes = load(bytes);
        let letters = is_among(_mm_or_si128(bytes, all(0x20)), b'a', 26);
        let others = _mm_or_si128(is_among(bytes, b'0', 10), is(bytes, b'-'));
        _mm_movemask_epi8(_mm_or_si128(letters, others)) as u32
    }
}

/// The same without instructions of one kind of processor.
#[cfg(any(test, not(target_arch = "x86_64")))]
mod portable {
    #[inline(always)]
    fn bits(bytes: &[u8; 16], is: impl Fn(u8) -> bool) -> u32 {
        bytes.iter().rev().fold(0, |bits, byte| bits << 1 | u32::from(is(*byte)))
    }

    pub(super) fn controls(bytes: &[u8; 16]) -> u32 {
        bits(bytes, |byte| byte.is_ascii_control())
    }

    pub(super) fn name_bytes(bytes: &[u8; 16]) -> u32 {
        bits(bytes, |byte| byte.is_ascii_alphanumeric() || byte == b'-')
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_at_every_place_is_what_it_is() {
        for others in [b'a', b'\r', b' ', 0xff] {
            for place in 0..LANES {
                for byte in 0..=255 {
                    let mut bytes = [others; LANES];
                    bytes[place] = byte;
                    assert_eq!(controls(&bytes), portable::controls(&bytes), "{bytes:x?}");
                    assert_eq!(name_bytes(&bytes), portable::name_bytes(&bytes), "{bytes:x?}");
                    assert_eq!(controls(&bytes) >> place & 1 == 1, byte < 0x20 || byte == 0x7f);
                    let is_of_names = matches!(byte, b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-');
                    assert_eq!(name_bytes(&bytes) >> place & 1 == 1, is_of_names);
                }
            }
        }
    }
}
