//! What a Reuse says, in the words of a Record. No judgement: what it means was decided in `ipvs`.

use std::time::Duration;

use bytes::Bytes;

use crate::{
    ipvs::{
        Confidence, End, Reuse, Tuple, Verdict,
        exact::Decision,
        kernel::Kernel,
        legacy,
        met::Met,
        parse::Protocol,
        services::Standing,
        situation::{Severity, Situation},
        state::State,
    },
    record::{IpvsFacts, Kind, Outcome, Record},
};

/// The record of a reuse that was found at `time`, nanoseconds since 1970, on a machine whose kernel is `kernel`.
pub fn record(reuse: &Reuse, kernel: &Kernel, time: u64) -> Record {
    whole(&reuse.tuple, facts(reuse), reuse.situation, kernel, time)
}

/// The record of a decision at `time`, nanoseconds since 1970, on a machine whose kernel is `kernel`; absent if the connection
/// met no old entry.
pub fn decision(decision: &Decision, kernel: &Kernel, time: u64) -> Option<Record> {
    let (verdict, met) = (decision.verdict()?, decision.met?);
    let (situation, severity) = decision.situation(kernel)?;
    let (server, server_standing) = match decision.made {
        Some(made) if verdict == Verdict::Rescheduled => made,
        _ => (met.server, met.standing),
    };
    let (weight, is_absent) = standing(server_standing);
    let seconds = |time: Duration| u32::try_from(time.as_secs()).ok();
    let facts = IpvsFacts {
        reuse: Some(Confidence::Certain.as_str()),
        verdict: Some(verdict.as_str()),
        detector: Some("exact"),
        severity: Some(severity.as_str()),
        situation: Some(situation.as_str()),
        service: Some(decision.tuple.service),
        real_server: Some(server),
        weight,
        is_absent,
        real_server_before: Some(met.server).filter(|before| *before != server),
        state_before: Some(met.state.as_str()),
        state: decision.after.map(|(state, _)| state.as_str()),
        expires_before: seconds(met.left),
        expires: decision.after.and_then(|(_, left)| seconds(left)),
        idle: u64::try_from(met.idle.as_nanos()).ok(),
        ..IpvsFacts::default()
    };
    Some(whole(&decision.tuple, facts, situation, kernel, time))
}

/// With what the kernel is set to.
fn whole(tuple: &Tuple, facts: IpvsFacts, situation: Situation, kernel: &Kernel, time: u64) -> Record {
    let facts = IpvsFacts {
        transport: transport(tuple.protocol),
        os_version: kernel.release.as_ref().map(|release| Bytes::copy_from_slice(release.as_bytes())),
        conn_reuse_mode: kernel.conn_reuse_mode,
        expire_nodest_conn: kernel.expire_nodest_conn,
        conntrack: kernel.conntrack,
        explanation: Some(situation.sentence()),
        ..facts
    };
    blank(time, tuple.client, tuple.service, facts)
}

/// What an exchange says of the reuse that its connection is.
pub fn facts(reuse: &Reuse) -> IpvsFacts {
    let Reuse { tuple, before, now, .. } = reuse;
    let (weight, is_absent) = standing(reuse.standing);
    IpvsFacts {
        reuse: Some(reuse.confidence.as_str()),
        verdict: Some(reuse.verdict.as_str()),
        detector: Some("polling"),
        severity: Some(reuse.severity.as_str()),
        situation: Some(reuse.situation.as_str()),
        service: Some(tuple.service),
        real_server: Some(now.server),
        weight,
        is_absent,
        real_server_before: Some(before.server).filter(|before| *before != now.server),
        state_before: Some(before.state.as_str()),
        state: Some(now.state.as_str()),
        expires_before: Some(before.expires),
        expires: Some(now.expires),
        idle: reuse.idle.map(|idle| u64::try_from(idle.as_nanos()).unwrap_or(u64::MAX)),
        may_have_expired: reuse.may_have_expired,
        ..IpvsFacts::default()
    }
}

/// What an exchange says of the old entry that its connection met.
pub fn met(met: &Met) -> IpvsFacts {
    let (weight, is_absent) = standing(met.standing);
    IpvsFacts {
        reuse: Some(met.confidence.as_str()),
        verdict: met.verdict.map(Verdict::as_str),
        severity: met.meaning.map(|(_, severity)| severity.as_str()),
        situation: met.meaning.map(|(situation, _)| situation.as_str()),
        service: Some(met.tuple.service),
        real_server: Some(met.server),
        weight,
        is_absent,
        real_server_before: Some(met.before.server).filter(|before| *before != met.server),
        state_before: Some(met.before.state.as_str()),
        expires_before: Some(met.before.expires),
        idle: met.idle.map(|idle| u64::try_from(idle.as_nanos()).unwrap_or(u64::MAX)),
        may_have_expired: met.may_have_expired,
        // Of what is harmless a word is enough.
        explanation: met
            .meaning
            .filter(|(_, severity)| *severity >= Severity::Warning)
            .map(|(situation, _)| situation.sentence()),
        ..IpvsFacts::default()
    }
}

