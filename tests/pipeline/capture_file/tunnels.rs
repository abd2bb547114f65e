//! Tunnels: one segment inside each that is opened, none in what only looks like one.

use pod2pod_user::capture::packet::{MAX_GTP_EXTENSIONS, MAX_NESTING, MAX_SOURCE_ROUTES, MAX_TZSP_TAGS};
use support::capture_file::{ETHERNET, Tcp, ethernet, ip, ipv4, udp};

use super::{check, hex, join, one, v4, v6};

const OUTER: ([u8; 4], [u8; 4]) = ([192, 0, 2, 1], [192, 0, 2, 2]);

fn outer(protocol: u8, payload: &[u8]) -> Vec<u8> {
    ethernet(0x0800, &ipv4(OUTER.0, OUTER.1, protocol, 1, 0, payload))
}

fn outer_v6(protocol: u8, payload: &[u8]) -> Vec<u8> {
    let ends = ["2001:db8:f::1", "2001:db8:f::2"].map(|end| end.parse().expect("an address"));
    ethernet(0x86dd, &ip(ends[0], ends[1], protocol, payload))
}

fn over_udp(port: u16, front: &str, inner: &[u8]) -> Vec<u8> {
    outer(17, &udp(50_000, port, &join(&[&hex(front), inner])))
}

fn frame() -> Vec<u8> {
    ethernet(0x0800, &v4())
}

#[test]
fn ip_in_ip() {
    check("4 in 4", ETHERNET, &outer(4, &v4()));
    check("6 in 4", ETHERNET, &outer(41, &v6()));
    check("4 in 6", ETHERNET, &outer_v6(4, &v4()));
    check("6 in 6", ETHERNET, &outer_v6(41, &v6()));
    check("ethernet in ip", ETHERNET, &outer(97, &join(&[&hex("3000"), &frame()])));
    check("ethernet in ipv6", ETHERNET, &outer_v6(143, &frame()));
    check("mpls in ip", ETHERNET, &outer(137, &join(&[&hex("00010140"), &v4()])));
    let segment = Tcp::data(7, super::REQUEST).bytes();
    let header = hex("06 04 0000 00000001 00000001 000000000000000000000000");
    check("authentication header", ETHERNET, &outer(51, &join(&[&header, &segment])));
}

#[test]
fn ipv6_extension_headers() {
    let segment = Tcp::data(7, super::REQUEST).bytes();
    let pad = "00 0104 00000000";
    for (name, protocol, headers) in [
        ("hop-by-hop", 0, format!("06 {pad}")),
        ("destination", 60, format!("06 {pad}")),
        ("routing", 43, "06 02 00 00 00000000 20010db8000000000000000000000003".to_owned()),
        ("mobility", 135, "06 00 00 00 00000000".to_owned()),
        ("three of them", 0, format!("3c {pad} 2b {pad} 06 00 00 00 00000000")),
        ("atomic fragment", 44, "06 00 0000 00000001".to_owned()),
    ] {
        check(name, ETHERNET, &outer_v6(protocol, &join(&[&hex(&headers), &segment])));
    }
    check("in ipv4", ETHERNET, &outer(60, &join(&[&hex(&format!("06 {pad}")), &segment])));
}

#[test]
fn generic_routing_encapsulation() {
    let gre = |front: &str, inner: &[u8]| outer(47, &join(&[&hex(front), inner]));
    check("ipv4", ETHERNET, &gre("0000 0800", &v4()));
    check("ipv6", ETHERNET, &gre("0000 86dd", &v6()));
    check("over ipv6", ETHERNET, &outer_v6(47, &join(&[&hex("0000 0800"), &v4()])));
    check("checksum", ETHERNET, &gre("8000 0800 abcd0000", &v4()));
    check("key", ETHERNET, &gre("2000 0800 00000005", &v4()));
    check("key and sequence", ETHERNET, &gre("3000 0800 00000005 00000001", &v4()));
    check("all three", ETHERNET, &gre("b000 0800 abcd0000 00000005 00000001", &v4()));
    check("routing", ETHERNET, &gre("4000 0800 00000000 0800 0004 c0000203 0000 0000", &v4()));
    check("ethernet", ETHERNET, &gre("0000 6558", &frame()));
    check("mpls", ETHERNET, &gre("0000 8847 00010140", &v4()));
    check("pptp", ETHERNET, &gre("3081 880b 00000005 00000001 00000001 ff03 0021", &v4()));
    check("ppp without address", ETHERNET, &gre("3001 880b 00000005 00000001 21", &v4()));
    check("erspan 1", ETHERNET, &gre("0000 88be", &frame()));
    check("erspan 2", ETHERNET, &gre("1000 88be 00000001 1000000100000000", &frame()));
    check("erspan 3", ETHERNET, &gre("1000 22eb 00000001 200000010000000000000000", &frame()));
    check(
        "erspan 3, platform",
        ETHERNET,
        &gre("1000 22eb 00000001 200000010000000000000001 0000000000000000", &frame()),
    );
    check("wccp", ETHERNET, &gre("0000 883e 00000000", &v4()));
    check("wccp 1", ETHERNET, &gre("0000 883e", &v4()));
    check("nsh", ETHERNET, &gre("0000 894f 0002 02 03 00000001", &frame()));
    check("in udp", ETHERNET, &over_udp(4754, "0000 0800", &v4()));
}

