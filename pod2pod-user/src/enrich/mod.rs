//! Enrich: Exchanges and Attempts in, Records out: names and times for people, secrets removed, the unwanted marked.
//!
//! Redaction, sampling and the ignore list are decided here, before anything is queued. Nothing is dropped here: each
//! record comes with its [`Fate`], because metrics count also what is not written.

mod allowance;
pub mod connects;
pub mod content;
pub mod facts;
pub mod identity;
pub mod ignore;
pub mod naming;
pub mod redact;
pub mod reuse;
pub mod sampling;
pub mod target;
pub mod trace;

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    ops::AddAssign,
    time::Duration,
};

use hashbrown::HashSet;

use allowance::Allowance;
pub use allowance::{ALL_FAILED_INTERVAL, FAILED_INTERVAL, MAX_ALL_FAILED_AT_ONCE, MAX_FAILED_AT_ONCE};
pub use connects::{ConnectCounts, Connects};
pub use ignore::IgnoreList;
pub use redact::Redaction;
pub use sampling::Rate;

use crate::{
    capture::KernelInstant,
    http::{Codings, Exchange},
    reassembly::{self, Attempt},
    record::{MessageFacts, Record},
};

/// Exchanges at least this long are never sampled away: a second is what a person notices.
pub const DEFAULT_SLOW: Duration = Duration::from_secs(1);

/// What is done to records.
#[derive(Clone, Debug)]
pub struct Config {
    /// Whether secrets are replaced.
    pub redaction: Redaction,
    /// Share of ordinary exchanges that is kept.
    pub rate: Rate,
    /// Exchanges at least this long are never sampled away.
    pub slow: Duration,
    /// Which connection attempts are told.
    pub connects: Connects,
    /// How many of the failed ones.
    pub failures: Failures,
    /// Exchanges nobody wants to see.
    pub ignore: IgnoreList,
    /// Bytes of each body's content that are given at most, once its codings are removed.
    pub content_bytes: usize,
    /// Whether `traceparent` is also given as a header.
    pub keep_traceparent: bool,
    /// Whether exchanges of pod2pod's own clients are dropped: in the live agent, not in replay.
    pub own_traffic: OwnTraffic,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            redaction: Redaction::On,
            rate: Rate::ALL,
            slow: DEFAULT_SLOW,
            connects: Connects::default(),
            failures: Failures::Bounded,
            ignore: IgnoreList::default(),
            content_bytes: 0,
            keep_traceparent: false,
            own_traffic: OwnTraffic::Dropped,
        }
    }
}

/// What becomes of exchanges of pod2pod's own clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OwnTraffic {
    /// Dropped and counted.
    Dropped,
    /// Told like any other.
    Told,
}

/// How many of the connection attempts that failed get a record, if any do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failures {
    /// As many as [`MAX_FAILED_AT_ONCE`] and its like allow.
    Bounded,
    /// All: where records do not push out others.
    All,
}

/// What is to be done with a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fate {
    /// Written and counted.
    Keep,
    /// Counted, not written: sampling.
    SampledAway,
    /// Neither: the ignore list; of connection attempts those that are not asked for, which are counted all the same.
    Ignored,
    /// Neither: refused by the names of its ends, of which one is not known for certain; later exchanges of the connection may be
    /// wanted.
    RefusedUnknown,
    /// Neither: one failed connection attempt too many, which is counted all the same.
    OverRate,
    /// Neither: the agent's own traffic.
    Own,
}

/// What to add to a packet's stamp for the wall clock: nanoseconds. 0 for capture files.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WallOffset(pub i64);

impl WallOffset {
    /// Nanoseconds since 1970 of `stamp`.
    pub const fn wall_nanos(self, stamp: KernelInstant) -> u64 {
        stamp.as_nanos().saturating_add_signed(self.0)
    }
}

/// What this stage counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Exchanges and connection attempts that came in.
    pub exchanges: u64,
    /// Records to be written.
    pub kept: u64,
    /// Not written: sampling.
    pub sampled_away: u64,
    /// Not written: the ignore list.
    pub ignored: u64,
    /// Not written: failed connection attempts past their allowance.
    pub over_rate: u64,
    /// Not written: the agent's own traffic.
    pub own: u64,
    /// Header values, parameters and user informations replaced.
    pub redacted: u64,
    /// Bodies whose content codings were removed.
    pub bodies_decoded: u64,
    /// Of these, given in part because the rest was over the limit.
    pub bodies_capped: u64,
    /// Bodies given as sent: codings that are not known, or too many.
    pub bodies_unknown_coding: u64,
    /// Bodies given as sent: damaged.
    pub bodies_damaged: u64,
    /// Bodies given as sent: their decoder would take too much memory.
    pub bodies_over_window: u64,
    /// Responses that answer no request.
    pub without_request: u64,
    /// HTTP/2 connections.
    pub http2: u64,
    /// Connection attempts but those of the agent itself.
    pub connects: ConnectCounts,
}

