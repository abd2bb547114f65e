//! Capture files and packets: bytes of a file in, segments out.

mod compressed;
mod damage;
mod formats;
mod fragments;
mod icmp;
mod links;
mod tunnels;

use pod2pod_user::capture::{
    Segment,
    file::{CaptureFile, Config, FileError, Stats},
    packet,
};
use support::capture_file::{Order, Pcap, Tcp, Unit};

/// What every case that tests headers carries behind them.
const REQUEST: &[u8] = b"GET /link HTTP/1.1\r\nHost: a\r\n\r\n";

/// What a segment was, payload copied.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Seen {
    time: u64,
    source: String,
    destination: String,
    sequence: u32,
    flags: u8,
    payload_length: u32,
    payload: Vec<u8>,
    interface: u32,
}

impl Seen {
    fn of(segment: &Segment<'_>) -> Self {
        Self {
            time: segment.time.as_nanos(),
            source: segment.source.to_string(),
            destination: segment.destination.to_string(),
            sequence: segment.sequence,
            flags: segment.flags.0,
            payload_length: segment.payload_length,
            payload: segment.payload.to_vec(),
            interface: segment.interface_index,
        }
    }
}

/// Reads a whole file from memory.
fn read(bytes: &[u8]) -> (Vec<Seen>, Stats, Result<(), FileError>) {
    let mut seen = Vec::new();
    let reader = Box::new(std::io::Cursor::new(bytes.to_vec()));
    let mut file = match CaptureFile::from_reader("test", reader, &Config::default()) {
        Ok(file) => file,
        Err(error) => return (seen, Stats::default(), Err(error)),
    };
    let result = file.read(&mut |segment| seen.push(Seen::of(segment)));
    (seen, file.stats(), result)
}

/// The request in an IPv4 packet.
fn v4() -> Vec<u8> {
    Tcp::data(7, REQUEST).ip()
}

/// The request in an IPv6 packet.
fn v6() -> Vec<u8> {
    let ends = ("[2001:db8::1]:40000", "[2001:db8::2]:80");
    let [source, destination] = [ends.0, ends.1].map(|end| end.parse().expect("an address"));
    Tcp { source, destination, ..Tcp::data(7, REQUEST) }.ip()
}

fn join(parts: &[&[u8]]) -> Vec<u8> {
    parts.concat()
}

/// Bytes from hexadecimal digits and spaces.
fn hex(digits: &str) -> Vec<u8> {
    let digits: Vec<u8> =
        digits.chars().filter_map(|digit| digit.to_digit(16)).map(|digit| digit as u8).collect();
    digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}

/// The segments of a file with one packet.
fn one(link_type: u32, packet: &[u8]) -> (Vec<Seen>, packet::Stats) {
    let mut file = Pcap::new(Order::Little, Unit::Micro, link_type);
    file.packet(1_000_000_000, packet);
    let (seen, stats, result) = read(&file.bytes);
    assert!(result.is_ok(), "{result:?}");
    (seen, stats.packets)
}

/// One request comes out, whole.
fn check(name: &str, link_type: u32, packet: &[u8]) {
    let (seen, stats) = one(link_type, packet);
    assert_eq!(seen.len(), 1, "{name}: {stats:?}");
    assert_eq!(seen[0].payload, REQUEST, "{name}");
    assert_eq!(seen[0].payload_length as usize, REQUEST.len(), "{name}");
    assert!(seen[0].source.ends_with(":40000"), "{name}: {}", seen[0].source);
}
