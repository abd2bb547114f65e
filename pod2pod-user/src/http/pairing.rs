//! Pairing: requests and responses of one connection in order, and what became of each pair.
//!
//! Knows messages by their heads, content and ends; never sees bytes of heads or framing. The rules for what is paired
//! after a gap are in the stage's head comment.

use std::{collections::VecDeque, net::SocketAddr};

use super::{
    Shared,
    exchange::{Anomalies, Exchange, Outcome, Protocol, Request, Response},
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
    kind: Kind,
    method: Method,
    pub(super) request: Option<Request>,
    request_done: bool,
    response: Option<Response>,
    response_done: bool,
    /// What was seen of it does not tell what happened.
    unsure: bool,
    told_timeout: bool,
    told_progress: bool,
    interim_responses: u32,
    offset: u64,
    index: Option<u32>,
    start: KernelInstant,
    /// From when on the response is waited for.
    asked: KernelInstant,
    retransmits: u64,
    anomalies: Anomalies,
    request_prefix: Vec<u8>,
    response_prefix: Vec<u8>,
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

    /// Marks it as not to be judged: a part of it was not seen.
    pub(super) fn unsure(self) -> Self {
        Self { unsure: true, ..self }
    }

    fn unanswered(&self) -> bool {
        self.kind == Kind::Asked && self.response.is_none()
    }
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
        let open = Open::new(Kind::Unasked, offset, start, self.connection.retransmits);
        self.tell(open, Some(Outcome::Upgraded), start, Protocol::Http2);
    }

    fn tell(&mut self, mut open: Open, outcome: Option<Outcome>, end: KernelInstant, protocol: Protocol) {
        let outcome = match outcome {
            Some(outcome) if open.unsure && outcome != Outcome::Upgraded => Some(Outcome::Gap),
            outcome => outcome,
        };
        self.shared.kept -= open.request_prefix.len() + open.response_prefix.len();
        if let Some(request) = &mut open.request {
            request.body_prefix = open.request_prefix.into();
        }
        if let Some(response) = &mut open.response {
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
    fn tell_copy(&mut self, open: &Open, outcome: Option<Outcome>, end: KernelInstant) {
        self.shared.kept += open.request_prefix.len() + open.response_prefix.len();
        self.tell(open.clone(), outcome, end, Protocol::Http1);
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

    fn keep_prefix(&mut self, prefix: &mut Vec<u8>, content: &[u8], limit: usize) {
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

/// The queue of one connection.
#[derive(Debug)]
pub(super) struct Pairing {
    /// In the order of the requests; the response being read belongs to the front, the request being read is the back.
    queue: VecDeque<Open>,
    reading_request: bool,
    reading_response: bool,
    next_index: Option<u32>,
    /// Responses may have been lost while requests were outstanding.
    server_doubt: bool,
    /// The client was seen to send a request before the one before was answered.
    pipelined: bool,
    /// When the server last ended a response.
    server_event: KernelInstant,
    /// Something began to wait at this time, that expiry does not know of.
    pub(super) fresh: Option<KernelInstant>,
}

impl Pairing {
    /// An empty queue; of a connection joined late, one with unknown requests in it.
    pub(super) fn new(joined_late: bool) -> Self {
        let mut pairing = Self {
            queue: VecDeque::new(),
            reading_request: false,
            reading_response: false,
            next_index: Some(0),
            server_doubt: false,
            pipelined: false,
            server_event: KernelInstant::default(),
            fresh: None,
        };
        if joined_late {
            pairing.client_gap();
        }
        pairing
    }

    /// A request's head was read.
    pub(super) fn begin_request(&mut self, mut open: Open, teller: &mut Teller<'_>) {
        let start = open.start;
        let behind = self.queue.back().is_some_and(|back| back.unanswered() && !back.told_timeout);
        if self.server_doubt && !self.pipelined {
            // A client that waits for each response has got all of them.
            self.give_up_unanswered(teller, start);
            self.queue.retain(|open| open.kind != Kind::Lost);
            self.server_doubt = false;
        } else if behind && !self.server_doubt {
            self.pipelined = true;
        }
        if !self.pipelined && self.queue.len() == 1 {
            self.queue.retain(|open| open.kind != Kind::Lost);
        }
        open.index = self.next_index;
        self.next_index = self.next_index.map(|index| index.wrapping_add(1));
        if self.queue.len() >= teller.shared.config.max_pending {
            teller.shared.stats.requests_over_limit += 1;
            self.reading_request = false;
            teller.tell(open, Some(Outcome::Gap), start, Protocol::Http1);
            self.push_lost();
            return;
        }
        self.queue.push_back(open);
        self.reading_request = true;
        self.fresh = Some(self.fresh.map_or(start, |fresh| fresh.min(start)));
    }

    /// Content of the request being read; `length` may be more than `content` if bytes are missing.
    pub(super) fn request_content(&mut self, content: &[u8], length: u64, teller: &mut Teller<'_>) {
        let Some(open) = self.queue.back_mut().filter(|_| self.reading_request) else { return };
        let Some(request) = &mut open.request else { return };
        request.body_size = request.body_size.saturating_add(length);
        request.body_cut |= length > content.len() as u64;
        if !request.body_cut {
            teller.keep_prefix(&mut open.request_prefix, content, teller.shared.config.request_body_prefix);
        }
    }

    /// The request being read is over; `last_byte` is absent if its end was not seen.
    pub(super) fn end_request(
        &mut self,
        time: KernelInstant,
        last_byte: Option<KernelInstant>,
        anomalies: Anomalies,
        teller: &mut Teller<'_>,
    ) {
        if !std::mem::take(&mut self.reading_request) {
            return;
        }
        if let Some(open) = self.queue.back_mut() {
            open.request_done = true;
            open.asked = time;
            open.anomalies.insert(anomalies);
            if let Some(request) = &mut open.request {
                request.last_byte = last_byte;
            }
        }
        self.settle(time, teller);
    }

    /// The request being read lost its framing.
    pub(super) fn cut_request(&mut self, time: KernelInstant, anomalies: Anomalies, teller: &mut Teller<'_>) {
        if let Some(request) =
            self.queue.back_mut().filter(|_| self.reading_request).and_then(|open| open.request.as_mut())
        {
            request.body_cut = true;
        }
        self.end_request(time, None, anomalies, teller);
    }

    /// A 1xx response.
    pub(super) fn interim(&mut self, time: KernelInstant) {
        if let Some(open) = self.queue.front_mut().filter(|open| open.unanswered()) {
            open.interim_responses = open.interim_responses.saturating_add(1);
            open.asked = open.asked.max(time);
        }
    }

    /// Finds what a final response answers, before its head is kept by [`Self::begin_response`].
    pub(super) fn answered_method(&mut self, time: KernelInstant, teller: &mut Teller<'_>) -> Method {
        if std::mem::take(&mut self.server_doubt) {
            let unanswered = self.queue.iter().filter(|open| open.unanswered()).count();
            let lost = self.queue.iter().any(|open| open.kind == Kind::Lost);
            if unanswered > 1 || (unanswered == 1 && lost) {
                self.give_up_unanswered(teller, time);
                self.push_lost();
            }
        }
        self.queue.front().filter(|open| open.unanswered()).map_or(Method::Other, |open| open.method)
    }

    /// A final response's head was read; to be called behind [`Self::answered_method`].
    pub(super) fn begin_response(
        &mut self,
        response: Response,
        anomalies: Anomalies,
        offset: u64,
        retransmits: u64,
    ) {
        if !self.queue.front().is_some_and(Open::unanswered) {
            let unsure = self.queue.front().is_some_and(|open| open.kind == Kind::Lost);
            let open = Open::new(Kind::Unasked, offset, response.first_byte, retransmits);
            self.fresh = Some(self.fresh.map_or(open.start, |fresh| fresh.min(open.start)));
            self.queue.push_front(Open { unsure, ..open });
        }
        if let Some(open) = self.queue.front_mut() {
            open.response = Some(response);
            open.anomalies.insert(anomalies);
            self.reading_response = true;
        }
    }

    /// As [`Self::request_content`].
    pub(super) fn response_content(
        &mut self,
        content: &[u8],
        length: u64,
        time: KernelInstant,
        teller: &mut Teller<'_>,
    ) {
        let Some(open) = self.queue.front_mut().filter(|_| self.reading_response) else { return };
        let Some(response) = &mut open.response else { return };
        response.body_size = response.body_size.saturating_add(length);
        response.body_cut |= length > content.len() as u64;
        response.last_byte = Some(time);
        if !response.body_cut {
            teller.keep_prefix(&mut open.response_prefix, content, teller.shared.config.response_body_prefix);
        }
    }

    /// The response being read ended as framed.
    pub(super) fn end_response(
        &mut self,
        time: KernelInstant,
        last_byte: Option<KernelInstant>,
        anomalies: Anomalies,
        teller: &mut Teller<'_>,
    ) {
        if !std::mem::take(&mut self.reading_response) {
            return;
        }
        if let Some(open) = self.queue.front_mut() {
            open.response_done = true;
            open.anomalies.insert(anomalies);
            if let Some(response) = &mut open.response {
                response.last_byte = last_byte;
            }
        }
        self.settle(time, teller);
    }

    /// The response being read ended with its direction, as framed.
    pub(super) fn end_until_close(&mut self, time: KernelInstant, teller: &mut Teller<'_>) {
        let seen =
            self.queue.front().and_then(|open| open.response.as_ref()).map(|response| response.last_byte);
        self.end_response(time, seen.flatten(), Anomalies::NONE, teller);
    }

    /// The response being read will not be followed to its end.
    pub(super) fn cut_response(
        &mut self,
        outcome: Outcome,
        anomalies: Anomalies,
        time: KernelInstant,
        teller: &mut Teller<'_>,
    ) {
        if !std::mem::take(&mut self.reading_response) {
            return;
        }
        if let Some(mut open) = self.pop_front() {
            open.anomalies.insert(anomalies);
            if let Some(response) = &mut open.response {
                response.last_byte = None;
                response.body_cut |= outcome == Outcome::Gap;
            }
            teller.tell(open, Some(outcome), time, Protocol::Http1);
        }
        self.server_event = time;
        self.settle(time, teller);
    }

    /// The response just begun makes a tunnel of the connection.
    pub(super) fn upgrade(&mut self, time: KernelInstant, teller: &mut Teller<'_>) {
        self.reading_response = false;
        if let Some(mut open) = self.pop_front() {
            if let Some(response) = &mut open.response {
                response.last_byte = Some(time);
            }
            teller.tell(open, Some(Outcome::Upgraded), time, Protocol::Http1);
        }
        self.close(Outcome::Closed, time, teller);
    }

    /// Whole requests may have been lost.
    pub(super) fn client_gap(&mut self) {
        self.next_index = None;
        self.push_lost();
    }

    /// Whole responses may have been lost.
    pub(super) fn server_gap(&mut self) {
        self.next_index = None;
        self.server_doubt |= self.queue.iter().any(Open::unanswered);
    }

    /// The server will say nothing more.
    pub(super) fn server_finished(&mut self, time: KernelInstant, teller: &mut Teller<'_>) {
        self.cut_response(Outcome::Closed, Anomalies::NONE, time, teller);
        let outcome = if self.server_doubt { Outcome::Gap } else { Outcome::Closed };
        self.end_unanswered(outcome, time, teller);
        self.server_doubt = false;
    }

    /// The connection is over.
    pub(super) fn close(&mut self, outcome: Outcome, time: KernelInstant, teller: &mut Teller<'_>) {
        self.cut_response(outcome, Anomalies::NONE, time, teller);
        let outcome = if self.server_doubt { Outcome::Gap } else { outcome };
        self.end_unanswered(outcome, time, teller);
        self.reading_request = false;
        while let Some(mut open) = self.queue.pop_front() {
            if open.kind == Kind::Asked {
                open.anomalies.insert(Anomalies::REQUEST_UNFINISHED);
                teller.tell(open, Some(Outcome::Complete), time, Protocol::Http1);
            }
        }
    }

    /// Tells what is due at `now`; when to look again.
    pub(super) fn expire(&mut self, now: KernelInstant, teller: &mut Teller<'_>) -> Option<KernelInstant> {
        let (timeout, progress) = (teller.shared.config.timeout, teller.shared.config.progress);
        let doubt = self.server_doubt || self.queue.iter().any(|open| open.kind == Kind::Lost);
        let mut next: Option<KernelInstant> = None;
        let mut note = |due: KernelInstant| next = Some(next.map_or(due, |next| next.min(due)));
        let mut first = true;
        for open in &mut self.queue {
            if open.kind == Kind::Lost || open.told_timeout {
                continue;
            }
            if first && open.unanswered() && open.request_done {
                let due = open.asked.max(self.server_event).plus(timeout);
                if due <= now {
                    let outcome = if doubt { Outcome::Gap } else { Outcome::Timeout };
                    teller.tell_copy(open, Some(outcome), due);
                    open.told_timeout = true;
                    continue;
                }
                note(due);
            }
            first = false;
            let due = open.start.plus(progress);
            if open.told_progress || (open.response_done && open.request_done) {
                continue;
            }
            if due > now {
                note(due);
                continue;
            }
            open.told_progress = true;
            teller.tell_copy(open, None, due);
        }
        if doubt {
            // So long without a word: nothing is outstanding, or nobody will ever know.
            self.queue.retain(|open| !(open.told_timeout && open.unanswered()));
            self.server_doubt &= self.queue.iter().any(Open::unanswered);
            if !self.queue.iter().any(Open::unanswered) {
                self.queue.retain(|open| open.kind != Kind::Lost);
            }
        }
        next
    }

    fn push_lost(&mut self) {
        if !self.queue.back().is_some_and(|open| open.kind == Kind::Lost) {
            self.queue.push_back(Open::new(Kind::Lost, 0, KernelInstant::default(), 0));
        }
        self.reading_request = false;
    }

    /// Tells every request without a response as one whose fate is not known.
    fn give_up_unanswered(&mut self, teller: &mut Teller<'_>, time: KernelInstant) {
        self.end_unanswered(Outcome::Gap, time, teller);
    }

    fn end_unanswered(&mut self, outcome: Outcome, time: KernelInstant, teller: &mut Teller<'_>) {
        self.reading_request &= !self.queue.back().is_some_and(Open::unanswered);
        for _ in 0..self.queue.len() {
            match self.queue.pop_front() {
                Some(open) if open.unanswered() => {
                    if open.told_timeout {
                        teller.shared.kept -= open.request_prefix.len();
                    } else {
                        teller.tell(open, Some(outcome), time, Protocol::Http1);
                    }
                }
                Some(open) => self.queue.push_back(open),
                None => {}
            }
        }
    }

    fn pop_front(&mut self) -> Option<Open> {
        if self.queue.len() == 1 {
            self.reading_request = false;
        }
        self.queue.pop_front()
    }

    /// Tells what is complete at the front.
    fn settle(&mut self, time: KernelInstant, teller: &mut Teller<'_>) {
        while self.queue.front().is_some_and(|open| open.response_done && open.request_done) {
            if let Some(open) = self.pop_front() {
                self.server_event = time;
                teller.tell(open, Some(Outcome::Complete), time, Protocol::Http1);
            }
            if self.queue.front().is_some() {
                self.fresh = Some(self.fresh.map_or(time, |fresh| fresh.min(time)));
            }
        }
    }
}
