//! Disclosures: what the bytes of heads and of framing are, for those who may write down some of them and not others.
//!
//! Only what was taken for HTTP is disclosed: what no disclosure names is content, or was not understood. Nothing is judged
//! here: which header may be seen is not this stage's to say. If nobody asks, nothing is done.

use std::{collections::VecDeque, ops::Range};

use smallvec::SmallVec;

use super::{
    HttpTracker, Shared,
    chunked::{BrokenChunk, Chunked},
    flow::Flow,
    head::{self, Visitor},
    reader::{Foreign, Input, Phase, Place, Step},
    start_line,
};
use crate::reassembly::{Connection, Side};

/// Stands for bytes in a disclosure that are nobody's to see: extensions and trailers of a chunked body, its content.
const COVER: u8 = b'*';

/// The connection preface of HTTP/2 (RFC 9113 3.4): the same for all.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Bytes of one direction of which it is known what they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Disclosure {
    /// The connection.
    pub connection: Connection,
    /// Who sent them.
    pub sender: Side,
    /// Stream offset of the first one.
    pub offset: u64,
    /// The bytes.
    pub bytes: Vec<u8>,
    /// Of which message they are.
    pub message: Message,
    /// What is known of them; bytes in no part are not to be seen.
    pub parts: SmallVec<[Part; 16]>,
}

/// A kind of message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Message {
    /// A request.
    Request,
    /// A response.
    Response,
}

/// A part of a disclosure's bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// Which.
    pub range: Range<usize>,
    /// What they are.
    pub what: What,
}

/// What bytes are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// What shows where things begin and end, and how messages are framed: line ends, methods, versions, names of fields,
    /// sizes of chunks.
    Structure,
    /// A request target.
    Target,
    /// The value of a header field; the name's place.
    Value(Range<usize>),
}

/// A reader as it was before a step.
#[derive(Debug)]
pub(super) enum Watched {
    /// Before a message: line ends belong to none.
    Between,
    Chunked(Chunked),
    /// Behind bytes of no message.
    Lost,
    Other,
}

/// What was disclosed.
#[derive(Debug, Default)]
pub(super) struct Disclosed {
    queue: VecDeque<Disclosure>,
    /// What is read now was found behind bytes of no message.
    is_behind_lost: bool,
}

impl HttpTracker {
    /// The next bytes of which it is known what they are, if [`super::Config::disclose`] is set. To be taken after each push.
    pub fn pop_disclosure(&mut self) -> Option<Disclosure> {
        self.shared.disclosed.as_mut()?.queue.pop_front()
    }
}

impl Flow {
    /// Notes how the sender's reader stands.
    pub(super) fn watch(&mut self, sender: Side) -> Watched {
        let reader = self.reader(sender);
        match &reader.phase {
            Phase::Chunked(chunked) => Watched::Chunked(chunked.clone()),
            Phase::Lost => Watched::Lost,
            Phase::Opening | Phase::Head if reader.buffer.iter().all(is_line_end) => Watched::Between,
            Phase::Opening
            | Phase::Head
            | Phase::Length(_)
            | Phase::UntilClose
            | Phase::Skip(_)
            | Phase::Unframed(_) => Watched::Other,
        }
    }

