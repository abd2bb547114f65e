//! What reassembly tells of a SYN: the Attempt, one try to open a connection and what came of it.
//!
//! One that was answered at once is no news and is not told, unless all are asked for.

use super::{Connection, Side};
use crate::capture::{KernelInstant, Unreachable};

/// What came of a connection attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fate {
    /// The other end took it.
    Answered,
    /// A reset answered the SYN (RFC 9293 3.10.7.3).
    Refused,
    /// An ICMP error that quotes the SYN answered it.
    Unreachable(Unreachable),
    /// Nothing answered it within [`super::Config::attempt_timeout`].
    Timeout,
    /// The source ended, or the answer was lost by our own capture: nobody is blamed.
    Unknown,
}

/// A connection attempt that is over, as seen at one place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// The connection that was tried: its originator is the client. [`Connection::syn_time`] is the first SYN's time, absent
    /// if only what answered it was seen; [`Connection::syn_retransmits`] how often the SYN was seen again.
    pub connection: Connection,
    /// What came of it.
    pub fate: Fate,
    /// When: the time of the answer (of the last SYN, if that passed unseen), or when the waiting ended.
    pub end: KernelInstant,
    /// It was told before, as one that nobody answered.
    pub late: bool,
}

impl Attempt {
    /// First SYN to the end, ns; 0 if no SYN was seen.
    pub fn duration(&self) -> u64 {
        let begin = self.connection.syn_time.unwrap_or(self.end);
        self.end.as_nanos().saturating_sub(begin.as_nanos())
    }

    /// The server's end of the connection was observed.
    pub fn is_at_server(&self) -> bool {
        self.connection.local == Some(Side::Responder)
    }
}
