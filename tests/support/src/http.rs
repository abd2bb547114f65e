//! Conversations for the HTTP stage: bytes, gaps and ends of both directions in causal order, cut as one likes.
//!
//! Also the properties that hold for any bytes; fuzz targets and ordinary tests share them. No packets here.

mod permuted;

use std::net::{Ipv4Addr, SocketAddr};

use pod2pod_user::{
    capture::{KernelInstant, Scope},
    http::{ChunkStep, Chunked, Config, Exchange, HttpTracker, Protocol, Stats},
    reassembly::{Chunk, CloseCause, Connection, ConnectionToken, Content, GapCause, Side, Start},
};

use crate::rng::Rng;

/// Time between two steps of a conversation unless it is said otherwise.
const STEP_NANOS: u64 = 1_000_000;

/// The responder resets.
pub const RESET: CloseCause = CloseCause::Reset(Side::Responder);

/// The capture ends.
pub const SOURCE_ENDED: Option<CloseCause> = Some(CloseCause::SourceEnded);

/// A step of a conversation.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    Bytes(Side, Vec<u8>),
    Gap(Side, u64, bool),
    Cut(Side, u64),
    Finished(Side),
    Wait(u64),
    Expire,
}

/// One connection's conversation.
#[derive(Clone, Debug)]
pub struct Talk {
    steps: Vec<Step>,
    start: Start,
    close: Option<CloseCause>,
}

impl Default for Talk {
    fn default() -> Self {
        Self { steps: Vec::new(), start: Start::Handshake, close: Some(CloseCause::Finished) }
    }
}

impl Talk {
    /// A connection seen from its handshake, closed by both sides at the end.
    pub fn new() -> Self {
        Self::default()
    }

    /// A connection joined in the middle.
    pub fn joined() -> Self {
        Self { start: Start::Middle, ..Self::default() }
    }

    fn with(mut self, step: Step) -> Self {
        self.steps.push(step);
        self
    }

    /// The originator sends.
    pub fn c(self, bytes: impl AsRef<[u8]>) -> Self {
        self.with(Step::Bytes(Side::Originator, bytes.as_ref().to_vec()))
    }

    /// The responder sends.
    pub fn s(self, bytes: impl AsRef<[u8]>) -> Self {
        self.with(Step::Bytes(Side::Responder, bytes.as_ref().to_vec()))
    }

    /// Bytes of the originator are missing.
    pub fn c_gap(self, length: u64) -> Self {
        self.with(Step::Gap(Side::Originator, length, true))
    }

    /// Bytes of the responder are missing.
    pub fn s_gap(self, length: u64) -> Self {
        self.with(Step::Gap(Side::Responder, length, true))
    }

    /// Bytes of the responder never arrived: nobody has got them.
    pub fn s_never_came(self, length: u64) -> Self {
        self.with(Step::Gap(Side::Responder, length, false))
    }

    /// The capture left out the rest of a segment of the originator.
    pub fn c_cut(self, length: u64) -> Self {
        self.with(Step::Cut(Side::Originator, length))
    }

    /// The capture left out the rest of a segment of the responder.
    pub fn s_cut(self, length: u64) -> Self {
        self.with(Step::Cut(Side::Responder, length))
    }

    /// The originator finishes.
    pub fn c_fin(self) -> Self {
        self.with(Step::Finished(Side::Originator))
    }

    /// The responder finishes.
    pub fn s_fin(self) -> Self {
        self.with(Step::Finished(Side::Responder))
    }

    /// Nobody speaks for so long.
    pub fn wait(self, seconds: u64) -> Self {
        self.with(Step::Wait(seconds))
    }

    /// The tracker is asked to expire.
    pub fn expire(self) -> Self {
        self.with(Step::Expire)
    }

    /// How the connection ends; `None`: not at all.
    pub fn closed(self, close: Option<CloseCause>) -> Self {
        Self { close, ..self }
    }

    /// Bytes of both directions.
    pub fn bytes(&self) -> usize {
        self.steps.iter().map(|step| if let Step::Bytes(_, bytes) = step { bytes.len() } else { 0 }).sum()
    }

