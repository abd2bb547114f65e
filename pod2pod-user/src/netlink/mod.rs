//! Netlink (netlink(7)): requests put together, answers taken apart, and a socket for both. What a message is about is known to
//! those who ask.

mod socket;

pub use socket::{Questions, open};

/// Bytes of `struct nlmsghdr`.
const HEADER: usize = 16;
/// Bytes of `struct rtattr`.
const ATTRIBUTE_HEADER: usize = 4;
/// Flags in an attribute's kind (linux/netlink.h, NLA_TYPE_MASK).
const ATTRIBUTE_KIND: u16 = 0x3fff;

/// A request under construction.
#[derive(Clone, Debug)]
pub struct Request(Vec<u8>);

impl Request {
    /// `kind` is `RTM_*`, `flags` are `NLM_F_*` beside NLM_F_REQUEST, `body` is the fixed part.
    pub fn new(kind: u16, flags: libc::c_int, body: &[u8]) -> Self {
        let flags = (libc::NLM_F_REQUEST | flags) as u16;
        let mut bytes = vec![0; 4];
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(flags.to_ne_bytes());
        bytes.extend([0; 8]);
        bytes.extend(body);
        Self(bytes)
    }

    /// Adds an attribute.
    pub fn with(mut self, kind: u16, data: &[u8]) -> Self {
        self.put(kind, data);
        self
    }

    /// Adds an attribute that holds others.
    pub fn with_nested(mut self, kind: u16, inner: &[(u16, &[u8])]) -> Self {
        self.put(kind, &nested(inner));
        self
    }

    /// The message, numbered by `sequence`.
    pub fn finish(mut self, sequence: u32) -> Vec<u8> {
        let length = self.0.len() as u32;
        for (place, byte) in self.0.iter_mut().zip(length.to_ne_bytes()) {
            *place = byte;
        }
        for (place, byte) in self.0.iter_mut().skip(8).zip(sequence.to_ne_bytes()) {
            *place = byte;
        }
        self.0
    }

    fn put(&mut self, kind: u16, data: &[u8]) {
        self.0.extend(((ATTRIBUTE_HEADER + data.len()) as u16).to_ne_bytes());
        self.0.extend(kind.to_ne_bytes());
        self.0.extend(data);
        self.0.resize(aligned(self.0.len()), 0);
    }
}

/// Attributes one after the other, as one that holds them has them.
pub fn nested(inner: &[(u16, &[u8])]) -> Vec<u8> {
    let mut nested = Request(Vec::new());
    for (kind, data) in inner {
        nested.put(*kind, data);
    }
    nested.0
}

/// A message as received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message<'a> {
    /// `RTM_*` or `NLMSG_*`.
    pub kind: u16,
    /// `NLM_F_*`.
    pub flags: u16,
    /// Of the request that it answers.
    pub sequence: u32,
    /// Behind the header.
    pub body: &'a [u8],
}

/// The messages of a datagram; ends at the first that is none.
pub fn messages(mut bytes: &[u8]) -> impl Iterator<Item = Message<'_>> {
    std::iter::from_fn(move || {
        let length = u32_at(bytes, 0)? as usize;
        let message = Message {
            kind: u16_at(bytes, 4)?,
            flags: u16_at(bytes, 6)?,
            sequence: u32_at(bytes, 8)?,
            body: bytes.get(HEADER..length)?,
        };
        bytes = bytes.get(aligned(length)..).unwrap_or_default();
        Some(message)
    })
}

/// The attributes in `bytes`, by kind; ends at the first that is none.
pub fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::from(u16_at(bytes, 0)?);
        let kind = u16_at(bytes, 2)? & ATTRIBUTE_KIND;
        let data = bytes.get(ATTRIBUTE_HEADER..length)?;
        bytes = bytes.get(aligned(length)..).unwrap_or_default();
        Some((kind, data))
    })
}

/// The error number of an NLMSG_ERROR or NLMSG_DONE body; 0 is none.
pub fn error_number(body: &[u8]) -> i32 {
    u32_at(body, 0).map_or(0, |number| number.cast_signed().wrapping_neg())
}

/// A name with the C terminator.
pub fn text(data: &[u8]) -> String {
    let end = data.iter().position(|byte| *byte == 0).unwrap_or(data.len());
    String::from_utf8_lossy(data.get(..end).unwrap_or_default()).into_owned()
}

/// The number at `offset`, in the machine's byte order.
pub fn u32_at(bytes: &[u8], offset: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(*bytes.get(offset..)?.first_chunk()?))
}

/// The number at `offset`, in the machine's byte order.
pub fn u16_at(bytes: &[u8], offset: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(*bytes.get(offset..)?.first_chunk()?))
}

const fn aligned(length: usize) -> usize {
    length.next_multiple_of(4)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_put_together_is_taken_apart() {
        let request = || Request::new(18, libc::NLM_F_DUMP, &[7; 4]).with(3, b"name\0");
        let bytes =
            [request().with_nested(2, &[(1, b"a"), (9, b"bc")]).finish(5), request().finish(6)].concat();
        let read: Vec<_> = messages(&bytes).collect();
        assert_eq!(
            read.iter().map(|message| (message.kind, message.sequence)).collect::<Vec<_>>(),
            [(18, 5), (18, 6)]
        );
        let (body, rest) = read[0].body.split_at(4);
        assert_eq!(body, [7; 4]);
        let told: Vec<_> = attributes(rest).collect();
        assert_eq!((told[0], text(told[0].1)), ((3, &b"name\0"[..]), "name".to_owned()));
        assert_eq!(attributes(told[1].1).collect::<Vec<_>>(), [(1, &b"a"[..]), (9, b"bc")]);
    }

    #[test]
    fn what_is_cut_or_damaged_ends_the_reading() {
        let whole = Request::new(18, 0, &[0; 4]).with_nested(2, &[(1, b"a"), (9, b"bc")]).finish(5);
        for length in 0..whole.len() {
            assert_eq!(messages(&whole[..length]).count(), 0, "{length}");
        }
        for place in 0..whole.len() {
            for byte in [0, 1, 0xff] {
                let mut damaged = whole.clone();
                damaged[place] = byte;
                for message in messages(&damaged) {
                    let inner = attributes(message.body).flat_map(|(_, data)| attributes(data));
                    let _ = (inner.count(), error_number(message.body));
                }
            }
        }
    }

    #[test]
    fn errors_are_positive_numbers() {
        assert_eq!(error_number(&(-libc::EEXIST).to_ne_bytes()), libc::EEXIST);
        assert_eq!(error_number(&[]), 0);
    }
}
