//! The pcap format (draft-ietf-opsawg-pcap): µs, ns and "modified" files in both byte orders, and the versions before
//! 2.4 that had the two lengths of a record the other way round.
//!
//! `pcap-parser` reads the file header. Its record parsers are not used: they know the modified format in one byte order
//! only and take the first length for the captured one in every version.

use pcap_parser::{PcapHeader, parse_pcap_header};

use super::{
    MAX_RECORD_BYTES, Record,
    error::{Damage, FileError, NotACapture},
    input::Input,
};
use crate::capture::{KernelInstant, packet::Frame};

const FILE_HEADER_BYTES: usize = 24;
const RECORD_HEADER_BYTES: usize = 16;
/// In the modified format, interface, protocol and packet type follow the lengths.
const MODIFIED_HEADER_BYTES: usize = 24;

/// Magics of the modified format, and those of the plain one, whose file header is the same.
const MODIFIED_MAGICS: [([u8; 4], [u8; 4]); 2] = [
    ([0xa1, 0xb2, 0xcd, 0x34], [0xa1, 0xb2, 0xc3, 0xd4]),
    ([0x34, 0xcd, 0xb2, 0xa1], [0xd4, 0xc3, 0xb2, 0xa1]),
];

const NANOSECONDS_PER_SECOND: u64 = 1_000_000_000;

/// Link type in the last header field; above it are the length of the frame check sequence and reserved bits.
const LINK_TYPE_MASK: u32 = 0x03ff_ffff;

/// Which of a record's two lengths is the captured one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LengthOrder {
    CapturedFirst,
    /// Versions before 2.3.
    OriginalFirst,
    /// Version 2.3 was written both ways: the smaller is the captured one.
    SmallerIsCaptured,
}

/// A pcap file after its header.
#[derive(Debug)]
pub(super) struct Classic {
    link_type: u32,
    big_endian: bool,
    record_header_bytes: usize,
    nanoseconds_per_unit: u64,
    length_order: LengthOrder,
}

impl Classic {
    /// Reads the file header.
    pub(super) fn open(input: &mut Input) -> Result<Self, FileError> {
        let Some(mut header) = input.peek(FILE_HEADER_BYTES)?.first_chunk::<FILE_HEADER_BYTES>().copied()
        else {
            return Err(input.not_a_capture(NotACapture::TooShort));
        };
        let mut record_header_bytes = RECORD_HEADER_BYTES;
        if let Some(magic) = header.first_chunk_mut::<4>()
            && let Some((_, plain)) = MODIFIED_MAGICS.iter().find(|(modified, _)| modified == magic)
        {
            *magic = *plain;
            record_header_bytes = MODIFIED_HEADER_BYTES;
        }
        let Ok((_, parsed)) = parse_pcap_header(&header) else {
            return Err(input.not_a_capture(NotACapture::Header));
        };
        if parsed.version_major != 2 {
            let version = NotACapture::Version(parsed.version_major, parsed.version_minor);
            return Err(input.not_a_capture(version));
        }
        input.consume(FILE_HEADER_BYTES);
        Ok(Self::of(&parsed, record_header_bytes))
    }

    fn of(header: &PcapHeader, record_header_bytes: usize) -> Self {
        Self {
            link_type: header.network.0.cast_unsigned() & LINK_TYPE_MASK,
            big_endian: header.is_bigendian(),
            record_header_bytes,
            nanoseconds_per_unit: if header.is_nanosecond_precision() { 1 } else { 1000 },
            length_order: match header.version_minor {
                ..=2 => LengthOrder::OriginalFirst,
                3 => LengthOrder::SmallerIsCaptured,
                4.. => LengthOrder::CapturedFirst,
            },
        }
    }

    /// The next record; none at the end of the file.
    pub(super) fn next<'i>(&self, input: &'i mut Input) -> Result<Option<Record<'i>>, FileError> {
        let header = input.peek(self.record_header_bytes)?;
        if header.is_empty() {
            return Ok(None);
        }
        let Some(fields) = header.first_chunk::<RECORD_HEADER_BYTES>().copied() else {
            return Err(input.cut_short(self.record_header_bytes as u64));
        };
        let [seconds, fraction, first, second] = self.words(fields);
        let (captured, original) = match self.length_order {
            LengthOrder::CapturedFirst => (first, second),
            LengthOrder::OriginalFirst => (second, first),
            LengthOrder::SmallerIsCaptured => (first.min(second), first.max(second)),
        };
        let consumed = self.record_header_bytes.saturating_add(captured as usize);
        if consumed > MAX_RECORD_BYTES {
            return Err(input.damaged(Damage::TooLarge(captured.into())));
        }
        if input.peek(consumed)?.len() < consumed {
            return Err(input.cut_short(consumed as u64));
        }
        let bytes = input.ahead().get(self.record_header_bytes..consumed).unwrap_or_default();
        let time =
            u64::from(seconds) * NANOSECONDS_PER_SECOND + u64::from(fraction) * self.nanoseconds_per_unit;
        let time = KernelInstant::from_nanos(time);
        let frame = Frame { link_type: self.link_type, bytes, original_length: original, time, interface: 0 };
        Ok(Some(Record { consumed, frame: Some(frame) }))
    }

    fn words(&self, fields: [u8; RECORD_HEADER_BYTES]) -> [u32; 4] {
        let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = fields;
        let words = [[a, b, c, d], [e, f, g, h], [i, j, k, l], [m, n, o, p]];
        words.map(if self.big_endian { u32::from_be_bytes } else { u32::from_le_bytes })
    }
}
