//! Packets: the captured bytes of one frame in, its TCP [`Segment`]s out, through link layers, tunnels and fragments.
//!
//! Pure: no file, no clock. Checksums are looked at only where they tell forged segments (`checksum`), of TCP inside an
//! ICMP error only a SYN is told, as what could not be delivered, and nothing is decrypted.
//!
//! Every segment has scope 0: the two directions of a connection may travel in different VLANs or tunnels and over
//! different interfaces, so neither splits a tuple. That is also what tshark does.

pub(crate) mod checksum;
mod ethernet;
mod fragments;
mod icmp;
mod ip;
mod link;
mod serial;
mod tcp;
mod tunnel;
mod view;
mod wireless;

pub use ethernet::MAX_LENGTH_FIELD;
pub use fragments::{
    MAX_DATAGRAM_BYTES, MAX_DATAGRAMS, MAX_FRAGMENT_AGE, MAX_FRAGMENT_BYTES, MAX_RANGES,
    Stats as FragmentStats,
};
pub use link::{MAX_ENDACE_EXTENSIONS, MAX_LOG_ATTRIBUTES};
pub use serial::MAX_FRAME_RELAY_ADDRESS_BYTES;
pub use tunnel::{MAX_GTP_EXTENSIONS, MAX_SOURCE_ROUTES, MAX_TZSP_TAGS};

use pod2pod_common::segment::TCP_SYN;

use crate::capture::{Direction, KernelInstant, Scope, Segment, TcpFlags};
use checksum::Checksums;
use fragments::{Fragment, Fragments};
use ip::{Addresses, Next};
use view::{Refusal, View};

/// Headers walked in one packet, VLAN tags and MPLS labels included. Real packets have fewer than 20.
pub const MAX_HEADERS: usize = 64;

/// IP headers walked in one packet. Real tunnels nest three deep; those made to evade are deeper.
pub const MAX_NESTING: usize = 16;

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
    /// ICMP errors that quote a SYN, delivered as such.
    pub unreachables: u64,
    /// IP without TCP, other ICMP among it.
    pub not_tcp: u64,
    /// Frames cut by the capture inside a header.
    pub truncated_header: u64,
    /// Frames whose headers contradict themselves.
    pub malformed: u64,
    /// Segments without payload whose checksum is wrong though their source sends right ones: their receiver discards
    /// them.
    pub wrong_checksum: u64,
    /// Frames with more than [`MAX_HEADERS`] headers or [`MAX_NESTING`] IP headers, or with one header that has more
    /// parts than are walked ([`MAX_LOG_ATTRIBUTES`], [`MAX_ENDACE_EXTENSIONS`], [`MAX_SOURCE_ROUTES`],
    /// [`MAX_GTP_EXTENSIONS`], [`MAX_TZSP_TAGS`]).
    pub nesting: u64,
    /// Frames that are encrypted or compressed.
    pub encrypted: u64,
    /// Fragments of link layers, which are not put together.
    pub link_fragments: u64,
    /// Frames of link layers that are not decoded.
    pub unsupported_link: u64,
    /// Number of the last such link layer.
    pub unsupported_link_type: Option<u32>,
    /// What became of IP fragments.
    pub fragments: FragmentStats,
}

/// The header that comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Layer {
    /// A link layer by its number in capture files.
    Link(u32),
    /// Ethernet, from the addresses on.
    Ethernet,
    /// What an Ethernet type names.
    EtherType(u16),
    /// IEEE 802.2 logical link control.
    Llc,
    /// An MPLS label stack.
    Mpls,
    /// A network service header.
    Nsh,
    /// PPP.
    Ppp,
    /// PPP over Ethernet, session stage.
    Pppoe,
    /// Subframes of an IEEE 802.11 aggregate.
    WirelessAggregate,
    /// IPv4 or IPv6, by the version in its first bits.
    Ip,
    /// IPv4.
    Ipv4,
    /// IPv6.
    Ipv6,
    /// What an IP protocol number names, between two addresses.
    Protocol(u8, Addresses),
    /// TCP between two addresses.
    Tcp(Addresses),
    /// A SYN that an ICMP error quotes.
    Quoted(icmp::Quoted),
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

/// How far a packet may still be walked.
#[derive(Clone, Copy, Debug)]
struct Allowance {
    headers: usize,
    nesting: usize,
}

impl Allowance {
    fn header(&mut self) -> Result<(), Refusal> {
        self.headers = self.headers.checked_sub(1).ok_or(Refusal::Nesting)?;
        Ok(())
    }

    fn nest(&mut self) -> Result<(), Refusal> {
        self.nesting = self.nesting.checked_sub(1).ok_or(Refusal::Nesting)?;
        Ok(())
    }
}

/// Takes the segments of a packet.
pub type Deliver<'d> = dyn FnMut(&Segment<'_>) + 'd;

/// Turns frames into segments. Keeps IP fragments, and who sends right checksums.
#[derive(Debug, Default)]
pub struct PacketDecoder {
    fragments: Fragments,
    checksums: Checksums,
    stats: Stats,
}

impl PacketDecoder {
    /// A decoder without history.
    pub fn new() -> Self {
        Self::default()
    }

    /// Counters so far.
    pub fn stats(&self) -> Stats {
        Stats { fragments: self.fragments.stats().clone(), ..self.stats.clone() }
    }

