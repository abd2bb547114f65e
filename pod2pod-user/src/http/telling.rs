//! Telling: an exchange that is not over, and how it becomes an [`Exchange`].
//!
//! Counts what is told; decides nothing about pairs.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use super::{
    Shared,
    exchange::{Anomalies, Exchange, Header, Outcome, Protocol},
    framing::Method,
    room::MAX_SPARE_EXCHANGES,
};
use crate::{
    capture::{KernelInstant, Scope},
    reassembly::{Connection, Side, Start},
};

/// What an entry of the queue stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A request, answered or not.
    Asked,
    /// A response that answers no request that was seen.
    Unasked,
    /// Requests may be outstanding here that were not seen, or not kept: nobody knows how many.
    Lost,
}

/// An exchange that is not over.
#[derive(Clone, Debug)]
pub(super) struct Open {
    /// What is told of it: written where it lies from its first byte to its telling, for it is large.
    pub(super) told: Box<Exchange>,
    pub(super) kind: Kind,
    pub(super) method: Method,
    pub(super) request_done: bool,
    pub(super) response_done: bool,
    /// What was seen of it does not tell what happened.
    pub(super) unsure: bool,
    pub(super) told_timeout: bool,
    pub(super) told_progress: bool,
    /// From when on the response is waited for.
    pub(super) asked: KernelInstant,
    /// Segments seen again before it began.
    pub(super) retransmits: u64,
    pub(super) request_prefix: Vec<u8>,
    pub(super) response_prefix: Vec<u8>,
    /// What it was counted as in [`Shared::open_bytes`].
    pub(super) cost: usize,
}

impl Shared {
    /// An exchange that begins at `start`, without request and response; what is said when it is told is not said yet.
    pub(super) fn begin(&mut self, offset: u64, start: KernelInstant) -> Box<Exchange> {
        let mut exchange = self.spare_exchanges.pop().unwrap_or_else(blank);
        (exchange.offset, exchange.start, exchange.index) = (offset, start, None);
        (exchange.interim_responses, exchange.anomalies) = (0, Anomalies::NONE);
        exchange
    }

    /// Keeps an exchange for reuse that is not needed any more.
    pub(super) fn recycle(&mut self, mut exchange: Box<Exchange>) {
        (exchange.request, exchange.response) = (None, None);
        if self.spare_exchanges.len() < MAX_SPARE_EXCHANGES {
            self.spare_exchanges.push(exchange);
        }
    }
}

/// An exchange of which nothing is known.
#[cold]
fn blank() -> Box<Exchange> {
    const NOWHERE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);
    let nothing = Connection::between(Scope(0), (NOWHERE, NOWHERE), None, Start::Middle);
    Box::new(Exchange {
        connection: nothing,
        client: Side::Originator,
        proxied: None,
        protocol: Protocol::Http1,
        outcome: None,
        late: false,
        offset: 0,
        index: None,
        request: None,
        response: None,
        interim_responses: 0,
        start: KernelInstant::default(),
        end: KernelInstant::default(),
        retransmits: 0,
        anomalies: Anomalies::NONE,
    })
}

impl Open {
    /// Requests that were not seen.
    pub(super) fn lost() -> Self {
        Self::new(Kind::Lost, blank(), 0)
    }

    /// An entry of which `told` says where it begins.
    pub(super) fn new(kind: Kind, told: Box<Exchange>, retransmits: u64) -> Self {
        Self {
            kind,
            method: Method::Other,
            request_done: kind != Kind::Asked,
            response_done: false,
            unsure: false,
            told_timeout: false,
            told_progress: false,
            asked: told.start,
            retransmits,
            request_prefix: Vec::new(),
            response_prefix: Vec::new(),
            cost: 0,
            told,
        }
    }

    /// Bytes of a request that waits: its place in the queue, and what is kept of its head.
    pub(super) fn cost_of_request(&self) -> usize {
        const HEAD: usize = 256;
        let request = self.told.request.as_ref();
        let fields = request.map_or(0, |request| {
            request.method.len() + request.target.len() + cost_of_headers(&request.headers)
        });
        size_of::<Self>() + size_of::<Exchange>() + fields.max(HEAD)
    }

    /// A request without a response.
    pub(super) fn unanswered(&self) -> bool {
        self.kind == Kind::Asked && self.told.response.is_none()
    }
}

/// Bytes of header fields and their values.
pub(super) fn cost_of_headers(headers: &[Header]) -> usize {
    headers.iter().map(|header| size_of::<Header>() + header.value.len()).sum()
}

