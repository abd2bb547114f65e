//! One connection: which end is the client, what its bytes are, and what they mean to the pairing.
//!
//! Drives two readers and one pairing; owns neither framing rules nor the search for messages.

use std::net::SocketAddr;

use bytes::Bytes;

use super::{
    Shared,
    chunked::BrokenChunk,
    exchange::{Anomalies, Outcome, Request, Response},
    fields::{Fields, Upgrade},
    head,
    heads::{RequestHead, ResponseHead},
    pairing::Pairing,
    reader::{Foreign, GivenUp, Input, Place, Reader, Room, Step},
    start_line::{self, METHODS, RequestLine, StatusLine, Wanted},
    telling::Teller,
};
use crate::{
    capture::KernelInstant,
    reassembly::{Chunk, CloseCause, Connection, Content, Side, Start},
};

/// What the connection speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Speech {
    /// HTTP/1, or not known.
    Http1,
    /// Another protocol after an upgrade.
    Tunnel,
    /// Another protocol from the start.
    Foreign,
}

/// Whether the reader goes on after a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flowing {
    On,
    Dry,
}

/// HTTP state of one connection.
#[derive(Debug)]
pub(super) struct Flow {
    /// As known at the latest chunk.
    pub(super) connection: Connection,
    pub(super) speech: Speech,
    pub(super) client: Option<Side>,
    pub(super) originator: Reader,
    pub(super) responder: Reader,
    /// Sides that begin with something else.
    pub(super) foreign_sides: u8,
    pub(super) foreign_bytes: u64,
    pub(super) tls: bool,
    pub(super) socks: bool,
    pub(super) proxied: Option<(SocketAddr, SocketAddr)>,
    /// What the latest request offered to upgrade to.
    pub(super) upgrade: Option<Upgrade>,
    /// More than usual is kept of the first bytes of content.
    pub(super) keeps_more: bool,
    pub(super) pairing: Pairing,
    pub(super) armed: Option<KernelInstant>,
    /// Known to rest since it was put into the order of those.
    pub(super) warm: bool,
}

impl Flow {
    pub(super) fn new(connection: &Connection) -> Self {
        let joined_late = connection.start == Start::Middle;
        Self {
            connection: *connection,
            speech: Speech::Http1,
            client: None,
            originator: Reader::new(joined_late),
            responder: Reader::new(joined_late),
            foreign_sides: 0,
            foreign_bytes: 0,
            tls: false,
            socks: false,
            proxied: None,
            upgrade: None,
            keeps_more: false,
            pairing: Pairing::new(joined_late, connection.behind_loss),
            armed: None,
            warm: false,
        }
    }

    /// When the flow wants [`Self::catch_up`].
    pub(super) const fn armed(&self) -> Option<KernelInstant> {
        self.armed
    }

    /// Tells what is due at `now`.
    pub(super) fn catch_up(&mut self, now: KernelInstant, shared: &mut Shared) {
        if self.armed.is_some_and(|at| at <= now) {
            self.settle_unframed(now, shared);
            let (pairing, mut teller) = self.split(shared);
            let next = pairing.expire(now, &mut teller);
            self.armed = next.into_iter().chain(self.unframed_due()).min();
        }
    }

    /// Takes bytes, a gap or the end of a direction.
    pub(super) fn push(&mut self, chunk: &Chunk<'_>, shared: &mut Shared) {
        self.connection = *chunk.connection;
        let known = self.client.is_some();
        self.note_position(chunk);
        match chunk.content {
            Content::Bytes(bytes) => {
                shared.stats.bytes += bytes.len() as u64;
                let place = Place { offset: chunk.offset, time: chunk.time };
                self.bytes(chunk.sender, Input { bytes, place }, shared);
            }
            Content::Gap { length, cause, .. } => self.gap(chunk, length, cause, shared),
            Content::Finished => self.finished(chunk.sender, chunk.time, shared),
            Content::Closed(_) => {}
        }
        if !known {
            self.note_turn(chunk.sender);
        }
        self.offer_skip(chunk, shared);
        if let Some(start) = self.pairing.fresh.take() {
            self.arm(start.plus(shared.config.timeout.min(shared.config.progress)));
        }
        if let Some(due) = self.unframed_due() {
            self.arm(due);
        }
    }

