//! Pairing: requests and responses of one connection in order, and what became of each pair.
//!
//! Knows messages by their heads, content and ends; never sees bytes of heads or framing. The rules for what is paired
//! after a gap are in the stage's head comment.

use std::collections::VecDeque;

use super::{
    Shared,
    exchange::{Anomalies, Outcome, Protocol, Response},
    framing::Method,
    room::{MAX_SPARE_QUEUES, SPARE_CAPACITY},
    telling::{Kind, Open, Teller, cost_of_headers},
    turn::Turn,
};
use crate::capture::KernelInstant;

/// The queue of one connection.
#[derive(Debug)]
pub(super) struct Pairing {
    /// In the order of the requests; the response being read belongs to the front, the request being read is the back.
    pub(super) queue: VecDeque<Open>,
    reading_request: bool,
    pub(super) reading_response: bool,
    pub(super) next_index: Option<u32>,
    /// Responses may have been lost while requests were outstanding.
    pub(super) server_doubt: bool,
    /// They may have been lost by the capture, so their absence says nothing about the peers.
    doubt_is_ours: bool,
    /// The client was seen to send a request before the one before was answered.
    pub(super) pipelined: bool,
    pub(super) turn: Turn,
    /// There may be a [`Kind::Lost`] in the queue.
    pub(super) may_lack: bool,
    /// How far the client's stream had come when something of the server was lost last: a request that began before, of
    /// which the head was not whole yet, may have been answered by that.
    lost_behind: u64,
    /// When the server last ended a response.
    server_event: KernelInstant,
    /// Something began to wait at this time, that expiry does not know of.
    pub(super) fresh: Option<KernelInstant>,
}

impl Pairing {
    /// An empty queue; of a connection joined late, one with unknown requests in it.
    pub(super) fn new(joined_late: bool, behind_loss: bool) -> Self {
        let mut pairing = Self {
            queue: VecDeque::new(),
            reading_request: false,
            reading_response: false,
            next_index: Some(0),
            server_doubt: false,
            doubt_is_ours: false,
            pipelined: false,
            turn: Turn::Open,
            may_lack: false,
            lost_behind: 0,
            server_event: KernelInstant::default(),
            fresh: None,
        };
        if joined_late {
            pairing.client_gap();
            // Captures are mostly joined while nothing is outstanding.
            pairing.turn = if behind_loss { Turn::Unknown } else { Turn::Open };
        }
        pairing
    }

    /// As [`Self::new`], of a connection that rested.
    pub(super) fn woken(next_index: Option<u32>, pipelined: bool, may_lack: bool) -> Self {
        let mut pairing = Self { next_index, pipelined, ..Self::new(false, false) };
        if may_lack {
            pairing.push_lost();
        }
        pairing
    }

    /// Whether nothing is open; if so, whether requests may be outstanding that were not seen.
    pub(super) fn rests(&self) -> Option<bool> {
        let lost = self.queue.front().is_some();
        let rests = !self.reading_response
            && !self.reading_request
            && !self.server_doubt
            && self.queue.iter().all(|open| open.kind == Kind::Lost);
        rests.then_some(lost)
    }

    /// Gives the queue's memory back while nothing is in it: most connections are idle most of the time.
    pub(super) fn rest(&mut self, shared: &mut Shared) {
        if !self.queue.is_empty() || self.queue.capacity() == 0 {
            return;
        }
        let queue = std::mem::take(&mut self.queue);
        if queue.capacity() <= SPARE_CAPACITY && shared.spare_queues.len() < MAX_SPARE_QUEUES {
            shared.spare_queues.push(queue);
        }
    }

    /// Exchanges that were not told yet.
    pub(super) fn open(&self) -> usize {
        self.queue.iter().filter(|open| open.kind != Kind::Lost && !open.told_timeout).count()
    }

    /// A request's head was read.
    pub(super) fn begin_request(&mut self, mut open: Open, teller: &mut Teller<'_>) {
        teller.shared.stats.begun += 1;
        let (start, offset) = (open.told.start, open.told.offset);
        self.take_turn(offset, start, teller);
        let may_be_answered = self.lost_behind > offset;
        open.told.index = self.next_index;
        self.next_index = self.next_index.map(|index| index.wrapping_add(1));
        let is_over = self.queue.len() >= teller.shared.config.max_pending;
        teller.shared.stats.requests_over_limit += u64::from(is_over);
        let cost = open.cost_of_request();
        if is_over || !teller.charge(&mut open, cost) {
            self.reading_request = false;
            teller.tell(open, Some(Outcome::Gap), start, Protocol::Http1);
            self.push_lost();
            return;
        }
        if self.queue.capacity() == 0
            && let Some(spare) = teller.shared.spare_queues.pop()
        {
            self.queue = spare;
        }
        self.queue.push_back(open);
        if may_be_answered {
            self.doubt(true);
        }
        self.reading_request = true;
        self.waits_from(start);
    }

