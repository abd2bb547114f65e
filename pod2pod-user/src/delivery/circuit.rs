//! Whether a target is worth asking: closed while it answers; open, so that nothing is sent, after some failures in a row; then
//! half open, in which one batch tries for all. Pure: reads no clock.

use std::time::{Duration, Instant};

use super::{backoff::backoff, target::TroubleKind};

/// So many failures in a row open the circuit: one or two are a connection that was closed for want of work.
pub(super) const FAILURES_TO_OPEN: u32 = 5;

/// A target that wants to be left alone for longer is asked again all the same: a wrong number there must not silence a node.
pub(super) const MAX_ASKED: Duration = Duration::from_secs(300);

/// What a circuit is, for people and for metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CircuitState {
    /// Batches are sent.
    #[default]
    Closed,
    /// None is.
    Open,
    /// One is, to see.
    HalfOpen,
}

impl CircuitState {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Closed, Self::Open, Self::HalfOpen];

    /// Its name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open => "open",
            Self::HalfOpen => "half-open",
        }
    }
}

/// Whether a batch may be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum May {
    /// It may.
    Send,
    /// Not before then.
    NotBefore(Instant),
    /// Not before what is under way was answered: one tries for all.
    WaitForAnswer,
}

/// The circuit of one target.
#[derive(Clone, Debug, Default)]
pub(super) struct Circuit {
    /// Failures in a row.
    failures: u32,
    /// When the next attempt is due, once it is open.
    until: Option<Instant>,
    probing: bool,
    /// Of what kind the last failure was, and when the first was since it last answered as it should.
    trouble: Option<(TroubleKind, Instant)>,
}

impl Circuit {
    /// Why it is not as it should be, and since when, if it is not.
    pub(super) const fn trouble(&self) -> Option<(TroubleKind, Instant)> {
        self.trouble
    }

    /// What it is now.
    pub(super) const fn state(&self) -> CircuitState {
        match self.until {
            None => CircuitState::Closed,
            Some(_) if self.probing => CircuitState::HalfOpen,
            Some(_) => CircuitState::Open,
        }
    }

    /// Whether a batch may be sent at `now`, with `under_way` that are not answered; who may does.
    pub(super) fn ask(&mut self, now: Instant, under_way: usize) -> May {
        match self.until {
            None => May::Send,
            Some(_) if under_way > 0 => May::WaitForAnswer,
            Some(until) if now < until => May::NotBefore(until),
            Some(_) => {
                self.probing = true;
                May::Send
            }
        }
    }

    /// Whoever waits has no time any more: it may be tried at `now`.
    pub(super) fn hurry(&mut self, now: Instant) {
        self.until = self.until.map(|until| until.min(now));
    }

    /// The target answered as it should. What was sent before it opened does not close it: whoever asks to be left alone is.
    pub(super) const fn succeed(&mut self) {
        if self.until.is_some() && !self.probing {
            return;
        }
        *self = Self { failures: 0, until: None, probing: false, trouble: None };
    }

