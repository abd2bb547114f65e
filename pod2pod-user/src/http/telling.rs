//! Telling: an exchange that is not over, and how it becomes an [`Exchange`].
//!
//! Counts what is told; decides nothing about pairs.

use std::net::SocketAddr;

use super::{
    Shared,
    exchange::{Anomalies, Exchange, Header, Outcome, Protocol, Request, Response},
    framing::Method,
};
use crate::{
    capture::KernelInstant,
    reassembly::{Connection, Side},
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
    pub(super) kind: Kind,
    pub(super) method: Method,
    pub(super) request: Option<Request>,
    pub(super) request_done: bool,
    pub(super) response: Option<Response>,
    pub(super) response_done: bool,
    /// What was seen of it does not tell what happened.
    pub(super) unsure: bool,
    pub(super) told_timeout: bool,
    pub(super) told_progress: bool,
    pub(super) interim_responses: u32,
    pub(super) offset: u64,
    pub(super) index: Option<u32>,
    pub(super) start: KernelInstant,
    /// From when on the response is waited for.
    pub(super) asked: KernelInstant,
    pub(super) retransmits: u64,
    pub(super) anomalies: Anomalies,
    pub(super) request_prefix: Vec<u8>,
    pub(super) response_prefix: Vec<u8>,
    /// What it was counted as in [`Shared::open_bytes`].
    pub(super) cost: usize,
}

impl Open {
    /// An entry that begins at `start`.
    pub(super) fn new(kind: Kind, offset: u64, start: KernelInstant, retransmits: u64) -> Self {
        Self {
            kind,
            method: Method::Other,
            request: None,
            request_done: kind != Kind::Asked,
            response: None,
            response_done: false,
            unsure: false,
            told_timeout: false,
            told_progress: false,
            interim_responses: 0,
            offset,
            index: None,
            start,
            asked: start,
            retransmits,
            anomalies: Anomalies::NONE,
            request_prefix: Vec::new(),
            response_prefix: Vec::new(),
            cost: 0,
        }
    }

    /// A request whose head was read.
    pub(super) fn asked(
        request: Request,
        method: Method,
        offset: u64,
        retransmits: u64,
        anomalies: Anomalies,
    ) -> Self {
        let start = request.first_byte;
        let request = Some(request);
        Self { method, request, anomalies, ..Self::new(Kind::Asked, offset, start, retransmits) }
    }

    /// Bytes of a request that waits: its place in the queue, and what is kept of its head.
    pub(super) fn cost_of_request(&self) -> usize {
        const HEAD: usize = 256;
        let request = self.request.as_ref();
        let fields = request.map_or(0, |request| {
            request.method.len() + request.target.len() + cost_of_headers(&request.headers)
        });
        size_of::<Self>() + fields.max(HEAD)
    }

    /// Marks it as not to be judged: a part of it was not seen.
    pub(super) fn unsure(self) -> Self {
        Self { unsure: true, ..self }
    }

    /// A request without a response.
    pub(super) fn unanswered(&self) -> bool {
        self.kind == Kind::Asked && self.response.is_none()
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
    pub(super) proxied: Option<(SocketAddr, SocketAddr)>,
    pub(super) shared: &'a mut Shared,
}

impl Teller<'_> {
    /// Tells an HTTP/2 connection.
    pub(super) fn tell_http2(&mut self, offset: u64, start: KernelInstant) {
        self.shared.stats.begun += 1;
        let open = Open::new(Kind::Unasked, offset, start, self.connection.retransmits);
        self.tell(open, Some(Outcome::Upgraded), start, Protocol::Http2);
    }

    /// Tells what became of it.
    pub(super) fn tell(
        &mut self,
        mut open: Open,
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
        if let Some(request) = &mut open.request
            && !open.request_prefix.is_empty()
        {
            request.body_prefix = open.request_prefix.into();
        }
        if let Some(response) = &mut open.response
            && !open.response_prefix.is_empty()
        {
            response.body_prefix = open.response_prefix.into();
        }
        self.count(outcome, open.told_timeout, open.kind == Kind::Unasked && protocol == Protocol::Http1);
        self.shared.told.push_back(Exchange {
            connection: *self.connection,
            client: self.client,
            proxied: self.proxied,
            protocol,
            outcome,
            late: open.told_timeout,
            offset: open.offset,
            index: open.index,
            request: open.request,
            response: open.response,
            interim_responses: open.interim_responses,
            start: open.start,
            end,
            retransmits: self.connection.retransmits.saturating_sub(open.retransmits),
            anomalies: open.anomalies,
        });
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
