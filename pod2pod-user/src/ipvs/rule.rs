//! What the change of one entry between two looks proves. The states' meaning is all that is known here; no table, no time.
//!
//! The kernel's table of transitions (`ip_vs_proto_tcp.c`): from TIME_WAIT only a SYN or a client's RST leads on, from CLOSE
//! only a SYN, from FIN_WAIT and CLOSE_WAIT no way but a SYN leads to each other or back, and from ESTABLISHED to SYN_RECV
//! none that does not end first. Every packet restarts the timer, so a later last packet in the same state may be a late FIN as
//! well as a whole new connection: that is `probable`, and only past [`DEFAULT_LATE_PACKET`].

use std::time::Duration;

use super::{Sight, kernel::Timeouts, parse::Protocol, state::State};

/// A last packet that is later by no more than this belongs to the old connection: retransmitted FINs come within seconds.
pub(super) const DEFAULT_LATE_PACKET: Duration = Duration::from_secs(5);

/// Shortest time that any state gives an entry between one poll and the next, seconds: CLOSE.
const SHORTEST_LIFE: u32 = 10;

/// What became of the old entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Verdict {
    /// The new connection went to the same real server: by the old entry, unless that had run out.
    Reused,
    /// It went to another one: the old entry was replaced, and the connection scheduled anew.
    Rescheduled,
    /// Its SYN was dropped. No two polls show that.
    Dropped,
}

impl Verdict {
    /// Every verdict.
    pub const ALL: &'static [Self] = &[Self::Reused, Self::Rescheduled, Self::Dropped];

    /// The word in the record.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Reused => "reused",
            Self::Rescheduled => "rescheduled",
            Self::Dropped => "dropped",
        }
    }
}

/// How sure a verdict is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Confidence {
    /// Nothing but a new connection explains the change.
    Certain,
    /// A late packet of the old connection would explain it too.
    Probable,
}

impl Confidence {
    /// Every confidence, the least first.
    pub const ALL: &'static [Self] = &[Self::Probable, Self::Certain];

    /// The word in the record.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Certain => "certain",
            Self::Probable => "probable",
        }
    }
}

/// Two looks at one entry.
#[derive(Clone, Copy, Debug)]
pub(super) struct Change {
    pub(super) protocol: Protocol,
    pub(super) before: Sight,
    pub(super) now: Sight,
    /// From the one look to the other.
    pub(super) elapsed: Duration,
    /// By how much that may be wrong: reading a table takes time.
    pub(super) blur: Duration,
    /// The director does not see the server's packets (direct routing, tunnel).
    pub(super) replies_unseen: bool,
    /// How long entries live.
    pub(super) timeouts: Timeouts,
    /// An entry can be made by a packet that is no SYN (`sloppy_tcp`).
    pub(super) sloppy: bool,
}

impl Change {
    /// What it proves, if anything.
    pub(super) fn judge(&self) -> Option<(Verdict, Confidence)> {
        if self.before.server != self.now.server {
            return Some((Verdict::Rescheduled, Confidence::Certain));
        }
        let confidence = match self.protocol {
            Protocol::TCP => self.tcp()?,
            Protocol::SCTP => self.sctp()?,
            _ => return None,
        };
        Some((Verdict::Reused, confidence))
    }

    /// Whether the old entry may have run out before the new connection came: its time was up, or a RST cut it short.
    pub(super) fn may_have_expired(&self) -> bool {
        let life = self.before.expires.min(SHORTEST_LIFE);
        self.elapsed.saturating_add(self.blur) >= Duration::from_secs(life.into())
    }

    /// From the old last packet to the new one, where the states' time-outs are the same or known.
    pub(super) fn advance(&self) -> Option<Duration> {
        let (before, now) = if self.before.state == self.now.state {
            (0, 0)
        } else {
            (self.timeouts.known(self.before.state)?, self.timeouts.known(self.now.state)?)
        };
        let age = |timeout: u32, expires: u32| i64::from(timeout) - i64::from(expires);
        let older = age(before, self.before.expires) - age(now, self.now.expires);
        let elapsed = i64::try_from(self.elapsed.as_millis()).ok()?;
        u64::try_from(elapsed + older * 1000).ok().map(Duration::from_millis)
    }

    fn is_later(&self) -> bool {
        self.advance().is_some_and(|advance| advance > DEFAULT_LATE_PACKET + self.blur)
    }

    fn tcp(&self) -> Option<Confidence> {
        use State::{Close, CloseWait, Established, FinWait, SynAck, SynRecv, SynSent, TimeWait};
        let proven = match (self.before.state, self.now.state) {
            (TimeWait | Close | CloseWait | FinWait, SynRecv | SynSent | SynAck | Established)
            | (TimeWait | Close, CloseWait | FinWait)
            | (CloseWait, FinWait)
            | (FinWait, CloseWait)
            | (Close, TimeWait)
            | (Established, SynRecv) => true,
            // A client's RST does the last one too; so does a server that refuses the new connection.
            (TimeWait, TimeWait) | (Close, Close) | (TimeWait, Close) if self.is_later() => false,
            // With replies unseen closed connections rest in FIN_WAIT; otherwise it is half-closed traffic.
            (FinWait, FinWait) if self.replies_unseen && self.is_later() => false,
            _ => return None,
        };
        let certain = proven && !(self.sloppy && self.may_have_expired());
        Some(if certain { Confidence::Certain } else { Confidence::Probable })
    }