    /// Runs it with every run of bytes cut by `cut`, which is given the bytes before and the length of the rest of a
    /// run, and says how long the next chunk is.
    pub fn run(&self, config: &Config, cut: &mut dyn FnMut(usize, usize) -> usize) -> Run {
        let mut driver = Driver::new(config, self.start);
        let mut before = 0;
        for step in &self.steps {
            match step {
                Step::Wait(seconds) => driver.time += seconds * 1_000_000_000,
                Step::Expire => driver.expire(),
                Step::Gap(side, length, may_be_ours) => driver.gap(*side, *length, *may_be_ours),
                Step::Cut(side, length) => {
                    let cause = GapCause::Cut;
                    driver.push(*side, Content::Gap { length: *length, cause, may_be_ours: true });
                }
                Step::Finished(side) => driver.push(*side, Content::Finished),
                Step::Bytes(side, bytes) => {
                    driver.time += STEP_NANOS;
                    let mut rest = bytes.as_slice();
                    while !rest.is_empty() {
                        let (piece, behind) = rest.split_at(cut(before, rest.len()).clamp(1, rest.len()));
                        driver.push(*side, Content::Bytes(piece));
                        before += piece.len();
                        rest = behind;
                    }
                }
            }
        }
        if let Some(cause) = self.close {
            driver.time += STEP_NANOS;
            driver.push(Side::Originator, Content::Closed(cause));
        }
        driver.finish()
    }

    /// Runs it with each step in one chunk.
    pub fn run_whole(&self, config: &Config) -> Run {
        self.run(config, &mut |_, rest| rest)
    }

    /// Checks that it gives `expected` whole, in single bytes, and cut in two at every point, and that the order of its
    /// segments does not matter.
    pub fn check_with(&self, config: &Config, expected: &[&str]) {
        let whole = self.run_whole(config);
        assert_eq!(whole.lines(), expected, "whole: {self:?}");
        let bytes = self.run(config, &mut |_, _| 1);
        assert_eq!(bytes.timeless(), whole.timeless(), "in single bytes: {self:?}");
        for at in 1..self.bytes() {
            let run = self.run(config, &mut |before, rest| if before < at { at - before } else { rest });
            assert_eq!(run.timeless(), whole.timeless(), "cut at {at}: {self:?}");
        }
        self.check_permuted(config);
    }

    /// [`Self::check_with`] and the default configuration.
    pub fn check(&self, expected: &[&str]) {
        self.check_with(&Config::default(), expected);
    }
}

/// What came out of a conversation.
#[derive(Clone, Debug)]
pub struct Run {
    /// In the order told.
    pub exchanges: Vec<Exchange>,
    /// At the end.
    pub stats: Stats,
    /// How often the connection was said to be unwanted.
    pub unwanted: usize,
    /// Most bytes kept at any time.
    pub most_kept: usize,
    /// Bytes kept and connections followed at the end.
    pub left: (usize, usize),
}

impl Run {
    /// A line for each exchange, without times.
    pub fn lines(&self) -> Vec<String> {
        self.exchanges.iter().map(line).collect()
    }

    /// The exchanges without what depends on when bytes arrived.
    pub fn timeless(&self) -> Vec<Exchange> {
        self.exchanges.iter().map(timeless).collect()
    }
}

/// `METHOD TARGET STATUS request-bytes/response-bytes outcome anomalies`, `-` for what is absent.
fn line(exchange: &Exchange) -> String {
    if exchange.protocol == Protocol::Http2 {
        return "HTTP/2".to_owned();
    }
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (method, target, sent) =
        exchange.request.as_ref().map_or(("-".into(), "-".into(), "-".into()), |request| {
            (text(&request.method), text(&request.target), request.body_size.to_string())
        });
    let (status, received) = exchange.response.as_ref().map_or(("-".into(), "-".into()), |response| {
        (response.status.to_string(), response.body_size.to_string())
    });
    let outcome =
        exchange.outcome.map_or("progress".to_owned(), |outcome| format!("{outcome:?}").to_lowercase());
    let late = if exchange.late { " late" } else { "" };
    let anomalies: String = exchange.anomalies.names().map(|name| format!(" {name}")).collect();
    format!("{method} {target} {status} {sent}/{received} {outcome}{late}{anomalies}")
}

