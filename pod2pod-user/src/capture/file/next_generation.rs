//! The pcapng format (draft-ietf-opsawg-pcapng): sections of either byte order, interfaces, and the three kinds of
//! packet blocks. Blocks of other kinds are stepped over without being kept.
//!
//! `pcap-parser` reads the blocks. Three things it gets wrong are read here from the raw options or fields: a resolution
//! that is a power of two, a time offset in a big-endian section, and a simple packet's captured length.

use pcap_parser::{
    EPB_MAGIC, IDB_MAGIC, InterfaceDescriptionBlock, OptionCode, SHB_MAGIC, SPB_MAGIC,
    parse_enhancedpacketblock_be, parse_enhancedpacketblock_le, parse_interfacedescriptionblock_be,
    parse_interfacedescriptionblock_le, parse_sectionheaderblock, parse_simplepacketblock_be,
    parse_simplepacketblock_le,
};

use super::{
    MAX_INTERFACES, MAX_RECORD_BYTES, Record, Stats,
    error::{Damage, FileError, NotACapture},
    input::Input,
};
use crate::capture::{KernelInstant, packet::Frame};

/// The obsolete packet block (appendix of the draft), which `pcap-parser` does not know.
const OBSOLETE_PACKET: u32 = 2;

/// Type and length, which begin every block.
const BLOCK_HEADER_BYTES: usize = 8;
/// Type and the two lengths: the smallest block.
const MIN_BLOCK_BYTES: usize = 12;
/// Type, length, byte order, versions, section length, length.
const MIN_SECTION_BYTES: usize = 28;

const NANOSECONDS_PER_SECOND: u128 = 1_000_000_000;

/// How an interface's packets are read.
#[derive(Clone, Copy, Debug)]
struct Interface {
    link_type: u32,
    /// Captured bytes of a packet at most; 0: no limit.
    snap_length: u32,
    /// Units of a timestamp in a second; at least 1.
    units_per_second: u128,
    /// Nanoseconds in a unit, if that is a whole number.
    nanoseconds_per_unit: Option<u64>,
    /// Seconds to add to every timestamp.
    offset_seconds: i64,
}

/// The section that is being read.
#[derive(Debug)]
pub(super) struct Section {
    big_endian: bool,
    interfaces: Vec<Interface>,
    /// Interfaces described past [`MAX_INTERFACES`].
    forgotten: u64,
}

impl Section {
    /// Reads the first section header.
    pub(super) fn open(input: &mut Input) -> Result<Self, FileError> {
        let begin = input.peek(MIN_SECTION_BYTES)?;
        if begin.len() < MIN_SECTION_BYTES {
            return Err(input.not_a_capture(NotACapture::TooShort));
        }
        let mut section = Self { big_endian: false, interfaces: Vec::new(), forgotten: 0 };
        match section.begin(input) {
            Ok(length) => input.consume(length),
            Err(FileError::Damaged { cause: Damage::Section, .. }) => {
                return Err(input.not_a_capture(NotACapture::Header));
            }
            Err(other) => return Err(other),
        }
        Ok(section)
    }

