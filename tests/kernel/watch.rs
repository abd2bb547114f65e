//! The watcher of a test: a capture on the test's cgroup, everything it told, and the kernel's counters.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use pod2pod_common::counters::{COUNTERS, Counter};
use pod2pod_user::capture::{
    Direction, KernelInstant, Scope, Segment, TcpFlags, Unreachable,
    kernel::{Capture, Config, Reader, ScopeChoice, Workers},
};
use support::{netns::Cgroup, scale};

use crate::machine;

/// Longest wait for what must come.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);
/// The machine may be busy: a ring that holds the traffic of any test whole, bodies up to the credit.
const RING_BYTES: u32 = 16 * 1024 * 1024;
/// Between two looks at what was told.
const PAUSE: Duration = Duration::from_millis(1);
/// Records taken at a time.
const TURN: usize = 4096;

/// A segment that outlives the ring.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    time: KernelInstant,
    pub(crate) scope: Scope,
    pub(crate) direction: Direction,
    pub(crate) source: SocketAddr,
    pub(crate) destination: SocketAddr,
    pub(crate) sequence: u32,
    acknowledgement: u32,
    pub(crate) flags: TcpFlags,
    pub(crate) payload_length: u32,
    pub(crate) payload: Vec<u8>,
    pub(crate) lost_before: bool,
    pub(crate) skipped_before: bool,
    pub(crate) generation: Option<u32>,
    cgroup_id: u64,
    pub(crate) socket_cookie: u64,
    pub(crate) interface_index: u32,
    pub(crate) unreachable: Option<Unreachable>,
    scope_is_cookie: bool,
}

impl Seen {
    fn of(segment: &Segment<'_>) -> Self {
        Self {
            time: segment.time,
            scope: segment.scope,
            direction: segment.direction,
            source: segment.source,
            destination: segment.destination,
            sequence: segment.sequence,
            acknowledgement: segment.acknowledgement,
            flags: segment.flags,
            payload_length: segment.payload_length,
            payload: segment.payload.to_vec(),
            lost_before: segment.lost_before,
            skipped_before: segment.skipped_before,
            generation: segment.generation,
            cgroup_id: segment.cgroup_id,
            socket_cookie: segment.socket_cookie,
            interface_index: segment.interface_index,
            unreachable: segment.unreachable,
            scope_is_cookie: segment.scope_is_cookie,
        }
    }

    /// As it was in the ring.
    pub(crate) fn segment(&self) -> Segment<'_> {
        Segment {
            time: self.time,
            scope: self.scope,
            direction: self.direction,
            source: self.source,
            destination: self.destination,
            sequence: self.sequence,
            acknowledgement: self.acknowledgement,
            flags: self.flags,
            payload_length: self.payload_length,
            payload: &self.payload,
            lost_before: self.lost_before,
            skipped_before: self.skipped_before,
            generation: self.generation,
            cgroup_id: self.cgroup_id,
            socket_cookie: self.socket_cookie,
            interface_index: self.interface_index,
            unreachable: self.unreachable,
            scope_is_cookie: self.scope_is_cookie,
        }
    }
}

/// A capture and what it told.
pub(crate) struct Watch {
    pub(crate) capture: Capture,
    pub(crate) readers: Vec<Reader>,
    pub(crate) seen: Vec<Seen>,
    /// The counters when it was last renewed.
    before: [u64; COUNTERS],
    /// Records before that.
    forgotten: u64,
}

impl Watch {
    pub(crate) fn on(cgroup: &Cgroup, scope: ScopeChoice) -> Self {
        let cgroup = Some(cgroup.path().to_owned());
        Self::open(Config { cgroup, scope, ..Self::config() })
    }

    /// With a ring that holds everything.
    pub(crate) fn config() -> Config {
        // As many rings as the test says, whatever the machine has.
        let workers = Workers::Exactly(1);
        Config { ring_bytes: RING_BYTES, workers, ..Config::default() }
    }

    pub(crate) fn open(config: Config) -> Self {
        machine::share();
        let mut capture = Capture::open(&config).unwrap_or_else(|error| panic!("{error}"));
        let readers = capture.take_readers();
        Self { capture, readers, seen: Vec::new(), before: [0; COUNTERS], forgotten: 0 }
    }

    /// Forgets what was seen and counted so far; the books are balanced with it all the same.
    pub(crate) fn renew(&mut self) {
        self.drain();
        self.forgotten += self.seen.len() as u64;
        self.seen.clear();
        self.before = self.capture.counters();
    }

    /// The only ring's reader.
    pub(crate) fn reader(&mut self) -> &mut Reader {
        assert_eq!(self.readers.len(), 1);
        &mut self.readers[0]
    }

    /// Takes what the rings hold.
    pub(crate) fn drain(&mut self) {
        self.capture.beat();
        let Self { readers, seen, .. } = self;
        for reader in readers {
            while reader.drain(TURN, &mut |segment| seen.push(Seen::of(segment))).more {}
        }
    }

