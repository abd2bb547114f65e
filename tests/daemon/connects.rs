//! Connection attempts in replay: a capture file is seen on a path, where silence alone proves nothing.

use serde_json::Value;
use support::{
    capture_file::{ACK, ETHERNET, Order, Pcap, SYN, Tcp, Unit},
    process::{command, run},
};

const SECOND: u64 = 1_000_000_000;
const START: u64 = 1_700_000_000 * SECOND;

/// A capture file of the SYNs of clients, each a port and the seconds at which it sends, and of one packet long after them.
fn capture(clients: &[(u16, &[u64])]) -> Vec<u8> {
    let mut packets = Vec::new();
    for (port, seconds) in clients {
        let source = ([10, 0, 0, 1], *port).into();
        let syn = Tcp { source, flags: SYN, acknowledgement: 0, ..Tcp::data(7_000, &[]) };
        packets.extend(seconds.iter().map(|second| (*second, syn.ethernet())));
    }
    packets.push((1000, Tcp { flags: ACK, ..Tcp::data(1, &[]) }.ethernet()));
    packets.sort_by_key(|(second, _)| *second);
    let mut file = Pcap::new(Order::Little, Unit::Nano, ETHERNET);
    for (second, packet) in packets {
        file.packet(START + second * SECOND, &packet);
    }
    file.bytes
}

#[test]
fn a_syn_that_was_not_sent_again_may_have_had_its_answer() {
    let finished = run(command(["replay", "-"]), &capture(&[(1, &[0]), (2, &[0, 1, 3]), (3, &[5])]));
    assert_eq!(finished.code, Some(0), "{finished:?}");
    let records: Vec<Value> =
        finished.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let [record] = &records[..] else { panic!("{}", finished.stdout) };
    let told = [&record["outcome"], &record["observed_at"], &record["tcp.connect.retransmits"]];
    assert_eq!(told, [&"timeout".into(), &"path".into(), &Value::from(2)], "{record}");
    assert_eq!((&record["client.port"], &record["duration"]), (&2.into(), &10.into()), "{record}");
}

/// What is left when the file ends is told in turns, however much it is.
#[test]
fn all_attempts_are_told_at_the_end_of_the_file() {
    let ports: Vec<u16> = (1..=1000).collect();
    // One second from the end.
    let clients: Vec<(u16, &[u64])> = ports.iter().map(|port| (*port, &[998, 999][..])).collect();
    let finished = run(command(["replay", "-"]), &capture(&clients));
    assert_eq!(finished.stdout.matches("\"outcome\":\"gap\"").count(), ports.len(), "{}", finished.stderr);
}
