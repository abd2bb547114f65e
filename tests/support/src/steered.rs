//! A capture that does what it is told: the kernel side's skip and credit, applied to a built conversation, with the
//! verdicts as late, the ring as lossy and the reader as slow as one likes.
//!
//! What a connection told through it is held against what it tells when everything is sent. No kernel, no maps.

use std::{collections::VecDeque, time::Duration};

use pod2pod_common::{
    control::SHED_NONE,
    flow::{ConnectionState, GATE_HTTP},
    gate::Facts,
    limits::CREDIT_BYTES,
    portion::{Portion, ahead},
    segment::{DIRECTION_EGRESS, DIRECTION_INGRESS, MARK_SKIPPED},
    verdict::{Verdict, next_epoch},
};
use pod2pod_user::{
    capture::{
        Direction, KernelInstant,
        kernel::{activity_of, verdict_of},
    },
    http::{Config, Exchange, HttpTracker},
    reassembly::{self, Reassembler, SKIP_LOOK, SKIP_SILENCE, Steering},
};

use crate::{conversation::OwnedSegment, rng::Rng};

/// Begins the target of an exchange whose response ends with the connection.
pub const UNTIL_CLOSE: &[u8] = b"/until-close";

/// How the capture behaves.
#[derive(Clone, Debug)]
pub struct Manner {
    /// Payload that is sent of a direction ahead of what was said to be read; absent: all.
    pub credit: Option<u32>,
    /// Bodies of so many bytes to come are skipped; absent: none.
    pub min_skip: Option<u64>,
    /// A verdict holds for what comes so many segments after it was given.
    pub late: usize,
    /// The reader reads after every so many segments.
    pub lag: usize,
    /// Of a hundred records the ring has no room for so many.
    pub loss: usize,
    /// And for none from this one on.
    pub lost_from: usize,
    /// For the loss.
    pub seed: u64,
}

impl Manner {
    /// Everything is sent, read at once, and nothing is lost.
    pub const PLAIN: Self =
        Self { credit: None, min_skip: None, late: 0, lag: 1, loss: 0, lost_from: usize::MAX, seed: 0 };
}

/// What came of a conversation.
#[derive(Debug)]
pub struct Told {
    /// In the order told.
    pub exchanges: Vec<Exchange>,
    /// Payload bytes that were sent.
    pub sent: usize,
    /// Records.
    pub records: usize,
    /// What reassembly counted.
    pub stats: reassembly::Stats,
    /// What the capture was told.
    pub steerings: Vec<Steering>,
}

impl Told {
    /// A line for each exchange, with its place: everything but times, marks of cuts, and retransmits, which a capture
    /// that leaves out does not see.
    pub fn lines(&self) -> Vec<String> {
        self.exchanges.iter().map(line).collect()
    }

    /// The times of each exchange, as nanoseconds. Of the last byte of a body that ends with its connection, a capture that
    /// leaves it out knows only that it came before the end: it counts for none.
    pub fn times(&self) -> Vec<[u64; 6]> {
        self.exchanges.iter().map(times).collect()
    }
}

/// What is compared of an exchange.
fn line(exchange: &Exchange) -> String {
    let request = exchange.request.as_ref().map(|request| {
        let target = String::from_utf8_lossy(&request.target).into_owned();
        (target, request.body_size, request.body_prefix.clone(), request.last_byte.is_some())
    });
    let response = exchange.response.as_ref().map(|response| {
        (response.status, response.body_size, response.body_prefix.clone(), response.last_byte.is_some())
    });
    let Exchange { outcome, late, offset, index, interim_responses, anomalies, .. } = exchange;
    format!(
        "{outcome:?} {late} {offset} {index:?} {interim_responses} {anomalies:?} {request:?} {response:?}"
    )
}

fn times(exchange: &Exchange) -> [u64; 6] {
    let nanos = |time: Option<KernelInstant>| time.map_or(0, KernelInstant::as_nanos);
    let (request, response) = (exchange.request.as_ref(), exchange.response.as_ref());
    let until_close = request.is_some_and(|request| request.target.starts_with(UNTIL_CLOSE));
    [
        exchange.start.as_nanos(),
        exchange.end.as_nanos(),
        nanos(request.map(|request| request.first_byte)),
        nanos(request.and_then(|request| request.last_byte)),
        nanos(response.map(|response| response.first_byte)),
        nanos(response.filter(|_| !until_close).and_then(|response| response.last_byte)),
    ]
}

/// Runs the segments of one connection, seen at a socket end, through a capture of that manner and both stages.
pub fn run(segments: &[OwnedSegment], manner: &Manner, http: &Config) -> Told {
    let mut driver = Driver::new(manner, http);
    for (index, segment) in segments.iter().enumerate() {
        driver.capture(segment);
        if (index + 1) % manner.lag.max(1) == 0 {
            driver.read();
        }
    }
    driver.read();
    driver.wait();
    driver.finish()
}

struct Driver<'a> {
    manner: &'a Manner,
    rng: Rng,
    /// What the kernel side keeps of the connection, and what it was told of it.
    state: Option<ConnectionState>,
    verdict: Option<Verdict>,
    epoch: u16,
    lost: bool,
    /// Verdicts that hold after so many segments.
    verdicts: VecDeque<(usize, Steering)>,
    segments: usize,
    ring: VecDeque<OwnedSegment>,
    reassembler: Reassembler,
    tracker: HttpTracker,
    now: KernelInstant,
    told: Told,
}

