//! Expressions as people write them, through libpcap: which are answered for a connection, which refused and why, and which
//! connections they keep.

use super::*;
use crate::{capture::Scope, reassembly::Start};

fn connection(originator: &str, responder: &str) -> Connection {
    let ends = (originator.parse().unwrap(), responder.parse().unwrap());
    Connection::between(Scope(0), ends, None, Start::Handshake)
}

/// Which of three connections an expression keeps: 10.0.0.1:40000 to 10.0.0.2:8080, 192.168.1.1:50000 to 192.168.1.2:80,
/// [fd00::1]:60000 to [fd00::2]:8080.
fn kept(text: &str) -> [bool; 3] {
    let expression = Expression::compile(text).unwrap_or_else(|error| panic!("{text}: {error}"));
    let kept = [
        ("10.0.0.1:40000", "10.0.0.2:8080"),
        ("192.168.1.1:50000", "192.168.1.2:80"),
        ("[fd00::1]:60000", "[fd00::2]:8080"),
    ]
    .map(|(originator, responder)| expression.matches(&connection(originator, responder)));
    assert!(!expression.matches_nothing() || kept == [false; 3], "{text}");
    kept
}

const YES: bool = true;
const NO: bool = false;

#[test]
fn what_can_be_answered_keeps_what_it_says() {
    let cases: &[(&str, [bool; 3])] = &[
        ("", [YES, YES, YES]),
        ("tcp", [YES, YES, YES]),
        ("ip", [YES, YES, NO]),
        ("ip6", [NO, NO, YES]),
        ("not ip", [NO, NO, YES]),
        ("port 8080", [YES, NO, YES]),
        ("tcp port 8080", [YES, NO, YES]),
        ("tcp port 8080 and not host 10.0.0.1", [NO, NO, YES]),
        ("dst port 8080", [YES, NO, YES]),
        // The other direction matches.
        ("src port 8080", [YES, NO, YES]),
        ("not dst port 8080", [YES, YES, YES]),
        ("not port 8080", [NO, YES, NO]),
        ("port http", [NO, YES, NO]),
        ("portrange 8000-8100", [YES, NO, YES]),
        ("portrange 40000-60000", [YES, YES, YES]),
        ("port 8080 or port 80", [YES, YES, YES]),
        ("host 10.0.0.1", [YES, NO, NO]),
        ("src host 10.0.0.2", [YES, NO, NO]),
        ("host fd00::2", [NO, NO, YES]),
        ("net 10.0.0.0/8", [YES, NO, NO]),
        ("net 10.0.0.0/8 or ip6 net fd00::/8", [YES, NO, YES]),
        ("net 192.168.0.0 mask 255.255.0.0", [NO, YES, NO]),
        ("src net 10.0.0.0/31", [YES, NO, NO]),
        ("ip6 net fe00::/8", [NO, NO, NO]),
        ("src host 10.0.0.1 and dst port 8080", [YES, NO, NO]),
        ("src host 10.0.0.1 and src port 8080", [NO, NO, NO]),
        ("ip proto 6", [YES, YES, NO]),
        ("ip proto \\tcp and port 80", [NO, YES, NO]),
        ("ip6 proto 6", [NO, NO, YES]),
        ("tcp src port 40000", [YES, NO, NO]),
        ("tcp[0:2] = 80 or tcp[2:2] = 80", [NO, YES, NO]),
        // libpcap reads TCP headers behind IPv4 only.
        ("tcp[2:2] > 1023", [YES, YES, NO]),
        ("tcp[0] = 0x1f and tcp[1] = 0x90", [YES, NO, NO]),
        ("tcp[0:2] - 80 = 8000", [YES, NO, NO]),
        ("ip[12:4] = 0x0a000001", [YES, NO, NO]),
        ("ip[16] & 0xf0 = 0xc0", [NO, YES, NO]),
        ("ip[9] = 6", [YES, YES, NO]),
        ("ip[6:2] & 0x1fff = 0", [YES, YES, NO]),
        ("ip[0] & 0xf0 = 0x40", [YES, YES, NO]),
        ("ip[0] >> 4 = 4", [YES, YES, NO]),
        ("ip6[6] = 6", [NO, NO, YES]),
        ("ip6[40:2] = 8080", [NO, NO, YES]),
        ("ether proto 0x86dd", [NO, NO, YES]),
        ("ether[12:2] = 0x800", [YES, YES, NO]),
        ("ip multicast", [NO, NO, NO]),
        ("not arp and not icmp", [YES, YES, YES]),
    ];
    for (text, expected) in cases {
        assert_eq!(kept(text), *expected, "{text}");
    }
}