    /// The transitions of SCTP are not all known here: nothing is certain.
    fn sctp(&self) -> Option<Confidence> {
        use State::{Closed, Established, SctpInit, SctpOpening};
        match (self.before.state, self.now.state) {
            (Closed, SctpInit | SctpOpening | Established) => Some(Confidence::Probable),
            (Closed, Closed) if self.is_later() => Some(Confidence::Probable),
            _ => None,
        }
    }
}

/// Entries that stayed in their state and at their server, of two polls: which of them need no judgement.
#[derive(Clone, Copy, Debug)]
pub(super) struct Quiet {
    /// Whole seconds by which the time left of an entry without a later packet went down at least.
    least: i64,
    /// From the one poll to the other, and by how much that may be wrong.
    elapsed: Duration,
    blur: Duration,
}

/// The times left of two polls differ by up to this much more than the polls do: both are whole seconds, and jiffies are not ours.
const ROUNDED: Duration = Duration::from_secs(2);

impl Quiet {
    /// For polls so far apart.
    pub(super) fn new(elapsed: Duration, blur: Duration) -> Self {
        let milliseconds = |time: Duration| i64::try_from(time.as_millis()).unwrap_or(i64::MAX);
        let late = milliseconds(DEFAULT_LATE_PACKET + blur);
        // Rounded up: what is a part of a second short is looked at.
        let least = milliseconds(elapsed).saturating_sub(late).saturating_add(999).div_euclid(1000);
        Self { least, elapsed, blur }
    }

    /// What an entry would have left that had `before` and has nothing left too early: a SYN met it, for which the kernel ends it at once
    /// (`ip_vs_conn_expire_now`), and a poll may come between that and its end. Absent if its time may just be over.
    pub(super) fn cut_short(self, before: u32) -> Option<u32> {
        let left = Duration::from_secs(before.into()).checked_sub(self.elapsed)?;
        (left > self.blur + ROUNDED).then(|| u32::try_from(left.as_secs()).unwrap_or(u32::MAX))
    }

