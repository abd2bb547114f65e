//! Connection attempts that fail or are slow, by the real agent on the root of cgroup v2: what each end is told, against what
//! the client itself was told.

use std::{
    io::ErrorKind,
    net::{SocketAddr, TcpListener, TcpStream},
    time::{Duration, Instant},
};

use rustix::net::{AddressFamily, SocketFlags, SocketType};
use serde_json::Value;
use support::{netns::Namespace, process::PATIENCE};

use super::agent::{Agent, wait_until};
use crate::machine;

/// A client, a router with routes that lead nowhere, and a server.
struct Net {
    client: Namespace,
    router: Namespace,
    server: Namespace,
    /// Addresses for documentation (RFC 5737, RFC 3849), which nothing else of the machine has, but another test.
    v4: &'static str,
    v6: &'static str,
}

impl Net {
    fn new(v4: &'static str, v6: &'static str) -> Self {
        let (client, router, server) = (Namespace::new(), Namespace::new(), Namespace::new());
        let ends =
            |net: u8, end: u8| [format!("{v4}.{}/28", 16 * net + end), format!("{v6}:{net}::{end}/64")];
        for (net, name, other) in [(1, "c", &client), (2, "s", &server)] {
            let (here, there) = (ends(net, 1), ends(net, 2));
            router.wire(
                name,
                &here.each_ref().map(|end| &end[..]),
                other,
                "r",
                &there.each_ref().map(|end| &end[..]),
            );
            other.ip(&format!(
                "route add default via {v4}.{}\nroute add ::/0 via {v6}:{net}::1\n",
                16 * net + 1
            ));
        }
        router.within(|| {
            for forwarding in ["ipv4/ip_forward", "ipv6/conf/all/forwarding"] {
                std::fs::write(format!("/proc/sys/net/{forwarding}"), "1").unwrap();
            }
        });
        for (at, kind) in [(1, "blackhole"), (2, "unreachable"), (3, "prohibit")] {
            router.ip(&format!("route add {kind} {v4}.{}\nroute add {kind} {v6}:9::{at}\n", 200 + at));
        }
        Self { client, router, server, v4, v6 }
    }

    /// What keeps everything else out.
    fn only_ours(&self) -> String {
        format!("filter.cidrs={}.0/24,{}::/48", self.v4, self.v6)
    }

    /// Begins to connect to the same place in both versions: the last part of the address, and net and end.
    fn try_both(&self, v4: u8, v6: &str, port: u16) -> [Trying; 2] {
        [format!("{}.{v4}:{port}", self.v4), format!("[{}:{v6}]:{port}", self.v6)]
            .map(|server| self.try_to(&server))
    }

    fn try_to(&self, server: &str) -> Trying {
        Trying::begin(&self.client, server)
    }
}

/// A socket that connects.
pub(super) struct Trying {
    client: SocketAddr,
    server: SocketAddr,
    stream: TcpStream,
}

impl Trying {
    /// Begins to connect from `client`; what came of it is [`Self::end`]'s.
    pub(super) fn begin(client: &Namespace, server: &str) -> Self {
        let server: SocketAddr = server.parse().unwrap();
        let family = if server.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let socket = client.within(|| {
            rustix::net::socket_with(family, SocketType::STREAM, SocketFlags::NONBLOCK, None).unwrap()
        });
        let begun = rustix::net::connect(&socket, &server);
        assert_eq!(begun, Err(rustix::io::Errno::INPROGRESS));
        let stream = TcpStream::from(socket);
        Self { client: stream.local_addr().unwrap(), server, stream }
    }

    /// What the kernel says to the client, once it has something to say.
    pub(super) fn end(&self) -> Option<ErrorKind> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(error) = self.stream.take_error().unwrap() {
                return Some(error.kind());
            }
            if self.stream.peer_addr().is_ok() {
                return None;
            }
            assert!(Instant::now() < deadline, "{} is still connecting", self.server);
            std::thread::park_timeout(Duration::from_millis(10));
        }
    }

    /// The records of this attempt, by the place that tells them.
    fn records<'a>(&self, records: &'a [Value], place: &str) -> Vec<&'a Value> {
        let is_own = |record: &&Value| {
            record["observed_at"] == place
                && record["client.port"] == self.client.port()
                && record["client.address"] == self.client.ip().to_string()
                && record["server.address"] == self.server.ip().to_string()
                && record["server.port"] == self.server.port()
        };
        records.iter().filter(is_own).collect()
    }
}

