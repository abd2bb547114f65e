//! What the engine asks of a protocol: to send a parcel, and to say what became of it.

use std::time::Duration;

use super::parcel::Parcel;

/// Where parcels go. One file of `sinks` each.
pub trait Target: 'static {
    /// Sends all items of `parcel` and waits for the answer. Several may be under way at once, unless [`super::Limits`] allow one only.
    /// Whoever calls has no time any more when it drops the future.
    fn send(&self, parcel: &Parcel) -> impl Future<Output = Answer>;
}

/// What a target answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It has all items.
    Delivered,
    /// Of each item something else.
    Judged(Vec<Verdict>),
    /// It has none: they are too much at once.
    TooLarge,
    /// As far as is known it has none, and may take them later.
    Later(Trouble),
    /// It has none, and will never take them.
    Never(Refusal),
}

/// What became of one item.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The target has it.
    Delivered,
    /// The target had it already, of an attempt whose answer was lost.
    Duplicate,
    /// It may take it later.
    Later(TroubleKind),
    /// It will never take it.
    Never(Refusal),
}

/// Why an attempt failed that may succeed later.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// What kind.
    pub kind: TroubleKind,
    /// In words, without secrets.
    pub detail: String,
    /// How long the target wants to be left alone.
    pub after: Option<Duration>,
}

impl Trouble {
    /// Of a target that says nothing about when to come back.
    pub fn new(kind: TroubleKind, detail: impl ToString) -> Self {
        Self { kind, detail: detail.to_string(), after: None }
    }
}

/// Kinds of trouble; a label of metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TroubleKind {
    /// No connection: no address, refused, unreachable.
    Connect,
    /// No TLS: a certificate, a name, a version.
    Tls,
    /// No answer in time.
    Timeout,
    /// The connection ended before the answer, or in it.
    Closed,
    /// Something else than the protocol's answers.
    Nonsense,
    /// The target knows us not, or not well enough.
    Unauthorized,
    /// It says that this is too much.
    Throttled,
    /// It says that it cannot, now.
    Unavailable,
}

impl TroubleKind {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Connect,
        Self::Tls,
        Self::Timeout,
        Self::Closed,
        Self::Nonsense,
        Self::Unauthorized,
        Self::Throttled,
        Self::Unavailable,
    ];

    /// Its name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Tls => "tls",
            Self::Timeout => "timeout",
            Self::Closed => "closed",
            Self::Nonsense => "nonsense",
            Self::Unauthorized => "unauthorized",
            Self::Throttled => "throttled",
            Self::Unavailable => "unavailable",
        }
    }
}

/// Why a target will never take an item.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// What kind.
    pub kind: RefusalKind,
    /// In words, without secrets.
    pub detail: String,
}

impl Refusal {
    /// Of a kind.
    pub fn new(kind: RefusalKind, detail: impl ToString) -> Self {
        Self { kind, detail: detail.to_string() }
    }
}

/// Kinds of refusals; a label of metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefusalKind {
    /// One item is more than the target takes.
    TooLarge,
    /// The target says that it is wrong.
    Rejected,
}

impl RefusalKind {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::TooLarge, Self::Rejected];

    /// Its name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::TooLarge => "too_large",
            Self::Rejected => "rejected",
        }
    }
}
