//! An entry of the log, as bytes: a header, the items of one batch, and checksums of both. Pure.
//!
//! All numbers are little-endian. Checksums begin with their segment's salt: what a record holds cannot pass for an entry where the
//! reader looks for the next one after a break.

use crc32fast::Hasher;

use crate::delivery::Parcel;

/// Begins every entry. Text in UTF-8 has neither of the outer bytes.
pub(super) const MARKER: [u8; 4] = [0xff, b'p', b'2', 0xfe];
/// Marker, checksum of what is after it, sequence, time, items, length of the payload.
pub(super) const HEADER_BYTES: usize = 32;
/// The payload's checksum, after it.
const CHECKSUM_BYTES: usize = 4;
/// Bytes of one payload at most: sixty times the largest batch of a sink, and no more than a wrong length may have allocated.
pub(super) const MAX_PAYLOAD_BYTES: usize = 64 * 1024 * 1024;

/// What a header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    /// One more than that of the entry before.
    pub(super) sequence: u64,
    /// When it was written, milliseconds since 1970.
    pub(super) written: u64,
    pub(super) items: u32,
    /// Bytes of the payload.
    length: u32,
}

impl Header {
    /// What `bytes` say, if they are a header of a segment with this salt.
    pub(super) fn decode(bytes: &[u8], salt: u32) -> Option<Self> {
        let (marker, rest) = bytes.get(..HEADER_BYTES)?.split_first_chunk()?;
        let (checksum, said) = rest.split_first_chunk()?;
        if *marker != MARKER || u32::from_le_bytes(*checksum) != sum(salt, said) {
            return None;
        }
        let (sequence, rest) = said.split_first_chunk()?;
        let (written, rest) = rest.split_first_chunk()?;
        let (items, rest) = rest.split_first_chunk()?;
        let header = Self {
            sequence: u64::from_le_bytes(*sequence),
            written: u64::from_le_bytes(*written),
            items: u32::from_le_bytes(*items),
            length: u32::from_le_bytes(*rest.first_chunk()?),
        };
        let has_ends = header.items as usize * size_of::<u32>() <= header.length as usize;
        (has_ends && header.length as usize <= MAX_PAYLOAD_BYTES).then_some(header)
    }

    /// Bytes of the payload and its checksum.
    pub(super) const fn rest(&self) -> usize {
        self.length as usize + CHECKSUM_BYTES
    }
}

/// Bytes of the entry of a batch; nothing if it is too large for one.
pub(super) fn size(ends: &[u32], bytes: &[u8]) -> Option<usize> {
    let payload = size_of_val(ends) + bytes.len();
    (payload <= MAX_PAYLOAD_BYTES).then_some(HEADER_BYTES + payload + CHECKSUM_BYTES)
}

/// Makes `out` the entry of a batch that is not too large.
pub(super) fn encode(out: &mut Vec<u8>, salt: u32, place: (u64, u64), ends: &[u32], bytes: &[u8]) {
    let (sequence, written) = place;
    let number = |length: usize| u32::try_from(length).unwrap_or(u32::MAX).to_le_bytes();
    out.clear();
    out.extend_from_slice(&MARKER);
    out.extend_from_slice(&[0; CHECKSUM_BYTES]);
    out.extend_from_slice(&sequence.to_le_bytes());
    out.extend_from_slice(&written.to_le_bytes());
    out.extend_from_slice(&number(ends.len()));
    out.extend_from_slice(&number(size_of_val(ends) + bytes.len()));
    let checksum = sum(salt, out.get(MARKER.len() + CHECKSUM_BYTES..).unwrap_or_default());
    if let Some(place) = out.get_mut(MARKER.len()..MARKER.len() + CHECKSUM_BYTES) {
        place.copy_from_slice(&checksum.to_le_bytes());
    }
    ends.iter().for_each(|end| out.extend_from_slice(&end.to_le_bytes()));
    out.extend_from_slice(bytes);
    let checksum = sum(salt, out.get(HEADER_BYTES..).unwrap_or_default());
    out.extend_from_slice(&checksum.to_le_bytes());
}

