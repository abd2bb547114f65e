//! Overlays between nodes: what is inside VXLAN and Geneve is told as if it were outside.

use std::net::{IpAddr, SocketAddr};

use pod2pod_common::counters::Counter;
use pod2pod_user::capture::{
    Direction,
    kernel::{ScopeChoice, TcWay},
};
use support::{
    capture_file::{ethernet, ip, ipv4, udp},
    conversation::Conversation,
    fact, scale,
};

use super::{
    frames::{CUSTOMER, inject, tagged},
    seen::{assert_both_ends, assert_same, counts, index, script},
    world::{Node, VETH_ONE, VETH_TWO, ways},
};
use crate::{lend::lend, talk::talk, watch::Watch};

/// Makes the ends of a tunnel over the node between its pods; false if the kernel has none of that kind.
fn tunnel(node: &Node, (kind, port): (&str, u16), over: [&str; 2]) -> bool {
    for (pod, remote, number) in [(&node.one, over[1], 1), (&node.two, over[0], 2)] {
        let made = format!("ip link add name over0 type {kind} id 7 remote {remote} dstport {port}");
        if !pod.try_run(&made) {
            return false;
        }
        pod.run(&format!("ip address add 10.77.0.{number}/24 dev over0"));
        pod.run(&format!("ip address add fd77::{number}/64 dev over0 nodad"));
        // With the outer headers within the veths' 1500: a fragment is not looked into.
        pod.run("ip link set over0 mtu 1400 up");
    }
    true
}

#[test]
fn tunnels_of_the_kernel_are_looked_into() {
    const V4: [&str; 2] = ["10.8.1.2", "10.8.2.2"];
    const V6: [&str; 2] = ["fd08:1::2", "fd08:2::2"];
    for way in ways() {
        let (vxlan, geneve) = (("vxlan", 4789), ("geneve", 6081));
        // Where all is slow, each kind and each version once.
        let tunnels = [(vxlan, V4), (geneve, V6), (vxlan, V6), (geneve, V4)];
        for (kind, over) in tunnels.into_iter().take(scale::count(4, 2)) {
            let node = Node::routed();
            if !tunnel(&node, kind, over) {
                fact::lacks(kind.0);
                continue;
            }
            looks_into(&node, way);
        }
    }
}

fn looks_into(node: &Node, way: TcWay) {
    let (cgroup, mut at_sockets) = lend(ScopeChoice::Cgroup);
    let mut watch = node.watch(way, &[VETH_ONE, VETH_TWO]);
    for address in ["10.77.0.2", "[fd77::2]"] {
        at_sockets.drain();
        let work = talk(&cgroup, &node.one, &node.two, address, &script());
        let ends = Watch::all_during(&mut [&mut watch, &mut at_sockets], work);
        assert_both_ends(&watch, ends, &script(), [index(VETH_ONE), index(VETH_TWO)]);
        assert_same(&counts(&watch, ends), &counts(&at_sockets, ends), address);
    }
    assert_eq!(watch.counter(Counter::BytesMatched), at_sockets.counter(Counter::BytesMatched));
    // All TCP here is in the tunnel.
    let inside = watch.counter(Counter::SegmentsMatched) + watch.counter(Counter::BareAck);
    assert!(watch.counter(Counter::TunnelPackets) >= inside);
    watch.assert_lossless();
}

const CLIENT: &str = "10.77.0.1";
const SERVER: &str = "10.77.0.2";

fn end(address: &str, port: u16) -> SocketAddr {
    SocketAddr::new(address.parse().unwrap(), port)
}

/// UDP to `port` between addresses that nobody here has, over either version of IP.
fn outer(version: u8, port: u16, front: &[u8], inner: &[u8]) -> Vec<u8> {
    let datagram = udp(50_000, port, &[front, inner].concat());
    match version {
        4 => ethernet(0x0800, &ipv4([192, 0, 2, 1], [192, 0, 2, 2], 17, 1, 0, &datagram)),
        _ => {
            let [source, destination] = ["2001:db8:f::1", "2001:db8:f::2"].map(|end| end.parse::<IpAddr>());
            ethernet(0x86dd, &ip(source.unwrap(), destination.unwrap(), 17, &datagram))
        }
    }
}