    /// Discloses what a step has read, heads apart: `before` and `after` are the input.
    pub(super) fn disclose_step(
        &mut self,
        sender: Side,
        watched: &Watched,
        (before, after): (Input<'_>, Input<'_>),
        step: &Step<'_>,
        shared: &mut Shared,
    ) {
        let read = before.bytes.len() - after.bytes.len();
        let read = before.bytes.get(..read).unwrap_or_default();
        match watched {
            Watched::Between => {
                let blank = read.iter().take_while(|byte| is_line_end(byte)).count();
                let blank = read.get(..blank).unwrap_or_default().to_vec();
                self.disclose_structure(sender, before.place.offset, blank, shared);
            }
            Watched::Chunked(chunked) => {
                let framing = chunked.framing(read, COVER);
                if framing.iter().any(|byte| *byte != COVER) {
                    self.disclose_structure(sender, before.place.offset, framing, shared);
                }
            }
            Watched::Lost | Watched::Other => {}
        }
        if let Some(disclosed) = &mut shared.disclosed {
            disclosed.is_behind_lost = matches!(watched, Watched::Lost);
        }
        let start = self.reader(sender).place.offset;
        match step {
            Step::Proxy(read) => {
                let shown = shown_of_proxy(&read.header, read.addresses.is_some());
                self.disclose_structure(sender, start, shown, shared);
            }
            Step::Http2(place) => self.disclose_structure(sender, place.offset, PREFACE.to_vec(), shared),
            // The first byte says which protocol it is; of SOCKS it is one of these.
            Step::Foreign(Foreign::Tls) => self.disclose_structure(sender, start, vec![0x16], shared),
            Step::Foreign(Foreign::Socks) => {
                self.disclose_structure(sender, start, vec![0x04], shared);
                self.disclose_structure(sender, start, vec![0x05], shared);
            }
            // A digit too many: it was looked at, and not read.
            Step::Broken(BrokenChunk::SizeTooLarge, _) => {
                let digit = after.bytes.get(..1).unwrap_or_default().to_vec();
                self.disclose_structure(sender, after.place.offset, digit, shared);
            }
            Step::Foreign(Foreign::Other)
            | Step::NeedMore
            | Step::Head(..)
            | Step::KeptHead(..)
            | Step::CutHead(..)
            | Step::Body { .. }
            | Step::Broken(..)
            | Step::Skipped(_) => {}
        }
    }

    /// Discloses a head, or whole lines from the beginning of one.
    pub(super) fn disclose_head(&mut self, sender: Side, head: &[u8], place: Place, shared: &mut Shared) {
        let is_behind_lost = shared.disclosed.as_ref().is_some_and(|disclosed| disclosed.is_behind_lost);
        let mut parts = Parts { head, is_behind_lost, found: SmallVec::new() };
        let message = if start_line::is_status(head) { Message::Response } else { Message::Request };
        let (first, rest) = head::split_line(head);
        match message {
            Message::Request => parts.request_line(first),
            Message::Response => parts.status_line(first),
        }
        parts.line_ends();
        head::read_fields(rest, &mut parts);
        let found = parts.found;
        self.disclose(sender, place.offset, head.to_vec(), message, found, shared);
    }

    fn disclose_structure(&mut self, sender: Side, offset: u64, bytes: Vec<u8>, shared: &mut Shared) {
        let part = Part { range: 0..bytes.len(), what: What::Structure };
        let is_request = self.client.is_none_or(|client| client == sender);
        let message = if is_request { Message::Request } else { Message::Response };
        self.disclose(sender, offset, bytes, message, SmallVec::from_iter([part]), shared);
    }

    fn disclose(
        &self,
        sender: Side,
        offset: u64,
        bytes: Vec<u8>,
        message: Message,
        parts: SmallVec<[Part; 16]>,
        shared: &mut Shared,
    ) {
        if let Some(disclosed) = shared.disclosed.as_mut().filter(|_| !bytes.is_empty()) {
            let connection = self.connection;
            disclosed.queue.push_back(Disclosure { connection, sender, offset, bytes, message, parts });
        }
    }
}

/// A PROXY header without what may follow its addresses, or UNKNOWN: they, and nothing else, are what it is for.
fn shown_of_proxy(header: &[u8], has_addresses: bool) -> Vec<u8> {
    if !header.starts_with(b"PROXY ") {
        return header.to_vec();
    }
    // PROXY, the family, two addresses, two ports.
    let mut words = if has_addresses { 6 } else { 2 };
    let shown = |byte: &u8| {
        let is_shown = words > 0 || is_line_end(byte);
        words -= i32::from(words > 0 && *byte == b' ');
        if is_shown { *byte } else { COVER }
    };
    header.iter().map(shown).collect()
}

/// Gathers the parts of a head.
struct Parts<'h> {
    head: &'h [u8],
    is_behind_lost: bool,
    found: SmallVec<[Part; 16]>,
}

