//! Frames that no socket here writes: with VLAN tags, written whole to an interface.

use std::os::fd::AsRawFd as _;

use nix::{
    ifaddrs::getifaddrs,
    sys::socket::{AddressFamily, LinkAddr, MsgFlags, SockFlag, SockType, sendto, socket},
};
use pod2pod_common::counters::Counter;
use pod2pod_user::capture::Direction;
use support::{conversation::Conversation, netns::Namespace};

use super::world::{Node, VETH_ONE, ways};

/// Types of tags: a customer's, and a provider's around it (IEEE 802.1Q 9.5).
pub(super) const CUSTOMER: [u8; 2] = [0x81, 0x00];
const PROVIDER: [u8; 2] = [0x88, 0xa8];
/// Both addresses of an Ethernet header.
const ADDRESSES: usize = 12;

#[test]
fn vlan_tags_hide_nothing() {
    for way in ways() {
        let node = Node::routed();
        let mut watch = node.watch(way, &[VETH_ONE]);
        for (port, tags) in (40_000..).zip([&[][..], &[CUSTOMER], &[PROVIDER, CUSTOMER]]) {
            for (client, server) in [("10.8.1.2", "10.9.9.9"), ("fd08:1::2", "fd09::9")] {
                let end = |address: &str, port| std::net::SocketAddr::new(address.parse().unwrap(), port);
                let conversation = Conversation::new()
                    .addresses(end(client, port), end(server, 80))
                    .client("GET /tagged HTTP/1.1\r\nHost: a\r\n\r\n")
                    .server("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi")
                    .close();
                for segment in conversation.segments() {
                    let frame = tagged(&segment.to_packet(), tags);
                    // The pod's come out of its end of the pair, the others' go in at the node's.
                    if segment.source == end(client, port) {
                        inject(&node.one, "eth0", &frame);
                    } else {
                        inject(&node.node, VETH_ONE, &frame);
                    }
                }
                watch.drain();
                let sent = watch.stream(Direction::Egress, end(client, port));
                assert_eq!(
                    sent.escape_ascii().to_string(),
                    conversation.client_bytes().escape_ascii().to_string()
                );
                let received: Vec<u8> = watch
                    .seen
                    .iter()
                    .filter(|seen| seen.destination == end(client, port))
                    .flat_map(|seen| seen.payload.clone())
                    .collect();
                assert_eq!(received, conversation.server_bytes(), "{tags:?} {server} {way:?}");
            }
        }
        assert_eq!(watch.counter(Counter::GateHttp), 6);
        watch.assert_lossless();
    }
}

pub(super) fn tagged(frame: &[u8], tags: &[[u8; 2]]) -> Vec<u8> {
    let (addresses, rest) = frame.split_at(ADDRESSES);
    let tags = tags.iter().flat_map(|tag| [tag[0], tag[1], 0, 7]);
    addresses.iter().copied().chain(tags).chain(rest.iter().copied()).collect()
}

/// Writes `frame` to an interface of a namespace, as a driver would be given it.
pub(super) fn inject(namespace: &Namespace, interface: &str, frame: &[u8]) {
    let (namespace, interface, frame) = (namespace.clone(), interface.to_owned(), frame.to_vec());
    let written = std::thread::spawn(move || {
        namespace.enter();
        let all = getifaddrs().unwrap().filter(|found| found.interface_name == interface);
        let address: LinkAddr =
            all.filter_map(|found| found.address?.as_link_addr().copied()).next().expect("its link address");
        let socket = socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_CLOEXEC, None).unwrap();
        assert_eq!(sendto(socket.as_raw_fd(), &frame, &address, MsgFlags::empty()).unwrap(), frame.len());
    });
    written.join().unwrap();
}
