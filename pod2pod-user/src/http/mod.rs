//! HTTP: Chunks in, Exchanges out.
//!
//! One [`HttpTracker`] follows many connections: it cuts each direction into messages (RFC 9112), pairs requests with
//! responses in order, and tells each pair as one [`Exchange`]. What comes out does not depend on how the bytes were cut
//! into chunks. Bodies are counted, never buffered. Never done here: TCP, decoding of content, redaction, clocks.
//!
//! Of a body nobody looks into, [`HttpTracker::pop_skip`] says what the capture may leave out.
//!
//! The way of the bytes: `clean` for whole clean heads, which `heads` may know, and for all else `reader` (heads, bodies, resynchronisation) → `flow` (roles, PROXY, upgrades) → `pairing`.
//!
//! Decisions where a reader has a choice:
//!
//! * A message that cannot be framed by the RFC is framed as lenient recipients do, and marked ([`Anomalies`]).
//! * Behind bytes that belong to no message, the next message begins at the next clean start line whose whole head is
//!   clean: a status line anywhere, a request line at the start of a line or behind a body with a registered method.
//! * After a gap that may hide whole messages, a response is paired only if exactly one request can be its cause;
//!   else requests and responses are told apart, with outcome `gap`, until the client's next request shows that
//!   nothing is outstanding (of a client that does not pipeline, in its turn: the server spoke since the client did), or
//!   until the time limit.
//! * Where the first bytes of a line were not seen, a request is known by a registered method only.
//! * A time-out is told when no final response began within the limit after the request's last byte, the last interim
//!   response or the end of the exchange before it, whichever is later. A response that has begun never times out.

mod chunked;
mod clean;
pub mod coding;
mod config;
mod disclosure;
pub mod exchange;
mod fields;
mod flow;
mod foreign;
mod framing;
mod head;
mod heads;
mod lanes;
mod loss;
mod pairing;
mod proxy;
mod reader;
mod resting;
mod resync;
mod room;
mod skip;
mod start_line;
mod take;
mod telling;
mod turn;
mod unframed;

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, VecDeque},
    time::Duration,
};

use hashbrown::HashMap;

pub use chunked::{BrokenChunk, ChunkStep, Chunked, MAX_CHUNK_LINE, MAX_TRAILERS};
pub use coding::{Coding, Codings, MAX_CODINGS};
pub use config::Config;
pub use disclosure::{Disclosure, Message, Part, What};
pub use exchange::{Anomalies, Exchange, Header, Headers, Outcome, Protocol, Request, Response};
pub use heads::{DEFAULT_KNOWN_HEADS, MAX_KNOWN_HEAD};
pub use room::{BYTES_OF_BUSY, bytes_of_tables};

use self::{
    disclosure::Disclosed,
    fields::{Names, Scratch},
    heads::KnownHeads,
    resting::{Nursery, State},
    room::max_timers,
};
use crate::{
    capture::KernelInstant,
    reassembly::{Chunk, Connection, ConnectionToken, Content, Side, config::churned},
};

/// Longest wait for a response before a time-out is told: the predecessor's limit, and most proxies' is longer.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(10);

/// Age at which an exchange that is still open is told once as in progress: streams and watches stay open for hours.
pub const DEFAULT_PROGRESS: Duration = Duration::from_secs(60);

/// Longest head, bytes: more than any common server accepts (nginx 32 KiB, Apache 8 KiB a line, Node 16 KiB).
pub const DEFAULT_MAX_HEAD: usize = 64 * 1024;

/// Requests of one connection without an answer: pipelining clients send tens, load generators hundreds.
pub const DEFAULT_MAX_PENDING: usize = 1024;

/// Bytes kept of unfinished heads and of body prefixes, all connections together: 256 heads of the largest kind.
pub const DEFAULT_MAX_KEPT: usize = 16 * 1024 * 1024;

/// Unwanted bytes of a body still to come for which the capture is asked to leave them out: it takes a system call.
pub const DEFAULT_MIN_SKIP: u64 = 64 * 1024;

/// Most bytes that one [`Skip`] leaves out, half of what the capture takes: it may be ahead of us by much. Longer bodies
/// are skipped piece by piece.
pub const MAX_SKIP: u64 = pod2pod_common::limits::MAX_SKIP_BYTES as u64 / 2;

/// Bytes of requests that wait for their responses, all connections together: some twenty thousand usual ones.
pub const DEFAULT_MAX_OPEN_BYTES: usize = 16 * 1024 * 1024;