pub(super) fn parse(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// One record at the client with this outcome, type and code; gives it.
#[track_caller]
pub(super) fn check_one<'a>(
    records: &'a [Value],
    tried: &Trying,
    outcome: &str,
    icmp: Option<(u64, u64)>,
) -> &'a Value {
    let found = tried.records(records, "client");
    let [record] = found[..] else { panic!("{} has {found:?}", tried.server) };
    let (kind, code) = icmp.map_or((Value::Null, Value::Null), |(kind, code)| (kind.into(), code.into()));
    let told = [&record["kind"], &record["outcome"], &record["icmp.type"], &record["icmp.code"]];
    assert_eq!(told, [&"connect".into(), &outcome.into(), &kind, &code], "{record}");
    record
}

#[test]
fn attempts_that_fail_are_told_with_the_reason() {
    machine::share();
    let net = Net::new("192.0.2", "2001:db8:77");
    let agent = Agent::start(None, &[&net.only_ours(), "connect.timeout=6s", "capture.source=cgroup"]);
    let refused = net.try_both(34, "2::2", 81);
    let silent = net.try_both(201, "9::1", 80);
    let no_route = net.try_both(202, "9::2", 80);
    let prohibited = net.try_both(203, "9::3", 80);
    // Nobody answers when this kernel asks who that is.
    let nobody = net.try_both(25, "1::9", 80);
    let told = |tried: &[Trying; 2]| tried.each_ref().map(|tried| tried.end().unwrap());
    assert_eq!(told(&refused), [ErrorKind::ConnectionRefused; 2]);
    // "No route to host" is what version 6 says of an address that nobody has (RFC 4443 3.1), not of a missing route.
    assert_eq!(told(&no_route), [ErrorKind::HostUnreachable, ErrorKind::NetworkUnreachable]);
    assert_eq!(told(&nobody), [ErrorKind::HostUnreachable; 2]);
    let metrics = agent.wait_metrics("all are told", |metrics| {
        let count = |outcome: &str| {
            metrics.sum("connects_total", &format!("outcome=\"{outcome}\",observed_at=\"client\""))
        };
        (count("refused"), count("unreachable"), count("timeout")) == (2, 6, 2)
    });
    // What else the machine does is under way, and in the ledger.
    assert_eq!(
        (metrics.sum("ledger_balanced", ""), metrics.sum("kernel_unreachables_total", "") >= 6),
        (1, true)
    );
    let records = parse(&agent.end().text);
    for tried in &refused {
        let record = check_one(&records, tried, "refused", None);
        assert_eq!(record["error.type"], "refused");
        // The same attempt at the other end: there only the kernel's answer is seen, and of version 6 not even that.
        let others = tried.records(&records, "server");
        assert_eq!(others.len(), usize::from(tried.server.is_ipv4()), "{others:?}");
        for other in others {
            let same = [&other["outcome"], &other["connection.id"]];
            assert_eq!(same, [&"refused".into(), &record["connection.id"]], "{other}");
        }
    }
    for tried in &silent {
        let record = check_one(&records, tried, "timeout", None);
        assert!(record["tcp.connect.retransmits"].as_u64() >= Some(1), "{record}");
        assert!((6.0..6.1).contains(&record["duration"].as_f64().unwrap()), "{record}");
    }
    for (tried, codes) in
        [(&no_route, [(3, 1), (1, 0)]), (&prohibited, [(3, 13), (1, 1)]), (&nobody, [(3, 1), (1, 3)])]
    {
        for (tried, code) in tried.iter().zip(codes) {
            check_one(&records, tried, "unreachable", Some(code));
        }
    }
}