/// What telling an exchange takes beside the exchange.
#[derive(Debug)]
pub(super) struct Teller<'a> {
    pub(super) connection: &'a Connection,
    pub(super) client: Side,
    pub(super) proxied: &'a Option<(SocketAddr, SocketAddr)>,
    pub(super) keeps_more: bool,
    pub(super) shared: &'a mut Shared,
}

impl Teller<'_> {
    /// An entry that begins at `start`.
    pub(super) fn begin(&mut self, kind: Kind, offset: u64, start: KernelInstant) -> Open {
        Open::new(kind, self.shared.begin(offset, start), self.connection.retransmits)
    }

    /// Tells an HTTP/2 connection.
    pub(super) fn tell_http2(&mut self, offset: u64, start: KernelInstant) {
        self.shared.stats.begun += 1;
        let open = self.begin(Kind::Unasked, offset, start);
        self.tell(open, Some(Outcome::Upgraded), start, Protocol::Http2);
    }

    /// Tells what became of it.
    pub(super) fn tell(
        &mut self,
        open: Open,
        outcome: Option<Outcome>,
        end: KernelInstant,
        protocol: Protocol,
    ) {
        let outcome = match outcome {
            Some(outcome) if open.unsure && outcome != Outcome::Upgraded => Some(Outcome::Gap),
            outcome => outcome,
        };
        self.shared.kept -= open.request_prefix.len() + open.response_prefix.len();
        self.shared.open_bytes -= open.cost;
        self.count(outcome, open.told_timeout, open.kind == Kind::Unasked && protocol == Protocol::Http1);
        let mut told = open.told;
        if let Some(request) = &mut told.request
            && !open.request_prefix.is_empty()
        {
            request.body_prefix = open.request_prefix.into();
        }
        if let Some(response) = &mut told.response
            && !open.response_prefix.is_empty()
        {
            response.body_prefix = open.response_prefix.into();
        }
        told.connection = *self.connection;
        told.client = self.client;
        told.proxied = *self.proxied;
        told.protocol = protocol;
        told.outcome = outcome;
        told.late = open.told_timeout;
        told.end = end;
        told.retransmits = self.connection.retransmits.saturating_sub(open.retransmits);
        self.shared.told.push_back(told);
    }

    /// Tells how it stands, and keeps it.
    pub(super) fn tell_copy(&mut self, open: &Open, outcome: Option<Outcome>, end: KernelInstant) {
        self.shared.kept += open.request_prefix.len() + open.response_prefix.len();
        self.tell(Open { cost: 0, ..open.clone() }, outcome, end, Protocol::Http1);
    }

    fn count(&mut self, outcome: Option<Outcome>, late: bool, unasked: bool) {
        let stats = &mut self.shared.stats;
        stats.unasked_responses += u64::from(unasked);
        let counter = match outcome {
            _ if late => &mut stats.late,
            None => &mut stats.progress,
            Some(Outcome::Complete) => &mut stats.complete,
            Some(Outcome::Timeout) => &mut stats.timeout,
            Some(Outcome::Reset) => &mut stats.reset,
            Some(Outcome::Closed) => &mut stats.closed,
            Some(Outcome::Gap) => &mut stats.gap,
            Some(Outcome::Upgraded) => &mut stats.upgraded,
        };
        *counter += 1;
    }

    /// Counts `cost` more bytes for an open exchange, if there is room.
    pub(super) fn charge(&mut self, open: &mut Open, cost: usize) -> bool {
        if cost > self.shared.config.max_open_bytes.saturating_sub(self.shared.open_bytes) {
            self.shared.stats.open_no_memory += 1;
            return false;
        }
        self.shared.open_bytes += cost;
        open.cost += cost;
        true
    }

    /// Keeps the first bytes of content, if they are wanted and there is room.
    pub(super) fn keep_prefix(&mut self, prefix: &mut Vec<u8>, content: &[u8], limit: usize) {
        let limit = self.shared.config.content(limit, self.keeps_more);
        let wanted = limit.saturating_sub(prefix.len()).min(content.len());
        if wanted == 0 {
            return;
        }
        if wanted > self.shared.config.max_kept.saturating_sub(self.shared.kept) {
            self.shared.stats.prefixes_no_memory += 1;
            return;
        }
        self.shared.kept += wanted;
        prefix.extend_from_slice(content.get(..wanted).unwrap_or_default());
    }
}
