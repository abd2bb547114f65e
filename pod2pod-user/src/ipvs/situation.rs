//! What a reuse means for the client, and which setting cures it. Says nothing that the kernel's settings do not bear out.

use super::{kernel::Kernel, rule::Verdict, services::Standing, state::State};

/// How much a reuse matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// The client notices nothing.
    Info,
    /// Not known: there was no `ip_vs` to ask.
    Unknown,
    /// The client waited a second.
    Warning,
    /// The client's connection went to a server that is going away or gone.
    Critical,
}

impl Severity {
    /// Every severity, the least first.
    pub const ALL: &'static [Self] = &[Self::Info, Self::Unknown, Self::Warning, Self::Critical];

    /// The word in the record.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Unknown => "unknown",
            Self::Warning => "warning",
            Self::Critical => "critical",
        }
    }
}

/// Which of the known situations a reuse is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Situation {
    /// The old entry's server takes new connections anyway.
    SameServerAlive,
    /// The old entry's server has weight 0, and the kernel is set never to schedule anew.
    DrainingServerModeOff,
    /// The same, and what would cure it by `expire_nodest_conn` is set, but this kernel does not do it for weight 0.
    DrainingServerOldKernel,
    /// The old entry's server has weight 0, although the settings schedule anew.
    DrainingServerAgainstSettings,
    /// The old entry's server has weight 0; settings are not known.
    DrainingServer,
    /// The old entry's server was removed, and the kernel drops what is for it.
    RemovedServerDropped,
    /// The old entry's server was removed.
    RemovedServer,
    /// The same server; how it stands is not known.
    SameServer,
    /// Scheduled anew; the SYN was probably dropped once before.
    RescheduledAfterDrop,
    /// Scheduled anew at once.
    Rescheduled,
    /// To be scheduled anew, and no real server took connections.
    NoServer,
    /// The SYN was dropped; why is not known.
    Dropped,
}

