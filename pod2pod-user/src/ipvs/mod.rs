//! IPVS: the kernel's tables, and which client's new connection met the entry of an old one.
//!
//! In come lines of `/proc/net/ip_vs_conn` and its siblings ([`parse`]), poll by poll; out come [`Reuse`]s. [`detect`] keeps
//! the table of the last poll, [`rule`] says what the change of one entry proves, [`situation`] how harmful that is and
//! what cures it, [`legacy`] is ipvs-logger's rule, [`exact`] is what the kernel itself did with each SYN, and [`netlink`] the form
//! of what the kernel is asked. Nothing here reads a file or a clock: the time of a poll is an argument.
//!
//! What is never done: guess. `certain` is what no history of the entry without a new connection explains; a reading that is
//! torn, doubled or incomplete yields nothing that it does not prove.

pub mod closed;
pub mod detect;
pub mod drain;
pub mod exact;
pub mod join;
pub mod kernel;
pub mod legacy;
pub mod look;
pub mod met;
pub mod netlink;
pub mod parse;
mod rule;
pub mod selection;
pub mod series;
pub mod services;
pub mod situation;
pub mod state;
mod table;

use std::{net::IpAddr, time::Duration};

pub use detect::{Detector, Stats};
pub use rule::{Confidence, Verdict};

use services::Standing;
use situation::{Severity, Situation};
use state::State;

/// An address and a port.
pub type End = (IpAddr, u16);

/// What the key of an entry is made of: who speaks to which virtual address. Neither real server nor state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tuple {
    /// Protocol.
    pub protocol: parse::Protocol,
    /// The client.
    pub client: End,
    /// The virtual address.
    pub service: End,
}

/// An entry as one poll had it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sight {
    /// The real server.
    pub server: End,
    /// State.
    pub state: State,
    /// Seconds left, rounded down.
    pub expires: u32,
}

/// A new connection that met the entry of an old one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reuse {
    /// Whose.
    pub tuple: Tuple,
    /// The entry of the old connection, as last seen.
    pub before: Sight,
    /// The entry of the new one.
    pub now: Sight,
    /// What became of the old entry.
    pub verdict: Verdict,
    /// How sure that is.
    pub confidence: Confidence,
    /// The old entry may have run out between the polls, before the new connection came.
    pub may_have_expired: bool,
    /// From the old connection's last packet to the last one seen; absent if time-outs are not known or differ.
    pub idle: Option<Duration>,
    /// The real server that the new connection went to, as the service has it.
    pub standing: Standing,
    /// How much it matters.
    pub severity: Severity,
    /// Which of the known situations this is.
    pub situation: Situation,
}