/// An exchange or a connection attempt that failed, as a reuse names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failed {
    isn: u32,
    connection_id: u64,
    offset: Option<u64>,
    outcome: Option<Outcome>,
    status: Option<u16>,
    method: Option<Bytes>,
    path: Option<Bytes>,
}

impl Failed {
    /// What is told of it, whose client began at `isn`. Its path, as of any record, is without secrets.
    pub fn of(record: &Record, isn: u32) -> Self {
        // The texts are parts of larger pieces, which are not kept for them.
        let own = |text: &Option<Bytes>| text.as_deref().map(Bytes::copy_from_slice);
        Self {
            isn,
            connection_id: record.connection_id,
            offset: record.offset,
            outcome: record.outcome,
            status: record.status,
            method: own(&record.method),
            path: own(&record.path),
        }
    }

    /// Initial sequence number of its client: which of the connections between two ends it is.
    pub const fn isn(&self) -> u32 {
        self.isn
    }

    /// Bytes of its texts.
    pub fn text_bytes(&self) -> usize {
        [&self.method, &self.path].into_iter().flatten().map(Bytes::len).sum()
    }

    /// Puts it into the record of the reuse that its connection is.
    pub fn put(self, record: &mut Record) {
        record.connection_id = self.connection_id;
        (record.offset, record.outcome, record.status) = (self.offset, self.outcome, self.status);
        (record.method, record.path) = (self.method, self.path);
    }
}

/// The record of what ipvs-logger's rule found: as much as that knows.
pub fn finding(finding: &legacy::Finding, time: u64) -> Record {
    let end = |end: legacy::End| (end.address.into(), u16::try_from(end.port).unwrap_or(0));
    let seconds = |left: i64| u32::try_from(left).ok();
    let facts = IpvsFacts {
        verdict: Some("legacy"),
        transport: transport(Protocol::TCP),
        service: Some(end(finding.service)),
        real_server: Some(end(finding.server)),
        state: Some(State::parse(&finding.state).as_str()),
        expires_before: seconds(finding.previous),
        expires: seconds(finding.current),
        ..IpvsFacts::default()
    };
    blank(time, end(finding.client), end(finding.service), facts)
}

fn blank(time: u64, client: End, server: End, facts: IpvsFacts) -> Record {
    let ipvs = Some(Box::new(facts));
    Record { time, kind: Kind::IpvsReuse, client, server, ipvs, ..Record::blank() }
}

/// The weight of a real server, and whether its service does not have it any more.
pub(super) const fn standing(standing: Standing) -> (Option<u32>, bool) {
    match standing {
        Standing::Weight(weight) => (Some(weight), false),
        Standing::Absent => (None, true),
        Standing::Unknown => (None, false),
    }
}

const fn transport(protocol: Protocol) -> Option<&'static str> {
    match protocol {
        Protocol::TCP => Some("tcp"),
        Protocol::UDP => Some("udp"),
        Protocol::SCTP => Some("sctp"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ipvs::Sight, record::ipvs};

    #[test]
    fn what_harms_is_explained() {
        let end = ([10, 96, 0, 10].into(), 80);
        let tuple = Tuple { protocol: Protocol::TCP, client: end, service: end };
        let of = |meaning| Met {
            tuple,
            before: Sight { server: end, state: State::TimeWait, expires: 1 },
            server: end,
            standing: Standing::Unknown,
            verdict: Some(Verdict::Reused),
            confidence: Confidence::Certain,
            idle: None,
            meaning,
            may_have_expired: false,
        };
        let situation = Situation::DrainingServerModeOff;
        for (severity, is_explained) in [
            (Severity::Info, false),
            (Severity::Unknown, false),
            (Severity::Warning, true),
            (Severity::Critical, true),
        ] {
            let expected = is_explained.then(|| situation.sentence());
            assert_eq!(met(&of(Some((situation, severity)))).explanation, expected, "{severity:?}");
        }
        assert_eq!(met(&of(None)).explanation, None, "nothing is known");
    }

    #[test]
    fn the_schema_has_every_word() {
        let verdicts = Verdict::ALL.iter().map(|verdict| verdict.as_str()).chain(["legacy"]);
        assert_eq!(verdicts.collect::<Vec<_>>(), ipvs::VERDICTS);
        let words: Vec<_> = Confidence::ALL.iter().map(|confidence| confidence.as_str()).collect();
        assert_eq!(words, ipvs::SURENESS);
        let words: Vec<_> = Severity::ALL.iter().map(|severity| severity.as_str()).collect();
        assert_eq!(words, ipvs::SEVERITIES);
        let words: Vec<_> = Situation::ALL.iter().map(|situation| situation.as_str()).collect();
        assert_eq!(words, ipvs::SITUATIONS);
        let watched = [Protocol::TCP, Protocol::UDP, Protocol::SCTP].map(transport);
        assert_eq!(watched.map(Option::unwrap), ipvs::TRANSPORTS);
    }
}
