//! IPVS over generic netlink (linux/ip_vs.h, linux/genetlink.h): what to ask, and what is answered. Opens no socket.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{
    kernel::Timeouts,
    parse::{
        Protocol,
        services::{Forward, Matches, ServerLine},
    },
};
use crate::netlink::{Request, attributes, text, u16_at, u32_at};

/// Generic netlink's own family, which knows the others.
const CONTROL: u16 = 16;
const CONTROL_GET_FAMILY: u8 = 3;
const CONTROL_FAMILY_ID: u16 = 1;
const CONTROL_FAMILY_NAME: u16 = 2;
/// Bytes of `struct genlmsghdr`.
const HEADER: usize = 4;
const VERSION: u8 = 1;

const GET_SERVICE: u8 = 4;
const GET_SERVER: u8 = 8;
const GET_CONFIG: u8 = 13;
const SERVICE: u16 = 1;
const SERVER: u16 = 2;
const TIMEOUT_TCP: u16 = 4;
const TIMEOUT_TCP_FIN: u16 = 5;
const TIMEOUT_UDP: u16 = 6;

/// Attributes of a service.
mod service_attribute {
    pub(super) const FAMILY: u16 = 1;
    pub(super) const PROTOCOL: u16 = 2;
    pub(super) const ADDRESS: u16 = 3;
    pub(super) const PORT: u16 = 4;
    pub(super) const MARK: u16 = 5;
    pub(super) const SCHEDULER: u16 = 6;
    pub(super) const FLAGS: u16 = 7;
}

/// Attributes of a real server.
mod server_attribute {
    pub(super) const ADDRESS: u16 = 1;
    pub(super) const PORT: u16 = 2;
    pub(super) const FORWARD: u16 = 3;
    pub(super) const WEIGHT: u16 = 4;
    pub(super) const ACTIVE: u16 = 7;
    pub(super) const INACTIVE: u16 = 8;
    pub(super) const FAMILY: u16 = 11;
}

/// Flags of a service (`IP_VS_SVC_F_*`) as `/proc/net/ip_vs` has them.
const FLAGS: [(u32, &str); 2] = [(1, "persistent"), (4, "ops")];
/// Of a forwarding method's bits, those that say which it is (`IP_VS_CONN_F_FWD_MASK`).
const FORWARD_MASK: u32 = 7;

/// Asks for the number of the family.
pub fn family_request() -> Request {
    request(CONTROL, CONTROL_GET_FAMILY, libc::NLM_F_ACK).with(CONTROL_FAMILY_NAME, b"IPVS\0")
}

/// The number of the family.
pub fn family(body: &[u8]) -> Option<u16> {
    u16_at(told(body)?.find(|(kind, _)| *kind == CONTROL_FAMILY_ID)?.1, 0)
}

/// Asks for the time-outs that were set.
pub fn timeouts_request(family: u16) -> Request {
    request(family, GET_CONFIG, libc::NLM_F_ACK)
}

/// The time-outs.
pub fn timeouts(body: &[u8]) -> Timeouts {
    let mut timeouts = Timeouts::default();
    for (kind, data) in told(body).into_iter().flatten() {
        match kind {
            TIMEOUT_TCP => timeouts.tcp = u32_at(data, 0),
            TIMEOUT_TCP_FIN => timeouts.tcp_fin = u32_at(data, 0),
            TIMEOUT_UDP => timeouts.udp = u32_at(data, 0),
            _ => {}
        }
    }
    timeouts
}

/// A service, as the kernel is asked about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceTold {
    /// What it is for.
    pub matches: Matches,
    /// Address family, `AF_*`.
    pub family: u16,
    /// Scheduler.
    pub scheduler: String,
    /// `ops`, `persistent`.
    pub flags: String,
}

/// Asks for all services.
pub fn services_request(family: u16) -> Request {
    request(family, GET_SERVICE, libc::NLM_F_DUMP)
}

