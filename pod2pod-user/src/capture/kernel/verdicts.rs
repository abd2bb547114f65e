//! Which verdict a connection gets, and under which key. Decides nothing about traffic.

use std::net::{IpAddr, SocketAddr};

use pod2pod_common::{
    flow::{FlowKey, SCOPE_COOKIE},
    verdict::{ACTION_IGNORE, Verdict},
};

use crate::reassembly::{Connection, Start};

/// The verdict that makes the kernel leave `connection` alone; none for one that was seen on a path.
pub(super) fn ignore_verdict(connection: &Connection, scope_kind: u32) -> Option<(FlowKey, Verdict)> {
    let local = connection.local?;
    let (near, far) = (connection.address(local), connection.address(local.other()));
    let key = FlowKey {
        scope: if scope_kind == SCOPE_COOKIE { connection.socket_cookie } else { connection.scope.0 },
        local_address: octets(near),
        remote_address: octets(far),
        local_port: near.port(),
        remote_port: far.port(),
        scope_kind,
    };
    let generation = match connection.start {
        Start::Handshake => connection.originator_isn,
        Start::Middle => None,
    };
    let verdict = Verdict {
        generation: generation.unwrap_or(0),
        until_sequence: [0; 2],
        read_sequence: [0; 2],
        action: [ACTION_IGNORE; 2],
        any_generation: u8::from(generation.is_none()),
        reserved: 0,
    };
    Some((key, verdict))
}

fn octets(address: SocketAddr) -> [u8; 16] {
    match address.ip() {
        IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
        IpAddr::V6(address) => address.octets(),
    }
}