/// The items of an entry from what follows its header, if they are as they were written.
pub(super) fn decode(header: &Header, salt: u32, mut rest: Vec<u8>) -> Option<Parcel> {
    let (payload, checksum) = rest.split_last_chunk::<CHECKSUM_BYTES>()?;
    if payload.len() != header.length as usize || u32::from_le_bytes(*checksum) != sum(salt, payload) {
        return None;
    }
    rest.truncate(header.length as usize);
    let payload = bytes::Bytes::from(rest);
    let (ends, _) = payload.split_at_checked(header.items as usize * size_of::<u32>())?;
    let (numbers, _) = ends.as_chunks();
    let numbers: Vec<u32> = numbers.iter().map(|end| u32::from_le_bytes(*end)).collect();
    let bytes = payload.slice(ends.len()..);
    let is_whole = numbers.is_sorted() && numbers.last().map_or(0, |end| *end as usize) == bytes.len();
    is_whole.then(|| Parcel::new(bytes, numbers))
}

/// The checksum of CRC-32, begun with `salt`.
pub(super) fn sum(salt: u32, bytes: &[u8]) -> u32 {
    let mut hasher = Hasher::new_with_initial(salt);
    hasher.update(bytes);
    hasher.finalize()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SALT: u32 = 0x8f3a_2b1c;

    fn entry() -> Vec<u8> {
        let mut out = Vec::new();
        encode(&mut out, SALT, (7, 1_795_391_164_000), &[1, 1, 4], b"abcd");
        out
    }

    #[test]
    fn what_is_read_is_what_was_written() {
        let entry = entry();
        assert_eq!(Some(entry.len()), size(&[1, 1, 4], b"abcd"));
        let header = Header::decode(&entry, SALT).unwrap();
        assert_eq!((header.sequence, header.written, header.items), (7, 1_795_391_164_000, 3));
        assert_eq!(header.rest(), entry.len() - HEADER_BYTES);
        let parcel = decode(&header, SALT, entry[HEADER_BYTES..].to_vec()).unwrap();
        assert_eq!(parcel.items().collect::<Vec<_>>(), [&b"a"[..], b"", b"bcd"]);
    }

    #[test]
    fn a_bit_that_is_not_as_it_was_breaks_it() {
        for bit in 0..entry().len() * 8 {
            let mut entry = entry();
            entry[bit / 8] ^= 1 << (bit % 8);
            let header = Header::decode(&entry, SALT);
            assert_eq!(header.is_some(), bit / 8 >= HEADER_BYTES, "{bit}");
            let parcel = header.and_then(|header| decode(&header, SALT, entry[HEADER_BYTES..].to_vec()));
            assert!(parcel.is_none(), "{bit}");
        }
    }

    #[test]
    fn an_entry_of_another_segment_is_none() {
        assert_eq!(Header::decode(&entry(), SALT + 1), None);
    }

    #[test]
    fn a_payload_at_its_most_and_one_past() {
        let most = vec![0; MAX_PAYLOAD_BYTES - 4];
        assert_eq!(size(&[1], &most), Some(HEADER_BYTES + MAX_PAYLOAD_BYTES + CHECKSUM_BYTES));
        assert_eq!(size(&[1, 2], &most), None);
        let header = |length: u32, items: u32| {
            let mut bytes = entry();
            bytes[24..28].copy_from_slice(&items.to_le_bytes());
            bytes[28..32].copy_from_slice(&length.to_le_bytes());
            let checksum = sum(SALT, &bytes[8..32]);
            bytes[4..8].copy_from_slice(&checksum.to_le_bytes());
            Header::decode(&bytes, SALT).is_some()
        };
        let most = MAX_PAYLOAD_BYTES as u32;
        assert!(header(most, most / 4) && !header(most + 1, 1) && !header(most, most / 4 + 1));
        assert!(!header(u32::MAX, 0) && !header(0, u32::MAX) && header(0, 0));
    }
}