/// A service; absent if it is none.
pub fn service(body: &[u8]) -> Option<ServiceTold> {
    use service_attribute as of;

    let (_, data) = told(body)?.find(|(kind, _)| *kind == SERVICE)?;
    let attribute = |wanted| attributes(data).find(|(kind, _)| *kind == wanted).map(|(_, data)| data);
    let family = u16_at(attribute(of::FAMILY)?, 0)?;
    let matches = match attribute(of::MARK) {
        Some(mark) => Matches::Mark(u32_at(mark, 0)?),
        None => {
            let protocol = u8::try_from(u16_at(attribute(of::PROTOCOL)?, 0)?).ok()?;
            let end = (address(family, attribute(of::ADDRESS)?)?, port(attribute(of::PORT)?)?);
            Matches::Address(Protocol(protocol), end)
        }
    };
    let bits = attribute(of::FLAGS).and_then(|flags| u32_at(flags, 0)).unwrap_or(0);
    let flags = FLAGS.iter().filter(|(bit, _)| bits & bit != 0).map(|(_, name)| *name).collect::<Vec<_>>();
    let scheduler = attribute(of::SCHEDULER).map(text).unwrap_or_default();
    Some(ServiceTold { matches, family, scheduler, flags: flags.join(" ") })
}

/// Asks for the real servers of a service.
pub fn servers_request(family: u16, service: &ServiceTold) -> Request {
    use service_attribute as of;

    let own = service.family.to_ne_bytes();
    let request = request(family, GET_SERVER, libc::NLM_F_DUMP);
    match service.matches {
        Matches::Mark(mark) => {
            request.with_nested(SERVICE, &[(of::FAMILY, &own), (of::MARK, &mark.to_ne_bytes())])
        }
        Matches::Address(protocol, (address, port)) => {
            let inner: [(u16, &[u8]); 4] = [
                (of::FAMILY, &own),
                (of::PROTOCOL, &u16::from(protocol.0).to_ne_bytes()),
                (of::ADDRESS, &octets(address)),
                (of::PORT, &port.to_be_bytes()),
            ];
            request.with_nested(SERVICE, &inner)
        }
    }
}

/// A real server of a service; absent if it is none.
pub fn server(body: &[u8], service: &ServiceTold) -> Option<ServerLine> {
    use server_attribute as of;

    let (_, data) = told(body)?.find(|(kind, _)| *kind == SERVER)?;
    let attribute = |wanted| attributes(data).find(|(kind, _)| *kind == wanted).map(|(_, data)| data);
    let number = |wanted| u32_at(attribute(wanted)?, 0);
    // Kernels without tunnels to the other family do not say it.
    let family = attribute(of::FAMILY).and_then(|family| u16_at(family, 0)).unwrap_or(service.family);
    Some(ServerLine {
        end: (address(family, attribute(of::ADDRESS)?)?, port(attribute(of::PORT)?)?),
        forward: forward(number(of::FORWARD)?),
        weight: number(of::WEIGHT)?,
        active: number(of::ACTIVE)?,
        inactive: number(of::INACTIVE)?,
    })
}

fn request(family: u16, command: u8, flags: libc::c_int) -> Request {
    Request::new(family, flags, &[command, VERSION, 0, 0])
}

/// The attributes behind the header.
fn told(body: &[u8]) -> Option<impl Iterator<Item = (u16, &[u8])>> {
    Some(attributes(body.get(HEADER..)?))
}

fn address(family: u16, data: &[u8]) -> Option<IpAddr> {
    match libc::c_int::from(family) {
        libc::AF_INET => Some(Ipv4Addr::from(*data.first_chunk::<4>()?).into()),
        libc::AF_INET6 => Some(Ipv6Addr::from(*data.first_chunk::<16>()?).into()),
        _ => None,
    }
}

/// As `union nf_inet_addr`.
fn octets(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(address) => {
            let [a, b, c, d] = address.octets();
            [a, b, c, d, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]
        }
        IpAddr::V6(address) => address.octets(),
    }
}

fn port(data: &[u8]) -> Option<u16> {
    Some(u16::from_be_bytes(*data.first_chunk()?))
}

const fn forward(bits: u32) -> Forward {
    match bits & FORWARD_MASK {
        0 => Forward::Masquerading,
        1 => Forward::Local,
        2 => Forward::Tunnel,
        3 => Forward::Route,
        4 => Forward::Bypass,
        _ => Forward::Other,
    }
}