    /// Whether nothing is to be told of it.
    #[inline]
    pub(super) fn holds(self, state: State, before: u32, now: u32) -> bool {
        let may_be_later = matches!(state, State::TimeWait | State::Close | State::FinWait | State::Closed);
        !may_be_later || i64::from(before) - i64::from(now) >= self.least
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sight(server: u8, state: State, expires: u32) -> Sight {
        Sight { server: ([10, 244, 2, server].into(), 8080), state, expires }
    }

    fn change(before: Sight, now: Sight) -> Change {
        let (elapsed, blur) = (Duration::from_secs(5), Duration::ZERO);
        let protocol = Protocol::TCP;
        let timeouts = Timeouts::default();
        Change { protocol, before, now, elapsed, blur, replies_unseen: false, timeouts, sloppy: false }
    }

    const CERTAIN: Option<(Verdict, Confidence)> = Some((Verdict::Reused, Confidence::Certain));
    const PROBABLE: Option<(Verdict, Confidence)> = Some((Verdict::Reused, Confidence::Probable));
    const RESCHEDULED: Option<(Verdict, Confidence)> = Some((Verdict::Rescheduled, Confidence::Certain));

    #[test]
    fn the_table_of_verdicts() {
        use State::{Close, CloseWait, Established, FinWait, SynAck, SynRecv, SynSent, TimeWait};
        for before in [TimeWait, Close, CloseWait, FinWait] {
            for now in [SynRecv, SynSent, SynAck, Established] {
                let judged = change(sight(2, before, 9), sight(2, now, 60)).judge();
                assert_eq!(judged, CERTAIN, "{before:?} {now:?}");
            }
        }
        for (before, now, expected) in [
            (TimeWait, CloseWait, CERTAIN),
            (TimeWait, FinWait, CERTAIN),
            (Close, CloseWait, CERTAIN),
            (Close, FinWait, CERTAIN),
            (Close, TimeWait, CERTAIN),
            (CloseWait, FinWait, CERTAIN),
            (FinWait, CloseWait, CERTAIN),
            (Established, SynRecv, CERTAIN),
            (Established, Established, None),
            (SynRecv, Established, None),
            (Established, FinWait, None),
            (Established, Close, None),
            (FinWait, TimeWait, None),
            (CloseWait, TimeWait, None),
            (FinWait, Close, None),
            (SynRecv, SynRecv, None),
        ] {
            let judged = change(sight(2, before, 9), sight(2, now, 9)).judge();
            assert_eq!(judged, expected, "{before:?} {now:?}");
        }
        for state in [Established, TimeWait, State::Udp] {
            let judged = change(sight(2, state, 100), sight(3, state, 100)).judge();
            assert_eq!(judged, RESCHEDULED, "{state:?}, another server");
        }
    }

    #[test]
    fn a_later_last_packet_is_probable_past_the_limit() {
        use State::{Close, FinWait, TimeWait};
        let limit = u32::try_from(DEFAULT_LATE_PACKET.as_secs()).unwrap();
        for (before, now, left) in [(TimeWait, TimeWait, 50), (Close, Close, 4), (TimeWait, Close, 115)] {
            // Last packets `apart` seconds from each other, seen 5 s apart.
            let judged = |apart: u32| {
                let age = before.timeout().unwrap() - left + 5 - apart;
                let now = sight(2, now, now.timeout().unwrap() - age);
                change(sight(2, before, left), now).judge()
            };
            assert_eq!((judged(limit), judged(limit + 1)), (None, PROBABLE), "{before:?} {now:?}");
        }
        let (before, now) = (sight(2, FinWait, 50), sight(2, FinWait, 119));
        assert_eq!(change(before, now).judge(), None, "half-closed traffic");
        let direct = Change { replies_unseen: true, ..change(before, now) };
        assert_eq!(direct.judge(), PROBABLE);
        let blurred = Change { blur: Duration::from_secs(80), ..direct };
        assert_eq!(blurred.judge(), None, "the reading itself took longer");
    }

    #[test]
    fn an_entry_that_may_have_run_out_is_told_so() {
        let now = sight(2, State::SynRecv, 59);
        for (left, elapsed, expected) in [(6, 5, false), (5, 5, true), (119, 9, false), (119, 10, true)] {
            let elapsed = Duration::from_secs(elapsed);
            let change = Change { elapsed, ..change(sight(2, State::TimeWait, left), now) };
            assert_eq!(change.may_have_expired(), expected, "{left} {elapsed:?}");
            assert_eq!(change.judge(), CERTAIN);
            let sloppy = Change { sloppy: true, ..change };
            assert_eq!(sloppy.judge(), if expected { PROBABLE } else { CERTAIN }, "{left} {elapsed:?}");
        }
    }

    #[test]
    fn an_entry_that_ends_too_early_was_cut_short() {
        let left = |before, elapsed, blur| {
            Quiet::new(Duration::from_millis(elapsed), Duration::from_millis(blur)).cut_short(before)
        };
        assert_eq!(left(110, 1000, 0), Some(109));
        assert_eq!(left(110, 1400, 300), Some(108));
        // At the limit its time may just be over.
        assert_eq!((left(4, 1000, 0), left(3, 1000, 0)), (Some(3), None));
        assert_eq!((left(4, 1000, 1000), left(4, 5000, 0)), (None, None));
    }

    #[test]
    fn idle_time_needs_known_time_outs() {
        let change = change(sight(2, State::TimeWait, 20), sight(2, State::Established, 895));
        assert_eq!(change.advance(), None, "the time-out of ESTABLISHED may have been set");
        let timeouts = Timeouts { tcp: Some(900), ..Timeouts::default() };
        // 100 s old, then 5 s pass, and the last packet is 5 s old.
        assert_eq!(Change { timeouts, ..change }.advance(), Some(Duration::from_secs(100)));
    }

    /// What is passed over would not have been told.
    #[test]
    fn quiet_entries_have_nothing_to_be_told() {
        let mut held = 0;
        for elapsed in [100, 1000, 4999, 5000, 5001, 8400, 16_000, 60_000].map(Duration::from_millis) {
            for blur in [0, 40, 1500].map(Duration::from_millis) {
                let quiet = Quiet::new(elapsed, blur);
                for state in
                    [State::TimeWait, State::Close, State::FinWait, State::Closed, State::Established]
                {
                    for (before, now) in (0..70).flat_map(|before| (0..70).map(move |now| (before, now))) {
                        for protocol in [Protocol::TCP, Protocol::SCTP] {
                            let (before_sight, now_sight) = (sight(2, state, before), sight(2, state, now));
                            let change = change(before_sight, now_sight);
                            let change = Change { elapsed, blur, protocol, replies_unseen: true, ..change };
                            let is_quiet = quiet.holds(state, before, now);
                            held += usize::from(is_quiet);
                            let told = change.judge();
                            assert!(
                                !is_quiet || told.is_none(),
                                "{state:?} {before} {now} {elapsed:?} {blur:?}"
                            );
                        }
                    }
                }
            }
        }
        assert!(held > 100_000, "{held} of them");
    }

    #[test]
    fn other_protocols() {
        let with = |protocol, before, now| Change { protocol, ..change(before, now) }.judge();
        let udp = sight(2, State::Udp, 300);
        assert_eq!(with(Protocol::UDP, udp, udp), None);
        let (closed, open) = (sight(2, State::Closed, 20), sight(2, State::SctpInit, 60));
        assert_eq!(with(Protocol::SCTP, closed, open), PROBABLE);
        assert_eq!(with(Protocol::SCTP, open, closed), None);
        assert_eq!(with(Protocol::SCTP, closed, sight(2, State::Closed, 61)), PROBABLE);
    }
}
