//! What each pure stage costs, by itself and all together: time by criterion, allocations by a counting allocator.
//! `cargo xtask bench parts` makes a table of it.

use std::{fs, hint::black_box, path::Path};

use criterion::{BatchSize, Criterion, Throughput};
use pod2pod_user::{
    capture::{
        KernelInstant, Segment,
        decode::decode,
        packet::{Frame, PacketDecoder},
    },
    enrich::{self, Enricher, WallOffset},
    http::{self, Exchange, HttpTracker},
    reassembly::{self, Chunk, Connection, Content, Reassembler, Side},
    record::{Record, json},
};

mod input;
mod ipvs;
mod kubernetes;
mod spool;

/// Where the allocations are written; criterion has its own place.
const ALLOCATIONS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../target/bench/allocations.json");
/// Link type of Ethernet (tcpdump.org/linktypes.html).
const ETHERNET: u32 = 1;
const WALL: WallOffset = WallOffset(1_795_000_000_000_000_000);

fn main() {
    let mut parts = Parts { criterion: Criterion::default().configure_from_args(), counted: Vec::new() };
    let packets = input::packets();
    let records: Vec<Vec<u8>> = packets.iter().map(input::Packet::record).collect();
    let segments: Vec<Segment<'_>> =
        records.iter().map(|record| decode(record).expect("a record as the kernel writes it")).collect();
    let frames: Vec<(u64, Vec<u8>)> = packets.iter().map(input::Packet::frame).collect();
    capturing(&mut parts, &records, &frames);
    let steps = reassembling(&mut parts, &segments);
    let exchanges = tracking(&mut parts, &steps);
    let told = enriching(&mut parts, &exchanges);
    writing(&mut parts, &told);
    whole(&mut parts, &records);
    ipvs::polling(&mut parts);
    kubernetes::naming(&mut parts);
    kubernetes::remembered(&mut parts);
    spool::spooling(&mut parts);
    parts.finish();
}

/// The measurements.
struct Parts {
    criterion: Criterion,
    counted: Vec<(String, f64)>,
}

impl Parts {
    /// Measures `work` on what `fresh` makes; one call does `count` of what `name` ends with.
    fn measure<T>(&mut self, name: &str, count: usize, fresh: impl Fn() -> T, work: impl Fn(&mut T)) {
        // The first time is for buffers that are kept.
        work(&mut fresh());
        let mut state = fresh();
        let allocations = allocation_counter::measure(|| work(&mut state)).count_total;
        self.counted.push((name.to_owned(), allocations as f64 / count as f64));
        let mut group = self.criterion.benchmark_group("parts");
        group.throughput(Throughput::Elements(count as u64));
        group.bench_function(name, |bencher| {
            bencher.iter_batched_ref(&fresh, |state| work(state), BatchSize::LargeInput);
        });
        group.finish();
    }

    fn finish(self) {
        self.criterion.final_summary();
        let lines: Vec<String> =
            self.counted.iter().map(|(name, count)| format!("  \"{name}\": {count:.3}")).collect();
        let file = Path::new(ALLOCATIONS);
        let written = file.parent().map_or(Ok(()), fs::create_dir_all);
        written.and_then(|()| fs::write(file, format!("{{\n{}\n}}\n", lines.join(",\n")))).expect("writable");
    }
}

fn capturing(parts: &mut Parts, records: &[Vec<u8>], frames: &[(u64, Vec<u8>)]) {
    parts.measure(
        "decode, a ring record",
        records.len(),
        || (),
        |()| {
            for record in records {
                let _ = black_box(decode(black_box(record)));
            }
        },
    );
    parts.measure("packet, a frame", frames.len(), PacketDecoder::new, |decoder| {
        for (time, bytes) in frames {
            let time = KernelInstant::from_nanos(*time);
            let original_length = bytes.len() as u32;
            let frame = Frame { link_type: ETHERNET, bytes, original_length, time, interface: 0 };
            decoder.decode(&frame, &mut |segment| {
                black_box(segment);
            });
        }
    });
}

