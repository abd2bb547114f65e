//! IEEE 802.11 data frames and the headers that capture drivers put before them. Nothing is decrypted.

use super::{
    Layer, Step, ethernet,
    view::{Refusal, View},
};

/// Link type of the bare frame, which the capture headers lead to.
const LINK_IEEE_802_11: u32 = 105;

/// First word of a header by the AVS specification (version 1).
const AVS_MAGIC: [u8; 3] = [0x80, 0x21, 0x10];

/// Bytes between the frame's header and its body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Padding {
    /// None.
    None,
    /// Up to the next multiple of four.
    ToWords,
}

/// What follows the header of a frame.
pub(super) fn frame(view: View<'_>, padding: Padding) -> Result<Step<'_>, Refusal> {
    data(view.array(0)?, view, padding)
}

/// As [`frame`], where some controllers put the two bytes of the frame control the other way round.
pub(super) fn swapped_frame(view: View<'_>) -> Result<Step<'_>, Refusal> {
    let [first, second] = view.array(0)?;
    // Version and type of a data frame.
    let in_order = first & 0x0f == 0x08;
    data(if in_order { [first, second] } else { [second, first] }, view, Padding::None)
}

/// What follows the header of a data frame (IEEE 802.11 9.3.2).
fn data([kind, flags]: [u8; 2], view: View<'_>, padding: Padding) -> Result<Step<'_>, Refusal> {
    const TYPE_MASK: u8 = 0x0f;
    const TYPE_DATA: u8 = 0x08;
    const QUALITY_OF_SERVICE: u8 = 0x80;
    const NO_DATA: u8 = 0x40;
    const BOTH_DISTRIBUTION: u8 = 0x03;
    const MORE_FRAGMENTS: u8 = 0x04;
    const PROTECTED: u8 = 0x40;
    const HIGH_THROUGHPUT: u8 = 0x80;
    const AGGREGATE: u8 = 0x80;
    if kind & TYPE_MASK != TYPE_DATA || kind & NO_DATA != 0 {
        return Err(Refusal::NotIp);
    }
    if flags & PROTECTED != 0 {
        return Err(Refusal::Encrypted);
    }
    // The low four bits of the sequence control number the fragment.
    if flags & MORE_FRAGMENTS != 0 || view.u8(22)? & 0x0f != 0 {
        return Err(Refusal::LinkFragment);
    }
    let mut length = if flags & BOTH_DISTRIBUTION == BOTH_DISTRIBUTION { 30 } else { 24 };
    let mut aggregate = false;
    if kind & QUALITY_OF_SERVICE != 0 {
        aggregate = view.u8(length)? & AGGREGATE != 0;
        length += if flags & HIGH_THROUGHPUT == 0 { 2 } else { 6 };
    }
    if padding == Padding::ToWords {
        length = length.next_multiple_of(4);
    }
    let body = view.skip(length)?;
    if aggregate {
        return Ok(Step::new(Layer::WirelessAggregate, body));
    }
    // Some access points bridge whole Ethernet frames.
    if body.u8(0)? != 0xaa && ethernet::is_ethernet(body) {
        return Ok(Step::new(Layer::Ethernet, body));
    }
    Ok(Step::new(Layer::Llc, body))
}

/// The first subframe of an aggregate (IEEE 802.11 9.3.2.2) and the rest; none at its end, where only padding or a
/// check sequence is left.
pub(super) fn subframe(view: View<'_>) -> Option<(View<'_>, View<'_>)> {
    const HEADER_BYTES: usize = 14;
    let length = usize::from(view.be16(12).ok()?);
    let body = view.skip(HEADER_BYTES).ok()?;
    if length == 0 || length > body.wire() {
        return None;
    }
    let padded = (HEADER_BYTES + length).next_multiple_of(4);
    let rest = view.skip(padded).unwrap_or(View::new(&[], 0));
    Some((body.limit(length), rest))
}

/// The radiotap header (radiotap.org): its flags say whether the frame is padded.
pub(super) fn radiotap(view: View<'_>) -> Result<Step<'_>, Refusal> {
    const TIME_PRESENT: u8 = 0x01;
    const FLAGS_PRESENT: u8 = 0x02;
    const MORE_PRESENT: u8 = 0x80;
    const PADDED: u8 = 0x20;
    let length = usize::from(view.le16(2)?);
    if view.u8(0)? != 0 || length < 8 {
        return Err(Refusal::Malformed);
    }
    let present = view.u8(4)?;
    let mut at = 4;
    while view.u8(at + 3)? & MORE_PRESENT != 0 && at + 8 <= length {
        at += 4;
    }
    at += 4;
    if present & TIME_PRESENT != 0 {
        at = at.next_multiple_of(8) + 8;
    }
    let padded = present & FLAGS_PRESENT != 0 && at < length && view.u8(at)? & PADDED != 0;
    frame(view.skip(length)?, if padded { Padding::ToWords } else { Padding::None })
}

/// The Prism header, whose length is in the capturing machine's byte order, or an AVS header in its place.
pub(super) fn prism(view: View<'_>) -> Result<Step<'_>, Refusal> {
    if view.array(0) == Ok(AVS_MAGIC) {
        return avs(view);
    }
    let length = view.array(4)?;
    let length = u32::from_le_bytes(length).min(u32::from_be_bytes(length));
    Ok(Step::new(Layer::Link(LINK_IEEE_802_11), view.skip(length as usize)?))
}

/// The AVS header.
pub(super) fn avs(view: View<'_>) -> Result<Step<'_>, Refusal> {
    let length = view.be32(4)? as usize;
    Ok(Step::new(Layer::Link(LINK_IEEE_802_11), view.skip(length)?))
}

/// The per-packet information header: names the link type that follows.
pub(super) fn per_packet_information(view: View<'_>) -> Result<Step<'_>, Refusal> {
    let length = usize::from(view.le16(2)?);
    if length < 8 {
        return Err(Refusal::Malformed);
    }
    Ok(Step::new(Layer::Link(view.le32(4)?), view.skip(length)?))
}
