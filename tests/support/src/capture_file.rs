//! Writes capture files and the packets in them, byte by byte, for tests. Shares no code with what reads them.

use std::net::{IpAddr, SocketAddr};

/// FIN.
pub const FIN: u8 = 0x01;
/// SYN.
pub const SYN: u8 = 0x02;
/// RST.
pub const RST: u8 = 0x04;
/// ACK.
pub const ACK: u8 = 0x10;

/// Link type of Ethernet.
pub const ETHERNET: u32 = 1;

/// Byte order of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Most significant byte first.
    Big,
    /// Least significant byte first.
    Little,
}

impl Order {
    /// Both.
    pub const BOTH: [Self; 2] = [Self::Big, Self::Little];

    fn u16(self, value: u16) -> [u8; 2] {
        if self == Self::Big { value.to_be_bytes() } else { value.to_le_bytes() }
    }

    fn u32(self, value: u32) -> [u8; 4] {
        if self == Self::Big { value.to_be_bytes() } else { value.to_le_bytes() }
    }

    fn u64(self, value: u64) -> [u8; 8] {
        if self == Self::Big { value.to_be_bytes() } else { value.to_le_bytes() }
    }
}

/// Unit of a pcap file's timestamps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Microseconds.
    Micro,
    /// Nanoseconds.
    Nano,
    /// Microseconds, in the "modified" format with its longer record header.
    Modified,
}

/// A pcap file that is being written.
#[derive(Clone, Debug)]
pub struct Pcap {
    order: Order,
    unit: Unit,
    /// The file so far.
    pub bytes: Vec<u8>,
}

impl Pcap {
    /// A file with packets of one link type.
    pub fn new(order: Order, unit: Unit, link_type: u32) -> Self {
        Self::with_version(order, unit, link_type, 4)
    }

    /// As [`new`](Self::new), of version 2.`minor`.
    pub fn with_version(order: Order, unit: Unit, link_type: u32, minor: u16) -> Self {
        let magic = match unit {
            Unit::Micro => 0xa1b2_c3d4,
            Unit::Nano => 0xa1b2_3c4d,
            Unit::Modified => 0xa1b2_cd34,
        };
        let mut bytes = order.u32(magic).to_vec();
        bytes.extend(order.u16(2));
        bytes.extend(order.u16(minor));
        bytes.extend([0; 8]);
        bytes.extend(order.u32(262_144));
        bytes.extend(order.u32(link_type));
        Self { order, unit, bytes }
    }

    /// Adds a whole packet captured at `time` ns since 1970.
    pub fn packet(&mut self, time: u64, packet: &[u8]) -> &mut Self {
        self.cut_packet(time, packet, packet.len())
    }

    /// Adds a packet that was `original` bytes long, of which `packet` was captured.
    pub fn cut_packet(&mut self, time: u64, packet: &[u8], original: usize) -> &mut Self {
        let fraction =
            if self.unit == Unit::Nano { time % 1_000_000_000 } else { time % 1_000_000_000 / 1000 };
        self.record((time / 1_000_000_000) as u32, fraction as u32, packet.len() as u32, original as u32);
        self.bytes.extend(packet);
        self
    }

    /// Adds a record header with these fields and nothing after it.
    pub fn record(&mut self, seconds: u32, fraction: u32, captured: u32, original: u32) -> &mut Self {
        for field in [seconds, fraction, captured, original] {
            self.bytes.extend(self.order.u32(field));
        }
        if self.unit == Unit::Modified {
            self.bytes.extend([0; 8]);
        }
        self
    }
}

/// A pcapng file that is being written; begins with a section header.
#[derive(Clone, Debug)]
pub struct PcapNg {
    order: Order,
    /// The file so far.
    pub bytes: Vec<u8>,
}

impl PcapNg {
    /// A file whose first section has the byte order.
    pub fn new(order: Order) -> Self {
        let mut file = Self { order, bytes: Vec::new() };
        file.section(order);
        file
    }

    /// Begins another section.
    pub fn section(&mut self, order: Order) -> &mut Self {
        self.order = order;
        let mut body = order.u32(0x1a2b_3c4d).to_vec();
        body.extend(order.u16(1));
        body.extend(order.u16(0));
        body.extend([0xff; 8]);
        // shb_userappl, end of options.
        body.extend(self.option(4, b"test writer"));
        body.extend(self.option(0, b""));
        self.block(0x0a0d_0d0a, &body)
    }

    /// Describes an interface; `options` are as [`option`](Self::option) gives them.
    pub fn interface(&mut self, link_type: u16, snap_length: u32, options: &[u8]) -> &mut Self {
        let mut body = self.order.u16(link_type).to_vec();
        body.extend([0; 2]);
        body.extend(self.order.u32(snap_length));
        body.extend(options);
        self.block(1, &body)
    }

    /// Adds an enhanced packet captured `time` units since 1970.
    pub fn packet(&mut self, interface: u32, time: u64, packet: &[u8]) -> &mut Self {
        self.packet_with(interface, time, packet, packet.len(), &[])
    }

    /// Adds an enhanced packet that was `original` bytes long, with options.
    pub fn packet_with(
        &mut self,
        interface: u32,
        time: u64,
        packet: &[u8],
        original: usize,
        options: &[u8],
    ) -> &mut Self {
        let mut body = Vec::new();
        for field in [interface, (time >> 32) as u32, time as u32, packet.len() as u32, original as u32] {
            body.extend(self.order.u32(field));
        }
        body.extend(packet);
        pad(&mut body);
        body.extend(options);
        self.block(6, &body)
    }

    /// Adds a simple packet that was `original` bytes long.
    pub fn simple_packet(&mut self, packet: &[u8], original: usize) -> &mut Self {
        let mut body = self.order.u32(original as u32).to_vec();
        body.extend(packet);
        self.block(3, &body)
    }

