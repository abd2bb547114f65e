//! The Record: the one thing users see and the only type that is serialised. One flat object a line.
//!
//! An absent fact is an absent key, never null, "" or 0. What keys there are, their order, types and meaning is said once,
//! in [`fields::all`]; the JSON writer, the schema and the README's table all read it from there. Nothing here knows
//! where a fact comes from.

pub mod field;
pub mod fields;
pub mod ipvs;
pub mod json;
pub mod msgpack;
pub mod number;
pub mod party;
pub mod schema;
pub mod selected;
pub mod template;
pub mod text;

use std::{
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
};

use bytes::Bytes;
pub use ipvs::IpvsFacts;
pub use party::{Extra, Party, PartyKind, Role};
use smallvec::SmallVec;

/// What a record is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// One HTTP/1 request and what became of it, or one response that answers none.
    Http,
    /// One HTTP/2 connection, recognised and not decoded.
    Http2,
    /// A connection that met the entry that IPVS had of an older one, found in the kernel's table.
    IpvsReuse,
    /// One try to open a TCP connection: it failed, or took long.
    Connect,
}

impl Kind {
    /// Every kind.
    pub const ALL: &'static [Self] = &[Self::Http, Self::Http2, Self::IpvsReuse, Self::Connect];

    /// The word in the record.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Http2 => "http2",
            Self::IpvsReuse => "ipvs_reuse",
            Self::Connect => "connect",
        }
    }
}

/// What became of an exchange or of a connection attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// Request and final response were seen to their end; the connection was opened.
    Complete,
    /// No response, or no progress of it, within the time limit.
    Timeout,
    /// The connection was reset before the response ended.
    Reset,
    /// The connection was closed before the response ended as framed.
    Closed,
    /// A missing part may be our own loss: what happened is not known.
    Gap,
    /// The connection speaks another protocol from here on.
    Upgraded,
    /// A reset answered the connection attempt.
    Refused,
    /// An ICMP error answered the connection attempt.
    Unreachable,
}

impl Outcome {
    /// Every outcome.
    pub const ALL: &'static [Self] = &[
        Self::Complete,
        Self::Timeout,
        Self::Reset,
        Self::Closed,
        Self::Gap,
        Self::Upgraded,
        Self::Refused,
        Self::Unreachable,
    ];

    /// The word in the record.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Complete => "complete",
            Self::Timeout => "timeout",
            Self::Reset => "reset",
            Self::Closed => "closed",
            Self::Gap => "gap",
            Self::Upgraded => "upgraded",
            Self::Refused => "refused",
            Self::Unreachable => "unreachable",
        }
    }
}

/// Whose socket was observed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ObservedAt {
    /// The client's end.
    Client,
    /// The server's end.
    Server,
    /// An interface or a capture file between the ends.
    Path,
}

impl ObservedAt {
    /// Every place.
    pub const ALL: &'static [Self] = &[Self::Client, Self::Server, Self::Path];

    /// The word in the record.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Server => "server",
            Self::Path => "path",
        }
    }
}

/// A captured header field. A repeated field is several of these in wire order; they make one array in the record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CapturedHeader {
    /// Lower-case name.
    pub name: Bytes,
    /// Value, redacted if it is a credential.
    pub value: Bytes,
}

/// What a record says of one message, request or response.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MessageFacts {
    /// Captured header fields, grouped by name.
    pub headers: Vec<CapturedHeader>,
    /// Content bytes after removal of transfer coding, before content decoding.
    pub body_size: Option<u64>,
    /// Part of the content was not seen.
    pub body_cut: bool,
    /// First bytes of the content; empty if not asked for.
    pub body: Bytes,
    /// Content codings that were removed from `body`, in the order in which they had been applied.
    pub decoded: Vec<&'static str>,
}