    /// Wants [`Self::catch_up`] at `due` at the latest.
    fn arm(&mut self, due: KernelInstant) {
        self.armed = Some(self.armed.map_or(due, |armed| armed.min(due)));
    }

    /// Takes the end of the connection.
    pub(super) fn close(&mut self, chunk: &Chunk<'_>, cause: CloseCause, shared: &mut Shared) {
        self.connection = *chunk.connection;
        let outcome = match cause {
            CloseCause::Finished | CloseCause::Replaced => Outcome::Closed,
            CloseCause::Reset(_) => Outcome::Reset,
            CloseCause::Idle => Outcome::Timeout,
            CloseCause::Evicted | CloseCause::SourceEnded => Outcome::Gap,
        };
        for side in [Side::Originator, Side::Responder] {
            self.give_up_unframed(side, chunk.time, shared);
            self.forget_head(side, shared);
        }
        let (pairing, mut teller) = self.split(shared);
        pairing.close(outcome, chunk.time, &mut teller);
    }

    /// The pairing, and what it takes to tell.
    pub(super) fn split<'a>(&'a mut self, shared: &'a mut Shared) -> (&'a mut Pairing, Teller<'a>) {
        let client = self.client.unwrap_or(Side::Originator);
        let teller = Teller {
            connection: &self.connection,
            client,
            proxied: &self.proxied,
            keeps_more: self.keeps_more,
            shared,
        };
        (&mut self.pairing, teller)
    }

    pub(super) const fn reader(&mut self, side: Side) -> &mut Reader {
        match side {
            Side::Originator => &mut self.originator,
            Side::Responder => &mut self.responder,
        }
    }

    fn bytes(&mut self, sender: Side, mut input: Input<'_>, shared: &mut Shared) {
        loop {
            let is_before_head = self.reader(sender).is_before_head();
            if is_before_head && input.bytes.is_empty() {
                return;
            }
            match self.speech {
                Speech::Http1 => {}
                Speech::Tunnel => {
                    shared.stats.tunnel_bytes += input.bytes.len() as u64;
                    return;
                }
                Speech::Foreign => {
                    shared.stats.foreign_bytes += input.bytes.len() as u64;
                    return;
                }
            }
            // What is disclosed is known from the steps of the reader.
            let is_quick = is_before_head && shared.disclosed.is_none();
            if is_quick && self.clean_head(sender, &mut input, shared) {
                continue;
            }
            let max_head = shared.config.max_head;
            let room = Room { max_head, left: shared.config.max_kept.saturating_sub(shared.kept) };
            let before = input;
            let watched = shared.disclosed.is_some().then(|| self.watch(sender));
            let reader = self.reader(sender);
            let kept = reader.kept();
            let step = reader.step(&mut input, room);
            shared.kept = shared.kept + reader.kept() - kept;
            if let Some(watched) = watched {
                self.disclose_step(sender, &watched, (before, input), &step, shared);
            }
            let step = if let Step::Head(bytes, place) = step {
                if self.head(sender, bytes, place, input.place.time, shared) {
                    continue;
                }
                input = before;
                self.reader(sender).refuse_head(bytes.first().copied())
            } else {
                step
            };
            if self.step(sender, step, input.place.time, shared) == Flowing::Dry {
                return;
            }
        }
    }

    fn step(&mut self, sender: Side, step: Step<'_>, time: KernelInstant, shared: &mut Shared) -> Flowing {
        match step {
            Step::NeedMore => return Flowing::Dry,
            Step::Head(..) => {}
            Step::KeptHead(bytes, place) => {
                if !self.head(sender, &bytes, place, time, shared) {
                    self.skipped(sender, bytes.len() as u64, shared);
                    self.reader(sender).lose();
                }
            }
            Step::CutHead(bytes, place, why) => {
                match why {
                    GivenUp::TooLong => shared.stats.heads_too_long += 1,
                    GivenUp::NoMemory => shared.stats.heads_no_memory += 1,
                }
                self.cut_head(sender, Some((bytes, place)), time, shared);
                self.messages_lost(sender, true, time, shared);
            }
            Step::Body { content, ended } => self.content(sender, content, ended, time, shared),
            Step::Broken(broken, anomalies) => self.broken(sender, broken, anomalies, time, shared),
            Step::Proxy(read) => {
                shared.stats.connections_proxied += 1;
                self.proxied = read.addresses;
            }
            Step::Http2(place) => {
                shared.stats.connections_http2 += 1;
                self.client = Some(sender);
                let (_, mut teller) = self.split(shared);
                teller.tell_http2(place.offset, place.time);
                self.ignore(Speech::Foreign, shared);
            }
            Step::Foreign(foreign) => {
                self.foreign_sides += 1;
                self.tls |= foreign == Foreign::Tls;
                self.socks |= foreign == Foreign::Socks;
                self.judge_foreign(shared);
            }
            Step::Skipped(bytes) => self.skipped(sender, bytes, shared),
        }
        Flowing::On
    }

    /// Bytes that belong to no message.
    fn skipped(&mut self, sender: Side, bytes: u64, shared: &mut Shared) {
        if self.client.is_some() {
            shared.stats.skipped_bytes += bytes;
            if bytes > 0 && self.client != Some(sender) {
                // They may have been the answer that is waited for: the next one must not be taken for it.
                self.pairing.server_gap(false);
            }
            return;
        }
        shared.stats.foreign_bytes += bytes;
        self.foreign_bytes += bytes;
        self.judge_foreign(shared);
    }

    pub(super) fn set_client(&mut self, client: Side, shared: &mut Shared) {
        if self.client.is_none() {
            shared.stats.connections_http += 1;
            self.is_client(client);
        }
    }

    pub(super) const fn is_client(&mut self, client: Side) {
        self.client = Some(client);
        self.reader(client).wanted = Wanted::Request;
        self.reader(client.other()).wanted = Wanted::Status;
    }

    /// Takes a whole head that began at `place` and ended at `time`; false if it is none.
    fn head(
        &mut self,
        sender: Side,
        bytes: &[u8],
        place: Place,
        time: KernelInstant,
        shared: &mut Shared,
    ) -> bool {
        let status = start_line::is_status(bytes);
        let is_one = match self.client {
            Some(client) if (client == sender) == status => false,
            _ if status => self.response_head(sender, bytes, place, time, shared),
            _ => self.request_head(sender, bytes, place, time, shared),
        };
        if is_one && shared.disclosed.is_some() {
            self.disclose_head(sender, bytes, place, shared);
        }
        is_one
    }

    fn request_head(
        &mut self,
        sender: Side,
        bytes: &[u8],
        place: Place,
        time: KernelInstant,
        shared: &mut Shared,
    ) -> bool {
        shared.scratch.begin();
        let mut fields = Fields::new(&shared.request_headers, &mut shared.scratch);
        let Some(line) = head::read_request(bytes, &mut fields) else { return false };
        if self.reader(sender).torn && !start_line::is_whole(&line) {
            return false;
        }
        let head = RequestHead::new(&line, fields.framing, fields.upgrade);
        let request = request_of(&line, place, shared);
        let exchange = shared.begin_request(request, place);
        self.take_request(sender, exchange, head, time, shared);
        true
    }

    fn response_head(
        &mut self,
        sender: Side,
        bytes: &[u8],
        place: Place,
        time: KernelInstant,
        shared: &mut Shared,
    ) -> bool {
        shared.scratch.begin();
        let mut fields = Fields::new(&shared.response_headers, &mut shared.scratch);
        let Some(line) = head::read_response(bytes, &mut fields) else { return false };
        let head = ResponseHead::new(&line, fields.framing, fields.upgrade);
        let response = response_of(&line, place, shared);
        self.take_response(sender, response, head, place.offset, time, shared);
        true
    }

    fn content(
        &mut self,
        sender: Side,
        content: &[u8],
        ended: Option<Anomalies>,
        time: KernelInstant,
        shared: &mut Shared,
    ) {
        let from_client = self.client == Some(sender);
        let (pairing, mut teller) = self.split(shared);
        let length = content.len() as u64;
        match (from_client, length > 0) {
            (true, true) => pairing.request_content(content, length, &mut teller),
            (false, true) => pairing.response_content(content, length, time, &mut teller),
            (_, false) => {}
        }
        match ended {
            Some(anomalies) if from_client => pairing.end_request(time, Some(time), anomalies, &mut teller),
            Some(anomalies) => pairing.end_response(time, Some(time), anomalies, &mut teller),
            None => {}
        }
    }

    fn broken(
        &mut self,
        sender: Side,
        broken: BrokenChunk,
        anomalies: Anomalies,
        time: KernelInstant,
        shared: &mut Shared,
    ) {
        shared.stats.chunks_broken += 1;
        match broken {
            BrokenChunk::LineTooLong => shared.stats.chunk_lines_too_long += 1,
            BrokenChunk::TrailersTooLong => shared.stats.trailers_too_long += 1,
            BrokenChunk::NoSize | BrokenChunk::SizeTooLarge | BrokenChunk::NoLineEnd => {}
        }
        let from_client = self.client == Some(sender);
        let (pairing, mut teller) = self.split(shared);
        if from_client {
            pairing.cut_request(time, anomalies, &mut teller);
        } else {
            pairing.cut_response(Outcome::Closed, anomalies, time, &mut teller);
        }
    }

    fn finished(&mut self, sender: Side, time: KernelInstant, shared: &mut Shared) {
        if self.speech != Speech::Http1 {
            return;
        }
        let Some(client) = self.client else { return };
        self.finish_unframed(sender, time, shared);
        let until_close = self.reader(sender).in_body_until_close();
        self.forget_head(sender, shared);
        let (pairing, mut teller) = self.split(shared);
        if client == sender {
            pairing.end_request(time, None, Anomalies::REQUEST_UNFINISHED, &mut teller);
            return;
        }
        if until_close {
            pairing.end_until_close(time, &mut teller);
        }
        pairing.server_finished(time, &mut teller);
    }

    pub(super) fn forget_head(&mut self, side: Side, shared: &mut Shared) {
        let reader = self.reader(side);
        shared.stats.heads_unfinished += u64::from(reader.in_head());
        shared.kept -= reader.kept();
        reader.lose();
    }
}

pub(super) fn request_of(line: &RequestLine<'_>, place: Place, shared: &mut Shared) -> Request {
    let known = METHODS.iter().find(|method| **method == line.method);
    let (method, target, headers) =
        shared.scratch.finish(if known.is_some() { b"" } else { line.method }, line.target);
    Request {
        method: known.map_or(method, |method| Bytes::from_static(method)),
        target,
        minor_version: line.minor_version,
        headers,
        body_size: 0,
        codings: shared.scratch.codings,
        body_prefix: Bytes::new(),
        first_byte: place.time,
        last_byte: None,
        body_cut: false,
    }
}

pub(super) fn response_of(line: &StatusLine, place: Place, shared: &mut Shared) -> Response {
    let (_, _, headers) = shared.scratch.finish(b"", b"");
    Response {
        status: line.status,
        minor_version: line.minor_version,
        headers,
        body_size: 0,
        codings: shared.scratch.codings,
        body_prefix: Bytes::new(),
        first_byte: place.time,
        last_byte: None,
        body_cut: false,
    }
}
