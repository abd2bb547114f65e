//! One direction of a connection: cuts in-order bytes into heads and bodies, and finds the next message when lost.
//!
//! Where the stream was cut into chunks makes no difference to what comes out. Keeps bytes only while a head, a PROXY
//! header or a line that may begin a message is incomplete. Does not read header fields and does not know pairing.

use super::{
    chunked::{BrokenChunk, ChunkStep, Chunked},
    exchange::Anomalies,
    framing::Framing,
    head::{self, LineState},
    proxy::{self, ProxyHeader, ProxyRead},
    start_line::{self, StartLine, Wanted},
    unframed::Tail,
};
use crate::capture::KernelInstant;

/// Where a message's first byte is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Place {
    /// Stream offset.
    pub(super) offset: u64,
    /// When it arrived.
    pub(super) time: KernelInstant,
}

/// Bytes not yet read of a chunk.
#[derive(Clone, Copy, Debug)]
pub(super) struct Input<'a> {
    pub(super) bytes: &'a [u8],
    pub(super) place: Place,
}

impl<'a> Input<'a> {
    pub(super) fn take(&mut self, length: usize) -> &'a [u8] {
        let (taken, rest) = self.bytes.split_at(length.min(self.bytes.len()));
        self.bytes = rest;
        self.place.offset = self.place.offset.wrapping_add(taken.len() as u64);
        taken
    }
}

/// Limits on what a reader keeps.
#[derive(Clone, Copy, Debug)]
pub(super) struct Room {
    /// Longest head, bytes.
    pub(super) max_head: usize,
    /// Bytes that may still be kept of all connections together.
    pub(super) left: usize,
}

/// Why a head is given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum GivenUp {
    /// It is longer than the limit.
    TooLong,
    /// All kept bytes together would pass their limit.
    NoMemory,
}

/// What the first bytes of a direction are, if not HTTP/1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Foreign {
    Tls,
    Socks,
    Other,
}

/// A step of reading.
#[derive(Debug)]
pub(super) enum Step<'a> {
    /// All input was read.
    NeedMore,
    /// A whole head, borrowed from the input.
    Head(&'a [u8], Place),
    /// A whole head out of the reader's buffer.
    KeptHead(Vec<u8>, Place),
    /// The first part of a head that will not be followed to its end.
    CutHead(Vec<u8>, Place, GivenUp),
    /// Content of the body, possibly none; at its end with the oddities of its framing.
    Body { content: &'a [u8], ended: Option<Anomalies> },
    /// The body's framing broke.
    Broken(BrokenChunk, Anomalies),
    /// A PROXY header was read.
    Proxy(Box<ProxyRead>),
    /// The HTTP/2 preface was read.
    Http2(Place),
    /// The direction begins with something else.
    Foreign(Foreign),
    /// Bytes that belong to no message were passed over.
    Skipped(u64),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Before the connection's first bytes: a PROXY header may come.
    Opening,
    /// Before or in a head.
    Head,
    /// In a body.
    Length(u64),
    /// In a chunked body.
    Chunked(Chunked),
    /// In a body that ends with the direction.
    UntilClose,
    /// Between messages of unknown borders: looks for the next one.
    Lost,
    /// Passes over the TLVs of a PROXY header.
    Skip(u64),
    /// In a chunked body of which a part with its framing was left out.
    Unframed(Tail),
}

/// What a gap did to a direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum GapEffect {
    /// Inside a body whose framing stands: so many content bytes were passed over, and whether the body ended with it.
    Inside { content: u64, ended: bool },
    /// Inside a body that ended in the gap: whole messages may be missing behind it.
    PastEnd { content: u64 },
    /// Inside a body whose framing is lost with it: whole messages may be missing behind it.
    BodyLost { content: u64 },
    /// As before, but its end can be known.
    Unframed { content: u64 },
    /// Between messages or in a head: whole messages may be missing.
    MessagesLost,
}