impl AddAssign for Stats {
    fn add_assign(&mut self, part: Self) {
        let Self {
            exchanges,
            kept,
            sampled_away,
            ignored,
            over_rate,
            own,
            redacted,
            without_request,
            http2,
            connects,
            bodies_decoded,
            bodies_capped,
            bodies_unknown_coding,
            bodies_damaged,
            bodies_over_window,
        } = part;
        self.exchanges += exchanges;
        self.kept += kept;
        self.sampled_away += sampled_away;
        self.ignored += ignored;
        self.over_rate += over_rate;
        self.own += own;
        self.redacted += redacted;
        self.without_request += without_request;
        self.http2 += http2;
        self.connects += connects;
        self.bodies_decoded += bodies_decoded;
        self.bodies_capped += bodies_capped;
        self.bodies_unknown_coding += bodies_unknown_coding;
        self.bodies_damaged += bodies_damaged;
        self.bodies_over_window += bodies_over_window;
    }
}

impl Config {
    fn fate(&self, record: &mut Record, own_tuple: bool) -> Fate {
        let own_name = || {
            record.user_agent.as_ref().is_some_and(|agent| agent.starts_with(crate::OWN_PRODUCT.as_bytes()))
        };
        if own_tuple || (self.own_traffic == OwnTraffic::Dropped && own_name()) {
            return Fate::Own;
        }
        if self.ignore.matches(record) {
            return Fate::Ignored;
        }
        sampling::decide(record, self.rate, self.slow)
    }
}

impl Stats {
    /// Removes the content codings of what was captured of a body; leaves it as it is if that cannot be done.
    fn decode(&mut self, facts: &mut MessageFacts, codings: Codings, limit: usize) {
        if codings.is_empty() {
            return;
        }
        match content::decode(&facts.body, codings, limit) {
            Ok(decoded) => {
                facts.body = decoded.content;
                facts.decoded = codings.words();
                self.bodies_decoded += 1;
                self.bodies_capped += u64::from(decoded.capped);
            }
            Err(content::Refusal::Unknown) => self.bodies_unknown_coding += 1,
            Err(content::Refusal::Damaged) => self.bodies_damaged += 1,
            Err(content::Refusal::Window) => self.bodies_over_window += 1,
        }
    }

    fn count(&mut self, record: &Record, fate: Fate) {
        self.exchanges += 1;
        match fate {
            Fate::Keep => self.kept += 1,
            Fate::SampledAway => self.sampled_away += 1,
            // By names nothing is refused here.
            Fate::Ignored | Fate::RefusedUnknown => self.ignored += 1,
            Fate::OverRate => self.over_rate += 1,
            Fate::Own => self.own += 1,
        }
        match record.kind {
            crate::record::Kind::Http2 => self.http2 += 1,
            crate::record::Kind::Http if record.method.is_none() => self.without_request += 1,
            crate::record::Kind::Http | crate::record::Kind::IpvsReuse | crate::record::Kind::Connect => {}
        }
    }
}

/// Turns Exchanges into Records.
#[derive(Debug)]
pub struct Enricher {
    config: Config,
    /// Both ends, the lower address first: looked up for every exchange.
    own_tuples: HashSet<(SocketAddr, SocketAddr), foldhash::fast::RandomState>,
    stats: Stats,
    allowance: Allowance,
    /// The one told last: its memory is the next one's.
    record: Record,
    /// Somebody looks closer: what records have is what they would have anyway, and beside it all that was captured.
    closer: Option<Closer>,
}

/// What of a message's facts all records have while somebody looks closer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Closer {
    /// Headers of requests and of responses, in lower case.
    pub own_headers: [Vec<String>; 2],
    /// First bytes of content of requests and of responses, before decoding.
    pub own_bytes: [usize; 2],
    /// Bytes of content that are given to who looks closer at most.
    pub content_bytes: usize,
}

impl Closer {
    /// Takes from `record` all but what is its own; all of it.
    fn take(&self, record: &mut Record) -> Box<[MessageFacts; 2]> {
        let all = Box::new([record.request.clone(), record.response.clone()]);
        let parts = [&mut record.request, &mut record.response];
        for ((facts, headers), bytes) in parts.into_iter().zip(&self.own_headers).zip(self.own_bytes) {
            let is_own = |name: &[u8]| headers.iter().any(|own| own.as_bytes() == name);
            facts.headers.retain(|header| is_own(&header.name));
            facts.body.truncate(bytes);
        }
        all
    }
}

