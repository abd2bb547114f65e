//! `connection.id`: what both ends of a connection know of it, whatever NAT did to its addresses.

use std::net::{IpAddr, SocketAddr};

use crate::reassembly::{Connection, Start};

/// An id and what it was made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The id.
    pub id: u64,
    /// It is of the addresses and ports, because the initial sequence numbers are not both known.
    pub joined_late: bool,
}

/// The id of `connection`.
///
/// Both initial sequence numbers are kept by NAT, so the client's and the server's view agree. They are mixed by a
/// bijection: two connections have one id only if they have the same pair of numbers. A connection that was joined in
/// its middle is named by its unordered address tuple.
pub fn identify(connection: &Connection) -> Identity {
    match (connection.start, connection.originator_isn, connection.responder_isn) {
        (Start::Handshake, Some(originator), Some(responder)) => {
            Identity { id: mix((u64::from(originator) << 32) | u64::from(responder)), joined_late: false }
        }
        (Start::Handshake | Start::Middle, _, _) => {
            let ends = (connection.originator, connection.responder);
            let (low, high) = if ends.0 <= ends.1 { ends } else { (ends.1, ends.0) };
            Identity { id: absorb(absorb(0, low), high), joined_late: true }
        }
    }
}

/// The id of a connection that was tried: of an answered one its own. What came to nothing has no second number, and the first,
/// which NAT keeps, must do: it is the same from both ends too.
pub fn identify_attempt(connection: &Connection) -> u64 {
    match (connection.originator_isn, connection.responder_isn) {
        (Some(originator), None) => mix(u64::from(originator) << 32),
        (Some(_), Some(_)) | (None, _) => identify(connection).id,
    }
}

fn absorb(state: u64, end: SocketAddr) -> u64 {
    let address = match end.ip() {
        IpAddr::V4(address) => address.to_ipv6_mapped(),
        IpAddr::V6(address) => address,
    }
    .to_bits();
    let state = mix(state ^ (address >> 64) as u64);
    let state = mix(state ^ address as u64);
    mix(state ^ u64::from(end.port()))
}

/// A bijection on 64 bits whose every output bit depends on every input bit (the finaliser of SplitMix64). The constant
/// added first keeps zero from being its own image.
pub const fn mix(value: u64) -> u64 {
    let value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}