/// Sends a conversation from `CLIENT`, each of its frames as `wrap` makes it; what was told, and how many frames there were.
fn send(node: &Node, watch: &mut Watch, port: u16, wrap: impl Fn(&[u8]) -> Vec<u8>) -> (Conversation, u64) {
    let conversation = Conversation::new()
        .addresses(end(CLIENT, port), end(SERVER, 80))
        .client("GET /inside HTTP/1.1\r\nHost: a\r\n\r\n")
        .server("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi")
        .close();
    let mut frames = 0;
    for segment in conversation.segments() {
        let frame = wrap(&segment.to_packet());
        // The pod's come out of its end of the pair, the others' go in at the node's.
        let (namespace, interface) =
            if segment.source.port() == port { (&node.one, "eth0") } else { (&node.node, VETH_ONE) };
        inject(namespace, interface, &frame);
        frames += 1;
    }
    watch.drain();
    (conversation, frames)
}

/// What a tunnel carries of a frame.
type Inner = fn(&[u8]) -> Vec<u8>;

#[test]
fn every_form_of_tunnel_is_looked_into() {
    const VXLAN: &[u8] = &[0x08, 0, 0, 0, 0, 0, 7, 0];
    const GENEVE: &[u8] = &[0, 0, 0x65, 0x58, 0, 0, 7, 0];
    // An option of four bytes and its header (RFC 8926 3.5).
    const GENEVE_OPTION: &[u8] = &[2, 0x40, 0x65, 0x58, 0, 0, 7, 0, 1, 2, 0, 1, 0, 0, 0, 0];
    const GENEVE_IP: &[u8] = &[0, 0, 0x08, 0x00, 0, 0, 7, 0];
    let whole: Inner = |frame| frame.to_vec();
    let with_tag: Inner = |frame| tagged(frame, &[CUSTOMER]);
    let packet: Inner = |frame| frame[14..].to_vec();
    let forms: [(&str, u16, &[u8], Inner); 7] = [
        ("vxlan", 4789, VXLAN, whole),
        ("vxlan, Linux's port", 8472, VXLAN, whole),
        ("vxlan, a tag inside", 4789, VXLAN, with_tag),
        ("geneve", 6081, GENEVE, whole),
        ("geneve with an option", 6081, GENEVE_OPTION, whole),
        ("geneve, a tag inside", 6081, GENEVE, with_tag),
        ("geneve without a frame", 6081, GENEVE_IP, packet),
    ];
    for way in ways() {
        let node = Node::routed();
        let mut watch = node.watch(way, &[VETH_ONE]);
        let mut sent = 0;
        for (client, (name, port, front, inner)) in (40_000..).step_by(2).zip(forms) {
            for (client, version) in [(client, 4), (client + 1, 6)] {
                let (conversation, frames) =
                    send(&node, &mut watch, client, |frame| outer(version, port, front, &inner(frame)));
                sent += frames;
                let told = watch.stream(Direction::Egress, end(CLIENT, client));
                assert_eq!(told, conversation.client_bytes(), "{name} over {version} {way:?}");
                let answers = watch.seen.iter().filter(|seen| seen.destination == end(CLIENT, client));
                let told: Vec<u8> = answers.flat_map(|seen| seen.payload.clone()).collect();
                assert_eq!(told, conversation.server_bytes(), "{name} over {version} {way:?}");
                assert_eq!(watch.counter(Counter::TunnelPackets), sent, "{name} over {version} {way:?}");
            }
        }
        assert_eq!(watch.counter(Counter::GateHttp), 2 * forms.len() as u64);
        watch.assert_lossless();
    }
}

#[test]
fn what_only_looks_like_a_tunnel_is_a_datagram() {
    let forms: [(&str, u16, [u8; 8]); 4] = [
        ("another port", 4788, [0x08, 0, 0, 0, 0, 0, 7, 0]),
        ("vxlan without its bit", 4789, [0, 0, 0, 0, 0, 0, 7, 0]),
        ("geneve of another version", 6081, [0x40, 0, 0x65, 0x58, 0, 0, 7, 0]),
        ("geneve control", 6081, [0, 0x80, 0x65, 0x58, 0, 0, 7, 0]),
    ];
    let node = Node::routed();
    let mut watch = node.watch(TcWay::Newest, &[VETH_ONE]);
    for (name, port, front) in forms {
        let before = watch.counter(Counter::NotTcp);
        let (_, frames) = send(&node, &mut watch, 40_000, |frame| outer(4, port, &front, frame));
        assert!(watch.counter(Counter::NotTcp) >= before + frames, "{name}");
        assert_eq!(watch.counter(Counter::SegmentsMatched), 0, "{name}");
        assert_eq!(watch.counter(Counter::TunnelPackets), 0, "{name}");
    }
    watch.assert_lossless();
}