/// Bytes that reassembly hands on, owned.
struct Step {
    connection: Connection,
    sender: Side,
    time: KernelInstant,
    offset: u64,
    bytes: Vec<u8>,
}

fn reassembling(parts: &mut Parts, segments: &[Segment<'_>]) -> Vec<Step> {
    let fresh = || Reassembler::new(reassembly::Config::default());
    parts.measure("reassembly, a segment", segments.len(), fresh, |reassembler| {
        for segment in segments {
            reassembler.push(segment, segment.time, &mut |chunk| {
                black_box(chunk);
            });
        }
    });
    let mut steps = Vec::new();
    let mut reassembler = fresh();
    for segment in segments {
        reassembler.push(segment, segment.time, &mut |chunk| {
            let Chunk { connection, sender, time, offset, content } = chunk;
            if let Content::Bytes(bytes) = content {
                let (connection, bytes) = (*connection, bytes.to_vec());
                steps.push(Step { connection, sender, time, offset, bytes });
            }
        });
    }
    assert_eq!(steps.len(), 2 * input::EXCHANGES as usize, "each message comes in one piece");
    steps
}

fn track(tracker: &mut HttpTracker, steps: &[Step], mut told: impl FnMut(Exchange)) {
    for Step { connection, sender, time, offset, bytes } in steps {
        let (sender, time, offset, content) = (*sender, *time, *offset, Content::Bytes(bytes));
        tracker.push(Chunk { connection, sender, time, offset, content }, time);
        while let Some(exchange) = tracker.pop() {
            told(exchange);
        }
    }
}

fn tracking(parts: &mut Parts, steps: &[Step]) -> Vec<Exchange> {
    let fresh = || HttpTracker::new(http::Config::default());
    parts.measure("http, a message", steps.len(), fresh, |tracker| {
        track(tracker, steps, |exchange| {
            black_box(exchange);
        });
    });
    let mut exchanges = Vec::new();
    track(&mut fresh(), steps, |exchange| exchanges.push(exchange));
    assert_eq!(exchanges.len(), input::EXCHANGES as usize, "each exchange is told");
    exchanges
}

fn enriching(parts: &mut Parts, exchanges: &[Exchange]) -> Vec<Record> {
    let enricher = || Enricher::new(enrich::Config::default());
    let fresh = || (enricher(), exchanges.to_vec());
    parts.measure("enrich, an exchange", exchanges.len(), fresh, |(enricher, exchanges)| {
        for mut exchange in exchanges.drain(..) {
            black_box(enricher.enrich(&mut exchange, WALL).1);
        }
    });
    let mut enricher = enricher();
    exchanges.iter().map(|exchange| enricher.enrich(&mut exchange.clone(), WALL).0.clone()).collect()
}

fn writing(parts: &mut Parts, records: &[Record]) {
    let fresh = || (json::Lines::default(), Vec::with_capacity(OUTPUT_BYTES));
    parts.measure("record, a line", records.len(), fresh, |(lines, out)| {
        for record in records {
            lines.push(out, record);
        }
    });
}

/// Room for all lines.
const OUTPUT_BYTES: usize = 2 << 20;

fn whole(parts: &mut Parts, records: &[Vec<u8>]) {
    let fresh = || {
        (
            Reassembler::new(reassembly::Config::default()),
            HttpTracker::new(http::Config::default()),
            Enricher::new(enrich::Config::default()),
            json::Lines::default(),
            Vec::with_capacity(OUTPUT_BYTES),
        )
    };
    let exchanges = input::EXCHANGES as usize;
    parts.measure(
        "all stages, an exchange",
        exchanges,
        fresh,
        |(reassembler, tracker, enricher, lines, out)| {
            for record in records {
                let Ok(segment) = decode(record) else { continue };
                reassembler.push(&segment, segment.time, &mut |chunk| tracker.push(chunk, segment.time));
                tracker.drain_told(|exchange| lines.push(out, enricher.enrich(exchange, WALL).0));
            }
        },
    );
}
