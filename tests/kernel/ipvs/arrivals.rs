//! What arrives at a real server, before anything there decides about it: new connections and datagrams, as a packet socket
//! sees them. This is what happened, whatever IPVS and the watch say of it.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    os::fd::OwnedFd,
};

use rustix::{
    io::Errno,
    net::{AddressFamily, RecvFlags, SocketFlags, SocketType, eth, recv, socket_with, sockopt},
};
use support::netns::Namespace;

/// Room for what arrives between two looks; the usual 200 KiB hold some hundred packets.
const BUFFER_BYTES: usize = 16 << 20;
const TCP: u8 = 6;
const UDP: u8 = 17;
/// SYN among the flags of TCP; a server's answer has ACK beside it.
const SYN: u8 = 2;

/// The beginning of something new: a SYN, or a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Arrival {
    pub(crate) from: SocketAddr,
    pub(crate) to: SocketAddr,
    /// Initial sequence number: a SYN that is sent again has the same. 0 of a datagram.
    pub(crate) isn: u32,
}

/// A packet socket in a namespace.
pub(crate) struct Arrivals {
    socket: OwnedFd,
    seen: Vec<Arrival>,
}

impl Arrivals {
    /// Sees what arrives from now on.
    pub(crate) fn at(namespace: &Namespace) -> Self {
        let socket = namespace.within(|| {
            let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
            socket_with(AddressFamily::PACKET, SocketType::DGRAM, flags, Some(eth::ALL)).unwrap()
        });
        sockopt::set_socket_recv_buffer_size_force(&socket, BUFFER_BYTES).unwrap();
        Self { socket, seen: Vec::new() }
    }

    /// All that was seen so far, in its order.
    pub(crate) fn seen(&mut self) -> &[Arrival] {
        let mut packet = [0; 2048];
        loop {
            match recv(&self.socket, &mut packet[..], RecvFlags::empty()) {
                Ok((length, _)) => self.seen.extend(arrival(&packet[..length])),
                Err(Errno::AGAIN) => return &self.seen,
                Err(error) => panic!("a packet socket: {error}"),
            }
        }
    }
}

/// From an IP packet without options; none of these tests sends any.
fn arrival(packet: &[u8]) -> Option<Arrival> {
    let (source, destination, protocol, rest): (IpAddr, IpAddr, u8, &[u8]) = match packet.first()? >> 4 {
        4 => {
            let address = |at: usize| Some(Ipv4Addr::from(*packet.get(at..)?.first_chunk::<4>()?).into());
            (address(12)?, address(16)?, *packet.get(9)?, packet.get(20..)?)
        }
        6 => {
            let address = |at: usize| Some(Ipv6Addr::from(*packet.get(at..)?.first_chunk::<16>()?).into());
            (address(8)?, address(24)?, *packet.get(6)?, packet.get(40..)?)
        }
        _ => return None,
    };
    let port = |at: usize| Some(u16::from_be_bytes(*rest.get(at..)?.first_chunk()?));
    let isn = match protocol {
        TCP if rest.get(13)? & 0x3f == SYN => u32::from_be_bytes(*rest.get(4..)?.first_chunk()?),
        UDP => 0,
        _ => return None,
    };
    Some(Arrival { from: (source, port(0)?).into(), to: (destination, port(2)?).into(), isn })
}