    /// Content of the request being read; `length` may be more than `content` if bytes are missing.
    pub(super) fn request_content(&mut self, content: &[u8], length: u64, teller: &mut Teller<'_>) {
        let Some(open) = self.queue.back_mut().filter(|_| self.reading_request) else { return };
        let Some(request) = &mut open.told.request else { return };
        request.body_size = request.body_size.saturating_add(length);
        request.body_cut |= length > content.len() as u64;
        if !request.body_cut {
            teller.keep_prefix(&mut open.request_prefix, content, teller.shared.config.request_body_prefix);
        }
    }

    /// A part of the body being read was not seen.
    pub(super) fn mark_cut(&mut self, from_client: bool) {
        if from_client {
            let request = self.queue.back_mut().filter(|_| self.reading_request);
            let Some(request) = request.and_then(|open| open.told.request.as_mut()) else { return };
            request.body_cut = true;
        } else {
            let response = self.queue.front_mut().filter(|_| self.reading_response);
            let Some(response) = response.and_then(|open| open.told.response.as_mut()) else { return };
            response.body_cut = true;
        }
    }

    /// Whether the message being read, of client or server, is the only one outstanding: nobody speaks out of turn.
    pub(super) fn takes_turns(&self, from_client: bool) -> bool {
        let reading = if from_client { self.reading_request } else { self.reading_response };
        reading && self.queue.len() == 1 && !self.pipelined
    }

    /// Whether more of the content of the request being read is to be kept, of `limit` bytes in all.
    pub(super) fn wants_request_content(&self, limit: usize) -> bool {
        let request =
            self.queue.back().filter(|_| self.reading_request).and_then(|open| open.told.request.as_ref());
        request.is_some_and(|request| !request.body_cut && request.body_size < limit as u64)
    }

    /// As [`Self::wants_request_content`].
    pub(super) fn wants_response_content(&self, limit: usize) -> bool {
        let open = self.queue.front().filter(|_| self.reading_response);
        let response = open.and_then(|open| open.told.response.as_ref());
        response.is_some_and(|response| !response.body_cut && response.body_size < limit as u64)
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
        self.waits_from(time);
        if let Some(open) = self.queue.back_mut() {
            open.request_done = true;
            open.asked = time;
            open.told.anomalies.insert(anomalies);
            if let Some(request) = &mut open.told.request {
                request.last_byte = last_byte;
            }
        }
        self.settle(time, teller);
    }

    /// The request being read lost its framing.
    pub(super) fn cut_request(&mut self, time: KernelInstant, anomalies: Anomalies, teller: &mut Teller<'_>) {
        if let Some(request) =
            self.queue.back_mut().filter(|_| self.reading_request).and_then(|open| open.told.request.as_mut())
        {
            request.body_cut = true;
        }
        self.end_request(time, None, anomalies, teller);
    }

