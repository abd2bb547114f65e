//! What heads say, ready to be taken: read, or known because the same bytes were read before.
//!
//! Clients and servers repeat themselves: on a connection that is kept alive, requests are often the same to the byte, and
//! responses but for the second in `Date`. A few heads are kept with what was read of them, found by how they begin and
//! how many bytes came with them, and compared whole. What is told is the same with and without them.

use super::{
    Shared, clean,
    exchange::{Anomalies, Exchange, Request, Response},
    fields::{Fields, Upgrade},
    flow::{request_of, response_of},
    framing::{Framing, FramingFields, Method},
    reader::Place,
    start_line::{RequestLine, StatusLine},
};

/// Heads that are known: some for each of dozens of services, times of the day, sizes.
pub const DEFAULT_KNOWN_HEADS: usize = 256;

/// Longest head that is kept as known, bytes: usual ones have 40 to 800.
pub const MAX_KNOWN_HEAD: usize = 1024;

/// Of so many heads that were not known one becomes it: where no two are alike, keeping them costs nearly nothing.
const UNKNOWN_FOR_ONE_KEPT: u32 = 8;

/// What a request's head says, beside what is told of it.
#[derive(Clone, Copy, Debug)]
pub(super) struct RequestHead {
    pub(super) method: Method,
    pub(super) framing: Framing,
    pub(super) anomalies: Anomalies,
    pub(super) upgrade: Option<Upgrade>,
}

/// What a response's head says, beside what is told of it. How its body is framed depends on the request too.
#[derive(Clone, Copy, Debug)]
pub(super) struct ResponseHead {
    pub(super) framing: FramingFields,
    pub(super) anomalies: Anomalies,
    pub(super) upgrade: Option<Upgrade>,
}

impl RequestHead {
    pub(super) fn new(line: &RequestLine<'_>, framing: FramingFields, upgrade: Option<Upgrade>) -> Self {
        let (framing, mut anomalies) = framing.of_request(line.minor_version);
        anomalies.insert(line.anomalies);
        Self { method: Method::of(line.method), framing, anomalies, upgrade }
    }
}

impl ResponseHead {
    pub(super) const fn new(line: &StatusLine, framing: FramingFields, upgrade: Option<Upgrade>) -> Self {
        Self { framing, anomalies: line.anomalies, upgrade }
    }
}

/// A head of either kind.
#[derive(Clone, Debug)]
pub(super) enum Head {
    Request(Request, RequestHead),
    Response(Response, ResponseHead),
}

/// A head that is to be taken: a request where it will be told from.
#[derive(Debug)]
pub(super) enum Fresh {
    Request(Box<Exchange>, RequestHead),
    Response(Response, ResponseHead),
}

/// Heads that are known.
#[derive(Debug, Default)]
pub(super) struct KnownHeads {
    places: Vec<Known>,
    /// Heads that were not known since one was kept.
    unknown: u32,
}

#[derive(Debug, Default)]
struct Known {
    bytes: Vec<u8>,
    head: Option<Head>,
}

/// Most bytes that are taken for one known head: itself, what is kept of it, and its place.
pub(super) const BYTES_OF_KNOWN_HEAD: usize = size_of::<Known>() + 2 * MAX_KNOWN_HEAD;

impl KnownHeads {
    /// Room for so many, rounded up to a power of two; none for zero.
    pub(super) fn new(heads: usize) -> Self {
        let heads = if heads == 0 { 0 } else { heads.next_power_of_two() };
        Self { places: std::iter::repeat_with(Known::default).take(heads).collect(), unknown: 0 }
    }

    /// The head that `bytes` begin with, if it is known, and its length.
    pub(super) fn find(&self, bytes: &[u8]) -> Option<(&Head, usize)> {
        let known = self.places.get(self.place(bytes)?)?;
        let head = known.head.as_ref()?;
        bytes.starts_with(&known.bytes).then_some((head, known.bytes.len()))
    }

    /// Keeps a head that `bytes` begin with now and then.
    fn keep(&mut self, bytes: &[u8], length: usize, head: impl FnOnce() -> Option<Head>) {
        self.unknown += 1;
        if self.unknown < UNKNOWN_FOR_ONE_KEPT || length > MAX_KNOWN_HEAD {
            return;
        }
        let place = self.place(bytes);
        if let Some(known) = place.and_then(|place| self.places.get_mut(place)) {
            self.unknown = 0;
            known.bytes.clear();
            known.bytes.extend_from_slice(bytes.get(..length).unwrap_or_default());
            known.head = head();
        }
    }

