//! One look at a live table: what the kernel says only if it is asked, and what its file leaves out.

use std::collections::BTreeSet;

use serde_json::Value;
use support::{
    director::{Director, Family, Service, Settings},
    fact,
    process::{Finished, command, run},
};

use super::director::has_ipvs;

/// What `pod2pod ipvs --once` tells where IPVS is.
fn once(director: &Director) -> Vec<Value> {
    let arguments = ["ipvs", "--once", "--format", "json"];
    let Finished { code, stdout, stderr } = director.node.within(|| run(command(arguments), b""));
    assert_eq!((code, stderr.as_str()), (Some(0), ""));
    stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn time_outs_are_those_that_were_set() {
    if !has_ipvs() {
        return;
    }
    let director = Director::new(Settings::default());
    for (set, expected) in [(None, [900, 120, 300]), (Some("--set 25 7 33\n"), [25, 7, 33])] {
        set.into_iter().for_each(|line| director.node.run(&format!("ipvsadm {}", line.trim())));
        let told = once(&director);
        let [totals] = &told[..] else { panic!("{told:?}") };
        let timeouts = ["tcp", "tcp_fin", "udp"].map(|name| totals[format!("ipvs.timeout.{name}")].as_u64());
        assert_eq!(timeouts, expected.map(Some), "{totals}");
    }
}

/// Services of each director.
const SERVICES: u16 = 120;

/// Services of several network namespaces stand in one list, and a file that is longer than a page skips some.
#[test]
fn no_service_is_left_out_beside_another_director() {
    if !has_ipvs() {
        return;
    }
    let directors = [(); 2].map(|()| Director::new(Settings::default()));
    let rules = |port: u16| {
        let family = if port.is_multiple_of(2) { Family::V4 } else { Family::V6 };
        let service = Service { is_tcp: !port.is_multiple_of(3), family, port, server_port: port };
        let servers = [0, 1].map(|server| format!("-a {service} -r {} -m -w 1\n", service.server(server)));
        format!("-A {service} -s rr\n{}", servers.concat())
    };
    let rules: String = (1..=SERVICES).map(rules).collect();
    directors.iter().for_each(|director| director.ipvsadm(&rules));
    let in_file = |director: &Director| {
        director.read("ip_vs").lines().skip(3).filter(|line| !line.starts_with("  -> ")).count()
    };
    if directors.iter().all(|director| in_file(director) == usize::from(SERVICES)) {
        fact::lacks("services that /proc/net/ip_vs leaves out");
    }
    for director in &directors {
        let told = once(director);
        let kept = told.iter().filter(|value| value["kind"] == "ipvs_server");
        let ports: Vec<_> = kept
            .map(|value| (value["server.port"].clone(), value["ipvs.real_server.weight"].clone()))
            .collect();
        let each: BTreeSet<_> = ports.iter().map(|(port, _)| port.as_u64().unwrap()).collect();
        assert_eq!((each.len(), ports.len()), (usize::from(SERVICES), 2 * usize::from(SERVICES)));
        assert!(ports.iter().all(|(_, weight)| *weight == 1), "{ports:?}");
    }
}