    /// Adds an obsolete packet block.
    pub fn obsolete_packet(&mut self, interface: u16, time: u64, packet: &[u8]) -> &mut Self {
        let mut body = self.order.u16(interface).to_vec();
        body.extend([0xff; 2]);
        for field in [(time >> 32) as u32, time as u32, packet.len() as u32, packet.len() as u32] {
            body.extend(self.order.u32(field));
        }
        body.extend(packet);
        self.block(2, &body)
    }

    /// Adds a block of any type.
    pub fn block(&mut self, kind: u32, body: &[u8]) -> &mut Self {
        let mut body = body.to_vec();
        pad(&mut body);
        let length = self.order.u32(body.len() as u32 + 12);
        self.bytes.extend(self.order.u32(kind));
        self.bytes.extend(length);
        self.bytes.extend(body);
        self.bytes.extend(length);
        self
    }

    /// The bytes of an option in this section's byte order.
    pub fn option(&self, code: u16, value: &[u8]) -> Vec<u8> {
        let mut bytes = self.order.u16(code).to_vec();
        bytes.extend(self.order.u16(value.len() as u16));
        bytes.extend(value);
        pad(&mut bytes);
        bytes
    }

    /// The `if_tsoffset` option.
    pub fn time_offset(&self, seconds: i64) -> Vec<u8> {
        self.option(14, &self.order.u64(seconds.cast_unsigned()))
    }
}

fn pad(bytes: &mut Vec<u8>) {
    bytes.resize(bytes.len().next_multiple_of(4), 0);
}

/// A TCP segment between two addresses; what [`Tcp::ip`] and [`Tcp::ethernet`] wrap.
#[derive(Clone, Debug)]
pub struct Tcp<'a> {
    /// Sender.
    pub source: SocketAddr,
    /// Receiver; of the same IP version.
    pub destination: SocketAddr,
    /// Sequence number.
    pub sequence: u32,
    /// Acknowledgement number.
    pub acknowledgement: u32,
    /// Flag bits.
    pub flags: u8,
    /// Options, a multiple of four bytes.
    pub options: &'a [u8],
    /// Payload.
    pub payload: &'a [u8],
}

impl<'a> Tcp<'a> {
    /// A data segment from 10.0.0.1:40000 to 10.0.0.2:80.
    pub fn data(sequence: u32, payload: &'a [u8]) -> Self {
        Self {
            source: ([10, 0, 0, 1], 40_000).into(),
            destination: ([10, 0, 0, 2], 80).into(),
            sequence,
            acknowledgement: 1,
            flags: ACK,
            options: &[],
            payload,
        }
    }

    /// Header and payload.
    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = self.source.port().to_be_bytes().to_vec();
        bytes.extend(self.destination.port().to_be_bytes());
        bytes.extend(self.sequence.to_be_bytes());
        bytes.extend(self.acknowledgement.to_be_bytes());
        bytes.push(((5 + self.options.len() / 4) << 4) as u8);
        bytes.push(self.flags);
        bytes.extend([0xff, 0xff, 0, 0, 0, 0]);
        bytes.extend(self.options);
        bytes.extend(self.payload);
        bytes
    }

    /// The segment in an IP packet of its addresses' version.
    pub fn ip(&self) -> Vec<u8> {
        ip(self.source.ip(), self.destination.ip(), 6, &self.bytes())
    }

    /// The IP packet in an Ethernet frame.
    pub fn ethernet(&self) -> Vec<u8> {
        ethernet(if self.source.is_ipv4() { 0x0800 } else { 0x86dd }, &self.ip())
    }
}

/// An Ethernet II frame.
pub fn ethernet(ether_type: u16, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1];
    bytes.extend(ether_type.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// A UDP datagram.
pub fn udp(source: u16, destination: u16, payload: &[u8]) -> Vec<u8> {
    let mut bytes = source.to_be_bytes().to_vec();
    bytes.extend(destination.to_be_bytes());
    bytes.extend((payload.len() as u16 + 8).to_be_bytes());
    bytes.extend([0, 0]);
    bytes.extend(payload);
    bytes
}

/// An IP packet of the addresses' version.
///
/// # Panics
///
/// When the addresses are of different versions.
pub fn ip(source: IpAddr, destination: IpAddr, protocol: u8, payload: &[u8]) -> Vec<u8> {
    match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            ipv4(source.octets(), destination.octets(), protocol, 1, 0, payload)
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            let mut bytes = vec![0x60, 0, 0, 0];
            bytes.extend((payload.len() as u16).to_be_bytes());
            bytes.extend([protocol, 64]);
            bytes.extend(source.octets());
            bytes.extend(destination.octets());
            bytes.extend(payload);
            bytes
        }
        _ => unreachable!("both addresses of a packet have one version"),
    }
}

/// An IPv4 packet; `offset` is the whole field, flags included.
pub fn ipv4(
    source: [u8; 4],
    destination: [u8; 4],
    protocol: u8,
    identification: u16,
    offset: u16,
    payload: &[u8],
) -> Vec<u8> {
    let mut bytes = vec![0x45, 0];
    bytes.extend((payload.len() as u16 + 20).to_be_bytes());
    bytes.extend(identification.to_be_bytes());
    bytes.extend(offset.to_be_bytes());
    bytes.extend([64, protocol, 0, 0]);
    bytes.extend(source);
    bytes.extend(destination);
    let sum: u32 = bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1])).sum();
    let sum = !((sum & 0xffff) + (sum >> 16)) as u16;
    bytes[10..12].copy_from_slice(&sum.to_be_bytes());
    bytes.extend(payload);
    bytes
}