#[test]
fn tunnels_over_udp() {
    check("vxlan", ETHERNET, &over_udp(4789, "08000000 00000500", &frame()));
    check("vxlan, old port", ETHERNET, &over_udp(8472, "08000000 00000500", &frame()));
    check("vxlan with policy", ETHERNET, &over_udp(4789, "88000007 00000500", &frame()));
    check("vxlan gpe", ETHERNET, &over_udp(4790, "0c000001 00000500", &v4()));
    check("geneve", ETHERNET, &over_udp(6081, "0000 6558 00000500", &frame()));
    check("geneve with options", ETHERNET, &over_udp(6081, "0240 6558 00000500 0102000100000000", &frame()));
    check("geneve, ipv4", ETHERNET, &over_udp(6081, "0000 0800 00000500", &v4()));
    let length = |more: usize| format!("{:04x}", v4().len() + more);
    check("gtp", ETHERNET, &over_udp(2152, &format!("30ff {} 00000001", length(0)), &v4()));
    check(
        "gtp, sequence",
        ETHERNET,
        &over_udp(2152, &format!("32ff {} 00000001 00010000", length(4)), &v4()),
    );
    let front = format!("34ff {} 00000001 00000085 01 0001 00", length(8));
    check("gtp, extension", ETHERNET, &over_udp(2152, &front, &v4()));
    let front = format!("30ff {} 00000001 ff03 0021", length(4));
    check("gtp, ppp", ETHERNET, &over_udp(2152, &front, &v4()));
    check("teredo", ETHERNET, &over_udp(3544, "", &v6()));
    check("teredo, origin", ETHERNET, &over_udp(3544, "0000 63bf 3ffffdfe", &v6()));
    let front = "0001 0000 0000000000000000 00 0000 63bf 3ffffdfe";
    check("teredo, authentication", ETHERNET, &over_udp(3544, front, &v6()));
    check("l2tp", ETHERNET, &over_udp(1701, "0002 0001 0001 ff03 0021", &v4()));
    let front = format!("4002 {} 0001 0001 0021", length(10));
    check("l2tp, length", ETHERNET, &over_udp(1701, &front, &v4()));
    check("l2tp, everything", ETHERNET, &over_udp(1701, "0a02 0001 0001 0000 0001 0002 ffff 0021", &v4()));
    check("l2tp 3", ETHERNET, &over_udp(1701, "0003 0000 00000007", &frame()));
    check(
        "l2tp 3 over ip",
        ETHERNET,
        &outer(115, &join(&[&hex("00000007 1122334455667788 00000000"), &frame()])),
    );
    check("capwap", ETHERNET, &over_udp(5247, "00 100200 00000000", &frame()));
    let wireless = "0108 0000 020000000001 020000000002 020000000003 1000 aaaa03 000000 0800";
    check("capwap, swapped", ETHERNET, &over_udp(5247, &format!("00 100300 00000000 {wireless}"), &v4()));
    let wireless = "0801 0000 020000000001 020000000002 020000000003 1000 aaaa03 000000 0800";
    check("capwap, in order", ETHERNET, &over_udp(5247, &format!("00 100300 00000000 {wireless}"), &v4()));
    let front =
        "44 52 11 29 00000000 20010db8000000000000000000000001 0000000000000000000000000000000000000000";
    check("ayiya", ETHERNET, &over_udp(5072, front, &v6()));
    check("mpls", ETHERNET, &over_udp(6635, "00010140", &v4()));
    check("lisp", ETHERNET, &over_udp(4341, "8000000000000000", &v4()));
    check("tzsp", ETHERNET, &over_udp(37_008, "01 00 0001 0a01c4 00 01", &frame()));
    check(
        "from the tunnel's port",
        ETHERNET,
        &outer(17, &udp(4789, 50_000, &join(&[&hex("0800000000000500"), &frame()]))),
    );
}