/// Connections in the midst of messages at once: as many as there are connections.
pub const DEFAULT_MAX_BUSY: usize = crate::reassembly::config::DEFAULT_MAX_CONNECTIONS;

/// Bytes of a connection that begins with something else, after which it is not wanted any more.
pub const MAX_FOREIGN_BYTES: u64 = 64 * 1024;

/// What happened, counted since the start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Bytes read, of all connections.
    pub bytes: u64,
    /// Exchanges begun: requests, responses without one, HTTP/2 connections.
    pub begun: u64,
    /// Exchanges told, by outcome; late ones and progress reports apart.
    pub complete: u64,
    /// Told as timeout.
    pub timeout: u64,
    /// Told as reset.
    pub reset: u64,
    /// Told as closed.
    pub closed: u64,
    /// Told as gap.
    pub gap: u64,
    /// Told as upgraded, HTTP/2 connections included.
    pub upgraded: u64,
    /// Told a second time, after their timeout.
    pub late: u64,
    /// Told as in progress.
    pub progress: u64,
    /// Responses told without a request.
    pub unasked_responses: u64,
    /// 1xx responses passed over.
    pub interim_responses: u64,
    /// Connections with at least one HTTP/1 message.
    pub connections_http: u64,
    /// Connections that begin with the HTTP/2 preface.
    pub connections_http2: u64,
    /// Connections that begin with a TLS handshake record.
    pub connections_tls: u64,
    /// Connections that begin with something else.
    pub connections_other: u64,
    /// Connections that began with a PROXY header.
    pub connections_proxied: u64,
    /// Tunnels made by CONNECT.
    pub tunnels: u64,
    /// Upgrades to WebSocket.
    pub upgrades_websocket: u64,
    /// Upgrades to HTTP/2 (h2c).
    pub upgrades_http2: u64,
    /// Bytes behind an upgrade.
    pub tunnel_bytes: u64,
    /// Bytes of connections that are not HTTP/1.
    pub foreign_bytes: u64,
    /// Bytes on HTTP connections that belong to no message that was recognised.
    pub skipped_bytes: u64,
    /// Gaps met on HTTP connections.
    pub gaps: u64,
    /// Bytes of those gaps.
    pub gap_bytes: u64,
    /// Heads over [`Config::max_head`].
    pub heads_too_long: u64,
    /// Heads given up because of [`Config::max_kept`].
    pub heads_no_memory: u64,
    /// Heads that the end of their direction cut off.
    pub heads_unfinished: u64,
    /// Requests over [`Config::max_pending`].
    pub requests_over_limit: u64,
    /// Requests told at once, or responses kept without their headers, because of [`Config::max_open_bytes`].
    pub open_no_memory: u64,
    /// Connections of which what was open was given up because of [`Config::max_busy`].
    pub flows_no_memory: u64,
    /// Body prefixes cut short because of [`Config::max_kept`].
    pub prefixes_no_memory: u64,
    /// Chunked bodies whose framing broke.
    pub chunks_broken: u64,
    /// Of these, by a chunk-size line over [`MAX_CHUNK_LINE`].
    pub chunk_lines_too_long: u64,
    /// Of these, by trailers over [`MAX_TRAILERS`].
    pub trailers_too_long: u64,
    /// Messages marked with at least one anomaly.
    pub anomalous_messages: u64,
}

/// A part of a body that nobody looks into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Skip {
    /// The connection.
    pub connection: Connection,
    /// Who sends the body.
    pub sender: Side,
    /// Stream offset of the first byte that is wanted again.
    pub until: u64,
}

/// What all connections share.
#[derive(Debug)]
struct Shared {
    config: Config,
    request_headers: Names,
    response_headers: Names,
    known_heads: KnownHeads,
    stats: Stats,
    scratch: Scratch,
    /// Bytes kept now, see [`Config::max_kept`].
    kept: usize,
    /// Bytes of open requests now, see [`Config::max_open_bytes`].
    open_bytes: usize,
    /// Queues that no connection needs now.
    spare_queues: Vec<VecDeque<telling::Open>>,
    #[expect(clippy::vec_box, reason = "a box is moved between here and a queue, its exchange is not")]
    spare_exchanges: Vec<Box<Exchange>>,
    told: VecDeque<Box<Exchange>>,
    unwanted: VecDeque<Connection>,
    /// Directions in the midst of an unwanted body.
    skips: VecDeque<(ConnectionToken, Side)>,
    /// What bytes are, if somebody wants to know.
    disclosed: Option<Disclosed>,
}

