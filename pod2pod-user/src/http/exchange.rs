//! The Exchange: one request and what became of it. Bytes are as on the wire; nothing is redacted or decoded here.

use std::net::SocketAddr;

use bytes::Bytes;

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
    pub headers: Vec<Header>,
    /// Content bytes: after removal of transfer coding, before content decoding; counted even where bytes were cut.
    pub body_size: u64,
    /// First bytes of the content, at most as configured; empty if not configured.
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
    /// Framing that a strict reader would refuse, as fixed words in the order met, e.g. `conflicting_length`.
    pub anomalies: Anomalies,
}

/// A set of framing oddities, as bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Anomalies(pub u32);