    /// Drains while `work` runs, and once more after it.
    pub(crate) fn during<T: Send + 'static>(&mut self, work: std::thread::JoinHandle<T>) -> T {
        Self::all_during(&mut [self], work)
    }

    /// The same for several at once: one that is not drained has no heartbeat, and its programs stop after 2 s.
    pub(crate) fn all_during<T: Send + 'static>(
        watches: &mut [&mut Self],
        work: std::thread::JoinHandle<T>,
    ) -> T {
        let deadline = Instant::now() + PATIENCE;
        while !work.is_finished() {
            assert!(Instant::now() < deadline, "the traffic of the test hangs");
            watches.iter_mut().for_each(|watch| watch.drain());
            std::thread::park_timeout(scale::pause(PAUSE));
        }
        let result = work.join().unwrap();
        watches.iter_mut().for_each(|watch| watch.drain());
        result
    }

    /// Waits for `work` and lets the ring fill; the programs know that somebody lives, however long it takes.
    pub(crate) fn unread<T>(&mut self, work: std::thread::JoinHandle<T>) -> T {
        let deadline = Instant::now() + PATIENCE;
        while !work.is_finished() {
            assert!(Instant::now() < deadline, "the traffic of the test hangs");
            self.capture.beat();
            std::thread::park_timeout(scale::pause(PAUSE));
        }
        work.join().unwrap()
    }

    /// What was counted since the watch was renewed.
    pub(crate) fn counter(&self, counter: Counter) -> u64 {
        self.capture.counters()[counter as usize] - self.before[counter as usize]
    }

    /// Segments that pass `test`, each once however often it was sent: where all is slow, TCP sends again.
    pub(crate) fn distinct(&self, test: impl Fn(&Seen) -> bool) -> usize {
        let chosen = self.seen.iter().filter(|seen| test(seen));
        let places = chosen.map(|seen| (seen.direction == Direction::Egress, seen.source, seen.sequence));
        places.collect::<std::collections::BTreeSet<_>>().len()
    }

    /// Payload of one direction of one connection as one end saw it, in the order of its sequence numbers; nothing may
    /// be missing between the first byte and the last.
    pub(crate) fn stream(&self, direction: Direction, source: SocketAddr) -> Vec<u8> {
        let mut segments: Vec<&Seen> = self
            .seen
            .iter()
            .filter(|seen| seen.direction == direction && seen.source == source && !seen.payload.is_empty())
            .collect();
        let Some(first) = segments.first().map(|seen| seen.sequence) else { return Vec::new() };
        segments.sort_by_key(|seen| seen.sequence.wrapping_sub(first) as i32);
        let mut bytes: Vec<u8> = Vec::new();
        let begin = segments[0].sequence;
        for segment in segments {
            let offset = segment.sequence.wrapping_sub(begin) as usize;
            assert!(offset <= bytes.len(), "{} bytes are missing", offset - bytes.len());
            let known = bytes.len() - offset;
            bytes.extend(segment.payload.get(known..).unwrap_or_default());
        }
        bytes
    }

    /// Everything seen adds up: no segment and no byte is unaccounted for.
    pub(crate) fn assert_adds_up(&mut self) {
        use Counter as C;
        let counters = self.settle();
        let of = |counter: C| counters[counter as usize];
        let sum = |counters: &[C]| counters.iter().map(|counter| of(*counter)).sum::<u64>();
        let passed = [
            C::HeartbeatStale,
            C::NotIp,
            C::NotTcp,
            C::Fragment,
            C::TooManyExtensionHeaders,
            C::MalformedHeader,
            C::BareAck,
            C::OwnTraffic,
            C::SegmentsMatched,
        ];
        assert_eq!(of(C::PacketsSeen), sum(&passed));
        let segments = [
            C::SegmentsSent,
            C::SegmentsNotHttp,
            C::SegmentsUnwanted,
            C::SegmentsSkipped,
            C::SegmentsShedConnections,
            C::SegmentsRingFull,
            C::SegmentsUnreadable,
        ];
        assert_eq!(of(C::SegmentsMatched), sum(&segments));
        let bytes = [
            C::BytesSent,
            C::BytesNotHttp,
            C::BytesUnwanted,
            C::BytesSkipped,
            C::BytesOverCredit,
            C::BytesShedBodies,
            C::BytesShedHeaders,
            C::BytesShedConnections,
            C::BytesRingFull,
            C::BytesUnreadable,
            C::BytesTruncated,
        ];
        assert_eq!(of(C::BytesMatched), sum(&bytes));
        assert_eq!(of(C::RecordsSent), self.forgotten + self.seen.len() as u64);
        for stats in self.readers.iter().map(Reader::stats) {
            assert_eq!(stats.malformed + stats.unknown_version, 0);
        }
    }

    /// The counters at rest: the last segment of a connection may still be on its way through a program.
    fn settle(&mut self) -> [u64; COUNTERS] {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let counters = self.capture.counters();
            self.drain();
            let told = self.forgotten + self.seen.len() as u64;
            let is_at_rest = counters == self.capture.counters();
            if is_at_rest && told == counters[Counter::RecordsSent as usize] || Instant::now() > deadline {
                return counters;
            }
            std::thread::park_timeout(scale::pause(PAUSE));
        }
    }

    /// Nothing was lost or passed unseen, and everything adds up.
    pub(crate) fn assert_lossless(&mut self) {
        self.assert_adds_up();
        assert_eq!(self.capture.ring_lost(), 0);
        assert_eq!(self.counter(Counter::SegmentsUnreadable), 0);
        assert_eq!(self.counter(Counter::HeartbeatStale), 0, "the test was not scheduled for two seconds");
    }
}