/// Follows HTTP on any number of connections.
///
/// Connections are bounded by the stage before, which ends each with [`Content::Closed`]. The queue of told exchanges is
/// bounded by contract: the caller drains it after each push and each expiry.
#[derive(Debug)]
pub struct HttpTracker {
    flows: HashMap<ConnectionToken, State, foldhash::fast::RandomState>,
    nursery: Nursery,
    /// When flows want to be looked at; an entry that its flow does not name any more is stale.
    timers: BinaryHeap<Reverse<(KernelInstant, ConnectionToken)>>,
    shared: Shared,
}

/// Headers to keep of requests, and of responses.
fn names(config: &Config, closer: &[String]) -> [Names; 2] {
    let all = |own: &[String]| [own, &config.more_headers, closer].concat();
    [
        Names::new(&fields::ALWAYS_KEPT, &all(&config.request_headers)),
        Names::new(&[], &all(&config.response_headers)),
    ]
}

impl HttpTracker {
    /// A tracker that knows no connection.
    pub fn new(config: Config) -> Self {
        let [request_headers, response_headers] = names(&config, &[]);
        let known_heads = KnownHeads::new(config.known_heads);
        let (reserve, disclosed) = (config.reserve, config.disclose.then(Disclosed::default));
        let shared = Shared {
            config,
            request_headers,
            response_headers,
            known_heads,
            stats: Stats::default(),
            scratch: Scratch::default(),
            kept: 0,
            open_bytes: 0,
            spare_queues: Vec::new(),
            spare_exchanges: Vec::new(),
            told: VecDeque::new(),
            unwanted: VecDeque::new(),
            skips: VecDeque::new(),
            disclosed,
        };
        Self {
            flows: HashMap::with_capacity_and_hasher(
                churned(reserve),
                foldhash::fast::RandomState::default(),
            ),
            nursery: Nursery::default(),
            timers: BinaryHeap::with_capacity(if reserve > 0 { max_timers(reserve) } else { 0 }),
            shared,
        }
    }

    /// As it was made, but for what it was told since.
    pub const fn config(&self) -> &Config {
        &self.shared.config
    }

    /// From here on also keeps these headers, and so many first bytes of all bodies, and no other ones of earlier calls. What was read
    /// already stays as it is.
    pub fn look_closer(&mut self, headers: &[String], body_bytes: usize) {
        let shared = &mut self.shared;
        [shared.request_headers, shared.response_headers] = names(&shared.config, headers);
        // They were read with other wishes.
        shared.known_heads = KnownHeads::new(shared.config.known_heads);
        shared.config.closer_body_prefix = body_bytes;
    }

    /// Takes the next step of one direction. `now` is not before the chunk's time; time-outs that were due before the
    /// chunk are told first, so what is told does not depend on when [`Self::expire`] is called.
    pub fn push(&mut self, chunk: Chunk<'_>, now: KernelInstant) {
        self.push_of(chunk, now, || false);
    }

    /// As [`Self::push`]; of a connection that is not followed yet `wants_more` says whether [`Config::more_body_prefix`] is for it.
    pub fn push_of(&mut self, chunk: Chunk<'_>, now: KernelInstant, wants_more: impl FnOnce() -> bool) {
        let token = chunk.connection.token;
        if let Content::Closed(cause) = chunk.content {
            if let Some(State::Busy(mut flow)) = self.flows.remove(&token) {
                flow.catch_up(chunk.time.min(now), &mut self.shared);
                flow.close(&chunk, cause, &mut self.shared);
                flow.pairing.rest(&mut self.shared);
                self.nursery.end(flow);
            }
            return;
        }
        let begin = || self.nursery.begin(chunk.connection, wants_more());
        let state = self.flows.entry(token).or_insert_with(begin);
        let Some(flow) = self.nursery.wake(state, chunk.connection) else { return };
        let armed = flow.armed();
        flow.catch_up(chunk.time.min(now), &mut self.shared);
        flow.push(&chunk, &mut self.shared);
        flow.pairing.rest(&mut self.shared);
        let rearmed = flow.armed();
        let rested = self.nursery.spoke(token, flow);
        if let Some(at) = rearmed
            && rearmed != armed
        {
            self.arm(at, token);
        }
        if let Some(rested) = rested {
            self.put_away(rested);
        }
        if self.nursery.is_over(self.shared.config.max_busy) {
            self.make_room(token, chunk.time);
        }
    }

