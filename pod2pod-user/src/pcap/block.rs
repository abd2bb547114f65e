//! Blocks of pcapng (draft-ietf-opsawg-pcapng) as they are written: one little-endian section, one interface of raw IP packets
//! with times in nanoseconds, and enhanced packets with comments.
//!
//! Pure: appends bytes. Knows no file.

/// Raw IP, version 4 or 6 by its first nibble (tcpdump.org/linktypes.html).
const LINKTYPE_RAW: u16 = 101;

const SECTION_HEADER: u32 = 0x0a0d_0d0a;
const INTERFACE: u32 = 1;
const ENHANCED_PACKET: u32 = 6;

const OPTION_END: u16 = 0;
const OPTION_COMMENT: u16 = 1;
const OPTION_FLAGS: u16 = 2;
const OPTION_HARDWARE_OR_NAME: u16 = 2;
const OPTION_APPLICATION: u16 = 4;
const OPTION_RESOLUTION: u16 = 9;

/// Which way a packet went, in the two lowest bits of its flags.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// Not known.
    Unknown = 0,
    /// To a socket of this machine.
    In = 1,
    /// From one.
    Out = 2,
}

/// A packet as a block has it.
#[derive(Clone, Copy, Debug)]
pub struct Packet<'a> {
    /// Nanoseconds since 1970.
    pub time: u64,
    /// Bytes that were captured.
    pub bytes: &'a [u8],
    /// Length on the wire.
    pub original: u32,
    /// Which way.
    pub way: Way,
    /// Comments, each at most 64 KiB.
    pub comments: &'a [String],
}

/// What every file begins with.
pub fn begin() -> Vec<u8> {
    let mut out = Vec::new();
    block(&mut out, SECTION_HEADER, |out| {
        out.extend(0x1a2b_3c4d_u32.to_le_bytes());
        out.extend(1_u16.to_le_bytes());
        out.extend(0_u16.to_le_bytes());
        // The section's length is not known.
        out.extend(u64::MAX.to_le_bytes());
        option(out, OPTION_APPLICATION, crate::OWN_USER_AGENT.as_bytes());
        option(out, OPTION_END, b"");
    });
    block(&mut out, INTERFACE, |out| {
        out.extend(LINKTYPE_RAW.to_le_bytes());
        out.extend(0_u16.to_le_bytes());
        // No snap length.
        out.extend(0_u32.to_le_bytes());
        option(out, OPTION_HARDWARE_OR_NAME, b"pod2pod");
        option(out, OPTION_RESOLUTION, &[9]);
        option(out, OPTION_END, b"");
    });
    out
}

/// Appends a packet.
pub fn push_packet(out: &mut Vec<u8>, packet: &Packet<'_>) {
    block(out, ENHANCED_PACKET, |out| {
        out.extend(0_u32.to_le_bytes());
        out.extend(((packet.time >> 32) as u32).to_le_bytes());
        out.extend((packet.time as u32).to_le_bytes());
        out.extend((packet.bytes.len() as u32).to_le_bytes());
        out.extend(packet.original.to_le_bytes());
        padded(out, packet.bytes);
        if packet.way == Way::Unknown && packet.comments.is_empty() {
            return;
        }
        for comment in packet.comments {
            option(out, OPTION_COMMENT, comment.as_bytes());
        }
        if packet.way != Way::Unknown {
            option(out, OPTION_FLAGS, &(packet.way as u32).to_le_bytes());
        }
        option(out, OPTION_END, b"");
    });
}

/// Type, length, what `fill` appends, length again.
fn block(out: &mut Vec<u8>, kind: u32, fill: impl FnOnce(&mut Vec<u8>)) {
    let at = out.len();
    out.extend(kind.to_le_bytes());
    out.extend([0; 4]);
    fill(out);
    let length = ((out.len() - at + 4) as u32).to_le_bytes();
    if let Some(place) = out.get_mut(at + 4..at + 8) {
        place.copy_from_slice(&length);
    }
    out.extend(length);
}

fn option(out: &mut Vec<u8>, code: u16, value: &[u8]) {
    let value = value.get(..value.len().min(usize::from(u16::MAX))).unwrap_or_default();
    out.extend(code.to_le_bytes());
    out.extend((value.len() as u16).to_le_bytes());
    padded(out, value);
}

/// Fields are filled up to 32 bits.
fn padded(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend_from_slice(bytes);
    out.extend(std::iter::repeat_n(0, bytes.len().next_multiple_of(4) - bytes.len()));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_of_whole_words_and_say_their_length_twice() {
        let mut out = begin();
        for length in 0..9 {
            let comments = vec!["é".repeat(length); length % 3];
            let bytes = vec![7; length];
            let way = if length % 2 == 0 { Way::Unknown } else { Way::In };
            push_packet(&mut out, &Packet { time: 1, bytes: &bytes, original: 40, way, comments: &comments });
        }
        let (mut at, mut blocks) = (0, 0);
        while at < out.len() {
            let word = |at: usize| u32::from_le_bytes(out[at..at + 4].try_into().unwrap()) as usize;
            let length = word(at + 4);
            assert_eq!((length % 4, word(at + length - 4)), (0, length));
            at += length;
            blocks += 1;
        }
        assert_eq!((at, blocks), (out.len(), 2 + 9));
    }
}
