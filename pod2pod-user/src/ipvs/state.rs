//! States of entries, by protocol: names, time-outs, and which of them say that a connection ended. No transitions.

/// A state; those of TCP, of SCTP, of UDP and of templates.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum State {
    /// Not set yet; also of templates.
    None,
    /// TCP and SCTP.
    Established,
    /// The server opened.
    SynSent,
    /// The client opened.
    SynRecv,
    /// The server closed first; with replies unseen, the client closed.
    FinWait,
    /// Both closed.
    TimeWait,
    /// Reset.
    Close,
    /// The client closed first.
    CloseWait,
    /// Of the kernel's table; never entered.
    LastAck,
    /// Of the kernel's table; never entered.
    Listen,
    /// With `secure_tcp` only.
    SynAck,
    /// UDP, which has no other.
    Udp,
    /// A template that was used.
    Assured,
    /// SCTP: an association begins (INIT seen once, or more often).
    SctpInit,
    /// SCTP: between INIT and the association.
    SctpOpening,
    /// SCTP: it is being shut down.
    SctpShutdown,
    /// SCTP.
    Rejected,
    /// SCTP.
    Closed,
    /// None of these.
    Other,
}

impl State {
    /// Every state, as they are numbered.
    pub const ALL: &'static [Self] = &[
        Self::None,
        Self::Established,
        Self::SynSent,
        Self::SynRecv,
        Self::FinWait,
        Self::TimeWait,
        Self::Close,
        Self::CloseWait,
        Self::LastAck,
        Self::Listen,
        Self::SynAck,
        Self::Udp,
        Self::Assured,
        Self::SctpInit,
        Self::SctpOpening,
        Self::SctpShutdown,
        Self::Rejected,
        Self::Closed,
        Self::Other,
    ];

    /// Whether a connection of TCP ended in it, and its entry waits to run out.
    pub const fn is_closed(self) -> bool {
        matches!(self, Self::TimeWait | Self::FinWait | Self::CloseWait | Self::Close)
    }

    /// From a column.
    pub fn parse(word: &[u8]) -> Self {
        match word {
            b"ESTABLISHED" => Self::Established,
            b"TIME_WAIT" => Self::TimeWait,
            b"SYN_RECV" => Self::SynRecv,
            b"FIN_WAIT" => Self::FinWait,
            b"CLOSE" => Self::Close,
            b"CLOSE_WAIT" => Self::CloseWait,
            b"UDP" => Self::Udp,
            b"NONE" => Self::None,
            b"ASSURED" => Self::Assured,
            b"SYN_SENT" => Self::SynSent,
            b"SYNACK" => Self::SynAck,
            b"LAST_ACK" => Self::LastAck,
            b"LISTEN" => Self::Listen,
            b"INIT1" | b"INIT" => Self::SctpInit,
            b"C-SENT" | b"C-REPLIED" | b"C-WAIT" | b"COOKIE" | b"C-ECHOED" => Self::SctpOpening,
            b"S-SENT" | b"S-RECEIVED" | b"S-ACK-SENT" => Self::SctpShutdown,
            b"REJECTED" => Self::Rejected,
            b"CLOSED" => Self::Closed,
            _ => Self::Other,
        }
    }

    /// Its name; of SCTP's, which are several to one, what they have in common.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::None => "NONE",
            Self::Established => "ESTABLISHED",
            Self::SynSent => "SYN_SENT",
            Self::SynRecv => "SYN_RECV",
            Self::FinWait => "FIN_WAIT",
            Self::TimeWait => "TIME_WAIT",
            Self::Close => "CLOSE",
            Self::CloseWait => "CLOSE_WAIT",
            Self::LastAck => "LAST_ACK",
            Self::Listen => "LISTEN",
            Self::SynAck => "SYNACK",
            Self::Udp => "UDP",
            Self::Assured => "ASSURED",
            Self::SctpInit => "INIT",
            Self::SctpOpening => "COOKIE",
            Self::SctpShutdown => "SHUTDOWN",
            Self::Rejected => "REJECTED",
            Self::Closed => "CLOSED",
            Self::Other => "OTHER",
        }
    }

    /// Seconds that a packet gives an entry in this state (`ip_vs_proto_tcp.c`, `_udp.c`, `_sctp.c`); absent of templates,
    /// whose service says it, of what is not known, and of SCTP's groups of states with several time-outs.
    pub const fn timeout(self) -> Option<u32> {
        match self {
            Self::None => Some(2),
            Self::Established => Some(900),
            Self::SynRecv | Self::CloseWait => Some(60),
            Self::SynSent | Self::FinWait | Self::TimeWait | Self::Listen | Self::SynAck => Some(120),
            Self::Close => Some(10),
            Self::LastAck => Some(30),
            Self::Udp => Some(300),
            Self::SctpOpening | Self::SctpShutdown | Self::Closed => Some(61),
            Self::Rejected => Some(4),
            Self::Assured | Self::SctpInit | Self::Other => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_are_numbered_in_order() {
        for (number, state) in State::ALL.iter().enumerate() {
            assert_eq!(*state as usize, number);
        }
        assert_eq!(*State::ALL.last().unwrap(), State::Other);
    }

    #[test]
    fn names_are_the_kernels() {
        let tcp = [
            "NONE",
            "ESTABLISHED",
            "SYN_SENT",
            "SYN_RECV",
            "FIN_WAIT",
            "TIME_WAIT",
            "CLOSE",
            "CLOSE_WAIT",
            "LAST_ACK",
            "LISTEN",
            "SYNACK",
            "UDP",
            "ASSURED",
            "REJECTED",
            "CLOSED",
        ];
        for name in tcp {
            assert_eq!(State::parse(name.as_bytes()).as_str(), name);
        }
        for (name, state) in [
            ("INIT1", State::SctpInit),
            ("C-ECHOED", State::SctpOpening),
            ("S-ACK-SENT", State::SctpShutdown),
            ("ERR!", State::Other),
            ("?", State::Other),
            ("BUG!", State::Other),
            ("established", State::Other),
        ] {
            assert_eq!(State::parse(name.as_bytes()), state, "{name}");
        }
    }
}