/// One direction's reader.
#[derive(Debug)]
pub(super) struct Reader {
    pub(super) phase: Phase,
    pub(super) wanted: Wanted,
    /// No message was seen, nor the lack of one.
    pub(super) opening: bool,
    /// The first line in the buffer is a start line.
    pub(super) begun: bool,
    /// The bytes before the line being read were not seen: it may begin in the midst of one.
    pub(super) torn: bool,
    /// Into which line end the buffer's last bytes are.
    pub(super) lines: LineState,
    /// Head or line so far; empty unless one is incomplete.
    pub(super) buffer: Vec<u8>,
    /// Of the buffer's first byte.
    pub(super) place: Place,
    /// While lost: start of the line being read.
    pub(super) line_start: usize,
    /// Offset of the next byte of the direction.
    pub(super) position: u64,
    /// What the capture is asked to leave out ends here.
    pub(super) skipped_until: u64,
    /// It is to be asked to leave out more.
    pub(super) offers_skip: bool,
    /// While lost: when the latest bytes came; what begins behind other bytes of a line is taken to begin then.
    pub(super) latest: KernelInstant,
}

impl Reader {
    /// A reader at the first byte of its direction, or somewhere in it.
    pub(super) fn new(joined_late: bool) -> Self {
        Self {
            // Captures are mostly joined between messages: the first bytes are tried as a head before one is sought.
            phase: if joined_late { Phase::Head } else { Phase::Opening },
            wanted: Wanted::Any,
            opening: !joined_late,
            begun: false,
            torn: joined_late,
            lines: LineState::Inside,
            buffer: Vec::new(),
            place: Place::default(),
            line_start: 0,
            position: 0,
            skipped_until: 0,
            offers_skip: false,
            latest: KernelInstant::default(),
        }
    }

    /// Bytes kept.
    pub(super) fn kept(&self) -> usize {
        self.buffer.len()
    }

    /// Whether a head was begun and not finished.
    pub(super) fn in_head(&self) -> bool {
        self.begun && !self.buffer.is_empty()
    }

    /// Whether the body being read ends with the direction.
    pub(super) fn in_body_until_close(&self) -> bool {
        self.phase == Phase::UntilClose
    }

    /// A head was taken: its body comes next. One of no bytes is over at once.
    pub(super) fn begin_body(&mut self, framing: Framing) {
        self.opening = false;
        self.torn = false;
        self.phase = match framing {
            Framing::Length(0) => Phase::Head,
            Framing::Length(length) => Phase::Length(length),
            Framing::Chunked => Phase::Chunked(Chunked::default()),
            Framing::UntilClose => Phase::UntilClose,
            Framing::Unknown => Phase::Lost,
        };
    }

    /// Stops following the message being read and looks for the next.
    pub(super) fn lose(&mut self) {
        self.phase = Phase::Lost;
        self.opening = false;
        self.torn = true;
        self.forget();
    }

    /// What comes next begins a segment, so it may well begin a message: it is tried as a head before one is sought.
    pub(super) fn expect_head(&mut self) {
        self.phase = Phase::Head;
    }

