//! rtnetlink messages (netlink(7), rtnetlink(7)): requests put together, answers taken apart. Opens no socket.

use super::interfaces::Interface;

/// Bytes of `struct nlmsghdr`.
const HEADER: usize = 16;
/// Bytes of `struct rtattr`.
const ATTRIBUTE_HEADER: usize = 4;
/// Bytes of `struct ifinfomsg`.
const LINK_BODY: usize = 16;
/// Bytes of `struct rtmsg`.
const ROUTE_BODY: usize = 12;
/// Flags in an attribute's kind (linux/netlink.h, NLA_TYPE_MASK).
const ATTRIBUTE_KIND: u16 = 0x3fff;
/// `IFLA_EXT_MASK` (linux/if_link.h).
const IFLA_EXT_MASK: u16 = 29;

/// A request under construction.
pub(super) struct Request(Vec<u8>);

impl Request {
    /// `kind` is `RTM_*`, `flags` are `NLM_F_*` beside NLM_F_REQUEST, `body` is the fixed part.
    pub(super) fn new(kind: u16, flags: libc::c_int, body: &[u8]) -> Self {
        let flags = (libc::NLM_F_REQUEST | flags) as u16;
        let mut bytes = vec![0; 4];
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(flags.to_ne_bytes());
        bytes.extend([0; 8]);
        bytes.extend(body);
        Self(bytes)
    }

    /// Adds an attribute.
    pub(super) fn with(mut self, kind: u16, data: &[u8]) -> Self {
        self.put(kind, data);
        self
    }

    /// Adds an attribute that holds others.
    pub(super) fn with_nested(mut self, kind: u16, inner: &[(u16, &[u8])]) -> Self {
        let mut nested = Self(Vec::new());
        for (kind, data) in inner {
            nested.put(*kind, data);
        }
        self.put(kind, &nested.0);
        self
    }

    /// The message, numbered by `sequence`.
    pub(super) fn finish(mut self, sequence: u32) -> Vec<u8> {
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

/// Asks for every interface.
pub(super) fn all_links() -> Request {
    let without_statistics = libc::RTEXT_FILTER_SKIP_STATS as u32;
    Request::new(libc::RTM_GETLINK, libc::NLM_F_DUMP, &[0; LINK_BODY])
        .with(IFLA_EXT_MASK, &without_statistics.to_ne_bytes())
}

/// Asks which way a packet to an address somewhere else would take. Nothing is sent.
pub(super) fn way_out(family: libc::c_int) -> Request {
    /// Documentation addresses (RFC 5737, RFC 3849): no route but a default route leads there.
    const V4: &[u8] = &[192, 0, 2, 1];
    const V6: &[u8] = &[0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
    let address = if family == libc::AF_INET6 { V6 } else { V4 };
    let mut body = [0; ROUTE_BODY];
    body[0] = family as u8;
    body[1] = (address.len() * 8) as u8;
    Request::new(libc::RTM_GETROUTE, libc::NLM_F_ACK, &body).with(libc::RTA_DST, address)
}

/// A message as received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Message<'a> {
    /// `RTM_*` or `NLMSG_*`.
    pub(super) kind: u16,
    /// `NLM_F_*`.
    pub(super) flags: u16,
    /// Of the request that it answers.
    pub(super) sequence: u32,
    /// Behind the header.
    pub(super) body: &'a [u8],
}

/// The messages of a datagram; ends at the first that is none.
pub(super) fn messages(mut bytes: &[u8]) -> impl Iterator<Item = Message<'_>> {
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
pub(super) fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::from(u16_at(bytes, 0)?);
        let kind = u16_at(bytes, 2)? & ATTRIBUTE_KIND;
        let data = bytes.get(ATTRIBUTE_HEADER..length)?;
        bytes = bytes.get(aligned(length)..).unwrap_or_default();
        Some((kind, data))
    })
}

/// The error number of an NLMSG_ERROR or NLMSG_DONE body; 0 is none.
pub(super) fn error_number(body: &[u8]) -> i32 {
    u32_at(body, 0).map_or(0, |number| number.cast_signed().wrapping_neg())
}