    /// The next block; none at the end of the file.
    pub(super) fn next<'i>(
        &mut self,
        input: &'i mut Input,
        stats: &mut Stats,
    ) -> Result<Option<Record<'i>>, FileError> {
        let header = input.peek(BLOCK_HEADER_BYTES)?;
        if header.is_empty() {
            return Ok(None);
        }
        let Some(header) = header.first_chunk::<BLOCK_HEADER_BYTES>().copied() else {
            return Err(input.cut_short(BLOCK_HEADER_BYTES as u64));
        };
        let [a, b, c, d, length @ ..] = header;
        let kind = self.word([a, b, c, d]);
        if kind == SHB_MAGIC {
            // Its length is in its own byte order.
            let consumed = self.begin(input)?;
            return Ok(Some(Record { consumed, frame: None }));
        }
        let length = self.word(length);
        if (length as usize) < MIN_BLOCK_BYTES {
            return Err(input.damaged(Damage::BlockLength(length)));
        }
        match kind {
            IDB_MAGIC | EPB_MAGIC | SPB_MAGIC | OBSOLETE_PACKET => self.block(kind, length, input, stats),
            _ => {
                stats.other_blocks += 1;
                Self::step_over(length, input)?;
                Ok(Some(Record { consumed: 0, frame: None }))
            }
        }
    }

    fn step_over(length: u32, input: &mut Input) -> Result<(), FileError> {
        let begin = input.offset();
        let present = input.skip(length.into())?;
        if present < length.into() {
            return Err(input.damaged_at(begin, Damage::CutShort { needed: length.into(), present }));
        }
        Ok(())
    }

    /// Reads the section header at the next byte; returns its length.
    fn begin(&mut self, input: &mut Input) -> Result<usize, FileError> {
        let begin = input.peek(MIN_BLOCK_BYTES)?;
        let Some([_, _, _, _, a, b, c, d, order @ ..]) = begin.first_chunk::<MIN_BLOCK_BYTES>().copied()
        else {
            return Err(input.cut_short(MIN_SECTION_BYTES as u64));
        };
        self.big_endian = match order {
            [0x1a, 0x2b, 0x3c, 0x4d] => true,
            [0x4d, 0x3c, 0x2b, 0x1a] => false,
            _ => return Err(input.damaged(Damage::Section)),
        };
        let length = self.word([a, b, c, d]);
        let block = whole_block(length, input)?;
        let known = match parse_sectionheaderblock(block) {
            // Version 1.2 was written by mistake and is 1.0 (draft, section 4.1).
            Ok((_, header)) => header.major_version == 1 && matches!(header.minor_version, 0 | 2),
            Err(_) => false,
        };
        if !known {
            return Err(input.damaged(Damage::Section));
        }
        self.interfaces.clear();
        self.forgotten = 0;
        Ok(length as usize)
    }

    fn block<'i>(
        &mut self,
        kind: u32,
        length: u32,
        input: &'i mut Input,
        stats: &mut Stats,
    ) -> Result<Option<Record<'i>>, FileError> {
        whole_block(length, input)?;
        let input = &*input;
        let consumed = length as usize;
        let bytes = input.ahead().get(..consumed).unwrap_or_default();
        if kind == IDB_MAGIC {
            let described = self.describe(bytes);
            return described
                .map(|()| Some(Record { consumed, frame: None }))
                .ok_or_else(|| input.damaged(Damage::Block(kind)));
        }
        let Some(packet) = self.packet(kind, bytes) else {
            return Err(input.damaged(Damage::Block(kind)));
        };
        let Some(interface) = self.interfaces.get(packet.interface as usize) else {
            if u64::from(packet.interface) < self.interfaces.len() as u64 + self.forgotten {
                stats.interfaces_over_limit += 1;
                return Ok(Some(Record { consumed, frame: None }));
            }
            return Err(input.damaged(Damage::Interface(packet.interface)));
        };
        Ok(Some(Record { consumed, frame: Some(interface.frame(&packet)) }))
    }

    fn describe(&mut self, block: &[u8]) -> Option<()> {
        let parse = if self.big_endian {
            parse_interfacedescriptionblock_be
        } else {
            parse_interfacedescriptionblock_le
        };
        let (_, block) = parse(block).ok()?;
        if self.interfaces.len() < MAX_INTERFACES {
            self.interfaces.push(Interface::of(&block, self.big_endian));
        } else {
            self.forgotten += 1;
        }
        Some(())
    }

    fn packet<'i>(&self, kind: u32, block: &'i [u8]) -> Option<Packet<'i>> {
        match kind {
            EPB_MAGIC => {
                let parse =
                    if self.big_endian { parse_enhancedpacketblock_be } else { parse_enhancedpacketblock_le };
                let (_, block) = parse(block).ok()?;
                Some(Packet {
                    interface: block.if_id,
                    time: Some(u64::from(block.ts_high) << 32 | u64::from(block.ts_low)),
                    bytes: block.data.get(..block.caplen as usize)?,
                    original_length: block.origlen,
                })
            }
            SPB_MAGIC => {
                let parse =
                    if self.big_endian { parse_simplepacketblock_be } else { parse_simplepacketblock_le };
                let (_, block) = parse(block).ok()?;
                let snap_length = self.interfaces.first().map_or(0, |interface| interface.snap_length);
                let captured = if snap_length == 0 { block.origlen } else { block.origlen.min(snap_length) };
                let bytes = block.data.get(..captured as usize).unwrap_or(block.data);
                Some(Packet { interface: 0, time: None, bytes, original_length: block.origlen })
            }
            _ => self.obsolete(block),
        }
    }

    fn obsolete<'i>(&self, block: &'i [u8]) -> Option<Packet<'i>> {
        let (header, rest) = block.split_first_chunk::<28>()?;
        let word = |at: usize| Some(self.word(*header.get(at..)?.first_chunk()?));
        let [a, b] = *header.get(8..)?.first_chunk()?;
        let interface = if self.big_endian { u16::from_be_bytes([a, b]) } else { u16::from_le_bytes([a, b]) };
        Some(Packet {
            interface: interface.into(),
            time: Some(u64::from(word(12)?) << 32 | u64::from(word(16)?)),
            bytes: rest.get(..word(20)? as usize)?,
            original_length: word(24)?,
        })
    }

    const fn word(&self, bytes: [u8; 4]) -> u32 {
        if self.big_endian { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) }
    }
}

