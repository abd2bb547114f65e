//! The Exchange: one request and what became of it. Bytes are as on the wire; nothing is redacted or decoded here.

use std::net::SocketAddr;

use bytes::Bytes;
use smallvec::SmallVec;

use super::coding::Codings;
use crate::{
    capture::KernelInstant,
    reassembly::{Connection, Side},
};

/// What became of an exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// Request and final response were seen to their end.
    Complete,
    /// No response (or no progress of it) within the time limit.
    Timeout,
    /// The connection was reset before the response ended.
    Reset,
    /// The connection was closed before the response ended as framed.
    Closed,
    /// A missing part may be our own loss: what happened is not known.
    Gap,
    /// 101, or 2xx to CONNECT: the connection speaks another protocol from here on.
    Upgraded,
}

/// What the record is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// HTTP/1.0 or HTTP/1.1: one Exchange is one request.
    Http1,
    /// HTTP/2 with prior knowledge: one Exchange stands for the whole connection, without request and response.
    Http2,
}

/// A header field that somebody asked for, as it was on the wire.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// Lower-case field name.
    pub name: Bytes,
    /// Value without surrounding white space; obs-fold replaced by a space (RFC 9112 5.2).
    pub value: Bytes,
}

/// Header fields of a request. Nearly every one has `Host` and `User-Agent`: these two take no allocation.
pub type Headers = SmallVec<[Header; 2]>;

/// The request's side of an Exchange.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Method token, as sent.
    pub method: Bytes,
    /// Request target, as sent (RFC 9112 3.2).
    pub target: Bytes,
    /// Minor version: 0 or 1.
    pub minor_version: u8,
    /// `Host`, `User-Agent`, `traceparent` and those of the allow-list, in wire order, repeated fields repeated.
    pub headers: Headers,
    /// Content bytes: after removal of transfer coding, before content decoding; counted even where bytes were cut.
    pub body_size: u64,
    /// Content codings of the body.
    pub codings: Codings,
    /// First bytes of the content, codings not removed, at most as configured; empty if not configured.
    pub body_prefix: Bytes,
    /// First byte of the request.
    pub first_byte: KernelInstant,
    /// Last byte of the request as framed, absent if it was not seen.
    pub last_byte: Option<KernelInstant>,
    /// Part of the body was not seen (gap, cut): `body_size` is a lower bound unless the framing told it.
    pub body_cut: bool,
}

/// The response's side of an Exchange.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    /// Status code, 100–999.
    pub status: u16,
    /// Minor version: 0 or 1.
    pub minor_version: u8,
    /// Header fields of the allow-list.
    pub headers: Vec<Header>,
    /// As in [`Request::body_size`].
    pub body_size: u64,
    /// Content codings of the body.
    pub codings: Codings,
    /// As in [`Request::body_prefix`].
    pub body_prefix: Bytes,
    /// First byte of the final response.
    pub first_byte: KernelInstant,
    /// Last byte of the response as framed, absent if it was not seen.
    pub last_byte: Option<KernelInstant>,
    /// As in [`Request::body_cut`].
    pub body_cut: bool,
}

/// One request and what became of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exchange {
    /// The connection as known when the exchange was told.
    pub connection: Connection,
    /// Which side is the HTTP client.
    pub client: Side,
    /// Client and destination address of a PROXY protocol header, if one came first.
    pub proxied: Option<(SocketAddr, SocketAddr)>,
    /// HTTP/1 exchange or HTTP/2 connection.
    pub protocol: Protocol,
    /// What became of it. For a progress report: what would be said now is not said, the outcome is absent.
    pub outcome: Option<Outcome>,
    /// A second telling of an exchange whose timeout was told before.
    pub late: bool,
    /// The request's first byte counted from the client's ISN, 64 bits; of a response without a request, the
    /// response's first byte counted from the server's.
    pub offset: u64,
    /// Ordinal on the connection from 0; absent after a gap or a late start.
    pub index: Option<u32>,
    /// The request; absent for a response that answers none.
    pub request: Option<Request>,
    /// The final response; absent if none came.
    pub response: Option<Response>,
    /// 1xx responses before the final one, 101 not counted.
    pub interim_responses: u32,
    /// First byte seen of the exchange.
    pub start: KernelInstant,
    /// Last event seen of the exchange: its end, or the moment it was given up.
    pub end: KernelInstant,
    /// Segments seen again between start and end.
    pub retransmits: u64,
    /// Framing that a strict reader would refuse, as fixed words, e.g. `conflicting_length`.
    pub anomalies: Anomalies,
}

/// A set of framing oddities, as bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Anomalies(pub u32);