/// The interface that an RTM_NEWLINK or RTM_DELLINK body is about; absent if it is about a bridge's port, which comes and
/// goes without its interface.
pub(super) fn link(body: &[u8]) -> Option<Interface> {
    if libc::c_int::from(*body.first()?) != libc::AF_UNSPEC {
        return None;
    }
    let mut interface =
        Interface { index: u32_at(body, 4)?, hardware: u16_at(body, 2)?, ..Interface::default() };
    for (kind, data) in attributes(body.get(LINK_BODY..)?) {
        match kind {
            libc::IFLA_IFNAME => interface.name = text(data),
            libc::IFLA_LINK => interface.link = u32_at(data, 0),
            libc::IFLA_LINK_NETNSID => interface.link_elsewhere = true,
            libc::IFLA_MASTER => interface.enslaved = true,
            libc::IFLA_LINKINFO => {
                let kind = attributes(data).find(|(kind, _)| *kind == libc::IFLA_INFO_KIND);
                interface.kind = kind.map(|(_, data)| text(data)).unwrap_or_default();
            }
            _ => {}
        }
    }
    Some(interface)
}

/// The interface that an RTM_NEWROUTE body leads through.
pub(super) fn route_interface(body: &[u8]) -> Option<u32> {
    let (_, index) = attributes(body.get(ROUTE_BODY..)?).find(|(kind, _)| *kind == libc::RTA_OIF)?;
    u32_at(index, 0)
}

/// A name with the C terminator.
pub(super) fn text(data: &[u8]) -> String {
    let end = data.iter().position(|byte| *byte == 0).unwrap_or(data.len());
    String::from_utf8_lossy(data.get(..end).unwrap_or_default()).into_owned()
}

/// The number at `offset`, in the machine's byte order.
pub(super) fn u32_at(bytes: &[u8], offset: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(*bytes.get(offset..)?.first_chunk()?))
}

fn u16_at(bytes: &[u8], offset: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(*bytes.get(offset..)?.first_chunk()?))
}

const fn aligned(length: usize) -> usize {
    length.next_multiple_of(4)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A message as the kernel would send it about a veth.
    fn veth() -> Vec<u8> {
        let mut body = [0; LINK_BODY];
        body[2..4].copy_from_slice(&libc::ARPHRD_ETHER.to_ne_bytes());
        body[4..8].copy_from_slice(&7_u32.to_ne_bytes());
        Request::new(libc::RTM_NEWLINK, 0, &body)
            .with(libc::IFLA_IFNAME, b"veth7\0")
            .with(libc::IFLA_LINK, &2_u32.to_ne_bytes())
            .with(libc::IFLA_LINK_NETNSID, &0_u32.to_ne_bytes())
            .with_nested(libc::IFLA_LINKINFO | 0x8000, &[(libc::IFLA_INFO_KIND, b"veth\0")])
            .finish(3)
    }

    #[test]
    fn a_link_is_read_as_it_was_written() {
        let bytes = [veth(), veth()].concat();
        let read: Vec<_> = messages(&bytes).collect();
        assert_eq!(read.len(), 2);
        assert_eq!((read[1].kind, read[1].sequence), (libc::RTM_NEWLINK, 3));
        let expected = Interface {
            index: 7,
            name: "veth7".to_owned(),
            kind: "veth".to_owned(),
            hardware: libc::ARPHRD_ETHER,
            link: Some(2),
            link_elsewhere: true,
            ..Interface::default()
        };
        assert_eq!(link(read[1].body), Some(expected));
    }

    #[test]
    fn what_is_cut_or_damaged_ends_the_reading() {
        let whole = veth();
        for length in 0..whole.len() {
            let cut = &whole[..length];
            assert_eq!(messages(cut).count(), 0, "{length}");
            let _ = link(cut.get(HEADER..).unwrap_or_default());
        }
        for place in 0..whole.len() {
            for byte in [0, 1, 0xff] {
                let mut damaged = whole.clone();
                damaged[place] = byte;
                for message in messages(&damaged) {
                    let _ = (link(message.body), route_interface(message.body), error_number(message.body));
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
