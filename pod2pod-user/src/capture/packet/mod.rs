//! Packets: the captured bytes of one frame in, its TCP [`Segment`]s out, through link layers, tunnels and fragments.
//!
//! Pure: no file, no clock. Checksums are not looked at (offloading leaves them unset at the sender), TCP inside an
//! ICMP error is not traffic, and nothing is decrypted.
//!
//! Every segment has scope 0: the two directions of a connection may travel in different VLANs or tunnels and over
//! different interfaces, so neither splits a tuple. That is also what tshark does.

mod ip;
mod link;
mod tcp;
mod view;

use crate::capture::{Direction, KernelInstant, Scope, Segment};
use view::{Refusal, View};

/// Headers walked in one packet, VLAN tags and MPLS labels included. Real packets have fewer than 20.
pub const MAX_HEADERS: usize = 64;

/// IP headers walked in one packet. Real tunnels nest three deep at most.
pub const MAX_NESTING: usize = 8;

/// One captured frame.
#[derive(Clone, Copy, Debug)]
pub struct Frame<'a> {
    /// Link-layer header type as in capture files (tcpdump.org/linktypes.html).
    pub link_type: u32,
    /// Captured bytes, from the link-layer header on.
    pub bytes: &'a [u8],
    /// Bytes of the frame on the wire.
    pub original_length: u32,
    /// When it was captured: ns since 1970.
    pub time: KernelInstant,
    /// Number of the interface in the capture file.
    pub interface: u32,
}

/// What became of the frames: plain counters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Frames looked at.
    pub frames: u64,
    /// Captured bytes of those.
    pub bytes: u64,
    /// Segments delivered.
    pub segments: u64,
    /// Payload bytes of those segments, as captured.
    pub payload_bytes: u64,
    /// Payload bytes that the capture cut off.
    pub payload_cut_bytes: u64,
    /// Frames without IP.
    pub not_ip: u64,
    /// IP without TCP, ICMP errors among them.
    pub not_tcp: u64,
    /// Frames cut by the capture inside a header.
    pub truncated_header: u64,
    /// Frames whose headers contradict themselves.
    pub malformed: u64,
    /// Frames with more than [`MAX_HEADERS`] headers or [`MAX_NESTING`] IP headers.
    pub nesting: u64,
    /// IP fragments.
    pub fragments: u64,
    /// Frames of link layers that are not decoded.
    pub unsupported_link: u64,
    /// Number of the last such link layer.
    pub unsupported_link_type: Option<u32>,
}

/// The header that comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Layer {
    /// A link layer by its number in capture files.
    Link(u32),
    /// What an Ethernet type names.
    EtherType(u16),
    /// IPv4 or IPv6, by the version in its first bits.
    Ip,
    /// IPv4.
    Ipv4,
    /// IPv6.
    Ipv6,
    /// TCP between two addresses.
    Tcp(ip::Addresses),
}

/// A header and what is left of the packet from it on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Step<'a> {
    layer: Layer,
    view: View<'a>,
}

impl<'a> Step<'a> {
    const fn new(layer: Layer, view: View<'a>) -> Self {
        Self { layer, view }
    }
}

/// Takes the segments of a packet.
pub type Deliver<'d> = dyn FnMut(&Segment<'_>) + 'd;

/// Turns frames into segments. Keeps IP fragments, nothing else.
#[derive(Debug, Default)]
pub struct PacketDecoder {
    stats: Stats,
}

impl PacketDecoder {
    /// A decoder without history.
    pub fn new() -> Self {
        Self::default()
    }

    /// Counters so far.
    pub const fn stats(&self) -> &Stats {
        &self.stats
    }

    /// Hands every TCP segment of `frame` to `deliver`; what is not delivered is counted.
    pub fn decode(&mut self, frame: &Frame<'_>, deliver: &mut Deliver<'_>) {
        self.stats.frames += 1;
        self.stats.bytes += frame.bytes.len() as u64;
        let view = View::new(frame.bytes, frame.original_length as usize);
        if let Err(refusal) = self.walk(Step::new(Layer::Link(frame.link_type), view), frame, deliver) {
            self.count(refusal);
        }
    }

    fn walk(
        &mut self,
        mut step: Step<'_>,
        frame: &Frame<'_>,
        deliver: &mut Deliver<'_>,
    ) -> Result<(), Refusal> {
        let mut nesting = 0;
        for _ in 0..MAX_HEADERS {
            step = match step.layer {
                Layer::Link(link_type) => link::step(link_type, step.view)?,
                Layer::EtherType(ether_type) => link::ether_type(ether_type, step.view)?,
                Layer::Ip | Layer::Ipv4 | Layer::Ipv6 if nesting == MAX_NESTING => {
                    return Err(Refusal::Nesting);
                }
                Layer::Ip => Step::new(ip::version(step.view)?, step.view),
                Layer::Ipv4 => {
                    nesting += 1;
                    ip::v4(step.view)?
                }
                Layer::Ipv6 => {
                    nesting += 1;
                    ip::v6(step.view)?
                }
                Layer::Tcp(addresses) => {
                    self.deliver(tcp::header(step.view)?, addresses, frame, deliver);
                    return Ok(());
                }
            };
        }
        Err(Refusal::Nesting)
    }

    fn deliver(
        &mut self,
        header: tcp::Header<'_>,
        addresses: ip::Addresses,
        frame: &Frame<'_>,
        deliver: &mut Deliver<'_>,
    ) {
        let payload = header.payload.bytes();
        let payload_length = u32::try_from(header.payload.wire()).unwrap_or(u32::MAX);
        self.stats.segments += 1;
        self.stats.payload_bytes += payload.len() as u64;
        self.stats.payload_cut_bytes += (header.payload.wire() - payload.len()) as u64;
        let (source, destination) = addresses.with_ports(header.source_port, header.destination_port);
        deliver(&Segment {
            time: frame.time,
            scope: Scope(0),
            direction: Direction::Path,
            source,
            destination,
            sequence: header.sequence,
            acknowledgement: header.acknowledgement,
            flags: header.flags,
            payload_length,
            payload,
            lost_before: false,
            cgroup_id: 0,
            socket_cookie: 0,
            interface_index: frame.interface,
            scope_is_cookie: false,
        });
    }

    fn count(&mut self, refusal: Refusal) {
        let stats = &mut self.stats;
        match refusal {
            Refusal::NotIp => stats.not_ip += 1,
            Refusal::NotTcp => stats.not_tcp += 1,
            Refusal::Truncated => stats.truncated_header += 1,
            Refusal::Malformed => stats.malformed += 1,
            Refusal::Nesting => stats.nesting += 1,
            Refusal::Fragment => stats.fragments += 1,
            Refusal::Link(link_type) => {
                stats.unsupported_link += 1;
                stats.unsupported_link_type = Some(link_type);
            }
        }
    }
}
