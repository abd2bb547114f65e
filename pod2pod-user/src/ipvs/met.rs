//! An old entry that a connection met: as a poll proved it, as the SYN alone tells it, or as the kernel was seen to decide.

use std::time::Duration;

use super::{
    Confidence, End, Reuse, Sight, Tuple, Verdict,
    closed::Old,
    exact::{Decision, Outcome},
    kernel::Kernel,
    look::Look,
    services::Standing,
    situation::{self, Severity, Situation},
};

/// An old entry that a connection met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Met {
    /// Whose entry.
    pub tuple: Tuple,
    /// The entry before, as last seen.
    pub before: Sight,
    /// The real server of the new connection, as far as it is known.
    pub server: End,
    /// How that stands.
    pub standing: Standing,
    /// What became of the connection, if that is known.
    pub verdict: Option<Verdict>,
    /// How sure all of it is.
    pub confidence: Confidence,
    /// From the old connection's last packet on.
    pub idle: Option<Duration>,
    /// What that means, if it is known.
    pub meaning: Option<(Situation, Severity)>,
    /// The old entry may have run out before.
    pub may_have_expired: bool,
}

impl Met {
    /// What a poll proved.
    pub(super) const fn of(reuse: &Reuse) -> Self {
        Self {
            tuple: reuse.tuple,
            before: reuse.before,
            server: reuse.now.server,
            standing: reuse.standing,
            verdict: Some(reuse.verdict),
            confidence: reuse.confidence,
            idle: reuse.idle,
            meaning: Some((reuse.situation, reuse.severity)),
            may_have_expired: reuse.may_have_expired,
        }
    }

    /// As nothing but the SYN and the poll before it tell.
    pub(super) fn at_syn(old: &Old, look: &Look, time: Duration) -> Self {
        let timeout = look.kernel.timeouts.known(old.sight.state);
        let age =
            timeout.map(|timeout| Duration::from_secs(timeout.saturating_sub(old.sight.expires).into()));
        Self {
            tuple: old.tuple,
            before: old.sight,
            server: old.sight.server,
            standing: look.standing(old),
            verdict: None,
            confidence: Confidence::Probable,
            idle: age.map(|age| age + time.saturating_sub(look.begin)),
            meaning: None,
            may_have_expired: false,
        }
    }

    pub(super) fn with_verdict(self, verdict: Verdict, kernel: &Kernel) -> Self {
        let meaning = situation::of(verdict, self.before.state, self.standing, kernel);
        Self { verdict: Some(verdict), meaning: Some(meaning), ..self }
    }
}

/// What a decision of the kernel says of the connection; absent if it met no old entry. Not to be asked of a SYN sent again.
pub(super) fn decided(decision: &Decision, kernel: &Kernel) -> Option<Met> {
    let old = decision.met?;
    let verdict = match decision.outcome {
        Outcome::New | Outcome::PassedOn | Outcome::Repeated => return None,
        Outcome::Reused => Verdict::Reused,
        Outcome::Rescheduled => Verdict::Rescheduled,
        Outcome::Dropped(_) => Verdict::Dropped,
    };
    let (server, standing) = match decision.made {
        Some(made) if verdict == Verdict::Rescheduled => made,
        _ => (old.server, old.standing),
    };
    let expires = u32::try_from(old.left.as_secs()).unwrap_or(u32::MAX);
    let met = Met {
        tuple: decision.tuple,
        before: Sight { server: old.server, state: old.state, expires },
        server,
        standing,
        verdict: None,
        confidence: Confidence::Certain,
        idle: Some(old.idle),
        meaning: None,
        may_have_expired: false,
    };
    Some(met.with_verdict(verdict, kernel))
}