    fn put_away(&mut self, token: ConnectionToken) {
        if let Some(state) = self.flows.get_mut(&token) {
            self.nursery.put_away(state);
        }
    }

    /// Puts away those that rest until there are as few flows as there may be; if that is not enough, `newest` goes too.
    fn make_room(&mut self, newest: ConnectionToken, time: KernelInstant) {
        while self.nursery.is_over(self.shared.config.max_busy)
            && let Some(token) = self.nursery.pop_warm()
        {
            self.put_away(token);
        }
        if self.nursery.is_over(self.shared.config.max_busy)
            && let Some(state) = self.flows.get_mut(&newest)
        {
            self.nursery.give_up(state, time, &mut self.shared);
        }
    }

    /// Whether bytes of the connection were taken, and its end was not told yet.
    pub fn follows(&self, connection: &Connection) -> bool {
        self.flows.contains_key(&connection.token)
    }

    /// The next told exchange.
    pub fn pop(&mut self) -> Option<Exchange> {
        self.shared.told.pop_front().map(|exchange| *exchange)
    }

    /// Hands over what was told, each where it is: an exchange is large.
    pub fn drain_told(&mut self, mut take: impl FnMut(&mut Exchange)) {
        while let Some(mut exchange) = self.shared.told.pop_front() {
            take(&mut exchange);
            self.shared.recycle(exchange);
        }
    }

    /// The next connection whose further payload is of no use: not HTTP/1, or upgraded. Each is told once.
    pub fn pop_unwanted(&mut self) -> Option<Connection> {
        self.shared.unwanted.pop_front()
    }

    /// The next part of a body that the capture may leave out, as it is when this is called: what was read to its end since
    /// is not worth asking. To be taken until there is none, if [`Config::min_skip`] is given.
    pub fn pop_skip(&mut self) -> Option<Skip> {
        loop {
            let (token, sender) = self.shared.skips.pop_front()?;
            let Some(State::Busy(flow)) = self.flows.get_mut(&token) else { continue };
            if let Some(until) = flow.take_skip(sender, &self.shared.config) {
                return Some(Skip { connection: flow.connection, sender, until });
            }
        }
    }

    /// Tells what is due at `now`: time-outs and progress. To be called when all chunks up to `now` were pushed.
    pub fn expire(&mut self, now: KernelInstant) {
        while let Some(&Reverse((at, token))) = self.timers.peek()
            && at <= now
        {
            self.timers.pop();
            let Some(state) = self.flows.get_mut(&token) else { continue };
            if state.armed() != Some(at) {
                continue;
            }
            let flow = match state {
                State::Busy(flow) => flow,
                State::Resting(resting) => {
                    resting.disarm();
                    continue;
                }
            };
            flow.catch_up(now, &mut self.shared);
            if let Some(at) = flow.armed() {
                self.arm(at, token);
            }
        }
    }

    /// When [`Self::expire`] may have something to do.
    pub fn next_deadline(&self) -> Option<KernelInstant> {
        self.timers.peek().map(|Reverse((at, _))| *at)
    }

    /// Counters since the start.
    pub const fn stats(&self) -> &Stats {
        &self.shared.stats
    }

    /// Connections followed now.
    pub fn connections(&self) -> usize {
        self.flows.len()
    }

    /// Exchanges begun and not told yet, counted one by one.
    pub fn open_exchanges(&self) -> usize {
        let open = |state: &State| match state {
            State::Busy(flow) => flow.pairing.open(),
            State::Resting(_) => 0,
        };
        self.flows.values().map(open).sum()
    }

    /// Bytes kept now of unfinished heads and of body prefixes, see [`Config::max_kept`].
    pub const fn kept_bytes(&self) -> usize {
        self.shared.kept
    }

    /// Bytes of requests that wait for their responses, see [`Config::max_open_bytes`].
    pub const fn open_bytes(&self) -> usize {
        self.shared.open_bytes
    }

    fn arm(&mut self, at: KernelInstant, token: ConnectionToken) {
        self.timers.push(Reverse((at, token)));
        // Short connections leave stale entries: they are swept before they outnumber the others.
        if self.timers.len() >= max_timers(self.flows.len()) {
            let flows = &self.flows;
            self.timers.retain(|Reverse((at, token))| {
                flows.get(token).is_some_and(|state| state.armed() == Some(*at))
            });
        }
    }
}