impl Parts<'_> {
    fn add(&mut self, range: Range<usize>, what: What) {
        if !range.is_empty() {
            self.found.push(Part { range, what });
        }
    }

    /// Where `part` is in the head, of which it is a slice.
    fn range_of(&self, part: &[u8]) -> Option<Range<usize>> {
        let start = part.as_ptr().addr().checked_sub(self.head.as_ptr().addr())?;
        let range = start..start.checked_add(part.len())?;
        (self.head.get(range.clone())? == part).then_some(range)
    }

    /// Bytes from `at` on for which `holds`.
    fn run(&self, at: usize, holds: impl Fn(&u8) -> bool) -> Range<usize> {
        let rest = self.head.get(at..).unwrap_or_default();
        at..at + rest.iter().take_while(|byte| holds(byte)).count()
    }

    /// Line ends, and the blank that a folded line begins with.
    fn line_ends(&mut self) {
        let mut behind_line_end = false;
        for (index, byte) in self.head.iter().enumerate() {
            if is_line_end(byte) || (behind_line_end && is_blank(byte)) {
                self.add(index..index + 1, What::Structure);
            }
            behind_line_end = *byte == b'\n';
        }
    }

    fn request_line(&mut self, line: &[u8]) {
        let Some(start_line::StartLine::Request(read)) = start_line::read(line) else { return };
        let (Some(method), Some(target)) = (self.range_of(read.method), self.range_of(read.target)) else {
            return;
        };
        let before = self.run(0, is_blank);
        let between = self.run(method.end, is_blank);
        let method = if self.is_behind_lost { registered_end(read.method, method) } else { method };
        let behind = self.run(target.end, is_blank);
        let version = self.version(behind.end);
        let last = self.run(version.end, is_blank);
        for range in [before, method, between, behind, version, last] {
            self.add(range, What::Structure);
        }
        self.add(target, What::Target);
    }

    /// The reason phrase is the server's to choose, and no part.
    fn status_line(&mut self, line: &[u8]) {
        let before = self.run(0, is_blank);
        let icy = self.head.get(before.end..).is_some_and(|rest| rest.starts_with(b"ICY"));
        let version = if icy { before.end..before.end + 3 } else { self.version(before.end) };
        let blank = self.run(version.end, is_blank);
        let digits = self.run(blank.end, u8::is_ascii_digit);
        let behind = self.run(digits.end, is_blank);
        if version.is_empty() || digits.end > line.len() {
            return;
        }
        for range in [before, version, blank, digits, behind] {
            self.add(range, What::Structure);
        }
    }

    /// A version at `at`; empty if there is none.
    fn version(&self, at: usize) -> Range<usize> {
        const NAME: &[u8] = b"HTTP/";
        let name = self.head.get(at..at + NAME.len());
        if !name.is_some_and(|name| name.eq_ignore_ascii_case(NAME)) {
            return at..at;
        }
        at..self.run(at + NAME.len(), |byte| byte.is_ascii_digit() || *byte == b'.').end
    }
}

impl Visitor for Parts<'_> {
    fn field(&mut self, name: &[u8], value: &[u8]) {
        let Some(name) = self.range_of(name) else { return };
        let blank = self.run(name.end, is_blank);
        let colon = self.run(blank.end, |byte| *byte == b':');
        let behind = self.run(colon.end, is_blank);
        for range in [name.clone(), blank, colon, behind] {
            self.add(range, What::Structure);
        }
        let Some(value) = self.range_of(value).filter(|value| value.start >= name.end) else { return };
        let last = self.run(value.end, is_blank);
        self.add(last, What::Structure);
        self.add(value, What::Value(name));
    }
}

/// The place of the registered method at the end of `method`, whose place is `place`: before it there may be the rest of a body.
fn registered_end(method: &[u8], place: Range<usize>) -> Range<usize> {
    let ends = |registered: &&&[u8]| method.ends_with(registered);
    let longest = start_line::METHODS.iter().filter(ends).map(|registered| registered.len()).max();
    place.end - longest.unwrap_or_default()..place.end
}

const fn is_line_end(byte: &u8) -> bool {
    matches!(byte, b'\r' | b'\n')
}

const fn is_blank(byte: &u8) -> bool {
    matches!(byte, b' ' | b'\t')
}