impl Situation {
    /// Every situation.
    pub const ALL: &'static [Self] = &[
        Self::SameServerAlive,
        Self::DrainingServerModeOff,
        Self::DrainingServerOldKernel,
        Self::DrainingServerAgainstSettings,
        Self::DrainingServer,
        Self::RemovedServerDropped,
        Self::RemovedServer,
        Self::SameServer,
        Self::RescheduledAfterDrop,
        Self::Rescheduled,
        Self::NoServer,
        Self::Dropped,
    ];

    /// The word in the record.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::SameServerAlive => "same_server_alive",
            Self::DrainingServerModeOff => "draining_server_mode_off",
            Self::DrainingServerOldKernel => "draining_server_old_kernel",
            Self::DrainingServerAgainstSettings => "draining_server_against_settings",
            Self::DrainingServer => "draining_server",
            Self::RemovedServerDropped => "removed_server_dropped",
            Self::RemovedServer => "removed_server",
            Self::SameServer => "same_server",
            Self::RescheduledAfterDrop => "rescheduled_after_drop",
            Self::Rescheduled => "rescheduled",
            Self::NoServer => "no_server",
            Self::Dropped => "dropped",
        }
    }

    /// What happens to the client, and what cures it.
    pub const fn sentence(self) -> &'static str {
        match self {
            Self::SameServerAlive => {
                "The old entry took the connection to the old one's server, which takes new connections: harmless, only balanced unevenly."
            }
            Self::DrainingServerModeOff => {
                "The old entry took the connection to a server that is going away (weight 0): expect resets, 'No route to host' or time-outs, and a server that never drains. Cure: net.ipv4.vs.expire_nodest_conn=1 (Linux 5.16, or a stable kernel with c95c07836fa4), or net.ipv4.vs.conn_reuse_mode=1 (from Linux 5.9 on without a delay)."
            }
            Self::DrainingServerOldKernel => {
                "The old entry took the connection to a server that is going away (weight 0), although net.ipv4.vs.expire_nodest_conn=1: with conn_reuse_mode=0 this kernel does not look at the weight. Cure: Linux 5.16, or a stable kernel with c95c07836fa4; or net.ipv4.vs.conn_reuse_mode=1 (from Linux 5.9 on without a delay)."
            }
            Self::DrainingServerAgainstSettings => {
                "The old entry has the connection at a server that is going away (weight 0), although the settings schedule such connections anew: it was scheduled before the weight became 0, or its entry controls others (FTP) or is one of a persistent service."
            }
            Self::DrainingServer => {
                "The old entry took the connection to a server that is going away (weight 0): expect resets, 'No route to host' or time-outs. Cure: net.ipv4.vs.conn_reuse_mode=1 (from Linux 5.9 on without a delay), or net.ipv4.vs.expire_nodest_conn=1 (Linux 5.16)."
            }
            Self::RemovedServerDropped => {
                "The old entry has the connection at a server that was removed: its packets are dropped silently until the entry's time is up, and the client sees a time-out. Cure: net.ipv4.vs.expire_nodest_conn=1."
            }
            Self::RemovedServer => {
                "The old entry has the connection at a server that was removed: with net.ipv4.vs.expire_nodest_conn=0 its packets are dropped silently until the entry's time is up; with 1 the entry goes with the next packet."
            }
            Self::SameServer => {
                "The old entry took the connection to the old one's server; whether that takes new connections is not known without ip_vs."
            }
            Self::RescheduledAfterDrop => {
                "The connection was scheduled anew, but netfilter still tracked the old one: the SYN was probably dropped once, and connecting took 1 s longer. Cure: Linux 5.9 or later, or net.ipv4.vs.conntrack=0 where nothing needs it."
            }
            Self::Rescheduled => "The connection was scheduled anew: harmless.",
            Self::NoServer => {
                "The connection was to be scheduled anew, and the service has no real server with a weight: it failed. Cure: a real server that takes connections."
            }
            Self::Dropped => {
                "IPVS dropped the connection's SYN: it was short of memory, or of something else that is not told (net.ipv4.vs.drop_packet)."
            }
        }
    }
}

/// First release whose SYN need not be dropped when netfilter has seen it as a new connection (f0a5e4d7a594).
const NO_DROP: (u32, u32) = (5, 9);
/// First release that looks at the weight with `expire_nodest_conn` in any mode (c95c07836fa4).
const WEIGHT_0_IN_ANY_MODE: (u32, u32) = (5, 16);

/// What a verdict means.
pub(super) fn of(
    verdict: Verdict,
    before: State,
    standing: Standing,
    kernel: &Kernel,
) -> (Situation, Severity) {
    match (verdict, standing) {
        (Verdict::Rescheduled, _) => rescheduled(before, kernel),
        (Verdict::Dropped, Standing::Absent) => (Situation::RemovedServerDropped, Severity::Critical),
        (Verdict::Dropped, _) => (Situation::RescheduledAfterDrop, Severity::Warning),
        (Verdict::Reused, Standing::Weight(0)) => (draining(kernel), Severity::Critical),
        (Verdict::Reused, Standing::Weight(_)) => (Situation::SameServerAlive, Severity::Info),
        (Verdict::Reused, Standing::Absent) => {
            let drops = kernel.expire_nodest_conn == Some(0);
            let situation = if drops { Situation::RemovedServerDropped } else { Situation::RemovedServer };
            (situation, Severity::Critical)
        }
        (Verdict::Reused, Standing::Unknown) => (Situation::SameServer, Severity::Unknown),
    }
}

fn draining(kernel: &Kernel) -> Situation {
    match (kernel.conn_reuse_mode, kernel.expire_nodest_conn) {
        (Some(0), Some(0)) => Situation::DrainingServerModeOff,
        (Some(0), Some(_)) if kernel.is_older(WEIGHT_0_IN_ANY_MODE) == Some(true) => {
            Situation::DrainingServerOldKernel
        }
        (Some(1..), _) | (_, Some(1..)) => Situation::DrainingServerAgainstSettings,
        _ => Situation::DrainingServer,
    }
}