/// Whether `method` is registered with IANA, or otherwise so well known that nothing else is meant by it.
pub fn is_registered(method: &[u8]) -> bool {
    start_line::METHODS.contains(&method)
}

#[cfg(test)]
mod tests {
    use super::{
        resting::MAX_WARM,
        room::{MAX_SPARE_EXCHANGES, MAX_SPARE_QUEUES},
        *,
    };
    use bytes::Bytes;

    use crate::{capture::Scope, reassembly::Start};

    /// Connection `token` says `bytes`.
    fn say(tracker: &mut HttpTracker, token: u64, sender: Side, bytes: &[u8]) {
        let ends = (([10, 0, 0, 1], 1).into(), ([10, 0, 0, 2], 80).into());
        let connection = Connection {
            token: ConnectionToken(token),
            ..Connection::between(Scope(0), ends, None, Start::Handshake)
        };
        let now = KernelInstant::from_nanos(1);
        let content = Content::Bytes(bytes);
        tracker.push(Chunk { connection: &connection, sender, time: now, offset: 1, content }, now);
    }

    #[test]
    fn idle_connections_keep_no_queue_and_few_are_spare() {
        let mut tracker = HttpTracker::new(Config { reserve: 10, ..Config::default() });
        let all = 0..=MAX_SPARE_QUEUES as u64;
        for token in all.clone() {
            say(&mut tracker, token, Side::Originator, b"GET / HTTP/1.1\r\n\r\n");
        }
        assert_eq!((tracker.open_exchanges(), tracker.shared.spare_queues.len()), (MAX_SPARE_QUEUES + 1, 0));
        assert!(tracker.open_bytes() > 0);
        for token in all {
            say(&mut tracker, token, Side::Responder, b"HTTP/1.1 204 N\r\n\r\n");
        }
        assert_eq!((tracker.open_exchanges(), tracker.open_bytes()), (0, 0));
        assert_eq!(tracker.shared.spare_queues.len(), MAX_SPARE_QUEUES);
        assert_eq!(tracker.stats().complete, tracker.stats().begun);
        say(&mut tracker, 0, Side::Originator, b"GET / HTTP/1.1\r\n\r\n");
        assert_eq!(tracker.shared.spare_queues.len(), MAX_SPARE_QUEUES - 1);
    }

    #[test]
    fn only_so_many_exchanges_are_spare() {
        let mut tracker = HttpTracker::new(Config::default());
        let all = 0..=MAX_SPARE_EXCHANGES as u64;
        let mut told = 0;
        for expected in [MAX_SPARE_EXCHANGES, MAX_SPARE_EXCHANGES] {
            all.clone()
                .for_each(|token| say(&mut tracker, token, Side::Originator, b"GET / HTTP/1.1\r\n\r\n"));
            assert_eq!(tracker.shared.spare_exchanges.len(), 0);
            all.clone()
                .for_each(|token| say(&mut tracker, token, Side::Responder, b"HTTP/1.1 204 N\r\n\r\n"));
            tracker.drain_told(|exchange| {
                assert!(exchange.request.is_some() && exchange.response.is_some());
                told += 1;
            });
            assert_eq!(tracker.shared.spare_exchanges.len(), expected);
        }
        assert_eq!(told, 2 * (MAX_SPARE_EXCHANGES + 1));
        assert!(tracker.shared.spare_exchanges.iter().all(|spare| spare.request.is_none()));
        assert!(tracker.shared.spare_exchanges.iter().all(|spare| spare.response.is_none()));
    }