#[test]
fn what_no_tcp_connection_can_be_is_known() {
    let check = |text: &str, nothing: bool| {
        assert_eq!(Expression::compile(text).unwrap().matches_nothing(), nothing, "{text}");
    };
    for text in [
        "ip proto 17",
        "udp port 53",
        "udp[4:2] > 100",
        "icmp",
        "icmp[0] = 8",
        "arp",
        "arp host 10.0.0.1",
        "ip proto 47",
        "ether proto 0x806",
        "ip[6:2] & 0x1fff != 0",
        "stp",
        "ip[12] > 255",
    ] {
        check(text, true);
    }
    for text in ["", "tcp", "host 10.0.0.1", "not udp", "udp or tcp port 80"] {
        check(text, false);
    }
}

#[test]
fn what_differs_between_packets_is_refused_with_its_name() {
    let cases: &[(&str, &str)] = &[
        ("len > 100", "the packet's length"),
        ("greater 100", "the packet's length"),
        ("less 100", "the packet's length"),
        ("tcp port 80 and greater 100", "the packet's length"),
        ("ip[2:2] > 100", "the packet's length"),
        ("ip6[4:2] > 100", "the packet's length"),
        ("tcp[tcpflags] & tcp-syn != 0", "TCP flags"),
        ("tcp[13] & 7 != 0", "TCP flags"),
        ("tcp[tcpflags] & (tcp-rst|tcp-fin) != 0 and port 80", "TCP flags"),
        ("tcp[4:4] = 0", "TCP sequence numbers"),
        ("tcp[8:4] = 0", "TCP acknowledgement numbers"),
        ("tcp[12] & 0xf0 = 0x50", "the TCP header's length"),
        ("tcp[14:2] = 0", "the TCP window"),
        ("tcp[16:2] = 0", "the TCP checksum"),
        ("tcp[18:2] != 0", "the TCP urgent pointer"),
        ("tcp[20:4] = 0x47455420", "the payload or TCP options"),
        ("tcp[((tcp[12:1] & 0xf0) >> 2):4] = 0x47455420", "the TCP header's length"),
        ("ip[0] & 0xf != 5", "the IP header's length"),
        ("ip[1] = 0", "the type of service"),
        ("ip[4:2] = 0", "the IP identification"),
        ("ip[6] & 0x40 != 0", "the fragmentation flags"),
        ("ip[8] < 64", "the time to live"),
        ("ip[10:2] = 0", "the IP checksum"),
        ("ip[20:2] = 80", "what lies at a fixed place behind the IP header, whatever its length"),
        ("ip6[0:4] & 0x0fffffff = 0", "the traffic class"),
        ("ip6[7] = 64", "the hop limit"),
        ("ip6[60] = 1", "the payload or TCP options"),
        ("vlan", "VLAN tags"),
        ("vlan 5", "VLAN tags"),
        ("tcp port 80 or vlan 5", "VLAN tags"),
        ("mpls", "MPLS labels"),
        ("pppoes", "PPPoE sessions"),
        ("ether host 02:00:00:00:00:01", "MAC addresses"),
        ("ether src 02:00:00:00:00:01 and tcp", "MAC addresses"),
        ("ether broadcast", "MAC addresses"),
        ("broadcast", "MAC addresses"),
        ("ether[0] & 1 = 0 and tcp", "MAC addresses"),
        ("inbound", "the packet's direction at an interface"),
        ("outbound and tcp port 80", "the packet's direction at an interface"),
    ];
    for (text, what) in cases {
        match Expression::compile(text) {
            Err(ExpressionError::Unanswerable(refusal)) => assert_eq!(refusal.0, *what, "{text}"),
            other => panic!("{text}: {other:?}"),
        }
    }
}

#[test]
fn what_libpcap_refuses_has_its_message() {
    let cases: &[(&str, &str)] = &[
        ("foo bar", "syntax error"),
        ("tcp port", "syntax error"),
        ("port 80 and", "syntax error"),
        ("host 10.0.0.1/8", "non-network bits set"),
        ("net 10.0.0.1/8", "non-network bits set"),
        ("port no-such-service", "unknown port 'no-such-service'"),
        ("portrange 80-", "syntax error"),
        ("ip broadcast", "netmask not known"),
        ("ip and ip6", "expression rejects all packets"),
        ("port 99999", "illegal port number"),
        ("(tcp", "syntax error"),
    ];
    for (text, message) in cases {
        match Expression::compile(text) {
            Err(ExpressionError::Refused(said)) => assert!(said.contains(message), "{text}: {said}"),
            other => panic!("{text}: {other:?}"),
        }
    }
    assert!(matches!(Expression::compile("tcp\0"), Err(ExpressionError::Refused(_))));
}

#[test]
fn many_hosts_are_looked_through() {
    let hosts: Vec<_> = (0..100).map(|host| format!("host 10.1.0.{host}")).collect();
    let expression = Expression::compile(&hosts.join(" or ")).unwrap();
    assert!(expression.matches(&connection("10.1.0.99:1", "10.2.0.0:2")));
    assert!(!expression.matches(&connection("10.1.0.100:1", "10.2.0.0:2")));
}