    /// Hands every TCP segment of `frame` to `deliver`; what is not delivered is counted.
    pub fn decode(&mut self, frame: &Frame<'_>, deliver: &mut Deliver<'_>) {
        self.stats.frames += 1;
        self.stats.bytes += frame.bytes.len() as u64;
        let view = View::new(frame.bytes, frame.original_length as usize);
        let mut allowance = Allowance { headers: MAX_HEADERS, nesting: MAX_NESTING };
        self.walk(Step::new(Layer::Link(frame.link_type), view), &mut allowance, frame, deliver);
    }

    fn walk(
        &mut self,
        step: Step<'_>,
        allowance: &mut Allowance,
        frame: &Frame<'_>,
        deliver: &mut Deliver<'_>,
    ) {
        match find(step, allowance) {
            Ok(Found::Tcp(addresses, view)) => match tcp::header(view) {
                Ok(header) if header.payload.wire() == 0 && self.checksums.is_discarded(addresses, view) => {
                    self.stats.wrong_checksum += 1;
                }
                Ok(header) => self.deliver(&header, addresses, frame, deliver),
                Err(refusal) => self.count(refusal),
            },
            Ok(Found::Quoted(quoted)) => self.deliver_quoted(&quoted, frame, deliver),
            Ok(Found::Fragment(fragment)) => {
                let Some(datagram) = self.fragments.push(&fragment, frame.time) else { return };
                let layer = Layer::Protocol(datagram.protocol, fragment.addresses());
                let view = View::new(&datagram.payload, datagram.payload.len());
                self.walk(Step::new(layer, view), allowance, frame, deliver);
            }
            Ok(Found::WirelessAggregate(mut view)) => {
                while let Some((subframe, rest)) = wireless::subframe(view) {
                    self.walk(link::subframe(subframe), &mut allowance.clone(), frame, deliver);
                    view = rest;
                }
            }
            Err(refusal) => self.count(refusal),
        }
    }

    fn deliver(
        &mut self,
        header: &tcp::Header<'_>,
        addresses: Addresses,
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
            skipped_before: false,
            generation: None,
            cgroup_id: 0,
            socket_cookie: 0,
            interface_index: frame.interface,
            unreachable: None,
            scope_is_cookie: false,
        });
    }

    fn deliver_quoted(&mut self, quoted: &icmp::Quoted, frame: &Frame<'_>, deliver: &mut Deliver<'_>) {
        self.stats.unreachables += 1;
        let (source, destination) = quoted.addresses.with_ports(quoted.source_port, quoted.destination_port);
        deliver(&Segment {
            time: frame.time,
            scope: Scope(0),
            direction: Direction::Path,
            source,
            destination,
            sequence: quoted.sequence,
            acknowledgement: 0,
            flags: TcpFlags(TCP_SYN),
            payload_length: 0,
            payload: &[],
            lost_before: false,
            skipped_before: false,
            generation: None,
            cgroup_id: 0,
            socket_cookie: 0,
            interface_index: frame.interface,
            unreachable: Some(quoted.error),
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
            Refusal::Encrypted => stats.encrypted += 1,
            Refusal::CutFragment => self.fragments.count_cut(),
            Refusal::LinkFragment => stats.link_fragments += 1,
            Refusal::Link(link_type) => {
                stats.unsupported_link += 1;
                stats.unsupported_link_type = Some(link_type);
            }
        }
    }
}

/// Where the walk through the headers of a packet ends.
enum Found<'a> {
    Tcp(Addresses, View<'a>),
    Quoted(icmp::Quoted),
    Fragment(Fragment<'a>),
    WirelessAggregate(View<'a>),
}

fn find<'a>(mut step: Step<'a>, allowance: &mut Allowance) -> Result<Found<'a>, Refusal> {
    loop {
        allowance.header()?;
        let view = step.view;
        let next = match step.layer {
            Layer::Link(link_type) => link::step(link_type, view).map(Next::Step),
            Layer::Ethernet => ethernet::frame(view).map(Next::Step),
            Layer::EtherType(kind) => ethernet::ether_type(kind, view).map(Next::Step),
            Layer::Llc => ethernet::llc(view).map(Next::Step),
            Layer::Mpls => ethernet::mpls(view).map(Next::Step),
            Layer::Nsh => ethernet::nsh(view).map(Next::Step),
            Layer::Ppp => serial::ppp(view).map(Next::Step),
            Layer::Pppoe => serial::pppoe(view).map(Next::Step),
            Layer::Ip => ip::version(view).map(|layer| Next::Step(Step::new(layer, view))),
            Layer::Ipv4 => allowance.nest().and_then(|()| ip::v4(view)),
            Layer::Ipv6 => allowance.nest().and_then(|()| ip::v6(view)),
            Layer::Protocol(protocol, addresses) => ip::protocol(protocol, addresses, view),
            Layer::Tcp(addresses) => return Ok(Found::Tcp(addresses, view)),
            Layer::Quoted(quoted) => return Ok(Found::Quoted(quoted)),
            Layer::WirelessAggregate => return Ok(Found::WirelessAggregate(view)),
        };
        step = match next? {
            Next::Step(next) => next,
            Next::Fragment(fragment) => return Ok(Found::Fragment(fragment)),
        };
    }
}