#[test]
fn what_is_no_tunnel_is_left_alone() {
    for (name, packet) in [
        ("another port", over_udp(4788, "08000000 00000500", &frame())),
        ("vxlan without its bit", over_udp(4789, "00000000 00000500", &v4())),
        ("gtp control", over_udp(2152, "3001 0000 00000001", &v4())),
        ("teredo with ipv4", over_udp(3544, "", &v4())),
        ("l2tp control", over_udp(1701, "c802 0000 0001 0001 0000 0000", &v4())),
        ("geneve control", over_udp(6081, "0080 6558 00000500", &frame())),
        ("dns", over_udp(53, "", &v4())),
        ("tcp in an icmp error", outer(1, &join(&[&hex("0303 0000 00000000"), &v4()]))),
        ("tcp in an icmpv6 error", outer_v6(58, &join(&[&hex("0100 0000 00000000"), &v6()]))),
    ] {
        let (seen, stats) = one(ETHERNET, &packet);
        assert_eq!((seen.len(), stats.not_tcp), (0, 1), "{name}: {stats:?}");
    }
    let (seen, stats) = one(ETHERNET, &outer(50, &v4()));
    assert_eq!((seen.len(), stats.encrypted), (0, 1), "{stats:?}");
}

#[test]
fn tunnels_nest_up_to_their_limit() {
    for (levels, expected) in [(MAX_NESTING, 1), (MAX_NESTING + 1, 0)] {
        let mut packet = v4();
        for _ in 1..levels {
            packet = ipv4(OUTER.0, OUTER.1, 4, 1, 0, &packet);
        }
        let (seen, stats) = one(101, &packet);
        assert_eq!(
            (seen.len(), stats.nesting),
            (expected, 1 - expected as u64),
            "{levels} levels: {stats:?}"
        );
    }
}

/// `packet` gives one segment, or none and is counted as walked too far.
fn check_walked(name: &str, packet: &[u8], expected: usize) {
    let (seen, stats) = one(ETHERNET, packet);
    assert_eq!((seen.len(), stats.nesting), (expected, 1 - expected as u64), "{name}: {stats:?}");
}

#[test]
fn source_routes_are_walked_up_to_their_limit() {
    for (entries, expected) in [(MAX_SOURCE_ROUTES, 1), (MAX_SOURCE_ROUTES + 1, 0)] {
        let routes = "0800 0004 c0000203".repeat(entries - 1);
        let header = hex(&format!("4000 0800 00000000 {routes} 0000 0000"));
        check_walked(&format!("{entries} entries"), &outer(47, &join(&[&header, &v4()])), expected);
    }
}

#[test]
fn gtp_extensions_are_walked_up_to_their_limit() {
    for (extensions, expected) in [(MAX_GTP_EXTENSIONS, 1), (MAX_GTP_EXTENSIONS + 1, 0)] {
        // Four bytes each: a length in words, two of content, the type of the next one.
        let chain = format!("{} 01 0001 00", "01 0001 85".repeat(extensions - 1));
        let length = v4().len() + 4 + 4 * extensions;
        let front = format!("34ff {length:04x} 00000001 00000085 {chain}");
        check_walked(&format!("{extensions} extensions"), &over_udp(2152, &front, &v4()), expected);
    }
}

#[test]
fn tzsp_tags_are_walked_up_to_their_limit() {
    for (tags, expected) in [(MAX_TZSP_TAGS, 1), (MAX_TZSP_TAGS + 1, 0)] {
        let front = format!("01 00 0001 {} 01", "0a01c4".repeat(tags - 1));
        check_walked(&format!("{tags} tags"), &over_udp(37_008, &front, &frame()), expected);
    }
}