    #[test]
    fn what_rests_is_put_away_and_tells_the_same() {
        // More than stay warm, so that each is put away between any two of its messages.
        let connections = 0..2 * MAX_WARM as u64;
        let told = |connections: std::ops::Range<u64>| {
            let mut tracker = HttpTracker::new(Config::default());
            for _ in 0..3 {
                for (sender, bytes) in [
                    (Side::Originator, &b"GET /a HTTP/1.1\r\n\r\n"[..]),
                    (Side::Responder, b"HTTP/1.1 200 K\r\nContent-Length: 2\r\n\r\n"),
                    (Side::Responder, b"ok"),
                ] {
                    connections.clone().for_each(|token| say(&mut tracker, token, sender, bytes));
                }
            }
            let resting = tracker.flows.values().filter(|state| matches!(state, State::Resting(_))).count();
            let told: Vec<Exchange> = std::iter::from_fn(|| tracker.pop()).collect();
            let first = told.into_iter().filter(|exchange| exchange.connection.token.0 == 0).collect();
            (resting, tracker.stats().complete, first)
        };
        let (alone, _, expected): (usize, u64, Vec<Exchange>) = told(0..1);
        let (resting, complete, first) = told(connections.clone());
        assert_eq!((alone, resting), (0, connections.end as usize - MAX_WARM));
        assert_eq!(complete, 3 * connections.end);
        assert_eq!(
            first.iter().map(|exchange| exchange.index).collect::<Vec<_>>(),
            [Some(0), Some(1), Some(2)]
        );
        assert_eq!(first, expected);
        const { assert!(size_of::<(ConnectionToken, State)>() <= 56) };
    }

    #[test]
    fn busy_connections_at_their_limit_and_one_past() {
        let told = |max_busy: usize, busy: u64| {
            let mut tracker = HttpTracker::new(Config { max_busy, ..Config::default() });
            // One that rests makes room first.
            say(&mut tracker, 100, Side::Originator, b"GET / HTTP/1.1\r\n\r\n");
            say(&mut tracker, 100, Side::Responder, b"HTTP/1.1 204 N\r\n\r\n");
            (0..busy).for_each(|token| say(&mut tracker, token, Side::Originator, b"GET / HTTP/1.1\r\n\r\n"));
            (0..busy).for_each(|token| say(&mut tracker, token, Side::Responder, b"HTTP/1.1 204 N\r\n\r\n"));
            let stats = tracker.stats();
            assert_eq!(tracker.open_exchanges(), 0);
            (stats.flows_no_memory, stats.complete, stats.gap)
        };
        assert_eq!(told(3, 3), (0, 4, 0));
        // The request that was given up is told, and its response apart.
        assert_eq!(told(3, 4), (1, 4, 2));
    }

    #[test]
    fn open_requests_at_their_limit_and_one_past() {
        let told = |max_open_bytes: usize, requests: u64| {
            let mut tracker = HttpTracker::new(Config { max_open_bytes, ..Config::default() });
            for token in 0..requests {
                say(&mut tracker, token, Side::Originator, b"GET / HTTP/1.1\r\n\r\n");
            }
            (tracker.open_bytes(), tracker.stats().open_no_memory, tracker.stats().gap)
        };
        let (one, refused, _) = told(DEFAULT_MAX_OPEN_BYTES, 1);
        assert!(one > 0 && refused == 0);
        assert_eq!(told(2 * one, 2), (2 * one, 0, 0));
        assert_eq!(told(2 * one, 3), (2 * one, 1, 1));
        assert_eq!(told(2 * one - 1, 2), (one, 1, 1));
    }

    #[test]
    fn what_is_asked_for_is_kept_from_then_on_also_of_heads_that_are_known() {
        let config = Config { request_headers: vec!["x-own".to_owned()], ..Config::default() };
        let mut tracker = HttpTracker::new(config);
        let mut seen = |headers: &[&str], bytes| {
            let headers: Vec<_> = headers.iter().map(|name| (*name).to_owned()).collect();
            tracker.look_closer(&headers, bytes);
            let token = bytes as u64;
            let request = b"POST / HTTP/1.1\r\nX-Own: 1\r\nX-More: 2\r\nContent-Length: 4\r\n\r\nbody";
            say(&mut tracker, token, Side::Originator, request);
            say(&mut tracker, token, Side::Responder, b"HTTP/1.1 204 N\r\n\r\n");
            let mut seen = Vec::new();
            tracker.drain_told(|exchange| {
                let request = exchange.request.as_ref().unwrap();
                let names = request.headers.iter().map(|header| header.name.clone()).collect::<Vec<_>>();
                seen.push((names, request.body_prefix.clone()));
            });
            seen.pop().unwrap()
        };
        let (own, more) = (Bytes::from("x-own"), Bytes::from("x-more"));
        assert_eq!(seen(&[], 0), (vec![own.clone()], Bytes::new()));
        assert_eq!(seen(&["x-more"], 3), (vec![own.clone(), more], Bytes::from("bod")));
        assert_eq!(seen(&[], 0), (vec![own], Bytes::new()));
    }
}