/// A packet as its block has it.
struct Packet<'i> {
    interface: u32,
    /// In the interface's units; none in a simple packet.
    time: Option<u64>,
    bytes: &'i [u8],
    original_length: u32,
}

impl Interface {
    fn of(block: &InterfaceDescriptionBlock<'_>, big_endian: bool) -> Self {
        let mut interface = Self {
            link_type: block.linktype.0.cast_unsigned(),
            snap_length: block.snaplen,
            units_per_second: 1_000_000,
            nanoseconds_per_unit: None,
            offset_seconds: 0,
        };
        for option in &block.options {
            let Ok(value) = option.as_bytes() else { continue };
            match option.code {
                OptionCode::EndOfOpt => break,
                OptionCode::IfTsresol => {
                    if let [resolution] = value {
                        interface.units_per_second = units_per_second(*resolution);
                    }
                }
                OptionCode::IfTsoffset => {
                    if let Some(bytes) = value.first_chunk::<8>() {
                        interface.offset_seconds =
                            if big_endian { i64::from_be_bytes(*bytes) } else { i64::from_le_bytes(*bytes) };
                    }
                }
                _ => {}
            }
        }
        if NANOSECONDS_PER_SECOND.is_multiple_of(interface.units_per_second) {
            interface.nanoseconds_per_unit =
                u64::try_from(NANOSECONDS_PER_SECOND / interface.units_per_second).ok();
        }
        interface
    }

    fn frame<'i>(&self, packet: &Packet<'i>) -> Frame<'i> {
        Frame {
            link_type: self.link_type,
            bytes: packet.bytes,
            original_length: packet.original_length,
            time: packet.time.map_or(KernelInstant::default(), |units| self.instant(units)),
            interface: packet.interface,
        }
    }

    /// Times before 1970 become 1970, those after 2554 the last moment that 64 bits of nanoseconds hold.
    fn instant(&self, units: u64) -> KernelInstant {
        // What nearly every file has, without a division of 128 bits.
        if self.offset_seconds == 0
            && let Some(factor) = self.nanoseconds_per_unit
        {
            return KernelInstant::from_nanos(units.saturating_mul(factor));
        }
        let nanoseconds = u128::from(units) * NANOSECONDS_PER_SECOND / self.units_per_second;
        let offset = i128::from(self.offset_seconds) * NANOSECONDS_PER_SECOND.cast_signed();
        let nanoseconds = nanoseconds.cast_signed() + offset;
        KernelInstant::from_nanos(u64::try_from(nanoseconds.max(0)).unwrap_or(u64::MAX))
    }
}

/// `if_tsresol` (draft, section 4.2): a negative power of 2 with the top bit set, of 10 without. A power that 128 bits do
/// not hold is finer than any clock: its times are all zero, as they are in a division by it.
fn units_per_second(resolution: u8) -> u128 {
    let (base, power) = if resolution & 0x80 == 0 { (10_u128, resolution) } else { (2, resolution & 0x7f) };
    base.checked_pow(power.into()).unwrap_or(u128::MAX)
}

/// The block of `length` bytes at the next byte.
fn whole_block(length: u32, input: &mut Input) -> Result<&[u8], FileError> {
    let bytes = length as usize;
    if bytes < MIN_BLOCK_BYTES {
        return Err(input.damaged(Damage::BlockLength(length)));
    }
    if bytes > MAX_RECORD_BYTES {
        return Err(input.damaged(Damage::TooLarge(length.into())));
    }
    if input.peek(bytes)?.len() < bytes {
        return Err(input.cut_short(length.into()));
    }
    Ok(input.ahead().get(..bytes).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resolutions_are_powers_of_ten_or_two() {
        let check =
            |resolution, expected| assert_eq!(units_per_second(resolution), expected, "{resolution:#x}");
        check(0, 1);
        check(6, 1_000_000);
        check(9, 1_000_000_000);
        check(38, 10_u128.pow(38));
        check(39, u128::MAX);
        check(0x7f, u128::MAX);
        check(0x80, 1);
        check(0x8a, 1024);
        check(0xff, 1 << 127);
    }
}