impl Anomalies {
    /// None.
    pub const NONE: Self = Self(0);
    /// Request or status line with other white space than single spaces, or with a part missing (RFC 9112 3, 4).
    pub const ODD_START_LINE: Self = Self(1);
    /// Another version than `HTTP/1.0` or `HTTP/1.1`, or in another case (RFC 9112 2.3).
    pub const ODD_VERSION: Self = Self(1 << 1);
    /// White space, controls or bytes above 127 in the request target (RFC 9112 3.2).
    pub const ODD_TARGET: Self = Self(1 << 2);
    /// A line of a head ended by a bare LF (RFC 9112 2.2).
    pub const BARE_LF: Self = Self(1 << 3);
    /// A field value over several lines (RFC 9112 5.2).
    pub const FOLDED_HEADER: Self = Self(1 << 4);
    /// A header line that is no field: no colon, no token before it, control bytes (RFC 9112 5.1).
    pub const INVALID_HEADER: Self = Self(1 << 5);
    /// White space between a field name and its colon (RFC 9112 5.1).
    pub const SPACE_BEFORE_COLON: Self = Self(1 << 6);
    /// The same `Content-Length` more than once (RFC 9110 8.6).
    pub const REPEATED_LENGTH: Self = Self(1 << 7);
    /// Different `Content-Length` values: the last is used (RFC 9112 6.3, 5).
    pub const CONFLICTING_LENGTH: Self = Self(1 << 8);
    /// A `Content-Length` that is no number of 64 bits: `+5` is read as 5, else
    /// the end of a request is sought and that of a response is the connection's (RFC 9112 6.3, 5).
    pub const INVALID_LENGTH: Self = Self(1 << 9);
    /// `Transfer-Encoding` and `Content-Length`: the former decides (RFC 9112 6.3, 3).
    pub const LENGTH_AND_TRANSFER_ENCODING: Self = Self(1 << 10);
    /// `Transfer-Encoding` in HTTP/1.0 (RFC 9112 6.1).
    pub const TRANSFER_ENCODING_IN_HTTP_1_0: Self = Self(1 << 11);
    /// A `Transfer-Encoding` that does not end in `chunked` (RFC 9112 6.3, 4), or no list of codings.
    pub const ODD_TRANSFER_ENCODING: Self = Self(1 << 12);
    /// `chunked` more than once (RFC 9112 7.1): removed once.
    pub const REPEATED_CHUNKED: Self = Self(1 << 13);
    /// A chunk-size line that the grammar does not allow but whose size is plain (RFC 9112 7.1).
    pub const ODD_CHUNK: Self = Self(1 << 14);
    /// A chunked body whose framing is broken: its end cannot be known (RFC 9112 7.1).
    pub const BROKEN_CHUNK: Self = Self(1 << 15);
    /// An `ICY` status line (SHOUTcast), read as HTTP/1.0.
    pub const ICY_STATUS_LINE: Self = Self(1 << 16);
    /// The head was not seen to its end: cut, lost or over its limit. What is told is from its first part.
    pub const HEAD_CUT: Self = Self(1 << 17);
    /// The response ended but the request never did.
    pub const REQUEST_UNFINISHED: Self = Self(1 << 18);
    /// The capture cut the request target: what is told is its beginning.
    pub const TARGET_CUT: Self = Self(1 << 19);

    /// Every bit with its word, in the order in which reading a message can meet them.
    const NAMES: [(Self, &'static str); 20] = [
        (Self::ODD_START_LINE, "odd_start_line"),
        (Self::ODD_VERSION, "odd_version"),
        (Self::ODD_TARGET, "odd_target"),
        (Self::BARE_LF, "bare_lf"),
        (Self::FOLDED_HEADER, "folded_header"),
        (Self::INVALID_HEADER, "invalid_header"),
        (Self::SPACE_BEFORE_COLON, "space_before_colon"),
        (Self::REPEATED_LENGTH, "repeated_length"),
        (Self::CONFLICTING_LENGTH, "conflicting_length"),
        (Self::INVALID_LENGTH, "invalid_length"),
        (Self::LENGTH_AND_TRANSFER_ENCODING, "length_and_transfer_encoding"),
        (Self::TRANSFER_ENCODING_IN_HTTP_1_0, "transfer_encoding_in_http_1_0"),
        (Self::ODD_TRANSFER_ENCODING, "odd_transfer_encoding"),
        (Self::REPEATED_CHUNKED, "repeated_chunked"),
        (Self::ODD_CHUNK, "odd_chunk"),
        (Self::BROKEN_CHUNK, "broken_chunk"),
        (Self::ICY_STATUS_LINE, "icy_status_line"),
        (Self::HEAD_CUT, "head_cut"),
        (Self::REQUEST_UNFINISHED, "request_unfinished"),
        (Self::TARGET_CUT, "target_cut"),
    ];

    /// Whether all of `other` are in the set.
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Whether the set is empty.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Adds all of `other`.
    pub const fn insert(&mut self, other: Self) {
        self.0 |= other.0;
    }

    /// The words of the set, in the order of their bits.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        Self::NAMES.iter().filter(move |(bit, _)| self.contains(*bit)).map(|(_, name)| *name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_bit_has_one_word() {
        let all = Anomalies(u32::MAX);
        assert_eq!(all.names().count(), Anomalies::NAMES.len());
        let bits: u32 = Anomalies::NAMES.iter().map(|(bit, _)| bit.0).sum();
        assert_eq!(bits, (1 << Anomalies::NAMES.len()) - 1);
        let mut some = Anomalies::CONFLICTING_LENGTH;
        some.insert(Anomalies::BARE_LF);
        assert_eq!(some.names().collect::<Vec<_>>(), ["bare_lf", "conflicting_length"]);
    }
}
