//! Exact mode: what IPVS decided on each SYN, as probes in the kernel saw it. A record ([`raw`]) becomes a
//! [`Decision`]; [`btf`] and [`layout`] find out whether a kernel is one that can be followed. Loads nothing, and reads no file.

pub mod btf;
pub mod layout;
pub mod raw;
pub mod settle;

use std::{net::IpAddr, time::Duration};

use pod2pod_common::decision::{
    self, DecisionRecord, ENTRY_TRACKED, SEEN_CONTROLLED, SEEN_EXPIRED, SEEN_LAST_KNOWN, SEEN_MADE,
    SEEN_MADE_SERVER, SEEN_MET, SEEN_MET_SERVER, SEEN_NO_SERVER, SEEN_REPEATED, SERVER_AVAILABLE,
};

use super::{
    End, Tuple, Verdict,
    kernel::Kernel,
    parse::Protocol,
    services::Standing,
    situation::{self, Severity, Situation},
    state::State,
};

/// What became of a SYN.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// There was no entry, and one was made.
    New,
    /// The entry of an old connection took it to the old one's real server.
    Reused,
    /// The entry of an old connection was given up, and the connection scheduled anew.
    Rescheduled,
    /// IPVS dropped it.
    Dropped(Cause),
    /// The entry was given up, no service wanted the connection, and the packet went to this machine itself.
    PassedOn,
    /// Sent again while the first one's entry lives: no new connection.
    Repeated,
}

impl Outcome {
    /// The word in the record.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Reused => "reused",
            Self::Rescheduled => "rescheduled",
            Self::Dropped(_) => "dropped",
            Self::PassedOn => "passed_on",
            Self::Repeated => "repeated",
        }
    }
}

/// Why a SYN was dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cause {
    /// Its service has no real server that takes connections.
    NoServer,
    /// It met an entry whose real server was removed.
    RemovedServer,
    /// It met an entry that was given up for it, while netfilter still tracked the old connection: the client's next SYN, a
    /// second later, is scheduled.
    Tracked,
    /// Not seen: too much load (`drop_packet`), or no memory for an entry.
    Unknown,
}

impl Cause {
    /// The word in the record.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NoServer => "no_server",
            Self::RemovedServer => "removed_server",
            Self::Tracked => "tracked",
            Self::Unknown => "unknown",
        }
    }
}

/// The entry that a SYN met, as it was before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Met {
    /// Its real server.
    pub server: End,
    /// That server as its service has it.
    pub standing: Standing,
    /// Its state.
    pub state: State,
    /// Flags (`IP_VS_CONN_F_*`, include/uapi/linux/ip_vs.h).
    pub flags: u32,
    /// Time that it had left; none if its time was up.
    pub left: Duration,
    /// Since the last packet of its connection.
    pub idle: Duration,
    /// Another entry controls it: that of a persistent service, or of FTP.
    pub is_controlled: bool,
}

impl Met {
    /// Whether netfilter tracks the connection.
    pub const fn is_tracked(&self) -> bool {
        self.flags & ENTRY_TRACKED != 0
    }
}

/// What IPVS decided on one SYN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    /// When, by the kernel's monotonic clock.
    pub at: Duration,
    /// Whose, and which virtual address.
    pub tuple: Tuple,
    /// What became of it.
    pub outcome: Outcome,
    /// Whether the same SYN came before; absent if the one before is not remembered.
    pub is_repeated: Option<bool>,
    /// The entry that it met.
    pub met: Option<Met>,
    /// Real server of the entry that was made, and how it stands.
    pub made: Option<(End, Standing)>,
    /// State and time left of the entry that took it, after it.
    pub after: Option<(State, Duration)>,
    /// Initial sequence number of the SYN.
    pub isn: u32,
}

/// A record that cannot be one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed;

impl Decision {
    /// What a record says. `tick` is the length of the kernel's ticks.
    ///
    /// # Errors
    /// No such record is written.
    pub fn of(record: &DecisionRecord, tick: Duration) -> Result<Self, Malformed> {
        let has = |bit: u16| record.seen & bit != 0;
        let outcome = match decision::outcome(record) {
            decision::Outcome::NotOurs | decision::Outcome::Unseen => return Err(Malformed),
            decision::Outcome::New => Outcome::New,
            decision::Outcome::Reused => Outcome::Reused,
            decision::Outcome::Rescheduled => Outcome::Rescheduled,
            decision::Outcome::Dropped => Outcome::Dropped(cause(record)),
            decision::Outcome::PassedOn => Outcome::PassedOn,
            decision::Outcome::Repeated => Outcome::Repeated,
        };
        let protocol = Protocol::TCP;
        let client = (address(record.client), record.client_port);
        let service = (address(record.service), record.service_port);
        Ok(Self {
            at: Duration::from_nanos(record.time_ns),
            tuple: Tuple { protocol, client, service },
            outcome,
            is_repeated: has(SEEN_LAST_KNOWN).then(|| has(SEEN_REPEATED)),
            met: has(SEEN_MET).then(|| met(record, tick)),
            made: has(SEEN_MADE).then(|| {
                let server = (address(record.made_server), record.made_port);
                let standing = if has(SEEN_MADE_SERVER) {
                    Standing::Weight(record.made_weight.max(0).unsigned_abs())
                } else {
                    Standing::Unknown
                };
                (server, standing)
            }),
            after: (has(SEEN_MADE) || outcome == Outcome::Reused || outcome == Outcome::Repeated)
                .then(|| (state(record.state_after), ticks(left(record.left_after), tick))),
            isn: record.isn,
        })
    }

