//! A view of the rest of a packet: the bytes that were captured, and how many there were on the wire.
//!
//! Knows no protocol. Every read is bounds-checked; a read past the end says whether the capture or the packet ended.

/// Why a packet was not decoded further.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// Neither IPv4 nor IPv6.
    NotIp,
    /// IP that carries something other than TCP or a tunnel that is opened.
    NotTcp,
    /// The capture ends inside a header that the packet has.
    Truncated,
    /// A header contradicts itself or the packet ends inside it.
    Malformed,
    /// More headers, parts of one header, or tunnels than are walked.
    Nesting,
    /// A link layer that is not decoded, by its number.
    Link(u32),
    /// An encrypted or compressed frame.
    Encrypted,
    /// An IP fragment that the capture cut.
    CutFragment,
    /// A fragment of a link layer, which are not put together.
    LinkFragment,
}

/// What is left of a packet from some header on. Invariant: `bytes.len() <= wire`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct View<'a> {
    bytes: &'a [u8],
    wire: usize,
}

impl<'a> View<'a> {
    /// A packet of which `bytes` were captured and that had `wire` bytes; at least those that were captured.
    pub(super) fn new(bytes: &'a [u8], wire: usize) -> Self {
        Self { bytes, wire: wire.max(bytes.len()) }
    }

    /// The bytes that were captured.
    pub(super) const fn bytes(self) -> &'a [u8] {
        self.bytes
    }

    /// The bytes that there were.
    pub(super) const fn wire(self) -> usize {
        self.wire
    }

    /// Nothing of it was cut by the capture.
    pub(super) const fn is_whole(self) -> bool {
        self.bytes.len() == self.wire
    }

    /// What follows the first `count` bytes.
    pub(super) fn skip(self, count: usize) -> Result<Self, Refusal> {
        match self.bytes.get(count..) {
            Some(bytes) => Ok(Self { bytes, wire: self.wire - count }),
            None => Err(self.short(count)),
        }
    }

    /// What follows the first `count` bytes, empty where the capture ends before.
    pub(super) fn skip_cut(self, count: usize) -> Result<Self, Refusal> {
        let wire = self.wire.checked_sub(count).ok_or(Refusal::Malformed)?;
        Ok(Self { bytes: self.bytes.get(count..).unwrap_or_default(), wire })
    }

    /// The first `count` bytes on the wire, or all if there are fewer: what follows is padding or a trailer.
    pub(super) fn limit(self, count: usize) -> Self {
        Self { bytes: self.bytes.get(..count).unwrap_or(self.bytes), wire: self.wire.min(count) }
    }

    /// The `N` bytes at `at`.
    pub(super) fn array<const N: usize>(self, at: usize) -> Result<[u8; N], Refusal> {
        match self.bytes.get(at..).and_then(|rest| rest.first_chunk::<N>()) {
            Some(bytes) => Ok(*bytes),
            None => Err(self.short(at.saturating_add(N))),
        }
    }

    /// The byte at `at`.
    pub(super) fn u8(self, at: usize) -> Result<u8, Refusal> {
        self.array::<1>(at).map(|[byte]| byte)
    }

    /// The big-endian 16 bits at `at`.
    pub(super) fn be16(self, at: usize) -> Result<u16, Refusal> {
        self.array(at).map(u16::from_be_bytes)
    }

    /// The big-endian 32 bits at `at`.
    pub(super) fn be32(self, at: usize) -> Result<u32, Refusal> {
        self.array(at).map(u32::from_be_bytes)
    }

    /// The little-endian 32 bits at `at`.
    pub(super) fn le32(self, at: usize) -> Result<u32, Refusal> {
        self.array(at).map(u32::from_le_bytes)
    }

    /// The little-endian 16 bits at `at`.
    pub(super) fn le16(self, at: usize) -> Result<u16, Refusal> {
        self.array(at).map(u16::from_le_bytes)
    }

    fn short(self, needed: usize) -> Refusal {
        if self.wire >= needed { Refusal::Truncated } else { Refusal::Malformed }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_say_whether_the_capture_or_the_packet_ended() {
        let view = View::new(&[1, 2, 3, 4], 6);
        assert_eq!(view.be32(0), Ok(0x0102_0304));
        assert_eq!(view.le32(0), Ok(0x0403_0201));
        assert_eq!((view.be16(2), view.le16(2)), (Ok(0x0304), Ok(0x0403)));
        assert_eq!(view.be16(3), Err(Refusal::Truncated));
        assert_eq!(view.be16(5), Err(Refusal::Malformed));
        assert_eq!(view.u8(usize::MAX), Err(Refusal::Malformed));
    }

    #[test]
    fn steps_keep_captured_and_wire_apart() {
        let view = View::new(&[1, 2, 3, 4], 6);
        assert_eq!(view.skip(4).map(|rest| (rest.bytes().len(), rest.wire())), Ok((0, 2)));
        assert_eq!(view.skip(5), Err(Refusal::Truncated));
        assert_eq!(view.skip(7), Err(Refusal::Malformed));
        assert_eq!(view.skip_cut(5).map(|rest| (rest.bytes().len(), rest.wire())), Ok((0, 1)));
        assert_eq!(view.skip_cut(7), Err(Refusal::Malformed));
        assert_eq!((view.limit(5).bytes().len(), view.limit(5).wire()), (4, 5));
        assert_eq!((view.limit(3).bytes().len(), view.limit(3).wire()), (3, 3));
        assert!(view.limit(4).is_whole() && !view.is_whole());
        assert_eq!(View::new(&[0; 4], 2).wire(), 4, "more captured than there was");
    }
}
