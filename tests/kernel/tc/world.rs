//! Two pods behind a node, as network namespaces: their host-side veths, routed or on a bridge, and the node's uplink.

use std::{
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use pod2pod_user::capture::kernel::{Config, Pattern, SourceChoice, TcWay};
use support::{
    fact,
    netns::{Cgroup, Namespace},
    scale,
};

use crate::watch::{PATIENCE, Watch};

/// Where the pods are.
pub(crate) const ONE: &str = "10.8.1.2";
pub(crate) const TWO: &str = "10.8.2.2";
/// The second pod over IPv6.
pub(crate) const TWO_V6: &str = "[fd08:2::2]";
/// Host-side veths of the pods.
pub(crate) const VETH_ONE: &str = "one";
pub(crate) const VETH_TWO: &str = "two";

/// A node and two pods.
pub(crate) struct Node {
    pub(crate) node: Namespace,
    pub(crate) one: Namespace,
    pub(crate) two: Namespace,
    pub(crate) cgroup: Cgroup,
}

impl Node {
    /// The pods reach each other through the node's routing.
    pub(crate) fn routed() -> Self {
        let (node, one, two) = (Namespace::new(), Namespace::new(), Namespace::new());
        let sides = [(&one, VETH_ONE, 1), (&two, VETH_TWO, 2)];
        for (pod, veth, number) in sides {
            let near = [format!("10.8.{number}.1/24"), format!("fd08:{number}::1/64")];
            let far = [format!("10.8.{number}.2/24"), format!("fd08:{number}::2/64")];
            node.wire(
                veth,
                &near.each_ref().map(String::as_str),
                pod,
                "eth0",
                &far.each_ref().map(String::as_str),
            );
            pod.ip(&format!("route add default via 10.8.{number}.1\nroute add ::/0 via fd08:{number}::1\n"));
        }
        forward(&node);
        Self { node, one, two, cgroup: Cgroup::new() }
    }

    /// The pods reach each other through a bridge of the node.
    pub(crate) fn bridged() -> Self {
        let (node, one, two) = (Namespace::new(), Namespace::new(), Namespace::new());
        node.run("ip link add name cni0 type bridge");
        node.run("ip link set cni0 up");
        for (pod, veth, address) in [(&one, VETH_ONE, "10.8.0.2/16"), (&two, VETH_TWO, "10.8.0.3/16")] {
            node.wire(veth, &[], pod, "eth0", &[address]);
            node.run(&format!("ip link set {veth} master cni0"));
        }
        Self { node, one, two, cgroup: Cgroup::new() }
    }

    /// Watches `interfaces` of the node. The calling thread is in the node's namespace from here on.
    pub(crate) fn watch(&self, way: TcWay, interfaces: &[&str]) -> Watch {
        self.node.enter();
        let interfaces = interfaces.iter().map(|text| Pattern::parse(text).unwrap()).collect();
        let source = SourceChoice::Tc;
        Watch::open(Config { source, tc_way: way, interfaces, ..Config::default() })
    }
}

/// Makes a router of a namespace.
pub(crate) fn forward(namespace: &Namespace) {
    let namespace = namespace.clone();
    let done = std::thread::spawn(move || {
        namespace.enter();
        for switch in ["ipv4/ip_forward", "ipv6/conf/all/forwarding"] {
            std::fs::write(format!("/proc/sys/net/{switch}"), "1").unwrap();
        }
    });
    done.join().unwrap();
}

/// What a program prints.
pub(crate) fn said(namespace: &Namespace, line: &str) -> String {
    let (namespace, line) = (namespace.clone(), line.to_owned());
    let told = std::thread::spawn(move || {
        namespace.enter();
        let mut words = line.split(' ');
        let mut command = Command::new(words.next().unwrap());
        let output = command.args(words).stderr(Stdio::inherit()).output().unwrap();
        assert!(output.status.success(), "{line}");
        String::from_utf8(output.stdout).unwrap()
    });
    told.join().unwrap()
}

/// Between two looks at a condition.
const PAUSE: Duration = Duration::from_millis(5);

/// Waits until `condition`.
pub(crate) fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "still not: {what}");
        std::thread::park_timeout(scale::pause(PAUSE));
    }
}

/// Both ways of attaching where the kernel has both; the newest where time is short.
pub(crate) fn ways() -> Vec<TcWay> {
    let mut ways = vec![TcWay::Newest, TcWay::Clsact];
    if !has_tcx() {
        fact::lacks("tcx");
        ways.truncate(1);
    }
    ways.truncate(scale::count(ways.len(), 1));
    ways
}

/// From Linux 6.6 on.
pub(crate) fn has_tcx() -> bool {
    let release = nix::sys::utsname::uname().unwrap().release().to_string_lossy().into_owned();
    let mut numbers = release.split(['.', '-']).map(|number| number.parse::<u32>().unwrap());
    (numbers.next(), numbers.next()) >= (Some(6), Some(6))
}
