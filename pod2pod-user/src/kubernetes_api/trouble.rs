//! What goes wrong with the API server, what it takes to cure it, and how often that is said.

use std::{
    fmt,
    time::{Duration, Instant},
};

use crate::kubernetes::objects::Kind;

/// The same cause of one kind is said this often at most.
pub const SAID_AGAIN_AFTER: Duration = Duration::from_secs(600);

/// Why a list or a watch failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cause {
    /// Where the server is or who we are cannot be read.
    Configuration,
    /// No connection, or it was cut.
    Unreachable,
    /// No answer in time, or silence where bookmarks were promised.
    Silent,
    /// 401.
    Unauthorized,
    /// 403.
    Forbidden,
    /// 404: this server does not have the kind.
    Unknown,
    /// 410: what we know is too old to go on from, or the rest of a list is.
    Expired,
    /// 429, 500 and the like.
    Busy,
    /// An answer that is none.
    Nonsense,
}

impl Cause {
    /// Every cause.
    pub const ALL: [Self; 9] = [
        Self::Configuration,
        Self::Unreachable,
        Self::Silent,
        Self::Unauthorized,
        Self::Forbidden,
        Self::Unknown,
        Self::Expired,
        Self::Busy,
        Self::Nonsense,
    ];

    /// The word for metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Configuration => "configuration",
            Self::Unreachable => "unreachable",
            Self::Silent => "silent",
            Self::Unauthorized => "unauthorized",
            Self::Forbidden => "forbidden",
            Self::Unknown => "unknown",
            Self::Expired => "expired",
            Self::Busy => "busy",
            Self::Nonsense => "nonsense",
        }
    }

    /// What to do about it.
    fn remedy(self, kind: Kind) -> String {
        match self {
            Self::Configuration => "see kubernetes.kubeconfig, or the pod's service account".to_owned(),
            Self::Unreachable => "see whether this node reaches the server, and its certificate".to_owned(),
            Self::Silent | Self::Busy | Self::Nonsense => "see the server; it is asked again".to_owned(),
            Self::Expired => "a new list is asked for; if often, see how soon etcd is compacted".to_owned(),
            Self::Unauthorized => "see the token: it may have expired; it is read again".to_owned(),
            Self::Forbidden => format!("give the agent's ClusterRole the rule {}", rule(kind)),
            Self::Unknown => format!("serve {} of the group '{}'", kind.as_str(), kind.group()),
        }
    }
}

/// The rule that a kind needs, as a ClusterRole has it: YAML without a mark that a log line would write in another way.
pub fn rule(kind: Kind) -> String {
    format!("{{apiGroups: ['{}'], resources: [{}], verbs: [list, watch]}}", kind.group(), kind.as_str())
}

/// What a kind is for: what is lost without it.
pub(super) const fn lost(kind: Kind) -> &'static str {
    match kind {
        Kind::Pods => "pods are named as they were",
        Kind::Services => "Services' own addresses have no names",
        Kind::EndpointSlices => "pods' Services, and pods in the network of their node, have no names",
        Kind::Nodes => "nodes' addresses and zones have no names",
        Kind::ReplicaSets => "Deployments are guessed by their pods' labels",
        Kind::Jobs => "CronJobs have no names",
    }
}

/// What went wrong.
#[derive(Debug)]
pub(super) struct Trouble {
    pub(super) cause: Cause,
    /// For people: never an answer's body.
    pub(super) detail: String,
    /// The server says when to ask again.
    pub(super) after: Option<Duration>,
}

impl Trouble {
    pub(super) fn new(cause: Cause, detail: impl fmt::Display) -> Self {
        Self { cause, detail: detail.to_string(), after: None }
    }
}

/// What was said of a kind.
#[derive(Debug, Default)]
pub(super) struct Said {
    last: [Option<Instant>; Cause::ALL.len()],
    /// Since it last went well something was said.
    is_failing: bool,
}

impl Said {
    /// Says it, unless it was said lately.
    pub(super) fn failed(&mut self, kind: Kind, trouble: &Trouble, now: Instant) {
        let last = &mut self.last[trouble.cause as usize];
        if last.is_some_and(|last| now.duration_since(last) < SAID_AGAIN_AFTER) {
            return;
        }
        *last = Some(now);
        self.is_failing = true;
        tracing::warn!(
            kind = kind.as_str(),
            cause = trouble.cause.as_str(),
            detail = trouble.detail,
            without = lost(kind),
            remedy = trouble.cause.remedy(kind),
            "the API server does not tell"
        );
    }

    /// It goes well: said once after a failure that was said.
    pub(super) fn goes_well(&mut self, kind: Kind) {
        if std::mem::take(&mut self.is_failing) {
            tracing::info!(kind = kind.as_str(), "the API server tells again");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_rule_is_named() {
        let said = Cause::Forbidden.remedy(Kind::ReplicaSets);
        assert!(
            said.ends_with("{apiGroups: ['apps'], resources: [replicasets], verbs: [list, watch]}"),
            "{said}"
        );
    }

    #[test]
    fn a_rule_can_be_pasted_from_a_log_line() {
        #[derive(Debug, PartialEq, serde::Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Rule {
            api_groups: Vec<String>,
            resources: Vec<String>,
            verbs: Vec<String>,
        }
        for kind in Kind::ALL {
            let rule = rule(kind);
            assert_eq!(format!("{rule:?}"), format!("\"{rule}\""), "as a line of text has it");
            let read: Rule = serde_saphyr::from_str(&rule).unwrap();
            let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
            let expected = Rule {
                api_groups: words(&[kind.group()]),
                resources: words(&[kind.as_str()]),
                verbs: words(&["list", "watch"]),
            };
            assert_eq!(read, expected);
        }
    }

    #[test]
    fn one_cause_is_said_once_in_a_time() {
        let mut said = Said::default();
        let trouble = Trouble::new(Cause::Forbidden, "x");
        let begin = Instant::now();
        let mut says = |after: Duration| {
            let before = said.last[Cause::Forbidden as usize];
            said.failed(Kind::Pods, &trouble, begin + after);
            said.last[Cause::Forbidden as usize] != before
        };
        assert!(says(Duration::ZERO));
        assert!(!says(SAID_AGAIN_AFTER - Duration::from_nanos(1)));
        assert!(says(SAID_AGAIN_AFTER));
        assert!(said.is_failing);
        said.goes_well(Kind::Pods);
        assert!(!said.is_failing);
    }
}
