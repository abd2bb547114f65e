//! What an exchange costs in allocations, from its segments to its line.

use bytes::Bytes;
use pod2pod_user::{
    capture::{KernelInstant, Segment},
    enrich::{self, Enricher, Fate, WallOffset},
    http::{self, HttpTracker},
    metrics::{Metrics, http::DEFAULT_LABEL_SETS, pairs::By, routes},
    reassembly::{self, Reassembler},
    record::{ObservedAt, Outcome, Record, json},
    views::Views,
};
use support::conversation::{Conversation, OwnedSegment};

/// Exchanges before counting begins: tables and buffers have grown by then.
const WARM_UP: usize = 200;
const COUNTED: usize = 1000;

struct Stages {
    reassembler: Reassembler,
    tracker: HttpTracker,
    enricher: Enricher,
    written: json::Lines,
    line: Vec<u8>,
    lines: usize,
}

impl Stages {
    fn new(known_heads: usize) -> Self {
        Self {
            reassembler: Reassembler::new(reassembly::Config::default()),
            tracker: HttpTracker::new(http::Config { known_heads, ..http::Config::default() }),
            enricher: Enricher::new(enrich::Config::default()),
            written: json::Lines::default(),
            line: Vec::new(),
            lines: 0,
        }
    }

    fn push(&mut self, segment: &Segment<'_>) {
        let Self { reassembler, tracker, enricher, written, line, lines } = self;
        let now = segment.time;
        reassembler.push(segment, now, &mut |chunk| tracker.push(chunk, now));
        tracker.drain_told(|exchange| {
            let (record, fate) = enricher.enrich(exchange, WallOffset::default());
            assert_eq!(fate, Fate::Keep);
            line.clear();
            written.push(line, record);
            *lines += 1;
        });
    }
}

/// Allocations of [`COUNTED`] exchanges on a connection that is kept alive.
fn allocations(request: &str, response: &str, known_heads: usize) -> u64 {
    let exchanges = WARM_UP + COUNTED;
    let conversation = (0..exchanges)
        .fold(Conversation::new(), |conversation, _| conversation.client(request).server(response));
    let segments: Vec<OwnedSegment> = conversation.segments();
    let warm = segments.len() - 2 * COUNTED;
    let mut stages = Stages::new(known_heads);
    segments[..warm].iter().for_each(|segment| stages.push(&segment.borrow()));
    assert_eq!(stages.lines, WARM_UP);
    let counted = allocation_counter::measure(|| {
        segments[warm..].iter().for_each(|segment| stages.push(&segment.borrow()));
    });
    assert_eq!(stages.lines, exchanges);
    counted.count_total
}

#[test]
fn a_small_exchange_takes_one_allocation_or_none() {
    let request = "GET /cart?id=7 HTTP/1.1\r\nHost: cart.shop\r\nUser-Agent: curl/8.5\r\nAccept: */*\r\n\r\n";
    let response = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nServer: nginx\r\n\r\nok";
    assert_eq!(allocations(request, response, 0), COUNTED as u64);
    assert_eq!(allocations(request, response, http::DEFAULT_KNOWN_HEADS), 0, "its heads are known");
}

#[test]
fn a_long_target_takes_two() {
    let request = format!("GET /{} HTTP/1.1\r\nHost: cart.shop\r\n\r\n", "x".repeat(400));
    let response = "HTTP/1.1 204 No Content\r\n\r\n";
    assert_eq!(allocations(&request, response, 0), 2 * COUNTED as u64);
}

#[test]
fn a_body_in_many_pieces_takes_no_more() {
    let request = "GET / HTTP/1.1\r\nHost: cart.shop\r\n\r\n";
    let response = format!("HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n{}", "x".repeat(100_000));
    let conversation = (0..10).fold(Conversation::new(), |c, _| c.client(request).server(&response));
    let segments = conversation.cut_every(1460).segments();
    let mut stages = Stages::new(0);
    let warm = segments.len() / 2;
    segments[..warm].iter().for_each(|segment| stages.push(&segment.borrow()));
    let told = stages.lines;
    let counted = allocation_counter::measure(|| {
        segments[warm..].iter().for_each(|segment| stages.push(&segment.borrow()));
    });
    let exchanges = (10 - told) as u64;
    assert!(counted.count_total <= exchanges, "{} for {exchanges} exchanges", counted.count_total);
}

#[test]
fn both_views_of_an_exchange_and_its_pair_take_none() {
    let (mut metrics, _) = Metrics::new(&routes::Config::default(), DEFAULT_LABEL_SETS).unwrap();
    let mut pairs = metrics.with_pairs(By::Addresses, usize::MAX).unwrap();
    let mut views = Views::default();
    let mut tell = |connection_id: u64, observed_at, duration| {
        let mut record = Record {
            outcome: Some(Outcome::Complete),
            method: Some(Bytes::from_static(b"GET")),
            offset: Some(1),
            connection_id,
            observed_at,
            duration,
            ..Record::blank()
        };
        record.network_duration = views.meet(&record, KernelInstant::from_nanos(connection_id));
        pairs.observe(&record);
        record.network_duration
    };
    let mut both = |id| (tell(id, ObservedAt::Server, 5), tell(id, ObservedAt::Client, 7));
    both(0);
    let counted = allocation_counter::measure(|| {
        (1..=COUNTED as u64).for_each(|id| assert_eq!(both(id), (None, Some(2))))
    });
    assert_eq!(counted.count_total, 0);
}