impl<'a> Driver<'a> {
    fn new(manner: &'a Manner, http: &Config) -> Self {
        let credit_step = manner.credit.map(|credit| u64::from(credit / 4).max(1));
        let http = Config { min_skip: manner.min_skip, ..http.clone() };
        Self {
            manner,
            rng: Rng::new(manner.seed),
            state: None,
            verdict: None,
            epoch: 0,
            lost: false,
            verdicts: VecDeque::new(),
            segments: 0,
            ring: VecDeque::new(),
            reassembler: Reassembler::new(reassembly::Config { credit_step, ..Default::default() }),
            tracker: HttpTracker::new(http),
            now: KernelInstant::default(),
            told: Told {
                exchanges: Vec::new(),
                sent: 0,
                records: 0,
                stats: reassembly::Stats::default(),
                steerings: Vec::new(),
            },
        }
    }

    /// What the kernel side does with a segment.
    fn capture(&mut self, segment: &OwnedSegment) {
        self.segments += 1;
        while self.verdicts.front().is_some_and(|(from, _)| *from <= self.segments) {
            self.verdict = self.verdicts.pop_front().and_then(|(_, steering)| verdict_of(&steering));
            self.epoch = next_epoch(self.epoch);
        }
        let flags = segment.flags;
        let facts = facts(segment);
        if segment.payload_length == 0 && !facts.steers() {
            return;
        }
        let state = self.state.get_or_insert(ConnectionState::first_seen(&facts));
        let passes = state.passes(&facts, self.epoch, SHED_NONE);
        if !passes {
            state.follow(&facts);
            state.gate = GATE_HTTP;
        }
        let generation = state.known_generation();
        let mut portion = Portion::whole(&facts);
        if !passes {
            let heeded = self.verdict.as_ref().filter(|_| state.heeds_verdict(&facts, self.epoch));
            portion = state.portion(&facts, heeded, SHED_NONE);
            if heeded.is_none_or(|verdict| state.takes(verdict)) && !flags.syn() {
                state.heeded_epoch = self.epoch;
            }
        }
        let read = state.read_sequence[usize::from(facts.direction)];
        state.note(&facts, segment.time.as_nanos());
        let ignored = self.verdict.is_some_and(|verdict| verdict.ignores(generation, facts.direction));
        if portion.silent || (ignored && !flags.syn()) {
            return;
        }
        let mut segment = segment.clone();
        segment.generation = generation;
        segment.skipped_before = portion.marks & MARK_SKIPPED != 0;
        segment.sequence = segment.sequence.wrapping_add(portion.skipped);
        segment.payload_length -= portion.skipped;
        segment.payload.drain(..portion.skipped as usize);
        match self.manner.credit {
            Some(CREDIT_BYTES) => segment.payload.truncate(portion.captured as usize),
            Some(credit) if !flags.syn() => {
                segment.payload.truncate(ahead(read.wrapping_add(credit), segment.sequence) as usize);
            }
            Some(_) | None => {}
        }
        if self.rng.below(100) < self.manner.loss || self.told.records >= self.manner.lost_from {
            self.lost = true;
            return;
        }
        segment.lost_before = std::mem::take(&mut self.lost);
        self.told.sent += segment.payload.len();
        self.told.records += 1;
        self.ring.push_back(segment);
    }

    /// What user space does with what the ring holds, and what it tells the capture then.
    fn read(&mut self) {
        while let Some(segment) = self.ring.pop_front() {
            self.now = self.now.max(segment.time);
            let (tracker, now) = (&mut self.tracker, self.now);
            self.reassembler.expire(now, &mut |chunk| tracker.push(chunk, now));
            tracker.expire(now);
            self.reassembler.push(&segment.borrow(), now, &mut |chunk| tracker.push(chunk, now));
            self.told.exchanges.extend(std::iter::from_fn(|| self.tracker.pop()));
        }
        self.steer();
    }

    fn steer(&mut self) {
        while let Some(connection) = self.tracker.pop_unwanted() {
            self.reassembler.ignore(&connection);
        }
        while let Some(skip) = self.tracker.pop_skip() {
            self.reassembler.skip(&skip.connection, skip.sender, skip.until);
        }
        while let Some(steering) = self.reassembler.pop_steering() {
            self.told.steerings.push(steering);
            self.verdicts.push_back((self.segments + self.manner.late, steering));
        }
    }

    /// Lets time pass, longer than anybody waits for what the capture may have lost.
    fn wait(&mut self) {
        for patience in [Duration::from_millis(500), SKIP_LOOK, SKIP_SILENCE] {
            self.now = self.now.plus(patience);
            self.look();
            let (tracker, now) = (&mut self.tracker, self.now);
            self.reassembler.expire(now, &mut |chunk| tracker.push(chunk, now));
            self.told.exchanges.extend(std::iter::from_fn(|| self.tracker.pop()));
        }
    }

    /// Says how the connection stands, if that is asked.
    fn look(&mut self) {
        while let Some(connection) = self.reassembler.pop_silent(self.now) {
            let Some(activity) = self.state.as_ref().and_then(|state| activity_of(&connection, state)) else {
                continue;
            };
            let (tracker, now) = (&mut self.tracker, self.now);
            self.reassembler.note_activity(&connection, activity, now, &mut |chunk| tracker.push(chunk, now));
        }
    }

    fn finish(mut self) -> Told {
        let (tracker, now) = (&mut self.tracker, self.now);
        self.reassembler.finish(&mut |chunk| tracker.push(chunk, now));
        self.told.exchanges.extend(std::iter::from_fn(|| self.tracker.pop()));
        self.steer();
        self.told.stats = *self.reassembler.stats();
        self.told
    }
}

/// What the kernel side reads of a packet.
fn facts(segment: &OwnedSegment) -> Facts {
    Facts {
        direction: if segment.direction == Direction::Egress { DIRECTION_EGRESS } else { DIRECTION_INGRESS },
        flags: segment.flags.0,
        sequence: segment.sequence,
        acknowledgement: segment.acknowledgement,
        payload_length: segment.payload_length,
    }
}