impl Enricher {
    /// An enricher without own tuples.
    pub fn new(config: Config) -> Self {
        Self {
            config,
            own_tuples: HashSet::default(),
            stats: Stats::default(),
            allowance: Allowance::default(),
            record: Record::blank(),
            closer: None,
        }
    }

    /// Replaces the tuples (client, server) of the agent's own connections: their peer's view is dropped.
    pub fn set_own_tuples(&mut self, tuples: impl IntoIterator<Item = (SocketAddr, SocketAddr)>) {
        self.own_tuples.clear();
        self.own_tuples.extend(tuples.into_iter().map(|(client, server)| ordered(client, server)));
    }

    /// Bytes of each body's content that are given at most, if that is more than is configured.
    pub fn decode_up_to(&mut self, bytes: usize) {
        self.config.content_bytes = self.config.content_bytes.max(bytes);
    }

    /// From here on records have what somebody who looks closer asked for beside their own, or no longer.
    pub fn look_closer(&mut self, closer: Option<Closer>) {
        self.closer = closer;
    }

    /// The record of `exchange`, which is left without what is in it, and what is to be done with it.
    pub fn enrich(&mut self, exchange: &mut Exchange, offset: WallOffset) -> (&mut Record, Fate) {
        let own = self.is_own(exchange);
        let Self { config, stats, record, closer, .. } = self;
        facts::fill(record, exchange, offset, config.keep_traceparent);
        let fate = config.fate(record, own);
        if config.redaction == Redaction::On {
            stats.redacted += redact::redact(record);
        }
        if fate == Fate::Keep {
            if let Some(closer) = closer {
                let mut all = closer.take(record);
                // Counted once, below.
                decode(all.each_mut(), exchange, closer.content_bytes, &mut Stats::default());
                record.closer = Some(all);
            }
            decode([&mut record.request, &mut record.response], exchange, config.content_bytes, stats);
        }
        stats.count(record, fate);
        (record, fate)
    }

    /// The record of `attempt`, and what is to be done with it.
    pub fn enrich_attempt(&mut self, attempt: &Attempt, offset: WallOffset) -> (&mut Record, Fate) {
        let own = self.owns_attempt(attempt.connection.originator, attempt.connection.responder);
        let Self { config, stats, allowance, record, .. } = self;
        facts::fill_attempt(record, attempt, offset);
        let fate = match (own, config.connects.tells(attempt)) {
            (true, _) => Fate::Own,
            (false, false) => Fate::Ignored,
            (false, true) => sampling::decide(record, config.rate, config.slow),
        };
        let is_bounded = config.failures == Failures::Bounded && attempt.fate != reassembly::Fate::Answered;
        let client = attempt.connection.originator.ip();
        let has_room = fate != Fate::Keep || !is_bounded || allowance.take(client, attempt.end);
        let fate = if has_room { fate } else { Fate::OverRate };
        if fate != Fate::Own {
            stats.connects.count(attempt);
        }
        stats.count(record, fate);
        (record, fate)
    }

    /// What was counted so far.
    pub const fn stats(&self) -> &Stats {
        &self.stats
    }

    fn is_own(&self, exchange: &Exchange) -> bool {
        let client = exchange.connection.address(exchange.client);
        let server = exchange.connection.address(exchange.client.other());
        self.owns(client, server)
    }

    /// Whether the agent tried to open a connection between these: of one that failed only its port is known.
    fn owns_attempt(&self, client: SocketAddr, server: SocketAddr) -> bool {
        let any: IpAddr = match server {
            SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        self.owns(client, server) || self.owns(SocketAddr::new(any, client.port()), server)
    }

    /// Whether a connection between these is the agent's own.
    pub fn owns(&self, one: SocketAddr, other: SocketAddr) -> bool {
        !self.own_tuples.is_empty() && self.own_tuples.contains(&ordered(one, other))
    }
}

/// Removes content codings of what was captured of both bodies.
fn decode(facts: [&mut MessageFacts; 2], exchange: &Exchange, limit: usize, stats: &mut Stats) {
    let request = exchange.request.as_ref().map(|request| request.codings);
    let response = exchange.response.as_ref().map(|response| response.codings);
    for (facts, codings) in facts.into_iter().zip([request, response]) {
        if let Some(codings) = codings.filter(|_| !facts.body.is_empty()) {
            stats.decode(facts, codings, limit);
        }
    }
}

fn ordered(one: SocketAddr, other: SocketAddr) -> (SocketAddr, SocketAddr) {
    (one.min(other), one.max(other))
}