fn rescheduled(before: State, kernel: &Kernel) -> (Situation, Severity) {
    // Recorded on 5.10, 6.1, 6.12 and 7.2: the SYN is dropped where `expire_nodest_conn` ends an entry in ESTABLISHED. Without
    // it the client ends that by a RST, and of an entry in TIME_WAIT nothing is tracked any more.
    let is_ended = before == State::Established && kernel.expire_nodest_conn.is_some_and(|value| value != 0);
    let was_tracked = is_ended || kernel.is_older(NO_DROP) == Some(true);
    if was_tracked && kernel.conntrack.is_some_and(|value| value != 0) {
        (Situation::RescheduledAfterDrop, Severity::Warning)
    } else {
        (Situation::Rescheduled, Severity::Info)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kernel(release: &str, mode: u32, nodest: u32, conntrack: u32) -> Kernel {
        Kernel {
            release: Some(release.to_owned()),
            conn_reuse_mode: Some(mode),
            expire_nodest_conn: Some(nodest),
            conntrack: Some(conntrack),
            sloppy_tcp: Some(0),
            timeouts: Default::default(),
        }
    }

    #[test]
    fn the_situations_of_a_reused_entry() {
        use Situation as S;
        let (zero, one) = (Standing::Weight(0), Standing::Weight(1));
        let unknown = Kernel::default();
        for (standing, kernel, situation, severity) in [
            (one, kernel("6.1.0", 0, 0, 1), S::SameServerAlive, Severity::Info),
            (zero, kernel("6.1.0", 0, 0, 1), S::DrainingServerModeOff, Severity::Critical),
            (zero, kernel("5.10.0", 0, 1, 1), S::DrainingServerOldKernel, Severity::Critical),
            (zero, kernel("6.1.0", 0, 1, 1), S::DrainingServerAgainstSettings, Severity::Critical),
            (zero, kernel("6.1.0", 1, 0, 1), S::DrainingServerAgainstSettings, Severity::Critical),
            (zero, unknown.clone(), S::DrainingServer, Severity::Critical),
            (Standing::Absent, kernel("6.1.0", 0, 0, 0), S::RemovedServerDropped, Severity::Critical),
            (Standing::Absent, kernel("6.1.0", 0, 1, 0), S::RemovedServer, Severity::Critical),
            (Standing::Absent, unknown.clone(), S::RemovedServer, Severity::Critical),
            (Standing::Unknown, kernel("6.1.0", 0, 0, 1), S::SameServer, Severity::Unknown),
        ] {
            let found = of(Verdict::Reused, State::TimeWait, standing, &kernel);
            assert_eq!(found, (situation, severity), "{standing:?} {kernel:?}");
        }
    }

    #[test]
    fn a_second_is_lost_where_the_old_connection_is_tracked() {
        use State::{Established, TimeWait};
        for (before, kernel, severity) in [
            (TimeWait, kernel("6.1.0", 1, 0, 1), Severity::Info),
            (TimeWait, kernel("5.4.0", 1, 0, 1), Severity::Warning),
            (TimeWait, kernel("5.4.0", 1, 0, 0), Severity::Info),
            (Established, kernel("6.1.0", 1, 1, 1), Severity::Warning),
            (Established, kernel("6.1.0", 1, 1, 0), Severity::Info),
            (Established, kernel("6.1.0", 1, 0, 1), Severity::Info),
            (Established, Kernel::default(), Severity::Info),
        ] {
            let found = of(Verdict::Rescheduled, before, Standing::Weight(1), &kernel);
            assert_eq!(found.1, severity, "{before:?} {kernel:?}");
        }
    }
}
