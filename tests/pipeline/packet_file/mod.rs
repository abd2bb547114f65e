//! Segments in, a packet file out, and that file read again: what it shows, what it hides, and that it says the same.

mod bounds;
mod round_trip;
mod secrets;
mod structures;

use std::{
    fs, io,
    path::Path,
    time::{Duration, Instant},
};

use pod2pod_user::{
    capture::{
        KernelInstant, Segment,
        file::{self, CaptureFile},
    },
    config::Config,
    delivery::{Overflow, SinkStats},
    enrich::{OwnTraffic, Redaction},
    pcap::{self, Output},
    pipeline::{self, Pipeline},
    shutdown::Shutdown,
    sinks::OwnConnections,
};
use support::conversation::OwnedSegment;

/// A run that takes longer hangs.
const PATIENCE: Duration = Duration::from_secs(30);

/// What a run came to.
struct Run {
    /// Records as lines, sorted: when each is told may differ.
    records: Vec<String>,
    /// The packet file.
    file: Vec<u8>,
    held: pcap::Stats,
    written: SinkStats,
}

/// Configuration with one thing changed.
fn config(change: impl FnOnce(&mut Config)) -> Config {
    let mut config = Config::default();
    config.enrich.own_traffic = OwnTraffic::Told;
    change(&mut config);
    config
}

fn raw() -> Config {
    config(|config| config.enrich.redaction = Redaction::Off)
}

/// Sends what `feed` gives through all stages, and writes it to a file.
fn write(mut config: Config, feed: impl FnOnce(&mut dyn FnMut(&Segment<'_>))) -> Run {
    let folder = tempfile::tempdir().unwrap();
    let (records, packets) = (folder.path().join("records"), folder.path().join("packets"));
    config.output.file = Some(records.clone());
    config.pcap.file = Some(packets.clone());
    let shutdown = Shutdown::without_signals().unwrap();
    let output = Output::open(&config.pcap, Overflow::Wait, &shutdown).unwrap().unwrap();
    let own = OwnConnections::default().into();
    let sinks = pipeline::open_sinks(&config, Overflow::Wait, &own, &Default::default(), &shutdown).unwrap();
    let mut pipeline = Pipeline::new(&config, sinks.clone(), None);
    pipeline.write_packets(&config, output.clone());
    let mut now = KernelInstant::default();
    feed(&mut |segment| {
        now = segment.time;
        if pipeline.is_due(now) {
            pipeline.expire(now);
        }
        pipeline.push(segment);
    });
    pipeline.finish(now);
    let held = pipeline.stats().packets;
    drop(pipeline);
    let written = output.finish(Instant::now() + PATIENCE);
    pipeline::finish_sinks(sinks, Instant::now() + PATIENCE);
    let mut records: Vec<_> = fs::read_to_string(records).unwrap().lines().map(str::to_owned).collect();
    records.sort_unstable();
    Run { records, file: fs::read(packets).unwrap(), held, written }
}

fn write_segments(config: Config, segments: &[OwnedSegment]) -> Run {
    write(config, |push| segments.iter().for_each(|segment| push(&segment.borrow())))
}

fn write_file(config: Config, bytes: Vec<u8>) -> Run {
    write(config, |push| {
        let mut file =
            CaptureFile::from_reader("capture", Box::new(io::Cursor::new(bytes)), &file::Config::default());
        // Some of the committed captures are damaged on purpose: what comes before counts.
        let _ = file.as_mut().unwrap().read(&mut |segment| push(segment));
    })
}

/// Segments of the file, as this program reads them.
fn segments(file: &[u8]) -> Vec<OwnedSegment> {
    let mut segments = Vec::new();
    let mut file = CaptureFile::from_reader(
        "written",
        Box::new(io::Cursor::new(file.to_vec())),
        &file::Config::default(),
    )
    .unwrap();
    file.read(&mut |segment| segments.push(OwnedSegment::of(segment))).unwrap();
    segments
}

/// Payloads and comments of the file, each for itself.
fn readable(file: &[u8]) -> Vec<Vec<u8>> {
    let payloads = segments(file).into_iter().map(|segment| segment.payload);
    payloads.chain(packets(file).into_iter().flat_map(|packet| packet.comments)).collect()
}

/// A packet block.
struct Packet {
    bytes: Vec<u8>,
    original: u32,
    comments: Vec<Vec<u8>>,
    flags: Option<u32>,
}

/// The packet blocks of a file, read by the letter of the format.
fn packets(file: &[u8]) -> Vec<Packet> {
    let word = |at: usize| u32::from_le_bytes(file[at..at + 4].try_into().unwrap());
    let mut packets = Vec::new();
    let mut at = 0;
    while at < file.len() {
        let length = word(at + 4) as usize;
        if word(at) == 6 {
            let captured = word(at + 20) as usize;
            let mut packet = Packet {
                bytes: file[at + 28..at + 28 + captured].to_vec(),
                original: word(at + 24),
                comments: Vec::new(),
                flags: None,
            };
            let mut option = at + 28 + captured.next_multiple_of(4);
            while option < at + length - 4 {
                let (code, size) = (word(option) & 0xffff, (word(option) >> 16) as usize);
                let value = file[option + 4..option + 4 + size].to_vec();
                match code {
                    1 => packet.comments.push(value),
                    2 => packet.flags = Some(u32::from_le_bytes(value.try_into().unwrap())),
                    _ => {}
                }
                option += 4 + size.next_multiple_of(4);
            }
            packets.push(packet);
        }
        at += length;
    }
    assert_eq!(at, file.len());
    packets
}

/// Every packet that is there whole has right checksums: sums with them are all ones (RFC 1071).
fn check_checksums(file: &[u8]) {
    fn fold(mut sum: u32) -> u32 {
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        sum
    }
    let sum = |bytes: &[u8]| {
        let words =
            bytes.chunks(2).map(|word| u32::from(word[0]) << 8 | u32::from(*word.get(1).unwrap_or(&0)));
        fold(words.fold(0, |sum, word| fold(sum + word)))
    };
    for Packet { bytes, original, .. } in packets(file) {
        let (header, addresses) = if bytes[0] >> 4 == 4 { (20, 12..20) } else { (40, 8..40) };
        if header == 20 {
            assert_eq!(sum(&bytes[..20]), 0xffff, "IPv4 {bytes:?}");
        }
        if bytes.len() == original as usize {
            let length = (bytes.len() - header) as u32;
            assert_eq!(
                fold(sum(&bytes[addresses]) + 6 + length + sum(&bytes[header..])),
                0xffff,
                "TCP {bytes:?}"
            );
        }
    }
}

/// The committed captures: name and bytes.
fn captures() -> Vec<(String, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("data");
    let mut captures: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| {
            path.extension().is_some_and(|extension| extension.to_string_lossy().starts_with("pcap"))
        })
        .map(|path| (path.file_name().unwrap().to_string_lossy().into_owned(), fs::read(path).unwrap()))
        .collect();
    captures.sort_unstable();
    assert!(captures.len() > 10);
    captures
}
