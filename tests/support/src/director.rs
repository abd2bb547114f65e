//! A node that balances by IPVS, a client and two real servers, each in a network namespace of its own. What is asked of it
//! is done by `ipvsadm` and `ip`; nothing here knows what the kernel makes of a packet.
//!
//! ```text
//! client 10.244.1.2 ── .1 director .1 ── 10.244.2.2 first server
//!                     10.96.0.10   .1 ── 10.244.3.2 second server
//! ```
//!
//! The same over IPv6 in fd00:244:N::/64, and fd00:96::10. Tables and settings of IPVS belong to the director's namespace, so
//! any number of directors stand side by side.

#![expect(clippy::unwrap_used, reason = "test support: a failure here is the test's failure")]

use std::{
    fmt::Write as _,
    fs, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream},
    path::Path,
    process::{Command, Stdio},
    sync::OnceLock,
    time::{Duration, Instant},
};

use crate::{netns::Namespace, process::PATIENCE};

/// What IPVS and its parts are called; of these, those that the kernel would not load by itself when they are used.
const MODULES: [&str; 4] = ["ip_vs", "ip_vs_rr", "ip_vs_ftp", "ip_vs_pe_sip"];
/// There once the module is loaded.
const TABLE: &str = "/proc/self/net/ip_vs_conn";

/// The client's addresses.
pub const CLIENT: Addresses = Addresses::of(1, 2);
/// The real servers' addresses.
pub const SERVERS: [Addresses; 2] = [Addresses::of(2, 2), Addresses::of(3, 2)];
/// The addresses of all virtual services; ports tell them apart.
pub const SERVICE: Addresses =
    Addresses { v4: Ipv4Addr::new(10, 96, 0, 10), v6: Ipv6Addr::new(0xfd00, 0x96, 0, 0, 0, 0, 0, 0x10) };

/// Asked for again so soon and so often, a neighbour that is gone is known as such within a second.
const NEIGHBOUR: [(&str, &str); 2] = [("retrans_time_ms", "200"), ("mcast_solicit", "2")];

/// Longest wait for one connection to be refused; then it is tried again.
const CONNECT: Duration = Duration::from_millis(500);

/// Addresses of one host.
#[derive(Clone, Copy, Debug)]
pub struct Addresses {
    /// IPv4.
    pub v4: Ipv4Addr,
    /// IPv6.
    pub v6: Ipv6Addr,
}

impl Addresses {
    const fn of(network: u8, host: u8) -> Self {
        Self {
            v4: Ipv4Addr::new(10, 244, network, host),
            v6: Ipv6Addr::new(0xfd00, 0x244, network as u16, 0, 0, 0, 0, host as u16),
        }
    }

    /// The one of a family.
    pub const fn of_family(self, family: Family) -> IpAddr {
        match family {
            Family::V4 => IpAddr::V4(self.v4),
            Family::V6 => IpAddr::V6(self.v6),
        }
    }
}

/// Address family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// How the director is set, below `net.ipv4.vs`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Settings {
    /// 0: a new connection always belongs to the old one's entry.
    pub conn_reuse_mode: u32,
    /// 1: entries of real servers that are gone are expired.
    pub expire_nodest_conn: u32,
    /// 1: with netfilter's connection tracking, which a rule of the director then needs.
    pub conntrack: u32,
}

/// The kernel's own.
impl Default for Settings {
    fn default() -> Self {
        Self { conn_reuse_mode: 1, expire_nodest_conn: 0, conntrack: 0 }
    }
}

/// Whether this kernel has IPVS; its module is loaded if it can be.
pub fn has_ipvs() -> bool {
    static HAS: OnceLock<bool> = OnceLock::new();
    *HAS.get_or_init(|| {
        for module in MODULES {
            // That it cannot be loaded shows in what is there afterwards.
            let mut command = Command::new("modprobe");
            let _ = command.arg(module).stdout(Stdio::null()).stderr(Stdio::null()).status();
        }
        Path::new(TABLE).exists()
    })
}

/// The director and those around it.
pub struct Director {
    /// Where IPVS is.
    pub node: Namespace,
    /// Where connections come from.
    pub client: Namespace,
    /// Where they go to, as in [`SERVERS`].
    pub servers: [Namespace; 2],
}