#[test]
fn a_slow_connect_is_told_and_its_exchanges_say_why() {
    machine::share();
    let net = Net::new("203.0.113", "2001:db8:78");
    let server = net.server.within(|| TcpListener::bind("203.0.113.34:0").unwrap());
    let address = server.local_addr().unwrap();
    net.router.ip("route add blackhole 203.0.113.34/32\n");
    let agent = Agent::start(None, &[&net.only_ours(), "capture.source=cgroup"]);
    let came = || net.router.within(received);
    let before = came();
    let tried = net.try_to(&address.to_string());
    // The first SYN has come to where it is dropped.
    wait_until("the SYN is at the router", || came() > before);
    net.router.ip("route del blackhole 203.0.113.34/32\n");
    assert_eq!(tried.end(), None);
    agent.wait_metrics("it is told", |metrics| {
        metrics.sum("connects_total", "outcome=\"answered\",observed_at=\"client\"") == 1
    });
    let told = agent.end();
    let records = parse(&told.text);
    let record = check_one(&records, &tried, "complete", None);
    assert!(record["tcp.connect.retransmits"].as_u64() >= Some(1), "{record}");
    assert!(record["duration"].as_f64() >= Some(0.9), "{record}");
    assert!(
        told.summary.contains("1 connection attempts that failed or were slow among them"),
        "{}",
        told.summary
    );
    assert_eq!(tried.records(&records, "server").len(), 0, "there it was answered at once");
}

/// Packets that the router has got from the client, as its interface counts them.
fn received() -> u64 {
    let table = std::fs::read_to_string("/proc/thread-self/net/dev").unwrap();
    let row = table.lines().find_map(|line| line.trim().strip_prefix("c:")).unwrap();
    row.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// Closed ports that are tried, more than are told at once.
const SCANNED: u16 = 150;

#[test]
fn a_port_scan_is_counted_and_told_in_part() {
    machine::share();
    let net = Net::new("198.18.7", "2001:db8:79");
    let settings = [&net.only_ours()[..], "capture.source=cgroup", "capture.workers=1"];
    let agent = Agent::start(None, &settings);
    let tried: Vec<Trying> = (1..=SCANNED).map(|port| net.try_to(&format!("198.18.7.34:{port}"))).collect();
    for tried in &tried {
        assert_eq!(tried.end(), Some(ErrorKind::ConnectionRefused));
    }
    // Both ends tell of the same client.
    let all = 2 * u64::from(SCANNED);
    let metrics = agent.wait_metrics("all are counted", |metrics| {
        let count = metrics.sum("connects_total", "outcome=\"refused\"");
        let fates = metrics.sum("ledger_exchanges_total", "fate=\"delivered\"")
            + metrics.sum("ledger_exchanges_total", "reason=\"over_rate\"");
        (count, fates) == (all, all)
    });
    let at_once = u64::from(pod2pod_user::enrich::MAX_FAILED_AT_ONCE);
    let left_out = metrics.sum("enrich_exchanges_total", "fate=\"over_rate\"");
    assert!((1..=all - at_once).contains(&left_out), "{left_out}");
    assert_eq!(metrics.sum("ledger_balanced", ""), 1);
    let told = agent.end();
    assert_eq!(parse(&told.text).len() as u64, all - left_out, "{}", told.summary);
}

#[test]
fn its_own_attempts_are_never_told() {
    machine::share();
    // Free a moment ago: nobody listens there.
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let collector = format!("sinks.http.url=http://{nobody}/");
    let ports = format!("filter.ports={}", nobody.port());
    let agent = Agent::start(None, &[&collector, &ports, "capture.source=cgroup"]);
    // One attempt of somebody else, whose records the collector is to have.
    assert_eq!(TcpStream::connect(nobody).unwrap_err().kind(), ErrorKind::ConnectionRefused);
    agent.wait_metrics("the collector was tried in vain", |metrics| {
        metrics.sum("sink_attempts_failed_total", "sink=\"http\",reason=\"connect\"") > 0
    });
    let metrics = agent.wait_metrics("its own are known", |metrics| {
        metrics.sum("enrich_exchanges_total", "fate=\"own\"") > 0
    });
    assert_eq!(metrics.sum("ledger_balanced", ""), 1);
    let told = |place: &str| metrics.sum("connects_total", &format!("observed_at=\"{place}\""));
    assert_eq!((told("client"), told("server"), told("path")), (1, 1, 0));
    assert_eq!(metrics.sum("enrich_exchanges_total", "fate=\"kept\""), 2);
}
