//! rtnetlink messages (rtnetlink(7)): what to ask of interfaces and routes, and what is answered. Opens no socket.

use super::interfaces::Interface;
use crate::netlink::{Request, attributes, text, u16_at, u32_at};

/// Bytes of `struct ifinfomsg`.
const LINK_BODY: usize = 16;
/// Bytes of `struct rtmsg`.
const ROUTE_BODY: usize = 12;
/// `IFLA_EXT_MASK` (linux/if_link.h).
const IFLA_EXT_MASK: u16 = 29;

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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::messages;

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
            let _ = link(cut.get(16..).unwrap_or_default());
        }
        for place in 0..whole.len() {
            for byte in [0, 1, 0xff] {
                let mut damaged = whole.clone();
                damaged[place] = byte;
                for message in messages(&damaged) {
                    let _ = (link(message.body), route_interface(message.body));
                }
            }
        }
    }
}