impl Director {
    /// Builds it without any virtual service.
    pub fn new(settings: Settings) -> Self {
        let director = Self {
            node: Namespace::new(),
            client: Namespace::new(),
            servers: [Namespace::new(), Namespace::new()],
        };
        let [first, second] = &director.servers;
        for (number, name, host) in [(1, "client", &director.client), (2, "one", first), (3, "two", second)] {
            let near = [format!("10.244.{number}.1/24"), format!("fd00:244:{number}::1/64")];
            let far = [format!("10.244.{number}.2/24"), format!("fd00:244:{number}::2/64")];
            let [near, far] = [&near, &far].map(|pair| pair.each_ref().map(String::as_str));
            director.node.wire(name, &near, host, "eth0", &far);
            let routes =
                format!("route add default via 10.244.{number}.1\nroute add ::/0 via fd00:244:{number}::1\n");
            host.ip(&routes);
        }
        let Addresses { v4, v6 } = SERVICE;
        director.node.ip(&format!("address add {v4}/32 dev lo\naddress add {v6}/128 dev lo\n"));
        director.node.within(|| {
            for switch in ["ipv4/ip_forward", "ipv6/conf/all/forwarding"] {
                fs::write(format!("/proc/sys/net/{switch}"), "1").unwrap();
            }
        });
        director.client.within(wait_for_servers);
        director.node.within(|| {
            for family in ["ipv4", "ipv6"] {
                for ((name, value), wire) in
                    NEIGHBOUR.into_iter().flat_map(|one| [(one, "one"), (one, "two")])
                {
                    fs::write(format!("/proc/sys/net/{family}/neigh/{wire}/{name}"), value).unwrap();
                }
            }
        });
        director.set("conn_reuse_mode", settings.conn_reuse_mode);
        director.set("expire_nodest_conn", settings.expire_nodest_conn);
        director.set("conntrack", settings.conntrack);
        if settings.conntrack != 0 {
            // Nothing is tracked until a rule needs it, as those of a Kubernetes node do.
            let rule = "table inet t { chain f { type filter hook forward priority 0; ct state established accept; }; chain p { type nat hook postrouting priority 100; mark 0x4000 masquerade; }; }";
            director.node.run_with("nft -f -", rule);
        }
        director
    }

    /// Sets `net.ipv4.vs.<name>`.
    pub fn set(&self, name: &str, value: u32) {
        self.node.within(|| fs::write(format!("/proc/sys/net/ipv4/vs/{name}"), value.to_string())).unwrap();
    }

    /// A file of `/proc/net` as the director has it.
    pub fn read(&self, file: &str) -> String {
        self.node.within(|| fs::read_to_string(format!("/proc/thread-self/net/{file}"))).unwrap()
    }

    /// Does lines of `ipvsadm`, as its own saved rules are written; one process for all of them.
    pub fn ipvsadm(&self, lines: &str) {
        self.node.run_with("ipvsadm --restore", lines);
    }

    /// Adds a virtual service with both real servers, which take turns, masqueraded. `flags` is what the service has besides.
    pub fn serve(&self, service: Service, flags: &str) {
        let mut lines = format!("-A {service} -s rr {flags}\n");
        for server in 0..SERVERS.len() {
            writeln!(lines, "-a {service} -r {} -m -w 1", service.server(server)).unwrap();
        }
        self.ipvsadm(&lines);
    }

    /// Gives a real server of a service this weight.
    pub fn weigh(&self, service: Service, server: usize, weight: u32) {
        self.ipvsadm(&format!("-e {service} -r {} -m -w {weight}\n", service.server(server)));
    }

    /// Removes a real server from a service.
    pub fn remove(&self, service: Service, server: usize) {
        self.ipvsadm(&format!("-d {service} -r {}\n", service.server(server)));
    }
}

/// Wires that are new carry nothing for up to a second. The calling thread is where the client is.
fn wait_for_servers() {
    let deadline = Instant::now() + PATIENCE;
    for address in
        SERVERS.into_iter().flat_map(|server| [Family::V4, Family::V6].map(|family| server.of_family(family)))
    {
        // Nobody listens on this port; to be refused is to have been there.
        let is_refused = || {
            let connected = TcpStream::connect_timeout(&SocketAddr::new(address, 9), CONNECT);
            connected.is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
        };
        while !is_refused() {
            assert!(Instant::now() < deadline, "{address} cannot be reached");
        }
    }
}

/// A virtual service, and where its real servers listen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Service {
    /// TCP, otherwise UDP.
    pub is_tcp: bool,
    /// Address family, of client and servers too.
    pub family: Family,
    /// Port of the service.
    pub port: u16,
    /// Port of its real servers.
    pub server_port: u16,
}

impl Service {
    /// Its address.
    pub fn address(self) -> SocketAddr {
        (SERVICE.of_family(self.family), self.port).into()
    }

    /// The address of one of its real servers.
    pub fn server(self, server: usize) -> SocketAddr {
        (SERVERS[server].of_family(self.family), self.server_port).into()
    }
}

/// As `ipvsadm` takes it.
impl std::fmt::Display for Service {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{} {}", if self.is_tcp { "-t" } else { "-u" }, self.address())
    }
}