fn timeless(exchange: &Exchange) -> Exchange {
    let mut exchange = exchange.clone();
    exchange.start = KernelInstant::default();
    exchange.end = KernelInstant::default();
    if let Some(request) = &mut exchange.request {
        request.first_byte = KernelInstant::default();
        request.last_byte = request.last_byte.map(|_| KernelInstant::default());
    }
    if let Some(response) = &mut exchange.response {
        response.first_byte = KernelInstant::default();
        response.last_byte = response.last_byte.map(|_| KernelInstant::default());
    }
    exchange
}

/// A connection with nothing special.
pub fn connection(token: u64, start: Start) -> Connection {
    Connection {
        token: ConnectionToken(token),
        scope: Scope(0),
        originator: SocketAddr::from((Ipv4Addr::new(10, 0, 0, 1), 40_000)),
        responder: SocketAddr::from((Ipv4Addr::new(10, 0, 0, 2), 80)),
        local: None,
        start,
        behind_loss: false,
        originator_isn: Some(1),
        responder_isn: Some(2),
        syn_time: None,
        established_time: None,
        retransmits: 0,
        syn_retransmits: 0,
        cgroup_id: 0,
        socket_cookie: 0,
        interface_index: 0,
    }
}

struct Driver {
    tracker: HttpTracker,
    connection: Connection,
    offsets: [u64; 2],
    time: u64,
    run: Run,
}

impl Driver {
    fn new(config: &Config, start: Start) -> Self {
        let run =
            Run { exchanges: Vec::new(), stats: Stats::default(), unwanted: 0, most_kept: 0, left: (0, 0) };
        let tracker = HttpTracker::new(config.clone());
        Self { tracker, connection: connection(1, start), offsets: [1, 1], time: STEP_NANOS, run }
    }

    fn offset(&mut self, side: Side) -> &mut u64 {
        &mut self.offsets[usize::from(side == Side::Responder)]
    }

    fn gap(&mut self, sender: Side, length: u64, may_be_ours: bool) {
        self.push(sender, Content::Gap { length, cause: GapCause::Missing, may_be_ours });
    }

    fn push(&mut self, sender: Side, content: Content<'_>) {
        let length = match content {
            Content::Bytes(bytes) => bytes.len() as u64,
            Content::Gap { length, .. } => length,
            Content::Finished | Content::Closed(_) => 0,
        };
        let time = KernelInstant::from_nanos(self.time);
        let offset = *self.offset(sender);
        *self.offset(sender) = offset.wrapping_add(length);
        let connection = self.connection;
        self.tracker.push(Chunk { connection: &connection, sender, time, offset, content }, time);
        self.drain();
    }

    fn expire(&mut self) {
        let now = KernelInstant::from_nanos(self.time);
        assert!(self.tracker.next_deadline().is_some_and(|at| at <= now), "nothing to expire");
        self.tracker.expire(now);
        self.drain();
        assert!(self.tracker.next_deadline().is_none_or(|at| at > now), "not all expired");
    }

    fn drain(&mut self) {
        self.run.exchanges.extend(std::iter::from_fn(|| self.tracker.pop()));
        self.run.unwanted += std::iter::from_fn(|| self.tracker.pop_unwanted()).count();
        self.run.most_kept = self.run.most_kept.max(self.tracker.kept_bytes());
    }

    fn finish(mut self) -> Run {
        self.run.stats = self.tracker.stats().clone();
        self.run.left = (self.tracker.kept_bytes(), self.tracker.connections());
        self.run
    }
}

