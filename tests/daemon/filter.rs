//! Filters in replay: what is refused leaves no record, and the last line says how many.

use std::collections::BTreeSet;

use pod2pod_user::filter::expression::IS_BUILT;
use serde_json::Value;
use support::{
    capture_file::{ETHERNET, Order, Pcap, Unit},
    conversation::Conversation,
    process::{Finished, command, run},
};

const CLIENT: [u8; 4] = [10, 0, 0, 1];
const SERVER: [u8; 4] = [10, 0, 0, 2];

/// One exchange with a server's port; the client's is 40000 more.
fn exchange(begun: Conversation, port: u16) -> Conversation {
    begun
        .addresses((CLIENT, 40_000 + port).into(), (SERVER, port).into())
        .client("GET / HTTP/1.1\r\nHost: shop\r\n\r\n")
        .server("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello")
        .close()
}

fn file(conversations: &[Conversation]) -> Vec<u8> {
    let mut file = Pcap::new(Order::Little, Unit::Nano, ETHERNET);
    for (time, packet) in conversations.iter().flat_map(Conversation::to_packets) {
        file.packet(time.as_nanos(), &packet);
    }
    file.bytes
}

fn replay(arguments: &[&str], input: &[u8]) -> Finished {
    run(command([&["replay", "-"], arguments].concat()), input)
}

/// Ports of the servers in the records.
fn ports(finished: &Finished) -> BTreeSet<u64> {
    let port = |line| serde_json::from_str::<Value>(line).unwrap()["server.port"].as_u64().unwrap();
    finished.stdout.lines().map(port).collect()
}

#[test]
fn ports_are_the_servers() {
    let input = file(&[80, 8080, 8081, 9000].map(|port| exchange(Conversation::new(), port)));
    let finished =
        replay(&["--port", "8000-8100", "--port", "9000", "--set", "filter.ignore_ports=8081"], &input);
    assert_eq!(ports(&finished), BTreeSet::from([8080, 9000]));
    assert_eq!(finished.code, Some(0));
    assert_eq!(finished.stderr, "pod2pod: seen 2, delivered 2, lost 0, 2 connections filtered out\n");
    let clients = replay(&["--port", "48080"], &input);
    assert_eq!(clients.stdout, "");
}

#[test]
fn of_a_connection_joined_in_its_middle_the_server_is_known_late() {
    let input = file(&[80, 8080].map(|port| exchange(Conversation::joined_in_the_middle(), port)));
    assert_eq!(ports(&replay(&["--port", "8080"], &input)), BTreeSet::from([8080]));
    // The port is the client's: until a request shows that, the connection may be wanted.
    let finished = replay(&["--port", "48080"], &input);
    assert_eq!(finished.stdout, "");
    assert_eq!(finished.stderr, "pod2pod: seen 0, delivered 0, lost 0, 2 connections filtered out\n");
}

#[test]
fn networks() {
    let input = file(&[80].map(|port| exchange(Conversation::new(), port)));
    let count = |arguments: &[&str]| replay(arguments, &input).stdout.lines().count();
    assert_eq!(count(&["--set", "filter.cidrs=10.0.0.1"]), 1);
    assert_eq!(count(&["--set", "filter.cidrs=10.1.0.0/16,fd00::/8"]), 0);
    assert_eq!(count(&["--set", "filter.ignore_cidrs=10.0.0.2/32"]), 0);
    assert_eq!(count(&["--set", "roles=server"]), 1, "on a path there are no roles");
}

#[test]
fn expressions() {
    if !IS_BUILT {
        let finished = replay(&["--filter", "tcp"], &[]);
        assert_eq!(finished.code, Some(64));
        assert!(finished.stderr.contains("built without pcap expressions"), "{}", finished.stderr);
        return;
    }
    let input = file(&[80, 8080].map(|port| exchange(Conversation::new(), port)));
    let kept = |expression: &str| ports(&replay(&["--filter", expression], &input));
    assert_eq!(kept(""), BTreeSet::from([80, 8080]));
    assert_eq!(kept("tcp port 8080"), BTreeSet::from([8080]));
    assert_eq!(kept("tcp port 8080 and not host 10.0.0.1"), BTreeSet::new());
    assert_eq!(kept("dst port 48080 or src port 80"), BTreeSet::from([80, 8080]));
    let nothing = replay(&["--filter", "udp port 80"], &input);
    assert!(nothing.stderr.contains("no TCP connection can match it"), "{}", nothing.stderr);
    assert_eq!((nothing.code, nothing.stdout.as_str()), (Some(0), ""));
}

#[test]
fn an_expression_that_cannot_be_used_is_told_with_all_other_mistakes() {
    if !IS_BUILT {
        return;
    }
    let finished = replay(&["--filter", "tcp port 80 and", "--port", "x"], &[]);
    assert_eq!(finished.code, Some(64));
    let expected = "filter.expression: \"tcp port 80 and\": can't parse filter expression: syntax error";
    assert!(finished.stderr.contains(expected), "{}", finished.stderr);
    assert_eq!(finished.stderr.lines().count(), 2, "{}", finished.stderr);
    let finished = replay(&["--filter", "len > 100"], &[]);
    assert_eq!(finished.code, Some(64));
    assert!(finished.stderr.contains("it depends on the packet's length"), "{}", finished.stderr);
}

#[test]
fn mistakes_are_told_at_once() {
    let settings = [
        "filter.ports=80-79",
        "filter.ignore_ports=http",
        "filter.cidrs=10.0.0.1/8",
        "filter.ignore_cidrs=localhost",
        "roles=proxy",
        "roles=",
    ];
    let finished = replay(&settings.map(|setting| ["--set", setting]).concat(), &[]);
    assert_eq!(finished.code, Some(64));
    assert_eq!(finished.stderr.lines().count(), settings.len(), "{}", finished.stderr);
}