    /// A 1xx response.
    pub(super) fn interim(&mut self, time: KernelInstant) {
        if let Some(open) = self.queue.front_mut().filter(|open| open.unanswered()) {
            let told = &mut open.told;
            told.interim_responses = told.interim_responses.saturating_add(1);
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
        mut response: Response,
        anomalies: Anomalies,
        offset: u64,
        teller: &mut Teller<'_>,
    ) {
        if !self.queue.front().is_some_and(Open::unanswered) {
            teller.shared.stats.begun += 1;
            let unsure = self.queue.front().is_some_and(|open| open.kind == Kind::Lost);
            let mut open = teller.begin(Kind::Unasked, offset, response.first_byte);
            open.unsure = unsure;
            self.waits_from(response.first_byte);
            self.queue.push_front(open);
        }
        if let Some(open) = self.queue.front_mut() {
            let cost = cost_of_headers(&response.headers);
            if cost > 0 && !teller.charge(open, cost) {
                response.headers = Vec::new();
            }
            open.told.response = Some(response);
            open.told.anomalies.insert(anomalies);
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
        let Some(response) = &mut open.told.response else { return };
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
            open.told.anomalies.insert(anomalies);
            if let Some(response) = &mut open.told.response {
                response.last_byte = last_byte;
            }
        }
        self.settle(time, teller);
    }

    /// The response being read ended with its direction, as framed.
    pub(super) fn end_until_close(&mut self, time: KernelInstant, teller: &mut Teller<'_>) {
        let seen = self
            .queue
            .front()
            .and_then(|open| open.told.response.as_ref())
            .map(|response| response.last_byte);
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
            open.told.anomalies.insert(anomalies);
            if let Some(response) = &mut open.told.response {
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
            if let Some(response) = &mut open.told.response {
                response.last_byte = Some(time);
            }
            teller.tell(open, Some(Outcome::Upgraded), time, Protocol::Http1);
        }
        self.close(Outcome::Closed, time, teller);
    }

    /// Whole requests may have been lost.
    pub(super) fn client_gap(&mut self) {
        self.next_index = None;
        self.turn = Turn::Lost;
        self.push_lost();
    }

    /// Whole responses may have been lost, maybe by the capture.
    pub(super) fn server_gap(&mut self, may_be_ours: bool) {
        self.next_index = None;
        if let Turn::Behind(end) = self.turn {
            self.lost_behind = end;
        }
        if self.queue.iter().any(Open::unanswered) {
            self.doubt(may_be_ours);
        }
    }

    fn doubt(&mut self, may_be_ours: bool) {
        self.doubt_is_ours = may_be_ours || (self.server_doubt && self.doubt_is_ours);
        self.server_doubt = true;
    }

    /// What an unanswered request is told as, where `outcome` is what happened if nothing was lost.
    fn unless_lost(&self, outcome: Outcome) -> Outcome {
        if self.server_doubt && self.doubt_is_ours { Outcome::Gap } else { outcome }
    }

    /// The server will say nothing more.
    pub(super) fn server_finished(&mut self, time: KernelInstant, teller: &mut Teller<'_>) {
        self.cut_response(Outcome::Closed, Anomalies::NONE, time, teller);
        let outcome = self.unless_lost(Outcome::Closed);
        self.end_unanswered(outcome, time, teller);
        self.server_doubt = false;
    }

    /// The connection is over.
    pub(super) fn close(&mut self, outcome: Outcome, time: KernelInstant, teller: &mut Teller<'_>) {
        self.cut_response(outcome, Anomalies::NONE, time, teller);
        let outcome = self.unless_lost(outcome);
        self.end_unanswered(outcome, time, teller);
        self.reading_request = false;
        while let Some(mut open) = self.queue.pop_front() {
            if open.kind == Kind::Asked {
                open.told.anomalies.insert(Anomalies::REQUEST_UNFINISHED);
                teller.tell(open, Some(Outcome::Complete), time, Protocol::Http1);
            }
        }
    }

    /// Tells what is due at `now`; when to look again.
    pub(super) fn expire(&mut self, now: KernelInstant, teller: &mut Teller<'_>) -> Option<KernelInstant> {
        let (timeout, progress) = (teller.shared.config.timeout, teller.shared.config.progress);
        let lost = self.queue.iter().any(|open| open.kind == Kind::Lost);
        let doubt = self.server_doubt || lost;
        let unanswered = if lost { Outcome::Gap } else { self.unless_lost(Outcome::Timeout) };
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
                    teller.tell_copy(open, Some(unanswered), due);
                    open.told_timeout = true;
                    continue;
                }
                note(due);
            }
            first = false;
            let due = open.told.start.plus(progress);
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
            let shared = &mut *teller.shared;
            let before = self.queue.len();
            self.queue.retain(|open| {
                let over = open.told_timeout && open.unanswered();
                shared.kept -= if over { open.request_prefix.len() } else { 0 };
                shared.open_bytes -= if over { open.cost } else { 0 };
                !over
            });
            self.server_doubt &= self.queue.iter().any(Open::unanswered);
            if self.queue.len() < before && !self.queue.iter().any(Open::unanswered) {
                self.queue.retain(|open| open.kind != Kind::Lost);
            }
        }
        next
    }

    fn waits_from(&mut self, time: KernelInstant) {
        self.fresh = Some(self.fresh.map_or(time, |fresh| fresh.min(time)));
    }

    fn push_lost(&mut self) {
        self.may_lack = true;
        if !self.queue.back().is_some_and(|open| open.kind == Kind::Lost) {
            self.queue.push_back(Open::lost());
        }
        self.reading_request = false;
    }

    /// Tells every request without a response as one whose fate is not known.
    pub(super) fn give_up_unanswered(&mut self, teller: &mut Teller<'_>, time: KernelInstant) {
        self.end_unanswered(Outcome::Gap, time, teller);
    }

    fn end_unanswered(&mut self, outcome: Outcome, time: KernelInstant, teller: &mut Teller<'_>) {
        self.reading_request &= !self.queue.back().is_some_and(Open::unanswered);
        for _ in 0..self.queue.len() {
            match self.queue.pop_front() {
                Some(open) if open.unanswered() => {
                    if open.told_timeout {
                        teller.shared.kept -= open.request_prefix.len();
                        teller.shared.open_bytes -= open.cost;
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
                self.waits_from(time);
            }
        }
    }
}