/// Any bytes as a conversation: each pair of a control byte and a length gives a step.
fn talk_of(data: &[u8]) -> Talk {
    let mut talk = Talk::new();
    let Some((&head, mut rest)) = data.split_first() else { return talk };
    if head & 1 != 0 {
        talk = Talk::joined();
    }
    talk.close = match head >> 1 & 7 {
        0 => Some(CloseCause::Reset(Side::Responder)),
        1 => Some(CloseCause::Idle),
        2 => Some(CloseCause::SourceEnded),
        _ => Some(CloseCause::Finished),
    };
    // A separator between steps keeps seeds readable: 0xff, then who and what.
    while let Some(at) = rest.iter().position(|&byte| byte == 0xff) {
        let (bytes, behind) = rest.split_at(at);
        talk = step_of(talk, bytes);
        rest = &behind[1..];
    }
    step_of(talk, rest)
}

fn step_of(talk: Talk, bytes: &[u8]) -> Talk {
    let Some((&what, bytes)) = bytes.split_first() else { return talk };
    match what {
        b'c' if !bytes.is_empty() => talk.c(bytes),
        b'C' => talk.c_gap(1 + bytes.len() as u64),
        b'S' => talk.s_gap(1 + bytes.len() as u64),
        b'N' => talk.s_never_came(1 + bytes.len() as u64),
        b'f' => talk.c_fin(),
        b'F' => talk.s_fin(),
        b'w' => talk.wait(bytes.len() as u64),
        _ if !bytes.is_empty() => talk.s(bytes),
        _ => talk,
    }
}

/// What holds for any conversation: what is told does not depend on how the bytes were cut, nothing stays behind, and
/// the memory bound is kept. Progress reports apart: one may fall due between two pieces that arrive at once. `data` is read as by the fuzz target `http`.
pub fn check_http(data: &[u8]) {
    let talk = talk_of(data);
    let config = Config { request_body_prefix: 8, response_body_prefix: 8, ..Config::default() };
    let whole = talk.run_whole(&config);
    assert_eq!(whole.left, (0, 0), "left behind");
    let ends = |run: &Run| {
        let told = run.timeless().into_iter();
        told.filter(|exchange| exchange.outcome.is_some()).collect::<Vec<_>>()
    };
    let mut rng = Rng::new(data.len() as u64);
    let mut cuts: [&mut dyn FnMut(usize, usize) -> usize; 2] =
        [&mut |_, _| 1, &mut |_, rest| 1 + rng.below(rest)];
    for cut in &mut cuts {
        let run = talk.run(&config, cut);
        assert_eq!(ends(&run), ends(&whole));
        assert_eq!(run.left, (0, 0), "left behind");
    }
    let tight = Config { max_kept: 64, max_head: 256, max_pending: 2, ..config };
    let run = talk.run(&tight, &mut |_, _| 1);
    assert!(run.most_kept <= tight.max_kept, "kept {} of {}", run.most_kept, tight.max_kept);
}

/// What holds for any chunked body: content and end do not depend on how it was cut.
pub fn check_chunked(data: &[u8]) {
    let whole = decode(data, &mut |rest| rest);
    assert!(whole.0.len() <= data.len());
    assert_eq!(decode(data, &mut |_| 1), whole);
    let mut rng = Rng::new(data.len() as u64);
    assert_eq!(decode(data, &mut |rest| 1 + rng.below(rest)), whole);
}

fn decode(mut rest: &[u8], cut: &mut dyn FnMut(usize) -> usize) -> (Vec<u8>, usize, String) {
    let mut chunked = Chunked::default();
    let mut content = Vec::new();
    let mut read = 0;
    while !rest.is_empty() {
        let (mut piece, behind) = rest.split_at(cut(rest.len()).clamp(1, rest.len()));
        rest = behind;
        loop {
            let before = piece.len();
            let step = chunked.step(&mut piece);
            read += before - piece.len();
            match step {
                ChunkStep::Content(bytes) => content.extend_from_slice(bytes),
                ChunkStep::NeedMore => break,
                end @ (ChunkStep::End | ChunkStep::Broken(_)) => return (content, read, format!("{end:?}")),
            }
        }
    }
    // Whether a body has ended is known without another byte.
    let end = chunked.step(&mut &b""[..]);
    (content, read, format!("{end:?}"))
}