/// One observation. Times are nanoseconds since 1970 UTC, durations nanoseconds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// First byte seen of the exchange.
    pub time: u64,
    /// What the record is about.
    pub kind: Kind,
    /// What became of it; absent on a progress report.
    pub outcome: Option<Outcome>,
    /// A progress report of an exchange that is still open.
    pub in_progress: bool,
    /// A second record of an exchange whose timeout was told before.
    pub late: bool,
    /// Whose socket was observed.
    pub observed_at: ObservedAt,
    /// Method, as sent.
    pub method: Option<Bytes>,
    /// Path of the target.
    pub path: Option<Bytes>,
    /// Query of the target, without the question mark.
    pub query: Option<Bytes>,
    /// The whole target; present if path and query do not rebuild it.
    pub original: Option<Bytes>,
    /// Scheme of the target URI.
    pub scheme: Option<Bytes>,
    /// Status code.
    pub status: Option<u16>,
    /// Start to end.
    pub duration: u64,
    /// First byte of the request to first byte of the final response.
    pub time_to_first_byte: Option<u64>,
    /// First byte to last byte of the request.
    pub request_duration: Option<u64>,
    /// What the client's duration was longer than the server's, in the second record of an exchange that both told.
    pub network_duration: Option<u64>,
    /// The client, from a PROXY protocol header if there was one.
    pub client: (IpAddr, u16),
    /// The server's end of the connection.
    pub server: (IpAddr, u16),
    /// The client's end of the connection, if `client` is from a PROXY protocol header.
    pub network_peer: Option<(IpAddr, u16)>,
    /// Who the client is in Kubernetes.
    pub client_party: Option<Arc<Party>>,
    /// Who the server is.
    pub server_party: Option<Arc<Party>>,
    /// `Host`; a repeated field is several values.
    pub host: SmallVec<[Bytes; 1]>,
    /// `User-Agent`.
    pub user_agent: Option<Bytes>,
    /// "1.0", "1.1" or "2".
    pub protocol_version: Option<&'static str>,
    /// The request's headers and content.
    pub request: MessageFacts,
    /// The response's headers and content.
    pub response: MessageFacts,
    /// 1xx responses before the final one.
    pub interim_responses: u32,
    /// Same from both ends, through NAT.
    pub connection_id: u64,
    /// The id is of the address tuple because the handshake was not seen.
    pub joined_late: bool,
    /// First byte of the request counted from the client's ISN.
    pub offset: Option<u64>,
    /// Ordinal on the connection.
    pub index: Option<u32>,
    /// W3C trace id, lower-case hex.
    pub trace_id: Option<Bytes>,
    /// W3C parent id, lower-case hex.
    pub trace_parent_id: Option<Bytes>,
    /// Segments seen again during the exchange.
    pub retransmits: Option<u64>,
    /// SYN to established.
    pub connect_duration: Option<u64>,
    /// How often the SYN was seen again.
    pub connect_retransmits: u8,
    /// Type and code of the ICMP error that answered the connection attempt.
    pub icmp: Option<(u8, u8)>,
    /// Framing oddities.
    pub anomalies: Vec<&'static str>,
    /// Share of records like this one that is kept, in millionths; absent if all are.
    pub sample_rate_millionths: Option<u32>,
    /// What IPVS did with the connection, if it met an old entry.
    pub ipvs: Option<Box<IpvsFacts>>,
    /// Request and response with all that somebody who looks closer asked for; never written as it is.
    pub closer: Option<Box<[MessageFacts; 2]>>,
}

impl Record {
    /// A record of which nothing is known.
    pub const fn blank() -> Self {
        const NOWHERE: (IpAddr, u16) = (IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);
        const NOTHING: MessageFacts = MessageFacts {
            headers: Vec::new(),
            body_size: None,
            body_cut: false,
            body: Bytes::new(),
            decoded: Vec::new(),
        };
        Self {
            time: 0,
            kind: Kind::Http,
            outcome: None,
            in_progress: false,
            late: false,
            observed_at: ObservedAt::Path,
            method: None,
            path: None,
            query: None,
            original: None,
            scheme: None,
            status: None,
            duration: 0,
            time_to_first_byte: None,
            request_duration: None,
            network_duration: None,
            client: NOWHERE,
            server: NOWHERE,
            network_peer: None,
            client_party: None,
            server_party: None,
            host: SmallVec::new_const(),
            user_agent: None,
            protocol_version: None,
            request: NOTHING,
            response: NOTHING,
            interim_responses: 0,
            connection_id: 0,
            joined_late: false,
            offset: None,
            index: None,
            trace_id: None,
            trace_parent_id: None,
            retransmits: None,
            connect_duration: None,
            connect_retransmits: 0,
            icmp: None,
            anomalies: Vec::new(),
            sample_rate_millionths: None,
            ipvs: None,
            closer: None,
        }
    }

    /// What a copy of it takes, about. Bytes.
    pub fn held_bytes(&self) -> usize {
        let of_message = |facts: &MessageFacts| {
            let headers = facts.headers.iter().map(|header| header.name.len() + header.value.len());
            facts.body.len() + headers.sum::<usize>() + size_of_val(&facts.headers[..])
        };
        let texts = [&self.method, &self.path, &self.query, &self.original, &self.user_agent];
        let texts = texts.into_iter().flatten().map(Bytes::len).sum::<usize>();
        size_of::<Self>() + texts + of_message(&self.request) + of_message(&self.response)
    }

    /// `error.type`: the status of a 5xx, else the outcome if it is a failure. A gap is not one: nothing is known.
    pub fn error_type(&self) -> Option<ErrorType> {
        if let Some(status) = self.status
            && (500..=599).contains(&status)
        {
            return Some(ErrorType::Status(status));
        }
        match self.outcome {
            Some(
                outcome @ (Outcome::Timeout
                | Outcome::Reset
                | Outcome::Closed
                | Outcome::Refused
                | Outcome::Unreachable),
            ) => Some(ErrorType::Outcome(outcome)),
            Some(Outcome::Complete | Outcome::Gap | Outcome::Upgraded) | None => None,
        }
    }
}

/// What `error.type` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorType {
    /// A server error.
    Status(u16),
    /// The exchange did not end well.
    Outcome(Outcome),
}