    /// Where a head that `bytes` begin with would be: by its first bytes and by how many there are.
    fn place(&self, bytes: &[u8]) -> Option<usize> {
        // An odd constant without a pattern: its multiples differ in their high bits (Knuth, 6.4).
        const MIX: u64 = 0x9e37_79b9_7f4a_7c15;
        let mask = self.places.len().checked_sub(1)?;
        let (words, _) = bytes.get(..bytes.len().min(32))?.as_chunks::<8>();
        let mixed = words.iter().fold(bytes.len() as u64, |mixed, word| {
            (mixed ^ u64::from_le_bytes(*word)).wrapping_mul(MIX).rotate_left(29)
        });
        Some((mixed.wrapping_mul(MIX) >> 32) as usize & mask)
    }
}

impl Shared {
    /// The whole clean head that `bytes` at `place` begin with, and its length. One that is not known is from here on, now
    /// and then.
    #[inline]
    pub(super) fn clean_head(&mut self, bytes: &[u8], place: Place) -> Option<(Fresh, usize)> {
        match self.known_heads.find(bytes) {
            Some((Head::Request(request, head), length)) => {
                let (request, head) = (request.clone(), *head);
                Some((Fresh::Request(self.begin_request(request, place), head), length))
            }
            Some((Head::Response(response, head), length)) => {
                let response = Response { first_byte: place.time, ..response.clone() };
                Some((Fresh::Response(response, *head), length))
            }
            None => self.read_clean_head(bytes, place),
        }
    }

    /// An exchange that begins with `request` at `place`.
    #[inline]
    pub(super) fn begin_request(&mut self, request: Request, place: Place) -> Box<Exchange> {
        let mut exchange = self.begin(place.offset, place.time);
        exchange.request.insert(request).first_byte = place.time;
        exchange
    }

    fn read_clean_head(&mut self, bytes: &[u8], place: Place) -> Option<(Fresh, usize)> {
        let window = bytes.get(..self.config.max_head).unwrap_or(bytes);
        self.scratch.begin();
        if window.starts_with(b"HTTP/") {
            let mut fields = Fields::new(&self.response_headers, &mut self.scratch);
            let (line, length) = clean::response(window, &mut fields)?;
            let head = ResponseHead::new(&line, fields.framing, fields.upgrade);
            let response = response_of(&line, place, self);
            self.known_heads.keep(bytes, length, || Some(Head::Response(response.clone(), head)));
            return Some((Fresh::Response(response, head), length));
        }
        let mut fields = Fields::new(&self.request_headers, &mut self.scratch);
        let (line, length) = clean::request(window, &mut fields)?;
        let head = RequestHead::new(&line, fields.framing, fields.upgrade);
        let request = request_of(&line, place, self);
        let exchange = self.begin_request(request, place);
        let known = || exchange.request.clone().map(|request| Head::Request(request, head));
        self.known_heads.keep(bytes, length, known);
        Some((Fresh::Request(exchange, head), length))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(line: &StatusLine) -> Head {
        let response = Response {
            status: line.status,
            minor_version: line.minor_version,
            headers: Vec::new(),
            body_size: 0,
            codings: Default::default(),
            body_prefix: Default::default(),
            first_byte: Default::default(),
            last_byte: None,
            body_cut: false,
        };
        let framing = FramingFields::default();
        Head::Response(response, ResponseHead { framing, anomalies: Anomalies::NONE, upgrade: None })
    }

    #[test]
    fn a_head_is_known_by_all_its_bytes_and_up_to_its_length_limit() {
        let line = StatusLine { status: 200, minor_version: 1, anomalies: Anomalies::NONE };
        for (length, expected) in [(MAX_KNOWN_HEAD, true), (MAX_KNOWN_HEAD + 1, false)] {
            let mut heads = KnownHeads::new(2);
            let mut bytes = vec![b'a'; MAX_KNOWN_HEAD + 10];
            for _ in 1..UNKNOWN_FOR_ONE_KEPT {
                heads.keep(&bytes, length, || Some(head(&line)));
                assert!(heads.find(&bytes).is_none());
            }
            heads.keep(&bytes, length, || Some(head(&line)));
            assert_eq!(heads.find(&bytes).map(|(_, length)| length), expected.then_some(length));
            bytes[length] = b'b';
            assert_eq!(heads.find(&bytes).is_some(), expected);
            bytes[length - 1] = b'b';
            assert!(heads.find(&bytes).is_none());
        }
    }

    #[test]
    fn without_room_nothing_is_known() {
        let line = StatusLine { status: 200, minor_version: 1, anomalies: Anomalies::NONE };
        let mut heads = KnownHeads::new(0);
        for _ in 0..2 * UNKNOWN_FOR_ONE_KEPT {
            heads.keep(b"HTTP/1.1 200 OK\r\n\r\n", 19, || Some(head(&line)));
        }
        assert!(heads.find(b"HTTP/1.1 200 OK\r\n\r\n").is_none());
    }
}