    /// The head just given, that begins with `first`, is none: looks for a message in the bytes behind, which the caller gives again.
    pub(super) fn refuse_head(&mut self, first: Option<u8>) -> Step<'static> {
        self.phase = Phase::Lost;
        self.begun = false;
        self.line_start = 0;
        if !std::mem::take(&mut self.opening) {
            return Step::Skipped(0);
        }
        Step::Foreign(match first {
            // ContentType handshake (RFC 8446 5.1); nothing else that is sent over TCP begins so.
            Some(0x16) => Foreign::Tls,
            // Version of a SOCKS request (RFC 1928 3): HTTP may follow when both ends have agreed.
            Some(0x04 | 0x05) => Foreign::Socks,
            _ => Foreign::Other,
        })
    }

    /// The first part of a head that will not be finished, or of its start line.
    pub(super) fn take_cut_head(&mut self) -> Option<(Vec<u8>, Place)> {
        let in_line = self.phase == Phase::Head && !self.buffer.is_empty();
        let in_line = in_line && (!self.torn || start_line::begins_whole(&self.buffer));
        let cut = (self.in_head() || in_line).then(|| (std::mem::take(&mut self.buffer), self.place));
        self.lose();
        cut
    }

    /// Reads on; call again until it needs more.
    pub(super) fn step<'a>(&mut self, input: &mut Input<'a>, room: Room) -> Step<'a> {
        match &mut self.phase {
            Phase::Opening => self.opening_step(input, room),
            Phase::Head => self.head_step(input, room),
            Phase::Lost => self.lost_step(input, room),
            Phase::Skip(left) => {
                let skipped = take_up_to(left, input);
                if *left == 0 {
                    self.phase = Phase::Head;
                }
                if skipped.is_empty() { Step::NeedMore } else { Step::Skipped(0) }
            }
            Phase::Length(_) | Phase::Chunked(_) | Phase::UntilClose | Phase::Unframed(_) => {
                self.body_step(input)
            }
        }
    }

    /// Passes over `length` bytes that were not seen, the last of them sent at `time`. `may_be_unframed`: no message can
    /// be among them whose end is not known by other means.
    pub(super) fn gap(&mut self, length: u64, time: KernelInstant, may_be_unframed: bool) -> GapEffect {
        match &mut self.phase {
            Phase::Length(left) => {
                let content = length.min(*left);
                *left -= content;
                let ended = *left == 0;
                if length > content {
                    self.lose();
                    return GapEffect::PastEnd { content };
                }
                if ended {
                    self.phase = Phase::Head;
                }
                GapEffect::Inside { content, ended }
            }
            Phase::UntilClose => GapEffect::Inside { content: length, ended: false },
            Phase::Chunked(chunked) => {
                let content = chunked.content_ahead().min(length);
                if chunked.skip_content(length) {
                    return GapEffect::Inside { content, ended: false };
                }
                if may_be_unframed {
                    self.phase = Phase::Unframed(Tail::behind_gap(time));
                    return GapEffect::Unframed { content };
                }
                self.lose();
                GapEffect::BodyLost { content }
            }
            Phase::Unframed(tail) if may_be_unframed => {
                *tail = Tail::behind_gap(time);
                GapEffect::Unframed { content: 0 }
            }
            Phase::Unframed(_) => {
                self.lose();
                GapEffect::BodyLost { content: 0 }
            }
            Phase::Skip(left) if *left > length => {
                *left -= length;
                GapEffect::Inside { content: 0, ended: false }
            }
            Phase::Opening | Phase::Head | Phase::Lost | Phase::Skip(_) => GapEffect::MessagesLost,
        }
    }

    fn body_step<'a>(&mut self, input: &mut Input<'a>) -> Step<'a> {
        match &mut self.phase {
            _ if input.bytes.is_empty() => Step::NeedMore,
            Phase::Length(left) => {
                let content = take_up_to(left, input);
                let ended = (*left == 0).then_some(Anomalies::NONE);
                if ended.is_some() {
                    self.phase = Phase::Head;
                }
                Step::Body { content, ended }
            }
            Phase::Chunked(chunked) => {
                let mut rest = input.bytes;
                let step = chunked.step(&mut rest);
                input.take(input.bytes.len() - rest.len());
                let anomalies = chunked.anomalies();
                match step {
                    ChunkStep::Content(content) => Step::Body { content, ended: None },
                    ChunkStep::NeedMore => Step::NeedMore,
                    ChunkStep::End => {
                        self.phase = Phase::Head;
                        Step::Body { content: b"", ended: Some(anomalies) }
                    }
                    ChunkStep::Broken(broken) => {
                        self.lose();
                        Step::Broken(broken, anomalies)
                    }
                }
            }
            Phase::Unframed(tail) => {
                tail.read(input.take(usize::MAX), input.place.time);
                Step::Body { content: b"", ended: None }
            }
            Phase::UntilClose | Phase::Opening | Phase::Head | Phase::Lost | Phase::Skip(_) => {
                Step::Body { content: input.take(usize::MAX), ended: None }
            }
        }
    }

    fn opening_step<'a>(&mut self, input: &mut Input<'a>, room: Room) -> Step<'a> {
        if input.bytes.is_empty() {
            return Step::NeedMore;
        }
        let kept = self.buffer.len();
        let window = input.bytes.get(..proxy::MAX_LINE).unwrap_or(input.bytes);
        let header = if kept == 0 {
            self.place = input.place;
            proxy::read(window)
        } else {
            self.buffer.extend_from_slice(window);
            proxy::read(&self.buffer)
        };
        match header {
            ProxyHeader::NeedMore => {
                if window.len() > room.left {
                    self.buffer.truncate(kept);
                    return self.give_up(GivenUp::NoMemory);
                }
                if kept == 0 {
                    self.buffer.extend_from_slice(window);
                }
                input.take(window.len());
                Step::Skipped(0)
            }
            ProxyHeader::Present { length, skip, addresses } => {
                let taken = input.take(length.saturating_sub(kept));
                self.buffer.truncate(length);
                let header = if kept == 0 { taken.to_vec() } else { std::mem::take(&mut self.buffer) };
                self.forget();
                self.phase = if skip > 0 { Phase::Skip(skip) } else { Phase::Head };
                Step::Proxy(Box::new(ProxyRead { header, addresses }))
            }
            ProxyHeader::Absent => {
                self.buffer.truncate(kept);
                self.drop_front(leading_line_ends(&self.buffer));
                self.phase = Phase::Head;
                self.head_step(input, room)
            }
        }
    }

    fn head_step<'a>(&mut self, input: &mut Input<'a>, room: Room) -> Step<'a> {
        if self.buffer.is_empty() {
            // Empty lines before a message are ignored (RFC 9112 2.2); some servers send one behind a body too.
            input.take(leading_line_ends(input.bytes));
            if input.bytes.is_empty() {
                return Step::NeedMore;
            }
            self.place = input.place;
            // The HTTP/2 preface is told from a request in the buffer.
            let preface = self.opening && input.bytes.starts_with(b"PRI ");
            if !preface
                && let Ok(end) = LineState::Inside.find_end(input.bytes)
                && end <= room.max_head
            {
                return Step::Head(input.take(end), self.place);
            }
        }
        if !self.begun
            && let Some(step) = self.first_line_step(input, room)
        {
            return step;
        }
        let space = room.max_head.saturating_sub(self.buffer.len());
        let window = input.bytes.get(..space).unwrap_or(input.bytes);
        let (length, ended) = match self.lines.find_end(window) {
            Ok(end) => (end, true),
            Err(lines) => {
                self.lines = lines;
                (window.len(), false)
            }
        };
        if length > room.left {
            return self.give_up(GivenUp::NoMemory);
        }
        self.buffer.extend_from_slice(input.take(length));
        if ended {
            return self.give_head();
        }
        if input.bytes.is_empty() { Step::NeedMore } else { self.give_up(GivenUp::TooLong) }
    }

    /// Reads the first line of a head into the buffer; a step if that does not end with a start line.
    fn first_line_step<'a>(&mut self, input: &mut Input<'a>, room: Room) -> Option<Step<'a>> {
        let space = room.max_head.saturating_sub(self.buffer.len());
        let (piece, _) = head::split_line(input.bytes.get(..space).unwrap_or(input.bytes));
        if piece.len() > room.left {
            return Some(self.give_up(GivenUp::NoMemory));
        }
        self.buffer.extend_from_slice(input.take(piece.len()));
        if self.buffer.last() != Some(&b'\n') {
            if !start_line::could_begin(&self.buffer) {
                return Some(self.refuse_head(self.buffer.first().copied()));
            }
            let full = !input.bytes.is_empty();
            return Some(if full { self.give_up(GivenUp::TooLong) } else { Step::NeedMore });
        }
        match start_line::read(&self.buffer) {
            Some(StartLine::Http2Preface) if self.opening => {
                let place = self.place;
                self.lose();
                Some(Step::Http2(place))
            }
            Some(StartLine::Request(line)) if self.torn && !start_line::is_whole(&line) => {
                Some(self.refuse_head(self.buffer.first().copied()))
            }
            Some(line) if self.wanted.accepts(&line) => {
                self.begun = true;
                self.lines = LineState::Ended;
                None
            }
            Some(_) | None => Some(self.refuse_head(self.buffer.first().copied())),
        }
    }

    pub(super) fn give_head<'a>(&mut self) -> Step<'a> {
        let buffer = std::mem::take(&mut self.buffer);
        self.forget();
        self.phase = Phase::Head;
        Step::KeptHead(buffer, self.place)
    }

    fn give_up<'a>(&mut self, why: GivenUp) -> Step<'a> {
        let buffer = std::mem::take(&mut self.buffer);
        let place = self.place;
        self.lose();
        Step::CutHead(buffer, place, why)
    }

    fn forget(&mut self) {
        // A head in pieces is seldom, and idle connections are many: none of them keeps a buffer.
        self.buffer = Vec::new();
        self.begun = false;
        self.lines = LineState::Inside;
        self.line_start = 0;
    }
}

fn take_up_to<'a>(left: &mut u64, input: &mut Input<'a>) -> &'a [u8] {
    let taken = input.take(usize::try_from(*left).unwrap_or(usize::MAX));
    *left -= taken.len() as u64;
    taken
}

fn leading_line_ends(bytes: &[u8]) -> usize {
    bytes.iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count()
}
