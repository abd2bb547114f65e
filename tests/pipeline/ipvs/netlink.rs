//! What three kernels answered over netlink, byte for byte, and what is understood of it.

use std::fs;

use pod2pod_user::ipvs::{
    kernel::Timeouts,
    netlink::{ServiceTold, family, server, service, timeouts},
    parse::{
        Protocol,
        services::{Forward, Matches, ServerLine},
    },
};
use support::ipvs::folder;

/// Kind and body of each answer, in the order of the questions.
fn answers(kernel: &str) -> Vec<(String, Vec<u8>)> {
    let text = fs::read_to_string(folder().join(kernel).join("netlink")).unwrap();
    let one = |line: &str| {
        let (kind, hex) = line.split_once(' ').unwrap();
        let digits: Vec<char> = hex.chars().collect();
        let byte = |pair: &[char]| u8::from_str_radix(&String::from_iter(pair), 16).unwrap();
        (kind.to_owned(), digits.chunks(2).map(byte).collect())
    };
    text.lines().map(one).collect()
}

/// The bodies of a kind.
fn of<'a>(answers: &'a [(String, Vec<u8>)], kind: &str) -> Vec<&'a [u8]> {
    answers.iter().filter(|(own, _)| own == kind).map(|(_, body)| body.as_slice()).collect()
}

#[test]
fn answers_of_three_kernels() {
    for kernel in ["5.10", "6.1", "6.12"] {
        let answers = answers(kernel);
        assert!(of(&answers, "family").into_iter().all(|body| family(body).is_some_and(|id| id > 16)));
        let [set] = of(&answers, "timeouts")[..] else { panic!("{kernel}") };
        assert_eq!(timeouts(set), Timeouts { tcp: Some(25), tcp_fin: Some(7), udp: Some(33) }, "{kernel}");
        let told: Vec<ServiceTold> =
            of(&answers, "service").into_iter().map(|body| service(body).unwrap()).collect();
        let service_told = |matches, family, flags: &str| ServiceTold {
            matches,
            family,
            scheduler: "rr".to_owned(),
            flags: flags.to_owned(),
        };
        let address =
            |protocol, address: &str, port| Matches::Address(protocol, (address.parse().unwrap(), port));
        let six = service_told(address(Protocol::UDP, "fd00:96::10", 53), 10, "persistent");
        let four = service_told(address(Protocol::TCP, "10.96.0.10", 80), 2, "");
        let mark = service_told(Matches::Mark(7), 2, "ops");
        let mut expected = [six.clone(), four.clone(), mark.clone()];
        // In the order of the kernel's hashes.
        expected.sort_by_key(|service| told.iter().position(|own| own == service));
        assert_eq!(told, expected, "{kernel}");
        let mut servers: Vec<ServerLine> =
            of(&answers, "server").into_iter().map(|body| server(body, &four).unwrap()).collect();
        servers.sort_by_key(|server| server.end);
        let line = |address: &str, port, forward, weight| ServerLine {
            end: (address.parse().unwrap(), port),
            forward,
            weight,
            active: 0,
            inactive: 0,
        };
        assert_eq!(
            servers,
            [
                line("10.244.2.2", 0, Forward::Tunnel, 2),
                line("10.244.2.2", 8080, Forward::Masquerading, 1),
                line("10.244.3.2", 80, Forward::Route, 0),
                line("fd00:244:2::2", 5353, Forward::Masquerading, 3),
            ],
            "{kernel}"
        );
    }
}

/// Whatever is cut off or changed: it is understood otherwise or not at all.
#[test]
fn damaged_answers_are_no_answers() {
    for (_, body) in answers("6.1") {
        let read = |body: &[u8]| {
            let told = service(body);
            let servers = told.as_ref().and_then(|told| server(body, told));
            (family(body), timeouts(body), told, servers)
        };
        for length in 0..body.len() {
            let _ = read(&body[..length]);
        }
        for place in 0..body.len() {
            for byte in [0, 1, 0x7f, 0xff] {
                let mut damaged = body.clone();
                damaged[place] = byte;
                let _ = read(&damaged);
            }
        }
    }
    assert_eq!((family(&[]), service(&[1, 1, 0]), timeouts(&[])), (None, None, Timeouts::default()));
}