    /// What became of a connection that met the entry of an old one; absent of every other.
    pub const fn verdict(&self) -> Option<Verdict> {
        match (self.outcome, &self.met) {
            (Outcome::Reused, _) => Some(Verdict::Reused),
            (Outcome::Rescheduled, _) => Some(Verdict::Rescheduled),
            (Outcome::Dropped(_), Some(_)) => Some(Verdict::Dropped),
            (Outcome::Dropped(_), None) | (Outcome::New | Outcome::PassedOn | Outcome::Repeated, _) => None,
        }
    }

    /// Which of the known situations it is for a client whose connection met an old entry, and how harmful.
    pub fn situation(&self, kernel: &Kernel) -> Option<(Situation, Severity)> {
        let met = self.met?;
        Some(match self.outcome {
            Outcome::Reused => situation::of(Verdict::Reused, met.state, met.standing, kernel),
            // It was seen not to be dropped.
            Outcome::Rescheduled => (Situation::Rescheduled, Severity::Info),
            Outcome::Dropped(Cause::RemovedServer) => (Situation::RemovedServerDropped, Severity::Critical),
            Outcome::Dropped(Cause::Tracked) => (Situation::RescheduledAfterDrop, Severity::Warning),
            Outcome::Dropped(Cause::NoServer) => (Situation::NoServer, Severity::Critical),
            Outcome::Dropped(Cause::Unknown) => (Situation::Dropped, Severity::Critical),
            Outcome::New | Outcome::PassedOn | Outcome::Repeated => return None,
        })
    }

    /// The real server that the connection went to.
    pub fn server(&self) -> Option<End> {
        match self.outcome {
            Outcome::New | Outcome::Rescheduled => self.made.map(|(server, _)| server),
            Outcome::Reused | Outcome::Repeated => self.met.map(|met| met.server),
            Outcome::Dropped(_) | Outcome::PassedOn => None,
        }
    }
}

fn met(record: &DecisionRecord, tick: Duration) -> Met {
    let has = |bit: u16| record.seen & bit != 0;
    let standing = if !has(SEEN_MET_SERVER) {
        Standing::Unknown
    } else if record.met_flags & SERVER_AVAILABLE == 0 {
        Standing::Absent
    } else {
        Standing::Weight(record.met_weight.max(0).unsigned_abs())
    };
    let left = left(record.left);
    Met {
        server: (address(record.met_server), record.met_port),
        standing,
        state: state(record.state),
        flags: record.entry_flags,
        left: ticks(left, tick),
        idle: ticks(record.timeout.saturating_sub(left), tick),
        is_controlled: has(SEEN_CONTROLLED),
    }
}

/// Past its time the difference is below zero.
fn left(ticks: u64) -> u64 {
    i64::from_ne_bytes(ticks.to_ne_bytes()).max(0).unsigned_abs()
}

/// So many ticks; a day at most, which no entry has.
fn ticks(count: u64, tick: Duration) -> Duration {
    const LONGEST: Duration = Duration::from_secs(86_400);
    u32::try_from(count)
        .ok()
        .and_then(|count| tick.checked_mul(count))
        .map_or(LONGEST, |time| time.min(LONGEST))
}

fn cause(record: &DecisionRecord) -> Cause {
    let has = |bit: u16| record.seen & bit != 0;
    if has(SEEN_NO_SERVER) {
        Cause::NoServer
    } else if has(SEEN_MADE) || !has(SEEN_MET) {
        Cause::Unknown
    } else if has(SEEN_EXPIRED) {
        Cause::Tracked
    } else if has(SEEN_MET_SERVER) && record.met_flags & SERVER_AVAILABLE == 0 {
        Cause::RemovedServer
    } else {
        Cause::Unknown
    }
}

/// The state with this number (`IP_VS_TCP_S_*`, include/net/ip_vs.h).
const fn state(number: u16) -> State {
    match number {
        0 => State::None,
        1 => State::Established,
        2 => State::SynSent,
        3 => State::SynRecv,
        4 => State::FinWait,
        5 => State::TimeWait,
        6 => State::Close,
        7 => State::CloseWait,
        8 => State::LastAck,
        9 => State::Listen,
        10 => State::SynAck,
        _ => State::Other,
    }
}

fn address(bytes: [u8; 16]) -> IpAddr {
    IpAddr::from(bytes).to_canonical()
}