    /// It did not, at `now`, for a reason of this `kind`; `asked` is how long it wants to be left alone. Batches that were sent before it opened and fail
    /// afterwards do not keep it open for longer.
    pub(super) fn fail(&mut self, now: Instant, kind: TroubleKind, asked: Option<Duration>, random: u64) {
        self.trouble = Some((kind, self.trouble.map_or(now, |(_, since)| since)));
        let was_open = self.until.is_some() && !self.probing;
        self.probing = false;
        if was_open {
            return;
        }
        self.failures = self.failures.saturating_add(1);
        if self.failures >= FAILURES_TO_OPEN || asked.is_some() {
            let wait = backoff(self.failures, random);
            self.until = now.checked_add(asked.map_or(wait, |asked| asked.clamp(wait, MAX_ASKED)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::delivery::backoff::MAX_BACKOFF;

    const WAIT: Duration = Duration::from_secs(1);
    const DOWN: TroubleKind = TroubleKind::Connect;

    fn opened(now: Instant) -> Circuit {
        let mut circuit = Circuit::default();
        for failure in 0..FAILURES_TO_OPEN {
            assert_eq!(
                (circuit.state(), circuit.ask(now, 3)),
                (CircuitState::Closed, May::Send),
                "{failure}"
            );
            circuit.fail(now, DOWN, None, u64::MAX);
        }
        circuit
    }

    #[test]
    fn some_failures_in_a_row_open_it_and_one_success_closes_it() {
        let now = Instant::now();
        let mut circuit = opened(now);
        let until = circuit.until.unwrap();
        assert!(until > now && until <= now + MAX_BACKOFF);
        assert_eq!((circuit.ask(now, 0), circuit.state()), (May::NotBefore(until), CircuitState::Open));
        assert_eq!((circuit.ask(until, 1), circuit.state()), (May::WaitForAnswer, CircuitState::Open));
        assert_eq!((circuit.ask(until, 0), circuit.state()), (May::Send, CircuitState::HalfOpen));
        assert_eq!(circuit.ask(until, 1), May::WaitForAnswer);
        circuit.succeed();
        assert_eq!((circuit.state(), circuit.ask(until, 7)), (CircuitState::Closed, May::Send));
    }

    #[test]
    fn failures_with_successes_between_them_do_not_open_it() {
        let now = Instant::now();
        let mut circuit = Circuit::default();
        for _ in 0..3 {
            (1..FAILURES_TO_OPEN).for_each(|_| circuit.fail(now, DOWN, None, 0));
            circuit.succeed();
        }
        assert_eq!(circuit.state(), CircuitState::Closed);
    }

    #[test]
    fn who_asks_to_be_left_alone_is_at_once_and_for_so_long() {
        let now = Instant::now();
        let mut circuit = Circuit::default();
        circuit.fail(now, DOWN, Some(WAIT), 0);
        assert_eq!(circuit.ask(now, 0), May::NotBefore(now + WAIT));
        assert_eq!(circuit.ask(now + WAIT, 0), May::Send);
        for asked in [MAX_ASKED, MAX_ASKED + Duration::from_secs(1)] {
            let mut circuit = Circuit::default();
            circuit.fail(now, DOWN, Some(asked), 0);
            assert_eq!(circuit.ask(now, 0), May::NotBefore(now + MAX_ASKED));
        }
    }

    #[test]
    fn its_trouble_is_of_the_last_kind_and_since_the_first() {
        let now = Instant::now();
        let mut circuit = Circuit::default();
        assert_eq!(circuit.trouble(), None);
        circuit.fail(now, TroubleKind::Closed, None, 0);
        circuit.fail(now + WAIT, DOWN, None, 0);
        assert_eq!(circuit.trouble(), Some((DOWN, now)));
        circuit.succeed();
        assert_eq!(circuit.trouble(), None);
        circuit.fail(now + WAIT, DOWN, None, 0);
        assert_eq!(circuit.trouble(), Some((DOWN, now + WAIT)));
    }

    #[test]
    fn what_was_sent_before_does_not_close_it() {
        let now = Instant::now();
        let mut circuit = Circuit::default();
        circuit.fail(now, DOWN, Some(WAIT), 0);
        circuit.succeed();
        assert_eq!((circuit.ask(now, 0), circuit.state()), (May::NotBefore(now + WAIT), CircuitState::Open));
    }

    #[test]
    fn a_probe_that_fails_opens_it_for_longer_and_late_failures_do_not() {
        let now = Instant::now();
        let mut circuit = opened(now);
        let first = circuit.until;
        circuit.fail(now + WAIT, DOWN, None, u64::MAX);
        assert_eq!(circuit.until, first);
        let later = now + MAX_BACKOFF;
        assert_eq!(circuit.ask(later, 0), May::Send);
        circuit.fail(later, DOWN, None, u64::MAX);
        assert!(circuit.until > Some(later + WAIT) && circuit.state() == CircuitState::Open);
    }
}
