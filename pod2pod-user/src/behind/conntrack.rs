//! Conntrack over netlink (linux/netfilter/nfnetlink_conntrack.h): what to ask, and what is answered. Opens no socket.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::netlink::{Message, Request, attributes, nested, u16_at};

/// `NFNL_SUBSYS_CTNETLINK`, which has the upper byte of a message's kind.
const SUBSYSTEM: u16 = 1 << 8;
/// `IPCTNL_MSG_CT_NEW`: an entry as it is.
const ENTRY: u16 = SUBSYSTEM;
/// `IPCTNL_MSG_CT_GET`.
const GET: u16 = SUBSYSTEM | 1;
/// Bytes of `struct nfgenmsg`.
const HEADER: usize = 4;
/// `NFNETLINK_V0`.
const VERSION: u8 = 0;
/// The attribute holds others (linux/netlink.h, NLA_F_NESTED).
const NESTED: u16 = 1 << 15;

/// `CTA_TUPLE_ORIG`: as who opened the connection sees it.
const ORIGINAL: u16 = 1;
/// `CTA_TUPLE_REPLY`: as who answers sees it, the other way round.
const REPLY: u16 = 2;

/// Attributes of a tuple (`CTA_TUPLE_*`, `CTA_IP_*`, `CTA_PROTO_*`).
mod tuple_attribute {
    pub(super) const ADDRESSES: u16 = 1;
    pub(super) const PROTOCOL: u16 = 2;
    /// Source, destination.
    pub(super) const V4: [u16; 2] = [1, 2];
    pub(super) const V6: [u16; 2] = [3, 4];
    pub(super) const NUMBER: u16 = 1;
    pub(super) const SOURCE_PORT: u16 = 2;
    pub(super) const DESTINATION_PORT: u16 = 3;
}

/// Asks for the entry of the TCP connection that `client` opened to `service`.
pub(super) fn request(client: SocketAddr, service: SocketAddr) -> Request {
    use tuple_attribute as of;

    let octets = |address: IpAddr| match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    };
    let (kinds, family) = match service.ip() {
        IpAddr::V4(_) => (of::V4, libc::AF_INET),
        IpAddr::V6(_) => (of::V6, libc::AF_INET6),
    };
    let [source, destination] = [client, service].map(|end| octets(end.ip()));
    let [from, to] = kinds;
    let addresses = nested(&[(from, &source), (to, &destination)]);
    let [source, destination] = [client, service].map(|end| end.port().to_be_bytes());
    let number = [libc::IPPROTO_TCP as u8];
    let protocol =
        nested(&[(of::NUMBER, &number), (of::SOURCE_PORT, &source), (of::DESTINATION_PORT, &destination)]);
    let tuple: [(u16, &[u8]); 2] = [(of::ADDRESSES | NESTED, &addresses), (of::PROTOCOL | NESTED, &protocol)];
    Request::new(GET, libc::NLM_F_ACK, &[family as u8, VERSION, 0, 0]).with_nested(ORIGINAL | NESTED, &tuple)
}

/// Who answers: the source of the replies; absent if the message is no entry.
pub(super) fn server(message: Message<'_>) -> Option<SocketAddr> {
    use tuple_attribute as of;

    if message.kind != ENTRY {
        return None;
    }
    let inside = |data, wanted| attributes(data).find(|(kind, _)| *kind == wanted).map(|(_, data)| data);
    let reply = inside(message.body.get(HEADER..)?, REPLY)?;
    let addresses = inside(reply, of::ADDRESSES)?;
    let [v4, _] = of::V4;
    let [v6, _] = of::V6;
    let address = match (inside(addresses, v4), inside(addresses, v6)) {
        (Some(address), _) => IpAddr::V4(Ipv4Addr::from(*address.first_chunk::<4>()?)),
        (None, Some(address)) => IpAddr::V6(Ipv6Addr::from(*address.first_chunk::<16>()?)),
        (None, None) => return None,
    };
    let port = u16_at(inside(inside(reply, of::PROTOCOL)?, of::SOURCE_PORT)?, 0)?;
    Some(SocketAddr::new(address, u16::from_be(port)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::messages;

    fn end(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    /// What the kernel would say of a connection: both tuples as it writes them.
    fn entry(client: SocketAddr, service: SocketAddr, server: SocketAddr) -> Vec<u8> {
        let asked = request(client, service).finish(1);
        let replied = request(server, client).finish(1);
        let tuple = |bytes: &[u8]| {
            let message = messages(bytes).next().unwrap();
            attributes(&message.body[HEADER..]).next().unwrap().1.to_vec()
        };
        Request::new(ENTRY, 0, &[libc::AF_INET as u8, VERSION, 0, 0])
            .with(ORIGINAL | NESTED, &tuple(&asked))
            .with(REPLY | NESTED, &tuple(&replied))
            .finish(1)
    }

    #[test]
    fn the_server_is_who_answers() {
        for (client, service, real) in [
            ("10.244.1.2:40001", "10.96.0.10:80", "10.244.2.3:8080"),
            ("[fd00::2]:40001", "[fd00:96::10]:80", "[fd00::3]:8080"),
        ] {
            let bytes = entry(end(client), end(service), end(real));
            let told: Vec<_> = messages(&bytes).map(server).collect();
            assert_eq!(told, [Some(end(real))]);
        }
        // An acknowledgement is no entry.
        let other = request(end("10.0.0.1:1"), end("10.0.0.2:2")).finish(1);
        assert_eq!(messages(&other).next().and_then(server), None);
    }

    #[test]
    fn a_question_is_as_the_kernel_reads_it() {
        let bytes = request(end("10.244.1.2:40001"), end("10.96.0.10:80")).finish(7);
        let kind = [1, 1];
        let flags = [5, 0];
        let ends: [&[u8]; 9] = [
            &[20, 0, 1, 128],
            &[8, 0, 1, 0, 10, 244, 1, 2, 8, 0, 2, 0, 10, 96, 0, 10],
            &[28, 0, 2, 128],
            &[5, 0, 1, 0, 6, 0, 0, 0],
            &[6, 0, 2, 0, 0x9c, 0x41, 0, 0],
            &[6, 0, 3, 0, 0, 80, 0, 0],
            &[],
            &[],
            &[],
        ];
        let header: [&[u8]; 6] =
            [&[72, 0, 0, 0], &kind, &flags, &[7, 0, 0, 0], &[0; 4], &[2, 0, 0, 0, 52, 0, 1, 128]];
        assert_eq!(bytes, [header.concat(), ends.concat()].concat());
    }

    #[test]
    fn what_is_damaged_is_no_answer_and_no_harm() {
        let whole = entry(end("10.0.0.1:1"), end("10.0.0.2:2"), end("10.0.0.3:3"));
        for place in 0..whole.len() {
            for byte in [0, 1, 0xff] {
                let mut damaged = whole.clone();
                damaged[place] = byte;
                assert!(messages(&damaged).filter_map(server).count() <= 1);
            }
        }
    }
}
